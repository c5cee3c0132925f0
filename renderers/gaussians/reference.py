"""The definition of a splatted picture, in plain torch: dense, any floating type, differentiated by autograd.

Slow on purpose: every visible Gaussian is evaluated at every pixel. The other back ends are tested against this file.
Follows gsplat 1.5 (see docs/splats.md); equation numbers are of Zwicker et al. 2002, EWA Splatting.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.gaussians import FAR, NEAR, Rendered
from renderers.gaussians.checks import Scene

ALPHA_MIN, ALPHA_MAX = 1.0 / 255.0, 0.999
TRANSMITTANCE_MIN = 1e-4
RADIUS_SIGMAS = 3.33  # exp(-3.33²/2) < 1/255: further out even an opaque Gaussian is not drawn
PIXELS_AT_ONCE = 1024


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4] of any length but zero."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def camera_positions(viewmats: Tensor) -> Tensor:
    """Where the cameras stand: [..., 3], world."""
    return torch.linalg.inv(viewmats)[..., :3, 3]


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics [..., (degree + 1)²] of unit directions [..., 3], order and signs of 3DGS."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)


def sh_colors(degree: int, sh: Tensor, means: Tensor, positions: Tensor) -> Tensor:
    """Colours [S, C, N, 3] of SH coefficients [S, N, K, 3] seen from camera positions [S, C, 3]."""
    directions = F.normalize(means[:, None] - positions[:, :, None], dim=-1)
    basis = sh_basis(degree, directions)
    colors = torch.einsum(
        "scnk,snkd->scnd", basis, sh[:, :, : basis.shape[-1]].expand(len(basis), -1, -1, -1)
    )
    return torch.clamp_min(colors + 0.5, 0.0)


def facing_normals(quats: Tensor, scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
    """Shortest axes of the Gaussians, turned to the cameras: unit [S, C, N, 3], world."""
    turns = rotation_matrices(quats)
    scenes = max(len(turns), len(scales))  # either may be shared by all scenes
    shortest = scales.argmin(-1)[..., None, None].expand(scenes, -1, 3, 1)
    axes = turns.expand(scenes, -1, 3, 3).gather(-1, shortest)[..., 0][:, None]
    away = (axes * (means[:, None] - positions[:, :, None])).sum(-1, keepdim=True) > 0
    return torch.where(away, -axes, axes)


def features(scene: Scene, depths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What is blended per Gaussian, and behind all of them.

    Args:
        depths: [S, C, N] to be blended, or None.
    Returns:
        [S, C, N, F], F = D colours, 3 normals if wanted, then 1 depth if given; background [S, C, F] or None.
    """
    shape = scene.shape
    if scene.sh is None:
        channels = [scene.colors[:, None].expand(*shape, -1)]
    elif "rgb" in scene.want:
        channels = [sh_colors(scene.sh_degree, scene.sh, scene.means, camera_positions(scene.viewmats))]
    else:
        channels = [scene.means.new_zeros(*shape, 3)]
    if "normal" in scene.want:
        normals = facing_normals(scene.quats, scene.scales, scene.means, camera_positions(scene.viewmats))
        channels.append(normals.expand(*shape, -1))
    if depths is not None:
        channels.append(depths[..., None])
    blended = torch.cat(channels, -1) if len(channels) > 1 else channels[0]
    if scene.background is None:
        return blended, None
    return blended, F.pad(scene.background, (0, blended.shape[-1] - scene.channels))


def rendered(scene: Scene, image: Tensor, alpha: Tensor, radii: Tensor, means2d: Tensor) -> Rendered:
    """Split blended features [S, C, H, W, F] into the outputs that were wanted."""
    sizes = [scene.channels, 3 * int("normal" in scene.want), int("depth" in scene.want)]
    rgb, normal, depth = image.split(sizes, -1)
    return Rendered(
        rgb=rgb if "rgb" in scene.want else None,
        alpha=alpha if "alpha" in scene.want else None,
        depth=depth / alpha.clamp_min(1e-10) if "depth" in scene.want else None,
        normal=normal if "normal" in scene.want else None,
        radii=radii,
        means2d=means2d,
    )


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
    blended, background = features(scene, depths if "depth" in scene.want else None)
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
    return rendered(scene, image, alpha, radii, means2d)
