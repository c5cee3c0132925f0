"""Whether a folder may be written to as a dataset: nothing that somebody else put there is overwritten."""

from __future__ import annotations

import os
from collections.abc import Collection

import pyarrow as pa

from cluster import ForeignFolderError, Storage, StorageError, check_output
from factory.dataset.reader import load_clips

CARD_MARK = b"pretty_name: MV-Video"  # in every card since 0.1
_PAGES = {"README.md": CARD_MARK, "ATTRIBUTION.md": b"# Attribution"}
_SHEET = "contact_sheet.png"
_SHAPE_COLUMNS = ("num_views", "num_frames", "width", "height")
_SHARDS = "data/*/*.parquet"


class MixedShapesError(StorageError):
    """Clips of another shape than those of the dataset would be added to it."""


def check_render_folder(root: str | os.PathLike[str]) -> None:
    """Refuse a folder that `factory.render` must not write to. Accepted: missing or empty ones, and datasets.

    Raises:
        ForeignFolderError: it has other files, or is a published copy of a dataset, without the ledger.
        StorageError: the folder cannot be listed.
    """
    storage = Storage(root)
    if storage.has_match(_SHARDS) and not any(
        map(storage.has_match, ("_factory/shards/*", "_factory/done/*"))
    ):
        raise ForeignFolderError(
            f"{storage.url} has shards but no ledger, so they would be overwritten (it may be a published copy of a "
            f"dataset): choose an empty or a new folder, or the folder that the dataset was rendered into"
        )
    _check(storage, ())


def check_dataset_folder(root: str | os.PathLike[str]) -> None:
    """Refuse a folder that is no dataset, or whose pages somebody else wrote.

    Raises:
        ForeignFolderError: it has other files.
        StorageError: the folder cannot be listed.
    """
    _check(Storage(root), (_SHARDS,))


def check_pages(root: str | os.PathLike[str]) -> None:
    """Refuse to replace a README.md or ATTRIBUTION.md that somebody else wrote.

    Raises:
        ForeignFolderError: there is one.
    """
    check_output(root, ours=("*",), pages=_PAGES)


def _check(storage: Storage, ours: tuple[str, ...]) -> None:
    has_card = CARD_MARK in (storage.read("README.md") or b"")
    check_output(storage.url, ours=(*ours, "README.md") if has_card else ours, pages=_PAGES)
    # The sheet is written before the card: without a card, it is ours only beside finished shards.
    if _SHEET in storage.entries() and not has_card and not storage.has_match("_factory/shards/*"):
        raise ForeignFolderError(
            f"{storage.path(_SHEET)} was not written by this program and would be overwritten: move it, or choose "
            f"another folder"
        )


def check_same_shape(
    root: str | os.PathLike[str], views: int, frames: int, resolution: int, modalities: Collection[str]
) -> None:
    """Refuse to add clips that `factory.TrainingClips` could not put into a batch with those of the dataset.

    Args:
        root: path or URL of the dataset; it may have no clips yet.
        views, frames, resolution: of the new clips, which are square.
        modalities: maps that they have beside colour.

    Raises:
        MixedShapesError: the message names both shapes.
    """
    try:
        clips = load_clips(root)
        columns = [clips.table([name])[name].to_pylist() for name in _SHAPE_COLUMNS]
    except (
        FileNotFoundError,
        pa.ArrowInvalid,
    ):  # no shards yet, or a damaged one, which the packer reports or replaces
        return
    # Versions before 0.2 accepted several shapes: runs that add clips of one of them still resume.
    shapes = set(zip(*columns, strict=True))
    new = (views, frames, resolution, resolution)
    if new not in shapes:
        flags = {"views": 0, "num-frames": 1, "resolution": 2}
        nearest = max(sorted(shapes), key=lambda shape: sum(a == b for a, b in zip(shape, new, strict=True)))
        change = " ".join(f"--{flag} {nearest[at]}" for flag, at in flags.items() if nearest[at] != new[at])
        raise MixedShapesError(
            f"{clips.url} has clips of {' and of '.join(map(_shape, sorted(shapes)))}, this command renders "
            f"{_shape(new)}; a dataset for training has one shape: give {change}, or another --out"
        )
    if set(modalities) != set(clips.modalities):
        raise MixedShapesError(
            f"{clips.url} has clips with {_maps(clips.modalities)}, this command renders {_maps(modalities)}; all "
            f"clips of a dataset have the same columns: give the same --modalities, or another --out"
        )


def _shape(shape: tuple[int, ...]) -> str:
    views, frames, width, height = shape
    return f"{views} views of {frames} frames at {width} x {height} px"


def _maps(modalities: Collection[str]) -> str:
    return f"colour and {', '.join(sorted(modalities))}" if modalities else "colour only"
