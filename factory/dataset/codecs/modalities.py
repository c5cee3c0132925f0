"""Encoding of depth, normals, flow and tracks. Only datasets rendered with these modalities have their columns.

A cell of `depth_NN`, `normals_NN` or `flow_NN` holds one view of the whole clip, compressed with Zstandard: two .npy
files in sequence. The first is a bit mask of the pixels with a value. The second contains only these values, in
row-major order, as fixed-point numbers, each stored as the difference from the previous one. docs/dataset.md shows how
to decode a cell without this package.

Measured on view 0 of a kangaroo (256 px, 48 frames; depth / flow / normals; size in KiB, compression time in ms):

    full frames, zlib 6 (as alpha)         612 / 374 / 762    55 / 82 / 59
    full frames, zstd 3                    332 / 308 / 313     5 /  9 /  8
    masked values, zstd 3                  302 / 243 / 199     2 /  5 /  2
    masked values, differences, zstd 3     216 / 213 / 166     3 /  4 /  2    this format
    the same, high and low bytes split     192 / 174 / 166     2 /  3 /  2    a fifth smaller, harder to read
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from renderers.cameras import Cameras
from renderers.meshes.clip import RenderedClip, Tracks

MODALITIES = ("depth", "normals", "flow", "tracks")
_FINEST_FLOW = 1.0 / 64.0  # pixels
_ZSTD_LEVEL = 3
# Meaning of each column, printed in the card and in docs/dataset.md. NN is the number of a view.
DESCRIPTIONS: dict[str, dict[str, str]] = {
    "depth": {
        "depth_step": "quantisation step of `depth_NN`, metres; the largest error is half a step",
        "depth_NN": "distance along the optical axis: uint16 × `depth_step`, packed",
    },
    "normals": {"normals_NN": "unit normals in world space: octahedral encoding, 2 × uint8, packed"},
    "flow": {
        "flow_step": "quantisation step of `flow_NN`, pixels; the largest error is half a step",
        "flow_NN": "motion to the next frame, x right, y down: 2 × int16 × `flow_step`, packed",
    },
    "tracks": {
        "track_points": "world positions of P surface points: zstd-compressed .npy, float32 [T, P, 3], metres",
        "track_visible": "their visibility: zstd-compressed .npy, uint8 [V, T, P / 8], bits, first point highest",
    },
}


def modality_column(name: str, view: int) -> str:
    """Name of the column with one view of a modality."""
    return f"{name}_{view:02d}"


def modality_columns(views: int, modalities: Collection[str]) -> list[tuple[str, pa.DataType]]:
    """Return the columns that modalities add to a row, in storage order."""
    columns: list[tuple[str, pa.DataType]] = []
    for name in MODALITIES:
        for column in DESCRIPTIONS[name] if name in modalities else ():
            if column.endswith("_NN"):
                columns += [(modality_column(name, view), pa.binary()) for view in range(views)]
            else:
                columns.append((column, pa.float64() if column.endswith("_step") else pa.binary()))
    return columns


def modalities_of(columns: Collection[str]) -> tuple[str, ...]:
    """Return the modalities of a row or dataset with the given columns."""
    return tuple(name for name in MODALITIES if next(iter(DESCRIPTIONS[name])).replace("NN", "00") in columns)


def encode_modalities(clip: RenderedClip) -> dict[str, Any]:
    """Encode the modalities of a clip, by column. Equal clips give equal bytes."""
    row: dict[str, Any] = {}
    if clip.depth is not None:
        row["depth_step"] = step = _step(clip.depth, np.iinfo(np.uint16).max)
        for view, depth in enumerate(clip.depth):
            mask = depth > 0.0
            row[modality_column("depth", view)] = _pack(mask, np.rint(depth[mask] / step).astype(np.uint16))
    if clip.normals is not None:
        for view, normals in enumerate(clip.normals):
            mask = normals.any(axis=-1)
            row[modality_column("normals", view)] = _pack(mask, to_octahedral(normals[mask].T))
    if clip.flow is not None:
        row["flow_step"] = step = max(_step(clip.flow, np.iinfo(np.int16).max), _FINEST_FLOW)
        for view, flow in enumerate(clip.flow):
            mask = np.isfinite(flow).all(axis=-1)
            row[modality_column("flow", view)] = _pack(mask, np.rint(flow[mask].T / step).astype(np.int16))
    if clip.tracks is not None:
        row["track_points"] = _compress(_npy(clip.tracks.points))
        row["track_visible"] = _compress(_npy(np.packbits(clip.tracks.visible, axis=-1)))
    return row


def _step(values: np.ndarray, limit: int) -> float:
    """Return the smallest power of two s with |values| <= limit · s, so that fixed-point values fit their type."""
    largest = max((float(np.nanmax(np.abs(view), initial=0.0)) for view in values), default=0.0)
    return float(2.0 ** np.ceil(np.log2(largest / limit))) if largest > 0.0 else 1.0


def to_octahedral(normals: np.ndarray) -> np.ndarray:
    """Encode unit vectors [3, n] as uint8 [2, n] with an error of at most 0.95 degrees.

    Octahedral encoding (Cigolle et al. 2014, "A Survey of Efficient Representations for Independent Unit Vectors"):
    project onto the octahedron |x| + |y| + |z| = 1, fold its lower half (z < 0) outwards over the diagonals of the
    square |x|, |y| <= 1, and quantise x and y.
    """
    x, y, z = normals / np.abs(normals).sum(axis=0)
    below = z < 0.0
    folded = (
        np.where(below, (1.0 - np.abs(y)) * np.copysign(1.0, x), x),
        np.where(below, (1.0 - np.abs(x)) * np.copysign(1.0, y), y),
    )
    return (np.rint(np.stack(folded) * 127.0) + 128.0).astype(np.uint8)


def _pack(mask: np.ndarray, values: np.ndarray) -> bytes:
    """Encode the values [n] or [C, n] of the n pixels in `mask`, bool [T, H, W]."""
    differences = np.diff(values, axis=-1, prepend=values.dtype.type(0))
    return _compress(_npy(np.packbits(mask, axis=-1)) + _npy(differences))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _compress(data: bytes) -> bytes:
    return pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(data, asbytes=True)


def cells_of(name: str, views: Sequence[int]) -> list[str]:
    """Return the columns needed to decode some views of a modality."""
    columns = [column for column in DESCRIPTIONS[name] if not column.endswith("_NN")]
    return columns + ([modality_column(name, view) for view in views] if name != "tracks" else [])


def decode_modality(
    name: str, cells: Mapping[str, Any], views: Sequence[int], frames: Sequence[int], row: Mapping[str, Any]
) -> np.ndarray:
    """Decode depth, normals or flow of some views and frames, in the form of `renderers.meshes.RenderedClip`.

    Args:
        name: "depth", "normals" or "flow".
        cells: values of the columns returned by `cells_of`.
        views: indices, in any order, repeats allowed.
        frames: likewise.
        row: metadata of the clip.

    Returns:
        float32 [V, T, H, W] (depth), [V, T, H, W, 3] (normals) or [V, T, H, W, 2] (flow; NaN in the last frame of the
        clip, which has none).

    Raises:
        ValueError: the data is damaged.
    """
    shape = (row["num_frames"], row["height"], row["width"])
    unpacked = {view: _unpack(cells[modality_column(name, view)], shape) for view in set(views)}
    channels = {"depth": (), "normals": (3,), "flow": (2,)}[name]
    result = np.full((len(views), *shape, *channels), np.nan if name == "flow" else 0.0, np.float32)
    for place, view in enumerate(views):
        mask, values = unpacked[view]
        if name == "depth":
            values = (values * cells["depth_step"]).astype(np.float32)
        elif name == "normals":
            values = from_octahedral(values).T
        else:
            values = (values * cells["flow_step"]).astype(np.float32).T
        result[place, : len(mask)][mask] = values
    return result[:, list(frames)]


def decode_tracks(
    cells: Mapping[str, Any], views: Sequence[int], frames: Sequence[int], cameras: Cameras
) -> Tracks:
    """Decode the tracked points of some views and frames.

    Args:
        cells: values of the columns returned by `cells_of`.
        views: indices.
        frames: indices.
        cameras: of these views.

    Raises:
        ValueError: the data is damaged.
    """
    points = _read_npy(_decompress(cells["track_points"]))[list(frames)]
    bits = _read_npy(_decompress(cells["track_visible"]))
    visible = np.unpackbits(bits, axis=-1, count=points.shape[1]).astype(bool)
    return Tracks.of(points, visible[np.ix_(views, frames)], cameras)


def from_octahedral(values: np.ndarray) -> np.ndarray:
    """Decode uint8 [2, n] to unit vectors, float32 [3, n]; the inverse of `to_octahedral`."""
    x, y = (values.astype(np.float32) - 128.0) / 127.0
    z = 1.0 - np.abs(x) - np.abs(y)
    folded = np.maximum(-z, 0.0)
    normals = np.stack([x - np.copysign(folded, x), y - np.copysign(folded, y), z])
    return normals / np.linalg.norm(normals, axis=0)


def _unpack(data: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Decode a cell to its mask, bool [T, H, W], and the values [n] or [C, n]. Flow has T - 1 frames."""
    file = _decompress(data)
    mask = np.unpackbits(_read_npy(file), axis=-1, count=shape[-1]).astype(bool)
    differences = _read_npy(file)
    if mask.shape[1:] != shape[1:] or mask.shape[0] > shape[0] or mask.sum() != differences.shape[-1]:
        raise ValueError(
            f"a packed modality has a mask of shape {mask.shape} with {mask.sum()} pixels and "
            f"{differences.shape[-1]} values; expected shape {shape} and as many values as pixels"
        )
    return mask, np.cumsum(differences, axis=-1, dtype=differences.dtype)


def _read_npy(file: io.BytesIO) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except EOFError as error:
        raise ValueError("a packed modality ends before its second array") from error


def _decompress(data: bytes) -> io.BytesIO:
    try:
        return io.BytesIO(pa.input_stream(pa.py_buffer(data), compression="zstd").read())
    except OSError as error:
        raise ValueError(f"{len(data)} bytes are not Zstandard data ({error})") from error
