"""The metrics that protocols name: functions of a prediction, the truth and settings, with direction and unit.

The formulas are in `zoo.metrics`. A metric returns None for a clip that lacks what it compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.evaluation.canonical import file_digest
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.media import Media
from zoo.metrics import (
    color_histogram_overlap,
    endpoint_error,
    foreground_mask,
    intersection_and_union,
    iou,
    lpips,
    psnr,
    ssim,
    trajectory_error,
    view_error,
)

Settings = dict[str, Any]
Function = Callable[[Media, Media, Settings], float | None]


@dataclass(frozen=True)
class PairMetric:
    """A metric of a predicted and a true clip, as protocols use it.

    Attributes:
        function: of prediction, truth and settings.
        better: "higher" or "lower".
        about: one phrase.
        unit: "dB", "px", "%" (values are shares, shown times 100) or "".
        digits: shown after the decimal point.
    """

    function: Function
    better: str
    about: str
    unit: str = ""
    digits: int = 3

    def show(self, value: float) -> str:
        return f"{100 * value if self.unit == '%' else value:.{self.digits}f}"


def _psnr(prediction: Media, truth: Media, settings: Settings) -> float | None:
    first = settings.get("first_frame", 0)
    if prediction.frames is None or truth.frames is None:
        return None
    return psnr(prediction.images[:, first:], truth.images[:, first:])


def _mean_of_views(metric: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A metric of the images of one view, as a mean over views and images."""

    def mean(prediction: Media, truth: Media, settings: Settings) -> float | None:
        if prediction.frames is None or truth.frames is None:
            return None
        first = settings.get("first_frame", 0)
        pairs = zip(prediction.images, truth.images, strict=True)
        return float(torch.stack([metric(a[first:], b[first:]).double() for a, b in pairs]).mean())

    return mean


def _iou(prediction: Media, truth: Media, settings: Settings) -> float | None:
    if prediction.alpha is None or truth.alpha is None:
        return None
    first = settings.get("first_frame", 0)
    alphas = (prediction.alpha, truth.alpha)
    a, b = (torch.from_numpy(alpha[:, first:].copy()).float() / 255 for alpha in alphas)
    intersection, union = intersection_and_union(a, b)
    return iou(intersection, union) if float(union) else None


def _flow_error(prediction: Media, truth: Media, settings: Settings) -> float | None:
    if prediction.frames is None or truth.frames is None:
        return None
    resolution = settings.get("resolution")
    background = settings.get("background")
    small = truth.at_resolution(resolution)
    mask = foreground_mask(small) if background is None else foreground_mask(small, tuple(background))
    scale = truth.frames.shape[-2] / small.shape[-1]  # pixels of the videos per pixel of the flow
    return scale * float(endpoint_error(prediction.flow(resolution), truth.flow(resolution), mask[:, :-1]))


def _motion_error(prediction: Media, truth: Media, settings: Settings) -> float | None:
    if prediction.points is None or truth.points is None:
        return None
    tracks = (prediction.points, truth.points)
    predicted, target = (torch.from_numpy(points.copy()).float() for points in tracks)
    if predicted.shape != target.shape:
        return None
    error = trajectory_error(predicted, target)
    if not settings.get("relative"):
        return error
    moved = trajectory_error(target[:1].expand_as(target), target)
    return error / moved if moved > 0 else None


def _view_error(prediction: Media, truth: Media, settings: Settings) -> float | None:
    if prediction.frames is None or truth.depth is None or truth.cameras is None:
        return None
    depth = torch.from_numpy(truth.depth.copy())
    value = view_error(prediction.planes, depth, truth.cameras, settings.get("tolerance", 0.02))
    return None if math.isnan(value) else value


def _identity(prediction: Media, truth: Media, settings: Settings) -> float | None:
    if prediction.frames is None:
        return None
    return float(color_histogram_overlap(prediction.planes, settings.get("bins", 6)))


METRICS: dict[str, PairMetric] = {
    "psnr": PairMetric(_psnr, "higher", "peak signal-to-noise ratio", "dB", 2),
    "ssim": PairMetric(_mean_of_views(ssim), "higher", "structural similarity", "", 4),
    "lpips": PairMetric(_mean_of_views(lpips), "lower", "perceptual distance (VGG-16)", "", 4),
    "iou": PairMetric(_iou, "higher", "intersection over union of silhouettes", "%", 2),
    "flow_error": PairMetric(
        _flow_error, "lower", "endpoint error of Lucas-Kanade flow over the object", "px", 3
    ),
    "motion_error": PairMetric(
        _motion_error, "lower", "distance of tracked surface points from the truth", "", 4
    ),
    "vertex_error": PairMetric(
        _motion_error, "lower", "distance of vertices from the truth over the true displacement", "%", 1
    ),
    "view_error": PairMetric(
        _view_error, "lower", "colour difference of a surface point in two views", "", 4
    ),
    "identity": PairMetric(_identity, "higher", "overlap of colour histograms with the first frame", "", 4),
}


def metric(name: str) -> PairMetric:
    """A metric by the name in a protocol.

    Raises:
        EvaluationError: it is unknown.
    """
    if name not in METRICS:
        raise EvaluationError(
            f"metric {name!r} is not known here, only {', '.join(METRICS)}; upgrade menagerie4d"
        )
    return METRICS[name]


def missing_backbone(name: str, settings: Settings) -> str:
    """Why a metric that needs published weights cannot be computed here; "" if it can.

    The file's SHA-256 is in the protocol, so that nothing else is computed under the metric's name.
    """
    backbone = settings.get("backbone")
    if backbone is None:
        return ""
    file, sha256, source = backbone["file"], backbone["sha256"], backbone["source"]
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    needs = f"not computed: needs {file} (sha256 {sha256}) from {source} in {path.parent}"
    if not path.is_file():
        return needs
    if (present := file_digest(path)) != sha256:
        return f"{needs}; the file there is another one (sha256 {present})"
    if name == "lpips":
        try:
            import lpips as _  # noqa: F401
        except ImportError:
            return 'not computed: needs the package lpips: pip install "menagerie4d[lpips]"'
    return ""


def as_tensor(points: Any) -> Tensor:
    """Points as float32 on the CPU."""
    return torch.as_tensor(points, dtype=torch.float32)
