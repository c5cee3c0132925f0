"""The file formats of `SplatAnimation.save`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from renderers.cameras import Cameras
from renderers.files import atomic_folder, atomic_path, file_path
from renderers.gaussians import ply
from zoo.animate3d.saving import WRITERS as MESH_WRITERS
from zoo.animate3d.saving import save_video, write_with
from zoo.formats import check_suffix


def save(animation: Any, path: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """Write an animation of splats; see `SplatAnimation.save`."""
    path = file_path(path, "SplatAnimation.save: path")
    check_format(path)
    return write_with(WRITERS[path.suffix.lower()], animation, path, options)


def check_format(path: Path) -> None:
    """Refuse the formats of meshes, and unknown ones.

    Raises:
        ValueError: one sentence that lists the formats of splats.
    """
    suffix = path.suffix.lower()
    if suffix in MESH_WRITERS and suffix not in WRITERS:
        raise ValueError(
            f"{path}: {suffix} is for meshes, and splats have no surface; save them as one of {', '.join(WRITERS)}, or "
            f"animate a mesh of the object"
        )
    check_suffix(path, WRITERS, "animations of splats")


def _save_4dgs(animation: Any, path: Path) -> Path:
    from zoo.export.splats4d import write_4dgs

    motion, still = animation.motion, animation.model.gaussians
    write_4dgs(
        path,
        motion.positions.astype(np.float64),
        motion.rotations.astype(np.float64),
        still.scales[0].double().numpy(),
        still.opacities[0].double().numpy(),
        _plain(animation),
        motion.times,
    )
    return path


def _plain(animation: Any) -> np.ndarray:
    """Colours without what depends on the view, [N, 3] in 0-1."""
    return (0.5 + ply.SH_C0 * animation.model.gaussians.sh[0, :, 0].double().numpy()).clip(0, 1)


def _save_ply(animation: Any, path: Path, *, up: str = "-y") -> Path:
    ply.check_up(up, "SplatAnimation.save")
    folder = path.with_suffix("")
    with atomic_folder(folder, re.compile(r"\d{3,}\.ply").fullmatch) as part:
        for frame, time in enumerate(animation.motion.times):
            ply.write(part / f"{frame:03d}.ply", animation.gaussians(float(time)), up=up)
    return folder


def _save_glb(animation: Any, path: Path) -> Path:
    from zoo.export.splats4d import write_gltf_splats

    motion, still = animation.motion, animation.model.gaussians
    scales, opacities = still.scales[0].double().numpy(), still.opacities[0].double().numpy()
    folder, colors = path.with_suffix(""), _plain(animation)
    with atomic_folder(folder, re.compile(r"\d{3,}\.glb").fullmatch) as part:
        for frame in range(len(motion.times)):
            write_gltf_splats(
                part / f"{frame:03d}.glb", motion.positions[frame], motion.rotations[frame], scales, opacities, colors
            )  # fmt: skip
    return folder


def _save_npz(animation: Any, path: Path) -> Path:
    motion, still = animation.motion, animation.model.gaussians
    with atomic_path(path) as part:
        np.savez_compressed(
            part,
            name=animation.name,
            times=motion.times,
            means=motion.positions,
            quats=motion.rotations,
            scales=still.scales[0].numpy(),
            opacities=still.opacities[0].numpy(),
            sh=still.sh[0].numpy(),
        )
    return path


def _save_mp4(
    animation: Any, path: Path, *, fps: float = 24, resolution: int = 384, cameras: Cameras | None = None
) -> Path:
    return save_video(animation, path, fps=fps, resolution=resolution, cameras=cameras)


WRITERS: dict[str, Callable[..., Path]] = {
    ".4dgs": _save_4dgs,
    ".ply": _save_ply,
    ".glb": _save_glb,
    ".npz": _save_npz,
    ".mp4": _save_mp4,
}
