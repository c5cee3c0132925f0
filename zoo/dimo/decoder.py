"""The motion decoder: MLPs from canonical points, phase and latent to motions (paper §3.2, eq. 4; methods §4.3).

Shapes: B latents, T phases, K key points, Z latent size. Quaternions are (w, x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.gaussians.features import rotation_matrices
from zoo.dimo.config import DIMOConfig
from zoo.dimo.discs import multiply_quaternions


class RootMotion(nn.Module):
    """MLP from (phase, latent) to a rigid motion of the whole object, initialised as the identity (not in the paper).

    It has a single hidden layer, so it is smooth in the latent: between two latents, it is between their motions.
    """

    def __init__(self, config: DIMOConfig) -> None:
        super().__init__()
        self.frequencies = config.phase_frequencies
        self.hidden = nn.Linear(2 * config.phase_frequencies + config.latent, config.width)
        self.output = nn.Linear(config.width, 7)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.bias[3] = 1.0  # the identity, as a quaternion wxyz

    def forward(self, phases: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every combination of latent [B, Z] and phase [T].

        Returns:
            Shifts T(t) [B, T, 3] and quaternions q(t) [B, T, 4], not normalised, in the precision of the phases.
        """
        dtype = self.hidden.weight.dtype
        moments = encode(phases[:, None], self.frequencies).to(dtype)
        inputs = torch.cat(
            [moments.expand(len(z), -1, -1), z.to(dtype)[:, None].expand(-1, len(phases), -1)], -1
        )
        output = self.output(F.relu(self.hidden(inputs))).to(phases.dtype)
        return output[..., :3], output[..., 3:]


class MotionDecoder(nn.Module):
    """MLP from (canonical key point, phase, latent) to the key point's displacement and rotation (paper eq. 4).

    Its input is γ(p) ‖ γ(t) ‖ z with the encoding γ of `encode`; the trunk has a skip connection, and one two-layer
    head each for Δ and q (methods §4.3). The heads are initialised so that Δ = 0 and q is the identity for every
    latent.
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
        self.root = RootMotion(config) if config.root else None

    def forward(self, points: Tensor, phases: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every combination of latent, phase and key point.

        Args:
            points: p_k, [K, 3], canonical.
            phases: t, [T] in [0, 1].
            z: latents, [B, Z].

        Returns:
            Displacements Δ_k(t) [B, T, K, 3] and quaternions q_k(t) [B, T, K, 4], not normalised. They are in the
            precision of the weights, or in that of the points if there is a root motion.
        """
        B, T, K = len(z), len(phases), len(points)
        trunk = cast(Sequence[nn.Linear], self.trunk)
        precision = trunk[0].weight.dtype
        # γ is evaluated in the precision of its arguments: at 2⁹ radians per metre, half precision rounds away the
        # phase of the encoding. The layers compute in that of their weights.
        places = encode(points, self.config.position_frequencies).to(precision)
        moments = encode(phases[:, None], self.config.phase_frequencies).to(precision)
        parts = (places, moments, z.to(precision))
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
        offsets, rotations = offsets.reshape(B, T, K, 3), rotations.reshape(B, T, K, 4)
        if self.root is None:
            return offsets, rotations
        return self._on_root(points, offsets, rotations, *self.root(phases.to(points), z))

    @torch.no_grad()
    def change_coordinates(self, linear: Tensor, shift: Tensor) -> None:
        """Rewrite the layers that read z for latents z' with z = L z' + b, in place.

        W z + c = (W L) z' + (c + W b), so every layer's output is what it was.

        Args:
            linear: L, [Z, Z].
            shift: b, [Z].
        """
        trunk = cast(Sequence[nn.Linear], self.trunk)
        again = trunk[self.config.skip + 1]
        readers = [(trunk[0], trunk[0].in_features), (again, again.in_features - self.config.width)]
        if self.root is not None:
            readers.append((self.root.hidden, self.root.hidden.in_features))
        for layer, end in readers:  # z is the last of the inputs, which end at this column
            columns = layer.weight[:, end - self.config.latent : end]
            old = columns.double()
            columns.copy_(old @ linear.double())
            layer.bias.add_((old @ shift.double()).to(layer.bias))

    @staticmethod
    def _on_root(
        points: Tensor, offsets: Tensor, rotations: Tensor, shift: Tensor, turn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Apply the root motion (T, q) to the key points' own motions (Δ, q_k): R(q) (p + Δ) + T − p and q ⊗ q_k."""
        own = points + offsets.to(points.dtype)
        moved = own @ rotation_matrices(turn).transpose(-1, -2) + shift[:, :, None]
        turns = multiply_quaternions(F.normalize(turn, dim=-1)[:, :, None], rotations.to(points.dtype))
        return moved - points, turns

    @staticmethod
    def _of_inputs(weight: Tensor, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Apply `weight` to γ(p) ‖ γ(t) ‖ z for every combination, [B, T, K, width].

        W [a; b; c] = W_a a + W_b b + W_c c: the three products are computed separately and broadcast, so the
        concatenated [B·T·K, inputs] matrix is never materialised.
        """
        places, moments, z = parts
        of_place, of_moment, of_latent = weight.split([places.shape[1], moments.shape[1], z.shape[1]], 1)
        rest = (z @ of_latent.T)[:, None] + (moments @ of_moment.T)[None]
        return rest[:, :, None] + places @ of_place.T


def encode(values: Tensor, frequencies: int) -> Tensor:
    """Positional encoding γ(u) = {sin(2^f u), cos(2^f u)} for f = 0..frequencies−1, without π (methods §4.3).

    Args:
        values: u, [..., D].

    Returns:
        [..., 2·D·frequencies].
    """
    scaled = values[..., None, :] * 2.0 ** torch.arange(frequencies, device=values.device)[:, None]
    return torch.stack([scaled.sin(), scaled.cos()], -2).flatten(-3)
