"""The whole chain of generated motion videos with tiny models of real classes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import disc_videos
import pytest
from commands import contents
from PIL import Image
from tiny_language import save_answering_model
from tiny_segmentation import save_tiny_sam2
from tiny_video_models import save_tiny
from tiny_vision_language import save_tiny_llava

from factory.generation.judging import Thresholds
from factory.motions import main
from zoo.dimo.data import MotionVideos

pytestmark = pytest.mark.slow


def about(out: Path, name: str) -> dict:
    return json.loads((out / "generated" / name / "generation.json").read_text())


def counts(out: Path, name: str) -> dict[str, tuple[int, int, int, int]]:
    """Stage → tasks, done, filtered, quarantined."""
    stages = about(out, name)["stages"]
    return {
        stage: (each["total"], each["done"], each["filtered"], each["quarantined"])
        for stage, each in stages.items()
    }


# --- tiny models of real classes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "size", "fps"),
    [("wan-2.1", "[32, 64]", 16)],
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
