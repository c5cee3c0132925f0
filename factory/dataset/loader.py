"""Clips for training: orthogonal views and every third frame, shuffled, sharded, resumable, nothing else decoded.

A *sample* is one clip seen by one group of views (methods §1.4): of 16 views, group g is {g, g + 4, g + 8, g + 12},
so that each clip gives four samples an epoch; of 48 frames, a random phase s in {0, 1, 2} takes s, s + 3, … s + 45.

The order of an epoch is a function of (seed, epoch) and the dataset alone. It is cut into batches of all ranks,
batch after batch; the ranks take them in turn, and so do the workers of a rank. Hence the sequence does not depend
on the number of workers, and a place in it is one number.

A row group, which is what a reader fetches at least, holds four clips. One view group of one row group is a *unit*.
Units are shuffled as wholes, then laid out in blocks of `mix` batches: each batch of a block takes one sample from
each of its units, and `mix` batches later the same units give their next one. So each unit is fetched once, by one
worker if ranks x workers divides `mix`, and neighbours in the dataset never meet in a batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.parquet import AlreadyBufferedFile
from fsspec.utils import merge_offset_ranges
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from factory.dataset.codecs.video import decode_on
from factory.dataset.reader import ClipDataset, load_clips
from factory.dataset.schema import alpha_column, row_cameras, view_column
from renderers.cameras import mvvdm_camera_vectors
from renderers.meshes.clip import GREY

TAILS = ("drop", "pad", "keep")
_ROW_COLUMNS = ["clip_id", "caption", "timestamps", "num_frames", "width", "height", "K", "world_to_camera"]
_READ_AHEAD = 2  # batches whose units are fetched while the one before is decoded
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MAX_GAP = 64 * 2**10  # bytes read for nothing rather than by another request
Accepted = Callable[[Any], bool] | Collection[Any] | str


class TrainingClips(IterableDataset):
    """Batches for training. Iterating it gives the rest of one epoch; it never changes where it stands.

    Use it through `ClipLoader`, which advances it, or set `set_epoch` before each epoch and give it to a torch
    `DataLoader` with `batch_size=None`: batches are made here, so that all ranks have equally many.

    A batch is a dict (without its first dimension B where `batch_size` is None):

        frames          [B, V, T, 3, H, W], in -1..1, or 0..255 if `dtype` is torch.uint8
        camera          float32 [B, V, 16], MV-VDM's vector (`renderers.cameras.mvvdm_camera_vectors`)
        world_to_camera float32 [B, V, 4, 4]; K float32 [B, V, 3, 3], pixels (docs/dataset.md)
        timestamps      float64 [B, T], seconds on the animation's time line
        caption, clip_id  lists of B strings
        view_group, phase int64 [B]; the condition frame is frames[:, :, 0]
        state           what `load_state_dict` takes to go on after this batch

    Args:
        dataset: a folder, a URL or an opened dataset (`factory.load_clips(…, split="train")`).
        where: column → what is accepted: a value, a collection of values, or a function of the value.
        views: V, evenly spaced around the object. frames: T, evenly spaced in time.
        batch_size: B of each rank; None gives single samples.
        background: RGB 0-255. dtype: of `frames`, floating or torch.uint8.
        shuffle: False gives the order of the dataset with phase 0. seed: of order and phases.
        tail: what becomes of the last samples of an epoch that do not fill a batch on every rank: "drop" leaves
            them out (others each epoch), "pad" fills up with the first of the epoch again, "keep" gives them as
            they are, a shorter last batch and, on some ranks, one batch fewer.
        mix: batches of a block; see the top of this file. A worker holds `mix` x B units at most.
        rank, world_size: of this process; None asks torch.distributed.
    Raises:
        ValueError: arguments that do not fit the clips, or no clip that fits the arguments.
    """

    def __init__(
        self,
        dataset: ClipDataset | str | os.PathLike[str],
        *,
        where: Mapping[str, Accepted] | None = None,
        views: int = 4,
        frames: int = 16,
        batch_size: int | None = None,
        background: Sequence[int] = GREY,
        dtype: torch.dtype = torch.float32,
        shuffle: bool = True,
        seed: int = 0,
        tail: str = "drop",
        mix: int = 16,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.clips = dataset if isinstance(dataset, ClipDataset) else load_clips(dataset)
        self.views, self.frames, self.batch_size = views, frames, batch_size
        self.background, self.dtype = tuple(background), dtype
        self.shuffle, self.seed, self.tail, self.mix = shuffle, seed, tail, mix
        self.rank, self.world_size = _this_process(rank, world_size)
        if tail not in TAILS:
            raise ValueError(f"TrainingClips: tail is {tail!r}; expected one of {', '.join(TAILS)}")
        if dtype != torch.uint8 and not dtype.is_floating_point:
            raise ValueError(f"TrainingClips: dtype is {dtype}; expected a floating type or torch.uint8")
        if min(views, frames, mix, batch_size or 1) < 1:
            raise ValueError("TrainingClips: views, frames, batch_size and mix are at least 1")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"TrainingClips: background is {self.background}; expected RGB, 0-255")
        self._levels, self._memory = _levels(dtype), _Memory()

        self._kept = self._choose(where or {})
        self._samples = (self._kept[:, None] * self._groups + np.arange(self._groups)).ravel()
        self._units = self._units_of(self._samples)
        if not len(self):
            raise ValueError(
                f"TrainingClips: {len(self._samples)} samples are less than one batch of {batch_size or 1} on each of "
                f'{self.world_size} ranks; take smaller batches, or tail="pad"'
            )
        # Workers that live longer than an epoch see here what the main process wants next.
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()

    def _choose(self, where: Mapping[str, Accepted]) -> np.ndarray:
        """Indices of the clips that pass, after checking that they fit the arguments."""
        sizes = ["num_views", "num_frames", "width", "height"]
        unknown = sorted(set(where) - set(self.clips.columns))
        if unknown:
            raise ValueError(
                f"TrainingClips: {self.clips.url} has no column {unknown[0]!r} to filter by; it has "
                f"{', '.join(self.clips.columns)}"
            )
        table = self.clips.table(list(dict.fromkeys(["clip_id", *sizes, *where])))
        passed = np.ones(len(table), bool)
        for name, accepted in where.items():
            passed &= [_accepts(accepted, value) for value in table[name].to_pylist()]
        kept = np.flatnonzero(passed)
        if not len(kept):
            raise ValueError(
                f"TrainingClips: none of the {len(table)} clips of {self.clips.url} passes the filter on "
                f"{', '.join(where)}"
            )
        table = table.take(pa.array(kept))
        kinds = table.select(sizes).to_pylist()
        odd = next((place for place, kind in enumerate(kinds) if kind != kinds[0]), None)
        if odd is not None:
            raise ValueError(
                f"TrainingClips: clip {table['clip_id'][odd]} has {kinds[odd]}, the first clip {kinds[0]}; choose "
                f"clips of one kind with `where`"
            )
        num_views, num_frames = kinds[0]["num_views"], kinds[0]["num_frames"]
        if num_views % self.views or num_frames < self.frames:
            raise ValueError(
                f"TrainingClips: the clips have {num_views} views and {num_frames} frames; {self.views} evenly "
                f"spaced views and {self.frames} frames cannot be taken from them"
            )
        self._groups, self._stride = num_views // self.views, num_frames // self.frames
        arguments = [self.views, self.frames, self.batch_size, self.shuffle, self.seed, self.tail, self.mix]
        digest = hashlib.sha256(json.dumps([*arguments, self.world_size]).encode())
        digest.update("\n".join(table["clip_id"].to_pylist()).encode())
        self._order_id = digest.hexdigest()[:16]
        return kept

    # --- where we are ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        each = self.batch_size or 1
        if self.tail == "keep":
            rest = len(self._samples) - self.rank * each
            return max(0, -(-rest // (self.world_size * each)))
        rounding = 0 if self.tail == "drop" else self.world_size * each - 1
        return (len(self._samples) + rounding) // (self.world_size * each)

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """The next iteration begins at batch `step` of this rank in this epoch."""
        self._start[:] = torch.tensor([epoch, step])

    def state_dict(self) -> dict[str, Any]:
        """Where the next iteration begins."""
        return self._state(*self._start.tolist())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next iteration where `state` says. Raises ValueError if it is of another sequence."""
        if state["order"] != self._order_id:
            raise ValueError(
                "TrainingClips: this state belongs to another sequence: clips, filter, views, frames, batch_size, "
                "shuffle, seed, tail, mix or world_size have changed. Restore them, or begin an epoch with "
                f"set_epoch({state['epoch'] + 1})"
            )
        self.set_epoch(state["epoch"], state["step"])

    def _state(self, epoch: int, step: int) -> dict[str, Any]:
        return {"epoch": epoch, "step": step, "order": self._order_id}

    # --- the order ------------------------------------------------------------------------------------

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The samples of every batch of this rank: clip index x number of view groups + view group."""
        each = self.batch_size or 1
        order = self._epoch_order(epoch)
        if self.tail != "keep":
            order = np.resize(order, len(self) * self.world_size * each)  # cuts, or begins again
        starts = range(self.rank * each, len(order), self.world_size * each)
        return [order[start : start + each] for start in starts]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return self._samples
        random = np.random.default_rng((self.seed, epoch))
        unit_numbers, unit = np.unique(self._units, return_inverse=True)
        position = random.permutation(len(unit_numbers))[unit]
        by_unit = np.lexsort((random.random(len(unit)), position))
        samples, position = self._samples[by_unit], position[by_unit]
        turn = np.arange(len(position)) - np.searchsorted(position, position)  # 0, 1, … within its unit
        block = position // (self.mix * (self.batch_size or 1))
        return samples[np.lexsort((position, turn, block))]

    def _phases(self, epoch: int) -> np.ndarray:
        """First frame of every sample the dataset could give, by sample."""
        count = len(self.clips) * self._groups
        if not self.shuffle:
            return np.zeros(count, np.int64)
        return np.random.default_rng((self.seed, epoch, 1)).integers(0, self._stride, count)

    # --- the pixels -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, step = self._start.tolist()
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # A DataLoader asks its workers in turn, so the batches come out in the order of the epoch.
        steps = range(step + number, len(self), workers)
        batches = self.epoch_batches(epoch)
        phases = self._phases(epoch)
        for step, samples, units in self._fetched([(step, batches[step]) for step in steps]):
            yield {
                **self._decode(samples, phases[samples], units),
                "state": self._state(epoch, step + 1),
            }

    def _fetched(
        self, batches: list[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, dict[int, pa.Table]]]:
        """Each batch with the units it is in. A unit is fetched ahead, once, and let go after its last sample."""
        if not batches:
            return
        reader = _Reader(self.clips)
        numbers, uses = np.unique(self._units_of(np.concatenate([b for _, b in batches])), return_counts=True)
        left = dict(zip(numbers.tolist(), uses.tolist(), strict=True))
        held: dict[int, Future[pa.Table]] = {}
        with ThreadPoolExecutor(1) as pool:
            for place, (step, samples) in enumerate(batches):
                for _, ahead in batches[place : place + 1 + _READ_AHEAD]:
                    for unit in self._units_of(ahead).tolist():
                        if unit not in held:
                            row_group, group = divmod(unit, self._groups)
                            held[unit] = pool.submit(reader.read, row_group, self._columns(group))
                units = self._units_of(samples).tolist()
                yield step, samples, {unit: held[unit].result() for unit in units}
                for unit in units:
                    left[unit] -= 1
                    if not left[unit]:
                        held.pop(unit)

    def _units_of(self, samples: np.ndarray) -> np.ndarray:
        """Row group x number of view groups + view group, of each sample."""
        row_groups = np.searchsorted(self.clips._starts, samples // self._groups, side="right") - 1
        return row_groups * self._groups + samples % self._groups

    def _columns(self, group: int) -> list[str]:
        views = range(group, self._groups * self.views, self._groups)
        return [*_ROW_COLUMNS, *map(view_column, views), *map(alpha_column, views)]

    def _decode(self, samples: np.ndarray, phases: np.ndarray, units: dict[int, pa.Table]) -> dict[str, Any]:
        batch = []
        unit_of = self._units_of(samples).tolist()
        for place, (sample, phase) in enumerate(zip(samples.tolist(), phases.tolist(), strict=True)):
            clip, group = divmod(sample, self._groups)
            first = int(self.clips._starts[unit_of[place] // self._groups])
            table = units[unit_of[place]].slice(clip - first, 1)
            row = table.select(_ROW_COLUMNS).to_pylist()[0]
            indices = [phase + self._stride * frame for frame in range(self.frames)]
            views = list(range(group, self._groups * self.views, self._groups))
            if not place:
                shape = (len(samples), self.views, self.frames, 3, row["height"], row["width"])
                words = self._memory.take(shape, self._levels.dtype)
            for number, view in enumerate(views):
                self._decode_view(table, row["clip_id"], view, indices, words[place, number])
            cameras = row_cameras(row)[views]
            batch.append(
                {
                    "camera": torch.from_numpy(mvvdm_camera_vectors(cameras)).float(),
                    "world_to_camera": torch.from_numpy(cameras.world_to_camera).float(),
                    "K": torch.from_numpy(cameras.K).float(),
                    "timestamps": torch.tensor(row["timestamps"], dtype=torch.float64)[indices],
                    "caption": row["caption"],
                    "clip_id": row["clip_id"],
                    "view_group": torch.tensor(group),
                    "phase": torch.tensor(phase),
                }
            )
        frames = torch.from_numpy(words).view(self.dtype)
        if self.batch_size is None:
            return {"frames": frames[0], **batch[0]}
        columns = {name: [sample[name] for sample in batch] for name in batch[0]}
        stacked = {
            name: torch.stack(values) if isinstance(values[0], torch.Tensor) else values
            for name, values in columns.items()
        }
        return {"frames": frames, **stacked}

    def _decode_view(
        self, row: pa.Table, clip_id: str, view: int, indices: list[int], words: np.ndarray
    ) -> None:
        """Fills words [T, 3, H, W]."""
        try:
            video, alpha = row[view_column(view)][0]["bytes"].as_py(), row[alpha_column(view)][0].as_py()
            decode_on(self.background, video, alpha, indices, self._levels, words)
        except ValueError as error:
            raise ValueError(
                f"clip {clip_id}, view {view}, of {self.clips.url}: {error}. The shard is damaged; compare its sha256 "
                f"with _factory/shards and fetch or pack it again"
            ) from error


def _levels(dtype: torch.dtype) -> np.ndarray:
    """What stands for 0-255 in a batch: [256], the bits of -1..1 in a floating type, for numpy knows only some."""
    levels = torch.arange(256, dtype=torch.uint8).to(dtype)
    if dtype.is_floating_point:
        levels.div_(127.5).sub_(1.0)
    return levels.view(_WORDS[dtype.itemsize]).numpy()


class ClipLoader(DataLoader):
    """A torch DataLoader that knows which batches it has handed out, whatever its workers have read ahead.

        loader = ClipLoader(TrainingClips("path or URL", batch_size=2), num_workers=8)
        for epoch in range(3):
            for batch in loader:
                …
                checkpoint["loader"] = loader.state_dict()

    Iterating gives the rest of the epoch and then stands at the beginning of the next; leaving the loop early, or
    `load_state_dict`, goes on after the last batch handed out. `options` are DataLoader's.
    """

    def __init__(self, clips: TrainingClips, num_workers: int = 0, **options: Any) -> None:
        options.setdefault("persistent_workers", num_workers > 0)
        super().__init__(clips, batch_size=None, num_workers=num_workers, **options)
        self._state = clips.state_dict()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        clips = self.dataset
        clips.load_state_dict(self._state)
        for batch in super().__iter__():
            self._state = batch["state"]
            yield batch
        self._state = {**self._state, "epoch": self._state["epoch"] + 1, "step": 0}

    def state_dict(self) -> dict[str, Any]:
        """Epoch and step after the last batch handed out; plain values."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there; any number of workers. Raises ValueError if the state is of another sequence."""
        self.dataset.load_state_dict(state)
        self._state = dict(state)


def ray_dataset(clips: TrainingClips, epoch: int = 0, steps_per_task: int = 4) -> Any:
    """One epoch as a Ray Data source, one row a sample, without `state`; each task reads some batches.

    Within `cluster.connect()`, or where Ray is initialised. With `world_size` 1, Ray shards it
    (`streaming_split`); the order is that of the epoch where Ray is told to keep order.
    """
    from cluster import data

    batches = clips.epoch_batches(epoch)
    parts, rows = [], []
    for start in range(0, len(batches), steps_per_task):
        part = batches[start : start + steps_per_task]
        parts.append(partial(_read_part, clips, epoch, part))
        rows.append(sum(map(len, part)))
    return data.from_parts(parts, rows)


def _read_part(
    clips: TrainingClips, epoch: int, batches: list[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Columns of arrays, a block for each batch."""
    phases = clips._phases(epoch)
    for _, samples, units in clips._fetched(list(enumerate(batches))):
        batch = clips._decode(samples, phases[samples], units)
        if clips.batch_size is None:
            batch = {
                name: value[None] if isinstance(value, torch.Tensor) else [value]
                for name, value in batch.items()
            }
        yield {
            name: value.numpy() if isinstance(value, torch.Tensor) else np.array(value, object)
            for name, value in batch.items()
        }


class _Memory:
    """Arrays for batches. One that nobody holds any more is used again.

    A sample is 50 MB of floats. To get them from the system and give them back takes from twice (numpy's huge pages)
    to ten times (torch's small ones) as long as to fill them.
    """

    _KEPT = 4

    def __init__(self) -> None:
        self._lent: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()  # another process has its own

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array to be handed on by `torch.from_numpy`, whose tensors keep this very object."""
        with self._lock:
            free = (array for array, lent in self._lent if lent() is None and array.shape == shape)
            array = next(free, None)
            if array is None:
                array = np.empty(shape, dtype)
            view = array.view()
            others = [pair for pair in self._lent if pair[0] is not array]
            self._lent = [*others[1 - self._KEPT :], (array, weakref.ref(view))]
            return view


class _Reader:
    """Reads some columns of a row group: through memory where the file is local, else by ranges asked at once."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips
        self._fs = clips._fs
        if not isinstance(self._fs, LocalFileSystem):
            # Connections do not outlive a fork; fsspec keeps instances by process.
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options)

    def read(self, place: int, columns: list[str]) -> pa.Table:
        file, group = self._clips._groups[place]
        path, footer = self._clips._files[file], self._clips._footers[file]
        if isinstance(self._fs, LocalFileSystem):
            with pq.ParquetFile(path, metadata=footer, memory_map=True) as parquet:
                return parquet.read_row_group(group, columns)
        with pq.ParquetFile(self._ranges(path, footer, group, set(columns)), metadata=footer) as parquet:
            return parquet.read_row_group(group, columns)

    def _ranges(
        self, path: str, footer: pq.FileMetaData, group: int, columns: set[str]
    ) -> AlreadyBufferedFile:
        """A file that has the bytes of these columns and no others."""
        row_group = footer.row_group(group)
        chunks = [row_group.column(index) for index in range(row_group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
        ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
        paths, starts, ends = merge_offset_ranges([path] * len(starts), starts, ends, max_gap=_MAX_GAP)
        parts = self._fs.cat_ranges(paths, starts, ends, on_error="raise")
        data = dict(zip(zip(starts, ends, strict=True), parts, strict=True))
        size = max(ends)
        return AlreadyBufferedFile(
            fs=None, path=path, mode="rb", cache_type="parts", cache_options={"data": data}, size=size
        )


def _accepts(accepted: Accepted, value: Any) -> bool:
    if callable(accepted):
        return bool(accepted(value))
    if isinstance(accepted, Collection) and not isinstance(accepted, str):
        return value in accepted
    return value == accepted


def _this_process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of ranks, from torch.distributed where it is initialised."""
    if rank is None and world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ValueError(f"TrainingClips: rank {rank} of {world_size}; expected both, 0 <= rank < world_size")
    return rank, world_size
