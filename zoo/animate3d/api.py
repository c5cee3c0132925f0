"""`animate`: a still 3D model and a sentence or videos in, an animated model out.

    zoo.animate("dragon.glb", "roars and shakes its head").save("dragon-roars.glb")
    zoo.animate("dragon.glb", videos=["front.mp4", "right.mp4", "back.mp4", "left.mp4"]).save("dragon.usd")

A multi-view video model (MV-VDM) turns pictures of the still model and the sentence into one video per view; a
deformation graph that carries the model's surface is fitted to them (docs/animate.md): by photometric Gauss-Newton, or
by the optimisation of Animate3D §3.2, which also moves Gaussian splats. Given videos take the place of the first step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from renderers.arguments import flag, instance, number, shown
from renderers.background import Background
from renderers.cameras import Cameras
from zoo.animate3d.agreement import view_agreement
from zoo.animate3d.alignment import check_alignment, compare_first_frames
from zoo.animate3d.animation import Animation
from zoo.animate3d.fit_report import FitReport
from zoo.animate3d.limits import METHODS
from zoo.animate3d.splats.animation import SplatAnimation
from zoo.animate3d.splats.model import SplatModel
from zoo.animate3d.videos import SECONDS, Videos, places_in_folder, read_videos
from zoo.animate3d.viewpoints import cameras_around, read_cameras, relative_to_origin, render_stills, resized
from zoo.choices import CAMERAS_FILE
from zoo.mvvdm.views import ELEVATION_DEG

if TYPE_CHECKING:
    from renderers.gltf import Asset
    from zoo.animate3d.fitting import Fit
    from zoo.animate3d.loading import StillModel
    from zoo.animate3d.splats.fitting import SplatFit
    from zoo.mvvdm.pipeline import MVVDMPipeline

MODEL = "mvvdm/tiny"
GREY = (127, 127, 127)  # background of MV-VDM's videos
STIFFNESSES = ("rendered", "generated")

Progress = Callable[[int, int], None]  # how far the fit is, in frames, and how many there are


def animate(
    asset: str | os.PathLike[str] | StillModel | SplatModel,
    sentence: str | None = None,
    *,
    videos: Any = None,
    model: str | MVVDMPipeline = MODEL,
    seed: int = 0,
    cameras: Cameras | None = None,
    azimuths_deg: Sequence[float] | None = None,
    elevation_deg: float | Sequence[float] = ELEVATION_DEG,
    background: Background | None = None,
    fps: float | None = None,
    stiffness: str | None = None,
    method: str | None = None,
    refine: bool = False,
    check: bool = True,
    home: Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Animation | SplatAnimation:
    """Animate a still 3D model so that it moves as a sentence says or as videos show; its `report` says how well.

    Args:
        asset: file of a mesh or of splats, or the result of `load_model` or `load_splats`; +Y up, front +Z; at rest.
        sentence: what happens.
        videos: to follow instead, one per view (`read_videos`); they begin with the still model.
        model, home, seed: the MV-VDM that generates videos, by name or loaded; the registry that has it; of its noise.
        cameras: of given videos, in the world of the model's file; default those of `cameras.json` in the folder of
            the videos, in the order of the names in it, else by the next two arguments.
        azimuths_deg, elevation_deg: [V], 0 in front of the model, 90 on the side of +X; default evenly spaced.
        background: colour behind the object in given videos without transparency; None = estimated at the border.
        fps: frame rate of given videos; None = that of the files.
        stiffness: of "graph": "rendered" for videos that are right in every pixel, "generated" for those of models.
        method, refine: "graph", the default of meshes, "paper", that of splats, or "best", the better of both in each
            frame (`zoo.animate3d.fit`); whether the video model then refines its own animation (4D-SDS).
        check: refuse videos that do not begin with the still model.
        progress: called with (done, frames) during the fit, last with (frames, frames).
        options: of a call of the video model, such as num_inference_steps.

    Raises:
        ValueError: neither or both of sentence and videos; an argument is out of range; a file cannot be used.
        ZooError: the videos do not show the still model, or the model that generates them cannot be loaded.
    """
    _check(sentence, videos, stiffness, method, flag(refine, "animate: refine"), options)
    check = flag(check, "animate: check") and sentence is None
    still, seen = _open(asset, method)
    guide = None if sentence is None else (_pipeline(model, home), sentence)
    if guide is not None:
        read, cameras = _generate(seen, *guide, seed, options)
        stiffness, azimuths_deg = stiffness or "generated", None
    else:
        read = read_videos(videos, background=background, fps=fps)
        cameras, azimuths_deg = _cameras(seen, videos, read, cameras, azimuths_deg, elevation_deg)
    begin = read.frames[:, 0], render_stills(seen, cameras)
    alignment = check_alignment(*begin, azimuths_deg) if check else compare_first_frames(*begin)
    fitted: Any = _fit(still, read, cameras, stiffness, method, guide if refine else None, progress)
    agreed = view_agreement(read.frames[..., 3], cameras)
    report = FitReport(read, cameras, alignment, agreed, fitted, sentence, sentence and _name(model))
    kind = SplatAnimation if isinstance(still, SplatModel) else Animation
    return kind(still, fitted.motion, sentence or "animation", report)  # type: ignore[arg-type]


def _open(
    asset: str | os.PathLike[str] | StillModel | SplatModel, method: str | None
) -> tuple[StillModel | SplatModel, Asset | SplatModel]:
    """The model, and what is drawn of it."""
    from zoo.animate3d.loading import open_model

    still = open_model(asset)
    if not isinstance(still, SplatModel):
        return still, still.asset
    if method not in (None, "paper"):
        raise ValueError(
            f"animate: method: {still.name} holds splats, which have no surface for a graph to move; leave it out or "
            f"choose 'paper', or give a mesh of the object"
        )
    return still, still


def _fit(
    still: StillModel | SplatModel,
    videos: Videos,
    cameras: Cameras,
    stiffness: str | None,
    method: str | None,
    guide: tuple[MVVDMPipeline, str] | None,
    progress: Progress | None,
) -> Fit | SplatFit:
    if isinstance(still, SplatModel):
        from zoo.animate3d.splats.fitting import fit_splats

        return fit_splats(still, videos.frames, cameras, videos.times, guide=guide, progress=progress)
    from zoo.animate3d.fitting import fit

    near, stiffness = relative_to_origin(cameras, still.asset), stiffness or "rendered"
    return fit(
        still.asset, videos.frames, near, videos.times,
        stiffness=stiffness, method=method or METHODS[0], guide=guide, progress=progress,
    )  # fmt: skip


def _check(
    sentence: str | None,
    videos: Any,
    stiffness: str | None,
    method: str | None,
    refine: bool,
    options: dict[str, Any],
) -> None:
    if (sentence is None) == (videos is None):
        raise ValueError(
            f"animate: expected either a sentence or videos, got {'neither' if videos is None else 'both'}; videos are "
            f"followed as they are"
        )
    if sentence is not None:
        instance(sentence, str, "animate: sentence")
        if not sentence.strip():
            raise ValueError("animate: sentence: expected what happens, such as 'roars', got no words")
    if stiffness is not None and stiffness not in STIFFNESSES:
        raise ValueError(f"animate: stiffness: expected one of {', '.join(STIFFNESSES)}, got {stiffness!r}")
    if method is not None and method not in METHODS:
        raise ValueError(f"animate: method: expected one of {', '.join(METHODS)}, got {shown(method)}")
    if refine and sentence is None:
        raise ValueError("animate: refine: expected a sentence, by which the video model refines, got videos")
    if videos is not None and options:
        raise TypeError(
            f"animate: {next(iter(options))}: is an option of the video model, but videos are given"
        )


def _pipeline(model: str | MVVDMPipeline, home: Path | None) -> MVVDMPipeline:
    """The video model."""
    from zoo.errors import UnsupportedError
    from zoo.hub import load

    pipeline: Any = load(model, home=home) if isinstance(model, str) else model
    if not hasattr(pipeline, "animate"):
        raise UnsupportedError(
            f"{_name(model)}: models of this family do not generate videos of an object from a sentence; use an "
            f"MV-VDM, such as {MODEL}"
        )
    return cast("MVVDMPipeline", pipeline)


def _generate(
    asset: Asset | SplatModel, pipeline: MVVDMPipeline, sentence: str, seed: int, options: dict[str, Any]
) -> tuple[Videos, Cameras]:
    """Videos that an MV-VDM generates of the object, and their cameras in the world of its file."""
    first: Any = asset
    if isinstance(asset, SplatModel):
        size = options.get("resolution") or pipeline.config.resolution
        first = render_stills(asset, cameras_around(asset, size=size))
    result: Any = pipeline.animate(first, sentence, seed=seed, **options)
    views, frames, size = result.frames.shape[:3]
    videos = read_videos(result, background=GREY, fps=frames / SECONDS)
    return videos, cameras_around(asset, _evenly(views), size=size)


def _name(model: Any) -> str:
    return model if isinstance(model, str) else type(model).__name__


def _stored_cameras(source: Any) -> Cameras | None:
    """The cameras of given videos in `cameras.json`, in their folder; None if there is none."""
    if isinstance(source, str | os.PathLike):
        if (folder := Path(source)).is_dir():
            stored = folder / CAMERAS_FILE
            return read_cameras(stored) if stored.is_file() else None
        source = [source]
    if not isinstance(source, Sequence) or not all(isinstance(each, str | os.PathLike) for each in source):
        return None
    paths = [Path(each) for each in source]
    stored = paths[0].parent / CAMERAS_FILE
    places = places_in_folder(paths) if stored.is_file() else None
    if places is None:
        return None
    cameras, (views, count) = read_cameras(stored), places
    if len(cameras) != count:
        raise ValueError(
            f"{stored}: expected one camera per video in the folder, got {len(cameras)} cameras for {count} videos; "
            f"say where the views are (azimuths_deg, --azimuths-deg)"
        )
    return cameras[views]


def _evenly(views: int) -> list[float]:
    return [360.0 * view / views for view in range(views)]


def _cameras(
    asset: Asset | SplatModel,
    source: Any,
    videos: Videos,
    cameras: Cameras | None,
    azimuths_deg: Sequence[float] | None,
    elevation_deg: float | Sequence[float],
) -> tuple[Cameras, Sequence[float] | None]:
    """Cameras of given videos in the world of the file, and their azimuths if they are defined by these."""
    V, _, H, W, _ = videos.frames.shape
    if cameras is None and azimuths_deg is None:
        cameras = _stored_cameras(source)
    if cameras is None:
        azimuths_deg = _evenly(V) if azimuths_deg is None else azimuths_deg
        if isinstance(azimuths_deg, str) or not isinstance(azimuths_deg, Iterable):
            raise TypeError(
                f"animate: azimuths_deg: expected one angle in degrees per video, got {shown(azimuths_deg)}"
            )
        for value in azimuths_deg:
            number(value, "animate: azimuths_deg")
        if W != H:
            raise ValueError(
                f"animate: the videos are {W}×{H}: expected squares, as the default cameras see them; crop them, or "
                f"give their cameras"
            )
        cameras = cameras_around(asset, azimuths_deg, elevation_deg, H)
    instance(cameras, Cameras, "animate: cameras")
    if len(cameras) != V:
        raise ValueError(
            f"animate: expected one camera per video, got {len(cameras)} cameras for {V} videos "
            f"({', '.join(videos.names)})"
        )
    return resized(cameras, W, H), azimuths_deg
