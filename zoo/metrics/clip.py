"""CLIP similarities between frames (Radford et al. 2021): to the truth, to the input image, and over time.

Images are embedded by the image encoder of OpenAI's CLIP, after resizing the shorter side to 224 pixels (bicubic,
antialiased), a centre crop and CLIP's normalisation. Frames are not rounded to 8 bits in between.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.metrics.backbones import Folder, load_network
from zoo.metrics.checks import check_tensors, check_videos

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE, BATCH = 224, 64
# Arguments of CLIPVisionConfig, as in config.json of the published models; all others are its defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "clip-b32": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "patch_size": 32, "projection_dim": 512, "image_size": SIDE,
    },
    "clip-l14": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14, "projection_dim": 768, "image_size": SIDE,
    },
}  # fmt: skip


def clip_similarity(frames: Tensor, target: Tensor, *, weights: Folder | None = None) -> float:
    """Mean cosine between the CLIP embeddings of frames and the true frames (Consistent4D's protocol; DIMO, table 3).

    Args:
        frames: [V, T, 3, H, W] in 0..1.
        target: the true frames of the same views and times, [V, T, 3, H, W].
        weights: folder with "clip-b32" of `BACKBONES`; None is the hub.

    Returns:
        In −1..1, 1 for equal images.

    Raises:
        NotComputed: the published weights of CLIP ViT-B/32 are missing.
    """
    check_videos("clip_similarity", frames=frames, target=target)
    predicted, expected = (embed_clip(video, "clip-b32", weights) for video in (frames, target))
    return float((predicted * expected).sum(-1).mean())


def clip_reference_similarity(frames: Tensor, image: Tensor, *, weights: Folder | None = None) -> float:
    """CLIP-I: mean cosine between the embeddings of all frames and of one reference image (DIMO, table 2).

    The paper does not name the encoder; this is ViT-B/32, as in `clip_similarity`.

    Args:
        frames: [V, T, 3, H, W] in 0..1.
        image: the input image, [3, H, W] in 0..1, of any size.
        weights: see `clip_similarity`.

    Returns:
        In −1..1.
    """
    check_videos("clip_reference_similarity", frames=frames)
    check_videos("clip_reference_similarity", "3 H W", image=image)
    reference = embed_clip(image[None, None], "clip-b32", weights)
    return float((embed_clip(frames, "clip-b32", weights) * reference).sum(-1).mean())


def clip_frame_consistency(frames: Tensor, *, weights: Folder | None = None) -> float:
    """CLIP-F: mean cosine between the embeddings of successive frames of a view, over all views (DIMO, table 2).

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2.
        weights: see `clip_similarity`.

    Returns:
        In −1..1; 1 for a still video.
    """
    check_videos("clip_frame_consistency", least=2, frames=frames)
    embedded = embed_clip(frames, "clip-b32", weights)
    return float((embedded[:, :-1] * embedded[:, 1:]).sum(-1).mean())


@torch.no_grad()
def embed_clip(frames: Tensor, backbone: str, weights: Folder | None = None) -> Tensor:
    """CLIP's projected image embeddings of frames [V, T, 3, H, W] in 0..1, of unit length, [V, T, D].

    Args:
        frames: the images.
        backbone: "clip-b32" or "clip-l14".
        weights: folder with its weights; None is the hub.
    """
    check_tensors("embed_clip", "V T 3 H W", frames=frames)
    network = _network(backbone, weights, frames.device)
    images = [clip_input(batch) for batch in frames.flatten(0, 1).float().split(BATCH)]
    embedded = torch.cat([network(pixel_values=each).image_embeds for each in images])
    return F.normalize(embedded, dim=-1).unflatten(0, frames.shape[:2])


def clip_input(images: Tensor) -> Tensor:
    """Images [N, 3, H, W] in 0..1 as the encoder's input, [N, 3, 224, 224]."""
    height, width = images.shape[2:]
    longer = int(SIDE * max(height, width) / min(height, width))  # truncated, as by torchvision
    size = (SIDE, longer) if height <= width else (longer, SIDE)
    if size != (height, width):
        images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
    top, left = round((size[0] - SIDE) / 2), round((size[1] - SIDE) / 2)
    images = images[:, :, top : top + SIDE, left : left + SIDE]
    mean, std = (images.new_tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (images - mean) / std


def _network(backbone: str, weights: Folder | None, device: torch.device) -> nn.Module:
    def build() -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        network: nn.Module = CLIPVisionModelWithProjection(CLIPVisionConfig(**CONFIGS[backbone]))
        return network

    def select(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The image encoder's tensors; older files also store the positions' indices."""
        return {
            name: tensor
            for name, tensor in state.items()
            if name.startswith(("vision_model.", "visual_projection.")) and not name.endswith("position_ids")
        }

    return load_network(backbone, build, weights, device, select)
