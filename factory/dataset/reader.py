"""Reading a dataset from a folder or URL into arrays, decoding only the requested views and frames."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version as version_of
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.arguments import location, text, texts
from cluster.storage import glob_files, open_filesystem
from factory.dataset.arrays import ClipArrays, RowGroup
from factory.dataset.captions import Caption, newest_captions, read_caption_rows
from factory.dataset.codecs.modalities import (
    MODALITIES,
    cells_of,
    decode_modality,
    decode_tracks,
    modalities_of,
)
from factory.dataset.codecs.video import decode_h264, unpack_alpha
from factory.dataset.indices import Indices, resolve_indices
from factory.dataset.names import check_repository, hub_errors, input_url
from factory.dataset.schema import (
    SCHEMA_VERSION,
    alpha_column,
    clip_schema,
    is_pixels,
    row_cameras,
    row_to_shot,
    view_column,
)
from factory.dataset.shard_file import DatasetError, ShardFile, damaged, open_columns
from renderers.arguments import integer
from renderers.background import Background, background_bytes
from renderers.cameras import Cameras
from renderers.meshes.clip import RenderSettings, Shot, composite_in_place

NEWEST, STORED = "newest", "stored"


def load_clips(
    path_or_url: str | os.PathLike[str], split: str | None = None, captions: str = NEWEST
) -> ClipDataset:
    """Open a dataset. Only the footers of the shards are read.

    Args:
        path_or_url: a folder, any URL that fsspec supports ("s3://…"), "hub:org/name", "local:PATH", or "org/name" on
            the hub (`factory.dataset.names.input_url`).
        split: "train", "validation" or "test"; None = all.
        captions: which captions the clips have: "newest" = the last one written for each clip, "stored" = those in the
            shards, or a `caption_origin` such as "model qwen3-vl" = those of this origin, "" for clips without one.

    Raises:
        FileNotFoundError: the dataset, or the split, has no clips.
        DatasetError: a shard cannot be read, or a newer version wrote it.
        StorageError: the URL cannot be opened, or the hub refuses it.
    """
    return ClipDataset(path_or_url, split, captions)


class ClipDataset:
    """The clips of a dataset in the order of its shards. Can be pickled and forked: it keeps no file open.

    Args:
        path_or_url: a folder, or any URL that fsspec supports.
        split: "train", "validation" or "test"; None = all.
        captions: "newest", "stored" or an origin; see `load_clips`.

    Attributes:
        url: path or URL of the dataset.
        filesystem: fsspec file system with the shards.
        row_groups: every row group, in clip order.
        row_group_starts: int64 [len(row_groups) + 1], index of the first clip of each row group, then the number of
            clips.
    """

    def __init__(
        self, path_or_url: str | os.PathLike[str], split: str | None = None, captions: str = NEWEST
    ) -> None:
        location(path_or_url, "load_clips: path_or_url")
        if split is not None:
            text(split, "load_clips: split")
        text(captions, "load_clips: captions")
        self.url = input_url(path_or_url)
        check_repository(self.url, path_or_url)
        self.filesystem, root = open_filesystem(self.url)
        self._files = self._shards(root, split)
        self._which_captions = captions
        self._footers = [self._read_footer(file) for file in self._files]
        self.row_groups = [
            RowGroup(file, index, footer)
            for file, footer in zip(self._files, self._footers, strict=True)
            for index in range(footer.num_row_groups)
        ]
        rows = [group.footer.row_group(group.index).num_rows for group in self.row_groups]
        self.row_group_starts = np.concatenate([[0], np.cumsum(rows)])

    def _shards(self, root: str, split: str | None) -> list[str]:
        pattern = f"{root.rstrip('/')}/data/*/*.parquet"
        # macOS leaves a file `._name` beside each file that it copies to other file systems.
        with hub_errors(self.url):
            files = sorted(path for path in glob_files(self.filesystem, pattern) if "/._" not in path)
        if not files:
            advice = f"; render some with `python -m factory.render --out {self.url}`"
            if self.url.startswith("hf://"):
                advice = "; check the name: it is no dataset of clips"
            raise FileNotFoundError(f"no clips in {self.url}: expected files like {pattern}{advice}")
        splits = sorted({path.rsplit("/", 2)[1] for path in files})
        if split is not None and split not in splits:
            raise FileNotFoundError(f"no split {split!r} in {self.url}; it has {', '.join(splits)}")
        return [path for path in files if split in (None, path.rsplit("/", 2)[1])]

    def _read_footer(self, file: str) -> pq.FileMetaData:
        try:
            with hub_errors(self.url):
                footer = ShardFile(f"{file} of {self.url}", file, filesystem=self.filesystem).metadata
        except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
            advice = None
            if self.url.startswith("hf://"):
                if isinstance(error, FileNotFoundError):  # a sentence of `hub_errors`
                    raise
                advice = "run the same command again, or ask its owner to publish it again"
            raise DatasetError(damaged(f"{file} of {self.url}", error, advice)) from error
        version = _schema_version(footer)
        if version > int(SCHEMA_VERSION):
            raise DatasetError(
                f"{file} of {self.url} has rows of schema version {version}; menagerie4d {version_of('menagerie4d')} "
                f"reads versions up to {SCHEMA_VERSION}: upgrade it"
            )
        return footer

    def __len__(self) -> int:
        return int(self.row_group_starts[-1])

    def __getitem__(self, index: int) -> Clip:
        index = integer(index, "ClipDataset: index")
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a dataset of {len(self)} clips")
        return Clip(self, index % len(self))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"ClipDataset({self.url!r}, {len(self)} clips)"

    def clip(self, clip_id: str) -> Clip:
        """Return the clip with the given `clip_id`.

        Raises:
            KeyError: the dataset has no such clip.
        """
        if text(clip_id, "ClipDataset.clip: clip_id") not in self._index_of:
            raise KeyError(f"no clip {clip_id!r} among the {len(self)} clips of {self.url}")
        return self[self._index_of[clip_id]]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the metadata of all clips, one row per clip, for filtering.

        Args:
            columns: names; None = every column without pixels (`columns`).
        """
        table = self._read(self._known_columns(columns, "table") if columns else self.columns)
        if {"caption", "caption_origin"} & set(table.column_names) and self.captions:
            chosen = [self.captions.get(key) for key in self._read(["clip_id"])["clip_id"].to_pylist()]
            for place, name in enumerate(("caption", "caption_origin")):
                if name in table.column_names:
                    stored = table[name].to_pylist()
                    values = [new[place] if new else old for new, old in zip(chosen, stored, strict=True)]
                    table = table.set_column(
                        table.schema.get_field_index(name), name, pa.array(values, pa.string())
                    )
        return table

    @property
    def size_bytes(self) -> int:
        """Total size of the shards."""
        return sum(self.filesystem.size(file) for file in self._files)

    @cached_property
    def columns(self) -> list[str]:
        """Names of the metadata columns, which hold no pixels."""
        return [column.name for column in self._schema if not is_pixels(column)]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of "depth", "normals", "flow" and "tracks" the clips have beside colour."""
        return modalities_of(self._schema.names)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the shards, with the columns of pixels."""
        return self._schema

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._footers[0].schema.to_arrow_schema()

    @cached_property
    def captions(self) -> dict[str, Caption]:
        """clip_id → caption that replaces the one in the shard."""
        if self._which_captions == STORED:
            return {}
        rows = read_caption_rows(self.url)
        if self._which_captions == NEWEST:
            return newest_captions(rows)
        stored = self._read(["clip_id", "caption", "caption_origin"]).to_pylist()
        origins = {row["caption_origin"] for row in [*stored, *rows] if row["caption"]}
        if self._which_captions not in origins:
            raise ValueError(
                f"no caption of {self.url} is of origin {self._which_captions!r}; expected {NEWEST!r}, {STORED!r} or "
                f"one of {', '.join(map(repr, sorted(origins)))}"
            )
        chosen = newest_captions(
            row for row in [*stored, *rows] if row["caption_origin"] == self._which_captions
        )
        return {row["clip_id"]: chosen.get(row["clip_id"], Caption("", "")) for row in stored}

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.table(["clip_id"])["clip_id"].to_pylist())}

    def _read(self, columns: Sequence[str]) -> pa.Table:
        with hub_errors(self.url):
            return pa.concat_tables(
                self._open(file, footer, range(footer.num_row_groups), columns).read(list(columns))
                for file, footer in zip(self._files, self._footers, strict=True)
            )

    def _locate(self, index: int) -> tuple[RowGroup, int]:
        """Return the row group of a clip and the clip's row in it."""
        place = int(np.searchsorted(self.row_group_starts, index, side="right")) - 1
        return self.row_groups[place], index - int(self.row_group_starts[place])

    def read_row(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Read stored columns of one clip, undecoded. In shards made until 0.1, the row group of four clips is read.

        Args:
            index: of the clip, >= 0.
            columns: names, including pixel columns.
        """
        columns = self._known_columns(columns, "read_row")
        group, row = self._locate(integer(index, "ClipDataset.read_row: index", 0, len(self) - 1))
        with hub_errors(self.url):
            shard = self._open(group.path, group.footer, [group.index], columns)
            table = shard.read_row_group(group.index, list(columns))
        return table.slice(row, 1).to_pylist()[0]

    def _known_columns(self, columns: Sequence[str], method: str) -> list[str]:
        """The columns as a list. Those that only other versions of the schema have are accepted; Parquet skips them.

        Raises:
            TypeError: they are not several texts.
            ValueError: the clips have no such column.
        """
        names = texts(columns, f"ClipDataset.{method}: columns")
        if unknown := [name for name in names if name not in self._column_names]:
            raise ValueError(
                f"ClipDataset.{method}: columns: {self.url} has no column {unknown[0]!r}; it has "
                f"{', '.join(self.columns)}, and pixels"
            )
        return names

    @cached_property
    def _column_names(self) -> frozenset[str]:
        views = sum(name.startswith(view_column(0)[:-2]) for name in self._schema.names)
        return frozenset(self._schema.names) | frozenset(clip_schema(max(views, 1), MODALITIES).names)

    def _open(
        self, file: str, footer: pq.FileMetaData, groups: Collection[int], columns: Collection[str]
    ) -> ShardFile:
        return open_columns(f"{file} of {self.url}", self.filesystem, file, footer, groups, set(columns))


def _schema_version(footer: pq.FileMetaData) -> int:
    """The newest schema version of a shard's rows, from its statistics; 0 if they do not tell."""
    versions = [0]
    for group in range(footer.num_row_groups):
        columns = footer.row_group(group)
        for index in range(columns.num_columns):
            column = columns.column(index)
            if column.path_in_schema == "schema_version":
                known = column.is_stats_set and column.statistics.has_min_max
                versions.append(int(column.statistics.max) if known else 0)
                break
    return max(versions)


class Clip:
    """One clip of a dataset. Data is read on access.

    Attributes:
        index: position in the dataset.
    """

    def __init__(self, dataset: ClipDataset, index: int) -> None:
        self._dataset = dataset
        self.index = index

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The values of all columns without pixels (docs/dataset.md)."""
        row = self._dataset.read_row(self.index, self._dataset.columns)
        if caption := self._dataset.captions.get(row["clip_id"]):
            row["caption"], row["caption_origin"] = caption
        return row

    @property
    def clip_id(self) -> str:
        return self.metadata["clip_id"]

    @property
    def cameras(self) -> Cameras:
        """The cameras of all views."""
        return row_cameras(self.metadata)

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [T], seconds on the animation's timeline."""
        return np.asarray(self.metadata["timestamps"], np.float64)

    @property
    def shot(self) -> tuple[Shot, RenderSettings]:
        """The inputs that render this clip again; see `factory.row_to_shot`."""
        return row_to_shot(self.metadata)

    def __repr__(self) -> str:
        try:
            row = self.metadata
        except Exception:  # the shard is damaged or cannot be reached; reading the clip reports it
            return f"Clip({self.index} of {self._dataset!r})"
        return (
            f"Clip({row['clip_id']!r}: {row['title']!r}, {row['animation_name']!r}, {row['num_views']} views, "
            f"{row['num_frames']} frames of {row['width']}×{row['height']})"
        )

    def _repr_html_(self) -> str:
        from factory.dataset.pages.notebook import clip_card

        return clip_card(self)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same clip of the same dataset."""
        if not isinstance(other, Clip):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str, int]:
        group, row = self._dataset._locate(self.index)
        return self._dataset.url, group.path, int(row) + (group.index << 32)

    def read(
        self,
        views: Indices = None,
        frames: Indices = None,
        background: Background | None = None,
        modalities: Sequence[str] = (),
    ) -> ClipArrays:
        """Decode some views and frames.

        Only the columns of these views are read, and only the groups of pictures that contain these frames are
        decoded.

        Args:
            views: index, slice or list; negative indices count from the end; None = all.
            frames: likewise.
            background: RGB to composite the clip on, integers in 0..255 or floats in 0..1 (`renderers.background`);
                None keeps alpha. MV-VDM uses (127, 127, 127), DIMO (255, 255, 255).
            modalities: additional arrays: "depth", "normals", "flow" and "tracks".

        Raises:
            IndexError: the clip has no such view or frame.
            ValueError: the dataset does not have a modality, or its pixels are damaged.
        """
        row = self.metadata
        self._check_modalities(modalities)
        color = None
        if background is not None:  # an array of uint8, which is never ambiguous
            color = np.array(background_bytes(background, "Clip.read: background"), np.uint8)
        views, frames = (
            resolve_indices(views, row["num_views"], "view"),
            resolve_indices(frames, row["num_frames"], "frame"),
        )
        unique = sorted(set(views))
        columns = [name(view) for view in unique for name in (view_column, alpha_column)]
        columns += [column for name in modalities for column in cells_of(name, unique)]
        cells = self._dataset.read_row(self.index, columns)
        arrays = np.empty((len(views), len(frames), row["height"], row["width"], 4), np.uint8)
        for place, view in enumerate(views):
            with self._damage_reported(f"view {view}"):
                arrays[place] = decode_h264(cells[view_column(view)]["bytes"], frames, channels=4)
                arrays[place, ..., 3] = unpack_alpha(cells[alpha_column(view)], frames)
            if color is not None:
                composite_in_place(arrays[place], color)
        cameras = self.cameras[views]
        decoded: dict[str, Any] = {}
        for name in modalities:
            with self._damage_reported(name):
                if name == "tracks":
                    decoded[name] = decode_tracks(cells, views, frames, cameras)
                else:
                    decoded[name] = decode_modality(name, cells, views, frames, row)
        return ClipArrays(
            frames=arrays if color is None else arrays[..., :3],
            cameras=cameras,
            timestamps=self.timestamps[frames],
            **decoded,
        )

    def _check_modalities(self, modalities: Sequence[str]) -> None:
        names = texts(modalities, "Clip.read: modalities")
        missing = [name for name in names if name not in self._dataset.modalities]
        if missing:
            available = ", ".join(self._dataset.modalities) or "colour only"
            raise ValueError(
                f"{self._dataset.url} has no {', no '.join(missing)}; it has {available}. "
                f"`python -m factory.render --modalities {','.join(missing)}` renders clips with them"
            )

    @contextmanager
    def _damage_reported(self, part: str) -> Iterator[None]:
        """Add the clip, the damaged part and the file to errors of the decoders."""
        try:
            yield
        except ValueError as error:
            group, _ = self._dataset._locate(self.index)
            raise ValueError(
                f"clip {self.clip_id}, {part}, in {group.path}: {error}. The shard is damaged; compare its sha256 "
                f"with its manifest in _factory/shards and download or pack it again"
            ) from error
