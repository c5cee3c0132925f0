"""The denoising network of MV-VDM (Animate3D, Jiang et al., NeurIPS 2024, §3.1).

MVDream's multi-view variant of the Stable Diffusion 1.5 UNet, frozen, with two additions that are trained: the
MV2V-Adapter in parallel to each multi-view attention, which attends to the clean first frame, and after each layer a
motion module of spatiotemporal attention.

To read it beside the paper, begin with `zoo.mvvdm.attention`; `zoo.mvvdm.blocks` puts the layers together and this
module the UNet. Parameters are named as in diffusers' files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from zoo.mvvdm.attention import MultiViewAttention
from zoo.mvvdm.blocks import DownStage, LayerConditions, MiddleStage, UpStage
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.embeddings import CAMERA_DIM, SentenceEmbedding, Whitening
from zoo.mvvdm.schedule import signal_at


class MVVDMUNet(ModelMixin, ConfigMixin):
    """The network: denoises the latents of V videos of one object together.

    With config.from_first, the network is parametrised relative to the clean first frame z^1 (not part of the paper).
    With α = √ᾱ_t and z_t^i the noisy frame i, its input is z^1 and the noisy change d^i = z_t^i − α·z^1, and of its
    outputs u ("imagined") and w ("believed") it predicts the sample

        ẑ_0^i = z^1 + u + w · α · d^i

    Its output layer is initialised with zeros, so that before training ẑ_0^i = z^1, a still video.

    Attributes:
        config: the fields of the `MVVDMConfig` that it was made with, as a diffusers config.

    Args:
        config: sizes and options.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers types it as None
    _supports_gradient_checkpointing = True
    if TYPE_CHECKING:  # diffusers types it as a dict, but its fields are attributes as well

        @property
        def config(self) -> Any: ...

    def __init__(self, config: MVVDMConfig) -> None:
        super().__init__()
        self.register_to_config(**asdict(config))
        channels, layers = config.block_out_channels, config.layers_per_block
        first, coarsest, embedding = channels[0], channels[-1], 4 * channels[0]

        # With from_first, both input (change, first frame) and output (imagined, believed) have twice the channels.
        latent_channels = config.in_channels * (2 if config.from_first else 1)
        self.conv_in = nn.Conv2d(latent_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, embedding)
        self.camera_embedding = TimestepEmbedding(CAMERA_DIM, embedding)  # MVDream's: linear, SiLU, linear
        if config.sentence:
            self.whitening = Whitening(config.cross_attention_dim)
            self.sentence_embedding = SentenceEmbedding(config.cross_attention_dim, embedding)
        if config.image_embed_dim is not None:
            self.image_projection = ImageProjection(
                config.image_embed_dim, config.cross_attention_dim, config.image_tokens
            )

        self.down_blocks = nn.ModuleList()
        skips = [first]  # channels of each encoder output
        for level, out in enumerate(channels):
            last = level == len(channels) - 1
            inputs = [skips[-1], *[out] * (layers - 1)]
            attention = config.attention_levels[level]
            self.down_blocks.append(DownStage(inputs, out, embedding, attention, config, last=last))
            skips += [out] * (layers if last else layers + 1)

        self.up_blocks = nn.ModuleList()
        before = coarsest
        for level, out in reversed(list(enumerate(channels))):
            inputs = [skips.pop() + (before if layer == 0 else out) for layer in range(layers + 1)]
            attention = config.attention_levels[level]
            self.up_blocks.append(UpStage(inputs, out, embedding, attention, config, last=level == 0))
            before = out

        self.mid_block = MiddleStage(coarsest, embedding, config)

        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, latent_channels, 3, padding=1)
        if config.from_first:
            for parameter in self.conv_out.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        text_embeds: Tensor,
        camera: Tensor,
        image_embeds: Tensor | None = None,
        *,
        motion: bool = True,
    ) -> Tensor:
        """Predict the noise, the sample or the velocity, depending on what the network was trained for.

        Args:
            sample: latents [B, V, T, C, H, W]; frame 0 is clean, the others are noisy.
            timestep: [B] or a scalar, 0..999: the noise level, the same for all views and frames of an object.
            text_embeds: prompt tokens [B, L, D]. With config.sentence, tokens of zeros are padding.
            camera: [B, V, 16], see `renderers.cameras.mvvdm_camera_vectors`.
            image_embeds: CLIP embeddings [B, V, E] of each view's first frame, for a network with an IP-Adapter; zeros
                for the unconditional pass of guidance.
            motion: False skips the motion modules, so that every frame is denoised independently.

        Returns:
            [B, V, T, C, H, W]. The prediction for frame 0 is meaningless and to be ignored.

        Raises:
            ValueError: an argument has a wrong shape.
        """
        self._check(sample, timestep, text_embeds, camera, image_embeds)
        B, V, T = sample.shape[:3]
        timestep = torch.as_tensor(timestep, device=sample.device).expand(B)
        condition = self._condition(sample, timestep, text_embeds, camera, image_embeds, motion)
        relative = _relative_to_first(sample, timestep) if self.config.from_first else None
        x = self.conv_in((sample if relative is None else relative.inputs()).flatten(0, 2))
        skips = [x]
        for down in self.down_blocks:
            skips += down(skips[-1], condition)
        x = self.mid_block(skips[-1], condition)
        for up in self.up_blocks:
            x = up(x, skips, condition)
        x = self.conv_out(F.silu(self.conv_norm_out(x))).unflatten(0, (B, V, T))
        return x if relative is None else relative.sample(x)

    def _condition(
        self,
        sample: Tensor,
        timestep: Tensor,
        text: Tensor,
        camera: Tensor,
        image_embeds: Tensor | None,
        motion: bool,
    ) -> LayerConditions:
        """Embed time step [B], cameras, prompt and images; arguments as for `forward`."""
        B, V, T = sample.shape[:3]
        time = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        camera = camera.to(sample.dtype)
        # emb = time_mlp(sinusoid(t)) + camera_mlp(camera), repeated for the T frames, as in MVDream.
        embedding = (time[:, None] + self.camera_embedding(camera))[:, :, None].expand(B, V, T, -1)
        if self.config.sentence:
            present = text.any(-1, keepdim=True)
            clauses = self.whitening(text)
            embedding = embedding + self.sentence_embedding(clauses, present, camera, T)
            text = (clauses * present).sum(1, keepdim=True)  # cross-attention sees the sum as one token
        image = None
        if image_embeds is not None:
            image = self.image_projection(image_embeds.flatten(0, 1)).unflatten(0, (B, V))
        return LayerConditions(V, T, embedding.flatten(0, 2), text, image, motion)

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of what the paper trains: MV2V-Adapters and motion modules (Animate3D §3.1)."""
        for name, parameter in self.named_parameters():
            if "_i2v." in name or ".motion_modules." in name:
                yield name, parameter

    def freeze_backbone(self) -> None:
        """Disable gradients for everything but `trainable_parameters`."""
        self.requires_grad_(False)
        for _, parameter in self.trainable_parameters():
            parameter.requires_grad_(True)

    def reset_adapters(self) -> None:
        """Initialise all MV2V-Adapters; call it after loading other weights into the multi-view attention."""
        for module in self.modules():
            if isinstance(module, MultiViewAttention):
                module.reset_adapter()

    @classmethod
    def extract_init_dict(
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Convert a config.json to constructor arguments: one `MVVDMConfig`, where diffusers expects one per field."""
        known = {f.name: config_dict[f.name] for f in fields(MVVDMConfig) if f.name in config_dict}
        return {"config": MVVDMConfig(**known)}, kwargs, {}

    def _check(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        text: Tensor,
        camera: Tensor,
        image: Tensor | None,
    ) -> None:
        """Raise ValueError if an argument of `forward` has a wrong shape."""
        config = self.config
        if sample.ndim != 6 or sample.shape[3] != config.in_channels:
            raise ValueError(
                f"MVVDMUNet: expected sample [B, V, T, {config.in_channels}, H, W], got {list(sample.shape)}"
            )
        B, V = sample.shape[:2]
        expected: dict[str, tuple[Tensor | None, tuple[int | None, ...] | None]] = {
            "text_embeds": (text, (B, None, config.cross_attention_dim)),
            "camera": (camera, (B, V, CAMERA_DIM)),
            "image_embeds": (image, config.image_embed_dim and (B, V, config.image_embed_dim)),
        }
        for name, (tensor, shape) in expected.items():
            got = None if tensor is None else tuple(tensor.shape)
            if shape is None or got is None:
                if got != shape:
                    raise ValueError(f"MVVDMUNet: expected {name} {shape}, got {got}")
            elif len(got) != len(shape) or any(w not in (None, g) for g, w in zip(got, shape, strict=True)):
                sides = ", ".join("any" if side is None else str(side) for side in shape)
                raise ValueError(
                    f"MVVDMUNet: expected {name} [{sides}] for sample {list(sample.shape)}, got {list(got)}"
                )
        if isinstance(timestep, Tensor) and timestep.numel() not in (1, B):
            raise ValueError(
                f"MVVDMUNet: expected one timestep or {B}, one per object, got {list(timestep.shape)}"
            )


class _RelativeToFirst(NamedTuple):
    """The `from_first` parametrisation of one batch; symbols as in `MVVDMUNet`.

    Attributes:
        first: z^1, [B, V, 1, C, H, W].
        root: α = √ᾱ_t, [B, 1, 1, 1, 1, 1].
        change: d^i, [B, V, T, C, H, W], 0 for frame 0.
    """

    first: Tensor
    root: Tensor
    change: Tensor

    def inputs(self) -> Tensor:
        """Network input [B, V, T, 2C, H, W]."""
        return torch.cat([self.change, self.first.expand_as(self.change)], dim=3)

    def sample(self, output: Tensor) -> Tensor:
        """ẑ_0 [B, V, T, C, H, W] from the network's output [B, V, T, 2C, H, W]."""
        imagined, believed = output.chunk(2, dim=3)
        return self.first + imagined + believed * self.root * self.change


def _relative_to_first(sample: Tensor, timestep: Tensor) -> _RelativeToFirst:
    """Subtract the first frame, scaled to the noise level, from latents [B, V, T, C, H, W]."""
    first, root = sample[:, :, :1], signal_at(timestep, sample).sqrt()
    noisy_change = sample[:, :, 1:] - root * first
    return _RelativeToFirst(first, root, torch.cat([torch.zeros_like(first), noisy_change], dim=2))
