"""One process without Ray and several workers with Ray write the same dataset, byte for byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_gltf import CORNERS, TinyGltf, moving

SMALL = (
    "--resolution", "32", "--views", "2", "--num-frames", "4", "--fps", "4", "--max-animations", "2", "--turntable",
    "--heldout", "0.3", "--modalities", "depth,tracks", "--track-points", "16",
)  # fmt: skip
# When a run started and how long each of its parts took. The list of what was left out is there too, and is compared.
RUNS = "_factory/runs/"
PROGRESS = "_factory/progress/"
# Ledger entries are compared without the fields that depend on the machine and on the worker.
MEASURED = ("seconds", "worker")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A model with notes, a static one, and one that is quarantined."""
    folder = tmp_path_factory.mktemp("models")
    glass = moving("rotation", [0, 1], [[0, 0, 0, 1], [0, 0.6, 0, 0.8]])
    glass.json["materials"] = [{"extensions": {"KHR_materials_transmission": {"transmissionFactor": 1}}}]
    glass.json["meshes"][0]["primitives"][0]["material"] = 0
    (folder / "glass.glb").write_bytes(glass.glb())
    statue = TinyGltf()
    statue.add("scenes", nodes=[statue.add("nodes", mesh=statue.mesh(CORNERS))])
    (folder / "statue.glb").write_bytes(statue.glb())
    (folder / "broken.glb").write_bytes(b"glTF\x02\x00\x00\x00 and no more")
    return folder


def render(models: Path, out: Path, workers: int) -> Path:
    arguments = ["--source", "creatures://bird", str(models), "--out", str(out), "--workers", str(workers)]
    command = [sys.executable, "-P", "-m", "factory.render", *arguments, *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "rendered     4 clips of 4 assets",
        "1 assets are not drawn exactly",
        "1 models that are not animated",
    ):
        assert words in done.stdout, done.stdout
    return out


def content(out: Path) -> dict[str, Any]:
    """Path → content of every file but the run's log; JSON is parsed, without measured times and worker names."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {
        re.sub(r"\d{8}T\d{6}Z", "TIME", name): _comparable(name, data)
        for name, data in files.items()
        if not (name.startswith(RUNS) and name.endswith("Z.json")) and not name.startswith(PROGRESS)
    }


def _comparable(name: str, data: bytes) -> Any:
    if name.startswith("_factory/") and name.endswith(".json"):
        return _without_measurements(json.loads(data))
    return data


def _without_measurements(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_measurements(each) for key, each in value.items() if key not in MEASURED}
    return value


@pytest.mark.slow
def test_two_workers_with_ray_write_what_one_process_without_it_does(models, tmp_path):
    alone, together = (content(render(models, tmp_path / str(workers), workers)) for workers in (0, 2))
    assert sorted(alone) == sorted(together)
    assert [name for name in alone if alone[name] != together[name]] == []
    pages = {"README.md", "ATTRIBUTION.md", "contact_sheet.png", "_factory/runs/TIME.left-out.jsonl"}
    shards = {name for name in alone if name.endswith(".parquet")}
    assert pages <= set(alone) and len(shards) == 3  # one per split
