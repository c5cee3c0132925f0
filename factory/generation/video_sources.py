"""Where videos come from, by name: an MV-VDM of the zoo, an image-to-video pipeline, or the object's own animations.

mvvdm/tiny             a multi-view model of the zoo: films a 3D model in all of its views at once
module:function        a Python function that returns an object with `generate_views` or `generate`
rendered               the animations of the 3D model's own file, rendered; a control with known motions
any other name         an image-to-video pipeline (`factory.generation.video_models`): one view
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from cluster import StageError
from factory.generation.jobs import ModelChoice, MultiViewVideo, StillObject, ViewGeometry
from factory.generation.still import StillCache, read_picture
from factory.generation.video_folder import FolderVideos
from factory.motion_videos.plan import AnimationSource, MotionRecipe, plan_motions, sentence
from renderers.meshes import composite
from zoo.errors import OptionError, ZooError
from zoo.mvvdm.views import DISTANCE, ELEVATION_DEG, FOV_DEG, MARGIN

RENDERED = "rendered"
FILES = "videos"  # read from a folder; chosen by --videos
ZOO_FAMILIES = ("mvvdm",)
GREY = (127, 127, 127)
WHITE = (255, 255, 255)
SECONDS = 2.0  # duration of an MV-VDM's videos
RENDERED_VIEWS, RENDERED_FRAMES, RENDERED_SIDE = 4, 16, 128
LARGEST_PICTURE = 1024  # pixels of the longer side of a picture; larger ones are reduced
PICTURE_SIDE = 720  # of a 3D model's front view for an image-to-video pipeline


class VideoSource(Protocol):
    """Generates the videos of one object."""

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo: ...


def is_zoo_model(name: str) -> bool:
    """Whether a name is one of a video model in the zoo: `mvvdm/…`, `local:…`, `hub:…` or `bundled:…`."""
    return name.partition("/")[0] in ZOO_FAMILIES or name.startswith(("local:", "hub:", "bundled:"))


def is_custom(name: str) -> bool:
    """Whether a name is that of a Python function, `module:function`."""
    module, separator, function = name.partition(":")
    return (
        bool(separator) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))
    )


def resolved(choice: ModelChoice) -> ModelChoice:
    """The choice with the model's revision, so that keys change with the model.

    Raises:
        ZooError: the zoo has no such model.
    """
    if not is_zoo_model(choice.name):
        return choice
    import zoo

    return replace(choice, revision=zoo.info(choice.name).revision)


def open_source_of_videos(choice: ModelChoice, device: str = "cpu") -> VideoSource:
    """Load the model of a choice.

    Raises:
        StageError: it cannot be loaded; one sentence that says why and what to do.
    """
    try:
        if choice.name == FILES:
            return FolderVideos()
        if choice.name == RENDERED:
            return RenderedVideos(**choice.options)
        if is_zoo_model(choice.name):
            return MVVDMVideos(choice, device)
        if is_custom(choice.name):
            return CustomVideos(choice)
        return PictureVideos(choice, device)
    except (ZooError, ImportError, TypeError, ValueError, OSError) as error:
        raise StageError(f"--video-model {choice.name}: {error}") from error


class MVVDMVideos:
    """An MV-VDM of the zoo. It films a 3D model at rest from V views and continues all of these videos at once."""

    def __init__(self, choice: ModelChoice, device: str) -> None:
        from zoo.hub import load

        options = dict(choice.options)
        self._pipeline: Any = load(choice.name, home=options.pop("home", None))
        if not hasattr(self._pipeline, "animate"):
            raise OptionError(
                "models of this family do not generate videos; use an MV-VDM, such as mvvdm/tiny"
            )
        self._pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._options, self._choice, self._stills = options, choice, StillCache()

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
        from zoo.mvvdm.views import condition_views

        if still.is_image:
            raise OptionError(f"{self._choice.name} films 3D models: give --asset instead of --image")
        asset = self._stills.asset(still)
        frames = self._pipeline.animate(asset, sentence, seed=seed, **self._options).frames
        V, T, H = frames.shape[:3]
        card = self._pipeline.card
        return MultiViewVideo(
            np.asarray(frames),
            condition_views(asset, V, H),
            T / SECONDS,
            evenly_spaced(V),
            GREY,
            {
                "model": self._choice.name,
                "revision": self._choice.revision,
                "licence": card.get("license", "unknown"),
            },
        )


class RenderedVideos:
    """The animations of the object's own file, rendered: videos that are known to be right.

    The cameras are those of an MV-VDM, at a scale at which every animation stays inside the images.

    Args:
        views, frames, side: V, T, and H = W in pixels.
    """

    def __init__(
        self, views: int = RENDERED_VIEWS, frames: int = RENDERED_FRAMES, side: int = RENDERED_SIDE
    ) -> None:
        self.recipe = MotionRecipe(
            frames=frames, views=views, heldout_views=1, resolution=side, low_deg=ELEVATION_DEG,
            high_deg=ELEVATION_DEG, fov_y_deg=FOV_DEG, distance=DISTANCE, margin=MARGIN, poses=True,
        )  # fmt: skip
        self._stills = StillCache()
        self._plans: dict[str, dict[int, AnimationSource]] = {}

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
        from renderers.meshes import Shot, render_clip

        recipe, asset = self.recipe, self._stills.asset(still)
        key = still.record.fingerprint
        if key not in self._plans:
            plans, _ = plan_motions(asset, still.record, recipe)
            sources = [plan.source for plan in plans]
            self._plans = {
                key: {each.animation: each for each in sources if isinstance(each, AnimationSource)}
            }
        index = {text: k for k, text in enumerate(animation_sentences(asset))}[sentence]
        if (source := self._plans[key].get(index)) is None:
            raise OptionError(f"animation {index} of {still.record.uid} cannot be rendered")
        geometry = evenly_spaced(recipe.views)
        cameras = geometry.cameras(recipe.resolution, recipe.resolution)
        transform = np.asarray(source.asset_to_world, np.float64).reshape(4, 4)
        frames = render_clip(asset, Shot(index, np.asarray(source.timestamps), transform, cameras)).over(GREY)
        seconds = min(asset.animations[index].duration, recipe.seconds)
        provenance = {"model": RENDERED, "animation": asset.animations[index].name}
        return MultiViewVideo(
            frames, frames[:, 0], recipe.frames / (seconds or SECONDS), geometry, GREY, provenance
        )


class PictureVideos:
    """An image-to-video pipeline by name: one view, of a picture or of a 3D model's front."""

    def __init__(self, choice: ModelChoice, device: str) -> None:
        from factory.generation.video_models import load_video_model

        self._model: Any = load_video_model(choice.name, **{"device": device, **choice.options})
        self._stills = StillCache()

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
        return filmed(self._model, self._stills, still, sentence, seed)


class CustomVideos:
    """A model behind a Python function.

    `module:function` is called with the options and returns an object with one of

        generate_views(asset, sentence, seed) -> MultiViewVideo      of a 3D model
        generate(image, sentence, seed) -> GeneratedVideo            as `factory.generation.video_models`
    """

    def __init__(self, choice: ModelChoice) -> None:
        self._model = load_custom(choice)
        self._stills = StillCache()
        if not hasattr(self._model, "generate_views") and not hasattr(self._model, "generate"):
            raise TypeError("expected an object with generate_views or generate")

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
        if hasattr(self._model, "generate_views") and not still.is_image:
            return self._model.generate_views(self._stills.asset(still), sentence, seed)
        return filmed(self._model, self._stills, still, sentence, seed)


def load_custom(choice: ModelChoice) -> Any:
    """Call the function of a name `module:function` with the options of a choice."""
    module, _, function = choice.name.partition(":")
    return getattr(importlib.import_module(module), function)(**choice.options)


def filmed(model: Any, stills: StillCache, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
    """One view from an image-to-video model."""
    image, geometry = front_picture(stills, still)
    video = model.generate(image, sentence, seed)
    return MultiViewVideo(
        np.asarray(video.frames)[None],
        _fitted(image, video.frames.shape[1:3])[None],
        float(video.fps),
        geometry,
        WHITE if still.is_model or _is_plain(image) else None,
        dict(video.provenance),
    )


def front_picture(stills: StillCache, still: StillObject) -> tuple[np.ndarray, ViewGeometry]:
    """The picture that an image-to-video model starts from, uint8 [H, W, 3] on white, and its camera.

    A picture defines the object's front, azimuth 0; the elevation of its camera is the one that the user gave.
    """
    if still.is_image:
        image = composite(read_picture(still.record.location), WHITE)
        largest = max(image.shape[:2])
        if largest > LARGEST_PICTURE:  # videos have the size of the picture
            H, W = (round(side * LARGEST_PICTURE / largest) for side in image.shape[:2])
            image = _fitted(image, (H, W))
        return image, ViewGeometry((0.0,), (still.elevation_deg,), FOV_DEG, DISTANCE)
    from renderers.meshes import Shot, render_clip
    from zoo.mvvdm.views import framing_transform

    asset = stills.asset(still)
    geometry = ViewGeometry((0.0,), (0.0,), FOV_DEG, DISTANCE)
    cameras = geometry.cameras(PICTURE_SIDE, PICTURE_SIDE)
    shot = Shot(None, np.zeros(1), framing_transform(asset, cameras), cameras)
    return render_clip(asset, shot).over(WHITE)[0, 0], geometry


def evenly_spaced(views: int) -> ViewGeometry:
    """The cameras of an MV-VDM: V azimuths from the front, at its elevation, field of view and distance."""
    azimuths = tuple(360.0 * view / views for view in range(views))
    return ViewGeometry(azimuths, (ELEVATION_DEG,) * views, FOV_DEG, DISTANCE)


def animation_sentences(asset: Any) -> list[str]:
    """A sentence per animation: its description, or its name as words; made unique."""
    sentences: list[str] = []
    for index, animation in enumerate(asset.animations):
        text = animation.description or sentence(animation.name or f"animation {index}")
        sentences.append(text if text not in sentences else f"{text} ({index})")
    return sentences


def _is_plain(image: np.ndarray) -> bool:
    """Whether the border of a picture is white."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return float((edge > 248).all(-1).mean()) > 0.98


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at the size of a video."""
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
