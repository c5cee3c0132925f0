"""Checks of weights: finite values, and the tensors that a family's class expects.

The values are read as integers from the mapped file, without copying or converting them: a NaN or infinity of an IEEE
format has all exponent bits set, so its magnitude bits are at least those of infinity. This takes a fraction of the
time of the checksum of the same file.
"""

from __future__ import annotations

import itertools
import json
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import RepositoryError

if TYPE_CHECKING:
    from torch import Tensor

# safetensors' name of a format → bytes per value, and the bits of the smallest non-finite magnitude. Of F8_E4M3, which
# has no infinity, only the largest magnitude is NaN. Integers and the formats of less than a byte are always finite.
_NON_FINITE = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F32": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
    "F8_E4M3": (1, 0x7F),
    "C64": (4, 0x7F80_0000),  # pairs of F32
}
ADVICE = "load another revision of the model, or ask its author to publish it again"


def check_weights(files: Iterable[Path]) -> None:
    """Refuse safetensors files that cannot be read completely, or contain NaN or infinity.

    Args:
        files: of a model, in any floating-point format.

    Raises:
        RepositoryError: one sentence with the file, the tensor and what to do.
    """
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, "np"):  # checks that the header describes exactly the bytes that follow it
                pass
        except (SafetensorError, OSError, ValueError) as error:
            raise RepositoryError(
                f"{file}: cannot be read as safetensors ({_first_line(error)}): the file is truncated, damaged or of "
                f"another format; download the model again, or {ADVICE}"
            ) from error
        _check_finite(file)


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path, prefix: str) -> None:
    """Refuse tensors whose names, shapes or kinds differ from those of a module.

    Args:
        state: name → tensor, as read from the file.
        expected: the module's `state_dict()`.
        file: for messages.
        prefix: of the names in the file, for messages.

    Raises:
        RepositoryError: one sentence with the file, the first tensor that does not fit and what to do.
    """
    for name, tensor in expected.items():
        if name not in state:
            raise RepositoryError(f"{file}: has no tensor {prefix + name!r}; {ADVICE}")
        if state[name].shape != tensor.shape:
            raise RepositoryError(
                f"{file}: the tensor {prefix + name!r} is {list(state[name].shape)}, expected {list(tensor.shape)} "
                f"according to config.json; {ADVICE}"
            )
        check_kind(state[name], tensor.is_floating_point(), file, prefix + name)
    if extra := sorted(set(state) - set(expected)):
        raise RepositoryError(
            f"{file}: the tensor {prefix + extra[0]!r} is not one of the model that config.json describes; upgrade "
            f"menagerie4d if the model was published by a newer version, or {ADVICE}"
        )


def check_kind(tensor: Tensor, floating: bool, file: Path, name: str) -> None:
    """Refuse a tensor of integers where floating-point numbers are expected, and the other way round."""
    if tensor.is_floating_point() != floating or tensor.is_complex():
        expected = "floating-point numbers" if floating else "integers"
        raise RepositoryError(f"{file}: the tensor {name!r} is {tensor.dtype}, expected {expected}; {ADVICE}")


def _check_finite(file: Path) -> None:
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 8 + int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8:start])
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        # Writers sort tensors by format, so the file is a few long runs of one format.
        for dtype, run in itertools.groupby(entries, key=lambda item: item[1]["dtype"]):
            tensors = [(name, entry["data_offsets"]) for name, entry in run]
            first, last = tensors[0][1][0], tensors[-1][1][1]
            if dtype not in _NON_FINITE or not _non_finite(data, start + first, last - first, dtype):
                continue
            for name, (begin, end) in tensors:
                if count := _non_finite(data, start + begin, end - begin, dtype):
                    raise RepositoryError(
                        f"{file}: {count} of {(end - begin) // _NON_FINITE[dtype][0]} values of the tensor {name!r} "
                        f"are NaN or infinite, so the model cannot be used: its training diverged, or the weights "
                        f"were damaged before it was published; {ADVICE}"
                    )


def _non_finite(data: mmap.mmap, offset: int, size: int, dtype: str) -> int:
    """The number of NaN and infinite values in `size` bytes from `offset`."""
    width, least = _NON_FINITE[dtype]
    if not size:
        return 0
    import numpy as np  # not above: listing models needs no arrays

    unsigned = np.frombuffer(data, f"<u{width}", size // width, offset)
    signed = unsigned.view(f"<i{width}")
    sign = 1 << (8 * width - 1)
    # Positive values are the largest as signed integers, negative ones as unsigned integers.
    if int(signed.max()) < least and int(unsigned.max()) < sign + least:
        return 0
    return int(np.count_nonzero((unsigned & np.array(sign - 1, unsigned.dtype)) >= least))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
