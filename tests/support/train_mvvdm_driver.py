"""A dataset of discs, and the command that trains an MV-VDM on it: `train_mvvdm_driver.py DATA OUT [OPTION …]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sample_clips import clip_info, disc_clip

import factory
import factory.train
from factory.dataset.schema import make_row, write_row

VIEWS, FRAMES, SIZE = 8, 12, 32
TINY = (
    "network.num_heads=2", "network.norm_num_groups=4", "network.block_out_channels=(8, 8, 8)", "plan.steps=8",
    "plan.batch=2", "plan.warmup=0", "autoencoder.steps=2", "autoencoder.batch=2",
    "views=2", "frames=4", "resolution=16", "sampling_steps=2",
)  # fmt: skip


def write_discs(root: Path, first: int = 0, test: int = 2) -> None:
    """Write five training clips and two test clips; the disc of clip n starts n frames late.

    Args:
        first: number of the first clip. test: number of test clips.
    """
    clip = disc_clip(views=VIEWS, frames=FRAMES, size=SIZE)
    for split, numbers in (("train", range(first, first + 5)), ("test", range(first + 5, first + 5 + test))):
        with factory.ShardPacker(str(root)) as packer:
            for place, number in enumerate(numbers):
                name = f"clip-{number:02d}"
                late = type(clip)(
                    np.roll(clip.frames, number, axis=1), clip.cameras, clip.timestamps, clip.renderer
                )
                info = clip_info(VIEWS, clip_id=name, caption=f"rolls {number} times", split=split)
                file = root / factory.staged_path(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(write_row(make_row(late, info)))
                packer.planned(place, [name])
                packer.finished(name, committed=True)


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    changes = [part for change in TINY for part in ("--set", change)]
    return [
        "mvvdm", "--data", str(data), "--out", str(out), *changes, "--save-every", "4", "--validate-every", "4",
        "--loader-workers", "0", *more,
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(factory.train.main(arguments(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
