"""Stage 2 of Animate3D: refinement of a motion by score distillation from MV-VDM (4D-SDS; §3.3, released code)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import TensorCameras, render
from zoo.animate3d.graph import GraphPose
from zoo.animate3d.hexplane import MotionField
from zoo.animate3d.paper import PICTURES, FieldMotion, carried_by, controls_of, neighbours_on
from zoo.animate3d.rigidity import Neighbours, arap
from zoo.animate3d.solver import Problem
from zoo.animate3d.still_splats import GREY, PIXEL, make_splats, matching_loss, targets
from zoo.mvvdm.denoising import diffuse
from zoo.mvvdm.images import to_pil
from zoo.mvvdm.schedule import signal_at

if TYPE_CHECKING:
    from zoo.mvvdm.pipeline import Conditions, MVVDMPipeline

VIEWS = 4
STEPS = (20, 200)  # noise levels t of 1000 that are drawn, both included
RESCALED = 0.25  # share of ẑ_0 that gets the standard deviation of the conditional prediction


@dataclass(frozen=True)
class RefineSettings:
    """Settings of stage 2; the defaults are the paper's, but for the rates, a tenth of the released code's.

    Steps of Adam are as long as the rates whatever the size of the gradient, so a motion that is right drifts by that
    much in every direction in which noise moves it.

    Attributes:
        side, gaussians: as in `zoo.animate3d.paper.PaperSettings`.
        steps: of the optimiser.
        weight: of 4D-SDS.
        guidance: w in ε_u + w (ε_c - ε_u); the released code's 5 is this minus 1.
        colors: weight of colours in the pictures that hold the motion in place; coverage lets surfaces slide.
        arap, arap_points: as in `zoo.animate3d.paper.PaperSettings`.
        rates: of Adam at the beginning; they fall to zero along a cosine.
        seed: of all random choices.
    """

    side: int = 64
    gaussians: int = 2000
    steps: int = 200
    weight: float = 0.01
    guidance: float = 6.0
    colors: float = 10.0
    arap: float = 5000.0
    arap_points: int = 512
    rates: dict[str, float] = field(default_factory=lambda: {"heads": 1e-5, "grids": 1e-3, "global": 1e-4})
    seed: int = 0


def refined(
    problem: Problem,
    poses: list[GraphPose],
    pipeline: MVVDMPipeline,
    sentence: str,
    settings: RefineSettings | None = None,
) -> list[GraphPose]:
    """Refine poses of a graph with a field that corrects them. Frame 0 stays."""
    settings = settings or RefineSettings()
    frames, cameras = targets(problem.views, settings.side)
    splats = make_splats(problem, settings.gaussians, frames, cameras, settings.seed)
    motion = FieldMotion(
        splats, MotionField(settings.seed), len(frames), controls_of(problem, splats), carried_by(poses)
    )
    refine(motion, neighbours_on(problem, splats), cameras, pipeline, sentence, settings)
    return motion.poses(problem)


def refine(
    motion: FieldMotion,
    neighbours: Neighbours,
    cameras: TensorCameras,
    pipeline: MVVDMPipeline,
    sentence: str,
    settings: RefineSettings | None = None,
) -> None:
    """Optimise the field of a motion so that MV-VDM finds its videos likelier for a sentence.

    Pictures of the motion as it was, from `cameras`, hold it in place.

    Raises:
        ValueError: the motion has fewer frames than the video model.
    """
    settings = settings or RefineSettings()
    count, size = pipeline.config.num_frames, pipeline.config.resolution
    if motion.frames < count:
        raise ValueError(
            f"refine: expected at least {count} frames, as many as the video model has, got {motion.frames}"
        )
    random = np.random.default_rng(settings.seed)
    noise = torch.Generator().manual_seed(settings.seed)
    splats = motion.splats
    everything = torch.arange(1, motion.frames)
    seen = torch.arange(count) * motion.frames // count  # evenly spaced frames from the first
    with torch.no_grad():
        drawn = render(splats.at(motion.moved(everything)), cameras, background=0.0, eps2d=PIXEL)
        anchor = torch.cat([drawn.output("rgb"), drawn.output("alpha")], -1)
    optimizer = torch.optim.Adam(motion.field.groups(settings.rates), eps=1e-15)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.steps, 1))
    for _ in range(settings.steps):
        rig = random_rig(random, size)
        videos = video(motion, seen, rig)
        latents = encode(pipeline, videos)
        conditions = condition(pipeline, videos, sentence, rig)
        timestep = int(random.integers(STEPS[0], STEPS[1] + 1))
        aim = likelier(pipeline, latents.detach(), conditions, timestep, settings.guidance, noise)
        moved = motion.moved(everything, growing=True)
        some = torch.from_numpy(np.sort(random.permutation(len(everything))[:4]))
        part = type(moved)(*(value[some] for value in moved))
        rows = torch.from_numpy(random.integers(len(splats.means), size=settings.arap_points))
        moved_away = matching_loss(splats.at(part), cameras, anchor[some], settings.colors, 1, math.inf)
        loss = (
            settings.weight * distillation(latents, aim)
            + PICTURES * len(some) * moved_away
            + settings.arap * arap(splats.means, part.means, neighbours, rows)
        )
        optimizer.zero_grad()
        loss.backward(inputs=list(motion.field.parameters()))
        optimizer.step()
        falling.step()


def random_rig(random: np.random.Generator, size: int) -> Cameras:
    """Four cameras at right angles round the model in [-1, 1]³: elevation 0-30 degrees, uniform or uniform in its sine;
    field of view 15-60 degrees; distance 0.8-1 / tan(FOV / 2).
    """
    if random.random() < 0.5:
        elevation = np.radians(random.uniform(0, 30))
    else:
        elevation = np.arcsin(random.uniform(0, np.sin(np.radians(30))))
    azimuths = 2 * np.pi * (random.random() + np.arange(VIEWS)) / VIEWS - np.pi
    fov = np.radians(random.uniform(15, 60))
    distance = random.uniform(0.8, 1.0) / np.tan(fov / 2)
    return orbit_cameras(azimuths, elevation, distance, fov_y=fov, width=size, height=size)


def video(motion: FieldMotion, frames: Tensor, rig: Cameras) -> Tensor:
    """Draw frames of a motion on grey: [V, F, 3, H, W] in 0-1."""
    kind = motion.splats.means.dtype
    cameras = TensorCameras.from_cameras(rig, dtype=kind)
    gaussians = motion.splats.at(motion.moved(frames, growing=True))
    rgb = render(gaussians, cameras, background=GREY, eps2d=PIXEL).output("rgb")
    return rgb.clamp(0, 1).permute(1, 0, 4, 2, 3)


def encode(pipeline: MVVDMPipeline, videos: Tensor) -> Tensor:
    """Scaled latents [V, F, C, h, w] of videos [V, F, 3, H, W], with gradient: the posterior's mode, not a sample."""
    posterior = pipeline.vae.encode(2 * videos.flatten(0, 1) - 1).latent_dist
    return (posterior.mode() * pipeline.vae.config.scaling_factor).unflatten(0, videos.shape[:2])


@torch.no_grad()
def condition(pipeline: MVVDMPipeline, videos: Tensor, sentence: str, rig: Cameras) -> Conditions:
    """Conditions of the network, those of the unconditional pass first."""
    pictures = to_pil(2 * videos[:, 0].float() - 1)
    return pipeline.conditions(pictures, sentence, "", rig, guided=True)


@torch.no_grad()
def likelier(
    pipeline: MVVDMPipeline,
    latents: Tensor,
    conditions: Conditions,
    timestep: int,
    guidance: float,
    noise: torch.Generator,
) -> Tensor:
    """ẑ_0: what the network makes of noised latents [V, F, C, h, w]; the first frame stays clean.

    A quarter of it is rescaled to the standard deviation of the prediction without guidance, which guidance raises.
    """
    t = torch.tensor([timestep])
    drawn = torch.randn(latents.shape, generator=noise, dtype=torch.float32).to(latents)
    noisy = diffuse(latents[None], drawn[None], t)
    noisy[:, :, 0] = latents[:, 0]
    sample = noisy.expand(len(conditions.text), *noisy.shape[1:]).to(pipeline.unet.dtype)
    predicted = pipeline.unet(sample, t, conditions.text, conditions.camera, conditions.image)
    kind = pipeline.scheduler.config.prediction_type
    without, plain = (clean(kind, noisy[0], each.to(latents), t) for each in predicted)
    guided = without + guidance * (plain - without)
    ratio = plain[:, 1:].std() / (guided[:, 1:].std() + 1e-8)
    guided = (RESCALED * ratio + 1 - RESCALED) * guided
    return torch.cat([latents[:, :1], guided[:, 1:]], 1)


def clean(prediction_type: str, noisy: Tensor, predicted: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a prediction stands for; all types are linear in it, so guidance may follow."""
    signal = signal_at(timestep, noisy)
    if prediction_type == "sample":
        return predicted
    if prediction_type == "v_prediction":
        return signal.sqrt() * noisy - (1 - signal).sqrt() * predicted
    return (noisy - (1 - signal).sqrt() * predicted) / signal.sqrt()


def distillation(latents: Tensor, aim: Tensor) -> Tensor:
    """½ Σ (z - ẑ_0)² / (V F) · F / (F - 1), a scalar: a sum over channels and places, a mean over moving pictures."""
    V, frames = latents.shape[:2]
    return 0.5 * (latents - aim.detach()).square().sum() / (V * frames) * frames / (frames - 1)
