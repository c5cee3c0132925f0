"""What bounds method `graph` of `zoo.animate3d`: how far its optimum is from the truth, by what the videos show.

    python -m benchmarks.animate_limits --assets FOLDER [CLIP …] [--views 8] [--side 192] [--polish]
    python -m benchmarks.animate_limits --assets FOLDER --search CLIP … [Fox/Walk] [human/nods@77]
    python -m benchmarks.animate_limits --warp human cat

The clips and errors are those of `benchmarks.animate`. The fit of each frame begins at the true pose, so that nothing
has to be found: what moves away from the truth is drawn by the energy. No search can be expected to end nearer, and the
rows tell whether the pictures or the stiffness draw. Energies are sums over the frames at the last stage of the fit.
--polish has the stages that end method `paper` instead. --warp has the warped videos of `benchmarks.animate --bad` and
the stiffness for these, and prints what no fit can undo (`benchmarks.animate_warp`), in pixels.

--search fits clips, also others than the 20 (MODEL/ANIMATION, or a creature's SPECIES/MOTION@SEED), and compares what
is found with what polishing reaches from the true poses. Frames that are further from the truth by 10 % of the mean
displacement are lost: by the search if their energy is the higher one, and else by the energy itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.animate import (
    DISTANCE,
    ELEVATION,
    FOV,
    SIDE,
    Clip,
    animation_clip,
    clips,
    creature_clip,
    disturbances,
    warped,
)
from benchmarks.animate_warp import floors
from renderers.cameras import orbit_cameras
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.fitting import _MENDED, NODES, check_videos
from zoo.animate3d.graph import GraphPose, make_graph, move_points
from zoo.animate3d.mending import POLISH, mend, polish
from zoo.animate3d.paper import graph_poses
from zoo.animate3d.solver import STIFFNESS, Problem, Stage, descend
from zoo.animate3d.surface import Surface, make_surface
from zoo.animate3d.tracking import FINE, track
from zoo.animate3d.views import make_views


def true_points(surface: Surface, truth: np.ndarray) -> np.ndarray:
    """All surface points in unit space [T, n, 3] from the vertices [T, N, 3]; points within faces follow the three
    nearest vertices.
    """
    moved = (truth - surface.centre) / surface.scale
    known = np.zeros(len(surface.points), bool)
    known[surface.vertices] = True
    points = np.zeros((len(truth), *surface.points.shape))
    points[:, surface.vertices] = moved - surface.points[surface.vertices]
    if not known.all():
        near = np.flatnonzero(known)
        apart, found = cKDTree(surface.points[near]).query(surface.points[~known], 3)
        weights = 1 / (apart + 1e-6)
        weights /= weights.sum(1, keepdims=True)
        points[:, ~known] = np.einsum("nk,tnkc->tnc", weights, points[:, near[found]])
    return points + surface.points


def problem_of(clip: Clip, views: int, side: int, warp: bool = False) -> Problem:
    """What `zoo.animate3d.fit` solves for a clip, or for its warped videos."""
    azimuths = np.linspace(0, 2 * np.pi, views, endpoint=False)
    cameras = orbit_cameras(azimuths, ELEVATION, DISTANCE, fov_y=FOV, width=side, height=side)
    own = clip.in_asset(cameras)
    frames = clip.render(cameras)
    if warp:
        frames = warped(frames, disturbances(frames.shape)[1])
    videos, _ = check_videos("limits", frames, own, clip.times - clip.times[0])
    surface = make_surface(clip.asset, clip.still)
    seen = make_views(videos, own, surface.centre, surface.scale)
    graph = make_graph(surface, NODES)
    return Problem(
        surface, graph, seen, calibrate(surface, seen), STIFFNESS["generated" if warp else "rendered"]
    )


def measure(
    clip: Clip, views: int, side: int, every: int, stages: tuple[Stage, ...], warp: bool = False
) -> None:
    """Print the row of a clip, and of warped videos the floors."""
    problem, truth, seen = problem_of(clip, views, side, warp), clip.truth, clip.asset.visible
    surface, start = problem.surface, time.process_time()
    right = graph_poses(problem, true_points(surface, truth))
    level = problem.level(stages[-1])
    pictures, stiffness = np.zeros(2), np.zeros(2)
    errors = np.zeros(3)  # of the true poses of the graph, of the optimum, of the still model

    def error(pose: GraphPose, frame: int) -> float:
        points = move_points(problem.matrix, problem.graph, pose, surface.points)[0]
        moved = points[surface.vertices] * surface.scale + surface.centre
        return float(np.linalg.norm(moved - truth[frame], axis=-1)[seen].mean())

    for frame in range(1, len(truth), every):
        problem.anchor = right[frame - 1]
        pose = right[frame]
        for stage in stages:
            pose = descend(problem, pose, stage, frame)[0]
        errors += error(right[frame], frame), error(pose, frame), error(right[0], frame)
        for index, each in enumerate((right[frame], pose)):
            pictures[index] += problem.image_cost(each, level, frame)
            stiffness[index] += problem.graph_energy(each, stages[-1])
    shares = errors[:2] / errors[2]
    print(
        f"{clip.name:40} {views} views {side:3} px  graph {shares[0]:5.1%}  optimum {shares[1]:5.1%}  pictures "
        f"{pictures[0]:6.1f} → {pictures[1]:6.1f}  stiffness {stiffness[0]:6.1f} → {stiffness[1]:6.1f}  "
        f"{time.process_time() - start:.0f} CPU-s",
        flush=True,
    )
    if warp:
        frames = range(1, len(truth), every)
        to_pixels = problem.views.scale / surface.scale / len(frames)
        print(f"  still {errors[2] * to_pixels:.2f} px, optimum {errors[1] * to_pixels:.2f} px", flush=True)
        fields = disturbances(problem.views.frames.swapaxes(0, 1).shape)[1]
        shown = surface.vertices[seen]
        for prior, off in floors(problem, true_points(surface, truth), fields, frames).items():
            print(f"  {prior:40} {np.nanmean(off[shown]):.2f} px", flush=True)


def other_clip(folder: Path, name: str) -> Clip:
    """A clip that need not be among the 20, by its name."""
    model, _, animation = name.partition("/")
    motion, of_creature, seed = animation.partition("@")
    return (
        creature_clip(model, motion, int(seed)) if of_creature else animation_clip(folder, model, animation)
    )


def search(clip: Clip) -> None:
    """Print how a fit compares with what is reached from the truth: errors, energies, and whose fault frames are."""
    problem, seen = problem_of(clip, 4, SIDE), clip.asset.visible
    surface, truth, start = problem.surface, clip.truth, time.process_time()
    moved = np.linalg.norm(truth[:1] - truth, axis=-1)[1:, seen].mean()
    polished = polish(problem, track(problem))
    tracked = time.process_time()
    motions = {"polished": polished, "mended": mend(problem, [polished], *_MENDED["graph"])[0]}
    seconds = tracked - start, time.process_time() - tracked
    motions["from the truth"] = polish(problem, graph_poses(problem, true_points(surface, truth)))
    errors: dict[str, np.ndarray] = {}
    energies: dict[str, np.ndarray] = {}
    for name, poses in motions.items():
        errors[name], energies[name] = np.zeros((2, len(truth) - 1))
        for frame, pose in enumerate(poses[1:], 1):
            problem.anchor = poses[frame - 1]
            energies[name][frame - 1] = problem.energy(pose, POLISH[-1], frame)
            points = move_points(problem.matrix, problem.graph, pose, surface.points)[0]
            apart = points[surface.vertices] * surface.scale + surface.centre - truth[frame]
            errors[name][frame - 1] = np.linalg.norm(apart, axis=-1)[seen].mean() / moved
    lost = errors["mended"] > errors["from the truth"] + 0.1
    higher = lost & (energies["mended"] > energies["from the truth"])
    row = "  ".join(f"{name} {errors[name].mean():.1%} E {energies[name].sum():.0f}" for name in motions)
    print(
        f"{clip.name:40} {row}  lost {lost.sum()}, by the search {higher.sum()}  "
        f"{seconds[0]:.0f} + {seconds[1]:.0f} CPU-s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.animate_limits", description=__doc__.split("\n")[0]
    )
    parser.add_argument("clips", nargs="*", help="beginnings of clip names; default: all")
    parser.add_argument("--assets", type=Path, help="folder with the real models; default: creatures only")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument(
        "--side", type=int, default=128, help="pixels; larger videos than 192 are reduced by the fit"
    )
    parser.add_argument("--every", type=int, default=1, help="of how many frames one is measured")
    parser.add_argument("--polish", action="store_true", help="the stages that end method paper")
    parser.add_argument(
        "--search", action="store_true", help="fit the clips, and compare with what is reached from the truth"
    )
    parser.add_argument(
        "--warp", action="store_true", help="warped videos, and the error that nothing can undo"
    )
    arguments = parser.parse_args()
    if arguments.search:
        for name in arguments.clips:
            search(other_clip(arguments.assets, name))
        return
    stages = POLISH if arguments.polish else FINE
    for clip in clips(arguments.assets, arguments.clips):
        measure(clip, arguments.views, arguments.side, arguments.every, stages, arguments.warp)


if __name__ == "__main__":
    main()
