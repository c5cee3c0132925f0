"""How fast clips come for training: against decoding alone, and against a loader over a folder of mp4 files.

    python -m benchmarks.loader FOLDER [--rounds 9] [--clips 4]

FOLDER is a dataset (`python -m factory.render --out FOLDER`). All contenders give the same samples, 4 orthogonal
views x 16 frames each, one after the other, in turn, on one core; processor time, the median of the rounds.
Ratios are medians too, of those within a round, so that other work on the machine cancels.

loader      `factory.TrainingClips`: from the shards to float tensors in -1..1 on grey, with cameras and caption.
ceiling     the same frames of the same videos, already in memory, decoded by torchcodec and nothing else: no alpha,
            no background, no floats.
decord      what the published training loader of MV-Video does: for each sample an entry of a JSON list with four
            paths and an angle; each file, colour on grey, opened by decord at the target size and 16 frames of 48
            taken by index; stacked, put channels first, to floats, normalised to -1..1. decord 0.6 is in no extra:
            `uv pip install --target DECORD --no-deps decord==0.6.0`, then PYTHONPATH=DECORD. Left out where missing.
torchcodec  the same by torchcodec.

The last two over two sets of files, because how the original's were encoded is not published: with the key frames
of ours (every 8), and as x264 does it by itself (every 250).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})  # before anything reads them

import av
import numpy as np
import torch
from torchcodec.decoders import VideoDecoder
from torchvision.transforms import Normalize

import factory
from benchmarks.common import describe_machine
from factory.dataset.codecs.mp4 import read_index
from factory.dataset.codecs.video import decoded_planes, unpack_alpha
from factory.dataset.schema import alpha_column, view_column
from renderers.meshes.clip import GREY

try:
    import decord
except ImportError:
    decord = None

BAR_CEILING, BAR_FOLDER = 0.9, 3.0


def indices(phase: int) -> list[int]:
    return list(range(phase, phase + 48, 3))


def ceiling(videos: list[tuple[list[bytes], int]]) -> Iterator[torch.Tensor]:
    for files, phase in videos:
        for data in files:
            yield VideoDecoder(data, num_ffmpeg_threads=1).get_frames_at(indices(phase)).data


def by_torchcodec(path: str, frames: list[int], size: int) -> torch.Tensor:
    """uint8 [T, H, W, 3]"""
    return VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC").get_frames_at(frames).data


def by_decord(path: str, frames: list[int], size: int) -> torch.Tensor:
    return torch.from_numpy(decord.VideoReader(path, width=size, height=size).get_batch(frames).asnumpy())


def folder(root: Path, phases: list[int], size: int, read: Callable) -> Iterator[torch.Tensor]:
    """One sample after the other from the files."""
    normalise = Normalize([0.5] * 3, [0.5] * 3, inplace=True)
    for entry, phase in zip(json.loads((root / "train.json").read_text()), phases, strict=True):
        views = torch.stack([read(str(root / path), indices(phase), size) for path in entry["data_path"]])
        values = views.permute(0, 1, 4, 2, 3).contiguous().float() / 255.0
        yield normalise(values.flatten(0, 1)).unflatten(0, values.shape[:2])


def parts(videos: list[tuple[list[bytes], int]]) -> Iterator[None]:
    """Of the loader's time what its decoder takes: the pictures as planes."""
    for files, phase in videos:
        for data in files:
            yield from (None for _ in decoded_planes(data, read_index(data), indices(phase)))


def alphas(cells: list[list[bytes]]) -> Iterator[np.ndarray]:
    yield from (unpack_alpha(cell) for sample in cells for cell in sample)


def write_folder(
    root: Path, clips: factory.ClipDataset, samples: list[tuple[str, int]], **options: str
) -> None:
    """Each clip as 16 mp4 files on grey, and the list that names the four of each sample."""
    entries = []
    for clip_id, group in samples:
        clip = clips.clip(clip_id)
        views = [group, group + 4, group + 8, group + 12]
        paths = [f"videos/{clip_id}/00/view_{view}.mp4" for view in views]
        (root / paths[0]).parent.mkdir(parents=True, exist_ok=True)
        for path, frames in zip(paths, clip.read(views, background=GREY).frames, strict=True):
            with av.open(str(root / path), "w") as container:
                stream = container.add_stream("libx264", rate=24, options={"crf": "18", **options})
                stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
                for frame in frames:
                    container.mux(
                        stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"))
                    )
                container.mux(stream.encode(None))
        angle = {
            "elv": clip.metadata["elevation_deg"],
            "azi_start": clip.metadata["azimuths_deg"][group],
        }
        entries.append({"data_path": paths, "text_prompt": clip.metadata["caption"], "angle": angle})
    (root / "train.json").write_text(json.dumps(entries))


def compare(root: str, rounds: int, count: int) -> int:
    clips = factory.load_clips(root)
    few = {"clip_id": set(clips.table(["clip_id"])["clip_id"].to_pylist()[:count])}
    training = factory.TrainingClips(clips, where=few, tail="keep")
    whole = factory.TrainingClips(clips, where=few, tail="keep", dtype=torch.uint8)
    chosen = [(sample["clip_id"], int(sample["view_group"]), int(sample["phase"])) for sample in whole]
    phases = [phase for _, _, phase in chosen]
    size = clips[0].metadata["height"]
    videos, cells = [], []
    for clip_id, group, phase in chosen:
        views = range(group, 16, 4)
        columns = [*map(view_column, views), *map(alpha_column, views)]
        row = clips.read_row(clips.clip(clip_id).index, columns)
        videos.append(([row[view_column(view)]["bytes"] for view in views], phase))
        cells.append([row[alpha_column(view)] for view in views])
    assert all(len(read_index(data).frames) == 48 for files, _ in videos for data in files)
    with tempfile.TemporaryDirectory() as ours_like, tempfile.TemporaryDirectory() as defaults:
        named = [sample[:2] for sample in chosen]
        write_folder(Path(ours_like), clips, named, g="8", bf="1")
        write_folder(Path(defaults), clips, named)
        contenders: dict[str, Callable[[], Iterator[object]]] = {
            "loader": lambda: training,
            "loader, uint8": lambda: whole,
            "  of it, pictures": lambda: parts(videos),
            "  of it, alpha": lambda: alphas(cells),
            "ceiling": lambda: ceiling(videos),
        }
        for reader, read in {"decord": by_decord, "torchcodec": by_torchcodec}.items():
            if reader == "decord" and decord is None:
                continue
            for files, where in {"x264's defaults": defaults, "key frames every 8": ours_like}.items():
                contenders[f"{reader}, {files}"] = partial(folder, Path(where), phases, size, read)
        seconds: dict[str, list[float]] = {label: [] for label in contenders}
        for round_number in range(rounds + 1):
            for label, run in contenders.items():
                started = time.process_time()
                for _ in run():
                    pass
                if round_number:  # the first one loads libraries and fills the page cache
                    seconds[label].append((time.process_time() - started) / len(chosen))
    print(f"{len(chosen)} samples of 4 views x 16 frames, {size} px, one core; {rounds} rounds")
    speed = {label: ratio(times, seconds["loader"]) for label, times in seconds.items()}
    for label, times in seconds.items():
        print(
            f"{label:32}{1e3 * median(times):8.2f} ms{1 / median(times):8.1f} samples/s   "
            f"{speed[label]:5.2f} x the loader's time"
        )
    peer = "torchcodec, x264's defaults" if decord is None else "decord, x264's defaults"
    print(
        f"loader: {speed['ceiling']:.2f} of the ceiling (bar {BAR_CEILING}), {speed[peer]:.2f} x mp4 by {peer} "
        f"(bar {BAR_FOLDER})"
    )
    return int(speed["ceiling"] < BAR_CEILING or speed[peer] < BAR_FOLDER)


def ratio(times: list[float], others: list[float]) -> float:
    """Median over the rounds."""
    return median(time / other for time, other in zip(times, others, strict=True))


def main() -> int:
    """1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clips", type=int, default=4, help="how many of them: four samples each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    return compare(args.folder, args.rounds, args.clips)


if __name__ == "__main__":
    sys.exit(main())
