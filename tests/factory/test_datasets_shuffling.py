"""Shuffling our shards through `datasets`: the same order for a seed and an epoch, and exact resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_dataset import grow

datasets = pytest.importorskip("datasets")
CLIPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mv-video")
    grow(root, 0, CLIPS, shard=6)
    return root


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """`datasets` sleeps for 5 s after each shuffled pass, for threads that are busy with remote files."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def stream(folder: Path) -> datasets.IterableDataset:
    """The clips as a stream of four shards."""
    return datasets.load_dataset(str(folder), split="train", streaming=True, columns=["clip_id"])


def ids(clips) -> list[str]:
    return [clip["clip_id"] for clip in clips]


def interrupted(clips, after: int) -> tuple[list[str], dict]:
    """Read some clips; return them and the state, which must not change by being taken twice."""
    examples = iter(clips)
    names = [next(examples)["clip_id"] for _ in range(after)]
    state = clips.state_dict()
    assert clips.state_dict() == state
    return names, state


def test_an_order_belongs_to_a_seed_and_an_epoch(folder):
    shuffled = stream(folder).shuffle(seed=3, buffer_size=5)
    first = ids(shuffled)
    assert ids(shuffled) == first == ids(stream(folder).shuffle(seed=3, buffer_size=5))
    assert len(set(first)) == CLIPS and first != sorted(first)
    shuffled.set_epoch(1)
    assert sorted(ids(shuffled)) == sorted(first) and ids(shuffled) != first
    shuffled.set_epoch(0)
    assert ids(shuffled) == first
    assert ids(stream(folder).shuffle(seed=4, buffer_size=5)) != first


@pytest.mark.parametrize("after", [1, 8, 23])
def test_shards_in_random_order_resume_exactly(folder, after):
    """docs/dataset.md: a buffer of one clip shuffles the shards only, and no clip is lost or repeated."""
    whole = ids(stream(folder).shuffle(seed=3, buffer_size=1))
    names, state = interrupted(stream(folder).shuffle(seed=3, buffer_size=1), after)
    resumed = stream(folder).shuffle(seed=3, buffer_size=1)
    resumed.load_state_dict(state)
    assert names + ids(resumed) == whole


def test_a_larger_buffer_loses_its_content(folder):
    """Why docs/dataset.md advises against it for runs that are resumed."""
    names, state = interrupted(stream(folder).shuffle(seed=3, buffer_size=5), 8)
    resumed = stream(folder).shuffle(seed=3, buffer_size=5)
    resumed.load_state_dict(state)
    assert len(set(names + ids(resumed))) < CLIPS


def test_a_full_shuffle_resumes_exactly(folder, tmp_path):
    clips = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    clips = clips.select_columns(["clip_id"]).shuffle(seed=3)
    whole = ids(clips.to_iterable_dataset(num_shards=4))
    assert sorted(whole) == sorted(ids(stream(folder))) and whole != sorted(whole)
    names, state = interrupted(clips.to_iterable_dataset(num_shards=4), 9)
    resumed = clips.to_iterable_dataset(num_shards=4)
    resumed.load_state_dict(state)
    assert names + ids(resumed) == whole


def test_persistent_workers_follow_the_epoch(folder):
    shuffled = stream(folder).shuffle(seed=3, buffer_size=5)
    loader = torch.utils.data.DataLoader(shuffled, batch_size=None, num_workers=2, persistent_workers=True)
    first = ids(loader)
    assert sorted(first) == sorted(ids(stream(folder)))  # two workers share four shards: nothing twice
    assert ids(loader) == first
    shuffled.set_epoch(1)
    second = ids(loader)
    assert second != first and sorted(second) == sorted(first)
