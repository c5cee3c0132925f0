"""The reference back end in plain torch: dense, any floating-point type, differentiated by autograd.

It evaluates every visible Gaussian at every pixel: slow, but short enough to read as the definition of the output. The
other back ends are tested against it. It follows gsplat 1.5 (see docs/splats.md). The equations are those of Kerbl et
al. 2023 (3DGS) and Zwicker et al. 2001 (EWA volume splatting).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.gaussians.features import blended_features, rotation_matrices, split_outputs
from renderers.gaussians.layout import FAR, NEAR
from renderers.gaussians.types import Rendered, Scene

ALPHA_MIN, ALPHA_MAX = 1.0 / 255.0, 0.999
TRANSMITTANCE_MIN = 1e-4
RADIUS_SIGMAS = 3.33  # exp(-3.33²/2) < 1/255: beyond it even an opaque Gaussian contributes nothing
PIXELS_AT_ONCE = 1024  # bounds the memory of `blend`: [pixels, N] arrays


def project(scene: Scene) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Project all Gaussians into all cameras: Σ' = J·W·Σ·Wᵀ·Jᵀ (3DGS eq. 5) with Σ = R·S·Sᵀ·Rᵀ (eq. 6).

    Returns:
        means2d: [S, C, N, 2] projected centres in pixels.
        conics: [S, C, N, 3] the entries xx, xy, yy of Σ'⁻¹, the inverse of the blurred 2D covariance.
        depths: [S, C, N] distance along the optical axis.
        opacities: [S, C, N], scaled if `scene.antialiased`.
        radii: int32 [S, C, N, 2] half extent in pixels, 0 where culled.
    """
    # Centres in camera space: c = W·μ + t.
    W, t = scene.viewmats[..., :3, :3], scene.viewmats[..., :3, 3]
    centres = torch.einsum("scij,snj->scni", W, scene.means.expand(len(W), -1, -1)) + t[:, :, None]
    depths = centres[..., 2]
    in_range = (depths >= NEAR) & (depths <= FAR)
    x, y, z = torch.where(in_range[..., None], centres, centres.new_tensor([0.0, 0.0, 1.0])).unbind(-1)

    fx, fy, cx, cy = (scene.Ks[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)

    # J is the Jacobian of (x, y, z) ↦ (fx·x/z, fy·y/z) at c, the local affine approximation of EWA splatting. Far
    # outside the view frustum it degenerates, so it is evaluated at tangents clamped to 15 % of the image size around
    # the image.
    border_x, border_y = 0.15 * scene.width / fx, 0.15 * scene.height / fy
    tan_x = (x / z).clamp(-cx / fx - border_x, (scene.width - cx) / fx + border_x)
    tan_y = (y / z).clamp(-cy / fy - border_y, (scene.height - cy) / fy + border_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * tan_x / z, zero, fy / z, -fy * tan_y / z], -1).unflatten(-1, (2, 3))

    M = rotation_matrices(scene.quats) * scene.scales[..., None, :]  # Σ = M·Mᵀ with M = R·diag(scales)
    JWM = J @ (W[:, :, None] @ M[:, None])
    covariance = JWM @ JWM.mT
    blurred = covariance + scene.eps2d * torch.eye(2, dtype=z.dtype, device=z.device)
    xx, xy, yy = blurred[..., 0, 0], blurred[..., 0, 1], blurred[..., 1, 1]
    det = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], -1) / det.clamp_min(1e-30)[..., None]

    opacities = scene.opacities[:, None].expand_as(depths)
    if scene.antialiased:  # the 2D Mip filter of Yu et al. 2023: o·√(det Σ'₀ / det Σ'), Σ'₀ without the blur
        ratio = torch.linalg.det(covariance) / det
        positive = ratio > 0  # the inner `where` keeps the infinite gradient of √0 out
        compensation = torch.where(positive, torch.where(positive, ratio, 1.0).sqrt(), 0.0)
        opacities = opacities * compensation

    with torch.no_grad():
        # α = o·exp(-r²/2) falls to 1/255 at r = √(2·ln(255·o)) standard deviations; the standard deviation in x is √xx.
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
    """Composite N Gaussians, nearest first, at P pixel centres.

    C = Σ_i T_i·α_i·c_i with T_i = Π_{j<i} (1 - α_j) (3DGS, eq. 3).

    Args:
        pixels: [P, 2] pixel centres. means2d: [N, 2]. conics: [N, 3]. opacities: [N]. colors: [N, F].
    Returns:
        colours [P, F] over black, and the final transmittance [P], the weight of the background.
    """
    dx, dy = (means2d[None] - pixels[:, None]).unbind(-1)
    a, b, c = conics.unbind(-1)
    # σ = ½·dᵀ·Σ'⁻¹·d and α = min(0.999, o·exp(-σ)), skipped below 1/255.
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((sigma < 0) | (alpha < ALPHA_MIN), 0.0, alpha)
    # The Gaussian that would bring T to the limit is skipped, and so is everything behind it.
    alpha = torch.where(torch.cumprod(1 - alpha, 1) > TRANSMITTANCE_MIN, alpha, 0.0)
    transmittance = torch.cumprod(F.pad(1 - alpha, (1, 0), value=1.0), 1)
    return (transmittance[:, :-1] * alpha) @ colors, transmittance[:, -1]


def draw(scene: Scene) -> Rendered:
    """Render a validated scene; see `renderers.gaussians.render`."""
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
            visible = (radii[s, c] > 0).all(-1).nonzero()[:, 0]
            order = visible[torch.argsort(depths[s, c, visible], stable=True)]
            splats = [v[s, c, order] for v in (means2d, conics, opacities, blended)]
            parts = [blend(chunk, *splats) for chunk in pixels.split(PIXELS_AT_ONCE)]
            image, transmittance = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
            if background is not None:
                image = image + transmittance[:, None] * background[s, c]
            images.append(image)
            transmittances.append(transmittance)
    grid = (S, C, scene.height, scene.width)
    image = torch.stack(images).reshape(*grid, -1) if images else pixels.new_zeros(*grid, blended.shape[-1])
    alpha = 1 - torch.stack(transmittances).reshape(*grid, 1) if images else pixels.new_zeros(*grid, 1)
    return split_outputs(scene, image, alpha, radii, means2d)
