"""The dataset card (README.md) and ATTRIBUTION.md, generated from the rows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow as pa

from cluster.arguments import location
from cluster.storage import Storage, open_filesystem
from factory.dataset.codecs.modalities import DESCRIPTIONS as MODALITY_DESCRIPTIONS
from factory.dataset.codecs.modalities import MODALITIES
from factory.dataset.notes import countable, is_of_motion
from factory.dataset.output import check_pages
from factory.dataset.reader import ClipDataset, load_clips
from factory.dataset.schema import DESCRIPTIONS, VIEWS, clip_schema
from zoo.card import escape as escape_markdown

_ASSETS_IN_CARD = 200  # with more, the table is only in ATTRIBUTION.md: hubs truncate long cards
_Row = dict[str, Any]
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


def write_card(root: str | os.PathLike[str]) -> None:
    """Write README.md and ATTRIBUTION.md of a dataset.

    Args:
        root: path or URL of the dataset.

    Raises:
        FileNotFoundError: the dataset has no shards.
        ForeignFolderError: one of the files exists and was written by somebody else.
        StorageError: the files cannot be written.
    """
    check_pages(location(root, "write_card: root"))
    storage = Storage(root)
    for name, data in card_files(root).items():
        storage.write(name, data)


def card_files(
    root: str | os.PathLike[str],
    *,
    name: str = "",
    pictures: Sequence[str] = (),
    preview: bool = False,
    taken_down: str = "",
) -> dict[str, bytes]:
    """Generate ATTRIBUTION.md and README.md of a dataset, the card last.

    Args:
        root: path or URL of the dataset.
        name: argument for `datasets.load_dataset`, "" if unknown.
        pictures: paths of histograms.
        preview: whether the release has a folder of preview videos (`factory.dataset.pages.preview`).
        taken_down: path of the list of removed assets, "" if there is none.

    Returns:
        File name → content.

    Raises:
        FileNotFoundError: the dataset has no shards.
    """
    fs, folder = open_filesystem(os.fspath(root))
    dataset = load_clips(root)
    rows = dataset.table()
    assets = _assets(rows)
    attribution = _asset_table(assets)
    has_sheet = fs.exists(f"{folder.rstrip('/')}/contact_sheet.png")
    captioned = fs.glob(f"{folder.rstrip('/')}/captions/*.parquet")
    extras = _Extras(name, has_sheet, tuple(pictures), preview, taken_down)
    card = _front_matter(rows, bool(captioned), preview) + _body(dataset, rows, assets, attribution, extras)
    return {
        "ATTRIBUTION.md": f"# Attribution\n\n{attribution}".encode(),
        "README.md": card.encode(),
    }


def column_table(views: int = VIEWS) -> str:
    """Describe the columns of every dataset in a Markdown table: name, type, meaning."""
    return _description_table(DESCRIPTIONS, views, ())


def modality_table(views: int = VIEWS, modalities: Sequence[str] = MODALITIES) -> str:
    """Describe the additional columns of modalities in a Markdown table."""
    meanings = {
        name: text for modality in modalities for name, text in MODALITY_DESCRIPTIONS[modality].items()
    }
    return _description_table(meanings, views, modalities)


def _description_table(meanings: Mapping[str, str], views: int, modalities: Sequence[str]) -> str:
    kinds = {field.name: _kind(field.type) for field in clip_schema(views, modalities)}
    rows = []
    for name, meaning in meanings.items():
        first = name.replace("NN", "00")
        shown = f"`{name}`" if first == name else f"`{first}` … `{name.replace('NN', f'{views - 1:02d}')}`"
        rows.append((shown, kinds[first], meaning))
    return _table(("column", "type", "meaning"), rows)


def _kind(kind: pa.DataType) -> str:
    """Name of a column type with its shape, e.g. "float64 [16, 3, 3]"."""
    shape = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(str(kind.list_size) if pa.types.is_fixed_size_list(kind) else "T")
        kind = kind.value_type
    if shape == ["T"] and pa.types.is_string(kind):  # one per note, not one per frame
        return "list of strings"
    name = "mp4 (`Video`)" if pa.types.is_struct(kind) else {"double": "float64"}.get(str(kind), str(kind))
    return f"{name} [{', '.join(shape)}]" if shape else name


@dataclass(frozen=True)
class _Extras:
    """Files beside the shards that the card refers to; see `card_files`."""

    name: str
    has_sheet: bool
    pictures: tuple[str, ...]
    preview: bool
    taken_down: str


def _front_matter(rows: pa.Table, captioned: bool, preview: bool) -> str:
    licences = set(rows["licence"].to_pylist())
    licence = next(iter(licences)).lower() if len(licences) == 1 else "other"
    size = next((name for limit, name in _SIZES if len(rows) < limit), "n>1M")
    lines = ["---", f"license: {licence if re.fullmatch(r'[a-z0-9.-]+', licence) else 'other'}"]
    if len(licences) > 1:
        lines += ["license_name: per-clip", "license_link: ATTRIBUTION.md"]
    lines += ["pretty_name: MV-Video", "size_categories:", f"- {size}", "task_categories:"]
    lines += ["- image-to-video", "- text-to-video", "tags:"]
    lines += [f"- {tag}" for tag in ("multi-view", "video", "3d", "4d", "animation", "menagerie4d")]
    # The cache of `datasets` is keyed by the folder's name and these lines, not by the data. Without a digest of the
    # content, it would confuse two datasets in folders of the same name, or one before and after it gained columns.
    content = [*rows["clip_id"].to_pylist(), *(f"{field.name}: {field.type}" for field in rows.schema)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    lines += ["configs:", "- config_name: default", f"  description: {len(rows)} clips, content {digest}"]
    lines += ["  data_files:"]
    for split in _splits(rows):
        lines += [f"  - split: {split}", f"    path: data/{split}/*.parquet"]
    if captioned:
        lines += ["- config_name: captions", "  data_files: captions/*.parquet"]
    if preview:
        lines += ["- config_name: preview", "  data_files:", "  - split: preview"]
        lines += ["    path: preview/metadata.parquet"]
    return "\n".join([*lines, "---", "", ""])


def _body(dataset: ClipDataset, rows: pa.Table, assets: list[_Row], attribution: str, extras: _Extras) -> str:
    views, frames, width, height = (
        _range(rows[name]) for name in ("num_views", "num_frames", "width", "height")
    )
    videos = sum(rows["num_views"].to_pylist())
    sentence = (
        f"{len(rows):,} clips of {len(assets):,} animated 3D model{'s' * (len(assets) != 1)}: {videos:,} "
        f"videos, {views} synchronised views of {frames} frames at {_range(rows['fps'])} frames per second, "
        f"{width} x {height} pixels, with alpha and cameras. {dataset.size_bytes / 1e6:,.1f} MB."
    )
    parts = ["# MV-Video", sentence]
    if extras.has_sheet:
        parts.append("![Some of the clips](contact_sheet.png)")
    parts += ["## Clips", _table(("split", "clips", "assets"), _split_counts(rows))]
    parts += [" ".join(f"![{PurePosixPath(path).stem}]({path})" for path in extras.pictures)]
    if extras.preview:
        parts.append(
            "`preview/` contains plain videos of a sample of the assets: one clip each, one view, on grey."
        )
    if extras.taken_down:
        parts.append(
            f"Some assets were taken down: [{extras.taken_down}]({extras.taken_down}) lists their clips. "
            f"Please remove them from copies of earlier revisions as well."
        )
    parts += ["## Loading", _loading(_splits(rows)[0], extras.name, extras.preview)]
    parts += [
        "## Licences",
        "The columns `licence` and `attribution` of each clip contain the licence of its 3D model and the credit "
        "line for the author.",
        _table(("licence", "assets", "clips"), _counts(assets, "licence")),
        "AI use, as declared by the authors (column `noai`: whether it is forbidden):",
        _table(("noai", "assets", "clips"), _counts(assets, "noai")),
        "## Assets",
        attribution
        if len(assets) <= _ASSETS_IN_CARD
        else f"{len(assets):,} assets, each with its author and licence: [ATTRIBUTION.md](ATTRIBUTION.md).",
        "## Made with",
        _table(
            ("renderer", "settings", "menagerie4d", "clips"),
            _count_combinations(rows, ("renderer_version", "settings", "package_version")),
        ),
        *_notes_section(rows),
        "Each row contains the inputs needed to render it again: `factory.row_to_shot(row)`.",
        "## Columns",
        column_table(rows["num_views"][0].as_py()),
    ]
    if dataset.modalities:
        parts += [
            "## Modalities",
            f"These clips also have {_listing(dataset.modalities)}, computed from the animated mesh for the first "
            "surface that is at least half opaque at the centre of each pixel: "
            f"`clip.read(modalities={list(dataset.modalities)})`.",
            modality_table(rows["num_views"][0].as_py(), dataset.modalities),
        ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _notes_section(rows: pa.Table) -> list[str]:
    """The notes of the clips by count, [] if there are none."""
    if "notes" not in rows.column_names:  # of a dataset started by an older version
        return []
    clips: dict[str, int] = {}
    assets: dict[str, set[tuple[str, str]]] = {}
    for row in rows.select(["source", "asset_uid", "notes"]).to_pylist():
        for note in dict.fromkeys(map(countable, row["notes"] or ())):
            clips[note] = clips.get(note, 0) + 1
            assets.setdefault(note, set()).add((row["source"], row["asset_uid"]))
    if not clips:
        return []
    motions = (
        ", and some clips repeat a cycle or stand still in part" if any(map(is_of_motion, clips)) else ""
    )
    counted = sorted(clips, key=lambda note: (-len(assets[note]), note))
    table = [(_escape(note), f"{len(assets[note]):,}", f"{clips[note]:,}") for note in counted]
    return [
        "## Differences from the files",
        f"Some models are not drawn exactly as their files specify{motions} (column `notes`):",
        _table(("note", "assets", "clips"), table),
    ]


def _loading(split: str, name: str, preview: bool) -> str:
    url = f"hf://datasets/{name}" if name else "path or URL"
    name = name or "path/or/org/name"
    videos = f'\nvideos = datasets.load_dataset("{name}", "preview")["preview"]' if preview else ""
    return f"""
```python
import datasets

rows = datasets.load_dataset("{name}", "default", split="{split}", streaming=True)
frame = next(iter(rows))["view_00"][0]  # uint8 [3, H, W]{videos}
```

To read arrays, decoding only some views and frames and compositing them on a background:

```python
import factory

clip = factory.load_clips("{url}")[0]
arrays = clip.read(views=[0, 4, 8, 12], frames=slice(0, 48, 3), background=(127, 127, 127))
arrays.frames, arrays.cameras, arrays.timestamps  # uint8 [V, T, H, W, 3], V cameras, seconds [T]
```

The videos contain straight colour, extended one pixel past the silhouette, on grey 127. `alpha_NN` is a
zlib-compressed .npy, uint8 [T, H, W]. To composite a clip on a background:
`colour * alpha / 255 + background * (1 - alpha / 255)`.
"""


def _splits(rows: pa.Table) -> list[str]:
    order = {"train": 0, "validation": 1, "test": 2}
    return sorted(set(rows["split"].to_pylist()), key=lambda split: (order.get(split, 3), split))


def _split_counts(rows: pa.Table) -> list[tuple[str, str, str]]:
    pairs = list(zip(rows["split"].to_pylist(), rows["asset_sha256"].to_pylist(), strict=True))
    return [
        (split, f"{sum(s == split for s, _ in pairs):,}", f"{len({a for s, a in pairs if s == split}):,}")
        for split in _splits(rows)
    ]


def _assets(rows: pa.Table) -> list[_Row]:
    """One entry per asset with the number of its clips, sorted by source and title."""
    names = ["source", "asset_uid", "title", "source_url", "author", "licence", "attribution", "noai"]
    entries: dict[tuple[str, str], _Row] = {}
    for row in rows.select(names).to_pylist():
        entry = entries.setdefault((row["source"], row["asset_uid"]), {**row, "clips": 0})
        entry["clips"] += 1
    return sorted(entries.values(), key=lambda asset: (asset["source"], asset["title"], asset["asset_uid"]))


def _asset_table(assets: list[_Row]) -> str:
    return _table(
        ("asset", "author", "licence", "source", "clips", "attribution"),
        [
            (
                _link(asset["title"] or asset["asset_uid"], asset["source_url"]),
                _escape(asset["author"]),
                _escape(asset["licence"]),
                _escape(asset["source"]),
                str(asset["clips"]),
                _escape(asset["attribution"]),
            )
            for asset in assets
        ],
    )


def _counts(assets: list[_Row], name: str) -> list[tuple[str, str, str]]:
    values = sorted({asset[name] for asset in assets})
    return [
        (
            _escape(value),
            f"{sum(asset[name] == value for asset in assets):,}",
            f"{sum(asset['clips'] for asset in assets if asset[name] == value):,}",
        )
        for value in values
    ]


def _count_combinations(rows: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    counted = rows.group_by(list(names)).aggregate([([], "count_all")]).to_pylist()
    return sorted((*(_escape(row[name]) for name in names), f"{row['count_all']:,}") for row in counted)


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _range(column: pa.ChunkedArray) -> str:
    """The single value of a column, or its minimum and maximum."""
    values = sorted(set(column.to_pylist()))
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g}–{values[-1]:g}"


def _escape(text: str) -> str:
    """Escape third-party text. All colons are escaped, as before, so that published cards do not change."""
    return escape_markdown(text, every_colon=True)


def _link(text: str, url: str) -> str:
    """Link http(s) addresses; return plain text otherwise."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _escape(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return _escape(text)
    return f"[{_escape(text)}]({quote(url, safe=':/?#@!$&*+,;=%~._-')})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
