"""Materials and textures in the metallic-roughness model of the glTF specification (§3.9)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from renderers import fixed
from renderers.gltf.document import Document
from renderers.gltf.meshes import MAX_TEXCOORDS
from renderers.gltf.usage import shown_name
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Texture:
    """An image and how it is sampled.

    Attributes:
        image: uint8 [H, W, 4] as stored (sRGB-encoded for colour); identical images are one object.
        wrap_s, wrap_t: "repeat", "mirror" or "clamp".
        nearest: magnified without interpolation.
        texcoord: index of the set in `Asset.texcoords`.
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
    """A metallic-roughness material; factors are linear, texture channels as in the glTF specification §3.9.

    Attributes:
        base_color: RGBA, linear.
        emissive: RGB, linear, may exceed 1.
        alpha_mode: "OPAQUE", "MASK" (opaque where alpha >= `alpha_cutoff`, else invisible) or "BLEND".
        unlit: the base colour is shown without lighting.
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


_WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}


def read_material(document: Document, index: int | None) -> Material:
    """Read a material and decode its textures; None is the default material of glTF."""
    if index is None:
        return Material()
    where = f"materials[{index}]"
    owner = document.items("materials")[index]
    pbr = document.child(owner, "pbrMetallicRoughness", where) or {}
    mode = owner.get("alphaMode", "OPAQUE")
    mode = mode.upper() if isinstance(mode, str) else mode
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
    """Read the texture that `owner[key]` references, None if absent."""
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
                f"{here} is stored as KTX2 only (KHR_texture_basisu); export it with PNG, JPEG or WebP textures"
            )
        for name in document.child(texture, "extensions", here) or ():  # its image comes from one of these
            document.note(f"{shown_name(name)} is ignored: a texture without a fallback is left out")
        return None
    image = document.image(source)
    if image is None:
        return None
    sampler_index = document.index(texture, "sampler", "samplers", here)
    sampler = {} if sampler_index is None else document.items("samplers")[sampler_index]
    transform = document.extension(reference, "KHR_texture_transform", where) or {}
    texcoord = document.integer(reference, "texCoord", 0, where)
    texcoord = document.integer(transform, "texCoord", texcoord, where)
    if texcoord >= MAX_TEXCOORDS:
        document.fail(f"{where}.texCoord: expected below {MAX_TEXCOORDS}, got {texcoord}")
    return Texture(
        image=image,
        wrap_s=_WRAPS.get(document.integer(sampler, "wrapS", 10497, here), "repeat"),
        wrap_t=_WRAPS.get(document.integer(sampler, "wrapT", 10497, here), "repeat"),
        nearest=sampler.get("magFilter") == 9728,
        texcoord=texcoord,
        transform=_texture_transform(document, transform, where),
    )


def _texture_transform(document: Document, transform: dict, where: str) -> np.ndarray:
    """Matrix of KHR_texture_transform: scale, rotate counter-clockwise on screen (v points down), translate."""
    scale = document.vector(transform, "scale", (1, 1), where)
    offset = document.vector(transform, "offset", (0, 0), where)
    angle = document.number(transform, "rotation", 0.0, where)
    cos, sin = float(fixed.cos(angle)), float(fixed.sin(angle))
    return np.array(
        [
            [cos * scale[0], sin * scale[1], offset[0]],
            [-sin * scale[0], cos * scale[1], offset[1]],
            [0.0, 0.0, 1.0],
        ]
    )


# --- KHR_materials_pbrSpecularGlossiness, used by old Sketchfab exports -------------------------

_DIELECTRIC = 0.04  # reflectance of non-metals at normal incidence
_ROWS = 256  # rows of a texture converted at a time, which bounds the memory


def _from_specular_glossiness(document: Document, material: Material, gloss: dict, where: str) -> Material:
    """Convert to the closest metallic-roughness material; textures are converted per pixel."""
    diffuse = document.vector(gloss, "diffuseFactor", (1, 1, 1, 1), where)
    specular = document.vector(gloss, "specularFactor", (1, 1, 1), where)
    glossiness = document.number(gloss, "glossinessFactor", 1.0, where)
    diffuse_texture = _read_texture(document, gloss, "diffuseTexture", where)
    gloss_texture = _read_texture(document, gloss, "specularGlossinessTexture", where)
    first = gloss_texture or diffuse_texture
    if first is None:
        color, metallic = _metallic(diffuse[:3], specular)
        return replace(
            material,
            base_color=(*color.tolist(), diffuse[3]),
            metallic=float(metallic),
            roughness=1.0 - float(np.clip(glossiness, 0, 1)),
        )
    # Both textures are sampled with the coordinates of `first`: exporters write the same for the two.
    sizes = [texture.image.shape[:2] for texture in (diffuse_texture, gloss_texture) if texture is not None]
    height, width = max(sizes)
    base = np.empty((height, width, 4), np.uint8)
    rough = np.full((height, width, 4), 255, np.uint8)
    diffuse_image = _resized(diffuse_texture, height, width)
    gloss_image = _resized(gloss_texture, height, width)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        color, metallic = _metallic(
            _LINEAR[diffuse_image[rows, :, :3]] * diffuse[:3].astype(np.float32),
            _LINEAR[gloss_image[rows, :, :3]] * specular.astype(np.float32),
        )
        base[rows, :, :3] = _encoded(color)
        base[rows, :, 3] = np.clip(diffuse_image[rows, :, 3] * diffuse[3], 0, 255) + 0.5
        rough[rows, :, 1] = 255.5 - np.clip(gloss_image[rows, :, 3] * glossiness, 0, 255)
        rough[rows, :, 2] = metallic * 255 + 0.5
    return replace(
        material,
        base_color=(1.0, 1.0, 1.0, 1.0),
        base_color_texture=replace(first, image=base),
        metallic=1.0,
        roughness=1.0,
        metallic_roughness_texture=replace(first, image=rough),
    )


def _metallic(diffuse: np.ndarray, specular: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find base colour [..., 3] and metallic m [...] with nearly the given diffuse and specular colours, all linear.

    m is the solution of base = diffuse / (1 - m) and specular = 0.04 (1 - m) + base m for brightnesses, as in the
    conversion published by Khronos with the extension.
    """
    remaining = 1.0 - specular.max(-1)  # energy that is not reflected specularly
    d, s = _brightness(diffuse), _brightness(specular)
    b = d * remaining / (1 - _DIELECTRIC) + s - 2 * _DIELECTRIC
    root = np.sqrt(np.maximum(b * b - 4 * _DIELECTRIC * (_DIELECTRIC - s), 0))
    metallic = np.where(s < _DIELECTRIC, 0.0, np.clip((root - b) / (2 * _DIELECTRIC), 0, 1))
    m = metallic[..., None]
    from_diffuse = diffuse * (remaining[..., None] / (1 - _DIELECTRIC) / np.maximum(1 - m, 1e-4))
    from_specular = (specular - _DIELECTRIC * (1 - m)) / np.maximum(m, 1e-4)
    return np.clip(from_diffuse + (from_specular - from_diffuse) * m * m, 0, 1), metallic


def _brightness(color: np.ndarray) -> np.ndarray:
    """Perceived brightness [...] of linear RGB [..., 3]."""
    squares = color**2 * np.array([0.299, 0.587, 0.114], color.dtype)
    return np.sqrt(np.add.reduce(squares, axis=-1))


def _resized(texture: Texture | None, height: int, width: int) -> np.ndarray:
    """Return a texture's image resized; white without a texture, as the extension specifies."""
    from PIL import Image

    if texture is None:
        return np.broadcast_to(np.uint8(255), (height, width, 4))
    if texture.image.shape[:2] == (height, width):
        return texture.image
    return np.asarray(Image.fromarray(texture.image).resize((width, height), Image.Resampling.BILINEAR))


def _encoded(linear: np.ndarray) -> np.ndarray:
    """Encode linear 0-1, float32, as sRGB uint8, rounded to nearest."""
    return np.searchsorted(_least(), linear, side="right").astype(np.uint8)


@cache
def _least() -> np.ndarray:
    """Return float32 [255]: the least linear values that are encoded as 1, 2, …, 255.

    They are found by bisection among the numbers of float32 in 0-1, whose order is that of their bits.
    """
    low, high = np.zeros(255, np.int32), np.full(255, np.float32(1.0).view(np.int32))
    while (low < high).any():
        middle = low + (high - low) // 2
        linear = middle.view(np.float32)
        powers = fixed.power(linear, 1 / 2.4).astype(np.float32)
        encoded = np.where(
            linear <= np.float32(0.0031308), 12.92 * linear, 1.055 * powers - np.float32(0.055)
        )
        reached = encoded * np.float32(255) + np.float32(0.5) >= np.arange(1, 256)
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low.view(np.float32)


# sRGB-encoded uint8 → linear.
_CODES = np.arange(256) / 255
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, fixed.power((_CODES + 0.055) / 1.055, 2.4)).astype(
    np.float32
)
