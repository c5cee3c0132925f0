"""Mattes by a segmentation model: SAM 2 or SAM 3, which follow an object through a video, from transformers.

The model is given the object in the first frame and finds it in the others. A frame in which it finds nothing has an
empty matte: the model's logits are mapped to coverage by a fixed function, never stretched to the full range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from factory.generation.judging import foreground_masks
from zoo.animate3d.matte import BackgroundError
from zoo.errors import OptionError
from zoo.hub_access import check_pretrained

TRACKERS = {  # model type in the configuration → classes of transformers
    "sam2_video": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "sam3_tracker_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
    "sam3_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
}
INSIDE = 0.0  # logit above which SAM counts a pixel to the object
_INSTALL = "pip install 'menagerie4d[segmentation]'"


class TrackingMatte:
    """A model that follows the object of the first frame through a video.

    In the first frame, the object is what differs from a background of one colour. Before any other background, it is
    what the model finds at `point`.

    Args:
        name: of the model on the hub, such as "facebook/sam2.1-hiera-tiny", or a folder. Remote code is never run.
        device: "cpu" or "cuda".
        point: x and y in the first frame, shares of its width and height.

    Raises:
        OptionError: transformers is not installed, or the model does not exist or is of another kind.
    """

    def __init__(self, name: str, device: str = "cpu", point: tuple[float, float] = (0.5, 0.5)) -> None:
        try:
            import torch
            import torchvision  # noqa: F401 - the video processors of transformers need it
            import transformers
        except ImportError as error:
            raise OptionError(
                f"segmentation model {name}: needs transformers and torchvision ({error}): {_INSTALL}"
            ) from None
        check_pretrained(name, "segmentation model")
        self.name, self.point, self.device = name, point, torch.device(device)
        try:
            kind = transformers.AutoConfig.from_pretrained(name).model_type
            if kind not in TRACKERS:
                raise OptionError(
                    f"segmentation model {name}: expected one of the kinds {', '.join(TRACKERS)}, got {kind}; "
                    f"use another model with --matte module:function"
                )
            model, processor = (getattr(transformers, each) for each in TRACKERS[kind])
            self._processor: Any = processor.from_pretrained(name)
            self._model: Any = model.from_pretrained(name, use_safetensors=True).to(self.device).eval()
        except (OSError, ValueError, KeyError, ImportError) as error:
            if isinstance(error, OptionError):
                raise
            text = " ".join(str(error).split())[:300]
            raise OptionError(f"segmentation model {name}: cannot be loaded: {text}") from None

    def __call__(self, frames: np.ndarray, background: tuple[int, int, int] | None) -> np.ndarray:
        """Coverage of the object, uint8 [T, H, W]; all 0 in frames in which the model does not find it.

        Args:
            frames: uint8 [T, H, W, 3].
            background: colour behind the object; None = not known.

        Raises:
            ValueError: the first frame shows only background.
        """
        import torch

        H, W = frames.shape[1:3]
        with torch.inference_mode():
            session = self._processor.init_video_session(
                video=list(frames), inference_device=self.device, dtype=self._model.dtype
            )
            self._processor.add_inputs_to_inference_session(
                session, frame_idx=0, obj_ids=1, **self._prompt(frames[0], background)
            )
            self._model(session, frame_idx=0)
            alpha = np.zeros((len(frames), H, W), np.uint8)
            for output in self._model.propagate_in_video_iterator(session):
                masks = self._processor.post_process_masks(
                    [output.pred_masks], original_sizes=[[H, W]], binarize=False
                )
                alpha[output.frame_idx] = coverage(masks[0][0, 0].float().cpu().numpy())
        return alpha

    def _prompt(self, frame: np.ndarray, background: tuple[int, int, int] | None) -> dict[str, Any]:
        """Where the object is in the first frame: its mask, or a point on it."""
        try:
            mask = foreground_masks(frame[None], background)[0]
        except BackgroundError:
            H, W = frame.shape[:2]
            x, y = self.point
            return {"input_points": [[[[x * W, y * H]]]], "input_labels": [[[1]]]}
        if not mask.any():
            raise ValueError("the first frame shows only background; expected the object in it")
        return {"input_masks": mask}


def coverage(logits: np.ndarray) -> np.ndarray:
    """Coverage uint8 of mask logits: 255 σ(x), and 0 everywhere if no pixel is inside.

    The logistic function σ is the one that SAM is trained with, so σ(x) > ½ exactly inside. SAM's logits of a frame
    without the object are negative everywhere, and far from 0 only if it is certain of that.
    """
    if not (logits > INSIDE).any():
        return np.zeros(logits.shape, np.uint8)
    return np.rint(255 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.uint8)
