"""The commands of `python -m zoo`. Each checks the capabilities of the model's family before it loads the model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from renderers.fields import Count, Positive, Range, check_fields
from zoo.capabilities import Capabilities, Needs, Operation, Rendered, Resampled, Result
from zoo.card import numbers
from zoo.errors import OptionError, UnknownModelError
from zoo.hub import ModelInfo, info, list_models, load, publish
from zoo.hub_access import check_target
from zoo.terminal import printable

if TYPE_CHECKING:
    import numpy as np

    from renderers.cameras import Cameras

FOV_DEG, DISTANCE = 33.9, 2.0  # of `render`: the cameras that DIMO's training videos are rendered with
CAMERAS = "cameras.json"  # of `render`, beside a folder's videos
VIDEO_FRAMES = 48  # of `render` by default: smooth for motions of two seconds


@dataclass(frozen=True)
class MotionChoice:
    """Which results `sample`, `render` and `export` write: a random sample unless another field is set.

    Attributes:
        seed: of the random sample.
        motion: name of a trained motion.
        text: sentence that describes the motion.
        between: names of two motions to interpolate between.
        steps: of `between`, both ends included.
    """

    seed: int = 0
    motion: str | None = None
    text: str | None = None
    between: tuple[str, str] | None = None
    steps: Annotated[int, Range(low=2)] = 5

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def operation(self) -> Operation:
        """What the model must support."""
        if self.between is not None:
            return Operation.INTERPOLATE
        if self.motion is not None:
            return Operation.MOTION
        return Operation.SAMPLE if self.text is None else Operation.TEXT

    def results(self, model: Any) -> Sequence[Result]:
        """Decode the chosen motions."""
        if self.between is not None:
            return cast("Sequence[Result]", model.interpolate(*self.between, steps=self.steps))
        if self.motion is not None:
            return [model.motion(self.motion)]
        return [model.sample(self.seed) if self.text is None else model.from_text(self.text)]


@dataclass(frozen=True)
class Orbit:
    """Cameras of `render`, on a circle around the object and facing it.

    Attributes:
        views: number of cameras, evenly spaced.
        azimuth_deg: of the first camera; 0 is in front of the object (+Z), 90 is at +X.
        elevation_deg: above the horizontal plane.
        distance: from the object's origin, in its own unit.
        resolution: width and height in pixels.
    """

    views: Count = 8
    azimuth_deg: float = 0.0
    elevation_deg: Annotated[float, Range(low=-90, high=90)] = 10.0
    distance: Positive = DISTANCE
    resolution: Annotated[int, Range(low=16, high=4096)] = 384

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resolution % 2:
            raise ValueError(
                f"Orbit.resolution: expected an even number of pixels (H.264 subsamples chroma by two), got "
                f"{self.resolution}"
            )

    def cameras(self, count: int) -> Cameras:
        """`count` cameras, evenly spaced."""
        import numpy as np

        from renderers.cameras import orbit_cameras

        return orbit_cameras(
            np.radians(self.azimuth_deg + np.arange(count) * 360 / count),
            np.radians(self.elevation_deg),
            self.distance,
            fov_y=np.radians(FOV_DEG),
            width=self.resolution,
            height=self.resolution,
        )


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
    name: str, choice: MotionChoice, *, frames: int | None, out: Path, home: Path | None
) -> None:
    """Save results in the format given by the suffix of `out`; of several, each under a numbered name."""
    model = _supporting(name, choice, frames, home=home)
    assert model.capabilities is not None
    model.capabilities.require_format(out, name, model.family)
    check_writable(out)
    for result, path in _chosen(model, choice, frames, out, home):
        print(result.save(path))


def animate_command(
    name: str, asset: Path, sentence: str, *, seed: int, out: Path, home: Path | None
) -> None:
    """Set an object in motion as a sentence describes, and save the videos."""
    model = _supporting(name, Operation.ANIMATE, home=home)
    assert model.capabilities is not None
    model.capabilities.require_format(out, name, model.family)
    if out.resolve() == asset.resolve():
        raise ValueError(f"--out {out} is the object itself and would be overwritten: choose another name")
    if not asset.is_file():
        raise FileNotFoundError(f"{asset}: no such file; expected a glTF file (.glb or .gltf)")
    check_writable(out)
    result = load(model.name, home=home).animate(asset, sentence, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    print(result.save(out))


def render_command(
    name: str, choice: MotionChoice, orbit: Orbit, *, frames: int | None, out: Path, home: Path | None
) -> None:
    """Render videos: .mp4 with a camera that orbits the object once, or a folder with a video per view."""
    from zoo.export.video import write_mp4

    if out.suffix not in ("", ".mp4"):
        raise OptionError(
            f"{out}: expected a name that ends in .mp4 (one orbiting camera), or a folder (one video per view)"
        )
    model = _supporting(name, choice, frames, Operation.RENDER, home=home)
    check_writable(out)
    chosen = _chosen(model, choice, frames or VIDEO_FRAMES, out, home)
    for _, path in chosen:
        if not path.suffix:
            _check_views_folder(path)
    for result, path in chosen:
        motion = cast(Rendered, result)
        if path.suffix:
            write_mp4(path, _orbit_frames(motion, orbit), motion.fps)
            print(path)
            continue
        cameras = orbit.cameras(orbit.views)
        path.mkdir(parents=True, exist_ok=True)
        _write_cameras(path / CAMERAS, cameras)  # first: it marks the folder, should this be interrupted
        for view, video in enumerate(motion.render(cameras)):
            write_mp4(path / f"view_{view:02d}.mp4", video, motion.fps)
        print(f"{path}: {orbit.views} views")


def publish_command(name: str, target: str, *, home: Path | None) -> None:
    """Publish a model and print the name that loads it."""
    check_target(target)
    print(publish(name, target, home=home))


def check_writable(out: Path) -> None:
    """Check that a file or folder can be written, without writing anything.

    Raises:
        OptionError: it cannot.
    """
    existing = out if out.is_dir() else out.parent
    try:
        while not existing.exists():
            existing = existing.parent
    except OSError as error:  # a name that is too long, a loop of links, no permission
        raise OptionError(f"--out {out}: {error.strerror}") from None
    if not existing.is_dir():
        raise OptionError(f"--out {out}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OptionError(f"--out {out}: no permission to write in {existing}")


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
            raise ValueError(f"{folder} is a file: expected a folder, or a name that ends in .mp4")
        return
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    foreign = [name for name in names if name != CAMERAS and not re.fullmatch(r"view_\d\d+\.mp4", name)]
    if foreign or (names and not _is_cameras(folder / CAMERAS)):
        raise ValueError(
            f"{folder} has files that this command did not write ({', '.join((foreign or names)[:3])}): choose an "
            f"empty or a new folder, or that of an earlier render"
        )


def _is_cameras(path: Path) -> bool:
    try:
        return "world_to_camera" in json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False


def _write_cameras(path: Path, cameras: Cameras) -> None:
    from renderers.cameras import CONVENTION

    content = {"convention": CONVENTION, "width": cameras.width, "height": cameras.height}
    content |= {"world_to_camera": cameras.world_to_camera.tolist(), "K": cameras.K.tolist()}
    path.write_text(json.dumps(content, indent=2))


def _supporting(
    name: str,
    choice: MotionChoice | Operation,
    frames: int | None = None,
    *operations: Operation,
    home: Path | None,
) -> ModelInfo:
    """Describe a model, and refuse operations that its family does not support.

    Raises:
        UnsupportedError: one sentence that lists what the family supports.
    """
    if frames is not None and frames < 1:
        raise OptionError(f"--frames: expected at least 1, got {frames}")
    model = info(name, home=home)
    if model.capabilities is None:
        load(model.name, home=home)  # explains what is not installed
    capabilities = model.capabilities or Capabilities()
    required = [choice.operation if isinstance(choice, MotionChoice) else choice, *operations]
    if frames is not None:
        required.append(Operation.RESAMPLE)
    for operation in required:
        capabilities.require(operation, name, model.family)
    return model


def _chosen(
    model: ModelInfo, choice: MotionChoice, frames: int | None, out: Path, home: Path | None
) -> list[tuple[Result, Path]]:
    """The chosen results, each with the path to write it to."""
    results = choice.results(load(model.name, home=home))
    if frames is not None:
        results = [cast(Resampled, result).resampled(frames) for result in results]
    out.parent.mkdir(parents=True, exist_ok=True)
    if choice.between is None:
        return [(results[0], out)]
    stem = out.with_suffix("")
    return [(result, stem.with_name(f"{stem.name}-{i}{out.suffix}")) for i, result in enumerate(results)]
