"""Measure DIMO models again and publish them, after a change of how their weights are stored.

    python -m benchmarks.republish dimo/kangaroo --data out/motions/kangaroo --out out/models

Text heads, names and provenance stay; metrics.json is measured with the weights that are published, on the motion
videos that the model was trained on (about five CPU minutes for 50 motions).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import zoo
from factory.training.dimo import measure
from zoo.dimo.data import MotionVideos
from zoo.dimo.pipeline import DIMOPipeline


def republish(name: str, data: Path, out: Path, home: Path | None = None) -> str:
    """Publish a model with int8 matrices to the registry `out`; returns the name of the revision."""
    old: DIMOPipeline = zoo.load(name, home=home)
    videos = MotionVideos.open(data)
    trained_on, heldout = videos.select("train"), videos.select("heldout")
    if trained_on.names != old.motions:
        raise SystemExit(f"republish: {data} has other motions than {name} was trained on")
    new = DIMOPipeline(
        old.model, old.object, old.motions, old.sentences, phases=old.phases.tolist(), seconds=old.seconds,
        provenance=old.provenance, text=old.text,
    )  # fmt: skip
    new.metrics = measure(new.model, trained_on, heldout if len(heldout) else None)
    new.metrics |= {key: value for key, value in old.metrics.items() if key not in new.metrics}
    return zoo.publish(new, f"local:dimo/{old.object}", home=out, own_use=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.republish")
    parser.add_argument("model", help="for example dimo/kangaroo")
    parser.add_argument("--home", type=Path, help="registry of the model (default: the usual one)")
    parser.add_argument("--data", type=Path, required=True, help="motion videos of the object")
    parser.add_argument("--out", type=Path, required=True, help="registry to publish to")
    args = parser.parse_args(argv)
    print(republish(args.model, args.data, args.out, args.home))
    return 0


if __name__ == "__main__":
    sys.exit(main())
