"""Throughput of the training loader, compared with decoding alone and with a loader over a folder of mp4 files.

    python -m benchmarks.loader FOLDER [--rounds 9] [--clips 4]

FOLDER is a dataset (`python -m factory.render --out FOLDER`). All contenders produce the same samples, 4 orthogonal
views x 16 frames each, sequentially on one core, and alternate within each round. Figures are CPU time, medians over
the rounds. Ratios are medians of the ratios within a round, which cancels the effect of other load on the machine.

loader      `factory.TrainingClips`: from shards to float tensors in [-1, 1] on grey, with cameras and caption.
ceiling     the same frames of the same videos, already in memory, decoded by torchcodec without alpha, background or
            conversion to float.
decord      the algorithm of the published MV-Video training loader: each sample is an entry of a JSON list with four
            paths and an angle; each file, colour on grey, is opened by decord at the target size, and 16 of its 48
            frames are read by index, stacked, moved to channels-first, converted to float and normalised to [-1, 1].
            decord 0.6 is not in any extra: `uv pip install --target DECORD --no-deps decord==0.6.0`, then set
            PYTHONPATH=DECORD. Skipped if it is not installed.
torchcodec  the same with torchcodec.

The last two are run on two sets of files, since the encoding of the original files is not published: with our key
frame interval (8) and with x264's default (250).
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

os.environ.update(
    {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
)  # must be set before the imports below

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
    """Return the 16 frames of a sample: every third of the 48 frames, starting at `phase`."""
    return list(range(phase, phase + 48, 3))


def ceiling(videos: list[tuple[list[bytes], int]]) -> Iterator[torch.Tensor]:
    """Decode the colour frames only."""
    for files, phase in videos:
        for data in files:
            yield VideoDecoder(data, num_ffmpeg_threads=1).get_frames_at(indices(phase)).data


def by_torchcodec(path: str, frames: list[int], size: int) -> torch.Tensor:
    """Return frames of an mp4 file, uint8 [T, H, W, 3]."""
    return VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC").get_frames_at(frames).data


def by_decord(path: str, frames: list[int], size: int) -> torch.Tensor:
    """Return frames of an mp4 file, uint8 [T, H, W, 3]."""
    return torch.from_numpy(decord.VideoReader(path, width=size, height=size).get_batch(frames).asnumpy())


def folder(
    root: Path, phases: list[int], size: int, read: Callable[[str, list[int], int], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Load one sample after another from a folder of mp4 files, float [4, T, 3, H, W]."""
    normalise = Normalize([0.5] * 3, [0.5] * 3, inplace=True)
    for entry, phase in zip(json.loads((root / "train.json").read_text()), phases, strict=True):
        views = torch.stack([read(str(root / path), indices(phase), size) for path in entry["data_path"]])
        values = views.permute(0, 1, 4, 2, 3).contiguous().float() / 255.0
        yield normalise(values.flatten(0, 1)).unflatten(0, values.shape[:2])


def parts(videos: list[tuple[list[bytes], int]]) -> Iterator[None]:
    """Run only the loader's video decoding, to YUV planes."""
    for files, phase in videos:
        for data in files:
            yield from (None for _ in decoded_planes(data, read_index(data), indices(phase)))


def alphas(cells: list[list[bytes]]) -> Iterator[np.ndarray]:
    """Run only the loader's decompression of alpha masks."""
    yield from (unpack_alpha(cell) for sample in cells for cell in sample)


def write_folder(
    root: Path, clips: factory.ClipDataset, samples: list[tuple[str, int]], **options: str
) -> None:
    """Write the views of each sample as mp4 files on grey, and the JSON list that names them."""
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
    """Time all contenders on the first `count` clips and print the results; 1 if a target is missed."""
    clips = factory.load_clips(root)
    selection = {"clip_id": set(clips.table(["clip_id"])["clip_id"].to_pylist()[:count])}
    training = factory.TrainingClips(clips, where=selection, tail="keep")
    training_uint8 = factory.TrainingClips(clips, where=selection, tail="keep", dtype=torch.uint8)
    chosen = [
        (sample["clip_id"], int(sample["view_group"]), int(sample["phase"])) for sample in training_uint8
    ]
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
    with tempfile.TemporaryDirectory() as short_interval, tempfile.TemporaryDirectory() as defaults:
        groups = [sample[:2] for sample in chosen]
        write_folder(Path(short_interval), clips, groups, g="8", bf="1")
        write_folder(Path(defaults), clips, groups)
        contenders: dict[str, Callable[[], Iterator[object]]] = {
            "loader": lambda: training,
            "loader, uint8": lambda: training_uint8,
            "  of which video": lambda: parts(videos),
            "  of which alpha": lambda: alphas(cells),
            "ceiling": lambda: ceiling(videos),
        }
        for reader, read in {"decord": by_decord, "torchcodec": by_torchcodec}.items():
            if reader == "decord" and decord is None:
                continue
            for files, path in {"x264's defaults": defaults, "key frames every 8": short_interval}.items():
                contenders[f"{reader}, {files}"] = partial(folder, Path(path), phases, size, read)
        seconds: dict[str, list[float]] = {label: [] for label in contenders}
        for round_number in range(rounds + 1):
            for label, run in contenders.items():
                started = time.process_time()
                for _ in run():
                    pass
                if round_number:  # the first round loads libraries and fills the page cache
                    seconds[label].append((time.process_time() - started) / len(chosen))
    print(f"{len(chosen)} samples of 4 views x 16 frames, {size} px, one core; {rounds} rounds")
    speed = {label: ratio(times, seconds["loader"]) for label, times in seconds.items()}
    for label, times in seconds.items():
        print(
            f"{label:32}{1e3 * median(times):8.2f} ms{1 / median(times):8.1f} samples/s   "
            f"{speed[label]:5.2f} x the time of the loader"
        )
    peer = "torchcodec, x264's defaults" if decord is None else "decord, x264's defaults"
    print(
        f"loader: {speed['ceiling']:.2f} of the ceiling (target {BAR_CEILING}), {speed[peer]:.2f} x as fast as {peer} "
        f"(target {BAR_FOLDER})"
    )
    return int(speed["ceiling"] < BAR_CEILING or speed[peer] < BAR_FOLDER)


def ratio(times: list[float], others: list[float]) -> float:
    """Return the median over the rounds of the ratio of two times."""
    return median(time / other for time, other in zip(times, others, strict=True))


def main() -> int:
    """Parse the arguments and compare; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clips", type=int, default=4, help="number of clips to load, four samples each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    return compare(args.folder, args.rounds, args.clips)


if __name__ == "__main__":
    sys.exit(main())
