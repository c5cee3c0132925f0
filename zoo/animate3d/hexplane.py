"""`MotionField`: the motion field of Animate3D, a HexPlane with heads for displacement, rotation and scale.

Animate3D §3.2 and the released code (Jiang et al., NeurIPS 2024); planes as in K-Planes (Fridovich-Keil et al. 2023).
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.gaussians.features import rotation_matrices

CHANNELS = 16
RESOLUTIONS = ((50, 50, 50, 8), (100, 100, 100, 16))  # x, y, z, t of each level
RATES = {"heads": 1e-4, "grids": 1e-2, "global": 1e-3}  # of Adam, as released
_TIME = 3  # the axis
_PAIRS = tuple(combinations(range(4), 2))  # xy, xz, xt, yz, yt, zt


class Moved(NamedTuple):
    """Gaussians at F times.

    Attributes:
        means: [F, N, 3].
        quats: [F, N, 4], wxyz, unit.
        growth: [F, N, 3], Δs, added to the logarithms of the scales; 0 unless asked for.
    """

    means: Tensor
    quats: Tensor
    growth: Tensor


class MotionField(nn.Module):
    """Where Gaussians are over time.

    f(x, t) = concat_l ∏_{(i, j)} P^l_ij(q_i, q_j) with q = (x, y, z, t) in [-1, 1]⁴, the position being that in the
    still model, and bilinear planes P. Three heads give Δx, Δq and Δs from f, two more the motion of the whole from the
    mean of f over all Gaussians (not in the paper, but in its code):

        x(t) = R_g x + T_g + Δx,  q(t) = normalize(quat(R_g R(q)) + Δq),  s(t) = exp(s + Δs)

    The last layers of the heads begin at zero, so that an untrained field moves nothing. At t = -1, the first frame,
    nothing moves whatever was learned.

    Args:
        seed: of the initial planes and first layers.
        resolutions: (x, y, z, t) of the planes at each level.
    """

    def __init__(
        self, seed: int = 0, resolutions: tuple[tuple[int, int, int, int], ...] = RESOLUTIONS
    ) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.planes = nn.ParameterList()
        for sizes in resolutions:
            for i, j in _PAIRS:
                plane = torch.ones(1, CHANNELS, sizes[j], sizes[i])
                if j != _TIME:
                    plane = plane.uniform_(0.1, 0.5, generator=random)
                self.planes.append(nn.Parameter(plane))
        width = CHANNELS * len(resolutions)
        self.shift, self.turn, self.grow, self.whole_turn, self.whole_shift = (
            _head(width, out, random) for out in (3, 4, 3, 3, 3)
        )

    def groups(self, rates: dict[str, float]) -> list[dict[str, object]]:
        """Parameter groups for an optimiser, with the rates of `RATES`' names."""
        heads = [*self.shift.parameters(), *self.turn.parameters(), *self.grow.parameters()]
        whole = [*self.whole_turn.parameters(), *self.whole_shift.parameters()]
        members = {"heads": heads, "grids": list(self.planes), "global": whole}
        return [{"params": members[name], "lr": rate} for name, rate in rates.items()]

    def features(self, points: Tensor, times: Tensor) -> Tensor:
        """f [F, N, C] of points [N, 3] at times [F], all in [-1, 1]."""
        count = len(points)
        moments = torch.cat(
            [
                points.expand(len(times), -1, -1),
                times[:, None, None].expand(-1, count, 1),
            ],
            -1,
        )  # [F, N, 4]
        levels = []
        for level in range(0, len(self.planes), len(_PAIRS)):
            product: Tensor | None = None
            for plane, (i, j) in zip(self.planes[level : level + len(_PAIRS)], _PAIRS, strict=True):
                # A plane of two spatial axes is the same at all times.
                places = moments[..., [i, j]] if j == _TIME else points[None][..., [i, j]]
                values = F.grid_sample(
                    plane, places[None].flatten(1, 2)[:, None], align_corners=True, padding_mode="border"
                )
                values = values[0, :, 0].unflatten(1, places.shape[:2])  # [C, F or 1, N]
                product = values if product is None else product * values
            assert product is not None
            levels.append(product)
        return torch.cat(levels).movedim(0, -1)

    def whole(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Motion of the whole from features [F, N, C]: unit quaternions [F, 4] and translations [F, 3]."""
        mean = features.mean(1)
        angles = 2 * torch.pi * self.whole_turn(mean).sigmoid() - torch.pi
        return _from_euler(angles), 2 * self.whole_shift(mean).sigmoid() - 1

    def forward(
        self,
        points: Tensor,
        quats: Tensor,
        times: Tensor,
        *,
        carried: tuple[Tensor, Tensor] | None = None,
        growing: bool = False,
        whole: tuple[Tensor, Tensor] | None = None,
    ) -> Moved:
        """Move Gaussians.

        Args:
            points: [N, 3], their centres in the still model, in [-1, 1].
            quats: [N, 4], their rotations in the still model, wxyz.
            times: [F], -1 for the first frame, 1 for the last.
            carried: means [F, N, 3] and quaternions [F, N, 4] of another motion, which the field then corrects.
            growing: whether sizes change (stage 2).
            whole: of `whole` for the Gaussians, where `points` are others.
        """
        features = self.features(points, times)
        turn, shift = self.whole(features) if whole is None else whole
        before = (points.expand(len(times), -1, -1), quats.expand(len(times), -1, -1))
        means, rotations = before if carried is None else carried
        rotations = F.normalize(rotations, dim=-1)
        moved = means @ rotation_matrices(turn).mT + shift[:, None] + self.shift(features)
        turned = F.normalize(multiply(turn[:, None], rotations) + self.turn(features), dim=-1)
        first = (times <= -1)[:, None, None]
        growth = self.grow(features) if growing else torch.zeros_like(moved)
        return Moved(
            torch.where(first, means, moved),
            torch.where(first, rotations, turned),
            torch.where(first, torch.zeros_like(growth), growth),
        )


def _head(width: int, out: int, random: torch.Generator) -> nn.Sequential:
    first, last = nn.Linear(width, width, bias=False), nn.Linear(width, out, bias=False)
    nn.init.kaiming_uniform_(first.weight, a=5**0.5, generator=random)
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.ReLU(), last)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions wxyz [..., 4]: the rotation b, then a."""
    scalar = a[..., :1] * b[..., :1] - (a[..., 1:] * b[..., 1:]).sum(-1, keepdim=True)
    left, right = torch.broadcast_tensors(a[..., 1:], b[..., 1:])
    vector = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + torch.linalg.cross(left, right)
    return torch.cat([scalar, vector], -1)


def _from_euler(angles: Tensor) -> Tensor:
    """Quaternions wxyz [..., 4] of R_z(yaw) R_y(pitch) R_x(roll), angles [..., 3] in the order roll, pitch, yaw."""
    cosine, sine = (angles / 2).cos().unbind(-1), (angles / 2).sin().unbind(-1)
    none = torch.zeros_like(cosine[0])
    x = torch.stack([cosine[0], sine[0], none, none], -1)
    y = torch.stack([cosine[1], none, sine[1], none], -1)
    z = torch.stack([cosine[2], none, none, sine[2]], -1)
    return multiply(z, multiply(y, x))
