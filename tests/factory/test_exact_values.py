"""Small decisions of the factory against values computed by hand."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest

from factory.assets.splits import assign_split
from factory.dataset.captions import SCHEMA, newest_captions, pack_captions, read_caption_rows


def test_the_newest_caption_counts_whatever_its_file_is_called(tmp_path):
    """The part that is read first was written last."""
    (tmp_path / "captions").mkdir()
    for name, caption, at in (
        ("part-a", "hops", "2026-02-01T00:00:00Z"),
        ("part-b", "walks", "2026-01-01T00:00:00Z"),
    ):
        row = {"clip_id": "clip", "caption": caption, "caption_origin": "model", "prompt": "", "at": at}
        (tmp_path / "captions" / f"{name}.parquet").write_bytes(
            pack_captions(pa.Table.from_pylist([row], schema=SCHEMA))
        )
    rows = read_caption_rows(tmp_path)
    assert [row["caption"] for row in rows] == ["walks", "hops"]
    assert newest_captions(rows)["clip"].text == "hops"


@pytest.mark.parametrize("sha256", ["0" * 64, "a" * 64, "dragon"])
def test_the_split_is_the_position_of_a_hash_in_the_fractions(sha256):
    """Published datasets depend on it: SHA-256 of "split:" and the asset's hash, as a fraction of 2^64."""
    digest = hashlib.sha256(f"split:{sha256}".encode()).hexdigest()
    position = int(digest[:16], 16) / 2**64
    assert assign_split(sha256, {"first": position + 1e-9, "rest": 1 - position - 1e-9}) == "first"
    assert assign_split(sha256, {"first": position - 1e-9, "rest": 1 - position + 1e-9}) == "rest"
