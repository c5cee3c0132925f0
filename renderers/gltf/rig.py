"""All drawn vertices of an asset in asset-wide arrays, with the nodes, skins and morph targets that move them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np

from renderers import fixed
from renderers.gltf.document import Document
from renderers.gltf.instancing import INSTANCING, count_instances, read_instances, repeat_geometry
from renderers.gltf.meshes import Geometry, read_geometry
from renderers.gltf.nodes import Nodes
from renderers.values import by_value

# Coordinates are stored relative to a centre if they are more than this many diagonals of their bounding box away from
# the origin. float32 has 24 bits, so that closer than this, rounding moves them by at most 2^-16 diagonals.
_FAR = 256.0
_BLOCK = 4096  # vertices that are skinned together: small enough for the CPU cache


@dataclass(frozen=True)
class Part:
    """Primitive `index` of `mesh` at one node; posed by `skin`, or by the node if `skin` is None.

    `instances` is the number of copies in it (EXT_mesh_gpu_instancing), None if the node is not instanced.
    """

    node: int
    mesh: int
    index: int
    skin: int | None
    material: int | None
    instances: int | None = None


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Morph:
    """Morph targets of one part: differences of positions and normals, float32 [targets, 3, n]."""

    node: int
    vertices: slice
    positions: np.ndarray
    normals: np.ndarray | None


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SkinBlock:
    """Consecutive vertices of one skin.

    Attributes:
        parts: int [p], the parts that the vertices belong to.
        offsets: int [p], first vertex of each part, relative to the block.
        vertices: range in the asset-wide arrays.
        near: int [j], the joints of the skin that influence the block.
        starts: int64 [n + 1]; vertex v has the influences starts[v] to starts[v + 1] - 1, at least one.
        joints, weights: int32 and float64 [m], of all influences; the joints of a vertex ascend.
    """

    parts: np.ndarray
    offsets: np.ndarray
    vertices: slice
    near: np.ndarray
    starts: np.ndarray
    joints: np.ndarray
    weights: np.ndarray

    def blend_exactly(self, matrices: np.ndarray) -> np.ndarray:
        """Return Σ w_k M_k of matrices float64 [J, r], in float64 and with weights that add up to 1; float64 [n, r]."""
        first = self.starts[:-1]
        total = np.add.reduceat(self.weights, first)
        weights = self.weights / np.repeat(total, np.diff(self.starts))
        out = np.zeros((len(first), matrices.shape[1]))
        for number in range(int(np.diff(self.starts).max(initial=0))):
            some = np.flatnonzero(np.diff(self.starts) > number)
            place = first[some] + number
            out[some] += weights[place, None] * matrices[self.joints[place]]
        return out


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Skin:
    """Joints (node indices [J]), their inverse bind matrices float64 [J, 4, 4], and the vertices they move."""

    joints: np.ndarray
    inverse_bind: np.ndarray
    blocks: list[SkinBlock] = field(default_factory=list)


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Rig:
    """All N vertices in the space of their meshes, and everything needed to pose them.

    Attributes:
        nodes: the transform tree.
        positions, normals: float32 [3, N], mesh space; positions are relative to the `offsets` of their part.
        parts, ranges: the parts in the order of the vertices, and the vertex range of each.
        offsets: float64 [P, 3], a centre of each part's vertices in mesh space, 0 unless they are far from the origin;
            parts of one skin share it.
        triangles: per part int64 [F, 3], asset-wide indices.
        rigid: indices of the parts that follow their node.
        flat: indices of the parts whose normals are computed from their triangles.
        skins, morphs: of all parts.
        weights: node → morph weights of the rest pose, float64 [targets].
        texcoords: float32 [N, S, 2].
        colors: float32 [N, 4].
    """

    nodes: Nodes
    positions: np.ndarray
    normals: np.ndarray
    parts: list[Part]
    ranges: list[slice]
    offsets: np.ndarray
    triangles: list[np.ndarray]
    rigid: list[int]
    flat: list[int]
    skins: list[Skin]
    morphs: list[Morph]
    weights: dict[int, np.ndarray]
    texcoords: np.ndarray
    colors: np.ndarray


def read_rig(document: Document, nodes: Nodes) -> Rig:
    """Read all meshes of the scene and the skins and morph targets that pose them."""
    parts = _find_parts(document, nodes)
    geometries: dict[tuple[int, int], Geometry] = {}
    for part in parts:
        if (part.mesh, part.index) not in geometries:
            geometries[part.mesh, part.index] = read_geometry(document, part.mesh, part.index)
    copies = [1 if part.instances is None else part.instances for part in parts]
    counts = [
        n * len(geometries[part.mesh, part.index].positions) for n, part in zip(copies, parts, strict=True)
    ]
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    sets = max(1, *(len(geometry.texcoords) for geometry in geometries.values()))
    rig = Rig(
        nodes=nodes,
        positions=np.empty((3, starts[-1]), np.float32),
        normals=np.zeros((3, starts[-1]), np.float32),
        parts=parts,
        ranges=[slice(start, stop) for start, stop in pairwise(starts)],
        offsets=np.zeros((len(parts), 3)),
        triangles=[],
        rigid=[],
        flat=[],
        skins=[],
        morphs=[],
        weights={},
        texcoords=np.zeros((starts[-1], sets, 2), np.float32),
        colors=np.ones((starts[-1], 4), np.float32),
    )
    _set_offsets(rig, geometries)
    for number, (part, vertices) in enumerate(zip(parts, rig.ranges, strict=True)):
        geometry = geometries[part.mesh, part.index]
        if part.instances is not None:
            matrices = read_instances(document, part.node, part.instances)
            geometry = repeat_geometry(geometry, matrices)
            rig.offsets[number] = far_centre(geometry.positions)
        positions = geometry.positions
        if rig.offsets[number].any():
            positions = positions - rig.offsets[number]  # in float64
        rig.positions[:, vertices] = positions.T
        rig.triangles.append(geometry.triangles + vertices.start)
        if geometry.normals is None:
            rig.flat.append(number)
        else:
            rig.normals[:, vertices] = geometry.normals.T
        for index, texcoord in enumerate(geometry.texcoords):
            rig.texcoords[vertices, index] = texcoord
        if geometry.colors is not None:
            rig.colors[vertices, : geometry.colors.shape[1]] = geometry.colors
        if len(geometry.position_targets):
            _add_morph(document, rig, part, vertices, geometry)
    _add_skins(document, rig, geometries)
    return rig


def far_centre(*arrays: np.ndarray) -> np.ndarray:
    """Return the centre of the bounding box of points, arrays [n, 3], as float64 [3]; 0 unless it is far from 0."""
    low = np.min([points.min(0) for points in arrays], 0).astype(np.float64)
    high = np.max([points.max(0) for points in arrays], 0).astype(np.float64)
    centre = 0.5 * (low + high)
    far = fixed.norm(centre) > _FAR * fixed.norm(high - low)  # false for NaN
    return centre if far and np.isfinite(centre).all() else np.zeros(3)


def _set_offsets(rig: Rig, geometries: dict[tuple[int, int], Geometry]) -> None:
    """Fill in `rig.offsets`, except for instanced parts, whose vertices are not known yet."""
    skinned: dict[int, list[int]] = {}
    for number, part in enumerate(rig.parts):
        if part.skin is not None:
            skinned.setdefault(part.skin, []).append(number)
        elif part.instances is None:
            rig.offsets[number] = far_centre(geometries[part.mesh, part.index].positions)
    for numbers in skinned.values():
        members = [rig.parts[number] for number in numbers]
        rig.offsets[numbers] = far_centre(*(geometries[part.mesh, part.index].positions for part in members))


def _find_parts(document: Document, nodes: Nodes) -> list[Part]:
    """List the mesh primitives to draw and check their total size.

    Sizes are summed from the JSON alone, so nothing large is read or allocated before it has passed the limits.
    """
    owners, meshes = document.items("nodes"), document.items("meshes")
    parts, seen, vertices, triangles, morphed = [], 0, 0, 0, 0
    for node in nodes.visible:
        mesh = document.index(owners[node], "mesh", "meshes", f"nodes[{node}]")
        skin = document.index(owners[node], "skin", "skins", f"nodes[{node}]")
        if mesh is None:
            continue
        instances = count_instances(document, node)
        copies = 1 if instances is None else instances
        for index, primitive in enumerate(document.items("primitives", meshes[mesh], f"meshes[{mesh}].")):
            where = f"meshes[{mesh}].primitives[{index}]"
            mode = document.integer(primitive, "mode", 4, where)
            if mode > 6:
                document.fail(f"{where}.mode: expected 0 to 6, got {mode}")
            attributes = document.child(primitive, "attributes", where) or {}
            position = document.index(attributes, "POSITION", "accessors", f"{where}.attributes")
            seen += 1
            document.within(seen, "nodes", "mesh primitives over all nodes")
            if mode < 4 or position is None:
                continue
            indices = document.index(primitive, "indices", "accessors", where)
            points = document.count(position)
            corners = points if indices is None else document.count(indices)
            faces = corners // 3 if mode == 4 else max(corners - 2, 0)
            if not faces or not copies:
                continue
            # Flat primitives get three vertices per triangle.
            after = max(points, 0 if attributes.get("NORMAL") is not None else 3 * faces)
            vertices, triangles = vertices + copies * after, triangles + copies * faces
            morphed += copies * after * len(document.items("targets", primitive, f"{where}."))
            document.within(vertices, "vertices", "vertices")
            document.within(triangles, "triangles", "triangles")
            document.within(morphed, "morph_vertices", "vertices times morph targets")
            material = document.index(primitive, "material", "materials", where)
            bound = skin if attributes.get("JOINTS_0") is not None else None
            if bound is not None and instances is not None:
                document.unsupported(
                    f"nodes[{node}] has a skin and {INSTANCING}, which the extension does not define; "
                    "export the instances as nodes"
                )
            parts.append(Part(node, mesh, index, bound, material, instances))
    if not parts:
        contents = "only points, lines and empty primitives" if seen else "no mesh"
        if not seen and not nodes.shown.all():
            contents = "no mesh that is visible"
        document.fail(
            f"the scene has {contents}, expected at least one mesh of triangles; export the asset with its meshes"
        )
    return parts


def _add_morph(document: Document, rig: Rig, part: Part, vertices: slice, geometry: Geometry) -> None:
    """Append the morph targets of a part; all parts of a node must have the same number."""
    targets = len(geometry.position_targets)
    if part.node not in rig.weights:
        rig.weights[part.node] = _default_weights(document, part, targets)
    if len(rig.weights[part.node]) != targets:
        document.fail(
            f"meshes[{part.mesh}]: its primitives have {len(rig.weights[part.node])} and {targets} "
            "morph targets, expected equal numbers; export the asset again"
        )
    rig.morphs.append(Morph(part.node, vertices, geometry.position_targets, geometry.normal_targets))


def _default_weights(document: Document, part: Part, targets: int) -> np.ndarray:
    """Return the morph weights of the rest pose: those of the node, else of the mesh, else 0 (glTF §3.7.2.2)."""
    for collection, index in (("nodes", part.node), ("meshes", part.mesh)):
        owner = document.items(collection)[index]
        if owner.get("weights") is not None:
            return document.vector(owner, "weights", np.zeros(targets), f"{collection}[{index}]")
    return np.zeros(targets)


def _add_skins(document: Document, rig: Rig, geometries: dict[tuple[int, int], Geometry]) -> None:
    """Fill in `rig.rigid` and `rig.skins`: the parts that follow their node, and those that follow a skin."""
    skins: dict[int, Skin] = {}
    used = 0
    for index, group in groupby(range(len(rig.parts)), key=lambda part: rig.parts[part].skin):
        run = list(group)
        if index is None:
            rig.rigid.extend(run)
            continue
        if index not in skins:
            skins[index] = _read_skin(document, index)
            document.within(sum(len(skin.joints) for skin in skins.values()), "nodes", "joints")
        influences = []
        for part in (rig.parts[number] for number in run):
            geometry = geometries[part.mesh, part.index]
            influences.append(_influences(document, part, geometry, len(skins[index].joints)))
        width = max(joints.shape[1] for joints, _ in influences)
        padded = [[np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in pair] for pair in influences]
        joints, weights = (np.concatenate(arrays) for arrays in zip(*padded, strict=True))
        used = _bind(document, skins[index], run, rig, joints, weights, used)
    rig.skins.extend(skins.values())


def _bind(
    document: Document,
    skin: Skin,
    run: list[int],
    rig: Rig,
    joints: np.ndarray,
    weights: np.ndarray,
    used: int,
) -> int:
    """Add the influences [n, K] of consecutive parts to their skin; return the numbers stored in all blocks so far.

    The limit counts the numbers of a dense matrix of weights, over the joints that influence a block of vertices.
    """
    total = weights.sum(1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 0).astype(np.float32)
    weights[total[:, 0] == 0, 0] = 1  # no influence: follow the first joint listed
    first = rig.ranges[run[0]].start
    starts = np.array([rig.ranges[part].start - first for part in run])
    stops = np.array([rig.ranges[part].stop - first for part in run])
    for start in range(0, len(joints), _BLOCK):
        stop = min(start + _BLOCK, len(joints))
        near, column = np.unique(joints[start:stop], return_inverse=True)
        used += len(near) * (stop - start)
        document.within(used, "skin_weights", "skin weights")
        dense = np.zeros((len(near), stop - start), np.float32)
        column = column.reshape(stop - start, -1)
        row = np.broadcast_to(np.arange(stop - start)[:, None], column.shape)
        np.add.at(dense, (column, row), weights[start:stop])
        dense[0, ~dense.any(0)] = 1  # weights whose sum overflowed
        vertex, influence = np.nonzero(dense.T)
        inside = (starts < stop) & (stops > start)
        skin.blocks.append(
            SkinBlock(
                parts=np.array(run)[inside],
                offsets=np.maximum(starts[inside] - start, 0),
                vertices=slice(first + start, first + stop),
                near=near,
                starts=np.searchsorted(vertex, np.arange(stop - start + 1)),
                joints=near[influence].astype(np.int32),
                weights=dense[influence, vertex].astype(np.float64),
            )
        )
    return used


def _influences(
    document: Document, part: Part, geometry: Geometry, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return joints int64 [n, K], validated to be below `count`, and weights float32 [n, K], >= 0."""
    where = f"meshes[{part.mesh}].primitives[{part.index}]"
    if geometry.joints is None or geometry.weights is None:
        document.fail(f"{where}: JOINTS_0 without WEIGHTS_0; export the asset again")
    weights = np.maximum(geometry.weights, 0)
    joints = np.where(
        weights > 0, geometry.joints, geometry.joints[:, :1]
    )  # unused influences may have any index
    if joints.max() >= count:
        document.fail(
            f"{where}.JOINTS: {joints.max()} is out of range, skins[{part.skin}] has {count} joints; "
            "export the asset again"
        )
    return joints, weights


def _read_skin(document: Document, index: int) -> Skin:
    """Read joints and inverse bind matrices (identity if absent)."""
    where = f"skins[{index}]"
    owner = document.items("skins")[index]
    joints = document.indices(owner, "joints", "nodes", where)
    if not joints:
        document.fail(f"{where}.joints is empty, expected at least one node; export the asset again")
    inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
    accessor = document.index(owner, "inverseBindMatrices", "accessors", where)
    if accessor is not None:
        count = document.count(accessor)
        if not len(joints) <= count <= document.limits.nodes:
            document.fail(
                f"{where}.inverseBindMatrices: expected one for each of {len(joints)} joints, got {count}; "
                "export the asset again"
            )
        matrices = document.floats(accessor, count, ("MAT4",), f"{where}.inverseBindMatrices")
        inverse_bind = (
            matrices[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64, order="C")
        )
    return Skin(np.array(joints), inverse_bind)
