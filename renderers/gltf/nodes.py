"""The transform tree of a glTF file: parents, levels, and local transforms of the rest pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers import fixed
from renderers.gltf.document import Document
from renderers.gltf.pointers import animated_visibility, is_hidden


@dataclass
class Nodes:
    """The transform tree of n nodes. In arrays of world matrices, row n is the world: identity, the parent of roots.

    Attributes:
        parents: int [n], -1 for roots.
        levels: node indices by depth in the tree, roots first.
        visible: nodes of the default scene, in depth-first order, without those that are hidden at every time.
        shown: bool [n], whether the node itself is visible at rest (KHR_node_visibility).
        translation_scale: float64 [2n, 3], n translations, then n scales.
        rotation: float64 [n, 4], unit quaternions xyzw.
        local: float64 [n, 4, 4], local matrices of the rest pose.
    """

    parents: np.ndarray
    levels: list[np.ndarray]
    visible: list[int]
    shown: np.ndarray
    translation_scale: np.ndarray
    rotation: np.ndarray
    local: np.ndarray

    def __len__(self) -> int:
        return len(self.parents)

    def world(self, local: np.ndarray) -> np.ndarray:
        """Multiply local matrices [n, 4, 4] along the tree; return world matrices float64 [n + 1, 4, 4]."""
        world = np.tile(np.eye(4), (len(self) + 1, 1, 1))
        for level in self.levels:
            world[level] = fixed.product(world[self.parents[level]], local[level])
        return world


def read_nodes(document: Document) -> Nodes:
    """Read and validate the transform tree."""
    owners = document.items("nodes")
    document.within(len(owners), "nodes", "nodes")
    children = [document.indices(o, "children", "nodes", f"nodes[{i}]") for i, o in enumerate(owners)]
    parents, levels = _tree(document, children)
    translation_scale, rotation, local = _local_transforms(document, owners)
    shown = np.array([not is_hidden(document, node) for node in range(len(owners))], bool)
    visible = _visible_nodes(document, parents, children, shown)
    return Nodes(parents, levels, visible, shown, translation_scale, rotation, local)


def _tree(document: Document, children: list[list[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the parents int [n] (-1 for roots) and the node indices by depth; fail if the nodes are not a forest."""
    count = len(children)
    parents = np.full(count, -1)
    for parent, below in enumerate(children):
        for child in below:
            if parents[child] >= 0 or child == parent:
                document.fail(
                    f"nodes[{child}] has several parents or is its own child, expected a tree of nodes; "
                    "export the asset again"
                )
            parents[child] = parent
    levels, level = [], [i for i in range(count) if parents[i] < 0]
    while level:
        levels.append(np.array(level))
        level = [child for node in level for child in children[node]]
    if sum(map(len, levels)) < count:
        document.fail("the nodes form a cycle, expected a tree of nodes; export the asset again")
    return parents, levels


def _local_transforms(document: Document, owners: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read `translation_scale`, `rotation` and `local` of `Nodes`."""
    count = len(owners)
    translation_scale = np.zeros((2 * count, 3))
    rotation = np.zeros((count, 4))
    local = np.tile(np.eye(4), (count, 1, 1))
    for i, owner in enumerate(owners):
        where = f"nodes[{i}]"
        if owner.get("matrix") is not None:
            matrix = document.vector(owner, "matrix", np.eye(4).reshape(-1), where).reshape(4, 4).T
            translation_scale[i], rotation[i], translation_scale[count + i] = _decompose(matrix)
            local[i] = matrix
        else:
            translation_scale[i] = document.vector(owner, "translation", (0, 0, 0), where)
            translation_scale[count + i] = document.vector(owner, "scale", (1, 1, 1), where)
            rotation[i] = document.vector(owner, "rotation", (0, 0, 0, 1), where)
    rotation = unit_quaternions(rotation)
    composed = np.array([owner.get("matrix") is None for owner in owners], bool)
    local[composed] = compose(translation_scale[:count], rotation, translation_scale[count:])[composed]
    return translation_scale, rotation, local


def _visible_nodes(
    document: Document, parents: np.ndarray, children: list[list[int]], own: np.ndarray
) -> list[int]:
    """List the nodes of the default scene depth first; without scenes, all nodes.

    Hidden nodes (not `own` visible) are left out with everything below, unless an animation may show them.
    """
    animated = animated_visibility(document)
    scene = document.index(document.json, "scene", "scenes", "top level") or 0
    scenes = document.items("scenes")
    shown = (
        document.indices(scenes[scene], "nodes", "nodes", f"scenes[{scene}]")
        if scenes
        else [i for i in range(len(parents)) if parents[i] < 0]
    )
    visible: list[int] = []
    seen: set[int] = set()
    stack = shown[::-1]
    while stack:
        node = stack.pop()
        if node not in seen and (own[node] or node in animated):
            seen.add(node)
            visible.append(node)
            stack.extend(reversed(children[node]))
    return visible


def compose(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Compose T·R·S, float64 [n, 4, 4], from translations [n, 3], unit quaternions xyzw [n, 4] and scales [n, 3]."""
    x, y, z, w = rotation.T
    matrix = np.zeros((len(rotation), 4, 4))
    matrix[:, 0, 0] = 1 - 2 * (y * y + z * z)
    matrix[:, 0, 1] = 2 * (x * y - z * w)
    matrix[:, 0, 2] = 2 * (x * z + y * w)
    matrix[:, 1, 0] = 2 * (x * y + z * w)
    matrix[:, 1, 1] = 1 - 2 * (x * x + z * z)
    matrix[:, 1, 2] = 2 * (y * z - x * w)
    matrix[:, 2, 0] = 2 * (x * z - y * w)
    matrix[:, 2, 1] = 2 * (y * z + x * w)
    matrix[:, 2, 2] = 1 - 2 * (x * x + y * y)
    matrix[:, :3, :3] *= scale[:, None, :]
    matrix[:, :3, 3] = translation
    matrix[:, 3, 3] = 1
    return matrix


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decompose a matrix without shear into translation, quaternion xyzw and scale; reflections go into scale x."""
    scale = fixed.norm(matrix[:3, :3].T)
    if fixed.determinant(matrix[:3, :3]) < 0:
        scale[0] = -scale[0]
    m = matrix[:3, :3] / np.where(scale == 0, 1, scale)
    # The quaternion is the eigenvector of the largest eigenvalue of K (Bar-Itzhack 2000): no case distinction needed.
    k = np.array(
        [
            [0.5 * (m[0, 0] - m[1, 1] - m[2, 2]), 0, 0, 0],
            [m[1, 0] + m[0, 1], 0.5 * (m[1, 1] - m[0, 0] - m[2, 2]), 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], 0.5 * (m[2, 2] - m[0, 0] - m[1, 1]), 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 0.5 * (m[0, 0] + m[1, 1] + m[2, 2])],
        ]
    )
    rotation = fixed.eigen(k + k.T)[1][:, -1]
    return matrix[:3, 3], rotation, scale


def unit_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """Normalise quaternions xyzw [..., 4]; zeros, which some exporters write, become the identity."""
    length = fixed.norm(quaternions)[..., None]
    return np.where(length > 0, quaternions / np.where(length > 0, length, 1), (0.0, 0.0, 0.0, 1.0))
