"""Image quality: mean squared error, PSNR, SSIM and LPIPS.

Images are channels-last, [..., H, W, C], with values in 0..1, unless a function states otherwise.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.arguments import number, shown
from renderers.files import file_path
from zoo.metrics.backbones import BACKBONES, Folder, NotComputed, load_state
from zoo.metrics.checks import check_floats, check_tensors
from zoo.seeds import untouched

LOWEST_MSE = 1e-10  # caps the PSNR of identical images at 100 dB instead of infinity
# SSIM's window and stabilising constants (Wang et al. 2004, §III.C), for values in 0..1.
SSIM_WINDOW, SSIM_SIGMA, SSIM_C1, SSIM_C2 = 11, 1.5, 0.01**2, 0.03**2


def check_same(function: str, image: Tensor, target: Tensor) -> None:
    """Check that two images are tensors of one shape and device."""
    check_tensors(function, "...", image=image, target=target)


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over all elements: the colour loss, and on alpha the mask loss."""
    check_same("squared_error", image, target)
    return (image - target).square().mean()


def psnr_from_mse(mse: Tensor | float, lowest: float = LOWEST_MSE) -> float:
    """Peak signal-to-noise ratio in dB, −10 log₁₀ MSE, for values in 0..1.

    Args:
        mse: mean squared error. A tensor is evaluated in its own precision, a float in double precision.
        lowest: smaller errors count as this one, which bounds the result; 0 leaves it unbounded.
    """
    lowest = number(lowest, "psnr_from_mse: lowest", 0.0)
    if isinstance(mse, Tensor):
        check_tensors("psnr_from_mse", "...", mse=mse)
        if mse.numel() != 1:
            raise ValueError(f"psnr_from_mse: mse: expected one value, got {shown(mse)}")
        return float(-10 * mse.clamp(min=lowest).log10())
    if not isinstance(mse, float) or mse < 0:  # NaN passes, and gives NaN
        mse = number(mse, "psnr_from_mse: mse", 0.0)
    return -10 * math.log10(max(mse, lowest)) if mse or lowest else math.inf


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the mean squared error over all elements; at most 100."""
    return psnr_from_mse(float(squared_error(image, target)))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image, [...]; 1 for identical images (Wang et al. 2004, eq. 13).

        mean over windows and channels of (2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂))

    In −1..1. Images are floats [..., H, W, C] in 0..1, with C₁ = 0.01² and C₂ = 0.03².

    Gaussian window of 11 pixels, σ = 1.5, evaluated where the whole window is inside the image, as in the original.
    The window shrinks to the size of smaller images.
    """
    check_floats("ssim", image=image, target=target)
    check_tensors("ssim", "... H W C", image=image, target=target)
    *batch, height, width, channels = image.shape
    size = min(SSIM_WINDOW, height, width)
    offsets = torch.arange(size, device=image.device, dtype=image.dtype) - (size - 1) / 2
    window = (-offsets.square() / (2 * SSIM_SIGMA**2)).exp()
    window = window / window.sum()
    a, b = (t.reshape(-1, height, width, channels).permute(0, 3, 1, 2).flatten(0, 1) for t in (image, target))
    stack = torch.stack([a, b, a * a, b * b, a * b])
    # All five moments of all images as channels of one image: several times faster on a CPU than a batch.
    planes = stack.flatten(0, 1)[None]
    for shape in ((1, 1, 1, size), (1, 1, size, 1)):
        planes = F.conv2d(
            planes, window.view(shape).expand(planes.shape[1], -1, -1, -1), groups=planes.shape[1]
        )
    mean_a, mean_b, aa, bb, ab = planes[0].unflatten(0, (5, -1))
    # Eq. 13: (2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2)).
    variances = aa - mean_a**2 + bb - mean_b**2 + SSIM_C2
    covariance = 2 * (ab - mean_a * mean_b) + SSIM_C2
    values = (2 * mean_a * mean_b + SSIM_C1) * covariance / ((mean_a**2 + mean_b**2 + SSIM_C1) * variances)
    return values.mean((-1, -2)).unflatten(0, (-1, channels)).mean(1).reshape(batch)


def lpips(image: Tensor, target: Tensor, *, weights: Folder | None = None) -> Tensor:
    """Perceptual distance (Zhang et al. 2018, eq. 1, VGG-16), mean over images [..., H, W, 3] in 0..1.

        Σ_l mean_{h, w} ‖w_l ∘ (ŷ_l − ŷ⁰_l)‖²

    with the features ŷ_l of 5 layers of VGG-16, normalised over channels, and the package's weights w_l.

    Args:
        image: of sides of at least 16 pixels.
        target: of the same shape.
        weights: folder with "vgg16" of `BACKBONES`; None is torchvision's download.

    Returns:
        A scalar, at least 0; 0 for identical images.

    Raises:
        NotComputed: the package or its backbone's published weights are missing; see `lpips_network`.
    """
    check_floats("lpips", image=image, target=target)
    check_tensors("lpips", "... H W 3", image=image, target=target)
    a, b = (t.reshape(-1, *t.shape[-3:]).movedim(-1, 1) * 2 - 1 for t in (image, target))
    folder = None if weights is None else str(file_path(weights, "lpips: weights"))
    return lpips_network(image.device, folder)(a, b).mean()


@cache
def lpips_network(device: torch.device, weights: str | None = None) -> nn.Module:
    """The LPIPS network with frozen weights, loaded once per device and folder of weights.

    Raises:
        NotComputed: the package lpips or the weights of VGG-16 are missing.
    """
    try:
        from lpips import LPIPS

        state = load_state("vgg16", weights) if weights else None
        with untouched():
            network = LPIPS(net="vgg", verbose=False, pnet_rand=state is not None)
    except (ImportError, OSError) as error:
        raise NotComputed(
            f"not computed: needs {BACKBONES['vgg16'].needs} and the package lpips ({type(error).__name__}: {error}). "
            f"Put the file, which torchvision publishes as vgg16-397923af.pth, in {torch.hub.get_dir()}/checkpoints, "
            "or train without: LossWeights(lpips=0)"
        ) from error
    if state is not None:
        # The package's five slices keep the layers' indices in VGG-16's sequence of features.
        names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
        network.net.load_state_dict({name: state[source] for name, source in names.items()})
    return network.requires_grad_(False).eval().to(device)


class Autoencoder(Protocol):
    """The part of diffusers' `AutoencoderKL` that `reconstruction_psnr` uses."""

    def encode(self, x: Tensor, /) -> Any:
        """Images [N, 3, H, W] in −1..1 to an output with `latent_dist.mean`."""

    def decode(self, z: Tensor, /) -> Any:
        """Latents to an output with `sample`, images [N, 3, H, W]."""


@torch.no_grad()
def reconstruction_psnr(autoencoder: Autoencoder, frames: Tensor) -> float:
    """PSNR in dB of images [..., 3, H, W] in −1..1 after encoding and decoding, over all of their pixels."""
    check_floats("reconstruction_psnr", frames=frames)
    check_tensors("reconstruction_psnr", "... 3 H W", frames=frames)
    images = frames.reshape(-1, *frames.shape[-3:])
    decoded = torch.cat(
        [autoencoder.decode(autoencoder.encode(batch).latent_dist.mean).sample for batch in images.split(64)]
    )
    return psnr_from_mse(((decoded.clamp(-1, 1) - images) / 2).square().mean(), lowest=0.0)
