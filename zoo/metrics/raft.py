"""Optical flow of RAFT (Teed & Deng 2020), and the amounts of motion that papers measure with it.

The network is torchvision's `raft_large` with the published weights of the paper's model trained on FlyingChairs and
FlyingThings3D (raft-things). `zoo.metrics.flow` estimates flow without weights; its metrics have other names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.arguments import number
from zoo.metrics.backbones import Folder, load_network
from zoo.metrics.checks import check_tensors, check_videos
from zoo.metrics.flow import largest_mean

ITERATIONS = 20
MULTIPLE, SMALLEST = (
    8,
    128,
)  # frames are padded to a multiple; RAFT's correlation pyramid needs 16 cells of 8 pixels
BATCH = 8
DYNAMIC_FPS, DYNAMIC_SHARE, DYNAMIC_THRESHOLD = 8.0, 0.05, 6.0  # VBench: threshold in pixels at 256 pixels
AMPLITUDE_SHARE = 0.2


def dynamic_degree(frames: Tensor, fps: float, *, weights: Folder | None = None) -> float:
    """VBench's dynamic degree (Huang et al. 2024, §3.1): the share of videos that move.

    The frames are thinned to about 8 fps, every max(1, round(fps / 8))-th. A pair of successive frames moves if the
    mean RAFT flow of its fastest 5 % of pixels exceeds 6 px · min(H, W) / 256 · max(1, 8 / fps); a video of n thinned
    frames moves if at least round(4 n / 16) of its pairs do.

    It only makes sense for a fixed camera, and more is not better: videos that fall apart move.

    Args:
        frames: [V, T, 3, H, W] in 0..1, sides of at least 128 pixels; each view is a video.
        fps: frames per second.
        weights: folder with "raft" of `BACKBONES`; None is the hub.

    Returns:
        0 or 1 for one view, else the mean over views.

    Raises:
        NotComputed: the published weights of RAFT are missing.
        ValueError: fewer than 3 frames are left, for which the published rule always finds motion.
    """
    check_videos("dynamic_degree", frames=frames)
    fps = number(fps, "dynamic_degree: fps", above=0.0)
    thinned = frames[:, :: max(1, round(fps / DYNAMIC_FPS))]
    count = thinned.shape[1]
    if count < 3:
        raise ValueError(
            f"dynamic_degree: frames: expected at least 3 frames at {DYNAMIC_FPS:g} fps, got {count}"
        )
    # As published, the padding counts among the pixels.
    fastest = largest_mean(raft_flow(thinned, weights=weights, padded=True).norm(dim=2), DYNAMIC_SHARE)
    threshold = DYNAMIC_THRESHOLD * min(frames.shape[-2:]) / 256 * max(1.0, DYNAMIC_FPS / fps)
    moving = (fastest > threshold).sum(1) >= round(4 * count / 16)
    return float(moving.double().mean())


def motion_amplitude(frames: Tensor, mask: Tensor, *, weights: Folder | None = None) -> float:
    """DIMO's motion amplitude (table 4): mean of the largest 20 % of RAFT's flow magnitudes on the object, in pixels.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2, sides of at least 128 pixels.
        mask: bool [V, T, H, W], the object's pixels; the last frame's are not used.
        weights: see `dynamic_degree`.

    Returns:
        At least 0, the mean over views and pairs of frames; it grows with the resolution. Pairs without an object
        count as 0.
    """
    sizes = check_videos("motion_amplitude", least=2, frames=frames)
    if check_tensors("motion_amplitude", "V T H W", mask=mask) != sizes:
        raise ValueError(
            f"motion_amplitude: mask: expected sizes {sizes} as the frames, got {list(mask.shape)}"
        )
    lengths = raft_flow(frames, weights=weights).norm(dim=2)
    amounts = [
        largest_mean(pair[inside.bool()][None, None], AMPLITUDE_SHARE) if inside.any() else pair.new_zeros(1)
        for pair, inside in zip(lengths.flatten(0, 1), mask[:, :-1].flatten(0, 1), strict=True)
    ]
    return float(torch.stack([each.squeeze() for each in amounts]).mean())


@torch.no_grad()
def raft_flow(frames: Tensor, *, weights: Folder | None = None, padded: bool = False) -> Tensor:
    """RAFT's flow from each frame to the next, x right and y down.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2, sides of at least 128 pixels.
        weights: see `dynamic_degree`.
        padded: keep the border that is added so that the sides are multiples of 8.

    Returns:
        [V, T − 1, 2, H, W], in pixels.
    """
    sizes = check_videos("raft_flow", least=2, frames=frames)
    height, width = sizes["H"], sizes["W"]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"raft_flow: frames: expected sides of at least {SMALLEST} pixels, got {width}x{height}"
        )
    network = _network(weights, frames.device)
    extra = [-size % MULTIPLE for size in (width, height)]
    border = [part for more in extra for part in (more // 2, more - more // 2)]  # left, right, top, bottom
    images = F.pad(frames.float().flatten(0, 1) * 2 - 1, border, mode="replicate").unflatten(
        0, frames.shape[:2]
    )
    pairs = zip(
        images[:, :-1].flatten(0, 1).split(BATCH), images[:, 1:].flatten(0, 1).split(BATCH), strict=True
    )
    flow = torch.cat([network(a, b, num_flow_updates=ITERATIONS)[-1] for a, b in pairs])
    if not padded:
        flow = flow[..., border[2] : border[2] + height, border[0] : border[0] + width]
    return flow.unflatten(0, (frames.shape[0], -1))


def _network(weights: Folder | None, device: torch.device) -> nn.Module:
    def build() -> nn.Module:
        from torchvision.models.optical_flow import raft_large

        network: nn.Module = raft_large(weights=None, progress=False)
        return network

    return load_network("raft", build, weights, device)
