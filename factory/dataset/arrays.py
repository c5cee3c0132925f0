"""What is read from a dataset: the arrays of a clip, and the unit in which Parquet is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from renderers.cameras import Cameras
from renderers.meshes.clip import Tracks
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class ClipArrays:
    """The decoded arrays of a clip: V views, T frames of H × W pixels.

    Modalities are None unless they were requested. They describe, at the centre of each pixel, the first surface that
    is at least half opaque.

    Attributes:
        frames: uint8 [V, T, H, W, 4], straight alpha (the colour is undefined where alpha is 0), or
            [V, T, H, W, 3] on a background.
        cameras: of the V views.
        timestamps: float64 [T], seconds on the animation's timeline.
        depth: float32 [V, T, H, W], metres along the optical axis, 0 where there is no surface.
        normals: float32 [V, T, H, W, 3], unit length, world space, 0 where there is no surface.
        flow: float32 [V, T, H, W, 2], pixels (x right, y down) to the clip's next frame, whether or not that frame was
            requested; NaN where there is no surface and in the last frame.
        tracks: surface points [T, P, 3] with their pixel position, depth and visibility [V, T, P].
    """

    frames: np.ndarray
    cameras: Cameras
    timestamps: np.ndarray
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    flow: np.ndarray | None = None
    tracks: Tracks | None = None

    @property
    def flow_valid(self) -> np.ndarray:
        """Mask of the pixels with a flow, bool [V, T, H, W]."""
        if self.flow is None:
            raise ValueError('no flow was read: request it with read(..., modalities=["flow"])')
        return np.isfinite(self.flow).all(axis=-1)


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard, the unit in which Parquet is read.

    Attributes:
        path: of the shard, within the dataset's file system.
        index: number of the row group in the shard.
        footer: Parquet metadata of the shard.
    """

    path: str
    index: int
    footer: pq.FileMetaData
