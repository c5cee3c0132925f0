"""The definition of a splatted picture, in plain torch: dense, any floating type, differentiated by autograd.

Slow on purpose: every visible Gaussian is evaluated at every pixel. The other back ends are tested against this file.
Follows gsplat 1.5 (see docs/splats.md); equation numbers are of Zwicker et al. 2002, EWA Splatting.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.gaussians.features import blended_features, rotation_matrices, split_outputs
from renderers.gaussians.types import FAR, NEAR, Rendered, Scene

ALPHA_MIN, ALPHA_MAX = 1.0 / 255.0, 0.999
TRANSMITTANCE_MIN = 1e-4
RADIUS_SIGMAS = 3.33  # exp(-3.33²/2) < 1/255: further out even an opaque Gaussian is not drawn
PIXELS_AT_ONCE = 1024


def project(scene: Scene) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """EWA projection (eq. 24-31) of all Gaussians into all cameras.

    Returns:
        means2d [S, C, N, 2] in pixels; conics [S, C, N, 3], the entries xx, xy, yy of the inverse covariance;
        depths [S, C, N]; opacities [S, C, N] after compensation; radii int32 [S, C, N, 2], 0 where not visible.
    """
    R, t = scene.viewmats[..., :3, :3], scene.viewmats[..., :3, 3]
    centres = torch.einsum("scij,snj->scni", R, scene.means.expand(len(R), -1, -1)) + t[:, :, None]
    depths = centres[..., 2]
    in_range = (depths >= NEAR) & (depths <= FAR)
    x, y, z = torch.where(in_range[..., None], centres, centres.new_tensor([0.0, 0.0, 1.0])).unbind(-1)

    fx, fy, cx, cy = (scene.Ks[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)

    # The local affine approximation blows up far outside the image: its point is clamped to 15 % around it.
    border_x, border_y = 0.15 * scene.width / fx, 0.15 * scene.height / fy
    tan_x = (x / z).clamp(-cx / fx - border_x, (scene.width - cx) / fx + border_x)
    tan_y = (y / z).clamp(-cy / fy - border_y, (scene.height - cy) / fy + border_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * tan_x / z, zero, fy / z, -fy * tan_y / z], -1).unflatten(-1, (2, 3))

    axes = rotation_matrices(scene.quats) * scene.scales[..., None, :]  # a covariance is axes · axesᵀ
    half = J @ (R[:, :, None] @ axes[:, None])
    covariance = half @ half.mT
    blurred = covariance + scene.eps2d * torch.eye(2, dtype=z.dtype, device=z.device)
    xx, xy, yy = blurred[..., 0, 0], blurred[..., 0, 1], blurred[..., 1, 1]
    det = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], -1) / det.clamp_min(1e-30)[..., None]

    opacities = scene.opacities[:, None].expand_as(depths)
    if scene.antialiased:
        ratio = torch.linalg.det(covariance) / det
        positive = ratio > 0
        compensation = torch.where(positive, torch.where(positive, ratio, 1.0).sqrt(), 0.0)
        opacities = opacities * compensation

    with torch.no_grad():
        extent = (2 * torch.log((opacities / ALPHA_MIN).clamp_min(1.0))).sqrt().clamp_max(RADIUS_SIGMAS)
        radii = torch.ceil(extent[..., None] * torch.stack([xx, yy], -1).sqrt())
        size = means2d.new_tensor([scene.width, scene.height])
        on_screen = ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        visible = in_range & (det > 0) & (opacities >= ALPHA_MIN) & on_screen
        radii = torch.where(visible[..., None], radii, 0).int()
    return means2d, conics, depths, opacities, radii


def blend(
    pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend N Gaussians, nearest first, at P pixel centres.

    Args:
        pixels: [P, 2]. means2d: [N, 2]. conics: [N, 3]. opacities: [N]. colors: [N, F].
    Returns:
        colour [P, F] on black and the transmittance [P] that is left for the background.
    """
    dx, dy = (means2d[None] - pixels[:, None]).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((sigma < 0) | (alpha < ALPHA_MIN), 0.0, alpha)
    # The Gaussian that would take a pixel to the limit is not drawn any more, nor is anything behind it.
    alpha = torch.where(torch.cumprod(1 - alpha, 1) > TRANSMITTANCE_MIN, alpha, 0.0)
    transmittance = torch.cumprod(F.pad(1 - alpha, (1, 0), value=1.0), 1)
    return (transmittance[:, :-1] * alpha) @ colors, transmittance[:, -1]


def draw(scene: Scene) -> Rendered:
    """`renderers.gaussians.render` for one checked scene."""
    means2d, conics, depths, opacities, radii = project(scene)
    blended, background = blended_features(scene, depths if "depth" in scene.want else None)
    S, C, _ = scene.shape
    ys, xs = torch.meshgrid(
        torch.arange(scene.height, device=depths.device),
        torch.arange(scene.width, device=depths.device),
        indexing="ij",
    )
    pixels = torch.stack([xs, ys], -1).reshape(-1, 2).to(depths.dtype) + 0.5
    images, transmittances = [], []
    for s in range(S):
        for c in range(C):
            seen = (radii[s, c] > 0).all(-1).nonzero()[:, 0]
            order = seen[torch.argsort(depths[s, c, seen], stable=True)]
            splats = [v[s, c, order] for v in (means2d, conics, opacities, blended)]
            parts = [blend(some, *splats) for some in pixels.split(PIXELS_AT_ONCE)]
            image, left = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
            if background is not None:
                image = image + left[:, None] * background[s, c]
            images.append(image)
            transmittances.append(left)
    grid = (S, C, scene.height, scene.width)
    image = torch.stack(images).reshape(*grid, -1) if images else pixels.new_zeros(*grid, blended.shape[-1])
    alpha = 1 - torch.stack(transmittances).reshape(*grid, 1) if images else pixels.new_zeros(*grid, 1)
    return split_outputs(scene, image, alpha, radii, means2d)
