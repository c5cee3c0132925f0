"""Planning of clips: windows, rejections, cameras and framing, checked down to the pixels."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sample_assets import ANIMATED, model, with_bundled
from scenes import add_square, unlit
from tiny_gltf import TinyGltf, moving

from factory.assets.licences import Policy
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.jobs import AssetJob, ClipJob, read_job
from factory.clips.plan import (
    ClipPlan,
    ClipRecipe,
    clip_cameras,
    motion_statistics,
    plan_asset,
    tightest_distance,
)
from factory.clips.stage import RenderStage, asset_tasks
from renderers import gltf
from renderers.cameras import Cameras, orbit_rotations
from renderers.meshes import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot, render_clip

STEP = 1 / 24
SMALL = ClipRecipe(views=4, resolution=32)


def swing(duration: float, *, loops: bool = False, start: float = 0.0) -> TinyGltf:
    """A tetrahedron that moves 1 m to the right, and back again if it loops."""
    if loops:
        times, places = [0, duration / 2, duration], [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    else:
        times, places = [0, duration], [[0, 0, 0], [1, 0, 0]]
    return moving("translation", [start + t for t in times], places)


def plan(tiny: TinyGltf, recipe: ClipRecipe = SMALL, identity: str = "tiny"):
    return plan_asset(gltf.load(tiny.glb()), identity, recipe)


# --- windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "loops", "windows"),
    [
        (0.5, True, {"loop": (0.0, None)}),
        (0.5, False, {"hold": (0.0, 0.5)}),
        (1.0, True, {"loop": (0.0, None)}),
        (1.0, False, {"hold": (0.0, 1.0)}),
        (2.0, False, {"first": (0.0, 47 * STEP)}),
        (2.0, True, {"first": (0.0, 47 * STEP)}),
        (3.0, False, {"first": (0.0, 47 * STEP)}),
        (4.0, False, {"first": (0.0, 47 * STEP)}),
        (4.5, False, {"first": (0.0, 47 * STEP), "last": (2.5 + STEP, 4.5)}),
        (10.0, False, {"first": (0.0, 47 * STEP), "last": (8.0 + STEP, 10.0)}),
    ],
)
@pytest.mark.parametrize("start", [0.0, 1.25])
def test_windows(duration, loops, windows, start):
    """The first 2 s; of more than 4 s also the last 2 s; shorter animations loop or hold their last pose."""
    clips, rejections = plan(swing(duration, loops=loops, start=start))
    assert rejections == []
    assert [clip.window for clip in clips] == list(windows)
    for clip in clips:
        first, last = windows[clip.window]
        times = np.array(clip.timestamps) - start
        assert len(times) == 48
        assert clip.start_time == clip.timestamps[0] and clip.end_time == clip.timestamps[-1]
        assert times[0] == pytest.approx(first, abs=1e-6)
        if last is not None:
            assert times[-1] == pytest.approx(last, abs=1e-6)
        steps = np.diff(times)
        if clip.window == "hold":
            assert np.all((np.abs(steps - STEP) < 1e-6) | (times[1:] > duration - 1e-6))
            assert times.max() == pytest.approx(duration, abs=1e-6)
        elif clip.window == "loop":  # always one step further in the loop
            np.testing.assert_allclose(
                np.mod(steps - STEP + 0.5 * duration, duration), 0.5 * duration, atol=1e-6
            )
        else:
            np.testing.assert_allclose(steps, STEP, atol=1e-6)
        assert times.min() >= -1e-6 and times.max() <= duration + 1e-6


@pytest.mark.parametrize(
    ("tiny", "reason"),
    [
        (swing(0.0), "zero length"),
        (swing(0.1), "shorter than 0.25 s"),
        (moving("translation", [0, 3], [[1, 1, 1], [1, 1, 1]]), "motionless (first window)"),
        (moving("translation", [0, 3], [[0, 0, 0], [0.001, 0, 0]]), "motionless (first window)"),
        (moving("scale", [0, 3], [[0, 0, 0], [0, 0, 0]]), "nothing to see (first window)"),
    ],
)
def test_motionless_animations_are_rejected_with_a_reason(tiny, reason):
    clips, rejections = plan(tiny)
    assert clips == []
    assert [(r.animation, r.animation_name, r.reason) for r in rejections] == [(0, "animation 0", reason)]


def test_a_motionless_window_does_not_reject_the_other():
    tiny = moving("translation", [0, 8, 10], [[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    tiny.json["animations"][0]["name"] = "wave"
    clips, rejections = plan(tiny)
    assert [clip.window for clip in clips] == ["last"]
    assert [(r.animation_name, r.reason) for r in rejections] == [("wave", "motionless (first window)")]


def test_a_fully_transparent_asset_gives_no_clip():
    tiny = TinyGltf()
    node = add_square(tiny, unlit(1, 1, 1, 0, alphaMode="BLEND"))
    tiny.scene(node)
    tiny.animation((node, "translation", [0, 2], [[0, 0, 0], [1, 0, 0]]))
    clips, rejections = plan(tiny)
    assert clips == []
    assert [r.reason for r in rejections] == ["nothing to see"]


def test_an_animation_that_overflows_does_not_reject_the_others():
    """One animation overflows float32, one its square; the third is planned."""
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(tiny.node(children=[node], scale=[100, 1, 1]))
    for far in (3e38, 1e30, 1.0):
        tiny.animation((node, "translation", [0, 1, 2], [[0, 0, 0], [far, 0, 0], [0, 0, 0]]))
    clips, rejections = plan(tiny)
    assert [clip.animation for clip in clips] == [2]
    assert [(r.animation, r.reason.split(" (")[0]) for r in rejections] == [
        (0, "moves to infinity"),
        (1, "moves to infinity"),
    ]


def test_an_object_that_grows_from_a_point_has_finite_statistics():
    clips, _ = plan(moving("scale", [0, 2], [[0, 0, 0], [1, 1, 1]]))
    (clip,) = clips
    assert np.isfinite(list(clip.motion.values())).all()
    assert np.isfinite(clip.asset_to_world).all()
    assert clip.motion["motion_size_min"] == 0.0
    assert clip.motion["motion_size_max"] == pytest.approx(1.0)


def test_at_most_six_animations_chosen_by_the_seed():
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(node)
    for i in range(20):
        tiny.animation((node, "translation", [0, 2], [[0, 0, 0], [1 + i, 0, 0]]))
    asset = gltf.load(tiny.glb())

    def chosen(identity: str, **changes) -> list[int]:
        recipe = replace(SMALL, num_frames=2, fps=1, **changes)
        return [clip.animation for clip in plan_asset(asset, identity, recipe)[0]]

    first = chosen("a")
    assert len(first) == len(set(first)) == 6
    assert first == sorted(first) == chosen("a")
    assert first != chosen("b") and first != chosen("a", seed=1)
    assert set().union(*(chosen(str(i)) for i in range(25))) == set(
        range(20)
    )  # every animation is drawn for some asset
    assert chosen("a", max_animations=20) == list(range(20))


def test_the_same_asset_and_recipe_give_the_same_plan():
    first, again = plan(swing(5.0)), plan(swing(5.0))
    assert first == again
    assert first != plan(swing(5.0), identity="other")
    for clip in first[0]:
        plan_again = ClipPlan.from_json(json.loads(json.dumps(clip.to_json())))
        assert plan_again == clip
        shot, restored = clip.shot(SMALL), plan_again.shot(SMALL)
        np.testing.assert_array_equal(shot.timestamps, restored.timestamps)
        np.testing.assert_array_equal(shot.asset_to_world, restored.asset_to_world)
        np.testing.assert_array_equal(shot.cameras.world_to_camera, restored.cameras.world_to_camera)


def test_jobs_survive_json():
    record = AssetRecord("tiny.glb", "folder", "tiny.glb", "sha256:0", tags=("tiny",))
    (clip, *_), _ = plan(swing(5.0))
    for job in (
        AssetJob(record),
        AssetJob(record, Policy("commercial", licences=("CC0-1.0",))),
        ClipJob(record, clip),
    ):
        assert read_job(json.loads(json.dumps(job.to_json()))) == job
    assert set(AssetJob(record).to_json()) == {"asset"}  # as in existing ledgers


def test_asset_keys_of_existing_ledgers_stay_valid(monkeypatch):
    """Computed before policies had a fifth field."""
    monkeypatch.setitem(PICTURE_VERSIONS, "opengl", "1")
    record = AssetRecord("u", "objaverse", "objaverse://u", "sha256:0", licence="CC-BY-4.0")
    strict = Selection(policy="commercial", allow_unknown_noai=True, licences=("MIT",))
    selections = (Selection(), strict, Selection(policy="any"))
    stage = RenderStage(backend="opengl")
    keys = [next(asset_tasks([record], stage, selection)).key for selection in selections]
    assert keys == [
        "641774d8cdb9be701f0568fd3224ef304cfcb63d",
        "e18087036c0d04aa2dd74395c27e30f1f400b2aa",
        "30d14ac59e1ddb6237ca72b4ae33a8c67b33d31a",
    ]
    asked = next(asset_tasks([record], stage, Selection(allow_no_derivatives=True)))
    assert asked.key not in keys and asked.payload["terms"]["allow_no_derivatives"] is True


def test_keys_of_existing_ledgers_stay_valid():
    assert ClipRecipe().hash() == "aa88ec954a7ae931"


def test_every_field_of_a_recipe_is_part_of_its_hash():
    changed = {
        replace(SMALL, **{name: value + (2 if isinstance(value, int) else 0.01)}).hash()
        for name, value in asdict(SMALL).items()
    }
    assert len(changed | {SMALL.hash()}) == len(asdict(SMALL)) + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_frames", 1),
        ("views", 0),
        ("fps", 0),
        ("resolution", 255),
        ("resolution", 8),
        ("fov_y_deg", 180.0),
        ("distance", 0.0),
        ("margin", 0.5),
    ],
)
def test_recipes_that_cannot_be_rendered_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"ClipRecipe.*{field}.*got .*{value:g}"):
        ClipRecipe(**{field: value})


# --- cameras ------------------------------------------------------------------------------


def test_elevation_and_azimuth_are_uniform_in_their_ranges():
    asset = gltf.load(swing(5.0).glb())
    recipe = replace(SMALL, views=1, num_frames=2, fps=1)
    elevations, offsets = [], []
    for i in range(300):
        clips, _ = plan_asset(asset, f"asset {i}", recipe)
        assert (
            len({(c.elevation_deg, c.azimuth_offset_deg) for c in clips}) == 1
        )  # the same for all windows of an animation
        elevations.append(clips[0].elevation_deg)
        offsets.append(clips[0].azimuth_offset_deg)
    for values, low, high in ((elevations, 0, 30), (offsets, -11.25, 11.25)):
        counts = np.histogram(values, 5, (low, high))[0]
        assert counts.sum() == 300  # none outside
        assert counts.min() > 35  # 60 expected, with a standard deviation of 7
    assert abs(np.corrcoef(elevations, offsets)[0, 1]) < 0.2


def test_sixteen_views_evenly_spaced_at_one_elevation():
    cameras = clip_cameras(ClipRecipe(), 20.0, 5.0)
    positions = cameras.camera_to_world[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 3.0)
    np.testing.assert_allclose(np.degrees(np.arcsin(positions[:, 1] / 3)), 20.0)
    azimuths = np.degrees(np.unwrap(np.arctan2(positions[:, 0], positions[:, 2])))
    np.testing.assert_allclose(azimuths, 5.0 + 22.5 * np.arange(16), atol=1e-9)
    assert (cameras.width, cameras.height) == (256, 256)


# --- motion statistics -------------------------------------------------------------------------------------


def test_motion_statistics_by_hand():
    """Two vertices 5 apart (3-4-5); one stays, the other moves by (0, 0), (0, 4), (3, 0) in three steps."""
    points = np.zeros((4, 2, 3))
    points[:, 1, 0] = (3, 3, 3, 6)
    points[:, 1, 1] = (4, 4, 8, 8)
    statistics = motion_statistics(points, fps=10.0)
    # Sizes 5, 5, hypot(3, 8), 10; box centres move by (0, 0), (0, 2), (1.5, 0).
    assert statistics == pytest.approx(
        {
            "motion_reach": 5.0 / 5,  # (3, 4) from its first position
            "motion_travel": 2.5 / 5,
            "motion_speed": 10 * (0 + 4 / 2 + 3 / 2) / 3 / 5,
            "motion_speed_max": 10 * (4 / 2) / 5,
            "motion_size_min": 1.0,
            "motion_size_max": 10.0 / 5,
        }
    )


def test_motion_does_not_depend_on_the_unit():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 20, 3))
    assert motion_statistics(points * 1000, 24) == pytest.approx(motion_statistics(points, 24))


# --- tightest distance ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_tightest_distance_is_the_smallest_at_which_all_points_are_inside(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(int(rng.integers(1, 200)), 3)) * rng.uniform(0.1, 3, 3)
    rotations = orbit_rotations(rng.uniform(0, 7, 5), rng.uniform(-1, 1, 5))
    extent = rng.uniform(0.1, 1.0)

    def inside(distance: float) -> bool:
        """Project every point into every view."""
        camera = np.einsum("vij,nj->vni", rotations, points) + [0, 0, distance]
        depth = camera[..., 2]
        return bool((depth > 0).all() and (np.abs(camera[..., :2]) <= extent * depth[..., None]).all())

    distance = tightest_distance(points, rotations, extent)
    assert inside(distance * (1 + 1e-9))
    assert not inside(distance * (1 - 1e-6))


def test_the_first_frame_is_centred_and_no_other():
    clips, _ = plan(swing(2.0))
    matrix = np.array(clips[0].asset_to_world).reshape(4, 4)
    asset = gltf.load(swing(2.0).glb())
    boxes = []
    for time in clips[0].timestamps[0], clips[0].timestamps[-1]:
        world = asset.pose(0, time).positions @ matrix[:3, :3].T + matrix[:3, 3]
        boxes.append((world.min(0) + world.max(0)) / 2)
    np.testing.assert_allclose(boxes[0], 0, atol=1e-6)
    assert boxes[1][0] > 0.1
    np.testing.assert_allclose(matrix[:3, :3], matrix[0, 0] * np.eye(3))


# --- framing, in pixels ----------------------------------------------------------------------------


def free_border(alpha: np.ndarray) -> int:
    """Smallest margin in pixels at any side of any image of alpha [V, T, H, W]."""
    seen = alpha.any(axis=(0, 1))
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    size = alpha.shape[-1]
    return min(rows[0], columns[0], size - 1 - rows[-1], size - 1 - columns[-1])


def planned_clips(name: str, recipe: ClipRecipe, clips: int) -> tuple[gltf.Asset, list[ClipPlan]]:
    """The asset and its first clips."""
    asset = gltf.load(model(name))
    return asset, plan_asset(asset, name, replace(recipe, max_animations=clips))[0][:clips]


def check_framed(name: str, recipe: ClipRecipe, samples: int, clips: int) -> None:
    asset, plans = planned_clips(name, recipe, clips)
    assert plans
    for clip in plans:
        alpha = render_clip(asset, clip.shot(recipe), RenderSettings(samples=samples)).frames[..., 3]
        free = free_border(alpha)
        assert free >= 1, f"{name}, {clip.animation_name}: pixels on the border"
        assert free <= 0.08 * recipe.resolution, f"{name}, {clip.animation_name}: {free} px are free"
        assert alpha.any(axis=(2, 3)).any(axis=1).all()  # visible in every view


@pytest.mark.parametrize("name", ANIMATED)
def test_framed(name):
    """In all frames and views, no pixel is on the border, and some pixel is within 8 % of it."""
    check_framed(name, ClipRecipe(resolution=64), samples=4, clips=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ANIMATED)
def test_framed_at_full_size(name):
    check_framed(name, ClipRecipe(), samples=4, clips=3)


@pytest.mark.parametrize("name", with_bundled("Fox.glb"))
@pytest.mark.parametrize(("scale", "fault"), [(1.1, "border"), (0.8, "free")])
def test_framing_that_is_too_near_or_too_far_is_seen(name, scale, fault):
    asset, plans = planned_clips(name, ClipRecipe(resolution=64), 1)
    matrix = np.array(plans[0].asset_to_world).reshape(4, 4)
    scaled = replace(plans[0], asset_to_world=tuple((np.diag([scale] * 3 + [1]) @ matrix).reshape(-1)))
    alpha = render_clip(asset, scaled.shot(ClipRecipe(resolution=64)), RenderSettings(samples=4)).frames[
        ..., 3
    ]
    free = free_border(alpha)
    assert free < 1 if fault == "border" else free > 0.08 * 64


# --- silhouettes: vertices projected with the stored cameras fall on the mask ----------------------

FINE = 8  # supersampling of the polygons, since PIL draws whole pixels


def projected_silhouettes(asset: gltf.Asset, shot: Shot, cameras: Cameras, frames: list[int]) -> np.ndarray:
    """bool [V, T, H, W]: pixels at least half covered by triangles projected with `cameras` and filled by PIL."""
    triangles = np.concatenate([p.triangles for p in asset.primitives])
    masks = np.zeros((len(cameras), len(frames), cameras.height, cameras.width), bool)
    for t, time in enumerate(shot.timestamps[frames]):
        world = (
            asset.pose(shot.animation, time).positions @ shot.asset_to_world[:3, :3].T
            + shot.asset_to_world[:3, 3]
        )
        pixels, _ = cameras.project(world)
        for v in range(len(cameras)):
            fine = Image.new("L", (cameras.width * FINE, cameras.height * FINE))
            draw = ImageDraw.Draw(fine)
            # The centre of PIL's pixel (i, j) is the point (i, j).
            for corners in np.rint(pixels[v][triangles] * FINE - 0.5):
                draw.polygon([tuple(corner) for corner in corners], fill=1)
            coverage = np.asarray(fine).reshape(cameras.height, FINE, cameras.width, FINE).mean((1, 3))
            masks[v, t] = coverage >= 0.5
    return masks


def opaque(asset: gltf.Asset) -> gltf.Asset:
    """The asset with every triangle visible from both sides, so that its silhouette is that of its triangles."""
    solid = tuple(replace(m, alpha_mode="OPAQUE", double_sided=True) for m in asset.materials)
    return replace(asset, materials=solid)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of all images together."""
    return float((a & b).sum() / (a | b).sum())


def opaque_clip(name: str, views: list[int], frames: list[int]) -> tuple[RenderedClip, gltf.Asset, Shot]:
    """A subset of views and frames of an asset's first clip with opaque materials, the asset, and the whole shot."""
    recipe = ClipRecipe(max_animations=1)
    asset = opaque(gltf.load(model(name)))
    whole = plan_asset(asset, name, recipe)[0][0].shot(recipe)
    some = replace(whole, timestamps=whole.timestamps[frames], cameras=whole.cameras[views])
    return render_clip(asset, some, RenderSettings(samples=16)), asset, whole


@pytest.mark.parametrize("name", ANIMATED)
def test_projected_vertices_fall_on_the_mask(name):
    """IoU >= 0.98 of two rasterisers that share only the stored cameras; wrong cameras fail."""
    views = [1, 6]
    clip, asset, shot = opaque_clip(name, views, [20])
    assert overlap(projected_silhouettes(asset, shot, clip.cameras, [20]), clip.mask) >= 0.98

    next_view = shot.cameras[[v + 1 for v in views]]
    assert overlap(projected_silhouettes(asset, shot, next_view, [20]), clip.mask) < 0.98
    K = clip.cameras.K.copy()
    K[:, [0, 1], [0, 1]] *= 1.1
    larger = Cameras(clip.cameras.world_to_camera, K, clip.cameras.width, clip.cameras.height)
    assert overlap(projected_silhouettes(asset, shot, larger, [20]), clip.mask) < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", ANIMATED)
def test_projected_vertices_fall_on_the_mask_everywhere(name):
    frames = [0, 8, 15, 47]
    clip, asset, shot = opaque_clip(name, list(range(0, 16, 2)), frames)
    projected = projected_silhouettes(asset, shot, clip.cameras, frames)
    for one, mask in zip(projected, clip.mask, strict=True):
        assert overlap(one, mask) >= 0.98
