"""A page of a glTF mesh that moves, posed in the browser.

The page stores the still mesh with its materials once, and the nodes of a deformation graph over time: 14 bytes per
node and frame, before compression. `skinned_mesh.js` computes the skinning, and `mesh_scene.js` draws with the shaders
of `renderers.meshes.opengl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renderers.arguments import array, instance, number
from renderers.gltf import Asset
from renderers.values import by_value
from zoo.export.html.materials import draw_calls
from zoo.export.html.page import write_page
from zoo.export.html.splats import page_settings


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class MovingMesh:
    """The V vertices of an asset at rest, and K nodes that carry them over T frames.

    In frame t, node k at g_k in the rest pose is at p_k(t), rotated by R_k(t), and a vertex x moves to
    Σ_k w_k [R_k(t) (x − g_k) + p_k(t)], relative to `asset.origin(None)`.

    Attributes:
        asset: triangles, materials, texture coordinates and vertices at rest.
        joints, weights: [V, J], integers below K, and weights in 0..1; rows of weights sum to 1.
        rest: [K, 3], g_k.
        positions, rotations: [T, K, 3] p_k(t) and [T, K, 4] quaternions wxyz of R_k(t). Frames are evenly spaced, and
            the transforms between them are interpolated linearly.
        name: of the motion.
        seconds: from the first frame to the last.
    """

    asset: Asset
    joints: np.ndarray
    weights: np.ndarray
    rest: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray
    name: str
    seconds: float

    def __post_init__(self) -> None:
        instance(self.asset, Asset, "MovingMesh.asset")
        instance(self.name, str, "MovingMesh.name")
        number(self.seconds, "MovingMesh.seconds", 0.0)
        V, K, T, J = self.asset.num_vertices, len(self.rest), len(self.positions), self.joints.shape[-1]
        expected = {
            "joints": (V, J), "weights": (V, J), "rest": (K, 3), "positions": (T, K, 3), "rotations": (T, K, 4),
        }  # fmt: skip
        for name, shape in expected.items():
            array(getattr(self, name), f"MovingMesh.{name}")
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"MovingMesh: expected {name} of shape {list(shape)} for {V} vertices, {K} nodes and {T} frames, "
                    f"got {list(getattr(self, name).shape)}"
                )
        if not (K and T) or not 0 <= self.joints.min() <= self.joints.max() < K:
            raise ValueError(f"MovingMesh: expected nodes, frames, and joints below {K}")


def write_mesh_page(
    path: Path,
    mesh: MovingMesh,
    *,
    target: Sequence[float],
    radius: float,
    facts: Mapping[str, object] | None = None,
    background: Sequence[float] | None = None,
) -> None:
    """Write a page that plays the motion and turns with mouse and touch.

    Args:
        path: file to write.
        mesh: the scene.
        target, radius: a sphere around the moving mesh, for the camera.
        facts: shown below the title, label → value.
        background: sRGB-encoded, three floats in 0..1; None = white, or dark grey in the dark colour scheme.
    """
    instance(mesh, MovingMesh, "write_mesh_page: mesh")
    pose = mesh.asset.pose(None, 0.0)
    draws, drawn = draw_calls(mesh.asset, compress_level=6)
    order = np.argsort(-mesh.weights, axis=1, kind="stable")  # zeros last: they compress to nothing
    weights = np.take_along_axis(mesh.weights, order, 1)
    joints = np.where(weights > 0, np.take_along_axis(mesh.joints, order, 1), 0)
    used = max(1, int((weights > 0).sum(1).max()))
    settings: dict[str, Any] = page_settings(
        [mesh.name], (0.0, 1.0), mesh.seconds, target, radius, background
    )
    arrays = {
        "means": pose.positions,
        "normals": pose.normals,
        "joints": joints[:, :used],
        "weights": weights[:, :used],
        "rest": mesh.rest,
        "motion": np.concatenate([mesh.positions, mesh.rotations], -1)[None],
        **{name: _storable(name, values) for name, values in drawn.items()},
    }
    write_page(
        path, title=mesh.name, facts=facts or {}, renderer=("mesh_scene", "skinned_mesh"),
        scene=settings | {"draws": draws, "mirrored": [bool(each) for each in pose.mirrored]},
        arrays=arrays, differences={"motion": 1} | dict.fromkeys((n for n in drawn if n.startswith("triangles_")), 0),
    )  # fmt: skip


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    """An array of a draw call as `pack` stores it: triangles as pairs of 16 bits, files of images in one column."""
    if name.startswith("triangles_"):
        flat = values.reshape(-1).astype(np.int64)
        return np.stack([flat >> 16, flat & 0xFFFF], -1)
    return values.reshape(-1, 1) if name.startswith("image_") else values
