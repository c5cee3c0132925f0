"""Validation of the arguments of `render`: shapes, devices, types and values."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from renderers.arguments import flag, integer, number, shown
from renderers.background import Background, background_array, background_color
from renderers.gaussians.types import OUTPUTS, Gaussians, Scene, TensorCameras

# Expected shape of every field; equal letters stand for equal sizes.
LAYOUTS: dict[str, tuple[int | str, ...]] = {
    "means": ("S", "N", 3), "quats": ("S", "N", 4), "scales": ("S", "N", 3), "opacities": ("S", "N"),
    "colors": ("S", "N", "D"), "sh": ("S", "N", "K", 3), "viewmats": ("S", "C", 4, 4), "Ks": ("S", "C", 3, 3),
}  # fmt: skip
SH_COEFFICIENTS = {1: 0, 4: 1, 9: 2, 16: 3}  # number of coefficients K -> degree
LARGEST_SIDE = 16384  # of an image, in pixels
_LARGEST = torch.finfo(torch.float32).max


def prepare(
    gaussians: Gaussians,
    cameras: TensorCameras,
    background: Background | None,
    antialiased: bool,
    sh_degree: int | None,
    eps2d: float,
    want: Collection[str],
) -> Scene:
    """Validate the arguments of `renderers.gaussians.render` and collect them in a `Scene`.

    Raises:
        TypeError: a field is not a tensor.
        ValueError: an argument has the wrong shape, device, type or values; the message names it.
    """
    _check_fields(gaussians)
    want = _check_options(cameras, eps2d, want)
    fields = vars(gaussians) | vars(cameras)
    tensors = {name: fields[name] for name in LAYOUTS if fields[name] is not None}
    sizes = _sizes(tensors)
    sizes.setdefault("S", 1)
    sh_degree = _check_sh_degree(gaussians, sizes, sh_degree)
    if background is not None:
        tensors["background"] = _as_tensor(background, gaussians.means, sizes.get("D", 3))
    _check_device_and_type(tensors)
    if background is not None:
        background = _expand_background(tensors["background"], sizes, cameras.viewmats.shape[1])
    _check_values(tensors, rgb=sizes.get("D", 3) == 3)
    return Scene(
        means=_shared(gaussians.means),
        quats=_shared(gaussians.quats),
        scales=_shared(gaussians.scales),
        opacities=_shared(gaussians.opacities),
        colors=None if gaussians.colors is None else _shared(gaussians.colors),
        sh=None if gaussians.sh is None else _shared(gaussians.sh),
        viewmats=cameras.viewmats.expand(sizes["S"], -1, -1, -1),
        Ks=cameras.Ks.expand(sizes["S"], -1, -1, -1),
        width=int(cameras.width),
        height=int(cameras.height),
        background=background,
        antialiased=flag(antialiased, "render: antialiased"),
        sh_degree=sh_degree,
        eps2d=float(eps2d),
        want=want,
    )


def torch_device(device: torch.device | str | int, name: str) -> torch.device:
    """Return a device argument as a `torch.device` that exists on this machine and has values.

    Raises:
        TypeError: it is not a device.
        ValueError: there is no such device here.
    """
    if isinstance(device, bool) or not isinstance(device, torch.device | str | int):
        raise TypeError(f"{name}: expected a torch device, e.g. 'cpu' or 'cuda', got {shown(device)}")
    try:
        result = torch.device(device)
        torch.empty(0, device=result)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{name}: {device!r} is not a device of this machine ({reason}); expected 'cpu' or 'cuda'"
        ) from None
    if result.type == "meta":
        raise ValueError(f"{name}: 'meta' tensors have no values; expected 'cpu' or 'cuda'")
    return result


def check_gaussians(gaussians: Gaussians) -> dict[str, int]:
    """Check Gaussians that are not rendered, with any number K of SH coefficients and on any device with values.

    Returns:
        The size of each letter of `LAYOUTS`: S, N and D or K.

    Raises:
        TypeError, ValueError: as `prepare`.
    """
    _check_fields(gaussians)
    tensors = {name: value for name in LAYOUTS if (value := vars(gaussians).get(name)) is not None}
    sizes = {"S": 1} | _sizes(tensors)
    for name, tensor in tensors.items():
        if tensor.device.type == "meta" or not tensor.is_floating_point():
            raise ValueError(f"{name}: expected floats, got {shown(tensor)} on {tensor.device}")
    for name, tensor in tensors.items():  # each on its own: they need not be on one device
        _check_values({name: tensor}, rgb=True)
    return sizes


def _check_fields(gaussians: Gaussians) -> None:
    if not isinstance(gaussians, Gaussians):
        raise TypeError(f"gaussians: expected renderers.gaussians.Gaussians, got {shown(gaussians)}")
    if (gaussians.colors is None) == (gaussians.sh is None):
        given = "neither" if gaussians.sh is None else "both"
        raise ValueError(f"Gaussians: expected either colors [S, N, D] or sh [S, N, K, 3], got {given}")


def _check_options(cameras: TensorCameras, eps2d: float, want: Collection[str]) -> tuple[str, ...]:
    """Check what can be checked without looking at tensors; return `want` as a tuple."""
    if not isinstance(cameras, TensorCameras):
        raise TypeError(
            f"render: cameras: expected TensorCameras, got {shown(cameras)}; see TensorCameras.from_cameras"
        )
    want = (want,) if isinstance(want, str) else tuple(want) if isinstance(want, Collection) else ()
    if not want or [name for name in want if name not in OUTPUTS]:
        raise ValueError(f"render: want expects a selection of {OUTPUTS}, got {want}")
    number(eps2d, "render: eps2d expects a blur in pixels²", 0.0)
    for name in ("width", "height"):
        integer(getattr(cameras, name), f"TensorCameras: {name}", 1, LARGEST_SIDE)
    return want


def _check_sh_degree(gaussians: Gaussians, sizes: dict[str, int], sh_degree: int | None) -> int | None:
    """Return the degree to evaluate: all that `sh` has if None, and None without `sh`."""
    if gaussians.sh is None:
        if sh_degree is not None:
            raise ValueError("render: sh_degree requires Gaussians with sh; these have colors")
        return None
    highest = SH_COEFFICIENTS.get(sizes["K"])
    if highest is None:
        raise ValueError(f"Gaussians.sh: expected K = 1, 4, 9 or 16 coefficients, got {sizes['K']}")
    sh_degree = highest if sh_degree is None else integer(sh_degree, "render: sh_degree")
    if not 0 <= sh_degree <= highest:
        raise ValueError(
            f"render: sh_degree expects 0..{highest} with K = {sizes['K']} coefficients, got {sh_degree}"
        )
    return sh_degree


def _as_tensor(background: Background, means: Tensor, channels: int) -> Tensor:
    """Convert a background to floats in a tensor like `means`; a tensor of floats is returned as it is."""
    if isinstance(background, Tensor):
        if background.is_floating_point():
            return background
        if background.device.type == "meta":
            raise ValueError(f"render: background: expected values, got {shown(background)} on meta")
    elif not isinstance(background, np.ndarray):
        return means.new_tensor(background_color(background, "render: background"))
    elif background.dtype.kind == "f":
        return torch.from_numpy(background).to(means)
    if channels != 3:
        raise TypeError(
            f"render: background: expected a tensor of floats for {channels} channels, got {shown(background)}"
        )
    values = background.cpu().numpy() if isinstance(background, Tensor) else background
    return torch.from_numpy(background_array(values, "render: background")).to(means)


def _expand_background(background: Tensor, sizes: dict[str, int], cameras: int) -> Tensor:
    channels = sizes.get("D", 3)
    try:
        return background.expand(sizes["S"], cameras, channels)
    except RuntimeError:
        raise ValueError(
            f"render: background expects a shape that broadcasts to [S, C, D] = "
            f"[{sizes['S']}, {sizes['C']}, {channels}], got {list(background.shape)}"
        ) from None


def _sizes(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Return the size of each letter in `LAYOUTS`; tensors must agree. A first dimension of 1 fits any S."""
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        layout = LAYOUTS[name]
        expected = ", ".join(map(str, layout))
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch tensor [{expected}], got {type(tensor).__name__}")
        fits = tensor.ndim == len(layout)
        for letter, size in zip(layout, tensor.shape, strict=False):
            if letter == "S" and size == 1:
                continue
            fits &= size == (letter if isinstance(letter, int) else sizes.setdefault(letter, size))
        if not fits:
            agreed = ", ".join(f"{k} = {v}" for k, v in sizes.items())
            raise ValueError(
                f"{name}: expected [{expected}]{f' with {agreed}' if agreed else ''}, got {list(tensor.shape)}"
            )
    return sizes


def _check_device_and_type(tensors: dict[str, Tensor]) -> None:
    """Require one device and one floating-point type that a back end supports."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        if tensor.device != first.device or tensor.dtype != first.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, {first_name} is {first.dtype} on {first.device}: "
                f"move all tensors to one device and type, e.g. gaussians.to({str(first.device)!r})"
            )
    if first.device.type not in ("cpu", "cuda"):
        raise ValueError(f"render: no back end for {first.device.type} tensors; move them to cpu or cuda")
    if first.dtype not in (torch.float32, torch.float64) or (first.is_cuda and first.dtype != torch.float32):
        raise ValueError(f"render: expected float32 (or float64 on the CPU) tensors, got {first.dtype}")


def _shared(tensor: Tensor) -> Tensor:
    """Reduce a first dimension created by `.expand` to size 1, so that nothing is copied per scene."""
    return tensor[:1] if tensor.shape[0] > 1 and tensor.stride(0) == 0 else tensor


@torch.no_grad()
def _check_values(tensors: dict[str, Tensor], *, rgb: bool) -> None:
    """Reject values that cannot be rendered. Synchronises with the device once, not once per field.

    Args:
        tensors: the fields by name.
        rgb: whether the channels are RGB, whose background must be in 0..1.
    """
    # (name, values, smallest allowed, largest allowed, description of what is expected)
    rules: list[tuple[str, Tensor, float, float, str]] = []
    for name, tensor in tensors.items():
        values = _shared(tensor) if tensor.ndim else tensor
        if not values.numel():
            continue
        if name == "scales":
            rules.append(
                (name, values, 0.0, _LARGEST, "finite standard deviations >= 0 (did you forget exp?)")
            )
        elif name == "opacities":
            rules.append((name, values, 0.0, 1.0, "values in 0..1 (did you forget the sigmoid?)"))
        elif name == "background" and rgb and not values.requires_grad:  # a trained one may leave 0..1
            rules.append((name, values, 0.0, 1.0, "finite values in 0..1 (integers may be 0..255)"))
        else:
            rules.append((name, values, -_LARGEST, _LARGEST, "finite values"))
        if name == "quats":
            squares = values.square() @ values.new_ones(4)  # much faster than a norm over 4 values
            rules.append((name, squares, 1e-24, math.inf, "a squared length of at least 1e-24"))
        if name == "Ks":
            entries = values.flatten(-2)
            rules.append((name, entries[..., 0:5:4], 1e-12, _LARGEST, "focal lengths > 0"))
            rules.append((name, entries[..., 1:4:2], 0.0, 0.0, "no skew (zeros beside the focal lengths)"))
    if not rules:
        return
    extremes = torch.stack([bound for _, values, *_ in rules for bound in torch.aminmax(values)]).tolist()
    for (name, values, low, high, expected), smallest, largest in zip(
        rules, extremes[::2], extremes[1::2], strict=True
    ):
        if low <= smallest and largest <= high:  # false for NaN
            continue
        invalid = ~((values >= low) & (values <= high))
        first = invalid.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: expected {expected}, got {values[tuple(first)].item():g} at {first} "
            f"({int(invalid.sum())} of {invalid.numel()} values are invalid)"
        )
