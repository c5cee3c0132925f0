"""Wrong arguments of the public functions of `factory` and `cluster`: a sentence of ours that names the argument.

`cases` has a good call of each function and, for each argument, values that it must refuse. A refusal is a ValueError,
TypeError, LookupError or OSError, or one of our own errors, raised in our own code, and leaves no file.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sample_clips import clip_info, disc_clip
from tiny_dataset import FRAMES, VIEWS, grow, tiny_row

import cluster
import factory
import renderers
import zoo
from cluster import (
    Failure,
    Group,
    Ledger,
    Outcome,
    OutputLock,
    Record,
    Stage,
    StageError,
    Storage,
    StorageError,
    Task,
    atomic_path,
    check_idle,
    check_output,
    read_status,
    run,
    run_inline,
    task_key,
    train_together,
)  # fmt: skip
from factory import (
    ClipDataset,
    ClipLoader,
    ShardPacker,
    TrainingClips,
    assign_split,
    attribution,
    browse,
    clip_schema,
    decode_h264,
    export_browser,
    export_lerobot,
    load_clips,
    make_row,
    pack_alpha,
    packed_keys,
    ray_dataset,
    row_to_shot,
    staged_path,
    unpack_alpha,
    write_card,
    write_row,
)  # fmt: skip

OURS = tuple(str(Path(package.__file__).parent) for package in (factory, cluster, renderers, zoo))
REFUSALS = (ValueError, TypeError, LookupError, OSError, StorageError, StageError)
NAN, INF = float("nan"), float("inf")
NO_INTEGER: list[Any] = [
    5.5,
    2.0,
    NAN,
    "2",
    b"2",
    [2],
    True,
    1j,
    np.float32(2),
    np.array([1, 2]),
    torch.zeros(2),
]
NO_NUMBER: list[Any] = [NAN, INF, "1", b"1", [1.0], True, 1j, np.zeros(2), None]
NO_TEXT: list[Any] = [7, 1.5, b"train", ["train"], True]
NO_PATH: list[Any] = [7, 1.5, b"folder", ["folder"], None, True, "", "a\0b"]


class Case(NamedTuple):
    """A function, arguments that it accepts, and for each argument values that it refuses."""

    call: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, list[Any]]


class Nothing(Stage):
    """Does nothing."""

    def process(self, task: Task) -> Outcome:
        return Outcome("done")


def work(job: dict[str, Any], device: str) -> None:
    """Does nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset of four clips, and a folder of something else."""
    root = tmp_path_factory.mktemp("wrong") / "discs"
    grow(root, 0, 4)
    (root.parent / "photos").mkdir()
    (root.parent / "photos" / "cat.txt").write_text("a cat")
    (root.parent / "a-file").write_text("a file")
    return root


def dataset_cases(root: Path) -> dict[str, Case]:
    clips = load_clips(root)
    clip = clips[0]
    others = [root.parent / "nowhere", root.parent / "photos", root.parent / "a-file"]
    count = [*NO_INTEGER, 0, -1]
    training = {
        "dataset": root, "views": 1, "frames": 2, "batch_size": 1, "seed": 0, "mix": 16, "rank": 0, "world_size": 1,
    }  # fmt: skip
    opened = {
        "path_or_url (path_or_url|no clips|repository|URL|local:)": [
            *NO_PATH, *others, "hub:x", "nosuch://x", "local:nowhere",
        ],
        "split": [*NO_TEXT, "", "tain", "validation"],
        "captions": [*NO_TEXT, None],
    }  # fmt: skip
    index = [1.5, "0", b"0", 1j, NAN, None, [0], (0, 1), 4, -5, np.array([0, 1])]
    return {
        "load_clips": Case(load_clips, {"path_or_url": root}, opened),
        "ClipDataset": Case(ClipDataset, {"path_or_url": root}, opened),
        "ClipDataset.__getitem__": Case(
            lambda index: clips[index], {"index": 0}, {"index (clip|index)": index}
        ),
        "ClipDataset.clip": Case(
            clips.clip, {"clip_id": clip.clip_id}, {"clip_id (clip)": [*NO_TEXT, None, "x"]}
        ),
        "ClipDataset.table": Case(
            clips.table,
            {"columns": ["clip_id"]},
            {
                "columns (column)": [
                    "clip_id",
                    7,
                    ["clip"],
                    ["no such"],
                    [7],
                    [None],
                    b"clip_id",
                    {"clip_id": 1},
                    [["clip_id"]],
                ]
            },
        ),
        "ClipDataset.read_row": Case(
            clips.read_row,
            {"index": 0, "columns": ["clip_id"]},
            {"index (clip|index)": index, "columns (column)": ["clip_id", 7, ["no such"], [7], None]},
        ),
        "Clip.read": Case(
            clip.read,
            {"views": 0, "frames": 0},
            {
                "views (view)": [2, -3, 0.5, "0", [5], [0.5], NAN, 1j, [[0]], "all", {0: 1}, [None]],
                "frames (frame)": [4, -5, 0.5, "0", [9], [0.5], NAN, 1j, [[0]], "all", {0: 1}, [None]],
                "modalities (modalities|smell|depth)": ["depth", 7, ["smell"], [7], None, [None]],
                "background": ["grey", (1, 2), (256, 0, 0), (NAN, 0.0, 0.0), True],
            },
        ),
        "TrainingClips": Case(
            TrainingClips,
            training,
            {
                "dataset (dataset|path_or_url|no clips)": [7, None, b"x", *others],
                "views": [*count, None, 3, 100],
                "frames": [*count, None, 100],
                "batch_size (batch)": [*count, 1000],
                "seed": [*NO_INTEGER, -1, None],
                "mix": [*count, None],
                "rank (rank)": [*NO_INTEGER, -1, 1],
                "world_size (world_size|ranks)": [*count, 1000],
                "where (where|column|filter|has no)": [
                    7,
                    "split",
                    {"no such": 1},
                    ["split"],
                    {"split": "none"},
                ],
                "quality": ["best", 7, None, ["ok"]],
                "tail": ["cut", 7, None],
                "dtype": ["float32", torch.int64, 7, None],
                "background": ["grey", (1, 2), (256, 0, 0), None],
                "transform": [7, "x"],
                "shuffle": ["yes", 2, None],
            },
        ),
        "TrainingClips.set_epoch": Case(
            TrainingClips(**training).set_epoch,
            {"epoch": 0, "step": 0},
            {"epoch": [*NO_INTEGER, -1, None], "step": [*NO_INTEGER, -1, None]},
        ),
        "TrainingClips.load_state_dict": Case(
            TrainingClips(**training).load_state_dict,
            {"state": TrainingClips(**training).state_dict()},
            {"state": [None, 7, {}, {"epoch": 0}, {"epoch": 0, "step": 0, "order": "other"}, "x"]},
        ),
        "ClipLoader": Case(
            ClipLoader,
            {"clips": TrainingClips(**training)},
            {"clips": [None, root, "x", 7, clips], "num_workers": [*NO_INTEGER, -1, None]},
        ),
        "ray_dataset": Case(
            lambda **options: None if len(options) == 0 else ray_dataset(**options),
            {},
            {
                "clips": [{"clips": None}, {"clips": "x"}, {"clips": clips}],
                "epoch": [
                    {"clips": TrainingClips(**training), "epoch": value} for value in [*NO_INTEGER, -1]
                ],
                "steps_per_task": [
                    {"clips": TrainingClips(**training), "steps_per_task": value}
                    for value in [*NO_INTEGER, 0]
                ],
            },
        ),
    }


def file_cases(root: Path, folder: Path) -> dict[str, Case]:
    row = tiny_row(0)
    alpha = np.zeros((2, 4, 4), np.uint8)
    video = bytes(row["view_00"]["bytes"])
    clips = load_clips(root)
    others = [root.parent / "nowhere", root.parent / "photos", root.parent / "a-file"]
    count = [*NO_INTEGER, 0, -1]
    clip, info = disc_clip(VIEWS, FRAMES), clip_info(VIEWS)
    return {
        "export_lerobot": Case(
            export_lerobot,
            {"clips": clips, "folder": folder / "lerobot"},
            {
                "clips": [None, root, "x", 7, []],
                "folder": [*NO_PATH, root, root.parent / "a-file", root.parent / "a-file" / "x"],
            },
        ),
        "browse": Case(
            lambda **arguments: browse(**arguments).close(),
            {"dataset": root, "open_browser": False, "block": False},
            {
                "dataset (browse|dataset|no clips|files|file)": [*NO_PATH, *others],
                "host": [7, b"127.0.0.1", 1.5],
                "port": [*NO_INTEGER, -1, 70000],
                "token": [7, "short", "with space in it", "a" * 7],
                "open_browser": [1, 0.5, "no"],
                "block": ["no", 7],
            },
        ),
        "export_browser": Case(
            export_browser,
            {"dataset": root, "folder": folder / "pages"},
            {
                "dataset (export_browser|dataset|no clips|files|file)": [*NO_PATH, *others],
                "folder (folder|files|file)": [*NO_PATH, root, root.parent / "a-file"],
                "limit": [v for v in count if v is not None],
                "views": [v for v in count if v is not None],
            },
        ),
        "write_card": Case(
            lambda root: write_card(root),
            {"root": root},
            {"root (root|no clips|files|file)": [*NO_PATH, *others]},
        ),
        "packed_keys": Case(packed_keys, {"root": root}, {"root": NO_PATH}),
        "staged_path": Case(staged_path, {"key": "a"}, {"key": [*NO_TEXT, None, "", "../x", "a/b", "a\0b"]}),
        "ShardPacker": Case(
            lambda root, target_bytes: ShardPacker(root, target_bytes=target_bytes).close(),
            {"root": folder / "packed", "target_bytes": 100},
            {"root": NO_PATH, "target_bytes": [*NO_INTEGER, 0, -1, None]},
        ),
        "ShardPacker.planned": Case(
            lambda order, keys: packer_call(folder, "planned", order, keys),
            {"order": 0, "keys": []},
            {"order": [*NO_INTEGER, -1, None], "keys": [None, 7, "ab", [7], [None]]},
        ),
        "ShardPacker.finished": Case(
            lambda key, committed: packer_call(folder, "finished", key, committed),
            {"key": "a", "committed": False},
            {"key": [*NO_TEXT, None], "committed": [None, "yes", 2]},
        ),
        "assign_split": Case(
            assign_split,
            {"asset_sha256": "ab", "fractions": {"train": 0.5, "test": 0.5}},
            {
                "asset_sha256": [None, 7, b"ab", ["ab"]],
                "fractions": [
                    None,
                    7,
                    {},
                    {"train": NAN},
                    {"train": 2.0, "test": -1.0},
                    {"train": 0.5},
                    {"train": "1"},
                    [("train", 1.0)],
                    {7: 1.0},
                    {"train": None},
                    "train",
                ],
            },
        ),
        "attribution": Case(
            attribution,
            {"title": "Fox", "author": "A", "source_url": "", "licence": "CC0-1.0"},
            {name: [7, b"x", ["x"]] for name in ("title", "author", "source_url", "licence")}
            | {"licence": [7, None, ""]},
        ),
        "clip_schema": Case(
            clip_schema,
            {"views": 2},
            {"views": [*NO_INTEGER, 0, -1, None], "modalities": [7, None, "depth", ["smell"], [7]]},
        ),
        "decode_h264": Case(
            decode_h264,
            {"data": video, "frames": [0], "channels": 3},
            {
                "data (data|mp4)": [None, 7, "x", b"", b"not a video", video[: len(video) // 2], [1]],
                "frames (frame)": [[9], [-1], [0.5], ["0"], 0, "0", [None], [NAN], [True], [[0]]],
                "channels": [*NO_INTEGER, 0, 2, 5, -1, None],
            },
        ),
        "pack_alpha": Case(
            pack_alpha,
            {"alpha": alpha},
            {"alpha": [None, 7, "x", alpha[0], alpha.astype(float), [[[0]]], torch.zeros(2)]},
        ),
        "unpack_alpha": Case(
            unpack_alpha,
            {"data": pack_alpha(alpha), "frames": [0]},
            {
                "data (data|bytes)": [None, 7, "x", b"", b"not alpha", [1]],
                "frames (frame)": [[9], [-3], [0.5], ["0"], 0, "0", [None], [NAN], [[0]]],
            },
        ),
        "make_row": Case(
            make_row,
            {"clip": clip, "info": info},
            {
                "clip": [None, "x", 7, info],
                "info (info|licence)": [None, {}, 7, clip, replace(info, licence=" ")],
            },
        ),
        "write_row": Case(
            write_row,
            {"row": row},
            {
                "row": [
                    None,
                    7,
                    "x",
                    {},
                    [row],
                    {**row, "num_views": "2"},
                    {**row, "licence": ""},
                    {**row, "width": "x"},
                ]
            },
        ),
        "row_to_shot": Case(
            row_to_shot,
            {"row": row},
            {"row": [None, 7, "x", {}, [row], {**row, "settings": "{"}]},
        ),
    }


def packer_call(folder: Path, method: str, *arguments: Any) -> None:
    packer = ShardPacker(folder / "packed")
    try:
        getattr(packer, method)(*arguments)
    finally:
        packer.close(flush=False)


def cluster_cases(root: Path, folder: Path) -> dict[str, Case]:
    ledger, storage = Ledger(folder / "ledger"), Storage(folder / "stored")
    task = Task("a")
    tasks = [None, 7, "ab", ["a"], [None], [{"key": "a"}]]
    group = {"workers": 1, "num_cpus": 1.0, "num_gpus": 0.0}
    together = {
        "work": work,
        "job": {},
        "storage": storage,
        "group": Group(),
        "name": "x",
        "progress": lambda: 0,
    }
    return {
        "Task": Case(
            Task,
            {"key": "a", "payload": {}, "label": ""},
            {
                "key": [*NO_TEXT, None, "", "a b", "../x", "a" * 201],
                "payload": [None, 7, [1], "x", {"x": b"1"}, {"x": {1}}],
                "label": [7, None, b"x"],
            },
        ),
        "task_key": Case(task_key, {}, {"part": [7, None, b"x", ["x"]]}),
        "Outcome": Case(
            Outcome,
            {"status": "done", "summary": {}, "files": {}, "follow_up": [], "reason": ""},
            {
                "status": [None, 7, "ok", ""],
                "summary": [None, 7, [1], {"x": b"1"}],
                "files": [None, 7, [b"x"], {"x": "text"}, {"../x": b""}, {"/x": b""}, {7: b""}, {"": b""}],
                "follow_up": [None, 7, [7], ["a"], "ab"],
                "reason": [7, None],
            },
        ),
        "Ledger": Case(
            Ledger, {"root": folder / "ledger"}, {"root": NO_PATH, "namespace": [7, None, "", "../x", "/x"]}
        ),
        "Ledger.record": Case(ledger.record, {"key": "a"}, {"key": [7, None, b"a", "../x", ""]}),
        "read_status": Case(
            read_status,
            {"storage": storage, "namespace": "_factory"},
            {"storage": [None, 7, "out"], "namespace": [7, None, "", "../x", "/x"]},
        ),
        "Storage": Case(
            Storage,
            {"url": folder / "stored"},
            {"url (url|URL)": [*NO_PATH, "nosuch://x"], "temporary": [7, None]},
        ),
        "Storage.write": Case(
            storage.write,
            {"name": "x/y.bin", "data": b""},
            {"name": [7, None, b"x", "", "../x", "/x", "a\0b"], "data": [None, "text", 7, [1]]},
        ),
        "Storage.read": Case(storage.read, {"name": "y"}, {"name": [7, None, b"x", "", "../x", "a\0b"]}),
        "atomic_path": Case(
            enter_atomic,
            {"path": folder / "file"},
            {"path (path|a-file)": [*NO_PATH, root.parent / "a-file" / "x"]},
        ),
        "check_idle": Case(check_idle, {"root": folder / "ledger"}, {"root": NO_PATH}),
        "check_output": Case(
            check_output,
            {"root": folder / "ledger"},
            {"root (root|files|file)": [*NO_PATH, root.parent / "photos", root.parent / "a-file"]},
        ),
        "OutputLock": Case(
            OutputLock,
            {"storage": storage, "command": "x", "scope": ""},
            {
                "storage": [None, folder, "x", 7],
                "command": [None, 7],
                "scope": [None, 7],
                "on_wait": [7, "x"],
            },
        ),
        "Group": Case(
            Group,
            group,
            {
                "workers": [*NO_INTEGER, 0, -1, None, (2, 1), (0, 1), (1,), (1, 2, 3), ("1", "2")],
                "num_cpus": [*NO_NUMBER, 0, -1],
                "num_gpus": [*NO_NUMBER, -1],
            },
        ),
        "run_inline": Case(
            run_inline,
            {"stage": Nothing(), "tasks": [task], "ledger": ledger},
            {
                "stage": [None, 7, Nothing, "x"],
                "tasks (task)": tasks,
                "ledger": [None, folder, "x"],
                "on_resolved": [7, "x"],
                "on_tick": [7, "x"],
            },
        ),
        "run": Case(
            run,
            {"stage": Nothing(), "tasks": [task], "ledger": ledger, "workers": 0},
            {
                "stage": [None, 7, Nothing, "x"],
                "tasks (task)": tasks,
                "ledger": [None, folder, "x"],
                "workers": [*NO_INTEGER, -1],
                "max_in_backlog": [*NO_INTEGER, 0, None],
                "on_resolved": [7, "x"],
                "on_tick": [7, "x"],
            },
        ),
        "train_together": Case(
            lambda **options: None if options == together else train_together(**options),
            together,
            {
                "work": [None, 7, "x"],
                "job": [None, 7, [1], {"x": b"1"}],
                "storage": [None, folder, "x"],
                "group": [None, 1, {}],
                "name": [None, 7, "", "../x"],
                "progress": [None, 7, "x"],
            },
        ),
        "Failure.of": Case(Failure.of, {"error": ValueError("x")}, {"error": [None, "x", 7, ValueError]}),
        "Record.from_json": Case(
            Record.from_json,
            {"data": Record("a", "a", "done").to_json()},
            {"data": [None, 7, [], {}, {"key": "a"}, "x"]},
        ),
        "connect": Case(
            lambda **options: None if options == {} else cluster.connect(**options).__enter__(),
            {},
            {"num_workers": [*NO_INTEGER, 0, -1]},
        ),
    }


def enter_atomic(path: Any) -> None:
    with atomic_path(path) as part:
        part.write_bytes(b"")


@pytest.fixture(scope="module")
def cases(root, tmp_path_factory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("good")
    return dataset_cases(root) | file_cases(root, folder) | cluster_cases(root, folder)


def complaint(call: Callable[[], object], words: str) -> str | None:
    """What is wrong with a refusal; None if nothing is."""
    try:
        result = call()
    except REFUSALS as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        if not place.startswith(OURS):
            return f"raised in {place}: {type(error).__name__}: {error}"
        if isinstance(error, KeyError) and type(error.args[0]) is not str:
            return f"not a sentence: {error!r}"
        if not any(word in str(error) for word in words.split("|")):
            return f"does not name {words}: {type(error).__name__}: {error}"
        return None
    except Exception as error:
        return f"another error, {type(error).__name__}: {error}"
    return f"accepted: {str(result)[:80]}"


def wrong_calls(name: str, case: Case) -> Iterator[tuple[str, Callable[[], object], str]]:
    """Description, call and words of every wrong call; a key "name (a|b)" has the words that its message may have."""
    for key, values in case.bad.items():
        argument, _, words = key.partition(" (")
        for value in values:
            if name == "ray_dataset":
                call = lambda value=value: case.call(**value)  # noqa: E731
            elif name == "task_key":
                call = lambda value=value: task_key("a", value)  # noqa: E731
            else:
                call = lambda value=value, argument=argument: case.call(**(case.good | {argument: value}))  # noqa: E731
            yield (
                f"{argument}={str(value)[:50]!r} ({type(value).__name__})",
                call,
                words.rstrip(")") or argument,
            )


NAMES = [
    "load_clips", "ClipDataset", "ClipDataset.__getitem__", "ClipDataset.clip", "ClipDataset.table",
    "ClipDataset.read_row", "Clip.read", "TrainingClips", "TrainingClips.set_epoch", "TrainingClips.load_state_dict",
    "ClipLoader", "browse", "export_browser", "ray_dataset", "export_lerobot", "write_card", "packed_keys",
    "staged_path", "ShardPacker", "ShardPacker.planned", "ShardPacker.finished", "assign_split", "attribution",
    "clip_schema", "decode_h264", "pack_alpha", "unpack_alpha", "make_row", "write_row", "row_to_shot",
    "Task", "task_key", "Outcome", "Ledger", "Ledger.record", "Storage", "Storage.write", "Storage.read", "atomic_path",
    "check_idle", "check_output", "OutputLock", "Group", "run_inline", "run", "train_together", "Failure.of",
    "Record.from_json", "connect", "read_status",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_refused_in_a_sentence(cases, name, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = sorted(str(path) for path in root.parent.rglob("*"))
    calls = list(wrong_calls(name, cases[name]))
    complaints = {text: found for text, call, words in calls if (found := complaint(call, words)) is not None}
    assert complaints == {}
    assert list(tmp_path.iterdir()) == []  # nothing half-written
    assert sorted(str(path) for path in root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name in NAMES if name != "write_card"])
def test_the_good_call_is_accepted(cases, name):
    cases[name].call(**cases[name].good)


def test_integers_of_numpy_give_the_same_result(root):
    clips, two, one = load_clips(root), np.int64(2), np.uint8(1)
    assert clips[one].clip_id == clips[1].clip_id
    read = clips[0].read(one, np.array([0, 3]))
    assert np.array_equal(read.frames, clips[0].read([1], [0, 3]).frames)
    assert len(clips[0].read([], None).frames) == 0 and len(clips[0].read([True, False]).frames) == 1
    plain = TrainingClips(root, views=1, frames=2, batch_size=2, seed=1)
    numpy = TrainingClips(root, views=one, frames=two, batch_size=two, seed=np.int32(1), mix=np.int16(16))
    assert numpy.state_dict() == plain.state_dict()
    assert [batch["clip_id"] for batch in numpy] == [batch["clip_id"] for batch in plain]
    assert clip_schema(two).equals(clip_schema(2))
    assert Group(two).max_workers == 2


def test_threads_may_share_a_dataset(root):
    clips = load_clips(root)
    expected = [clip.read(background=(127, 127, 127)).frames.tobytes() for clip in clips]

    def read(index: int) -> bytes:
        return clips[index % 4].read(background=(127, 127, 127)).frames.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(16))) == expected * 4
    assert len(pickle.loads(pickle.dumps(clips))) == 4


def test_two_processes_may_write_the_same_file(tmp_path):
    """The file has the content of one of them, whole, and nothing else stays."""
    code = (
        "import sys\nfrom cluster import Storage\n"
        "for _ in range(20): Storage(sys.argv[1]).write('x', sys.argv[2].encode() * 10**5)"
    )
    writers = [subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path), letter]) for letter in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    content = Storage(tmp_path).read("x")
    assert content in (b"a" * 10**5, b"b" * 10**5)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x"]


def test_the_check_sees_what_is_no_refusal():
    """The control: calls that pass, errors from below, messages that name nothing, and other types."""
    assert "accepted" in str(complaint(lambda: 5, "x"))
    assert "raised in" in str(complaint(lambda: int("x"), "x"))
    assert "another error" in str(complaint(lambda: 1 / 0, "x"))
    assert "does not name frames" in str(complaint(lambda: clip_schema(0), "frames"))
    assert complaint(lambda: clip_schema(0), "views") is None


def test_every_public_function_is_in_the_table():
    called = {name.partition(".")[0] for name in NAMES}
    results = {  # results, errors and what takes no arguments of a user
        "factory": "Clip ClipArrays ClipInfo DatasetBrowser DatasetError ExportError RowError Shard __version__ "
        "encode_h264",
        "cluster": "ForeignFolderError Interrupted JobStatus OutputInUseError Progress Report Session Stage StageError "
        "StorageError __version__ from_parts",
    }  # encode_h264 is in the table of the renderers
    for package in (factory, cluster):
        assert set(package.__all__) - called - set(results[package.__name__].split()) == set()
