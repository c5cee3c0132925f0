"""Encoders of the MV-VDM pipeline, from prompts, images and cameras to network inputs, and its latent decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from renderers.cameras import Cameras, mvvdm_camera_vectors
from zoo.mvvdm.images import Frames, convert_frames, on_grey
from zoo.mvvdm.moving import MovablePipeline
from zoo.mvvdm.sentences import encode_sentences
from zoo.mvvdm.unet import MVVDMUNet
from zoo.mvvdm.views import condition_views


class MVVDMEncoders(MovablePipeline):
    """The part of `MVVDMPipeline` that converts between the user's data and the network's; see there."""

    # Set by register_modules(). Where a component has several possible classes, or one whose calls are not typed, the
    # constructor of the pipeline names them.
    unet: MVVDMUNet
    text_encoder: CLIPTextModel | None
    image_encoder: CLIPVisionModelWithProjection | None
    vae: Any
    scheduler: Any
    tokenizer: Any
    feature_extractor: Any
    image_processor: Any
    if TYPE_CHECKING:  # diffusers types it as a dict, but its fields are attributes as well

        @property
        def config(self) -> Any: ...

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Encode B prompts as tokens [B, L, D]."""
        if self.text_encoder is None:
            return encode_sentences(prompts, self.config.sentence_encoder)
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    @torch.no_grad()
    def encode_image(self, pictures: Sequence[Image.Image]) -> Tensor | None:
        """CLIP embeddings [V, E] of V images, one per view; None for a model without an IP-Adapter."""
        if self.unet.config.image_embed_dim is None or self.image_encoder is None:
            return None
        pixels = self.feature_extractor(list(pictures), return_tensors="pt").pixel_values
        embeds = self.image_encoder(pixels.to(self._execution_device, self.image_encoder.dtype)).image_embeds
        return embeds.to(self.unet.dtype)

    @torch.no_grad()
    def encode_pictures(
        self, pictures: Sequence[Image.Image], generator: torch.Generator | None = None
    ) -> Tensor:
        """Scaled latents [V, C, h, w] of V images: sampled from the posterior, as in training, not its mean."""
        pixels = self.image_processor.preprocess(list(pictures)).to(self._execution_device, self.vae.dtype)
        posterior = self.vae.encode(pixels).latent_dist
        # Drawn in single precision, so that a seed gives the same noise, here and afterwards, in all precisions.
        noise = randn_tensor(
            posterior.mean.shape, generator=generator, device=pixels.device, dtype=torch.float32
        )
        latents = posterior.mean + posterior.std * noise.to(posterior.mean)
        return (latents * self.vae.config.scaling_factor).to(self.unet.dtype)

    @staticmethod
    def camera_vectors(cameras: Cameras) -> Tensor:
        """The network's camera input [1, V, 16], converted from this package's y-up world to MVDream's z-up."""
        return torch.from_numpy(mvvdm_camera_vectors(cameras)).float()[None]

    def _pictures(self, images: Any, size: int) -> list[Image.Image]:
        """The V condition images on grey, size × size; an asset is rendered first."""
        factor = self.image_processor.config.vae_scale_factor
        if size % factor:
            raise ValueError(
                f"resolution: expected a multiple of {factor}, the autoencoder's downsampling factor, got {size}"
            )
        if isinstance(images, str | os.PathLike) or hasattr(images, "positions"):
            images = condition_views(images, size=size)
        return on_grey(images, size)

    def _decode(self, video: Tensor, output_type: str, at_once: int) -> Frames:
        """Decode latents [V, T, C, h, w], `at_once` frames at a time."""
        latents = video.flatten(0, 1).to(self.vae.dtype) / self.vae.config.scaling_factor
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in latents.split(at_once)])
        pixels = (pixels.float() / 2 + 0.5).clamp(0, 1).unflatten(0, video.shape[:2])
        return convert_frames(pixels, output_type)
