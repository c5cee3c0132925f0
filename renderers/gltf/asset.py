"""The asset: what `load` gives, and how it is put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from renderers.gltf.animations import Animation, Channel, read_animations
from renderers.gltf.document import DRACO, MESHOPT, Document, GltfError, Limits
from renderers.gltf.materials import Material, Texture, read_material
from renderers.gltf.motion import Motion
from renderers.gltf.nodes import read_nodes
from renderers.gltf.rig import Part, Rig, read_rig

_UNDERSTOOD = {
    DRACO,
    MESHOPT,
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
        source: what it was loaded from, a path or the bytes of a .glb, for those who read files themselves.
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
    source: Path | bytes = field(repr=False)
    _rig: Rig = field(repr=False)
    _channels: tuple[tuple[Channel, ...], ...] = field(repr=False)
    _motions: dict[int | None, Motion] = field(default_factory=dict, repr=False)

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
        return Pose(*self._evaluate(animation, time, normals=True))

    def positions(self, animation: int | None, time: float) -> np.ndarray:
        """The positions of `pose` alone, float32 [N, 3], in about half its time."""
        return self._evaluate(animation, time, normals=False)[0]

    def _evaluate(self, animation: int | None, time: float, normals: bool) -> tuple[np.ndarray, ...]:
        if animation is not None and not 0 <= animation < len(self.animations):
            raise IndexError(
                f"{self.name}: animation {animation} does not exist, it has {len(self.animations)}"
            )
        with np.errstate(all="ignore"):  # what overflows is found below
            motion = self._motions.get(animation)
            if motion is None:
                motion = Motion(self._rig, () if animation is None else self._channels[animation])
                self._motions.clear()  # a clip asks for one animation at a time; its arrays may be large
                self._motions[animation] = motion
            positions, directions, mirrored = motion.pose(float(time), normals)
        if not np.isfinite(positions).all():
            raise GltfError(
                f"{self.name}: animation {animation} at {time} s puts vertices at infinity; leave it out"
            )
        return positions, directions, mirrored


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
        with np.errstate(all="ignore"):  # what overflows is refused as not finite
            return _build(document, source if isinstance(source, bytes) else Path(source))
    except GltfError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # A malformed file that no check above foresaw must not stop a job over thousands of files.
        raise GltfError(f"{document.name}: malformed glTF ({type(error).__name__}: {error})") from error


def _build(document: Document, source: Path | bytes) -> Asset:
    _check_extensions(document)
    nodes = read_nodes(document)
    rig = read_rig(document, nodes)
    animations, channels, notes = read_animations(document, rig.weights)
    used = list(dict.fromkeys(part.material for part in rig.parts))
    materials = tuple(read_material(document, index) for index in used)
    textures = [value for m in materials for value in vars(m).values() if isinstance(value, Texture)]
    sets = max([rig.texcoords.shape[1]] + [texture.texcoord + 1 for texture in textures])
    asset = Asset(
        name=document.name,
        primitives=tuple(
            Primitive(
                name=_part_name(document, part),
                vertices=vertices,
                triangles=faces.astype(np.uint32),
                material=used.index(part.material),
                node=part.node,
                index=part.index,
            )
            for part, vertices, faces in zip(rig.parts, rig.ranges, rig.triangles, strict=True)
        ),
        materials=materials,
        animations=animations,
        texcoords=np.pad(rig.texcoords, ((0, 0), (0, sets - rig.texcoords.shape[1]), (0, 0))),
        colors=rig.colors,
        visible=_visible(rig),
        metadata=_metadata(document),
        notes=notes,
        source=source,
        _rig=rig,
        _channels=channels,
    )
    moments = islice(_moments(asset), 64)
    if not any(_has_extent(asset, animation, time) for animation, time in moments):
        document.fail("every triangle has zero extent, expected a visible object; export the asset again")
    return asset


def _visible(rig: Rig) -> np.ndarray:
    used = np.zeros(rig.positions.shape[1], bool)
    for faces in rig.triangles:
        used[faces] = True
    return np.flatnonzero(used)


def _part_name(document: Document, part: Part) -> str:
    mesh, node = document.items("meshes")[part.mesh], document.items("nodes")[part.node]
    return document.text(node, "name", document.text(mesh, "name", f"mesh {part.mesh}"))


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
