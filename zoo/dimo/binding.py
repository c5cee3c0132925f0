"""Which key points drive a Gaussian, where it is known how the surface moves (not in the paper).

By distance at rest, a part of the forearm of an arm that hangs down is driven by the thigh. Where a Gaussian lies
between tracked points of the surface, it is known where it has to be in every frame. Of the rows of the motion graph
that carry it there well, or nearly as well as the best, it gets that of the nearest key point, and the key points'
radii are fitted to all Gaussians.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from zoo.dimo.blending import blended_places, rbf_weights
from zoo.dimo.context import TrainingContext
from zoo.dimo.discs import matrix_quaternions
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import spacing
from zoo.dimo.tracks import KeyPointTracks, some_frames, tracked_paths
from zoo.seeds import untouched

CANDIDATES = 8  # nearest key points whose rows of the motion graph are compared
# Another row is preferred to that of a nearer key point only if the Gaussian would be off by more than this factor with
# the latter, and by more than is tolerable. In a head that moves rigidly, all rows are nearly as
# good; with the best, neighbours have different ones, and come apart in motions that were not trained on.
BETTER = 2.0
ROUNDS = 2  # of choosing rows and fitting radii
STEPS, RATE = 60, 3e-2  # of Adam, for the logarithms of the radii
FITTED = 768  # points to which radii are fitted
BATCH = 1024  # points at a time
JUDGED = 256  # tracked points by which `settle_stretching` judges


@torch.no_grad()
def bind(model: DIMO, motion: KeyPointMotion, paths: Tensor, tolerance: float = 0.0) -> Tensor:
    """Choose the key points of each Gaussian and fit their radii, in place, so that the blend follows known paths.

    Args:
        model: with Gaussians in canonical places and a motion graph.
        motion: of the key points, [B, T, K, …].
        paths: where the Gaussians are then, [B, T, N, 3].
        tolerance: root mean square distance from the paths, in units of the model, that is good enough.

    Returns:
        Mean distance from the paths in each motion, [B].
    """
    near = torch.cdist(model.means, model.key_points).topk(
        min(CANDIDATES, len(model.key_points)), largest=False
    )
    rows = model.graph[near.indices, : model.neighbours.shape[1]]  # [N, C, J]
    maps = model.affine(motion)[:2]
    for _ in range(ROUNDS):
        radii = model.log_radii.exp()
        errors = torch.stack([_errors(model, maps, row, radii, paths).mean(0) for row in rows.unbind(1)])
        # Squared distances; the candidates are in the order of their key points' distances.
        good = errors <= (BETTER**2 * errors.amin(0)).clamp(min=tolerance**2)
        model.neighbours = rows[torch.arange(len(rows), device=rows.device), good.int().argmax(0)]
        _fit_radii(model, maps, paths.flatten(0, 1))
    return _errors(model, maps, model.neighbours, model.log_radii.exp(), paths).sqrt().mean(1)


def settle_stretching(run: TrainingContext) -> None:
    """Turn `DIMOConfig.stretching` off if tracked points are carried to their places better without it, in place.

    The distance of two key points also changes at a joint that bends, where nothing is stretched. Bodies of rigid parts
    are therefore better off without it. Those that swell need it, if only in one motion: it stays where it brings the
    tracked points nearer to their places in the worst motion. Nothing is done without tracks.
    """
    if not (run.config.stretching and run.tracks is not None):
        return
    points, paths = (each.to(run.device) for each in tracked_paths(run.videos, run.pose))
    step = max(1, len(points) // JUDGED)
    points, paths = points[::step], paths[:, :, ::step]
    errors = {stretching: _error(run, run.tracks, points, paths, stretching) for stretching in (True, False)}
    if errors[False] < errors[True]:
        run.config = replace(run.config, stretching=False)
        run.model.config = replace(run.model.config, stretching=False)


def _error(
    run: TrainingContext, tracks: KeyPointTracks, points: Tensor, paths: Tensor, stretching: bool
) -> float:
    """How far the blend is from the paths of tracked points in the worst motion, with key points where they belong."""
    some = some_frames(tracks.positions.shape[1])
    motion = KeyPointMotion(tracks.positions[:, some], matrix_quaternions(tracks.rotations[:, some]))
    with untouched():
        model = DIMO(replace(run.config, stretching=stretching), 1, len(points), len(tracks.points))
    model = model.to(run.device).requires_grad_(False)
    model.means.copy_(points)
    model.key_points.copy_(tracks.points)
    model.log_radii.fill_(spacing(tracks.points).mean().log())
    model.connect(motion.positions)
    return float(bind(model, motion, paths).max())


def _errors(
    model: DIMO, maps: tuple[Tensor, Tensor], neighbours: Tensor, radii: Tensor, paths: Tensor
) -> Tensor:
    """Mean squared distance of every Gaussian from its path [B, T, N, 3] in each motion, [B, N]."""
    parts = []
    for rows in torch.arange(len(neighbours), device=radii.device).split(BATCH):
        points, near = model.means[rows], neighbours[rows]
        squared = (points[:, None] - model.key_points[near]).square().sum(-1)
        places = blended_places(points, maps, near, rbf_weights(squared, radii[near]))
        apart = places.unflatten(0, paths.shape[:2]) - paths[:, :, rows]
        parts.append(apart.square().sum(-1).mean(1))
    return torch.cat(parts, 1)


def _fit_radii(model: DIMO, maps: tuple[Tensor, Tensor], paths: Tensor) -> None:
    """Fit the key points' radii, so that the blend is nearest to the paths in the mean of some Gaussians."""
    rows = slice(0, None, max(1, len(model.means) // FITTED))
    near, points, places = model.neighbours[rows], model.means[rows], paths[:, rows]
    squared = (points[:, None] - model.key_points[near]).square().sum(-1)
    # Where each key point takes a point, less the place where it belongs: weights sum to 1.
    missed = torch.stack(
        [_carried(maps, points, keys) - places for keys in near.unbind(1)], 2
    )  # [S, n, J, 3]
    radii = nn.Parameter(model.log_radii.detach().clone())
    adam = NamedAdam({"radii": [radii]})
    with torch.enable_grad():
        for _ in range(STEPS):
            weights = rbf_weights(squared, radii.exp()[near])
            (weights[..., None] * missed).sum(2).norm(dim=-1).mean().backward()
            adam.step({"radii": RATE})
    model.log_radii.copy_(radii.detach())


def _carried(maps: tuple[Tensor, Tensor], points: Tensor, keys: Tensor) -> Tensor:
    """Where the key points `keys` [N] take points [N, 3], each its own: [S, N, 3]."""
    return (maps[0][:, keys] @ points[..., None]).squeeze(-1) + maps[1][:, keys]
