"""Command-line options shared by `factory.motions` and `factory.train dimo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from cluster import Ledger
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import SubjectVideos, make_motions
from renderers.meshes import BACKENDS, RenderSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `factory.motions` and `factory.train` both take: objects, output and the recipe."""
    parser.add_argument(
        "datasets",
        nargs="*",
        metavar="OBJECT",
        help="more objects, such as the folder of an MV-Video dataset",
    )
    parser.add_argument(
        "--objects",
        nargs="+",
        default=[],
        help="comma-separated: creatures://SPECIES?seed=N, a .glb, a folder of them, a dataset, or motion videos "
        "made before; NAME=URI gives an object another name",
    )
    parser.add_argument("--out", required=True, help="a folder that every machine sees")
    parser.add_argument("--renderer", choices=BACKENDS, default="opengl")
    parser.add_argument(
        "--samples", type=int, choices=(1, 4, 16), default=4, help="anti-aliasing samples a pixel"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="side by side (default: what the cluster has room for); 0: in this process, without Ray",
    )
    parser.add_argument("--limit", type=int, help="take only the first so many objects")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try again what earlier runs gave up"
    )
    group = parser.add_argument_group("recipe", "how motions are filmed")
    for option in fields(MotionRecipe):
        flag, default = f"--{option.name.replace('_', '-')}", option.default
        if isinstance(default, bool):
            group.add_argument(flag, action="store_true", default=None)
        else:
            group.add_argument(
                flag, type=type(default), metavar="N", help=f"{default} unless a preset says otherwise"
            )


def read_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, base: MotionRecipe | None = None
) -> tuple[list[str], MotionRecipe]:
    """The objects and the recipe, `base` where nothing else is said; leaves with a sentence if they make no sense."""
    objects = [uri for text in [*args.objects, *args.datasets] for uri in text.split(",") if uri]
    if not objects:
        parser.error("no object: expected --objects creatures://kangaroo,…, or a dataset")
    for name, least in (("workers", 0), ("limit", 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    said = {option.name: getattr(args, option.name) for option in fields(MotionRecipe)}
    try:
        return objects, replace(base or MotionRecipe(), **{k: v for k, v in said.items() if v is not None})
    except ValueError as error:
        parser.error(str(error))


def film_as_asked(
    args: argparse.Namespace, ledger: Ledger, objects: Sequence[str], recipe: MotionRecipe
) -> list[SubjectVideos]:
    """`make_motions` with what `add_options` has read; what it raises."""
    if args.retry_quarantined:
        ledger.retry_quarantined()
    return make_motions(
        objects,
        args.out,
        recipe,
        settings=RenderSettings(samples=args.samples),
        backend=args.renderer,
        workers=args.workers,
        limit=args.limit,
        ledger=ledger,
    )
