"""Models at the command line; `python -m zoo` lists the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo import commands
from zoo.choices import DISTANCE, STEPS, VIEWS, MotionChoice, Orbit
from zoo.commands import VIDEO_FRAMES
from zoo.console import run_command
from zoo.errors import OptionError


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m zoo") -> int:
    """Run a command; without one, list the commands.

    Args:
        argv: arguments, by default those of the process.
        prog: how the program was called, for usage messages.

    Returns:
        The exit code: 0; 1 on failure; 2 if a name or an operation is not available. Failures are one sentence on
        standard error.
    """
    parser = _parser(prog)
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return 0
    return run_command("zoo", lambda: args.run(args))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Models of things that move.",
        epilog=f"{prog} COMMAND --help explains a command.",
    )
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")

    def add(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        command.set_defaults(run=run)
        command.add_argument(
            "--home", type=Path, help="folder of the local registry (default: $MENAGERIE_HOME)"
        )
        return command

    _add_list(add("list", _list, "list model names"))
    _add_info(
        add("info", _info, "show a model's licence, metrics, capabilities and needs, and check its files")
    )
    _add_sample(
        add("sample", _sample, "save a motion as video, animated glTF, splats, web page or arrays"), "hop.mp4"
    )
    _add_render(add("render", _render, "render videos of a motion from cameras around the object"))
    _add_sample(add("export", _sample, "save a motion as .glb, .ply, .html, .npz or .mp4"), "hop.glb")
    _add_animate(add("animate", _animate, "animate a still 3D model by a sentence or by videos"))
    _add_stills(
        add("stills", _stills, "render a still 3D model from the views that videos for animate begin with")
    )
    _add_view(add("view", _view, "show a model, a file or a folder in the browser, or two side by side"))
    _add_evaluate(
        add("evaluate", _evaluate, "measure a model under a protocol, beside controls of known quality")
    )
    _add_leaderboard(
        add("leaderboard", _leaderboard, "write one page with the results of all models, by protocol")
    )
    _add_publish(add("publish", _publish, "copy a model to the local registry or the hub"))
    return parser


# --- arguments -------------------------------------------------------------------------------------


def _add_name(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="family/name[@revision], local:family/name or hub:org/name")


def _add_list(command: argparse.ArgumentParser) -> None:
    command.add_argument("pattern", nargs="?", default="*", help="with wildcards: dimo/*, local:*, hub:org/*")


def _add_info(command: argparse.ArgumentParser) -> None:
    _add_name(command)
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_choice(command: argparse.ArgumentParser, example: str) -> None:
    """Which motion of which model, and where to save it."""
    _add_name(command)
    choice = command.add_mutually_exclusive_group()
    # Not 0: argparse would not notice that it is combined with another choice.
    choice.add_argument("--seed", type=int, help="draw a random sample (default: 0)")
    choice.add_argument("--motion", metavar="NAME", help="a motion that the model was trained on")
    choice.add_argument("--text", metavar="SENTENCE", help="the motion that a sentence describes")
    choice.add_argument(
        "--between", nargs=2, metavar=("FROM", "TO"), help="interpolate between two named motions"
    )
    command.add_argument(
        "--steps", type=int, help=f"number of --between steps, both ends included (default: {STEPS})"
    )
    command.add_argument("--frames", type=int, help="number of frames, evenly spaced (default: the model's)")
    command.add_argument("--out", type=Path, required=True, help=f"e.g. {example}")


def _add_sample(command: argparse.ArgumentParser, example: str) -> None:
    _add_choice(command, example)
    command.add_argument(
        "--all-motions",
        action="store_true",
        help="an .html page also offers all motions that the model was trained on",
    )


def _add_render(command: argparse.ArgumentParser) -> None:
    _add_choice(command, "orbit.mp4, or a folder for one video per view")
    default = Orbit()
    command.add_argument("--views", type=int, help=f"cameras, for a folder (default: {VIEWS})")
    command.add_argument(
        "--azimuth-deg",
        type=float,
        default=0.0,
        help="of the first camera: 0 in front, 90 at +X (default: 0)",
    )
    command.add_argument(
        "--elevation-deg",
        type=float,
        default=default.elevation_deg,
        help="above the horizontal plane (default: 10)",
    )
    command.add_argument(
        "--distance", type=float, default=DISTANCE, help=f"from the object (default: {DISTANCE})"
    )
    command.add_argument(
        "--resolution", type=int, default=default.resolution, help="width and height in pixels (default: 384)"
    )
    command.description = f"{command.description} The default is {VIDEO_FRAMES} frames."


def _add_animate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "object",
        help="3D model: .glb, .gltf, .obj, .ply, .stl, .fbx, .blend, .usd, or splats: .ply, .spz; front +Z, up +Y",
    )
    command.add_argument("sentence", nargs="?", help='what happens, e.g. "spreads its wings"')
    command.add_argument(
        "old", nargs="?", help="of `animate MODEL OBJECT SENTENCE`, the form of 0.1, which writes videos"
    )
    command.add_argument(
        "--model", default="mvvdm/tiny", help="generates videos from the sentence (default: mvvdm/tiny)"
    )
    command.add_argument("--seed", type=int, default=0, help="of its noise (default: 0)")
    command.add_argument(
        "--videos",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="videos to follow instead of a sentence, one per view, or a folder with them",
    )
    _add_views(command, "of the --videos")
    command.add_argument("--fps", type=float, help="frame rate of the --videos (default: that of the files)")
    command.add_argument(
        "--stiffness",
        choices=("rendered", "generated"),
        help="of the model: whether videos are right in every pixel (default: rendered for --videos)",
    )
    command.add_argument(
        "--method",
        choices=("graph", "paper", "best"),
        help="of the fit; best: both, and the better of them in each frame (default: graph, for splats paper)",
    )
    command.add_argument(
        "--refine", action="store_true", help="let the video model improve the result for the sentence"
    )
    command.add_argument(
        "--no-check", action="store_true", help="accept --videos that do not begin with the still model"
    )
    command.add_argument(
        "--videos-only",
        action="store_true",
        help="write the generated videos side by side, and animate nothing",
    )
    command.add_argument("--report", type=Path, help="HTML page: videos, fit, errors, doubtful frames")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        help="e.g. dragon-roars.glb, also .fbx, .usd, .mp4, .html, .npz, .ply; of splats .4dgs, .ply, .glb, .npz, .mp4",
    )
    _add_up(command)


def _add_up(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--up", choices=("y", "-y"), help="of splats: what is up in the file (default: as it says, else y)"
    )


def _add_views(command: argparse.ArgumentParser, whose: str) -> None:
    command.add_argument(
        "--azimuths-deg",
        nargs="+",
        type=float,
        metavar="DEG",
        help=f"{whose}: 0 in front, 90 at +X (default: evenly spaced, beginning in front)",
    )
    command.add_argument(
        "--elevation-deg", type=float, default=15.0, help="above the horizontal plane (default: 15)"
    )


def _add_stills(command: argparse.ArgumentParser) -> None:
    command.add_argument("object", type=Path, help="3D model, as for animate")
    _add_views(command, "of the pictures")
    command.add_argument(
        "--resolution", type=int, default=512, help="width and height in pixels (default: 512)"
    )
    _add_up(command)
    command.add_argument(
        "--out", type=Path, required=True, help="new folder for view_00.png … and cameras.json"
    )


def _add_view(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "things",
        nargs="+",
        metavar="NAME",
        help="one or two: a DIMO model (dimo/kangaroo); .glb or .gltf; .ply or .spz of splats, or a folder of them; a "
        "video, or a folder with one per view",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; another than 127.0.0.1 lets other machines connect, and requires a token",
    )
    command.add_argument("--port", type=int, default=8077, help="0 is any free one (default: 8077)")
    command.add_argument(
        "--token", help="to require in the address (default: a random one, if --host is given)"
    )
    command.add_argument("--no-open", action="store_true", help="do not open a browser")


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="family/name[@revision]; animate3d: zoo.animate with the true videos")
    command.add_argument("--protocol", metavar="NAME", help="of the package, or a .json file")
    command.add_argument(
        "--truth",
        type=Path,
        metavar="FOLDER",
        help="true clips; without them, the command that makes them is shown",
    )
    command.add_argument(
        "--baseline", nargs="+", default=[], metavar="NAME", help="other models, measured on the same clips"
    )
    command.add_argument(
        "--own-truth",
        action="store_true",
        help="accept true clips that are not the protocol's; the result has a hash and a table of its own",
    )
    command.add_argument(
        "--attach",
        action="store_true",
        help="also put the result into the model's metrics.json, in the local registry",
    )
    command.add_argument(
        "--attach-stored",
        action="store_true",
        help="only attach the results that the registry has of these weights, and measure nothing",
    )
    command.add_argument(
        "--out",
        type=Path,
        help="folder for metrics.json and sheet.png (default: evaluations/ in the registry)",
    )


def _add_leaderboard(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "pattern", nargs="?", default="*", help="models, with wildcards: dimo/*, hub:org (default: all here)"
    )
    command.add_argument(
        "--out", type=Path, default=Path("leaderboard"), help="folder for leaderboard.html and .md"
    )


def _add_publish(command: argparse.ArgumentParser) -> None:
    _add_name(command)
    command.add_argument("target", help="local:family/name or hub:org/name")
    command.add_argument(
        "--own-use",
        action="store_true",
        help="keep a model in the local registry even if its training data may not be shared",
    )


# --- from arguments to calls -----------------------------------------------------------------------


def _list(args: argparse.Namespace) -> None:
    commands.list_command(args.pattern, home=args.home)


def _info(args: argparse.Namespace) -> None:
    commands.info_command(args.name, as_json=args.json, home=args.home)


def _choice(args: argparse.Namespace) -> MotionChoice:
    between = tuple(args.between) if args.between else None
    return MotionChoice(args.seed or 0, args.motion, args.text, between, args.steps, args.frames)


def _sample(args: argparse.Namespace) -> None:
    commands.sample_command(
        args.name, _choice(args), out=args.out, home=args.home, all_motions=args.all_motions
    )


def _render(args: argparse.Namespace) -> None:
    if args.views is not None and args.out.suffix:
        raise OptionError(
            f"--views {args.views}: is for a folder with one video per view; {args.out} is one video, whose camera "
            f"orbits the object"
        )
    views = VIEWS if args.views is None else args.views
    orbit = Orbit(views, args.azimuth_deg, args.elevation_deg, args.distance, args.resolution)
    commands.render_command(args.name, _choice(args), orbit, out=args.out, home=args.home)


def _animate(args: argparse.Namespace) -> None:
    if args.old is not None:
        print(
            f"note: `animate {args.object} {args.sentence} …` is now `animate {args.sentence} … --model {args.object} "
            f"--videos-only`; this form will be removed in 0.3",
            file=sys.stderr,
        )
        args.model, args.object, args.sentence = args.object, args.sentence, args.old
        args.videos_only = True
    if args.videos_only:
        commands.videos_command(
            args.model, Path(args.object), args.sentence, seed=args.seed, out=args.out, home=args.home
        )
        return
    commands.animate_command(
        Path(args.object),
        args.sentence,
        videos=args.videos,
        model=args.model,
        seed=args.seed,
        azimuths_deg=args.azimuths_deg,
        elevation_deg=args.elevation_deg,
        fps=args.fps,
        stiffness=args.stiffness,
        method=args.method,
        refine=args.refine,
        check=not args.no_check,
        report=args.report,
        out=args.out,
        home=args.home,
        up=args.up,
    )


def _stills(args: argparse.Namespace) -> None:
    commands.stills_command(
        args.object,
        azimuths_deg=args.azimuths_deg,
        elevation_deg=args.elevation_deg,
        resolution=args.resolution,
        up=args.up,
        out=args.out,
    )


def _view(args: argparse.Namespace) -> None:
    commands.view_command(
        args.things,
        host=args.host,
        port=args.port,
        token=args.token,
        open_browser=not args.no_open,
        home=args.home,
    )


def _evaluate(args: argparse.Namespace) -> None:
    from zoo.evaluation.cli import attach_stored_command, evaluate_command

    if args.attach_stored:
        attach_stored_command(args.name, home=args.home)
        return
    evaluate_command(
        args.name,
        protocol=args.protocol,
        truth=args.truth,
        baselines=args.baseline,
        own_truth=args.own_truth,
        attach=args.attach,
        out=args.out,
        home=args.home,
    )


def _leaderboard(args: argparse.Namespace) -> None:
    from zoo.evaluation.cli import leaderboard_command

    leaderboard_command(args.pattern, out=args.out, home=args.home)


def _publish(args: argparse.Namespace) -> None:
    commands.publish_command(args.name, args.target, home=args.home, own_use=args.own_use)


if __name__ == "__main__":
    sys.exit(main())
