"""A skinned animation as .fbx or .usd, by way of its .glb: the writers of both take a glTF file."""

from __future__ import annotations

import os

import numpy as np

from renderers.arguments import instance
from zoo.export.animation import SkinnedAnimation
from zoo.export.fbx import frame_times, write_fbx
from zoo.export.glb import glb_bytes
from zoo.export.usd import write_usd


def write_skinned_fbx(path: str | os.PathLike[str], animation: SkinnedAnimation) -> None:
    """Write an animation as .fbx through Blender, as a skin whose joints are baked at every frame.

    Raises:
        ModelError: Blender is not installed, or it failed.
        ValueError: the name does not end in .fbx.
    """
    instance(animation, SkinnedAnimation, "write_skinned_fbx: animation")
    fps, times = frame_times(animation.times)
    write_fbx(path, glb_bytes(animation), fps=fps, frames=len(times))


def write_skinned_usd(path: str | os.PathLike[str], animation: SkinnedAnimation) -> None:
    """Write an animation as USD: a mesh with time samples of its points and normals.

    Raises:
        ModelError: usd-core is not installed.
        ValueError: the name does not end in .usd, .usda, .usdc or .usdz.
    """
    from renderers.gltf import load

    instance(animation, SkinnedAnimation, "write_skinned_usd: animation")
    asset = load(glb_bytes(animation), name=animation.name)
    poses = [asset.pose(0, float(time)) for time in animation.times]
    shift = asset.origin(0) - asset.origin(None)
    write_usd(
        path,
        asset,
        np.stack([pose.positions for pose in poses]).astype(np.float64) + shift,
        np.stack([pose.normals for pose in poses]).astype(np.float64),
        animation.times,
        name=animation.name,
    )
