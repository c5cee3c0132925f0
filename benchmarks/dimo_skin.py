"""Why a DIMO model's surface is torn: its Gaussians, and discs as placed for a skin, with key points at true places.

    python -m benchmarks.dimo_skin dimo/drop --data out/motions/drop --motions melts leaps-up-with-a-splash

Prints for each motion, in the frame that tears the true surface most, the share of torn Gaussians
(`zoo.metrics.torn_share`) and that of the tracked points next to them, and how far the Gaussians are apart; of placed
discs also how far the blend is from where they belong. A model
that is torn with true key points has the wrong Gaussians or too few key points, not the wrong motions. With
`--key-points 192`, the placed discs are carried by as many.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import zoo
from benchmarks.common import describe_machine
from zoo.dimo.binding import bind
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.discs import matrix_quaternions
from zoo.dimo.evaluation import SOLID
from zoo.dimo.initial import add_key_points
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.surface import CONFIG, place_discs
from zoo.dimo.tracks import some_frames
from zoo.metrics.rigidity import nearest_neighbours, torn_points


@torch.no_grad()
def torn_with_true_key_points(run: TrainingContext, motions: Sequence[str]) -> None:
    """Print one line for each motion, and the Gaussians' spacing."""
    model, videos, tracks = run.model, run.videos, run.tracks
    assert tracks is not None
    solid = model.opacity_logits.sigmoid() > SOLID
    reference = model.means[solid]
    near = nearest_neighbours(reference)
    apart = (reference[near] - reference[:, None]).norm(dim=-1)
    quarters = 1e3 * apart.flatten()[::3].quantile(torch.tensor([0.25, 0.5, 0.75]))
    print(
        f"  {len(reference)} Gaussians, neighbours {', '.join(f'{q:.1f}' for q in quarters)} mm apart (quartiles)"
    )
    for name in motions:
        motion = videos.names.index(name)
        points = torch.tensor(videos.points(motion))
        torn = torn_points(points, points[0])
        frame = int(torn.float().mean(1).argmax())
        beside = torch.cdist(reference, points[0]).argmin(1)
        key_points = KeyPointMotion(
            tracks.positions[motion, frame][None, None],
            matrix_quaternions(tracks.rotations[motion, frame])[None, None],
        )
        share = _share(torn_points(model.skin(key_points).means[:, solid], reference))
        print(f"  {name}: {share}, true surface {_share(torn[frame, beside])}", flush=True)


def bind_to_tracks(run: TrainingContext, paths: Tensor | None) -> None:
    """Choose key points for placed discs as the steps that make a skin do, with those at their true places."""
    assert run.tracks is not None and paths is not None
    some = some_frames(run.videos.frames)
    rotations = matrix_quaternions(run.tracks.rotations[:, some])
    run.model.assign()
    off = 1e3 * bind(run.model, KeyPointMotion(run.tracks.positions[:, some], rotations), paths)
    print(f"  off their paths by {off.mean():.2f} mm in the mean, {off.max():.2f} in the worst motion")


def _share(torn: Tensor) -> str:
    return f"{100 * float(torn.float().mean()):.0f} %"


def _copy(model: DIMO, **changes: object) -> DIMO:
    return DIMO.from_state(replace(model.config, **changes), model.state_dict())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dimo_skin")
    parser.add_argument("model", help="for example dimo/drop")
    parser.add_argument("--home", type=Path, help="registry of the model (default: the usual one)")
    parser.add_argument("--data", type=Path, required=True, help="motion videos of the object, with tracks")
    parser.add_argument("--motions", nargs="+", required=True, help="names of trained motions")
    parser.add_argument("--key-points", type=int, help="of the placed discs (default: the model's own)")
    args = parser.parse_args(argv)
    print(describe_machine())
    model = zoo.load(args.model, home=args.home).model.float()
    videos = MotionVideos.open(args.data).select("train")
    run = TrainingContext(videos, model.config, 0, torch.device("cpu"))
    run.model = model
    print(f"{args.model} as it is:")
    torn_with_true_key_points(run, args.motions)
    count = args.key_points or len(model.key_points)
    run = TrainingContext(videos, replace(model.config, key_points=count), 0, torch.device("cpu"))
    run.model = model
    run.model = _copy(add_key_points(run) if count > len(model.key_points) else model, **CONFIG)
    print(f"discs as they are placed, {count} key points:")
    bind_to_tracks(run, place_discs(run))
    torn_with_true_key_points(run, args.motions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
