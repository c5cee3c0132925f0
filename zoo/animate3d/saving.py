"""The file formats of `Animation.save`."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from renderers.arguments import instance, integer, number
from renderers.background import Background, background_color
from renderers.cameras import Cameras
from renderers.files import atomic_folder, atomic_path, file_path
from renderers.gltf import Asset
from renderers.video import frame_rate
from zoo.animate3d.gltf_morph import rotated
from zoo.animate3d.limits import LARGEST_PICTURE, MOST_FRAMES, MOST_INFLUENCES, TOLERANCE
from zoo.errors import ModelError
from zoo.formats import check_suffix


def save(animation: Any, path: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """Write an animation; see `Animation.save`."""
    path = file_path(path, "Animation.save: path")
    check_suffix(path, WRITERS, "animations")
    return write_with(WRITERS[path.suffix.lower()], animation, path, options)


def write_with(write: Callable[..., Path], animation: Any, path: Path, options: dict[str, Any]) -> Path:
    """Write an animation by the function of a format, whose options are its keyword-only arguments."""
    accepted = [
        name for name, each in inspect.signature(write).parameters.items() if each.kind == each.KEYWORD_ONLY
    ]
    if unknown := [name for name in options if name not in accepted]:
        expected = f"expected {' or '.join(accepted)}" if accepted else "it has none"
        raise TypeError(
            f"{type(animation).__name__}.save: {unknown[0]}: not an option of {path.suffix}; {expected}"
        )
    return write(animation, path, **options)


def _save_glb(
    animation: Any,
    path: Path,
    *,
    as_: str | None = None,
    tolerance: float = TOLERANCE,
    influences: int = 4,
) -> Path:
    data, _ = animation.glb(as_, tolerance=tolerance, influences=influences)
    with atomic_path(path) as part:
        part.write_bytes(data)
    return path


def _save_fbx(animation: Any, path: Path, *, as_: str | None = None) -> Path:
    from zoo.export.fbx import frame_times, write_fbx

    form = animation.form(as_)
    fps, times = frame_times(animation.motion.times)
    baked = animation.resample(fps) if len(times) > 1 else animation
    # An FBX file has no limit of joints per vertex, so that a skin is exact at every frame, as shape keys are.
    data, _ = baked.glb(form, tolerance=0.0, influences=MOST_INFLUENCES)
    write_fbx(path, data, fps=fps, frames=len(times))
    return path


def _save_usd(animation: Any, path: Path) -> Path:
    from zoo.export.usd import write_usd

    asset, motion = animation.model.asset, animation.motion
    normals = asset.pose(None, 0.0).normals.astype(np.float64)
    write_usd(
        path,
        asset,
        animation.vertices(),
        rotated(motion, normals, slice(None)),
        motion.times,
        name=animation.name,
    )
    return path


def _save_mp4(
    animation: Any,
    path: Path,
    *,
    fps: float = 24,
    resolution: int = 384,
    cameras: Cameras | None = None,
    backend: str = "auto",
) -> Path:
    return save_video(animation, path, fps=fps, resolution=resolution, cameras=cameras, backend=backend)


def save_video(
    animation: Any, path: Path, *, fps: float, resolution: int, cameras: Cameras | None, **drawing: Any
) -> Path:
    """Write an .mp4 of anything with `duration`, `default_camera` and `render`, which gets the options `drawing`."""
    from renderers.meshes import RenderError
    from zoo.export.video import write_mp4

    here = f"{type(animation).__name__}.save"
    frame_rate(fps, f"{here}: fps")
    fps = number(fps, f"{here}: fps")
    resolution = integer(resolution, f"{here}: resolution", 2, LARGEST_PICTURE)
    if resolution % 2:
        raise ValueError(f"{here}: resolution: expected an even number of pixels, got {resolution}")
    if cameras is not None:
        instance(cameras, Cameras, f"{here}: cameras")
        if len(cameras) != 1 or cameras.width % 2 or cameras.height % 2:
            raise ValueError(
                f"{path}: a video has one view with even sides, got {len(cameras)} cameras of {cameras.width} x "
                f"{cameras.height}; pass a single one, cameras[i]"
            )
    count = round(animation.duration * fps) + 1
    if count > MOST_FRAMES:
        raise ValueError(
            f"{here}: fps: {fps:g} gives {count} frames, expected at most {MOST_FRAMES}; choose a lower rate"
        )
    with atomic_path(path) as part:
        view = animation.default_camera(resolution) if cameras is None else cameras
        try:
            frames = animation.render(view, np.arange(count) / fps, **drawing)
        except RenderError as error:
            raise ModelError(f"{path}: cannot be rendered: {error}") from error
        write_mp4(part, frames[0], fps)
    return path


def _save_html(animation: Any, path: Path, *, fps: float = 24, background: Background | None = None) -> Path:
    from zoo.animate3d.page import write_page

    fps = number(fps, "Animation.save: fps", above=0.0)
    color = None if background is None else background_color(background, "Animation.save: background")
    count = round(animation.duration * fps) + 1 if len(animation.motion.times) > 1 else 1
    if count > MOST_FRAMES:
        raise ValueError(
            f"Animation.save: fps: {fps:g} gives {count} frames, expected at most {MOST_FRAMES}; choose a lower rate"
        )
    with atomic_path(path) as part:
        write_page(part, animation, count, None if color is None else (list(color) * 3)[:3])
    return path


def _save_npz(animation: Any, path: Path) -> Path:
    asset, motion = animation.model.asset, animation.motion
    with atomic_path(path) as part:
        np.savez_compressed(
            part,
            name=animation.name,
            vertices=(animation.vertices() + asset.origin(None)).astype(np.float32),
            triangles=_triangles(asset),
            times=motion.times,
            nodes=motion.nodes,
            positions=motion.positions,
            rotations=motion.rotations,
            vertex_nodes=motion.vertex_nodes,
            vertex_weights=motion.vertex_weights,
        )
    return path


def _triangles(asset: Asset) -> np.ndarray:
    """All triangles [F, 3], counter-clockwise seen from outside: a mirrored node turns those of its mesh around."""
    mirrored = asset.pose(None, 0.0).mirrored
    return np.concatenate(
        [
            primitive.triangles[:, ::-1] if mirrored[number] else primitive.triangles
            for number, primitive in enumerate(asset.primitives)
        ]
    )


def _save_ply(animation: Any, path: Path) -> Path:
    from zoo.export.ply import write_mesh

    asset, motion = animation.model.asset, animation.motion
    triangles = _triangles(asset)
    normals = asset.pose(None, 0.0).normals.astype(np.float64)
    folder = path.with_suffix("")
    with atomic_folder(folder, re.compile(r"\d{3,}\.ply").fullmatch) as part:
        moved = animation.vertices() + asset.origin(None)
        for frame, vertices in enumerate(moved):
            turned = rotated(motion, normals, slice(frame, frame + 1))[0]
            write_mesh(
                part / f"{frame:03d}.ply", vertices, triangles, turned, asset.texcoords[:, 0], asset.colors
            )
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    ".glb": _save_glb,
    ".fbx": _save_fbx,
    ".usd": _save_usd,
    ".usda": _save_usd,
    ".usdc": _save_usd,
    ".usdz": _save_usd,
    ".mp4": _save_mp4,
    ".npz": _save_npz,
    ".ply": _save_ply,
    ".html": _save_html,
}
