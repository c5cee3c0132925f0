"""Wavefront OBJ, PLY and STL as glTF: the triangles as they are, with materials, texture files and vertex colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from renderers.gltf import (
    SNIFFED_BYTES,
    GltfError,
    Limits,
    find_file,
    format_of_suffix,
    identify,
    path_text,
)
from renderers.gltf.files import read_file
from renderers.gltf.writing import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, UINT16, UINT32, GlbBuffer
from zoo.errors import ModelError

_HEADER_BYTES = 1 << 16  # of a PLY file, more than any header
_TEXT = ("utf-8", "surrogateescape")  # of names in files: any bytes
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def mesh_to_glb(path: Path, kind: str, limits: Limits) -> tuple[bytes, list[str]]:
    """Convert a mesh file to glTF. Vertices, triangles and the bytes of textures are not changed.

    Args:
        path: the file.
        kind: "obj", "ply" or "stl".
        limits: upper bounds on its contents.
    Returns:
        the .glb, and notes on what was left out.
    Raises:
        ModelError: it cannot be read, has no triangles or exceeds the limits.
    """
    name = path_text(path.name)
    try:
        import trimesh
    except ImportError as error:
        raise ModelError(
            f"{name}: reading .{kind} files needs trimesh ({error}); pip install 'menagerie4d[animate]', or convert "
            "the file to .glb"
        ) from error
    try:
        data = read_file(path, limits.file_bytes)
    except GltfError as error:
        raise ModelError(f"{name}: {error}") from None
    try:
        options: dict[str, Any] = {"group_material": True} if kind == "obj" else {}
        scene = trimesh.load_scene(str(path), file_type=kind, process=False, **options)
    except Exception as error:  # trimesh raises whatever its parser runs into
        check_content(name, kind, data)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{name}: cannot be read as {kind.upper()} ({reason}); export it again") from error
    meshes = [mesh for mesh in scene.geometry.values() if len(getattr(mesh, "faces", ()))]
    if not meshes:
        check_content(name, kind, data)
        raise ModelError(
            f"{name}: the file has no triangles, expected a surface mesh; export it with its faces (a point cloud "
            "must be meshed first)"
        )
    vertices = sum(len(mesh.vertices) for mesh in meshes)
    triangles = sum(len(mesh.faces) for mesh in meshes)
    for count, allowed, unit in (
        (vertices, limits.vertices, "vertices"),
        (triangles, limits.triangles, "triangles"),
    ):
        if count > allowed:
            raise ModelError(f"{name}: {count} {unit}, expected at most {allowed}; simplify the mesh")
    textures, notes = _texture_files(path, kind, data)
    smooth = kind == "ply" or (kind == "obj" and re.search(rb"^vn\s", data, re.MULTILINE) is not None)
    return _Writer(name, textures, smooth).write(meshes), notes


def check_content(name: str, kind: str, data: bytes) -> None:
    """Say what a file is that cannot be read as its suffix says, if it is something else.

    Raises:
        ModelError: it is.
    """
    if data.startswith(b"glTF"):
        raise ModelError(
            f"{name}: expected {kind.upper()}, but this is a .glb file: rename it so that it ends in .glb"
        )
    content = identify(data[:SNIFFED_BYTES], name)
    usd = kind.startswith("usd") and content is not None and content.name.startswith("a USD")
    if content is not None and content is not format_of_suffix(name) and not usd:
        raise ModelError(f"{name}: expected {kind.upper()}, but {content}")


def _texture_files(path: Path, kind: str, data: bytes) -> tuple[dict[str, bytes], list[str]]:
    """Return the colour textures by material, "" for the only one of a PLY file, and notes on those not found."""
    folder = path.resolve().parent
    names: dict[str, str] = {}
    textures: dict[str, bytes] = {}
    notes: list[str] = []
    if kind == "ply":
        match = re.search(rb"^comment TextureFile (.+?)\r?$", data[:_HEADER_BYTES], re.MULTILINE)
        if match:
            names[""] = match[1].decode("utf-8", "replace").strip()
    elif kind == "obj":
        for line in re.findall(rb"^mtllib\s+(.+?)\s*$", data, re.MULTILINE):
            try:
                library = find_file(line.decode(*_TEXT), folder, folder)
                names |= _color_maps(library.read_text("utf-8", "replace"))
            except (GltfError, OSError):
                notes.append(
                    f"materials are left out: {path_text(line.decode(*_TEXT))} is not beside the model"
                )
    for material, file in names.items():
        try:
            image = _for_gltf(read_file(find_file(file, folder, folder), Limits().file_bytes))
        except GltfError:
            notes.append(f"a texture is left out: {file} is not beside the model")
            continue
        if image is None:
            notes.append(f"a texture is left out: {file} cannot be decoded; store it as PNG or JPEG")
        else:
            textures[material] = image
    return textures, notes


def _color_maps(text: str) -> dict[str, str]:
    """Return the file of `map_Kd` by name of the material, from the text of a material library (.mtl)."""
    files, material = {}, ""
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key.lower() == "newmtl":
            material = value.strip()
        elif key.lower() == "map_kd" and value.strip():
            # Options such as "-s 1 1 1" precede the name, which may contain spaces only without options.
            files[material] = value.split()[-1] if value.lstrip().startswith("-") else value.strip()
    return files


class _Writer:
    """Writes meshes of trimesh as glTF, one node each."""

    def __init__(self, name: str, textures: dict[str, bytes], smooth: bool) -> None:
        self._name = name
        self._bytes = textures
        self._smooth = smooth
        self._buffer = GlbBuffer()
        self._document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "menagerie4d"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
        }
        self._textures: dict[bytes, int] = {}

    def write(self, meshes: list[Any]) -> bytes:
        for number, mesh in enumerate(meshes):
            material = getattr(mesh.visual, "material", None)
            title = getattr(material, "name", None) or f"mesh {number}"
            primitive = self._primitive(mesh) | {"material": self._material(mesh, title)}
            self._document["meshes"].append({"name": title, "primitives": [primitive]})
            self._document["nodes"].append({"name": title, "mesh": number})
            self._document["scenes"][0]["nodes"].append(number)
        return self._buffer.glb(self._document)

    def _primitive(self, mesh: Any) -> dict[str, Any]:
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
        if not np.isfinite(vertices).all():
            raise ModelError(f"{self._name}: a vertex is NaN or infinite; export the model again")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise ModelError(
                f"{self._name}: a face refers to a vertex outside 0..{len(vertices) - 1}; export the model again"
            )
        attributes = {"POSITION": self._buffer.add(vertices, "VEC3", target=ARRAY_BUFFER, bounds=True)}
        if self._smooth:
            normals = np.array(mesh.vertex_normals, np.float64)
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            usable = np.isfinite(length) & (length > 1e-12)
            normals = np.where(usable, normals / np.where(usable, length, 1), (0.0, 1.0, 0.0))
            attributes["NORMAL"] = self._buffer.add(normals, "VEC3", target=ARRAY_BUFFER)
        texcoords = getattr(mesh.visual, "uv", None)
        if texcoords is not None and len(texcoords) == len(vertices) and np.isfinite(texcoords).all():
            flipped = np.stack([texcoords[:, 0], 1.0 - texcoords[:, 1]], 1)  # glTF's v grows downward
            attributes["TEXCOORD_0"] = self._buffer.add(flipped, "VEC2", target=ARRAY_BUFFER)
        if mesh.visual.kind == "vertex":
            colors = np.asarray(mesh.visual.vertex_colors, np.float64) / 255
            colors[:, :3] = np.where(
                colors[:, :3] <= 0.04045, colors[:, :3] / 12.92, ((colors[:, :3] + 0.055) / 1.055) ** 2.4
            )
            stored = np.rint(colors * 65535)
            attributes["COLOR_0"] = self._buffer.add(stored, "VEC4", UINT16, ARRAY_BUFFER, normalized=True)
        indices = self._buffer.add(faces.reshape(-1), "SCALAR", UINT32, ELEMENT_ARRAY_BUFFER)
        return {"attributes": attributes, "indices": indices}

    def _material(self, mesh: Any, title: str) -> int:
        """Append the material of a mesh; return its index."""
        material = getattr(mesh.visual, "material", None)
        appearance: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
        diffuse = getattr(material, "diffuse", None)
        data = self._bytes.get(title, self._bytes.get(""))
        if data is not None:
            appearance["baseColorTexture"] = {"index": self._texture(data)}
        elif diffuse is not None and mesh.visual.kind == "texture":
            appearance["baseColorFactor"] = [float(x) / 255 for x in np.asarray(diffuse)[:4]]
        # These formats do not say which side of a triangle is drawn.
        self._document["materials"].append(
            {"name": title, "pbrMetallicRoughness": appearance, "doubleSided": True}
        )
        return len(self._document["materials"]) - 1

    def _texture(self, data: bytes) -> int:
        """Append an image of a format that glTF has, once."""
        kind = next(mime for magic, mime in _IMAGES.items() if data.startswith(magic))
        if data not in self._textures:
            images = self._document.setdefault("images", [])
            images.append({"bufferView": self._buffer.add_bytes(data), "mimeType": kind})
            self._document.setdefault("textures", []).append({"source": len(images) - 1})
            self._textures[data] = len(images) - 1
        return self._textures[data]


def _for_gltf(data: bytes) -> bytes | None:
    """Encode an image of a format that glTF lacks (TGA, BMP, TIFF) as PNG, without loss; others stay as they are.

    None if it cannot be decoded.
    """
    import io

    from PIL import Image

    if data.startswith(tuple(_IMAGES)):
        return data
    target = io.BytesIO()
    try:
        Image.open(io.BytesIO(data)).save(target, "PNG")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return target.getvalue()
