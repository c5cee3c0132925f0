"""Small scenes whose images can be computed by hand, and cameras for them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from tiny_gltf import TinyGltf

from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.meshes import RenderedClip, RenderSettings, Shot, render_clip

NEAREST, LINEAR = 9728, 9729
REPEAT, MIRROR, CLAMP = 10497, 33648, 33071

BACKEND = "opengl"  # of `render` and `picture` by default; tests of several back ends set it

# A 2 m square that faces +Z, counter-clockwise; texture coordinates as in glTF: (0, 0) is the top left.
SQUARE = np.array([[-1, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]], np.float32)
SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]])
SQUARE_UV = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float32)


def encode(linear: np.ndarray) -> np.ndarray:
    """Convert linear light 0-1 to sRGB 0-255, not rounded (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def decode(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB 0-255 to linear light 0-1."""
    value = np.asarray(srgb, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def unlit(*factor: float, **material) -> dict:
    """Return an unlit material."""
    colour = [*factor, 1.0][:4] if factor else [1.0] * 4
    return {
        "pbrMetallicRoughness": {"baseColorFactor": colour},
        "extensions": {"KHR_materials_unlit": {}},
        **material,
    }


def lit(colour: Sequence[float], metallic: float = 0.0, roughness: float = 1.0, **material) -> dict:
    """Return a metallic-roughness material."""
    pbr = {"baseColorFactor": [*colour, 1.0], "metallicFactor": metallic, "roughnessFactor": roughness}
    return {"pbrMetallicRoughness": pbr, **material}


def add_texture(tiny: TinyGltf, pixels: np.ndarray, *, s=REPEAT, t=REPEAT, filter: int = NEAREST) -> int:
    """Add a texture of uint8 [H, W, 3 or 4] pixels; return its index."""
    png = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(png, "PNG")
    image = tiny.add("images", bufferView=tiny.view(png.getvalue()), mimeType="image/png")
    sampler = tiny.add("samplers", wrapS=s, wrapT=t, magFilter=filter, minFilter=filter)
    return tiny.add("textures", source=image, sampler=sampler)


def add_mesh(
    tiny: TinyGltf, positions, faces, material: dict | int, *, normals=None, uv=None, colors=None, **node
) -> int:
    """Add a node with a mesh of one material; return the index of the node."""
    index = material if isinstance(material, int) else tiny.add("materials", **material)
    attributes = {}
    for name, values in (("NORMAL", normals), ("TEXCOORD_0", uv), ("COLOR_0", colors)):
        if values is not None:
            attributes[name] = tiny.accessor(np.asarray(values, np.float32))
    mesh = tiny.mesh(np.asarray(positions, np.float32), faces, attributes=attributes, material=index)
    return tiny.node(mesh=mesh, **node)


def add_square(tiny: TinyGltf, material: dict | int, *, uv=SQUARE_UV, colors=None, **node) -> int:
    """Add the square as a node, with normals towards +Z; return the index of the node."""
    normals = np.broadcast_to(np.float32([0, 0, 1]), SQUARE.shape)
    return add_mesh(tiny, SQUARE, SQUARE_FACES, material, normals=normals, uv=uv, colors=colors, **node)


def square(material: dict | None = None, **options) -> TinyGltf:
    """Return a file with one square."""
    tiny = TinyGltf()
    tiny.scene(add_square(tiny, material or unlit(), **options))
    return tiny


def textured_square(
    pixels: np.ndarray, *, uv=SQUARE_UV, transform: dict | None = None, **sampler
) -> TinyGltf:
    """Return a file with one unlit, textured square."""
    tiny = TinyGltf()
    info: dict = {"index": add_texture(tiny, pixels, **sampler)}
    if transform is not None:
        info["extensions"] = {"KHR_texture_transform": transform}
    material = unlit()
    material["pbrMetallicRoughness"]["baseColorTexture"] = info
    tiny.scene(add_square(tiny, material, uv=uv))
    return tiny


def sphere(rings: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return a unit sphere: points float32 [N, 3], which are also its normals, and outward triangles [F, 3]."""
    latitude = np.linspace(np.pi / 2, -np.pi / 2, rings + 1)[:, None]
    longitude = np.linspace(0, 2 * np.pi, 2 * rings + 1)[None]
    points = np.stack(
        np.broadcast_arrays(
            np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)
        ),
        -1,
    )
    row = np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)[None]
    below = row + 2 * rings + 1
    faces = np.concatenate([np.stack([row, below, below + 1], -1), np.stack([row, below + 1, row + 1], -1)])
    return points.reshape(-1, 3).astype(np.float32), faces.reshape(-1, 3)


def ball(material: dict, rings: int = 96) -> TinyGltf:
    """Return a file with one smooth unit sphere."""
    tiny = TinyGltf()
    points, faces = sphere(rings)
    tiny.scene(add_mesh(tiny, points, faces, material, normals=points))
    return tiny


def shot(
    azimuth_deg: float | Sequence[float] = 0.0,
    elevation_deg: float = 0.0,
    *,
    width: int = 32,
    height: int = 32,
    distance: float = 4.0,
    half_height: float = 1.0,
    animation: int | None = None,
    times: Sequence[float] = (0.0,),
    asset_to_world: np.ndarray | None = None,
) -> Shot:
    """Return a shot in which `half_height` metres at the origin span half the image height: the square fills it."""
    cameras = orbit_cameras(
        np.deg2rad(np.atleast_1d(azimuth_deg)),
        np.deg2rad(elevation_deg),
        distance,
        fov_y=2 * np.arctan(half_height / distance),
        width=width,
        height=height,
    )
    matrix = np.eye(4) if asset_to_world is None else asset_to_world
    return Shot(animation, np.asarray(times, float), matrix, cameras)


def render(tiny: TinyGltf, shot: Shot, backend: str | None = None, **settings) -> RenderedClip:
    """Render a small scene."""
    return render_clip(
        gltf.load(tiny.glb()), shot, RenderSettings(**{"samples": 1, **settings}), backend=backend or BACKEND
    )


def picture(tiny: TinyGltf, azimuth_deg: float = 0.0, elevation_deg: float = 0.0, **options) -> np.ndarray:
    """Render one image, uint8 [H, W, 4]."""
    samples = options.pop("samples", 1)
    return render(tiny, shot(azimuth_deg, elevation_deg, **options), samples=samples).frames[0, 0]
