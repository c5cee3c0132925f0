"""How a clip differs from its file: in the row, the closing table, the dataset card and under --strict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_gltf import TinyGltf, moving

import factory.render
from cluster import Ledger, Record, Task
from factory import load_clips
from factory.assets.record import AssetRecord
from factory.clips.jobs import AssetJob, ClipJob, read_job
from factory.clips.plan import ClipPlan
from factory.clips.report import tally_to_json
from factory.clips.stage import RenderStage, asset_tasks
from factory.clips.tally import Tally
from renderers.gltf.extensions import EXTENSIONS

SMALL = ("--resolution", "16", "--num-frames", "4", "--fps", "4", "--views", "4", "--workers", "0")
GLASS = EXTENSIONS["KHR_materials_transmission"].sentence
CLOTH = EXTENSIONS["KHR_materials_sheen"].sentence


def model(length: float, **extensions: dict) -> TinyGltf:
    tiny = moving("rotation", [0, length], [[0, 0, 0, 1], [0, 0.6, 0, 0.8]])
    tiny.json["materials"] = [{"extensions": extensions}]
    tiny.json["meshes"][0]["primitives"][0]["material"] = 0
    return tiny


@pytest.fixture
def models(tmp_path) -> Path:
    glass, cloth = {"transmissionFactor": 1}, {"sheenColorFactor": [1, 1, 1]}
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "plain.glb").write_bytes(model(1.0).glb())
    (folder / "vase.glb").write_bytes(model(1.1, KHR_materials_transmission=glass).glb())
    (folder / "curtain.glb").write_bytes(
        model(1.2, KHR_materials_transmission=glass, KHR_materials_sheen=cloth).glb()
    )
    return folder


def render(out: Path, models: Path, capsys, *arguments: str) -> str:
    assert factory.render.main(["--source", str(models), "--out", str(out), *SMALL, *arguments]) == 0
    return capsys.readouterr().out


def test_notes_reach_the_rows_the_closing_table_and_the_card(models, tmp_path, capsys):
    output = render(tmp_path / "out", models, capsys)
    assert "notes        2 assets are not drawn exactly as their files specify\n" in output
    assert f"\n                 2  {GLASS}\n" in output and f"\n                 1  {CLOTH}\n" in output
    rows = {clip.metadata["asset_uid"]: clip.metadata["notes"] for clip in load_clips(tmp_path / "out")}
    assert {Path(uid).stem: notes for uid, notes in rows.items()} == {
        "plain": [], "vase": [GLASS], "curtain": [GLASS, CLOTH]
    }  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text().replace("\\", "")
    assert f"| {GLASS} | 2 | 2 |" in card and f"| {CLOTH} | 1 | 1 |" in card
    again = render(tmp_path / "out", models, capsys)
    assert "nothing new" in again and f"2  {GLASS}" in again, "a resumed run counts the same"


def test_strict_leaves_out_what_has_notes_and_keeps_the_rest(models, tmp_path, capsys):
    output = render(tmp_path / "out", models, capsys, "--strict")
    assert "rendered     1 clips of 3 assets" in output and "quarantined  0" in output
    assert f"1  strict: {GLASS}\n" in output and f"1  strict: {GLASS}; {CLOTH}\n" in output
    assert "notes   " not in output and "not drawn exactly" not in output
    reasons = {
        record.label: record.reason for record in Ledger(tmp_path / "out") if record.status == "filtered"
    }
    assert {Path(label).stem: reason for label, reason in reasons.items()} == {
        "vase": f"strict: {GLASS}", "curtain": f"strict: {GLASS}; {CLOTH}"
    }  # fmt: skip
    assert "Differences from the files" not in (tmp_path / "out" / "README.md").read_text()
    assert "rendered     3 clips of 3 assets, 1 of them in earlier runs" in render(
        tmp_path / "out", models, capsys
    )


def test_a_dry_run_counts_notes(models, tmp_path, capsys):
    output = render(tmp_path / "out", models, capsys, "--dry-run", "--json")
    assert json.loads(output)["notes"] == {GLASS: 2, CLOTH: 1}


def test_strict_is_part_of_the_keys_of_assets_only_if_it_is_set():
    record = AssetRecord(uid="a", source="s", location="x", fingerprint="sha256:ab")
    stage = RenderStage()
    (task,) = asset_tasks([record], stage)
    assert stage.selection == stage.identity
    assert replace(stage, strict=False).selection == stage.selection
    strict = replace(stage, strict=True)
    assert strict.selection == f"{stage.selection}:strict" and strict.identity == stage.identity
    assert next(asset_tasks([record], strict)).key != task.key
    both = replace(stage, strict=True, curate="filter")
    assert both.selection == f"{replace(stage, curate='filter').selection}:strict"


PLAN = ClipPlan(
    animation=0, animation_name="walk", window="loop", start_time=0.0, end_time=1.0, timestamps=(0.0, 1.0),
    elevation_deg=0.0, azimuth_offset_deg=0.0, asset_to_world=tuple(np.eye(4).ravel().tolist()), motion={},
)  # fmt: skip


def test_notes_of_a_clip_are_stored_only_if_there_are_any_and_do_not_change_its_key():
    record = AssetRecord(uid="a", source="s", location="x", fingerprint="sha256:ab")
    noted = replace(PLAN, notes=("repeated",))
    assert "notes" not in PLAN.to_json() and ClipPlan.from_json(PLAN.to_json()) == PLAN
    payload = json.loads(json.dumps(ClipJob(record, noted).to_json()))
    job = read_job(payload)
    assert isinstance(job, ClipJob) and job.clip == noted
    stage = RenderStage()
    assert stage._clip_task(record, noted).key == stage._clip_task(record, PLAN).key


def test_records_of_older_versions_have_no_notes():
    record = AssetRecord(uid="a", source="s", location="x", fingerprint="sha256:ab")
    tally = Tally()
    task = Task("k", AssetJob(record).to_json(), "a")
    tally.add(
        task, Record("k", "done", "a", summary={"clips": 1, "rejected": [], "seconds": {}}, resumed=True)
    )
    assert not tally.noted and tally_to_json(tally)["notes"] == {}


def test_an_unknown_extension_cannot_write_to_the_terminal(tmp_path, capsys):
    folder = tmp_path / "models"
    folder.mkdir()
    many = {f"ACME_{number}": {} for number in range(500)}
    (folder / "a.glb").write_bytes(model(1.0, **{"\x1b[31mX\n|y": {}}, **many).glb())
    output = render(tmp_path / "out", folder, capsys)
    assert "\x1b" not in output and "an extension with an invalid name is ignored" in output
    (clip,) = load_clips(tmp_path / "out")
    assert len(clip.metadata["notes"]) == 50
