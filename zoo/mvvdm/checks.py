"""Checks of the arguments of a call of the pipeline, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from renderers.arguments import instance, integer, number, shown
from renderers.cameras import Cameras
from zoo.errors import PlacementError
from zoo.mvvdm.images import OUTPUTS

MOST_FRAMES, LARGEST_SIDE = 1000, 4096


def check_sizes(
    num_frames: Any,
    resolution: Any,
    num_inference_steps: Any,
    decode_chunk_size: Any,
    defaults: Any,
    scheduler: Any,
) -> tuple[int, int, int, int]:
    """Return the integers of a call as Python ints.

    Args:
        num_frames, resolution, num_inference_steps, decode_chunk_size: of the call.
        defaults: the pipeline's configuration, for the first two if they are None.
        scheduler: the scheduler's configuration, which limits the number of steps.

    Raises:
        TypeError, ValueError: one is not an integer, or out of range.
    """
    num_frames = defaults.num_frames if num_frames is None else num_frames
    resolution = defaults.resolution if resolution is None else resolution
    most_steps = scheduler.num_train_timesteps
    return (
        integer(num_frames, "num_frames", 1, MOST_FRAMES),
        integer(resolution, "resolution", 1, LARGEST_SIDE),
        integer(num_inference_steps, "num_inference_steps", 1, most_steps),
        integer(decode_chunk_size, "decode_chunk_size", 1),
    )


def check_device(device: torch.device) -> None:
    """Check that the pipeline's weights have values.

    Raises:
        PlacementError: it is on the device "meta".
    """
    if device.type == "meta":
        raise PlacementError("MVVDMPipeline: it is on the device meta, which holds no values; load it again")


def check_conditions(prompt: Any, negative_prompt: Any, cameras: Any) -> None:
    """Check the types of prompts and cameras.

    Raises:
        TypeError: one is of another type.
    """
    instance(prompt, str, "prompt")
    instance(negative_prompt, str, "negative_prompt")
    if cameras is not None:
        instance(cameras, Cameras, "cameras")


def check_sampler(guidance_scale: Any, temperature: Any, eta: Any, generator: Any, latents: Any) -> None:
    """Check the settings of the sampler. The shape of the latents is checked when it is known.

    Raises:
        TypeError, ValueError: one is of another type or out of range.
    """
    number(guidance_scale, "guidance_scale")
    number(temperature, "temperature", 0.0)
    number(eta, "eta", 0.0, 1.0)
    if generator is not None:
        instance(generator, torch.Generator, "generator")
    if latents is None:
        return
    instance(latents, Tensor, "latents")
    if not latents.is_floating_point() or latents.device.type == "meta" or not latents.isfinite().all():
        raise ValueError(f"latents: expected finite floats, got {shown(latents)} on {latents.device}")


def check_output(
    output_type: Any, callback: Callable[..., Any] | None, inputs: Sequence[str], known: Collection[str]
) -> None:
    """Check the type of the output and the callback.

    Args:
        output_type: one of `OUTPUTS`.
        callback: called at the end of a step, or None.
        inputs: names of the tensors that it gets.
        known: names that it may get.

    Raises:
        TypeError, ValueError: one is of another type, or unknown.
    """
    if not isinstance(output_type, str) or output_type not in OUTPUTS:
        raise ValueError(f"output_type: expected one of {', '.join(OUTPUTS)}, got {output_type!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback_on_step_end: expected a function, got {shown(callback)}")
    name = "callback_on_step_end_tensor_inputs"
    if isinstance(inputs, str) or not isinstance(inputs, Collection):
        raise TypeError(f"{name}: expected a list of names, got {shown(inputs)}")
    if unknown := [each for each in inputs if each not in known]:
        raise ValueError(f"{name}: expected a subset of {list(known)}, got {unknown}")
