"""Batches of clips for training: orthogonal views, every third frame, shuffled, sharded over ranks, resumable.

A *sample* is one clip seen from one group of views (MV-VDM trains on four orthogonal views). With 16 views, group g is
{g, g + 4, g + 8, g + 12}, so each clip gives four samples per epoch. With 48 frames, a random phase s in {0, 1, 2}
selects frames s, s + 3, … s + 45. Only the selected views and frames are read and decoded.

`factory.dataset.epoch_order` defines the order of the samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cluster.arguments import fields_of, function, instance, location
from factory.dataset.buffers import BufferPool, value_table
from factory.dataset.codecs.video import decode_on
from factory.dataset.epoch_order import TAILS, EpochOrder
from factory.dataset.ratings import QUALITIES, selected_clips
from factory.dataset.reader import ClipDataset, load_clips
from factory.dataset.row_groups import RowGroupReader, prefetch
from factory.dataset.schema import alpha_column, row_cameras, view_column
from renderers.arguments import flag, integer, shown
from renderers.background import Background, background_bytes
from renderers.cameras import mvvdm_camera_vectors
from renderers.meshes.clip import GREY

Accepted = Callable[[Any], bool] | Collection[Any] | str
Transform = Callable[[dict[str, Any]], dict[str, Any]]
_ROW_COLUMNS = ["clip_id", "caption", "timestamps", "num_frames", "width", "height", "K", "world_to_camera"]
_SHAPE_COLUMNS = ["num_views", "num_frames", "width", "height"]


class TrainingClips(IterableDataset[dict[str, Any]]):
    """Batches for training. Iterating gives the rest of one epoch and does not change the position.

    Use it with `ClipLoader`, which advances the position, or call `set_epoch` before each epoch and pass it to a torch
    `DataLoader` with `batch_size=None`: batches are assembled here so that all ranks have the same number of them.

    A batch is a dict (without the leading dimension B if `batch_size` is None):

        frames          [B, V, T, 3, H, W], in -1..1, or 0..255 if `dtype` is torch.uint8
        camera          float32 [B, V, 16], MV-VDM's camera vector (`renderers.cameras.mvvdm_camera_vectors`)
        world_to_camera float32 [B, V, 4, 4]
        K               float32 [B, V, 3, 3], pixels (docs/dataset.md)
        timestamps      float64 [B, T], seconds on the animation's timeline
        caption         list of B strings
        clip_id         list of B strings
        view_group      int64 [B]
        phase           int64 [B]; the condition frame is frames[:, :, 0]
        state           argument of `load_state_dict` that resumes after this batch

    Args:
        dataset: folder, URL or opened dataset (`factory.load_clips(…, split="train", captions=…)`).
        quality: least rating of a clip (column `quality`): "ok" leaves out clips that violate a rule, "high" all but
            the best, "any" takes every clip. Clips that were not rated pass "ok".
        where: metadata filter: column → accepted value, collection of accepted values, or predicate.
        views: V, evenly spaced around the object.
        frames: T, evenly spaced in time.
        batch_size: B, per rank; None gives single samples.
        background: RGB, integers in 0..255 or floats in 0..1 (`renderers.background`).
        dtype: data type of `frames`, floating-point or torch.uint8.
        shuffle: False keeps the order of the dataset and uses phase 0.
        seed: seed of the order and the phases.
        tail: treatment of the last samples of an epoch that do not fill a batch on every rank. "drop" skips them (a
            different set each epoch), "pad" fills up with the first samples of the epoch, "keep" yields them as they
            are: a shorter last batch and, on some ranks, one batch fewer.
        mix: batches per block, see `factory.dataset.epoch_order`. A worker holds at most `mix` × B units in memory.
        rank: of this process; None uses torch.distributed.
        world_size: number of ranks; None uses torch.distributed.
        transform: applied to every batch before `state` is added. Must be picklable if workers are spawned.

    Raises:
        ValueError: the arguments are invalid or do not fit the clips, or no clip matches.
    """

    def __init__(
        self,
        dataset: ClipDataset | str | os.PathLike[str],
        *,
        quality: str = "ok",
        where: Mapping[str, Accepted] | None = None,
        views: int = 4,
        frames: int = 16,
        batch_size: int | None = None,
        background: Background = GREY,
        dtype: torch.dtype = torch.float32,
        shuffle: bool = True,
        seed: int = 0,
        tail: str = "drop",
        mix: int = 16,
        rank: int | None = None,
        world_size: int | None = None,
        transform: Transform | None = None,
    ) -> None:
        if not isinstance(dataset, ClipDataset):
            location(dataset, "TrainingClips: dataset")
        self.clips = dataset if isinstance(dataset, ClipDataset) else load_clips(dataset)
        self.views, self.frames = (
            integer(views, "TrainingClips: views", 1),
            integer(frames, "TrainingClips: frames", 1),
        )
        self.batch_size = None if batch_size is None else integer(batch_size, "TrainingClips: batch_size", 1)
        self.background, self.dtype = background_bytes(background, "TrainingClips: background"), dtype
        self.quality = quality
        self.shuffle, self.seed = (
            flag(shuffle, "TrainingClips: shuffle"),
            integer(seed, "TrainingClips: seed", 0),
        )
        self.tail, self.mix = tail, integer(mix, "TrainingClips: mix", 1)
        self.rank, self.world_size = _distributed_rank(rank, world_size)
        self.transform = transform
        self._check_arguments()
        self._value_table, self._buffers = value_table(dtype), BufferPool()

        kept = self._select(where or {})
        samples = (kept[:, None] * self._groups + np.arange(self._groups)).ravel()
        self._order = EpochOrder(
            samples,
            self._units_of(samples),
            self.batch_size or 1,
            self.world_size,
            self.shuffle,
            self.seed,
            tail,
            self.mix,
        )
        if not len(self):
            raise ValueError(
                f"TrainingClips: {len(samples)} samples do not fill one batch of {batch_size or 1} on each of "
                f'{self.world_size} ranks; use a smaller batch_size, or tail="pad"'
            )
        # Shared with persistent workers, which read the position for the next epoch from here.
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()

    def _check_arguments(self) -> None:
        if self.tail not in TAILS:
            raise ValueError(f"TrainingClips: tail is {self.tail!r}; expected one of {', '.join(TAILS)}")
        if self.quality not in QUALITIES:
            raise ValueError(
                f"TrainingClips: quality is {self.quality!r}; expected one of {', '.join(QUALITIES)}"
            )
        function(self.transform, "TrainingClips: transform")
        instance(self.dtype, torch.dtype, "TrainingClips: dtype")
        if self.dtype != torch.uint8 and not self.dtype.is_floating_point:
            raise ValueError(
                f"TrainingClips: dtype is {self.dtype}; expected a floating-point type or torch.uint8"
            )

    def _select(self, where: Mapping[str, Accepted]) -> np.ndarray:
        """Return the indices of the clips that pass the filter, after checking that they fit the arguments."""
        if not isinstance(where, Mapping):
            raise TypeError(f"TrainingClips: where: expected column names with values, got {shown(where)}")
        unknown = sorted(map(str, set(where) - set(self.clips.columns)))
        if unknown:
            raise ValueError(
                f"TrainingClips: {self.clips.url} has no column {unknown[0]!r} to filter by; it has "
                f"{', '.join(self.clips.columns)}"
            )
        table = self.clips.table(list(dict.fromkeys(["clip_id", *_SHAPE_COLUMNS, *where])))
        if not len(table):
            raise ValueError(f"TrainingClips: {self.clips.url} has no clips")
        passed = selected_clips(self.clips, self.quality)
        for name, accepted in where.items():
            passed &= [_accepts(accepted, value) for value in table[name].to_pylist()]
        kept = np.flatnonzero(passed)
        if not len(kept):
            raise ValueError(
                f"TrainingClips: none of the {len(table)} clips of {self.clips.url} passes the filter on "
                f"{', '.join([*where, 'quality'])}"
            )
        table = table.take(pa.array(kept))
        shape = _common_shape(table)
        num_views, num_frames = shape["num_views"], shape["num_frames"]
        if num_views % self.views or num_frames < self.frames:
            raise ValueError(
                f"TrainingClips: the clips have {num_views} views and {num_frames} frames; {self.views} evenly "
                f"spaced views and {self.frames} frames cannot be taken from them"
            )
        self._groups, self._stride = num_views // self.views, num_frames // self.frames
        self._order_id = self._fingerprint(table["clip_id"].to_pylist())
        return kept

    def _fingerprint(self, clip_ids: Sequence[str]) -> str:
        """Hash everything that determines the order. Saved in training checkpoints: do not change."""
        arguments = [self.views, self.frames, self.batch_size, self.shuffle, self.seed, self.tail, self.mix]
        digest = hashlib.sha256(json.dumps([*arguments, self.world_size]).encode())
        digest.update("\n".join(clip_ids).encode())
        return digest.hexdigest()[:16]

    # --- position -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return (
            f"TrainingClips({self.clips.url!r}, {len(self)} batches of {self.batch_size or 'single samples'}, "
            f"{self.views} views × {self.frames} frames, {str(self.dtype).removeprefix('torch.')}, "
            f"rank {self.rank} of {self.world_size})"
        )

    def __len__(self) -> int:
        """Number of batches of this rank in a whole epoch."""
        return self._order.num_batches(self.rank)

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Make the next iteration start at batch `step` of this rank in `epoch`."""
        epoch = integer(epoch, "TrainingClips.set_epoch: epoch", 0)
        self._start[:] = torch.tensor([epoch, integer(step, "TrainingClips.set_epoch: step", 0)])

    def state_dict(self) -> dict[str, Any]:
        """Return the position at which the next iteration starts."""
        return self._state(*self._start.tolist())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration start at a saved position.

        Raises:
            ValueError: the state was saved with another dataset or other arguments.
        """
        fields_of(state, ("epoch", "step", "order"), "TrainingClips: state")
        if state["order"] != self._order_id:
            raise ValueError(
                "TrainingClips: this state belongs to another sequence: clips, filter, quality, views, frames, "
                "batch_size, shuffle, seed, tail, mix or world_size have changed. Restore them, or start an epoch with "
                f"set_epoch({state['epoch'] + 1})"
            )
        self.set_epoch(state["epoch"], state["step"])

    def _state(self, epoch: int, step: int) -> dict[str, Any]:
        return {"epoch": epoch, "step": step, "order": self._order_id}

    # --- batches --------------------------------------------------------------------------------------

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Sample numbers of every batch of this rank: clip index × number of view groups + view group."""
        return self._order.batches(epoch, self.rank)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, first = self._start.tolist()
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # A DataLoader collects from its workers in turn, so the batches arrive in the order of the epoch.
        steps = range(first + number, len(self), workers)
        batches = self.epoch_batches(epoch)
        decoded = self.read_batches(epoch, [batches[step] for step in steps])
        for step in steps:
            # No variable holds the batch, so that its memory can be reused as soon as the consumer releases it.
            yield {**next(decoded), "state": self._state(epoch, step + 1)}

    def read_batches(self, epoch: int, batches: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
        """Read and decode batches, fetching ahead.

        Args:
            epoch: determines the phases.
            batches: sample numbers of each batch, as `epoch_batches` returns them.

        Yields:
            Batches as documented in the class, without `state`.
        """
        reader = RowGroupReader(self.clips)

        def fetch(unit: int) -> pa.Table:
            row_group, group = divmod(unit, self._groups)
            return reader.read(row_group, self._columns(group))

        phases = self._phases(epoch)
        units = [self._units_of(samples).tolist() for samples in batches]
        for samples, tables in zip(batches, prefetch(units, fetch), strict=True):
            yield self._transformed(self._decode(samples, phases[samples], tables))

    def _transformed(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.transform(batch) if self.transform else batch

    def _phases(self, epoch: int) -> np.ndarray:
        """First frame of every sample of the dataset, int64 [clips × view groups]."""
        count = len(self.clips) * self._groups
        if not self.shuffle:
            return np.zeros(count, np.int64)
        return np.random.default_rng((self.seed, epoch, 1)).integers(0, self._stride, count)

    def _units_of(self, samples: np.ndarray) -> np.ndarray:
        """Unit of each sample: row group × number of view groups + view group."""
        starts = self.clips.row_group_starts
        row_groups = np.searchsorted(starts, samples // self._groups, side="right") - 1
        return row_groups * self._groups + samples % self._groups

    def _views(self, group: int) -> list[int]:
        return list(range(group, self._groups * self.views, self._groups))

    def _columns(self, group: int) -> list[str]:
        views = self._views(group)
        return [*_ROW_COLUMNS, *map(view_column, views), *map(alpha_column, views)]

    def _decode(
        self, samples: np.ndarray, phases: np.ndarray, tables: Mapping[int, pa.Table]
    ) -> dict[str, Any]:
        """Decode one batch. `tables`: unit → its rows."""
        frames: np.ndarray | None = None
        batch = []
        units = self._units_of(samples).tolist()
        for place, (sample, phase) in enumerate(zip(samples.tolist(), phases.tolist(), strict=True)):
            clip, group = divmod(sample, self._groups)
            first = int(self.clips.row_group_starts[units[place] // self._groups])
            row = tables[units[place]].slice(clip - first, 1)
            values = row.select(_ROW_COLUMNS).to_pylist()[0]
            if frames is None:
                shape = (len(samples), self.views, self.frames, 3, values["height"], values["width"])
                frames = self._buffers.take(shape, self._value_table.dtype)
            indices = [phase + self._stride * frame for frame in range(self.frames)]
            for number, view in enumerate(self._views(group)):
                self._decode_view(row, values["clip_id"], view, indices, frames[place, number])
            batch.append(self._sample_metadata(values, group, phase, indices))
        assert frames is not None, "a batch has at least one sample"
        pixels = torch.from_numpy(frames).view(self.dtype)
        if self.batch_size is None:
            return {"frames": pixels[0], **batch[0]}
        columns = {name: [sample[name] for sample in batch] for name in batch[0]}
        return {"frames": pixels} | {
            name: torch.stack(values) if isinstance(values[0], torch.Tensor) else values
            for name, values in columns.items()
        }

    def _sample_metadata(
        self, row: Mapping[str, Any], group: int, phase: int, indices: list[int]
    ) -> dict[str, Any]:
        """Everything of one sample except its pixels."""
        cameras = row_cameras(row)[self._views(group)]
        return {
            "camera": torch.from_numpy(mvvdm_camera_vectors(cameras)).float(),
            "world_to_camera": torch.from_numpy(cameras.world_to_camera).float(),
            "K": torch.from_numpy(cameras.K).float(),
            "timestamps": torch.tensor(row["timestamps"], dtype=torch.float64)[indices],
            "caption": caption.text
            if (caption := self.clips.captions.get(row["clip_id"]))
            else row["caption"],
            "clip_id": row["clip_id"],
            "view_group": torch.tensor(group),
            "phase": torch.tensor(phase),
        }

    def _decode_view(
        self, row: pa.Table, clip_id: str, view: int, indices: list[int], out: np.ndarray
    ) -> None:
        """Decode frames of one view into `out`, [T, 3, H, W], bit patterns of `dtype`."""
        try:
            video, alpha = row[view_column(view)][0]["bytes"].as_py(), row[alpha_column(view)][0].as_py()
            color = np.array(self.background, np.uint8)  # never ambiguous, unlike a tuple
            decode_on(color, video, alpha, indices, self._value_table, out)
        except ValueError as error:
            raise ValueError(
                f"clip {clip_id}, view {view}, of {self.clips.url}: {error}. The shard is damaged; compare its sha256 "
                f"with its manifest in _factory/shards and download or pack it again"
            ) from error


class ClipLoader(DataLoader):
    """A torch DataLoader that tracks which batches it has yielded, regardless of what its workers have prefetched.

        loader = ClipLoader(TrainingClips("path or URL", batch_size=2), num_workers=8)
        for epoch in range(3):
            for batch in loader:
                …
                checkpoint["loader"] = loader.state_dict()

    Iterating yields the rest of the epoch and then moves to the start of the next one. After the loop was left early,
    or after `load_state_dict`, iteration continues behind the last batch yielded.

    Args:
        clips: the batches.
        num_workers: loader processes; 0 decodes in this process.
        **options: passed to `DataLoader`.
    """

    def __init__(self, clips: TrainingClips, num_workers: int = 0, **options: Any) -> None:
        instance(clips, TrainingClips, "ClipLoader: clips")
        num_workers = integer(num_workers, "ClipLoader: num_workers", 0)
        options.setdefault("persistent_workers", num_workers > 0)
        super().__init__(clips, batch_size=None, num_workers=num_workers, **options)
        self._clips = clips
        self._state = clips.state_dict()

    def __repr__(self) -> str:
        return f"ClipLoader({self._clips!r}, {self.num_workers} workers)"

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        self._clips.load_state_dict(self._state)
        for batch in super().__iter__():
            self._state = batch["state"]
            yield batch
        self._state = {**self._state, "epoch": self._state["epoch"] + 1, "step": 0}

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and step after the last batch yielded, as plain values."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a saved position, with any number of workers.

        Raises:
            ValueError: the state was saved with another dataset or other arguments.
        """
        self._clips.load_state_dict(state)
        self._state = dict(state)


def _common_shape(table: pa.Table) -> dict[str, int]:
    """Return the number of views and frames and the resolution shared by all clips of a table."""
    shapes = table.select(_SHAPE_COLUMNS).to_pylist()
    different = next((place for place, shape in enumerate(shapes) if shape != shapes[0]), None)
    if different is not None:
        raise ValueError(
            f"TrainingClips: clip {table['clip_id'][different]} has {shapes[different]}, the first clip {shapes[0]}; "
            f"all clips of a batch need the same shape: select them with `where`"
        )
    return shapes[0]


def _accepts(accepted: Accepted, value: Any) -> bool:
    if callable(accepted):
        return bool(accepted(value))
    if isinstance(accepted, Collection) and not isinstance(accepted, str):
        return value in accepted
    return value == accepted


def _distributed_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of ranks; defaults to torch.distributed if it is initialised."""
    if rank is None and world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if rank is not None:
        rank = integer(rank, "TrainingClips: rank", 0)
    if world_size is not None:
        world_size = integer(world_size, "TrainingClips: world_size", 1)
    if rank is None or world_size is None or not rank < world_size:
        raise ValueError(
            f"TrainingClips: rank {rank} of {world_size}; expected both, with 0 <= rank < world_size"
        )
    return rank, world_size
