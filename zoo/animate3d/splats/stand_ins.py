"""Fewer Gaussians in the place of many: what the field is fitted with."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from renderers.gaussians import TensorCameras
from renderers.gaussians.features import rotation_matrices
from renderers.gaussians.ply import SH_C0
from zoo.animate3d.splats.model import SplatModel
from zoo.animate3d.still_splats import UNIT, StillSplats, calibrated, spread

_FLATTEST = 1e-4  # smallest standard deviation, in the field's space
_OPAQUE = 0.99


def stand_ins(
    model: SplatModel, count: int, frames: Tensor, cameras: TensorCameras, seed: int
) -> StillSplats:
    """At most `count` Gaussians that look like all of a model's.

    Evenly spread Gaussians of the model are chosen, and each takes the mean, covariance and colour of those that are
    nearest to it, weighted by opacity and area. Their sizes and colours are then calibrated on frame 0 of the videos.
    Where there are no more than `count`, each stands for itself.

    Args:
        count: most Gaussians.
        frames, cameras: of `zoo.animate3d.still_splats.targets`.
        seed: chooses the first of them.
    """
    whole, (centre, extent) = model.gaussians, model.unit()
    used = np.flatnonzero(model.solid)
    means = (whole.means[0].double().numpy()[used] - centre) / extent * UNIT
    scales = np.maximum(whole.scales[0].double().numpy()[used] / extent * UNIT, _FLATTEST)
    axes = rotation_matrices(whole.quats[0].double()).numpy()[used] * scales[:, None]
    areas = scales.prod(1) / scales.min(1)
    assert whole.sh is not None
    colors = (0.5 + SH_C0 * whole.sh[0, :, 0].double().numpy()[used]).clip(0, 1)
    opacities = whole.opacities[0].double().numpy()[used]

    chosen = spread(means, count, seed)
    group = cKDTree(means[chosen]).query(means)[1]
    if len(chosen) == len(means):
        group = np.arange(len(means))  # also where several are at one place
    total, middle, covariance, tint = merged(means, axes, colors, opacities * areas, group)
    spreads, directions = np.linalg.eigh(covariance)
    directions[:, :, 0] *= np.sign(np.linalg.det(directions))[:, None]
    spreads = np.maximum(np.sqrt(np.maximum(spreads, 0)), _FLATTEST)
    covered = total / (spreads[:, 1] * spreads[:, 2])
    quats = Rotation.from_matrix(directions).as_quat(scalar_first=True)
    places, turned, base, solid = (
        torch.from_numpy(each).float()
        for each in (middle, quats, np.log(spreads), covered.clip(0.0, _OPAQUE))
    )

    def splats(size: Tensor, colors: Tensor) -> StillSplats:
        return StillSplats(used[chosen], places, turned, base + size, solid, colors)

    first = {"size": torch.zeros(len(chosen), 1), "colors": torch.from_numpy(tint).float()}
    return calibrated(splats, first, frames, cameras)


def merged(
    means: np.ndarray, axes: np.ndarray, colors: np.ndarray, weight: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Merge groups of Gaussians with their moments.

    Args:
        means, colors: [N, 3]. axes: [N, 3, 3], columns as long as the standard deviations. weight: [N].
        group: int [N], 0 to G - 1, none empty.
    Returns:
        sums of the weights [G], and weighted means [G, 3], covariances [G, 3, 3] and colours [G, 3].
    """
    count = group.max() + 1
    total = np.bincount(group, weight, count)

    def mean(values: np.ndarray) -> np.ndarray:
        columns = values.reshape(len(values), -1).T
        sums = [np.bincount(group, weight * column, count) / total for column in columns]
        return np.stack(sums, -1).reshape(-1, *values.shape[1:])

    middle = mean(means)
    apart = means - middle[group]
    return (
        total,
        middle,
        mean(axes @ axes.swapaxes(1, 2) + apart[:, :, None] * apart[:, None]),
        mean(colors),
    )
