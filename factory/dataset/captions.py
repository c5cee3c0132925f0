"""What a clip shows, in words: without a model from what its author wrote, or by a video-language model.

Captions of models do not go into the shards, whose videos would all be written and uploaded anew for a few bytes.
They are a table beside them, `captions/part-*.parquet`, one row a clip; `factory.load_clips` puts them in place of
the row's own caption, the newest first. A part is written once and never touched again, but for takedowns.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage, StorageError

FOLDER = "captions"
BY_AUTHOR, BY_NAMES = "the asset's author", "title, tags and animation name"
SCHEMA = pa.schema([(name, pa.string()) for name in ("clip_id", "caption", "caption_origin", "prompt", "at")])
_MOST_CHARACTERS = 500
_MOST_TAGS = 5
# Names that programs give, which say nothing.
_MEANINGLESS = re.compile(
    r"(animation|anim|action|take|scene|armature\w*|skeleton|default( take)?|mixamo( ?com)?|main|main animation|"
    r"cinema 4d main|layer|base layer|\w* ?action|\w*object|)( ?\d+)?"
)


class Caption(NamedTuple):
    """A caption and what wrote it; both "" if nobody did."""

    text: str
    origin: str


def caption_from_names(
    title: str, tags: Sequence[str], animation_name: str, description: str = ""
) -> Caption:
    """What the asset's author wrote of a clip: the description if there is one, else title, tags and names.

    Args:
        title: a file's path will do. animation_name: "Armature|walk_cycle.001" becomes "walk cycle".
    """
    if said := one_line(description):
        return Caption(said, BY_AUTHOR)
    is_file = re.search(r"\.(glb|gltf|fbx|blend)$", title, flags=re.IGNORECASE)
    what = _words(PurePosixPath(title).stem if is_file else title)
    action = _words(animation_name).lower()
    action = "" if _MEANINGLESS.fullmatch(action) else action
    about = ", ".join(filter(None, map(_words, tags[:_MOST_TAGS])))
    text = one_line(
        ", ".join(filter(None, (f"{what} ({about})" if what and about else what or about, action)))
    )
    return Caption(text, BY_NAMES if text else "")


def _words(name: str) -> str:
    """A name as programs write it, as words."""
    name = re.sub(r"\.\d+$", "", one_line(name).rpartition("|")[2])
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.split(r"[\s_.\-]+", name)).strip()


def one_line(text: str) -> str:
    """One line without control characters, not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def read_caption_rows(root: str | os.PathLike[str]) -> list[dict]:
    """All captions beside the shards of a dataset: clip_id, caption, caption_origin, prompt and at, oldest first."""
    rows = [row for _, table in _parts(Storage(root, "_factory/tmp")) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["at"])


def newest_captions(rows: Iterable[dict]) -> dict[str, Caption]:
    """clip_id → its last caption that is not empty."""
    return {row["clip_id"]: Caption(row["caption"], row["caption_origin"]) for row in rows if row["caption"]}


def remove_captions(root: str | os.PathLike[str], clips: Collection[str]) -> None:
    """Remove the captions of some clips."""
    storage, doomed = Storage(root, "_factory/tmp"), set(clips)
    for name, table in _parts(storage):
        kept = table.filter(pa.array([key not in doomed for key in table["clip_id"].to_pylist()], pa.bool_()))
        if not len(kept):
            storage.remove(name)
        elif len(kept) < len(table):
            storage.write(name, pack_captions(kept))


def _parts(storage: Storage) -> Iterator[tuple[str, pa.Table]]:
    names = [f"{FOLDER}/{name}" for name in storage.names(FOLDER) if name.endswith(".parquet")]
    for name, data in sorted(storage.read_many(names).items()):
        try:
            yield name, pq.read_table(pa.BufferReader(data), columns=SCHEMA.names)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"{storage.path(name)} cannot be read ({error}): remove it and caption again"
            ) from None


def pack_captions(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()
