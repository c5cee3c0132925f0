"""The model: canonical Gaussians, key points that carry them, one latent a motion, and the decoder between.

Letters: B latents, T phases, K key points, N Gaussians, Z latent size, J neighbours. Quaternions are wxyz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.gaussians import Gaussians
from renderers.gaussians.features import rotation_matrices
from zoo.dimo.config import DIMOConfig


class KeyPointMotion(NamedTuple):
    """Where the key points are and how they have turned.

    Attributes:
        positions: [B, T, K, 3], world. rotations: [B, T, K, 4], any length but zero.
    """

    positions: Tensor
    rotations: Tensor


class MotionDecoder(nn.Module):
    """Latent, phase and canonical key point to its displacement and rotation (paper §3.2.2; methods §4.3).

    At first it moves nothing: displacements are 0 and rotations the identity, whatever the latent.
    """

    def __init__(self, config: DIMOConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 6 * config.position_frequencies + 2 * config.phase_frequencies + config.latent
        width = config.width
        sizes = [inputs] + [width] * (config.depth - 1)
        sizes[config.skip + 1] += inputs
        trunk = [nn.Linear(size, width) for size in sizes]
        offset_head = [nn.Linear(width, width), nn.Linear(width, 3)]
        rotation_head = [nn.Linear(width, width), nn.Linear(width, 4)]
        for layer in (*trunk, offset_head[0], rotation_head[0]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for head in (offset_head, rotation_head):
            nn.init.zeros_(head[1].weight)
            nn.init.zeros_(head[1].bias)
        with torch.no_grad():
            rotation_head[1].bias[0] = 1.0  # the identity, as a quaternion wxyz
        self.trunk = nn.ModuleList(trunk)
        self.offset_head = nn.ModuleList(offset_head)
        self.rotation_head = nn.ModuleList(rotation_head)

    def forward(self, points: Tensor, phases: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [B, T, K, 3] and quaternions [B, T, K, 4] (not normalised).

        Args:
            points: [K, 3] canonical. phases: [T] in 0..1. z: [B, Z].
        """
        B, T, K = len(z), len(phases), len(points)
        places = encode(points, self.config.position_frequencies)
        moments = encode(phases[:, None], self.config.phase_frequencies)
        parts = (places, moments, z)
        trunk = cast(Sequence[nn.Linear], self.trunk)
        hidden = self._of_inputs(trunk[0].weight, parts) + trunk[0].bias
        hidden = F.relu(hidden.reshape(B * T * K, -1))
        for index, layer in enumerate(trunk[1:], 1):
            if index == self.config.skip + 1:
                inputs = layer.in_features - self.config.width
                again = self._of_inputs(layer.weight[:, :inputs], parts).reshape(B * T * K, -1)
                hidden = again + F.linear(hidden, layer.weight[:, inputs:], layer.bias)
            else:
                hidden = layer(hidden)
            hidden = F.relu(hidden)
        offsets, rotations = (
            head[1](F.relu(head[0](hidden))) for head in (self.offset_head, self.rotation_head)
        )
        return offsets.reshape(B, T, K, 3), rotations.reshape(B, T, K, 4)

    @staticmethod
    def _of_inputs(weight: Tensor, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """`weight` times the concatenation of place, moment and latent, for every combination: [B, T, K, width].

        A sum of three small products: the concatenation for all B·T·K rows is never made.
        """
        places, moments, z = parts
        of_place, of_moment, of_latent = weight.split([places.shape[1], moments.shape[1], z.shape[1]], 1)
        rest = (z @ of_latent.T)[:, None] + (moments @ of_moment.T)[None]
        return rest[:, :, None] + places @ of_place.T


class DIMO(nn.Module):
    """One object with all its motions.

    Attributes:
        means, log_scales [N, 3], quats [N, 4], opacity_logits [N], colors [N, 3]: the canonical Gaussians; colours are
            sRGB-encoded, about 0..1.
        key_points: [K, 3], canonical. log_radii: [K], of their influence.
        mu, log_var: [M, Z], the latents of the motions trained on.
        decoder: the `MotionDecoder`.
        graph: int64 [K, G], each key point and those that move most like it. neighbours: int64 [N, J], the key
            points that move each Gaussian. Both are found by `refresh`.
    """

    def __init__(
        self,
        config: DIMOConfig,
        num_motions: int,
        num_gaussians: int | None = None,
        num_key_points: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        N = config.gaussians if num_gaussians is None else num_gaussians
        K = config.key_points if num_key_points is None else num_key_points
        G, J = min(config.graph, K), min(config.neighbours, K)
        self.means = nn.Parameter(torch.zeros(N, 3))
        self.log_scales = nn.Parameter(torch.full((N, 3), math.log(0.01)))
        self.quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(N, 1))
        self.opacity_logits = nn.Parameter(torch.zeros(N))
        self.colors = nn.Parameter(torch.full((N, 3), 0.5))
        self.key_points = nn.Parameter(torch.zeros(K, 3))
        self.log_radii = nn.Parameter(torch.full((K,), math.log(0.1)))
        self.mu = nn.Parameter(torch.zeros(num_motions, config.latent))
        self.log_var = nn.Parameter(torch.zeros(num_motions, config.latent))
        self.decoder = MotionDecoder(config)
        self.graph: Tensor
        self.neighbours: Tensor
        self.register_buffer("graph", torch.zeros(K, G, dtype=torch.int64))
        self.register_buffer("neighbours", torch.zeros(N, J, dtype=torch.int64))

    @staticmethod
    def from_state(config: DIMOConfig, state: dict[str, Tensor]) -> DIMO:
        """The model whose `state_dict()` this is; sizes are taken from the tensors."""
        model = DIMO(config, len(state["mu"]), len(state["means"]), len(state["key_points"]))
        model.load_state_dict(state)
        return model

    @property
    def num_motions(self) -> int:
        """M, the motions it was trained on."""
        return len(self.mu)

    @property
    def phases(self) -> Tensor:
        """The phases of `config.frames` evenly spaced frames, [T] in 0..1."""
        return torch.arange(self.config.frames, device=self.mu.device) / self.config.frames

    def trajectories(self, z: Tensor, phases: Tensor) -> KeyPointMotion:
        """The key points' motion for latents [B, Z] at phases [T]. Without factorisation: that of all Gaussians."""
        points = self.key_points if self.config.factorised else self.means
        offsets, rotations = self.decoder(points, phases, z)
        return KeyPointMotion(points + offsets, rotations)

    def paths(self, z: Tensor, phases: Tensor) -> Tensor:
        """Where the key points are, [B, T, K, 3]; with or without factorisation."""
        return self.key_points + self.decoder(self.key_points, phases, z)[0]

    def skin(self, motion: KeyPointMotion) -> Gaussians:
        """Gaussians in S = B·T scenes (T fastest) by linear blend skinning (methods §4.4).

        Scales, opacities and colours are shared by all scenes.
        """
        B, T = motion.positions.shape[:2]
        if self.config.factorised:
            means, turns = self._blend(motion)
        else:
            means, turns = motion.positions.flatten(0, 1), motion.rotations.flatten(0, 1)
        return Gaussians(
            means=means,
            quats=multiply_quaternions(turns, self.quats.expand(B * T, -1, -1)),
            scales=self.log_scales.exp()[None],
            opacities=self.opacity_logits.sigmoid()[None],
            colors=self.colors[None],
        )

    def skinning_weights(self) -> Tensor:
        """Each Gaussian's share of each key point, [N, K]; rows sum to 1 and have J entries (methods §4.2).

        The gradient reaches the radii only: positions learn through the blend itself.
        """
        with torch.no_grad():
            apart = self.means[:, None] - self.key_points[self.neighbours]
            squared = apart.square().sum(-1)
        weights = rbf_weights(squared, self.log_radii.exp()[self.neighbours])
        return torch.zeros(len(self.means), len(self.key_points), device=weights.device).scatter(
            1, self.neighbours, weights
        )

    def _blend(self, motion: KeyPointMotion) -> tuple[Tensor, Tensor]:
        """Means [S, N, 3] and turns [S, N, 4]: one matrix product for all scenes."""
        positions, rotations = motion.positions.flatten(0, 1), motion.rotations.flatten(0, 1)  # [S, K, …]
        S, K, _ = positions.shape
        matrices = rotation_matrices(rotations)
        # R (x − p) + p + Δ = R x + (p + Δ − R p): blended are R, the constant part and the quaternion.
        constant = positions - (matrices @ self.key_points[..., None]).squeeze(-1)
        columns = matrices.transpose(-1, -2).flatten(2)
        table = torch.cat([columns, constant, rotations], -1)  # [S, K, 16]
        blended = self.skinning_weights() @ table.transpose(0, 1).reshape(K, S * 16)
        blended = blended.reshape(-1, S, 16).transpose(0, 1)
        means = blended[..., 9:12]
        for axis, value in enumerate(self.means[:, None].unbind(-1)):
            means = torch.addcmul(means, blended[..., 3 * axis : 3 * axis + 3], value)
        return means, blended[..., 12:]

    @torch.no_grad()
    def refresh(self, phases: Tensor | None = None) -> None:
        """Find the motion graph from the key points' paths in all motions, and each Gaussian's neighbours in it.

        Paper eq. 3: the distance of two key points is the length of the difference of their whole paths. A Gaussian is
        moved by its nearest key point and the next in that one's row of the graph.
        """
        phases = self.phases[:: max(1, self.config.frames // 4)] if phases is None else phases
        paths = self.paths(self.mu, phases).flatten(0, 1).transpose(0, 1).flatten(1)
        G, J = self.graph.shape[1], self.neighbours.shape[1]
        apart = torch.cdist(paths, paths)
        apart.fill_diagonal_(-1.0)  # each is its own first neighbour, also among coincident points
        self.graph.copy_(apart.topk(G, largest=False).indices)
        self.neighbours = self.graph[torch.cdist(self.means, self.key_points).argmin(1), :J]


def encode(values: Tensor, frequencies: int) -> Tensor:
    """Sines and cosines of [..., D] at 1, 2, 4, … radians per unit: [..., 2·D·frequencies] (methods §4.3)."""
    scaled = values[..., None, :] * 2.0 ** torch.arange(frequencies, device=values.device)[:, None]
    return torch.stack([scaled.sin(), scaled.cos()], -2).flatten(-3)


def rbf_weights(squared: Tensor, radii: Tensor) -> Tensor:
    """Normalised influence exp(−d² / 2r²) of [..., J] neighbours, from squared distances and radii (methods §4.2).

    The paper's eq. 1 prints 2r; r² is what makes the exponent a number. The 1e-7 keeps far points governed.
    """
    influence = (-squared / (2.0 * radii.square())).exp() + 1e-7
    return influence / influence.sum(-1, keepdim=True)


def multiply_quaternions(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a ⊗ b, [..., 4] wxyz: first turn by b, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )
