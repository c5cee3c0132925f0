"""`GraphMotion`: the motion of a mesh that a deformation graph carries. The solver makes it, the exporters write it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.arguments import array, instance
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class GraphMotion:
    """Nodes of a deformation graph over time, and the vertices that follow them.

    Coordinates are those of the model's file: world space of glTF (+Y up, metres), relative to `Asset.origin`. In frame
    t, node k at g_k in the still model is at p_k(t), rotated by R_k(t), and a vertex x is at
    Σ_k w_k [R_k(t) (x − g_k) + p_k(t)] (linear blend skinning; embedded deformation, Sumner et al. 2007, equation 1).

    Attributes:
        nodes: float64 [K, 3], g, positions in the still model.
        positions: float64 [T, K, 3], p.
        rotations: float64 [T, K, 4], R, as unit quaternions (wxyz).
        vertex_nodes: int64 [V, J], the nodes that move each vertex of the still model, in the order of the vertices of
            `renderers.gltf.Asset`.
        vertex_weights: float64 [V, J], their weights; rows sum to 1.
        times: float64 [T], seconds from the beginning, increasing.
    """

    nodes: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray
    vertex_nodes: np.ndarray
    vertex_weights: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        for name in ("nodes", "positions", "rotations", "vertex_nodes", "vertex_weights", "times"):
            instance(getattr(self, name), np.ndarray, f"GraphMotion.{name}")
            array(getattr(self, name), f"GraphMotion.{name}", ("T",) if name == "times" else None)
        K, T = len(self.nodes), len(self.times)
        for name, shape in {
            "nodes": (K, 3),
            "positions": (T, K, 3),
            "rotations": (T, K, 4),
            "vertex_weights": self.vertex_nodes.shape,
        }.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"GraphMotion: expected {name} of shape {list(shape)} for {K} nodes and {T} frames, "
                    f"got {list(getattr(self, name).shape)}"
                )

    def __repr__(self) -> str:
        return f"GraphMotion({len(self.nodes)} nodes, {len(self.vertex_nodes)} vertices, {len(self.times)} frames)"

    def move(self, vertices: np.ndarray) -> np.ndarray:
        """Positions of the vertices in all frames.

        Args:
            vertices: float [V, 3], positions in the still model.
        Returns:
            float64 [T, V, 3].
        """
        w, xyz = self.rotations[..., :1], self.rotations[..., 1:]
        moved = np.zeros((len(self.times), len(vertices), 3))
        for nodes, weights in zip(self.vertex_nodes.T, self.vertex_weights.T, strict=True):
            offset = vertices - self.nodes[nodes]
            q_w, q = w[:, nodes], xyz[:, nodes]
            # R v = v + 2 w (q × v) + 2 q × (q × v) for a unit quaternion (w, q).
            turn = np.cross(q, offset)
            rotated = offset + 2 * (q_w * turn + np.cross(q, turn))
            moved += weights[:, None] * (rotated + self.positions[:, nodes])
        return moved
