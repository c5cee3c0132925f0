"""Depth, normals, flow and tracks in a dataset: decoding returns the rendered values, and older data is unchanged."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_clips import clip_info, disc_clip, disc_row

from factory import load_clips
from factory.clips.plan import ClipRecipe
from factory.clips.stage import RenderStage
from factory.dataset.codecs.modalities import MODALITIES, encode_modalities, from_octahedral, to_octahedral
from factory.dataset.pages.card import modality_table, write_card
from factory.dataset.schema import clip_schema, make_row, write_row
from factory.render import main, parse_arguments
from renderers.meshes import RenderSettings
from renderers.meshes.clip import RenderedClip, Tracks

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "dataset.md"


def full_clip() -> RenderedClip:
    """The clip of discs with synthetic geometry inside the discs."""
    clip = disc_clip()
    views, frames, height, width, _ = clip.frames.shape
    rng = np.random.default_rng(0)
    there = clip.mask
    y, x = np.mgrid[:height, :width] / height
    depth = np.where(there, 2.0 + np.sin(3 * x) * y + 0.1 * np.arange(views)[:, None, None, None], 0.0)
    normals = rng.normal(size=(views, frames, height, width, 3))
    normals = np.where(there[..., None], normals / np.linalg.norm(normals, axis=-1, keepdims=True), 0.0)
    flow = np.stack(np.broadcast_arrays(20 * x - 9, 1500 * y * x, there), -1)[:, :-1]
    flow = np.where(flow[..., 2:] > 0, flow[..., :2], np.nan)
    points = rng.uniform(-1, 1, (frames, 21, 3)).astype(np.float32)
    tracks = Tracks.of(points, rng.random((views, frames, 21)) < 0.5, clip.cameras)
    maps = {"depth": depth, "normals": normals, "flow": flow}
    return replace(clip, tracks=tracks, **{name: values.astype(np.float32) for name, values in maps.items()})


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    return full_clip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip) -> Path:
    root = tmp_path_factory.mktemp("modalities")
    (root / "data" / "train").mkdir(parents=True)
    (root / "data" / "train" / "part-00000.parquet").write_bytes(write_row(make_row(clip, clip_info())))
    return root


def test_what_was_rendered_comes_back(folder, clip):
    stored = load_clips(folder)[0].read(modalities=MODALITIES)
    row = load_clips(folder)[0].metadata
    assert np.abs(stored.depth - clip.depth).max() <= row["depth_step"] / 2 + 1e-7
    assert row["depth_step"] == 2**-13 and ((stored.depth > 0) == (clip.depth > 0)).all()
    cosine = (stored.normals * clip.normals).sum(-1)[clip.mask]
    assert np.rad2deg(np.arccos(cosine.min())) < 1.0 and not stored.normals[~clip.mask].any()
    flow, valid = stored.flow[:, :-1], np.isfinite(clip.flow[..., 0])
    assert (stored.flow_valid[:, :-1] == valid).all() and not stored.flow_valid[:, -1].any()
    assert np.abs(flow - clip.flow)[valid].max() <= row["flow_step"] / 2 and row["flow_step"] == 1 / 32
    assert np.array_equal(stored.tracks.points, clip.tracks.points)
    assert np.array_equal(stored.tracks.visible, clip.tracks.visible)
    assert np.array_equal(stored.tracks.pixels, clip.tracks.pixels)


def test_some_views_and_frames(folder):
    clip = load_clips(folder)[0]
    everything, some = clip.read(modalities=MODALITIES), clip.read([3, 1, 1], [5, 0], modalities=MODALITIES)
    at = np.ix_([3, 1, 1], [5, 0])
    for name in ("depth", "normals", "flow"):
        assert np.array_equal(getattr(some, name), getattr(everything, name)[at], equal_nan=True)
    assert np.array_equal(some.tracks.points, everything.tracks.points[[5, 0]])
    assert np.array_equal(some.tracks.visible, everything.tracks.visible[at])
    assert np.array_equal(some.tracks.depth, everything.tracks.depth[at])
    assert clip.read(0, 0).depth is None
    with pytest.raises(ValueError, match="no flow was read"):
        _ = clip.read(0, 0).flow_valid


def test_equal_clips_give_equal_bytes(clip):
    assert encode_modalities(clip) == encode_modalities(full_clip())
    assert encode_modalities(clip) != encode_modalities(replace(clip, depth=clip.depth[::-1]))


def test_every_direction_survives_eight_bits():
    normals = np.random.default_rng(1).normal(size=(3, 100_000))
    normals = np.concatenate([normals, np.eye(3), -np.eye(3)], axis=1)
    normals /= np.linalg.norm(normals, axis=0)
    back = from_octahedral(to_octahedral(normals))
    angles = np.rad2deg(np.arccos(np.clip((back * normals).sum(0), -1, 1)))
    print(f"octahedral: mean {angles.mean():.2f}, largest {angles.max():.2f} degrees")
    assert angles.max() < 0.95 and (angles[-6:] < 1e-3).all()


def test_without_modalities_nothing_changes():
    """The columns, and thus every byte of a dataset, and the keys used for resuming."""
    assert not [name for name in clip_schema(16).names if name.startswith(MODALITIES) or "track" in name]
    assert set(disc_row()) == set(clip_schema(16).names)
    args = ["--out", "x", "--seed", "5"]
    assert RenderStage().identity.split(":")[1] == RenderSettings().hash()
    assert parse_arguments(args).render.modalities == ()
    plain = RenderStage(ClipRecipe(), RenderSettings())
    more = RenderStage(ClipRecipe(), RenderSettings(flow=True))
    assert more.identity != plain.identity and more.memory > plain.memory


def test_a_dataset_without_them_says_so(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part-00000.parquet").write_bytes(write_row(disc_row()))
    clips = load_clips(tmp_path)
    assert clips.modalities == ()
    with pytest.raises(
        ValueError, match=r"has no depth, no flow; it has colour only\. .*--modalities depth,flow"
    ):
        clips[0].read(modalities=["depth", "flow"])


def test_damage_is_named(tmp_path, clip):
    row = make_row(clip, clip_info())
    row["flow_05"], row["track_points"] = row["flow_05"][:200], b"nothing"
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part-00000.parquet").write_bytes(write_row(row))
    stored = load_clips(tmp_path)[0]
    stored.read(4, 0, modalities=["flow"])
    for view, name in ((5, "flow"), (0, "tracks")):
        with pytest.raises(ValueError, match=rf"clip disc, {name}, in .*compare its sha256"):
            stored.read(view, 0, modalities=[name])


def test_metadata_and_card_know_them(folder):
    clips = load_clips(folder)
    assert clips.modalities == MODALITIES
    assert {"depth_step", "flow_step"} < set(clips.columns)
    assert not [
        name for name in clips.columns if name.startswith(("depth_0", "normals_0", "flow_0", "track_"))
    ]
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert "## Modalities" in card and "depth, normals, flow and tracks" in card and modality_table() in card


def test_some_of_them(tmp_path, clip):
    row = make_row(replace(clip, normals=None, flow=None, tracks=None), clip_info())
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part-00000.parquet").write_bytes(write_row(row))
    clips = load_clips(tmp_path)
    assert clips.modalities == ("depth",) and clips[0].read(0, 0, modalities=["depth"]).depth.any()
    write_card(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "`depth_00`" in card and "`flow_00`" not in card


def test_the_guide(folder):
    """The table in docs/dataset.md matches the columns, and its PyArrow example runs unchanged."""
    guide = GUIDE.read_text()
    assert modality_table() in guide
    (example,) = re.findall(r"```python\n(import io\nimport numpy[^`]*depth_step[^`]*)```", guide)
    values: dict = {}
    exec(example.replace("path/data", str(folder / "data")), values)
    ours = load_clips(folder)[0].read(0, modalities=MODALITIES)
    np.testing.assert_array_equal(values["depth"], ours.depth[0])
    np.testing.assert_array_equal(values["flow"], ours.flow[0])
    np.testing.assert_allclose(values["normals"], ours.normals[0], atol=1e-6)
    np.testing.assert_array_equal(values["points"], ours.tracks.points)
    np.testing.assert_array_equal(
        values["visible"], load_clips(folder)[0].read(modalities=["tracks"]).tracks.visible
    )


def test_datasets_sees_bytes(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features.from_arrow_schema(clip_schema(16, MODALITIES))
    assert features["depth_07"] == features["track_points"] == datasets.Value("binary")
    assert features["flow_step"] == datasets.Value("float64")
    assert pq.read_schema(folder / "data" / "train" / "part-00000.parquet").equals(
        clip_schema(16, MODALITIES)
    )
    assert pa.types.is_binary(clip_schema(16, ["flow"]).field("flow_15").type)


@pytest.mark.parametrize("backend", ["pyrender", "blender"])
def test_other_back_ends_refuse(backend, capsys):
    with pytest.raises(SystemExit):
        main(["--out", "x", "--renderer", backend, "--modalities", "flow"])
    assert "--renderer opengl" in capsys.readouterr().err


def test_unknown_modalities_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--out", "x", "--modalities", "depth,colour"])
    assert "expected names from depth,normals,flow,tracks, got colour" in capsys.readouterr().err


def test_the_stage_stores_what_the_renderer_gives():
    """A creature rendered by the stage: the settings in its row render it again identically."""
    from factory.assets.record import AssetRecord
    from factory.clips.stage import asset_tasks
    from factory.sources import open_source
    from renderers import gltf
    from renderers.meshes import render_clip

    settings = RenderSettings(depth=True, normals=True, flow=True, tracks=100, track_seed=4)
    stage = RenderStage(ClipRecipe(resolution=32, num_frames=4, fps=6, views=2, max_animations=1), settings)
    stage.setup()
    source = open_source("creatures://robot?seed=1")
    record: AssetRecord = next(iter(source.list()))
    clip_task = stage.process(next(asset_tasks([record], stage))).follow_up[0]
    (data,) = stage.process(clip_task).files.values()
    (row,) = pq.read_table(io.BytesIO(data)).to_pylist()
    from factory import row_to_shot

    shot, again = row_to_shot(row)
    assert again == settings
    rendered = render_clip(gltf.load(source.fetch(record)), shot, again)
    assert {name: row[name] for name in encode_modalities(rendered)} == encode_modalities(rendered)
    assert (stage.process(clip_task).files.popitem()[1]) == data
