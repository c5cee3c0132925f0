"""Motion of the camera: of the background where it has texture, else what all of the object does in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factory.generation.judging.flow import opencv
from factory.generation.judging.video import SMALLEST_SIDE, JudgedVideo

TEXTURE = 6.0  # 8-bit steps per pixel: gradients above this can be followed
LEAST_TEXTURED = 0.02  # share of the background that must have texture
FITS = 0.35  # of a pixel plus a tenth of the flow: distance of a flow from the common one that still fits


@dataclass(frozen=True)
class CommonMotion:
    """The similarity transform that most of a region follows, from each frame to the next.

    Attributes:
        offset: float64 [T - 1, 2], displacement of the frame's centre, pixels.
        log_scale, angle: float64 [T - 1]; radians.
        share: float64 [T - 1], share of the region that follows it.
    """

    offset: np.ndarray
    log_scale: np.ndarray
    angle: np.ndarray
    share: np.ndarray


def background_motion(video: JudgedVideo) -> float | None:
    """Path of the background's median flow over the video, as a share of the frame's longer side; 0 and up.

    Only pixels outside the mask (dilated by 3 pixels) with texture are followed. A zoom moves no median, so it is the
    median of the length |flow|. None if less than 2 % of the background has texture, as before a plain colour.
    """
    if min(video.frames.shape[1:3]) < SMALLEST_SIDE or len(video.frames) < 2:
        return None
    cv2 = opencv()
    kernel = np.ones((7, 7), np.uint8)
    total = 0.0
    for t, flow in enumerate(video.flow):
        covered = cv2.dilate((video.masks[t] | video.masks[t + 1]).astype(np.uint8), kernel) > 0
        rows, columns = np.gradient(cv2.GaussianBlur(video.luma[t].astype(np.float32), (0, 0), 1.0))
        textured = (np.hypot(rows, columns) > TEXTURE) & ~covered
        if textured.sum() < max(20, LEAST_TEXTURED * (~covered).sum()):
            return None
        total += float(np.median(np.linalg.norm(flow[textured], axis=-1)))
    return total / max(video.frames.shape[1:3])


def zoom(video: JudgedVideo) -> float | None:
    """Change of scale that the object's flow and its area agree on; |ln(scale)|, 0 and up.

    The smaller of |Σ ln s_t|, with s_t the scale of the common motion in the mask, and |ln(A_last / A_first)| / 2 if
    both have the same sign, else 0. None before a textured background, where `background_motion` measures it, or if
    a frame does not show the object.
    """
    common = _object_motion(video)
    if common is None:
        return None
    by_flow = common.log_scale.sum()
    by_area = np.log(video.areas[-1] / video.areas[0]) / 2
    return float(min(abs(by_flow), abs(by_area))) if by_flow * by_area > 0 else 0.0


def roll(video: JudgedVideo) -> float | None:
    """Rotation in the image that all of the object has in common; radians, 0 and up.

    |Σ w_t angle_t|, w_t = 1 where at least half of the mask follows the common motion, else 0. None as for `zoom`.
    """
    common = _object_motion(video)
    return None if common is None else float(abs((common.angle * (common.share > 0.5)).sum()))


def pan(video: JudgedVideo) -> float | None:
    """Steady displacement that all of the object has in common; shares of the frame's longer side, 0 and up.

    Length of the mean common displacement, where at least half of the mask follows it, times the number of steps.
    An object that travels across the frame scores as a panning camera does: before a plain background they are the
    same. None as for `zoom`.
    """
    common = _object_motion(video)
    if common is None:
        return None
    total = (common.offset * (common.share > 0.5)[:, None]).sum(0)
    return float(np.linalg.norm(total) / max(video.frames.shape[1:3]))


def _object_motion(video: JudgedVideo) -> CommonMotion | None:
    if background_motion(video) is not None or not video.visible.all():
        return None
    return common_motion(video.flow, video.masks[:-1]) if len(video.frames) > 1 else None


def common_motion(flow: np.ndarray, regions: np.ndarray) -> CommonMotion:
    """Fit a similarity transform to the flow in a region by iteratively reweighted least squares.

    Args:
        flow: float32 [N, H, W, 2], pixels.
        regions: bool [N, H, W], none empty.
    """
    rows = [_similarity(flow[t], regions[t]) for t in range(len(flow))]
    offset, log_scale, angle, share = zip(*rows, strict=True)
    return CommonMotion(np.array(offset), np.array(log_scale), np.array(angle), np.array(share))


def _similarity(flow: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Offset of the region's centre, ln(scale), angle, share of the region that fits."""
    y, x = np.nonzero(region)
    # Complex numbers: a similarity transform is d = m z + c, with 1 + m = scale exp(i angle).
    z = (x - x.mean()) + 1j * (y - y.mean())
    d = flow[y, x, 0] + 1j * flow[y, x, 1]
    limit = FITS + 0.1 * np.abs(d)
    weight = np.ones(len(z))
    m, c = 0j, 0j
    for _ in range(8):
        total = weight.sum()
        mean_z, mean_d = (weight * z).sum() / total, (weight * d).sum() / total
        centred = z - mean_z
        m = (weight * centred.conj() * (d - mean_d)).sum() / max((weight * np.abs(centred) ** 2).sum(), 1e-9)
        c = mean_d - m * mean_z
        residual = np.abs(d - m * z - c)
        weight = 1 / (1 + (residual / limit) ** 2) ** 2  # Geman-McClure
    share = float((residual < 2 * limit).mean())
    return np.array([c.real, c.imag]), float(np.log(max(abs(1 + m), 1e-6))), float(np.angle(1 + m)), share
