"""A takedown removes an asset everywhere and permanently and leaves the rest bit-identical, even if interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_gltf import moving

from cluster import Ledger, run_inline
from cluster.storage import Storage, StorageError
from factory.assets.exclusions import BENCHMARKS, DenyListError, Exclusions, benchmark_of, read_deny_list
from factory.assets.record import AssetRecord
from factory.assets.tombstones import read_tombstones
from factory.clips.plan import ClipRecipe
from factory.clips.stage import RenderStage, asset_tasks
from factory.curate import main
from factory.dataset import shards
from factory.dataset.captions import SCHEMA as CAPTIONS
from factory.dataset.captions import pack_captions, read_caption_rows
from factory.dataset.packing import ShardPacker
from factory.dataset.reader import load_clips
from factory.dataset.shards import packed_keys, read_manifests, staged_path
from factory.dataset.takedown import TakedownError, finish_takedowns, takedown
from factory.sources import open_source

STAGE = RenderStage(ClipRecipe(fps=4, num_frames=4, views=4, resolution=16))
GONE, NAMESAKE = "b.glb", "copy of b.glb"


def models(folder: Path) -> Path:
    """Four models with two clips each, and a copy of the second under another name."""
    folder.mkdir()
    for number, name in enumerate("abcd"):
        tiny = moving("translation", [0, 5], [[0, 0, 0], [1 + number, 0, 0]])
        (folder / f"{name}.glb").write_bytes(tiny.glb())
    return folder


def build(out: Path, folder: Path, stage: RenderStage = STAGE, leave_out: tuple[str, ...] = ()) -> Path:
    """Run `factory.render` in this process, with shards of three clips."""
    exclusions = Exclusions(tombstones=tuple(finish_takedowns(out)))
    listed = (record for record in open_source(str(folder)).list() if record.uid not in leave_out)
    records = list(exclusions.apply(listed, lambda reason: None))
    tasks = list(asset_tasks(records, stage))
    places = {task.key: place for place, task in enumerate(tasks)}
    with ShardPacker(out, target_bytes=75_000) as packer:

        def on_resolved(task, record):
            if "clip" in task.payload:
                packer.finished(task.key, record.status == "done")
            else:
                packer.planned(places[task.key], [clip.key for clip in record.follow_up])

        run_inline(stage, tasks, Ledger(out), on_resolved)
    return out


def caption(out: Path) -> None:
    """Captions by a model beside the shards: one part per clip and one with all."""
    ids = load_clips(out).table(["clip_id"])["clip_id"].to_pylist()
    for number, part in enumerate([ids, *([key] for key in ids)]):
        rows = [
            dict(zip(CAPTIONS.names, (key, "it moves", "model m", "?", "2025"), strict=True)) for key in part
        ]
        (out / "captions").mkdir(exist_ok=True)
        (out / f"captions/part-{number}.parquet").write_bytes(
            pack_captions(CAPTIONS.empty_table().from_pylist(rows))
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return models(tmp_path_factory.mktemp("takedown") / "models")


@pytest.fixture(scope="module")
def original(folder) -> Path:
    out = build(folder.parent / "dataset", folder)
    caption(out)
    assert main(["report", "--out", str(out)]) == 0
    assert sorted({row["asset_uid"] for row in rows_of(out).values()}) == ["a.glb", "b.glb", "c.glb", "d.glb"]
    assert [len(shard.keys) for shard in read_manifests(out)] == [3, 3, 2]
    return out


@pytest.fixture
def dataset(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "dataset"))


def rows_of(out: Path) -> dict[str, dict]:
    """Every cell of every clip, including pixels, by key."""
    files = sorted((out / "data").rglob("*.parquet"))
    return {row["clip_id"]: row for file in files for row in pq.read_table(file).to_pylist()}


def mentions(out: Path, text: str) -> list[str]:
    """Files whose content or name contains the text, except tombstones."""
    found = [path for path in out.rglob("*") if path.is_file() and "takedown" not in path.parts]
    return [str(path) for path in found if text.encode() in path.read_bytes() or text in path.name]


def content(out: Path) -> dict[str, bytes]:
    """All files, without the timestamps that some contain."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in files:
        if "/takedown/" in name:
            files[name] = json.dumps(json.loads(files[name]) | {"at": ""}).encode()
    return files


def test_the_asset_is_gone_and_the_rest_is_bit_for_bit_what_it_was(dataset):
    before = rows_of(dataset)
    files = {shard.path: (dataset / shard.path).read_bytes() for shard in read_manifests(dataset)}
    tombstone = takedown(dataset, GONE, reason="the author asked")
    left = {key: row for key, row in before.items() if row["asset_uid"] != GONE}
    assert rows_of(dataset) == left and 0 < len(left) < len(before)
    assert set(tombstone.clips) == set(before) - set(left) and tombstone.finished
    assert packed_keys(dataset) == set(left)
    now = {name: (dataset / name).read_bytes() for name in files if (dataset / name).exists()}
    changed = [name for name, data in files.items() if now.get(name) != data]
    assert 0 < len(changed) < len(files)  # only shards with the asset are rewritten
    assert mentions(dataset, GONE) == []
    for key in tombstone.clips:
        assert mentions(dataset, key) == []
    assert {row["clip_id"] for row in read_caption_rows(dataset)} == set(left)
    assert "the author asked" in (dataset / tombstone.path).read_text()


def test_a_shard_is_what_a_packer_would_have_made_of_the_rest(dataset, folder, tmp_path):
    """Row groups are filled up again, and manifests agree with their files."""
    takedown(dataset, GONE)
    whole = pq.ParquetFile(dataset / read_manifests(dataset)[0].path)
    control = build(tmp_path / "without", folder, leave_out=(GONE,))
    assert rows_of(dataset) == rows_of(control)
    assert whole.schema_arrow == pq.ParquetFile(control / read_manifests(control)[0].path).schema_arrow
    for shard in read_manifests(dataset):
        data = (dataset / shard.path).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert shard.rows == len(shard.keys) == pq.ParquetFile(dataset / shard.path).metadata.num_rows


def test_no_later_run_brings_it_back(dataset, folder, tmp_path):
    takedown(dataset, GONE)
    left = rows_of(dataset)
    again = Path(shutil.copytree(folder, tmp_path / "models"))
    (again / NAMESAKE).write_bytes((again / GONE).read_bytes())  # under another name
    build(dataset, again)
    assert rows_of(dataset) == left
    other = build(dataset, again, RenderStage(ClipRecipe(fps=4, num_frames=4, views=4, resolution=18)))
    assert GONE not in {row["asset_uid"] for row in rows_of(other).values()}
    assert len(rows_of(other)) == 2 * len(left)


def test_the_same_bytes_under_a_fingerprint_of_another_kind_stay_out(dataset, folder):
    tombstone = takedown(dataset, GONE)
    (record,) = (r for r in open_source(str(folder)).list() if r.uid == GONE)
    disguised = AssetRecord("new", "folder", record.location, "elsewhere:1")
    assert not tombstone.covers(disguised)
    strict = RenderStage(STAGE.recipe, taken_down=frozenset(tombstone.fingerprints))
    (task,) = asset_tasks([disguised], strict)
    assert (strict.process(task).status, strict.process(task).reason) == ("filtered", "taken down")
    assert STAGE.process(task).status == "done"  # the control


def test_staged_clips_and_shards_without_a_manifest_are_cleaned_too(dataset):
    """The state left by a run that was killed while packing."""
    shard = next(shard for shard in read_manifests(dataset) if len(shard.keys) > 1)
    (dataset / f"_factory/shards/{shard.split}-{shard.seq:05d}.json").unlink()
    table = pq.read_table(dataset / shard.path)
    for index, key in enumerate(shard.keys):
        path = dataset / staged_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(index, 1), path)
    uid = table["asset_uid"][0].as_py()
    before = rows_of(dataset)
    tombstone = takedown(dataset, uid)
    assert mentions(dataset, uid) == []
    assert rows_of(dataset) == {key: row for key, row in before.items() if row["asset_uid"] != uid}
    staged = {path.stem for path in (dataset / "_factory/staged").rglob("*.parquet")}
    assert staged == set(shard.keys) - set(tombstone.clips)


class Killed(BaseException):
    """Simulates a killed process."""


def interrupted_at(step: int, dataset: Path, monkeypatch) -> bool:
    """Take down, but die before change number `step` to the storage; return whether it was reached."""
    count = 0

    def dying(change):
        def die_or_change(self, *args):
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return change(self, *args)

        return die_or_change

    with monkeypatch.context() as patch:
        for name in ("write", "remove", "remove_folder"):
            patch.setattr(Storage, name, dying(getattr(Storage, name)))
        patch.setattr(shards.ShardFiles, "write", dying(shards.ShardFiles.write))
        try:
            takedown(dataset, GONE)
        except Killed:
            return True
    return False


def proof(original: Path, tmp_path: Path, monkeypatch, steps) -> int:
    undisturbed = Path(shutil.copytree(original, tmp_path / "undisturbed"))
    takedown(undisturbed, GONE)
    for step in steps:
        out = Path(shutil.copytree(original, tmp_path / f"step-{step}"))
        if not interrupted_at(step, out, monkeypatch):
            return step
        load_clips(out) if list(
            (out / "data").rglob("*.parquet")
        ) else None  # the dataset can be opened at any time
        finish_takedowns(out)  # as the next run of factory.render does
        takedown(out, GONE)  # and as the same command does
        assert content(out) == content(undisturbed), f"interrupted before change {step}"
    return steps[-1]


def test_interrupted_anywhere_it_is_finished_by_the_same_command(original, tmp_path, monkeypatch):
    proof(original, tmp_path, monkeypatch, (0, 1, 2, 5, 9))


@pytest.mark.slow
def test_interrupted_at_every_change(original, tmp_path, monkeypatch):
    assert 15 < proof(original, tmp_path, monkeypatch, range(200)) < 199


def test_what_is_left_of_a_damaged_dataset_is_not_taken_for_the_whole(dataset):
    """Control: a shard that lost other rows is refused, and its manifest is not rewritten."""
    shard = next(shard for shard in read_manifests(dataset) if len(shard.keys) > 1)
    table = pq.read_table(dataset / shard.path)
    uid = table["asset_uid"][0].as_py()
    pq.write_table(table.slice(0, 1), dataset / shard.path)
    with pytest.raises(StorageError, match="other clips than its manifest"):
        takedown(dataset, uid)


def test_the_last_asset_takes_card_and_sheet_with_it(dataset):
    for name in "abcd":
        takedown(dataset, f"{name}.glb")
    assert not (dataset / "README.md").exists() and not (dataset / "contact_sheet.png").exists()
    assert list((dataset / "data").rglob("*.parquet")) == [] == read_manifests(dataset)
    assert len(read_tombstones(dataset)) == 4


def test_the_command_says_what_it_did(dataset, capsys):
    assert main(["takedown", GONE, "--out", str(dataset), "--reason", "asked"]) == 0
    assert "folder" not in capsys.readouterr().err
    assert main(["takedown", "nobody", "--out", str(dataset)]) == 0
    assert "the dataset had no clip of it" in capsys.readouterr().out
    assert main(["report", "--out", str(dataset)]) == 0
    output = capsys.readouterr().out
    assert "taken down: 2" in output and "asked: 2 clips" in output and "nobody" in output
    (dataset / read_tombstones(dataset)[0].path).write_text("torn")
    assert main(["report", "--out", str(dataset)]) == 1
    assert "is not a tombstone" in capsys.readouterr().err


def test_a_uid_of_two_sources_has_to_be_said_exactly(dataset, folder):
    (shard, *_) = (shard for shard in read_manifests(dataset))
    table = pq.read_table(dataset / shard.path)
    uid = table["asset_uid"][0].as_py()
    other = table.slice(0, 1).to_pylist()[0] | {
        "source": "elsewhere",
        "clip_id": "other",
        "asset_sha256": "ff",
    }
    target = dataset / "data/train/part-00099.parquet"
    pq.write_table(pa.Table.from_pylist([other], table.schema), target)
    with pytest.raises(TakedownError, match="the sources elsewhere and folder have"):
        takedown(dataset, uid)
    takedown(dataset, uid, "elsewhere")
    assert not target.exists()
    assert uid in {row["asset_uid"] for row in rows_of(dataset).values()}


# --- deny-lists --------------------------------------------------------------------------------------


def test_the_known_benchmarks_are_well_formed():
    denied = read_deny_list(BENCHMARKS)
    counted = {name: list(denied.values()).count(name) for name in set(denied.values())}
    assert counted == {"Consistent4D": 7, "ObjaverseDy": 20, "ActionBench": 2}
    assert all(len(uid) == 32 and int(uid, 16) for uid in denied)


@pytest.mark.parametrize(
    ("uid", "url", "found"),
    [
        ("{}", "", True),
        ("000-023/{}.glb", "", True),
        ("dragon", "https://sketchfab.com/3d-models/dragon-{}", True),
        ("dragon", "https://sketchfab.com/3d-models/dragon-0{}", False),  # another, longer number
        ("dragon", "", False),
    ],
)
def test_a_denied_uid_is_found_in_names_and_addresses(uid, url, found):
    denied = read_deny_list(BENCHMARKS)
    number = "9cd6b8bdd29241aea779719994f4a41f"
    assert benchmark_of(uid.format(number), url.format(number), denied) == ("ObjaverseDy" if found else "")


def test_a_users_own_list_counts(tmp_path):
    file = tmp_path / "held-out.txt"
    file.write_text("# ours\n\nkangaroo-7   the museum  # on show\nb.glb\n")
    assert read_deny_list(file) == {"kangaroo-7": "the museum", "b.glb": "held-out"}
    reasons: list[str] = []
    records = [AssetRecord(uid, "folder", "", "sha256:0") for uid in ("kangaroo-7", "kangaroo-70", "b.glb")]
    kept = list(Exclusions(read_deny_list(file)).apply(records, reasons.append))
    assert [record.uid for record in kept] == ["kangaroo-70"]
    assert reasons == ["tested with by the museum", "tested with by held-out"]
    with pytest.raises(DenyListError, match="nowhere"):
        read_deny_list(tmp_path / "nowhere.txt")


def test_the_report_names_leaks(dataset, tmp_path, capsys):
    file = tmp_path / "ours.txt"
    file.write_text("b.glb ours")
    assert main(["report", "--out", str(dataset), "--deny-list", str(file)]) == 0
    assert "ours: folder/b.glb, 2 clips" in capsys.readouterr().out
