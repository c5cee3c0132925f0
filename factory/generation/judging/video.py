"""`JudgedVideo`: a video, its masks, and the quantities that several measures share, each computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from factory.generation.judging.colors import QUANTILES, color_quantiles
from factory.generation.judging.flow import CommonMotion, common_motion, dense_flow, opencv, sample

LARGEST_SIDE = 256  # pixels: larger videos are reduced before flow and colours are measured
SMALLEST_SIDE = 16  # pixels: below this there is no flow
CAMERA_STEPS = 5  # in which the motion of the camera is measured
LEAST_AREA = 12  # pixels of an object that can be measured
TEXTURE = 6.0  # 8-bit steps per pixel: gradients above this can be followed
LEAST_TEXTURED = 0.02  # share of the background that must have texture
ENDING_SIDE = 64  # pixels: the longer side of the first and the last frame when they are compared
DIFFERENT = 64.0  # 8-bit steps: colours that differ by more are those of other parts
BEHIND = 127  # 8-bit grey put behind an object before a textured background


@dataclass(frozen=True)
class Continuations:
    """How each frame of a video continues in the next one; 0 or NaN where one of them does not show the object.

    Attributes:
        differences: float64 [T - 1], mean difference of colours in the union of the masks, 8-bit steps.
        residuals: float64 [T - 1], the same after compensation of the flow (`_residual`).
        brightening: float64 [T - 1, 3], median over the mask of the difference between a pixel and where the flow takes
            it, 8-bit steps per channel.
        overlaps: float64 [T - 1], IoU of a mask and the next one moved back along the flow; NaN if both are empty.
    """

    differences: np.ndarray
    residuals: np.ndarray
    brightening: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True)
class Ending:
    """The first and the last frame of a video, to be compared once the last one is moved or turned back.

    Reduced to `ENDING_SIDE` pixels, so that the difference does not depend on the resolution.

    Attributes:
        frames: float32 [2, H, W, 3], after a blur of σ = 1 pixel.
        masks: bool [2, H, W], the object; both show it.
    """

    frames: np.ndarray
    masks: np.ndarray

    @cached_property
    def _centres(self) -> np.ndarray:
        return np.array([np.argwhere(mask).mean(0)[::-1] for mask in self.masks])

    def moved(self) -> float:
        """Difference of the last frame, moved back by the displacement of the mask's centre, from the first; 0..1."""
        return self._difference(np.eye(2))

    def turned(self, angle: float) -> float:
        """Difference of the last frame from the first, turned back about the mask's centre and reduced to its area.

        Args:
            angle: of the last frame against the first, radians; positive from x (right) to y (down).
        """
        before, after = self.masks.sum((1, 2))
        cos, sin = np.cos(angle), np.sin(angle)
        return self._difference(np.sqrt(after / before) * np.array([[cos, -sin], [sin, cos]]))

    def _difference(self, matrix: np.ndarray) -> float:
        """Mean over the union of the masks of the difference of colours, in 64 8-bit steps and at most 1.

        Where only one of the masks has the object it is 1.

        Args:
            matrix: float64 [2, 2], from pixels of the first frame to those of the last, about the masks' centres.
        """
        cv2 = opencv()
        offset = self._centres[1] - matrix @ self._centres[0]
        affine = np.concatenate([matrix, offset[:, None]], 1).astype(np.float32)
        size, how = self.masks.shape[:0:-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        back = cv2.warpAffine(self.frames[1], affine, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(self.masks[1].astype(np.float32), affine, size, flags=how) > 0.5
        difference = np.minimum(1, np.abs(back - self.frames[0]).mean(-1) / DIFFERENT)
        difference[mask != self.masks[0]] = 1
        return float(difference[mask | self.masks[0]].mean())


@dataclass(frozen=True)
class JudgedVideo:
    """A video of an object.

    Attributes:
        frames: uint8 [T, H, W, 3], reduced to at most `LARGEST_SIDE` pixels.
        masks: bool [T, H, W], the object.
        still: uint8 [H, W, 3], the picture that the video was made from, or None.
    """

    frames: np.ndarray
    masks: np.ndarray
    still: np.ndarray | None

    @classmethod
    def of(cls, frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None) -> JudgedVideo:
        """Reduce a video to the size at which it is judged."""
        if max(frames.shape[1:3]) <= LARGEST_SIDE:
            return cls(frames, masks, still)
        return cls(
            np.stack([_reduced(frame, LARGEST_SIDE) for frame in frames]),
            np.stack([_reduced(mask.astype(np.float32), LARGEST_SIDE) > 0.5 for mask in masks]),
            None if still is None else _reduced(still, LARGEST_SIDE),
        )

    @cached_property
    def isolated(self) -> JudgedVideo:
        """The object before one colour: this video, unless its background has texture.

        Flow is smooth, so that the flow of a textured background would reach into the object.
        """
        if self.background_flow is None:
            return self
        frames = np.where(self.masks[..., None], self.frames, np.uint8(BEHIND))
        return JudgedVideo(frames, self.masks, self.still)

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of the object in each frame, int [T]."""
        return self.masks.sum((1, 2))

    @cached_property
    def visible(self) -> np.ndarray:
        """Frames in which the object is large enough to be measured, bool [T]."""
        return self.areas >= LEAST_AREA

    @cached_property
    def size(self) -> float:
        """Length of the object: square root of the median area over the visible frames, pixels; 0 without any."""
        return float(np.sqrt(np.median(self.areas[self.visible]))) if self.visible.any() else 0.0

    @cached_property
    def luma(self) -> np.ndarray:
        """Brightness uint8 [T, H, W] (ITU-R BT.601)."""
        cv2 = opencv()
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames])

    @cached_property
    def centres(self) -> np.ndarray:
        """Centre of the mask in each frame, float64 [T, 2], x and y in pixels; NaN for an empty mask."""
        return np.array(
            [np.argwhere(mask).mean(0)[::-1] if mask.any() else (np.nan, np.nan) for mask in self.masks]
        )

    def object_flow(self, before: int, after: int) -> np.ndarray:
        """Flow between two frames, searched from the displacement of the mask, float32 [H, W, 2], pixels."""
        shift = np.nan_to_num(self.centres[after] - self.centres[before])
        return dense_flow(self.luma[before], self.luma[after], tuple(shift))

    @cached_property
    def colors(self) -> np.ndarray:
        """`color_quantiles` of the object in each frame, float64 [T, 49, 3]; NaN where it is not visible."""
        colors = np.full((len(self.frames), len(QUANTILES), 3), np.nan)
        for t in np.flatnonzero(self.visible):
            colors[t] = color_quantiles(self.frames[t][self.masks[t]])
        return colors

    def smooth(self, t: int) -> np.ndarray:
        """Frame t after a blur of σ = 1 pixel, float32 [H, W, 3]: differences are of shapes, not of noise.

        Not kept: as floating-point numbers, the frames of a large video would be held a second time.
        """
        return opencv().GaussianBlur(self.frames[t].astype(np.float32), (0, 0), 1.0)

    @cached_property
    def continuations(self) -> Continuations:
        """How each frame continues in the next one, for all measures at once.

        The flow of a pair of frames is needed by several of them and is not kept: that of a whole video would be most
        of the memory.
        """
        T = len(self.frames)
        differences, residuals, brightening = np.zeros(T - 1), np.zeros(T - 1), np.full((T - 1, 3), np.nan)
        overlaps = np.full(T - 1, np.nan)
        for t in range(T - 1):
            mask, after = self.masks[t], self.masks[t + 1]
            if not (mask | after).any():
                continue
            flow = self.object_flow(t, t + 1)
            moved = sample(after.astype(np.float32), flow) > 0.5
            overlaps[t] = (mask & moved).sum() / max(1, (mask | moved).sum())
            if not (self.visible[t] and self.visible[t + 1]):
                continue
            warped = sample(self.frames[t + 1], flow)
            brightening[t] = np.median(warped[mask].astype(np.float32) - self.frames[t][mask], axis=0)
            smooth, next_smooth = self.smooth(t), self.smooth(t + 1)
            differences[t] = np.abs(next_smooth - smooth)[mask | after].mean()
            backwards = self.object_flow(t + 1, t)
            residuals[t] = _residual((smooth, mask), (next_smooth, after), flow, backwards)
        return Continuations(differences, residuals, brightening, overlaps)

    def mirrored_change(self, t: int) -> float:
        """Difference of frame t + 1 from the mirror image of frame t after compensation of the flow, 8-bit steps."""
        luma, mask = np.ascontiguousarray(self.luma[t][:, ::-1]), self.masks[t][:, ::-1]
        centre = self.centres[t].copy()
        centre[0] = luma.shape[1] - 1 - centre[0]
        x, y = np.nan_to_num(self.centres[t + 1] - centre)
        forwards = dense_flow(luma, self.luma[t + 1], (x, y))
        backwards = dense_flow(self.luma[t + 1], luma, (-x, -y))
        flipped = np.ascontiguousarray(self.smooth(t)[:, ::-1])
        return _residual((flipped, mask), (self.smooth(t + 1), self.masks[t + 1]), forwards, backwards)

    @cached_property
    def background_flow(self) -> np.ndarray | None:
        """Median length of the flow where the background has texture, float64 [T - 1], pixels; None if it has none.

        The mask is dilated by 3 pixels, as flow is smooth and the object's reaches beyond it.
        """
        if len(self.frames) < 2 or min(self.frames.shape[1:3]) < SMALLEST_SIDE:
            return None
        cv2 = opencv()
        kernel = np.ones((7, 7), np.uint8)
        lengths = []
        for t in range(len(self.frames) - 1):
            covered = cv2.dilate((self.masks[t] | self.masks[t + 1]).astype(np.uint8), kernel) > 0
            rows, columns = np.gradient(cv2.GaussianBlur(self.luma[t].astype(np.float32), (0, 0), 1.0))
            textured = (np.hypot(rows, columns) > TEXTURE) & ~covered
            if textured.sum() < max(20, LEAST_TEXTURED * (~covered).sum()):
                return None
            flow = dense_flow(self.luma[t], self.luma[t + 1])
            lengths.append(np.median(np.linalg.norm(flow[textured], axis=-1)))
        return np.array(lengths, np.float64)

    @cached_property
    def ending(self) -> Ending:
        """The first and the last frame; both must show the object."""
        pair = (0, len(self.frames) - 1)
        return Ending(
            np.stack([_reduced(self.smooth(t), ENDING_SIDE) for t in pair]),
            np.stack([_reduced(self.masks[t].astype(np.float32), ENDING_SIDE) > 0.5 for t in pair]),
        )

    @cached_property
    def object_motion(self) -> CommonMotion | None:
        """Similarity transforms that the object follows in at most `CAMERA_STEPS` steps; None if a frame does not
        show it.

        Over several frames, the flow of a slow camera is large against its error.
        """
        if len(self.frames) < 2 or min(self.frames.shape[1:3]) < SMALLEST_SIDE or not self.visible.all():
            return None
        T = len(self.frames)
        steps = np.unique(np.linspace(0, T - 1, min(T, CAMERA_STEPS + 1)).round().astype(int))
        flow = np.stack([self.object_flow(a, b) for a, b in pairwise(steps)])
        gradients = [np.gradient(self.smooth(t).mean(-1)) for t in steps[:-1]]
        texture = np.stack([np.hypot(*gradient) for gradient in gradients])
        return common_motion(flow, self.masks[steps[:-1]], texture, np.diff(steps))


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image to a longer side of at most `side` pixels."""
    H, W = image.shape[:2]
    scale = side / max(H, W)
    if scale >= 1:
        return image
    size = (max(1, round(W * scale)), max(1, round(H * scale)))
    return np.asarray(opencv().resize(image, size, interpolation=opencv().INTER_AREA))


def _residual(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    forwards: np.ndarray,
    backwards: np.ndarray,
) -> float:
    """Mean difference of the colours of two frames after compensation of the flow, 8-bit steps.

    In the mask dilated by a pixel, forwards or backwards, whichever is smaller: what appears or is hidden has no flow
    in one of the directions.

    Args:
        before, after: colours float32 [H, W, 3] and mask bool [H, W].
        forwards, backwards: flow [H, W, 2] from the first to the second frame, and back.
    """
    kernel = np.ones((3, 3), np.uint8)
    residuals = []
    for (colors, mask), (others, _), flow in ((before, after, forwards), (after, before, backwards)):
        around = opencv().dilate(mask.astype(np.uint8), kernel) > 0
        residuals.append(float(np.abs(sample(others, flow) - colors)[around].mean()))
    return min(residuals)
