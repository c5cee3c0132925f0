"""Device and precision of the MV-VDM pipeline."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from zoo.placement import placement

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


def moved_first(method: Callable[[Any, Tensor], T]) -> Callable[[Any, Tensor], T]:
    """Let the offloading of accelerate move a module to the GPU before the call of a method other than `forward`.

    Offloading moves a module in a hook of its `forward`. diffusers' decorator `apply_forward_hook` does the same, but
    nothing if accelerate was not installed when the class was defined.
    """

    @functools.wraps(method)
    def call(self: Any, values: Tensor) -> T:
        hook: Any = getattr(self, "_hf_hook", None)
        if hasattr(hook, "pre_forward"):
            hook.pre_forward(self)
        return method(self, values)

    return call


@contextmanager
def without_precision_warning() -> Iterator[None]:
    """Suppress the warning of diffusers 0.37 and newer that "modules … should be kept in float32: []", i.e. none."""
    log = logging.getLogger("diffusers.models.modeling_utils")

    def is_relevant(record: logging.LogRecord) -> bool:
        return "kept in float32: []" not in record.getMessage()

    log.addFilter(is_relevant)
    try:
        yield
    finally:
        log.removeFilter(is_relevant)


class MovablePipeline(DiffusionPipeline):
    """A pipeline of diffusers whose `to` checks its arguments, and whose repr is one line; see `MVVDMPipeline`."""

    card: dict[str, Any]
    unet: Any
    if TYPE_CHECKING:  # diffusers types it as a dict, but its fields are attributes as well

        @property
        def config(self) -> Any: ...

    def __repr__(self) -> str:
        title = f"{self.card['title']!r}, " if self.card.get("title") else ""
        size, config = sum(weight.numel() for weight in self.unet.parameters()), self.config
        return (
            f"MVVDMPipeline({title}{config.num_frames} frames of {config.resolution}×{config.resolution}, network of "
            f"{size:,} parameters, {self.device}, {str(self.dtype).removeprefix('torch.')})"
        )

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the pipeline to a device, convert it to another precision, or both, in place.

        Args:
            args: `to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`.
            kwargs: `device`, `dtype`, and others of diffusers' `to`.

        Returns:
            The pipeline itself.

        Raises:
            PlacementError: the device does not exist here, or models do not compute in this type.
        """
        names = ("device", "dtype", "non_blocking")
        given = {name: kwargs.pop(name) for name in names if name in kwargs}
        target = placement(*args, **given, caller="MVVDMPipeline.to")
        # diffusers warns that float16 cannot run on a CPU, but it can.
        options = {"silence_dtype_warnings": True, **kwargs}
        with without_precision_warning():
            return super().to(target.device, target.dtype, **options)
