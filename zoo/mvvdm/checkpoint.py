"""Training checkpoints of MV-VDM: one safetensors file with weights, averages, Adam's moments and counters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from renderers.files import atomic_path, file_path

FORMAT = "mvvdm-checkpoint-1"
# Prefixes of tensor names: the trained parameters and their exponential moving averages.
WEIGHT, AVERAGE = "learnt.", "average."


class Checkpoint(Protocol):
    """Storage of a run's state. Writes are atomic. With several workers, only the first one reads and writes."""

    def read(self) -> bytes | None:
        """The last state, or None if there is none."""
        ...

    def write(self, data: bytes) -> None:
        """Replace the state."""
        ...


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint in a local file."""

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        file_path(self.path, "CheckpointFile: path")

    def read(self) -> bytes | None:
        """The content of the file, or None if it does not exist."""
        return Path(self.path).read_bytes() if os.path.exists(self.path) else None

    def write(self, data: bytes) -> None:
        """Replace the file atomically."""
        with atomic_path(self.path) as part:
            part.write_bytes(data)


@dataclass(frozen=True)
class State:
    """A decoded checkpoint.

    Attributes:
        metadata: format, counters and the identity of the run; None if there is no checkpoint.
        tensors: name → tensor, on the CPU.
    """

    metadata: dict[str, Any] | None
    tensors: dict[str, Tensor]


def encode_state(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Serialise contiguous CPU tensors and JSON-serialisable metadata."""
    from safetensors.torch import save

    return save(dict(tensors), {"mvvdm": json.dumps(metadata)})


def decode_state(data: bytes | None) -> State:
    """Decode a checkpoint; None gives an empty state.

    Raises:
        ValueError: the data is not a checkpoint, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if data is None:
        return State(None, {})
    try:
        tensors = load(data)
        # A safetensors file begins with the length of its JSON header, as 8 bytes.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return State(json.loads(header.get("__metadata__", {}).get("mvvdm", "{}")), tensors)
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"not a checkpoint ({error}): remove it to start the training from the beginning"
        ) from error


def averages_of(data: bytes) -> dict[str, Tensor]:
    """The result of a finished run.

    Args:
        data: its checkpoint.

    Returns:
        Parameter name → moving average, or the value after the last step if the run kept no averages.
    """
    tensors = decode_state(data).tensors
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else WEIGHT
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
