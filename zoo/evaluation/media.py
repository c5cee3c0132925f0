"""`Media`: what a model and the truth are compared by: videos from several views, silhouettes, points, depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import shown
from renderers.cameras import Cameras
from renderers.values import by_value
from zoo.metrics import flow_between_frames

Flows = dict[int | None, Tensor]  # resolution → optical flow


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Media:
    """One clip of a model, of the truth or of a control.

    Attributes:
        frames: uint8 [V, T, H, W, 3], on the protocol's background; None if a task compares points only.
        alpha: coverage, uint8 [V, T, H, W]; or None.
        points: tracked surface points, float32 [T, P, 3], world coordinates; or None.
        depth: float32 [V, T, H, W] in metres along the optical axis, 0 for background; or None.
        cameras: of the V views; or None.
    """

    frames: np.ndarray | None = None
    alpha: np.ndarray | None = None
    points: np.ndarray | None = None
    depth: np.ndarray | None = None
    cameras: Cameras | None = None

    def __post_init__(self) -> None:
        frames = self.frames
        if frames is not None and (frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8):
            raise ValueError(f"Media.frames: expected uint8 [V, T, H, W, 3], got {shown(frames)}")
        for name in ("alpha", "depth"):
            value = getattr(self, name)
            if value is not None and frames is not None and value.shape != frames.shape[:4]:
                raise ValueError(f"Media.{name}: expected {list(frames.shape[:4])}, got {shown(value)}")
        if self.points is not None and (self.points.ndim != 3 or self.points.shape[2] != 3):
            raise ValueError(f"Media.points: expected [T, P, 3], got {shown(self.points)}")

    def __len__(self) -> int:
        """T, the number of frames."""
        if self.frames is not None:
            return self.frames.shape[1]
        return 0 if self.points is None else len(self.points)

    @cached_property
    def images(self) -> Tensor:
        """Frames as float32 [V, T, H, W, 3] in 0..1."""
        assert self.frames is not None
        return torch.from_numpy(np.array(self.frames)).float() / 255

    @cached_property
    def planes(self) -> Tensor:
        """Frames as float32 [V, T, 3, H, W] in 0..1, as metrics of videos take them."""
        return self.images.movedim(-1, 2)

    def share_flows(self, flows: Flows) -> Media:
        """Keep computed flows in `flows`, which outlives this object; returns the object."""
        self.__dict__["_flows"] = flows
        return self

    def flow(self, resolution: int | None = None) -> Tensor:
        """Optical flow between successive frames, float32 [V, T − 1, 2, h, w] in pixels of h = w = `resolution`.

        Computed once per resolution.
        """
        flows: Flows = self.__dict__.setdefault("_flows", {})
        if resolution not in flows:
            flows[resolution] = flow_between_frames(self.at_resolution(resolution))
        return flows[resolution]

    def at_resolution(self, resolution: int | None) -> Tensor:
        """Frames as float32 [V, T, 3, h, w], area averages; None = as they are."""
        planes = self.planes
        if resolution is None or resolution >= planes.shape[-1]:
            return planes
        small = torch.nn.functional.adaptive_avg_pool2d(planes.flatten(0, 1), resolution)
        return small.unflatten(0, planes.shape[:2])

    def take(self, times: list[int]) -> Media:
        """The frames with these indices, in this order; an index may occur several times."""
        return replace(
            self,
            frames=None if self.frames is None else self.frames[:, times],
            alpha=None if self.alpha is None else self.alpha[:, times],
            points=None if self.points is None else self.points[times],
            depth=None if self.depth is None else self.depth[:, times],
        )
