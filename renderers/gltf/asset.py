"""`load` and the `Asset` it returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from renderers.gltf.animations import Animation, Channel, read_animations
from renderers.gltf.document import Document
from renderers.gltf.limits import GltfError, Limits
from renderers.gltf.materials import Material, Texture, read_material
from renderers.gltf.motion import Motion
from renderers.gltf.nodes import read_nodes
from renderers.gltf.rig import Part, Rig, read_rig
from renderers.gltf.usage import check_required, note_extensions


@dataclass(frozen=True)
class Primitive:
    """A mesh primitive at one node (a mesh that several nodes reference appears once per node).

    Attributes:
        name: name of the node, else of the mesh.
        vertices: range in the asset-wide vertex arrays.
        triangles: uint32 [F, 3], indices into the asset-wide arrays.
        material: index into `Asset.materials`.
        node, index: index of the node in the file, and of the primitive in that node's mesh.
    """

    name: str
    vertices: slice
    triangles: np.ndarray
    material: int
    node: int
    index: int


@dataclass(frozen=True)
class Pose:
    """The asset at one time, in world space.

    Attributes:
        positions: float32 [N, 3], metres.
        normals: float32 [N, 3], unit, pointing outward.
        mirrored: bool [P], per primitive: its transform is a reflection, so its front faces are clockwise.
    """

    positions: np.ndarray
    normals: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Asset:
    """A loaded glTF file, immutable apart from a cache. Created by `load`.

    Attributes:
        name: name in error messages.
        primitives, materials, animations: in the order of the file.
        texcoords: float32 [N, S, 2], S >= 1 texture coordinate sets; zeros where a set is absent.
        colors: float32 [N, 4], linear vertex colours, 1 where absent.
        visible: int64 [n], indices of the vertices that are used by a triangle.
        metadata: the strings of the file's `asset` object: generator, copyright, and (as written by Sketchfab) title,
            author, license and source.
        notes: how the asset differs from what the file specifies, one short sentence each, in words that are the same
            for all files with that difference, so that they can be counted.
        source: the path or the bytes that it was loaded from, for back ends that read files themselves.
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
        """N, the number of vertices over all primitives."""
        return len(self.colors)

    def pose(self, animation: int | None, time: float) -> Pose:
        """Evaluate the vertices in world space.

        Args:
            animation: index into `animations`; None for the rest pose.
            time: seconds on the animation's time line, clamped to its first and last key.
        Raises:
            GltfError: the pose is not finite.
            IndexError: the animation does not exist.
        """
        return Pose(*self._evaluate(animation, time, normals=True))

    def positions(self, animation: int | None, time: float) -> np.ndarray:
        """Evaluate only the positions of `pose`, float32 [N, 3], in about half the time."""
        return self._evaluate(animation, time, normals=False)[0]

    def _evaluate(self, animation: int | None, time: float, normals: bool) -> tuple[np.ndarray, ...]:
        if animation is not None and not 0 <= animation < len(self.animations):
            raise IndexError(
                f"{self.name}: animation {animation} does not exist, expected an index below {len(self.animations)}"
            )
        with np.errstate(all="ignore"):  # overflow is detected below
            motion = self._motions.get(animation)
            if motion is None:
                motion = Motion(self._rig, () if animation is None else self._channels[animation])
                self._motions.clear()  # clips use one animation at a time, and its arrays may be large
                self._motions[animation] = motion
            positions, directions, mirrored = motion.pose(float(time), normals)
        if not np.isfinite(positions).all():
            raise GltfError(
                f"{self.name}: animation {animation} at {time} s has vertices at infinity; exclude this animation"
            )
        return positions, directions, mirrored


def load(source: str | Path | bytes, *, name: str | None = None, limits: Limits | None = None) -> Asset:
    """Load a .glb or .gltf file. Nothing outside the file's own folder is read.

    Args:
        source: path, or the bytes of a file that references no other.
        name: name in error messages; None uses the file's name.
        limits: upper bounds on the contents; the defaults suit models that fit in a few GiB of memory.
    Raises:
        UnsupportedGltf: the file is valid but requires a feature that is not supported.
        GltfError: the file is not a usable asset.
    """
    document = Document.open(source, name, limits or Limits())
    try:
        with np.errstate(all="ignore"):  # overflow is rejected as not finite
            return _build(document, source if isinstance(source, bytes) else Path(source))
    except GltfError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # A malformed file that passed the checks must not stop a job over thousands of files.
        raise GltfError(f"{document.name}: malformed glTF ({type(error).__name__}: {error})") from error


def _build(document: Document, source: Path | bytes) -> Asset:
    check_required(document)
    nodes = read_nodes(document)
    rig = read_rig(document, nodes)
    used = list(dict.fromkeys(part.material for part in rig.parts))
    animations, channels = read_animations(document, rig.weights, used)
    materials = tuple(read_material(document, index) for index in used)
    textures = [value for m in materials for value in vars(m).values() if isinstance(value, Texture)]
    sets = max([rig.texcoords.shape[1]] + [texture.texcoord + 1 for texture in textures])
    note_extensions(document, nodes.visible, used)
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
        notes=tuple(document.notes),
        source=source,
        _rig=rig,
        _channels=channels,
    )
    times = islice(_candidate_times(asset), 64)
    if not any(_has_extent(asset, animation, time) for animation, time in times):
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


def _candidate_times(asset: Asset) -> Iterator[tuple[int | None, float]]:
    """Yield (animation, time): the rest pose, then times at which an object scaled to zero at rest may appear."""
    yield None, 0.0
    for index, animation in enumerate(asset.animations):
        for phase in (0.0, 0.5, 1.0):
            yield index, animation.start + phase * animation.duration


def _has_extent(asset: Asset, animation: int | None, time: float) -> bool:
    return bool(np.ptp(asset.pose(animation, time).positions[asset.visible], axis=0).max() > 0)


def _metadata(document: Document) -> dict[str, str]:
    asset = document.json["asset"]
    extras = asset.get("extras")
    metadata = {key: asset.get(key) for key in ("generator", "copyright")}
    if isinstance(extras, dict):
        metadata |= {key: extras.get(key) for key in ("title", "author", "license", "source")}
    return {key: value for key, value in metadata.items() if isinstance(value, str) and value}
