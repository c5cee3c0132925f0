"""Assets far from the world's origin: shapes, plans and images are those of the same asset at the origin."""

from __future__ import annotations

import numpy as np
import pytest
from sample_assets import CASES
from tiny_gltf import CORNERS, FACES, TinyGltf

from factory.clips.plan import ClipRecipe, plan_asset
from renderers import gltf
from renderers.meshes import RenderSettings, render_clip

PLACE = np.array([500123.4, 0.0, 4649776.2])  # UTM coordinates, metres
HALF = np.sqrt(0.5)
TURN = [0, HALF, 0, HALF]
SPIN = [0, 1, 2], [[0, 0, 0, 1], TURN, [0, 1, 0, 0]]


def by_the_root(place: np.ndarray) -> TinyGltf:
    tiny = TinyGltf()
    child = tiny.node(mesh=tiny.mesh(), translation=[0, 1, 0])
    tiny.scene(tiny.node(translation=place.tolist(), rotation=TURN, children=[child]))
    tiny.animation((child, "rotation", *SPIN))
    return tiny


def by_a_matrix(place: np.ndarray) -> TinyGltf:
    tiny = TinyGltf()
    matrix = np.eye(4)
    matrix[:3, 3] = place
    child = tiny.node(mesh=tiny.mesh())
    tiny.scene(tiny.node(matrix=matrix.T.reshape(-1).tolist(), children=[child]))
    tiny.animation((child, "rotation", *SPIN))
    return tiny


def by_a_joint(place: np.ndarray) -> TinyGltf:
    """A skin of two joints below a far root; the skinned mesh itself is at the origin."""
    tiny = TinyGltf()
    tip = tiny.node(translation=[0, 1, 0])
    root = tiny.node(translation=place.tolist(), children=[tip])
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, 1, 3] = -1
    attributes = {
        "JOINTS_0": tiny.accessor([[0, 1, 0, 0]] * 4, "u1"),
        "WEIGHTS_0": tiny.accessor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.3, 0.7, 0, 0], [0, 1, 0, 0]]),
    }
    body = tiny.node(mesh=tiny.mesh(attributes=attributes), skin=tiny.skin([root, tip], bind))
    tiny.scene(root, body)
    tiny.animation((tip, "rotation", *SPIN))
    return tiny


def by_the_vertices(place: np.ndarray) -> TinyGltf:
    """Far vertices that a node moves back to the origin, turned: the intermediate coordinates are large."""
    place = np.round(place / 4096) * 4096  # exact in float32, so that the shape is the same
    tiny = TinyGltf()
    back = tiny.node(mesh=tiny.mesh(CORNERS * 2 + place), translation=(-place).tolist())
    turned = tiny.node(children=[back], rotation=TURN, scale=[0.37, 0.37, 0.37])
    tiny.scene(turned)
    tiny.animation((turned, "rotation", *SPIN))
    return tiny


def by_skinned_vertices(place: np.ndarray) -> TinyGltf:
    """Far vertices that the inverse bind matrix moves back to the joint."""
    place = np.round(place / 4096) * 4096
    tiny = TinyGltf()
    root = tiny.node()
    bind = np.eye(4)[None].copy()
    bind[0, :3, 3] = -place
    attributes = {
        "JOINTS_0": tiny.accessor([[0, 0, 0, 0]] * 4, "u1"),
        "WEIGHTS_0": tiny.accessor([[1, 0, 0, 0]] * 4),
    }
    mesh = tiny.mesh(CORNERS * 2 + place, attributes=attributes)
    tiny.scene(root, tiny.node(mesh=mesh, skin=tiny.skin([root], bind)))
    tiny.animation((root, "rotation", *SPIN))
    return tiny


def by_the_animation(place: np.ndarray) -> TinyGltf:
    """At the origin at rest; the animation moves it to the place."""
    place = np.round(place / 4096) * 4096
    tiny = TinyGltf()
    child = tiny.node(mesh=tiny.mesh())
    root = tiny.node(children=[child])
    tiny.scene(root)
    tiny.animation((root, "translation", [0, 2], [place, place]), (child, "rotation", *SPIN))
    return tiny


def by_morphing(place: np.ndarray) -> TinyGltf:
    tiny = TinyGltf()
    targets = [{"POSITION": tiny.accessor([[0, 0, 0], [0.3, 0, 0], [0, 0.123, 0], [0, 0, 0.7]])}]
    child = tiny.node(mesh=tiny.mesh(targets=targets))
    tiny.scene(tiny.node(translation=place.tolist(), children=[child]))
    tiny.animation((child, "weights", [0, 1, 2], [0, 1, 0.4]))
    return tiny


def by_instances(place: np.ndarray) -> TinyGltf:
    """Instances 4 m apart, which float32 resolves, at a place that is far and moved back."""
    place = np.round(place / 4096) * 4096
    tiny = TinyGltf()
    translations = tiny.accessor([place, place + [4, 0, 0]])
    rotations = tiny.accessor([[0, 0, 0, 1], TURN])
    extension = {
        "EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": translations, "ROTATION": rotations}}
    }
    node = tiny.node(mesh=tiny.mesh(), extensions=extension)
    tiny.scene(node)
    tiny.json["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]
    tiny.animation((node, "scale", [0, 2], [[1, 1, 1], [1, 1.5, 1]]))
    return tiny


KINDS = (
    by_the_root, by_a_matrix, by_a_joint, by_the_vertices, by_skinned_vertices, by_the_animation, by_morphing,
    by_instances,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_far_asset_has_the_shape_of_the_near_one(kind):
    near, far = (gltf.load(kind(place).glb()) for place in (np.zeros(3), PLACE))
    assert not near.origin(0).any() and not near.origin(None).any()
    for time in (0.0, 0.31, 1.0, 1.77, 2.0):
        a, b = near.pose(0, time), far.pose(0, time)
        shift = (far.origin(0) + b.positions.mean(0)) - a.positions.mean(0)
        np.testing.assert_allclose(b.positions + far.origin(0) - shift, a.positions, atol=5e-6)
        np.testing.assert_allclose(b.normals, a.normals, atol=5e-6)
        assert (a.mirrored == b.mirrored).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_of_a_far_asset_is_that_of_the_near_one(kind):
    recipe = ClipRecipe(num_frames=8, views=3, resolution=32)
    (near, *_), (far, *_) = (
        plan_asset(gltf.load(kind(p).glb()), "x", recipe)[0] for p in (np.zeros(3), PLACE)
    )
    assert far.motion == pytest.approx(near.motion, rel=1e-5, abs=1e-6)
    assert far.asset_to_world[0] == pytest.approx(near.asset_to_world[0], rel=1e-5)
    if kind not in (by_the_vertices, by_skinned_vertices):  # these are moved back
        transform = np.reshape(far.asset_to_world, (4, 4))
        assert np.abs(transform[:3, 3]).max() > 1e5, "the transform is from the file's world"


def test_the_cubes_at_utm_coordinates():
    """A cube of 1.7 m; above it, one of 0.5 m whose centre moves from (0, 1.5, 0) to (0.4, 1.9, 0)."""
    asset = gltf.load(CASES / "X06_utm_coordinates.glb")
    large, small = (part.vertices for part in asset.primitives)
    for time in np.linspace(0, 2, 9):
        points = asset.positions(0, time)
        np.testing.assert_allclose(np.ptp(points[large], axis=0), 1.7, rtol=1e-6)
        centres = [(asset.origin(0) + points[part].mean(0)) for part in (large, small)]
        np.testing.assert_allclose(centres[0], PLACE, atol=1e-6)
        np.testing.assert_allclose(centres[1] - centres[0], [0.2 * time, 1.5 + 0.2 * time, 0], atol=1e-6)
    assert not np.array_equal(asset.origin(0), np.zeros(3))


def test_images_geometry_and_tracks_of_a_far_asset():
    recipe = ClipRecipe(num_frames=4, views=2, resolution=64)
    settings = RenderSettings(depth=True, normals=True, flow=True, tracks=32)
    clips = []
    for place in (np.zeros(3), PLACE):
        asset = gltf.load(by_the_root(place).glb())
        (plan, *_), _ = plan_asset(asset, "x", recipe)
        clips.append(render_clip(asset, plan.shot(recipe), settings))
    near, far = clips
    difference = np.abs(near.frames.astype(int) - far.frames)
    assert near.frames[..., 3].any() and (difference > 2).mean() < 1e-3
    both = (near.depth > 0) & (far.depth > 0)
    assert both.mean() > 0.05
    np.testing.assert_allclose(far.depth[both], near.depth[both], atol=1e-3)
    np.testing.assert_allclose(far.tracks.points, near.tracks.points, atol=1e-4)


def test_an_asset_that_is_not_far_has_no_origin():
    """Nothing changes for an asset that is within 256 diagonals of the origin."""
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh(), translation=[300, 0, 0])
    tiny.scene(node)
    tiny.animation((node, "rotation", *SPIN))
    asset = gltf.load(tiny.glb())
    assert not asset.origin(0).any()
    expected = CORNERS[FACES] + np.float32([300, 0, 0])
    assert np.array_equal(asset.positions(0, 0.0)[asset.primitives[0].triangles], expected)
    shot = plan_asset(asset, "x", ClipRecipe(num_frames=4, views=2, resolution=32))[0][0].shot(ClipRecipe())
    assert shot.centred(asset).asset_to_world is shot.asset_to_world
