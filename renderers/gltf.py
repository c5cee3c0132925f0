"""An animated glTF 2.0 asset: parse, refuse, evaluate at time t. Numpy only, no graphics library.

    asset = load("fox.glb")
    pose = asset.pose(animation=0, time=0.5)      # positions and normals in world space
    for primitive in asset.primitives:
        material = asset.materials[primitive.material]
        triangles = pose.positions[primitive.triangles]

Skins, morph targets and node transforms; STEP, LINEAR and CUBICSPLINE. World: glTF's (+Y up, metres).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from renderers._gltf_file import DRACO, Document, GltfError, Limits, UnsupportedGltf

__all__ = [
    "Animation",
    "Asset",
    "GltfError",
    "Limits",
    "Material",
    "Pose",
    "Primitive",
    "Texture",
    "UnsupportedGltf",
    "load",
]

_UNDERSTOOD = {
    DRACO,
    "EXT_meshopt_compression",
    "EXT_texture_webp",
    "KHR_materials_emissive_strength",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
}
# Without these an asset still moves and looks like itself, only plainer.
_IGNORABLE = {
    "KHR_lights_punctual",
    "KHR_materials_anisotropy",
    "KHR_materials_clearcoat",
    "KHR_materials_diffuse_transmission",
    "KHR_materials_dispersion",
    "KHR_materials_ior",
    "KHR_materials_iridescence",
    "KHR_materials_sheen",
    "KHR_materials_specular",
    "KHR_materials_transmission",
    "KHR_materials_variants",
    "KHR_materials_volume",
    "KHR_xmp_json_ld",
}
_ADVICE = {
    "KHR_texture_basisu": "export it with PNG, JPEG or WebP textures",
    "KHR_animation_pointer": "bake its animation to node transforms and morph weights",
    "EXT_mesh_gpu_instancing": "export the instances as nodes",
}
_MAX_TEXCOORDS = 8
_MAX_JOINT_SETS = 8
_SKIN_BLOCK = 4096  # vertices whose skin weights are one dense matrix: small enough for the cache


@dataclass(frozen=True)
class Texture:
    """An image and how a material reads it.

    Attributes:
        image: uint8 [H, W, 4] as stored (sRGB-encoded for colour); equal images are the same object.
        wrap_s, wrap_t: "repeat", "mirror" or "clamp".
        nearest: magnify without interpolation.
        texcoord: which set of `Asset.texcoords`.
        transform: float64 [3, 3]; (u', v', 1) = transform @ (u, v, 1).
    """

    image: np.ndarray
    wrap_s: str = "repeat"
    wrap_t: str = "repeat"
    nearest: bool = False
    texcoord: int = 0
    transform: np.ndarray = field(default_factory=lambda: np.eye(3))


@dataclass(frozen=True)
class Material:
    """glTF's metallic-roughness material; factors are linear, textures as in the glTF specification §3.9.

    Attributes:
        base_color: float [4], linear, with alpha. emissive: float [3], linear, may exceed 1.
        alpha_mode: "OPAQUE", "MASK" (cut at `alpha_cutoff`) or "BLEND".
        unlit: base colour is shown as it is.
    """

    name: str = ""
    base_color: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    base_color_texture: Texture | None = None
    metallic: float = 1.0
    roughness: float = 1.0
    metallic_roughness_texture: Texture | None = None
    emissive: tuple[float, ...] = (0.0, 0.0, 0.0)
    emissive_texture: Texture | None = None
    normal_texture: Texture | None = None
    normal_scale: float = 1.0
    occlusion_texture: Texture | None = None
    occlusion_strength: float = 1.0
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    unlit: bool = False


@dataclass(frozen=True)
class Primitive:
    """One drawable part: a mesh primitive at one node (an instanced mesh appears once per node).

    Attributes:
        vertices: its range in the asset-wide vertex arrays.
        triangles: uint32 [F, 3], indices into the asset-wide arrays.
        material: index into `Asset.materials`.
        node, index: where it stands in the file: a node, and a primitive of that node's mesh.
    """

    name: str
    vertices: slice
    triangles: np.ndarray
    material: int
    node: int
    index: int


@dataclass(frozen=True)
class Animation:
    """One animation of the file; `Asset.animations` keeps the file's order and indices.

    Attributes:
        start, end: first and last key in seconds; outside of them the pose stands still. Equal where
            nothing is animated.
        channels: how many node transforms and morph weights it drives.
    """

    name: str
    start: float
    end: float
    channels: int

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Pose:
    """The asset at one moment, in world space.

    Attributes:
        positions: float32 [N, 3], metres. normals: float32 [N, 3], unit, pointing outward.
        mirrored: bool [P], per primitive: its transform mirrors, so front faces are clockwise.
    """

    positions: np.ndarray
    normals: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Asset:
    """A loaded glTF; immutable but for a cache. Make one with `load`.

    Attributes:
        name: how messages call it.
        texcoords: float32 [N, S, 2], S >= 1; zeros where a set is absent.
        colors: float32 [N, 4], linear vertex colours, 1 where absent.
        visible: int64 [n], the vertices that some triangle uses.
        metadata: generator, copyright and, as Sketchfab writes them, title, author, license and source;
            only what the file states.
        notes: what was left out of the asset, in sentences.
    """

    name: str
    primitives: tuple[Primitive, ...]
    materials: tuple[Material, ...]
    animations: tuple[Animation, ...]
    texcoords: np.ndarray
    colors: np.ndarray
    visible: np.ndarray
    metadata: dict[str, str]
    notes: tuple[str, ...]
    _rig: _Rig = field(repr=False)
    _motions: dict[int | None, _Motion] = field(default_factory=dict, repr=False)

    @property
    def num_vertices(self) -> int:
        return len(self.colors)

    def pose(self, animation: int | None, time: float) -> Pose:
        """World-space vertices at a moment.

        Args:
            animation: index into `animations`; None = as the file stands.
            time: seconds on the animation's own time line; clamped to its first and last key.
        Raises:
            GltfError: the moment has no finite pose. IndexError: there is no such animation.
        """
        if animation is not None and not 0 <= animation < len(self.animations):
            raise IndexError(
                f"{self.name}: animation {animation} does not exist, it has {len(self.animations)}"
            )
        motion = self._motions.get(animation)
        if motion is None:
            motion = _Motion(self._rig, () if animation is None else self._rig.channels[animation])
            self._motions.clear()  # a clip asks for one animation at a time; its arrays may be large
            self._motions[animation] = motion
        pose = motion.pose(time)
        if not np.isfinite(pose.positions).all():
            raise GltfError(
                f"{self.name}: animation {animation} at {time} s puts vertices at infinity; leave it out"
            )
        return pose


def load(source: str | Path | bytes, *, name: str | None = None, limits: Limits | None = None) -> Asset:
    """Reads a .glb or .gltf completely; nothing is fetched from outside its own folder.

    Args:
        source: path, or the bytes of a file that refers to no other.
        name: how messages call the asset; the file's name by default.
        limits: what the file may ask for; the defaults suit any model that a machine with a few GiB renders.
    Raises:
        UnsupportedGltf: valid, but needs something that is not supported. GltfError: not a usable asset.
    """
    document = Document.open(source, name, limits or Limits())
    try:
        return _build(document)
    except GltfError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # A malformed file that no check above foresaw must not stop a job over thousands of files.
        raise GltfError(f"{document.name}: malformed glTF ({type(error).__name__}: {error})") from error


def _build(document: Document) -> Asset:
    _check_extensions(document)
    nodes = _read_nodes(document)
    layout = _plan(document, nodes)
    rig, texcoords, colors, primitives = _assemble(document, nodes, layout)
    materials, primitives, texcoord_sets = _read_materials(document, primitives)
    if texcoord_sets > texcoords.shape[1]:
        padding = np.zeros((len(texcoords), texcoord_sets - texcoords.shape[1], 2), np.float32)
        texcoords = np.concatenate([texcoords, padding], 1)
    animations, notes = _read_animations(document, nodes, rig)
    asset = Asset(
        name=document.name,
        primitives=primitives,
        materials=materials,
        animations=animations,
        texcoords=texcoords,
        colors=colors,
        visible=np.unique(np.concatenate([p.triangles.reshape(-1) for p in primitives])).astype(np.int64),
        metadata=_metadata(document),
        notes=notes,
        _rig=rig,
    )
    if not any(_has_extent(asset, animation, time) for animation, time in _moments(asset)):
        document.fail("every triangle has zero extent, expected a visible object; export the asset again")
    return asset


def _moments(asset: Asset) -> Iterator[tuple[int | None, float]]:
    """At rest, then where an object that is scaled to nothing at rest may appear."""
    yield None, 0.0
    for index, animation in enumerate(asset.animations):
        for phase in (0.0, 0.5, 1.0):
            yield index, animation.start + phase * animation.duration


def _has_extent(asset: Asset, animation: int | None, time: float) -> bool:
    return bool(np.ptp(asset.pose(animation, time).positions[asset.visible], axis=0).max() > 0)


def _check_extensions(document: Document) -> None:
    required = document.json.get("extensionsRequired", [])
    if not isinstance(required, list) or not all(isinstance(item, str) for item in required):
        document.fail("extensionsRequired: expected a list of names")
    for extension in required:
        if extension not in _UNDERSTOOD | _IGNORABLE:
            advice = _ADVICE.get(extension, "export the asset without it")
            document.unsupported(f"requires the extension {extension[:80]}, which is not supported; {advice}")


def _metadata(document: Document) -> dict[str, str]:
    asset = document.json["asset"]
    extras = asset.get("extras")
    found = {key: asset.get(key) for key in ("generator", "copyright")}
    if isinstance(extras, dict):
        found |= {key: extras.get(key) for key in ("title", "author", "license", "source")}
    return {key: value for key, value in found.items() if isinstance(value, str) and value}


# --- nodes ----------------------------------------------------------------------------------------


@dataclass
class _Nodes:
    """The transform tree. The row after the last node is the world: identity, and the parent of roots.

    Attributes:
        parents: int [n], -1 for roots. levels: node indices by depth. visible: nodes of the shown scene.
        translation_scale: float64 [2n, 3], translations, then scales. rotation: float64 [n, 4], xyzw.
        local: float64 [n, 4, 4] at rest.
    """

    parents: np.ndarray
    levels: list[np.ndarray]
    visible: list[int]
    translation_scale: np.ndarray
    rotation: np.ndarray
    local: np.ndarray

    def __len__(self) -> int:
        return len(self.parents)

    def world(self, local: np.ndarray) -> np.ndarray:
        """float64 [n + 1, 4, 4], local to world."""
        world = np.tile(np.eye(4), (len(self) + 1, 1, 1))
        for level in self.levels:
            world[level] = world[self.parents[level]] @ local[level]
        return world


def _read_nodes(document: Document) -> _Nodes:
    owners = document.items("nodes")
    count = len(owners)
    document.within(count, "nodes", "nodes")
    parents = np.full(count, -1)
    children = [document.indices(o, "children", "nodes", f"nodes[{i}]") for i, o in enumerate(owners)]
    for parent, below in enumerate(children):
        for child in below:
            if parents[child] >= 0 or child == parent:
                document.fail(
                    f"nodes[{child}] has more than one parent or contains itself, expected a tree of nodes; "
                    "export the asset again"
                )
            parents[child] = parent
    levels, level = [], [i for i in range(count) if parents[i] < 0]
    while level:
        levels.append(np.array(level))
        level = [child for node in level for child in children[node]]
    if sum(map(len, levels)) < count:
        document.fail("the nodes form a cycle, expected a tree of nodes; export the asset again")

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
    rotation = _normalised_quaternions(rotation)
    composed = np.array([owner.get("matrix") is None for owner in owners], bool)
    local[composed] = _compose(translation_scale[:count], rotation, translation_scale[count:])[composed]

    scene = document.index(document.json, "scene", "scenes", "top level") or 0
    scenes = document.items("scenes")
    shown = (
        document.indices(scenes[scene], "nodes", "nodes", f"scenes[{scene}]")
        if scenes
        else [i for i in range(count) if parents[i] < 0]
    )
    visible, seen = [], set()
    stack = shown[::-1]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            visible.append(node)
            stack.extend(reversed(children[node]))
    return _Nodes(parents, levels, visible, translation_scale, rotation, local)


def _compose(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Matrices float64 [n, 4, 4] of translations [n, 3], unit quaternions xyzw [n, 4], scales [n, 3]."""
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
    """Translation, quaternion xyzw and scale of a matrix without shear; a mirror goes into scale x."""
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    if np.linalg.det(matrix[:3, :3]) < 0:
        scale[0] = -scale[0]
    m = matrix[:3, :3] / np.where(scale == 0, 1, scale)
    # The eigenvector of the largest eigenvalue, which needs no case distinction (Bar-Itzhack 2000).
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    rotation = np.linalg.eigh(k)[1][:, -1]  # eigh reads the lower triangle
    return matrix[:3, 3], rotation, scale


def _normalised_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """Unit quaternions xyzw [..., 4]; zero ones, which some exporters write, become the identity."""
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    return np.where(length > 0, quaternions / np.where(length > 0, length, 1), (0.0, 0.0, 0.0, 1.0))


# --- meshes ---------------------------------------------------------------------------------------


@dataclass
class _Geometry:
    """A mesh primitive as stored. `normals` None = flat; targets are float32 [targets, 3, n]."""

    positions: np.ndarray
    normals: np.ndarray | None
    texcoords: list[np.ndarray]
    colors: np.ndarray | None
    joints: np.ndarray | None
    weights: np.ndarray | None
    triangles: np.ndarray
    position_targets: np.ndarray
    normal_targets: np.ndarray | None


@dataclass(frozen=True)
class _Slot:
    """One primitive of one node, before its data is read."""

    node: int
    mesh: int
    primitive: int
    skin: int | None


@dataclass(frozen=True)
class _Morph:
    """Morph targets of one primitive at one node: deltas float32 [targets, 3, n]."""

    node: int
    vertices: slice
    positions: np.ndarray
    normals: np.ndarray | None


@dataclass(frozen=True)
class _SkinBlock:
    """Consecutive vertices of one skin: `weights` float32 [j, n] of the skin's joints `joints` [j]."""

    vertices: slice
    joints: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class _Skin:
    """`joints`: node indices [J]; `inverse_bind`: float64 [J, 4, 4]."""

    joints: np.ndarray
    inverse_bind: np.ndarray
    blocks: list[_SkinBlock] = field(default_factory=list)


@dataclass(frozen=True)
class _Channel:
    """One animated property; `values` float64 [keys, width] or, for splines, [keys, 3, width]."""

    node: int
    path: str
    interpolation: str
    times: list[float]
    values: np.ndarray


@dataclass
class _Rig:
    """What moves the vertices, with their unposed positions and normals float32 [3, N]."""

    nodes: _Nodes
    positions: np.ndarray
    normals: np.ndarray
    ranges: list[slice]  # per primitive
    rigid: list[tuple[int, slice]]  # node, vertices
    skins: list[_Skin]
    morphs: list[_Morph]
    flat: list[slice]  # vertex ranges, three per triangle, whose normals follow from positions
    weights: dict[int, np.ndarray]  # per node with morph targets, at rest
    channels: list[tuple[_Channel, ...]]


def _plan(document: Document, nodes: _Nodes) -> list[_Slot]:
    """Which primitives are drawn where, ordered so that a skin's vertices are consecutive.

    Sizes are added up from the JSON alone, so that nothing large is read or allocated before it passes.
    """
    owners, meshes = document.items("nodes"), document.items("meshes")
    slots, vertices, triangles, morphed, other = [], 0, 0, 0, 0
    for node in nodes.visible:
        mesh = document.index(owners[node], "mesh", "meshes", f"nodes[{node}]")
        skin = document.index(owners[node], "skin", "skins", f"nodes[{node}]")
        if mesh is None:
            continue
        for index, primitive in enumerate(document.items("primitives", meshes[mesh], f"meshes[{mesh}].")):
            where = f"meshes[{mesh}].primitives[{index}]"
            mode = document.integer(primitive, "mode", 4, where)
            if mode > 6:
                document.fail(f"{where}.mode: expected 0 to 6, got {mode}")
            attributes = document.child(primitive, "attributes", where) or {}
            position = document.index(attributes, "POSITION", "accessors", f"{where}.attributes")
            if mode < 4 or position is None:
                other += 1
                continue
            indices = document.index(primitive, "indices", "accessors", where)
            corners = document.count(position if indices is None else indices)
            count = corners // 3 if mode == 4 else max(corners - 2, 0)
            vertices += document.count(position) if "NORMAL" in attributes else 3 * count
            triangles += count
            targets = len(document.items("targets", primitive, f"{where}."))
            morphed += targets * max(document.count(position), 3 * count)
            document.within(vertices, "vertices", "vertices")
            document.within(document.count(position), "vertices", "vertices")
            document.within(triangles, "triangles", "triangles")
            document.within(morphed, "morph_vertices", "morphed vertices")
            slots.append(_Slot(node, mesh, index, skin if "JOINTS_0" in attributes else None))
    if not slots:
        what = "only points, lines or empty primitives" if other else "no mesh in the scene"
        document.fail(f"{what}, expected at least one mesh of triangles; export the asset with its meshes")
    return sorted(slots, key=lambda slot: -1 if slot.skin is None else slot.skin)


def _assemble(document: Document, nodes: _Nodes, slots: list[_Slot]):
    """Reads the planned primitives into asset-wide arrays."""
    meshes, owners = document.items("meshes"), document.items("nodes")
    geometries: dict[tuple[int, int], _Geometry] = {}
    for slot in slots:
        key = (slot.mesh, slot.primitive)
        if key not in geometries:
            geometries[key] = _read_geometry(document, *key)
    counts = [len(geometries[slot.mesh, slot.primitive].positions) for slot in slots]
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    total = starts[-1]
    sets = max([1] + [len(g.texcoords) for g in geometries.values()])
    texcoords = np.zeros((total, sets, 2), np.float32)
    colors = np.ones((total, 4), np.float32)
    rig = _Rig(
        nodes=nodes,
        positions=np.zeros((3, total), np.float32),
        normals=np.zeros((3, total), np.float32),
        ranges=[slice(start, stop) for start, stop in pairwise(starts)],
        rigid=[],
        skins=[],
        morphs=[],
        flat=[],
        weights={},
        channels=[],
    )
    skins: dict[int, _Skin] = {}
    budget = document.limits.skin_weights
    primitives = []
    for slot, vertices in zip(slots, rig.ranges, strict=True):
        geometry = geometries[slot.mesh, slot.primitive]
        owner = meshes[slot.mesh]
        where = f"meshes[{slot.mesh}].primitives[{slot.primitive}]"
        rig.positions[:, vertices] = geometry.positions.T
        if geometry.normals is None:
            rig.flat.append(vertices)
        else:
            rig.normals[:, vertices] = geometry.normals.T
        for index, texcoord in enumerate(geometry.texcoords):
            texcoords[vertices, index] = texcoord
        if geometry.colors is not None:
            colors[vertices, : geometry.colors.shape[1]] = geometry.colors
        if slot.skin is None:
            rig.rigid.append((slot.node, vertices))
        else:
            if slot.skin not in skins:
                skins[slot.skin] = _read_skin(document, slot.skin)
            blocks = _skin_blocks(document, geometry, len(skins[slot.skin].joints), vertices, where, budget)
            budget -= sum(block.weights.size for block in blocks)
            skins[slot.skin].blocks.extend(blocks)
        if len(geometry.position_targets):
            rig.morphs.append(_Morph(slot.node, vertices, geometry.position_targets, geometry.normal_targets))
            if slot.node not in rig.weights:
                rig.weights[slot.node] = _default_weights(document, slot, len(geometry.position_targets))
            if len(rig.weights[slot.node]) != len(geometry.position_targets):
                document.fail(
                    f"{where}.targets: the primitives of one mesh have different numbers of targets"
                )
        name = document.text(owners[slot.node], "name", document.text(owner, "name", f"mesh {slot.mesh}"))
        primitives.append(
            Primitive(
                name=name,
                vertices=vertices,
                triangles=(geometry.triangles + vertices.start).astype(np.uint32),
                # Resolved to a place in Asset.materials once the used ones are known; -1 = the default.
                material=_or(
                    document.index(owner["primitives"][slot.primitive], "material", "materials", where), -1
                ),
                node=slot.node,
                index=slot.primitive,
            )
        )
    rig.skins = list(skins.values())
    return rig, texcoords, colors, tuple(primitives)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _default_weights(document: Document, slot: _Slot, targets: int) -> np.ndarray:
    """Morph weights at rest: the node's, else the mesh's, else 0."""
    for collection, index in (("nodes", slot.node), ("meshes", slot.mesh)):
        owner = document.items(collection)[index]
        if owner.get("weights") is not None:
            return document.vector(owner, "weights", np.zeros(targets), f"{collection}[{index}]")
    return np.zeros(targets)


def _read_geometry(document: Document, mesh: int, index: int) -> _Geometry:
    where = f"meshes[{mesh}].primitives[{index}]"
    primitive = document.items("meshes")[mesh]["primitives"][index]
    attributes = document.child(primitive, "attributes", where) or {}
    accessors = {
        key: document.index(attributes, key, "accessors", f"{where}.attributes") for key in attributes
    }
    vertices = document.count(accessors["POSITION"])
    indices = document.index(primitive, "indices", "accessors", where)
    mode = document.integer(primitive, "mode", 4, where)
    packed = document.extension(primitive, DRACO, where)
    compressed: dict[str, np.ndarray] = {}
    if packed is not None:
        here = f"{where}.{DRACO}"
        count = (vertices if indices is None else document.count(indices)) // 3
        triangles, attribute = document.draco(packed, vertices, count, here)
        keys = document.child(packed, "attributes", here) or {}
        compressed = {key: attribute(document.integer(keys, key, None, here)) for key in keys}
    else:
        if indices is None:
            order = np.arange(vertices)
        else:
            order = document.unsigned(indices, ("SCALAR",), f"{where}.indices")[:, 0]
        triangles = _triangles(order, mode)

    def read(key: str, types: tuple[str, ...], integers: bool = False) -> np.ndarray:
        if key in compressed:
            values = _uncompressed(document, accessors[key], compressed[key], integers)
            if values.shape[1] not in {int(kind[-1]) for kind in types}:
                document.fail(f"{where}.{key}: {values.shape[1]} numbers each, expected {' or '.join(types)}")
        elif integers:
            values = document.unsigned(accessors[key], types, f"{where}.{key}")
        else:
            values = document.floats(accessors[key], types, f"{where}.{key}")
        if len(values) != len(positions):
            document.fail(f"{where}.{key} has {len(values)} elements, POSITION {len(positions)}")
        return values

    positions = compressed.get("POSITION", np.empty((vertices, 0)))  # only its length until the next line
    positions = read("POSITION", ("VEC3",))
    if len(triangles) and triangles.max() >= len(positions):
        document.fail(
            f"{where}.indices: {triangles.max()} is out of range, expected below {len(positions)} vertices"
        )

    def sets(stem: str, limit: int) -> Iterator[str]:
        for number in range(limit):
            if accessors.get(f"{stem}_{number}") is None:
                return
            yield f"{stem}_{number}"

    joint_sets = [
        key
        for key in sets("JOINTS", _MAX_JOINT_SETS)
        if accessors.get(key.replace("JOINTS", "WEIGHTS")) is not None
    ]
    geometry = _Geometry(
        positions=positions,
        normals=read("NORMAL", ("VEC3",)) if accessors.get("NORMAL") is not None else None,
        texcoords=[read(key, ("VEC2",)) for key in sets("TEXCOORD", _MAX_TEXCOORDS)],
        colors=read("COLOR_0", ("VEC3", "VEC4")) if accessors.get("COLOR_0") is not None else None,
        joints=np.concatenate([read(key, ("VEC4",), integers=True) for key in joint_sets], 1)
        if joint_sets
        else None,
        weights=np.concatenate([read(key.replace("JOINTS", "WEIGHTS"), ("VEC4",)) for key in joint_sets], 1)
        if joint_sets
        else None,
        triangles=triangles,
        position_targets=np.zeros((0, 3, len(positions)), np.float32),
        normal_targets=None,
    )
    _read_targets(document, primitive, geometry, where)
    return _flattened(geometry) if geometry.normals is None else geometry


def _uncompressed(document: Document, accessor: int | None, values: np.ndarray, integers: bool) -> np.ndarray:
    """Draco's numbers with the meaning that the accessor gives them."""
    if integers:
        return values.astype(np.int64)
    floats = values.astype(np.float32)
    owner = {} if accessor is None else document.items("accessors")[accessor]
    if values.dtype.kind in "iu" and owner.get("normalized") is True:
        floats = np.maximum(floats / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
    if not np.isfinite(floats).all():
        document.fail(f"accessors[{accessor}] ({DRACO}) contains NaN or infinity; export the asset again")
    return floats


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """int64 [F, 3] of a triangle list (4), strip (5) or fan (6), all wound the same way."""
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    first = np.arange(max(len(order) - 2, 0))
    if mode == 6:
        return np.stack([order[first + 1], order[first + 2], np.broadcast_to(order[:1], first.shape)], 1)
    odd = first % 2
    return np.stack([order[first], order[first + 1 + odd], order[first + 2 - odd]], 1)


def _read_targets(document: Document, primitive: dict, geometry: _Geometry, where: str) -> None:
    """Fills in the morph targets; targets without a position or normal move nothing."""
    targets = document.items("targets", primitive, f"{where}.")
    if not targets:
        return
    shape = (len(targets), 3, len(geometry.positions))
    geometry.position_targets = np.zeros(shape, np.float32)
    if geometry.normals is not None and any("NORMAL" in target for target in targets):
        geometry.normal_targets = np.zeros(shape, np.float32)
    for number, target in enumerate(targets):
        here = f"{where}.targets[{number}]"
        for key, out in (("POSITION", geometry.position_targets), ("NORMAL", geometry.normal_targets)):
            accessor = document.index(target, key, "accessors", here)
            if accessor is None or out is None:
                continue
            if document.count(accessor) != shape[2]:
                document.fail(f"{here}.{key} has {document.count(accessor)} elements, POSITION {shape[2]}")
            out[number] = document.floats(accessor, ("VEC3",), f"{here}.{key}").T


def _flattened(geometry: _Geometry) -> _Geometry:
    """Every triangle gets vertices of its own, as flat normals need (glTF §3.7.2.1)."""
    corners = geometry.triangles.reshape(-1)

    def take(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[corners]

    return replace(
        geometry,
        positions=take(geometry.positions),
        texcoords=[take(values) for values in geometry.texcoords],
        colors=take(geometry.colors),
        joints=take(geometry.joints),
        weights=take(geometry.weights),
        triangles=np.arange(len(corners)).reshape(-1, 3),
        position_targets=geometry.position_targets[:, :, corners],
    )


def _read_skin(document: Document, index: int) -> _Skin:
    where = f"skins[{index}]"
    owner = document.items("skins")[index]
    joints = document.indices(owner, "joints", "nodes", where)
    if not joints:
        document.fail(f"{where}.joints is empty, expected at least one node; export the asset again")
    inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
    accessor = document.index(owner, "inverseBindMatrices", "accessors", where)
    if accessor is not None:
        if not len(joints) <= document.count(accessor) <= document.limits.nodes:
            document.fail(
                f"{where}.inverseBindMatrices: expected {len(joints)} matrices, one a joint, "
                f"got {document.count(accessor)}"
            )
        matrices = document.floats(accessor, ("MAT4",), f"{where}.inverseBindMatrices")
        inverse_bind = matrices[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
    return _Skin(np.array(joints), inverse_bind)


def _skin_blocks(
    document: Document, geometry: _Geometry, joints: int, vertices: slice, where: str, budget: int
) -> list[_SkinBlock]:
    """Weights as dense blocks over the few joints near each run of vertices: one matrix product each."""
    if geometry.joints is None or geometry.weights is None:
        document.fail(f"{where}: JOINTS_0 without WEIGHTS_0; export the asset again")
    indices, weights = geometry.joints, np.maximum(geometry.weights, 0)
    indices = np.where(weights > 0, indices, indices[:, :1])  # padding may hold any index
    if indices.size and indices.max() >= joints:
        document.fail(f"{where}.JOINTS: {indices.max()} is out of range, expected below {joints} joints")
    total = weights.sum(1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 0).astype(np.float32)
    weights[total[:, 0] == 0, 0] = 1  # bound to nothing: follow the first joint named
    blocks = []
    for start in range(0, len(indices), _SKIN_BLOCK):
        part = slice(start, min(start + _SKIN_BLOCK, len(indices)))
        near, column = np.unique(indices[part], return_inverse=True)
        count = part.stop - part.start
        budget -= len(near) * count
        if budget < 0:
            document.within(document.limits.skin_weights - budget, "skin_weights", "skin weights")
        dense = np.zeros((len(near), count), np.float32)
        rows = np.broadcast_to(np.arange(count)[:, None], indices[part].shape)
        np.add.at(dense, (column.reshape(rows.shape), rows), weights[part])
        blocks.append(_SkinBlock(slice(vertices.start + part.start, vertices.start + part.stop), near, dense))
    return blocks


# --- materials ------------------------------------------------------------------------------------

_WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}


def _read_materials(document: Document, primitives: tuple[Primitive, ...]):
    """The materials in use, the primitives pointing at them, and how many texcoord sets they read."""
    used = list(dict.fromkeys(primitive.material for primitive in primitives))
    materials = tuple(Material() if index < 0 else _read_material(document, index) for index in used)
    primitives = tuple(replace(p, material=used.index(p.material)) for p in primitives)
    textures = [value for m in materials for value in vars(m).values() if isinstance(value, Texture)]
    return materials, primitives, max([1] + [texture.texcoord + 1 for texture in textures])


def _read_material(document: Document, index: int) -> Material:
    where = f"materials[{index}]"
    owner = document.items("materials")[index]
    pbr = document.child(owner, "pbrMetallicRoughness", where) or {}
    mode = owner.get("alphaMode", "OPAQUE")
    if mode not in ("OPAQUE", "MASK", "BLEND"):
        document.fail(f"{where}.alphaMode: expected OPAQUE, MASK or BLEND, got {str(mode)[:80]!r}")
    strength = document.extension(owner, "KHR_materials_emissive_strength", where) or {}
    emissive = document.vector(owner, "emissiveFactor", (0, 0, 0), where)
    emissive = emissive * document.number(strength, "emissiveStrength", 1.0, where)
    normal = document.child(owner, "normalTexture", where) or {}
    occlusion = document.child(owner, "occlusionTexture", where) or {}
    material = Material(
        name=document.text(owner, "name", f"material {index}"),
        base_color=tuple(document.vector(pbr, "baseColorFactor", (1, 1, 1, 1), where).tolist()),
        base_color_texture=_read_texture(document, pbr, "baseColorTexture", where),
        metallic=document.number(pbr, "metallicFactor", 1.0, where),
        roughness=document.number(pbr, "roughnessFactor", 1.0, where),
        metallic_roughness_texture=_read_texture(document, pbr, "metallicRoughnessTexture", where),
        emissive=tuple(emissive.tolist()),
        emissive_texture=_read_texture(document, owner, "emissiveTexture", where),
        normal_texture=_read_texture(document, owner, "normalTexture", where),
        normal_scale=document.number(normal, "scale", 1.0, where),
        occlusion_texture=_read_texture(document, owner, "occlusionTexture", where),
        occlusion_strength=document.number(occlusion, "strength", 1.0, where),
        alpha_mode=mode,
        alpha_cutoff=document.number(owner, "alphaCutoff", 0.5, where),
        double_sided=owner.get("doubleSided") is True,
        unlit=document.extension(owner, "KHR_materials_unlit", where) is not None,
    )
    gloss = document.extension(owner, "KHR_materials_pbrSpecularGlossiness", where)
    return material if gloss is None else _from_specular_glossiness(document, material, gloss, where)


def _read_texture(document: Document, owner: dict, key: str, where: str) -> Texture | None:
    reference = document.child(owner, key, where)
    if reference is None:
        return None
    where = f"{where}.{key}"
    index = document.index(reference, "index", "textures", where)
    if index is None:
        document.fail(f"{where}.index is missing")
    here = f"textures[{index}]"
    texture = document.items("textures")[index]
    webp = document.extension(texture, "EXT_texture_webp", here) or {}
    source = document.index(webp, "source", "images", here)
    if source is None:
        source = document.index(texture, "source", "images", here)
    if source is None:
        if document.extension(texture, "KHR_texture_basisu", here) is not None:
            document.unsupported(
                f"{here} exists as KTX2 only (KHR_texture_basisu); {_ADVICE['KHR_texture_basisu']}"
            )
        return None  # the specification leaves such a texture to extensions; none of ours gives it an image
    sampler_index = document.index(texture, "sampler", "samplers", here)
    sampler = {} if sampler_index is None else document.items("samplers")[sampler_index]
    transform = document.extension(reference, "KHR_texture_transform", where) or {}
    texcoord = document.integer(reference, "texCoord", 0, where)
    texcoord = document.integer(transform, "texCoord", texcoord, where)
    if texcoord >= _MAX_TEXCOORDS:
        document.fail(f"{where}.texCoord: expected below {_MAX_TEXCOORDS}, got {texcoord}")
    return Texture(
        image=document.image(source),
        wrap_s=_WRAPS.get(sampler.get("wrapS"), "repeat"),
        wrap_t=_WRAPS.get(sampler.get("wrapT"), "repeat"),
        nearest=sampler.get("magFilter") == 9728,
        texcoord=texcoord,
        transform=_texture_transform(document, transform, where),
    )


def _texture_transform(document: Document, transform: dict, where: str) -> np.ndarray:
    """KHR_texture_transform: scale, then rotate counter-clockwise as seen (v points down), then move."""
    scale = document.vector(transform, "scale", (1, 1), where)
    offset = document.vector(transform, "offset", (0, 0), where)
    angle = document.number(transform, "rotation", 0.0, where)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array(
        [
            [cos * scale[0], sin * scale[1], offset[0]],
            [-sin * scale[0], cos * scale[1], offset[1]],
            [0.0, 0.0, 1.0],
        ]
    )


def _from_specular_glossiness(document: Document, material: Material, gloss: dict, where: str) -> Material:
    """Old Sketchfab exports. A strong specular factor means metal; textures stay where they fit."""
    diffuse = document.vector(gloss, "diffuseFactor", (1, 1, 1, 1), where)
    specular = document.vector(gloss, "specularFactor", (1, 1, 1), where)
    glossiness = document.number(gloss, "glossinessFactor", 1.0, where)
    return replace(
        material,
        base_color=tuple(diffuse.tolist()),
        base_color_texture=_read_texture(document, gloss, "diffuseTexture", where),
        metallic=0.0 if gloss.get("diffuseTexture") else float(np.clip((specular.max() - 0.04) / 0.96, 0, 1)),
        roughness=1.0 - float(np.clip(glossiness, 0, 1)),
        metallic_roughness_texture=None,
    )


# --- animations -----------------------------------------------------------------------------------

_WIDTH = {"translation": ("VEC3", 3), "scale": ("VEC3", 3), "rotation": ("VEC4", 4), "weights": ("SCALAR", 1)}


def _read_animations(document: Document, nodes: _Nodes, rig: _Rig) -> tuple[tuple[Animation, ...], tuple]:
    """All animations in the file's order; their channels go to the rig."""
    animations, notes, key_values = [], [], 0
    pointers = usable = 0
    time_lines: dict[int, list[float]] = {}
    for index, owner in enumerate(document.items("animations")):
        channels = []
        samplers = document.items("samplers", owner, f"animations[{index}].")
        driven = set()
        ignored = 0
        for number, channel in enumerate(document.items("channels", owner, f"animations[{index}].")):
            where = f"animations[{index}].channels[{number}]"
            target = document.child(channel, "target", where) or {}
            if target.get("path") == "pointer":
                ignored += 1
                continue
            node = document.index(target, "node", "nodes", f"{where}.target")
            path = target.get("path")
            if node is None or path not in _WIDTH:
                continue  # an extension's business
            if path == "weights" and node not in rig.weights:
                continue  # nothing to morph is drawn at that node
            if (node, path) in driven:
                document.fail(f"{where}: a second channel for nodes[{node}].{path}; export the asset again")
            driven.add((node, path))
            sampler = document.integer(channel, "sampler", None, where)
            if sampler >= len(samplers):
                document.fail(f"{where}.sampler: expected an index below {len(samplers)}, got {sampler}")
            sizes = (len(rig.weights[node]) if path == "weights" else 1, _WIDTH[path])
            here = f"animations[{index}].samplers[{sampler}]"
            data = _read_sampler(document, samplers[sampler], sizes, time_lines, here)
            key_values += data[2].size
            document.within(key_values, "key_values", "animated numbers")
            channels.append(_Channel(node, path, *data))
        start = min((channel.times[0] for channel in channels), default=0.0)
        end = max((channel.times[-1] for channel in channels), default=0.0)
        name = document.text(owner, "name", f"animation {index}")
        animations.append(Animation(name, start, end, len(channels)))
        rig.channels.append(tuple(channels))
        pointers += ignored
        usable += len(channels)
        if ignored:
            notes.append(f"{ignored} KHR_animation_pointer channels of animation {name!r} stand still")
    if pointers and not usable:
        document.unsupported(
            f"all of its {pointers} animation channels use KHR_animation_pointer, which is not supported; "
            f"{_ADVICE['KHR_animation_pointer']}"
        )
    return tuple(animations), tuple(notes)


def _read_sampler(document: Document, sampler: dict, sizes, time_lines: dict, where: str):
    """Interpolation, times and values (float64 [keys, width] or [keys, 3, width]) of one sampler."""
    targets, (kind, width) = sizes
    interpolation = sampler.get("interpolation", "LINEAR")
    if interpolation not in ("STEP", "LINEAR", "CUBICSPLINE"):
        document.fail(
            f"{where}.interpolation: expected STEP, LINEAR or CUBICSPLINE, got {interpolation!r:.80}"
        )
    times, values = (document.index(sampler, key, "accessors", where) for key in ("input", "output"))
    if times is None or values is None:
        document.fail(f"{where}: expected input and output accessors")
    keys = document.count(times)
    document.within(document.count(values) * width, "key_values", "animated numbers")
    document.within(keys, "key_values", "animated numbers")
    if times not in time_lines:
        line = document.floats(times, ("SCALAR",), f"{where}.input")[:, 0]
        if not len(line) or (np.diff(line) < 0).any():
            document.fail(f"{where}.input: expected at least one key time, in ascending order")
        time_lines[times] = line.astype(np.float64).tolist()
    parts = 3 if interpolation == "CUBICSPLINE" else 1
    if document.count(values) != keys * parts * targets:
        document.fail(
            f"{where}.output has {document.count(values)} elements, "
            f"expected {keys * parts * targets} for {keys} keys ({interpolation})"
        )
    data = document.floats(values, (kind,), f"{where}.output").astype(np.float64)
    shape = (keys, 3, targets * width) if parts == 3 else (keys, targets * width)
    return interpolation, time_lines[times], data.reshape(shape)


@dataclass(frozen=True)
class _Tracks:
    """Channels that are evaluated together: one gather and one formula for all of them.

    Attributes:
        rows: int [c], where each channel's result goes. lines: int [c], its time line.
        first: int [c], the row of its first key in `values`. linear: float [c, 1], 0 for STEP.
    """

    rows: np.ndarray
    lines: np.ndarray
    first: np.ndarray
    linear: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, channels: list[tuple[int, int, _Channel]]) -> _Tracks | None:
        if not channels:
            return None
        rows, lines, members = zip(*channels, strict=True)
        counts = [len(channel.times) for channel in members]
        return cls(
            np.array(rows),
            np.array(lines),
            np.concatenate([[0], np.cumsum(counts)[:-1]]),
            np.array([[channel.interpolation != "STEP"] for channel in members], np.float64),
            np.concatenate([channel.values for channel in members]),
        )


class _Motion:
    """One animation made ready: only what it moves is evaluated, all else is computed once."""

    def __init__(self, rig: _Rig, channels: tuple[_Channel, ...]) -> None:
        self.rig = rig
        nodes = rig.nodes
        count = len(nodes)
        lines: dict[int, int] = {}
        self._times: list[list[float]] = []
        groups: dict[tuple[str, bool], list] = {
            (kind, spline): [] for kind in ("vector", "rotation") for spline in (False, True)
        }
        self._weights: list[tuple[int, int, _Channel]] = []
        self._base_weights = dict(rig.weights)
        self._translation_scale = nodes.translation_scale.copy()
        self._rotation = nodes.rotation.copy()
        placed, moving = set(), set()
        for channel in channels:
            if id(channel.times) not in lines:
                lines[id(channel.times)] = len(self._times)
                self._times.append(channel.times)
            line = lines[id(channel.times)]
            spline = channel.interpolation == "CUBICSPLINE"
            keys = channel.values[:, 1] if spline else channel.values
            still = (keys == keys[0]).all() and not (spline and channel.values[:, ::2].any())
            if channel.path == "weights":
                if still:
                    self._base_weights[channel.node] = keys[0]
                else:
                    self._weights.append((channel.node, line, channel))
                continue
            placed.add(channel.node)
            rotates = channel.path == "rotation"
            row = channel.node + (count if channel.path == "scale" else 0)
            if still and rotates:
                self._rotation[row] = _normalised_quaternions(keys[0])
            elif still:
                self._translation_scale[row] = keys[0]
            else:
                moving.add(channel.node)
                if rotates and not spline:
                    channel = replace(channel, values=_normalised_quaternions(channel.values))
                groups["rotation" if rotates else "vector", spline].append((row, line, channel))
        self._tracks = {key: _Tracks.of(members) for key, members in groups.items()}

        self._local = nodes.local.copy()
        self._place(np.array(sorted(placed), int))
        self._world = nodes.world(self._local)
        self._moving = np.array(sorted(moving), int)
        dynamic = np.zeros(count + 1, bool)  # the last row is the world, which never moves
        dynamic[self._moving] = True
        self._levels = []
        for level in nodes.levels:
            dynamic[level] |= dynamic[nodes.parents[level]]
            level = level[dynamic[level]]
            if len(level):
                self._levels.append((level, nodes.parents[level]))

        morphing = {node for node, _, _ in self._weights}
        self._positions, self._normals = rig.positions.copy(), rig.normals.copy()
        self._mirrored = np.zeros(len(rig.ranges), bool)
        self._morph(rig.morphs, self._base_weights, self._positions, self._normals)
        self._morphs = [morph for morph in rig.morphs if morph.node in morphing]
        self._shape = self._positions, self._normals  # morphed at rest, unposed
        live = np.zeros(rig.positions.shape[1], bool)
        for morph in self._morphs:
            live[morph.vertices] = True
        self._rigid = []
        for node, vertices in rig.rigid:
            if dynamic[node] or live[vertices].any():
                self._rigid.append((node, vertices))
                live[vertices] = True
        self._skins = []
        for skin in rig.skins:
            moves = dynamic[skin.joints]
            blocks = [b for b in skin.blocks if moves[b.joints].any() or live[b.vertices].any()]
            if blocks:
                self._skins.append(replace(skin, blocks=blocks))
            for block in blocks:
                live[block.vertices] = True
        self._flat = [vertices for vertices in rig.flat if live[vertices].any()]
        self._rest = tuple(array.copy() for array in self._shape)
        self._move(self._world, rig.rigid, rig.skins, self._shape, self._rest, rig.flat, self._mirrored)

    def pose(self, time: float) -> Pose:
        world, weights = self._evaluate(float(time))
        shape = self._shape
        if self._morphs:
            shape = tuple(array.copy() for array in shape)
            for morph in self._morphs:
                shape[0][:, morph.vertices] = self.rig.positions[:, morph.vertices]
                shape[1][:, morph.vertices] = self.rig.normals[:, morph.vertices]
            self._morph(self._morphs, weights, *shape)
        out = tuple(array.copy() for array in self._rest)
        mirrored = self._mirrored.copy()
        self._move(world, self._rigid, self._skins, shape, out, self._flat, mirrored)
        return Pose(np.ascontiguousarray(out[0].T), np.ascontiguousarray(out[1].T), mirrored)

    # --- channels to node matrices and weights ---

    def _evaluate(self, time: float) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        low, high, phase, step = self._keys_at(time)
        for rotates, rows in ((False, self._translation_scale), (True, self._rotation)):
            kind = "rotation" if rotates else "vector"
            tracks = self._tracks[kind, False]
            if tracks is not None:
                a = tracks.values[tracks.first + low[tracks.lines]]
                b = tracks.values[tracks.first + high[tracks.lines]]
                u = phase[tracks.lines, None] * tracks.linear
                rows[tracks.rows] = _slerp(a, b, u) if rotates else a + (b - a) * u
            tracks = self._tracks[kind, True]
            if tracks is not None:
                a = tracks.values[tracks.first + low[tracks.lines]]
                b = tracks.values[tracks.first + high[tracks.lines]]
                values = _spline(a, b, phase[tracks.lines, None], step[tracks.lines, None])
                rows[tracks.rows] = _normalised_quaternions(values) if rotates else values
        if len(self._moving):
            self._place(self._moving)
            for level, parents in self._levels:
                self._world[level] = self._world[parents] @ self._local[level]
        weights = dict(self._base_weights)
        for node, line, channel in self._weights:
            a, b, u = channel.values[low[line]], channel.values[high[line]], phase[line]
            if channel.interpolation == "CUBICSPLINE":
                weights[node] = _spline(a, b, u, step[line])
            else:
                weights[node] = a + (b - a) * (u if channel.interpolation == "LINEAR" else 0.0)
        return self._world, weights

    def _keys_at(self, time: float) -> tuple[np.ndarray, ...]:
        """Per time line: the keys around `time`, how far between (0-1), and their distance in seconds."""
        low = np.empty(len(self._times), int)
        high, phase, step = low.copy(), np.zeros(len(low)), np.zeros(len(low))
        for i, times in enumerate(self._times):
            before = min(max(bisect_right(times, time) - 1, 0), len(times) - 1)
            after = min(before + 1, len(times) - 1)
            low[i], high[i], step[i] = before, after, times[after] - times[before]
            if step[i] > 0:
                phase[i] = min(max((time - times[before]) / step[i], 0.0), 1.0)
        return low, high, phase, step

    def _place(self, which: np.ndarray) -> None:
        count = len(self.rig.nodes)
        translation, scale = self._translation_scale[which], self._translation_scale[count + which]
        self._local[which] = _compose(translation, self._rotation[which], scale)

    # --- vertices ---

    @staticmethod
    def _morph(morphs: list[_Morph], weights: dict, positions: np.ndarray, normals: np.ndarray) -> None:
        for morph in morphs:
            active = np.flatnonzero(weights[morph.node])
            factors = weights[morph.node][active].astype(np.float32)
            for deltas, out in ((morph.positions, positions), (morph.normals, normals)):
                if deltas is not None and len(active):
                    out[:, morph.vertices] += np.tensordot(factors, deltas[active], 1)

    def _move(self, world, rigid, skins, shape, out, flat, mirrored) -> None:
        """Unposed `shape` (positions, normals) to world `out`, for the given parts."""
        signs: dict[int, float] = {}
        for node, vertices in rigid:
            matrix = world[node][:3, :3]
            determinant = np.linalg.det(matrix)
            signs[vertices.start] = determinant
            out[0][:, vertices] = matrix.astype(np.float32) @ shape[0][:, vertices]
            out[0][:, vertices] += world[node][:3, 3:].astype(np.float32)
            # Normals go by the cofactor matrix: the inverse transpose that also exists for flattened parts.
            scaled = _cofactor(matrix / max(np.abs(matrix).max(), 1e-30))
            if determinant < 0:
                scaled = -scaled
            out[1][:, vertices] = _unit(scaled.astype(np.float32) @ shape[1][:, vertices])
        for skin in skins:
            joints = (world[skin.joints] @ skin.inverse_bind)[:, :3].reshape(-1, 12)
            joints = joints.astype(np.float32).T
            for block in skin.blocks:
                rows = (joints[:, block.joints] @ block.weights).reshape(3, 4, -1)
                points, directions = shape[0][:, block.vertices], shape[1][:, block.vertices]
                for axis in range(3):
                    a, b, c, d = rows[axis]
                    out[0][axis, block.vertices] = a * points[0] + b * points[1] + c * points[2] + d
                cofactor = _cofactor(rows[:, :3])
                determinant = (rows[0, :3] * cofactor[0]).sum(0)
                signs[block.vertices.start] = float(determinant.sum())
                turned = (cofactor * directions).sum(1)
                out[1][:, block.vertices] = _unit(np.where(determinant < 0, -turned, turned))
        for index, vertices in enumerate(self.rig.ranges):
            if vertices.start in signs:
                mirrored[index] = signs[vertices.start] < 0
        for vertices in flat:
            corners = out[0][:, vertices].reshape(3, -1, 3)
            a, b = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
            normal = _unit(
                np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
            )
            if signs.get(vertices.start, 1.0) < 0:
                normal = -normal
            out[1][:, vertices] = np.repeat(normal, 3, axis=1)


def _cofactor(m: np.ndarray) -> np.ndarray:
    """Cofactor matrices of [3, 3, ...]: its rows are the cross products of the rows of m."""
    out = np.empty_like(m)
    for i in range(3):
        r, s = m[(i + 1) % 3], m[(i + 2) % 3]
        for j in range(3):
            k, l = (j + 1) % 3, (j + 2) % 3
            out[i, j] = r[k] * s[l] - r[l] * s[k]
    return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Columns [3, n] scaled to length 1; a zero vector becomes +Y, so that every normal is usable."""
    length = np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)
    zero = ~(length > 0)
    if zero.any():
        vectors = np.where(zero, np.array([[0], [1], [0]], np.float32), vectors)
        length = np.where(zero, np.float32(1), length)
    return vectors / length


def _slerp(a: np.ndarray, b: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Unit quaternions [c, 4] between a and b, the short way round; u [c, 1] in 0-1."""
    dot = (a * b).sum(-1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    angle = np.arccos(np.minimum(np.abs(dot), 1.0))
    sine = np.sin(angle)
    near = sine < 1e-6
    safe = np.where(near, 1.0, sine)
    first = np.where(near, 1.0 - u, np.sin((1.0 - u) * angle) / safe)
    second = np.where(near, u, np.sin(u * angle) / safe)
    return _normalised_quaternions(first * a + second * b)


def _spline(a: np.ndarray, b: np.ndarray, u: np.ndarray, step: np.ndarray) -> np.ndarray:
    """glTF's cubic Hermite spline; a and b are keys [..., 3, width] of in-tangent, value, out-tangent."""
    u2, u3 = u * u, u * u * u
    start, leave = a[..., 1, :], a[..., 2, :] * step
    arrive, end = b[..., 0, :] * step, b[..., 1, :]
    return (
        (2 * u3 - 3 * u2 + 1) * start
        + (u3 - 2 * u2 + u) * leave
        + (3 * u2 - 2 * u3) * end
        + (u3 - u2) * arrive
    )
