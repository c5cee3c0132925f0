"""Images as MV-VDM takes and returns them: condition images on grey, and decoded frames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Tensor

from renderers.arguments import shown
from renderers.files import file_path
from renderers.meshes.clip import GREY, composite
from renderers.values import by_value
from zoo.formats import check_suffix

SECONDS = 2.0  # duration of a video, regardless of its number of frames
OUTPUTS = ("uint8", "np", "pt", "pil", "latent")
FORMATS = (".mp4",)

Frames = np.ndarray | Tensor | list[list[Image.Image]]


@by_value
@dataclass(eq=False, repr=False)
class MVVDMOutput(BaseOutput):
    """The output of the pipeline.

    Attributes:
        frames: V videos of T frames, depending on `output_type`: uint8 [V, T, H, W, 3]; float32 [V, T, H, W, 3] in
            0..1 ("np"); a tensor [V, T, 3, H, W] in 0..1 ("pt"); lists of images ("pil"); latents
            [V, T, C, h, w] ("latent").
    """

    frames: Frames

    def _repr_html_(self) -> str:
        return videos_card(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the views side by side as an mp4 of two seconds.

        Raises:
            ValueError: the name does not end in .mp4, or the frames are not of output_type "uint8".
        """
        from zoo.export.video import write_mp4

        path = file_path(path, "MVVDMOutput.save: path")
        check_suffix(path, FORMATS, "videos of MV-VDM")
        if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8:
            raise ValueError(
                f"{path}: expected frames of output_type 'uint8'; call the pipeline with that to save an mp4"
            )
        write_mp4(path, np.concatenate(list(self.frames), axis=2), len(self.frames[0]) / SECONDS)
        return path


def videos_card(output: MVVDMOutput) -> str:
    """HTML of videos for notebooks: the views side by side. Latents have no preview."""
    from zoo.notebook import card, preview

    frames = output.frames
    if isinstance(frames, Tensor):
        frames = frames.detach().float().cpu().numpy()
        frames = frames.transpose(0, 1, 3, 4, 2) if frames.ndim == 5 and frames.shape[2] == 3 else frames
    if not isinstance(frames, np.ndarray):
        return card("MV-VDM", {"views": len(frames), "frames": len(frames[0]) if frames else 0})
    pixels = frames.ndim == 5 and frames.shape[-1] == 3 and frames.size > 0
    shape = dict(zip(("views", "frames", "height", "width"), frames.shape, strict=False)) if pixels else {}
    facts = {**(shape or {"shape": list(frames.shape)}), "type": frames.dtype}
    if not pixels:
        return card("MV-VDM", facts)
    if frames.dtype != np.uint8:
        frames = (np.nan_to_num(frames).clip(0, 1) * 255).round().astype(np.uint8)
    picture = preview(np.concatenate(list(frames), axis=2), frames.shape[1] / SECONDS, side=160)
    return card("MV-VDM", facts, picture)


def on_grey(images: Iterable[np.ndarray | Image.Image], size: int) -> list[Image.Image]:
    """Composite images over MV-VDM's grey and resize them to squares.

    Args:
        images: uint8 [H, W, 3 or 4] with straight alpha, or Pillow images.
        size: side in pixels.

    Returns:
        RGB images of size × size pixels.

    Raises:
        ValueError: an image has another type or shape, or there is none.
    """
    if not isinstance(images, Iterable):
        raise TypeError(
            f"images: expected a glTF file, uint8 [V, H, W, 3 or 4] or V Pillow images, got {shown(images)}"
        )
    result = []
    for image in images:
        pixels = np.asarray(image.convert("RGBA") if isinstance(image, Image.Image) else image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError(
                f"images: expected a glTF file, uint8 [V, H, W, 3 or 4] or V Pillow images, got an image of "
                f"{pixels.dtype} {list(pixels.shape)}"
            )
        pixels = composite(pixels, GREY) if pixels.shape[2] == 4 else pixels
        result.append(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    if not result:
        raise ValueError("images: expected at least one image")
    return result


def to_pil(frames: Tensor) -> list[Image.Image]:
    """Convert frames [N, 3, H, W] in -1..1 to 8-bit images, the input of CLIP's preprocessing.

    The preprocessing divides by 255 itself; given floats in 0..1, it would scale them twice.
    """
    pixels = ((frames + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels]


def convert_frames(pixels: Tensor, output_type: str) -> Frames:
    """Convert decoded frames to the type that the caller asked for.

    Args:
        pixels: float32 [V, T, 3, H, W] in 0..1.
        output_type: "uint8", "np", "pt" or "pil".

    Returns:
        uint8 [V, T, H, W, 3]; float32 [V, T, H, W, 3] in 0..1 ("np"); `pixels` ("pt"); V lists of T images ("pil").
    """
    if output_type == "pt":
        return pixels
    array = pixels.movedim(2, -1).cpu().numpy()
    if output_type == "np":
        return array
    array = (array * 255).round().astype(np.uint8)
    return array if output_type == "uint8" else [[Image.fromarray(f) for f in view] for view in array]
