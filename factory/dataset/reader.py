"""Reading a dataset: from a folder or URL to arrays, a view and a frame at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.dataset.codecs.modalities import cells_of, decode_modality, decode_tracks, modalities_of
from factory.dataset.codecs.video import decode_h264, unpack_alpha
from factory.dataset.schema import alpha_column, is_pixels, row_cameras, row_to_shot, view_column
from renderers.cameras import Cameras
from renderers.meshes.clip import RenderSettings, Shot, Tracks, composite_in_place

Indices = int | slice | Sequence[int] | None


@dataclass(frozen=True)
class ClipArrays:
    """What was asked of a clip.

    Attributes:
        frames: uint8 [V, T, H, W, 4], straight alpha, the colour meaning nothing where alpha is 0; or
            [V, T, H, W, 3] on a background.
        cameras: of the V views. timestamps: float64 [T], seconds on the animation's time line.

    None unless asked for, and of the first surface that is at least half opaque, at each pixel's centre:

        depth: float32 [V, T, H, W], metres along the optical axis, 0 where nothing is.
        normals: float32 [V, T, H, W, 3], unit, world space, 0 where nothing is.
        flow: float32 [V, T, H, W, 2], pixels (x right, y down) until the clip's next frame, whether or not that was
            asked for; NaN where nothing is and in the last frame.
        tracks: points [T, P, 3] of the surface with their pixels, depth and visibility [V, T, P].
    """

    frames: np.ndarray
    cameras: Cameras
    timestamps: np.ndarray
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    flow: np.ndarray | None = None
    tracks: Tracks | None = None

    @property
    def flow_valid(self) -> np.ndarray:
        """bool [V, T, H, W]: where there is a flow."""
        if self.flow is None:
            raise ValueError('no flow was read: ask for it with read(..., modalities=["flow"])')
        return np.isfinite(self.flow).all(axis=-1)


def load_clips(path_or_url: str | os.PathLike[str], split: str | None = None) -> ClipDataset:
    """Open a dataset: a folder, or any URL fsspec knows ("hf://datasets/org/mv-video", "s3://…").

    Reads the shards' footers and nothing else. `split`: one of "train", "validation", "test"; None = all.

    Raises:
        FileNotFoundError: there are no clips.
    """
    return ClipDataset(path_or_url, split)


class ClipDataset:
    """The clips of a dataset in the order of its shards. Pickles and forks: it keeps no file open."""

    def __init__(self, path_or_url: str | os.PathLike[str], split: str | None = None) -> None:
        self.url = os.fspath(path_or_url)
        self._fs, root = fsspec.core.url_to_fs(self.url)
        pattern = f"{root.rstrip('/')}/data/{split or '*'}/*.parquet"
        self._files: list[str] = sorted(self._fs.glob(pattern))
        if not self._files:
            raise FileNotFoundError(
                f"no clips in {self.url}: expected files like {pattern}; render some with "
                f"`python -m factory.render --out {self.url}`"
            )
        self._footers = [self._open(file).metadata for file in self._files]
        self._groups = [
            (file, group)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        rows = [self._footers[file].row_group(group).num_rows for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])  # first clip of each group, and the end

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Clip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a dataset of {len(self)} clips")
        return Clip(self, index % len(self))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"ClipDataset({self.url!r}, {len(self)} clips)"

    def clip(self, clip_id: str) -> Clip:
        """The clip of that name. Raises KeyError."""
        if clip_id not in self._index_of:
            raise KeyError(f"no clip {clip_id!r} among the {len(self)} of {self.url}")
        return self[self._index_of[clip_id]]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a clip, without pixels: what to filter by. `columns`: None = all that are not pixels."""
        table = self._read(columns or self.columns)
        if {"caption", "caption_origin"} & set(table.column_names) and self._captions:
            newest = [self._captions.get(key) for key in self._read(["clip_id"])["clip_id"].to_pylist()]
            for place, name in enumerate(("caption", "caption_origin")):
                if name in table.column_names:
                    own = table[name].to_pylist()
                    values = [new[place] if new else old for new, old in zip(newest, own, strict=True)]
                    table = table.set_column(
                        table.schema.get_field_index(name), name, pa.array(values, pa.string())
                    )
        return table

    @property
    def size_bytes(self) -> int:
        """Of all shards."""
        return sum(self._fs.size(file) for file in self._files)

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns that are not pixels."""
        return [column.name for column in self._schema if not is_pixels(column)]

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the clips have beside colour: some of "depth", "normals", "flow" and "tracks"."""
        return modalities_of(self._schema.names)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._footers[0].schema.to_arrow_schema()

    @cached_property
    def _captions(self) -> dict[str, tuple[str, str]]:
        """clip_id → caption and origin of the clips that have one beside the shards."""
        from factory.dataset.captions import newest_captions, read_caption_rows

        return newest_captions(read_caption_rows(self.url))

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.table(["clip_id"])["clip_id"].to_pylist())}

    def _read(self, columns: Sequence[str]) -> pa.Table:
        return pa.concat_tables(
            self._open(file, footer).read(columns=list(columns))
            for file, footer in zip(self._files, self._footers, strict=True)
        )

    def _place(self, index: int) -> tuple[int, int, int]:
        """File, row group and row in it of a clip."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return (*self._groups[place], index - int(self._starts[place]))

    def _row(self, index: int, columns: list[str]) -> dict[str, Any]:
        """Some columns of one clip; reads them for its row group, which is four clips."""
        file, group, row = self._place(index)
        table = self._open(self._files[file], self._footers[file]).read_row_group(group, columns)
        return table.slice(row, 1).to_pylist()[0]

    def _open(self, file: str, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
        return pq.ParquetFile(file, metadata=footer, filesystem=self._fs, pre_buffer=True)


class Clip:
    """One clip of a dataset; nothing of it is read before it is asked for."""

    def __init__(self, dataset: ClipDataset, index: int) -> None:
        self._dataset = dataset
        self.index = index

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Every column that is not pixels (docs/dataset.md)."""
        row = self._dataset._row(self.index, self._dataset.columns)
        if newest := self._dataset._captions.get(row["clip_id"]):
            row["caption"], row["caption_origin"] = newest
        return row

    @property
    def clip_id(self) -> str:
        return self.metadata["clip_id"]

    @property
    def cameras(self) -> Cameras:
        return row_cameras(self.metadata)

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [T], seconds on the animation's time line."""
        return np.asarray(self.metadata["timestamps"], np.float64)

    @property
    def shot(self) -> tuple[Shot, RenderSettings]:
        """What renders this clip again; see `factory.row_to_shot`."""
        return row_to_shot(self.metadata)

    def __repr__(self) -> str:
        return f"Clip({self.clip_id!r}: {self.metadata['title']!r}, {self.metadata['animation_name']!r})"

    def read(
        self,
        views: Indices = None,
        frames: Indices = None,
        background: Sequence[int] | None = None,
        modalities: Sequence[str] = (),
    ) -> ClipArrays:
        """The pixels of some views and frames.

        Only the columns of these views are read, and of their videos only the groups of pictures with these
        frames are decoded.

        Args:
            views, frames: an index, a slice or a list, negative ones from the end; None = all.
            background: RGB 0-255 to put the clip on; None keeps alpha. MV-VDM wants (127, 127, 127), DIMO
                (255, 255, 255).
            modalities: what else to read, of "depth", "normals", "flow" and "tracks".
        Raises:
            IndexError: a view or frame the clip does not have. ValueError: a modality the dataset does not have, or
                damaged pixels.
        """
        row = self.metadata
        lacking = [name for name in modalities if name not in self._dataset.modalities]
        if lacking:
            raise ValueError(
                f"{self._dataset.url} has no {', no '.join(lacking)} but {self._dataset.modalities or 'colour only'}; "
                f"`python -m factory.render --modalities {','.join(lacking)}` renders clips with them"
            )
        views, frames = _pick(views, row["num_views"], "view"), _pick(frames, row["num_frames"], "frame")
        wanted = sorted(set(views))
        columns = [f(view) for view in wanted for f in (view_column, alpha_column)]
        columns += [column for name in modalities for column in cells_of(name, wanted)]
        cells = self._dataset._row(self.index, columns)
        arrays = np.empty((len(views), len(frames), row["height"], row["width"], 4), np.uint8)
        for place, view in enumerate(views):
            with self._damage_named(f"view {view}"):
                arrays[place] = decode_h264(cells[view_column(view)]["bytes"], frames, channels=4)
                arrays[place, ..., 3] = unpack_alpha(cells[alpha_column(view)], frames)
            if background is not None:
                composite_in_place(arrays[place], background)
        cameras = self.cameras[views]
        more: dict[str, Any] = {}
        for name in modalities:
            with self._damage_named(name):
                if name == "tracks":
                    more[name] = decode_tracks(cells, views, frames, cameras)
                else:
                    more[name] = decode_modality(name, cells, views, frames, row)
        return ClipArrays(
            frames=arrays if background is None else arrays[..., :3],
            cameras=cameras,
            timestamps=self.timestamps[frames],
            **more,
        )

    @contextmanager
    def _damage_named(self, part: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            file = self._dataset._files[self._dataset._place(self.index)[0]]
            raise ValueError(
                f"clip {self.clip_id}, {part}, in {file}: {error}. The shard is damaged; compare "
                f"its sha256 with _factory/shards and fetch or pack it again"
            ) from error


def _pick(indices: Indices, count: int, what: str) -> list[int]:
    try:
        picked = np.arange(count)[slice(None) if indices is None else indices]
    except IndexError:
        raise IndexError(f"{what} {indices} of a clip with {count} {what}s") from None
    return np.atleast_1d(picked).tolist()
