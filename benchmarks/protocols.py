"""Write the SHA-256 of the true clips into the protocols of the package, after a change of how the truth is made.

    python -m benchmarks.protocols dimo-views dimo-unseen-motions dimo-between --truth truth

The folder has the truth of all objects, as the protocols' commands make it. A protocol whose content changes needs a
new version: the command increments it, unless --keep-version is given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.evaluation.canonical import digest

ROOT = Path(__file__).parents[1] / "zoo" / "protocols"
CREATURE_SEED = 1000  # of individuals that no bundled model was trained on
BUNDLED = ("kangaroo", "fox", "cat", "bird", "robot")


def written(content: dict[str, Any]) -> str:
    """A protocol's file: one line per key, and per metric and object, so that changes can be read."""
    lines = []
    for key, value in content.items():
        if key in ("metrics", "objects") and value:
            inner = ",\n  ".join(f"{json.dumps(name)}: {_line(each)}" for name, each in value.items())
            lines.append(f"{json.dumps(key)}: {{\n  {inner}\n }}")
        else:
            lines.append(f"{json.dumps(key)}: {_line(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def dimo_objects(truth: Path, names: Sequence[str]) -> dict[str, Any]:
    """Object → source and hashes of its motion videos below `truth`/motions."""
    from zoo.dimo.data import MotionVideos
    from zoo.evaluation.dimo import clip_hashes

    return {
        name: {
            "source": f"creatures://{name}",
            "clips": clip_hashes(MotionVideos.open(truth / "motions" / name)),
        }
        for name in names
    }


def creature_objects() -> dict[str, Any]:
    """Object → source and hashes of the creatures that are rebuilt as .glb files: two held-out motions of each."""
    from factory.sources import creatures

    objects = {}
    for species in creatures.species():
        held_out = [motion.name for motion in creatures.motions(species) if motion.split == "heldout"]
        sha256 = hashlib.sha256(creatures.build(species, CREATURE_SEED, held_out[:2])).hexdigest()
        objects[f"{species}-{CREATURE_SEED}"] = {
            "source": f"creatures://{species}?seed={CREATURE_SEED}",
            "clips": dict.fromkeys(held_out[:2], sha256),
        }
    return objects


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.protocols", description=__doc__.split("\n")[0]
    )
    parser.add_argument("protocols", nargs="+")
    parser.add_argument("--truth", type=Path, help="for protocols of motion videos")
    parser.add_argument("--objects", nargs="+", default=list(BUNDLED))
    parser.add_argument("--keep-version", action="store_true")
    args = parser.parse_args(argv)
    objects: dict[str, Any] = {}
    for name in args.protocols:
        file = ROOT / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        before = digest(content)
        if content["truth"]["format"] == "motion videos":
            objects = objects or dimo_objects(args.truth, args.objects)
            content["objects"] = objects
        else:
            content["objects"] = creature_objects()
        if digest(content) != before and not args.keep_version:
            content["version"] += 1
        file.write_text(written(content), encoding="utf-8")
        print(f"{name} v{content['version']}: {digest(content)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
