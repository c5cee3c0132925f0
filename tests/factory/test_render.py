"""`factory.render` end to end, with real sources, embedded Ray and files."""

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

import datasets
import numpy as np
import pytest
from invalid_models import INVALID, write_compressed_models, write_invalid_models
from sample_assets import COLLECTION, model, requires_collection

from cluster import Ledger, StageError
from cluster.stage import Failure
from factory import load_clips, make_row
from factory.clips.stage import RenderStage
from factory.motion_videos.stage import MotionStage
from factory.sources.creatures import build
from renderers import gltf
from renderers.meshes import backends, render_clip

SMALL = ("--resolution", "32", "--fps", "3", "--num-frames", "6", "--views", "4", "--max-animations", "2")
SOURCES = ("creatures://robot?seed=1", "creatures://bird?seed=2")


def command(out: Path, *arguments: str, sources=SOURCES) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "factory.render", "--out", str(out), *SMALL),
        *("--source", *map(str, sources), *arguments),
    ]


def run(out: Path, *arguments: str, sources=SOURCES, code: int = 0) -> str:
    done = subprocess.run(
        command(out, *arguments, sources=sources), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def shards(out: Path) -> dict[str, str]:
    """Name → SHA-256 of every file of clips."""
    files = sorted((out / "data").rglob("*.parquet"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Four small clips of two creatures, rendered by one worker."""
    out = tmp_path_factory.mktemp("render") / "one-worker"
    output = run(out, "--workers", "1")
    assert "rendered     4 clips of 2 assets" in output and "quarantined  0" in output
    assert "ceiling" in output and "clips/min" in output
    return out


def test_the_dataset_opens_in_all_readers(dataset):
    rows = datasets.load_dataset(str(dataset), split="train")
    assert len(rows) == 4 and rows[0]["licence"] == "CC0-1.0" and rows[0]["view_00"][0].shape == (3, 32, 32)
    streamed = datasets.load_dataset(str(dataset), split="train", streaming=True)
    assert [row["clip_id"] for row in streamed] == rows["clip_id"][:]
    clip = load_clips(dataset)[1].read(views=[0, 2], frames=[0, 5])
    assert clip.frames.shape == (2, 2, 32, 32, 4) and clip.frames[..., 3].any()
    assert (dataset / "contact_sheet.png").stat().st_size > 1000
    assert "CC0-1.0" in (dataset / "README.md").read_text()


def test_a_second_run_renders_nothing(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}
    started = time.monotonic()
    output = run(dataset)
    assert "nothing new" in output and "4 of them in earlier runs" in output
    assert time.monotonic() - started < 20
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()} == before


def test_a_process_without_ray_writes_the_same_bytes(dataset, tmp_path):
    """tests/factory/test_workers.py compares all files of a dataset."""
    run(tmp_path / "inline", "--workers", "0")
    assert shards(tmp_path / "inline") == shards(dataset)


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(dataset, tmp_path):
    run(tmp_path / "two", "--workers", "2")
    assert shards(tmp_path / "two") == shards(dataset)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_and_resumed_run_writes_the_same_bytes(dataset, tmp_path, times):
    """Resumed with another number of workers."""
    out = tmp_path / "killed"
    kills = 0
    for _ in range(times):
        driver = subprocess.Popen(
            command(out, "--workers", "1"), start_new_session=True, stderr=subprocess.DEVNULL
        )
        try:
            already = len(list(Ledger(out)))
            _wait(lambda n=already, process=driver: len(list(Ledger(out))) > n or process.poll() is not None)
            kills += driver.poll() is None
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    assert kills, "the runs ended before they could be killed: the test shows nothing"
    run(out, "--workers", "2")
    assert shards(out) == shards(dataset)


def test_another_seed_writes_other_bytes(dataset, tmp_path):
    """The control of the two tests above.

    `datasets` caches under the folder's name: of two of one name, a stale copy would be loaded without a word.
    """
    other = tmp_path / dataset.name
    run(other, "--seed", "1", "--max-animations", "1", "--workers", "0")
    assert not set(shards(other).values()) & set(shards(dataset).values())
    assert len(datasets.load_dataset(str(dataset), split="train")) == 4
    assert len(datasets.load_dataset(str(other), split="train")) == 2


def test_every_row_can_be_rendered_again_to_the_same_bytes(dataset):
    for clip in load_clips(dataset):
        row = clip.metadata
        species, seed = row["asset_uid"].split("-")[1:]
        data = build(species, int(seed))
        assert hashlib.sha256(data).hexdigest() == row["asset_sha256"]
        shot, settings = clip.shot
        again = render_clip(gltf.load(data), shot, settings, backend=row["renderer"])
        stored = clip.read()
        np.testing.assert_array_equal(again.frames[..., 3], stored.frames[..., 3])
        assert again.renderer == row["renderer_version"]
        table = load_clips(dataset).table(["clip_id", "view_00", "alpha_03"]).to_pylist()
        mine = next(entry for entry in table if entry["clip_id"] == row["clip_id"])
        made = make_row(again, _info(row))
        assert made["view_00"]["bytes"] == mine["view_00"]["bytes"] and made["alpha_03"] == mine["alpha_03"]


@pytest.mark.slow
def test_a_folder_of_good_and_bad_files(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "good.glb").write_bytes(build("robot", 3, ["waves-its-right-hand"]))
    (models / "copy of good.glb").write_bytes((models / "good.glb").read_bytes())
    (models / "text.glb").write_text("no glTF at all")
    (models / "cut.glb").write_bytes((models / "good.glb").read_bytes()[:5000])
    output = run(tmp_path / "out", sources=[models])
    assert "rendered     1 clips of 3 assets" in output and "quarantined  2" in output
    assert "text.glb:" in output and "cut.glb:" in output
    records = {record.label: record for record in Ledger(tmp_path / "out")}
    assert records["cut.glb"].status == "quarantined"
    output = run(tmp_path / "out", "--retry-quarantined", sources=[models])
    assert "quarantined  2" in output


COLLECTED_INVALID = (
    "BoxWithInfinites",
    "CubeInvalid",
    "MissingBin",
    "RecursiveNodes",
    "WrongJson",
)


@pytest.mark.parametrize(
    ("collected", "workers"),
    [
        (False, 1),
        pytest.param(True, 0, marks=requires_collection),
        pytest.param(True, 1, marks=[requires_collection, pytest.mark.slow]),
    ],
)
def test_bad_and_unsupported_models_do_not_stop_the_job(tmp_path, collected, workers):
    models = tmp_path / "models"
    if collected:
        for folder in ("bad", "unsupported"):
            shutil.copytree(COLLECTION / folder, models / folder)
    else:
        write_invalid_models(models)
        write_compressed_models(models)
    shutil.copy(model("greenman.glb"), models)
    options = ["--max-animations", "1", "--workers", str(workers)]
    output = run(tmp_path / "out", *options, sources=[models])
    # The collected file with animation pointers also drives nodes: two clips, with notes on what it drives besides.
    rendered, quarantined = (3, 5) if collected else (1, 6)
    assert f"rendered     {rendered} clips of 9 assets" in output
    assert f"quarantined  {quarantined}" in output and "not animated" in output
    assert ("1  KHR_animation_pointer is ignored for materials" in output) == collected
    for name in COLLECTED_INVALID if collected else INVALID:
        assert name in output


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_dry_run_writes_nothing(tmp_path, workers):
    output = run(tmp_path / "out", "--dry-run", "--workers", str(workers))
    assert "would render 4 clips of 2 assets" in output
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_refused_with_a_sentence(tmp_path):
    assert "no creature is called 'unicorn'" in run(tmp_path / "out", sources=["creatures://unicorn"], code=1)
    assert "no such file or folder" in run(tmp_path / "out", sources=["nowhere"], code=1)
    assert "is not a source" in run(tmp_path / "out", sources=["ftp://models"], code=1)
    assert "--holdout" in run(tmp_path / "out", "--holdout", "0.7", code=2)


@pytest.mark.parametrize("named", ["", "/nowhere/blender"])
def test_a_missing_blender_is_a_sentence_of_the_stage(tmp_path, monkeypatch, named):
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MENAGERIE_BLENDER", named)
    monkeypatch.setattr(backends, "_renderers", {})
    for stage in (RenderStage(backend="blender"), MotionStage(backend="blender")):
        with pytest.raises(StageError, match=r"blender: .*run `make blender`") as caught:
            stage.setup()
        failure = Failure.of(caught.value)
        assert failure.reason == str(caught.value) and named in failure.reason and not failure.detail


@pytest.mark.slow
def test_a_missing_blender_is_a_sentence_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MENAGERIE_BLENDER", "/nowhere/blender")
    output = run(tmp_path / "out", "--renderer", "blender", code=1)
    assert "Traceback" not in output
    assert "MENAGERIE_BLENDER is /nowhere/blender, which does not exist; run `make blender`" in output


def test_the_run_writes_its_configuration(dataset):
    (file,) = (dataset / "_factory" / "runs").glob("*.json")
    content = json.loads(file.read_text())
    assert content["recipe"]["num_frames"] == 6 and content["tally"]["rendered"] == 4


@pytest.mark.slow
def test_memory_is_steady_over_500_clips(tmp_path):
    """The memory of a worker's only child after 500 clips is within 10 % of that after the first 50."""
    psutil = pytest.importorskip("psutil")
    arguments = ["--workers", "1", "--max-animations", "5", "--resolution", "64", "--views", "16"]
    driver = subprocess.Popen(command(tmp_path / "out", *arguments, sources=["creatures://*?count=100"]))
    sizes: list[tuple[int, int]] = []
    try:
        while driver.poll() is None:
            time.sleep(0.5)
            done = len(list((tmp_path / "out/_factory/done").rglob("*.json")))
            for process in (
                psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
            ):
                try:
                    if "cluster.child" in " ".join(process.cmdline()):
                        sizes.append((done, process.memory_info().rss))
                except psutil.Error:
                    continue
    finally:
        driver.kill()
        driver.wait()
    early = [size for done, size in sizes if 50 <= done <= 100]
    late = [size for done, size in sizes if 420 <= done < 500]  # a child is replaced after 500 tasks
    assert early and late, f"too few samples: {len(sizes)}"
    growth = np.median(late) / np.median(early)
    print(f"memory after 420-500 tasks: {growth:.3f} of what it was after 50-100")
    assert growth <= 1.10


def _info(row: dict):
    """The ClipInfo of a row."""
    from dataclasses import fields

    from factory import ClipInfo
    from factory.dataset.schema import MEASURED_COLUMNS, MOTION_COLUMNS
    from renderers.meshes import RenderSettings

    motion = {name: row[name] for name in MOTION_COLUMNS}
    values = {field.name: row[field.name] for field in fields(ClipInfo) if field.name in row}
    measures = {name: row[name] for name in MEASURED_COLUMNS}
    values |= {
        "motion": motion,
        "measures": measures,
        "settings": RenderSettings(**json.loads(row["settings"])),
    }
    return ClipInfo(**values)


def _wait(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
