"""A small image autoencoder, for a small MV-VDM that is trained from scratch. It is not part of the paper.

The encoder is a principal component analysis (PCA) of image patches, computed in closed form. Among linear codes of the
same size it has the smallest reconstruction error; and because the components are orthonormal, the squared error of
latents equals that of the pixels (before the correction below). The decoder inverts the PCA and adds the output of a
small convolutional network, which is trained to restore detail that the components lose, above all at patch borders.

Latents have 1/8 of the image's side, as Stable Diffusion's do, so that they are equally cheap to denoise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from zoo.mvvdm.moving import moved_first

LATENT_CHANNELS = 24  # of the 3·8·8 = 192 components of a patch
PICTURES = 8  # images per example and training step, drawn from its views and frames
# Largest standard deviation of the noise added to latents in training, so that the decoder tolerates the errors of
# sampled latents.
NOISE = 0.2


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """PCA of patches with a convolutional correction, with the interface of diffusers' `AutoencoderKL`.

    With x a patch, m the mean patch and W the components as rows, latents are z = W·(x − m) and decoded patches
    Wᵀ·z + m plus the network's correction. The posterior of the latents has variance 0.

    Args:
        latent_channels: C, number of components.
        block_out_channels: channels of the network at 1/2, 1/4, … of the image's side. Their number n determines the
            side of the patches, 2^n pixels.
        scaling_factor: factor applied to latents before diffusion, so that they have unit variance.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers types it as None
    mean: Tensor
    components: Tensor
    if TYPE_CHECKING:  # diffusers types it as a dict, but its fields are attributes as well

        @property
        def config(self) -> Any: ...

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
        levels: list[nn.Module] = [_Residual(coarsest), _Residual(coarsest)]
        before = coarsest
        for out in reversed(block_out_channels[:-1]):
            levels += [_Upsample(before, out), _Residual(out)]
            before = out
        self.levels = nn.Sequential(*levels)
        finest = block_out_channels[0]
        self.norm_out = nn.GroupNorm(8, finest)
        self.conv_out = _Upsample(finest, 3)
        for parameter in self.conv_out.parameters():  # untrained, the correction is 0
            nn.init.zeros_(parameter)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return 2 ** len(self.config.block_out_channels)

    def forward(self, pictures: Tensor) -> DecoderOutput:
        """Encode and decode images [N, 3, H, W] in -1..1."""
        return self.decode(self.encode(pictures).latent_dist.mode())

    @moved_first
    def encode(self, pictures: Tensor) -> AutoencoderKLOutput:
        """Encode images.

        Args:
            pictures: [N, 3, H, W] in -1..1, H and W multiples of `patch`.

        Returns:
            An output whose `latent_dist` is a distribution over [N, C, H/8, W/8] (for patches of 8 pixels).
        """
        patches = F.pixel_unshuffle(pictures, self.patch).movedim(1, -1)
        latents = ((patches - self.mean) @ self.components.T).movedim(-1, 1)
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        return AutoencoderKLOutput(DiagonalGaussianDistribution(moments, deterministic=True))

    @moved_first
    def decode(self, latents: Tensor) -> DecoderOutput:
        """Decode latents [N, C, h, w] to an output whose `sample` is [N, 3, 8h, 8w], about -1..1."""
        patches = latents.movedim(1, -1) @ self.components + self.mean
        correction = self.levels(self.conv_in(latents))
        correction = self.conv_out(F.silu(self.norm_out(correction)))
        return DecoderOutput(sample=F.pixel_shuffle(patches.movedim(-1, 1), self.patch) + correction)

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Compute mean, components and scaling factor from images [N, 3, H, W] in -1..1.

        The components are the eigenvectors of the patches' covariance with the largest eigenvalues λ, and the scaling
        factor is 1 / √(mean of these λ).
        """
        patches = F.pixel_unshuffle(pictures, self.patch).movedim(1, -1).flatten(0, 2).double()
        mean = patches.mean(0)
        centred = patches - mean
        spread, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
        kept = vectors.flip(1)[:, : self.config.latent_channels].T
        # The sign of an eigenvector is arbitrary and differs between machines: make its largest entry positive.
        kept *= kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.components.copy_(kept)
        variance = spread.flip(0)[: self.config.latent_channels].mean()
        self.register_to_config(scaling_factor=float(variance.clamp_min(1e-12) ** -0.5))


class _Residual(nn.Module):
    """Residual block of two convolutions, initially the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


class _Upsample(nn.Module):
    """Upsampling by 2 with a sub-pixel convolution: separate weights for each of the four new pixels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class Reconstruction(nn.Module):
    """Training objective of the decoder's network: mean squared error of images decoded from noisy latents.

    Args:
        autoencoder: already fitted; its PCA is not trained.
    """

    def __init__(self, autoencoder: PatchAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, examples: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        """Compute the loss of up to `PICTURES` random images per example.

        Args:
            examples: clips, of which "frames" [B, V, T, 3, H, W] in -1..1 is used.
            generators: one per example, on the CPU.

        Returns:
            Scalar.
        """
        selected = []
        for pictures, generator in zip(examples["frames"].flatten(1, 2), generators, strict=True):
            chosen = torch.randperm(len(pictures), generator=generator)[:PICTURES]
            selected.append(pictures[chosen.to(pictures.device)])
        pictures = torch.cat(selected)
        latents = self.autoencoder.encode(pictures).latent_dist.mean
        noise = []
        for each, generator in zip(selected, generators, strict=True):
            level = NOISE * torch.rand(
                len(each), 1, 1, 1, generator=generator
            )  # standard deviation of each image
            noise.append(level * torch.randn(len(each), *latents.shape[1:], generator=generator))
        decoded = self.autoencoder.decode(latents + torch.cat(noise).to(latents)).sample
        return (decoded.float() - pictures).square().mean()

    def parts(self) -> Iterator[nn.Module]:
        """The FSDP units."""
        yield self.autoencoder


def picture_step(autoencoder: AutoencoderKL | PatchAutoencoder) -> int:
    """Downsampling factor of an autoencoder: the side in pixels of one position of the latents."""
    if isinstance(autoencoder, PatchAutoencoder):
        return autoencoder.patch
    return 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
