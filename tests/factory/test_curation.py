"""Motion measures against cases computed by hand, the renderer's optical flow, and other exports of the same clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sample_assets import collected, model
from tiny_gltf import CORNERS, FACES, TinyGltf, moving

from cluster import Task
from factory.assets.record import AssetRecord
from factory.clips import similarity
from factory.clips.plan import ClipRecipe, plan_asset
from factory.clips.quality import (
    STRICT,
    MotionPolicy,
    flow,
    measure_motion,
    moving_parts,
    near_duplicates,
    pop_in,
    sample_surface,
    signature,
)
from factory.clips.review import duplicate_assets
from factory.clips.similarity import frame_similarity
from factory.clips.stage import RenderStage
from factory.dataset.schema import MEASURED_COLUMNS
from factory.sources.creatures import build
from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.meshes import RenderSettings, render_clip
from renderers.meshes.opacity import INVISIBLE, triangle_opacity

SMALL = ClipRecipe(fps=8, num_frames=8, views=4, resolution=32)


def ring(views: int, size: int = 64):
    """Cameras at distance 3 m and elevation 0; the first looks along -Z."""
    azimuths = 2 * np.pi / views * np.arange(views)
    return orbit_cameras(azimuths, 0.0, 3.0, fov_y=np.deg2rad(40.0), width=size, height=size)


def square(side: float = 1.0, z: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Facing +Z: vertices [4, 3] and its two triangles."""
    x = 0.5 * side
    return np.array([[-x, -x, z], [x, -x, z], [x, x, z], [-x, x, z]], np.float32), np.array(
        [[0, 1, 2], [0, 2, 3]]
    )


def shifted(points: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Points [N, 3] translated along a path [T, 3]."""
    return (points + np.asarray(steps, np.float32)[:, None]).astype(np.float32)


def along_x(speed: float, frames: int = 6) -> np.ndarray:
    return np.outer(np.arange(frames) * speed, [1.0, 0.0, 0.0])


# --- flow --------------------------------------------------------------------------------------------

PIXELS_PER_METRE = 128 / np.tan(np.deg2rad(20.0)) / 3.0  # at the origin, in an image of 256 pixels


@pytest.mark.parametrize("size", [32, 256])
def test_flow_is_measured_at_256_pixels(size):
    points, triangles = square()
    surface = sample_surface(shifted(points, along_x(0.02)), triangles)
    assert flow(surface.points, ring(1, size)) == pytest.approx(0.02 * PIXELS_PER_METRE, rel=1e-3)


def test_flow_is_averaged_over_a_fraction_of_the_whole_image():
    """A moving square covers 6 x 6 cells, or 6 x 7 between two cells; the rest of the 205 cells (5 %) are still."""
    points, triangles = square(24 / PIXELS_PER_METRE)
    surface = sample_surface(shifted(points, along_x(0.02)), triangles)
    pixels = 0.02 * PIXELS_PER_METRE
    assert 36 / 205 * pixels <= flow(surface.points, ring(1)) <= 42 / 205 * pixels


def test_flow_of_hidden_points_does_not_count():
    wall, triangles = square(1.6, z=0.2)
    behind, _ = square(0.6, z=-0.2)
    still = np.repeat(wall[None], 6, axis=0)
    points = np.concatenate([still, shifted(behind, along_x(0.05))], axis=1)
    surface = sample_surface(points, np.concatenate([triangles, triangles + 4]))
    from_the_front, from_the_back = (flow(surface.points, ring(2)[view]) for view in (0, 1))
    assert from_the_front < 0.1 < 0.04 * PIXELS_PER_METRE < from_the_back


def visible_mesh(asset: gltf.Asset) -> tuple[np.ndarray, np.ndarray]:
    opacity = triangle_opacity(asset)
    seen = [p.triangles[o != INVISIBLE] for p, o in zip(asset.primitives, opacity, strict=True)]
    vertices, faces = np.unique(np.concatenate(seen), return_inverse=True)
    return vertices, faces.reshape(-1, 3)


@pytest.mark.parametrize("name", ["knight.glb", *collected("CesiumMan.glb", "Fox.glb")])
def test_flow_agrees_with_the_flow_of_every_pixel(name):
    recipe = ClipRecipe(fps=24, num_frames=5, views=4, resolution=256, max_animations=1)
    asset = gltf.load(model(name))
    clip = plan_asset(asset, name, recipe)[0][0]
    pixels = render_clip(asset, clip.shot(recipe), RenderSettings(flow=True)).flow  # [V, T-1, H, W, 2]
    lengths = np.nan_to_num(np.linalg.norm(pixels, axis=-1)).reshape(*pixels.shape[:2], -1)
    top = round(0.05 * lengths.shape[-1])
    truth = np.partition(lengths, -top)[..., -top:].mean()
    assert clip.measures["motion_flow"] == pytest.approx(truth, rel=0.15)


# --- parts that appear, and their number ---------------------------------------------------------------------


def test_pop_in_is_the_fraction_of_the_surface_that_appears_in_one_frame():
    points, triangles = square()
    clip = np.repeat(np.concatenate([points, points + [3, 0, 0]])[None], 6, axis=0).astype(np.float32)
    faces = np.concatenate([triangles, triangles + 4])
    clip[:3, 4:] = clip[:3, 4:5]  # the second square is a point, then appears
    corners = faces[sample_surface(clip, faces).triangles]
    assert pop_in(clip, corners) == pytest.approx(0.5, abs=0.01)
    growing = clip.copy()
    growing[:, 4:] = (
        growing[-1, 4:5] + (growing[-1, 4:] - growing[-1, 4:5]) * np.linspace(0, 1, 6)[:, None, None]
    )
    assert pop_in(growing, corners) == 0.0


def pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two squares translated along two paths [T, 3]."""
    points, triangles = square()
    clip = np.concatenate([shifted(points, first), shifted(points, second)], axis=1)
    return clip, np.concatenate([triangles, triangles + 4])


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        (along_x(0.1), along_x(-0.1) + [0, 3, 0], 2),  # apart, moving differently
        (along_x(0.1), along_x(0.1) + [0, 3, 0], 1),  # apart, moving together
        (along_x(0.0), along_x(0.05) + [0, 0.5, 0.01], 1),  # one slides on the other
        (along_x(0.0), along_x(0.0) + [0, 3, 0], 1),  # nothing moves
    ],
)
def test_objects_that_move_independently_are_counted(first, second, parts):
    clip, triangles = pair(first, second)
    assert moving_parts(sample_surface(clip, triangles), clip, triangles) == parts


def test_a_small_part_is_not_counted_as_an_object():
    points, triangles = square()
    clip = np.concatenate(
        [shifted(points, along_x(0.0)), shifted(0.2 * points, along_x(0.1) + [0, 3, 0])], axis=1
    )
    faces = np.concatenate([triangles, triangles + 4])
    assert moving_parts(sample_surface(clip, faces), clip, faces) == 1


def test_duplicated_vertices_at_seams_do_not_separate_parts():
    points, triangles = square()
    clip = shifted(points, along_x(0.1))[:, triangles.reshape(-1)]
    faces = np.arange(6).reshape(2, 3)
    assert moving_parts(sample_surface(clip, faces), clip, faces) == 1


# --- copies ------------------------------------------------------------------------------------------


def exported_again(points: np.ndarray, triangles: np.ndarray):
    """The same surface with other vertices, as other programs export it."""
    rng = np.random.default_rng(0)
    order = rng.permutation(points.shape[1])
    shuffled = np.roll(np.argsort(order)[triangles][rng.permutation(len(triangles))], 1, axis=1)
    yield "shuffled", points[:, order], shuffled
    z_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
    yield "z up, centimetres, elsewhere", points[:, order] @ z_up * 100 + np.float32(7), shuffled
    yield "not indexed", points[:, triangles.reshape(-1)], np.arange(triangles.size).reshape(-1, 3)
    a, b, c = (points[:, triangles[:, corner]] for corner in range(3))
    finer = np.concatenate([a, b, c, (a + b) / 2, (b + c) / 2, (c + a) / 2], axis=1)
    A, B, C, AB, BC, CA = (np.arange(len(triangles)) + k * len(triangles) for k in range(6))
    corners = ((A, AB, CA), (AB, B, BC), (CA, BC, C), (AB, BC, CA))
    yield "subdivided", finer, np.concatenate([np.stack(part, axis=1) for part in corners])


@pytest.fixture(scope="module")
def kangaroo() -> tuple[gltf.Asset, np.ndarray, np.ndarray]:
    asset = gltf.load(build("kangaroo", 1, ["hops-forward-once", "waves-its-right-paw"]))
    return asset, *visible_mesh(asset)


def clip_of(asset: gltf.Asset, index: int, vertices: np.ndarray) -> np.ndarray:
    times = asset.animations[index].start + np.arange(12) / 6
    return np.stack([asset.positions(index, time)[vertices] for time in times])


def test_another_export_of_a_clip_has_the_same_signature(kangaroo):
    asset, vertices, triangles = kangaroo
    points = clip_of(asset, 0, vertices)
    signatures = [signature(points, triangles)]
    signatures += [signature(*copy) for _, *copy in exported_again(points, triangles)]
    assert signatures[0] == signature(points, triangles)
    count = len(signatures)
    assert len(near_duplicates(np.array(signatures))) == count * (count - 1) // 2


def test_another_motion_of_the_same_shape_is_a_duplicate_only_in_shape(kangaroo):
    asset, vertices, triangles = kangaroo
    both = np.array([signature(clip_of(asset, index, vertices), triangles) for index in range(2)])
    assert len(near_duplicates(both, 0.03)) == 0
    assert len(near_duplicates(both, 0.03, motion=False)) == 1  # its first pose differs a little


def test_duplicates_are_pairs_of_assets_with_their_splits(kangaroo):
    asset, vertices, triangles = kangaroo
    hop, wave = (signature(clip_of(asset, index, vertices), triangles) for index in range(2))
    wave = [*hop[:19], *wave[19:]]  # with the same first frame
    rows = [
        {"asset_uid": uid, "split": split, "motion_signature": numbers}
        for uid, split, numbers in (
            ("a", "train", hop),
            ("a", "train", hop),  # two clips of one asset are no pair
            ("copy of a", "test", hop),
            ("a waves", "train", wave),
            ("old", "train", None),
        )
    ]
    named = [row | {"clip_id": str(n), "source": "s", "asset_sha256": str(n)} for n, row in enumerate(rows)]
    pairs = duplicate_assets(pa.Table.from_pylist(named))
    assert [(pair.first, pair.second, pair.moves) for pair in pairs] == [
        ("s/a", "s/copy of a", True),
        ("s/a", "s/a waves", False),
        ("s/a waves", "s/copy of a", False),
    ]
    assert pairs[0].splits == ("test", "train") and pairs[0].clips == 2


# --- similarity of frames ----------------------------------------------------------------------------------------


def grey(*values: int, size: int = 32) -> np.ndarray:
    """One view of uniformly grey frames, uint8 [1, T, size, size, 4]."""
    frames = np.full((1, len(values), size, size, 4), 255, np.uint8)
    frames[0, ..., :3] = np.array(values, np.uint8)[:, None, None, None]
    return frames


@pytest.mark.parametrize("size", [32, 256])
def test_similarity_of_uniform_frames_follows_the_ssim_formula(size):
    c1 = (0.01 * 255) ** 2
    expected = (2 * 60 * 200 + c1) / (60**2 + 200**2 + c1)
    assert frame_similarity(grey(60, 60, 200, 200, size=size)) == pytest.approx(expected, rel=1e-3)
    assert frame_similarity(grey(60, 60, 60, size=size)) == pytest.approx(1.0)


def test_only_covered_pixels_count():
    """The background around a small object that flashes does not raise the similarity."""
    frames = grey(60, 200)
    frames[:, :, :, 8:, 3] = 0
    assert frame_similarity(frames) < 0.75
    frames[..., 3] = 0
    assert frame_similarity(frames) == 1.0


@pytest.mark.parametrize("size", [60, 128, 255, 256])
def test_similarity_is_that_of_whole_frames(size, monkeypatch):
    """What windows at covered pixels do not reach is left out: the same to the last bit."""
    rng = np.random.default_rng(size)
    for rows, columns in (
        (slice(0, 2), slice(-1, None)),
        (slice(21, 40), slice(13, 50)),
        (slice(0), slice(0)),
    ):
        frames = np.zeros((5, 4, size, size, 4), np.uint8)
        covered = frames[:, :, rows, columns]
        covered[:] = rng.integers(0, 256, covered.shape)
        part = frame_similarity(frames)
        with monkeypatch.context() as patch:
            patch.setattr(similarity, "_surroundings", lambda view, block: view)
            assert frame_similarity(frames) == part


# --- policy ----------------------------------------------------------------------------------------

GOOD = {
    "motion_travel": 0.1,
    "motion_size_min": 0.95,
    "motion_size_max": 1.1,
    "motion_speed_max": 0.5,
    "motion_flow": 3.0,
    "motion_pop_in": 0.0,
    "motion_parts": 1,
    "motion_ssim": 0.9,
}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("motion_travel", 1.01, "travels far"),
        ("motion_size_min", 0.49, "shrinks"),
        ("motion_size_max", 2.01, "grows"),
        ("motion_speed_max", 6.01, "moves fast"),
        ("motion_flow", 0.49, "hardly moves"),
        ("motion_pop_in", 0.06, "parts appear or vanish"),
        ("motion_ssim", 0.49, "flickers"),
        ("motion_parts", 2, "several objects move"),
    ],
)
def test_each_rule_has_a_description(column, value, words):
    policy = MotionPolicy()
    assert policy.quality(GOOD) == "high"
    assert policy.faults({**GOOD, column: value}) == [words] == [policy.quality({**GOOD, column: value})]
    assert policy.faults({**GOOD, column: None}) == []


def test_quality_in_between_is_ok_and_unmeasured_is_empty():
    assert STRICT.faults({**GOOD, "motion_flow": 1.0})
    assert MotionPolicy().quality({**GOOD, "motion_flow": 1.0}) == "ok"
    assert MotionPolicy().quality({**GOOD, "motion_ssim": None}) == ""
    broken = {**GOOD, "motion_travel": 3.0, "motion_parts": 3}
    assert MotionPolicy().quality(broken) == "travels far; several objects move"
    assert MotionPolicy(max_travel=4.0, max_parts=3).quality(broken) == "ok"


# --- measures in the plan --------------------------------------------------------------------------------------


def planned(tiny: TinyGltf, tmp_path, **changes):
    file = tmp_path / "tiny.glb"
    file.write_bytes(tiny.glb())
    stage = RenderStage(SMALL, **changes)
    record = AssetRecord("tiny", "folder", str(file), f"sha256:{'0' * 64}")
    return stage.process(Task("asset", {"asset": record.to_json()}))


def far() -> TinyGltf:
    return moving("translation", [0, 2], [[0, 0, 0], [50, 0, 0]])


def test_measures_are_in_the_plan_but_not_in_the_key(tmp_path):
    tagged, plain = (planned(far(), tmp_path, curate=curate) for curate in ("tag", "off"))
    measures = tagged.follow_up[0].payload["clip"]["measures"]
    assert set(measures) == set(MEASURED_COLUMNS) - {"motion_ssim"}
    assert plain.follow_up[0].payload["clip"]["measures"] == {}
    assert [task.key for task in tagged.follow_up] == [task.key for task in plain.follow_up]
    control = planned(moving("translation", [0, 2], [[0, 0, 0], [51, 0, 0]]), tmp_path)
    assert control.follow_up[0].key != tagged.follow_up[0].key


def test_filter_rejects_with_a_reason_and_tag_keeps(tmp_path):
    left_out = planned(far(), tmp_path, curate="filter")
    assert left_out.status == "filtered"
    assert left_out.reason.startswith("travels far; moves fast")
    generous = MotionPolicy(max_travel=1e3, max_speed=1e3, min_flow=0.0)
    kept = planned(far(), tmp_path, curate="filter", policy=generous)
    assert kept.status == "done" and len(kept.follow_up) == 1
    assert planned(far(), tmp_path).status == "done"
    stage = RenderStage(SMALL, curate="filter")
    assert stage.selection != RenderStage(SMALL).selection != ""
    assert replace(stage, policy=generous).selection != stage.selection


def test_degenerate_motions_have_finite_measures():
    """An object that starts as a point, a flat sheet, a single triangle."""
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    for points, faces in (
        (CORNERS[None] * np.linspace(0, 1, 6)[:, None, None].astype(np.float32), FACES),
        (shifted(square()[0], along_x(0.1)), square()[1]),
        (shifted(triangle, along_x(0.1)), np.array([[0, 1, 2]])),
    ):
        measures = measure_motion(points.astype(np.float32), faces, np.eye(4), ring(4))
        assert np.isfinite(measures["motion_flow"]) and measures["motion_parts"] == 1
        assert np.isfinite(measures["motion_signature"]).all() and len(measures["motion_signature"]) == 91
