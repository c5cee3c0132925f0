"""A row is complete and exact, and can be rendered again."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_clips import clip_info, disc_clip, disc_row

from factory.assets.licences import attribution
from factory.assets.splits import assign_split
from factory.dataset.codecs.video import decode_h264, unpack_alpha
from factory.dataset.conversion import convert_clips
from factory.dataset.schema import (
    DESCRIPTIONS,
    MOTION_COLUMNS,
    RowError,
    clip_schema,
    make_row,
    row_to_shot,
    write_row,
)
from renderers.meshes.clip import RenderSettings


def read_row(data: bytes) -> dict:
    return pq.read_table(pa.BufferReader(data)).to_pylist()[0]


def test_a_row_is_the_same_after_parquet():
    row = disc_row()
    assert set(row) == set(clip_schema(16).names)
    assert read_row(write_row(row)) == row


def test_the_same_clip_gives_the_same_bytes():
    again = make_row(disc_clip(), clip_info())
    assert write_row(again) == write_row(disc_row())
    other = make_row(disc_clip(), clip_info(seed=8))
    assert write_row(other) != write_row(disc_row())


def test_a_row_holds_what_renders_it_again():
    clip = disc_clip()
    shot, settings = row_to_shot(read_row(write_row(disc_row())))
    assert settings == RenderSettings(samples=16)
    assert shot.animation == 0
    for stored, given in (
        (shot.timestamps, clip.timestamps),
        (shot.asset_to_world, clip_info().asset_to_world),
        (shot.cameras.K, clip.cameras.K),
        (shot.cameras.world_to_camera, clip.cameras.world_to_camera),
    ):
        assert np.array_equal(stored, given)  # bit-identical, so that rendering gives the same image
    assert (shot.cameras.width, shot.cameras.height) == (64, 64)


def test_pixels_of_a_row():
    row, clip = disc_row(), disc_clip()
    for view in (0, 15):
        alpha = unpack_alpha(row[f"alpha_{view:02d}"])
        assert np.array_equal(alpha, clip.frames[view, ..., 3])
        colour = decode_h264(row[f"view_{view:02d}"]["bytes"])
        error = np.abs(colour.astype(int) - clip.frames[view, ..., :3])[alpha == 255]
        assert error.mean() < 2


@pytest.mark.parametrize("name", ["licence", "source", "attribution"])
@pytest.mark.parametrize("value", ["", "  "])
def test_no_row_without_its_origin(name, value):
    with pytest.raises(RowError, match=f"clip disc .*no {name}"):
        make_row(disc_clip(), clip_info(**{name: value}))
    with pytest.raises(RowError, match=f"no {name}"):
        write_row({**disc_row(), name: value})


@pytest.mark.parametrize("name", ["renderer_version", "package_version"])
@pytest.mark.parametrize("value", ["", None])  # None: the version of a package that is being replaced
def test_no_row_that_does_not_say_what_made_it(name, value):
    with pytest.raises(RowError, match=f"clip disc .*no {name}.*package replaced"):
        write_row({**disc_row(), name: value})


def test_an_unknown_licence_is_said_to_be_unknown():
    row = make_row(disc_clip(frames=1), clip_info(licence="unknown"))
    assert read_row(write_row(row))["licence"] == "unknown"


def test_clip_and_info_must_agree():
    with pytest.raises(RowError, match="15 azimuths"):
        make_row(disc_clip(), clip_info(azimuths_deg=[0.0] * 15))
    motion = {name: 0.0 for name in MOTION_COLUMNS[1:]} | {"motion_wobble": 1.0}
    with pytest.raises(RowError, match="motion_wobble"):
        make_row(disc_clip(), clip_info(motion=motion))


def test_datasets_finds_the_features_that_are_meant():
    datasets = pytest.importorskip("datasets")
    schema = clip_schema(16)
    features = datasets.Features.from_arrow_schema(schema)
    assert features["view_07"] == datasets.Video()
    assert features["alpha_07"] == datasets.Value("binary")
    assert features["fps"] == datasets.Value("float64") and features["seed"] == datasets.Value("int64")
    matrix = datasets.List(datasets.List(datasets.Value("float64"), length=3), length=3)
    assert features["K"] == datasets.List(matrix, length=16)
    assert features["timestamps"] == datasets.List(datasets.Value("float64"))
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"] == features.to_dict()
    assert features.arrow_schema.equals(schema)


def staged(info=None) -> pa.Table:
    return pq.read_table(pa.BufferReader(write_row(make_row(disc_clip(frames=1), info or clip_info()))))


def test_clips_are_added_to_a_dataset_of_version_2_without_notes():
    clip = staged(clip_info(notes=["KHR_materials_volume is ignored"]))
    version_2 = clip.schema.remove(clip.schema.get_field_index("notes"))
    converted = convert_clips(clip, version_2)
    assert converted.schema.equals(version_2) and converted["schema_version"].to_pylist() == ["2"]
    assert converted["view_03"].equals(clip["view_03"]) and converted["K"].equals(clip["K"])


def test_clips_of_version_2_are_added_to_a_dataset_with_notes():
    clip = staged()
    converted = convert_clips(clip.drop_columns(["notes"]), clip.schema)
    assert converted.schema.equals(clip.schema) and converted["notes"].to_pylist() == [None]
    assert converted["schema_version"].to_pylist() == ["3"]


def test_other_columns_are_not_converted():
    clip = staged()
    assert not convert_clips(clip.drop_columns(["seed"]), clip.schema).schema.equals(clip.schema)
    assert not convert_clips(clip.drop_columns(["seed", "notes"]), clip.schema).schema.equals(clip.schema)
    assert not convert_clips(clip, clip_schema(8)).schema.equals(clip_schema(8))


def test_every_column_is_described():
    names = {name for name in clip_schema(1).names}
    assert {name.replace("NN", "00") for name in DESCRIPTIONS} == names
    assert [name for name in clip_schema(4).names if name.startswith("view_")] == [
        f"view_0{v}" for v in range(4)
    ]


def test_attribution_names_what_is_known():
    assert (
        attribution("Fox", "Ada", "https://x.org/1", "CC0-1.0")
        == '"Fox" by Ada, licence: CC0-1.0, https://x.org/1'
    )
    assert attribution("", "", "", "unknown") == '"Untitled" by an unnamed author, licence: unknown'


def test_splits_follow_the_content_of_an_asset():
    assets = [f"{number:064x}" for number in range(4000)]
    splits = [assign_split(asset) for asset in assets]
    assert splits == [assign_split(asset) for asset in assets]
    assert 0.97 < splits.count("train") / 4000 < 0.99
    assert 20 <= splits.count("validation") <= 70 and 20 <= splits.count("test") <= 70
    # A larger test fraction only moves assets out of train: no held-out asset becomes training data.
    wider = [assign_split(asset, {"train": 0.9, "validation": 0.05, "test": 0.05}) for asset in assets]
    assert all(now == "train" for before, now in zip(wider, splits, strict=True) if before == "train")
    with pytest.raises(ValueError, match="add up to 1"):
        assign_split("a", {"train": 0.5, "test": 0.4})


def test_import_of_the_package_is_light():
    heavy = "torch", "datasets", "ray", "pyarrow", "av", "moderngl"
    code = f"import sys, factory; factory.__all__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
