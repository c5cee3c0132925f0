"""The whole chain of generated motion videos: over Ray with kills, with tiny models of real classes; its control."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import disc_videos
import dying_generation
import numpy as np
import pytest
from commands import contents
from PIL import Image
from tiny_language import save_answering_model
from tiny_segmentation import save_tiny_sam2
from tiny_video_models import save_tiny
from tiny_vision_language import save_tiny_llava

import zoo
from factory.generation.judging import Thresholds
from factory.motions import main
from factory.sources import creatures
from factory.train import main as train
from renderers.gltf.editing import GltfEditor
from zoo.dimo.data import MotionVideos

pytestmark = pytest.mark.slow
SENTENCES = ("hops", "stays still", "nods", "leaves", "rolls over")
KEPT = ("hops", "nods", "rolls over")


def about(out: Path, name: str) -> dict:
    return json.loads((out / "generated" / name / "generation.json").read_text())


def counts(out: Path, name: str) -> dict[str, tuple[int, int, int, int]]:
    """Stage → tasks, done, filtered, quarantined."""
    stages = about(out, name)["stages"]
    return {
        stage: (each["total"], each["done"], each["filtered"], each["quarantined"])
        for stage, each in stages.items()
    }


# --- over Ray --------------------------------------------------------------------------------------------


def test_two_workers_over_ray_survive_a_kill_in_every_stage(tmp_path):
    """Counts and files are those of one undisturbed process."""
    pytest.importorskip("ray")
    picture = disc_videos.disc(0, (200, 60, 30), (255, 255, 255))
    Image.fromarray(picture).save(tmp_path / "ball.png")
    (tmp_path / "prompts.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    (tmp_path / "marks").mkdir()
    options = [
        *("--image", str(tmp_path / "ball.png"), "--motions", "5", "--heldout", "0", "--quiet"),
        *("--prompts", str(tmp_path / "prompts.txt"), "--video-model", "disc_videos:one_view"),
        *("--views-model", "disc_videos:three_views"),
    ]
    assert main([*options, "--workers", "0", "--out", str(tmp_path / "alone")]) == 0
    script = [sys.executable, "-P", dying_generation.__file__, str(tmp_path / "marks"), *options]
    support = str(Path(dying_generation.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": support, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    codes = [
        subprocess.run(
            [*script, "--workers", "2", "--out", str(tmp_path / "ray")], env=environment, timeout=600
        ).returncode
        for _ in range(3)
    ]
    assert codes == [-9, -9, 0]  # the driver dies where prompts are written and where videos are judged
    assert {path.name for path in (tmp_path / "marks").iterdir()} == {
        kind.__name__ for kind in dying_generation.KINDS
    }
    assert counts(tmp_path / "ray", "ball") == counts(tmp_path / "alone", "ball")
    assert counts(tmp_path / "ray", "ball")["judge"] == (5, 3, 2, 0)
    for stage in ("views", "matte (views)", "measure (views)", "judge (views)", "assemble"):
        assert counts(tmp_path / "ray", "ball")[stage] == (3, 3, 0, 0)
    for path in ("motions", "generated/ball/takes", "generated/ball/prompts.json"):
        assert contents(tmp_path / "ray" / path) == contents(tmp_path / "alone" / path)
    assert MotionVideos.open(tmp_path / "ray/motions/ball").sentences == KEPT


# --- tiny models of real classes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "size", "fps"),
    [("wan-2.1", "[32, 64]", 16), ("cogvideox", "null", 8), ("ltx", "[32, 64]", 25)],
)
def test_the_chain_with_a_pipeline_and_models_of_real_classes(pipeline, size, fps, tmp_path, capsys):
    """A causal language model, an image-to-video pipeline, a segmentation model and a vision-language model."""
    picture = disc_videos.disc(0, (200, 60, 30), (255, 255, 255))
    Image.fromarray(picture).save(tmp_path / "ball.png")
    language = save_answering_model(
        tmp_path / "language", ['{"motions": ["hops on the spot", ', '"bows deeply", ', '"rolls over"]}']
    )
    matte = save_tiny_sam2(tmp_path / "sam2")
    judge = save_tiny_llava(tmp_path / "llava", answer="yes")
    (tmp_path / "rubric.txt").write_text("yes: Is this a $subject?\n")
    anything = {field.name: None for field in fields(Thresholds)}
    (tmp_path / "any.json").write_text(json.dumps(anything))
    (tmp_path / "answers.json").write_text(json.dumps({**anything, "min_answers": 1.0}))
    command = [
        *(
            "--image",
            str(tmp_path / "ball.png"),
            "--motions",
            "3",
            "--heldout",
            "0",
            "--workers",
            "0",
            "--quiet",
        ),
        *("--prompts", f"local:{language}", "--video-model", str(save_tiny(pipeline, tmp_path))),
        *("--video-option", "steps=2", "frames=9", f"size={size}", "quiet=true", "--matte", str(matte)),
        *("--judge-model", str(judge), "--rubric", str(tmp_path / "rubric.txt")),
        *("--views-model", "disc_videos:three_views", "--out", str(tmp_path / "out")),
    ]
    assert main([*command, "--thresholds", str(tmp_path / "any.json")]) == 0
    every = (3, 3, 0, 0)
    assert counts(tmp_path / "out", "ball") == {
        "prompts": (1, 1, 0, 0), "videos": every, "matte": every, "measure": every, "judge": every, "views": every,
        "matte (views)": every, "measure (views)": every, "judge (views)": every, "assemble": every,
    }  # fmt: skip
    videos = MotionVideos.open(tmp_path / "out/motions/ball")
    assert set(videos.sentences) == {"hops on the spot", "bows deeply", "rolls over"}
    assert (videos.frames, videos.resolution, videos.num_views) == (9, 32, 3)
    for folder in (tmp_path / "out/generated/ball/takes").iterdir():
        video = json.loads((folder / "video.json").read_text())
        scores = json.loads((folder / "scores.json").read_text())["scores"]
        assert video["fps"] == fps and video["provenance"]["licence"] == "unknown"
        assert scores["answers"] == scores["answer: Is this a ball?"] > 0.9
    before = contents(tmp_path / "out/generated/ball/takes")
    capsys.readouterr()
    # A rubric's threshold reruns the decision only, and what it drops leaves the folder of motions.
    assert main([*command, "--thresholds", str(tmp_path / "answers.json")]) == 1
    assert "none of 3 videos was kept" in capsys.readouterr().out
    stages = about(tmp_path / "out", "ball")["stages"]
    assert (stages["measure"]["resumed"], stages["judge"]["filtered"]) == (3, 3)
    assert not list((tmp_path / "out/motions/ball").iterdir())
    after = contents(tmp_path / "out/generated/ball/takes")
    assert {path for path in before if before[path] != after[path]} <= {
        path for path in before if str(path).endswith("scores.json")
    }


# --- the control, and one command ------------------------------------------------------------------------


def test_known_motions_are_kept(tmp_path):
    """At most 5 % of the rendered animations of three creatures, in four views, are thrown out."""
    total = lost = 0
    for species in ("fox", "robot", "fish"):
        asset = f"creatures://{species}?seed=90001"
        command = ["--asset", asset, "--video-model", "rendered", "--motions", "20", "--out", str(tmp_path)]
        options = ["--video-option", "frames=16", "side=64", "--workers", "0", "--quiet"]
        assert main([*command, *options]) == 0
        _, done, filtered, _ = counts(tmp_path, f"{species}-90001")["judge"]
        total, lost = total + done + filtered, lost + filtered
    assert total == 60 and lost <= 0.05 * total


def test_a_still_creature_becomes_a_motion_space(tmp_path):
    """A still model of an unseen seed, 16 sentences of the vocabulary, videos of mvvdm/tiny, and a DIMO of the rest."""
    editor = GltfEditor(creatures.build("fox", seed=90001), name="fox")
    del editor.json["animations"]
    (tmp_path / "fox.glb").write_bytes(editor.to_glb())
    # Its pictures lose colours more than those of a large model.
    (tmp_path / "th.json").write_text(json.dumps({"max_color_change": 14, "max_color_step": 14}))
    command = ["dimo", "--asset", str(tmp_path / "fox.glb"), "--motions", "16"]
    options = ["--thresholds", str(tmp_path / "th.json"), "--workers", "0", "--quiet"]
    assert train([*command, *options, "--out", str(tmp_path / "out")]) == 0
    assert len(about(tmp_path / "out", "fox")["kept"]) >= 8
    metrics = json.loads(next((tmp_path / "out/models/dimo/fox").rglob("metrics.json")).read_text())
    assert metrics["mean"]["psnr"] >= metrics["mean"]["psnr_still"] + 3
    fox = zoo.load("dimo/fox", home=tmp_path / "out")
    assert fox.sample(0).gaussians(phase=0.5).means.isfinite().all()
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert size < 60e6 and np.isfinite(size)
