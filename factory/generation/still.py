"""The still object that motions are generated for: a 3D model or a picture."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import numpy as np

from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.generation.jobs import StillObject
from factory.generation.video_folder import folder_record
from factory.motion_videos.stage import slug
from factory.motion_videos.subjects import object_name
from factory.sources import EmptySourceError, SourceError, open_source
from factory.sources.opening import AssetCache, refreshed_record
from renderers.gltf import Asset, GltfError

LARGEST_PIXELS = 64 << 20  # of a picture


def find_still(
    uri: str, *, kind: str = "asset", name: str = "", category: str = "", elevation_deg: float = 0.0
) -> StillObject:
    """Find the object behind a path or URI and check that its licence allows its use.

    Args:
        uri: path or URI.
        kind: "asset" = a .glb or .gltf file, or a URI of `factory.sources` with one model; "image" = a picture;
            "videos" = a folder of videos (`factory.generation.video_folder`).
        name: of the object's folders; "" = made from the file's name.
        category: for prompts; "" = made from the file's name.
        elevation_deg: of the camera that took the picture.

    Raises:
        SourceError: there is no such file, it is not of this kind, there are several, or the licence forbids its use.
    """
    if kind == "image":
        record = _picture_record(Path(uri))
    elif kind == "videos":
        record = folder_record(Path(uri))
    else:
        source = open_source(uri)
        records = list(itertools.islice(source.list(), 3))
        if not records:
            raise EmptySourceError(f"nothing to animate: {uri} {source.why_empty()}")
        if len(records) > 1:
            raise SourceError(
                f"{uri!r}: expected one 3D model, found several; give the path of a single .glb file"
            )
        record = _allowed(records[0])
    default = slug(Path(uri).stem) if kind != "asset" else object_name(record.source, record.uid)
    words = re.sub(r"[\W_\d]+", " ", default).strip()
    return StillObject(slug(name) if name else default, record, category or words or "object", elevation_deg)


def _allowed(listed: AssetRecord) -> AssetRecord:
    """The record with what the file states about itself, if the licence allows the use."""
    terms = Selection().policy_for(listed)
    record = refreshed_record(listed, terms)
    if refusal := terms.refusal(record):
        raise SourceError(f"{listed.uid}: {refusal}")
    try:
        asset, _ = AssetCache().open(record)
    except GltfError as error:
        raise SourceError(str(error)) from None
    record = record.completed(asset.metadata)
    if refusal := terms.refusal(record):
        raise SourceError(f"{listed.uid}: {refusal}")
    return record


def _picture_record(path: Path) -> AssetRecord:
    if not path.is_file():
        raise SourceError(f"{str(path)!r}: no such picture")
    read_picture(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return AssetRecord(path.name, "image", str(path.resolve()), f"sha256:{digest}", title=path.stem)


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture: uint8 [H, W, 4], straight alpha.

    Raises:
        SourceError: it cannot be decoded, or has more than `LARGEST_PIXELS` pixels.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST_PIXELS:
                raise SourceError(
                    f"{str(path)!r}: {picture.width}×{picture.height} pixels, expected at most "
                    f"{LARGEST_PIXELS >> 20} million; make it smaller"
                )
            return np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{str(path)!r}: expected a picture, but it cannot be decoded ({error})") from None


class StillCache:
    """Opens still objects in a worker."""

    def __init__(self) -> None:
        self._assets = AssetCache()

    def asset(self, still: StillObject) -> Asset:
        """The object's 3D model.

        Raises:
            GltfError: the file is not valid glTF.
        """
        return self._assets.open(still.record)[0]
