"""The scene that Blender renders: the geometry of every frame from `renderers.gltf`, and a .glb with its materials.

Blender's own glTF importer is not used for geometry, because it deviates from the specification: it clamps morph
weights, estimates bind poses, and merges or drops vertices. It is used for materials only, since it converts them, and
extensions of them, to shader nodes. They are passed to it in a .glb with one triangle per material, so it reads no
meshes, nodes, skins, animations, compressed buffers or external files.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renderers.gltf import Asset, GltfError, Limits, Material, Pose
from renderers.gltf.document import Document
from renderers.gltf.writing import GlbBuffer
from renderers.meshes.clip import Shot

# The asset has been loaded, within limits of the caller's choice.
_NO_LIMITS = Limits(
    **{name: 1 << 40 for name in ("file_bytes", "json_values", "texture_side", "texture_pixels")}
)
_INTEGERS = {"index", "texCoord", "source", "sampler", "magFilter", "minFilter", "wrapS", "wrapT"}


@dataclass(frozen=True)
class Geometry:
    """The triangles of an asset as one Blender mesh, whose vertices are those of the asset.

    Attributes:
        triangles: int32 [F, 3], indices into the asset-wide arrays. Triangles that use a vertex twice are omitted, as
            Blender's meshes may not contain them.
        materials: int32 [F], indices into the materials of `materials_glb`.
        primitives: int32 [F], indices into `Asset.primitives`.
    """

    triangles: np.ndarray
    materials: np.ndarray
    primitives: np.ndarray

    @classmethod
    def of(cls, asset: Asset, materials: Iterable[int]) -> Geometry:
        """Collect the triangles of an asset whose primitives have the given materials."""
        triangles = np.concatenate([primitive.triangles for primitive in asset.primitives]).astype(np.int32)
        counts = [len(primitive.triangles) for primitive in asset.primitives]
        a, b, c = triangles.T
        proper = (a != b) & (b != c) & (c != a)
        return cls(
            triangles[proper],
            np.repeat(np.fromiter(materials, np.int32, len(counts)), counts)[proper],
            np.repeat(np.arange(len(counts), dtype=np.int32), counts)[proper],
        )


def write_scene(asset: Asset, shot: Shot, folder: Path) -> None:
    """Write what the child process needs to draw a shot: materials.glb, mesh.npz, and pose-<frame>.npz per frame.

    The poses are in Blender's world (glTF (x, y, z) is Blender (x, -z, y)), with `shot.asset_to_world` applied.
    """
    shot = shot.centred(asset)
    document = Document.open(asset.source, asset.name, _NO_LIMITS, asset.root)
    indices = [_material_index(document, primitive.node, primitive.index) for primitive in asset.primitives]
    used = list(dict.fromkeys(indices))
    geometry = Geometry.of(asset, [used.index(index) for index in indices])
    tinted = {
        index
        for index, primitive in zip(indices, asset.primitives, strict=True)
        if (asset.colors[primitive.vertices] != 1).any()
    }
    materials = {
        index: asset.materials[primitive.material]
        for index, primitive in zip(indices, asset.primitives, strict=True)
    }
    images = _decoded_images(document, materials)
    (folder / "materials.glb").write_bytes(
        materials_glb(document, used, [index in tinted for index in used], images)
    )
    np.savez(
        folder / "mesh.npz",
        triangles=geometry.triangles,
        materials=geometry.materials,
        primitives=geometry.primitives,
        texcoords=asset.texcoords,
        colors=asset.colors,
    )
    for frame, time in enumerate(shot.timestamps):
        pose = shot.pose(asset, time)
        positions, normals = _to_blender(pose, shot.asset_to_world)
        np.savez(
            folder / f"pose-{frame:04d}.npz", positions=positions, normals=normals, mirrored=pose.mirrored
        )


def _to_blender(pose: Pose, asset_to_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and unit normals float32 [N, 3] in Blender's world; `asset_to_world` is a similarity."""
    linear = np.asarray(asset_to_world, np.float64)[:3, :3]
    world = pose.positions.astype(np.float64) @ linear.T + asset_to_world[:3, 3]
    normals = pose.normals.astype(np.float64) @ linear.T
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    return (world @ z_up.T).astype(np.float32), (normals @ z_up.T).astype(np.float32)


# --- materials ------------------------------------------------------------------------------------


def _material_index(document: Document, node: int, primitive: int) -> int | None:
    """Return the index in the file of the material of a primitive of the mesh at a node; None for glTF's default."""
    mesh = document.index(document.items("nodes")[node], "mesh", "meshes", f"nodes[{node}]")
    assert mesh is not None, "the node of a loaded primitive has a mesh"
    where = f"meshes[{mesh}]."
    owner = document.items("primitives", document.items("meshes")[mesh], where)[primitive]
    return document.index(owner, "material", "materials", f"{where}primitives[{primitive}]")


def _decoded_images(document: Document, materials: Mapping[int | None, Material]) -> dict[int, np.ndarray]:
    """Return the images that the reader has decoded, uint8 [H, W, 4], by their index in the file.

    Args:
        document: the file with the materials.
        materials: index of a material in the file → the material as read.
    """
    images = {}
    for index, material in materials.items():
        owner = {} if index is None else _cleaned(document.items("materials")[index])
        if "KHR_materials_pbrSpecularGlossiness" in owner.get("extensions", {}):
            continue  # its textures have been converted
        for path, texture in (
            (("pbrMetallicRoughness", "baseColorTexture"), material.base_color_texture),
            (("pbrMetallicRoughness", "metallicRoughnessTexture"), material.metallic_roughness_texture),
            (("normalTexture",), material.normal_texture),
            (("occlusionTexture",), material.occlusion_texture),
            (("emissiveTexture",), material.emissive_texture),
        ):
            if texture is not None:
                reference = owner
                for key in path:
                    reference = reference[key]
                source = _image_index(document, document.items("textures")[reference["index"]])
                if source is not None:
                    images[source] = texture.image
    return images


def materials_glb(
    document: Document,
    indices: list[int | None],
    tinted: list[bool],
    decoded: Mapping[int, np.ndarray] | None = None,
) -> bytes:
    """Return a .glb with one mesh of one triangle per material.

    Args:
        document: the file with the materials.
        indices: materials to include, by their index in the file; None for glTF's default material.
        tinted: for each, whether it is used with vertex colours.
        decoded: images by their index in the file; others are read from the file.
    """
    buffer = GlbBuffer()
    materials = [_cleaned(document.items("materials")[i]) if i is not None else {} for i in indices]
    parts: dict[str, list[dict[str, Any]]] = {"materials": [], "meshes": []}
    parts |= _textures_and_images(document, materials, decoded or {}, buffer)
    parts["materials"] = [
        _without_missing(material, parts["textures"]) | {"name": f"material {number}"}
        for number, material in enumerate(materials)
    ]
    position = buffer.add(np.eye(3), "VEC3", bounds=True)
    white = buffer.add(np.ones((3, 4)), "VEC4")
    for number, colored in enumerate(tinted):
        attributes = {"POSITION": position} | ({"COLOR_0": white} if colored else {})
        parts["meshes"].append({"primitives": [{"attributes": attributes, "material": number}]})
    used = document.json.get("extensionsUsed") or []
    extensions = [
        name
        for name in used
        if str(name).startswith(("KHR_materials_", "KHR_texture_transform"))
        and name != "KHR_materials_variants"
    ]
    samplers = [_cleaned(sampler) for sampler in document.items("samplers")]
    optional = parts | {"samplers": samplers, "extensionsUsed": extensions}
    nodes = range(len(materials))
    return buffer.glb(
        {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(nodes)}]}
        | {"nodes": [{"mesh": mesh} for mesh in nodes]}
        | {key: value for key, value in optional.items() if value}
    )


def _textures_and_images(
    document: Document,
    materials: list[dict[str, Any]],
    decoded: Mapping[int, np.ndarray],
    buffer: GlbBuffer,
) -> dict[str, list[dict[str, Any]]]:
    """Append the images that the materials use to a buffer; return the lists "textures" and "images" of the .glb.

    Textures keep their indices. A texture whose image is not used or cannot be decoded has no `source`.
    """
    textures = document.items("textures")
    numbers: dict[int, int] = {}  # index of an image in the file → index in the .glb
    images: list[dict[str, Any]] = []
    for index in sorted({i for material in materials for i in _texture_indices(material)}):
        source = _image_index(document, textures[index]) if index < len(textures) else None
        if source is None or source in numbers:
            continue
        try:
            pixels = decoded[source] if source in decoded else document.image(source)
        except GltfError:  # an image that only an extension uses, which the reader does not need
            continue
        if pixels is None:
            continue
        numbers[source] = len(images)
        images.append({"bufferView": _add_png(buffer, pixels), "mimeType": "image/png"})
    copies = []
    for texture in textures:
        source = _image_index(document, texture)
        sampler = _cleaned({"sampler": texture.get("sampler")})
        copies.append(sampler | ({"source": numbers[source]} if source in numbers else {}))
    return {"images": images, "textures": copies}


def _image_index(document: Document, texture: dict) -> int | None:
    """Return the image that the reader uses for a texture: WebP if there is one."""
    webp = document.extension(texture, "EXT_texture_webp", "texture") or {}
    source = document.index(webp, "source", "images", "texture")
    return document.index(texture, "source", "images", "texture") if source is None else source


def _add_png(buffer: GlbBuffer, pixels: np.ndarray) -> int:
    """Append an image uint8 [H, W, 4] as PNG; return the index of its buffer view."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    buffer.views.append(
        {"buffer": 0, "byteOffset": len(buffer.data), "byteLength": stream.getbuffer().nbytes}
    )
    buffer.data += stream.getvalue()
    buffer.data += b"\0" * (-len(buffer.data) % 4)
    return len(buffer.views) - 1


def _cleaned(value: Any, key: str = "") -> Any:
    """Copy JSON without what Blender's importer rejects and the reader accepts: nulls, and integers written as 3.0."""
    if isinstance(value, dict):
        return {k: _cleaned(v, k) for k, v in value.items() if v is not None and k != "extras"}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if key in _INTEGERS and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_texture(key: str, value: Any) -> bool:
    """Return whether a member of a material, or of an extension of it, is a reference to a texture."""
    return key.endswith("Texture") and isinstance(value, dict) and isinstance(value.get("index"), int)


def _texture_indices(owner: dict[str, Any]) -> Iterable[int]:
    """Yield the textures that a material references, also in its extensions."""
    for key, value in owner.items():
        if _is_texture(key, value):
            yield value["index"]
        elif isinstance(value, dict):
            yield from _texture_indices(value)


def _without_missing(owner: dict[str, Any], textures: list[dict[str, Any]]) -> dict[str, Any]:
    """Copy a material without its references to textures that have no image."""
    copy = {}
    for key, value in owner.items():
        if _is_texture(key, value):
            if not (0 <= value["index"] < len(textures) and "source" in textures[value["index"]]):
                continue
        elif isinstance(value, dict):
            value = _without_missing(value, textures)
        copy[key] = value
    return copy
