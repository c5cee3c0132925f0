"""Training cost and quality of DIMO, on one CPU core and at the paper's size on a GPU.

    python -m benchmarks.dimo laptop    eight motions of a creature at 128 px, trained with `DIMOConfig.laptop()`
    python -m benchmarks.dimo gpu       `DIMOConfig.paper()`: minutes for both stages, frames per second

The GPU part requires neither Ray nor OpenGL: its videos show a swaying body made of splats, drawn with our own
renderer. The cost of a step does not depend on the number of motions, so the total time is extrapolated from a sample
of steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import describe_machine
from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from zoo.dimo.config import DIMOConfig, LossWeights
from zoo.dimo.data import MotionVideos, write_motion
from zoo.dimo.evaluation import evaluate
from zoo.dimo.model import DIMO
from zoo.dimo.training import train

BAR_DB, BAR_CPU_S = 28.0, 60.0
PAPER = "paper, A100-40GB: 40 min + 3 h, 250 frames/s"
GPU_MOTIONS, GPU_STEPS, GPU_WARM_UP = 8, 120, 20


def laptop() -> bool:
    """Measure CPU seconds on one core and PSNR on held-out views; whether both meet their targets."""
    from factory.motion_videos.plan import MotionRecipe
    from factory.motion_videos.run import make_motions

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = MotionRecipe(resolution=128)
        (made,) = make_motions(["creatures://kangaroo?motions=8"], scratch, recipe, workers=0)
        # The motions that the seed selects and their splits do not matter: all of them are used for training.
        videos = MotionVideos.open(made.folder)
        _compile_kernels()
        started = time.process_time()
        model = train(videos, DIMOConfig.laptop())
        seconds = time.process_time() - started
        scores = evaluate(model, videos)
    print(
        f"laptop  {len(videos)} motions at 128 px: {scores['psnr']:.2f} dB on held-out views (target {BAR_DB}), "
        f"worst {scores['worst_psnr']:.2f}, IoU {scores['iou']:.3f}, {seconds:.0f} CPU-s (target {BAR_CPU_S:.0f})"
    )
    return scores["psnr"] >= BAR_DB and seconds <= BAR_CPU_S


def _compile_kernels() -> None:
    """Compile the rendering kernels, so that this one-off cost is not counted as training time."""
    points = torch.zeros(1, 1, 3, requires_grad=True)
    gaussian = Gaussians(
        points, torch.ones(1, 1, 4), torch.ones(1, 1, 3), torch.ones(1, 1), colors=torch.ones(1, 1, 3)
    )
    cameras = TensorCameras.from_cameras(orbit_cameras([0.0], 0.0, 2.0, fov_y=0.6, width=16, height=16))
    render(gaussian, cameras).rgb.sum().backward()


def gpu(device: str, config: DIMOConfig) -> bool:
    """Measure the step time of both stages and the frame rate at the paper's size."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        videos = swaying_body(Path(scratch), config, device)
        minutes = {}
        for name, steps in (("pretraining", config.pretraining.steps), ("joint", config.joint.steps)):
            minutes[name] = steps * _seconds_per_step(videos, config, name, device) / 60
    total = sum(minutes.values())
    by_stage = ", ".join(f"{name} {value:.1f} min" for name, value in minutes.items())
    print(
        f"gpu     {by_stage}: {total:.0f} min for both stages at {config.resolution} px, without LPIPS ({PAPER})"
    )
    rate, ceiling = frame_rate(config, device)
    print(
        f"gpu     {rate:.0f} frames/s at {config.resolution}², {config.gaussians} Gaussians, new t and z per frame; "
        f"rendering alone {ceiling:.0f}: ratio {rate / ceiling:.2f}"
    )
    return True


def _seconds_per_step(videos: MotionVideos, config: DIMOConfig, stage: str, device: str) -> float:
    """Measure a stage at its final resolution: the median time between reports, after a warm-up."""
    measured = dataclasses.replace(
        getattr(config, stage),
        steps=GPU_WARM_UP + GPU_STEPS,
        resolutions=((0, config.resolution),),
        smooth_from=0,
    )
    other_stage = {"pretraining": "joint", "joint": "pretraining"}[stage]
    skipped = dataclasses.replace(getattr(config, other_stage), steps=1)
    config = dataclasses.replace(config, **{stage: measured, other_stage: skipped})
    times: list[tuple[int, float]] = []

    def on_step(progress: dict[str, Any]) -> None:
        _synchronise(device)
        times.append((progress["step"], time.perf_counter()))

    train(videos, config, device=device, on_step=on_step)
    spans = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(times) if a[0] >= GPU_WARM_UP]
    return float(np.median(spans))


def frame_rate(config: DIMOConfig, device: str, frames: int = 200) -> tuple[float, float]:
    """Return frames per second when each frame is decoded, skinned and rendered, and when it is rendered only."""
    model = DIMO(config, GPU_MOTIONS, config.gaussians).to(device).eval()
    with torch.no_grad():
        model.means.uniform_(-0.3, 0.3)
        model.log_scales.fill_(float(np.log(0.005)))
    model.refresh()
    rig = orbit_cameras(
        [0.0], 0.0, 2.0, fov_y=np.deg2rad(33.9), width=config.resolution, height=config.resolution
    )
    cameras = TensorCameras.from_cameras(rig, device=device)
    latents = torch.randn(frames, config.latent, device=device)
    phases = torch.rand(frames, 1, device=device)

    def render_frame(k: int, posed: Gaussians | None = None) -> None:
        posed = posed or model.skin(model.trajectories(latents[k : k + 1], phases[k]))
        render(posed, cameras, background=torch.ones(3, device=device))

    with torch.inference_mode():
        fixed = model.skin(model.trajectories(latents[:1], phases[0]))
        return _rate(render_frame, frames, device), _rate(lambda k: render_frame(k, fixed), frames, device)


def _rate(render_frame: Callable[[int], None], frames: int, device: str) -> float:
    """Return calls per second, after a warm-up."""
    for k in range(frames // 10):
        render_frame(k)
    _synchronise(device)
    started = time.perf_counter()
    for k in range(frames):
        render_frame(k)
    _synchronise(device)
    return frames / (time.perf_counter() - started)


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def swaying_body(folder: Path, config: DIMOConfig, device: str) -> MotionVideos:
    """Create videos of an upright ellipsoid of coloured splats that sways in a different direction in each motion."""
    size, views = config.resolution, config.views
    azimuths = np.arange(views) * 2 * np.pi / views
    rig = orbit_cameras(azimuths, 0.0, 2.0, fov_y=np.deg2rad(33.9), width=size, height=size)
    count = 4000
    rest = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * torch.tensor([0.15, 0.4, 0.15])
    fixed = {
        "quats": torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        "scales": torch.full((1, count, 3), 0.02),
        "opacities": torch.full((1, count), 0.95),
        "colors": (0.5 + 1.2 * rest).clamp(0, 1)[None],
    }
    phases = np.arange(config.frames) / config.frames
    stems = [f"sway-{motion}" for motion in range(GPU_MOTIONS)]
    for motion, stem in enumerate(stems):
        heading = 2 * np.pi * motion / GPU_MOTIONS
        lean = torch.tensor([np.cos(heading), 0.0, np.sin(heading)], dtype=torch.float32)
        frames = []
        for phase in phases:
            bend = 0.4 * np.sin(2 * np.pi * phase) * (rest[:, 1:2] + 0.4) ** 2
            image = render(
                Gaussians(means=(rest + bend * lean)[None], **fixed).to(device),
                TensorCameras.from_cameras(rig, device=device),
            )
            straight = image.rgb[0] / image.alpha[0].clamp_min(1e-3)  # undo the premultiplication
            frames.append(
                (255 * torch.cat([straight, image.alpha[0]], -1)).clamp(0, 255).byte().cpu().numpy()
            )
        write_motion(folder, stem, np.stack(frames, axis=1))
    videos = MotionVideos(
        folder, "body", stems, stems, ["train"] * len(stems), stems, config.frames, size, phases.tolist(),
        np.stack([rig.world_to_camera] * len(stems)), np.stack([rig.K] * len(stems)), range(views), (),
    )  # fmt: skip
    videos.write()
    return MotionVideos.open(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the selected parts; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dimo")
    parser.add_argument("part", choices=("laptop", "gpu"), nargs="+")
    parser.add_argument(
        "--device", default="cuda", help="device of the gpu part; use 'cpu' with --small for a quick test"
    )
    parser.add_argument(
        "--small", action="store_true", help="run the gpu part at about a hundredth of the paper's size"
    )
    args = parser.parse_args(argv)
    print(describe_machine())
    # Without LPIPS, whose network would have to be downloaded.
    paper = dataclasses.replace(DIMOConfig.paper(), losses=LossWeights(lpips=0.0))
    if args.small:
        paper = dataclasses.replace(paper, key_points=32, gaussians=800, resolution=32)
    parts = {"laptop": laptop, "gpu": lambda: gpu(args.device, paper)}
    return 0 if all([parts[name]() for name in args.part]) else 1


if __name__ == "__main__":
    sys.exit(main())
