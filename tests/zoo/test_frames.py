"""The number of frames that was asked for is that of the written file, as other programs count it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from frame_counts import COUNT, key_frames, video
from tiny_dimo import tiny_pipeline

import zoo
from zoo.__main__ import main
from zoo.dimo import Motion
from zoo.viewer.frames import splat_files

av = pytest.importorskip("av", reason='reads the videos: pip install "menagerie4d[zoo]"')
REAL_TIME = round(8 / 9 * 2 * 24) + 1  # frames of the phases 0 to 8/9 of two seconds, at 24 per second


@pytest.fixture(scope="module")
def egg():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def home(egg, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    zoo.publish(egg, "local:dimo/egg", home=home)
    return home


OPTIONS = {".mp4": {"resolution": 64}, ".glb": {"detail": 16}}


@pytest.mark.parametrize("suffix", COUNT)
@pytest.mark.parametrize("count", [1, 2, 9, 13, 60])
def test_every_format_has_the_frames_that_were_asked_for(egg, tmp_path, suffix, count):
    """9 is also the number of frames that the model was trained with."""
    options = OPTIONS.get(suffix, {})
    motions = {
        "sample": (egg.sample(3, frames=count), {}),
        "resampled": (egg.motion(1).resampled(count), {}),
        "at": (egg.motion(2).at(np.linspace(0.1, 0.6, count).tolist()), {}),
        "save": (egg.sample(3), {"frames": count}),
    }
    for name, (motion, frames) in motions.items():
        motion.save(tmp_path / f"{name}{suffix}", **options, **frames)
        assert COUNT[suffix](tmp_path / f"{name}{suffix}") == count, name


@pytest.mark.parametrize("frames", [0, -1, 1.5, 2.0, float("nan"), float("inf"), True, [3], 10**9])
def test_a_number_of_frames_that_is_none_is_refused(egg, tmp_path, frames, capsys, home):
    """By everything that takes one, and nothing is written."""
    motion = egg.motion(0)
    for call in (
        lambda: egg.sample(3, frames=frames),
        lambda: egg.sample(frames=frames),
        lambda: motion.resampled(frames),
        lambda: motion.save(tmp_path / "a.npz", frames=frames),
        lambda: motion.save(tmp_path / "a.mp4", frames=frames, resolution=64),
    ):
        with pytest.raises((TypeError, ValueError), match="frames: expected an integer from 1 to "):
            call()
    command = ["sample", "dimo/egg", "--home", str(home), "--out", str(tmp_path / "a.npz")]
    try:
        code = main([*command, f"--frames={frames}"])
    except SystemExit as stopped:  # by the parser
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and "--frames" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "phases", [-0.1, 1.1, float("nan"), float("inf"), True, None, "x", [], [0.5, float("nan")], 1j]
)
def test_phases_outside_the_motion_are_refused(egg, phases):
    with pytest.raises((TypeError, ValueError), match="phases: expected"):
        egg.motion(0).at(phases)


def test_without_a_number_a_video_is_smooth_and_in_real_time(egg, tmp_path):
    for name, motion in {
        "sample": egg.sample(3),
        "named": egg.motion(0),
        "step": egg.interpolate(0, 1, 3)[1],
    }.items():
        assert video(motion.save(tmp_path / f"{name}.mp4", resolution=64)) == (REAL_TIME, 24), name
    assert video(egg.sample(3).save(tmp_path / "slow.mp4", resolution=64, fps=12)) == (22, 12)
    assert key_frames(egg.sample(3).save(tmp_path / "a.glb", detail=16)) == 9


def test_chosen_frames_play_in_real_time_unless_a_rate_is_given(egg, tmp_path):
    motion = egg.sample(3, frames=17)  # the phases 0 to 8/9 of two seconds
    count, rate = video(motion.save(tmp_path / "a.mp4", resolution=64))
    assert count == 17 and rate == pytest.approx(16 / (8 / 9 * 2), rel=1e-3)
    assert video(motion.save(tmp_path / "b.mp4", resolution=64, fps=30)) == (17, 30)
    assert video(egg.sample(3).save(tmp_path / "c.mp4", resolution=64, fps=30, frames=5)) == (5, 30)


def test_the_frames_are_those_of_the_motion(egg, tmp_path):
    motion = egg.sample(3).at([0.0, 0.5, 0.25])
    expected = motion.render(motion.default_camera(64))[0].astype(float)
    path = motion.save(tmp_path / "a.mp4", resolution=64)
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    error = np.abs(frames[:, None].astype(float) - expected[None]).mean((2, 3, 4))
    assert (error.argmin(1) == [0, 1, 2]).all() and error.diagonal().max() < 4


@pytest.mark.parametrize("suffix", [".glb", ".4dgs", ".html"])
@pytest.mark.parametrize("phases", [[0.5, 0.2], [0.1, 0.4, 0.4]])
def test_formats_with_times_take_phases_that_rise(egg, tmp_path, suffix, phases):
    with pytest.raises(ValueError, match=r"expected phases that rise, got \[0\.\d, 0\.[24]"):
        egg.sample(3).at(phases).save(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_files_beyond_three_digits_come_last(tmp_path):
    names = ["a_1.ply", "b_0.ply", "view2_998.ply", "view2_999.ply", "view2_1000.ply", "view10_000.ply"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in splat_files(tmp_path)] == names


@pytest.mark.parametrize("suffix", COUNT)
def test_at_the_command_line(home, tmp_path, capsys, suffix):
    for command in ("export",) if suffix == ".glb" else ("sample", "export"):  # a surface takes a second
        out = tmp_path / f"{command}{suffix}"
        assert main([command, "dimo/egg", "--frames", "6", "--out", str(out), "--home", str(home)]) == 0
        assert COUNT[suffix](out) == 6


def test_fewer_splats_than_an_earlier_save_are_not_mixed_with_it(egg, tmp_path):
    egg.sample(3, frames=4).save(tmp_path / "hop.ply")
    egg.sample(4, frames=4).save(tmp_path / "hop.ply")
    egg.sample(3, frames=3).save(tmp_path / "hop.ply")
    assert sorted(path.name for path in (tmp_path / "hop").iterdir()) == ["000.ply", "001.ply", "002.ply"]


@pytest.mark.parametrize("frames", [0, -1])
def test_no_frames(egg, tmp_path, frames):
    for call in (
        lambda: egg.sample(3, frames=frames),
        lambda: egg.sample(3).resampled(frames),
        lambda: egg.sample(3).save(tmp_path / "x.mp4", frames=frames),
    ):
        with pytest.raises(ValueError, match=rf"frames: expected an integer from 1 to \d+, got {frames}"):
            call()
    assert list(tmp_path.iterdir()) == []


# --- motions and latents of another model ------------------------------------------------------------


@pytest.fixture(scope="module")
def other():
    """Another object with the same sizes."""
    pipeline = tiny_pipeline(seed=1)
    pipeline.object = "nut"
    return pipeline


def test_interpolation_refuses_motions_of_another_object(egg, other):
    message = r"dimo/egg: expected a motion of this model, got 'hops forward once' of dimo/nut, whose latents"
    for ends in ((other.motion(0), 1), (1, other.motion(0)), (other.motion(0), other.motion(0))):
        with pytest.raises(ValueError, match=message):
            egg.interpolate(*ends)


@pytest.mark.parametrize(
    "derive",
    [
        lambda motion: motion.resampled(4),
        lambda motion: motion.at(0.5),
        lambda motion: replace(motion, name="renamed"),
    ],
)
def test_derived_motions_are_still_of_the_other_object(egg, other, derive):
    for pipeline in (other,):
        for motion in (
            pipeline.sample(1),
            pipeline.sample(pipeline.draw(3)),
            pipeline.interpolate(0, 1, 2)[1],
        ):
            with pytest.raises(ValueError, match="of dimo/nut"):
                egg.interpolate(0, derive(motion))


def test_interpolation_refuses_another_revision_of_the_object(egg):
    trained_longer = tiny_pipeline(seed=2)
    with pytest.raises(ValueError, match="of another revision of it, with other weights"):
        egg.interpolate(trained_longer.motion(0), 1)
    changed = tiny_pipeline()
    changed.model.decoder.offset_head[1].bias.data[0] += 0.01  # a single number differs
    with pytest.raises(ValueError, match="another revision"):
        egg.interpolate(changed.sample(1), 1)


def test_motions_of_the_same_model_loaded_twice_can_be_mixed(egg, home):
    first, second = zoo.load("dimo/egg", home=home), zoo.load("dimo/egg", home=home)
    steps = first.interpolate(second.motion(0), egg.motion(2).resampled(3), steps=3)
    expected = egg.interpolate(0, 2, steps=3)
    for step, same in zip(steps, expected, strict=True):
        assert np.array_equal(step.trajectories.positions, same.trajectories.positions)
    assert steps[0].object_name == "egg"


@pytest.mark.parametrize(
    ("z", "words"),
    [
        ([0.0] * 7, r"expected a latent z \[8\], got \[7\]"),
        ([[0.0] * 8], r"expected a latent z \[8\], got \[1, 8\]"),
        ([float("nan")] * 8, "expected a finite latent z"),
        ([0.0] * 7 + [float("-inf")], "expected a finite latent z"),
        ("hops", "dimo/egg: z: expected numbers, got 'hops'"),
        (object(), "dimo/egg: z: expected an integer"),
    ],
)
def test_latents_that_do_not_fit(egg, z, words):
    with pytest.raises(ValueError if isinstance(z, list) else TypeError, match=words):
        egg.sample(z)
    import torch

    if isinstance(z, list):
        motion: Motion = replace(egg.motion(0), z=torch.tensor(z))
        for ends in ((motion, 1), (1, motion)):
            with pytest.raises(ValueError, match=words):
                egg.interpolate(*ends)


@pytest.mark.gpu
def test_motions_of_the_same_model_on_another_device(egg):
    moved = tiny_pipeline()
    moved.model.cuda()
    steps = moved.interpolate(egg.motion(0), moved.motion(2), steps=3)
    assert all(step.z.is_cuda for step in steps)
    for step, same in zip(steps, egg.interpolate(0, 2, steps=3), strict=True):
        assert np.allclose(step.trajectories.positions.cpu(), same.trajectories.positions, atol=1e-4)
    assert not egg.interpolate(moved.motion(0), 1)[0].z.is_cuda
    assert moved.sample(egg.draw(3)).z.is_cuda
