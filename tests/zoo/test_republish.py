"""The last steps of training, made up for on a published model: `python -m benchmarks.republish`."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny_motions import tiny_config, tiny_videos

import zoo
from zoo.dimo.data import MotionVideos
from zoo.dimo.pipeline import DIMOPipeline
from zoo.dimo.training import train

ROOT = Path(__file__).parents[2]
STEPS = {"polish_steps": 3, "surface_steps": 2, "prior_steps": 1}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script, which is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        return importlib.import_module("benchmarks.republish")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A registry with a tiny model that has been through all steps, and below it the videos that it was trained on."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "videos").mkdir()
    videos = tiny_videos(folder / "videos")
    for stem in videos.files:  # three times as many tracked points
        file = folder / "videos" / f"{stem}.points.npy"
        points = np.concatenate([np.load(file) + [0, side, 0] for side in (-0.02, 0.0, 0.02)], 1)
        np.save(file, points.astype(np.float32))
    values = tiny_config(blending="aligned", discs=True, key_points=6)
    losses, joint = replace(values.losses, tracks=1000.0), replace(values.joint, **STEPS)
    trained_on = videos.select("train")
    model = train(trained_on, replace(values, losses=losses, joint=joint))
    pipeline = DIMOPipeline.of(model, trained_on, seconds=1.0)
    pipeline.metrics = {"training": {"steps": 24}}
    zoo.publish(pipeline, "local:dimo/caterpillar", home=folder, own_use=True)
    return folder


def test_a_model_goes_through_the_same_steps_only_if_it_is_to(bench, published, tmp_path):
    data = published / "videos"
    for steps in ({"polish_steps": 3}, {"surface_steps": 2}, {"prior_steps": 1}):
        with pytest.raises(SystemExit, match="dimo/caterpillar has been through these steps"):
            bench.republish("dimo/caterpillar", data, tmp_path, published, **steps)
    old = zoo.load("dimo/caterpillar", home=published)
    name = bench.republish("dimo/caterpillar", data, tmp_path, published, **STEPS, key_points=9, again=True)
    new = zoo.load(name, home=tmp_path)
    joint = replace(old.model.config.joint, polish_steps=6, prior_steps=2)  # a new skin replaces the old one
    smoothing = new.model.config.smoothing  # 0.3 pixels² of images of 32 pixels, from 2 away
    assert smoothing == pytest.approx(np.sqrt(0.3) * 4 * np.tan(np.deg2rad(33.9) / 2) / 32, rel=1e-5)
    expected = replace(old.model.config, key_points=9, neighbours=8, joint=joint, smoothing=smoothing)
    assert new.model.config == expected
    assert len(new.model.key_points) == 9 and torch.equal(new.model.key_points[:6], old.model.key_points)
    assert not torch.equal(new.model.means[: len(old.model.means)], old.model.means)
    assert new.motions == old.motions and new.metrics["training"] == old.metrics["training"]
    assert len(new.metrics["motions"]) == 2 and len(new.metrics["unseen"]["motions"]) == 1


def test_the_videos_must_be_those_of_the_model(bench, published, tmp_path):
    videos = MotionVideos.open(published / "videos")
    other = Path(shutil.copytree(videos.folder, tmp_path / "other"))
    replace(videos, names=["another", *videos.names[1:]], folder=other).write()
    with pytest.raises(SystemExit, match="other motions than dimo/caterpillar was trained on"):
        bench.republish("dimo/caterpillar", other, tmp_path, published)
