"""An exported dataset has the layout of LeRobot 3, and its videos show the clips' own pixels."""

from __future__ import annotations

import json
from pathlib import Path

import av
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from sample_clips import clip_info, disc_clip

import factory
from factory.curate import main as curate
from factory.dataset.lerobot import ExportError, export_lerobot
from factory.dataset.schema import make_row, write_row

VIEWS, FRAMES, FPS = 3, 7, 24
SPLITS = ["test", "train", "train", "validation"]


def write_dataset(root: Path, **changes: object) -> Path:
    """Four clips in three splits; the disc of clip n starts n frames late."""
    for number, split in enumerate(SPLITS):
        clip = disc_clip(views=VIEWS, frames=FRAMES, size=32)
        late = type(clip)(np.roll(clip.frames, number, 1), clip.cameras, clip.timestamps, clip.renderer)
        info = {
            "clip_id": f"clip-{number}",
            "split": split,
            "caption": f"a disc rolls {number % 2}",
            "fps": FPS,
        }
        info |= changes if number == 2 else {}
        with factory.ShardPacker(str(root)) as packer:
            key = f"clip-{number}"
            with fsspec.open(f"{root}/{factory.staged_path(key)}", "wb", auto_mkdir=True) as file:
                file.write(write_row(make_row(late, clip_info(VIEWS, **info))))
            packer.planned(0, [key])
            packer.finished(key, committed=True)
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("mv-video"))


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory) -> Path:
    return export_lerobot(factory.load_clips(dataset), tmp_path_factory.mktemp("export") / "lerobot")


def test_episodes_and_frames(exported):
    info = json.loads((exported / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", FPS, 4)
    assert info["splits"] == {"train": "0:2", "validation": "2:3", "test": "3:4"}
    episodes = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [episode["clip_id"] for episode in episodes] == ["clip-1", "clip-2", "clip-3", "clip-0"]
    frames = pq.ParquetFile(exported / info["data_path"].format(chunk_index=0, file_index=0))
    assert frames.num_row_groups == 4
    table = frames.read()
    assert set(table.column_names) == {n for n, c in info["features"].items() if c["dtype"] != "video"}
    assert table["index"].to_pylist() == list(range(4 * FRAMES))
    assert table["timestamp"][FRAMES + 3].as_py() == pytest.approx(3 / FPS)
    tasks = pq.read_table(exported / "meta/tasks.parquet").to_pandas()
    assert tasks.index.tolist() == ["a disc rolls 1", "a disc rolls 0"]
    for episode in episodes:
        rows = table.slice(episode["dataset_from_index"], episode["length"])
        assert set(rows["episode_index"].to_pylist()) == {episode["episode_index"]}
        assert tasks.index[rows["task_index"][0].as_py()] == episode["tasks"][0]


def test_videos_show_the_clips(dataset, exported):
    clips = {clip.clip_id: clip for clip in factory.load_clips(dataset)}
    info = json.loads((exported / "meta/info.json").read_text())
    episodes = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for view in range(VIEWS):
        name = f"observation.images.view_{view:02d}"
        assert info["features"][name]["shape"] == [32, 32, 3]
        path = exported / info["video_path"].format(video_key=name, chunk_index=0, file_index=0)
        with av.open(str(path)) as video:
            decoded = {
                round(frame.time * FPS): frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)
            }
        assert sorted(decoded) == list(range(4 * FRAMES))
        for episode in episodes:
            own = clips[episode["clip_id"]]
            stored = own._dataset.read_row(own.index, [f"view_{view:02d}"])[f"view_{view:02d}"]["bytes"]
            first = round(episode[f"videos/{name}/from_timestamp"] * FPS)
            assert episode[f"videos/{name}/to_timestamp"] == pytest.approx((first + FRAMES) / FPS)
            for number, frame in enumerate(_decoded(stored)):
                assert np.array_equal(decoded[first + number], frame)
            other = _decoded(stored)[(number + 1) % FRAMES]
            assert not np.array_equal(decoded[first + number], other)  # the discs of two frames differ


def _decoded(data: bytes) -> list[np.ndarray]:
    import io

    with av.open(io.BytesIO(data)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_cameras_and_statistics(dataset, exported):
    clip = next(clip for clip in factory.load_clips(dataset) if clip.clip_id == "clip-1")
    table = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    stored = np.array(table["camera.world_to_camera"][5].as_py()).reshape(VIEWS, 4, 4)
    assert np.allclose(stored, clip.cameras.world_to_camera, atol=1e-6)
    statistics = json.loads((exported / "meta/stats.json").read_text())
    assert statistics["index"]["mean"] == [(4 * FRAMES - 1) / 2]
    assert statistics["frame_index"]["std"] == pytest.approx([np.arange(FRAMES).std()])
    picture = statistics["observation.images.view_00"]
    assert (
        np.shape(picture["mean"]) == (3, 1, 1) and 0 < np.min(picture["mean"]) < np.max(picture["max"]) <= 1
    )


def test_datasets_reads_frames_and_episodes(exported):
    datasets = pytest.importorskip("datasets")
    episodes = datasets.Dataset.from_parquet(str(exported / "meta/episodes/chunk-000/file-000.parquet"))
    assert len(episodes) == 4 and episodes.features["tasks"] == datasets.List(datasets.Value("string"))


def test_what_does_not_fit(dataset, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("mine")
    with pytest.raises(ExportError, match="mine exists and is not an empty folder"):
        export_lerobot(factory.load_clips(dataset), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    other = write_dataset(tmp_path / "other", fps=12)
    with pytest.raises(ExportError, match="clip clip-2 has fps 12, clip clip-0 has 24"):
        export_lerobot(factory.load_clips(other), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert curate(["export", "--data", str(other), "--to", str(tmp_path / "new")]) == 1
    assert "a LeRobot dataset has one fps" in capsys.readouterr().err
    assert curate(["export", "--data", str(dataset), "--to", str(tmp_path / "new"), "--split", "train"]) == 0
    info = json.loads((tmp_path / "new/meta/info.json").read_text())
    assert info["splits"] == {"train": "0:2"}


def test_an_interrupted_export_leaves_nothing(dataset, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("factory.dataset.lerobot._first_frame", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_lerobot(factory.load_clips(dataset), tmp_path / "lerobot")
    assert list(tmp_path.iterdir()) == []
