"""Pictures of moved splats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from renderers.cameras import Cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from renderers.gaussians.features import rotate_harmonics, rotation_matrices
from zoo.animate3d.splats.model import SplatModel

_AT_ONCE = 1 << 16  # Gaussians whose colours are turned at once: 130 MB


def scene(
    model: SplatModel,
    means: np.ndarray,
    quats: np.ndarray,
    centre: np.ndarray | float = 0.0,
    unit: float = 1.0,
) -> Gaussians:
    """The Gaussians of a model in one frame. What their colours show from each side turns with them.

    Args:
        means: [N, 3]. quats: [N, 4], wxyz.
        centre, unit: of the coordinates of the result: (x - centre) / unit.
    """
    still = model.gaussians
    assert still.sh is not None
    turned = torch.from_numpy(np.asarray(quats, np.float32))
    sh = still.sh
    if sh.shape[2] > 1:
        turn = rotation_matrices(turned) @ rotation_matrices(still.quats[0]).mT
        parts = zip(sh[0].split(_AT_ONCE), turn.split(_AT_ONCE), strict=True)
        sh = torch.cat([rotate_harmonics(*part) for part in parts])[None]
    places = torch.from_numpy(((np.asarray(means, np.float64) - centre) / unit).astype(np.float32))
    return Gaussians(places[None], turned[None], still.scales / unit, still.opacities, sh=sh)


@torch.no_grad()
def draw(gaussians: Gaussians, cameras: Cameras, background: Sequence[float] | None) -> np.ndarray:
    """Draw one scene: uint8 [V, H, W, 3], or [V, H, W, 4] with straight alpha without a background (sRGB, 0-1)."""
    behind = None if background is None else torch.tensor(background, dtype=torch.float32).expand(3)
    picture = render(gaussians, TensorCameras.from_cameras(cameras), background=behind)
    rgb, alpha = picture.output("rgb")[0], picture.output("alpha")[0]
    if background is None:  # the renderer's colour is premultiplied
        rgb = torch.cat([rgb / alpha.clamp(min=1e-6), alpha], -1)
    return rgb.clamp(0, 1).mul(255).round().byte().numpy()
