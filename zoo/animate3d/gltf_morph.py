"""Add a motion to a glTF file as morph targets: one per key frame, with the displacement of its vertices.

Morph targets are applied in the space of the mesh, before the skin and the transform of the node, so that both stay as
they are: with the linear part L of the transform of a vertex, its displacement d in the world is L⁻¹ d there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from renderers.gltf import Limits
from renderers.gltf.editing import GltfEditor
from renderers.gltf.rest import RestPart
from zoo.animate3d.gltf_nodes import own_mesh
from zoo.animate3d.gltf_skin import WrittenPart
from zoo.animate3d.loading import StillModel
from zoo.animate3d.motion import GraphMotion
from zoo.errors import ModelError
from zoo.export.keys import kept_keys, lerp

_DROPPED = 0.05  # share of the tolerance; vertices that move less in a key frame are left out of its target
_NORMAL_ROUNDING = 1e-5  # of a unit normal; smaller differences are left out
_LARGEST_SHARE = 0.75  # of vertices in a sparse accessor; with more, a dense one is smaller


def add_morph(
    editor: GltfEditor, model: StillModel, motion: GraphMotion, name: str, *, tolerance: float
) -> list[WrittenPart]:
    """Add a motion as morph targets and an animation of their weights.

    Args:
        editor: the file of the model.
        model: the still model.
        motion: its motion.
        name: of the animation.
        tolerance: how far key frames may be left out, as a share of the model's diagonal.
    Returns:
        where the parts of the model are, in the order of `model.asset.primitives`.
    Raises:
        ModelError: there would be too many targets.
    """
    parts = model.parts()
    writer = _MorphWriter(editor, model, motion, tolerance * model.diagonal())
    groups: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(part.node, []).append(number)
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []
    for node, group in groups.items():
        output = writer.add_targets(node, [(number, parts[number]) for number in group])
        samplers.append({"input": writer.input, "interpolation": "LINEAR", "output": output})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": "weights"}})
    animation = {"name": name, "channels": channels, "samplers": samplers, "extras": {"description": name}}
    editor.append("animations", animation)
    return [WrittenPart(part.node, part.index) for part in parts]


class _MorphWriter:
    """Adds the targets of the key frames to meshes.

    Attributes:
        input: accessor of the key times.
    """

    def __init__(self, editor: GltfEditor, model: StillModel, motion: GraphMotion, tolerance: float) -> None:
        self._editor = editor
        rest = model.vertices()
        size, most = len(rest) * len(motion.times), Limits().morph_vertices
        if size > most:
            raise ModelError(
                f"{model.name}: morph targets of {len(rest)} vertices in {len(motion.times)} frames, expected at most "
                f"{most} vertices over all frames; save as a skin (as_='skin'), or resample to fewer frames"
            )
        moved = (motion.move(rest) - rest).astype(np.float32)
        kept = kept_keys(
            motion.times,
            moved,
            (1 - _DROPPED) * tolerance,
            lambda a, b, u: lerp(a, b, u.astype(np.float32)),
            lambda a, b: np.sqrt(((a - b) ** 2).sum(-1).max(-1)),
        )
        kept = np.unique([*kept, 0, len(motion.times) - 1])
        self._floor = _DROPPED * tolerance
        far = np.sqrt((moved[kept] ** 2).sum(-1).max(-1))
        self._frames = kept[far > self._floor]
        if not len(self._frames):
            self._frames = kept[-1:]
        # One key per kept frame: weight 1 for its own target, none if the model is still then.
        self._weights = (kept[:, None] == self._frames[None]).astype(np.float64)
        self._moved = moved[self._frames]
        normals = model.asset.pose(None, 0.0).normals.astype(np.float64)
        self._normals = normals, rotated(motion, normals, self._frames)
        self.input = editor.add(motion.times[kept], "SCALAR", bounds=True)

    def add_targets(self, node: int, parts: list[tuple[int, RestPart]]) -> int:
        """Append targets to the mesh of a node; return the accessor of its weights at the key times."""
        editor, count = self._editor, len(self._frames)
        mesh, _, _ = own_mesh(editor, node, range(len(editor.json["meshes"][parts[0][1].mesh]["primitives"])))
        owner = editor.json["nodes"][node]
        owner["mesh"] = mesh
        shape = editor.json["meshes"][mesh]
        before = max(len(primitive.get("targets", [])) for primitive in shape["primitives"])
        drawn = {part.index: part for _, part in parts}
        for index, primitive in enumerate(shape["primitives"]):
            targets = primitive.setdefault("targets", [])
            if index in drawn:
                targets += self._targets(primitive, drawn[index])
            elif "POSITION" in primitive["attributes"]:
                size = editor.accessors[primitive["attributes"]["POSITION"]]["count"]
                empty = editor.add_sparse(np.zeros(0, int), np.zeros((0, 3)), size, "VEC3")
                targets += [{"POSITION": empty}] * count
        rest = [float(x) for x in owner.get("weights", shape.get("weights", [0.0] * before))]
        for each in (owner, shape):
            if "weights" in each:
                each["weights"] = [*each["weights"], *[0.0] * count]
        names = (shape.get("extras") or {}).get("targetNames")
        if isinstance(names, list):
            shape["extras"]["targetNames"] = [*names, *(f"frame {frame:03d}" for frame in self._frames)]
        if before:
            self._widen_animations(node, before)
        values = np.concatenate([np.tile(rest, (len(self._weights), 1)), self._weights], 1)
        return editor.add(values.reshape(-1), "SCALAR")

    def _targets(self, primitive: dict[str, Any], part: RestPart) -> list[dict[str, int]]:
        inverse = np.linalg.pinv(part.transforms[:, :3, :3])
        targets = []
        for frame in range(len(self._frames)):
            moved = self._moved[frame, part.vertices].astype(np.float64)
            still = (moved**2).sum(1) <= self._floor**2
            local = np.where(still[:, None], 0.0, _apply(inverse, moved))
            target = {"POSITION": self._add(_stored(local, part), 0.0)}
            if "NORMAL" in primitive["attributes"]:
                target["NORMAL"] = self._add(self._normal_deltas(part, frame), _NORMAL_ROUNDING)
            targets.append(target)
        return targets

    def _normal_deltas(self, part: RestPart, frame: int) -> np.ndarray:
        """Differences of the normals in mesh space. A normal n in the world is Lᵀ n there, up to its length."""
        transposed = part.transforms[:, :3, :3].transpose(0, 2, 1)
        before, after = (
            _unit(_apply(transposed, normals[part.vertices]))
            for normals in (self._normals[0], self._normals[1][frame])
        )
        return after - before

    def _add(self, values: np.ndarray, floor: float) -> int:
        """Append displacements [n, 3], as a sparse accessor if that is smaller."""
        rows = np.flatnonzero(np.abs(values.astype(np.float32)).max(1) > floor)
        if len(rows) > _LARGEST_SHARE * len(values):
            return self._editor.add(values, "VEC3", bounds=True)
        return self._editor.add_sparse(rows, values[rows], len(values), "VEC3")

    def _widen_animations(self, node: int, before: int) -> None:
        """Give the animations of the file weights of 0 for the new targets."""
        editor, count = self._editor, len(self._frames)
        for animation in editor.json.get("animations", []):
            for channel in animation.get("channels", []):
                target = channel["target"]
                pointer = (target.get("extensions") or {}).get("KHR_animation_pointer") or {}
                whole = target.get("path") == "weights" and target.get("node") == node
                if not whole and pointer.get("pointer") != f"/nodes/{node}/weights":
                    continue
                sampler = animation["samplers"][channel["sampler"]]
                output = sampler["output"]
                size = editor.document.count(output)
                values = editor.document.floats(output, size, ("SCALAR",), "weights").reshape(-1, before)
                padded = np.pad(values, ((0, 0), (0, count))).reshape(-1)
                animation["samplers"].append(sampler | {"output": editor.add(padded, "SCALAR")})
                channel["sampler"] = len(animation["samplers"]) - 1


def rotated(motion: GraphMotion, normals: np.ndarray, frames: np.ndarray | slice) -> np.ndarray:
    """Normals [V, 3] of the still model in some frames, float32 [F, V, 3]: Σ_k w_k R_k n, normalised."""
    quats = motion.rotations[frames]
    out = np.zeros((len(quats), *normals.shape), np.float32)
    for nodes, weights in zip(motion.vertex_nodes.T, motion.vertex_weights.T, strict=True):
        for frame, each in enumerate(quats):
            w, q = each[nodes, :1], each[nodes, 1:]
            across = np.cross(q, normals)
            out[frame] += weights[:, None] * (normals + 2 * (w * across + np.cross(q, across)))
    return _unit(out)


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply matrices [n or 1, 3, 3] by vectors [n, 3]."""
    if len(matrices) == 1:
        return vectors @ matrices[0].T
    return np.einsum("nij,nj->ni", matrices, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


def _stored(values: np.ndarray, part: RestPart) -> np.ndarray:
    """Values [n, 3] of the vertices of the asset at those that the file stores: the mean of its copies, [count, 3]."""
    if len(part.stored) == part.count and (part.stored == np.arange(part.count)).all():
        return values
    copies = np.maximum(np.bincount(part.stored, minlength=part.count), 1)
    sums = [np.bincount(part.stored, column, minlength=part.count) for column in values.T]
    return np.stack(sums, 1) / copies[:, None]
