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
SAMES = 0.5  # points of which more are torn apart from one motion to another are not the same points


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
    files = [videos.points(motion) for motion in range(len(videos))]
    tracked = [torch.from_numpy(np.array(points[:, USED])) for points in files if points is not None]
    if len(tracked) < len(videos) or len({points.shape for points in tracked}) > 1:
        return None
    paths = torch.stack(tracked)  # [M, T, P, 3]
    reference = paths[pose]
    if len(reference) < max(count, NEIGHBOURS + 1):
        return None
    if any(float(torn_share(points, reference).min()) > SAMES for points in paths):
        return None
    chosen = farthest_points(reference, count)
    nearest = torch.cdist(reference[chosen], reference)
    nearest = nearest.topk(min(CANDIDATES, len(reference)), largest=False).indices  # [K, C]
    # Root mean square distance over all motions, at about four frames of each.
    sample = paths[:, :: max(1, paths.shape[1] // 4)].flatten(0, 1)
    apart = (sample[:, nearest] - sample[:, chosen, None]).square().sum(-1).mean(0)
    around = nearest.gather(1, apart.topk(NEIGHBOURS + 1, largest=False).indices)  # with the key point itself
    rotations = torch.stack([_rotations(points, reference, chosen, around) for points in paths])
    centre, centres = reference.mean(0), paths.mean(2)  # [3], [M, T, 3]
    whole = (reference - centre).expand_as(paths).contiguous()
    turns = best_rotations(whole, paths - centres[:, :, None])
    return KeyPointTracks(
        reference[chosen],
        paths[:, :, chosen],
        rotations,
        turns,
        centres - (turns @ centre[:, None]).squeeze(-1),
    )


def _rotations(points: Tensor, reference: Tensor, chosen: Tensor, around: Tensor) -> Tensor:
    """Best rotations [T, K, 3, 3] of the edges from the points `chosen` [K] to those `around` [K, J] them."""
    first = reference[around] - reference[chosen, None]
    edges = points[:, around] - points[:, chosen, None]
    return best_rotations(first.expand_as(edges).contiguous(), edges)
