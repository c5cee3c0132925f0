"""Training of motion spaces: the published model, resuming to the same bits, tables and error messages."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from process_tree import age, command, descendants
from train_driver import RECIPE, TINY

import zoo
from cluster import Ledger, Record, Task
from factory.motion_videos.run import SubjectVideos, make_motions
from factory.train import main
from factory.training.dimo import (
    ALONE,
    SHARED,
    DimoStage,
    DIMOTrainingJob,
    configured,
    train_objects,
    training_tasks,
)
from factory.training.leaderboard import ablation_table, aligned, leaderboard, markdown
from factory.training.progress import training_line
from zoo.dimo import training
from zoo.dimo.config import DIMOConfig

SUPPORT = Path(__file__).parents[1] / "support"
ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def driver(out: Path, objects: str, workers: int) -> subprocess.Popen:
    arguments = [out, f"{out}.audit", objects, workers]
    return subprocess.Popen(
        [sys.executable, "-P", str(SUPPORT / "train_driver.py"), *map(str, arguments)],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=1800)[0]
    assert process.returncode == 0, output
    return output


def weights(out: Path) -> dict[str, str]:
    """Object → SHA-256 of its model, of which there must be one."""
    hashes = {}
    for file in sorted(out.glob("models/dimo/*/snapshots/*/model.safetensors")):
        name = file.parents[2].name
        assert name not in hashes, f"{name} was published twice"
        hashes[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes


def losses(out: Path) -> dict[str, dict]:
    """Object → metrics of its training, without its duration."""
    records = [record for record in Ledger(out) if "psnr" in record.summary]
    return {record.label: {k: v for k, v in record.summary.items() if k != "seconds"} for record in records}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("train") / "undisturbed"
    assert "1 trained, 0 by earlier runs" in finish(driver(out, "creatures://robot?motions=2", 0))
    return out


def test_a_trained_object_is_in_the_registry(undisturbed):
    assert zoo.list_models("local:*", home=undisturbed) == ["local:dimo/robot"]
    robot = zoo.load("local:dimo/robot", home=undisturbed)
    assert len(robot.motions) == 2 and robot.motion(0).phases.tolist() == [0, 0.25, 0.5, 0.75]
    assert robot.provenance["licence"] == "CC0-1.0" and robot.seconds == 2.0
    metrics = robot.metrics
    assert metrics["mean"]["psnr"] > 10 and metrics["worst"]["psnr"] <= metrics["mean"]["psnr"]
    assert metrics["training"] == {"steps": 200, "motions": 2, "views": 4}
    info = zoo.info("local:dimo/robot", home=undisturbed)
    assert {"README.md", "preview.mp4", "metrics.json", "config.json"} <= set(info.files)
    assert not list((undisturbed / "_factory/training").iterdir())  # the checkpoint is deleted


def test_a_killed_training_resumes_from_its_checkpoint_to_the_same_bits(undisturbed, tmp_path):
    out = tmp_path / "killed"
    process = driver(out, "creatures://robot?motions=2", 0)
    try:
        checkpoint = _wait(
            lambda: next(out.glob("_factory/training/*/checkpoint.safetensors"), None), process
        )
    finally:
        process.kill()
        process.communicate()
    assert checkpoint and not weights(out), "the training ended before it was killed"
    step = json.loads((checkpoint.parent / "progress.json").read_text())["step"]
    assert 0 < step < 200
    finish(driver(out, "creatures://robot?motions=2", 0))
    assert weights(out) == weights(undisturbed) and losses(out) == losses(undisturbed)


def test_a_rerun_trains_nothing_and_another_seed_trains_another_model(undisturbed, tmp_path):
    made = make_motions(["creatures://robot?motions=2"], undisturbed, RECIPE, workers=0)
    stage, config, before = DimoStage(out=str(tmp_path)), configured("laptop", TINY), weights(undisturbed)
    _, record = train_objects(made, stage, config, Ledger(undisturbed), workers=0)["robot"]
    assert record.resumed and weights(undisturbed) == before and not weights(tmp_path)
    _, record = train_objects(made, stage, config, Ledger(tmp_path), seed=1, workers=0)["robot"]
    assert not record.resumed and weights(tmp_path).keys() == before.keys() and weights(tmp_path) != before


def test_another_training_seed_trains_another_model_and_renders_nothing(tmp_path):
    steps = ["pretraining.steps=2", "joint.steps=2"]
    overrides = [part for change in [*TINY, *steps] for part in ("--set", change)]
    recipe = ["--resolution", "32", "--frames", "4", "--views", "4", "--heldout-views", "2", "--points", "32"]
    command = ["dimo", "creatures://robot?motions=2", "--heldout", "0", "--text", "none", "--workers", "0"]
    command = [*command, *recipe, *overrides, "--out", str(tmp_path)]
    assert main(command) == 0
    videos = {file: file.stat().st_mtime_ns for file in tmp_path.glob("motions/robot/*.npy")}
    assert len(videos) == 4
    assert main([*command, "--seed", "1"]) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("motions/robot/*.npy")} == videos
    trainings = [record for record in Ledger(tmp_path) if "psnr" in record.summary]
    assert (
        len(list(Ledger(tmp_path))) == 1 + 2 + 2 and len(trainings) == 2
    )  # a plan, two motions, two trainings
    assert trainings[0].summary["model"] != trainings[1].summary["model"]


def test_held_out_motions_are_reconstructed_and_reported(tmp_path):
    recipe = replace(RECIPE, heldout=1)
    made = make_motions(["creatures://robot?motions=3"], tmp_path, recipe, workers=0)
    stage = DimoStage(out=str(tmp_path))
    results = train_objects(made, stage, configured("laptop", TINY), Ledger(tmp_path), workers=0)
    robot = zoo.load("local:dimo/robot", home=tmp_path)
    assert len(robot.motions) == 2 and len(robot.metrics["unseen"]["motions"]) == 1
    assert results["robot"][1].summary["unseen_psnr"] == robot.metrics["unseen"]["psnr"] > 10
    assert leaderboard(results)[1][5] == f"{robot.metrics['unseen']['psnr']:.2f}"


def test_an_unreadable_checkpoint_fails_one_attempt_only(undisturbed, tmp_path):
    stage, made = DimoStage(out=str(tmp_path)), _made(undisturbed)
    config = configured("laptop", [*TINY, "pretraining.steps=5", "joint.steps=5"])
    (task,) = training_tasks(made, config, stage)
    folder = tmp_path / "_factory/training" / task.key
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"half of one")
    (_, record) = train_objects(made, stage, config, Ledger(tmp_path), workers=0)["robot"]
    assert record.status == "done" and len(Ledger(tmp_path).attempts(task.key)) == 1


def test_an_error_during_a_training_keeps_its_checkpoint(undisturbed, tmp_path, monkeypatch):
    """Only a checkpoint that cannot be resumed from is deleted."""
    stage, videos = DimoStage(out=str(tmp_path), checkpoint_s=0.0), _made(undisturbed)
    config = configured("laptop", [*TINY, "pretraining.steps=5", "joint.steps=45"])
    (task,) = training_tasks(videos, config, stage)
    checkpoint = tmp_path / "_factory/training" / task.key / "checkpoint.safetensors"
    advance, failures = training.JointStage.advance, []

    def fail_once(self, step, *args):
        if step == 30 and not failures:
            failures.append(checkpoint.read_bytes())
            raise ValueError("gaussians: expected finite values")
        return advance(self, step, *args)

    def resumed(self, path):
        resumptions.append((self.step, path.read_bytes()))
        loaded(self, path)

    resumptions, loaded = [], training._Training.load
    monkeypatch.setattr(training.JointStage, "advance", fail_once)
    monkeypatch.setattr(training._Training, "load", resumed)
    (_, record) = train_objects(videos, stage, config, Ledger(tmp_path), workers=0)["robot"]
    assert record.status == "done" and len(Ledger(tmp_path).attempts(task.key)) == 1
    assert resumptions == [(0, failures[0])]


def test_an_object_that_cannot_be_trained_is_quarantined_with_its_cause(tmp_path):
    made = SubjectVideos("gone", tmp_path / "nowhere", motions=2, key="x")
    stage = DimoStage(out=str(tmp_path))
    _, record = train_objects([made], stage, configured("laptop", TINY), Ledger(tmp_path), workers=0)["gone"]
    assert record.status == "quarantined" and "contains no motions.json" in record.reason


def _made(out: Path) -> list[SubjectVideos]:
    return make_motions([str(out / "motions/robot")], out, RECIPE, workers=0)


# --- options and tables ---------------------------------------------------------------------------------


def test_overrides_of_a_preset():
    config = configured("laptop", ["joint.steps=7", "key_points=9", "losses.ssim=2", "arap=rotations"])
    assert (config.joint.steps, config.key_points, config.losses.ssim, config.arap) == (7, 9, 2, "rotations")
    assert configured("paper").gaussians == 80_000
    for change, words in (
        ("steps=3", "DIMOConfig has no 'steps', only"),
        ("joint.stops=3", "Joint has no 'stops'"),
        ("joint.steps=soon", "joint.steps: expected an integer, got .soon."),
        ("joint=3", "Joint has no ''"),
        ("key_points", "expected NAME=VALUE"),
    ):
        with pytest.raises(ValueError, match=words):
            configured("laptop", [change])


def test_bad_arguments_are_refused_with_a_sentence(capsys, tmp_path):
    out = ["--out", str(tmp_path / "out"), "--workers", "0"]
    for arguments, words in (
        (["dimo", "creatures://robot", "--preset", "huge"], "invalid choice: 'huge'"),
        (["dimo", "creatures://robot", "--set", "steps=1"], "has no 'steps'"),
        (["dimo", "creatures://robot", "--cpus", "0"], "expected more than 0"),
        (["dimo", "creatures://robot", "--gpus", "-1"], "expected at least 0"),
        (["dimo"], "no object"),
        (["gan", "creatures://robot"], "invalid choice: 'gan'"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, *out])
        assert words in capsys.readouterr().err
    assert main(["dimo", "creatures://unicorn", *out]) == 1
    assert "no creature is called 'unicorn'" in capsys.readouterr().err
    assert main(["dimo", "creatures://robot?motions=1", *out, "--resolution", "32", "--frames", "2"]) == 1
    assert "a motion space needs at least 2" in capsys.readouterr().out


def test_a_job_survives_json():
    config = configured("laptop", TINY)
    for job in (
        DIMOTrainingJob("robot", "", (), 0, config, "motions/robot"),
        DIMOTrainingJob("robot", ALONE, ("hops",), 1, config, "motions/robot"),
    ):
        assert DIMOTrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_an_ablation_has_a_task_per_variant_and_two_per_motion(undisturbed):
    config = configured("laptop", TINY)
    tasks = list(training_tasks(_made(undisturbed), config, DimoStage(), ablation=True))
    assert len({task.key for task in tasks}) == len(tasks) == 1 + 3 + 2 + 2
    variants = Counter(task.payload["variant"] for task in tasks)
    assert variants[ALONE] == variants[SHARED] == 2 and variants[""] == 1
    changed = {task.payload["variant"]: task.payload["config"] for task in tasks}
    assert not changed["without motion factorisation"]["factorised"]
    assert not changed["without latent space"]["latent_space"]
    untrained = changed["without motion pre-training"]["pretraining"]
    assert untrained["steps"] == untrained["untracked_steps"] == 0
    assert changed[ALONE]["joint"] == changed[""]["joint"] and changed[SHARED]["joint"]["steps"] == 70
    assert len(tasks[-1].payload["motions"]) == 1


def figures(psnr: float, **more: object) -> dict:
    return {
        "psnr": psnr, "ssim": 0.9, "iou": 0.95, "worst_psnr": psnr - 4, "worst_motion": "hop|s", "seconds": 10.0,
        "bytes": 2**20, "model": "local:dimo/x@0123456789abcdef", **more,
    }  # fmt: skip


def test_tables():
    results = {}
    for name, variant, psnr in (
        ("cat", "", 27.0),
        ("fox", "", 29.0),
        ("fox", ALONE, 25.0),
        ("ape", "", None),
    ):
        job = DIMOTrainingJob(name, variant, (), 0, DIMOConfig.laptop(), "")
        task = Task(f"{name}{len(variant)}", job.to_json())
        record = Record(task.key, name, "done" if psnr else "quarantined", figures(psnr) if psnr else {})
        results[task.key] = (task, record)
    rows = leaderboard(results)
    assert [row[0] for row in rows] == ["model", "dimo/fox", "dimo/cat"]
    assert rows[1][1:] == ["29.00", "25.00", "hop|s", "0.950", "", "10", "1.00", "0123456789ab"]
    assert aligned(rows).splitlines()[1].startswith("dimo/fox  29.00  25.00")
    assert "hop\\|s" in markdown(rows)
    assert [row[1] for row in ablation_table(results)[1:]] == ["as configured", "as configured", ALONE]


def test_each_training_is_one_line_of_the_progress_display():
    progress = {"stage": "joint", "step": 500, "steps": 1200, "loss": 83.25, "psnr": 27.314, "left": 700.0}
    assert training_line({}) == "starting"
    assert training_line(progress) == "joint  500/1200  loss 83.25  PSNR 27.31  12 min left"
    rendered_nothing = {**progress, "stage": "tracks", "psnr": None}
    assert training_line(rendered_nothing) == "tracks  500/1200  loss 83.25  12 min left"


# --- trainings whose processes are killed -----------------------------------------------------------


@pytest.mark.slow
def test_twelve_trainings_survive_the_death_of_workers_and_drivers(tmp_path):
    """12 models, each published once, with the metrics and weights of an uninterrupted run."""
    objects = "creatures://*?count=12&motions=2"
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    assert "12 trained" in finish(driver(quiet, objects, 2))
    kills, rng = Counter(), random.Random(0)
    for stop_at in (18, 34, 40, 44, None):  # of 48 tasks: while rendering, then while training
        process, next_kill = driver(killed, objects, 2), time.monotonic() + 10
        while process.poll() is None and (stop_at is None or _committed(killed) < stop_at):
            if time.monotonic() > next_kill:
                next_kill = time.monotonic() + 10
                kills["worker"] += _kill_a_worker(process.pid, rng)
            time.sleep(0.1)
        if stop_at is not None:
            kills["driver"] += process.poll() is None
            process.kill()
            process.communicate()
    output = finish(process)
    print(f"killed {kills['driver']} drivers and {kills['worker']} workers; {output.strip()}")
    assert kills["driver"] == 4 and kills["worker"] >= 2
    assert len(weights(killed)) == 12 and weights(killed) == weights(quiet)
    assert losses(killed) == losses(quiet)
    written = Counter(line.split()[0] for line in Path(f"{killed}.audit").read_text().splitlines())
    assert set(written.values()) == {1}, "a task was committed twice"
    assert len(written) == 12 + 12 + 24  # plans, trainings, motions


def _committed(out: Path) -> int:
    return sum(1 for _ in out.glob("_factory/done/*/*.json"))


def _kill_a_worker(pid: int, rng: random.Random) -> int:
    """SIGKILL an actor whose child has been working for 5 s. Returns the number of actors killed."""
    actors = [other for other in descendants(pid) if command(other).startswith("ray::Worker")]
    busy = [actor for actor in actors if any(age(child) > 5.0 for child in descendants(actor)[:1])]
    if busy:
        os.kill(rng.choice(busy), signal.SIGKILL)
    return bool(busy)


def _wait(condition, process: subprocess.Popen, seconds: float = 300.0):
    """Poll `condition` until it returns something true, while the process is alive; return that."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
    return result
