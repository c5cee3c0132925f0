"""Captions: composed from the asset's names without a model, and stored beside the shards.

Captions by a model (`factory.dataset.captioning`) are not written into the shards, because replacing a few bytes of
text would rewrite and upload every video again. They are a table beside them, `captions/part-*.parquet`, one row per
clip. `factory.load_clips` replaces a row's own caption with the newest one from this table. A part is written once and
only changed by a takedown.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage, StorageError
from factory.dataset.shard_file import read_table

FOLDER = "captions"
BY_AUTHOR, BY_NAMES = "the asset's author", "title, tags and animation name"
SCHEMA = pa.schema([(name, pa.string()) for name in ("clip_id", "caption", "caption_origin", "prompt", "at")])
_MAX_CHARACTERS = 500
_MAX_TAGS = 5
# Default names of authoring tools, which do not describe the animation.
_DEFAULT_NAME = re.compile(
    r"(animation|anim|action|take|scene|armature\w*|skeleton|default( take)?|mixamo( ?com)?|main|main animation|"
    r"cinema 4d main|layer|base layer|\w* ?action|\w*object|)( ?\d+)?"
)


class Caption(NamedTuple):
    """A caption and its origin (the column `caption_origin`); both "" if there is none."""

    text: str
    origin: str


def caption_from_names(
    title: str, tags: Sequence[str], animation_name: str, description: str = ""
) -> Caption:
    """Compose a caption from the text that the asset's author published.

    Args:
        title: title of the asset, or the path of its file.
        tags: of the asset; the first five are used.
        animation_name: "Armature|walk_cycle.001" becomes "walk cycle".
        description: of the clip. If it is not empty, it is the caption.
    """
    if description_line := one_line(description):
        return Caption(description_line, BY_AUTHOR)
    is_file = re.search(r"\.(glb|gltf|fbx|blend)$", title, flags=re.IGNORECASE)
    subject = _words(PurePosixPath(title).stem if is_file else title)
    action = _words(animation_name).lower()
    action = "" if _DEFAULT_NAME.fullmatch(action) else action
    keywords = ", ".join(filter(None, map(_words, tags[:_MAX_TAGS])))
    if subject and keywords:
        subject = f"{subject} ({keywords})"
    text = one_line(", ".join(filter(None, (subject or keywords, action))))
    return Caption(text, BY_NAMES if text else "")


def _words(name: str) -> str:
    """Split an identifier into words: camelCase, snake_case, "Armature|name.001"."""
    name = re.sub(r"\.\d+$", "", one_line(name).rpartition("|")[2])
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.split(r"[\s_.\-]+", name)).strip()


def one_line(text: str) -> str:
    """Reduce text to a single line of at most 500 characters without control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def read_caption_rows(root: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read all captions beside the shards of a dataset, oldest first, as dicts with the columns of `SCHEMA`."""
    rows = [row for _, table in _parts(Storage(root)) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["at"])


def newest_captions(rows: Iterable[dict[str, Any]]) -> dict[str, Caption]:
    """Return the last non-empty caption of each clip, by clip_id."""
    return {row["clip_id"]: Caption(row["caption"], row["caption_origin"]) for row in rows if row["caption"]}


def remove_captions(root: str | os.PathLike[str], clips: Collection[str]) -> None:
    """Remove the captions of the given clips, which are named by clip_id."""
    storage, removed = Storage(root), set(clips)
    for name, table in _parts(storage):
        kept = table.filter(
            pa.array([key not in removed for key in table["clip_id"].to_pylist()], pa.bool_())
        )
        if not len(kept):
            storage.remove(name)
        elif len(kept) < len(table):
            storage.write(name, pack_captions(kept))


def _parts(storage: Storage) -> Iterator[tuple[str, pa.Table]]:
    """Yield path and content of every part."""
    names = [f"{FOLDER}/{name}" for name in storage.names(FOLDER) if name.endswith(".parquet")]
    for name, data in sorted(storage.read_many(names).items()):
        try:
            yield name, read_table(data, SCHEMA.names)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"{storage.path(name)} cannot be read ({error}): remove it and caption again"
            ) from None


def pack_captions(table: pa.Table) -> bytes:
    """Encode a table with the columns of `SCHEMA` as a part."""
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()
