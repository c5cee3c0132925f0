"""What each image-to-video pipeline of diffusers expects, as a table: frames, size, guidance, frame rate, types.

A pipeline is recognised by its class and, where several models share a class, by its configuration. The argument names
are those of diffusers 0.42; `VideoModel.generate` compares them with the pipeline's signature before each call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

NEGATIVE = "camera motion, cut, text, watermark, border, blur, flicker, deformed body, another object"


@dataclass(frozen=True)
class FrameRule:
    """How many frames a model generates: step · k + 1.

    Attributes:
        step: 4 or 8 with a temporal autoencoder, 16 for CogVideoX 1.5, 1 without.
        default: frames if no number is given. most: the longest video that the model was made for.
        argument: name of the argument; "" if the number cannot be chosen.
    """

    step: int
    default: int
    most: int
    argument: str = "num_frames"

    def count(self, wanted: int) -> int:
        """The smallest permitted number of frames from `wanted` up, or the largest one."""
        steps = min(math.ceil((wanted - 1) / self.step), (self.most - 1) // self.step)
        return max(1, self.step * steps + 1)


@dataclass(frozen=True)
class SizeRule:
    """Which image sizes a model takes.

    Attributes:
        height, width: pixels of the size that it was trained for.
        multiple: both sides must be multiples of this; the pipeline's own factors are used where it has them.
        mode: "fixed": only the trained size. "area": any shape of about that area. "buckets": the pipeline chooses a
            shape by the image's aspect ratio, and takes no height and width.
    """

    height: int
    width: int
    multiple: int
    mode: Literal["fixed", "area", "buckets"] = "area"


@dataclass(frozen=True)
class Guidance:
    """How classifier-free guidance is set.

    Attributes:
        scale: name of the argument that the option `guidance` sets; "" if it is set on the pipeline's guider.
        value: its default.
        more: other arguments of the call, by name.
    """

    scale: str
    value: float
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """One pipeline class, or one variant of it.

    Attributes:
        name: of the adapter.
        pipeline: class in diffusers.
        variant: how the pipeline's configuration distinguishes it, in words; "" if nothing must.
        frames, size, guidance: the rules above.
        fps: frames per second of the result.
        steps: default number of denoising steps.
        fps_argument: name of an argument that takes the frame rate.
        takes_text: whether the model takes a sentence. Without one, all its videos differ by the seed only.
        dtype: of the weights on a GPU. On the CPU, everything is float32.
        float32: components that are kept in float32.
        output_type: the pipeline's own default. It is overridden, because frames become uint8 when they are decoded.
        packages: packages that the pipeline imports without naming them as requirements.
        arguments: other arguments of the call.
    """

    name: str
    pipeline: str
    frames: FrameRule
    size: SizeRule
    guidance: Guidance
    fps: float
    variant: str = ""
    steps: int = 50
    fps_argument: str = ""
    takes_text: bool = True
    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    float32: tuple[str, ...] = ()
    output_type: Literal["pil", "np"] = "pil"
    packages: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)


_WAN: dict[str, Any] = {
    "pipeline": "WanImageToVideoPipeline",
    "float32": ("vae", "image_encoder"),
    "output_type": "np",
    "packages": ("ftfy",),
}
ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        "cogvideox",
        "CogVideoXImageToVideoPipeline",
        FrameRule(step=8, default=49, most=49),
        SizeRule(480, 720, 16, "fixed"),
        Guidance("guidance_scale", 6.0, {"use_dynamic_cfg": True}),
        fps=8,
        variant="its transformer has no temporal patches",
    ),
    Adapter(
        "cogvideox-1.5",
        "CogVideoXImageToVideoPipeline",
        FrameRule(step=16, default=81, most=161),
        SizeRule(768, 1360, 16, "area"),
        Guidance("guidance_scale", 6.0, {"use_dynamic_cfg": True}),
        fps=16,
        variant="its transformer has temporal patches (patch_size_t)",
    ),
    Adapter(
        "wan-2.1",
        frames=FrameRule(step=4, default=81, most=81),
        size=SizeRule(480, 832, 16),
        guidance=Guidance("guidance_scale", 5.0),
        fps=16,
        variant="one transformer",
        **_WAN,
    ),
    Adapter(
        "wan-2.2",
        frames=FrameRule(step=4, default=81, most=81),
        size=SizeRule(480, 832, 16),
        guidance=Guidance("guidance_scale", 3.5, {"guidance_scale_2": 3.5}),
        fps=16,
        steps=40,
        variant="a second transformer for low noise (boundary_ratio)",
        **_WAN,
    ),
    Adapter(
        "wan-2.2-5b",
        frames=FrameRule(step=4, default=121, most=121),
        size=SizeRule(704, 1280, 32),
        guidance=Guidance("guidance_scale", 5.0),
        fps=24,
        variant="a time per latent frame (expand_timesteps)",
        **_WAN,
    ),
    Adapter(
        "ltx",
        "LTXImageToVideoPipeline",
        FrameRule(step=8, default=161, most=257),
        SizeRule(512, 704, 32),
        Guidance("guidance_scale", 3.0),
        fps=25,
        fps_argument="frame_rate",
    ),
    Adapter(
        "ltx-condition",
        "LTXConditionPipeline",
        FrameRule(step=8, default=161, most=257),
        SizeRule(512, 704, 32),
        Guidance("guidance_scale", 3.0),
        fps=25,
        fps_argument="frame_rate",
    ),
    Adapter(
        "hunyuan-1.5",
        "HunyuanVideo15ImageToVideoPipeline",
        FrameRule(step=4, default=121, most=121),
        SizeRule(480, 848, 16, "buckets"),
        Guidance("", 6.0),
        fps=24,
        output_type="np",
    ),
    Adapter(
        "skyreels-2",
        "SkyReelsV2ImageToVideoPipeline",
        FrameRule(step=4, default=97, most=97),
        SizeRule(544, 960, 16),
        Guidance("guidance_scale", 5.0),
        fps=24,
        float32=("vae",),
        output_type="np",
        packages=("ftfy",),
    ),
    Adapter(
        "svd",
        "StableVideoDiffusionPipeline",
        FrameRule(step=1, default=14, most=25),
        SizeRule(576, 1024, 64, "fixed"),
        Guidance("max_guidance_scale", 3.0, {"min_guidance_scale": 1.0, "noise_aug_strength": 0.02}),
        fps=7,
        fps_argument="fps",
        steps=25,
        takes_text=False,
        dtype="float16",
        arguments={"motion_bucket_id": 127, "decode_chunk_size": 4},
    ),
)
PIPELINES = tuple(dict.fromkeys(adapter.pipeline for adapter in ADAPTERS))


def find_adapter(pipeline: Any) -> Adapter:
    """The adapter of a loaded pipeline.

    Raises:
        LookupError: no adapter exists for its class.
    """
    name = type(pipeline).__name__
    if name == "CogVideoXImageToVideoPipeline":
        later = pipeline.transformer.config.patch_size_t is not None
        return by_name("cogvideox-1.5" if later else "cogvideox")
    if name == "WanImageToVideoPipeline":
        if pipeline.config.expand_timesteps:
            return by_name("wan-2.2-5b")
        return by_name("wan-2.1" if pipeline.config.boundary_ratio is None else "wan-2.2")
    matches = [adapter for adapter in ADAPTERS if adapter.pipeline == name]
    if not matches:
        raise LookupError(f"no adapter for the pipeline {name}; expected one of {', '.join(PIPELINES)}")
    return matches[0]


def by_name(name: str) -> Adapter:
    return next(adapter for adapter in ADAPTERS if adapter.name == name)
