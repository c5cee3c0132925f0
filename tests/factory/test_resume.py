"""A dataset and trainings written by version 0.1.0 resume: nothing is rendered or trained a second time."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import factory.render
import factory.train
import zoo
from cluster import task_key
from factory import load_clips
from factory.clips.stage import RenderStage
from factory.motion_videos.stage import MotionStage
from factory.training.dimo import DimoStage, DIMOTrainingJob
from factory.training.mvvdm import worker
from renderers.meshes import PICTURE_VERSIONS
from zoo.dimo.config import DIMOConfig

WRITTEN = Path(__file__).parents[1] / "data" / "v0.1.0"
RENDER = (
    "--resolution", "16", "--num-frames", "4", "--fps", "4", "--max-animations", "1", "--views", "4",
)  # fmt: skip
MOTIONS = (
    "--resolution", "32", "--views", "4", "--heldout-views", "1", "--frames", "2", "--points", "8",
)  # fmt: skip
DIMO = (
    "key_points=8", "gaussians=40", "width=8", "skip=1", "depth=3", "resolution=32", "views=4", "frames=2",
    "pretraining.steps=2", "joint.steps=2", "fit.steps=2", "pretraining.resolutions=((0, 32),)",
    "joint.resolutions=((0, 32),)", "fit.resolutions=((0, 32),)",
)  # fmt: skip
MVVDM = (
    "network.num_heads=2", "network.norm_num_groups=4", "network.block_out_channels=(8, 8, 8)", "plan.steps=2",
    "plan.batch=1", "plan.warmup=0", "autoencoder.steps=1", "autoencoder.batch=1", "views=2", "frames=2",
    "resolution=16", "sampling_steps=2",
)  # fmt: skip


@pytest.fixture
def written(tmp_path, monkeypatch) -> Path:
    """A copy of what the old version wrote; doing any of its work again is an error."""
    shutil.copytree(WRITTEN, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setitem(PICTURE_VERSIONS, "opengl", "1")  # the version of then: a new picture is new work

    def again(*arguments: object) -> None:
        raise AssertionError(f"this was done before: {arguments}")

    for stage in (RenderStage, MotionStage, DimoStage):
        monkeypatch.setattr(stage, "process", again)
    monkeypatch.setattr(worker, "work", again)
    return tmp_path / "work"


def content(folder: Path) -> dict[str, str]:
    """Path → sha256 of every file."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_dataset_is_not_rendered_again(written, capsys):
    before = content(written / "dataset")
    assert (
        factory.render.main(["--source", "models", "--out", "dataset", *RENDER, "--workers", "0", "--json"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["rendered"], result["resumed"], result["quarantined"]) == (1, 1, {})
    assert content(written / "dataset") == before
    assert len(load_clips("dataset")) == 1


def test_a_motion_space_is_not_trained_again(written, capsys):
    before = content(written / "trained")
    changes = [part for change in DIMO for part in ("--set", change)]
    arguments = ["dimo", "--objects", "models/mover.glb", "--preset", "laptop", "--out", "trained"]
    arguments += [*MOTIONS, *changes, "--workers", "0", "--text", "none", "--skip-heldout", "--json"]
    assert factory.train.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["models"]) == ["mover"] and not result["failed"]
    after = content(written / "trained")
    assert {path for path in before if before[path] != after.get(path)} == set()
    assert zoo.load("dimo/mover", home="trained").sample(3).name


def test_a_video_model_is_not_trained_again(written, capsys):
    changes = [part for change in MVVDM for part in ("--set", change)]
    arguments = [
        "mvvdm",
        "--data",
        "dataset",
        "--out",
        "trained",
        "--preset",
        "tiny",
        "--workers",
        "0",
        *changes,
    ]
    assert factory.train.main([*arguments, "--loader-workers", "0", "--test-clips", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("local:mvvdm/tiny@")


@pytest.mark.parametrize("change", [("--seed", "1"), ("--fps", "2")])
def test_other_options_are_new_work(written, change):
    """The control: with another recipe the asset is planned anew, which this fixture turns into a failure."""
    options = list(RENDER)
    if change[0] in options:
        place = options.index(change[0])
        del options[place : place + 2]
    factory.render.main(["--source", "models", "--out", "dataset", *options, *change, "--workers", "0"])
    (quarantined,) = (written / "dataset" / "_factory" / "quarantine").rglob("*.json")
    assert "this was done before" in quarantined.read_text()


def test_the_presets_have_the_keys_of_before_and_other_values_have_others():
    """Fields of the configuration that version 0.1 did not have enter a key only where they differ from the presets."""
    stage, keys = DimoStage(), set()
    for config in (DIMOConfig.bundled(), DIMOConfig.laptop(), DIMOConfig.paper()):
        job = DIMOTrainingJob("egg", "", (), 0, config, "videos")
        before = job.to_json()
        del before["videos"]
        for name in ("blending", "root", "stretching", "discs", "smoothing"):
            del before["config"][name]
        del before["config"]["losses"]["tracks"]
        del before["config"]["pretraining"]["untracked_steps"]
        for name in ("untracked_steps", "remove_strays", "polish_steps", "surface_steps", "prior_steps"):
            del before["config"]["joint"][name]
        before |= {"unseen": stage.unseen, "encoder": stage.encoder}
        assert job.task(stage, "v").key == task_key("dimo", "1", "v", json.dumps(before, sort_keys=True))
        losses = config.losses
        changes = (
            {"blending": "linear"},
            {"root": not config.root},
            {"discs": not config.discs},
            {"smoothing": 0.01},
            {"losses": replace(losses, tracks=losses.tracks + 1)},
            {"pretraining": replace(config.pretraining, untracked_steps=7)},
            {"joint": replace(config.joint, untracked_steps=7)},
            {"joint": replace(config.joint, remove_strays=not config.joint.remove_strays)},
            {"joint": replace(config.joint, polish_steps=config.joint.polish_steps + 1)},
            {"joint": replace(config.joint, surface_steps=config.joint.surface_steps + 1)},
            {"joint": replace(config.joint, prior_steps=config.joint.prior_steps + 1)},
        )
        keys |= {job.task(stage, "v").key}
        keys |= {replace(job, config=replace(config, **each)).task(stage, "v").key for each in changes}
    assert len(keys) == 36
