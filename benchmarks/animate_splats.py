"""Splats that follow videos, against the truth: how far the Gaussians of a file are from the surface that they lie on.

    python -m benchmarks.animate_splats fish/nods human/steps-to-the-left [--seed 19] [--gaussians 3000]

Still splats are made of frame 0 of a creature's animation: discs on its surface, calibrated on its pictures at 128
pixels, as `zoo.animate3d` makes them of a mesh. They are written as a .ply of 3DGS, read back, and animated by the true
videos: 16 frames, four views, 128 pixels, as in `benchmarks.animate`.

Error: mean over frames 1-15 and Gaussians of the difference of their displacement from that of the nearest place of the
true surface in frame 0, as a share of the mean true displacement. Process CPU time of the fit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from trimesh.triangles import closest_point, points_to_barycentric

from benchmarks.animate import Clip, cameras, creature_clip
from benchmarks.common import describe_machine
from renderers.gaussians import Gaussians, ply
from zoo.animate3d import PaperSettings, SplatModel, fit_splats, load_splats
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.fitting import NODES
from zoo.animate3d.graph import make_graph
from zoo.animate3d.solver import STIFFNESS, Problem
from zoo.animate3d.still_splats import UNIT, make_splats, targets
from zoo.animate3d.surface import make_surface
from zoo.animate3d.views import make_views

SIDE = 128
_NEAR = 24  # triangles around a Gaussian among which the nearest place is looked for


def still_splats(clip: Clip, videos: np.ndarray, count: int) -> SplatModel:
    """Splats of frame 0, through a file."""
    surface = make_surface(clip.asset, clip.still)
    views = make_views(videos / np.float32(255), clip.in_asset(cameras()), surface.centre, surface.scale)
    problem = Problem(
        surface, make_graph(surface, NODES), views, calibrate(surface, views), STIFFNESS["rendered"]
    )
    discs = make_splats(problem, count, *targets(views, SIDE), seed=0)
    unit = surface.scale / UNIT
    gaussians = Gaussians(
        discs.means[None] * unit + torch.from_numpy(surface.centre).float(),
        discs.quats[None],
        discs.log_scales.exp()[None] * unit,
        discs.opacities[None],
        colors=discs.colors[None],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "still.ply")
        ply.write(path, gaussians)
        return load_splats(path)


def true_displacements(clip: Clip, means: np.ndarray) -> np.ndarray:
    """Displacements [T, N, 3] of the places of the surface that are nearest to points [N, 3] in frame 0."""
    truth = clip.truth
    triangles = np.concatenate([part.triangles for part in clip.asset.primitives])
    corners, rows = truth[0][triangles], np.arange(len(means))
    near = cKDTree(corners.mean(1)).query(means, _NEAR)[1]
    places = closest_point(corners[near].reshape(-1, 3, 3), means.repeat(_NEAR, 0))
    places = places.reshape(-1, _NEAR, 3)
    best = np.linalg.norm(places - means[:, None], axis=-1).argmin(1)
    face = near[rows, best]
    shares = points_to_barycentric(corners[face], places[rows, best])
    moved = np.einsum("nk,tnkd->tnd", shares, truth[:, triangles[face]])
    return moved - moved[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="species/motion")
    parser.add_argument("--seed", type=int, default=19, help="of the individual")
    parser.add_argument("--gaussians", type=int, default=3000, help="of the file")
    parser.add_argument("--steps-per-frame", type=int, default=PaperSettings().steps_per_frame)
    parser.add_argument("--last-steps", type=int, default=PaperSettings().last_steps)
    arguments = parser.parse_args()
    settings = PaperSettings(steps_per_frame=arguments.steps_per_frame, last_steps=arguments.last_steps)
    print(describe_machine())
    for name in arguments.clips:
        clip = creature_clip(*name.split("/"), seed=arguments.seed)
        videos = clip.render(cameras())
        model = still_splats(clip, videos, arguments.gaussians)
        expected = true_displacements(clip, model.gaussians.means[0].double().numpy())
        start = time.process_time()
        views, times = clip.in_asset(cameras()), clip.times - clip.times[0]
        result = fit_splats(model, videos, views, times, settings=settings)
        seconds = time.process_time() - start
        moved = result.motion.positions.astype(np.float64)
        apart = np.linalg.norm(moved - moved[0] - expected, axis=-1)[1:].mean()
        error = apart / np.linalg.norm(expected, axis=-1)[1:].mean()
        print(
            f"{name:40} {expected.shape[1]:6} Gaussians  error {error:6.1%}  "
            f"residual {result.residual[1:].mean():.3f}  doubtful frames {result.doubtful.sum()}  {seconds:5.1f} CPU-s",
            flush=True,
        )


if __name__ == "__main__":
    main()
