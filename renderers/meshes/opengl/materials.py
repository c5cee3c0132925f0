"""Materials for the shaders: features, uniform blocks and texture images."""

from __future__ import annotations

import numpy as np

from renderers.gltf import Material, Texture
from renderers.meshes.opengl import shaders

_MAX_SIDE = 2048  # pixels; larger textures are halved, since images of this size cannot show more


def texture_slots(material: Material) -> list[tuple[str, Texture | None]]:
    """Pair the names in `shaders.SLOTS` with the textures of a material."""
    return list(
        zip(
            shaders.SLOTS,
            (
                material.base_color_texture,
                material.metallic_roughness_texture,
                material.emissive_texture,
                material.normal_texture,
                material.occlusion_texture,
            ),
            strict=True,
        )
    )


def shader_features(material: Material, coloured: bool) -> set[str]:
    """Return the features (preprocessor names) that the shader of a material needs.

    Args:
        coloured: whether the asset has vertex colours.
    """
    features = {slot for slot, texture in texture_slots(material) if texture is not None}
    if not np.any(np.asarray(material.emissive) > 0):
        features.discard("EMISSIVE_MAP")
    if material.unlit:
        features = (features & {"BASE_MAP"}) | {"UNLIT"}
    if coloured:
        features.add("VERTEX_COLOUR")
    if material.double_sided:
        features.add("DOUBLE_SIDED")
    return features


def material_block(material: Material) -> bytes:
    """std140 bytes of the uniform block `Surface`."""
    values = [
        *material.base_color,
        *material.emissive,
        material.alpha_cutoff,
        material.metallic,
        material.roughness,
        material.normal_scale,
        material.occlusion_strength,
    ]
    return np.array(values, np.float32).tobytes()


def upload_image(texture: Texture) -> np.ndarray:
    """Return the image to upload, uint8 [H, W, 4]: reduced in size, mirrored repeats written out."""
    return np.ascontiguousarray(_unfold(_shrink(texture.image), texture))


def unfolding(texture: Texture) -> np.ndarray:
    """Factors by which width and height of an image grow in `upload_image`, float32 [2]."""
    return np.array([1 + (texture.wrap_s == "mirror"), 1 + (texture.wrap_t == "mirror")], np.float32)


def _unfold(image: np.ndarray, texture: Texture) -> np.ndarray:
    """Append the mirrored image for mirrored repeat, since moderngl supports only repeat and clamp."""
    if texture.wrap_s == "mirror":
        image = np.concatenate([image, image[:, ::-1]], axis=1)
    if texture.wrap_t == "mirror":
        image = np.concatenate([image, image[::-1]], axis=0)
    return image


def _shrink(image: np.ndarray) -> np.ndarray:
    """Halve an image with a box filter (like a mipmap) until its longer side is at most _MAX_SIDE."""
    while max(image.shape[:2]) > _MAX_SIDE and min(image.shape[:2]) > 1:
        h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        quads = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 4)
        image = ((quads.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return image
