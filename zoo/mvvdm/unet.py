"""The network of MV-VDM, from the smallest part to the whole: read it beside the paper's §3.1 (Animate3D).

A Stable Diffusion UNet as MVDream re-trained it sees all views of a moment at once. Two things are added and learnt:
the MV2V-Adapter beside each multi-view attention looks at the clean first frame, and after each layer a motion module
lets every place attend over time and every moment over space.

Letters: B objects, V views, T frames, C channels, H W rows and columns of a feature map, L tokens of the text, D their
size. Feature maps are [B·V·T, C, H, W]; tokens [B, V, T, H, W, C]. Parameters have the names of diffusers' files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from torch import Tensor, nn

from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.schedule import signal_at

CAMERA = 16  # numbers of a camera: renderers.cameras.mvvdm_camera_vectors


class Condition(NamedTuple):
    """What every layer is told besides its feature map.

    Attributes:
        views, frames: V and T, by which [B·V·T, …] is taken apart.
        embedding: [B·V·T, E], of time step and camera.
        text: [B, L, D]. image: [B, V, M, D], tokens of each view's first frame, or None.
        motion: False leaves the motion modules out.
    """

    views: int
    frames: int
    embedding: Tensor
    text: Tensor
    image: Tensor | None
    motion: bool


# --- attention -------------------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q·kᵀ/√d)·v for each head.

    Args:
        q: [N, Q, C]. k, v: [N, K, C]. Returns: [N, Q, C], the heads side by side.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The four projections that all three kinds of attention have."""

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim or channels, channels, bias=False)
        self.to_v = nn.Linear(context_dim or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list for the name "to_out.0"


class MultiViewAttention(Attention):
    """MVDream's self-attention over all views of a frame, and the MV2V-Adapter beside it (methods §2.3).

    Frame i asks itself, X^i W_Q to X^i W_K, and by other queries the first frame, X^i W'_Q to X^1 W_K; the first
    frame is clean, so that the second answer tells what the object looks like. At first the adapter adds nothing.
    """

    def __init__(self, channels: int, heads: int, adapter: str) -> None:
        super().__init__(channels, heads)
        self.adapter = adapter
        self.to_q_i2v = nn.Linear(channels, channels, bias=False)
        self.to_out_i2v = nn.Linear(channels, channels)
        self.reset_adapter()

    @torch.no_grad()
    def reset_adapter(self) -> None:
        """As before training: the queries of the frozen attention, and no output."""
        self.to_q_i2v.weight.copy_(self.to_q.weight)
        self.to_out_i2v.weight.zero_()
        self.to_out_i2v.bias.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, V, T, H, W, C] → the same shape."""
        B, V, T, H, W, C = tokens.shape
        x = tokens.transpose(1, 2).reshape(B, T, V * H * W, C)
        k, v = self.to_k(x), self.to_v(x)
        # Frames are examples of their own here …
        own = attend(self.to_q(x).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), self.heads)
        # … and one long row of queries here, because all ask the same frame.
        first = attend(self.to_q_i2v(x).flatten(1, 2), k[:, 0], v[:, 0], self.heads)
        own, first = own.view_as(x), self.to_out_i2v(first.view_as(x))
        if self.adapter == "released":
            out = self.to_out[0](own + first)
        else:
            out = self.to_out[0](own) + first
        return out.view(B, T, V, H, W, C).transpose(1, 2)


class TextImageAttention(Attention):
    """Attention to the sentence, and by IP-Adapter to the picture of the own view (methods §2.4)."""

    def __init__(self, channels: int, heads: int, context_dim: int, image: bool) -> None:
        super().__init__(channels, heads, context_dim)
        if image:
            self.to_k_ip = nn.Linear(context_dim, channels, bias=False)
            self.to_v_ip = nn.Linear(context_dim, channels, bias=False)

    def forward(self, tokens: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
        """[B, V, T, H, W, C] → the same shape.

        Args:
            text: [B, L, D], one for all views and frames. image: [B, V, M, D] or None.
        """
        q = self.to_q(tokens)
        out = attend(q.flatten(1, 4), self.to_k(text), self.to_v(text), self.heads).view_as(tokens)
        if image is not None:
            image = image.flatten(0, 1)
            own = attend(q.flatten(0, 1).flatten(1, 3), self.to_k_ip(image), self.to_v_ip(image), self.heads)
            out = out + own.view_as(tokens)
        return self.to_out[0](out)


class SpatiotemporalAttention(Attention):
    """AnimateDiff's attention over time, a new one over views and places, and their blend (paper eq. 1; methods §2.5).

    The projections without a suffix are the temporal branch's; those of the spatial branch end in "_sp".
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.to_q_sp = nn.Linear(channels, channels, bias=False)
        self.to_k_sp = nn.Linear(channels, channels, bias=False)
        self.to_v_sp = nn.Linear(channels, channels, bias=False)
        self.to_out_sp = nn.Linear(channels, channels)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, V, T, H, W, C] → the same shape."""
        spatial = self.mix_factor.sigmoid()
        return spatial * self.over_space(tokens) + (1 - spatial) * self.over_time(tokens)

    def over_time(self, tokens: Tensor) -> Tensor:
        """Each place of each view by itself."""
        B, V, T, H, W, C = tokens.shape
        x = tokens + encode_time(T, C, tokens.device).to(tokens.dtype)[:, None, None]
        x = x.permute(0, 1, 3, 4, 2, 5).reshape(B * V * H * W, T, C)
        x = self.to_out[0](attend(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))
        return x.view(B, V, H, W, T, C).permute(0, 1, 4, 2, 3, 5)

    def over_space(self, tokens: Tensor) -> Tensor:
        """Each frame by itself, all its views and places at once; nothing says which view is which."""
        B, V, T, H, W, C = tokens.shape
        x = tokens + encode_place(H, W, C, tokens.device).to(tokens.dtype)
        x = x.transpose(1, 2).reshape(B * T, V * H * W, C)
        x = self.to_out_sp(attend(self.to_q_sp(x), self.to_k_sp(x), self.to_v_sp(x), self.heads))
        return x.view(B, T, V, H, W, C).transpose(1, 2)


def encode_time(frames: int, channels: int, device: torch.device | None = None) -> Tensor:
    """AnimateDiff's sinusoid [T, C]: sine and cosine in turn, of t·10000^(−2i/C)."""
    rates = torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10000.0) / channels))
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def encode_place(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sinusoid [H, W, C] of the place in the picture: half of the channels for the row, half for the column.

    Rows and columns count from 1 and end at 2π, so that a picture of any size is encoded alike (methods §2.5).
    """
    half = channels // 2
    rates = 10000.0 ** (-2 * (torch.arange(half, device=device) // 2) / half)

    def along(length: int) -> Tensor:
        angles = torch.arange(1, length + 1, device=device)[:, None] / (length + 1e-6) * 2 * math.pi * rates
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1)

    rows, columns = along(height)[:, None], along(width)[None]
    return torch.cat([rows.expand(height, width, half), columns.expand(height, width, half)], -1)


# --- transformers ----------------------------------------------------------------------------------


class SpatialBlock(nn.Module):
    """Multi-view attention, text and image attention, feed-forward; each normalised before and added after."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        image = config.image_embed_dim is not None
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = MultiViewAttention(channels, config.num_heads, config.adapter)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = TextImageAttention(channels, config.num_heads, config.cross_attention_dim, image)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), condition.text, condition.image)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A `SpatialBlock` on a feature map, between two 1×1 convolutions."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, config)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        x = self.proj_in(self.norm(features)).unflatten(0, (-1, condition.views, condition.frames))
        x = self.transformer_blocks[0](x.permute(0, 1, 2, 4, 5, 3), condition)
        return self.proj_out(x.permute(0, 1, 2, 5, 3, 4).flatten(0, 2)) + features


class MotionBlock(nn.Module):
    """Spatiotemporal attention twice, feed-forward; each normalised before and added after."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SpatiotemporalAttention(channels, config.num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = SpatiotemporalAttention(channels, config.num_heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class MotionModule(nn.Module):
    """A `MotionBlock` on a feature map, between two linear layers; normalised over all frames of a view together."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, config)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        V, T = condition.views, condition.frames
        x = self.norm(features.unflatten(0, (-1, T)).transpose(1, 2))  # [B·V, C, T, H, W]
        x = self.proj_in(x.unflatten(0, (-1, V)).permute(0, 1, 3, 4, 5, 2))
        x = self.proj_out(self.transformer_blocks[0](x))
        return x.permute(0, 1, 2, 5, 3, 4).flatten(0, 2) + features


# --- the UNet --------------------------------------------------------------------------------------


class SentenceEmbedding(nn.Module):
    """What a sentence means for each frame of each view: where in the picture something is to be by then.

    Each clause has a say of its own and they are added up, so that what is known of two clauses is known of both.
    """

    TIME = 32  # numbers of a frame's place in time: `encode_time`

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width + CAMERA + self.TIME, 2 * out)
        self.linear_2 = nn.Linear(2 * out, 2 * out)
        self.linear_3 = nn.Linear(2 * out, out)

    def forward(self, clauses: Tensor, said: Tensor, camera: Tensor, frames: int) -> Tensor:
        """[B, L, D] and [B, V, 16] → [B, V, T, E]; `said`, bool [B, L, 1], names the clauses that there are."""
        (B, L), V, T = clauses.shape[:2], camera.shape[1], frames
        moments = encode_time(T, self.TIME, camera.device).to(camera.dtype)
        told = (clauses[:, :, None, None], camera[:, None, :, None], moments)
        x = torch.cat([each.expand(B, L, V, T, -1) for each in told], dim=-1)
        x = self.linear_3(F.silu(self.linear_2(F.silu(self.linear_1(x)))))
        return (x * said[:, :, None, None]).sum(1)


class Whitening(nn.Module):
    """Tells clauses of one kind apart: "turns left" and "turns right" are nearly the same to a language model.

    What varies more than the average over the clauses it is fitted to is scaled down to it; what varies less is left.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Take mean and spread of these embeddings [N, D]."""
        embeddings = embeddings.double()
        mean = embeddings.mean(0)
        covariance = (embeddings - mean).T @ (embeddings - mean) / len(embeddings)
        variances, axes = torch.linalg.eigh(covariance)
        scales = (variances.clamp(min=0) / variances.mean().clamp(min=1e-12) + 1).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(axes * scales @ axes.T)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[..., D] → the same shape."""
        return (embeddings - self.mean) @ self.matrix


def residual_block(inputs: int, out: int, embedding: int, config: MVVDMConfig) -> ResnetBlock2D:
    """Two convolutions that are told time step and camera between them, as in Stable Diffusion."""
    return ResnetBlock2D(
        in_channels=inputs,
        out_channels=out,
        temb_channels=embedding,
        groups=config.norm_num_groups,
        eps=1e-5,
    )


class Stage(nn.Module):
    """Layers at one resolution: residual block, spatial transformer (if the level has them), motion module.

    Args:
        inputs: channels that each layer's residual block takes. out: channels that all layers give.
        attention: whether there are spatial transformers.
    """

    def __init__(
        self, inputs: list[int], out: int, embedding: int, attention: bool, config: MVVDMConfig
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(SpatialTransformer(out, config) for _ in inputs if attention)
        self.resnets = nn.ModuleList(residual_block(channels, out, embedding, config) for channels in inputs)
        self.motion_modules = nn.ModuleList(MotionModule(out, config) for _ in inputs)
        self.gradient_checkpointing = False

    def run(self, module: nn.Module, *args: Any) -> Tensor:
        """The module's output; with gradient checkpointing it is computed again on the way back."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(module, *args)
        return module(*args)

    def layer(self, index: int, x: Tensor, condition: Condition) -> Tensor:
        """One layer: [B·V·T, C, H, W] → [B·V·T, out, H, W]."""
        x = self.run(self.resnets[index], x, condition.embedding)
        if self.attentions:
            x = self.run(self.attentions[index], x, condition)
        return self.run(self.motion_modules[index], x, condition) if condition.motion else x


class DownStage(Stage):
    """A level on the way down; gives its layers' outputs, and at last the one halved in size."""

    def __init__(self, *args: Any, last: bool) -> None:
        super().__init__(*args)
        out = args[1]
        self.downsamplers = nn.ModuleList([] if last else [Downsample2D(out, use_conv=True, name="op")])

    def forward(self, x: Tensor, condition: Condition) -> list[Tensor]:
        outputs = []
        for index in range(len(self.resnets)):
            outputs.append(x := self.layer(index, x, condition))
        for downsampler in self.downsamplers:
            outputs.append(downsampler(x))
        return outputs


class MiddleStage(Stage):
    """The coarsest level once more: one layer, and a second residual block."""

    def __init__(self, channels: int, embedding: int, config: MVVDMConfig) -> None:
        super().__init__([channels], channels, embedding, True, config)
        self.resnets.append(residual_block(channels, channels, embedding, config))

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        return self.run(self.resnets[1], self.layer(0, x, condition), condition.embedding)


class UpStage(Stage):
    """A level on the way up; each layer takes an output of the way down beside the last one's."""

    def __init__(self, *args: Any, last: bool) -> None:
        super().__init__(*args)
        out = args[1]
        self.upsamplers = nn.ModuleList([] if last else [Upsample2D(out, use_conv=True)])

    def forward(self, x: Tensor, skips: list[Tensor], condition: Condition) -> Tensor:
        """Takes from the end of `skips` what it needs."""
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], dim=1), condition)
        for upsampler in self.upsamplers:
            x = upsampler(x, output_size=skips[-1].shape[-2:])  # a side may be odd
        return x


class MVVDMUNet(ModelMixin, ConfigMixin):
    """MV-VDM's network: predicts the noise in the latents of V videos of one object.

    Attributes:
        config: the fields of the `MVVDMConfig` that it was made of, as diffusers keeps them.
    """

    config_name = "config.json"
    _supports_gradient_checkpointing = True

    def __init__(self, config: MVVDMConfig) -> None:
        super().__init__()
        self.register_to_config(**asdict(config))
        channels, layers = config.block_out_channels, config.layers_per_block
        first, coarsest, embedding = channels[0], channels[-1], 4 * channels[0]

        seen = config.in_channels * (2 if config.from_first else 1)
        self.conv_in = nn.Conv2d(seen, first, 3, padding=1)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, embedding)
        self.camera_embedding = TimestepEmbedding(CAMERA, embedding)
        if config.sentence:
            self.whitening = Whitening(config.cross_attention_dim)
            self.sentence_embedding = SentenceEmbedding(config.cross_attention_dim, embedding)
        if config.image_embed_dim is not None:
            self.image_projection = ImageProjection(
                config.image_embed_dim, config.cross_attention_dim, config.image_tokens
            )

        self.down_blocks = nn.ModuleList()
        skips = [first]
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
        self.conv_out = nn.Conv2d(first, seen, 3, padding=1)
        if config.from_first:
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)

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
        """What it was trained to predict of the sample, the noise or what is in its stead, [B, V, T, C, H, W].

        What is said of the first frame has no meaning.

        Args:
            sample: [B, V, T, C, H, W], latents whose first frame is clean and whose others are noisy.
            timestep: [B] or one for all, 0..999: how noisy; the same for all views and frames of an object.
            text_embeds: [B, L, D]; with `sentence`, a token of zeros says nothing.
            camera: [B, V, 16], see `renderers.cameras.mvvdm_camera_vectors`.
            image_embeds: [B, V, E], one a view, for a model with an IP-Adapter; zeros say nothing.
            motion: False leaves the motion modules out, which makes every frame a picture by itself.

        Raises:
            ValueError: an argument of another shape; which, and what was expected.
        """
        self._check(sample, timestep, text_embeds, camera, image_embeds)
        B, V, T = sample.shape[:3]
        timestep = torch.as_tensor(timestep, device=sample.device).expand(B)
        moment = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        camera = camera.to(sample.dtype)
        embedding = (moment[:, None] + self.camera_embedding(camera))[:, :, None].expand(B, V, T, -1)
        if self.config.sentence:
            said = text_embeds.any(-1, keepdim=True)
            clauses = self.whitening(text_embeds)
            embedding = embedding + self.sentence_embedding(clauses, said, camera, T)
            text_embeds = (clauses * said).sum(1, keepdim=True)
        image = None
        if image_embeds is not None:
            image = self.image_projection(image_embeds.flatten(0, 1)).unflatten(0, (B, V))
        condition = Condition(V, T, embedding.flatten(0, 2), text_embeds, image, motion)

        if self.config.from_first:
            first, root = sample[:, :, :1], signal_at(timestep, sample).sqrt()
            noisy_change = sample[:, :, 1:] - root * first
            change = torch.cat([torch.zeros_like(first), noisy_change], dim=2)
            sample = torch.cat([change, first.expand_as(sample)], dim=3)
        x = self.conv_in(sample.flatten(0, 2))
        skips = [x]
        for block in self.down_blocks:
            skips += block(skips[-1], condition)
        x = self.mid_block(skips[-1], condition)
        for block in self.up_blocks:
            x = block(x, skips, condition)
        x = self.conv_out(F.silu(self.conv_norm_out(x))).unflatten(0, (B, V, T))
        if not self.config.from_first:
            return x
        imagined, believed = x.chunk(2, dim=3)
        return first + imagined + believed * root * change

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the paper trains: MV2V-Adapters and motion modules."""
        for name, parameter in self.named_parameters():
            if "_i2v." in name or ".motion_modules." in name:
                yield name, parameter

    def freeze_backbone(self) -> None:
        """Let gradients reach `trainable_parameters` alone."""
        self.requires_grad_(False)
        for _, parameter in self.trainable_parameters():
            parameter.requires_grad_(True)

    def reset_adapters(self) -> None:
        """Make the MV2V-Adapters as before training; needed after other weights were loaded."""
        for module in self.modules():
            if isinstance(module, MultiViewAttention):
                module.reset_adapter()

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs: Any) -> tuple[dict, dict, dict]:
        """How diffusers makes a model of a config.json; ours takes one argument, not one for each field."""
        known = {f.name: config_dict[f.name] for f in fields(MVVDMConfig) if f.name in config_dict}
        return {"config": MVVDMConfig(**known)}, kwargs, {}

    def _check(
        self, sample: Tensor, timestep: Any, text: Tensor, camera: Tensor, image: Tensor | None
    ) -> None:
        config = self.config
        if sample.ndim != 6 or sample.shape[3] != config.in_channels:
            raise ValueError(
                f"MVVDMUNet: expected sample [B, V, T, {config.in_channels}, H, W], got {list(sample.shape)}"
            )
        B, V = sample.shape[:2]
        wanted = {
            "text_embeds": (text, (B, None, config.cross_attention_dim)),
            "camera": (camera, (B, V, CAMERA)),
            "image_embeds": (image, config.image_embed_dim and (B, V, config.image_embed_dim)),
        }
        for name, (tensor, shape) in wanted.items():
            got = None if tensor is None else tuple(tensor.shape)
            if shape is None or got is None:
                if got != shape:
                    raise ValueError(f"MVVDMUNet: expected {name} {shape}, got {got}")
            elif len(got) != len(shape) or any(w not in (None, g) for g, w in zip(got, shape, strict=True)):
                shown = ", ".join("any" if side is None else str(side) for side in shape)
                raise ValueError(
                    f"MVVDMUNet: expected {name} [{shown}] for sample {list(sample.shape)}, got {list(got)}"
                )
        if isinstance(timestep, Tensor) and timestep.numel() not in (1, B):
            raise ValueError(
                f"MVVDMUNet: expected one timestep or {B}, one an object, got {list(timestep.shape)}"
            )
