"""Devices and precisions: the arguments `device` and `dtype` of `zoo.load` and of the models' `to`.

Importing this module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import PlacementError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float16", "bfloat16", "float32", "float64")


class Placement(NamedTuple):
    """Where to move a model to; None leaves the device or the type as it is.

    Attributes:
        device: an existing device, or "meta".
        dtype: one of `PRECISIONS`.
        non_blocking: as in `torch.Tensor.to`.
    """

    device: torch.device | None = None
    dtype: torch.dtype | None = None
    non_blocking: bool = False


def placement(
    *values: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, caller: str = "to"
) -> Placement:
    """Check the arguments of a call of `to`, which are those of `torch.nn.Module.to`.

    Args:
        values: positional arguments: a device, a floating-point type, a tensor whose device and type are taken, or
            device, type and `non_blocking` in this order.
        device: name, index or `torch.device`.
        dtype: `torch.dtype`, or its name.
        non_blocking: as in `torch.Tensor.to`.
        caller: name of the function, for messages.

    Raises:
        PlacementError: the device does not exist here, or the type is not one of `PRECISIONS`.
        TypeError: an argument of another kind, or one that is given twice.
    """
    import torch

    given: dict[str, Any] = {"device": device, "dtype": dtype}

    def add(name: str, value: Any) -> None:
        if given[name] is not None:
            raise TypeError(f"{caller}: {name} is given twice, as {given[name]!r} and {value!r}")
        given[name] = value

    for value in values:
        if isinstance(value, bool):
            non_blocking = value
        elif isinstance(value, torch.Tensor):
            add("device", value.device)
            add("dtype", value.dtype)
        elif isinstance(value, torch.dtype):
            add("dtype", value)
        elif isinstance(value, str | int | torch.device):
            add("device", value)
        elif value is not None:
            raise TypeError(f"{caller}: expected a device, a floating-point type or a tensor, got {value!r}")
    found = Placement(_device(given["device"], caller), _dtype(given["dtype"], caller), non_blocking)
    if found.device is not None and found.device.type == "mps" and found.dtype == torch.float64:
        raise PlacementError(f"{caller}: the device {found.device} has no float64; use float32")
    return found


def existing_devices() -> list[str]:
    """Names of the devices of this machine that torch can use: "cpu", then those of its accelerator."""
    import torch

    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None  # is_available() is true
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))]


def _device(value: Any, caller: str) -> torch.device | None:
    import torch

    if value is None:
        return None
    existing = existing_devices()
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError, ValueError):
        device = None
    # "meta" exists everywhere: it has shapes, and no values.
    if device is None or (device.type != "meta" and not _exists(device, existing)):
        raise PlacementError(
            f"{caller}: torch has no device {str(value)!r} on this machine, expected one of {', '.join(existing)}"
        )
    return device


def _exists(device: torch.device, existing: list[str]) -> bool:
    if device.index is None or device.type == "cpu":
        return any(name.partition(":")[0] == device.type for name in existing)
    return str(device) in existing


def _dtype(value: Any, caller: str) -> torch.dtype | None:
    import torch

    if value is None:
        return None
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if dtype not in [getattr(torch, name) for name in PRECISIONS]:
        raise PlacementError(
            f"{caller}: models compute in {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got the type {value!r}"
        )
    return dtype
