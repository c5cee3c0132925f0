"""What does learning a motion space take? On one CPU core, and at the paper's size on a GPU.

    python -m benchmarks.dimo laptop    eight motions of a creature at 128 px, trained by `DIMOConfig.laptop()`
    python -m benchmarks.dimo gpu       `DIMOConfig.paper()`: minutes for both stages, frames a second

The GPU part needs neither Ray nor OpenGL: its videos are splats of a body that sways, drawn by our own renderer. A
step's cost does not depend on how many motions there are, so the hours of all steps follow from the time of some.
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

BAR_DB, BAR_CPU_S = 28.0, 150.0
PAPER = "paper, A100-40GB: 40 min + 3 h, 250 frames/s"
GPU_MOTIONS, GPU_STEPS, GPU_WARM_UP = 8, 120, 20


def laptop() -> bool:
    """CPU-seconds of one core, and PSNR on views that were not trained on."""
    from factory.motion_videos.plan import MotionRecipe
    from factory.motion_videos.run import make_motions

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = MotionRecipe(resolution=128)
        (made,) = make_motions(["creatures://kangaroo?motions=8"], scratch, recipe, workers=0)
        # Which eight the seed draws, and their splits, do not matter here: all of them are trained on.
        videos = MotionVideos.open(made.folder)
        _compile()
        started = time.process_time()
        model = train(videos, DIMOConfig.laptop())
        seconds = time.process_time() - started
        found = evaluate(model, videos)
    print(
        f"laptop  {len(videos)} motions at 128 px: {found['psnr']:.2f} dB on held-out views (bar {BAR_DB}), "
        f"worst motion {found['worst_psnr']:.2f}, IoU {found['iou']:.3f}, {seconds:.0f} CPU-s (bar {BAR_CPU_S:.0f})"
    )
    return found["psnr"] >= BAR_DB and seconds <= BAR_CPU_S


def _compile() -> None:
    """The kernels' one-off compile is no part of a training."""
    points = torch.zeros(1, 1, 3, requires_grad=True)
    one = Gaussians(
        points, torch.ones(1, 1, 4), torch.ones(1, 1, 3), torch.ones(1, 1), colors=torch.ones(1, 1, 3)
    )
    cameras = TensorCameras.from_cameras(orbit_cameras([0.0], 0.0, 2.0, fov_y=0.6, width=16, height=16))
    render(one, cameras).rgb.sum().backward()


def gpu(device: str, config: DIMOConfig) -> bool:
    """Both stages' steps and the frame rate at the paper's size."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        videos = swaying_body(Path(scratch), config, device)
        minutes = {}
        for name, steps in (("pretraining", config.pretraining.steps), ("joint", config.joint.steps)):
            minutes[name] = steps * _seconds_a_step(videos, config, name, device) / 60
    total = sum(minutes.values())
    told = ", ".join(f"{name} {value:.1f} min" for name, value in minutes.items())
    print(
        f"gpu     {told}: {total:.0f} min for both stages at {config.resolution} px, without LPIPS ({PAPER})"
    )
    rate, ceiling = frame_rate(config, device)
    print(
        f"gpu     {rate:.0f} frames/s at {config.resolution}², {config.gaussians} Gaussians, t and z always new; "
        f"drawing alone {ceiling:.0f}: {rate / ceiling:.2f} of it"
    )
    return True


def _seconds_a_step(videos: MotionVideos, config: DIMOConfig, stage: str, device: str) -> float:
    """Of the stage's last resolution: the median between reports, after a warm-up."""
    part = dataclasses.replace(
        getattr(config, stage),
        steps=GPU_WARM_UP + GPU_STEPS,
        resolutions=((0, config.resolution),),
        smooth_from=0,
    )
    other = {"pretraining": "joint", "joint": "pretraining"}[stage]
    short = dataclasses.replace(getattr(config, other), steps=1)
    config = dataclasses.replace(config, **{stage: part, other: short})
    times: list[tuple[int, float]] = []

    def on_step(progress: dict) -> None:
        torch.cuda.synchronize() if device != "cpu" else None
        times.append((progress["step"], time.perf_counter()))

    train(videos, config, device=device, on_step=on_step)
    spans = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(times) if a[0] >= GPU_WARM_UP]
    return float(np.median(spans))


def frame_rate(config: DIMOConfig, device: str, frames: int = 200) -> tuple[float, float]:
    """Frames a second decoded, skinned and drawn one by one, and drawn only."""
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

    def drawn(k: int, still: Gaussians | None = None) -> None:
        moved = still or model.skin(model.trajectories(latents[k : k + 1], phases[k]))
        render(moved, cameras, background=torch.ones(3, device=device))

    with torch.inference_mode():
        still = model.skin(model.trajectories(latents[:1], phases[0]))
        return _rate(lambda k: drawn(k), frames, device), _rate(lambda k: drawn(k, still), frames, device)


def _rate(work: Callable[[int], None], frames: int, device: str) -> float:
    for k in range(frames // 10):
        work(k)
    torch.cuda.synchronize() if device != "cpu" else None
    started = time.perf_counter()
    for k in range(frames):
        work(k)
    torch.cuda.synchronize() if device != "cpu" else None
    return frames / (time.perf_counter() - started)


def swaying_body(folder: Path, config: DIMOConfig, device: str) -> MotionVideos:
    """Videos of an upright ellipsoid of coloured splats that sways in another way in each motion."""
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
            picture = render(
                Gaussians(means=(rest + bend * lean)[None], **fixed).to(device),
                TensorCameras.from_cameras(rig, device=device),
            )
            straight = picture.rgb[0] / picture.alpha[0].clamp_min(1e-3)
            frames.append(
                (255 * torch.cat([straight, picture.alpha[0]], -1)).clamp(0, 255).byte().cpu().numpy()
            )
        write_motion(folder, stem, np.stack(frames, axis=1))
    videos = MotionVideos(
        folder, "body", stems, stems, ["train"] * len(stems), stems, config.frames, size, phases.tolist(),
        np.stack([rig.world_to_camera] * len(stems)), np.stack([rig.K] * len(stems)), range(views), (),
    )  # fmt: skip
    videos.write()
    return MotionVideos.open(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dimo")
    parser.add_argument("part", choices=("laptop", "gpu"), nargs="+")
    parser.add_argument("--device", default="cuda", help="of the gpu part; 'cpu' with --small tries it out")
    parser.add_argument("--small", action="store_true", help="a hundredth of the paper's size")
    args = parser.parse_args(argv)
    print(describe_machine())
    # The network of the perceptual loss is fetched from the web, which a benchmark should not need.
    paper = dataclasses.replace(DIMOConfig.paper(), losses=LossWeights(lpips=0.0))
    if args.small:
        paper = dataclasses.replace(paper, key_points=32, gaussians=800, resolution=32)
    parts = {"laptop": laptop, "gpu": lambda: gpu(args.device, paper)}
    return 0 if all([parts[name]() for name in args.part]) else 1


if __name__ == "__main__":
    sys.exit(main())
