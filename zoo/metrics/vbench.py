"""VBench's scores of single videos (Huang et al. 2024; VBench-I2V): consistency, smoothness, aesthetics.

Every view of a clip is a video of its own, and the mean over the views is returned, as Animate3D evaluates. The fifth
score that its tables have, the dynamic degree, is in `zoo.metrics.raft`.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.metrics.amt import interpolate_halfway
from zoo.metrics.backbones import Folder, find_weights, load_network
from zoo.metrics.checks import check_videos
from zoo.metrics.clip import embed_clip

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
SIDE, BATCH = 224, 64
# Arguments of torchvision's VisionTransformer for DINO's ViT-B/16.
DINO = {
    "image_size": SIDE,
    "patch_size": 16,
    "num_layers": 12,
    "num_heads": 12,
    "hidden_dim": 768,
    "mlp_dim": 3072,
}
EMBEDDING = 768  # of CLIP ViT-L/14


def i2v_subject(frames: Tensor, image: Tensor, *, weights: Folder | None = None) -> float:
    """VBench-I2V's subject consistency: does the video show the subject of the input image, and keep it.

        ½ max_i a_i + ½ mean_{i>0} c_i,  a_i = max(0, cos(f, f_i)),  c_i = max(0, cos(f_{i−1}, f_i))

    with the DINO ViT-B/16 features f of the input image and f_i of the frames.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2, square; each view is a video.
        image: input image of each view, [V, 3, H, W] in 0..1, square, of any size.
        weights: folder with "dino-b16" of `BACKBONES`; None is the hub.

    Returns:
        In 0..1, the mean over views; 1 for the input image as a still video.

    Raises:
        NotComputed: the published weights of DINO are missing.
    """
    check_videos("i2v_subject", least=2, frames=frames)
    check_videos("i2v_subject", "V 3 H W", image=image)
    if len(image) != len(frames):
        raise ValueError(f"i2v_subject: image: expected {len(frames)} images, one per view, got {len(image)}")
    features = embed_dino(frames, weights)
    reference = embed_dino(image[:, None], weights)
    to_image = (features * reference).sum(-1).clamp(min=0)
    successive = (features[:, :-1] * features[:, 1:]).sum(-1).clamp(min=0)
    return float((to_image.amax(1) / 2 + successive.mean(1) / 2).mean())


def subject_consistency(frames: Tensor, *, weights: Folder | None = None) -> float:
    """VBench's subject consistency: half the cosines to the previous and to the first frame, mean over frames i > 0.

        mean_{i>0} ½ (max(0, cos(f_{i−1}, f_i)) + max(0, cos(f_0, f_i)))

    with DINO ViT-B/16 features f_i. Standing still scores 1.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2, square.
        weights: see `i2v_subject`.

    Returns:
        In 0..1, the mean over views.
    """
    check_videos("subject_consistency", least=2, frames=frames)
    return _consistency(embed_dino(frames, weights))


def background_consistency(frames: Tensor, *, weights: Folder | None = None) -> float:
    """VBench's background consistency: as `subject_consistency`, with CLIP ViT-B/32's embeddings.

    It applies to videos with a scene. On a uniform background, as objects are rendered here, it measures the object.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2.
        weights: folder with "clip-b32" of `BACKBONES`; None is the hub.

    Returns:
        In 0..1, the mean over views; 1 for a still video.
    """
    check_videos("background_consistency", least=2, frames=frames)
    return _consistency(embed_clip(frames, "clip-b32", weights))


def motion_smoothness(frames: Tensor, *, weights: Folder | None = None) -> float:
    """VBench's motion smoothness: how well AMT-S (Li et al. 2023) re-creates every second frame from its neighbours.

        (255 − mean |x_i − x̂_i|) / 255,  i = 1, 3, 5, …

    with frames x_i and interpolated ones x̂_i in 0..255, both cut to integers, as published. Standing still scores
    near 1.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 3.
        weights: folder with "amt-s" of `BACKBONES`, whose licence is CC BY-NC 4.0; None is the hub.

    Returns:
        In 0..1, the mean over views, of at most 1.

    Raises:
        NotComputed: the published weights of AMT-S are missing, or the package vbench with its code.
    """
    check_videos("motion_smoothness", least=3, frames=frames)
    even = frames[:, ::2]
    pairs = even.shape[1] - 1
    halfway = interpolate_halfway(even[:, :-1].flatten(0, 1), even[:, 1:].flatten(0, 1), weights)
    truth = (frames[:, 1 : 2 * pairs : 2].flatten(0, 1) * 255).round()
    made = (halfway * 255).clamp(0, 255).floor()
    return float(1 - (made - truth).abs().double().mean() / 255)


@torch.no_grad()
def aesthetic_quality(frames: Tensor, *, weights: Folder | None = None) -> float:
    """VBench's aesthetic quality: LAION's linear head on CLIP ViT-L/14 embeddings of unit length, over 10.

    Args:
        frames: [V, T, 3, H, W] in 0..1.
        weights: folder with "clip-l14" and "aesthetic-l14" of `BACKBONES`; None is the hub.

    Returns:
        The mean over all frames, about 0.3..0.7 (the head is not bounded).

    Raises:
        NotComputed: the published weights of the encoder or of the head are missing.
    """
    check_videos("aesthetic_quality", frames=frames)
    find_weights("aesthetic-l14", weights)  # before the encoder is read
    embedded = embed_clip(frames, "clip-l14", weights)
    head = load_network("aesthetic-l14", partial(nn.Linear, EMBEDDING, 1), weights, frames.device)
    return float(head(embedded).double().mean() / 10)


def _consistency(features: Tensor) -> float:
    """Mean cosine to the previous and the first frame; features of unit length [V, T, D]."""
    previous = (features[:, :-1] * features[:, 1:]).sum(-1).clamp(min=0)
    first = (features[:, :1] * features[:, 1:]).sum(-1).clamp(min=0)
    return float((previous + first).mean() / 2)


@torch.no_grad()
def embed_dino(frames: Tensor, weights: Folder | None = None) -> Tensor:
    """DINO's class token of square frames [V, T, 3, H, W] in 0..1, of unit length, [V, T, D].

    The frames are resized to 224 pixels (bilinear, antialiased) and normalised with ImageNet's mean and deviation.
    """
    height, width = frames.shape[-2:]
    if height != width:
        raise ValueError(f"embed_dino: frames: expected square frames, got {width}x{height}")
    network = _dino(weights, frames.device)
    mean, std = (frames.new_tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (MEAN, STD))
    features = []
    for batch in frames.flatten(0, 1).float().split(BATCH):
        images = batch
        if height != SIDE:
            images = F.interpolate(batch, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        features.append(network((images - mean) / std))
    return F.normalize(torch.cat(features), dim=-1).unflatten(0, frames.shape[:2])


def _dino(weights: Folder | None, device: torch.device) -> nn.Module:
    def build() -> nn.Module:
        from torchvision.models.vision_transformer import VisionTransformer

        network: nn.Module = VisionTransformer(**DINO, num_classes=1)
        network.heads = nn.Identity()  # the class token after the last normalisation
        return network

    return load_network("dino-b16", build, weights, device, dino_to_torchvision)


def dino_to_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of DINO's file under the names of torchvision's VisionTransformer."""
    whole = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln",
    }
    parts = {
        "norm1": "ln_1", "attn.qkv.weight": "self_attention.in_proj_weight",
        "attn.qkv.bias": "self_attention.in_proj_bias", "attn.proj": "self_attention.out_proj", "norm2": "ln_2",
        "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        kind, _, rest = name.partition(".")
        prefix, names = "", whole
        if kind == "blocks":
            number, _, name = rest.partition(".")
            prefix, names = f"encoder.layers.encoder_layer_{number}.", parts
        stem, _, suffix = name.rpartition(".")
        renamed[prefix + (names[name] if name in names else f"{names[stem]}.{suffix}")] = tensor
    return renamed
