"""Faults of generated videos, put into good ones: the truth that the judges' thresholds are chosen and tested with.

Each function takes frames uint8 [T, H, W, 4] with straight alpha, and a generator that draws the strength, and returns
frames of the same size. `FAULTS` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from factory.generation.judging.flow import opencv


def frozen(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One frame, repeated."""
    return np.repeat(frames[rng.integers(len(frames))][None], len(frames), 0)


def jumping(
    frames: np.ndarray, rng: np.random.Generator, least: float = 0.3, most: float = 0.6
) -> np.ndarray:
    """The object is displaced by 30-60 % of its size, once or twice, from then on or for a single frame.

    The size is the square root of its area, so that is about a tenth to a fifth of a frame that it fills well.

    Args:
        least, most: displacement, sizes of the object.
    """
    size = _size(frames)
    offsets = np.zeros((len(frames), 2))
    for start in rng.choice(np.arange(2, len(frames) - 2), rng.integers(1, 3), replace=False):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(least, most) * size
        end = len(frames) if rng.random() < 0.5 else start + 1
        offsets[start:end] += length * np.array([np.cos(angle), np.sin(angle)])
    return _moved(frames, offsets)


def flickering(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, or the balance of colours, changes from frame to frame by ±12-30 %, in turns or at random."""
    strength = rng.uniform(0.12, 0.3)
    if rng.random() < 0.5:
        signs = np.where(np.arange(len(frames)) % 2, 1.0, -1.0)
    else:
        signs = rng.choice([-1.0, 1.0], len(frames))
    balance = np.ones(3) if rng.random() < 0.5 else rng.permutation([1.0, -1.0, 0.5])
    gains = 1 + strength * signs[:, None] * balance
    result = frames.copy()
    result[..., :3] = np.clip(frames[..., :3] * gains[:, None, None], 0, 255).round()
    return result


def other_object(frames: np.ndarray, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """The object turns into another one within four frames.

    Args:
        other: a video of the other object, of the same size.
    """
    start = int(rng.integers(len(frames) // 4, len(frames) // 2 + 1))
    weight = np.clip((np.arange(len(frames)) - start) / 4, 0, 1)[:, None, None, None]
    return _straight((1 - weight) * _premultiplied(frames) + weight * _premultiplied(other))


def leaving(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object moves over the border of the frame, to one side, until half or all of it is outside."""
    rows, columns = np.nonzero(frames[..., 3].max(0) > 127)
    H, W = frames.shape[1:3]
    share = rng.uniform(0.5, 1.0)
    side = rng.integers(4)
    low_x, high_x, low_y, high_y = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    far_x, far_y = share * (high_x - low_x), share * (high_y - low_y)
    target = [(-low_x - far_x, 0), (W - high_x + far_x, 0), (0, -low_y - far_y), (0, H - high_y + far_y)][
        side
    ]
    ramp = np.clip(np.arange(len(frames)) / (0.8 * len(frames)), 0, 1) ** 2
    return _moved(frames, ramp[:, None] * np.asarray(target, np.float64))


def inverted(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours become their complements, from the first or from a later frame on."""
    start = 1 if rng.random() < 0.3 else int(rng.integers(2, len(frames) - 2))
    result = frames.copy()
    result[start:, ..., :3] = 255 - result[start:, ..., :3]
    return result


def camera(frames: np.ndarray, rng: np.random.Generator, kind: str = "") -> np.ndarray:
    """The camera zooms, pans or rolls at constant speed (`camera_motion`)."""
    return warped(frames, camera_motion(frames.shape, rng, kind))


def camera_motion(shape: tuple[int, ...], rng: np.random.Generator, kind: str = "") -> np.ndarray:
    """Affine maps of the picture while a camera zooms by 1.35-1.8, pans by 20-35 % of the frame or rolls by 25-60°.

    Args:
        shape: T, H, W and others.
        kind: "zoom", "pan" or "roll"; "" draws it.

    Returns:
        float64 [T, 2, 3], for `warped`.
    """
    kind = kind or str(rng.choice(["zoom", "pan", "roll"]))
    T, H, W = shape[:3]
    ramp = np.arange(T) / (T - 1)
    scale, angle, offset = np.ones(T), np.zeros(T), np.zeros((T, 2))
    if kind == "zoom":
        scale = rng.uniform(1.35, 1.8) ** (ramp * rng.choice([-1, 1]))
    elif kind == "pan":
        direction = rng.uniform(0, 2 * np.pi)
        offset = ramp[:, None] * rng.uniform(0.2, 0.35) * W * np.array([np.cos(direction), np.sin(direction)])
    else:
        angle = ramp * np.radians(rng.uniform(25, 60)) * rng.choice([-1, 1])
    matrices = np.zeros((T, 2, 3))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrices[:, :, :2] = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    centre = np.array([(W - 1) / 2, (H - 1) / 2])
    matrices[:, :, 2] = centre + offset - matrices[:, :, :2] @ centre
    return matrices


def cut(frames: np.ndarray, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """The middle of the video is a cut to another camera, 15-30 % nearer or further away.

    Args:
        other: the same motion, seen from another direction.
    """
    start = len(frames) // 2
    scale = rng.uniform(1.15, 1.3) ** rng.choice([-1, 1])
    centre = np.array([(frames.shape[2] - 1) / 2, (frames.shape[1] - 1) / 2])
    matrix = np.concatenate([scale * np.eye(2), (centre - scale * centre)[:, None]], 1)
    return np.concatenate(
        [frames[:start], warped(other[start:], np.repeat(matrix[None], len(other) - start, 0))]
    )


def mirrored(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The second half of the video is mirrored, left to right."""
    start = len(frames) // 2
    return np.concatenate([frames[:start], frames[start:, :, ::-1]])


def blurred(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur that grows within four frames to σ = 1.5-3 % of the frame's height."""
    cv2 = opencv()
    sigma = rng.uniform(0.015, 0.03) * frames.shape[1]
    result = _premultiplied(frames)
    for t in range(1, len(frames)):
        result[t] = cv2.GaussianBlur(result[t], (0, 0), sigma * min(t / 4, 1))
    return _straight(result)


def text(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line of text, white or black, in the upper or lower part of all frames."""
    cv2 = opencv()
    H, W = frames.shape[1:3]
    paper = np.zeros((H, W), np.uint8)
    row = int(H * rng.choice([0.1, 0.96]))
    cv2.putText(paper, "SAMPLE", (W // 20, row), cv2.FONT_HERSHEY_SIMPLEX, H / 220, 255, max(1, H // 90))
    result = frames.copy()
    result[:, paper > 127] = (*[int(rng.choice([0, 255]))] * 3, 255)
    return result


def bands(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black bands of 4-10 % of the height above and below the picture."""
    width = max(1, round(rng.uniform(0.04, 0.1) * frames.shape[1]))
    result = frames.copy()
    result[:, :width] = result[:, -width:] = (0, 0, 0, 255)
    return result


FAULTS: dict[str, Callable[..., np.ndarray]] = {
    "frozen": frozen,
    "jumping": jumping,
    "flickering": flickering,
    "other object": other_object,
    "leaving": leaving,
    "inverted": inverted,
    "camera": camera,
    "cut": cut,
    "mirrored": mirrored,
    "blurred": blurred,
    "text": text,
    "bands": bands,
}


def warped(frames: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Apply an affine map [T, 2, 3], from pixels of the source to pixels of the result, to each frame."""
    cv2 = opencv()
    size = (frames.shape[2], frames.shape[1])
    moved: list[Any] = [
        cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR)
        for frame, matrix in zip(_premultiplied(frames), matrices, strict=True)
    ]
    return _straight(np.stack(moved))


def _moved(frames: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Translate each frame by [T, 2] pixels, x and y."""
    matrices = np.repeat(np.eye(3)[None, :2], len(frames), 0)
    matrices[:, :, 2] = offsets
    return warped(frames, matrices)


def _size(frames: np.ndarray) -> float:
    """Square root of the mean area of the object, pixels."""
    return float(np.sqrt((frames[..., 3] > 127).sum((1, 2)).mean()))


def _premultiplied(frames: np.ndarray) -> np.ndarray:
    result = frames.astype(np.float32)
    result[..., :3] *= result[..., 3:] / 255
    return result


def _straight(frames: np.ndarray) -> np.ndarray:
    result = frames.copy()
    result[..., :3] /= np.maximum(result[..., 3:], 1e-3) / 255
    return np.clip(result, 0, 255).round().astype(np.uint8)
