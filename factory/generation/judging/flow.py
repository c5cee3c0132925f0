"""Dense optical flow between frames: DIS (Kroeger et al. 2016) of OpenCV."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


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


def dense_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Displacement of each pixel of `before`, float32 [H, W, 2] in pixels, x right and y down.

    Args:
        before, after: grey levels uint8 [H, W], at least 16 × 16.
    """
    return _estimator().calc(np.ascontiguousarray(before), np.ascontiguousarray(after), None)


def sample(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample an image [H, W] or [H, W, C] at each pixel plus its flow [H, W, 2]; borders are replicated."""
    cv2 = opencv()
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
