"""A triangle mesh as a binary PLY file, with normals, texture coordinates and colours per vertex."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_mesh(
    path: Path,
    vertices: np.ndarray,
    triangles: np.ndarray,
    normals: np.ndarray,
    texcoords: np.ndarray,
    colors: np.ndarray,
) -> None:
    """Write a mesh.

    Args:
        path: of the file.
        vertices, normals: [V, 3].
        triangles: [F, 3].
        texcoords: [V, 2], as in glTF, v downward; PLY has v upward.
        colors: [V, 4], linear light; written sRGB-encoded.
    """
    linear = colors[:, :3].astype(np.float64).clip(0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    columns = [
        *(("<f4", name, column) for name, column in zip("xyz", vertices.T, strict=True)),
        *(("<f4", name, column) for name, column in zip(("nx", "ny", "nz"), normals.T, strict=True)),
        ("<f4", "s", texcoords[:, 0]),
        ("<f4", "t", 1.0 - texcoords[:, 1]),
        *(("u1", name, column) for name, column in zip(("red", "green", "blue"), np.rint(255 * srgb.T))),
        ("u1", "alpha", np.rint(255 * colors[:, 3].clip(0.0, 1.0))),
    ]
    table = np.empty(len(vertices), [(name, kind) for kind, name, _ in columns])
    for _, name, values in columns:
        table[name] = values
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {'float' if kind == '<f4' else 'uchar'} {name}" for kind, name, _ in columns),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    path.write_bytes("\n".join(lines).encode() + table.tobytes() + faces.tobytes())
