"""`python -m factory.evaluate`: results where the leaderboard reads them, resumption, and the truth of protocols."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_dimo import tiny_dimo
from tiny_motions import tiny_videos

import zoo
from factory.evaluate import main
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.stage import MotionStage, read_job
from factory.motion_videos.subjects import find_subjects
from zoo.dimo.pipeline import DIMOPipeline
from zoo.evaluation.canonical import digest
from zoo.evaluation.dimo import clip_hashes
from zoo.evaluation.protocol import open_protocol
from zoo.evaluation.store import collect

NAMES = [f"motion {index}" for index in range(6)]
PROVENANCE = {"licence": "CC0-1.0", "author": "nobody", "title": "Caterpillar"}


@pytest.fixture
def registry(tmp_path) -> Path:
    """A registry with a model, the truth of its object, and a protocol that lists it."""
    home = tmp_path / "home"
    videos = home / "truth" / "motions" / "caterpillar"
    videos.mkdir(parents=True)
    hashes = clip_hashes(tiny_videos(videos, 6, resolution=16))  # the last motion is held out
    content = json.loads(json.dumps(open_protocol("dimo-views").content))
    content["objects"] = {"caterpillar": {"source": "creatures://nowhere", "clips": hashes}}
    content["metrics"] = {"psnr": {}, "iou": {}}
    (tmp_path / "protocol.json").write_text(json.dumps(content))
    model = DIMOPipeline(tiny_dimo(frames=5), "caterpillar", NAMES, provenance=PROVENANCE)
    zoo.publish(model, "local:dimo/caterpillar", home=home)
    return home


def test_results_are_committed_once(registry, capsys):
    protocol = registry.parent / "protocol.json"
    command = ["dimo/caterpillar", "--protocol", str(protocol), "--out", str(registry), "--workers", "0"]
    assert main(command) == 0
    assert "dimo/caterpillar  psnr" in capsys.readouterr().out
    (entry,) = collect("local:*", home=registry).entries
    assert entry.result.clips == NAMES[:5] and entry.sheet is not None
    direct = zoo.evaluate("dimo/caterpillar", protocol, truth=registry / "truth", home=registry)
    assert entry.result == direct, "as zoo.evaluate in this process"
    before = {file: file.stat().st_mtime_ns for file in (registry / "evaluations").rglob("*.json")}
    assert main(command) == 0
    assert before == {file: file.stat().st_mtime_ns for file in (registry / "evaluations").rglob("*.json")}


def results(home: Path) -> dict[str, bytes]:
    """Every result and sheet of a registry."""
    files = (file for file in (home / "evaluations").rglob("*") if file.is_file())
    return {file.relative_to(home).as_posix(): file.read_bytes() for file in files}


@pytest.mark.slow
def test_over_ray_with_a_killed_driver_the_results_are_the_same_bytes(registry, tmp_path):
    """Two models, one worker; the driver is killed after the first result, whose evaluation is not repeated."""
    model = DIMOPipeline(tiny_dimo(frames=5, seed=1), "caterpillar", NAMES, provenance=PROVENANCE)
    zoo.publish(model, "local:dimo/other", home=registry)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(registry, undisturbed)

    def command(home: Path, workers: int) -> list[str]:
        options = [
            "--protocol",
            str(tmp_path / "protocol.json"),
            "--out",
            str(home),
            "--workers",
            str(workers),
        ]
        models = ["dimo/caterpillar", "dimo/other"]
        return [sys.executable, "-P", "-m", "factory.evaluate", *models, *options, "--quiet"]

    subprocess.run(command(undisturbed, 0), check=True)
    assert len(results(undisturbed)) == 4
    driver = subprocess.Popen(command(registry, 1), start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        while not list(registry.glob("_factory/done/**/*.json")) and driver.poll() is None:
            time.sleep(0.01)
        assert driver.poll() is None, driver.communicate()[1]
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()
    assert len(results(registry)) == 2, "the run ended before it was killed: the test shows nothing"
    first = {file: file.stat().st_mtime_ns for file in (registry / "evaluations").rglob("metrics.json")}
    subprocess.run(command(registry, 1), check=True)
    assert results(registry) == results(undisturbed)
    assert first.items() <= {file: file.stat().st_mtime_ns for file in first}.items()


def test_a_clip_has_the_hash_that_the_protocols_list():
    """Frames, surface points and cameras of one true clip of 300, to the last bit, as this machine renders them."""
    stage = MotionStage(MotionRecipe(resolution=128), backend="cpu")
    (subject,) = find_subjects(["creatures://kangaroo"])
    plan = stage.process(subject.task(stage))
    task = next(task for task in plan.follow_up if read_job(task.payload).motion.name == "hops-once")
    motion, files = read_job(task.payload).motion, stage.process(task).files
    content = {
        **{
            key: plan.summary["index"][key]
            for key in ("resolution", "phases", "train_views", "heldout_views")
        },
        "object": "kangaroo",
        "frames": hashlib.sha256(
            next(data for name, data in files.items() if "points" not in name)
        ).hexdigest(),
        "points": hashlib.sha256(next(data for name, data in files.items() if "points" in name)).hexdigest(),
        "world_to_camera": motion.world_to_camera,
        "K": motion.K,
        "split": motion.split,
        "sentence": motion.sentence,
    }
    listed = {
        open_protocol(name).content["objects"]["kangaroo"]["clips"]["hops-once"]
        for name in ("dimo-views", "dimo-unseen-motions", "dimo-between")
    }
    assert listed == {digest(content)}
    content["world_to_camera"] = np.nextafter(np.asarray(motion.world_to_camera), 9).tolist()
    assert digest(content) not in listed


def test_creatures_are_rebuilt_to_the_byte(tmp_path, capsys):
    """The files of the protocols, from this machine's numpy, have the SHA-256 that the protocols list."""
    from zoo.evaluation.canonical import file_digest

    truth = tmp_path / "truth"
    assert main(["--protocol", "animate-truth", "--truth-only", "--out", str(truth)]) == 0
    made = {file.stem: {file_digest(file)} for file in (truth / "assets").iterdir()}
    printed = capsys.readouterr().out
    assert len(made) == 12 and all(f"{name}.glb" in printed for name in made)
    for name in ("animate-truth", "mvvdm-creatures"):
        listed = open_protocol(name).content["objects"]
        assert made == {each: set(entry["clips"].values()) for each, entry in listed.items()}, name


def test_a_model_that_fails_is_listed(registry, capsys):
    """A truth that is not the protocol's: the model is reported, with the reason, and the exit code says so."""
    protocol = registry.parent / "protocol.json"
    content = json.loads(protocol.read_text())
    content["objects"]["caterpillar"]["clips"]["motion 3"] = "0" * 64
    protocol.write_text(json.dumps(content))
    command = [
        "dimo/caterpillar",
        "--protocol",
        str(protocol),
        "--out",
        str(registry),
        "--workers",
        "0",
        "--quiet",
    ]
    assert main(command) == 1
    assert "clips of caterpillar are not those of dimo-views v2" in capsys.readouterr().out
