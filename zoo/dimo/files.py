"""Reading the weights of a DIMO repository. Whatever does not fit the configuration is refused, naming the tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.dimo.config import DIMOConfig
from zoo.dimo.model import DIMO
from zoo.errors import RepositoryError
from zoo.precision import SCALE, Storage, check_scales, unpack
from zoo.weights import ADVICE, check_kind, check_state

if TYPE_CHECKING:
    from zoo.dimo.text import TextHead

PARTS = ("dimo", "text")  # prefixes of the tensors' names


def read_parts(
    file: Path, config: DIMOConfig, text: dict[str, str] | None
) -> tuple[DIMO, TextHead | None, Storage]:
    """Read a model, its text head, and how its matrices are stored; in single precision on the CPU.

    Args:
        file: model.safetensors, as `DIMOPipeline.save_to` writes it.
        config: of the model.
        text: "encoder" (language model) and "kind" of the text head; None if the model has no text head.

    Raises:
        RepositoryError: a tensor is missing, is not expected, or has another shape, data type or range.
    """
    from safetensors.torch import load_file

    state: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in load_file(file).items():
        part, _, rest = name.partition(".")
        if part not in state or (part == "text" and text is None):
            raise RepositoryError(f"{file}: the tensor {name!r} is not one of this model; {ADVICE}")
        state[part][rest] = tensor
    storage: Storage = "int8" if any(name.endswith(SCALE) for name in state["dimo"]) else "float16"
    for part, packed in state.items():
        check_scales(file, part, packed)
        state[part] = unpack(packed)
    model = _model(file, config, state["dimo"])
    return model, None if text is None else _text_head(file, text, state["text"], model), storage


def _model(file: Path, config: DIMOConfig, state: dict[str, Tensor]) -> DIMO:
    for name in ("mu", "means", "key_points"):  # their lengths are the model's sizes
        _check_sizes(file, f"dimo.{name}", state.get(name))
    model = DIMO(config, *(len(state[name]) for name in ("mu", "means", "key_points")))
    check_state(state, model.state_dict(), file, "dimo.")
    for name in ("graph", "neighbours"):  # an index out of range would crash a kernel
        values, count = state[name], len(state["key_points"])
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
            raise RepositoryError(
                f"{file}: the tensor {'dimo.' + name!r} has indices {int(values.min())} to {int(values.max())}, "
                f"expected those of {count} key points; {ADVICE}"
            )
    model.load_state_dict(state)  # converts to single precision
    return model


def _text_head(file: Path, text: dict[str, str], state: dict[str, Tensor], model: DIMO) -> TextHead:
    from zoo.dimo.text import TextHead

    encoder, kind = text["encoder"], text.get("kind", "retrieval")
    outputs = model.mu.shape[1] if kind == "projection" else model.num_motions
    first = "network.0.weight"
    _check_sizes(file, f"text.{first}", state.get(first))
    hidden, width = state[first].shape
    check_state(state, TextHead(encoder, width, outputs, hidden, kind).state_dict(), file, "text.")
    return TextHead.from_state(encoder, state, kind)


def _check_sizes(file: Path, name: str, tensor: Tensor | None) -> None:
    """Refuse a tensor whose shape gives the model's sizes, and that is missing or not a matrix."""
    if tensor is None:
        raise RepositoryError(f"{file}: has no tensor {name!r}; {ADVICE}")
    check_kind(tensor, True, file, name)
    if tensor.ndim != 2 or not tensor.numel():
        raise RepositoryError(
            f"{file}: the tensor {name!r} is {list(tensor.shape)}, expected two dimensions and at least one value; "
            f"{ADVICE}"
        )
