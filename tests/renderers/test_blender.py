"""Blender as the reference for poses, and as a back end. Skipped unless `make blender` has been run."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sample_assets import ANIMATED, model
from tiny_gltf import CORNERS, TinyGltf, moving

from renderers import gltf
from renderers.cameras import Cameras, orbit_cameras
from renderers.meshes import blender, environment
from renderers.meshes.clip import RenderError, RenderSettings, Shot

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`"),
]

FPS = 24
FRAMES = (0, 8, 15, 47)
TOLERANCE = 1e-5  # relative to the diagonal of the bounding box


class Comparison:
    """Our poses compared with Blender's. Distances are relative to the diagonal of the bounding box."""

    def __init__(self, path: Path, animation: int, times) -> None:
        self.asset, self.animation, self.times = gltf.load(path), animation, times
        self.truth = blender.corner_positions(path, animation, times)
        assert {(part.node, part.index) for part in self.asset.primitives} == set(self.truth)

    def deviations(self, late: float = 0.0) -> np.ndarray:
        """Return the largest distance from Blender's vertices per time; ours are evaluated `late` seconds later."""
        distances = np.zeros(len(self.times))
        for index, when in enumerate(self.times):
            points = self.asset.pose(self.animation, when + late).positions
            for part in self.asset.primitives:
                difference = points[part.triangles] - self.truth[part.node, part.index][index]
                distances[index] = max(
                    distances[index], np.linalg.norm(difference, axis=-1).max() / self.diagonal(when)
                )
        return distances

    def moves(self) -> np.ndarray:
        """Return, for every time, whether a vertex moves by more than twice the tolerance until the next frame."""
        moving = []
        for when in self.times:
            a, b = (self.asset.pose(self.animation, t).positions for t in (when, when + 1 / FPS))
            moving.append(np.linalg.norm(a - b, axis=1).max() / self.diagonal(when) > 2 * TOLERANCE)
        return np.array(moving)

    def diagonal(self, when: float) -> float:
        """Return the diagonal of the bounding box at a time."""
        points = self.asset.pose(self.animation, when).positions[self.asset.visible]
        return float(np.linalg.norm(np.ptp(points, axis=0)))


def animations_to_test(asset: gltf.Asset) -> list[int]:
    """Return all animations if there are at most three, else the first, the longest and the one with most channels."""
    indices = range(len(asset.animations))
    if len(indices) <= 3:
        return list(indices)
    longest = max(indices, key=lambda i: asset.animations[i].duration)
    fullest = max(indices, key=lambda i: asset.animations[i].channels)
    return sorted({0, longest, fullest})


@pytest.mark.parametrize("name", ANIMATED)
def test_poses_of_real_models_match_blender(name, record_property):
    path = model(name)
    asset = gltf.load(path)
    moved = 0
    for animation in animations_to_test(asset):
        times = [asset.animations[animation].start + frame / FPS for frame in FRAMES]
        comparison = Comparison(path, animation, times)
        right = comparison.deviations()
        record_property(f"animation {animation}", right.tolist())
        assert right.max() < TOLERANCE, f"{asset.animations[animation].name}: {right}"
        # Control: a delay of one frame must exceed the tolerance wherever the model moves in that frame.
        moves, late = comparison.moves(), comparison.deviations(late=1 / FPS)
        assert (late[moves] > TOLERANCE).all(), f"{asset.animations[animation].name}: {late}"
        moved += moves.sum()
    assert moved, "the model does not move, so the test shows nothing"


# --- features that the real models lack -----------------------------------------------------------


def stepped() -> TinyGltf:
    return moving("translation", [0, 0.6, 1.2], [[0, 0, 0], [1, 2, 3], [4, 4, 4]], "STEP")


def stepped_rotation() -> TinyGltf:
    return moving("rotation", [0, 0.6], [[0, 0, 0, 1], [0.6, 0, 0, 0.8]], "STEP")


def wide_slerp() -> TinyGltf:
    return moving("rotation", [0, 2], [[0, 0, 0, 1], [0, 0.8660254, 0, -0.5]], scale=[1, 2, 3])


def splines() -> TinyGltf:
    rng = np.random.default_rng(0)
    times = [0, 0.7, 1.1, 2]
    tiny = moving("translation", times, rng.normal(size=(12, 3)), "CUBICSPLINE", name="a")
    other = tiny.node(mesh=0, name="b")
    tiny.json["scenes"][0]["nodes"].append(other)
    turns = rng.normal(size=(4, 3, 4))
    turns[:, 1] = np.cumsum(rng.normal(size=(4, 4)) * 0.3, 0) + [0, 0, 0, 1]
    turns[:, 1] /= np.linalg.norm(turns[:, 1], axis=1, keepdims=True)
    del tiny.json["animations"]
    tiny.animation(
        (0, "translation", times, rng.normal(size=(12, 3)), "CUBICSPLINE"),
        (other, "rotation", times, turns.reshape(12, 4), "CUBICSPLINE"),
        (other, "scale", times, 1 + 0.2 * rng.normal(size=(12, 3)), "CUBICSPLINE"),
    )
    return tiny


def weights(interpolation: str) -> TinyGltf:
    """Two targets, one of them sparse, with weights outside 0-1."""
    rng = np.random.default_rng(1)
    tiny = TinyGltf()
    targets = [
        {"POSITION": tiny.accessor(rng.normal(size=(4, 3)))},
        {"POSITION": tiny.sparse(4, [1, 3], rng.normal(size=(2, 3)))},
    ]
    node = tiny.node(mesh=tiny.mesh(targets=targets), weights=[0.5, 0.25])
    tiny.scene(node)
    values = rng.uniform(0, 0.9, (4, 3 if interpolation == "CUBICSPLINE" else 1, 2))
    tiny.animation((node, "weights", [0, 0.5, 1.3, 2], values.reshape(-1), interpolation))
    return tiny


def skins(sets: int, interpolation: str = "LINEAR") -> TinyGltf:
    """Two bodies on two chains of three joints; with two sets the influence of the third joint is in JOINTS_1."""
    rng = np.random.default_rng(2)
    tiny = TinyGltf()
    channels, bodies = [], []
    parts = 3 if interpolation == "CUBICSPLINE" else 1
    for side in (0, 1):
        step = np.array([3.0 * side, 0.4, 0.1])
        joints = [4 * side + i for i in range(3)]
        for joint in joints:
            below = {"children": [joint + 1]} if joint < joints[-1] else {}
            tiny.node(translation=step.tolist(), name=f"joint {joint}", **below)
        bind = np.tile(np.eye(4), (3, 1, 1))
        bind[:, :3, 3] = -np.cumsum([step] * 3, axis=0)
        share = np.pad(rng.dirichlet(np.ones(3), 4), ((0, 0), (0, 1)))
        attributes = {
            "JOINTS_0": tiny.accessor([[0, 1, 2, 0]] * 4, "u1"),
            "WEIGHTS_0": tiny.accessor(share * [1, 1, sets == 1, 0]),
        }
        if sets == 2:
            attributes["JOINTS_1"] = tiny.accessor([[2, 0, 0, 0]] * 4, "u1")
            attributes["WEIGHTS_1"] = tiny.accessor(share[:, [2, 3, 3, 3]])
        mesh = tiny.mesh(CORNERS + step, attributes=attributes)
        bodies.append(tiny.node(mesh=mesh, skin=tiny.skin(joints, bind), name=f"body {side}"))
        for joint in joints:
            turns = rng.normal(size=(3, parts, 4)) * 0.3 + [0, 0, 0, 1]
            turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
            moves = rng.normal(size=(3 * parts, 3)) * 0.3
            channels.append((joint, "rotation", [0, 0.9, 2], turns.reshape(-1, 4), interpolation))
            channels.append((joint, "translation", [0, 0.9, 2], moves, interpolation))
    tiny.scene(0, 4, *bodies)
    tiny.animation(*channels)
    return tiny


def mirrored() -> TinyGltf:
    """Negative scales on a parent (given as a matrix) and on an animated child."""
    tiny = TinyGltf()
    child = tiny.node(mesh=tiny.mesh(), scale=[1, -1, 1], name="child")
    tiny.scene(
        tiny.node(matrix=[-2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 1, 2, 3, 1], children=[child], name="top")
    )
    tiny.animation(
        (child, "rotation", [0, 1, 2], [[0, 0, 0, 1], [0.6, 0, 0, 0.8], [0, 0.6, 0, 0.8]]),
        (child, "scale", [0, 2], [[1, -1, 1], [-2, -1, 3]]),
    )
    return tiny


def integers() -> TinyGltf:
    """Quantised positions in a normalised type, rotations as 16-bit integers, a strip."""
    tiny = TinyGltf()
    packed = np.pad(np.round(CORNERS / 3 * 32767), ((0, 0), (0, 1)))
    points = tiny.accessor(packed, "i2", normalized=True)
    tiny.json["accessors"][points] |= {"type": "VEC3", "min": [0, 0, 0], "max": [10922, 21845, 32767]}
    tiny.json["bufferViews"][-1]["byteStride"] = 8
    tiny.json["extensionsUsed"] = tiny.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    node = tiny.node(mesh=tiny.mesh(points, None, mode=5))
    tiny.scene(node)
    turns = np.round(np.array([[0, 0, 0, 1], [0.6, 0, 0, 0.8], [0, -0.6, 0, 0.8]]) * 32767)
    tiny.animation((node, "rotation", [0, 1, 2], turns, "LINEAR", "i2"))
    return tiny


SYNTHETIC = {
    "STEP translation": stepped,
    "STEP rotation": stepped_rotation,
    "LINEAR rotation far apart": wide_slerp,
    "CUBICSPLINE translation, rotation, scale": splines,
    "LINEAR weights, sparse target": lambda: weights("LINEAR"),
    "STEP weights": lambda: weights("STEP"),
    "CUBICSPLINE weights": lambda: weights("CUBICSPLINE"),
    "two skins": lambda: skins(1),
    "JOINTS_1": lambda: skins(2),
    "CUBICSPLINE joints": lambda: skins(1, "CUBICSPLINE"),
    "negative scale": mirrored,
    "normalised integers": integers,
}


@pytest.mark.parametrize("case", SYNTHETIC)
def test_synthetic_cases_match_blender(case, tmp_path, record_property):
    path = tmp_path / "case.glb"
    path.write_bytes(SYNTHETIC[case]().glb())
    times = [frame / FPS for frame in (0, 8, 15, 28, 47)]
    comparison = Comparison(path, 0, times)
    right = comparison.deviations()
    record_property("deviations", right.tolist())
    assert right.max() < TOLERANCE, right
    moves, late = comparison.moves(), comparison.deviations(late=1 / FPS)
    assert (late[moves] > TOLERANCE).all(), late
    # Between keys a STEP is constant, so a delay is visible only across keys.
    assert (comparison.deviations(late=0.7).max() > TOLERANCE) if "STEP" in case else moves.any()


# --- rendering --------------------------------------------------------------------------------------


def quad(material: dict) -> TinyGltf:
    """Return a square in the plane z = 0 that faces +Z."""
    tiny = TinyGltf()
    tiny.add("materials", **material)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    attributes = {"NORMAL": tiny.accessor(np.tile([0, 0, 1], (4, 1)))}
    tiny.scene(tiny.node(mesh=tiny.mesh(corners, [[0, 1, 2], [0, 2, 3]], attributes=attributes, material=0)))
    return tiny


def shot(cameras: Cameras, to_world=None) -> Shot:
    return Shot(None, np.zeros(1), np.eye(4) if to_world is None else to_world, cameras)


def test_a_mirror_reflects_the_environment(tmp_path):
    """Up to noise, the central pixel is the sRGB-encoded radiance along the reflected ray."""
    path = tmp_path / "mirror.glb"
    path.write_bytes(quad({"pbrMetallicRoughness": {"metallicFactor": 1, "roughnessFactor": 0}}).glb())
    azimuths, elevations = np.array([0.0, 0.6, -0.9]), np.array([0.1, 0.7, -0.5])
    cameras = orbit_cameras(azimuths, elevations, 4.0, fov_y=0.3, width=16, height=16)
    frames = blender.render_clip(path, shot(cameras), samples_per_pixel=16).frames[:, 0]
    towards = cameras.camera_to_world[:, :3, 3] / 4.0
    expected = environment.radiance(np.stack([-towards[:, 0], -towards[:, 1], towards[:, 2]], 1)).clip(0, 1)
    encoded = 255 * np.where(expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055)
    assert (frames[:, 8, 8, 3] == 255).all()
    np.testing.assert_allclose(frames[:, 7:9, 7:9, :3].mean((1, 2)), encoded, atol=6)
    for a, b in pairwise(encoded):
        assert np.abs(a - b).max() > 12, "the three directions must differ for this to mean anything"


def test_silhouettes_match_projections(tmp_path):
    """With an off-centre principal point, unequal focal lengths and a similarity transform to the world."""
    path = tmp_path / "quad.glb"
    path.write_bytes(quad({"doubleSided": True}).glb())
    cameras = orbit_cameras(np.array([0.3, 2.9]), 0.4, 5.0, fov_y=0.7, width=128, height=96)
    K = cameras.K.copy()
    K[:, 0, 2] += 13
    K[:, 1, 2] -= 9
    K[1, 1, 1] *= 1.3
    cameras = Cameras(cameras.world_to_camera, K, 128, 96)
    to_world = np.eye(4)
    to_world[:3] = [[0, 0, 1.2, 0.1], [0, 1.2, 0, -0.2], [-1.2, 0, 0, 0.3]]
    clip = blender.render_clip(path, shot(cameras, to_world), samples_per_pixel=4)
    corners = (
        np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) @ to_world[:3, :3].T + to_world[:3, 3]
    )
    outline, _ = cameras.project(corners)
    ys, xs = np.mgrid[:96, :128] + 0.5
    for view in range(2):
        sides = []
        for a, b in zip(outline[view], np.roll(outline[view], -1, 0), strict=True):
            sides.append((b[0] - a[0]) * (ys - a[1]) - (b[1] - a[1]) * (xs - a[0]))
        inside = (np.array(sides) > 0).all(0) | (np.array(sides) < 0).all(0)
        mask = clip.mask[view, 0]
        assert (mask & inside).sum() / (mask | inside).sum() > 0.98
        assert mask.sum() > 300
    assert clip.renderer.startswith("blender ")


def test_single_sided_faces_are_culled_and_double_sided_ones_not(tmp_path):
    behind = orbit_cameras(np.array([np.pi]), 0.0, 4.0, fov_y=0.6, width=8, height=8)
    for double in (False, True):
        path = tmp_path / f"{double}.glb"
        path.write_bytes(quad({"doubleSided": double}).glb())
        assert blender.render_clip(path, shot(behind), samples_per_pixel=2).mask.any() == double


# --- failures ---------------------------------------------------------------------------------------


def test_errors_contain_the_output_of_blender(tmp_path, monkeypatch):
    (tmp_path / "broken.glb").write_bytes(b"glTF nonsense")
    with pytest.raises(RenderError, match=r"broken\.glb: exited with"):
        blender.corner_positions(tmp_path / "broken.glb", None, [0.0])
    path = tmp_path / "good.glb"
    path.write_bytes(stepped().glb())
    with pytest.raises(RenderError, match=r"no result after 0\.05 s"):
        blender.corner_positions(path, 0, [0.0], timeout=0.05)
    cameras = orbit_cameras(np.zeros(1), 0.0, 4.0, fov_y=0.6, width=8, height=8)
    with pytest.raises(RenderError, match="opengl"):
        blender.render_clip(path, shot(cameras), RenderSettings(depth=True))
    monkeypatch.setenv(blender.ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(RenderError, match="make blender"):
        blender.corner_positions(path, 0, [0.0])
    monkeypatch.setenv(blender.ENVIRONMENT_VARIABLE, sys.executable)
    with pytest.raises(RenderError, match="make blender"):
        blender.corner_positions(path, 0, [0.0])
