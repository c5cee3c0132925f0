"""The commands of `python -m zoo`. Each checks the capabilities of the model's family before it loads the model."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.capabilities import Capabilities, Needs, Operation, Rendered, Resampled, Result
from zoo.card import numbers
from zoo.choices import CAMERAS_FILE, MotionChoice, Orbit, check_output, check_seed
from zoo.errors import OptionError, SentenceWarning, UnknownModelError
from zoo.hub import ModelInfo, info, list_models, load, publish
from zoo.hub_access import check_target
from zoo.terminal import printable
from zoo.threads import fitting_threads

if TYPE_CHECKING:
    import numpy as np

    from renderers.gltf import Asset
    from zoo.animate3d import SplatModel, StillModel

VIDEO_FRAMES = 48  # of `render` by default: smooth for motions of two seconds


def list_command(pattern: str, *, home: Path | None) -> None:
    """Print model names, one per line."""
    names = list_models(pattern, home=home)
    if not names:
        known = list_models(home=home)
        raise UnknownModelError(
            f"no model name matches {pattern!r}; "
            + (f"known here: {', '.join(known[:8])}" if known else "there are no models here yet")
        )
    print("\n".join(map(printable, names)))


def info_command(name: str, *, as_json: bool, home: Path | None) -> None:
    """Print the description, metrics, capabilities and needs of a model."""
    model = info(name, home=home)
    if as_json:
        content = asdict(model) | {
            "folder": str(model.folder),
            "capabilities": model.capabilities and model.capabilities.to_json(),
            "needs": model.needs and model.needs.to_json(),
        }
        # Control characters beyond those that JSON requires are escaped too; they occur within strings only.
        text = json.dumps(content, indent=2, ensure_ascii=False)
        print("\n".join("".join(map(_json_escape, line)) for line in text.split("\n")))
        return
    rows = {
        "name": model.name,
        "family": model.family,
        "title": model.card.get("title"),
        "about": model.card.get("summary"),
        "licence": model.card.get("license"),
        "metrics": ", ".join(f"{metric} {value:.4g}" for metric, value in numbers(model.metrics)),
        "measured": model.metrics.get("protocol"),
        "can": _operations(model),
        "saves": ", ".join(model.capabilities.formats) if model.capabilities else None,
        "needs": _requirements(model.capabilities, model.needs),
        "time": model.needs and _times(model.needs),
        "size": f"{sum(model.files.values()) / 1e6:.2f} MB in {len(model.files)} files",
        "folder": model.folder,
    }
    for label, value in rows.items():
        if value:
            print(f"{label:<9} {printable(' '.join(str(value).split()))}")


def _json_escape(character: str) -> str:
    return character if printable(character) == character else json.dumps(character)[1:-1]


def _operations(model: ModelInfo) -> str:
    if model.capabilities is None:
        return f"only be copied: the family {model.family!r} is not installed"
    operations = model.capabilities.operations
    return (
        ", ".join(f"{each.phrase} ({each.request})" for each in operations)
        or f"be loaded; the family {model.family!r} states no operations"
    )


def _requirements(capabilities: Capabilities | None, needs: Needs | None) -> str:
    parts = []
    if capabilities is not None:
        parts = [f'pip install "menagerie4d[{capabilities.extras}]"', capabilities.hardware]
    if needs is not None:
        parts.append(f"{needs.memory_mib} MiB of memory")
    return "; ".join(part for part in parts if part)


def _times(needs: Needs) -> str:
    return (
        f"{needs.first_sample_s:.1f} s to load the model and save the first sample as .mp4, "
        f"{needs.warm_sample_s:.1f} s for the next, on {needs.cores} cores of {needs.machine}"
    )


def sample_command(
    name: str, choice: MotionChoice, *, out: Path, home: Path | None, all_motions: bool = False
) -> None:
    """Save results in the format given by the suffix of `out`; of several, each under a numbered name.

    With `all_motions`, which needs a name that ends in .html, a page offers all trained motions too.
    """
    if all_motions and out.suffix.lower() != ".html":
        raise OptionError(f"--all-motions: is for a page, {out} does not end in .html")
    options: dict[str, Any] = {"motions": "all"} if all_motions else {}
    model = _supporting(name, choice.operations, out, home=home)
    paths = choice.paths(out)
    for path in paths:
        check_output(path)
    with fitting_threads():
        for result, path in zip(_results(model, choice, home), paths, strict=True):
            out.parent.mkdir(parents=True, exist_ok=True)
            print(cast(Any, result).save(path, **options))


def animate_command(
    model_file: Path,
    sentence: str | None,
    *,
    videos: list[Path] | None,
    out: Path,
    report: Path | None,
    seed: int,
    up: str | None,
    **options: Any,
) -> None:
    """Animate a still 3D model by a sentence or by videos, and save it in the format given by the suffix of `out`."""
    from zoo.animate3d.api import animate
    from zoo.animate3d.loading import is_splats
    from zoo.animate3d.saving import WRITERS
    from zoo.animate3d.splats.saving import check_format
    from zoo.formats import check_suffix

    check_seed(seed)
    if (sentence is None) == (videos is None):
        raise OptionError(
            f"animate: expected either a sentence or --videos, got {'neither' if videos is None else 'both'}"
        )
    if sentence is not None and not sentence.strip():
        raise OptionError("animate: expected a sentence that says what happens, got no words")
    _check_model_file(model_file, out)  # first, as the formats of `out` depend on what it is
    splats = is_splats(model_file)
    if splats:
        check_format(out)
    else:
        check_suffix(out, WRITERS, "animations of 3D models")
    if up is not None and not splats:
        raise OptionError(
            f"--up: is for splats, and {model_file} is a mesh; turn it upright in its own program"
        )
    for path in (out, report):
        if path is not None:
            check_output(path)
    suffix = out.suffix.lower()
    in_folder = suffix == ".ply" or (splats and suffix == ".glb")
    _check_overwriting([model_file, *(videos or [])], out, report, folder=in_folder)
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--report {report}: expected a name that ends in .html")
    given = videos[0] if videos and len(videos) == 1 else videos
    with fitting_threads():
        model = _splats(model_file, up) if splats else model_file
        animation = animate(model, sentence, videos=given, seed=seed, progress=_show_progress, **options)
        if not splats:
            _show_notes(animation.model)
        print(animation.save(out))
    for line in animation.report.sentences() if animation.report else ():
        print(f"zoo: {line}", file=sys.stderr)
    if report is not None:
        from zoo.animate3d.report import write_report

        write_report(report, animation)
        print(report)


def _splats(path: Path, up: str | None) -> SplatModel:
    """Load splats, and say what was assumed of them."""
    from zoo.animate3d.splats.model import load_splats

    model = load_splats(path, up=up)
    _show_notes(model)
    return model


def _show_notes(model: SplatModel | StillModel) -> None:
    """Say what was left out of a model or assumed of it."""
    for note in model.notes:
        print(f"zoo: {note}", file=sys.stderr)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rzoo: fitted {100 * done // total:3} %", end=end, file=sys.stderr, flush=True)


def videos_command(
    name: str, model_file: Path, sentence: str | None, *, seed: int, out: Path, home: Path | None
) -> None:
    """Generate videos of an object as a sentence describes, and save them side by side."""
    check_seed(seed)
    if sentence is None:
        raise OptionError("animate --videos-only: expected a sentence that says what happens")
    model = _supporting(name, [Operation.ANIMATE], out, home=home)
    check_output(out)
    _check_model_file(model_file, out)
    with fitting_threads():
        result = load(model.name, home=home).animate(model_file, sentence, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    print(result.save(out))


def _check_overwriting(inputs: list[Path], out: Path, report: Path | None, *, folder: bool) -> None:
    """Refuse results that would take the place of what is read, or of each other.

    Args:
        inputs: files, and folders of files.
        folder: `out` names a folder, with a file per frame.
    """
    if report is not None and report.resolve() == out.resolve():
        raise OptionError(f"--report {report}: is --out, too: choose another name")
    result = (out.with_suffix("") if folder else out).resolve()
    for path in inputs:
        source = path.resolve()
        if result == source or result in source.parents or (source in result.parents and result.exists()):
            raise OptionError(
                f"--out {out}: would replace files of {path}, which is read: choose another name"
            )


def _check_model_file(model_file: Path, out: Path) -> None:
    _check_exists(model_file)
    if out.resolve() == model_file.resolve():
        raise OptionError(f"--out {out} is the object itself and would be overwritten: choose another name")


def _check_exists(model_file: Path) -> None:
    if not model_file.exists():
        raise FileNotFoundError(f"{model_file}: no such file; expected a 3D model, such as a .glb")


def stills_command(
    model_file: Path,
    *,
    azimuths_deg: Sequence[float] | None,
    elevation_deg: float,
    resolution: int,
    up: str | None,
    out: Path,
) -> None:
    """Render a still model from the views that videos of it should begin with, with a file of the cameras."""
    from PIL import Image

    from renderers.files import atomic_folder
    from zoo.animate3d.loading import is_splats, load_model
    from zoo.animate3d.viewpoints import AZIMUTHS_DEG, cameras_around, render_stills

    _check_exists(model_file)
    written = re.compile(r"view_\d\d+\.png|cameras\.json")
    with atomic_folder(out, written.fullmatch) as part:
        if is_splats(model_file):
            asset: Asset | SplatModel = _splats(model_file, up)
        else:
            still = load_model(model_file)
            _show_notes(still)
            asset = still.asset
        cameras = cameras_around(
            asset, AZIMUTHS_DEG if azimuths_deg is None else azimuths_deg, elevation_deg, resolution
        )
        for view, picture in enumerate(render_stills(asset, cameras)):
            Image.fromarray(picture).save(part / f"view_{view:02d}.png")
        (part / CAMERAS_FILE).write_text(json.dumps(cameras.to_json(), indent=2))
    print(f"{out}: {len(cameras)} views; let a video model continue each of them, then run animate --videos")


def render_command(name: str, choice: MotionChoice, orbit: Orbit, *, out: Path, home: Path | None) -> None:
    """Render videos: .mp4 with a camera that orbits the object once, or a folder with a video per view."""
    from zoo.export.video import write_mp4

    if out.suffix.lower() not in ("", ".mp4"):
        raise OptionError(
            f"{out}: expected a name that ends in .mp4 (one orbiting camera), or a folder (one video per view)"
        )
    model = _supporting(name, [*choice.operations, Operation.RENDER, Operation.RESAMPLE], home=home)
    paths = choice.paths(out)
    for path in paths:
        check_output(path) if path.suffix else _check_views_folder(path)
    choice = replace(choice, frames=choice.frames or VIDEO_FRAMES)
    with fitting_threads():
        for result, path in zip(_results(model, choice, home), paths, strict=True):
            out.parent.mkdir(parents=True, exist_ok=True)
            motion = cast(Rendered, result)
            if path.suffix:
                write_mp4(path, _orbit_frames(motion, orbit), motion.fps)
                print(path)
                continue
            cameras = orbit.cameras(orbit.views)
            path.mkdir(parents=True, exist_ok=True)
            # First: it marks the folder, should this be interrupted.
            (path / CAMERAS_FILE).write_text(json.dumps(cameras.to_json(), indent=2))
            for view, video in enumerate(motion.render(cameras)):
                write_mp4(path / f"view_{view:02d}.mp4", video, motion.fps)
            print(f"{path}: {orbit.views} views")


def view_command(
    things: Sequence[str],
    *,
    host: str,
    port: int,
    token: str | None,
    open_browser: bool,
    home: Path | None,
) -> None:
    """Show one or two things in the browser until Ctrl-C."""
    from zoo.viewer import view

    if not 0 <= port <= 65535:
        raise OptionError(f"--port {port}: expected a number from 0 to 65535")
    view(*things, host=host, port=port, token=token, open_browser=open_browser, block=True, home=home)


def publish_command(name: str, target: str, *, home: Path | None, own_use: bool = False) -> None:
    """Publish a model and print the name that loads it."""
    check_target(target)
    print(publish(name, target, home=home, own_use=own_use))


def _orbit_frames(motion: Rendered, orbit: Orbit) -> np.ndarray:
    """uint8 [T, H, W, 3]: frame t seen from the t-th of T cameras around the object."""
    import numpy as np

    cameras = orbit.cameras(len(motion.phases))
    frames = [motion.render(cameras[i], phases=[float(phase)])[0, 0] for i, phase in enumerate(motion.phases)]
    return np.stack(frames)


def _check_views_folder(folder: Path) -> None:
    """Refuse a folder with other files than the videos and the cameras of an earlier `render`."""
    if not folder.is_dir():
        if folder.exists():
            raise OptionError(f"{folder} is a file: expected a folder, or a name that ends in .mp4")
        check_output(folder)
        return
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    foreign = [name for name in names if name != CAMERAS_FILE and not re.fullmatch(r"view_\d\d+\.mp4", name)]
    if foreign or (names and not _is_cameras(folder / CAMERAS_FILE)):
        raise OptionError(
            f"{folder} has files that this command did not write ({', '.join((foreign or names)[:3])}): choose an "
            f"empty or a new folder, or that of an earlier render"
        )


def _is_cameras(path: Path) -> bool:
    try:
        return "world_to_camera" in json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False


def _supporting(
    name: str, operations: Sequence[Operation], out: Path | None = None, *, home: Path | None
) -> ModelInfo:
    """Describe a model, and refuse operations and file formats that its family does not support.

    Args:
        name: of the model.
        operations: required ones.
        out: file to save a result in; None if the command writes it itself.
        home: folder of the local registry.

    Raises:
        UnsupportedError: one sentence that lists what the family supports.
    """
    model = info(name, home=home)
    if model.capabilities is None:
        load(model.name, home=home)  # explains what is not installed
    capabilities = model.capabilities or Capabilities()
    for operation in operations:
        capabilities.require(operation, name, model.family)
    if out is not None:
        capabilities.require_format(out, name, model.family)
    return model


def _results(model: ModelInfo, choice: MotionChoice, home: Path | None) -> Sequence[Result]:
    loaded = load(model.name, home=home)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SentenceWarning)
        results = choice.results(loaded)
    for warning in caught:
        if issubclass(warning.category, SentenceWarning):
            print(f"zoo: {warning.message}", file=sys.stderr)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if choice.frames is None:
        return results
    return [cast(Resampled, result).resampled(choice.frames) for result in results]
