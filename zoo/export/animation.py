"""A skinned animation, independent of model families and file formats.

A model family converts its motions to a `SkinnedAnimation`, and each file format has one writer that takes it
(`zoo.export.glb`). Coordinates are glTF's: right-handed, +Y up, front +Z, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.arguments import array, instance
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Mesh:
    """A triangle mesh with a colour per vertex, in the rest pose.

    Attributes:
        vertices: float64 [P, 3].
        normals: float64 [P, 3], unit length, pointing outward.
        colors: float64 [P, 3] in 0..1, sRGB-encoded.
        triangles: int64 [F, 3], counter-clockwise seen from outside.
        name: of the mesh in the file.
        material: name of its material in the file.
        unlit: the colours contain the light they were recorded under, so a viewer should not shade them again.
    """

    vertices: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    triangles: np.ndarray
    name: str = "surface"
    material: str = "vertex colors"
    unlit: bool = True

    def __post_init__(self) -> None:
        for name in ("vertices", "normals", "colors", "triangles"):
            instance(getattr(self, name), np.ndarray, f"Mesh.{name}")
            array(getattr(self, name), f"Mesh.{name}", ("P", 3))
        if self.triangles.size and not 0 <= self.triangles.min() <= self.triangles.max() < len(self.vertices):
            raise ValueError(f"Mesh.triangles: expected indices of {len(self.vertices)} vertices")
        for name in ("normals", "colors"):
            if getattr(self, name).shape != self.vertices.shape:
                raise ValueError(
                    f"Mesh: expected {name} of shape {list(self.vertices.shape)} like the vertices, "
                    f"got {list(getattr(self, name).shape)}"
                )


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Joints:
    """Joints in the rest pose. They have no parents: all transforms are in the space of the mesh.

    Attributes:
        names: one per joint.
        positions: float64 [K, 3], where each joint is bound. Rest rotations are the identity.
        name: of the joints' parent node in the file.
    """

    names: tuple[str, ...]
    positions: np.ndarray
    name: str = "joints"

    def __post_init__(self) -> None:
        instance(self.positions, np.ndarray, "Joints.positions")
        array(self.positions, "Joints.positions")
        if self.positions.shape != (len(self.names), 3):
            raise ValueError(
                f"Joints: expected positions of shape [{len(self.names)}, 3], one per name, "
                f"got {list(self.positions.shape)}"
            )


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SkinnedAnimation:
    """A mesh that joints deform by linear blend skinning.

    With joint k at p_k in the rest pose, and at p_k(t) with rotation R_k(t) in frame t, a vertex x is moved to
    Σ_k w_k [R_k(t) (x − p_k) + p_k(t)].

    Attributes:
        name: of the animation, for people.
        mesh: P vertices.
        joints: K joints.
        vertex_joints: int64 [P, J], the joints that move each vertex.
        vertex_weights: float64 [P, J], their weights; rows sum to 1.
        times: float64 [T], seconds from the beginning.
        positions: float64 [T, K, 3], joint positions.
        rotations: float64 [T, K, 4], joint rotations from the rest pose as quaternions (wxyz) of any length but 0.
    """

    name: str
    mesh: Mesh
    joints: Joints
    vertex_joints: np.ndarray
    vertex_weights: np.ndarray
    times: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray

    def __post_init__(self) -> None:
        instance(self.mesh, Mesh, "SkinnedAnimation.mesh")
        instance(self.joints, Joints, "SkinnedAnimation.joints")
        for name in ("vertex_joints", "vertex_weights", "times", "positions", "rotations"):
            instance(getattr(self, name), np.ndarray, f"SkinnedAnimation.{name}")
            array(getattr(self, name), f"SkinnedAnimation.{name}", ("T",) if name == "times" else None)
        P, K, T = len(self.mesh.vertices), len(self.joints.names), len(self.times)
        influences = self.vertex_joints.shape[-1]
        for name, shape in {
            "vertex_joints": (P, influences),
            "vertex_weights": (P, influences),
            "positions": (T, K, 3),
            "rotations": (T, K, 4),
        }.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{self.name}: expected {name} of shape {list(shape)} for {P} vertices, {K} joints and "
                    f"{T} frames, got {list(getattr(self, name).shape)}"
                )

    @property
    def fps(self) -> float:
        """Mean frame rate; 1 for a single frame."""
        length = float(self.times[-1] - self.times[0])
        return (len(self.times) - 1) / length if length > 0 else 1.0
