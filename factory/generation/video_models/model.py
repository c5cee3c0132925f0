"""A loaded image-to-video model."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import string
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from factory.generation.video_models.adapters import NEGATIVE, Adapter
from factory.generation.video_models.images import FrameConverter, Placement, pad, place, shape_like
from renderers.arguments import integer
from zoo.errors import OptionError, ZooError
from zoo.seeds import generator

TEMPLATE = "The $subject $sentence. The camera does not move. Plain background."
_LONGEST_SENTENCE = 400
_SMALLEST_SIDE = 8
# Entries of the provenance that differ between equal runs.
_MEASURED = ("seconds", "first_frame_error")


class VideoModelError(ZooError):
    """A video model cannot be loaded, or made no video; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """A generated video.

    Attributes:
        frames: uint8 [T, H, W, 3]; H and W are those of the image.
        fps: frames per second.
        provenance: JSON-able; everything that determined the video, the licence, and measurements. Its "digest" is a
            SHA-256 over everything but the measurements: equal digests mean equal videos on one machine.
    """

    frames: np.ndarray
    fps: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class VideoSettings:
    """Options of all calls of one model.

    Attributes:
        subject: the object in a word or two, for the text.
        template: text for the model, with $subject and $sentence.
        negative: text of what to avoid.
        frames: length of the videos; None for the model's default. The model's rule may make it generate more; the
            first ones are kept.
        size: (height, width) that the model generates; None for what its rule says.
        steps: denoising steps; None for the adapter's default.
        guidance: scale of the guidance; None for the adapter's default.
        pin_first_frame: replace the first frame by the image. The model's own first frame is an approximation of it;
            the difference is recorded.
    """

    subject: str = "object"
    template: str = TEMPLATE
    negative: str = NEGATIVE
    frames: int | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    pin_first_frame: bool = True


class VideoModel:
    """An image-to-video pipeline of diffusers. `load_video_model` makes one.

    Attributes:
        name: as it was loaded. adapter: the rules of its pipeline. settings: the options.
        licence: of the weights. restrictions: what it forbids or demands.
        origin: revision and versions, part of the provenance.
    """

    def __init__(
        self,
        pipeline: Any,
        adapter: Adapter,
        settings: VideoSettings,
        *,
        name: str,
        licence: str,
        restrictions: tuple[str, ...],
        device: torch.device,
        origin: dict[str, Any],
    ) -> None:
        self.pipeline, self.adapter, self.settings = pipeline, adapter, settings
        self.name, self.licence, self.restrictions = name, licence, restrictions
        self.device, self.origin = device, origin

    @property
    def fps(self) -> float:
        """Frames per second of the videos."""
        return self.adapter.fps

    @property
    def frames(self) -> int:
        """Frames of the videos."""
        return min(self._wanted, self._generated)

    @property
    def _wanted(self) -> int:
        own = self.adapter.frames.default
        if self.adapter.name == "svd":  # 14 or 25, by checkpoint
            own = int(self.pipeline.unet.config.num_frames or own)
        return self.settings.frames or own

    @property
    def _generated(self) -> int:
        return self.adapter.frames.count(self._wanted)

    def generate(self, image: np.ndarray, sentence: str, seed: int) -> GeneratedVideo:
        """Generate a video that starts with an image.

        Args:
            image: uint8 [H, W, 3], the object on a plain background.
            sentence: its motion, which continues the subject: "hops twice".
            seed: of the noise, which is drawn on the CPU, so that it is the same on every card.

        Raises:
            OptionError, TypeError, ValueError: an argument has a wrong value.
            VideoModelError: the model returned no usable video.
        """
        image = _checked_image(image)
        seed = integer(seed, "seed", 0, 2**63 - 1)
        text = self._text(sentence)
        height, width = image.shape[:2]
        spot = place(height, width, *self.target_shape(height, width))
        converter = FrameConverter(spot, height, width, self.frames)
        call = self._arguments(pad(image, spot), text, spot, seed)
        self._check_signature(call)

        started = time.perf_counter()
        frames = self._run(call, converter)
        seconds = time.perf_counter() - started

        error = float(np.abs(frames[0].astype(np.int16) - image).mean() / 255)
        if self.settings.pin_first_frame:
            frames[0] = image
        provenance = self._provenance(image, sentence, text, spot, seed, call) | {
            "frames": len(frames),
            "generated_frames": converter.generated,
            "seconds": round(seconds, 3),
            "first_frame_error": round(error, 5),
        }
        stable = {key: value for key, value in provenance.items() if key not in _MEASURED}
        provenance["digest"] = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()
        return GeneratedVideo(frames, self.fps, provenance)

    def target_shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the model's picture for an image of this size."""
        rule, pipeline = self.adapter.size, self.pipeline
        if rule.mode == "buckets":
            chosen = pipeline.video_processor.calculate_default_height_width(
                height=height, width=width, target_size=pipeline.target_size
            )
            return int(chosen[0]), int(chosen[1])
        multiple = self._multiple()
        if self.settings.size is not None:
            if any(side % multiple for side in self.settings.size):
                raise OptionError(
                    f"size {self.settings.size}: {self.adapter.name} takes multiples of {multiple} pixels"
                )
            return self.settings.size
        trained = self._trained_size()
        if rule.mode == "fixed":
            return trained
        return shape_like(height, width, trained[0] * trained[1], multiple)

    def _multiple(self) -> int:
        """Pixels that a side must be a multiple of: the rule's, and the autoencoder's factor times the patch size.

        Some pipelines check a fixed multiple, whatever their autoencoder's factor.
        """
        pipeline, rule = self.pipeline, self.adapter.size.multiple
        factor = getattr(pipeline, "vae_spatial_compression_ratio", None)
        factor = factor or getattr(pipeline, "vae_scale_factor_spatial", None) or 1
        denoiser = getattr(pipeline, "transformer", None) or getattr(pipeline, "transformer_2", None)
        patch = denoiser.config.patch_size if denoiser is not None else 1
        return math.lcm(int(factor) * int(patch if isinstance(patch, int) else patch[-1]), rule)

    def _trained_size(self) -> tuple[int, int]:
        """The size in the pipeline's configuration, else the adapter's."""
        pipeline = self.pipeline
        if self.adapter.pipeline == "CogVideoXImageToVideoPipeline":
            config, factor = pipeline.transformer.config, pipeline.vae_scale_factor_spatial
            return config.sample_height * factor, config.sample_width * factor
        return self.adapter.size.height, self.adapter.size.width

    def _text(self, sentence: str) -> str:
        if not isinstance(sentence, str) or not sentence.strip() or len(sentence) > _LONGEST_SENTENCE:
            raise OptionError(
                f"sentence: expected a text of 1 to {_LONGEST_SENTENCE} characters, got {str(sentence)[:60]!r}"
            )
        values = {"subject": self.settings.subject, "sentence": " ".join(sentence.split()).rstrip(".")}
        return string.Template(self.settings.template).substitute(values)

    def _arguments(self, image: np.ndarray, text: str, spot: Placement, seed: int) -> dict[str, Any]:
        """The arguments of one call."""
        adapter, settings = self.adapter, self.settings
        call: dict[str, Any] = {
            "image": Image.fromarray(image),
            "num_inference_steps": settings.steps or adapter.steps,
            "generator": generator(seed),
            **adapter.arguments,
            **adapter.guidance.more,
        }
        if adapter.takes_text:
            call |= {"prompt": text, "negative_prompt": settings.negative}
        if adapter.frames.argument:
            call[adapter.frames.argument] = self._generated
        if adapter.size.mode != "buckets":
            call |= {"height": spot.height, "width": spot.width}
        if adapter.fps_argument:
            call[adapter.fps_argument] = int(adapter.fps)
        scale = adapter.guidance.value if settings.guidance is None else settings.guidance
        if adapter.guidance.scale:
            call[adapter.guidance.scale] = scale
        if "guidance_scale_2" in call:  # both transformers alike
            call["guidance_scale_2"] = scale
        if adapter.pipeline == "CogVideoXImageToVideoPipeline":
            scheduler = type(self.pipeline.scheduler).__name__
            call["use_dynamic_cfg"] = scheduler == "CogVideoXDPMScheduler"
            call["max_sequence_length"] = self.pipeline.transformer.config.max_text_seq_length
        return call

    def _check_signature(self, call: dict[str, Any]) -> None:
        """Compare the call with the installed version of diffusers."""
        known = inspect.signature(self.pipeline.__call__).parameters
        if unknown := [name for name in call if name not in known]:
            import diffusers

            raise VideoModelError(
                f"{self.name}: {self.adapter.pipeline} of diffusers {diffusers.__version__} takes no "
                f"{', '.join(unknown)}; install the version of constraints.txt"
            )

    def _run(self, call: dict[str, Any], converter: FrameConverter) -> np.ndarray:
        """Call the pipeline; its frames, uint8 [T, H, W, 3]."""
        pipeline = self.pipeline
        if not self.adapter.guidance.scale:
            scale = self.adapter.guidance.value if self.settings.guidance is None else self.settings.guidance
            pipeline.guider = pipeline.guider.new(guidance_scale=scale)
        original = pipeline.video_processor.postprocess_video
        pipeline.video_processor.postprocess_video = converter
        try:
            frames = pipeline(**call).frames[0]
        except torch.OutOfMemoryError as error:
            raise VideoModelError(
                f"{self.name}: out of GPU memory: load it with a smaller card_gb=, fewer frames or a smaller size "
                f"({error})"
            ) from None
        finally:
            pipeline.video_processor.postprocess_video = original
        if converter.nonfinite:
            raise VideoModelError(
                f"{self.name}: the video has values that are not finite, usually an overflow in {self.adapter.dtype}"
            )
        if len(frames) < self.frames:
            raise VideoModelError(f"{self.name}: returned {len(frames)} frames, expected {self.frames}")
        return frames

    def _provenance(
        self, image: np.ndarray, sentence: str, text: str, spot: Placement, seed: int, call: dict[str, Any]
    ) -> dict[str, Any]:
        plain = {key: value for key, value in call.items() if isinstance(value, int | float | str | bool)}
        used = {key: value for key, value in plain.items() if key not in ("prompt", "negative_prompt")}
        return {
            "model": self.name,
            "adapter": self.adapter.name,
            "pipeline": self.adapter.pipeline,
            **self.origin,
            "licence": self.licence,
            "restrictions": list(self.restrictions),
            "sentence": sentence,
            "text": text if self.adapter.takes_text else "",
            "negative": self.settings.negative if self.adapter.takes_text else "",
            "seed": seed,
            "fps": self.fps,
            "image_sha256": hashlib.sha256(image.tobytes() + repr(image.shape).encode()).hexdigest(),
            "image_size": list(image.shape[:2]),
            "model_size": [spot.height, spot.width],
            "image_in_model": [spot.top, spot.left, spot.bottom, spot.right],
            "guidance": self.settings.guidance,
            "arguments": used,
            "first_frame_pinned": self.settings.pin_first_frame,
        }


def _checked_image(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = (
            f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        )
        raise OptionError(f"image: expected uint8 [H, W, 3], got {given}")
    if min(image.shape[:2]) < _SMALLEST_SIDE:
        raise OptionError(
            f"image: expected at least {_SMALLEST_SIDE} pixels a side, got {list(image.shape[:2])}"
        )
    return image
