"""The small MV-VDM overfits one clip, which is then sampled from noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from factory.clips.plan import ClipRecipe, plan_asset
from factory.sources import creatures
from factory.training.mvvdm.recipe import MVVDMRecipe
from renderers import gltf
from renderers.meshes import RenderSettings, render_clip
from renderers.meshes.clip import GREY, composite
from zoo.mvvdm.autoencoder import PatchAutoencoder
from zoo.mvvdm.denoising import Denoising, encoder_of
from zoo.mvvdm.evaluation import TrueClip, sampler
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import train
from zoo.mvvdm.unet import MVVDMUNet
from zoo.text_encoder import MINILM


@pytest.fixture(scope="module")
def clip() -> TrueClip:
    """A cat that rears up: four views, eight frames, 64 px."""
    clip_recipe = ClipRecipe(fps=4, num_frames=8, views=4, resolution=64)
    asset = gltf.load(creatures.build("cat", 7, ["rears-up"]))
    (plan, *_), _ = plan_asset(asset, "cat", clip_recipe, measure=False)
    rendered = render_clip(asset, plan.shot(clip_recipe), RenderSettings())
    return TrueClip("cat", "rears up", composite(rendered.frames, GREY), rendered.cameras)


def psnr(clip: TrueClip, videos: np.ndarray) -> float:
    """PSNR over all frames except the first, which is the model's input."""
    error = (videos[:, 1:].astype(float) - clip.frames[:, 1:]) / 255
    return float(-10 * np.log10((error**2).mean()))


def trained_psnr(clip: TrueClip, steps: int) -> float:
    """PSNR of a sample after `steps` training steps on this clip only."""
    torch.manual_seed(0)
    recipe = MVVDMRecipe.tiny()
    frames = torch.from_numpy(clip.frames).movedim(-1, 2).float()[None] / 127.5 - 1
    vae = PatchAutoencoder()
    vae.fit(frames.flatten(0, 2))
    pipeline = MVVDMPipeline(
        vae, MVVDMUNet(recipe.network), mvvdm_scheduler(recipe.prediction_type), sentence_encoder=MINILM
    )
    pipeline.set_progress_bar_config(disable=True)
    example = {
        "frames": frames,
        "caption": [clip.caption],
        "camera": pipeline.camera_vectors(clip.cameras),
    }
    train(
        Denoising(pipeline.unet, encoder_of(pipeline), prediction_type=recipe.prediction_type),
        lambda first: itertools.repeat(example),
        TrainingPlan(steps=steps, batch=1, learning_rate=1e-3, warmup=20, precision="fp32", ema=0.98),
    )
    return psnr(clip, sampler(pipeline, steps=25, guidance_scale=1.0)(clip))


@pytest.mark.slow
def test_one_clip_is_overfitted(clip):
    """Takes some minutes on one core. An untrained network gives the still first frame, 21.5 dB."""
    assert trained_psnr(clip, 5) < 23
    assert trained_psnr(clip, 400) >= 30
