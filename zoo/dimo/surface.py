"""Steps of training that make the Gaussians a skin (not in the paper).

Gaussians of stage 2 are a fog. Drawn with a blur of half a pixel, which is 10 mm where a picture has 64 pixels, opaque
Gaussians on the surface reach beyond the outline of a small object, so they become transparent and move inside: those
of the drop, an object of 30 cm, had an opacity of 0.11 and were 19 mm below the surface, in the median. One then sees
through them to others of all depths and colours, which looks like fur.

Here new Gaussians are placed between the tracked points of the surface, or on the visual hull where there are none, as
discs that lie in the surface and are nearly opaque, and trained at full resolution, with the motions fixed. Discs
between tracked points have known paths, by which their key points are chosen (`zoo.dimo.binding`). A loss
keeps neighbouring discs of one colour. None keeps them in one plane: on a curved surface, such a loss draws discs
together into clusters, which stretch unevenly (docs/dimo-experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from zoo.dimo.binding import bind
from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.initial import carry_back, hull_points
from zoo.dimo.joint import JointStage
from zoo.dimo.model import KeyPointMotion
from zoo.dimo.objective import StepLoss, decayed_rate, photometric
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import spacing
from zoo.dimo.stage import run_stage
from zoo.dimo.tracks import some_frames, surface_points

STAGE = 6  # of the random numbers, see `polish`
REFRESH = 100  # steps between two searches for neighbours
OPACITY = 0.9  # of new discs
THICKNESS = 0.3  # of new discs, over their radius
PATCH = 12  # points that determine the plane through a point of the hull
SMOOTHING = 3  # times that the points of the hull are moved to these planes
NEIGHBOURS = 8  # discs to which a disc is compared
COLOUR = 8.0  # weight of `speckles`
# Fields of the configuration that go with these steps (docs/dimo.md).
CONFIG: dict[str, Any] = {"neighbours": 8, "discs": True}
RATES = {
    "means": (6e-4, 2e-5), "log_scales": (4e-3, 2e-4), "quats": (3e-3, 1e-4), "opacity_logits": (3e-2, 3e-3),
    "colors": (2e-2, 5e-4), "log_radii": (3e-3, 3e-4),
}  # fmt: skip


def make_skin(run: TrainingContext, steps: int) -> None:
    """Take all steps of `SkinStage`, in place.

    Args:
        run: a finished training with motion factorisation.
        steps: of Adam; 0 does nothing.

    Raises:
        ValueError: the silhouettes have no common hull.
    """
    if steps:
        run_stage(run, SkinStage(run, steps))


class SkinStage:
    """Replaces the Gaussians of `run.model` by discs on its surface and trains them.

    The decoder, the latents and the key points stay; the key points' radii are trained with the discs, and the motion
    graph is computed again, as the motions have changed since stage 2 if there were steps on tracks.

    Args:
        run: a training whose model has key points.
        steps: of Adam.
        tensors: those of a checkpoint; None to begin.
    """

    name = "skin"

    def __init__(self, run: TrainingContext, steps: int, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.run, self.steps = run, steps
        if tensors is None:
            run.model.refresh()
        self.motions = _all_motions(run)
        if tensors is None:
            paths = place_discs(run)
            run.model.assign()
            if paths is not None:
                some = some_frames(run.videos.frames)
                motion = KeyPointMotion(*(each[:, some] for each in self.motions))
                # A disc that is not off by more than the distance to the next one hides nothing and leaves no gap.
                bind(run.model, motion, paths, float(spacing(run.model.means).mean()))
        self.near = None if tensors is None else tensors["near"]
        schedule = ((0, run.config.resolution),)
        self.feed = Feed(
            run.videos, run.views, run.config.joint.batch, schedule, run.config.latent, (run.seed, STAGE)
        )
        self.adam = NamedAdam({name: [getattr(run.model, name)] for name in RATES})

    def tensors(self) -> dict[str, Tensor]:
        """State to be stored in a checkpoint, besides the model and the optimiser."""
        return {} if self.near is None else {"near": self.near}

    def advance(self, step: int, batch: Batch) -> StepLoss:
        """Take one step, with the neighbours of `REFRESH` steps.

        Args:
            step: index within this stage, from 0.
            batch: data of the step, on the training device.
        """
        model, config = self.run.model, self.run.config
        if step % REFRESH == 0 or self.near is None:
            self._assign()
            self.near = _neighbours(model.means)
        rows = batch.motions[:, None], batch.frames[None]
        motion = KeyPointMotion(self.motions.positions[rows], self.motions.rotations[rows])
        white = torch.ones(3, device=self.run.device)
        picture = model.draw(model.skin(motion), batch.cameras, background=white)
        loss, error = photometric(config, picture, batch)
        loss = loss + COLOUR * speckles(model.colors, self.near)
        loss.backward()
        self.adam.step({name: decayed_rate(rate, step, self.steps) for name, rate in RATES.items()})
        return StepLoss(loss, error)

    def finish(self) -> None:
        """Assign the discs, which have moved, to key points."""
        self._assign()
        self.run.model.zero_grad(set_to_none=True)  # of the key points, which stay

    def _assign(self) -> None:
        """Assign the discs to key points, unless they were bound to some by how the surface moves."""
        if self.run.tracks is None:
            self.run.model.assign()


@torch.no_grad()
def place_discs(run: TrainingContext) -> Tensor | None:
    """Replace the Gaussians of `run.model` by as many discs on the surface of `run.pose`.

    Returns:
        Where they belong in all motions, as `surface_points` does; None without tracks.
    """
    model, rng = run.model, run.rng(STAGE)
    points, colours = hull_points(run, len(model.means), rng)
    paths = None
    if run.tracks and (tracked := surface_points(run.videos, run.pose, len(points), rng)):
        hull, (points, paths) = points, (each.to(points) for each in tracked)
        colours = colours[torch.cat([torch.cdist(p, hull).argmin(1) for p in points.split(2048)])]
    else:
        for _ in range(SMOOTHING):
            middles, axes = _planes(points)
            normals = axes[..., 2]
            points = points - ((points - middles) * normals).sum(-1, keepdim=True) * normals
    axes = _planes(points)[1]
    radius = spacing(points)
    turns = Rotation.from_matrix(axes.cpu().numpy()).as_quat()[:, [3, 0, 1, 2]]
    values = {
        "means": carry_back(run, points),
        "log_scales": torch.stack([radius, radius, THICKNESS * radius], -1).log(),
        "quats": torch.from_numpy(turns),
        "opacity_logits": torch.full((len(points),), math.log(OPACITY / (1 - OPACITY))),
        "colors": colours,
    }
    for name in JointStage.learnt:
        old = getattr(model, name)
        setattr(model, name, nn.Parameter(values[name].to(old), requires_grad=old.requires_grad))
    return paths


def speckles(colours: Tensor, near: Tensor) -> Tensor:
    """Mean distance of the colours [N, 3] of neighbours [N, J]; as it is not squared, edges cost no more than ramps."""
    return ((colours[near] - colours[:, None]).square().sum(-1) + 1e-4).sqrt().mean()


@torch.no_grad()
def _all_motions(run: TrainingContext) -> KeyPointMotion:
    """The key points in all frames of all training motions, [M, T, K, …]."""
    model, phases = run.model, torch.tensor(run.videos.phases, device=run.device)
    parts = [model.trajectories(z, phases) for z in model.mu.split(4)]
    return KeyPointMotion(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.no_grad()
def _neighbours(points: Tensor) -> Tensor:
    """The nearest points of each of [N, 3], int64 [N, J]."""
    count = min(NEIGHBOURS + 1, len(points))
    near = torch.cat([torch.cdist(p, points).topk(count, largest=False).indices for p in points.split(2048)])
    return near[:, 1:]


def _planes(points: Tensor) -> tuple[Tensor, Tensor]:
    """The plane through each of [N, 3] points and its neighbours: a point of it [N, 3] and axes [N, 3, 3].

    Axes are columns of a rotation; the third is the normal, of either sign.
    """
    count = min(PATCH, len(points))
    near = torch.cat([torch.cdist(p, points).topk(count, largest=False).indices for p in points.split(2048)])
    middles = points[near].mean(1)
    axes = torch.linalg.svd(points[near] - middles[:, None], full_matrices=True)[2].mT.contiguous()
    axes[..., 0] *= torch.linalg.det(axes).sign()[:, None]
    return middles, axes
