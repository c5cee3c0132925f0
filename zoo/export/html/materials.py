"""Draw calls of a glTF asset in WebGL 2: triangles, textures and the shaders of `renderers.meshes.opengl`.

`mesh_scene.js` draws them, both in the viewer and in pages of `zoo.export.html.meshes`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from renderers.gltf import Asset, Texture

_ES = "#version 300 es\nprecision highp float;\nprecision highp sampler2D;\n"  # WebGL 2


def draw_calls(asset: Asset, compress_level: int = 1) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One draw call per primitive and opacity, with the shaders of `renderers.meshes.opengl`.

    Args:
        asset: the model.
        compress_level: of its textures as PNG, 0 to 9.

    Returns:
        The draw calls, JSON-serialisable, and the arrays that they name: triangles, texture coordinates, colours and
        textures.
    """
    from renderers.meshes.opacity import MIXED, SOLID, triangle_opacity
    from renderers.meshes.opengl.materials import material_block, shader_features, texture_slots

    coloured = bool(np.any(asset.colors != 1.0))
    draws: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {"colour": asset.colors} if coloured else {}
    images: dict[int, str] = {}
    for number, (primitive, opacity) in enumerate(
        zip(asset.primitives, triangle_opacity(asset), strict=True)
    ):
        material = asset.materials[primitive.material]
        slots = [(slot, texture) for slot, texture in texture_slots(material) if texture is not None]
        for slot, texture in slots:
            _add_coordinates(arrays, asset, primitive.vertices, slot, texture)
        for value in (SOLID, MIXED):
            chosen = primitive.triangles[opacity == value]
            if not len(chosen):
                continue
            mode = material.alpha_mode if value == MIXED else "OPAQUE"
            features = frozenset(shader_features(material, coloured) | ({mode} & {"MASK", "BLEND"}))
            vertex, fragment = _shaders(features)
            name = f"triangles_{len(draws)}"
            arrays[name] = chosen.astype(np.uint32)
            draws.append(
                {
                    "triangles": name,
                    "primitive": number,
                    "vertex": vertex,
                    "fragment": fragment,
                    "blend": mode == "BLEND",
                    "cull": not material.double_sided,
                    "surface": np.frombuffer(material_block(material), np.float32).tolist(),
                    "textures": {
                        slot: _texture(texture, slot, images, arrays, compress_level)
                        for slot, texture in slots
                        if slot in features
                    },
                }
            )
    draws.sort(key=lambda draw: draw["blend"])  # blended ones last
    return draws, arrays


def _add_coordinates(
    arrays: dict[str, np.ndarray], asset: Asset, vertices: slice, slot: str, texture: Texture
) -> None:
    """Transformed texture coordinates of a slot, float32 [V, 2], for the vertices of a primitive."""
    from renderers.meshes.opengl.materials import unfolding

    values = arrays.setdefault(f"uv_{slot}", np.zeros((asset.num_vertices, 2), np.float32))
    uv = asset.texcoords[vertices, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
    values[vertices] = (uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]) / unfolding(texture)


def _texture(
    texture: Texture, slot: str, images: dict[int, str], arrays: dict[str, np.ndarray], compress_level: int
) -> dict[str, Any]:
    """The sampler of a texture; its image is sent once, as PNG."""
    from renderers.meshes.opengl.materials import upload_image

    key = id(texture.image)
    if key not in images:
        images[key] = f"image_{len(images)}"
        file = io.BytesIO()
        Image.fromarray(upload_image(texture)).save(file, "PNG", compress_level=compress_level)
        arrays[images[key]] = np.frombuffer(file.getvalue(), np.uint8)
    return {
        "image": images[key],
        "srgb": slot in ("BASE_MAP", "EMISSIVE_MAP"),
        "repeat": [texture.wrap_s != "clamp", texture.wrap_t != "clamp"],
        "nearest": texture.nearest,
    }


def _shaders(features: frozenset[str]) -> tuple[str, str]:
    """Sources of the shaders of a material for WebGL 2."""
    from renderers.meshes.opengl.shaders import mesh_fragment, mesh_vertex

    version = "#version 330\n"
    vertex, fragment = (source(features).replace(version, _ES, 1) for source in (mesh_vertex, mesh_fragment))
    return vertex, fragment
