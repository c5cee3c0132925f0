"""Evaluation of an MV-VDM: sampled videos of unseen clips compared with the ground truth.

All metrics are computed from pixels, without another network. Each is reported with a reference value: the same metric
of a still video (the first frame repeated), or of the ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import instance, shown
from renderers.cameras import Cameras
from renderers.values import by_value
from zoo.metrics.appearance import color_histogram_overlap
from zoo.metrics.flow import endpoint_error, flow_between_frames
from zoo.metrics.images import psnr
from zoo.metrics.silhouettes import foreground_mask
from zoo.metrics.views import view_error

UNSEEN = "Videos sampled from the first frames and the caption of clips that were not used for training. "
SEEN = (
    "Videos sampled from the first frames and the caption of clips that the model was trained on, because the dataset "
    "has no others: the figures do not tell how the model does on other clips. "
)
METRICS = (
    "psnr: PSNR in dB, "
    "from the mean squared error over all frames of a clip but the first; psnr_still: that of the first frame "
    "repeated. flow_error: mean endpoint error, in pixels, of the optical flow between successive frames against that "
    "of the true video (pyramidal Lucas-Kanade for both), over the object's pixels in the true video; "
    "flow_error_still: that of zero flow. identity: overlap of the object's colour histogram with the first frame's, "
    "0-1; identity_truth: that of the true video. view_error: mean difference, 0-1, between the colours of one point "
    "of the true surface in two views; view_error_truth: that of the true video."
)
PROTOCOL = UNSEEN + METRICS


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class TrueClip:
    """A ground-truth clip.

    Attributes:
        name: identifies the clip; the sampling noise depends on it.
        caption: the prompt.
        frames: uint8 [V, T, H, W, 3], on MV-VDM's grey.
        cameras: of the V views.
        depth: float32 [V, T, H, W], in metres along the optical axis, 0 for background; or None.
    """

    name: str
    caption: str
    frames: np.ndarray
    cameras: Cameras
    depth: np.ndarray | None = None


@torch.no_grad()
def evaluate(
    sample: Callable[[TrueClip], np.ndarray], clips: Iterable[TrueClip], *, trained_on: bool = False
) -> dict[str, Any]:
    """Evaluate sampled videos against clips.

    Args:
        sample: returns a video uint8 [V, T, H, W, 3] for a clip, given its first frames and caption.
        clips: at least one.
        trained_on: the model was trained on these clips, which "protocol" then states.

    Returns:
        JSON-serialisable: "protocol"; "clips", one dict per clip with its name and the metrics of `PROTOCOL`, those of
        several views as `compare` returns them; "mean", the mean of each metric that all clips have.

    Raises:
        ValueError: there are no clips, or a video has another shape or type than its clip.
    """
    if not callable(sample):
        raise TypeError(f"evaluate: sample: expected a function of a clip, got {shown(sample)}")
    instance(clips, Iterable, "evaluate: clips")
    clip_names, metrics = [], []
    for clip in clips:
        instance(clip, TrueClip, "evaluate: clips")
        clip_names.append(clip.name)
        metrics.append(compare(sample(clip), clip))
    if not metrics:
        raise ValueError("evaluate: clips: expected at least one clip, got none")
    common = [name for name in metrics[0] if all(name in row for row in metrics)]
    mean = {name: sum(row[name] for row in metrics) / len(metrics) for name in common}
    rows = [{"name": name, **row} for name, row in zip(clip_names, metrics, strict=True)]
    return {"protocol": (SEEN if trained_on else UNSEEN) + METRICS, "mean": mean, "clips": rows}


def compare(video: np.ndarray, clip: TrueClip) -> dict[str, float]:
    """Compute the metrics of `PROTOCOL` for one video.

    Args:
        video: uint8 [V, T, H, W, 3], the size of the clip.
        clip: the ground truth.

    Returns:
        Metric → value. Those of several views are missing without depth, and if no point is seen in two views.

    Raises:
        ValueError: the video has another shape or type.
    """
    instance(video, np.ndarray, f"{clip.name}: a video")
    if video.shape != clip.frames.shape or video.dtype != np.uint8:
        raise ValueError(
            f"{clip.name}: expected a video uint8 {list(clip.frames.shape)}, got {video.dtype} {list(video.shape)}"
        )
    sampled, true = _float(video), _float(clip.frames)
    still = true[:, :1].expand_as(true)
    flow, true_flow = (flow_between_frames(frames) for frames in (sampled, true))
    foreground = foreground_mask(true)[:, :-1]
    metrics: dict[str, Any] = {
        "psnr": psnr(sampled[:, 1:], true[:, 1:]),
        "psnr_still": psnr(still[:, 1:], true[:, 1:]),
        "flow_error": endpoint_error(flow, true_flow, foreground),
        "flow_error_still": endpoint_error(torch.zeros_like(flow), true_flow, foreground),
        "identity": color_histogram_overlap(sampled),
        "identity_truth": color_histogram_overlap(true),
    }
    if clip.depth is not None:
        depth = torch.from_numpy(clip.depth)
        errors = [view_error(frames, depth, clip.cameras) for frames in (sampled, true)]
        if not math.isnan(
            errors[1]
        ):  # else the object is so small that no point is inside its outline in two views
            metrics["view_error"], metrics["view_error_truth"] = errors
    return {name: float(value) for name, value in metrics.items()}


def _float(frames: np.ndarray) -> Tensor:
    """Convert uint8 [V, T, H, W, 3] to float32 [V, T, 3, H, W] in 0..1."""
    return torch.from_numpy(frames).movedim(-1, 2).float() / 255


def comparison_sheet(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Arrange two videos, uint8 [V, T, H, W, 3], in one image for visual comparison.

    Returns:
        uint8 [2·V·H, T·W, 3]: two rows of frames per view, first the sampled ones, below them the true ones.
    """
    rows = [row for pair in zip(video, truth, strict=True) for row in pair]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def sampler(
    pipeline: Any, *, seed: int = 0, steps: int = 25, guidance_scale: float | None = 7.5
) -> Callable[[TrueClip], np.ndarray]:
    """The `sample` argument of `evaluate` for a pipeline.

    Args:
        pipeline: an `MVVDMPipeline`.
        seed: with the clip's name, it determines the noise.
        steps: of the sampler.
        guidance_scale: as for the pipeline; None = the model's own.
    """

    def sample(clip: TrueClip) -> np.ndarray:
        clip_seed = int(np.random.SeedSequence([seed, *clip.name.encode()]).generate_state(1)[0])
        return pipeline(
            clip.frames[:, 0],
            clip.caption,
            cameras=clip.cameras,
            num_frames=clip.frames.shape[1],
            resolution=clip.frames.shape[2],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(clip_seed),
        ).frames

    return sample
