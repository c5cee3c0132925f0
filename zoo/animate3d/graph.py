"""`Graph`: the deformation graph on a surface, and `GraphPose`, where its nodes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from zoo.animate3d.surface import Surface

INFLUENCES = 4  # nodes per surface point
NEIGHBOURS = 8  # edges per node
_POINT_WIDTH = 0.6  # σ of a point's weights, in node spacings
_EDGE_WIDTH = 1.5  # σ of an edge's stiffness, in node spacings


@dataclass(frozen=True)
class Graph:
    """K nodes on a surface with n points.

    Attributes:
        node_points: int64 [K], the surface points at which the nodes are.
        centres: float64 [K, 3], g, unit space.
        point_nodes: int32 [n, J], nodes that move each point. point_weights: float64 [n, J], rows sum to 1.
        edges: int32 [E, 2], directed, both directions. stiffness: float64 [E], near 1.
        loose: bool [E], edges that exist only because of bridges: the parts may come apart.
        between: float64 [K, K], geodesic distances of the nodes.
        spacing: mean geodesic distance from a node to the nearest other one.
    """

    node_points: np.ndarray
    centres: np.ndarray
    point_nodes: np.ndarray
    point_weights: np.ndarray
    edges: np.ndarray
    stiffness: np.ndarray
    loose: np.ndarray
    between: np.ndarray
    spacing: float

    def matrix(self) -> csr_matrix:
        """The weights as a sparse matrix [n, K]."""
        n, J = self.point_nodes.shape
        rows = np.arange(0, n * J + 1, J)
        return csr_matrix(
            (self.point_weights.ravel(), self.point_nodes.ravel(), rows), (n, len(self.centres))
        )


@dataclass(frozen=True)
class GraphPose:
    """The nodes at one time.

    Attributes:
        rotations: float64 [K, 3, 3], R.
        positions: float64 [K, 3], p.
    """

    rotations: np.ndarray
    positions: np.ndarray

    def stepped(self, step: np.ndarray) -> GraphPose:
        """Apply a step (ω, τ), float64 [K, 6]: R ← exp(ω) R, p ← p + τ."""
        turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
        return GraphPose(turn @ self.rotations, self.positions + step[:, 3:])


def make_graph(surface: Surface, count: int) -> Graph:
    """Place nodes by geodesic farthest-point sampling, and connect them.

    Distances are geodesic (along edges and bridges): nodes that are near in space but far on the surface, as on two
    legs, are not connected.
    """
    n = len(surface.points)
    count = min(count, n)
    first = int(np.linalg.norm(surface.points - surface.points.mean(0), axis=1).argmax())
    node_points = [first]
    distances = [dijkstra(surface.links, indices=first)]
    nearest = distances[0].copy()
    while len(node_points) < count:
        following = int(nearest.argmax())
        if nearest[following] <= 0:
            break
        node_points.append(following)
        distances.append(dijkstra(surface.links, indices=following))
        np.minimum(nearest, distances[-1], out=nearest)
    return _connect(surface, np.array(node_points), np.array(distances))


def _connect(surface: Surface, node_points: np.ndarray, distances: np.ndarray) -> Graph:
    """Weights and edges from geodesic distances [K, n] of the nodes to all points."""
    K = len(node_points)
    between = distances[:, node_points].copy()
    np.fill_diagonal(between, np.inf)
    spacing = float(between.min(1).mean()) if K > 1 else 1.0
    J = min(INFLUENCES, K)
    point_nodes = np.argsort(distances, axis=0, kind="stable")[:J].T
    near = np.take_along_axis(distances.T, point_nodes, 1)
    # Relative to the nearest node, so that the weights of a point far from all nodes do not underflow.
    weights = np.exp(-(near**2 - near[:, :1] ** 2) / (2 * (_POINT_WIDTH * spacing) ** 2))
    weights /= weights.sum(1, keepdims=True)
    degree = min(NEIGHBOURS, K - 1)
    neighbours = np.argsort(between, axis=1, kind="stable")[:, :degree]
    edges = np.stack([np.repeat(np.arange(K), degree), neighbours.ravel()], 1)
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    on_mesh = dijkstra(surface.mesh_links, indices=node_points)
    length = between[edges[:, 0], edges[:, 1]]
    return Graph(
        node_points=node_points,
        centres=surface.points[node_points],
        point_nodes=point_nodes.astype(np.int32),
        point_weights=weights,
        edges=edges.astype(np.int32),
        stiffness=np.exp(-(length**2) / (2 * (_EDGE_WIDTH * spacing) ** 2)),
        loose=on_mesh[edges[:, 0], node_points[edges[:, 1]]] > 1.2 * length,
        between=distances[:, node_points],
        spacing=spacing,
    )


def still_pose(graph: Graph) -> GraphPose:
    """The pose of the still model."""
    return GraphPose(np.tile(np.eye(3), (len(graph.centres), 1, 1)), graph.centres.copy())


def move_points(
    matrix: csr_matrix, graph: Graph, pose: GraphPose, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 3] of the surface points, and their blended rotation matrices [n, 3, 3].

    Σ_k w_k [R_k (x - g_k) + p_k] = B x + c with B = Σ_k w_k R_k and c = Σ_k w_k (p_k - R_k g_k).
    """
    offset = pose.positions - np.einsum("kij,kj->ki", pose.rotations, graph.centres)
    blended = matrix @ np.concatenate([pose.rotations.reshape(-1, 9), offset], 1)
    turn = blended[:, :9].reshape(-1, 3, 3)
    return np.einsum("nij,nj->ni", turn, points) + blended[:, 9:], turn
