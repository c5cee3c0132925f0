"""Motion videos generated from one still object: the chain of stages, with a video model of a few frames."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import disc_videos
import numpy as np
import pytest
from browser import browser
from commands import contents
from PIL import Image
from tiny_gltf import TinyGltf

from factory.generation import frames, stages
from factory.generation.assembly import motion_cameras, remove_stale
from factory.generation.frames import pack_alpha, pack_video, straight_color, unpack_alpha, unpack_video
from factory.generation.jobs import STAGES, ViewGeometry
from factory.generation.judging import Thresholds
from factory.generation.masks import background_matte
from factory.motions import main
from renderers.cameras import Cameras
from renderers.files import temporary_sibling
from zoo.dimo.data import MotionVideos

SENTENCES = (
    "hops",
    "stays still",
    "leaves",
    "nods <script>alert(1)</script>",
    "rolls over",
    "../../up",
    "breaks",
)
KEPT = ("hops", "nods <script>alert(1)</script>", "rolls over", "../../up")
GREY = (127, 127, 127)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with a still model, a picture and sentences."""
    folder = tmp_path_factory.mktemp("inputs")
    file = TinyGltf()
    file.scene(file.node(mesh=file.mesh()))
    file.json["asset"]["copyright"] = "CC-BY-4.0"
    (folder / "fox.glb").write_bytes(file.glb())
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    picture = disc_videos.disc(0, (200, 60, 30), (255, 255, 255))
    Image.fromarray(picture).save(folder / "ball.png")
    return folder


def generate(inputs: Path, out: Path, *more: str) -> int:
    """Run `factory.motions` on the still model, in this process."""
    calls = out.with_suffix(".calls")
    return main(
        [
            *(
                "--asset",
                str(inputs / "fox.glb"),
                "--out",
                str(out),
                "--motions",
                "9",
                "--workers",
                "0",
                "--quiet",
            ),
            *("--prompts", str(inputs / "prompts.txt"), "--heldout", "1"),
            *("--video-model", "disc_videos:multi_view", "--video-option", f"calls={calls}", *more),
        ]
    )


def calls(out: Path) -> Counter[str]:
    """Sentence → how often the model was asked for its video."""
    return Counter(out.with_suffix(".calls").read_text().splitlines())


def about(out: Path, name: str = "fox") -> dict:
    return json.loads((out / "generated" / name / "generation.json").read_text())


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert generate(inputs, out) == 0
    return out


# --- the whole chain ------------------------------------------------------------------------------------


def test_good_videos_become_motion_videos_and_the_counts_are_exact(finished):
    stages = about(finished)["stages"]
    counted = {
        name: (count["total"], count["done"], count["filtered"], count["quarantined"], count["resumed"])
        for name, count in stages.items()
    }
    assert counted == {
        "prompts": (1, 1, 0, 0, 0), "videos": (7, 6, 0, 1, 0), "matte": (6, 6, 0, 0, 0), "measure": (6, 6, 0, 0, 0),
        "judge": (6, 4, 2, 0, 0), "assemble": (4, 4, 0, 0, 0),
    }  # fmt: skip
    assert calls(finished) == {text: 3 if text == "breaks" else 1 for text in SENTENCES}
    assert about(finished)["kept"] == list(KEPT)
    left_out = about(finished)["left_out"]
    assert "motion" in left_out["stays still"] and "least_visible" in left_out["leaves"]
    assert "the model broke" in left_out["breaks"]

    videos = MotionVideos.open(finished / "motions/fox")
    assert videos.sentences == KEPT and videos.splits.count("heldout") <= 1
    assert (videos.frames, videos.resolution, videos.num_views, videos.heldout_views) == (6, 32, 4, ())
    frames = videos.read([0], [0, 1, 2, 3], range(6))[0].numpy()
    alpha = frames[..., 3] > 127
    truth = (np.hypot(*(np.mgrid[:32, :32] + 0.5 - 16)) < 32 / 5).sum()
    assert (np.abs(alpha.sum((2, 3)) - truth) <= 4).all()
    rows = np.array([np.nonzero(mask)[0].mean() for mask in alpha[0]])
    np.testing.assert_allclose(
        np.diff(rows), -0.8, atol=0.3
    )  # the disc moves upwards by 0.8 pixels per frame
    assert (frames[alpha][:, 0] == 200).all() and (frames[frames[..., 3] == 0] == 0).all()


def test_cameras_are_those_that_the_model_reports(finished):
    videos = MotionVideos.open(finished / "motions/fox")
    cameras = Cameras(videos.world_to_camera[0], videos.K[0], 32, 32)
    places = cameras.camera_to_world[:, :3, 3]
    azimuths = np.degrees(np.arctan2(places[:, 0], places[:, 2])) % 360
    np.testing.assert_allclose(azimuths, [0, 90, 180, 270], atol=1e-9)
    np.testing.assert_allclose(np.degrees(np.arcsin(places[:, 1] / np.linalg.norm(places, axis=1))), 15)
    assert videos.provenance["generated"]["views"]["azimuths_deg"] == [0, 90, 180, 270]
    assert videos.provenance["licence"] == "CC-BY-4.0"
    assert videos.provenance["generated"]["model"] == {"model": "discs"}


def test_scores_and_hashes_are_beside_every_video(finished):
    takes = sorted((finished / "generated/fox/takes").iterdir())
    assert len(takes) == 6
    for take in takes:
        scores = json.loads((take / "scores.json").read_text())
        video = json.loads((take / "video.json").read_text())
        assert scores["video"] == video["key"] and re.fullmatch("[0-9a-f]{40}", scores["key"])
        assert scores["kept"] == (scores["sentence"] in KEPT) == (not scores["failed"])
        assert scores["thresholds"] == json.loads((finished / "generated/fox/thresholds.json").read_text())
        assert take.name.endswith(video["key"][:8])


def test_nothing_is_written_outside_the_output(finished):
    assert sorted(path.name for path in finished.parent.iterdir()) == ["out", "out.calls"]
    assert sorted(path.name for path in finished.iterdir()) == ["_factory", "generated", "motions"]


def test_the_page_escapes_texts_and_has_every_video(finished):
    page = (finished / "generated/fox/report.html").read_text()
    assert "<script" not in page and "nods &lt;script&gt;" in page
    assert page.count("<video") == 6 + 4  # in the list and on the wall
    assert "http" not in re.sub(r"http-equiv", "", page) and page.count("data:video/mp4;base64,") == 10
    limit = f"<small>(≥ {Thresholds().min_motion:g})</small>"
    for text in ("left out: ", "RuntimeError: the model broke", "not measured", limit):
        assert text in page


@pytest.mark.slow
def test_every_video_of_the_page_plays(finished):
    open_page = browser()
    page = finished / "generated/fox/report.html"
    ready = "[...document.querySelectorAll('video')].every((each) => each.readyState > 1)"
    script = "[...document.querySelectorAll('video')].map((each) => [each.videoWidth, each.currentTime > 0])"
    width = "document.documentElement.scrollWidth <= innerWidth"
    for size in ({"width": 1280, "height": 900}, {"width": 380, "height": 800}):
        result = open_page(page, [["evaluate", script], ["evaluate", width]], ready, viewport=size)
        assert result["logs"] == [] and result["requests"] == [page.resolve().as_uri()]
        assert len(result["results"][0]) == 10 and all(side > 0 for side, _ in result["results"][0])
        assert any(plays for _, plays in result["results"][0]) and result["results"][1] is True


# --- resuming -------------------------------------------------------------------------------------------


def test_the_same_command_does_nothing_twice(inputs, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    # The path of the file of calls is an option of the model, so it is part of the keys: use the first one.
    before = contents(out / "motions")
    asked = calls(finished)
    assert generate(inputs, out, "--video-option", f"calls={finished.with_suffix('.calls')}") == 0
    assert contents(out / "motions") == before and calls(finished) == asked
    assert all(count["resumed"] == count["total"] for count in about(out)["stages"].values())


def test_a_run_that_is_stopped_in_every_stage_resumes(inputs, finished, tmp_path, monkeypatch):
    """Six runs: each of the first five is stopped in the third task of another stage."""
    out = tmp_path / "out"
    first = ("--video-option", f"calls={finished.with_suffix('.calls')}")
    recorded = finished.with_suffix(".calls").read_text()
    try:
        for stage in ("VideoStage", "MatteStage", "MeasureStage", "JudgeStage", "AssembleStage"):
            with monkeypatch.context() as patch:
                stop_third(patch, getattr(stages, stage))
                assert generate(inputs, out, *first) == 130, stage
        assert generate(inputs, out, *first) == 0
        again = finished.with_suffix(".calls").read_text().removeprefix(recorded).splitlines()
    finally:
        finished.with_suffix(".calls").write_text(recorded)
    assert Counter(again) == calls(finished)  # each video was generated once in all runs together
    assert contents(out / "motions") == contents(finished / "motions")
    takes = ("generated/fox/takes", "generated/fox/prompts.json", "generated/fox/thresholds.json")
    for path in takes:
        assert contents(out / path) == contents(finished / path)
    counts = {name: (count["total"], count["done"]) for name, count in about(out)["stages"].items()}
    assert counts == {
        name: (count["total"], count["done"]) for name, count in about(finished)["stages"].items()
    }


def stop_third(patch: pytest.MonkeyPatch, kind: type) -> None:
    """Let the third task of a stage be interrupted, as by Ctrl-C."""
    process, seen = kind.process, []

    def stopped(self, task):
        seen.append(task.key)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return process(self, task)

    patch.setattr(kind, "process", stopped)


def test_changed_thresholds_rerun_only_the_decision(inputs, finished, tmp_path):
    out, first = tmp_path / "out", ("--video-option", f"calls={finished.with_suffix('.calls')}")
    shutil.copytree(finished, out)
    assembled = contents(out / "motions")
    still = next((out / "generated/fox/takes").glob("stays-still-*")) / "scores.json"
    strict = still.read_bytes()
    (tmp_path / "loose.json").write_text(json.dumps({"min_motion": None, "max_first_frame": None}))
    before = calls(finished)
    assert generate(inputs, out, *first, "--thresholds", str(tmp_path / "loose.json"), "--only", "judge") == 0
    assert calls(finished) == before and contents(out / "motions") == assembled
    assert "stays still" in about(out)["kept"]
    assert json.loads(still.read_text())["thresholds"]["min_motion"] is None
    counts = about(out)["stages"]
    assert counts["judge"]["resumed"] == 0 and counts["measure"]["resumed"] == 6
    assert generate(inputs, out, *first, "--only", "judge") == 0  # back: the ledger has this decision already
    assert still.read_bytes() == strict and about(out)["stages"]["judge"]["resumed"] == 6


def test_what_other_thresholds_drop_leaves_the_folder_of_motions(inputs, finished, tmp_path):
    """And comes back, byte for byte, with the first thresholds."""
    out, first = tmp_path / "out", ("--video-option", f"calls={finished.with_suffix('.calls')}")
    shutil.copytree(finished, out)
    before = contents(out / "motions")
    scores = [json.loads(file.read_text()) for file in out.rglob("scores.json")]
    highest = sorted(each["scores"]["mirrored"] for each in scores if each["kept"])[-2:]
    (tmp_path / "strict.json").write_text(json.dumps({"max_mirrored": sum(highest) / 2}))
    strict = ("--thresholds", str(tmp_path / "strict.json"))
    (out / "motions/fox/notes.txt").write_text("mine")
    assert highest[0] < highest[1] and generate(inputs, out, *first, *strict) == 0
    videos = MotionVideos.open(out / "motions/fox")
    assert len(videos) == len(KEPT) - 1
    assert {file.stem for file in (out / "motions/fox").glob("*.npy")} == set(videos.files)
    (tmp_path / "none.json").write_text(json.dumps({"min_motion": 100}))
    assert generate(inputs, out, *first, "--thresholds", str(tmp_path / "none.json")) == 1
    assert [file.name for file in (out / "motions/fox").iterdir()] == ["notes.txt"]
    (out / "motions/fox/notes.txt").unlink()
    assert generate(inputs, out, *first) == 0
    assert contents(out / "motions") == before


def test_a_folder_of_rendered_motions_is_left_alone(tmp_path):
    (tmp_path / "hop.npy").touch()
    assert remove_stale(tmp_path, []) == []
    (tmp_path / "motions.json").write_text('{"provenance": {"source": "local"}}')
    assert remove_stale(tmp_path, []) == [] and (tmp_path / "hop.npy").exists()
    (tmp_path / "motions.json").write_text('{"provenance": {"generated": {}}}')
    assert remove_stale(tmp_path, ["hop"]) == [] and (tmp_path / "motions.json").exists()
    unfinished = temporary_sibling(tmp_path / "hop.npy", ".npy")  # of a worker that was killed
    unfinished.touch()
    assert remove_stale(tmp_path, ["hop"]) == [unfinished.name] and (tmp_path / "hop.npy").exists()
    assert remove_stale(tmp_path, []) == ["hop.npy"] and not list(tmp_path.iterdir())


def test_a_stage_without_what_it_needs_is_refused(inputs, tmp_path, capsys):
    assert generate(inputs, tmp_path / "out", "--only", "judge") == 1
    assert "the stage 'prompts' have not been done" in capsys.readouterr().err


# --- one view -------------------------------------------------------------------------------------------


def from_picture(inputs: Path, out: Path, *more: str) -> int:
    return main(
        [
            *(
                "--image",
                str(inputs / "ball.png"),
                "--video-model",
                "disc_videos:hopping_view",
                "--out",
                str(out),
            ),
            *("--prompts", str(inputs / "prompts.txt"), "--motions", "4", "--workers", "0", "--quiet"),
            *("--elevation-deg", "12", *more),
        ]
    )


def test_videos_from_one_view_are_kept_but_not_assembled(inputs, tmp_path, capsys):
    assert from_picture(inputs, tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "4 videos were kept" in shown and "--views-model" in shown
    assert len(about(tmp_path / "out", "ball")["kept"]) == 4 and not (tmp_path / "out/motions").exists()


def test_added_views_are_judged_and_assembled(inputs, tmp_path):
    assert from_picture(inputs, tmp_path / "out", "--views-model", "disc_videos:three_views") == 0
    counts = about(tmp_path / "out", "ball")["stages"]
    names = ("videos", "views", "matte (views)", "judge (views)", "assemble")
    assert [counts[name]["done"] for name in names] == [4] * 5
    videos = MotionVideos.open(tmp_path / "out/motions/ball")
    views = videos.provenance["generated"]["views"]
    assert views["azimuths_deg"] == [0.0, 85.7, 205.7] and views["elevations_deg"] == [12.0] * 3


# --- videos that were made elsewhere --------------------------------------------------------------------


def test_videos_in_the_layout_of_dimo_are_judged_and_assembled(finished, tmp_path):
    """Pictures with transparency, one folder per motion and view, and an info.json."""
    videos = MotionVideos.open(finished / "motions/fox")
    frames = videos.read(range(2), range(4), range(6)).numpy()
    for motion, name in enumerate(("hops", "rolls_over")):
        for view in range(4):
            folder = tmp_path / "mine" / name / f"view_{view:02d}"
            folder.mkdir(parents=True)
            for frame, picture in enumerate(frames[motion, view]):
                Image.fromarray(picture, "RGBA").save(folder / f"{frame:02d}.png")
    cameras = {"azimuths_deg": [0, 34.286, 120, 205.714], "elevations_deg": [10] * 4}
    about_motions = {"input_videos": ["rolls_over", "hops"], "sentences": {"hops": "hops high"}}
    (tmp_path / "mine/info.json").write_text(json.dumps(cameras | about_motions))
    loose = {"max_view_silhouettes": None}  # the discs were not seen from these azimuths
    (tmp_path / "loose.json").write_text(json.dumps(loose))
    command = [
        "--videos",
        str(tmp_path / "mine"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--quiet",
    ]
    assert main([*command, "--thresholds", str(tmp_path / "loose.json")]) == 0
    read = MotionVideos.open(tmp_path / "out/motions/mine")
    assert read.sentences == ("rolls over", "hops high") and set(read.splits) == {"train"}
    again = read.read([1], range(4), range(6))[0].numpy()
    np.testing.assert_array_equal(again[..., 3], frames[0][..., 3])  # its own coverage, not that of a matte
    solid = frames[0][..., 3] == 255
    np.testing.assert_array_equal(again[solid], frames[0][solid])
    place = Cameras(read.world_to_camera[0], read.K[0], 32, 32).camera_to_world[1, :3, 3]
    np.testing.assert_allclose(np.degrees(np.arctan2(place[0], place[2])), 34.286, atol=1e-6)


# --- parts ----------------------------------------------------------------------------------------------


def test_small_videos_and_masks_are_stored_without_loss():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 4, 18, 22, 3), np.uint8)
    packed = pack_video(frames, 7.5)
    np.testing.assert_array_equal(unpack_video(packed, 3), frames)
    assert pack_video(frames, 7.5) == packed
    np.testing.assert_array_equal(unpack_alpha(pack_alpha(frames[..., 0])), frames[..., 0])
    with pytest.raises(ValueError, match="multiple of 5 views"):
        unpack_video(packed, 5)


def test_large_videos_are_small_files_of_high_quality():
    y, x = np.mgrid[:480, :720]
    frames = np.stack([[np.stack([x // 3, y // 2, (x + y + 8 * t) // 5], -1) for t in range(5)]]).astype(
        np.uint8
    )
    packed = pack_video(frames, 8)
    error = np.abs(unpack_video(packed, 1).astype(int) - frames)
    assert error.mean() < 1.5 and len(packed) < frames.nbytes / 20


def test_processors_store_large_videos_as_the_same_bytes(monkeypatch):
    """x264 with its vector code for this processor and without any."""
    y, x = np.mgrid[:272, :288]
    views = [
        [np.stack([x // 3 + 40 * v, y // 2, (x + y + 8 * t) // 5], -1) for t in range(3)] for v in range(2)
    ]
    noise = np.random.default_rng(0).integers(-12, 13, (2, 3, *x.shape, 3))
    videos = np.clip(views + noise, 0, 255).astype(np.uint8)
    packed = pack_video(videos, 8)
    monkeypatch.setattr(frames, "X264", f"{frames.X264}:asm=0")
    assert pack_video(videos, 8) == packed


def test_straight_colour_inverts_compositing():
    color, alpha = np.array([200, 40, 10]), np.array([[0, 64, 128, 255]], np.uint8)
    mixed = np.rint(alpha[..., None] / 255 * color + (1 - alpha[..., None] / 255) * 127).astype(np.uint8)
    frames = straight_color(mixed, alpha, GREY)
    assert (frames[..., 3] == alpha).all() and (frames[0, 0] == 0).all()
    np.testing.assert_allclose(frames[0, 1:, :3], np.tile(color, (3, 1)), atol=2)


def test_the_matte_of_an_empty_frame_is_empty():
    frames = np.stack([disc_videos.disc(0, (200, 60, 30), GREY), np.full((32, 32, 3), 127, np.uint8)])
    alpha = background_matte(frames, GREY)
    assert alpha[0].max() == 255 and alpha[1].max() == 0
    noisy = frames.copy()
    noisy[1, 3, 3] = 255  # a speck is no object
    assert background_matte(noisy, GREY)[1].max() == 0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 72), (72, 48)])
def test_cameras_of_padded_and_resized_frames_cover_the_world_of_rendered_motions(height, width):
    geometry = ViewGeometry((30.0,), (10.0,), 40.0, 3.0)
    world_to_camera, K = motion_cameras(geometry, height, width, 64)
    cameras = Cameras(world_to_camera, K, 64, 64)
    place = cameras.camera_to_world[0, :3]
    distance = np.linalg.norm(place[:, 3])
    edge = place[:, 0] * np.tan(np.radians(33.9) / 2) * 2  # half an image of `MotionRecipe`, to the right
    pixels, _ = cameras.project(edge[None])
    np.testing.assert_allclose(pixels[0], [[64, 32]], atol=1e-9)
    # A point at the top of the original image is where padding and resizing put it.
    top = place[:, 1] * -distance * np.tan(np.radians(20))
    pixels, _ = cameras.project(top[None])
    side = max(height, width)
    np.testing.assert_allclose(pixels[0], [[32, (side - height) / 2 * 64 / side]], atol=1e-9)


def test_stages_have_ledgers_of_their_own(finished):
    found = sorted(path.name for path in (finished / "_factory/generation").iterdir())
    assert set(found) == set(STAGES) - {"views"}


@pytest.mark.slow
def test_a_killed_process_resumes(inputs, tmp_path):
    """The process ends without any clean-up while a video is generated."""
    (tmp_path / "prompts.txt").write_text("hops\nnods\ndies once\nrolls over\n")
    record = tmp_path / "calls"
    command = [
        *(
            sys.executable,
            "-P",
            "-m",
            "factory.motions",
            "--asset",
            str(inputs / "fox.glb"),
            "--motions",
            "4",
        ),
        *("--prompts", str(tmp_path / "prompts.txt"), "--heldout", "0", "--workers", "0", "--quiet"),
        *("--video-model", "disc_videos:multi_view", "--video-option", f"calls={record}"),
        *("--out", str(tmp_path / "out")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(disc_videos.__file__).parent)}
    codes = [subprocess.run(command, env=environment, timeout=600).returncode for _ in range(2)]
    assert codes == [7, 0]
    assert Counter(record.read_text().splitlines()) == {"hops": 1, "nods": 1, "dies once": 2, "rolls over": 1}
    assert len(MotionVideos.open(tmp_path / "out/motions/fox")) == 4
