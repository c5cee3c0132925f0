"""Measure DIMO models again and publish them, after a change of how their weights are stored.

    python -m benchmarks.republish dimo/kangaroo --data out/motions/kangaroo --out out/models

With `--polish-steps 3000`, `--surface-steps 600` and `--prior-steps 300`, the last steps of training, which older
models have not had, are made up for first (`zoo.dimo.polish`, `zoo.dimo.surface`, `zoo.dimo.prior`); with `--again`,
also those that the model has had. `--key-points 192` gives it more key points before. Text heads, names and provenance
stay; metrics.json is measured with the weights that are published, on the motion videos that the model was trained on
(about five CPU minutes for 50 motions). Results of `factory.evaluate` belong to the old weights and are left out.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import zoo
from factory.training.dimo import measure
from zoo.dimo.binding import settle_stretching
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.initial import add_key_points
from zoo.dimo.model import DIMO
from zoo.dimo.pipeline import DIMOPipeline
from zoo.dimo.polish import polish
from zoo.dimo.prior import fit_prior
from zoo.dimo.surface import CONFIG, make_skin


def republish(
    name: str,
    data: Path,
    out: Path,
    home: Path | None = None,
    polish_steps: int = 0,
    surface_steps: int = 0,
    prior_steps: int = 0,
    key_points: int = 0,
    again: bool = False,
) -> str:
    """Publish a model with int8 matrices to the registry `out`; returns the name of the revision."""
    old: DIMOPipeline = zoo.load(name, home=home)
    videos = MotionVideos.open(data)
    trained_on, heldout = videos.select("train"), videos.select("heldout")
    if trained_on.names != old.motions:
        raise SystemExit(f"republish: {data} has other motions than {name} was trained on")
    model = copy.deepcopy(old.model).float().requires_grad_(True)
    done = model.config.joint
    changed = polish_steps or surface_steps  # the latents' coordinates are then fitted again
    if not again and (
        (polish_steps and done.polish_steps)
        or (surface_steps and done.surface_steps)
        or (prior_steps and done.prior_steps and not changed)
    ):
        raise SystemExit(f"republish: {name} has been through these steps")
    if (polish_steps or prior_steps) and old.text is not None and old.text.kind == "projection":
        raise SystemExit(f"republish: the text head of {name} predicts latents, which change")
    config = replace(model.config, key_points=key_points or model.config.key_points, smoothing=None)
    run = TrainingContext(trained_on, config, 0, torch.device("cpu"))
    model.config = replace(model.config, smoothing=run.config.smoothing)
    run.model = model
    if key_points:
        run.model = model = add_key_points(run).requires_grad_(True)
    if polish_steps:
        polish(run, polish_steps)
        done = replace(done, polish_steps=done.polish_steps + polish_steps)
    if surface_steps:
        settle_stretching(run)
        model.config = replace(model.config, **CONFIG)
        make_skin(run, surface_steps)
        done = replace(done, surface_steps=surface_steps)
    if prior_steps:
        fit_prior(model, prior_steps)
        done = replace(done, prior_steps=prior_steps + (done.prior_steps if again else 0))
    model = DIMO.from_state(replace(model.config, joint=done), model.state_dict())
    new = DIMOPipeline(
        model, old.object, old.motions, old.sentences, phases=old.phases.tolist(), seconds=old.seconds,
        provenance=old.provenance, text=old.text,
    )  # fmt: skip
    new.metrics = measure(new.model, trained_on, heldout if len(heldout) else None)
    new.metrics["training"] = old.metrics["training"]
    return zoo.publish(new, f"local:dimo/{old.object}", home=out, own_use=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.republish")
    parser.add_argument("model", help="for example dimo/kangaroo")
    parser.add_argument("--home", type=Path, help="registry of the model (default: the usual one)")
    parser.add_argument("--data", type=Path, required=True, help="motion videos of the object")
    parser.add_argument(
        "--key-points", type=int, default=0, help="as many, more than it has (default: its own)"
    )
    parser.add_argument("--polish-steps", type=int, default=0, help="make up for the steps on tracks")
    parser.add_argument("--surface-steps", type=int, default=0, help="make up for the steps that make a skin")
    parser.add_argument("--prior-steps", type=int, default=0, help="make up for the last step of training")
    parser.add_argument("--again", action="store_true", help="also steps that the model has been through")
    parser.add_argument("--out", type=Path, required=True, help="registry to publish to")
    args = parser.parse_args(argv)
    steps = args.polish_steps, args.surface_steps, args.prior_steps
    print(republish(args.model, args.data, args.out, args.home, *steps, args.key_points, args.again))
    return 0


if __name__ == "__main__":
    sys.exit(main())
