"""How depth, normals, flow and tracks are stored, in columns that only datasets rendered with them have.

A cell of `depth_NN`, `normals_NN` or `flow_NN` is what one view has of the whole clip, compressed by Zstandard:
two .npy files one after the other. The first says where there is a value, the second has these values alone, in
reading order, as fixed-point numbers, each minus the one before it. docs/dataset.md shows how to read one.

Measured on view 0 of a kangaroo (256 px, 48 frames; depth / flow / normals, KiB and ms to compress):

    whole pictures, zlib 6 (as alpha)     612 / 374 / 762    55 / 82 / 59
    whole pictures, zstd 3                332 / 308 / 313     5 /  9 /  8
    values alone, zstd 3                  302 / 243 / 199     2 /  5 /  2
    values alone, differences, zstd 3     216 / 213 / 166     3 /  4 /  2    what is stored
    and high and low bytes apart          192 / 174 / 166     2 /  3 /  2    a fifth less, harder to read
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from renderers.cameras import Cameras
from renderers.meshes.clip import RenderedClip, Tracks

MODALITIES = ("depth", "normals", "flow", "tracks")
_FINEST_FLOW = 1.0 / 64.0  # pixels
_ZSTD_LEVEL = 3
# What each column means; NN stands for the number of a view.
DESCRIPTIONS: dict[str, dict[str, str]] = {
    "depth": {
        "depth_step": "metres that 1 stands for in `depth_NN`; half of it is the largest error",
        "depth_NN": "distance along the optical axis: uint16 times `depth_step`, packed",
    },
    "normals": {"normals_NN": "unit normals in world space: octahedral, 2 x uint8, packed"},
    "flow": {
        "flow_step": "pixels that 1 stands for in `flow_NN`; half of it is the largest error",
        "flow_NN": "motion until the next frame, x right, y down: 2 x int16 times `flow_step`, packed",
    },
    "tracks": {
        "track_points": "world positions of P points of the surface: zstd of a .npy, float32 [T, P, 3], metres",
        "track_visible": "who sees them: zstd of a .npy, uint8 [V, T, P / 8], bits, the first point's is the highest",
    },
}


def modality_column(name: str, view: int) -> str:
    return f"{name}_{view:02d}"


def modality_columns(views: int, modalities: Collection[str]) -> list[tuple[str, pa.DataType]]:
    """The columns that modalities add to a row, in the order they are stored in."""
    columns: list[tuple[str, pa.DataType]] = []
    for name in MODALITIES:
        for column in DESCRIPTIONS[name] if name in modalities else ():
            if column.endswith("_NN"):
                columns += [(modality_column(name, view), pa.binary()) for view in range(views)]
            else:
                columns.append((column, pa.float64() if column.endswith("_step") else pa.binary()))
    return columns


def modalities_of(columns: Collection[str]) -> tuple[str, ...]:
    """Which modalities a row or a dataset with these columns has."""
    return tuple(name for name in MODALITIES if next(iter(DESCRIPTIONS[name])).replace("NN", "00") in columns)


def encode_modalities(clip: RenderedClip) -> dict[str, Any]:
    """The columns of whatever a clip has beside colour; equal clips give equal bytes."""
    row: dict[str, Any] = {}
    if clip.depth is not None:
        row["depth_step"] = step = _step(clip.depth, np.iinfo(np.uint16).max)
        for view, depth in enumerate(clip.depth):
            there = depth > 0.0
            row[modality_column("depth", view)] = _pack(there, np.rint(depth[there] / step).astype(np.uint16))
    if clip.normals is not None:
        for view, normals in enumerate(clip.normals):
            there = normals.any(axis=-1)
            row[modality_column("normals", view)] = _pack(there, to_octahedral(normals[there].T))
    if clip.flow is not None:
        row["flow_step"] = step = max(_step(clip.flow, np.iinfo(np.int16).max), _FINEST_FLOW)
        for view, flow in enumerate(clip.flow):
            there = np.isfinite(flow).all(axis=-1)
            row[modality_column("flow", view)] = _pack(there, np.rint(flow[there].T / step).astype(np.int16))
    if clip.tracks is not None:
        row["track_points"] = _compress(_npy(clip.tracks.points))
        row["track_visible"] = _compress(_npy(np.packbits(clip.tracks.visible, axis=-1)))
    return row


def _step(values: np.ndarray, most: int) -> float:
    """The smallest power of two of which `most` reach as far as the values do."""
    largest = max((float(np.nanmax(np.abs(view), initial=0.0)) for view in values), default=0.0)
    return float(2.0 ** np.ceil(np.log2(largest / most))) if largest > 0.0 else 1.0


def to_octahedral(normals: np.ndarray) -> np.ndarray:
    """Unit vectors [3, n] as uint8 [2, n], 0.9 degrees off at most: Cigolle et al. 2014."""
    x, y, z = normals / np.abs(normals).sum(axis=0)
    below = z < 0.0
    folded = (
        np.where(below, (1.0 - np.abs(y)) * np.copysign(1.0, x), x),
        np.where(below, (1.0 - np.abs(x)) * np.copysign(1.0, y), y),
    )
    return (np.rint(np.stack(folded) * 127.0) + 128.0).astype(np.uint8)


def _pack(there: np.ndarray, values: np.ndarray) -> bytes:
    """Values [n] or [C, n] of the n pixels that are `there` [T, H, W]."""
    differences = np.diff(values, axis=-1, prepend=values.dtype.type(0))
    return _compress(_npy(np.packbits(there, axis=-1)) + _npy(differences))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _compress(data: bytes) -> bytes:
    return pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(data, asbytes=True)


def cells_of(name: str, views: Sequence[int]) -> list[str]:
    """The columns that `decode_modality` needs for some views."""
    columns = [column for column in DESCRIPTIONS[name] if not column.endswith("_NN")]
    return columns + ([modality_column(name, view) for view in views] if name != "tracks" else [])


def decode_modality(
    name: str, cells: dict[str, Any], views: Sequence[int], frames: Sequence[int], row: dict[str, Any]
) -> np.ndarray:
    """Depth, normals or flow of some views and frames, as `renderers.meshes.RenderedClip` has them.

    Args:
        cells: the columns of `cells_of`. row: the clip's metadata.
    Returns:
        float32 [V, T, H, W], [V, T, H, W, 3] or [V, T, H, W, 2]. The last frame of a clip has no flow: NaN.
    Raises:
        ValueError: the bytes are not what `encode_modalities` writes.
    """
    shape = (row["num_frames"], row["height"], row["width"])
    unpacked = {view: _unpack(cells[modality_column(name, view)], shape) for view in set(views)}
    channels = {"depth": (), "normals": (3,), "flow": (2,)}[name]
    result = np.full((len(views), *shape, *channels), np.nan if name == "flow" else 0.0, np.float32)
    for place, view in enumerate(views):
        there, values = unpacked[view]
        if name == "depth":
            values = (values * cells["depth_step"]).astype(np.float32)
        elif name == "normals":
            values = from_octahedral(values).T
        else:
            values = (values * cells["flow_step"]).astype(np.float32).T
        result[place, : len(there)][there] = values
    return result[:, list(frames)]


def decode_tracks(
    cells: dict[str, Any], views: Sequence[int], frames: Sequence[int], cameras: Cameras
) -> Tracks:
    """The points of a clip in some views and frames. `cameras`: of these views.

    Raises:
        ValueError: the bytes are not what `encode_modalities` writes.
    """
    points = _read_npy(_decompress(cells["track_points"]))[list(frames)]
    bits = _read_npy(_decompress(cells["track_visible"]))
    visible = np.unpackbits(bits, axis=-1, count=points.shape[1]).astype(bool)
    return Tracks.of(points, visible[np.ix_(views, frames)], cameras)


def from_octahedral(values: np.ndarray) -> np.ndarray:
    """Unit vectors float32 [3, n] of uint8 [2, n]."""
    x, y = (values.astype(np.float32) - 128.0) / 127.0
    z = 1.0 - np.abs(x) - np.abs(y)
    folded = np.maximum(-z, 0.0)
    normals = np.stack([x - np.copysign(folded, x), y - np.copysign(folded, y), z])
    return normals / np.linalg.norm(normals, axis=0)


def _unpack(data: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where there are values, bool [T, H, W], and the values [n] or [C, n]."""
    file = _decompress(data)
    there = np.unpackbits(_read_npy(file), axis=-1, count=shape[-1]).astype(bool)
    differences = _read_npy(file)
    if there.shape[1:] != shape[1:] or there.shape[0] > shape[0] or there.sum() != differences.shape[-1]:
        raise ValueError(f"a packed modality of {there.shape}, expected {shape}")
    return there, np.cumsum(differences, axis=-1, dtype=differences.dtype)


def _read_npy(file: io.BytesIO) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except EOFError as error:
        raise ValueError("an array is missing from a packed modality") from error


def _decompress(data: bytes) -> io.BytesIO:
    try:
        return io.BytesIO(pa.input_stream(pa.py_buffer(data), compression="zstd").read())
    except OSError as error:
        raise ValueError(f"{len(data)} bytes are not Zstandard's ({error})") from error
