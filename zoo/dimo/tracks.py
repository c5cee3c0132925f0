"""Key-point trajectories from tracked surface points, where the videos have them (not in the paper).

Images of an object that has turned by a large angle can also be explained by deforming it without a turn. The
photometric losses of stage 1 have such local minima, and the paper's ARAP loss does not lead out of them. Videos
rendered from animated models come with tracks of surface points, which exclude them.

Only every second tracked point is used. The others remain for evaluation, see `zoo.dimo.evaluation.motion_error`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderers.values import by_value
from zoo.dimo.data import MotionVideos
from zoo.dimo.points import farthest_points
from zoo.metrics.rigidity import torn_share
from zoo.metrics.trajectories import best_rotations

USED = slice(0, None, 2)  # points used for training
UNUSED = slice(1, None, 2)  # points kept for evaluation
NEIGHBOURS = 8  # tracked points that give the rotation of one key point
CANDIDATES = 24  # nearest points in the reference frame among which those neighbours are chosen
RING = 6  # neighbours with which a tracked point forms triangles of the surface
DRAWN = 4  # points drawn from the triangles for each that is kept
SAMES = 0.5  # points of which more are torn apart from one motion to another are not the same points
MIRROR = torch.tensor([-1.0, 1.0, 1.0])  # left and right are along x
SYMMETRIC = 1.1  # largest distance of mirrored points from the others, relative to the spacing of the points


@by_value
class KeyPointTracks(NamedTuple):
    """Positions and rotations that the key points should have.

    Attributes:
        points: positions in the reference frame, [K, 3], world coordinates.
        positions: p*_k(t) in all frames, [M, T, K, 3].
        rotations: R*_k(t) from the reference frame, [M, T, K, 3, 3].
        root_rotations: R*(t), the best rotation of the whole object about the origin and
        root_shifts: T*(t), its shift, so that all points are nearest to R* p + T*; [M, T, 3, 3] and [M, T, 3].
    """

    points: Tensor
    positions: Tensor
    rotations: Tensor
    root_rotations: Tensor
    root_shifts: Tensor


@torch.no_grad()
def key_point_tracks(videos: MotionVideos, pose: tuple[int, int], count: int) -> KeyPointTracks | None:
    """Choose key points among the tracked surface points by farthest-point sampling.

    The rotation of a key point is the best rigid one (Kabsch) of the tracked points around it. Of its `CANDIDATES`
    nearest points in the reference frame, those are used that stay nearest over all motions (the distance of paper
    eq. 3), so that a foot which touches the tail at rest does not turn with it.

    Args:
        videos: the training motions.
        pose: motion and frame of the reference.
        count: number of key points.

    Returns:
        Tracks on the CPU; None if a motion has no tracked points, if the motions do not track the same points, or if
        there are fewer points than key points.
    """
    paths = _surface(videos, pose)
    if paths is None or paths.shape[2] < max(count, NEIGHBOURS + 1):
        return None
    chosen = farthest_points(paths[pose], count)
    return _tracks(paths, paths[pose], paths[pose][chosen], chosen)


@torch.no_grad()
def mirrored_tracks(videos: MotionVideos, pose: tuple[int, int], points: Tensor) -> KeyPointTracks | None:
    """Tracks of the same key points in the mirror images of the motions: what the left hand did, the right one does.

    A key point is bound to the tracked point that is nearest to its mirror image in the reference frame, moves rigidly
    with the surface around it, and is mirrored again.

    Args:
        videos: the training motions, with tracked points.
        pose: motion and frame of the reference.
        points: the key points there, [K, 3].

    Returns:
        Tracks on the CPU; None if the reference is not symmetric about the plane x = 0: mirrored tracked points are
        then further from the tracked ones than these are from each other, in the mean by a factor above `SYMMETRIC`.
    """
    paths = _surface(videos, pose)
    if paths is None or not symmetric(paths[pose]):
        return None
    across = points * MIRROR
    tracks = _tracks(paths, paths[pose], across, torch.cdist(across, paths[pose]).argmin(1))
    turned = MIRROR[:, None] * MIRROR  # F R F, with the reflection F
    return KeyPointTracks(
        points,
        tracks.positions * MIRROR,
        tracks.rotations * turned,
        tracks.root_rotations * turned,
        tracks.root_shifts * MIRROR,
    )


def mirrored_paths(points: Tensor, positions: Tensor, rotations: Tensor) -> Tensor:
    """Positions [M, T, K, 3] of key points in the mirror images of motions of which nothing else is known.

    As `mirrored_tracks`, with the key point that is nearest to the mirror image of one instead of a tracked point.

    Args:
        points: the key points in the reference frame, [K, 3].
        positions, rotations: theirs in the motions, [M, T, K, 3] and [M, T, K, 3, 3].
    """
    across = points * MIRROR.to(points)
    anchors = torch.cdist(across, points).argmin(1)
    beside = (rotations[:, :, anchors] @ (across - points[anchors])[..., None]).squeeze(-1)
    return (positions[:, :, anchors] + beside) * MIRROR.to(points)


@torch.no_grad()
def surface_points(
    videos: MotionVideos, pose: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor] | None:
    """Points spread evenly over the surface of the reference frame, between the tracked points, and their paths.

    They lie in triangles of a tracked point and two of the `RING` neighbours that stay nearest to it over all motions.
    None therefore bridges two parts that only touch at rest, as points of a visual hull do.

    Returns:
        Points [count, 3] and, in the frames `some_frames` of all motions, where they are [M, T', count, 3]; on the CPU.
        None where `key_point_tracks` returns None because of the tracked points.
    """
    paths = _surface(videos, pose)
    if paths is None or paths.shape[2] <= RING:
        return None
    reference = paths[pose]
    around = _companions(paths, reference, torch.arange(len(reference)), RING + 1)[:, 1:]
    drawn = DRAWN * count
    corners = torch.from_numpy(rng.integers(0, len(reference), drawn))
    sides = torch.from_numpy(rng.integers(0, RING, (drawn, 2)))
    triangles = torch.cat([corners[:, None], around[corners].gather(1, sides)], 1)
    shares = torch.from_numpy(rng.dirichlet([1.0, 1.0, 1.0], drawn).astype(np.float32))[..., None]
    points = (reference[triangles] * shares).sum(1)
    chosen = farthest_points(points, count)
    triangles, shares = triangles[chosen], shares[chosen]
    moved = [(motion[some_frames(len(motion))][:, triangles] * shares).sum(2) for motion in paths]
    return points[chosen], torch.stack(moved)


@torch.no_grad()
def tracked_paths(videos: MotionVideos, pose: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The tracked points in the reference frame [P, 3], and in the frames `some_frames` of all motions [M, T', P, 3].

    Raises:
        ValueError: there are none, or not the same ones in every motion.
    """
    paths = _surface(videos, pose)
    if paths is None:
        raise ValueError(f"{videos.folder}: expected the same tracked points in every motion")
    return paths[pose], paths[:, some_frames(paths.shape[1])]


def some_frames(count: int) -> slice:
    """About four of as many frames, spread over the motion."""
    return slice(0, None, max(1, count // 4))


def symmetric(points: Tensor, limit: float = SYMMETRIC) -> bool:
    """Whether surface points [P, 3] are as near to their mirror images at x = 0 as to each other.

    Args:
        points: on the surface, at random.
        limit: of the mean distance of mirrored points from the others, relative to the spacing of the points.
    """
    apart = torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1).mean()
    return bool(torch.cdist(points * MIRROR.to(points), points).amin(1).mean() <= limit * apart)


def whole_motion(points: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
    """The rigid motions [M, T, 3, 3] and [M, T, 3] that carry points [P, 3] nearest to their paths [M, T, P, 3]."""
    centre, centres = points.mean(0), paths.mean(2)
    turns = best_rotations((points - centre).expand_as(paths).contiguous(), paths - centres[:, :, None])
    return turns, centres - (turns @ centre[:, None]).squeeze(-1)


def _surface(videos: MotionVideos, pose: tuple[int, int]) -> Tensor | None:
    """Tracked points of all motions, [M, T, P, 3]; None if there are none, or not the same ones in every motion."""
    files = [videos.points(motion) for motion in range(len(videos))]
    tracked = [torch.from_numpy(np.array(points[:, USED])) for points in files if points is not None]
    if len(tracked) < len(videos) or len({points.shape for points in tracked}) > 1:
        return None
    paths = torch.stack(tracked)
    if any(float(torn_share(points, paths[pose]).min()) > SAMES for points in paths):
        return None
    return paths


def _tracks(paths: Tensor, reference: Tensor, points: Tensor, anchors: Tensor) -> KeyPointTracks:
    """Tracks of points [K, 3] of the reference frame, each bound to the tracked point `anchors` [K] next to it."""
    around = _companions(paths, reference, anchors, NEIGHBOURS + 1)
    rotations = torch.stack([_rotations(each, reference, anchors, around) for each in paths])
    beside = (rotations @ (points - reference[anchors])[..., None]).squeeze(-1)
    return KeyPointTracks(points, paths[:, :, anchors] + beside, rotations, *whole_motion(reference, paths))


def _companions(paths: Tensor, reference: Tensor, anchors: Tensor, count: int) -> Tensor:
    """The tracked points that stay nearest to those `anchors` [K] over all motions, these first: int64 [K, count]."""
    nearest = torch.cdist(reference[anchors], reference)
    nearest = nearest.topk(min(CANDIDATES, len(reference)), largest=False).indices  # [K, C]
    # Root mean square distance over all motions.
    sample = paths[:, some_frames(paths.shape[1])].flatten(0, 1)
    apart = (sample[:, nearest] - sample[:, anchors, None]).square().sum(-1).mean(0)
    return nearest.gather(1, apart.topk(count, largest=False).indices)


def _rotations(points: Tensor, reference: Tensor, chosen: Tensor, around: Tensor) -> Tensor:
    """Best rotations [T, K, 3, 3] of the edges from the points `chosen` [K] to those `around` [K, J] them."""
    first = reference[around] - reference[chosen, None]
    edges = points[:, around] - points[:, chosen, None]
    return best_rotations(first.expand_as(edges).contiguous(), edges)
