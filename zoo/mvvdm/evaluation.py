"""How good an MV-VDM is: its videos of unseen objects against the truth, and against pictures that do not move.

Everything here is measured with the eyes alone: no other network judges. What a figure is worth shows beside it: the
same figure of the still first frame, or of the true video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.cameras import Cameras

PROTOCOL = (
    "Videos made of the first frames and the sentence of clips that were not trained on. psnr: of all frames but the "
    "first, dB of the mean squared error of a clip; psnr_still: that of the first frame repeated. flow_error: mean "
    "distance, in pixels, between the optical flow from frame to frame and that of the true video (pyramidal "
    "Lucas-Kanade, on both), where that has the object; flow_error_still: that of no motion. identity: overlap of "
    "the object's colour histogram with the first frame's, 0-1; identity_truth: of the true video. view_error: mean "
    "distance, 0-1, between the colours in which two views see one point of the true surface; view_error_truth: of the "
    "true video."
)
GREY = 127.0 / 255.0


@dataclass(frozen=True)
class TrueClip:
    """A clip to be compared with.

    Attributes:
        frames: uint8 [V, T, H, W, 3] on MV-VDM's grey. caption: what happens. cameras: of the V views.
        depth: float32 [V, T, H, W], metres along the optical axis, 0 where nothing is; or None.
    """

    name: str
    caption: str
    frames: np.ndarray
    cameras: Cameras
    depth: np.ndarray | None = None


@torch.no_grad()
def evaluate(sample: Callable[[TrueClip], np.ndarray], clips: Iterable[TrueClip]) -> dict[str, Any]:
    """Measure the videos that `sample` makes of the first frames of clips.

    Args:
        sample: gives uint8 [V, T, H, W, 3], whose first frames are those of the clip or nearly so.
    Returns:
        "clips": a dict a clip with its name and the figures of `PROTOCOL`, those of views only where the depth is
        known; "mean" of each over clips; "protocol".
    Raises:
        ValueError: there are no clips.
    """
    rows = [{"name": clip.name, **compare(sample(clip), clip)} for clip in clips]
    if not rows:
        raise ValueError("evaluate: there is no clip to compare with")
    names = [name for name in rows[0] if name != "name" and all(name in row for row in rows)]
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    return {"protocol": PROTOCOL, "mean": mean, "clips": rows}


def compare(video: np.ndarray, clip: TrueClip) -> dict[str, float]:
    """The figures of `PROTOCOL` of one video."""
    if video.shape != clip.frames.shape or video.dtype != np.uint8:
        raise ValueError(
            f"{clip.name}: expected a video uint8 {list(clip.frames.shape)}, got {video.dtype} {list(video.shape)}"
        )
    made, true = _float(video), _float(clip.frames)
    still = true[:, :1].expand_as(true)
    flow, true_flow = (_flows(frames) for frames in (made, true))
    moving = _object(true)[:, :-1]
    figures = {
        "psnr": _psnr(made, true),
        "psnr_still": _psnr(still, true),
        "flow_error": _distance(flow, true_flow, moving),
        "flow_error_still": _distance(torch.zeros_like(flow), true_flow, moving),
        "identity": identity(made),
        "identity_truth": identity(true),
    }
    if clip.depth is not None:
        depth = torch.from_numpy(clip.depth)
        figures["view_error"] = view_error(made, depth, clip.cameras)
        figures["view_error_truth"] = view_error(true, depth, clip.cameras)
    return {name: float(value) for name, value in figures.items()}


def _float(frames: np.ndarray) -> Tensor:
    """[V, T, 3, H, W] in 0..1."""
    return torch.from_numpy(frames).movedim(-1, 2).float() / 255


def _psnr(made: Tensor, true: Tensor) -> float:
    error = float((made[:, 1:] - true[:, 1:]).square().mean())
    return -10 * math.log10(max(error, 1e-10))


def _object(frames: Tensor) -> Tensor:
    """bool [V, T, H, W]: where the picture is not the background."""
    return (frames - GREY).abs().amax(2) > 0.06


def _distance(flow: Tensor, true: Tensor, where: Tensor) -> Tensor:
    lengths = (flow - true).norm(dim=2)
    return (lengths * where).sum() / where.sum().clamp(min=1)


# --- motion ------------------------------------------------------------------------------------------


def _flows(frames: Tensor) -> Tensor:
    """[V, T - 1, 2, H, W]: motion from each frame to the next."""
    grey = frames.mean(2)
    flow = optical_flow(grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1))
    return flow.unflatten(0, (len(frames), -1))


def optical_flow(before: Tensor, after: Tensor, levels: int = 3, iterations: int = 6) -> Tensor:
    """Where things go, [N, 2, H, W] in pixels, x right and y down: pyramidal Lucas-Kanade (Bouguet 2001).

    Args:
        before, after: [N, H, W], brightness in 0..1. levels: of the pyramid, each half as large.
    """
    pyramid = [(before[:, None], after[:, None])]
    for _ in range(levels - 1):
        pyramid.append(tuple(F.avg_pool2d(_blurred(picture, 1.0), 2) for picture in pyramid[-1]))
    flow = torch.zeros(len(before), 2, *pyramid[-1][0].shape[2:])
    for first, second in reversed(pyramid):
        size = first.shape[2:]
        flow = F.interpolate(flow, size, mode="bilinear", align_corners=False) * (size[0] / flow.shape[2])
        first, second = _blurred(first, 0.7), _blurred(second, 0.7)
        dy, dx = torch.gradient(first[:, 0], dim=(1, 2))
        xx, xy, yy = (_blurred(product[:, None], 2.0)[:, 0] for product in (dx * dx, dx * dy, dy * dy))
        determinant = (
            xx * yy - xy * xy + 1e-3 * (xx + yy) + 1e-6
        )  # where nothing is to be seen, nothing moves
        for _ in range(iterations):
            moved, inside = warp(second, flow)
            change = ((first - moved) * inside)[:, 0]
            x, y = (_blurred((slope * change)[:, None], 2.0)[:, 0] for slope in (dx, dy))
            step = torch.stack([(yy + 1e-3) * x - xy * y, (xx + 1e-3) * y - xy * x], 1) / determinant[:, None]
            flow = flow + step.clamp(-1, 1)
        flow = _blurred(flow, 1.0)
    return flow


def warp(picture: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """What the picture [N, C, H, W] has where the flow leads, and whether that is inside, bool [N, 1, H, W]."""
    H, W = picture.shape[2:]
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    places = torch.stack([(x + flow[:, 0]) * 2 / W - 1, (y + flow[:, 1]) * 2 / H - 1], -1)
    inside = (places.abs() <= 1).all(-1)[:, None]
    return F.grid_sample(picture, places, padding_mode="border", align_corners=False), inside


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """By a Gaussian, borders continued; [N, C, H, W]."""
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-((torch.arange(-radius, radius + 1) / sigma) ** 2) / 2)
    weights = (weights / weights.sum()).to(pictures)
    C = pictures.shape[1]
    padded = F.pad(pictures, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1).expand(C, 1, -1, 1), groups=C)
    return F.conv2d(rows, weights.view(1, 1, 1, -1).expand(C, 1, 1, -1), groups=C)


# --- the same object ---------------------------------------------------------------------------------


def identity(frames: Tensor, bins: int = 6) -> Tensor:
    """Mean overlap of the object's colours in all later frames with those in the view's first one, 0-1.

    Args:
        frames: [V, T, 3, H, W] in 0..1, on grey. bins: of the histogram, for each of the three channels.
    """
    seen = _object(frames)
    cells = (frames.clamp(0, 1 - 1e-6) * bins).long()
    cells = (cells[:, :, 0] * bins + cells[:, :, 1]) * bins + cells[:, :, 2]
    overlaps = []
    for view, where in zip(cells, seen, strict=True):
        shares = [
            torch.bincount(frame[mask], minlength=bins**3) / mask.sum().clamp(min=1)
            for frame, mask in zip(view, where, strict=True)
        ]
        overlaps += [torch.minimum(shares[0], share).sum() for share in shares[1:]]
    return torch.stack(overlaps).mean()


# --- the same point in two views ---------------------------------------------------------------------


def view_error(frames: Tensor, depth: Tensor, cameras: Cameras, tolerance: float = 0.02) -> float:
    """Mean distance between the colours, 0-1 a channel, in which pairs of views see one point of the surface.

    Each pixel of a view that shows something is carried into the other views by its depth; it is seen there if the
    depth found there is its own. Pixels at the outline, where the background shines in, are left out in both views.
    nan if no point is seen twice.

    Args:
        frames: [V, T, 3, H, W]. depth: [V, T, H, W], metres along the optical axis, 0 where nothing is.
        tolerance: of that comparison, as a part of the depth.
    """
    V, _, _, H, W = frames.shape
    K = torch.from_numpy(cameras.K).float()
    world_to_camera = torch.from_numpy(cameras.world_to_camera).float()
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    inside = -F.max_pool2d(
        -(depth > 0).float(), 3, stride=1, padding=1
    )  # [V, T, H, W]: so are all neighbours
    total, count = 0.0, 0.0
    for one in range(V):
        points = (rays @ torch.linalg.inv(K[one]).T) * depth[one][..., None]  # [T, H, W, 3]
        points = F.pad(points, (0, 1), value=1.0) @ torch.linalg.inv(world_to_camera[one]).T
        for other in range(V):
            if other == one:
                continue
            there = (points @ world_to_camera[other].T)[..., :3]
            pixel = there @ K[other].T
            place = pixel[..., :2] / pixel[..., 2:].clamp(min=1e-6)
            grid = place * 2 / torch.tensor([W, H]) - 1
            behind = (depth[other] * inside[other])[:, None]
            found = F.grid_sample(behind, grid, mode="nearest", align_corners=False)[:, 0]
            colours = F.grid_sample(frames[other], grid, align_corners=False)
            seen = (inside[one] > 0) & (found > 0) & ((found - there[..., 2]).abs() < tolerance * found)
            total += float((((colours - frames[one]).abs().mean(1)) * seen).sum())
            count += float(seen.sum())
    return total / count if count else math.nan


# --- to look at --------------------------------------------------------------------------------------


def comparison_sheet(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One picture, uint8 [2·V·H, T·W, 3]: a row of frames a view, each over that of the true video."""
    rows = [row for pair in zip(video, truth, strict=True) for row in pair]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def sampler(
    pipeline: Any, *, seed: int = 0, steps: int = 25, guidance_scale: float = 7.5
) -> Callable[[TrueClip], np.ndarray]:
    """What `evaluate` asks for videos: a pipeline, with noise of its own for each clip."""

    def sample(clip: TrueClip) -> np.ndarray:
        number = int(np.random.SeedSequence([seed, *clip.name.encode()]).generate_state(1)[0])
        return pipeline(
            clip.frames[:, 0],
            clip.caption,
            cameras=clip.cameras,
            num_frames=clip.frames.shape[1],
            resolution=clip.frames.shape[2],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(number),
        ).frames

    return sample
