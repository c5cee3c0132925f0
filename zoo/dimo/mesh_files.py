"""The file formats of `Motion.save` for other programs: a skinned mesh through the neutral animation, moving splats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renderers.arguments import integer
from renderers.files import atomic_path

MESH_SUFFIXES = (".glb", ".fbx", ".usd", ".usda", ".usdc", ".usdz")


def save_mesh(motion: Any, path: Path, frames: int | None = None, *, detail: int = 128) -> Path:
    """Write a `Motion` in the format given by the suffix; see `Motion.save`."""
    from zoo.export.glb import write_glb
    from zoo.export.skinned import write_skinned_fbx, write_skinned_usd
    from zoo.export.surface import MOST_DETAIL

    detail = integer(detail, "Motion.save: detail", 1, MOST_DETAIL)
    suffix = path.suffix.lower()
    write = {".glb": write_glb, ".fbx": write_skinned_fbx}.get(suffix, write_skinned_usd)

    def converted() -> Any:
        return (motion if frames is None else motion.resampled(frames)).animation(detail)

    if (
        suffix != ".glb"
    ):  # the others check that what writes them is installed, and make the file appear at once
        write(path, converted())
        return path
    with atomic_path(path) as part:
        write(part, converted())
    return path


def save_4dgs(motion: Any, path: Path, frames: int | None = None) -> Path:
    """Write the Gaussians of a `Motion` over time."""
    from zoo.export.splats4d import write_4dgs

    motion = motion if frames is None else motion.resampled(frames)
    gaussians, phases = motion.gaussians(), motion.phases.double().cpu().numpy()
    arrays = {
        name: getattr(gaussians, name).detach().double().cpu().numpy()
        for name in ("means", "quats", "scales", "opacities", "colors")
    }
    write_4dgs(
        path,
        arrays["means"],
        arrays["quats"],
        arrays["scales"],
        arrays["opacities"][0],
        arrays["colors"][0, :, :3].clip(0, 1),
        (phases - phases[0]) * motion.seconds,
    )
    return path
