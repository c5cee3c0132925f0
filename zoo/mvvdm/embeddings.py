"""Embeddings of MV-VDM's conditions: frame index, position in the feature map, and prompt clauses.

The embeddings of the noise level and of the cameras are diffusers' `TimestepEmbedding`, see `zoo.mvvdm.unet`.

B objects, V views, T frames, C channels, H × W the size of a feature map, L prompt tokens, D their dimension, E the
dimension of the time step's embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CAMERA_DIM = 16  # a row-major 4×4 camera-to-world matrix: renderers.cameras.mvvdm_camera_vectors


def encode_time(frames: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal encoding of the frame index, as in AnimateDiff.

    With t the frame index and i = 0 … C/2 − 1 the frequency index:

        PE[t, 2i] = sin(t · 10000^(−2i/C)),   PE[t, 2i + 1] = cos(t · 10000^(−2i/C))

    AnimateDiff stores a table of 32 frames; computing it allows any number.

    Args:
        frames: T.
        channels: C, even.

    Returns:
        [T, C].
    """
    rates = torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10000.0) / channels))
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def encode_place(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """2D sinusoidal encoding of the position in a feature map (the spatial branch's, Animate3D §3.1).

    The first C/2 channels encode the row and the last C/2 the column. With ỹ = 2π·(i + 1)/H for row i, and x̃ likewise:

        PE[2m] = sin(ỹ / d), PE[2m + 1] = cos(ỹ / d),   d = 10000^(2m/(C/2))

    Coordinates are normalised by the size of the map, so the encoding carries over to other resolutions. The 1e-6 in
    the denominator is the official code's.

    Args:
        height, width: H and W.
        channels: C, a multiple of 4.

    Returns:
        [H, W, C].
    """
    half = channels // 2
    rates = 10000.0 ** (
        -2 * (torch.arange(half, device=device) // 2) / half
    )  # 1 / d, each twice: sine and cosine

    def along(length: int) -> Tensor:
        angles = torch.arange(1, length + 1, device=device)[:, None] / (length + 1e-6) * 2 * math.pi * rates
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1)

    rows, columns = along(height)[:, None], along(width)[None]
    return torch.cat([rows.expand(height, width, half), columns.expand(height, width, half)], -1)


class SentenceEmbedding(nn.Module):
    """Prompt embedding per view and frame, added to the time step's embedding; not part of the paper.

    Cross-attention gives every frame of every view the same prompt. This MLP also receives the camera and the frame
    index, so that it can represent where in the image something should be at that time. It is applied to each clause
    separately and the results are summed, so that a prompt of two familiar clauses stays within the training
    distribution even if their combination is new.

    Args:
        width: D, the dimension of a clause token.
        out: E.
    """

    TIME = 32  # channels of the frame index's encoding, `encode_time`

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width + CAMERA_DIM + self.TIME, 2 * out)
        self.linear_2 = nn.Linear(2 * out, 2 * out)
        self.linear_3 = nn.Linear(2 * out, out)

    def forward(self, clauses: Tensor, present: Tensor, camera: Tensor, frames: int) -> Tensor:
        """Embed the clauses for each view and frame.

        Args:
            clauses: [B, L, D], one token per clause, padded to L.
            present: bool [B, L, 1], False for padding.
            camera: [B, V, 16].
            frames: T.

        Returns:
            [B, V, T, E].
        """
        (B, L), V, T = clauses.shape[:2], camera.shape[1], frames
        times = encode_time(T, self.TIME, camera.device).to(camera.dtype)
        inputs = (clauses[:, :, None, None], camera[:, None, :, None], times)
        x = torch.cat([each.expand(B, L, V, T, -1) for each in inputs], dim=-1)
        x = self.linear_3(F.silu(self.linear_2(F.silu(self.linear_1(x)))))
        return (x * present[:, :, None, None]).sum(1)


class Whitening(nn.Module):
    """Partial whitening of clause embeddings, to separate clauses that a language model considers similar.

    For a language model, "turns left" and "turns right" are nearly the same sentence. With mean m and covariance
    Σ = A·diag(λ)·Aᵀ of the training clauses and λ̄ the mean of λ, embeddings e are mapped to

        (e − m) · A·diag(1/√(λ/λ̄ + 1))·Aᵀ

    Directions of more than average variance are scaled down towards the average; the others are hardly changed, so that
    noise in directions without information is not amplified.

    Args:
        width: D.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Estimate mean and covariance from embeddings [N, D]."""
        embeddings = embeddings.double()
        mean = embeddings.mean(0)
        covariance = (embeddings - mean).T @ (embeddings - mean) / len(embeddings)
        variances, axes = torch.linalg.eigh(covariance)
        scales = (variances.clamp(min=0) / variances.mean().clamp(min=1e-12) + 1).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(axes * scales @ axes.T)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Whiten embeddings [..., D]; the shape is kept."""
        return (embeddings - self.mean) @ self.matrix
