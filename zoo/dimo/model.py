"""The DIMO network: canonical Gaussians, neural key points, motion latents and the motion decoder (paper §3.2).

Shapes: B latents, T phases, K key points, N Gaussians, M training motions, Z latent size, J key points per Gaussian,
G key points per row of the motion graph. Symbols follow the paper: p_k and r_k are the canonical position and radius
of key point k, Δ_k(t) and q_k(t) its displacement and rotation, x_i and q_i the centre and rotation of Gaussian i.
Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.arguments import instance, integer
from renderers.gaussians import Gaussians, Rendered, TensorCameras, render
from renderers.gaussians.features import rotation_matrices
from renderers.values import by_value
from zoo.dimo.blending import blended_gradients, rbf_weights, weight_slopes
from zoo.dimo.config import DIMOConfig
from zoo.dimo.decoder import MotionDecoder
from zoo.dimo.discs import multiply_quaternions, tangent_discs
from zoo.seeds import untouched

# Of `DIMO.strains`: limits of the ratios of distances, and the ridge of the least squares.
STRETCHES = 0.5, 2.0
RIDGE = 0.1
SMALLEST_STRETCH = 1e-3  # factor of a scale
PIXEL_BLUR = 0.3  # pixels², of the published code at every image size


@by_value
class KeyPointMotion(NamedTuple):
    """Key-point trajectories.

    Attributes:
        positions: p_k(t) = p_k + Δ_k(t), [B, T, K, 3], world coordinates.
        rotations: q_k(t), [B, T, K, 4], non-zero quaternions that are not normalised.
    """

    positions: Tensor
    rotations: Tensor


class DIMO(nn.Module):
    """Parameters of one object and its motions.

    Attributes:
        means, log_scales: centres x_i and log scales of the canonical Gaussians, [N, 3] each.
        quats, opacity_logits: their rotations [N, 4] and opacity logits [N].
        colors: sRGB-encoded, approximately in [0, 1] (not clamped), [N, 3].
        key_points: p_k, [K, 3], canonical.
        log_radii: log r_k, [K].
        mu, log_var: mean and log variance of each training motion's latent, [M, Z] each (paper eq. 5).
        decoder: the `MotionDecoder`.
        graph: int64 [K, G], the motion graph Ω: each key point followed by those with the most similar trajectories.
        neighbours: int64 [N, J], the key points that drive each Gaussian. `refresh` computes both.
    """

    def __init__(
        self,
        config: DIMOConfig,
        num_motions: int,
        num_gaussians: int | None = None,
        num_key_points: int | None = None,
    ) -> None:
        super().__init__()
        instance(config, DIMOConfig, "DIMO: config")
        num_motions = integer(num_motions, "DIMO: num_motions", 1)
        self.config = config
        N = config.gaussians if num_gaussians is None else num_gaussians
        K = config.key_points if num_key_points is None else num_key_points
        N, K = integer(N, "DIMO: num_gaussians", 0), integer(K, "DIMO: num_key_points", 1)
        G = min(config.graph, K)
        J = min(config.neighbours, G)
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
        """Build the model from its `state_dict()`; M, N and K are read from the tensors' shapes."""
        with untouched():
            model = DIMO(config, len(state["mu"]), len(state["means"]), len(state["key_points"]))
        model.load_state_dict(state)
        return model

    @property
    def num_motions(self) -> int:
        """M, the number of training motions."""
        return len(self.mu)

    @property
    def stretches(self) -> bool:
        """Whether skinning stretches the object (`config.stretching`), which needs key points."""
        return self.config.stretching and self.config.factorised

    @property
    def phases(self) -> Tensor:
        """Phases i / T of `config.frames` evenly spaced frames, [T] in [0, 1)."""
        return torch.arange(self.config.frames, device=self.mu.device) / self.config.frames

    def trajectories(self, z: Tensor, phases: Tensor) -> KeyPointMotion:
        """Decode p_k(t) and q_k(t) for latents [B, Z] at phases [T].

        Without motion factorisation the decoder is applied to the Gaussians' centres, so K = N.
        """
        points = self.key_points if self.config.factorised else self.means
        offsets, rotations = self.decoder(points, phases, z)
        return KeyPointMotion(points + offsets, rotations.to(points.dtype))

    def paths(self, z: Tensor, phases: Tensor) -> Tensor:
        """Key-point positions p_k(t), [B, T, K, 3], with or without motion factorisation."""
        return self.key_points + self.decoder(self.key_points, phases, z)[0]

    @property
    def scales(self) -> Tensor:
        """Scales of the canonical Gaussians as they are drawn, [N, 3]: √(s_i² + s²), with s of `config.smoothing`.

        That is the 3D smoothing filter of Mip-Splatting (Yu et al. 2023), without its change of opacities.
        """
        scales = self.log_scales.to(self.means.dtype).exp()  # may be stored in half precision
        smoothing = self.config.smoothing
        return (scales.square() + smoothing**2).sqrt() if smoothing else scales

    @property
    def blur(self) -> float:
        """The blur with which images of `skin` are drawn, pixels²: none if the Gaussians themselves are smoothed."""
        return 0.0 if self.config.smoothing else PIXEL_BLUR

    def draw(
        self,
        scenes: Gaussians,
        cameras: TensorCameras,
        background: Tensor | None = None,
        want: Collection[str] = ("rgb", "alpha"),
    ) -> Rendered:
        """Render scenes of this model (`skin`) with its `blur`; arguments as in `renderers.gaussians.render`."""
        return render(scenes, cameras, background=background, want=want, eps2d=self.blur)

    def skin(self, motion: KeyPointMotion) -> Gaussians:
        """Deform the canonical Gaussians into S = B·T scenes (T fastest) by linear blend skinning (methods §4.4).

        q_i(t) = q̄_i(t) ⊗ q_i, with q̄_i from `_blend`. Opacities and colours are shared by all scenes, and so are scales
        unless `config.stretching`: then that of axis e of Gaussian i is multiplied by ‖A_i e‖, with the blended linear
        map A_i. With `config.discs`, Gaussians are carried along as `zoo.dimo.discs` describes instead.
        """
        dtype = self.means.dtype  # the renderer's; the others may be stored in half precision
        quats, scales = self.quats.to(dtype), self.scales[None]
        if self.config.discs and self.config.factorised:
            weights, slopes = self._neighbour_weights(), self.weight_slopes()
            means, maps = blended_gradients(
                self.means, self.affine(motion)[:2], self.neighbours, weights, slopes
            )
            quats, scales = tangent_discs(maps, rotation_matrices(quats), scales[0])
        elif self.config.factorised:
            means, turns, maps = self._blend(motion)
            if self.stretches:
                moved = maps @ rotation_matrices(quats)  # columns A e: [S, N, 3, 3]
                scales = scales * moved.square().sum(-2).clamp(min=SMALLEST_STRETCH**2).sqrt()
            quats = multiply_quaternions(turns, quats)
        else:
            means = motion.positions.flatten(0, 1)
            quats = multiply_quaternions(motion.rotations.flatten(0, 1), quats)
        return Gaussians(
            means=means,
            quats=quats,
            scales=scales,
            opacities=self.opacity_logits.to(dtype).sigmoid()[None],
            colors=self.colors.to(dtype)[None],
        )

    def skinning_weights(self) -> Tensor:
        """Blending weights w_ik of paper eq. 1, [N, K]: J non-zero entries per row, which sum to 1.

        Distances are detached, so these weights are differentiable in r_k only; x_i and p_k receive their gradients
        through the blend itself (methods §4.4).
        """
        weights = self._neighbour_weights()
        return weights.new_zeros(len(self.means), len(self.key_points)).scatter(1, self.neighbours, weights)

    def _neighbour_weights(self) -> Tensor:
        """The non-zero blending weights of each Gaussian, [N, J] in the order of `neighbours`."""
        with torch.no_grad():
            apart = self.means[:, None] - self.key_points[self.neighbours]
            squared = apart.square().sum(-1)
        return rbf_weights(squared, self.log_radii.exp()[self.neighbours])

    def weight_slopes(self) -> Tensor:
        """∇w_ik at the Gaussians' centres, [N, J, 3]; as `skinning_weights`, differentiable in r_k only."""
        with torch.no_grad():
            apart = self.means[:, None] - self.key_points[self.neighbours]
        return weight_slopes(self._neighbour_weights(), apart, self.log_radii.exp()[self.neighbours])

    def strains(self, positions: Tensor) -> Tensor:
        """How the object is stretched about each key point (not in the paper): E_k, symmetric, [S, K, 3, 3].

        The linear map that best explains how far the neighbours j in the motion graph have moved away: the
        least-squares solution of n_jᵀ E_k n_j = ‖p_j(t) − p_k(t)‖ / ‖p_j − p_k‖ − 1 for unit directions n_j from p_k to
        p_j in the canonical pose, with a ridge that leaves unstretched what no neighbour determines, such as the
        direction across a surface. It is 0 for rigid motions. Ratios of distances are limited to `STRETCHES`.

        Args:
            positions: p_k(t), [S, K, 3].
        """
        others = self.graph[:, 1:]  # the first is the key point itself
        with torch.no_grad():
            apart = self.key_points[others] - self.key_points[:, None]  # [K, G − 1, 3]
            lengths = apart.norm(dim=-1).clamp(min=1e-6)
            x, y, z = (apart / lengths[..., None]).unbind(-1)
            # √2: the norm of the six numbers is that of the matrix, so the ridge does not depend on the axes.
            terms = torch.stack([x * x, y * y, z * z, 2**0.5 * x * y, 2**0.5 * y * z, 2**0.5 * x * z], -1)
            ridge = RIDGE * torch.eye(6, dtype=terms.dtype, device=terms.device)
            solution = torch.linalg.solve(terms.mT @ terms + ridge, terms.mT)  # [K, 6, G − 1]
        ratios = (positions[:, others] - positions[:, :, None]).norm(dim=-1) / lengths
        values = torch.einsum("kej,skj->ske", solution, ratios.clamp(*STRETCHES) - 1)
        xx, yy, zz, xy, yz, xz = values.unbind(-1)
        xy, yz, xz = xy / 2**0.5, yz / 2**0.5, xz / 2**0.5
        return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).unflatten(-1, (3, 3))

    def _blend(self, motion: KeyPointMotion) -> tuple[Tensor, Tensor, Tensor]:
        """Linear blend skinning (paper eq. 7; methods §4.4) of all S = B·T scenes in one matrix product.

        x_i(t) = Σ_k w_ik [F_k(t) (x_i − p_k) + p_k + Δ_k(t)], with F_k = R(q_k(t)), or R(q_k(t)) (I + E_k(t)) with the
        `strains` E_k if `config.stretching`. q̄_i(t) is as `config.blending` specifies: "linear" is Σ_k w_ik q_k(t),
        "aligned" is `_aligned_rotations`.

        Returns:
            Centres x_i(t) [S, N, 3], blended quaternions q̄_i(t) [S, N, 4], not normalised, and linear maps
            A_i(t) = Σ_k w_ik F_k(t), [S, N, 3, 3].
        """
        matrices, constant, rotations = self.affine(motion)
        S, K, _ = constant.shape
        # F, the constant part and q are blended once per Gaussian (16 numbers per key point) before F x is evaluated.
        columns = matrices.transpose(-1, -2).flatten(2)
        table = torch.cat([columns, constant, rotations], -1)  # [S, K, 16]
        blended = self.skinning_weights() @ table.transpose(0, 1).reshape(K, S * 16)
        blended = blended.reshape(-1, S, 16).transpose(0, 1)
        means = blended[..., 9:12]
        for axis, value in enumerate(self.means[:, None].unbind(-1)):
            means = torch.addcmul(means, blended[..., 3 * axis : 3 * axis + 3], value)
        maps = blended[..., :9].unflatten(-1, (3, 3)).mT
        if self.config.blending == "aligned":
            return means, self._aligned_rotations(rotations), maps
        return means, blended[..., 12:], maps

    def affine(self, motion: KeyPointMotion) -> tuple[Tensor, Tensor, Tensor]:
        """What each key point does to x, F x + (p + Δ − F p): F [S, K, 3, 3], the rest [S, K, 3] and q [S, K, 4]."""
        positions, rotations = motion.positions.flatten(0, 1), motion.rotations.flatten(0, 1)
        matrices = rotation_matrices(rotations)
        if self.stretches:
            matrices = matrices + matrices @ self.strains(positions)
        return matrices, positions - (matrices @ self.key_points[..., None]).squeeze(-1), rotations

    def _aligned_rotations(self, rotations: Tensor) -> Tensor:
        """Blended rotations q̄_i = Σ_k w_ik s_ik q_k / ‖q_k‖ of scenes with rotations q_k, [S, K, 4] to [S, N, 4].

        s_ik = ±1 is the sign of ⟨q_k, q_a⟩ for the first key point a of Gaussian i: q and −q are the same rotation, and
        summed with different signs they cancel. The decoder's quaternions have norms from 0.05 to 4; without the
        normalisation the norm is a second, unintended weight.

        The signs depend on the pair of key points only, so ⟨q_k, q_j⟩ is computed for the K² pairs, not for N·J.
        """
        unit = F.normalize(rotations, dim=-1)
        with torch.no_grad():
            opposed = unit @ unit.transpose(1, 2) < 0  # [S, K, K]
            signs = 1.0 - 2.0 * opposed[:, self.neighbours[:, :1], self.neighbours].to(unit.dtype)
        weights = self._neighbour_weights().to(unit.dtype)  # [N, J]
        return torch.einsum("snj,snjc->snc", weights * signs, unit[:, self.neighbours])

    @torch.no_grad()
    def refresh(self, phases: Tensor | None = None) -> None:
        """Recompute the motion graph from trajectories decoded for all motions, and each Gaussian's key points.

        Paper eq. 3: Ω_k holds the nearest neighbours of k under ‖P_k − P_j‖, where P_k concatenates p_k(t) over time
        (here also over motions). A Gaussian is driven by the key point nearest to x_i and the next J − 1 entries of
        that key point's row.

        Args:
            phases: time steps to compare, [T] in [0, 1]; None = about four spread over the motion.
        """
        phases = self.phases[:: max(1, self.config.frames // 4)] if phases is None else phases
        self.connect(self.paths(self.mu, phases))
        self.assign()

    @torch.no_grad()
    def connect(self, positions: Tensor) -> None:
        """Recompute the motion graph from the key points' positions, [B, T, K, 3]."""
        paths = positions.flatten(0, 1).transpose(0, 1).flatten(1)
        apart = torch.cdist(paths, paths)
        apart.fill_diagonal_(-1.0)  # a key point comes first in its own row even if others coincide with it
        self.graph.copy_(apart.topk(self.graph.shape[1], largest=False).indices)

    @torch.no_grad()
    def assign(self) -> None:
        """Recompute each Gaussian's key points, for the motion graph as it is."""
        J = min(self.config.neighbours, self.graph.shape[1])
        self.neighbours = self.graph[torch.cdist(self.means, self.key_points).argmin(1), :J]
