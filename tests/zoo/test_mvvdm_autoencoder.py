"""The small autoencoder: closed-form components, the training loss of its network, and training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from zoo.metrics import reconstruction_psnr
from zoo.mvvdm.autoencoder import (
    LATENT_CHANNELS,
    NOISE,
    PatchAutoencoder,
    Reconstruction,
    picture_step,
)
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import train


def made(pictures: torch.Tensor | None = None) -> PatchAutoencoder:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder()
    if pictures is not None:
        autoencoder.fit(pictures)
    return autoencoder


def discs(count: int, size: int) -> torch.Tensor:
    """[count, 3, size, size]: coloured discs on grey, in -1..1."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    centre = size * (0.35 + 0.3 * torch.rand(count, 2, generator=generator))
    radius = size * (0.15 + 0.1 * torch.rand(count, generator=generator))
    distance = torch.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None])
    cover = (radius[:, None, None] - distance + 0.5).clamp(0, 1)[:, None]
    colour = 2 * torch.rand(count, 3, 1, 1, generator=generator) - 1
    return cover * colour


def test_it_is_small_and_its_latents_have_an_eighth_of_the_side():
    autoencoder = made()
    assert 2 * sum(p.numel() for p in autoencoder.parameters()) <= 3e6  # bytes in half precision
    latents = autoencoder.encode(torch.zeros(2, 3, 64, 48)).latent_dist
    assert latents.mean.shape == (2, LATENT_CHANNELS, 8, 6) and not latents.std.any()
    assert torch.equal(latents.sample(torch.Generator().manual_seed(1)), latents.mean)
    assert autoencoder.decode(latents.mean).sample.shape == (2, 3, 64, 48)
    assert picture_step(autoencoder) == 8
    assert picture_step(AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                                      up_block_types=("UpDecoderBlock2D",) * 2)) == 2  # fmt: skip


def test_its_components_are_those_of_a_singular_value_decomposition():
    pictures = discs(12, 32)
    autoencoder = made(pictures)
    patches = F.pixel_unshuffle(pictures, 8).movedim(1, -1).flatten(0, 2).double().numpy()
    centred = patches - patches.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    kept = vectors[:LATENT_CHANNELS]
    np.testing.assert_allclose(
        autoencoder.components.T @ autoencoder.components, kept.T @ kept, atol=1e-4
    )  # the same subspace
    left = (values[LATENT_CHANNELS:] ** 2).sum() / patches.size
    decoded = autoencoder.decode(autoencoder.encode(pictures).latent_dist.mean).sample
    assert float((decoded - pictures).square().mean().detach()) == pytest.approx(left, rel=1e-3)
    worse = made(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert reconstruction_psnr(worse, pictures) < reconstruction_psnr(autoencoder, pictures) - 10


def test_latents_vary_by_one_and_the_same_pictures_give_the_same():
    pictures = discs(12, 32)
    autoencoder = made(pictures)
    latents = autoencoder.encode(pictures).latent_dist.mean
    assert float((latents * autoencoder.config.scaling_factor).std()) == pytest.approx(1, rel=1e-2)
    assert torch.equal(made(pictures).components, autoencoder.components)


def test_the_loss_is_the_error_of_pictures_from_noisy_latents():
    """The loss equals its definition, computed here with the same noise."""
    pictures = discs(4, 16)
    autoencoder = made(pictures)
    loss = Reconstruction(autoencoder)({"frames": pictures[None, None]}, [torch.Generator().manual_seed(3)])
    chance = torch.Generator().manual_seed(3)
    pictures = pictures[torch.randperm(4, generator=chance)]
    latents = autoencoder.encode(pictures).latent_dist.mean
    level = NOISE * torch.rand(4, 1, 1, 1, generator=chance)
    decoded = autoencoder.decode(latents + level * torch.randn(latents.shape, generator=chance)).sample
    assert float(loss.detach()) == pytest.approx(
        float((decoded - pictures).square().mean().detach()), rel=1e-4
    )


def test_saved_and_loaded(tmp_path):
    autoencoder = made(discs(4, 16))
    autoencoder.save_pretrained(tmp_path)
    again = PatchAutoencoder.from_pretrained(tmp_path)
    assert again.config.scaling_factor == autoencoder.config.scaling_factor
    latents = torch.randn(1, LATENT_CHANNELS, 2, 2)
    assert torch.equal(again.decode(latents).sample, autoencoder.decode(latents).sample)


def test_reconstruction_is_measured_in_decibels():
    class Off(torch.nn.Module):
        """Reconstructs every image 0.1 too bright."""

        def encode(self, pictures):
            kept = type("Kept", (), {"mean": pictures})
            return type("Encoded", (), {"latent_dist": kept})

        def decode(self, latents):
            return type("Decoded", (), {"sample": latents + 0.2})

    assert reconstruction_psnr(Off(), torch.zeros(2, 3, 3, 8, 8)) == pytest.approx(20, abs=1e-3)


PLAN = TrainingPlan(steps=40, batch=1, learning_rate=2e-3, warmup=5, precision="fp32", ema=0.9)


def trained_psnr(plan: TrainingPlan, pictures: torch.Tensor) -> float:
    autoencoder = made(pictures)
    example = {"frames": pictures[None, None]}
    train(Reconstruction(autoencoder), lambda first: iter([example] * (plan.steps - first)), plan)
    return reconstruction_psnr(autoencoder, pictures)


def test_its_network_learns_what_the_components_leave_out():
    pictures = discs(8, 24)
    linear = reconstruction_psnr(made(pictures), pictures)
    assert trained_psnr(PLAN, pictures) > linear + 0.5
    assert trained_psnr(replace(PLAN, learning_rate=1e-9), pictures) == pytest.approx(linear, abs=0.05)


@pytest.mark.slow
def test_it_brings_pictures_of_64_pixels_back_within_30_decibels():
    assert trained_psnr(replace(PLAN, steps=500, ema=0.99), discs(16, 64)) >= 30
