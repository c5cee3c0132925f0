"""Render a clip of a dataset again from its own row, and compare it with the stored one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.dataset.names import hub_errors
from factory.dataset.reader import ClipDataset, DatasetError
from factory.dataset.schema import encode_pixels, row_to_shot, write_row
from factory.sources.downloads import file_sha256
from renderers import gltf
from renderers.meshes import renderer

_CREATURE = re.compile(r"creature-([a-z]+)-([0-9]{1,9})")
_MOTIONS = ("", "train", "heldout")  # of `creatures://…?motions=`


@dataclass(frozen=True)
class Rerendered:
    """A clip that was rendered again.

    Attributes:
        row: all columns, with the new pixels.
        same: names of the pixel columns that have the same bytes as the stored ones.
        different: names of the others.
        stored_renderer: renderer and device of the stored clip.
    """

    row: dict[str, Any]
    same: tuple[str, ...]
    different: tuple[str, ...]
    stored_renderer: str

    def to_bytes(self) -> bytes:
        """A Parquet file with this row."""
        return write_row(self.row)


def rerender(clips: ClipDataset, clip_id: str, asset: str | os.PathLike[str] | None = None) -> Rerendered:
    """Render a clip again: its asset, animation, times, cameras and settings are those of its row.

    Args:
        clips: the dataset.
        clip_id: of the clip.
        asset: the .glb or .gltf file that it was rendered from; None builds a creature of this package.

    Raises:
        DatasetError: there is no such clip, or the file is another one.
        GltfError, RenderError: the file cannot be drawn on this machine.
    """
    try:
        clip = clips.clip(clip_id)
    except KeyError as error:
        raise DatasetError(str(error.args[0])) from None
    with hub_errors(clips.url):
        stored = clips.read_row(clip.index, [column.name for column in clips.schema])
    model = _open(stored, asset)
    shot, settings = row_to_shot(stored)
    drawn = renderer(stored["renderer"]).render_clip(model, shot, settings)
    pixels = encode_pixels(drawn, stored["fps"])
    same = tuple(name for name, value in pixels.items() if stored.get(name) == value)
    different = tuple(name for name in pixels if name not in same)
    row = {**stored, **pixels, "renderer_version": drawn.renderer}
    return Rerendered(row, same, different, stored["renderer_version"])


def rebuildable(row: Mapping[str, Any]) -> bool:
    """Whether the asset of a row is a creature of this package, so that no file is needed to render it again."""
    return row["source"] == "creatures" and _CREATURE.fullmatch(row["asset_uid"]) is not None


def _open(row: Mapping[str, Any], file: str | os.PathLike[str] | None) -> gltf.Asset:
    expected, uid = row["asset_sha256"], row["asset_uid"]
    if file is not None:
        path = Path(file)
        sha256 = file_sha256(path)
        if sha256 != expected:
            raise DatasetError(
                f"{path}: its SHA-256 is {sha256}, but the clip was rendered from a file with {expected}"
            )
        return gltf.load(path, name=uid)
    if not rebuildable(row):
        where = f" from {row['source_url']}" if row["source_url"] else ""
        raise DatasetError(
            f"clip {row['clip_id']} was rendered from a file: give the one with SHA-256 {expected}{where} as --asset"
        )
    return gltf.load(_creature(row), name=uid)


def _creature(row: Mapping[str, Any]) -> bytes:
    from factory.sources import creatures

    match = _CREATURE.fullmatch(row["asset_uid"])
    assert match is not None
    for motions in _MOTIONS:
        try:
            (reference,) = creatures.enumerate_uri(
                f"creatures://{match[1]}?seed={match[2]}" + (f"&motions={motions}" if motions else "")
            )
        except ValueError:
            continue
        data = reference.glb()
        if hashlib.sha256(data).hexdigest() == row["asset_sha256"]:
            return data
    raise DatasetError(
        f"clip {row['clip_id']}: this version builds {row['asset_uid']} in another way than the one that rendered it "
        f"(SHA-256 {row['asset_sha256']}): save the creature with that version, and give the file as --asset"
    )
