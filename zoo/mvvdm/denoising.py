"""What MV-VDM is learnt by: find the noise in all frames but the first, which is shown clean (methods §2.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from zoo.mvvdm.schedule import STEPS, signal_at
from zoo.mvvdm.unet import MVVDMUNet

if TYPE_CHECKING:
    from zoo.mvvdm.pipeline import MVVDMPipeline

CAPTION_DROPOUT = 0.1


class Encoded(NamedTuple):
    """What frozen encoders make of examples.

    Attributes:
        latents: [B, V, T, C, h, w], scaled. text: [B, L, D].
        image: [B, V, E], of each view's first frame, or None for a network without an IP-Adapter.
    """

    latents: Tensor
    text: Tensor
    image: Tensor | None


Encode = Callable[[Tensor, Sequence[str], torch.Generator], Encoded]


def diffuse(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """√ᾱ·latents + √(1 − ᾱ)·noise. `timestep`: [B], int64, on the CPU; the others [B, …]."""
    signal = signal_at(timestep, latents)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def target(prediction_type: str, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network is to predict, one of `zoo.mvvdm.plan.PREDICTIONS`; shapes as for `diffuse`.

    "epsilon" is the noise, "sample" the latents, "v_prediction" √ᾱ·noise − √(1 − ᾱ)·latents: mostly the picture where
    there is much noise, mostly the noise where there is little (Salimans and Ho 2022).
    """
    if prediction_type == "v_prediction":
        signal = signal_at(timestep, latents)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents
    return {"epsilon": noise, "sample": latents}[prediction_type]


class Denoising(nn.Module):
    """The loss of an example: mean squared error of the noise in all frames but the first.

    An example has `frames` [B, V, T, 3, H, W] in -1..1, `caption`, B sentences, and `camera` [B, V, 16]. One time step
    an object, noise of its own for each view and frame; one caption in ten is left out.

    Args:
        encode: frames, captions and a generator → `Encoded`; frozen, and no part of this module.
        prediction_type: the scheduler's; what stands in for the noise above, see `target`.
        timestep_power: 1 draws all time steps alike; 0.5 one of the noisier half three times as often as one of the
            other, where only the sentence tells what happens.
    """

    def __init__(
        self,
        unet: MVVDMUNet,
        encode: Encode,
        caption_dropout: float = CAPTION_DROPOUT,
        prediction_type: str = "epsilon",
        timestep_power: float = 1.0,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.caption_dropout, self.prediction_type = caption_dropout, prediction_type
        self.timestep_power = timestep_power
        self._encode = (encode,)  # a module in a tuple is nobody's part

    def forward(self, example: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        left_out = torch.rand(len(example["caption"]), generator=generator) < self.caption_dropout
        captions = ["" if out else caption for caption, out in zip(example["caption"], left_out, strict=True)]
        with torch.no_grad():
            latents, text, image = self._encode[0](example["frames"], captions, generator)
        timestep = (STEPS * torch.rand(len(latents), generator=generator) ** self.timestep_power).long()
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = diffuse(latents, noise, timestep)
        noisy[:, :, 0] = latents[:, :, 0]
        found = self.unet(noisy, timestep.to(latents.device), text, example["camera"], image)
        wanted = target(self.prediction_type, latents, noise, timestep)
        return (found[:, :, 1:].float() - wanted[:, :, 1:].float()).square().mean()

    def parts(self) -> Iterator[nn.Module]:
        """What FSDP gathers and lets go of as wholes: each layer's blocks, and at last the network around them."""
        for stage in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            yield from (*stage.resnets, *stage.attentions, *stage.motion_modules)
        yield self.unet


def encoder_of(pipeline: MVVDMPipeline) -> Encode:
    """The frozen encoders of a pipeline, as `Denoising` asks them: latents are samples, not means, as published."""

    def encode(frames: Tensor, captions: Sequence[str], generator: torch.Generator) -> Encoded:
        vae, device = pipeline.vae, frames.device
        posterior = vae.encode(frames.flatten(0, 2)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        latents = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
        image = None
        if pipeline.unet.config.image_embed_dim is not None:
            image = torch.stack([pipeline.encode_image(pictures(views[:, 0])) for views in frames])
        text = pipeline.encode_prompt(captions).to(device)
        return Encoded(latents.unflatten(0, frames.shape[:3]).float(), text, image)

    return encode


def pictures(frames: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in -1..1 as CLIP's preprocessing wants them: 8 bits, which it scales itself."""
    pixels = ((frames + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
