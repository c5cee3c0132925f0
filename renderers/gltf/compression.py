"""Decoders of compressed data: KHR_meshopt_compression, EXT_meshopt_compression and KHR_draco_mesh_compression.

The functions take plain data and raise `GltfError` without the name of the asset, which `Document` adds.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Collection
from types import ModuleType

import numpy as np

from renderers.gltf.limits import GltfError, UnsupportedGltf

# The Khronos name adds a filter and version 1 of the vertex format, which meshoptimizer tells by the first byte.
MESHOPT = ("KHR_meshopt_compression", "EXT_meshopt_compression")
DRACO = "KHR_draco_mesh_compression"


def decode_meshopt(data: bytes, count: int, stride: int, mode: object, filter: str) -> np.ndarray:
    """Decompress one buffer view.

    Args:
        data: compressed bytes.
        count, stride: number of elements and bytes per element after decompression.
        mode: "ATTRIBUTES", "TRIANGLES" or "INDICES".
        filter: "NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL" or "COLOR"; only for ATTRIBUTES.
    Returns:
        uint8 [count * stride].
    Raises:
        UnsupportedGltf: the meshoptimizer package is not installed.
        GltfError: the data or the parameters are invalid.
    """
    meshoptimizer = _library("meshoptimizer", MESHOPT[0])
    try:
        if mode == "ATTRIBUTES" and 0 < stride <= 256 and stride % 4 == 0:
            out = meshoptimizer.decode_vertex_buffer(count, stride, data, np.dtype((np.void, stride)))
            filters: dict[str, tuple[Callable | None, Collection[int]]] = {
                "OCTAHEDRAL": (meshoptimizer.decode_filter_oct, (4, 8)),
                "QUATERNION": (meshoptimizer.decode_filter_quat, (8,)),
                "EXPONENTIAL": (meshoptimizer.decode_filter_exp, range(4, 257, 4)),
                "COLOR": (_decode_color, (4, 8)),
            }
            if filter != "NONE":
                unfilter, strides = filters.get(filter, (None, ()))
                if unfilter is None or stride not in strides:
                    raise GltfError(f"filter {filter[:80]!r} with byteStride {stride}; export the file again")
                out = unfilter(out, count, stride)
        elif mode == "TRIANGLES" and stride in (2, 4) and count % 3 == 0:
            out = meshoptimizer.decode_index_buffer(count, stride, data)
        elif mode == "INDICES" and stride in (2, 4):
            out = meshoptimizer.decode_index_sequence(count, stride, data)
        else:
            raise GltfError(
                f"mode {str(mode)[:80]!r} with byteStride {stride} and count {count}; export the file again"
            )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, GltfError):
            raise
        raise GltfError(f"the data cannot be decoded ({error}); export the file again") from error
    return np.ascontiguousarray(out).view(np.uint8).reshape(-1)[: count * stride]


def _decode_color(data: np.ndarray, count: int, stride: int) -> np.ndarray:
    """Convert YCoCg colours to RGBA (KHR_meshopt_compression, appendix B, filter 4).

    Each element is Y (unsigned), Co, Cg (signed) and alpha, of K bits each. Bit K - 1 of the last component is set and
    gives K; the K - 1 bits below it are alpha.

    Args:
        data: `count` elements of four integers of `stride` / 4 bytes.
    Returns:
        Unsigned integers [count, 4], normalised.
    """
    unsigned = np.dtype(f"<u{stride // 4}")
    stored = np.ascontiguousarray(data).view(unsigned).reshape(count, 4)
    signed = stored.view(unsigned.str.replace("u", "i")).astype(np.int64)
    y, co, cg, alpha = (
        stored[:, 0].astype(np.int64),
        signed[:, 1],
        signed[:, 2],
        stored[:, 3].astype(np.int64),
    )
    largest = (1 << np.frexp(alpha.astype(np.float64))[1].astype(np.int64)) - 1  # 2^K - 1; frexp gives K
    alpha &= largest >> 1
    alpha = alpha << 1 | alpha & 1  # one bit more, as the colours have
    rgba = np.stack([y + co - cg, y + cg, y - co - cg, alpha], 1)
    limit = np.iinfo(unsigned).max
    scaled = rgba * (limit / np.maximum(largest, 1))[:, None]
    return np.clip(np.floor(scaled + 0.5), 0, limit).astype(unsigned)


def decode_draco(data: bytes, vertices: int, triangles: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Decompress a mesh.

    Args:
        data: a Draco bitstream.
        vertices, triangles: the numbers that the accessors declare.
    Returns:
        triangles int64 [F, 3], and arrays [vertices, width] by Draco attribute id. Attributes with another number of
        vertices are left out.
    Raises:
        UnsupportedGltf: the DracoPy package is not installed.
        GltfError: the data is invalid, or its header declares more than the accessors.
    """
    library = _library("DracoPy", DRACO)
    faces, points = _draco_counts(data)
    # A small file may declare a huge mesh. The counts of the accessors have passed `Limits`.
    if faces > max(triangles, 1) or points > max(vertices, 3 * triangles, 1):
        raise GltfError(
            f"the data declares {faces} triangles and {points} vertices, the accessors {triangles} and {vertices}; "
            "export the asset again"
        )
    try:
        mesh = library.decode(data)
        attributes = {item["unique_id"]: np.asarray(item["data"]) for item in mesh.attributes}
        corners = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
    except Exception as error:  # the bindings raise exceptions of several unrelated types
        raise GltfError(f"the data cannot be decoded ({error}); export the asset again") from error
    return corners, {
        key: values.reshape(vertices, -1) for key, values in attributes.items() if len(values) == vertices
    }


def _library(module: str, feature: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UnsupportedGltf(
            f"{feature} requires the package {module}, which is not installed: pip install 'menagerie4d[render]'"
        ) from None


def _draco_counts(data: bytes) -> tuple[int, int]:
    """Read the numbers of triangles and points from the header of a Draco bitstream; 0, 0 if they cannot be read.

    Bitstream 2.2: "DRACO", major, minor, geometry type, method, flags; then, as varints, for the edgebreaker (method 1)
    its traversal type, vertices and faces, and for the sequential method faces and points.
    """
    flags = struct.unpack_from("<H", data, 9)[0] if len(data) > 11 else 0
    if data[:5] != b"DRACO" or tuple(data[5:7]) < (2, 2) or flags & 0x8000:
        return 0, 0  # an older version, or metadata before the counts: the decoder's own checks must suffice
    offset, method = 11, data[8]
    if method == 1:
        offset += 1
    numbers = []
    for _ in range(2):
        value, shift = 0, 0
        while offset < len(data) and shift < 63:
            byte = data[offset]
            value |= (byte & 0x7F) << shift
            offset, shift = offset + 1, shift + 7
            if not byte & 0x80:
                break
        numbers.append(value)
    first, second = numbers
    return (second, first) if method == 1 else (first, second)
