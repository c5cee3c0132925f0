"""The attention layers of MV-VDM (Animate3D §3.1).

* `MultiViewAttention`: MVDream's self-attention over all views of a frame, with the MV2V-Adapter in parallel.
* `TextImageAttention`: cross-attention to the prompt, with IP-Adapter's attention to the object's image.
* `SpatiotemporalAttention`: AnimateDiff's temporal attention and a new spatial one, blended.

B objects, V views, T frames, C channels, H × W the size of the feature map, L prompt tokens, M image tokens, D the
dimension of both. Tokens are [B, V, T, H, W, C]. Parameters are named as in diffusers' files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.mvvdm.embeddings import encode_place, encode_time


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head scaled dot-product attention: softmax(q·kᵀ/√d)·v for each head, with d = C / heads.

    Args:
        q: queries [N, Q, C].
        k, v: keys and values [N, K, C].
        heads: number of heads.

    Returns:
        [N, Q, C], the heads concatenated.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The projections W_Q, W_K, W_V (without bias) and W_O shared by the attention layers below.

    Args:
        channels: C.
        heads: number of heads.
        context_dim: D for cross-attention; None for self-attention.
    """

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim or channels, channels, bias=False)
        self.to_v = nn.Linear(context_dim or channels, channels, bias=False)
        self.to_out = nn.ModuleList(
            [nn.Linear(channels, channels)]
        )  # a list, for the parameter name "to_out.0"


class MultiViewAttention(Attention):
    """MVDream's multi-view self-attention with the MV2V-Adapter (Animate3D §3.1, multi-view images conditioning).

    X^i are the V·H·W tokens of frame i over all views. The frozen attention and the adapter compute

        Y  = Attn(X^i W_Q,  X^i W_K, X^i W_V)
        Y' = Attn(X^i W'_Q, X^1 W_K, X^1 W_V)

    where only W'_Q and W'_O belong to the adapter. Frame 1 is clean, so Y' carries the appearance of the object to the
    noisy frames. The outputs are combined in one of two ways:

        "paper"     X_out^i = Y W_O + Y' W'_O
        "released"  X_out^i = (Y + Y' W'_O) W_O        (official code and weights)

    The adapter is initialised with W'_Q = W_Q and W'_O = 0, so that at first it adds nothing.

    Args:
        channels: C.
        heads: number of heads.
        adapter: "paper", "released", or "none" for X_out^i = Y W_O without the adapter's parameters.
    """

    def __init__(self, channels: int, heads: int, adapter: str) -> None:
        super().__init__(channels, heads)
        self.adapter = adapter
        if adapter == "none":
            return
        self.to_q_i2v = nn.Linear(channels, channels, bias=False)  # W'_Q
        self.to_out_i2v = nn.Linear(channels, channels)  # W'_O
        self.reset_adapter()

    @torch.no_grad()
    def reset_adapter(self) -> None:
        """Initialise the adapter, if there is one: W'_Q = W_Q, W'_O = 0."""
        if self.adapter == "none":
            return
        self.to_q_i2v.weight.copy_(self.to_q.weight)
        self.to_out_i2v.weight.zero_()
        self.to_out_i2v.bias.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the attention to tokens [B, V, T, H, W, C]; the shape is kept."""
        B, V, T, H, W, C = tokens.shape
        x = tokens.transpose(1, 2).reshape(B, T, V * H * W, C)
        k, v = self.to_k(x), self.to_v(x)
        # Y: frames do not see each other, so they go into the batch dimension.
        own = attend(self.to_q(x).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), self.heads)
        if self.adapter == "none":
            return self.to_out[0](own.view_as(x)).view(B, T, V, H, W, C).transpose(1, 2)
        # Y': all frames attend to the same keys, so their queries are concatenated instead of repeating k and v.
        first = attend(self.to_q_i2v(x).flatten(1, 2), k[:, 0], v[:, 0], self.heads)
        own, first = own.view_as(x), self.to_out_i2v(first.view_as(x))
        if self.adapter == "released":
            out = self.to_out[0](own + first)
        else:
            out = self.to_out[0](own) + first
        return out.view(B, T, V, H, W, C).transpose(1, 2)


class TextImageAttention(Attention):
    """IP-Adapter's decoupled cross-attention: (Attn(Q, K_text, V_text) + Attn(Q, K_image, V_image)) W_O.

    Args:
        channels: C.
        heads: number of heads.
        context_dim: D.
        image: whether the layer attends to image tokens.
    """

    def __init__(self, channels: int, heads: int, context_dim: int, image: bool) -> None:
        super().__init__(channels, heads, context_dim)
        if image:
            self.to_k_ip = nn.Linear(context_dim, channels, bias=False)
            self.to_v_ip = nn.Linear(context_dim, channels, bias=False)

    def forward(self, tokens: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
        """Apply the attention.

        Args:
            tokens: [B, V, T, H, W, C].
            text: prompt tokens [B, L, D], the same for all views and frames.
            image: image tokens [B, V, M, D], of which each view attends to its own; or None.

        Returns:
            [B, V, T, H, W, C].
        """
        q = self.to_q(tokens)
        out = attend(q.flatten(1, 4), self.to_k(text), self.to_v(text), self.heads).view_as(tokens)
        if image is not None:
            image = image.flatten(0, 1)
            own = attend(q.flatten(0, 1).flatten(1, 3), self.to_k_ip(image), self.to_v_ip(image), self.heads)
            out = out + own.view_as(tokens)
        return self.to_out[0](out)


class SpatiotemporalAttention(Attention):
    """Parallel spatial and temporal attention with an alpha blender (Animate3D §3.1, eq. 1).

        X_out = μ · Attn_s(X_l W_Q^s, X_l W_K^s, X_l W_V^s) W_O^s
                + (1 − μ) · Attn_t(X_r W_Q^t, X_r W_K^t, X_r W_V^t) W_O^t

    X_l are sequences of the V·H·W tokens of one frame, X_r sequences of the T tokens of one position in one view. Each
    branch adds its own position encoding. μ = sigmoid(`mix_factor`) is one learned scalar per layer, initially 0.5.

    The temporal branch is AnimateDiff's and has its parameter names; those of the spatial branch end in "_sp".

    Args:
        channels: C.
        heads: number of heads.
        spatial: False leaves the spatial branch and μ out: X_out is the temporal branch.
    """

    def __init__(self, channels: int, heads: int, spatial: bool = True) -> None:
        super().__init__(channels, heads)
        self.spatial = spatial
        if not spatial:
            return
        self.to_q_sp = nn.Linear(channels, channels, bias=False)
        self.to_k_sp = nn.Linear(channels, channels, bias=False)
        self.to_v_sp = nn.Linear(channels, channels, bias=False)
        self.to_out_sp = nn.Linear(channels, channels)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply both branches to tokens [B, V, T, H, W, C] and blend them; the shape is kept."""
        if not self.spatial:
            return self.over_time(tokens)
        spatial = self.mix_factor.sigmoid()  # μ
        return spatial * self.over_space(tokens) + (1 - spatial) * self.over_time(tokens)

    def over_time(self, tokens: Tensor) -> Tensor:
        """Temporal branch: attention over the frames, separately for each view and position. The shape is kept."""
        B, V, T, H, W, C = tokens.shape
        x = tokens + encode_time(T, C, tokens.device).to(tokens.dtype)[:, None, None]
        x = x.permute(0, 1, 3, 4, 2, 5).reshape(B * V * H * W, T, C)  # X_r
        x = self.to_out[0](attend(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))
        return x.view(B, V, H, W, T, C).permute(0, 1, 4, 2, 3, 5)

    def over_space(self, tokens: Tensor) -> Tensor:
        """Spatial branch: attention over views and positions, separately for each frame. The shape is kept.

        The encoding is the same in all views: only the camera embedding distinguishes views.
        """
        B, V, T, H, W, C = tokens.shape
        x = tokens + encode_place(H, W, C, tokens.device).to(tokens.dtype)
        x = x.transpose(1, 2).reshape(B * T, V * H * W, C)  # X_l
        x = self.to_out_sp(attend(self.to_q_sp(x), self.to_k_sp(x), self.to_v_sp(x), self.heads))
        return x.view(B, T, V, H, W, C).transpose(1, 2)
