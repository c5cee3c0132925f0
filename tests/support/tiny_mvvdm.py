"""A small MV-VDM, examples that need no encoder, and a worker process of a distributed training of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from zoo.families import capabilities_of
from zoo.mvvdm.autoencoder import PatchAutoencoder
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.denoising import Denoising, Encoded
from zoo.mvvdm.pipeline import MVVDMOutput, MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import CheckpointFile, train
from zoo.mvvdm.unet import MVVDMUNet

CONFIG = MVVDMConfig(
    in_channels=3, block_out_channels=(8, 16), attention_levels=(False, True), layers_per_block=1, num_heads=2,
    norm_num_groups=4, cross_attention_dim=4, image_embed_dim=None,
)  # fmt: skip
PLAN = TrainingPlan(steps=5, batch=3, learning_rate=1e-3, precision="fp32", ema=0.9)
VIEWS, FRAMES, SIZE = 2, 3, 8


def encode(frames: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> Encoded:
    """Use images as latents, and encode a caption as two tokens with entries proportional to its length.

    The two tokens differ: with equal tokens the gradient of the attention is rounding error only, which Adam would
    scale to full steps.
    """
    lengths = torch.tensor([float(len(caption)) for caption in captions])
    tokens = torch.tensor([[1.0, 0.0, 0.5, -1.0], [0.0, 1.0, -0.5, 0.5]])
    return Encoded(frames, tokens * lengths[:, None, None], None)


class VideosOfNothing(MVVDMPipeline):
    """A pipeline without CLIP and without a language model: prompts are embedded as zeros."""

    capabilities = capabilities_of("mvvdm")

    def encode_prompt(self, prompts: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(prompts), 1, CONFIG.cross_attention_dim)

    def animate(self, *arguments: Any, **options: Any) -> MVVDMOutput:
        return super().animate(*arguments, **{"num_inference_steps": 1, **options})


def tiny_videos_pipeline() -> VideosOfNothing:
    """An untrained pipeline with an example of two views, without progress bars."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {"vae": PatchAutoencoder(3, (8,)), "unet": MVVDMUNet(CONFIG), "scheduler": mvvdm_scheduler()}
    pipeline = VideosOfNothing(**parts, sentence_encoder="none", num_frames=3, resolution=8)
    pipeline.set_progress_bar_config(disable=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pipeline.example = {"images": images, "prompt": "hops", "num_inference_steps": 2}
    return pipeline


def objective(seed: int = 0) -> Denoising:
    torch.manual_seed(seed)
    return Denoising(MVVDMUNet(CONFIG), encode)


def examples(step: int, batch: int = PLAN.batch) -> dict[str, Any]:
    """Return the batch of one step, for all workers together: a square that moves to the right."""
    generator = torch.Generator().manual_seed(step)
    frames = torch.zeros(batch, VIEWS, FRAMES, 3, SIZE, SIZE)
    for number in range(batch):
        for frame in range(FRAMES):
            frames[number, :, frame, :, 2:5, number + frame : number + frame + 2] = 1.0
    camera = torch.randn(batch, VIEWS, 16, generator=generator)
    return {"frames": frames, "caption": [f"moves {'on ' * k}" for k in range(batch)], "camera": camera}


def batches(first: int) -> Iterator[dict[str, Any]]:
    """Yield this worker's share of the batch of each step."""
    grouped = dist.is_initialized()
    rank, size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
    for step in range(first, 1000):
        yield {name: values[rank::size] for name, values in examples(step).items()}


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def main() -> None:
    """`tiny_mvvdm.py RANK SIZE MEETING SHARDED STEPS CHECKPOINT`: run one worker of a training group."""
    rank, size, meeting, sharded, steps, checkpoint = sys.argv[1:]
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(size))
    stop = int(steps)

    def some(first: int) -> Iterator[dict[str, Any]]:
        for step, batch in enumerate(batches(first), first):
            if step == stop:
                dist.destroy_process_group()
                sys.exit(0)
            yield batch

    train(
        objective(),
        some,
        PLAN,
        checkpoint=CheckpointFile(Path(checkpoint)),
        save_every=2,
        sharded=sharded == "1",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
