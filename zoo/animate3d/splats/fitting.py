"""`fit_splats`: the motion of Gaussian splats that given videos show, by the method of Animate3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from renderers.arguments import instance
from renderers.cameras import Cameras
from renderers.gaussians.features import rotation_matrices
from zoo.animate3d.controls import Controls, nearest
from zoo.animate3d.fitting import DOUBTFUL, NODES, check_videos
from zoo.animate3d.hexplane import MotionField
from zoo.animate3d.paper import FieldMotion, PaperSettings, reconstruct
from zoo.animate3d.rigidity import NEIGHBOURS, nearest_neighbourhoods
from zoo.animate3d.splats.drawing import scene
from zoo.animate3d.splats.model import SplatModel
from zoo.animate3d.splats.motion import SplatMotion
from zoo.animate3d.splats.stand_ins import stand_ins
from zoo.animate3d.still_splats import UNIT, StillSplats, picture_loss, spread, targets
from zoo.animate3d.views import Views, make_views
from zoo.metrics.trajectories import best_rotations
from zoo.threads import fitting_threads

if TYPE_CHECKING:
    from zoo.mvvdm.pipeline import MVVDMPipeline

_COMPARED = 128  # most pixels of a side at which the result is compared with the videos


@dataclass(frozen=True)
class SplatFit:
    """The result of `fit_splats`.

    Attributes:
        motion: in the coordinates of the file; frame 0 is the still model exactly.
        residual: float64 [T], difference of the moved splats' images to the videos as a share of the still splats'
            difference in the frame where that is largest; 0 is a perfect fit, 1 is no better than no motion.
        doubtful: bool [T], frames after the first whose residual exceeds that of frame 0 by more than
            `zoo.animate3d.fitting.DOUBTFUL`.
    """

    motion: SplatMotion
    residual: np.ndarray
    doubtful: np.ndarray


def fit_splats(
    model: SplatModel,
    videos: np.ndarray,
    cameras: Cameras,
    times: np.ndarray,
    *,
    guide: tuple[MVVDMPipeline, str] | None = None,
    settings: PaperSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SplatFit:
    """Fit the motion of splats to videos of them.

    The field of `zoo.animate3d.paper` is fitted with fewer Gaussians in their place (`stand_ins`), whose neighbourhoods
    are the nearest in space. All Gaussians of the model then follow the field, and turn with their surroundings.

    Args:
        model: the splats.
        videos: uint8, or float in 0-1, [V, T, H, W, 4], straight RGBA, sRGB-encoded, one video per camera, V >= 1 and
            T >= 2. Frame 0 shows the still splats.
        cameras: the V cameras, in the world of the file.
        times: [T], seconds, increasing.
        guide: a video model and a sentence, by which the result is refined (4D-SDS, `zoo.animate3d.refine`).
        settings: of method `paper`.
        progress: called with (frames done, T).

    Raises:
        TypeError, ValueError: an argument has another type, shape or value.
    """
    instance(model, SplatModel, "fit_splats: model")
    videos, times = check_videos("fit_splats", videos, cameras, times)
    settings = settings or PaperSettings()
    views = make_views(videos, cameras, *model.unit())
    with fitting_threads():
        frames, seen_by = targets(views, settings.side)
        splats = stand_ins(model, settings.gaussians, frames, seen_by, settings.seed)
        neighbours = nearest_neighbourhoods(splats.means.double().numpy())
        controls = controls_among(splats, settings.seed) if settings.controlled else None
        field = FieldMotion(splats, MotionField(settings.seed), len(frames), controls)
        reconstruct(field, neighbours, frames, seen_by, settings, progress)
        if guide is not None:
            from zoo.animate3d.refine import refine

            refine(field, neighbours, seen_by, *guide)
        motion = follow(model, field, times)
        residual = measure(model, motion, views)
    doubtful = residual > residual[0] + DOUBTFUL
    return SplatFit(motion, residual, doubtful)


def controls_among(splats: StillSplats, seed: int) -> Controls:
    """Evenly spread control points among splats; each carries those that are near in space."""
    centres = splats.means[spread(splats.means.double().numpy(), NODES, seed)]
    return Controls(centres, nearest(centres, splats.means))


def follow(model: SplatModel, field: FieldMotion, times: np.ndarray) -> SplatMotion:
    """All Gaussians of a model, moved by a field.

    The field turns Gaussians by adding to their quaternions, which means something else for each of them. The rotation
    of a Gaussian is therefore the one that fits the motion of the nearest Gaussians of the field best.
    """
    whole, (centre, extent) = model.gaussians, model.unit()
    still = whole.means[0].double()
    points = ((still - torch.from_numpy(centre)) / extent * UNIT).float()
    nodes = field.splats.means
    around = torch.from_numpy(cKDTree(nodes.numpy()).query(points.numpy(), min(NEIGHBOURS, len(nodes)))[1])
    before = nodes[around] - points[:, None]
    first = Rotation.from_matrix(rotation_matrices(whole.quats[0].double()).numpy())
    positions, rotations = [still.float().numpy()], [first.as_quat(scalar_first=True)]
    for frame in range(1, len(times)):
        moved = field.carry(points, frame)
        after = field.carry(nodes, frame)[around] - moved[:, None]
        turned = Rotation.from_matrix(best_rotations(before, after).double().numpy()) * first
        positions.append((moved.double().numpy() / UNIT * extent + centre).astype(np.float32))
        rotations.append(turned.as_quat(scalar_first=True))
    return SplatMotion(np.array(positions), np.array(rotations, np.float32), times)


@torch.no_grad()
def measure(model: SplatModel, motion: SplatMotion, views: Views) -> np.ndarray:
    """The residual of each frame; see `SplatFit`."""
    frames, cameras = targets(views, _COMPARED)
    centre, extent = model.unit()

    def cost(frame: int, place: int) -> float:
        drawn = scene(model, motion.positions[place], motion.rotations[place], centre, extent / UNIT)
        return float(picture_loss(drawn, cameras, frames[frame : frame + 1]))

    costs = np.array([cost(frame, frame) for frame in range(len(frames))])
    unmoved = max(cost(frame, 0) for frame in range(len(frames)))
    return np.sqrt(costs / max(unmoved, 1e-12))
