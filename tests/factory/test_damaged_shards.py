"""A damaged shard is a sentence with its name in every command that reads it, and nothing is published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_dataset import grow

import factory
import factory.__main__
from factory.dataset.row_groups import RowGroupReader

SHARD = "data/train/part-00000.parquet"


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("discs")
    grow(root, 0, 6)
    return root


def zeros(first: int, last: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:first] + bytes(last - first) + data[last:]


DAMAGES = {
    "without its end": lambda data: data[:-100],
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "its first bytes": lambda data: data[:4],
    "another file": lambda data: b"<html>",
    "pages": zeros(200, 4000),  # the footer is intact
    "footer": lambda data: data[:-8] + (2**31 - 1).to_bytes(4, "little") + data[-4:],
    "cut and grown again": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


@pytest.fixture(params=DAMAGES)
def damaged(request, intact, tmp_path) -> Path:
    root = tmp_path / "discs"
    shutil.copytree(intact, root)
    data = (root / SHARD).read_bytes()
    (root / SHARD).write_bytes(DAMAGES[request.param](data))
    assert (root / SHARD).read_bytes() != data
    return root


@pytest.mark.parametrize("argv", ["publish --data {} --to local:{}-shelf", "curate report --data {}",
                                  "curate export --data {} --to {}-exported"])  # fmt: skip
def test_commands(damaged, capsys, argv):
    before = (damaged / SHARD).read_bytes()
    assert factory.__main__.main(argv.format(damaged, damaged).split()) == 1
    err = capsys.readouterr().err
    assert err.startswith("factory.") and err.count("\n") == 1
    assert f"{SHARD} of {damaged} cannot be read (" in err and "incomplete or damaged" in err
    published = [path for path in damaged.with_name("discs-shelf").rglob("*") if path.is_file()]
    assert published == [] and (damaged / SHARD).read_bytes() == before


def test_pages_that_are_damaged_beyond_the_metadata(intact, tmp_path, capsys):
    """Only the checksum tells."""
    root = tmp_path / "discs"
    shutil.copytree(intact, root)
    data = (root / SHARD).read_bytes()
    (root / SHARD).write_bytes(zeros(len(data) // 2, len(data) // 2 + 64)(data))
    assert factory.__main__.main(["publish", "--data", str(root), "--to", f"local:{tmp_path / 'shelf'}"]) == 1
    assert f"{SHARD} does not match the sha256 in its manifest" in capsys.readouterr().err
    assert [path for path in (tmp_path / "shelf").rglob("*") if path.is_file()] == []


def test_loading(intact, tmp_path):
    root = tmp_path / "discs"
    shutil.copytree(intact, root)
    clips = factory.load_clips(root)
    assert len(clips.table()) == 6
    columns = clips.row_groups[0].footer.row_group(0)
    (chunk,) = (c for c in map(columns.column, range(columns.num_columns)) if c.path_in_schema == "asset_uid")
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    damage = zeros(first, first + chunk.total_compressed_size)
    (root / SHARD).write_bytes(damage((root / SHARD).read_bytes()))
    again = factory.load_clips(root)  # reads the footer only
    for read in (
        lambda: again.table(),
        lambda: again.read_row(0, ["clip_id", "asset_uid"]),
        lambda: RowGroupReader(again).read(0, ["clip_id", "asset_uid"]),
    ):
        with pytest.raises(factory.DatasetError, match=f"{SHARD} of {root} cannot be read .*incomplete"):
            read()


def test_the_control(intact, tmp_path):
    shelf = tmp_path / "shelf"
    assert factory.__main__.main(["publish", "--data", str(intact), "--to", f"local:{shelf}"]) == 0
    assert len(list(shelf.rglob("*.parquet"))) >= 1
