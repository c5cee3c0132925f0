"""A small autoencoder of pictures, for a small MV-VDM that is trained from nothing.

Its latents are the principal components of a picture's patches, found in closed form: no other linear code of that size
loses less, and their squared error is that of the pixels, so that what diffusion gets right in latents it gets right in
pictures. Decoding adds what a small convolutional network has learnt of the rest: edges across the patches' seams.

Latents have an eighth of a picture's side, as Stable Diffusion's, so that they cost as little to denoise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

LATENT_CHANNELS = 24  # of the 192 numbers of a patch
PICTURES = 8  # of an example, drawn from its views and frames at each step
NOISE = 0.2  # at most, added to latents of about that spread: what diffusion makes is never quite a picture's


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encode by principal components, decode by them and a network; it answers as diffusers' `AutoencoderKL` does.

    Its latents have no noise: their distribution's variance is 0.

    Args:
        latent_channels: components kept. block_out_channels: of the network at a half, a quarter … of the picture's
            side; as many as the patches' side is halved.
        scaling_factor: by which latents are multiplied before diffusion, to vary by one.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = LATENT_CHANNELS,
        block_out_channels: tuple[int, ...] = (16, 32, 64),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        side, coarsest = self.patch, block_out_channels[-1]
        self.register_buffer("mean", torch.zeros(3 * side**2))
        self.register_buffer("components", torch.eye(3 * side**2)[:latent_channels])
        self.conv_in = nn.Conv2d(latent_channels, coarsest, 3, padding=1)
        levels = [_Residual(coarsest), _Residual(coarsest)]
        for out in reversed(block_out_channels[:-1]):
            levels += [_Enlarged(levels[-1].channels, out), _Residual(out)]
        self.levels = nn.Sequential(*levels)
        finest = block_out_channels[0]
        self.norm_out = nn.GroupNorm(8, finest)
        self.conv_out = _Enlarged(finest, 3)
        nn.init.zeros_(self.conv_out.conv.weight)
        nn.init.zeros_(self.conv_out.conv.bias)

    @property
    def patch(self) -> int:
        """Pixels along a patch's side."""
        return 2 ** len(self.config.block_out_channels)

    def encode(self, pictures: Tensor) -> AutoencoderKLOutput:
        """[N, 3, H, W] in -1..1, sides in whole patches → `latent_dist` over [N, C, H/8, W/8]."""
        patches = F.pixel_unshuffle(pictures, self.patch).movedim(1, -1)
        latents = ((patches - self.mean) @ self.components.T).movedim(-1, 1)
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        return AutoencoderKLOutput(DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """[N, C, h, w] → `sample` [N, 3, 8h, 8w]."""
        patches = latents.movedim(1, -1) @ self.components + self.mean
        rest = self.levels(self.conv_in(latents))
        rest = self.conv_out(F.silu(self.norm_out(rest)))
        return DecoderOutput(sample=F.pixel_shuffle(patches.movedim(-1, 1), self.patch) + rest)

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Take the components of these pictures [N, 3, H, W] in -1..1, and the scale at which they vary by one."""
        patches = F.pixel_unshuffle(pictures, self.patch).movedim(1, -1).flatten(0, 2).double()
        mean = patches.mean(0)
        centred = patches - mean
        spread, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
        kept = vectors.flip(1)[:, : self.config.latent_channels].T
        # A direction and its opposite are the same component: the larger part of each points up, wherever it is run.
        kept *= kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.components.copy_(kept)
        variance = spread.flip(0)[: self.config.latent_channels].mean()
        self.register_to_config(scaling_factor=float(variance.clamp_min(1e-12) ** -0.5))


class _Residual(nn.Module):
    """Two convolutions beside the way straight on; in the beginning they add nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


class _Enlarged(nn.Module):
    """Twice the side, each new pixel by weights of its own."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.channels = out
        self.conv = nn.Conv2d(channels, 4 * out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class Reconstruction(nn.Module):
    """What the network of a fitted autoencoder is learnt by: the squared error of pictures from noisy latents.

    Examples are clips: `frames` [B, V, T, 3, H, W] in -1..1.
    """

    def __init__(self, autoencoder: PatchAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, examples: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        shown = []
        for pictures, generator in zip(examples["frames"].flatten(1, 2), generators, strict=True):
            chosen = torch.randperm(len(pictures), generator=generator)[:PICTURES]
            shown.append(pictures[chosen.to(pictures.device)])
        pictures = torch.cat(shown)
        latents = self.autoencoder.encode(pictures).latent_dist.mean
        noise = []
        for some, generator in zip(shown, generators, strict=True):
            level = NOISE * torch.rand(len(some), 1, 1, 1, generator=generator)
            noise.append(level * torch.randn(len(some), *latents.shape[1:], generator=generator))
        decoded = self.autoencoder.decode(latents + torch.cat(noise).to(latents)).sample
        return (decoded.float() - pictures).square().mean()

    def parts(self) -> Iterator[nn.Module]:
        """What FSDP gathers and lets go of as wholes."""
        yield self.autoencoder


def picture_step(autoencoder: AutoencoderKL | PatchAutoencoder) -> int:
    """Pixels along the side of what one place of the latents stands for."""
    if isinstance(autoencoder, PatchAutoencoder):
        return autoencoder.patch
    return 2 ** (len(autoencoder.config.block_out_channels) - 1)
