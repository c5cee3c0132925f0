"""Command-line options of `python -m factory.train mvvdm`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from cluster import StageError, StorageError
from factory.training.mvvdm.job import check_workers, job_of
from factory.training.mvvdm.recipe import PARTS, RECIPES
from factory.training.mvvdm.run import train_model


def add_parser(families: Any) -> argparse.ArgumentParser:
    """`python -m factory.train mvvdm`."""
    parser = families.add_parser(
        "mvvdm",
        help="a multi-view video diffusion model",
        description="Train a multi-view video diffusion model on a dataset. The same command resumes.",
    )
    parser.add_argument(
        "--data", required=True, help="an MV-Video dataset: a folder that every machine sees, or a URL"
    )
    parser.add_argument(
        "--test-data", help="a dataset whose clips it is measured on (default: the test split of --data)"
    )
    parser.add_argument("--out", required=True, help="a folder that every machine sees, or a URL")
    parser.add_argument(
        "--preset", choices=RECIPES, default="tiny", help="what is trained (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value, such as plan.steps=100",
    )
    parser.add_argument("--name", help="of the model (default: the preset's)")
    parser.add_argument(
        "--publish", help="local:mvvdm/NAME or hub:org/NAME (default: into the registry at --out)"
    )
    parser.add_argument("--seed", type=int, default=0)
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--workers",
        type=_workers,
        default=1,
        help="how many; LEAST-MOST for as many as there is room for; 0: this process, without Ray (default: 1)",
    )
    group.add_argument("--cpus", type=float, default=1.0, help="of each")
    group.add_argument("--gpus", type=float, default=0.0, help="of each")
    group.add_argument("--sharded", action="store_true", help="FSDP instead of DDP")
    group.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="examples that a worker computes together: many on a GPU (default: 1)",
    )
    group.add_argument(
        "--compile", action="store_true", help="by torch.compile: some minutes at first, faster then"
    )
    group.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    group.add_argument(
        "--loader-workers", type=int, default=2, help="processes that decode clips, of each worker"
    )
    group.add_argument("--save-every", type=int, default=500, help="steps between two checkpoints")
    group.add_argument(
        "--validate-every", type=int, default=500, help="steps between two validation pictures"
    )
    group.add_argument("--test-clips", type=int, default=16, help="unseen clips that it is measured on")
    group = parser.add_argument_group(
        "parts", "what preset paper begins with: hub repositories, folders or files"
    )
    for name in PARTS:
        group.add_argument(f"--{name.replace('_', '-')}")
    return parser


def run(args: argparse.Namespace, parser: argparse.ArgumentParser, configured: Callable[..., Any]) -> int:
    """Run the command; 0 if there is a model now.

    Args:
        configured: gives a preset with the changes of `--set`.
    """
    for name in ("cpus", "at_once", "save_every", "test_clips"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name):g}")
    try:
        recipe = configured(RECIPES[args.preset](), args.set)
        check_workers(args.workers, recipe)
        job = job_of(args, recipe)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        result = train_model(job, args.workers, args.cpus, args.gpus)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    except (StageError, StorageError) as error:
        print(f"factory.train: {error}", file=sys.stderr)
        return 1
    for name, value in result.items():
        print(f"{name:18} {value}")
    return 0


def _workers(text: str) -> int | tuple[int, int]:
    try:
        numbers = [int(part) for part in text.split("-")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] >= 0:
        return numbers[0]
    if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise argparse.ArgumentTypeError(f"expected a number or LEAST-MOST, got {text!r}")
