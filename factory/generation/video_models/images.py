"""Between an image of any size and the sizes that video models take: padding, cropping back, conversion to uint8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image


@dataclass(frozen=True)
class Placement:
    """Where the image is in the model's picture.

    Attributes:
        height, width: size of the model's picture.
        top, left, bottom, right: the part of it that shows the image; the rest is padding.
    """

    height: int
    width: int
    top: int
    left: int
    bottom: int
    right: int


def place(height: int, width: int, target_height: int, target_width: int) -> Placement:
    """Fit an image into the model's picture without changing its aspect ratio, in the middle."""
    scale = min(target_height / height, target_width / width)
    inner_height = max(1, min(target_height, round(height * scale)))
    inner_width = max(1, min(target_width, round(width * scale)))
    top, left = (target_height - inner_height) // 2, (target_width - inner_width) // 2
    return Placement(target_height, target_width, top, left, top + inner_height, left + inner_width)


def shape_like(height: int, width: int, area: int, multiple: int) -> tuple[int, int]:
    """The shape with sides that are multiples of `multiple`, at most about `area`, and an image's aspect ratio.

    Among the nearby shapes, the one that needs the least padding is chosen.
    """
    ideal = (area * height / width) ** 0.5, (area * width / height) ** 0.5
    if min(ideal) < multiple:  # a very long image
        ideal = (multiple, area / multiple) if width > height else (area / multiple, multiple)
    choices = [
        (multiple * max(1, int(ideal[0] // multiple) + i), multiple * max(1, int(ideal[1] // multiple) + j))
        for i in (0, 1)
        for j in (0, 1)
    ]
    fitting = [choice for choice in choices if choice[0] * choice[1] <= area] or choices[:1]

    def used(choice: tuple[int, int]) -> float:
        spot = place(height, width, *choice)
        filled = (spot.bottom - spot.top) * (spot.right - spot.left)
        return filled / (choice[0] * choice[1])

    return max(fitting, key=lambda choice: (round(used(choice), 3), choice[0] * choice[1]))


def pad(image: np.ndarray, spot: Placement) -> np.ndarray:
    """Scale an image to its part of the model's picture; the rest gets the median colour of the image's border.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        uint8 [height, width, 3].
    """
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    padded = np.empty((spot.height, spot.width, 3), np.uint8)
    padded[:] = np.median(border, axis=0).round().astype(np.uint8)
    inside = (spot.right - spot.left, spot.bottom - spot.top)
    padded[spot.top : spot.bottom, spot.left : spot.right] = resize(image, inside)
    return padded


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W, 3] to (width, height); an image of that size is returned as it is."""
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


class FrameConverter:
    """Replaces a pipeline's `postprocess_video`: decoded frames become uint8 one by one, cropped and resized.

    diffusers makes a float array of the whole video, and a list of images or a second array from it. Here, the decoded
    tensor and the result are the only copies of the video.

    Args:
        spot: where the image is in the model's picture; what is around it is cropped away.
        height, width: size of the result.
        most: number of frames that are kept.
    """

    def __init__(self, spot: Placement, height: int, width: int, most: int) -> None:
        self.spot, self.size, self.most = spot, (width, height), most
        self.generated = 0  # frames that the model made
        self.nonfinite = False

    def __call__(self, video: torch.Tensor, output_type: str = "np", **_: Any) -> np.ndarray:
        """Convert a decoded video.

        Args:
            video: [1, 3, T, h, w] with values in [-1, 1].

        Returns:
            uint8 [1, min(T, most), H, W, 3].
        """
        self.generated = video.shape[2]
        if video.shape[3:] != (self.spot.height, self.spot.width):
            raise ValueError(
                f"the pipeline decoded frames of {video.shape[4]}×{video.shape[3]} pixels, expected "
                f"{self.spot.width}×{self.spot.height}"
            )
        count = min(self.generated, self.most)
        frames = np.empty((1, count, self.size[1], self.size[0], 3), np.uint8)
        rows, columns = slice(self.spot.top, self.spot.bottom), slice(self.spot.left, self.spot.right)
        for index in range(count):
            frame = video[0, :, index, rows, columns].float()
            self.nonfinite |= not bool(torch.isfinite(frame).all())
            frame = (frame / 2 + 0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
            frames[0, index] = resize(np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()), self.size)
        return frames
