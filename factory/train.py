"""`python -m factory.train dimo|mvvdm`: train models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster import Interrupted, Ledger, StageError, StorageError
from factory.motion_videos.options import add_options, film_as_asked, read_options
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import summary
from factory.sources import SourceError
from factory.training.dimo import PRESETS, DimoStage, configured, folder_bytes, resolve_encoder, train_objects
from factory.training.leaderboard import ablation_table, aligned, leaderboard, markdown
from factory.training.mvvdm import options as train_mvvdm
from factory.training.overrides import apply_overrides
from zoo.dimo.config import DIMOConfig


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="python -m factory.train", description="Train models. The same command resumes."
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    dimo = families.add_parser(
        "dimo",
        help="one motion space an object",
        description="Film the motions of objects and train a motion space for each. The same command resumes.",
    )
    add_options(dimo)
    group = dimo.add_argument_group("training")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="laptop",
        help="what is trained, and how long (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value of the preset, such as joint.steps=100",
    )
    group.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    group.add_argument("--cpus", type=float, default=1.0, help="of one training; may be a fraction")
    group.add_argument(
        "--gpus", type=float, default=0.0, help="of one training; may be a fraction, such as 0.25"
    )
    group.add_argument("--checkpoint-seconds", type=float, default=60.0, help="between two checkpoints")
    group.add_argument("--max-hours", type=float, default=24.0, help="one attempt at a training may take")
    group.add_argument(
        "--skip-unseen", action="store_true", help="do not reconstruct the motions that were held out"
    )
    group.add_argument(
        "--text",
        default="auto",
        metavar="MODEL",
        help="language model of the text heads, a hub name or a folder; auto: the one that is installed, if any; none",
    )
    group.add_argument(
        "--ablation", action="store_true", help="also train without each of the method's parts, and compare"
    )
    return parser, dimo, train_mvvdm.add_parser(families)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if at least one model was trained: the tables say which were not, and why."""
    parser, dimo, mvvdm = _parser()
    args = parser.parse_args(argv)
    if args.family == "mvvdm":
        return train_mvvdm.run(args, mvvdm, apply_overrides)
    for name in ("cpus", "checkpoint_seconds", "max_hours"):
        if getattr(args, name) <= 0.0:
            dimo.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name):g}")
    if args.gpus < 0.0:
        dimo.error(f"--gpus: expected 0 or more, got {args.gpus:g}")
    try:
        config = configured(args.preset, args.set)
    except ValueError as error:
        dimo.error(str(error))
    base = MotionRecipe(frames=config.frames, views=config.views, resolution=config.resolution)
    objects, recipe = read_options(dimo, args, base)
    try:
        return _run(args, objects, recipe, config)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, StageError, StorageError) as error:
        print(f"factory.train: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace, objects: list[str], recipe: MotionRecipe, config: DIMOConfig) -> int:
    ledger = Ledger(args.out)
    made = film_as_asked(args, ledger, objects, recipe)
    print(summary(made))
    stage = DimoStage(
        out=ledger.root,
        num_cpus=args.cpus,
        num_gpus=args.gpus,
        memory=8 * 2**30 + max((folder_bytes(one.folder) for one in made if one.folder), default=0),
        timeout_s=3600.0 * args.max_hours,
        checkpoint_s=args.checkpoint_seconds,
        unseen=not args.skip_unseen,
        encoder=resolve_encoder(args.text),
    )
    results = train_objects(
        made, stage, config, ledger, seed=args.seed, ablation=args.ablation, workers=args.workers
    )
    tables = [leaderboard(results)] + ([ablation_table(results)] if args.ablation else [])
    ledger.storage.write("leaderboard.md", "\n".join(map(markdown, tables)).encode())
    print("\n" + "\n\n".join(map(aligned, tables)))
    for task, record in results.values():
        if record.status != "done":
            print(f"given up  {task.label}: {record.reason}")
    trained = any(record.status == "done" for _, record in results.values())
    if trained:
        print(f"\nload one with zoo.load('dimo/NAME', home={args.out!r})")
    return 0 if trained else 1


if __name__ == "__main__":
    sys.exit(main())
