"""What MV-VDM is learnt by: find the noise in all frames but the first, which is shown clean (methods §2.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from renderers.cameras import MVVDM_MIRROR
from zoo.mvvdm.schedule import STEPS, signal_at
from zoo.mvvdm.unet import MVVDMUNet

if TYPE_CHECKING:
    from zoo.mvvdm.pipeline import MVVDMPipeline

CAPTION_DROPOUT = 0.1
_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


class Encoded(NamedTuple):
    """What frozen encoders make of examples.

    Attributes:
        latents: [B, V, T, C, h, w], scaled. text: [B, L, D].
        image: [B, V, E], of each view's first frame, or None for a network without an IP-Adapter.
    """

    latents: Tensor
    text: Tensor
    image: Tensor | None


Generators = Sequence[torch.Generator]  # one an example
Encode = Callable[[Tensor, Sequence[str], Generators], Encoded]


def drawn(draw: Callable[..., Tensor], shape: Sequence[int], generators: Generators) -> Tensor:
    """[B, *shape], on the CPU: each example's own, by `torch.randn` or the like, whatever it is computed with."""
    return torch.stack([draw(tuple(shape), generator=generator) for generator in generators])


def sent(tensor: Tensor, to: Tensor) -> Tensor:
    """On the device of another. A GPU goes on with its work meanwhile, and this process with its own."""
    if tensor.device == to.device:
        return tensor
    return tensor.pin_memory().to(to.device, non_blocking=True)


def diffuse(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """√ᾱ·latents + √(1 − ᾱ)·noise. `timestep`: [B], int64; the others [B, …]."""
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
    """The loss of examples: mean squared error of the noise in all frames but the first.

    They have `frames` [B, V, T, 3, H, W] in -1..1, `caption`, B sentences, and `camera` [B, V, 16]. One time step
    an object, noise of its own for each view and frame; one caption in ten is left out.

    Args:
        encode: frames, captions and generators → `Encoded`; frozen, and no part of this module.
        prediction_type: the scheduler's; what stands in for the noise above, see `target`.
        timestep_power: 1 draws all time steps alike; 0.5 one of the noisier half three times as often as one of the
            other, where only the sentence tells what happens.
        mirrored: show half of the examples that tell of a side as in a mirror, with "left" and "right" exchanged in the
            sentence. One that does not may have a side all the same, such as the paw that is lifted first.
    """

    def __init__(
        self,
        unet: MVVDMUNet,
        encode: Encode,
        caption_dropout: float = CAPTION_DROPOUT,
        prediction_type: str = "epsilon",
        timestep_power: float = 1.0,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.caption_dropout, self.prediction_type = caption_dropout, prediction_type
        self.timestep_power, self.mirrored = timestep_power, mirrored
        self._encode = (encode,)  # a module in a tuple is nobody's part

    def forward(self, examples: Mapping[str, Any], generators: Generators) -> Tensor:
        frames, captions, camera = (examples[name] for name in ("frames", "caption", "camera"))
        if self.mirrored:
            frames, captions, camera = mirror(
                frames, captions, camera, drawn(torch.rand, (), generators) < 0.5
            )
        left_out = drawn(torch.rand, (), generators) < self.caption_dropout
        captions = ["" if out else caption for caption, out in zip(captions, left_out, strict=True)]
        with torch.no_grad():
            latents, text, image = self._encode[0](frames, captions, generators)
        timestep = (STEPS * drawn(torch.rand, (), generators) ** self.timestep_power).long()
        timestep = sent(timestep, latents)
        noise = sent(drawn(torch.randn, latents.shape[1:], generators), latents)
        noisy = diffuse(latents, noise, timestep)
        noisy[:, :, 0] = latents[:, :, 0]
        found = self.unet(noisy, timestep, text, camera, image)
        wanted = target(self.prediction_type, latents, noise, timestep)
        return (found[:, :, 1:].float() - wanted[:, :, 1:].float()).square().mean()

    def parts(self) -> Iterator[nn.Module]:
        """What FSDP gathers and lets go of as wholes: each layer's blocks, and at last the network around them."""
        for stage in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            yield from (*stage.resnets, *stage.attentions, *stage.motion_modules)
        yield self.unet


def mirror(
    frames: Tensor, captions: Sequence[str], camera: Tensor, which: Tensor
) -> tuple[Tensor, list[str], Tensor]:
    """Frames, captions and cameras of examples; of those that `which`, bool [B], names and that tell of a side as in a
    mirror.
    """
    exchanged = [_exchanged(caption) for caption in captions]
    which = which & torch.tensor([one != other for one, other in zip(captions, exchanged, strict=True)])
    captions = [
        there if turned else here for here, there, turned in zip(captions, exchanged, which, strict=True)
    ]
    which, signs = sent(which, frames), sent(torch.from_numpy(MVVDM_MIRROR).to(camera.dtype), camera)
    frames = torch.where(which.view(-1, 1, 1, 1, 1, 1), frames.flip(-1), frames)
    return frames, captions, torch.where(which.view(-1, 1, 1), camera * signs, camera)


def _exchanged(sentence: str) -> str:
    """Left for right: "waves its left paw" → "waves its right paw"."""
    return re.sub(rf"\b({'|'.join(_SIDES)})\b", lambda word: _SIDES[word[0]], sentence)


def encoder_of(pipeline: MVVDMPipeline) -> Encode:
    """The frozen encoders of a pipeline, as `Denoising` asks them: latents are samples, not means, as published."""

    def encode(frames: Tensor, captions: Sequence[str], generators: Generators) -> Encoded:
        vae = pipeline.vae
        posterior = vae.encode(frames.flatten(0, 2)).latent_dist
        latents = posterior.mean.unflatten(0, frames.shape[:3])
        if not posterior.deterministic:
            noise = sent(drawn(torch.randn, latents.shape[1:], generators), latents).to(latents)
            latents = latents + posterior.std.view_as(latents) * noise
        latents = latents * vae.config.scaling_factor
        image = None
        if pipeline.unet.config.image_embed_dim is not None:
            image = torch.stack([pipeline.encode_image(pictures(views[:, 0])) for views in frames])
        text = sent(pipeline.encode_prompt(captions), frames)
        return Encoded(latents.float(), text, image)

    return encode


def pictures(frames: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in -1..1 as CLIP's preprocessing wants them: 8 bits, which it scales itself."""
    pixels = ((frames + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
