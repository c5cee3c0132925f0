"""The card agrees with the data, and text from third parties is rendered literally."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from sample_clips import clip_info, disc_clip, disc_row

from factory import load_clips
from factory.assets.licences import attribution
from factory.dataset.packing import ShardPacker
from factory.dataset.pages.card import column_table, write_card
from factory.dataset.schema import make_row, write_row
from factory.dataset.shards import staged_path
from zoo.card import escape

markdown_it = pytest.importorskip("markdown_it", reason="renders the card as a web page would")

EVIL = (
    "</td><script>alert(1)</script> | `x` [a](javascript:b) ![i](//e.org/i.png)\n# Head <b> *em* www.evil.org"
)


def write_dataset(root, rows: list[dict]) -> None:
    with ShardPacker(str(root)) as packer:
        for order, row in enumerate(rows):
            path = root / staged_path(row["clip_id"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write_row(row))
            packer.planned(order, [row["clip_id"]])
            packer.finished(row["clip_id"], committed=True)


def rows(**changes: object) -> list[dict]:
    kangaroo = {
        **disc_row(),
        "asset_uid": "kangaroo",
        "title": "Kangaroo",
        "author": "Bo",
        "licence": "CC0-1.0",
    }
    return [
        {**disc_row(), "clip_id": "a"},
        {**disc_row(), "clip_id": "b"},
        {**kangaroo, "clip_id": "c", "split": "test", **changes},
    ]


def card(root) -> tuple[dict, str]:
    _, front, body = (root / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_is_what_a_hub_reads(tmp_path):
    write_dataset(tmp_path, rows())
    write_card(tmp_path)
    front, _ = card(tmp_path)
    (config,) = front["configs"]
    assert config.pop("description").startswith(f"{len(load_clips(tmp_path))} clips, content ")
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train/*.parquet"},
                {"split": "test", "path": "data/test/*.parquet"},
            ],
        }
    ]
    assert front["license"] == "other" and front["license_link"] == "ATTRIBUTION.md"
    assert front["size_categories"] == ["n<1K"]


def test_one_licence_for_all_is_the_licence_of_the_dataset(tmp_path):
    write_dataset(tmp_path, rows()[:2])
    write_card(tmp_path)
    assert card(tmp_path)[0]["license"] == "cc-by-4.0"


def test_numbers_come_from_the_rows(tmp_path):
    write_dataset(tmp_path, rows())
    write_card(tmp_path)
    _, body = card(tmp_path)
    assert (
        "3 clips of 2 animated 3D models: 48 videos, 16 synchronised views of 8 frames at 24 frames" in body
    )
    assert "| train | 2 | 1 |" in body and "| test | 1 | 1 |" in body
    assert "| CC-BY-4.0 | 1 | 2 |" in body and "| CC0-1.0 | 1 | 1 |" in body
    assert "| [Disc](https://example.org/disc) | Ada | CC-BY-4.0 | tests | 2 |" in body
    assert "discs 1 (numpy)" in body
    assert "contact_sheet.png" not in body
    (tmp_path / "contact_sheet.png").write_bytes(b"")
    write_card(tmp_path)
    assert "![Some of the clips](contact_sheet.png)" in card(tmp_path)[1]
    assert "Kangaroo" in (tmp_path / "ATTRIBUTION.md").read_text()


def test_the_card_is_the_same_every_time(tmp_path):
    write_dataset(tmp_path, rows())
    write_card(tmp_path)
    first = (tmp_path / "README.md").read_bytes()
    write_card(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == first


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://x.org/a)b c|<d>", "file:///etc/passwd", "http://[", ""]
)
def test_untrusted_text_is_escaped(tmp_path, url):
    """Reference: a Markdown renderer with HTML enabled, like those of hubs."""
    credit = attribution(EVIL, EVIL, url, "CC0-1.0")
    write_dataset(tmp_path, rows(title=EVIL, author=EVIL, source_url=url, attribution=credit, source=EVIL))
    write_card(tmp_path)
    parser = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    page = parser.render(card(tmp_path)[1])
    assert "<script" not in page and "<img" not in page and "<em>" not in page and "<h1>Head" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3  # shown, in title, author and credit
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert "https://example.org/disc" in links
    strange = {link for link in links if not link.startswith("https://example.org/")}
    assert strange == ({"https://x.org/a%29b%20c%7C%3Cd%3E"} if url.startswith("https") else set())
    assets = page.split("Assets</h2>")[1].split("<h2>")[0]
    assert assets.count("<tr>") == 3 and assets.count("<td>") == 12


def test_control_unescaped_text_would_do_harm():
    parser = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    assert "<script" in parser.render(EVIL)
    assert "<script" not in parser.render(escape(EVIL))


def test_a_row_of_another_kind_is_counted_apart(tmp_path):
    forbidden = make_row(disc_clip(frames=1), clip_info(clip_id="d", asset_uid="new", noai="yes", fps=12))
    write_dataset(tmp_path, [*rows()[:2], forbidden])
    write_card(tmp_path)
    _, body = card(tmp_path)
    assert "| yes | 1 | 1 |" in body and "| no | 1 | 2 |" in body
    assert "of 1–8 frames at 12–24 frames per second" in body


def test_the_guide_lists_the_columns_as_they_are():
    guide = Path(__file__).resolve().parents[2] / "docs" / "dataset.md"
    assert column_table() in guide.read_text()


def test_no_card_without_clips(tmp_path):
    with pytest.raises(FileNotFoundError, match="no clips in"):
        write_card(tmp_path)
