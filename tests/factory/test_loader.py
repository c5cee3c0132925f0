"""Training batches: correct pixels and cameras, every sample once, the same sequence for any number of workers."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sample_clips import clip_info, disc_clip

import factory
from factory.dataset.epoch_order import EpochOrder
from factory.dataset.schema import make_row, write_row
from renderers.cameras import mvvdm_camera_vectors
from renderers.meshes.clip import GREY, WHITE

CLIPS, VIEWS, FRAMES, SIZE = 11, 8, 12, 32


def write_dataset(root: str) -> None:
    """Eleven clips in two shards of 7 and 4; the disc of clip n starts n frames late."""
    clip = disc_clip(views=VIEWS, frames=FRAMES, size=SIZE)
    for first, last in ((0, 7), (7, CLIPS)):
        with factory.ShardPacker(root) as packer:
            for number in range(first, last):
                name = f"clip-{number:02d}"
                late = type(clip)(
                    np.roll(clip.frames, number, axis=1),
                    clip.cameras,
                    clip.timestamps + number,
                    clip.renderer,
                )
                licence = "CC0-1.0" if number % 2 else "CC-BY-4.0"
                info = clip_info(VIEWS, clip_id=name, caption=f"rolls {number}", licence=licence)
                with fsspec.open(f"{root}/{factory.staged_path(name)}", "wb", auto_mkdir=True) as file:
                    file.write(write_row(make_row(late, info)))
                packer.planned(number - first, [name])
                packer.finished(name, committed=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mv-video")
    write_dataset(str(root))
    return root


@pytest.fixture(scope="module")
def clips(folder):
    return factory.load_clips(folder)


def training(clips, **changes) -> factory.TrainingClips:
    return factory.TrainingClips(clips, **{"frames": 4, "batch_size": 3, **changes})


def names(batch) -> list[tuple]:
    """The content of a batch: clip, view group and phase of each sample."""
    groups, phases = np.atleast_1d(batch["view_group"]).tolist(), np.atleast_1d(batch["phase"]).tolist()
    clip_ids = [batch["clip_id"]] if isinstance(batch["clip_id"], str) else batch["clip_id"]
    return list(zip(clip_ids, groups, phases, strict=True))


def sequence(batches) -> list[list[tuple]]:
    return [names(batch) for batch in batches]


EVERY_SAMPLE = Counter((f"clip-{clip:02d}", group) for clip in range(CLIPS) for group in range(VIEWS // 4))


def samples(sequences) -> Counter:
    return Counter(name[:2] for batch in sequences for name in batch)


# --- content of a batch ---------------------------------------------------------------------------


def test_a_batch_is_what_the_reader_gives(clips):
    seen = set()
    for batch in training(clips, background=WHITE, dtype=torch.uint8):
        assert batch["frames"].shape == (3, 4, 4, 3, SIZE, SIZE) and batch["frames"].dtype == torch.uint8
        for place, (clip_id, group, phase) in enumerate(names(batch)):
            clip = clips.clip(clip_id)
            expected = clip.read(slice(group, None, 2), slice(phase, None, 3), background=WHITE)
            assert np.array_equal(batch["frames"][place].permute(0, 1, 3, 4, 2), expected.frames)
            vectors = mvvdm_camera_vectors(expected.cameras)
            assert np.allclose(batch["camera"][place], vectors, atol=1e-6)
            assert np.allclose(batch["world_to_camera"][place], expected.cameras.world_to_camera, atol=1e-6)
            assert np.allclose(batch["K"][place], expected.cameras.K)
            assert np.array_equal(batch["timestamps"][place], expected.timestamps)
            assert batch["caption"][place] == clip.metadata["caption"] == f"rolls {int(clip_id[-2:])}"
            seen.add((group, phase))
    assert seen == set(itertools.product(range(2), range(3)))


def test_views_are_orthogonal_and_frames_span_the_clip(clips):
    sample = next(iter(training(clips, batch_size=None)))
    rotations = sample["world_to_camera"][:, 2, :3].double().numpy()  # viewing direction of each camera
    level = rotations[:, [0, 2]] / np.linalg.norm(rotations[:, [0, 2]], axis=1, keepdims=True)
    assert np.allclose(
        level @ level.T, [[1, 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1]], atol=1e-5
    )
    assert np.allclose(np.diff(sample["timestamps"]), 3 / 24)
    assert isinstance(sample["caption"], str) and sample["frames"].shape == (4, 4, 3, SIZE, SIZE)


def test_values_are_those_of_8_bits(clips):
    first = {dtype: next(iter(training(clips, dtype=dtype))) for dtype in (torch.uint8, torch.float32)}
    whole, real = first[torch.uint8]["frames"], first[torch.float32]["frames"]
    assert real.dtype == torch.float32
    assert torch.equal(real, whole.float() / 127.5 - 1)
    assert (whole[..., 0, 0] == torch.tensor(GREY[0])).all()  # the corner is background
    assert next(iter(training(clips, dtype=torch.bfloat16)))["frames"].dtype == torch.bfloat16


def test_memory_is_reused_once_it_is_released(clips):
    kept, places = [], []
    for number, batch in enumerate(training(clips, batch_size=1, tail="keep")):
        places.append(batch["frames"].data_ptr())
        if number in (3, 4):
            kept.append((batch["frames"][0, 1], batch["frames"][0, 1].clone()))
    assert len(set(places[:3])) == 2  # this one and the one before
    assert not set(places[5:]) & set(places[3:5]) and len(set(places)) == 4
    assert all(torch.equal(view, copy) for view, copy in kept)


def test_any_frames_are_those_of_everything():
    """Skipping pictures does not affect the decoded frames: every stride and phase, and irregular selections."""
    video = factory.encode_h264(np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8), 24)
    everything = factory.decode_h264(video)
    choices = [list(range(phase, 24, stride)) for stride in (1, 2, 3, 5, 8) for phase in range(stride)]
    for frames in [*choices, [23], [7, 6], [1, 1, 15, 9]]:
        assert np.array_equal(factory.decode_h264(video, frames), everything[frames]), frames
    assert not np.array_equal(everything[[3]], everything[[4]])  # control


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 3, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch(clips, batch_size, world_size):
    """Without decoding: "keep" gives every sample once, "drop" and "pad" equally many batches to every rank."""
    each = batch_size or 1
    for tail in ("keep", "drop", "pad"):
        ranks = [
            training(clips, batch_size=batch_size, tail=tail, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        batches = [rank.epoch_batches(5) for rank in ranks]
        assert [len(part) for part in batches] == [len(rank) for rank in ranks]
        count = Counter(int(sample) for part in batches for batch in part for sample in batch)
        if tail == "keep":
            assert count == Counter(range(CLIPS * 2))
            continue
        assert {len(batch) for part in batches for batch in part} == {each}
        assert len(set(map(len, batches))) == 1
        missing, surplus = CLIPS * 2 - len(count), sum(count.values()) - len(count)
        if tail == "drop":
            assert surplus == 0 and missing < world_size * each
        else:
            assert missing == 0 and surplus < world_size * each


def test_epochs_and_seeds_differ_and_repeat(clips):
    loader = training(clips)
    orders = [np.concatenate(loader.epoch_batches(epoch)) for epoch in (0, 0, 1)]
    orders.append(np.concatenate(training(clips, seed=1).epoch_batches(0)))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[3])
    phases = [dict((name[:2], name[2]) for batch in sequence(loader) for name in batch)]
    loader.set_epoch(1)
    phases.append(dict((name[:2], name[2]) for batch in sequence(loader) for name in batch))
    assert phases[0] != phases[1]


def test_without_shuffling_the_order_is_that_of_the_dataset(clips):
    found = sequence(training(clips, shuffle=False, tail="keep"))
    expected = [(clip.clip_id, group, 0) for clip in clips for group in range(2)]
    assert list(itertools.chain(*found)) == expected


def test_neighbours_are_far_apart_and_each_unit_has_one_reader():
    """In a large dataset: no batch has two clips of a row group, and of 4 ranks x 4 workers one reads each unit."""
    large = EpochOrder(
        samples=np.arange(16000),
        units=(np.arange(4000)[:, None] // 4 * 4 + np.arange(4)).ravel(),
        batch_size=2,
    )
    order = large.shuffled(0)
    assert np.array_equal(np.sort(order), np.arange(16000))
    units = large.units[order].reshape(-1, 2)
    whole = units[: len(units) // 64 * 64]  # the last block may be smaller
    assert (whole[:, 0] != whole[:, 1]).all()
    reader = np.repeat(np.arange(len(whole)) % 16, 2)
    pairs = np.unique(np.stack([whole.ravel(), reader], axis=1), axis=0)
    assert len(pairs) == len(np.unique(whole))
    assert np.abs(np.corrcoef(np.arange(16000), order)[0, 1]) < 0.05


# --- workers and resuming -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(clips) -> list[list[tuple]]:
    """One epoch in this process."""
    return sequence(training(clips, tail="keep"))


def test_eight_workers_neither_repeat_nor_drop(clips, plain):
    loader = factory.ClipLoader(training(clips, tail="keep"), num_workers=8)
    found = sequence(loader)
    assert samples(found) == EVERY_SAMPLE
    assert found == plain  # and in the same order
    second = sequence(loader)  # the same processes, in the next epoch
    assert samples(second) == EVERY_SAMPLE and second != found


def test_torch_dataloader_gives_the_same(clips, plain):
    loader = torch.utils.data.DataLoader(training(clips, tail="keep"), batch_size=None, num_workers=2)
    assert sequence(loader) == plain


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 3), (3, 0)])
def test_resuming_in_the_middle(clips, before, after):
    """Stopped after 3 of 7 batches, with different numbers of workers before and after, across the end of an epoch."""
    loader = factory.ClipLoader(training(clips), num_workers=0)
    whole = sequence(loader) + sequence(loader)
    stopped = factory.ClipLoader(training(clips), num_workers=before)
    found = sequence(itertools.islice(stopped, 3))
    state = pickle.loads(pickle.dumps(stopped.state_dict()))
    resumed = factory.ClipLoader(training(clips), num_workers=after)
    resumed.load_state_dict(state)
    found += sequence(resumed)
    assert resumed.state_dict()["epoch"] == 1 and resumed.state_dict()["step"] == 0
    found += sequence(resumed)
    assert found == whole
    assert sequence(stopped) == whole[3:7]  # a loop that was left early continues as well


def test_resumed_pixels_are_the_same(clips):
    whole = list(training(clips, dtype=torch.uint8))
    rest = training(clips, dtype=torch.uint8)
    rest.load_state_dict(whole[4]["state"])
    assert all(torch.equal(a["frames"], b["frames"]) for a, b in zip(whole[5:], rest, strict=True))
    assert not torch.equal(whole[4]["frames"], whole[5]["frames"])  # control


def test_a_state_of_another_sequence_is_refused(clips):
    state = training(clips).state_dict()
    for change in ({"seed": 1}, {"batch_size": 2}, {"where": {"licence": "CC0-1.0"}}, {"tail": "pad"}):
        with pytest.raises(ValueError, match=r"belongs to another sequence.*set_epoch\(1\)"):
            training(clips, **change).load_state_dict(state)
    training(clips, background=WHITE, dtype=torch.uint8).load_state_dict(state)  # the same sequence


# --- choosing, other places, errors ---------------------------------------------------------------


@pytest.mark.parametrize(
    "accepted", ["CC0-1.0", {"CC0-1.0", "MIT"}, lambda licence: licence.startswith("CC0")]
)
def test_filtering_by_metadata(clips, accepted):
    found = sequence(training(clips, where={"licence": accepted}, tail="keep"))
    assert samples(found) == Counter(name for name in EVERY_SAMPLE if int(name[0][-2:]) % 2)


def test_a_url_gives_the_same_bytes_and_reads_little(folder, clips):
    """With range requests through fsspec, as from a hub or an object store."""
    root = f"memory://{folder.name}"
    fsspec.filesystem("memory").put(str(folder), f"/{folder.name}", recursive=True)
    remote = training(factory.load_clips(root), dtype=torch.uint8)
    fs, asked = remote.clips.filesystem, []
    whole = type(fs).cat_ranges

    def cat_ranges(self, paths, starts, ends, **options):
        asked.append(sum(ends) - sum(starts))
        return whole(self, paths, starts, ends, **options)

    try:
        type(fs).cat_ranges = cat_ranges
        for ours, theirs in zip(training(clips, dtype=torch.uint8), remote, strict=True):
            assert torch.equal(ours["frames"], theirs["frames"]) and names(ours) == names(theirs)
    finally:
        type(fs).cat_ranges = whole
        fs.rm(f"/{folder.name}", recursive=True)
    assert len(asked) == 21  # 7 batches of 3 samples: each fetches one clip from one group of views


def test_shards_with_row_groups_of_four(folder, clips, tmp_path):
    """As version 0.1 wrote them: the same samples, the same pixels, each row group fetched once per group of views."""
    for shard in sorted(folder.glob("data/*/*.parquet")):
        older = tmp_path / shard.relative_to(folder)
        older.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(shard), older, row_group_size=4)
    older = factory.load_clips(tmp_path)
    assert [group.footer.row_group(group.index).num_rows for group in older.row_groups] == [4, 3, 4]
    assert older[5].clip_id == clips[5].clip_id
    batches = list(training(older, tail="keep"))
    assert samples(map(names, batches)) == EVERY_SAMPLE
    frames = {(clip, group): view for clip, group, view in _pixels(older)}
    assert all(torch.equal(frames[clip, group], view) for clip, group, view in _pixels(clips))


def _pixels(clips):
    for batch in training(clips, batch_size=1, shuffle=False, dtype=torch.uint8):
        yield batch["clip_id"][0], int(batch["view_group"][0]), batch["frames"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"where": {"license": "MIT"}}, "has no column 'license' to filter by; it has clip_id"),
        ({"where": {"licence": "MIT"}}, "none of the 11 clips .* passes the filter on licence"),
        ({"views": 3}, "have 8 views and 12 frames; 3 evenly spaced views"),
        ({"frames": 13}, "13 frames cannot be taken"),
        ({"batch_size": 40}, "22 samples do not fill one batch of 40 on each of 1 ranks"),
        ({"tail": "wrap"}, "tail is 'wrap'; expected one of drop, pad, keep"),
        ({"dtype": torch.int32}, "expected a floating-point type or torch.uint8"),
        (
            {"background": (255, 256, 255)},
            r"background: expected .* integers in 0\.\.255, got \(255, 256, 255\)",
        ),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
    ],
)
def test_what_does_not_fit(clips, changes, message):
    with pytest.raises(ValueError, match=message):
        training(clips, **changes)


def test_clips_of_two_kinds_are_named(tmp_path):
    for number, size in enumerate((32, 64)):
        row = make_row(disc_clip(views=4, frames=4, size=size), clip_info(4, clip_id=f"clip-{size}"))
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "train" / f"part-{number:05d}.parquet").write_bytes(write_row(row))
    with pytest.raises(ValueError, match=r"clip clip-64 has .*'width': 64.*the first clip .*'width': 32"):
        factory.TrainingClips(tmp_path, frames=4)
    assert len(factory.TrainingClips(tmp_path, frames=4, where={"width": 64})) == 1


def test_damaged_pixels_are_named(tmp_path):
    row = make_row(disc_clip(views=4, frames=4, size=32), clip_info(4))
    row["view_02"] = {"bytes": row["view_02"]["bytes"][:300], "path": "view_02.mp4"}
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part-00000.parquet").write_bytes(write_row(row))
    with pytest.raises(ValueError, match=r"clip disc, view 2, of .*compare its sha256"):
        next(iter(factory.TrainingClips(tmp_path, frames=4)))


# --- Ray Data -------------------------------------------------------------------------------------


def test_ray_data_wants_a_running_ray(clips, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests of this process leave one running
    with pytest.raises(RuntimeError, match=r"inside `with cluster.connect\(\):`"):
        factory.ray_dataset(training(clips))


@pytest.mark.slow
def test_ray_data_gives_the_same_samples(clips):
    from cluster import connect

    ours = {
        name: frames
        for batch in training(clips, dtype=torch.uint8, tail="keep")
        for name, frames in zip(names(batch), batch["frames"], strict=True)
    }
    with connect(2):
        rows = factory.ray_dataset(training(clips, dtype=torch.uint8, tail="keep")).take_all()
    theirs = {(row["clip_id"], int(row["view_group"]), int(row["phase"])): row["frames"] for row in rows}
    assert len(rows) == len(theirs) == 2 * CLIPS and set(theirs) == set(ours)
    assert all(np.array_equal(theirs[name], frames) for name, frames in ours.items())


# --- ratings and captions -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> Path:
    """Six clips with ratings, and captions of two models for some of them."""
    root = tmp_path_factory.mktemp("rated")
    ratings = ["high", "ok", "static (motion_reach 0.001 < 0.02)", "", "too fast", "high"]
    with factory.ShardPacker(str(root)) as packer:
        for number, quality in enumerate(ratings):
            key = f"clip-{number}"
            info = clip_info(
                4, clip_id=key, caption=f"stored {number}", caption_origin="names", quality=quality
            )
            row = make_row(disc_clip(views=4, frames=4, size=32), info)
            with fsspec.open(f"{root}/{factory.staged_path(key)}", "wb", auto_mkdir=True) as file:
                file.write(write_row(row))
            packer.planned(number, [key])
            packer.finished(key, committed=True)
    (root / "captions").mkdir()
    for part, (model, captioned) in enumerate([("model a", [0, 1, 3]), ("model b", [1])]):
        rows = [
            {
                "clip_id": f"clip-{n}",
                "caption": f"{model} {n}",
                "caption_origin": model,
                "prompt": "",
                "at": str(part),
            }
            for n in captioned
        ]
        pq.write_table(pa.Table.from_pylist(rows), root / f"captions/part-{part}.parquet")
    return root


def _captions(clips) -> dict[str, str]:
    batches = training(clips, batch_size=1, quality="any", shuffle=False)
    return {batch["clip_id"][0]: batch["caption"][0] for batch in batches}


@pytest.mark.parametrize(("quality", "expected"), [("any", "012345"), ("ok", "0135"), ("high", "05")])
def test_clips_below_the_rating_are_left_out(rated, quality, expected):
    batches = training(factory.load_clips(rated), batch_size=1, quality=quality, shuffle=False)
    assert "".join(batch["clip_id"][0][-1] for batch in batches) == expected


def test_clips_that_violate_a_rule_are_left_out_unless_asked_for(rated):
    assert len(training(factory.load_clips(rated), batch_size=1)) == 4
    with pytest.raises(ValueError, match="quality is 'best'; expected one of any, ok, high"):
        training(factory.load_clips(rated), quality="best")


def test_no_clip_has_the_rating(clips):
    with pytest.raises(ValueError, match=r"none of the 11 clips of .* is rated 'high'"):
        training(clips, quality="high")


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ("newest", ["model a 0", "model b 1", "stored 2", "model a 3", "stored 4", "stored 5"]),
        ("stored", [f"stored {number}" for number in range(6)]),
        ("names", [f"stored {number}" for number in range(6)]),
        ("model a", ["model a 0", "model a 1", "", "model a 3", "", ""]),
        ("model b", ["", "model b 1", "", "", "", ""]),
    ],
)
def test_captions_of_one_origin(rated, captions, expected):
    clips = factory.load_clips(rated, captions=captions)
    assert [clip.metadata["caption"] for clip in clips] == expected
    assert clips.table(["caption"])["caption"].to_pylist() == expected
    assert list(_captions(clips).values()) == expected  # as in the batches


def test_captions_of_an_unknown_origin(rated):
    with pytest.raises(
        ValueError, match=r"no caption of .* is of origin 'model c'.* 'model a', 'model b', 'names'"
    ):
        factory.load_clips(rated, captions="model c").table(["caption"])
