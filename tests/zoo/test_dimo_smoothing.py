"""`DIMOConfig.smoothing`: a model shows the same object in images of every size, wherever it is drawn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_dimo import tiny_pipeline
from tiny_motions import tiny_config, tiny_videos

from renderers.cameras import orbit_cameras
from renderers.gaussians import TensorCameras, ply, render
from zoo.dimo.config import LossWeights
from zoo.dimo.context import TrainingContext
from zoo.dimo.evaluation import evaluate
from zoo.dimo.fitting import fit_latent
from zoo.dimo.model import DIMO
from zoo.dimo.page import skinned_splats
from zoo.dimo.training import train
from zoo.evaluation.dimo import render_views

FOV_Y = np.deg2rad(33.9)  # of tiny_videos, whose cameras are 2 away
SIDE = 64  # pixels of the images that `trained_at` is about


def trained_at(side: int) -> float:
    """By hand: 0.3 pixels² as a standard deviation, where a pixel is 2 · 2 · tan(fov / 2) / side wide."""
    return math.sqrt(0.3) * 2 * 2 * math.tan(FOV_Y / 2) / side


def views(side: int) -> TensorCameras:
    return TensorCameras.from_cameras(
        orbit_cameras(np.array([0.3, 2.0]), 0.2, 2.0, fov_y=FOV_Y, width=side, height=side)
    )


def error(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean().sqrt())


@pytest.mark.parametrize("kind", [{}, {"stretching": True, "discs": True}])
def test_images_of_every_size_show_the_same_object(kind):
    motion = tiny_pipeline(**kind).motion(2)
    model, scenes = motion.model, motion.gaussians(0.5)
    with torch.no_grad():
        model.log_scales.fill_(math.log(0.01))  # half a pixel of 64
    trained = render(motion.gaussians(0.5), views(SIDE)).output("alpha")
    errors = {}
    for smoothing in (trained_at(SIDE), 0.0):
        model.config = replace(model.config, smoothing=smoothing)
        scenes = motion.gaussians(0.5)
        drawn = {side: model.draw(scenes, views(side)).output("alpha") for side in (32, SIDE, 256)}
        large = F.avg_pool2d(drawn[256][0].movedim(-1, 1), 4).movedim(1, -1)
        small = F.avg_pool2d(drawn[SIDE][0].movedim(-1, 1), 2).movedim(1, -1)
        errors[smoothing] = (
            error(drawn[SIDE], trained),
            error(large, drawn[SIDE][0]),
            error(small, drawn[32][0]),
        )
    (same, large, small), (_, control_large, control_small) = errors.values()
    assert same < 0.02  # as it was trained; discs are also as thick as the filter when seen from their edge
    assert large < 0.4 * control_large and small < 0.4 * control_small


def test_training_takes_the_size_of_a_pixel_from_its_images(tmp_path):
    videos = tiny_videos(tmp_path)  # 32 pixels
    for resolution, side in ((32, 32), (16, 16), (64, 32)):
        run = TrainingContext(
            videos, tiny_config(smoothing=None, resolution=resolution), 0, torch.device("cpu")
        )
        assert run.config.smoothing == run.model.config.smoothing == pytest.approx(trained_at(side), rel=1e-5)
    assert TrainingContext(videos, tiny_config(), 0, torch.device("cpu")).config.smoothing == 0.0
    checkpoint = tmp_path / "run.safetensors"
    model = train(videos, tiny_config(smoothing=None), checkpoint=checkpoint)
    assert model.config.smoothing == pytest.approx(trained_at(32), rel=1e-5) and model.blur == 0.0
    again = train(videos, tiny_config(smoothing=None), checkpoint=checkpoint)
    assert again.config == model.config and torch.equal(again.means, model.means)


@pytest.mark.parametrize("smoothing", [0.0, 0.02])
def test_everything_is_drawn_as_the_model_says(tmp_path, monkeypatch, smoothing):
    """Pictures, metrics, fits and protocols all change with `DIMO.blur`, so none draws with a blur of its own."""
    videos = tiny_videos(tmp_path)
    pipeline = tiny_pipeline(smoothing=smoothing, losses=LossWeights(lpips=0.0))
    model, motion = pipeline.model, pipeline.motion(2)
    with torch.no_grad():
        model.log_scales.fill_(math.log(0.02))
    camera = orbit_cameras(np.zeros(1), 0.2, 2.0, fov_y=FOV_Y, width=32, height=32)
    cameras, z = TensorCameras.from_cameras(camera), model.mu[2:3]

    def results() -> list[object]:
        return [
            motion.render(camera).tolist(),
            evaluate(model, videos, latents=model.mu[: len(videos)])["psnr"],
            fit_latent(model, videos.select([0]), steps=3).tolist(),
            render_views(model, z, motion.phases, cameras, (255, 255, 255))[0].tolist(),
        ]

    expected = render(
        motion.gaussians(), cameras, background=torch.ones(3), eps2d=0.3 if smoothing == 0 else 0.0
    )
    frames = expected.output("rgb").clamp(0, 1).mul(255).round().byte().transpose(0, 1)
    as_it_is = results()
    assert as_it_is[0] == as_it_is[3] == frames.tolist()
    monkeypatch.setattr(DIMO, "blur", property(lambda self: 5.0))
    assert not any(one == other for one, other in zip(as_it_is, results(), strict=True))


@pytest.mark.parametrize("kind", [{}, {"stretching": True}, {"stretching": True, "discs": True}])
def test_files_have_the_gaussians_as_they_are_drawn(tmp_path, kind):
    motion = tiny_pipeline(smoothing=0.02, **kind).motion(2)
    expected, own = motion.gaussians(), motion.model.log_scales.exp()
    read = ply.read(sorted(motion.save(tmp_path / "egg.ply").iterdir())[4])
    assert torch.allclose(read.scales[0], expected.scales[-1 if len(expected.scales) == 1 else 4], rtol=1e-4)
    smoothed = (own.square() + 0.02**2).sqrt()
    arrays = np.load(motion.save(tmp_path / "egg.npz"))
    assert np.allclose(np.exp(arrays["log_scales"]), smoothed.detach().numpy(), rtol=1e-4)
    splats = skinned_splats(motion.model, [("it", motion.trajectories)], motion.phases, motion.seconds)
    assert np.allclose(splats.scales, smoothed.detach().numpy(), rtol=1e-4) and splats.blur == 0.0
    assert float((smoothed - own).abs().max()) > 1e-3  # the control: not as they are stored
