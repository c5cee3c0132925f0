"""From what the user names to a scene: a model, a file, a folder, or a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from renderers.arguments import shown
from zoo.errors import OptionError, UnsupportedError
from zoo.viewer.scene import Scene

_GLTF = (".glb", ".gltf")
_SPLATS = (".ply", ".spz")


def open_scene(thing: Any, *, home: str | os.PathLike[str] | None = None) -> Scene:
    """Open something to view.

    Args:
        thing: name of a DIMO model ("dimo/kangaroo"); path of a glTF file, a splat file, a folder of splat files, a
            video or a folder of videos; or a `DIMOPipeline`, `Motion`, `Animation`, `Asset` or `MVVDMOutput`.
        home: folder of the local registry.

    Raises:
        TypeError: the viewer does not show such objects.
        UnsupportedError: models of this family, or files of this format, cannot be shown.
        FileNotFoundError, UnknownModelError: there is no such file or model.
    """
    if isinstance(thing, str | os.PathLike):
        path = Path(thing)
        looks_like_file = isinstance(thing, os.PathLike) or path.suffix.lower() in (
            *_GLTF,
            *_SPLATS,
            *_videos(),
        )
        if path.exists() or (looks_like_file and not _is_name(str(thing))):
            return _open_path(path)
        return _open_model(str(thing), home)
    return _open_result(thing)


def _videos() -> tuple[str, ...]:
    from zoo.animate3d.videos import VIDEO_SUFFIXES

    return tuple(VIDEO_SUFFIXES)


def _is_name(text: str) -> bool:
    return text.startswith(("local:", "hub:", "bundled:"))


def _open_path(path: Path) -> Scene:
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_folder(path)
    if suffix in _GLTF:
        from renderers.gltf import load
        from zoo.viewer.meshes import MeshScene

        return MeshScene(load(path), path.name)
    if suffix in _SPLATS:
        return _frames(path)
    if suffix in _videos():
        from zoo.viewer.videos import VideosScene

        return VideosScene.of_files(path)
    raise UnsupportedError(
        f"{path}: the viewer opens {', '.join((*_GLTF, *_SPLATS, *_videos()))}, folders of splats or videos, and "
        f"models such as dimo/kangaroo; got {suffix or 'no suffix'!r}"
    )


def _open_folder(path: Path) -> Scene:
    from zoo.viewer.frames import splat_files
    from zoo.viewer.videos import VideosScene

    if splat_files(path):
        return _frames(path)
    try:
        return VideosScene.of_files(path)
    except ValueError as error:
        if any(path.iterdir()) and "found neither" not in str(error):
            raise
        raise UnsupportedError(
            f"{path}: expected splats (.ply, .spz) or one video per view in the folder, found neither"
        ) from None


def _frames(path: Path) -> Scene:
    from zoo.viewer.frames import FramesScene

    return FramesScene(path)


def _open_model(name: str, home: str | os.PathLike[str] | None) -> Scene:
    from zoo.hub import info, load

    model = info(name, home=home)
    if model.family != "dimo":
        advice = (
            "; it makes videos of an object: save them with `python -m zoo animate … --videos-only` and view the file"
            if model.family == "mvvdm"
            else ""
        )
        raise UnsupportedError(
            f"{name}: the viewer shows models of the family dimo, this is {model.family!r}{advice}"
        )
    return _open_result(load(model.name, home=home))


def _open_result(thing: Any) -> Scene:
    from renderers.gltf import Asset
    from zoo.dimo import DIMOPipeline, Motion
    from zoo.viewer.skinned import SkinnedScene

    if isinstance(thing, DIMOPipeline):
        return SkinnedScene(thing)
    if isinstance(thing, Motion):
        return SkinnedScene(_pipeline_of(thing), thing)
    if isinstance(thing, Asset):
        from zoo.viewer.meshes import MeshScene

        return MeshScene(thing, thing.name)
    kind = type(thing).__name__
    if kind == "Animation" and type(thing).__module__.startswith("zoo.animate3d"):
        from zoo.viewer.meshes import MeshScene

        return MeshScene(thing.moving_asset, thing.name, animation=thing)
    if kind == "MVVDMOutput" and type(thing).__module__.startswith("zoo.mvvdm"):
        from zoo.viewer.videos import VideosScene

        return VideosScene.of_output(thing)
    if kind == "SplatAnimation":
        raise UnsupportedError(
            "view: expected an animation of a mesh, got a SplatAnimation; write a file of splats per frame with "
            '.save("moving.ply") and view that folder: zoo.view("moving")'
        )
    raise TypeError(
        f"view: expected the name of a model, a file, a folder, a DIMOPipeline, Motion, Animation, Asset or "
        f"MVVDMOutput, got {shown(thing)}"
    )


def _pipeline_of(motion: Any) -> Any:
    """The model of a motion as a pipeline; names of trained motions that the motion does not know are numbers."""
    from zoo.dimo import DIMOPipeline

    model = motion.model
    names = motion.trained or tuple(f"motion {index}" for index in range(model.num_motions))
    return DIMOPipeline(
        model,
        motion.object_name or "object",
        names,
        names,
        phases=motion.phases.tolist(),
        seconds=motion.seconds,
        storage="float16",  # exact for weights that are stored as int8, too
    )


def check_subjects(things: tuple[Any, ...]) -> None:
    """Refuse another number of things than one or two.

    Raises:
        OptionError: one sentence.
    """
    if not 1 <= len(things) <= 2:
        raise OptionError(f"view: expected one thing to view, or two side by side, got {len(things)}")
