"""The tasks of protocols on whole assets: a fish with two known motions, small and short."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from tiny_mvvdm import tiny_videos_pipeline

import zoo
from factory.sources.registry import open_source
from zoo.animate3d.limits import FIT_VERSIONS
from zoo.evaluation import Protocol, TruthError, open_protocol

SOURCE, CLIPS = "creatures://fish?seed=1000", ("swims-forward-and-looks-right", "swims-up-and-looks-left")


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    source = open_source(SOURCE)
    (folder / "fish-1000.glb").write_bytes(source.fetch(next(iter(source.list()))))
    return folder


def small(name: str, truth, metrics: tuple[str, ...], **settings: object) -> Protocol:
    """A protocol of the package on one file, with fewer frames and pixels."""
    content = json.loads(json.dumps(open_protocol(name).content))
    sha256 = hashlib.sha256((truth / "fish-1000.glb").read_bytes()).hexdigest()
    content["objects"] = {"fish-1000": {"source": SOURCE, "clips": dict.fromkeys(CLIPS, sha256)}}
    content["settings"] |= {"frames": 3, "seconds": 0.5, "resolution": 32} | settings
    content["metrics"] = {metric: content["metrics"][metric] for metric in metrics}
    content["primary"] = metrics[0]
    content["bootstrap"]["samples"] = 100
    return Protocol(content)


def test_videos_of_a_model_are_compared_with_rendered_truth(truth):
    protocol = small("mvvdm-creatures", truth, ("flow_error", "psnr", "identity"), steps=2)
    result = zoo.evaluate(tiny_videos_pipeline(), protocol, truth=truth)
    assert result.clips == [f"fish-1000/{clip}" for clip in CLIPS]
    assert result.mean("psnr", "truth")[0] == 100 and result.mean("flow_error", "truth")[0] == 0
    assert 0 < result.mean("psnr")[0] < result.mean("psnr", "still")[0] < 100, "the model is untrained"
    assert np.isfinite([value for row in result.rows for value in row["values"]["psnr"]]).all()


def test_a_named_model_draws_no_bar_per_clip(truth, monkeypatch, capfd):
    pipeline = tiny_videos_pipeline()
    pipeline.set_progress_bar_config(disable=False)
    monkeypatch.setattr("zoo.hub.load", lambda name, home: pipeline)
    result = zoo.evaluate("mvvdm/tiny", small("mvvdm-creatures", truth, ("psnr",), steps=2), truth=truth)
    assert result.model == "mvvdm/tiny" and capfd.readouterr().err == ""


def test_vertices_of_a_fit_are_compared_with_the_truth(truth):
    protocol = small("animate-truth", truth, ("vertex_error", "iou"), resolution=64, clips_per_object=1)
    result = zoo.evaluate("animate3d", protocol, truth=truth)
    assert result.clips == [f"fish-1000/{CLIPS[0]}"]
    assert result.mean("vertex_error", "truth")[0] == 0 and result.mean("iou", "truth")[0] == 1
    assert result.mean("vertex_error", "still")[0] == pytest.approx(1)
    assert result.mean("vertex_error")[0] < 0.5, "recovered from the videos"
    assert result.mean("iou")[0] > result.mean("iou", "still")[0]
    assert result.content["code"] == {"zoo.animate3d, rendered videos": FIT_VERSIONS["rendered"]}


def test_another_file_is_refused(truth, tmp_path):
    protocol = small("animate-truth", truth, ("vertex_error", "iou"))
    (tmp_path / "fish-1000.glb").write_bytes((truth / "fish-1000.glb").read_bytes() + b"    ")
    with pytest.raises(TruthError, match="is not the file of animate-truth"):
        zoo.evaluate("animate3d", protocol, truth=tmp_path)
    (tmp_path / "fish-1000.glb").unlink()
    with pytest.raises(TruthError, match=r"fish-1000.*factory\.evaluate"):
        zoo.evaluate("animate3d", protocol, truth=tmp_path)
