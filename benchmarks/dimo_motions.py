"""Plausibility and diversity of a DIMO model's motions: trained ones, samples and interpolations.

    python -m benchmarks.dimo_motions dimo/kangaroo --data out/motions/kangaroo --out strips

Prints for each kind of motion the share of torn Gaussians in the worst frame (`zoo.dimo.evaluation.torn`), the rigidity
energy, and the diversity: mean distance of the key points between two motions of the kind, relative to that between two
trained ones. With motion videos, the torn share of the true surface points and strips of ten frames beside the truth
are added; the strips show the worst motions of each kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import zoo
from benchmarks.common import describe_machine
from zoo.dimo.data import MotionVideos, over
from zoo.dimo.evaluation import arap_energy, torn
from zoo.dimo.model import DIMO
from zoo.dimo.pipeline import DIMOPipeline
from zoo.metrics import torn_share

FRAMES, SIZE = 10, 256  # of a strip
SHOWN = 3  # worst motions per kind


def kinds_of_motions(pipeline: DIMOPipeline, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Latents [·, Z] per kind: all trained motions, and `count` of every other kind."""
    mu = pipeline.model.mu
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.randperm(len(mu), generator=generator)[:2] for _ in range(count)]
    return {
        "trained": mu,
        "sample": torch.stack([pipeline.draw(k) for k in range(count)]),
        "half-way": torch.stack([mu[pair].mean(0) for pair in pairs]),
    }


@torch.no_grad()
def path_distances(model: DIMO, a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of the key points between motions with latents a [A, Z] and b [B, Z], world units: [A, B]."""
    first, second = (model.paths(z, model.phases).flatten(1, 2) for z in (a, b))  # [·, T·K, 3]
    return torch.stack([(each - second).norm(dim=-1).mean(-1) for each in first])


def strip(pipeline: DIMOPipeline, z: Tensor, videos: MotionVideos, name: str | None) -> np.ndarray:
    """Ten frames of a motion from a held-out view, below those of the truth if `name` is one of the videos."""
    frames = np.linspace(0, videos.frames - 1, FRAMES).round().astype(int).tolist()
    view = (videos.heldout_views or videos.train_views)[0]
    size = min(SIZE, videos.resolution)
    cameras = videos.cameras([0], [view], 1, size)
    rows = [pipeline.sample(z).render(cameras, [videos.phases[t] for t in frames])[0]]
    if name in videos.names:
        truth, _ = over(videos.read([videos.names.index(name)], [view], frames, size)[0, 0])
        rows.insert(0, (255 * truth).round().byte().numpy())
    return np.concatenate([np.concatenate(list(row), 1) for row in rows])


def report(pipeline: DIMOPipeline, videos: MotionVideos | None, count: int, out: Path | None) -> None:
    """Print the table of one model and write its strips."""
    model, reference = pipeline.model, 0.0
    for kind, latents in kinds_of_motions(pipeline, count).items():
        shares = torch.cat([torn(model, z[None], pipeline.phases) for z in latents])
        energy = torch.cat([arap_energy(model, z[None]) for z in latents])
        apart = path_distances(model, latents, latents)
        spread = float(apart.sum() / (len(latents) * (len(latents) - 1)))
        reference = reference or spread
        nearest = path_distances(model, latents, model.mu)
        if kind == "trained":
            nearest.fill_diagonal_(torch.inf)
        print(
            f"{pipeline.object:10} {kind:9} torn median {100 * shares.median():4.1f} %, 95th percentile "
            f"{100 * shares.quantile(0.95):4.1f} %, worst {100 * shares.max():4.1f} %; energy, 95th percentile "
            f"{energy.quantile(0.95):5.2f}; diversity {spread / reference:.2f}, nearest trained motion at "
            f"{nearest.min(1).values.median() / reference:.2f}",
            flush=True,
        )
        worst = shares.argsort(descending=True)[:SHOWN].tolist()
        names = pipeline.motions if kind == "trained" else [f"{kind} {k}" for k in range(len(latents))]
        print("   " + ", ".join(f"{names[k]} {100 * shares[k]:.1f} %" for k in worst))
        if videos is not None and out is not None:
            from PIL import Image

            pictures = [strip(pipeline, latents[k], videos, names[k]) for k in worst]
            stem = "".join(letter for letter in kind if letter.isalnum())
            Image.fromarray(np.concatenate(pictures)).save(out / f"{pipeline.object}-{stem}.png")
    if videos is not None:
        tracks = [points for m in range(len(videos)) if (points := videos.points(m)) is not None]
        surface = [torch.from_numpy(np.array(points)) for points in tracks]
        shares = torch.stack([torn_share(points, points[0]).max() for points in surface])
        print(
            f"{pipeline.object:10} true surface: median {100 * shares.median():.1f} %, worst {100 * shares.max():.1f} %"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dimo_motions")
    parser.add_argument("model", nargs="+", help="for example dimo/kangaroo")
    parser.add_argument("--home", type=Path, help="registry of the models (default: the usual one)")
    parser.add_argument("--data", type=Path, help="motion videos of the object, for one model")
    parser.add_argument("--out", type=Path, help="folder for strips; requires --data")
    parser.add_argument("--count", type=int, default=40, help="motions per kind (default: 40)")
    args = parser.parse_args(argv)
    print(describe_machine())
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    videos = None if args.data is None else MotionVideos.open(args.data)
    for name in args.model:
        report(zoo.load(name, home=args.home), videos, args.count, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
