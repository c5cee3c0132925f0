"""Models at the command line: `python -m zoo list|info|sample|render|export|publish`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.card import numbers
from zoo.errors import UnknownModelError, ZooError
from zoo.hub import info, list_models, load, publish

FOV_DEG, DISTANCE = 33.9, 2.0  # DIMO's training cameras
VIDEO_FRAMES = 48  # of `render`, where none are asked for: two seconds look smooth


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 1 if it failed, 2 if what was asked for does not exist, with one sentence on standard error.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (UnknownModelError, LookupError) as error:
        return _say(error, 2)
    except (ZooError, ValueError, RuntimeError, OSError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _say(error: BaseException, code: int) -> int:
    print(f"zoo: {error}", file=sys.stderr)
    return code


def _list(args: argparse.Namespace) -> None:
    names = list_models(args.pattern, home=args.home)
    if not names:
        everything = list_models(home=args.home)
        raise UnknownModelError(
            f"no model is called {args.pattern!r}; "
            + (f"known here: {', '.join(everything[:8])}" if everything else "there are none here yet")
        )
    print("\n".join(names))


def _info(args: argparse.Namespace) -> None:
    known = info(args.name, home=args.home)
    if args.json:
        print(json.dumps({**asdict(known), "folder": str(known.folder)}, indent=2, ensure_ascii=False))
        return
    rows = {
        "name": known.name,
        "family": known.family,
        "title": known.card.get("title"),
        "about": known.card.get("summary"),
        "licence": known.card.get("license"),
        "metrics": ", ".join(f"{metric} {value:.4g}" for metric, value in numbers(known.metrics)),
        "measured": known.metrics.get("protocol"),
        "size": f"{sum(known.files.values()) / 1e6:.2f} MB in {len(known.files)} files",
        "folder": known.folder,
    }
    for what, value in rows.items():
        if value:
            print(f"{what:<9} {value}")


def _sample(args: argparse.Namespace) -> None:
    for motion, path in _chosen(args):
        print(motion.save(path))


def _render(args: argparse.Namespace) -> None:
    from zoo.export.video import write_mp4

    args.frames = args.frames or VIDEO_FRAMES
    for motion, path in _chosen(args):
        if path.suffix == ".mp4":
            write_mp4(path, _orbit(motion, args), motion.fps)
            print(path)
            continue
        if path.suffix:
            raise ValueError(
                f"{path}: expected a name that ends in .mp4 (the camera goes round), or a folder (one video a view)"
            )
        cameras = _ring(args, args.views)
        path.mkdir(parents=True, exist_ok=True)
        for view, frames in enumerate(motion.render(cameras)):
            write_mp4(path / f"view_{view:02d}.mp4", frames, motion.fps)
        _write_cameras(path / "cameras.json", cameras)
        print(f"{path}: {args.views} views")


def _orbit(motion: Any, args: argparse.Namespace) -> Any:
    """uint8 [T, H, W, 3]: the motion seen by a camera that goes round it once."""
    import numpy as np

    cameras = _ring(args, len(motion.phases))
    frames = [motion.render(cameras[i], phases=[float(phase)])[0, 0] for i, phase in enumerate(motion.phases)]
    return np.stack(frames)


def _ring(args: argparse.Namespace, views: int) -> Any:
    import numpy as np

    from renderers.cameras import orbit_cameras

    if views < 1:
        raise ValueError(f"--views {views}: expected at least 1")
    return orbit_cameras(
        np.radians(args.azimuth_deg + np.arange(views) * 360 / views),
        np.radians(args.elevation_deg),
        args.distance,
        fov_y=np.radians(FOV_DEG),
        width=args.resolution,
        height=args.resolution,
    )


def _write_cameras(path: Path, cameras: Any) -> None:
    from renderers.cameras import CONVENTION

    content = {"convention": CONVENTION, "width": cameras.width, "height": cameras.height}
    content |= {"world_to_camera": cameras.world_to_camera.tolist(), "K": cameras.K.tolist()}
    path.write_text(json.dumps(content, indent=2))


def _publish(args: argparse.Namespace) -> None:
    print(publish(args.name, args.target, home=args.home))


def _chosen(args: argparse.Namespace) -> list[tuple[Any, Path]]:
    """The motions that the arguments ask for, each with where it goes."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    model = load(args.name, home=args.home)
    if args.between:
        motions = model.interpolate(*args.between, steps=args.steps)
        stem = args.out.with_suffix("")
        paths = [stem.with_name(f"{stem.name}-{i}{args.out.suffix}") for i in range(len(motions))]
    else:
        if args.motion:
            motion = model.motion(args.motion)
        elif args.text:
            motion = model.from_text(args.text)
        else:
            motion = model.sample(args.seed)
        motions, paths = [motion], [args.out]
    if args.frames is not None:
        motions = [motion.resampled(args.frames) for motion in motions]
    return list(zip(motions, paths, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)
        added.add_argument(
            "--home", type=Path, help="folder of the local registry (default: $MENAGERIE_HOME)"
        )
        return added

    added = command("list", _list, "names of models")
    added.add_argument("pattern", nargs="?", default="*", help="with wildcards: dimo/*, local:*, hub:org/*")

    added = command("info", _info, "what is known of a model; its files are checked")
    added.add_argument("name")
    added.add_argument("--json", action="store_true", help="all of it, for programs")

    sample = command("sample", _sample, "write a motion: a video, an animated glTF, splats, arrays")
    render = command("render", _render, "videos of a motion from cameras around it")
    export = command("export", _sample, "write a motion as .glb, .ply, .npz or .mp4")
    for added, out in (
        (sample, "hop.mp4"),
        (render, "orbit.mp4, or a folder for one video a view"),
        (export, "hop.glb"),
    ):
        added.add_argument("name", help="family/name[@revision], local:family/name, hub:org/name")
        which = added.add_mutually_exclusive_group()
        which.add_argument(
            "--seed", type=int, default=0, help="draw a new motion with this seed (default: 0)"
        )
        which.add_argument("--motion", help="one that the model was trained on, by name")
        which.add_argument("--text", help="the one that a sentence asks for")
        which.add_argument(
            "--between", nargs=2, metavar=("FROM", "TO"), help="steps between two named motions"
        )
        added.add_argument(
            "--steps", type=int, default=5, help="of --between, both ends counted (default: 5)"
        )
        added.add_argument("--frames", type=int, help="how many, evenly spaced")
        added.add_argument("--out", type=Path, required=True, help=out)
    render.add_argument(
        "--views", type=int, default=8, help="cameras, evenly around, for a folder (default: 8)"
    )
    render.add_argument(
        "--azimuth-deg", type=float, default=0.0, help="of the first; 0 is in front, 90 at +X"
    )
    render.add_argument("--elevation-deg", type=float, default=10.0, help="above the horizon (default: 10)")
    render.add_argument(
        "--distance", type=float, default=DISTANCE, help=f"from the object (default: {DISTANCE})"
    )
    render.add_argument("--resolution", type=int, default=384, help="pixels a side (default: 384)")

    added = command("publish", _publish, "copy a model into the local registry or onto the hub")
    added.add_argument("name")
    added.add_argument("target", help="local:family/name or hub:org/name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
