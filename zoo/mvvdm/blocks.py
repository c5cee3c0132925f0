"""The blocks of MV-VDM's UNet: transformers, motion modules, and the stages of one resolution each.

Feature maps are [B·V·T, C, H, W], tokens [B, V, T, H, W, C]; letters as in `zoo.mvvdm.attention`. Each layer is a
residual block, a spatial transformer, and a motion module ("after the cross-attention", Animate3D §3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from torch import Tensor, nn

from renderers.values import by_value
from zoo.mvvdm.attention import MultiViewAttention, SpatiotemporalAttention, TextImageAttention
from zoo.mvvdm.config import MVVDMConfig


@by_value
class LayerConditions(NamedTuple):
    """The inputs of every layer besides its feature map.

    Attributes:
        views: V.
        frames: T; with V, it splits the batch dimension of [B·V·T, …].
        embedding: [B·V·T, E], the sum of the embeddings of time step and camera (and sentence).
        text: prompt tokens [B, L, D].
        image: image tokens [B, V, M, D] of each view's first frame, or None.
        motion: False skips the motion modules.
    """

    views: int
    frames: int
    embedding: Tensor
    text: Tensor
    image: Tensor | None
    motion: bool


class SpatialBlock(nn.Module):
    """Transformer block: multi-view attention, cross-attention and feed-forward, each pre-norm and residual."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        image = config.image_embed_dim is not None
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = MultiViewAttention(channels, config.num_heads, config.adapter)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = TextImageAttention(channels, config.num_heads, config.cross_attention_dim, image)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, condition: LayerConditions) -> Tensor:
        """Apply the block to tokens [B, V, T, H, W, C]; the shape is kept."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), condition.text, condition.image)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """`SpatialBlock` between two 1×1 convolutions, with a residual connection around all three."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, config)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, condition: LayerConditions) -> Tensor:
        """Apply the transformer to a feature map [B·V·T, C, H, W]; the shape is kept."""
        x = self.proj_in(self.norm(features)).unflatten(0, (-1, condition.views, condition.frames))
        x = self.transformer_blocks[0](x.permute(0, 1, 2, 4, 5, 3), condition)
        return self.proj_out(x.permute(0, 1, 2, 5, 3, 4).flatten(0, 2)) + features


class MotionBlock(nn.Module):
    """Transformer block: spatiotemporal attention twice and feed-forward, each pre-norm and residual."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SpatiotemporalAttention(channels, config.num_heads, config.spatial)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = SpatiotemporalAttention(channels, config.num_heads, config.spatial)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to tokens [B, V, T, H, W, C]; the shape is kept."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class MotionModule(nn.Module):
    """`MotionBlock` between two linear layers, with a residual connection around all three (AnimateDiff's shell)."""

    def __init__(self, channels: int, config: MVVDMConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, config)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, condition: LayerConditions) -> Tensor:
        """Apply the module to a feature map [B·V·T, C, H, W]; the shape is kept."""
        V, T = condition.views, condition.frames
        # As in AnimateDiff, the statistics of the normalisation are taken over all frames of a view.
        x = self.norm(features.unflatten(0, (-1, T)).transpose(1, 2))  # [B·V, C, T, H, W]
        x = self.proj_in(x.unflatten(0, (-1, V)).permute(0, 1, 3, 4, 5, 2))
        x = self.proj_out(self.transformer_blocks[0](x))
        return x.permute(0, 1, 2, 5, 3, 4).flatten(0, 2) + features


def residual_block(inputs: int, out: int, embedding: int, config: MVVDMConfig) -> ResnetBlock2D:
    """Stable Diffusion's residual block; the embedding [B·V·T, E] is added between its two convolutions.

    Args:
        inputs, out: channels.
        embedding: E.
    """
    return ResnetBlock2D(
        in_channels=inputs,
        out_channels=out,
        temb_channels=embedding,
        groups=config.norm_num_groups,
        eps=1e-5,
    )


class Stage(nn.Module):
    """Layers at one resolution: residual block, spatial transformer (where the level has them), motion module.

    Args:
        inputs: input channels of each layer's residual block.
        out: output channels of all layers.
        embedding: E.
        attention: whether the layers have spatial transformers.
    """

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by diffusers' enable_gradient_checkpointing()

    def __init__(
        self, inputs: list[int], out: int, embedding: int, attention: bool, config: MVVDMConfig
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(SpatialTransformer(out, config) for _ in inputs if attention)
        self.resnets = nn.ModuleList(residual_block(channels, out, embedding, config) for channels in inputs)
        self.motion_modules = nn.ModuleList(MotionModule(out, config) for _ in inputs)
        self.gradient_checkpointing = False

    def run(self, module: nn.Module, *args: Tensor | LayerConditions) -> Tensor:
        """Call a module; with gradient checkpointing, its activations are recomputed in the backward pass."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(module, *args)
        return module(*args)

    def layer(self, index: int, x: Tensor, condition: LayerConditions) -> Tensor:
        """Apply one layer: [B·V·T, C, H, W] → [B·V·T, out, H, W]."""
        x = self.run(self.resnets[index], x, condition.embedding)
        if self.attentions:
            x = self.run(self.attentions[index], x, condition)
        return self.run(self.motion_modules[index], x, condition) if condition.motion else x


class DownStage(Stage):
    """A level of the encoder. All but the last end with a downsampling convolution of stride 2."""

    def __init__(
        self,
        inputs: list[int],
        out: int,
        embedding: int,
        attention: bool,
        config: MVVDMConfig,
        *,
        last: bool,
    ) -> None:
        super().__init__(inputs, out, embedding, attention, config)
        self.downsamplers = nn.ModuleList([] if last else [Downsample2D(out, use_conv=True, name="op")])

    def forward(self, x: Tensor, condition: LayerConditions) -> list[Tensor]:
        """Return the output of each layer and the downsampled one, for the skip connections."""
        outputs = []
        for index in range(len(self.resnets)):
            outputs.append(x := self.layer(index, x, condition))
        for downsampler in self.downsamplers:
            outputs.append(downsampler(x))
        return outputs


class MiddleStage(Stage):
    """The bottleneck: one layer and a second residual block."""

    def __init__(self, channels: int, embedding: int, config: MVVDMConfig) -> None:
        super().__init__([channels], channels, embedding, True, config)
        self.resnets.append(residual_block(channels, channels, embedding, config))

    def forward(self, x: Tensor, condition: LayerConditions) -> Tensor:
        """Apply the stage to a feature map [B·V·T, C, H, W]; the shape is kept."""
        return self.run(self.resnets[1], self.layer(0, x, condition), condition.embedding)


class UpStage(Stage):
    """A level of the decoder. Each layer's input is concatenated with an encoder output (skip connection)."""

    def __init__(
        self,
        inputs: list[int],
        out: int,
        embedding: int,
        attention: bool,
        config: MVVDMConfig,
        *,
        last: bool,
    ) -> None:
        super().__init__(inputs, out, embedding, attention, config)
        self.upsamplers = nn.ModuleList([] if last else [Upsample2D(out, use_conv=True)])

    def forward(self, x: Tensor, skips: list[Tensor], condition: LayerConditions) -> Tensor:
        """Apply the stage; the encoder outputs that it uses are removed from the end of `skips`."""
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], dim=1), condition)
        for upsampler in self.upsamplers:
            # Not simply twice the size: an odd side was rounded up when it was halved.
            x = upsampler(x, output_size=skips[-1].shape[-2:])
        return x
