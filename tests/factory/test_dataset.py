"""A dataset folder can be read with `datasets`, with plain PyArrow, and with our reader by view and frame."""

from __future__ import annotations

import io
import pickle
import shutil
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from sample_clips import clip_info, disc_clip, disc_colour, psnr, silhouette_band

import factory
from factory.dataset.names import dataset_url
from factory.dataset.schema import make_row, write_row
from renderers.meshes.clip import WHITE, RenderSettings

FRAMES = 16
TITLES = [f"clip-{number}" for number in range(6)]


def write_dataset(root: str) -> None:
    """Six clips, the last one for testing; the disc of clip n starts n frames late."""
    clip = disc_clip(frames=FRAMES)
    with factory.ShardPacker(root) as packer:
        for order, name in enumerate(TITLES):
            late = type(clip)(
                np.roll(clip.frames, order, axis=1), clip.cameras, clip.timestamps + order, clip.renderer
            )
            split = "test" if order == 5 else "train"
            row = make_row(late, clip_info(clip_id=name, title=name, split=split))
            with fsspec.open(f"{root}/{factory.staged_path(name)}", "wb", auto_mkdir=True) as file:
                file.write(write_row(row))
            packer.planned(order, [name])
            packer.finished(name, committed=True)
    factory.write_card(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mv-video")
    write_dataset(str(root))
    return root


@pytest.fixture(scope="module")
def clips(folder):
    return factory.load_clips(folder)


def true_frames(number: int) -> np.ndarray:
    return np.roll(disc_clip(frames=FRAMES).frames, number, axis=1)


# --- our reader -----------------------------------------------------------------------------------


def test_the_clips_of_a_folder(clips, folder):
    assert len(clips) == 6
    assert sorted(clip.clip_id for clip in clips) == TITLES
    assert clips.clip("clip-3").clip_id == "clip-3" and clips[-1].clip_id == clips[5].clip_id
    assert len(factory.load_clips(folder, "test")) == 1 and len(factory.load_clips(folder, "train")) == 5
    table = clips.table()
    assert set(table["clip_id"].to_pylist()) == set(TITLES)
    assert not any(name.startswith(("view_", "alpha_")) for name in table.column_names)
    assert clips.table(["licence"]).column_names == ["licence"]
    with pytest.raises(IndexError, match="clip 6 of a dataset of 6 clips"):
        clips[6]
    with pytest.raises(KeyError, match="no clip 'nobody'"):
        clips.clip("nobody")
    with pytest.raises(FileNotFoundError, match=r"no clips in .*expected files like"):
        factory.load_clips(folder / "data")


def test_everything_of_a_clip(clips):
    arrays = clips.clip("clip-2").read()
    truth = true_frames(2)
    assert arrays.frames.shape == truth.shape and arrays.frames.dtype == np.uint8
    assert np.array_equal(arrays.frames[..., 3], truth[..., 3])
    assert psnr(arrays.frames[..., :3], truth[..., :3], truth[..., 3] > 0) > 35
    assert np.array_equal(arrays.timestamps, disc_clip(frames=FRAMES).timestamps + 2)
    assert np.array_equal(arrays.cameras.world_to_camera, disc_clip().cameras.world_to_camera)
    shot, settings = clips.clip("clip-2").shot
    assert settings == RenderSettings(samples=16) and np.array_equal(shot.timestamps, arrays.timestamps)
    metadata = clips.clip("clip-2").metadata
    assert (metadata["licence"], metadata["noai"], metadata["fps"]) == ("CC-BY-4.0", "no", 24.0)


@pytest.mark.parametrize(
    ("views", "frames"),
    [
        (3, 5),
        ([0, 4, 8, 12], slice(0, FRAMES, 3)),
        ([15, 1, 1], [9, 2, 2, 0]),
        (-1, slice(-3, None)),
        (None, []),
    ],
)
def test_some_views_and_frames_are_those_of_everything(clips, views, frames):
    clip = clips.clip("clip-4")
    everything, some = clip.read(), clip.read(views, frames)
    v = np.atleast_1d(np.arange(16)[slice(None) if views is None else views])
    t = np.atleast_1d(np.arange(FRAMES)[frames]).astype(int)
    assert np.array_equal(some.frames, everything.frames[v][:, t])
    assert np.array_equal(some.timestamps, everything.timestamps[t])
    assert np.array_equal(some.cameras.world_to_camera, everything.cameras.world_to_camera[v])


def test_a_view_has_the_colour_of_that_view(clips):
    for view in (0, 5, 11):
        frame = clips[0].read(view, 0, background=WHITE).frames[0, 0]
        assert np.abs(frame[30, 22].astype(int) - disc_colour(view, 16)).max() <= 4
    assert np.abs(frame[30, 22].astype(int) - disc_colour(10, 16)).max() > 30  # control: the view before


def test_on_a_background(clips):
    arrays = clips.clip("clip-1").read([2, 7], background=WHITE)
    truth = true_frames(1)[[2, 7]]
    alpha = truth[..., 3:] / 255.0
    direct = truth[..., :3] * alpha + 255.0 * (1.0 - alpha)
    assert arrays.frames.shape == (2, FRAMES, 64, 64, 3)
    assert (arrays.frames[truth[..., 3] == 0] == 255).all()
    band = np.stack([silhouette_band(view) for view in truth[..., 3]])
    assert psnr(arrays.frames, direct, band) > 36
    on_black = clips.clip("clip-1").read([2, 7], background=(0, 0, 0)).frames
    assert psnr(on_black, direct, band) < 20  # control


def test_what_a_clip_does_not_have(clips):
    with pytest.raises(IndexError, match="view 16 of a clip with 16 views"):
        clips[0].read(16)
    with pytest.raises(IndexError, match=r"frame \[0, 16\] of a clip with 16 frames"):
        clips[0].read(0, [0, 16])


def test_only_what_is_asked_for_is_read(folder, tmp_path):
    """View 3 of every clip is overwritten in the file; the other views can still be read."""
    shard = next((folder / "data" / "train").glob("*.parquet"))
    footer = pq.read_metadata(shard)
    data = bytearray(shard.read_bytes())
    for group in range(footer.num_row_groups):
        for index in range(footer.num_columns):
            column = footer.row_group(group).column(index)
            if column.path_in_schema == "view_03.bytes":
                start = column.data_page_offset
                for at in range(start + 200, start + column.total_compressed_size, 50):
                    data[at : at + 25] = b"\xff" * 25
    copy = tmp_path / "data" / "train" / shard.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(data)
    clips = factory.load_clips(tmp_path)
    assert np.array_equal(
        clips[1].read([2, 4]).frames, factory.load_clips(folder, "train")[1].read([2, 4]).frames
    )
    with pytest.raises((ValueError, OSError)):
        clips[1].read(3)


def test_damaged_pixels_are_named(tmp_path):
    row = make_row(disc_clip(frames=2), clip_info())
    row["view_05"] = {"bytes": row["view_05"]["bytes"][:400], "path": "view_05.mp4"}
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part-00000.parquet").write_bytes(write_row(row))
    clip = factory.load_clips(tmp_path)[0]
    clip.read(4)
    with pytest.raises(ValueError, match=r"clip disc, view 5, in .*part-00000\.parquet.*compare its sha256"):
        clip.read()


def test_a_url_and_another_process_read_the_same(clips):
    write_dataset("memory://copy")
    remote = factory.load_clips("memory://copy")
    assert np.array_equal(remote.clip("clip-2").read(1, 3).frames, clips.clip("clip-2").read(1, 3).frames)
    fsspec.filesystem("memory").rm("/copy", recursive=True)
    again = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(again[3].read(0, 0).frames, clips[3].read(0, 0).frames)


# --- other readers --------------------------------------------------------------------------------


@pytest.fixture
def datasets(tmp_path, monkeypatch, torchcodec):
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def test_datasets_map_style(datasets, folder, clips):
    loaded = datasets.load_dataset(str(folder))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "test": 1}
    row = loaded["train"][2]
    clip = clips.clip(row["clip_id"])
    assert isinstance(loaded["train"].features["view_09"], datasets.Video)
    frame = row["view_09"].get_frames_at([7]).data.numpy()[0].transpose(1, 2, 0)
    assert np.array_equal(frame, clip.read(9, 7).frames[0, 0, ..., :3])
    alpha = np.load(io.BytesIO(zlib.decompress(row["alpha_09"])))
    assert np.array_equal(alpha, clip.read(9).frames[0, ..., 3])
    assert np.array_equal(row["K"], clip.cameras.K) and np.asarray(row["K"]).shape == (16, 3, 3)
    assert np.array_equal(row["world_to_camera"], clip.cameras.world_to_camera)
    shot, _ = factory.row_to_shot(row)
    assert np.array_equal(shot.timestamps, clip.timestamps)


def test_datasets_streaming(datasets, folder, clips):
    stream = datasets.load_dataset(str(folder), split="train", streaming=True)
    assert isinstance(stream.features["view_00"], datasets.Video)
    row = next(iter(stream))
    assert row["view_15"][3].shape == (3, 64, 64)
    expected = clips.clip(row["clip_id"]).read(15, 3).frames[0, 0, ..., :3]
    assert np.array_equal(row["view_15"][3].numpy().transpose(1, 2, 0), expected)
    few = stream.select_columns(["clip_id", "view_00"])
    assert [set(row) for row in few] == [{"clip_id", "view_00"}] * 5


def test_plain_pyarrow_as_the_guide_has_it(folder, clips):
    import av

    table = pq.read_table(folder / "data", columns=["clip_id", "world_to_camera", "view_00", "alpha_00"])
    row = table.slice(1, 1).to_pylist()[0]
    alpha = np.load(io.BytesIO(zlib.decompress(row["alpha_00"])))
    with av.open(io.BytesIO(row["view_00"]["bytes"])) as video:
        colour = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    coverage = alpha[..., None] / 255
    on_white = np.rint(colour * coverage + 255 * (1 - coverage)).astype(np.uint8)
    ours = clips.clip(row["clip_id"]).read(0, background=WHITE).frames[0]
    assert np.abs(on_white.astype(int) - ours).max() <= 1


# --- what a user gets wrong, and files that are damaged ---------------------------------------------


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_mistyped_split_names_those_that_exist(folder):
    with pytest.raises(FileNotFoundError, match=r"no split 'tset' in .*; it has test, train"):
        factory.load_clips(folder, "tset")
    with pytest.raises(FileNotFoundError, match="no split 'validation'"):
        factory.load_clips(folder, "validation")


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "no footer"])
def test_a_damaged_shard_is_named(copy, damage):
    shard = next(copy.glob("data/train/*.parquet"))
    data = shard.read_bytes()
    shard.write_bytes(
        {
            "cut off": data[: len(data) // 2],
            "empty": b"",
            "text": b"404 Not Found",
            "no footer": data[:-8] + bytes(8),
        }[damage]
    )
    with pytest.raises(
        factory.DatasetError, match=f"{shard.name} of .* cannot be read .*incomplete or damaged"
    ):
        factory.load_clips(copy)
    assert len(factory.load_clips(copy, "test")) == 1  # the others are not affected


def test_files_that_macos_adds_are_ignored(copy, clips):
    for shard in list(copy.glob("data/*/*.parquet")):
        shard.with_name(f"._{shard.name}").write_bytes(b"\x00\x05\x16\x07 Mac OS X")
    assert [clip.clip_id for clip in factory.load_clips(copy)] == [clip.clip_id for clip in clips]


@pytest.mark.parametrize("version", ["4", "10"])
def test_rows_of_a_newer_schema_are_refused(copy, version):
    shard = next(copy.glob("data/test/*.parquet"))
    table = pq.read_table(shard)
    place = table.column_names.index("schema_version")
    newer = table.set_column(place, table.schema.field(place), [[version] * len(table)])
    pq.write_table(newer, shard)
    with pytest.raises(
        factory.DatasetError, match=f"schema version {version}; menagerie4d .* up to 3: upgrade it"
    ):
        factory.load_clips(copy)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("hub:org/mv-video", "hf://datasets/org/mv-video"),
        ("hub:org/mv-video@v1", "hf://datasets/org/mv-video@v1"),
        ("hub:org/mv-video@refs/pr/1", "hf://datasets/org/mv-video@refs%2Fpr%2F1"),
        ("s3://bucket/mv-video", "s3://bucket/mv-video"),
        ("out/mv-video", "out/mv-video"),
    ],
)
def test_datasets_have_the_names_under_which_they_are_published(name, url):
    assert dataset_url(name) == url


def test_names_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="'hub:mv-video' is not a repository name: expected hub:org/name"):
        factory.load_clips("hub:mv-video")
    with pytest.raises(
        FileNotFoundError, match=r"is not a published dataset .* or give the folder without local:"
    ):
        factory.load_clips(f"local:{tmp_path}")


def test_a_dataset_published_to_a_folder_is_loaded_by_the_same_name(folder, tmp_path):
    factory.dataset.publish(folder, f"local:{tmp_path}")
    assert len(factory.load_clips(f"local:{tmp_path}")) == len(factory.load_clips(folder))
