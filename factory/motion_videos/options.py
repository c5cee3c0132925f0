"""Command-line options shared by `factory.motions` and `factory.train dimo`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from cluster import Ledger, check_output
from factory.console import Show, add_options, notice, option, read_options
from factory.dataset.names import is_on_hub
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import SubjectVideos, make_motions
from renderers.meshes import AUTO, BACKENDS, RenderSettings

RECIPE_HELP = {
    "frames": "frames per motion",
    "seconds": "take this much of an animation's beginning, or all of a shorter one",
    "views": "training cameras, evenly spaced in azimuth",
    "heldout_views": "cameras for measuring only, half-way between two training cameras",
    "resolution": "width and height in pixels",
    "low_deg": "elevation of every other training camera, in degrees",
    "high_deg": "elevation of the others, in degrees",
    "fov_y_deg": "vertical field of view in degrees",
    "distance": "from the cameras to the origin; the object is scaled to fill the frame at it",
    "margin": "fraction of the half image kept free around all motions",
    "points": "surface points whose true paths are stored",
    "min_motion": "a motion whose fastest vertex moves less than this fraction of the diagonal is a pose",
    "poses": "keep poses too",
    "heldout": "motions that are not trained on; -1: the source's own choice, or one in five",
    "points_seed": "of the choice of surface points",
}


@dataclass(frozen=True)
class MotionOptions:
    """Which objects, how their motions are rendered and where to."""

    out: str = option(help="a folder that every machine sees")
    objects: tuple[str, ...] = option(
        (),
        "creatures://SPECIES?seed=N, a .glb, a folder of them, or motion videos rendered before; several may be "
        "joined by commas; NAME=URI gives an object another name",
        metavar="OBJECT",
    )
    data: tuple[str, ...] = option((), "MV-Video datasets whose objects are taken", metavar="DATASET")
    renderer: str = option(
        AUTO,
        "mesh renderer; auto: opengl where a GPU draws it, else cpu; a run that was begun keeps its renderer",
        choices=(AUTO, *BACKENDS),
    )
    samples: int = option(4, "anti-aliasing samples per pixel", choices=(1, 4, 16))
    workers: int | None = option(
        None,
        "parallel workers; 0: in this process, without Ray (default: as many as the cluster has room for)",
        at_least=0,
    )
    limit: int | None = option(None, "take only the first N objects", at_least=1)
    retry_quarantined: bool = option(False, "retry the objects and motions that earlier runs gave up on")

    @property
    def uris(self) -> list[str]:
        """All objects, one URI each."""
        objects = [uri for text in self.objects for uri in text.split(",") if uri]
        datasets = [uri for text in self.data for uri in text.split(",") if uri]
        return [*objects, *(f"hub:{uri}" if is_on_hub(uri) else uri for uri in datasets)]


def check_registry(out: str) -> None:
    """Refuse a folder that has neither a ledger nor motion videos nor models, but other files.

    Raises:
        ForeignFolderError: it has other files.
        StorageError: the folder cannot be listed.
    """
    check_output(
        out,
        ours=("motions/*/motions.json", "generated/*/prompts.json", "models/*/*/refs/main"),
        pages={"leaderboard.md": b"| model | PSNR |"},
    )


def add_motion_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `MotionOptions` and of the recipe."""
    add_options(parser, MotionOptions)
    parser.add_argument("positional", nargs="*", help=argparse.SUPPRESS)  # how version 0.1 took objects
    group = parser.add_argument_group("recipe", "how motions are rendered")
    add_options(group, MotionRecipe, help=RECIPE_HELP, preset=True)


def read_motion_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, base: MotionRecipe | None = None
) -> tuple[MotionOptions, MotionRecipe]:
    """The options and the recipe; exits with code 2 and a sentence if they make no sense.

    Args:
        base: the recipe whose values stand where a flag is absent.
    """
    if args.positional:
        notice(
            "objects are given with --objects, datasets with --data; without a flag they will be refused soon"
        )
        args.objects = [*(args.objects or ()), *args.positional]
    options = read_options(args, MotionOptions)
    if not options.uris:
        parser.error("no object: expected --objects creatures://kangaroo,…, or --data DATASET")
    try:
        return options, read_options(args, MotionRecipe, base or MotionRecipe())
    except ValueError as error:
        parser.error(str(error))


def render_motions(
    options: MotionOptions, recipe: MotionRecipe, ledger: Ledger, show: Show | None = None
) -> list[SubjectVideos]:
    """`make_motions` with the options of a command line; raises what that raises."""
    ledger.storage.check_writable()
    if options.retry_quarantined:
        ledger.retry_quarantined()
    return make_motions(
        options.uris,
        options.out,
        recipe,
        settings=RenderSettings(samples=options.samples),
        backend=options.renderer,
        workers=options.workers,
        limit=options.limit,
        ledger=ledger,
        show=show,
    )
