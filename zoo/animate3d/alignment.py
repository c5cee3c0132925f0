"""Whether the first frames of given videos show the still model from the assumed cameras.

Everything after this relies on it. Videos in another order, of a model that faces another way, or with another framing
would be fitted by bending the model; they are refused, with a picture that shows the difference.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from zoo.errors import ZooError

ALIKE = (
    0.6  # intersection over union of silhouettes; 0.95 is usual, and 0.85 for generated videos of 64 pixels
)
MOST_PERMUTED = 6  # views, whose 720 orders are tried


class AlignmentError(ZooError):
    """The first frames of the videos do not show the still model."""


@dataclass(frozen=True)
class Alignment:
    """Silhouettes of the first frames compared with those of the still model.

    Attributes:
        iou: float64 [V], intersection over union per view.
        order: the order of the videos in which they fit the cameras best; (0, 1, …) if they are in the right one.
    """

    iou: np.ndarray
    order: tuple[int, ...]


def compare_first_frames(frames: np.ndarray, stills: np.ndarray) -> Alignment:
    """Compare silhouettes.

    Args:
        frames: uint8 [V, H, W, 4], the videos' first frames.
        stills: uint8 [V, H, W, 4], the still model from the cameras.
    """
    given, expected = frames[..., 3] > 127, stills[..., 3] > 127
    # table[i, j]: video i as the view of camera j
    both = np.einsum("ihw,jhw->ij", given.astype(np.float64), expected.astype(np.float64))
    either = given.sum((1, 2))[:, None] + expected.sum((1, 2))[None] - both
    table = both / np.maximum(either, 1)
    views = len(table)
    order = tuple(range(views))
    if views <= MOST_PERMUTED:
        # Of equally good orders, the given one; a symmetric object looks alike from several sides.
        order = max(
            permutations(range(views)), key=lambda p: (round(sum(table[p, range(views)]), 2), p == order)
        )
    return Alignment(np.diag(table), order)


def check_alignment(
    frames: np.ndarray, stills: np.ndarray, azimuths_deg: Sequence[float] | None
) -> Alignment:
    """Refuse videos whose first frames do not show the still model.

    Args:
        frames, stills: as in `compare_first_frames`.
        azimuths_deg: [V] of the cameras, to suggest others; None if they are not known as azimuths.

    Raises:
        AlignmentError: in a view, the silhouettes overlap by less than `ALIKE`.
    """
    result = compare_first_frames(frames, stills)
    if result.iou.min() >= ALIKE:
        return result
    worst = int(result.iou.argmin())
    sheet = _write_sheet(frames, stills)
    advice = "give the cameras of the videos, or begin each video with the picture that `zoo stills` renders"
    if azimuths_deg is not None and result.order != tuple(range(len(frames))):
        azimuths = np.empty(len(frames))
        azimuths[list(result.order)] = azimuths_deg
        advice = f"they fit better with the azimuths {', '.join(f'{a:g}' for a in azimuths)}"
    raise AlignmentError(
        f"the first frame of view {worst} does not show the still model: expected silhouettes that overlap by "
        f"{ALIKE:.0%} or more, got {result.iou[worst]:.0%} ({sheet} shows the model above and the videos below); "
        f"{advice}, or switch this check off (check=False, --no-check)"
    )


def _write_sheet(frames: np.ndarray, stills: np.ndarray) -> Path:
    from PIL import Image

    from renderers.meshes import GREY, composite

    rows = [np.concatenate(list(composite(np.ascontiguousarray(row), GREY)), 1) for row in (stills, frames)]
    descriptor, name = tempfile.mkstemp(prefix="menagerie-alignment-", suffix=".png")
    os.close(descriptor)
    Image.fromarray(np.concatenate(rows)).save(name)
    return Path(name)
