"""Add a motion to a glTF file as a skin whose joints are the nodes of the deformation graph.

A vertex x of a mesh at a node with world matrix M is at M x in the still model, and moves to
Σ_k w_k [R_k(t) (M x − g_k) + p_k(t)]. As a skin, x moves to Σ_k w_k J_k(t) B_k x with the world matrix J_k = T(p_k) R_k
of the joint and the inverse bind matrix B_k = T(−g_k) M: the same, with the vertices of the file as they are.

The transform of a node does not apply to a skinned mesh (glTF §3.7.3.3), so that such a mesh is moved to a new node at
the root of the scene; the node that it was at stays, with everything below it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renderers.gltf.compression import DRACO
from renderers.gltf.editing import GltfEditor
from renderers.gltf.rest import RestPart, stored_geometry
from renderers.gltf.writing import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, FLOAT, UINT8, UINT16, UINT32
from zoo.animate3d.gltf_nodes import place_in_scenes, release_mesh, retarget_weights
from zoo.animate3d.loading import StillModel
from zoo.animate3d.motion import GraphMotion
from zoo.errors import ModelError
from zoo.export.keys import continuous, distance, kept_keys, lerp, slerp, turn

_SHEAR = 1e-5  # relative; a matrix with less is a rotation, a reflection and a uniform scale
_SAME_PLACE = (
    1e-6  # of the diagonal; vertices that a common matrix moves this close to theirs have that matrix
)


@dataclass(frozen=True)
class WrittenPart:
    """Where a primitive of the still model is in the written file.

    Attributes:
        node: its node.
        index: in the mesh of that node.
        reversed: its triangles have vertices of their own, and these are in reverse order.
    """

    node: int
    index: int
    reversed: bool = False


@dataclass(frozen=True)
class _Placement:
    """How the vertices of the parts at one node get to the world.

    Attributes:
        matrix: float64 [4, 4], from the stored vertices to the world.
        baked: new vertices are stored instead, which are in the world relative to the model's origin.
    """

    matrix: np.ndarray
    baked: bool


def add_skin(
    editor: GltfEditor,
    model: StillModel,
    motion: GraphMotion,
    name: str,
    *,
    tolerance: float,
    influences: int,
) -> list[WrittenPart]:
    """Add a motion as a skin and an animation.

    Args:
        editor: the file of the model.
        model: the still model.
        motion: its motion.
        name: of the animation.
        tolerance: how far key frames may be left out, as a share of the model's diagonal.
        influences: most joints that move a vertex. The largest weights are kept and divided by their sum.
    Returns:
        where the parts of the model are now, in the order of `model.asset.primitives`.
    """
    parts = model.parts()
    writer = _SkinWriter(editor, model, motion, influences)
    places = writer.write(parts)
    writer.animate(name, tolerance * model.diagonal())
    return places


def strongest(
    part: RestPart, motion: GraphMotion, influences: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the strongest influences of the vertices that the file stores for a part.

    A stored vertex that the asset has several times, once per flat triangle, gets the mean of their weights.

    Returns:
        nodes int64 [count, L] and weights float64 [count, L] with rows that sum to 1; unused places have weight 0 and
        node 0, and so have vertices that no triangle uses, all of their weight. And the distinct nodes that are used.
    """
    K, J = len(motion.nodes), motion.vertex_nodes.shape[1]
    rows = np.repeat(part.stored, J)
    columns = motion.vertex_nodes[part.vertices].reshape(-1)
    values = np.maximum(motion.vertex_weights[part.vertices].reshape(-1), 0.0)
    pairs, where = np.unique(rows * K + columns, return_inverse=True)
    sums = np.bincount(where, values)
    rows, columns = pairs // K, pairs % K
    order = np.lexsort((-sums, rows))
    rows, columns, sums = rows[order], columns[order], sums[order]
    first = np.searchsorted(rows, np.arange(part.count))
    rank = np.arange(len(rows)) - first[rows]
    keep = (rank < influences) & (sums > 0)
    nodes = np.zeros((part.count, influences), np.int64)
    weights = np.zeros((part.count, influences))
    nodes[rows[keep], rank[keep]] = columns[keep]
    weights[rows[keep], rank[keep]] = sums[keep]
    unused = weights.sum(1) == 0
    weights[unused, 0] = 1.0
    weights /= weights.sum(1, keepdims=True)
    used = nodes[~unused][weights[~unused] > 0]
    return nodes, weights, np.unique(used)


class _SkinWriter:
    """Binds the meshes of a file to new joints."""

    def __init__(self, editor: GltfEditor, model: StillModel, motion: GraphMotion, influences: int) -> None:
        self._editor = editor
        self._model = model
        self._motion = motion
        self._influences = influences
        self._origin = model.asset.origin(None)
        self._diagonal = model.diagonal()
        self._mirrored = model.asset.pose(None, 0.0).mirrored
        self._cache: dict[tuple[str, bytes], int] = {}

    def write(self, parts: Sequence[RestPart]) -> list[WrittenPart]:
        """Add joints and skins, and bind all parts; return where they are."""
        bound = [strongest(part, self._motion, self._influences) for part in parts]
        self._add_joints(np.unique(np.concatenate([used for _, _, used in bound])))
        groups: dict[int, list[int]] = {}
        for number, part in enumerate(parts):
            groups.setdefault(part.node, []).append(number)
        placements = {node: self._placement([parts[n] for n in group]) for node, group in groups.items()}
        skins = self._add_skins(
            [(placements[node], [bound[n][2] for n in group]) for node, group in groups.items()]
        )
        roots: list[tuple[int, int]] = []  # the node that a mesh was at, and the one that it is at now
        places: list[WrittenPart | None] = [None] * len(parts)
        for (node, group), (skin, columns) in zip(groups.items(), skins, strict=True):
            new, mesh, indices = release_mesh(self._editor, node, [parts[n].index for n in group])
            self._editor.json["nodes"][new]["skin"] = skin
            for number, index in zip(group, indices, strict=True):
                primitive = self._editor.json["meshes"][mesh]["primitives"][index]
                nodes, weights, _ = bound[number]
                self._bind(primitive, columns[nodes], weights)
                mirrored = bool(self._mirrored[number])
                self._shape(primitive, parts[number], placements[node], mirrored)
                flat = "NORMAL" not in primitive["attributes"]
                places[number] = WrittenPart(new, index, mirrored and flat)
            roots.append((node, new))
        place_in_scenes(self._editor, roots, self._root)
        retarget_weights(self._editor, dict(roots))
        return [place for place in places if place is not None]

    def _add_joints(self, used: np.ndarray) -> None:
        """Append a node per used graph node, below one at the origin of the model."""
        self._used = used
        self._root = self._editor.append("nodes", {"name": "motion graph"})
        if self._origin.any():
            self._editor.json["nodes"][self._root]["translation"] = self._origin.tolist()
        self._joints = [
            self._editor.append(
                "nodes",
                {
                    "name": f"graph {node:03d}",
                    "translation": [float(x) for x in self._motion.nodes[node].astype(np.float32)],
                },
            )
            for node in used
        ]
        self._editor.json["nodes"][self._root]["children"] = list(self._joints)

    def _placement(self, parts: list[RestPart]) -> _Placement:
        """Find the matrix of all vertices at a node, or decide to store them in the world.

        They are if an existing skin poses them by several matrices; if the matrix stretches directions differently,
        since viewers transform normals with the joint matrices themselves, which is right for uniform scales only; if
        it is a reflection, since readers differ in which side of a triangle a reflecting joint makes the front; and if
        it has a scale, since Blender's bones have none at rest, so that it moves such vertices to other places. Only
        with Draco, whose data cannot be replaced, does a uniform scale stay in the inverse bind matrices.
        """
        matrix = parts[0].transforms[0]
        linear = matrix[:3, :3]
        square = linear.T @ linear
        uniform = np.abs(square - np.eye(3) * square.trace() / 3).max() <= _SHEAR * np.abs(square).max()
        rigid = np.abs(square - np.eye(3)).max() <= _SHEAR
        packed = any(self._is_packed(part) for part in parts)
        common = all(self._moves_alike(part, matrix) for part in parts)
        if common and (rigid or (packed and uniform)) and np.linalg.det(linear) > 0:
            return _Placement(matrix, False)
        baked = np.eye(4)
        baked[:3, 3] = self._origin
        return _Placement(baked, True)

    def _is_packed(self, part: RestPart) -> bool:
        """Whether the file stores a part with Draco compression."""
        primitive = self._editor.json["meshes"][part.mesh]["primitives"][part.index]
        return DRACO in (primitive.get("extensions") or {})

    def _moves_alike(self, part: RestPart, matrix: np.ndarray) -> bool:
        if len(part.transforms) == 1:
            return bool((part.transforms[0] == matrix).all())
        local = _stored_positions(self._editor, part)[part.stored]
        moved = np.einsum("nij,nj->ni", part.transforms[:, :3, :3] - matrix[:3, :3], local)
        moved += part.transforms[:, :3, 3] - matrix[:3, 3]
        return bool(np.abs(moved).max() <= _SAME_PLACE * self._diagonal)

    def _add_skins(self, members: list[tuple[_Placement, list[np.ndarray]]]) -> list[tuple[int, np.ndarray]]:
        """Append a skin per distinct matrix; return for each member its skin, and the joint of each graph node."""
        joints: dict[bytes, set[int]] = {}
        for placement, used in members:
            joints.setdefault(placement.matrix.tobytes(), set()).update(np.concatenate(used).tolist())
        skins: dict[bytes, tuple[int, np.ndarray]] = {}
        position = {int(node): joint for node, joint in zip(self._used, self._joints, strict=True)}
        for placement, _ in members:
            key = placement.matrix.tobytes()
            if key in skins:
                continue
            nodes = sorted(joints[key]) or [int(self._used[0])]
            inverse_bind = np.tile(placement.matrix, (len(nodes), 1, 1))
            inverse_bind[:, :3, 3] -= self._motion.nodes[nodes] + self._origin
            columns = np.zeros(len(self._motion.nodes), np.int64)
            columns[nodes] = np.arange(len(nodes))
            skin = {
                "inverseBindMatrices": self._editor.add(
                    inverse_bind.transpose(0, 2, 1).reshape(-1, 16), "MAT4"
                ),
                "skeleton": self._root,
                "joints": [position[node] for node in nodes],
            }
            skins[key] = self._editor.append("skins", skin), columns
        return [skins[placement.matrix.tobytes()] for placement, _ in members]

    def _bind(self, primitive: dict[str, Any], joints: np.ndarray, weights: np.ndarray) -> None:
        """Set JOINTS_n and WEIGHTS_n of a primitive in place of those it has."""
        attributes = primitive["attributes"]
        packed = (primitive.get("extensions") or {}).get(DRACO, {}).get("attributes", {})
        for mapping in (attributes, packed):
            for key in [key for key in mapping if key.startswith(("JOINTS_", "WEIGHTS_"))]:
                del mapping[key]
        weights = weights.astype(np.float32)
        weights[:, 0] += 1.0 - weights.sum(1, dtype=np.float64)  # sums are 1 after rounding, too
        joints = np.where(weights > 0, joints, 0)
        sets = -(-int((weights > 0).sum(1).max()) // 4)
        padding = ((0, 0), (0, 4 * sets - joints.shape[1]))
        if padding[1][1] > 0:
            joints, weights = np.pad(joints, padding), np.pad(weights, padding)
        component = UINT8 if joints.max() < 256 else UINT16
        for number in range(sets):
            columns = slice(4 * number, 4 * number + 4)
            for stem, values, stored in (
                ("JOINTS", joints[:, columns], component),
                ("WEIGHTS", weights[:, columns], FLOAT),
            ):
                attributes[f"{stem}_{number}"] = self._shared(values, stored)

    def _shared(self, values: np.ndarray, component: int) -> int:
        """Append a vertex attribute, or return the accessor of an equal one: primitives may share their vertices."""
        key = (f"{component} {len(values)}", np.ascontiguousarray(values).tobytes())
        if key not in self._cache:
            self._cache[key] = self._editor.add(values, "VEC4", component, ARRAY_BUFFER)
        return self._cache[key]

    def _shape(
        self, primitive: dict[str, Any], part: RestPart, placement: _Placement, mirrored: bool
    ) -> None:
        """Store the vertices in the world if they are baked, and turn triangles that a reflection turns inside out.

        The determinant of a node's transform decides which side of its triangles is the front (glTF §3.7.4); the
        transform of the node is lost, so that the order of the corners has to say it.
        """
        if not placement.baked and not mirrored:
            return
        if DRACO in (primitive.get("extensions") or {}):
            raise ModelError(
                f"{self._model.name}: a mesh compressed with Draco is mirrored or stretched by its node, which a skin "
                "cannot express; save as morph targets (as_='morph'), or export the model without compression"
            )
        if mirrored:
            primitive["indices"] = self._editor.add(
                part.triangles[:, ::-1].reshape(-1), "SCALAR", UINT32, ELEMENT_ARRAY_BUFFER
            )
            primitive.pop("mode", None)
        if placement.baked:
            _bake(self._editor, primitive, part, self._origin)

    def animate(self, name: str, tolerance: float) -> None:
        """Append the animation: a translation and a rotation per joint, with as few keys as the tolerance allows.

        A vertex at x moves by at most |Δp_k| + 2 sin(Δθ_k/2) |x − g_k| for errors Δp and Δθ of its nodes; each term
        gets half of the tolerance.
        """
        motion, times = self._motion, self._motion.times
        rotations = continuous(motion.rotations)
        reach = self._reach()
        identity = np.array([1.0, 0.0, 0.0, 0.0])
        channels: list[dict[str, Any]] = []
        samplers: list[dict[str, Any]] = []
        inputs: dict[bytes, int] = {}

        def channel(joint: int, path: str, kept: np.ndarray, values: np.ndarray) -> None:
            key = kept.tobytes()
            if key not in inputs:
                inputs[key] = self._editor.add(times[kept], "SCALAR", bounds=True, joined=True)
            kind = "VEC3" if path == "translation" else "VEC4"
            output = self._editor.add(values[kept], kind, joined=True)
            samplers.append({"input": inputs[key], "interpolation": "LINEAR", "output": output})
            channels.append(
                {"sampler": len(samplers) - 1, "target": {"node": self._joints[joint], "path": path}}
            )

        for joint, node in enumerate(self._used):
            moved, turned = motion.positions[:, node], rotations[:, node]
            kept = kept_keys(times, moved, tolerance / 2, lerp, distance)
            if not len(channels):  # of all joints: the length of the animation
                kept = np.unique([*kept, 0, len(times) - 1])
            if len(kept) > 1 or distance(moved[0], motion.nodes[node]) > 0:
                channel(joint, "translation", kept, moved)
            kept = kept_keys(times, turned, tolerance / 2 / max(reach[node], 1e-12), slerp, turn)
            if len(kept) > 1 or turn(identity, turned[0]) > 0:
                channel(joint, "rotation", kept, turned[:, [1, 2, 3, 0]])  # glTF stores xyzw
        self._editor.append(
            "animations",
            {"name": name, "channels": channels, "samplers": samplers, "extras": {"description": name}},
        )

    def _reach(self) -> np.ndarray:
        """Distance [K] from each graph node to the farthest vertex that it moves."""
        vertices = self._model.vertices()
        reach = np.zeros(len(self._motion.nodes))
        for nodes, weights in zip(self._motion.vertex_nodes.T, self._motion.vertex_weights.T, strict=True):
            far = np.where(weights > 0, np.linalg.norm(vertices - self._motion.nodes[nodes], axis=1), 0.0)
            np.maximum.at(reach, nodes, far)
        return reach


def _stored_positions(editor: GltfEditor, part: RestPart) -> np.ndarray:
    """Return the vertices that the file stores for a part, float64 [count, 3]."""
    return stored_geometry(editor.document, part).positions.astype(np.float64)


def _bake(editor: GltfEditor, primitive: dict[str, Any], part: RestPart, origin: np.ndarray) -> None:
    """Replace positions, normals, tangents and morph targets by those in the world, relative to `origin`."""
    transforms = np.broadcast_to(part.transforms[:1], (part.count, 4, 4)).copy()
    transforms[part.stored] = part.transforms
    linear = transforms[:, :3, :3]
    # Normals are transformed by the cofactor matrix, the inverse transpose up to a factor.
    cofactors = np.stack([np.cross(linear[:, (i + 1) % 3], linear[:, (i + 2) % 3]) for i in range(3)], axis=1)
    cofactors *= np.where(np.linalg.det(linear) < 0, -1.0, 1.0)[:, None, None]

    def read(attributes: dict[str, int], key: str, *types: str) -> np.ndarray | None:
        if attributes.get(key) is None:
            return None
        return editor.document.floats(attributes[key], part.count, types, key).astype(np.float64)

    attributes = primitive["attributes"] = dict(primitive["attributes"])
    positions = read(attributes, "POSITION", "VEC3")
    assert positions is not None
    moved = np.einsum("nij,nj->ni", linear, positions) + (transforms[:, :3, 3] - origin)
    attributes["POSITION"] = editor.add(moved, "VEC3", target=ARRAY_BUFFER, bounds=True)
    length = np.ones((part.count, 1))
    normals = read(attributes, "NORMAL", "VEC3")
    if normals is not None:
        turned = np.einsum("nij,nj->ni", cofactors, normals)
        length = np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)
        attributes["NORMAL"] = editor.add(turned / length, "VEC3", target=ARRAY_BUFFER)
    tangents = read(attributes, "TANGENT", "VEC4")
    if tangents is not None:
        along = np.einsum("nij,nj->ni", linear, tangents[:, :3])
        tangents[:, :3] = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-30)
        attributes["TANGENT"] = editor.add(tangents, "VEC4", target=ARRAY_BUFFER)
    targets = copy.deepcopy(primitive.get("targets", []))
    for target in targets:
        for key, matrices, scale in (("POSITION", linear, None), ("NORMAL", cofactors, length)):
            delta = read(target, key, "VEC3")
            if delta is not None:
                delta = np.einsum("nij,nj->ni", matrices, delta)
                delta = delta if scale is None else delta / scale
                target[key] = editor.add(delta, "VEC3", target=ARRAY_BUFFER, bounds=key == "POSITION")
    if targets:
        primitive["targets"] = targets
