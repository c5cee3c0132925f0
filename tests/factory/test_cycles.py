"""Cycles without the closing key, clips that stand still, static models, and which animations are drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_gltf import CORNERS, FACES, TinyGltf, moving

import factory.motions
import factory.render
from factory import load_clips, row_to_shot
from factory.assets.record import AssetRecord
from factory.clips.cycles import is_static, lacks_closing_key
from factory.clips.plan import ClipPlan, ClipRecipe, plan_asset
from factory.clips.stage import RenderStage, asset_tasks
from factory.dataset.notes import countable
from renderers import gltf
from renderers.meshes import RenderSettings, blender, renderer

CASE = Path(__file__).resolve().parents[1] / "assets" / "cases" / "A35_cycle_without_closing_key.glb"
RECIPE = ClipRecipe(views=4, resolution=32)
BODY = CORNERS[FACES].reshape(-1, 3)  # its vertices as loaded: three of its own per triangle
CLOCK = np.arange(48) / 24  # of the frames, seconds
NOTE = "cycle without closing key, repeated every 1.000 s"


def circle(phases: np.ndarray) -> np.ndarray:
    """Points [n, 3] on the unit circle. `phases`: in revolutions."""
    angles = 2 * np.pi * np.asarray(phases)
    return np.stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))], 1)


def orbit(keys: int, *, start: float = 0.0, closing: bool = False, period: float = 1.0) -> TinyGltf:
    """A tetrahedron on a circle with `keys` keys per revolution, and one more if it is closed."""
    phases = np.arange(keys + closing) / keys
    return moving("translation", start + period * phases, circle(phases))


def plan(tiny: TinyGltf | Path, recipe: ClipRecipe = RECIPE, **options) -> tuple[gltf.Asset, ClipPlan]:
    """The asset and its only clip."""
    asset = gltf.load(tiny if isinstance(tiny, Path) else tiny.glb())
    (clip,), rejections = plan_asset(asset, "tiny", recipe, **options)
    assert not rejections
    return asset, clip


def film(asset: gltf.Asset, clip: ClipPlan, recipe: ClipRecipe = RECIPE) -> np.ndarray:
    """Positions [T, N, 3] that a renderer draws."""
    shot = clip.shot(recipe)
    return np.stack([shot.pose(asset, time).positions for time in shot.timestamps])


# --- cycles ------------------------------------------------------------------------------------------


def test_the_cycle_that_was_collected_repeats_every_24_frames():
    """24 keys at 24 fps on a circle: frame k is key k modulo 24, and every frame moves equally far."""
    asset, clip = plan(CASE)
    assert (clip.window, clip.notes) == ("loop", (NOTE,))
    frames = film(asset, clip)
    np.testing.assert_allclose(frames[:, 0] - frames[0, 0], circle(CLOCK) - circle([0]), atol=2e-6)
    steps = np.linalg.norm(np.diff(frames, axis=0), axis=-1)
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 24), atol=1e-5)  # no frame stands still
    assert clip.motion["motion_speed"] == pytest.approx(clip.motion["motion_speed_max"], rel=1e-4)


@pytest.mark.parametrize("keys", [10, 12, 15, 24, 30, 60])
@pytest.mark.parametrize("start", [0.0, 1.25])
def test_cycles_of_any_key_rate_are_interpolated_across_the_seam(keys, start):
    """The truth: linear interpolation of the keys of a file that has the closing key."""
    asset, clip = plan(orbit(keys, start=start))
    assert (clip.window, clip.notes) == ("loop", (NOTE,))
    assert asset.animations[0].key_interval == pytest.approx(1 / keys, abs=1e-6)
    phases = np.arange(keys + 1) / keys
    truth = np.stack([np.interp(np.mod(CLOCK, 1), phases, axis) for axis in circle(phases).T], 1)
    np.testing.assert_allclose(film(asset, clip)[:, 0], truth, atol=5e-6)
    times = np.array(clip.timestamps) - start
    assert times.min() >= 0 and times.max() <= 1 + 1e-6


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("keys", "period"), [(12, 0.7), (10, 1 / 3), (24, 1.37), (19, 1.9)])
def test_cycles_whose_period_is_no_number_of_frames_and_that_run_backwards(keys, period, direction):
    phases = np.arange(keys + 1) / keys
    asset, clip = plan(moving("translation", period * phases[:-1], circle(direction * phases[:-1])))
    assert (clip.window, clip.notes) == ("loop", (NOTE.replace("1.000", f"{period:.3f}"),))
    places = circle(direction * phases).T
    truth = np.stack([np.interp(np.mod(CLOCK / period, 1), phases, axis) for axis in places], 1)
    np.testing.assert_allclose(film(asset, clip)[:, 0], truth, atol=2e-5)


@pytest.mark.parametrize("keys", [12, 30])
def test_rotations_turn_at_a_constant_rate_across_the_seam(keys):
    angles = 2 * np.pi * np.arange(keys) / keys
    turns = np.stack([0 * angles, 0 * angles, np.sin(angles / 2), np.cos(angles / 2)], 1)
    asset, clip = plan(moving("rotation", np.arange(keys) / keys, turns))
    assert (clip.window, clip.notes) == ("loop", (NOTE,))
    np.testing.assert_allclose(film(asset, clip)[:, 2], circle(CLOCK), atol=1e-5)  # the corner (1, 0, 0)


def test_splines_are_smooth_across_the_seam():
    """Cubic Hermite segments with the circle's tangents deviate from it by less than 1e-4 at 15 degrees."""
    phases = np.arange(24) / 24
    tangents = 2 * np.pi * circle(phases + 0.25)  # the velocity is a quarter turn ahead
    values = np.stack([tangents, circle(phases), tangents], 1).reshape(-1, 3)
    recipe = replace(RECIPE, fps=60, num_frames=120)
    asset, clip = plan(moving("translation", phases, values, "CUBICSPLINE"), recipe)
    assert clip.window == "loop"
    np.testing.assert_allclose(film(asset, clip, recipe)[:, 0], circle(np.arange(120) / 60), atol=1e-4)


def test_steps_hold_their_last_key_across_the_seam():
    tiny = orbit(24)
    node = tiny.json["animations"][0]["channels"][0]["target"]["node"]
    tiny.json["animations"].clear()
    sizes = [[1, 1, 1]] * 12 + [[2, 2, 2]] * 12
    times = np.arange(24) / 24
    tiny.animation((node, "translation", times, circle(times)), (node, "scale", times, sizes, "STEP"))
    asset = gltf.load(tiny.glb())
    inside = asset.positions(0, 23.5 / 24, closed=True)
    np.testing.assert_allclose(inside[2] - inside[0], [2, 0, 0], atol=1e-5)
    np.testing.assert_allclose(inside[0], 0.5 * (circle([23 / 24]) + circle([0]))[0], atol=1e-5)


def test_a_pose_after_the_last_key_is_constant_unless_the_cycle_is_closed():
    asset = gltf.load(CASE)
    end = asset.animations[0].end
    last = asset.positions(0, end)
    for time in (end + 0.01, end + 0.04, end + 5):
        assert np.array_equal(asset.positions(0, time), last)
    for time in (0.3, end - 1e-9, end, end + 1e-9):
        assert np.array_equal(asset.positions(0, time, closed=True), asset.positions(0, time))
    assert np.array_equal(asset.positions(0, end + 0.05, closed=True), asset.positions(0, 0.0))
    assert not np.array_equal(asset.pose(0, end + 0.02, closed=True).positions, last)


def limbs(travel: float) -> TinyGltf:
    """A body whose two feet circle in opposite phase, with 24 keys; it advances by `travel` per key."""
    tiny = TinyGltf()
    mesh = tiny.mesh()
    feet = [tiny.node(mesh=mesh), tiny.node(mesh=mesh)]
    body = tiny.node(mesh=mesh, children=feet)
    tiny.scene(body)
    times = np.arange(24) / 24
    tiny.animation(
        (feet[0], "translation", times, circle(times)),
        (feet[1], "translation", times, circle(times + 0.5)),
        (body, "translation", times, travel * np.arange(24)[:, None] * [[1, 0, 0]]),
    )
    return tiny


@pytest.mark.parametrize("travel", [0.1, 0.02, 0.005])
def test_a_walk_that_travels_holds_its_last_pose(travel):
    assert plan(limbs(0.0))[1].window == "loop"
    asset, clip = plan(limbs(travel))
    assert clip.window == "hold" and max(clip.timestamps) == pytest.approx(asset.animations[0].end)


def path(places: list[float]) -> TinyGltf:
    """A body that moves along x, with a key every 1/24 s."""
    return moving("translation", np.arange(len(places)) / 24, [[x, 0, 0] for x in places])


@pytest.mark.parametrize(
    "places",
    [
        [*range(12), *range(12, 0, -1)],  # there and back, and it reverses at the seam
        [5 - abs(x - 5) for x in range(10)],
        [*range(24)],  # goes away
        [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3],  # ends three steps short
        [0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4],  # stands still at both ends
        [0, 1, 4, 9, 16, 9, 4, 3.5],  # slow at the end, a jump at the seam
    ],
)
def test_other_animations_hold_their_last_pose(places):
    """Each is one key every 1/24 s; none of them meets its first pose at the velocity at which it left."""
    asset, clip = plan(path(places))
    assert clip.window == "hold" and not any("cycle" in note for note in clip.notes)
    np.testing.assert_array_equal(clip.timestamps, np.minimum(CLOCK, asset.animations[0].end))


def opposites(places: list[float]) -> TinyGltf:
    """Two feet that move along x in opposite directions, so that their mean rests; a key every 1/10 s."""
    tiny = TinyGltf()
    feet = [tiny.node(mesh=tiny.mesh()), tiny.node(mesh=tiny.mesh())]
    tiny.scene(*feet)
    times = np.arange(len(places)) / 10
    steps = np.array(places)[:, None] * [[1, 0, 0]]
    tiny.animation((feet[0], "translation", times, steps), (feet[1], "translation", times, -steps))
    return tiny


@pytest.mark.parametrize(
    ("places", "window"),
    [
        ([0, 1, 2, 1, 0, -1, -2, -1], "loop"),  # steps of 1 across the seam
        ([0, 1, 2, 1, 0, -2, -2.3, -1.3], "loop"),  # it is 1.3 times as long
        ([0, 1, 2, 3, 0, -3, -2.7, -1.7], "hold"),  # 1.7 times as long
        ([0, 1, 2, 3, 2, 1], "hold"),  # reverses at the seam
        ([0, 1, 2, 3, 2, 1, 2], "hold"),
        ([0, 1, -1], "hold"),  # too few keys
        (list(1 - np.cos(2 * np.pi * np.arange(12) / 12)), "loop"),  # comes to rest at the seam
    ],
)
def test_the_seam_of_motions_whose_mean_rests(places, window):
    assert plan(opposites(places), replace(RECIPE, min_duration=0.1))[1].window == window


@pytest.mark.parametrize("keys", [2, 3, 4])
def test_few_keys_are_no_cycle(keys):
    assert plan(orbit(keys))[1].window == "hold"


def test_a_single_key_is_no_cycle():
    asset = gltf.load(moving("translation", [0.0], [[1, 0, 0]]).glb())
    assert asset.animations[0].key_interval == 0 and not lacks_closing_key(asset, 0)
    clips, rejections = plan_asset(asset, "tiny", RECIPE)
    assert not clips and [r.reason for r in rejections] == ["zero length"]


def test_an_animation_with_its_closing_key_loops_as_before():
    asset, clip = plan(orbit(24, closing=True))
    assert (clip.window, clip.notes) == ("loop", ())
    expected = np.mod(CLOCK, asset.animations[0].duration)
    np.testing.assert_array_equal(clip.timestamps, expected)
    frames = [asset.positions(0, time) for time in expected]
    assert np.array_equal(film(asset, clip), frames)


def test_the_key_interval_is_that_of_all_channels_together():
    """Two channels of which an exporter kept every other key, with rounded times."""
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(node)
    even, odd = np.arange(0, 24, 2) / 24, np.array([0, *range(1, 24, 2)]) / 24 + 1e-6
    tiny.animation(
        (node, "translation", even, circle(even)), (node, "scale", odd, np.ones((len(odd), 3)), "LINEAR")
    )
    assert gltf.load(tiny.glb()).animations[0].key_interval == pytest.approx(1 / 24, abs=1e-5)


def test_key_times_that_differ_by_rounding_are_one_time():
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(node)
    times = np.arange(24) / 24
    sizes = np.ones((24, 3))
    tiny.animation((node, "translation", times, circle(times)), (node, "scale", times + 2e-6, sizes))
    assert gltf.load(tiny.glb()).animations[0].key_interval == pytest.approx(1 / 24, abs=1e-5)


# --- clips that stand still --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "places", "notes"),
    [
        ([0, 0.5, 3], [0, 1, 1], ("stands still at its end for 1.458 s",)),  # frames 12 to 47 are equal
        ([0, 1, 3], [0, 0, 1], ("stands still at its beginning for 1.000 s",)),
        ([0, 0.75, 1.25, 3], [0, 0, 1, 1], (
            "stands still at its beginning for 0.750 s", "stands still at its end for 0.708 s")),
        ([0, 0.25, 3], [0, 0, 1], ()),  # a short pause
        ([0, 1], [0, 1], ("stands still at its end for 0.958 s",)),  # the last pose is held
        ([0, 3], [0, 1], ()),
    ],
)  # fmt: skip
def test_a_clip_that_stands_still_for_a_quarter_says_so(times, places, notes):
    _, clip = plan(moving("translation", times, [[x, 0, 0] for x in places]))
    assert clip.notes == notes


def test_notes_are_counted_without_durations():
    assert countable(NOTE) == "cycle without closing key"
    assert countable("stands still at its end for 1.458 s") == "stands still at its end"
    other = "KHR_x is ignored for good, repeated every time"
    assert countable(other) == other


# --- animations that are drawn -----------------------------------------------------------------------


def test_only_animations_that_give_clips_are_drawn():
    """One of 12 animations gives clips; the others have zero length or are too short."""
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(node)
    for index in range(12):
        length = 2.0 if index == 5 else 0.1 * (index % 2)
        times = [0, length] if length else [0]
        tiny.animation((node, "translation", times, [[0, 0, 0], [1, 0, 0]][: len(times)]))
    asset = gltf.load(tiny.glb())
    for identity in range(8):
        clips, rejections = plan_asset(asset, str(identity), replace(RECIPE, max_animations=1))
        assert [clip.animation for clip in clips] == [5]
        assert [r.animation for r in rejections] == [i for i in range(12) if i != 5]
        assert {r.reason for r in rejections} == {"zero length", "shorter than 0.25 s"}


# --- turntables --------------------------------------------------------------------------------------


def still(**node) -> TinyGltf:
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh(), **node))
    return tiny


@pytest.mark.parametrize("place", [[0, 0, 0], [5, 6, 7]])
def test_a_static_model_turns_once_about_the_vertical_axis(place):
    """Quarter turns of the tetrahedron, whose bounding box has its centre at (0.5, 1, 1.5)."""
    recipe = replace(RECIPE, num_frames=4, fps=2)
    asset, clip = plan(still(translation=place), recipe, turntable=True)
    assert is_static(asset)
    assert (clip.animation, clip.window, clip.animation_name) == (-1, "turntable", "turntable")
    assert clip.timestamps == (0.0, 0.5, 1.0, 1.5)
    x, y, z = (BODY - [0.5, 1, 1.5]).T
    truth = [np.stack([a, y, b], 1) for a, b in ((x, z), (z, -x), (-x, -z), (-z, x))]
    frames = film(asset, clip, recipe)
    np.testing.assert_allclose(frames - np.array([0.5, 1, 1.5]) - place, truth, atol=2e-6)
    shot = clip.shot(recipe)
    normals = shot.pose(asset, 0.5).normals - asset.pose(None, 0.0).normals[:, [2, 1, 0]] * [1, 1, -1]
    np.testing.assert_allclose(normals, 0, atol=1e-6)


def test_animated_models_do_not_turn():
    for tiny in (orbit(24), moving("translation", [0, 3], [[0, 0, 0], [1, 0, 0]])):
        assert plan(tiny, turntable=True)[1] == plan(tiny)[1]
    pose = gltf.load(moving("translation", [0.0], [[1, 0, 0]]).glb())  # a single key: static, too
    clips, _ = plan_asset(pose, "tiny", RECIPE, turntable=True)
    assert [clip.window for clip in clips] == ["turntable"]


def test_the_option_is_part_of_the_keys_of_assets_only_if_it_is_set():
    record = AssetRecord(uid="a", source="s", location="x", fingerprint="sha256:ab")
    stage, turning = RenderStage(), RenderStage(turntable=True)
    assert stage.selection == stage.identity == turning.identity
    assert turning.selection == f"{stage.selection}:turntable"
    assert next(asset_tasks([record], turning)).key != next(asset_tasks([record], stage)).key


# --- the command -------------------------------------------------------------------------------------

SMALL = ("--resolution", "16", "--num-frames", "8", "--fps", "8", "--views", "4", "--workers", "0")


def render(folder: Path, out: Path, capsys, *options: str) -> str:
    assert factory.render.main(["--source", str(folder), "--out", str(out), *SMALL, *options]) == 0
    return capsys.readouterr().out


@pytest.fixture
def models(tmp_path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "walk.glb").write_bytes(orbit(12, period=0.5).glb())
    (folder / "vase.glb").write_bytes(still().glb())
    (folder / "lamp.glb").write_bytes(still(scale=[1, 2, 1]).glb())
    return folder


def test_rows_render_again_and_the_closing_table_counts(models, tmp_path, capsys):
    output = render(models, tmp_path / "out", capsys)
    assert "rendered     1 clips of 3 assets" in output
    assert (
        "static       2 models are not animated; --turntable makes clips in which they turn once\n" in output
    )
    assert "\n                 1  cycle without closing key\n" in output and "turntable   " not in output
    output = render(models, tmp_path / "out", capsys, "--turntable")  # adds to the same dataset
    assert "rendered     3 clips of 3 assets, 1 of them in earlier runs" in output
    assert "turntable    2 models that are not animated turn once\n" in output and "static  " not in output

    card = (tmp_path / "out" / "README.md").read_text()
    assert "| cycle without closing key | 1 | 1 |" in card and "some clips repeat a cycle" in card
    rows = {Path(clip.metadata["asset_uid"]).stem: clip.metadata for clip in load_clips(tmp_path / "out")}
    assert {name: row["window"] for name, row in rows.items()} == {
        "walk": "loop", "vase": "turntable", "lamp": "turntable"
    }  # fmt: skip
    assert rows["walk"]["notes"] == ["cycle without closing key, repeated every 0.500 s"]
    assert rows["vase"]["animation_index"] == -1 and rows["vase"]["notes"] == []

    walk, shot = gltf.load(models / "walk.glb"), row_to_shot(rows["walk"])[0]
    phases = np.mod(np.arange(8) / 8 / 0.5, 1)
    truth = np.stack(
        [np.interp(phases, np.arange(13) / 12, axis) for axis in circle(np.arange(13) / 12).T], 1
    )
    drawn = np.stack([shot.pose(walk, time).positions[0] for time in shot.timestamps])
    np.testing.assert_allclose(drawn, truth, atol=5e-6)

    vase, shot = gltf.load(models / "vase.glb"), row_to_shot(rows["vase"])[0]
    half = shot.pose(vase, shot.timestamps[4]).positions  # frame 4 of 8
    np.testing.assert_allclose(half, BODY * [-1, 1, -1] + [1, 0, 3], atol=2e-6)


def test_a_rendered_turntable_shows_the_model_turned(models, tmp_path, capsys):
    """Four views, eight frames: after a quarter turn, every camera sees what the one before it saw at first."""
    render(models, tmp_path / "out", capsys, "--turntable", "--azimuth-jitter-deg", "0", "--quality", "off")
    clips = {Path(clip.metadata["asset_uid"]).stem: clip for clip in load_clips(tmp_path / "out")}
    frames = clips["lamp"].read().frames[..., 3].astype(int)  # coverage [4, 8, 16, 16]
    assert 0.05 < (frames > 0).mean() < 0.9
    assert np.abs(frames[:, 0] - frames[:, 1]).max() > 20, "it turns"
    earlier = np.roll(frames[:, 0], 1, axis=0)
    assert np.abs(frames[:, 2] - earlier).mean() < 2 < np.abs(frames[:, 2] - frames[:, 0]).mean()


@pytest.mark.parametrize(
    "backend", ["pyrender", pytest.param("blender", marks=[pytest.mark.blender, pytest.mark.slow])]
)
def test_a_turntable_turns_alike_in_all_renderers(backend):
    """A quarter turn, whose outline is that of the opengl renderer."""
    if backend == "blender" and blender.find() is None:
        pytest.skip("no Blender here: run `make blender`")
    recipe = replace(RECIPE, num_frames=4, fps=2, views=1, resolution=48)
    asset, clip = plan(still(), recipe, turntable=True)
    shot = replace(clip.shot(recipe), timestamps=np.array([0.0, 0.5]))
    covered = [
        renderer(name).render_clip(asset, shot, RenderSettings()).frames[..., 3] > 127
        for name in ("opengl", backend)
    ]
    assert (covered[0][:, 0] != covered[0][:, 1]).mean() > 0.05, "it turns"
    both, either = covered[0] & covered[1], covered[0] | covered[1]
    assert both.sum() / either.sum() > 0.95 and both[:, 0].any() and both[:, 1].any()


def test_a_motion_space_is_not_trained_on_a_static_model(tmp_path, capsys):
    (tmp_path / "vase.glb").write_bytes(still().glb())
    arguments = ["--objects", str(tmp_path / "vase.glb"), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert factory.motions.main(arguments) == 1
    reason = "not animated: 0 motions to train on, and a motion space needs at least 2"
    assert f"vase  no videos: {reason}" in capsys.readouterr().out


def test_a_dry_run_and_json_count_static_models(models, tmp_path, capsys):
    result = json.loads(render(models, tmp_path / "out", capsys, "--dry-run", "--json"))
    assert (result["static"], result["turntables"]) == (2, 0)
    assert result["clip_notes"] == {"cycle without closing key": 1} and result["notes"] == {}
    result = json.loads(render(models, tmp_path / "out", capsys, "--dry-run", "--json", "--turntable"))
    assert (result["static"], result["turntables"], result["planned"]) == (0, 2, 3)
