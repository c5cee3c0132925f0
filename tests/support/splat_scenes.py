"""Random splat scenes of several kinds, and the pixels where they are on a threshold of the definition."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, reference
from renderers.gaussians.types import Scene

KINDS = (
    "cloud", "needles", "discs", "points", "near", "edges", "opaque", "faint", "crowd", "cover", "nothing", "wide",
)  # fmt: skip
FIELDS = ("means", "quats", "scales", "opacities", "colors", "sh")


def scene(kind: str, seed: int) -> tuple[Gaussians, TensorCameras, dict]:
    """Return float32 Gaussians, cameras and options for `render`, deterministic in the arguments.

    The image size and the numbers of Gaussians, scenes, cameras and channels vary with the seed.
    """
    rng = np.random.default_rng([KINDS.index(kind), seed])
    S, C = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    N = int(rng.integers(5, 120)) if kind != "crowd" else 1000
    width, height = (int(v) for v in rng.integers(1 if seed % 7 == 0 else 12, 52, 2))
    if kind == "crowd":
        S, C, width, height = 1, 1, 29, 25

    direction = rng.normal(size=(S, N, 3))
    means = (
        direction
        / np.linalg.norm(direction, axis=-1, keepdims=True)
        * rng.uniform(0, 1, (S, N, 1)) ** (1 / 3)
    )
    scales = 0.6 * N ** (-1 / 3) * np.exp(rng.normal(size=(S, N, 3)) * 0.5)
    opacities = rng.uniform(0.02, 0.98, (S, N))
    distance, fov = 3.2, math.radians(45)
    if kind == "needles":
        scales *= np.array([2.0, 0.02, 0.02])
    elif kind == "discs":
        scales *= np.array([1.0, 1.0, 0.0])
    elif kind == "points":
        scales *= 0.0 if seed % 2 else 1e-3
    elif kind == "near":
        distance = 0.3  # the cameras are inside the cloud
        means[:, : N // 2] *= 0.3
        scales *= 0.2
    elif kind == "edges":
        means[..., :2] *= 4.0
    elif kind == "opaque":
        opacities = 1.0 - 10.0 ** rng.uniform(-4, -1, (S, N)) * (rng.uniform(size=(S, N)) < 0.8)
    elif kind == "faint":
        opacities = rng.uniform(0.0, 0.02, (S, N))
    elif kind == "crowd":
        means *= 0.5
    elif kind == "cover":
        scales[:, 0] = 20.0
        opacities[:, 0] = 0.7
    elif kind == "nothing":
        means[..., 2] += 50.0 if seed % 2 else 0.0
        opacities = np.where(seed % 2, opacities, opacities * 0.003)
    elif kind == "wide":
        fov = math.radians(110)
        distance = 1.2

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    colored = seed % 3
    K = (1, 4, 9, 16)[seed % 4]
    gaussians = Gaussians(
        tensor(means),
        tensor(rng.normal(size=(S, N, 4)) * rng.uniform(0.3, 3.0)),
        tensor(scales),
        tensor(opacities),
        colors=tensor(rng.uniform(size=(S, N, (3, 1)[seed % 2]))) if colored else None,
        sh=None if colored else tensor(rng.normal(size=(S, N, K, 3)) * 0.3),
    )
    sets = [
        orbit_cameras(
            rng.uniform(-1.0 if kind == "nothing" else -3.1, 1.0 if kind == "nothing" else 3.1, C),
            rng.uniform(-0.6, 0.6),
            distance, fov_y=fov, width=width, height=height,
        )
        for _ in range(S)
    ]  # fmt: skip
    channels = 3 if gaussians.colors is None else gaussians.colors.shape[-1]
    options = {
        "background": tensor(rng.uniform(size=(S, C, channels))) if seed % 2 else None,
        "antialiased": seed % 5 < 2 and kind != "points",
        "eps2d": 0.3,
        "want": (("rgb", "alpha"), ("rgb", "alpha", "depth", "normal"), ("rgb", "alpha", "depth"))[seed % 3],
    }
    return gaussians, TensorCameras.from_cameras(sets), options


@torch.no_grad()
def on_threshold(scene: Scene, rounding: float = 4e-5) -> Tensor:
    """Return a mask [S, C, H, W] of pixels where rounding may move a Gaussian across a threshold.

    These are pixels within `rounding` (relative) of α = 1/255 or 0.999, or of the transmittance 1e-4 at which
    compositing stops. The image is discontinuous there (by at most 1/255 of a colour) and its gradient undefined.

    Args:
        scene: a validated float64 scene.
        rounding: relative distance to a threshold.
    """
    means2d, conics, depths, opacities, radii = reference.project(scene)
    S, C, _ = scene.shape
    ys, xs = torch.meshgrid(torch.arange(scene.height), torch.arange(scene.width), indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2) + 0.5
    result = torch.zeros(S, C, scene.height * scene.width, dtype=torch.bool)
    for s in range(S):
        for c in range(C):
            visible = (radii[s, c] > 0).all(-1).nonzero()[:, 0]
            if not len(visible):
                continue
            order = visible[torch.argsort(depths[s, c, visible], stable=True)]
            dx, dy = (means2d[s, c, order] - pixels).unbind(-1)
            a, b, d = conics[s, c, order].unbind(-1)
            raw = opacities[s, c, order] * torch.exp(-0.5 * (a * dx * dx + d * dy * dy) - b * dx * dy)
            drawn = raw.clamp_max(reference.ALPHA_MAX) * (raw >= reference.ALPHA_MIN)
            after = torch.cumprod(1 - drawn, 1)
            open_ = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1) > reference.TRANSMITTANCE_MIN

            def close(value: Tensor, limit: float) -> Tensor:
                return (value / limit - 1).abs() < rounding

            near = close(raw, reference.ALPHA_MIN) | close(raw, reference.ALPHA_MAX)
            near |= close(after, reference.TRANSMITTANCE_MIN)
            result[s, c] = (near & open_).any(1)
    return result.reshape(S, C, scene.height, scene.width)
