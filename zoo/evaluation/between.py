"""Task of DIMO models: plausibility and diversity of samples and of motions half-way between two trained ones.

There is no true motion to compare a sample with, so that tracks of points are compared with all true motions of the
object, trained and held out:

    torn        share of points torn off their neighbours in the worst frame (`zoo.metrics.torn_share`)
    roughness   Σ ‖x(t+1) − 2 x(t) + x(t−1)‖ / Σ ‖x(t+1) − x(t)‖ over frames and points
    stretch     mean over frames and points of median_j |log(d_ij(t) / d_ij(0))|, with the distances d_ij = ‖x_j − x_i‖
                of a point i from its neighbours j
    movement    mean distance of the points from their first positions, over the diagonal of their first bounding box
    X_gap       max(0, log(low / x), log(x / high)): how far the value x of a motion is outside the range [low, high] of
                the true motions' values, between their 5th and 95th percentile
    diversity   mean distance of a motion's points from those of the other motions of its row, over that of true ones

A still object has no torn points, roughness or stretch, so these three say little by themselves: the table reports them
as unfit. The gaps and the diversity cannot be won by standing still.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.dimo.data import MotionVideos
from zoo.dimo.evaluation import SOLID
from zoo.dimo.model import DIMO
from zoo.evaluation import controls
from zoo.evaluation.dimo import dimo, open_truth, render_views, single
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.scores import PairMetric, missing_backbone
from zoo.evaluation.tasks import CONTROL, Assignment, Measurement, Row
from zoo.metrics import nearest_neighbours, torn_share

RANGE = (0.05, 0.95)  # percentiles of the true motions' values that a plausible motion's are between
FLOOR = 1e-4  # least value in a logarithm
STATISTICS = ("torn", "roughness", "stretch", "movement")


def _no_pairs(*_: Any) -> None:
    """These metrics compare a motion with all true ones, not with one of them."""


METRICS: dict[str, PairMetric] = {
    "torn": PairMetric(_no_pairs, "lower", "points torn off their neighbours in the worst frame", "%", 2),
    "roughness": PairMetric(_no_pairs, "lower", "acceleration over speed"),
    "stretch": PairMetric(_no_pairs, "lower", "change of the distance between neighbours", "%", 1),
    "movement": PairMetric(_no_pairs, "higher", "mean displacement over the object's diagonal", "%", 1),
    "roughness_gap": PairMetric(_no_pairs, "lower", "roughness outside the range of true motions"),
    "stretch_gap": PairMetric(_no_pairs, "lower", "stretch outside the range of true motions"),
    "movement_gap": PairMetric(_no_pairs, "lower", "movement outside the range of true motions"),
    "diversity": PairMetric(_no_pairs, "higher", "distance between motions, over that of the true ones"),
}


def between(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Samples, midpoints and controls, each a set of point tracks."""
    videos, protocol, hashes = open_truth(assignment, own_truth)
    settings = protocol.settings
    truth = _true_tracks(videos)
    sets: list[tuple[str, str, list[str], list[Tensor], Tensor | None]] = []
    total = len(assignment.models) * 2
    for number, (label, given) in enumerate(assignment.models.items()):
        pipeline = dimo(label, given)
        model = single(pipeline)
        phases = torch.tensor(videos.phases, dtype=torch.float32)
        solid = _solid_points(model, settings["points"])
        for place, (kind, latents) in enumerate(_latents(pipeline, settings).items()):
            assignment.progress(2 * number + place, total, f"{label}: {kind}")
            tracks = [_tracks(model, z, phases, solid) for z in latents]
            names = [f"{kind} {index}" for index in range(len(latents))]
            title = kind if label == next(iter(assignment.models)) else f"{kind}, {label}"
            sets.append((title, assignment.role(label), names, tracks, model.means[solid].detach()))
    for name in protocol.content["controls"]:
        sets.append((name, CONTROL, *_control(name, videos.names, truth, settings["seed"]), None))
    assignment.progress(total, total, "")
    rows = _score(sets, truth, _usable(protocol.metrics))
    return Measurement(protocol, videos.object, hashes, rows, _Pictures(assignment, videos, settings))


def _usable(metrics: Mapping[str, dict[str, Any]]) -> list[str]:
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise EvaluationError(f"dimo-between: metric {unknown[0]!r}: expected one of {', '.join(METRICS)}")
    return [name for name, settings in metrics.items() if not missing_backbone(name, settings)]


# --- tracks --------------------------------------------------------------------------------------------


def _true_tracks(videos: MotionVideos) -> list[Tensor]:
    """Surface points of all motions of the object, [T, P, 3] each."""
    tracks = [videos.points(index) for index in range(len(videos))]
    if any(points is None for points in tracks):
        raise EvaluationError(
            f"{videos.folder} has no surface points of some motions, which this protocol compares; make the truth with "
            f"python -m factory.motions"
        )
    return [torch.from_numpy(np.array(points, np.float32)) for points in tracks]


def _latents(pipeline: Any, settings: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Latents of the samples and of the midpoints, [Z] each."""
    mu, count = pipeline.model.mu, settings["count"]
    if len(mu) < 2:
        raise EvaluationError(f"dimo/{pipeline.object} was trained on one motion: nothing is between motions")
    rng = np.random.default_rng(settings["seed"])
    pairs = [rng.permutation(len(mu))[:2] for _ in range(count)]
    return {
        "samples": [pipeline.draw(settings["seed"] + index).float().cpu() for index in range(count)],
        "half-way": [mu[torch.from_numpy(pair)].float().mean(0).cpu() for pair in pairs],
    }


def _solid_points(model: DIMO, count: int) -> Tensor:
    """Indices of at most `count` Gaussians of opacity above `SOLID`, evenly spaced in their order."""
    solid = torch.nonzero(model.opacity_logits.float().sigmoid() > SOLID)[:, 0]
    if len(solid) < 2:
        raise EvaluationError("dimo-between: the model has no solid Gaussians")
    places = torch.linspace(0, len(solid) - 1, min(count, len(solid))).round().long()
    return solid[places]


@torch.no_grad()
def _tracks(model: DIMO, z: Tensor, phases: Tensor, solid: Tensor) -> Tensor:
    return model.skin(model.trajectories(z[None], phases)).means[:, solid]


def _control(
    name: str, motions: Sequence[str], truth: list[Tensor], seed: int
) -> tuple[list[str], list[Tensor]]:
    """Names and tracks of a control."""
    rng = np.random.default_rng([seed, 1])
    names = list(motions)
    match name:
        case controls.TRUTH:
            return names, truth
        case controls.STILL:
            return names, [points[:1].expand_as(points) for points in truth]
        case controls.LATE:
            return names, [torch.cat([points[:1], points[:-1]]) for points in truth]
        case controls.SHUFFLED:
            return names, [points[torch.from_numpy(rng.permutation(len(points)))] for points in truth]
        case controls.BLEND:
            others = [controls.another(index, len(truth)) for index in range(len(truth))]
            mixed = [(points + truth[other]) / 2 for points, other in zip(truth, others, strict=True)]
            return [f"{a} + {names[b]}" for a, b in zip(names, others, strict=True)], mixed
    raise EvaluationError(f"dimo-between: control {name!r} does not exist")


# --- scores --------------------------------------------------------------------------------------------


def statistics(points: Tensor, reference: Tensor | None = None) -> dict[str, float]:
    """`STATISTICS` of the tracks [T, P, 3] of one motion; the reference pose [P, 3] is by default the first frame."""
    reference = points[0] if reference is None else reference
    speed = (points[1:] - points[:-1]).norm(dim=-1).double()
    change = (points[2:] - 2 * points[1:-1] + points[:-2]).norm(dim=-1).double()
    nearest = nearest_neighbours(points[0])
    lengths = (points[:, nearest] - points[:, :, None]).norm(dim=-1).clamp(min=1e-9)
    ratios = (lengths / lengths[:1]).log().abs().quantile(0.5, dim=-1)
    diagonal = (points[0].amax(0) - points[0].amin(0)).norm()
    return {
        "torn": float(torn_share(points, reference).max()),
        "roughness": float(change.sum() / speed.sum()) if float(speed.sum()) > 0 else 0.0,
        "stretch": float(ratios[1:].double().mean()),
        "movement": float(((points - points[:1]).norm(dim=-1).double().mean()) / diagonal),
    }


def gap(value: float, low: float, high: float) -> float:
    """Distance of a positive value from a range, as a logarithm; 0 inside it."""
    value, low, high = (max(each, FLOOR) for each in (value, low, high))
    return float(max(0.0, np.log(low / value), np.log(value / high)))


def distances(tracks: Sequence[Tensor]) -> np.ndarray:
    """Mean distance of the points of each motion from those of the others, [N]; nan for a single motion."""
    stack = torch.stack(list(tracks)).flatten(1, 2)  # [N, T·P, 3]
    apart = torch.stack([(stack - each).norm(dim=-1).double().mean(-1) for each in stack])
    return (apart.sum(1) / (len(stack) - 1)).numpy() if len(stack) > 1 else np.full(len(stack), np.nan)


def _score(
    sets: list[tuple[str, str, list[str], list[Tensor], Tensor | None]],
    truth: list[Tensor],
    usable: list[str],
) -> list[Row]:
    true_values = [statistics(points) for points in truth]
    ranges = {name: np.quantile([values[name] for values in true_values], RANGE) for name in STATISTICS}
    spread = float(np.mean(distances(truth)))
    rows = []
    for title, role, names, tracks, reference in sets:
        row = Row(title, role)
        apart = distances(tracks)
        for index, (name, points) in enumerate(zip(names, tracks, strict=True)):
            values: dict[str, float | None] = dict(statistics(points, reference))
            values |= {
                f"{each}_gap": gap(float(values[each] or 0.0), *map(float, ranges[each]))
                for each in STATISTICS
            }
            values["diversity"] = (
                None if np.isnan(apart[index]) or not spread else float(apart[index] / spread)
            )
            row.add(name, {metric: values[metric] for metric in usable})
        rows.append(row)
    return rows


class _Pictures:
    """Frames of the first row's motions, without a truth."""

    def __init__(self, assignment: Assignment, videos: MotionVideos, settings: Mapping[str, Any]) -> None:
        label, given = next(iter(assignment.models.items()))
        pipeline = dimo(label, given)
        self.model, self.videos = single(pipeline), videos
        self.latents = next(iter(_latents(pipeline, settings).values()))
        self.background = tuple(settings["background"])
        self.resolution = min(settings["resolution"], videos.resolution)

    def __call__(self, index: int) -> tuple[None, np.ndarray]:
        videos = self.videos
        view = (videos.heldout_views or videos.train_views)[0]
        cameras = videos.cameras([0], [view], 1, self.resolution)
        phases = torch.tensor(videos.phases, dtype=torch.float32)
        frames, _ = render_views(self.model, self.latents[index][None], phases, cameras, self.background)
        return None, frames[0]
