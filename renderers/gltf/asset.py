"""`load` and the `Asset` it returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from renderers.arguments import flag, instance, integer, number
from renderers.files import file_path
from renderers.gltf.animations import Animation, Channel, read_animations
from renderers.gltf.document import Document
from renderers.gltf.files import reason
from renderers.gltf.limits import GltfError, Limits
from renderers.gltf.materials import Material, Texture, read_material
from renderers.gltf.motion import Motion
from renderers.gltf.nodes import read_nodes
from renderers.gltf.rig import Part, Rig, read_rig
from renderers.gltf.usage import check_required, note_extensions
from renderers.values import by_value

_ROUNDING = 1e-6  # of a key interval; times that are less after the last key are the last key's


@by_value
@dataclass(frozen=True, eq=False, repr=False)
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


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Pose:
    """The asset at one time, in world space.

    Attributes:
        positions: float32 [N, 3], metres, relative to `Asset.origin`.
        normals: float32 [N, 3], unit, pointing outward.
        mirrored: bool [P], per primitive: its transform is a reflection, so its front faces are clockwise.
    """

    positions: np.ndarray
    normals: np.ndarray
    mirrored: np.ndarray


@by_value
@dataclass(frozen=True, eq=False, repr=False)
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
        source, root: the path or the bytes that it was loaded from, and the folder that its files may be in, for back
            ends that read files themselves.
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
    root: Path | None = field(repr=False)
    _rig: Rig = field(repr=False)
    _channels: tuple[tuple[Channel, ...], ...] = field(repr=False)
    _motions: dict[int | None, Motion] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        triangles = sum(len(primitive.triangles) for primitive in self.primitives)
        return (
            f"Asset({self.name!r}, {len(self.animations)} animation{'s' * (len(self.animations) != 1)}, "
            f"{self.num_vertices} vertices, {triangles} triangles)"
        )

    @property
    def num_vertices(self) -> int:
        """N, the number of vertices over all primitives."""
        return len(self.colors)

    def pose(self, animation: int | None, time: float, *, closed: bool = False) -> Pose:
        """Evaluate the vertices in world space.

        Args:
            animation: index into `animations`; None for the rest pose.
            time: seconds on the animation's time line, clamped to its first and last key.
            closed: the animation is a cycle without the closing key: up to one `Animation.key_interval` after its last
                key, properties are interpolated between their last and their first key. Nothing else changes.
        Raises:
            GltfError: the pose is not finite.
            IndexError: the animation does not exist.
        """
        return Pose(*self._evaluate(animation, time, normals=True, closed=closed))

    def positions(self, animation: int | None, time: float, *, closed: bool = False) -> np.ndarray:
        """Evaluate only the positions of `pose`, float32 [N, 3], in about half the time."""
        return self._evaluate(animation, time, normals=False, closed=closed)[0]

    def origin(self, animation: int | None) -> np.ndarray:
        """Return the point of the file's world that the positions of an animation are relative to, float64 [3].

        It is 0 unless the asset is far from the world's origin, as in geographic coordinates: float32 resolves only
        0.5 m at 5 000 km. A transform A of the file's world is A @ T(origin) for the positions of a pose.
        """
        return self._motion(animation).origin.copy()

    def _motion(self, animation: int | None) -> Motion:
        if animation is not None:
            animation = integer(animation, f"{self.name}: animation")
        if animation is not None and not 0 <= animation < len(self.animations):
            raise IndexError(
                f"{self.name}: animation {animation} does not exist, expected an index below {len(self.animations)}"
            )
        motion = self._motions.get(animation)
        if motion is None:
            channels = () if animation is None else self._channels[animation]
            start = 0.0 if animation is None else self.animations[animation].start
            with np.errstate(all="ignore"):  # overflow is detected in the poses
                motion = Motion(self._rig, channels, start)
            # Clips use one animation at a time, and its arrays may be large; the rest pose is used with all of them.
            for other in [number for number in self._motions if None not in (number, animation)]:
                del self._motions[other]
            self._motions[animation] = motion
        return motion

    def _evaluate(
        self, animation: int | None, time: float, normals: bool, closed: bool = False
    ) -> tuple[np.ndarray, ...]:
        time, closing = number(time, f"{self.name}: time"), None
        motion = self._motion(animation)
        if flag(closed, f"{self.name}: closed") and animation is not None:
            end, interval = self.animations[animation].end, self.animations[animation].key_interval
            phase = (time - end) / interval if interval else 0.0
            if phase > _ROUNDING:
                closing = (min(float(phase), 1.0), interval)
        with np.errstate(all="ignore"):  # overflow is detected below
            positions, directions, mirrored = motion.pose(time, normals, closing)
        if not np.isfinite(positions).all():
            raise GltfError(
                f"{self.name}: animation {animation} at {time} s has vertices at infinity; exclude this animation"
            )
        return positions, directions, mirrored


def load(
    source: str | Path | bytes,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    root: str | Path | None = None,
) -> Asset:
    """Load a .glb or .gltf file. Nothing outside the file's own folder, or `root`, is read.

    Args:
        source: path, or the bytes of a file that references no other.
        name: name in error messages; None uses the file's name.
        limits: upper bounds on the contents; the defaults suit models that fit in a few GiB of memory.
        root: a folder that contains the file; files that it references may be anywhere inside. None is the file's own
            folder.
    Raises:
        UnsupportedGltf: the file is valid but requires a feature that is not supported.
        GltfError: the file is not a usable asset.
    """
    instance(source, (str, os.PathLike, bytes), "gltf.load: source")
    if name is not None:
        instance(name, str, "gltf.load: name")
    if limits is not None:
        instance(limits, Limits, "gltf.load: limits")
    root = None if root is None else file_path(root, "gltf.load: root")
    document = Document.open(source, name, limits or Limits(), root)
    try:
        with np.errstate(all="ignore"):  # overflow is rejected as not finite
            return _build(document, source if isinstance(source, bytes) else Path(source), root)
    except GltfError:
        raise
    except (MemoryError, RecursionError) as error:
        raise GltfError(
            f"{document.name}: too large or nested too deeply to be read ({reason(error)})"
        ) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # What can be wrong with a file is checked and named where it is read; the fuzz test accepts nothing else. So
        # this is a fault of this package, but it must not stop a job over thousands of files either.
        raise GltfError(
            f"{document.name}: internal error of menagerie4d ({type(error).__name__}: {reason(error)}); please report "
            f"it with the file"
        ) from error


def _build(document: Document, source: Path | bytes, root: Path | None) -> Asset:
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
        root=root,
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
    try:
        positions = asset.positions(animation, time)[asset.visible]
    except GltfError:
        if animation is None:
            raise
        return False  # this animation moves to infinity; another may be fine
    return bool(np.ptp(positions, axis=0).max() > 0)


def _metadata(document: Document) -> dict[str, str]:
    asset = document.json["asset"]
    extras = asset.get("extras")
    metadata = {key: asset.get(key) for key in ("generator", "copyright")}
    if isinstance(extras, dict):
        metadata |= {key: extras.get(key) for key in ("title", "author", "license", "source")}
    return {key: text for key in metadata if (text := document.text(metadata, key, ""))}
