"""A small MV-VDM of the real classes: CLIP, autoencoder and network, and its files in the published layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.parts import kind
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.unet import MVVDMUNet

CONFIG = MVVDMConfig(
    block_out_channels=(16, 32),
    attention_levels=(True, False),
    layers_per_block=1,
    num_heads=2,
    norm_num_groups=8,
    cross_attention_dim=16,
    image_embed_dim=12,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def text_parts() -> dict[str, object]:
    """CLIP's text classes, with a tokenizer that splits words into letters."""
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=20)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=20, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config).eval()}


def image_parts() -> dict[str, object]:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56,
        projection_dim=12,
    )  # fmt: skip
    return {
        "image_encoder": CLIPVisionModelWithProjection(config).eval(),
        "feature_extractor": CLIPImageProcessor(),
    }


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
    ).eval()  # fmt: skip


def unet() -> MVVDMUNet:
    """An untrained network whose adapters are not zero."""
    model = MVVDMUNet(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.trainable_parameters():
            if "_i2v." in name:
                parameter += 0.1 * torch.randn(parameter.shape)
    return model


def pictures(V: int = 4, size: int = 20) -> np.ndarray:
    """Straight alpha, transparent in the upper half."""
    images = np.random.default_rng(0).integers(0, 256, (V, size, size, 4), dtype=np.uint8)
    images[..., 3] = 255
    images[:, : size // 2, :, 3] = 0
    return images


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_pipeline() -> MVVDMPipeline:
    torch.manual_seed(0)
    pipeline = MVVDMPipeline(
        autoencoder(), unet(), mvvdm_scheduler(), **text_parts(), **image_parts(), num_frames=4, resolution=16
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write_parts(pipeline: MVVDMPipeline, root: Path) -> dict[str, Path]:
    """Write a pipeline as the folders that its parts have on the hub.

    Returns:
        "mvdream", "ip_adapter", "released" and "motion_adapter" → folder.
    """
    folders = {name: root / name for name in ("mvdream", "ip_adapter", "released", "motion_adapter")}
    for folder in (folders["mvdream"] / "unet", folders["ip_adapter"] / "models"):
        folder.mkdir(parents=True)
    for name in ("released", "motion_adapter"):
        folders[name].mkdir()
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(pipeline, name).save_pretrained(folders["mvdream"] / name)
    pipeline.image_encoder.save_pretrained(folders["ip_adapter"] / "models" / "image_encoder")
    files: dict[str, dict[str, torch.Tensor]] = {name: {} for name in folders}
    blocks = (
        "down_blocks.0.attentions.0",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
        "mid_block.attentions.0",
    )
    for name, tensor in pipeline.unet.state_dict().items():
        if kind(name) == "motion":
            files["motion_adapter"][name] = tensor
        if "_ip." in name:
            number = 2 * next(i for i, block in enumerate(blocks) if name.startswith(block)) + 1
            last = name.split(".", 6)[-1].removeprefix("attn2.")
            files["ip_adapter"][f"ip_adapter.{number}.{last}"] = tensor
        elif name.startswith("image_projection."):
            theirs = name.replace("image_projection.", "image_proj.").replace("image_embeds.", "proj.")
            files["ip_adapter"][theirs] = tensor
        elif "_i2v." in name or ".motion_modules." in name:
            for own in ("to_q_i2v", "to_out_i2v", "to_q_sp", "to_k_sp", "to_v_sp", "to_out_sp"):
                name = name.replace(own, f"processor.{own}")
            files["released"][name.replace("mix_factor", "processor.alpha_blender.mix_factor")] = tensor
        else:
            files["mvdream"][name] = tensor
    weights = "diffusion_pytorch_model.safetensors"
    save_file(files["mvdream"], folders["mvdream"] / "unet" / weights)
    save_file(files["ip_adapter"], folders["ip_adapter"] / "models" / "ip-adapter_sd15.safetensors")
    save_file(files["released"], folders["released"] / "animate3d_motion_modules.safetensors")
    save_file(files["motion_adapter"], folders["motion_adapter"] / weights)
    return folders
