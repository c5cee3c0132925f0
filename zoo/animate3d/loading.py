"""3D models to animate: files of any common format, loaded as glTF."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderers.arguments import array, instance, shown
from renderers.files import file_path
from renderers.gltf import SNIFFED_BYTES, Asset, GltfError, Limits, identify, load, path_text
from renderers.gltf.editing import GltfEditor
from renderers.gltf.rest import RestPart, rest_parts
from renderers.gltf.writing import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, UINT32, GlbBuffer
from renderers.values import by_value
from zoo.animate3d.splats.model import SplatModel, load_splats
from zoo.errors import ModelError

_GLTF, _MESH = (".glb", ".gltf"), (".obj", ".ply", ".stl")
_BLENDER = (".fbx", ".blend", ".usd", ".usda", ".usdc", ".usdz")
MODEL_SUFFIXES = _GLTF + _MESH + _BLENDER
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tga", ".bmp", ".tif", ".tiff", ".exr"}
_MOST_IMAGES = 1000


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class StillModel:
    """A 3D model in its rest pose, and the glTF file that it is stored in.

    Attributes:
        asset: the loaded file. Its rest pose is what is animated; animations of the file are kept, but not used.
        glb: the file as .glb: a .glb as it was given; of a .gltf, with its buffers and images moved inside; of other
            formats, converted.
        notes: sentences about what was left out or chosen, such as the pose of an animated file.
    """

    asset: Asset
    glb: bytes
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"StillModel({self.asset!r})"

    @property
    def name(self) -> str:
        """Name of the file, for messages."""
        return self.asset.name

    def vertices(self) -> np.ndarray:
        """Return the vertices in the rest pose, float64 [V, 3], world space relative to `asset.origin(None)`."""
        return self.asset.positions(None, 0.0).astype(np.float64)

    def diagonal(self) -> float:
        """Return the diagonal of the bounding box of the visible vertices, metres."""
        used = self.asset.positions(None, 0.0)[self.asset.visible].astype(np.float64)
        return float(np.linalg.norm(used.max(0) - used.min(0)))

    def editor(self) -> GltfEditor:
        """Open the file for a copy with additions."""
        return GltfEditor(self.glb, name=self.name)

    def parts(self) -> list[RestPart]:
        """Describe where the vertices of the asset are in the file."""
        return rest_parts(self.asset, GltfEditor(self.glb, name=self.name).document)


def load_model(
    source: str | os.PathLike[str] | bytes | tuple[np.ndarray, np.ndarray],
    *,
    name: str | None = None,
    limits: Limits | None = None,
) -> StillModel:
    """Load a 3D model that is to be animated.

    .glb and .gltf are used as they are. .obj, .ply and .stl are converted with their materials, textures and vertex
    colours. .fbx, .blend and .usd are converted by Blender (`renderers.meshes.blender`).

    Args:
        source: path of a file; the bytes of a .glb, or of a .gltf that references no other file; or vertices [V, 3] and
            triangles [F, 3].
        name: name in messages; None uses the file's name.
        limits: upper bounds on the contents; the default allows 2 million vertices and 4 million triangles.
    Raises:
        ModelError: the file cannot be used; one sentence that says why and what to do.
        TypeError: `source` is of another type.
    """
    limits = limits or Limits()
    instance(limits, Limits, "load_model: limits")
    notes: list[str] = []
    if isinstance(source, bytes | bytearray):
        name, glb = name or "model in memory", bytes(source)
    elif isinstance(source, tuple) and len(source) == 2:
        name, glb = name or "mesh in memory", _from_arrays(*source)
    elif isinstance(source, str | os.PathLike):
        path = file_path(source, "load_model: source")
        name = name or path_text(path.name)
        glb, notes = _read(path, limits)
    else:
        raise TypeError(
            f"load_model: source: expected a path, bytes of a .glb, or (vertices, triangles), got {shown(source)}"
        )
    try:
        if not glb.startswith(b"glTF"):
            glb = GltfEditor(glb, name=name, limits=limits).to_glb()
        asset = load(glb, name=name, limits=limits)
    except GltfError as error:
        raise ModelError(str(error)) from error
    model = StillModel(asset, glb, (*notes, *asset.notes, *_pose_notes(asset)))
    if any(part.instanced for part in model.parts()):
        raise ModelError(
            f"{name}: it repeats meshes by EXT_mesh_gpu_instancing, which cannot be deformed one by one; export the "
            "instances as nodes"
        )
    return model


def open_model(source: str | os.PathLike[str] | StillModel | SplatModel) -> StillModel | SplatModel:
    """Load a mesh or splats by their file; what is loaded already is returned.

    Raises:
        ModelError, TypeError: as `load_model` and `load_splats`.
    """
    if isinstance(source, StillModel | SplatModel):
        return source
    if isinstance(source, str | os.PathLike) and is_splats(source):
        return load_splats(source)
    return load_model(source)


def is_splats(source: str | os.PathLike[str]) -> bool:
    """Whether a file holds 3D Gaussian splats: an .spz, or a .ply with the colour and opacity properties of 3DGS."""
    path = Path(source)
    if path.suffix.lower() != ".ply" or not path.is_file():
        return path.suffix.lower() == ".spz"
    with path.open("rb") as file:
        header = file.read(1 << 14).partition(b"end_header")[0]
    return header.startswith(b"ply") and b" f_dc_0" in header and b" opacity" in header


def _pose_notes(asset: Asset) -> list[str]:
    count = len(asset.animations)
    if not count:
        return []
    return [
        f"the file has {count} animation{'s' * (count != 1)}, which {'are' if count != 1 else 'is'} kept; the pose "
        "that is animated is the rest pose"
    ]


def _read(path: Path, limits: Limits) -> tuple[bytes, list[str]]:
    """Read a file of any supported format as .glb, with notes."""
    name, suffix = path_text(path.name), path.suffix.lower()
    if path.is_dir():
        raise ModelError(
            f"{path_text(path)}: is a folder, expected the file of a 3D model; {_choice_in(path)}"
        )
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise ModelError(f"{path_text(path)}: cannot be read ({error.strerror}); correct the path") from error
    if suffix not in MODEL_SUFFIXES:
        kind = identify(head, path.name)
        got = f"{suffix or 'no suffix'!r}" + (f", {kind.name}" if kind else "")
        raise ModelError(
            f"{name}: expected a model as one of {', '.join(MODEL_SUFFIXES)}, got {got}; "
            f"{kind.advice if kind else 'convert it to .glb, for example with Blender'}"
        )
    if not head:
        raise ModelError(f"{name}: the file is empty; copy or download it again")
    if is_splats(path):
        raise ModelError(
            f"{name}: the file holds 3D Gaussian splats, not a mesh; zoo.animate and zoo.animate3d.load_splats take "
            f"it, everything else needs a mesh of the object"
        )
    if suffix in _GLTF:
        try:
            if head.startswith(b"glTF"):
                # A .glb may refer to other files, too; then they are moved inside.
                data = path.read_bytes() if path.stat().st_size <= limits.file_bytes else b""
                if data and not _refers_to_files(GltfEditor(path, limits=limits)):
                    return data, []
            return GltfEditor(path, limits=limits).to_glb(), []
        except GltfError as error:
            raise ModelError(str(error)) from error
    if suffix in _MESH:
        from zoo.animate3d.mesh_files import mesh_to_glb

        return mesh_to_glb(path, suffix[1:], limits)
    return _convert(path, suffix[1:], limits), []


def _choice_in(folder: Path) -> str:
    """What to do instead of giving a folder."""
    inside = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in MODEL_SUFFIXES)
    return (
        f"give one inside it, such as {path_text(folder / inside[0])}" if inside else "it contains no model"
    )


def _refers_to_files(editor: GltfEditor) -> bool:
    owners = [*editor.document.items("buffers"), *editor.document.items("images")]
    return any(isinstance(each.get("uri"), str) for each in owners)


def _convert(path: Path, kind: str, limits: Limits) -> bytes:
    """Convert a file with Blender, with the images in its folder and in one named textures beside or above it."""
    from renderers.meshes import RenderError, blender
    from zoo.animate3d.mesh_files import check_content

    name = path_text(path.name)
    if path.stat().st_size > limits.file_bytes:
        raise ModelError(
            f"{name}: {path.stat().st_size} bytes, expected at most {limits.file_bytes}; simplify the model"
        )
    with tempfile.TemporaryDirectory(prefix="menagerie-model-") as folder:
        target = Path(folder, "model.glb")
        try:
            blender.convert(path, kind, target, images=_images(path), cameras=True)
        except RenderError as error:
            with path.open("rb") as file:
                check_content(name, kind, file.read(SNIFFED_BYTES))
            raise ModelError(f"{name}: cannot be converted to glTF: {_blender_reason(error)}") from error
        return target.read_bytes()


def _blender_reason(error: Exception) -> str:
    """What Blender says of a file, without its traceback and the names of temporary files."""
    text = str(error).strip()
    if "Traceback" not in text:
        return text
    reason = text.splitlines()[-1].rpartition("Error: ")[2]
    reason = re.sub(r"\s*[\"']?/\S*/asset\.\w+[\"']?", "", reason)
    return f"Blender says: {reason}; export it again, or as .glb"


def _images(path: Path) -> list[Path]:
    """List the image files that a model may refer to by name."""
    folder = path.resolve().parent
    places = [folder, folder / "textures", folder.parent / "textures", folder / f"{path.stem}.fbm"]
    images: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            for file in sorted(place.iterdir())[:_MOST_IMAGES]:
                if file.suffix.lower() in _IMAGE_SUFFIXES and file.is_file():
                    images.setdefault(file.name, file)
    return list(images.values())


def _from_arrays(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    """Write vertices and triangles as a grey .glb with flat shading."""
    vertices = array(vertices, "load_model: vertices", ("V", 3))
    faces = array(triangles, "load_model: triangles", ("F", 3)).astype(np.int64)
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise ModelError(
            f"load_model: triangles: expected at least one, with indices below {len(vertices)}, got "
            f"{'none' if not len(faces) else f'{faces.min()}..{faces.max()}'}"
        )
    buffer = GlbBuffer()
    primitive = {
        "attributes": {"POSITION": buffer.add(vertices, "VEC3", target=ARRAY_BUFFER, bounds=True)},
        "indices": buffer.add(faces.reshape(-1), "SCALAR", UINT32, ELEMENT_ARRAY_BUFFER),
        "material": 0,
    }
    return buffer.glb(
        {
            "asset": {"version": "2.0", "generator": "menagerie4d"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": "mesh", "mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
            "materials": [{"doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0.0}}],
        }
    )
