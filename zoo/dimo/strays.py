"""Removal of stray Gaussians after training (not in the paper).

Where two parts touch in the canonical pose, such as a wing that lies on the body, a few Gaussians are driven by key
points of both. They hang in the air when the parts separate. So do large, faint Gaussians between two parts. A training
image shows them too rarely for the photometric loss to remove them, but a viewer sees little else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.gaussians import Gaussians, TensorCameras
from zoo.dimo.data import MotionVideos
from zoo.dimo.joint import JointStage
from zoo.dimo.model import DIMO
from zoo.metrics.rigidity import nearest_neighbours, torn_points

RESOLUTION = 128  # pixels
EVERY = 2  # stride over frames
VISIBLE = 0.3  # pixels that a Gaussian must contribute in a frame, over all views
OUTSIDE = 0.5  # share of its contribution that must be outside the object, if it is torn off
FLOATING = 0.25  # the same share, further than MARGIN away from the object, where none of it belongs
MARGIN = 0.025  # of the image size
EMPTY = 8  # alpha of 255 below which a pixel is outside
PASSES = 4  # searches for strays, each without those that were found before


def stray_gaussians(model: DIMO, videos: MotionVideos, views: Sequence[int]) -> Tensor:
    """The Gaussians that come off the object in a training motion, bool [N].

    A Gaussian is stray if one of these holds in a frame:

    * It is torn off its neighbours (`zoo.metrics.torn_share`), and more than half of what it contributes to the images
      is outside the object's silhouette. Neither suffices: surfaces that unfold are torn but inside, and a limb that is
      slightly misplaced is outside but whole.
    * More than a quarter of what it contributes is far outside the silhouette, unlike that of most of its neighbours
      that can be seen: otherwise a limb is misplaced. A large Gaussian between two parts is not torn, as its neighbours
      are far away in the canonical pose, too.

    Args:
        model: a trained model with motion factorisation.
        videos: the training motions, in the order of the model's latents.
        views: indices of the views to compare.
    """
    stray = torch.zeros(len(model.means), dtype=torch.bool, device=model.means.device)
    if len(stray) < 2:
        return stray
    frames = range(0, videos.frames, EVERY)
    phases = torch.tensor([videos.phases[frame] for frame in frames], device=stray.device)
    resolution = min(RESOLUTION, videos.resolution)
    nearest = nearest_neighbours(model.means.detach())
    for motion in range(len(videos)):
        with torch.no_grad():
            scenes = model.skin(model.trajectories(model.mu[motion : motion + 1], phases))
            torn = torn_points(scenes.means, model.means)
        alpha = videos.read([motion], views, frames, resolution)[0, ..., 3].transpose(0, 1).to(stray.device)
        cameras = videos.cameras([motion], views, len(frames), resolution).to(stray.device)
        outside, far, total = _contributions(model, scenes, cameras, alpha)
        visible = total > VISIBLE
        floating = visible & (far > FLOATING * total)
        alone = 2 * floating[:, nearest].sum(-1) < visible[:, nearest].sum(-1)
        stray |= (visible & torn & (outside > OUTSIDE * total)).any(0)
        stray |= (floating & alone).any(0)
    return stray


def remove_strays(model: DIMO, videos: MotionVideos, views: Sequence[int]) -> int:
    """Remove `stray_gaussians` from the model, and return their number.

    Where several hang in the air together, some are not alone before the others are gone: the search is repeated, at
    most `PASSES` times in all.
    """
    before = len(model.means)
    for _ in range(PASSES):
        stray = stray_gaussians(model, videos, views)
        if not stray.any():
            break
        kept = (~stray).nonzero()[:, 0]
        for name in JointStage.learnt:
            values = getattr(model, name)
            setattr(model, name, nn.Parameter(values.detach()[kept], requires_grad=values.requires_grad))
        model.neighbours = model.neighbours[kept]
    return before - len(model.means)


def _contributions(
    model: DIMO, scenes: Gaussians, cameras: TensorCameras, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each Gaussian contributes to the images outside the object, far outside it, and in all, pixels [T, N] each.

    Args:
        model: that the scenes are of.
        scenes: T scenes.
        cameras: V of each scene, [T, V].
        alpha: of the object, uint8 [T, V, H, W].
    """
    inside = (alpha >= EMPTY).float()
    margin = max(1, round(MARGIN * alpha.shape[-1]))
    near = F.max_pool2d(inside, 2 * margin + 1, stride=1, padding=margin)
    # The image is linear in the features, so their gradient is the sum of a Gaussian's blending weights over the
    # pixels: feature 0 over those outside the object, feature 1 over those far outside, feature 2 over all.
    features = torch.ones(*scenes.means.shape[:2], 3, device=alpha.device, requires_grad=True)
    with torch.enable_grad():
        image = model.draw(_with_features(scenes, features), cameras).output("rgb")
        weights = (image * torch.stack([1 - inside, 1 - near, torch.ones_like(inside)], -1)).sum()
    outside, far, total = torch.autograd.grad(weights, features)[0].unbind(-1)
    return outside, far, total


def _with_features(scenes: Gaussians, features: Tensor) -> Gaussians:
    return Gaussians(scenes.means, scenes.quats, scenes.scales, scenes.opacities, colors=features)
