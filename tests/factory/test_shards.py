"""Shards do not depend on the order of completion, on killed processes, or on earlier runs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_clips import disc_row

from cluster.storage import StorageError
from factory.dataset.packing import ShardPacker
from factory.dataset.schema import write_row
from factory.dataset.shards import packed_keys, read_manifests, staged_path

KEYS = [f"{number:016x}" for number in range(23)]
PLAN = [KEYS[:3], KEYS[3:4], [], KEYS[4:11], KEYS[11:12], KEYS[12:20], KEYS[20:]]
FAILED = {KEYS[5], KEYS[13], KEYS[22]}
TARGET = 1_000_000  # about seven clips


def staged_clip(key: str, split: str = "train", views: int = 16) -> bytes:
    """A clip of about 140 kB: a real row whose alpha cells contain noise seeded with the key."""
    noise = np.random.default_rng(int(key, 16)).bytes(3000 + int(key, 16) % 7 * 100)
    row = {**disc_row(views), "clip_id": key, "split": split}
    return write_row(row | {f"alpha_{view:02d}": noise for view in range(views)})


def stage(root: str, keys: list[str] = KEYS, **options: object) -> None:
    with fsspec.open_files([f"{root}/{staged_path(key)}" for key in keys], "wb", auto_mkdir=True) as files:
        for key, file in zip(keys, files, strict=True):
            file.write(staged_clip(key, **options))


def committed(keys: list[str]) -> list[str]:
    return [key for key in keys if key not in FAILED]


def pack(root: str, plan: list[list[str]] = PLAN, seed: int | None = None, target: int = TARGET) -> list:
    """Pack everything; with a seed, plan and results arrive in a random order."""
    with ShardPacker(root, target_bytes=target) as packer:
        messages = [(packer.planned, order, keys) for order, keys in enumerate(plan)]
        messages += [(packer.finished, key, key not in FAILED) for keys in plan for key in keys]
        if seed is not None:
            random.Random(seed).shuffle(messages)
        for send, *message in messages:
            send(*message)
    return packer.close()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """Every file of a run without disturbances."""
    root = tmp_path_factory.mktemp("undisturbed")
    stage(str(root))
    pack(str(root))
    return tree(root)


def without_leftovers(files: dict[str, bytes]) -> dict[str, bytes]:
    """All files except staged clips that were never committed, which are neither packed nor removed."""
    return {name: data for name, data in files.items() if not name.startswith("_factory/staged")}


def test_shards_hold_the_committed_clips_in_plan_order(undisturbed):
    shards = [name for name in undisturbed if name.startswith("data/")]
    assert sorted(shards) == [f"data/train/part-0000{n}.parquet" for n in range(3)]
    rows = [pq.read_table(pa.BufferReader(undisturbed[name])).to_pylist() for name in sorted(shards)]
    assert [row["clip_id"] for shard in rows for row in shard] == committed(KEYS)
    for row in rows[0]:
        assert row == pq.read_table(pa.BufferReader(staged_clip(row["clip_id"]))).to_pylist()[0]
    assert {Path(name).stem for name in undisturbed if "staged" in name} == FAILED


def test_layout_of_a_shard(undisturbed):
    footer = pq.read_metadata(pa.BufferReader(undisturbed["data/train/part-00000.parquet"]))
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    assert [group.num_rows for group in groups] == [1] * len(groups)
    for group in groups:
        columns = [group.column(index) for index in range(group.num_columns)]
        assert {column.compression for column in columns} == {"UNCOMPRESSED"}
        assert all(column.has_offset_index for column in columns)
        with_statistics = {column.path_in_schema for column in columns if column.is_stats_set}
        assert {"clip_id", "licence", "fps", "motion_speed"} <= with_statistics
        assert not any("view_0" in name or "alpha_0" in name for name in with_statistics)
        assert not any(column.has_dictionary_page for column in columns)


def test_manifests_describe_the_shards(undisturbed):
    import hashlib

    for number in range(3):
        manifest = json.loads(undisturbed[f"_factory/shards/train-{number:05d}.json"])
        data = undisturbed[manifest["path"]]
        assert (manifest["bytes"], manifest["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert manifest["rows"] == len(manifest["keys"]) == pq.read_metadata(pa.BufferReader(data)).num_rows


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_completion_gives_the_same_bytes(undisturbed, tmp_path, seed):
    stage(str(tmp_path))
    pack(str(tmp_path), seed=seed)
    assert tree(tmp_path) == undisturbed


def test_another_plan_does_not_give_the_same_bytes(undisturbed, tmp_path):
    stage(str(tmp_path))
    pack(str(tmp_path), plan=PLAN[::-1])
    assert tree(tmp_path) != undisturbed


@pytest.mark.parametrize("scene", ["no manifest", "torn shard", "staged clips left", "unfinished file left"])
def test_a_run_after_a_kill_writes_the_same_bytes(undisturbed, tmp_path, scene):
    """Each case is the state left by a process killed at one point of packing the second shard."""
    stage(str(tmp_path))
    packed = {**without_leftovers(undisturbed)}
    for name in [name for name in packed if "00002" in name]:
        del packed[name]
    if scene in ("no manifest", "torn shard"):
        del packed["_factory/shards/train-00001.json"]
    if scene == "torn shard":
        packed["data/train/part-00001.parquet"] = packed["data/train/part-00001.parquet"][:1000]
    if scene == "unfinished file left":
        packed["_factory/tmp/0123.parquet"] = b"half a shard"
    for name, data in packed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    pack(str(tmp_path), seed=1)
    after = tree(tmp_path)
    after.pop("_factory/tmp/0123.parquet", None)  # removed by the ledger after an hour
    assert after == undisturbed


def test_a_second_run_adds_and_changes_nothing_that_was_there(undisturbed, tmp_path):
    stage(str(tmp_path))
    pack(str(tmp_path))
    assert pack(str(tmp_path), seed=2) == []
    assert tree(tmp_path) == undisturbed

    late = sorted(FAILED)  # these succeeded at the second attempt
    with ShardPacker(str(tmp_path)) as packer:
        for order, keys in enumerate(PLAN):
            packer.planned(order, keys)
            for key in keys:
                packer.finished(key, committed=True)
    (shard,) = packer.close()
    assert (shard.path, list(shard.keys)) == ("data/train/part-00003.parquet", late)
    assert undisturbed.items() - tree(tmp_path).items() == {
        item for item in undisturbed.items() if "staged" in item[0]
    }
    assert packed_keys(str(tmp_path)) == set(KEYS)


def test_a_shard_is_packed_as_soon_as_its_stretch_of_the_plan_is_resolved(tmp_path):
    stage(str(tmp_path))
    first = tmp_path / "data/train/part-00000.parquet"
    packer = ShardPacker(str(tmp_path), target_bytes=TARGET)
    for order, keys in enumerate(PLAN):
        packer.planned(order, keys)
    for key in reversed(KEYS[1:]):
        packer.finished(key, key not in FAILED)
    time.sleep(0.3)
    assert not first.exists()  # the first clip of the plan is still unresolved
    packer.finished(KEYS[0], committed=True)
    until = time.monotonic() + 20
    while not (tmp_path / "_factory/shards/train-00001.json").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert len(packer.close(flush=False)) == 2
    assert not (tmp_path / "data/train/part-00002.parquet").exists()
    assert len(list((tmp_path / "_factory/staged").rglob("*.parquet"))) == len(KEYS) - len(
        packed_keys(str(tmp_path))
    )


def test_an_exception_flushes_nothing(tmp_path):
    stage(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), ShardPacker(str(tmp_path)) as packer:
        packer.planned(0, KEYS)
        for key in KEYS:
            packer.finished(key, committed=True)
        raise KeyboardInterrupt
    assert not (tmp_path / "data").exists()


def test_splits_have_shards_of_their_own(tmp_path):
    stage(str(tmp_path), KEYS[:5])
    stage(str(tmp_path), KEYS[5:8], split="test")
    shards = pack(str(tmp_path), plan=[KEYS[:8]])
    assert [(shard.path, shard.rows) for shard in shards] == [
        ("data/test/part-00000.parquet", 2),
        ("data/train/part-00000.parquet", 5),
    ]


def test_an_object_store_gets_the_same_shards(undisturbed):
    fs = fsspec.filesystem("memory")
    stage("memory://mv-video")
    pack("memory://mv-video", seed=5)
    found = {path.removeprefix("/mv-video/"): fs.cat_file(path) for path in fs.find("/mv-video")}
    fs.rm("/mv-video", recursive=True)
    assert found == undisturbed


def test_a_committed_clip_that_is_gone_is_an_error(tmp_path):
    stage(str(tmp_path), KEYS[1:4])
    with pytest.raises(StorageError, match=f"clip {KEYS[0]} is committed, but .*no such file"):
        pack(str(tmp_path), plan=[KEYS[:4]])
    (tmp_path / staged_path(KEYS[0])).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / staged_path(KEYS[0])).write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=f"clip {KEYS[0]} is committed, but .*cannot be read"):
        pack(str(tmp_path), plan=[KEYS[:4]])


def test_clips_with_other_columns_do_not_mix(tmp_path):
    stage(str(tmp_path), KEYS[:2])
    pack(str(tmp_path), plan=[KEYS[:2]])
    stage(str(tmp_path), KEYS[2:3], views=4)
    with pytest.raises(StorageError, match=f"clip {KEYS[2]} has other columns"):
        pack(str(tmp_path), plan=[KEYS[:3]])
    assert (tmp_path / staged_path(KEYS[2])).exists()


def test_a_position_is_planned_once(tmp_path):
    packer = ShardPacker(str(tmp_path))
    packer.planned(0, ["a"])
    packer.planned(0, ["b"])
    with pytest.raises(ValueError, match="position 0 was planned before"):
        packer.close()


DRIVER = """
import json, resource, sys
from factory.dataset.packing import ShardPacker
root, keys, failed, file_limit, target = json.loads(sys.argv[1])
if file_limit:  # limit of the file size, which the writer sees as a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
print("ready", flush=True)
with ShardPacker(root, target_bytes=target) as packer:
    packer.planned(0, keys)
    for key in keys:
        packer.finished(key, key not in failed)
"""


def driver(root: Path, file_limit: int = 0) -> list[str]:
    """A command that packs `KEYS` in a separate process, which the tests disturb."""
    return [sys.executable, "-c", DRIVER, json.dumps([str(root), KEYS, sorted(FAILED), file_limit, TARGET])]


def test_a_full_disk_names_the_path_and_loses_nothing(tmp_path):
    stage(str(tmp_path))
    before = tree(tmp_path)
    done = subprocess.run(driver(tmp_path, 200_000), capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "StorageError: cannot write the shard" in last and "data/train/part-00000.parquet" in last
    assert "still staged" in last
    assert tree(tmp_path) == before


THREADS = """
import json, os, sys, threading
from factory.dataset.packing import ShardPacker
from factory.dataset.reader import load_clips
from factory.dataset.shards import remove_clips, staged_rows
def native_threads():
    return len(os.listdir("/proc/self/task")) - threading.active_count()
root, keys, target = json.loads(sys.argv[1])
before = native_threads()
assert len(list(staged_rows(root, ["clip_id"]))) == len(keys)
with ShardPacker(root, target_bytes=target) as packer:
    packer.planned(0, keys)
    for key in keys:
        packer.finished(key, True)
remove_clips(root, keys[:1])
clips = load_clips(root)
assert len(clips.table(["clip_id"])) == len(keys) - 1 and clips[0].metadata["clip_id"] == keys[1]
print(native_threads() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_no_thread_of_arrow_outlives_a_read(tmp_path):
    """Arrow's threads may hold the last reference to bytes of Python. Releasing it while the interpreter ends aborts
    the process, and its exit code hides the error that ended it."""
    stage(str(tmp_path))
    command = [sys.executable, "-c", THREADS, json.dumps([str(tmp_path), KEYS, TARGET])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "0\n", (done.stdout, done.stderr)


@pytest.mark.slow
def test_killed_again_and_again_it_still_writes_the_same_bytes(undisturbed, tmp_path):
    stage(str(tmp_path))
    chance, ends = random.Random(0), set()
    for _ in range(12):
        with subprocess.Popen(driver(tmp_path), stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        ends.add(process.returncode)
    assert -signal.SIGKILL in ends  # at least one was killed
    pack(str(tmp_path))
    after = {name: data for name, data in tree(tmp_path).items() if not name.startswith("_factory/tmp")}
    assert after == undisturbed
    assert len(read_manifests(str(tmp_path))) == 3


def test_clips_are_added_to_a_dataset_of_an_earlier_schema(tmp_path):
    stage(str(tmp_path), KEYS[:2])
    for key in KEYS[:2]:  # as version 2 of the schema staged them
        path = tmp_path / staged_path(key)
        table = pq.read_table(path)
        place = table.column_names.index("schema_version")
        table = table.set_column(place, table.schema.field(place), [["2"]])
        pq.write_table(table.drop_columns(["notes"]), path)
    pack(str(tmp_path), plan=[KEYS[:2]])
    stage(str(tmp_path), KEYS[2:4])
    pack(str(tmp_path), plan=[KEYS[:2], KEYS[2:4]])
    rows = [pq.read_table(path) for path in sorted((tmp_path / "data/train").glob("*.parquet"))]
    assert [table["clip_id"].to_pylist() for table in rows] == [KEYS[:2], KEYS[2:4]]
    assert rows[0].schema.equals(rows[1].schema) and "notes" not in rows[1].column_names
    assert rows[1]["schema_version"].to_pylist() == ["2", "2"]
