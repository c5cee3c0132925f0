"""The sizes of an MV-VDM: one frozen, JSON-able record, with presets."""

from __future__ import annotations

from dataclasses import dataclass

ADAPTERS = ("released", "paper")


@dataclass(frozen=True)
class MVVDMConfig:
    """Sizes of the network; views, frames and picture size are read from what it is given.

    Attributes:
        in_channels: of the latents, in and out.
        block_out_channels: one number a level, finest first. Between levels the side halves.
        attention_levels: which levels have spatial transformers (multi-view, text and image attention). Motion
            modules are at every level.
        layers_per_block: of a level on the way down; on the way up there is one more.
        num_heads: of every attention. norm_num_groups: of every group normalisation.
        cross_attention_dim: of the text's tokens.
        image_embed_dim: of the image embedding of a view, None for a model without an IP-Adapter, which then knows
            the object by its clean first frame alone. image_tokens: tokens made of it.
        from_first: for a network without a backbone to begin with: each frame sees the clean first frame at its own
            places, and what is found is the change from there: what the network imagines, and the noisy frame as far
            as it believes it. Before training it answers with the still first frame, so it can only be trained to
            predict the latents themselves ("sample").
        sentence: for a text of a token a clause (`zoo.mvvdm.sentences`): what each says, to each frame of each view, is
            added to the time step's embedding, as cameras are; attention has them as one token. `MVVDMUNet.whitening`
            is to be fitted to the clauses of the training.
        adapter: how the MV2V-Adapter's output is composed: "paper" adds it after both projections, "released" sends
            it through the frozen projection as well, as the published weights want it (`MultiViewAttention`).
    """

    in_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    num_heads: int = 8
    norm_num_groups: int = 32
    cross_attention_dim: int = 768
    image_embed_dim: int | None = 1024
    image_tokens: int = 4
    from_first: bool = False
    sentence: bool = False
    adapter: str = "released"

    def __post_init__(self) -> None:
        for name in ("block_out_channels", "attention_levels"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError(
                f"MVVDMConfig.attention_levels: expected one for each of the {len(self.block_out_channels)} levels, "
                f"got {self.attention_levels}"
            )
        if self.adapter not in ADAPTERS:
            raise ValueError(f"MVVDMConfig.adapter: expected one of {ADAPTERS}, got {self.adapter!r}")
        for channels in self.block_out_channels:
            # Half of the channels encode rows and half columns, in pairs of sine and cosine.
            if channels % self.num_heads or channels % self.norm_num_groups or channels % 4:
                raise ValueError(
                    f"MVVDMConfig.block_out_channels: expected multiples of 4, of num_heads {self.num_heads} and of "
                    f"norm_num_groups {self.norm_num_groups}, got {channels}"
                )

    @staticmethod
    def base() -> MVVDMConfig:
        """As published: Stable Diffusion 1.5 in size, 1.5 thousand million parameters; 256 px."""
        return MVVDMConfig()

    @staticmethod
    def tiny() -> MVVDMConfig:
        """For one CPU core: eight frames at 64 px, latents of 8 px. Sentences are MiniLM's; there is no CLIP.

        Its latents are those of `zoo.mvvdm.autoencoder.PatchAutoencoder`.
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
