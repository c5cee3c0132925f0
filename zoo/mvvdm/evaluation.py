"""How good an MV-VDM is: its videos of unseen objects against the truth, and against pictures that do not move.

Everything here is measured with the eyes alone: no other network judges. What a figure is worth shows beside it: the
same figure of the still first frame, or of the true video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderers.cameras import Cameras
from zoo.metrics.appearance import color_histogram_overlap
from zoo.metrics.flow import endpoint_error, flow_between_frames
from zoo.metrics.images import psnr
from zoo.metrics.silhouettes import foreground_mask
from zoo.metrics.views import view_error

PROTOCOL = (
    "Videos made of the first frames and the sentence of clips that were not trained on. psnr: of all frames but the "
    "first, dB of the mean squared error of a clip; psnr_still: that of the first frame repeated. flow_error: mean "
    "distance, in pixels, between the optical flow from frame to frame and that of the true video (pyramidal "
    "Lucas-Kanade, on both), where that has the object; flow_error_still: that of no motion. identity: overlap of "
    "the object's colour histogram with the first frame's, 0-1; identity_truth: of the true video. view_error: mean "
    "distance, 0-1, between the colours in which two views see one point of the true surface; view_error_truth: of the "
    "true video."
)


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
    flow, true_flow = (flow_between_frames(frames) for frames in (made, true))
    moving = foreground_mask(true)[:, :-1]
    figures = {
        "psnr": psnr(made[:, 1:], true[:, 1:]),
        "psnr_still": psnr(still[:, 1:], true[:, 1:]),
        "flow_error": endpoint_error(flow, true_flow, moving),
        "flow_error_still": endpoint_error(torch.zeros_like(flow), true_flow, moving),
        "identity": color_histogram_overlap(made),
        "identity_truth": color_histogram_overlap(true),
    }
    if clip.depth is not None:
        depth = torch.from_numpy(clip.depth)
        figures["view_error"] = view_error(made, depth, clip.cameras)
        figures["view_error_truth"] = view_error(true, depth, clip.cameras)
    return {name: float(value) for name, value in figures.items()}


def _float(frames: np.ndarray) -> Tensor:
    """[V, T, 3, H, W] in 0..1."""
    return torch.from_numpy(frames).movedim(-1, 2).float() / 255


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
