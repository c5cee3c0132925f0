"""Motions of deformation graphs made by hand, and models that are hard to write them into."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from sample_assets import BUNDLED
from tiny_gltf import TinyGltf

from renderers.gltf import Asset
from zoo.animate3d.animation import Animation
from zoo.animate3d.loading import load_model
from zoo.animate3d.motion import GraphMotion


def graph_motion(
    asset: Asset,
    nodes: int = 12,
    frames: int = 13,
    seconds: float = 1.5,
    *,
    influences: int = 4,
    seed: int = 0,
) -> GraphMotion:
    """Bend and twist a model: every node turns about an axis of its own and swings; the first frame is the rest pose.

    Equal vertices get equal weights, so that the surface stays closed.
    """
    rng = np.random.default_rng(seed)
    vertices = asset.positions(None, 0.0).astype(np.float64)
    size = float(np.ptp(vertices[asset.visible], axis=0).max())
    chosen = vertices[rng.choice(asset.visible, nodes, replace=len(asset.visible) < nodes)]
    chosen = chosen + rng.normal(size=chosen.shape) * 0.05 * size
    away = np.linalg.norm(vertices[:, None] - chosen[None], axis=-1)
    nearest = np.argsort(away, axis=1, kind="stable")[:, :influences]
    weights = np.exp(-((np.take_along_axis(away, nearest, 1) / (0.5 * size)) ** 2))
    times = np.linspace(0.0, seconds, frames)
    swing = np.sin(2 * np.pi * times / seconds * 0.75)[:, None]
    axis = rng.normal(size=(nodes, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = swing * rng.uniform(0.2, 0.9, nodes)
    rotations = np.concatenate([np.cos(angle / 2)[..., None], np.sin(angle / 2)[..., None] * axis], -1)
    rotations *= rng.choice([-1.0, 1.0], rotations.shape[:2])[..., None]  # the signs of quaternions are free
    positions = chosen + swing[..., None] * rng.normal(size=(nodes, 3)) * 0.15 * size
    return GraphMotion(chosen, positions, rotations, nearest, weights / weights.sum(1, keepdims=True), times)


def picture(seed: int, size: int = 8, kind: str = "PNG") -> bytes:
    """A small image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind)
    return target.getvalue()


def grid(size: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A bulging square patch: vertices, normals, texture coordinates, triangles."""
    u, v = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    x, y = u.ravel() - 0.5, v.ravel() - 0.5
    vertices = np.stack([x, y, 0.3 - x**2 - y**2], 1)
    normals = np.stack([2 * x, 2 * y, np.ones_like(x)], 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    quads = np.stack([corner, corner + size, corner + size + 1, corner + 1], 1)
    return (
        vertices,
        normals,
        np.stack([u.ravel(), v.ravel()], 1),
        np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
    )


def textured(tiny: TinyGltf, seed: int) -> int:
    """Add a material with a texture; return its index."""
    image = tiny.add(
        "images", bufferView=tiny.view(picture(seed)), mimeType="image/png", name=f"noise {seed}"
    )
    texture = tiny.add("textures", source=image)
    return tiny.add(
        "materials",
        name=f"material {seed}",
        doubleSided=bool(seed % 2),
        pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0.25},
    )


def patch(tiny: TinyGltf, material: int, *, normals: bool = True, offset: float = 0.0, **attributes) -> dict:
    """Add the vertices of a patch; return a primitive of it."""
    vertices, outward, texcoords, triangles = grid()
    entry = {"POSITION": tiny.accessor(vertices + [0, 0, offset]), "TEXCOORD_0": tiny.accessor(texcoords)}
    if normals:
        entry["NORMAL"] = tiny.accessor(outward)
    return {
        "attributes": entry | attributes,
        "indices": tiny.accessor(triangles.ravel(), "u2"),
        "material": material,
    }


HALF = 0.5**0.5


def crowded() -> TinyGltf:
    """Two pictures, a camera, an empty node, a mesh at three nodes (scaled, mirrored, stretched), a mesh of two
    primitives that share their vertices, one without normals below a rotated node, points, and names of nodes that tell
    them apart."""
    tiny = TinyGltf()
    tiny.json["asset"] |= {"copyright": "CC0", "extras": {"title": "crowd"}}
    first, second = textured(tiny, 1), textured(tiny, 2)
    shared = tiny.add(
        "meshes", primitives=[patch(tiny, first)], name="shared", extras={"kept": [1, None, "é"]}
    )
    two = patch(tiny, second)
    vertices, _, _, triangles = grid()
    halves = np.split(triangles, 2)
    pair = [two | {"indices": tiny.accessor(half.ravel(), "u2")} for half in halves]
    pair[1] = pair[1] | {"material": first}
    double = tiny.add("meshes", primitives=pair)
    flat = tiny.add("meshes", primitives=[patch(tiny, second, normals=False)])
    dots = {"attributes": {"POSITION": tiny.accessor(vertices[:3] * 1.5)}, "mode": 0}
    mixed = tiny.add("meshes", primitives=[dots, patch(tiny, first)])
    camera = tiny.add("cameras", type="perspective", perspective={"yfov": 0.7, "znear": 0.1})
    scaled = tiny.node(mesh=shared, name="scaled", scale=[2.0, 2.0, 2.0], translation=[-2.0, 0.0, 0.0])
    mirror = tiny.node(mesh=shared, name="mirrored", scale=[-1.0, 1.0, 1.0], rotation=[0.0, HALF, 0.0, HALF])
    stretched = tiny.node(mesh=shared, name="stretched", scale=[0.5, 2.0, 1.0], extras={"note": "stays"})
    below = tiny.node(mesh=double, name="double", translation=[0.5, 0.0, 1.0])
    facets = tiny.node(mesh=flat, name="flat", scale=[-1.5, 1.5, 1.5])
    turned = tiny.node(
        name="turned",
        rotation=[HALF, 0.0, 0.0, HALF],
        translation=[2.0, 0.5, 0.0],
        children=[below, facets, stretched],
    )
    view = tiny.node(name="camera", camera=camera, translation=[0.0, 0.0, 8.0])
    empty = tiny.node(name="empty", children=[mirror])
    plain = tiny.node(name="plain", mesh=mixed)
    tiny.scene(scaled, turned, view, empty, plain)
    return tiny


def rigged(*, bent: bool) -> TinyGltf:
    """A patch with two joints and an animation of them, a morph target with its own animation, below a moved node.

    Args:
        bent: the rest pose of the skin is not its bind pose.
    """
    tiny = TinyGltf()
    material = textured(tiny, 3)
    vertices, _, _, _ = grid()
    right = (vertices[:, 0] + 0.5)[:, None]
    joints = np.tile([0, 1, 0, 0], (len(vertices), 1)) * (right > 0)
    primitive = patch(
        tiny, material,
        JOINTS_0=tiny.accessor(joints, "u1"),
        WEIGHTS_0=tiny.accessor(np.concatenate([1 - right, right, 0 * right, 0 * right], 1)),
    )  # fmt: skip
    primitive["targets"] = [{"POSITION": tiny.accessor(np.outer(vertices[:, 1], [0, 0, 0.4]))}]
    mesh = tiny.add("meshes", primitives=[primitive], weights=[0.5], extras={"targetNames": ["bulge"]})
    place = np.eye(4)
    place[:3, 3] = [0.0, -1.0, 0.5]
    left = tiny.node(name="left", translation=place[:3, 3].tolist())
    angle = 0.3 if bent else 0.0
    tip = tiny.node(
        name="right",
        translation=place[:3, 3].tolist(),
        rotation=[0.0, float(np.sin(angle)), 0.0, float(np.cos(angle))],
    )
    rig = tiny.node(name="rig", children=[left, tip])
    skin = tiny.skin([left, tip], [np.eye(4), np.eye(4)])
    body = tiny.node(name="body", mesh=mesh, skin=skin)
    tiny.scene(rig, body)
    tiny.animation((tip, "rotation", [0, 1], [[0, 0, 0, 1], [0, HALF, 0, HALF]]))
    tiny.animation((body, "weights", [0, 0.5, 1], [0.5, 1.0, 0.5]))
    return tiny


MODELS = {
    "crowded": lambda: crowded().glb(),
    "rigged": lambda: rigged(bent=False).glb(),
    "bent": lambda: rigged(bent=True).glb(),
    "greenman": lambda: (BUNDLED / "greenman.glb").read_bytes(),
}


def animated(name: str, **options) -> Animation:
    model = load_model(MODELS[name](), name=name)
    return Animation(model, graph_motion(model.asset, **options), "wave")
