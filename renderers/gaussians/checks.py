"""What `render` accepts: shapes, devices and values, each refusal a sentence; and which back end draws it."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from renderers.gaussians.types import OUTPUTS, Gaussians, Scene, TensorCameras

LAYOUTS = {
    "means": ("S", "N", 3), "quats": ("S", "N", 4), "scales": ("S", "N", 3), "opacities": ("S", "N"),
    "colors": ("S", "N", "D"), "sh": ("S", "N", "K", 3), "viewmats": ("S", "C", 4, 4), "Ks": ("S", "C", 3, 3),
}  # fmt: skip
SH_COEFFICIENTS = {1: 0, 4: 1, 9: 2, 16: 3}
_MOST = torch.finfo(torch.float32).max


def prepare(
    gaussians: Gaussians,
    cameras: TensorCameras,
    background: Tensor | None,
    antialiased: bool,
    sh_degree: int | None,
    eps2d: float,
    want: Collection[str],
) -> Scene:
    """Check one call of `render`. Raises ValueError with a sentence, TypeError for things that are no tensors."""
    if (gaussians.colors is None) == (gaussians.sh is None):
        raise ValueError(
            "Gaussians: give either colors [S, N, D] or sh [S, N, K, 3], not both and not neither"
        )
    want = (want,) if isinstance(want, str) else tuple(want)
    if not want or set(want) - set(OUTPUTS):
        raise ValueError(f"render: want expects a selection of {OUTPUTS}, got {want}")
    if not 0.0 <= eps2d < float("inf"):
        raise ValueError(f"render: eps2d expects pixels² >= 0, got {eps2d}")
    if cameras.width < 1 or cameras.height < 1:
        raise ValueError(
            f"TensorCameras: expected width and height >= 1, got {cameras.width} × {cameras.height}"
        )

    given = vars(gaussians) | vars(cameras)
    tensors = {name: given[name] for name in LAYOUTS if given[name] is not None}
    sizes = _sizes(tensors)
    if "S" not in sizes:
        sizes["S"] = 1
    if gaussians.sh is not None:
        degree = SH_COEFFICIENTS.get(sizes["K"])
        if degree is None:
            raise ValueError(f"Gaussians.sh: expected K = 1, 4, 9 or 16 coefficients, got {sizes['K']}")
        sh_degree = degree if sh_degree is None else sh_degree
        if not 0 <= sh_degree <= degree:
            raise ValueError(
                f"render: sh_degree {sh_degree} needs 0..{degree} with K = {sizes['K']} coefficients"
            )
    elif sh_degree is not None:
        raise ValueError("render: sh_degree is for Gaussians with sh; these have colors")

    channels = sizes.get("D", 3)
    if background is not None:
        tensors["background"] = background
    _one_place(tensors)
    if background is not None:
        try:
            background = background.expand(sizes["S"], cameras.viewmats.shape[1], channels)
        except RuntimeError:
            raise ValueError(
                f"render: background expects a shape that broadcasts to [S, C, D] = "
                f"[{sizes['S']}, {sizes['C']}, {channels}], got {list(background.shape)}"
            ) from None
    _check_values(tensors)
    return Scene(
        **{name: _shared(value) if value is not None else None for name, value in vars(gaussians).items()},
        viewmats=cameras.viewmats.expand(sizes["S"], -1, -1, -1),
        Ks=cameras.Ks.expand(sizes["S"], -1, -1, -1),
        width=cameras.width,
        height=cameras.height,
        background=background,
        antialiased=antialiased,
        sh_degree=sh_degree,
        eps2d=float(eps2d),
        want=want,
    )


def _sizes(tensors: dict[str, Tensor]) -> dict[str, int]:
    """What each letter of the layouts stands for; S = 1 fits any S."""
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        layout = LAYOUTS[name]
        written = ", ".join(map(str, layout))
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch tensor [{written}], got {type(tensor).__name__}")
        fits = tensor.ndim == len(layout)
        for letter, size in zip(layout, tensor.shape, strict=False):
            if letter == "S" and size == 1:
                continue
            fits &= size == (letter if isinstance(letter, int) else sizes.setdefault(letter, size))
        if not fits:
            known = ", ".join(f"{k} = {v}" for k, v in sizes.items())
            raise ValueError(
                f"{name}: expected [{written}]{f' with {known}' if known else ''}, got {list(tensor.shape)}"
            )
    return sizes


def _one_place(tensors: dict[str, Tensor]) -> None:
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        if tensor.device != first.device or tensor.dtype != first.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, {first_name} is {first.dtype} on {first.device}: "
                f"bring all to one device and type, e.g. gaussians.to({str(first.device)!r})"
            )
    if first.device.type not in ("cpu", "cuda"):
        raise ValueError(f"render: no back end for {first.device.type} tensors; move them to cpu or cuda")
    if first.dtype not in (torch.float32, torch.float64) or (first.is_cuda and first.dtype != torch.float32):
        raise ValueError(f"render: expected float32 (or float64 on the CPU) tensors, got {first.dtype}")


def _shared(tensor: Tensor) -> Tensor:
    """An `.expand`ed first dimension as one shared scene, so that nothing is copied per scene."""
    return tensor[:1] if tensor.shape[0] > 1 and tensor.stride(0) == 0 else tensor


@torch.no_grad()
def _check_values(tensors: dict[str, Tensor]) -> None:
    """Refuse values that have no picture. One wait for the device, however many fields there are."""
    rules = []  # name, tensor, its least and its largest allowed value, what is expected
    for name, tensor in tensors.items():
        values = _shared(tensor) if tensor.ndim else tensor
        if not values.numel():
            continue
        if name == "scales":
            rules.append((name, values, 0.0, _MOST, "finite standard deviations >= 0 (did you forget exp?)"))
        elif name == "opacities":
            rules.append((name, values, 0.0, 1.0, "values in 0..1 (did you forget the sigmoid?)"))
        else:
            rules.append((name, values, -_MOST, _MOST, "finite values"))
        if name == "quats":
            squares = values.square() @ values.new_ones(4)  # far quicker than a norm over four
            rules.append((name, squares, 1e-24, math.inf, "a squared length of at least 1e-24"))
        if name == "Ks":
            entries = values.flatten(-2)
            rules.append((name, entries[..., 0:5:4], 1e-12, _MOST, "focal lengths > 0"))
            rules.append((name, entries[..., 1:4:2], 0.0, 0.0, "no skew, 0 beside the focal lengths"))
    if not rules:
        return
    extremes = torch.stack([bound for _, values, *_ in rules for bound in torch.aminmax(values)]).tolist()
    for (name, values, low, high, expected), least, most in zip(
        rules, extremes[::2], extremes[1::2], strict=True
    ):
        if low <= least and most <= high:  # false for NaN
            continue
        bad = ~((values >= low) & (values <= high))
        where = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: expected {expected}, got {values[tuple(where)].item():g} at {where} "
            f"({int(bad.sum())} such of {bad.numel()})"
        )
