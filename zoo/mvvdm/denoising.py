"""The training objective of MV-VDM (Animate3D §3.1, training objectives).

Frame 1 is shown clean; frames 2 … f are noised with one time step t per object, and the loss is the mean squared error
of the prediction for these frames:

    z_t^{2:f} = √ᾱ_t · z_0^{2:f} + √(1 − ᾱ_t) · ε
    L = E ‖ ε − ε_θ(z_0^1, z_t^{2:f}, t, y, c)^{2:f} ‖²

z_0 are the latents, y the prompt embedding, c the cameras and ε ~ N(0, 1) noise, independent in each view and frame.
Other prediction types replace ε by another target, see `target`. In code, frames count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from renderers.arguments import flag, instance, number, shown
from renderers.cameras import MVVDM_MIRROR
from renderers.values import by_value
from zoo.mvvdm.images import to_pil
from zoo.mvvdm.plan import PREDICTIONS
from zoo.mvvdm.schedule import STEPS, signal_at
from zoo.mvvdm.unet import MVVDMUNet

if TYPE_CHECKING:
    from zoo.mvvdm.pipeline import MVVDMPipeline

CAPTION_DROPOUT = 0.1
_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


@by_value
class Encoded(NamedTuple):
    """The frozen encoders' output for a batch.

    Attributes:
        latents: z_0, scaled, [B, V, T, C, h, w].
        text: prompt tokens [B, L, D].
        image: CLIP embeddings [B, V, E] of each view's first frame; None for a network without an IP-Adapter.
    """

    latents: Tensor
    text: Tensor
    image: Tensor | None


Generators = Sequence[torch.Generator]  # one per example, on the CPU
Encode = Callable[[Tensor, Sequence[str], Generators], Encoded]


def draw_each(draw: Callable[..., Tensor], shape: Sequence[int], generators: Generators) -> Tensor:
    """Draw random numbers for each example from its own generator.

    An example's numbers do not depend on the rest of its batch.

    Args:
        draw: `torch.rand`, `torch.randn` or the like.
        shape: per example.
        generators: B of them.

    Returns:
        [B, *shape], on the CPU.
    """
    return torch.stack([draw(tuple(shape), generator=generator) for generator in generators])


def to_device_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Copy a CPU tensor to the device of another, asynchronously if that is a GPU."""
    if tensor.device == like.device:
        return tensor
    return tensor.pin_memory().to(like.device, non_blocking=True)


def diffuse(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Add noise: z_t = √ᾱ_t · z_0 + √(1 − ᾱ_t) · ε.

    Args:
        latents: z_0, [B, …].
        noise: ε, [B, …].
        timestep: t, int64 [B], 0..999.

    Returns:
        z_t, [B, …].
    """
    signal = signal_at(timestep, latents)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def target(prediction_type: str, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """The training target for a prediction type.

    Args:
        prediction_type: "epsilon": ε, as in the paper. "sample": z_0. "v_prediction": √ᾱ_t · ε − √(1 − ᾱ_t) · z_0,
            which tends to −z_0 at high noise levels and to ε at low ones (Salimans and Ho 2022).
        latents, noise, timestep: as for `diffuse`.

    Returns:
        [B, …].
    """
    if prediction_type == "v_prediction":
        signal = signal_at(timestep, latents)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents
    return {"epsilon": noise, "sample": latents}[prediction_type]


class Denoising(nn.Module):
    """The loss of a batch; see the module's docstring.

    Args:
        unet: the network.
        encode: frames, captions and generators → `Encoded`; frozen, and not a submodule of this one.
        caption_dropout: probability of replacing a caption by "", for classifier-free guidance.
        prediction_type: what the network predicts, see `target`.
        timestep_power: t = ⌊1000 · u^p⌋, at most 999, with u ~ U(0, 1). p = 1 draws all time steps alike, p = 0.5 draws
            t ≥ 500 three times as often as t < 500: at high noise levels only the caption determines the motion.
        mirrored: mirror half of the examples whose captions contain "left" or "right", and swap these words. Others
            are left as they are, because they may have a side too, such as the paw that is lifted first.
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
        instance(unet, nn.Module, "Denoising: unet")
        if not callable(encode):
            raise TypeError(f"Denoising: encode: expected a function, got {shown(encode)}")
        if not isinstance(prediction_type, str) or prediction_type not in PREDICTIONS:
            raise ValueError(
                f"Denoising: prediction_type: expected one of {', '.join(PREDICTIONS)}, got {prediction_type!r}"
            )
        caption_dropout = number(caption_dropout, "Denoising: caption_dropout", 0.0, 1.0)
        timestep_power = number(timestep_power, "Denoising: timestep_power", above=0.0)
        mirrored = flag(mirrored, "Denoising: mirrored")
        self.unet = unet
        self.caption_dropout, self.prediction_type = caption_dropout, prediction_type
        self.timestep_power, self.mirrored = timestep_power, mirrored
        self._encode = (encode,)  # in a tuple, so that a module is not registered as a submodule

    def forward(self, examples: Mapping[str, Any], generators: Generators) -> Tensor:
        """Compute the loss.

        Args:
            examples: "frames" [B, V, T, 3, H, W] in -1..1, "caption" (B strings) and "camera" [B, V, 16].
            generators: one per example.

        Returns:
            Scalar.
        """
        frames, captions, camera = (examples[name] for name in ("frames", "caption", "camera"))
        if self.mirrored:
            frames, captions, camera = mirror(
                frames, captions, camera, draw_each(torch.rand, (), generators) < 0.5
            )
        dropped = draw_each(torch.rand, (), generators) < self.caption_dropout
        captions = ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
        with torch.no_grad():
            latents, text, image = self._encode[0](frames, captions, generators)
        # The power of a u below 1 may be rounded to 1, hence the limit.
        timestep = STEPS * draw_each(torch.rand, (), generators) ** self.timestep_power
        timestep = timestep.long().clamp(max=STEPS - 1)
        timestep = to_device_of(timestep, latents)
        noise = to_device_of(draw_each(torch.randn, latents.shape[1:], generators), latents)
        noisy = diffuse(latents, noise, timestep)
        noisy[:, :, 0] = latents[:, :, 0]
        predicted = self.unet(noisy, timestep, text, camera, image)
        expected = target(self.prediction_type, latents, noise, timestep)
        return (predicted[:, :, 1:].float() - expected[:, :, 1:].float()).square().mean()

    def parts(self) -> Iterator[nn.Module]:
        """The FSDP units: the blocks of each layer, and last the network, which contains them."""
        stages: list[Any] = [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]
        for stage in stages:
            yield from (*stage.resnets, *stage.attentions, *stage.motion_modules)
        yield self.unet


def mirror(
    frames: Tensor, captions: Sequence[str], camera: Tensor, which: Tensor
) -> tuple[Tensor, list[str], Tensor]:
    """Mirror selected examples, those whose captions mention a side.

    Args:
        frames: [B, V, T, 3, H, W].
        captions: B strings.
        camera: [B, V, 16].
        which: bool [B], on the CPU: the examples to mirror if their captions contain "left" or "right".

    Returns:
        Frames, flipped horizontally; captions, with "left" and "right" swapped; cameras of the mirrored world.
    """
    swapped = [_swap_sides(caption) for caption in captions]
    which = which & torch.tensor([other != caption for caption, other in zip(captions, swapped, strict=True)])
    captions = [
        other if flip else caption for caption, other, flip in zip(captions, swapped, which, strict=True)
    ]
    signs = to_device_of(torch.from_numpy(MVVDM_MIRROR).to(camera.dtype), camera)
    which = to_device_of(which, frames)
    frames = torch.where(which.view(-1, 1, 1, 1, 1, 1), frames.flip(-1), frames)
    return frames, captions, torch.where(which.view(-1, 1, 1), camera * signs, camera)


def _swap_sides(sentence: str) -> str:
    """Swap left and right: "waves its left paw" → "waves its right paw"."""
    return re.sub(rf"\b({'|'.join(_SIDES)})\b", lambda word: _SIDES[word[0]], sentence)


def encoder_of(pipeline: MVVDMPipeline) -> Encode:
    """The frozen encoders of a pipeline, as an argument of `Denoising`.

    Latents are sampled from the autoencoder's posterior, as in the official training, instead of taking its mean.
    """

    def encode(frames: Tensor, captions: Sequence[str], generators: Generators) -> Encoded:
        vae = pipeline.vae
        posterior = vae.encode(frames.flatten(0, 2)).latent_dist
        latents = posterior.mean.unflatten(0, frames.shape[:3])
        if not posterior.deterministic:
            noise = to_device_of(draw_each(torch.randn, latents.shape[1:], generators), latents).to(latents)
            latents = latents + posterior.std.view_as(latents) * noise
        latents = latents * vae.config.scaling_factor
        image = None
        if pipeline.unet.config.image_embed_dim is not None:
            embeds = (pipeline.encode_image(to_pil(views[:, 0])) for views in frames)
            image = torch.stack([each for each in embeds if each is not None])
        text = to_device_of(pipeline.encode_prompt(captions), frames)
        return Encoded(latents.float(), text, image)

    return encode
