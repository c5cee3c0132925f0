"""Dense optical flow between frames: DIS (Kroeger et al. 2016) of OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

STILL = 1 / 128  # share of the frame's longer side: a part that moves less in a step stands still
BASE = 85  # percentile of the rows of a region: its base is below
FITS = 0.35  # pixels, plus a tenth of the flow: distance of a flow from the common one that still fits


@cache
def opencv() -> Any:
    """Import OpenCV.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"judging videos needs OpenCV ({error}); install it with: pip install 'menagerie4d[judge]'"
        ) from None
    return cv2


@cache
def _estimator() -> Any:
    cv2 = opencv()
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dense_flow(before: np.ndarray, after: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Displacement of each pixel of `before`, float32 [H, W, 2] in pixels, x right and y down.

    Args:
        before, after: grey levels uint8 [H, W], at least 16 × 16.
        shift: displacement (x, y) that the search starts from, rounded to pixels. DIS follows motions up to about a
            tenth of the frame by itself; small and fast objects need the displacement of their masks.
    """
    start = np.rint(shift).astype(int)
    if start.any():
        cv2 = opencv()
        matrix = np.array([[1, 0, -start[0]], [0, 1, -start[1]]], np.float32)
        size = (after.shape[1], after.shape[0])
        after = cv2.warpAffine(after, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    flow = _estimator().calc(np.ascontiguousarray(before), np.ascontiguousarray(after), None)
    return flow + start.astype(np.float32)


def sample(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample an image [H, W] or [H, W, C] at each pixel plus its flow [H, W, 2]; borders are replicated."""
    cv2 = opencv()
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(
        image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


@dataclass(frozen=True)
class CommonMotion:
    """The similarity transforms that most of a region follows, one per step.

    Attributes:
        offset: float64 [N, 2], displacement of the region's centre, pixels.
        log_scale, angle: float64 [N]; radians.
        share: float64 [N], share of the region's texture that follows the transform, 0..1.
        durations: float64 [N], frames that a step takes.
        still: float64 [N], share of the region that stands still, 0..1.
        base: float64 [N, 2], median displacement of the lowest 15 % of the region, pixels.
        turns: float64 [N], mean rotation of the region's upper, lower, left and right half, radians.
    """

    offset: np.ndarray
    log_scale: np.ndarray
    angle: np.ndarray
    share: np.ndarray
    durations: np.ndarray
    still: np.ndarray
    base: np.ndarray
    turns: np.ndarray

    @property
    def direction(self) -> np.ndarray:
        """Of the mean of `offset`, float64 [2], of length 1."""
        total = self.share @ self.offset
        return total / max(float(np.linalg.norm(total)), 1e-12)

    def mean(self, steps: np.ndarray) -> np.ndarray:
        """What values [N] or [N, D] of the steps add up to over all of them, at the mean rate, weighted by `share`.

        A step in which the object's own motion hides the common one has a small share.
        """
        return (self.share @ steps) * (self.durations.sum() / max(float(self.share @ self.durations), 1e-12))


def common_motion(
    flow: np.ndarray, regions: np.ndarray, weights: np.ndarray, durations: np.ndarray
) -> CommonMotion:
    """Fit a similarity transform to the flow in a region by iteratively reweighted least squares.

    Args:
        flow: float32 [N, H, W, 2], pixels.
        regions: bool [N, H, W], none empty.
        weights: float32 [N, H, W], at least 0: where there is no texture, the flow is less than the motion.
        durations: int [N], frames between the pictures of each flow.
    """
    rows = [_step(flow[t], regions[t], weights[t]) for t in range(len(flow))]
    offset, log_scale, angle, share, still, base, turns = (
        np.array(values) for values in zip(*rows, strict=True)
    )
    return CommonMotion(offset, log_scale, angle, share, durations.astype(np.float64), still, base, turns)


def _step(flow: np.ndarray, region: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray | float, ...]:
    """The values of one step, in the order of `CommonMotion` without the durations."""
    y, x = np.nonzero(region)
    z = x + 1j * y
    d = flow[y, x, 0] + 1j * flow[y, x, 1]
    prior = weights[y, x].astype(np.float64) + 1e-6
    m, c, share = _similarity(z - z.mean(), d, prior)
    still = float((np.abs(d) < STILL * max(region.shape)).mean())
    low = d[y >= np.percentile(y, BASE)]
    base = np.array([np.median(low.real), np.median(low.imag)])
    halves = [side for v in (y, x) for side in (v <= np.median(v), v > np.median(v)) if side.sum() > 2]
    turns = [np.angle(1 + _similarity(z[side], d[side], prior[side])[0]) for side in halves]
    scale = float(np.log(max(abs(1 + m), 1e-6)))
    return (
        np.array([c.real, c.imag]),
        scale,
        float(np.angle(1 + m)),
        share,
        still,
        base,
        float(np.mean(turns)) if turns else 0.0,
    )


def _similarity(z: np.ndarray, d: np.ndarray, prior: np.ndarray) -> tuple[complex, complex, float]:
    """m and c of d = m z + c, and the share of the weights that it explains.

    In complex numbers this is a similarity transform: 1 + m = scale exp(i angle).

    Args:
        z, d: complex128 [P], positions and displacements.
        prior: float64 [P], weights above 0.
    """
    limit = FITS + 0.1 * np.abs(d)
    weight = prior
    m, c = 0j, 0j
    for _ in range(12):
        total = weight.sum()
        mean_z, mean_d = (weight * z).sum() / total, (weight * d).sum() / total
        centred = z - mean_z
        m = (weight * centred.conj() * (d - mean_d)).sum() / max((weight * np.abs(centred) ** 2).sum(), 1e-9)
        c = mean_d - m * mean_z
        weight = prior / (1 + (np.abs(d - m * z - c) / limit) ** 2) ** 2  # Geman-McClure
    share = float((prior / (1 + (np.abs(d - m * z - c) / limit) ** 2)).sum() / prior.sum())
    return m, c, share
