"""The configuration of an MV-VDM network, with presets. It needs neither torch nor diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from renderers.fields import Count, OneOf, check_fields

ADAPTERS = ("released", "paper", "none")


@dataclass(frozen=True)
class MVVDMConfig:
    """Sizes and options of `MVVDMUNet`. Numbers of views and frames and the resolution are taken from its input.

    Attributes:
        in_channels: channels of the latents, input and output.
        block_out_channels: channels of each level, finest first. The side is halved between levels.
        attention_levels: which levels have spatial transformers (multi-view, text and image attention). All levels have
            motion modules.
        layers_per_block: layers of an encoder level; decoder levels have one more.
        num_heads: heads of every attention layer.
        norm_num_groups: groups of every group normalisation.
        cross_attention_dim: D, dimension of the prompt tokens.
        image_embed_dim: E, dimension of the image embedding of a view; None for a network without an IP-Adapter, which
            is conditioned on the object by its clean first frame only.
        image_tokens: number of tokens that the image embedding is projected to.
        from_first: predict the change from the clean first frame, which is also an input at every frame
            (`MVVDMUNet` has the equations); for networks trained from scratch. Untrained, such a network outputs the
            still first frame, so it must be trained with prediction_type "sample".
        sentence: the prompt has one token per clause (`zoo.mvvdm.sentences`). Its embedding for each view and frame is
            added to the time step's embedding, and cross-attention sees the sum of the clauses as one token.
            `MVVDMUNet.whitening` must be fitted to the training clauses.
        adapter: how the MV2V-Adapter's output is combined with the attention's, "paper" or "released", see
            `zoo.mvvdm.attention.MultiViewAttention`. The published weights need "released". "none" = ablation without
            the adapter.
        spatial: False = ablation without the spatial branch of `zoo.mvvdm.attention.SpatiotemporalAttention`: the
            motion modules are AnimateDiff's (Animate3D, Table 3a, "w/o S.T. Att.").
    """

    in_channels: Count = 4
    block_out_channels: tuple[Count, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: Count = 2
    num_heads: Count = 8
    norm_num_groups: Count = 32
    cross_attention_dim: Count = 768
    image_embed_dim: Count | None = 1024
    image_tokens: Count = 4
    from_first: bool = False
    sentence: bool = False
    adapter: Annotated[str, OneOf(*ADAPTERS)] = "released"
    spatial: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.block_out_channels:
            raise ValueError("MVVDMConfig.block_out_channels: expected at least one level, got none")
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError(
                f"MVVDMConfig.attention_levels: expected one entry for each of the {len(self.block_out_channels)} "
                f"levels of block_out_channels, got {self.attention_levels}"
            )
        for channels in self.block_out_channels:
            # Multiples of 4: encode_place has half of the channels for rows and half for columns, each sine and cosine.
            if channels % self.num_heads or channels % self.norm_num_groups or channels % 4:
                raise ValueError(
                    f"MVVDMConfig.block_out_channels: expected multiples of 4, of num_heads {self.num_heads} and of "
                    f"norm_num_groups {self.norm_num_groups}, got {channels}"
                )

    @staticmethod
    def base() -> MVVDMConfig:
        """The published size: Stable Diffusion 1.5 with 1.5 billion parameters in total, for 256 px."""
        return MVVDMConfig()

    @staticmethod
    def tiny() -> MVVDMConfig:
        """A network of 11 million parameters for one CPU core: eight frames at 64 px, latents of 8 × 8.

        It uses MiniLM for prompts, no CLIP, and the latents of `zoo.mvvdm.autoencoder.PatchAutoencoder`.
        """
        return MVVDMConfig(
            in_channels=24,
            block_out_channels=(64, 128, 128),
            attention_levels=(False, True, True),
            layers_per_block=1,
            num_heads=4,
            cross_attention_dim=387,
            image_embed_dim=None,
            from_first=True,
            sentence=True,
        )
