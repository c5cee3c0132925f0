"""AMT-S, a network that interpolates the frame half-way between two (Li et al. 2023, "AMT: All-Pairs Multi-Field
Transforms"), as its authors published it.

Both their code and their weights are licensed for non-commercial use (CC BY-NC 4.0). The paper does not say all that
the weights require, so an implementation that gives the published values has to follow that code. None is in this
package: the network is that of the package `vbench`, which has a copy and computes its motion smoothness with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.metrics.backbones import Folder, NotComputed, load_network

VBENCH = "vbench==0.1.5"
MULTIPLE, SMALLEST = (
    16,
    128,
)  # sides of the input; smaller ones leave a level of its pyramid with a single cell


@torch.no_grad()
def interpolate_halfway(before: Tensor, after: Tensor, weights: Folder | None = None) -> Tensor:
    """The frames half-way between two, images [N, 3, H, W] in 0..1, by AMT-S with its published code and weights.

    Raises:
        NotComputed: the published weights of AMT-S, or the package vbench, are missing.
        ValueError: a side is shorter than 128 pixels.
    """
    if min(before.shape[2:]) < SMALLEST:
        raise ValueError(
            f"interpolate_halfway: frames: expected sides of at least {SMALLEST} pixels, got "
            f"{before.shape[3]}x{before.shape[2]}"
        )
    network = load_network("amt-s", published_network, weights, before.device)
    height, width = before.shape[2:]
    extra = [-size % MULTIPLE for size in (width, height)]
    border = [part for more in extra for part in (more // 2, more - more // 2)]  # left, right, top, bottom
    padded = [F.pad(each.float(), border, mode="replicate").split(1) for each in (before, after)]
    time = before.new_full((1, 1, 1, 1), 0.5, dtype=torch.float32)
    pairs = zip(*padded, strict=True)
    frames = torch.cat([network(first, second, time, eval=True)["imgt_pred"] for first, second in pairs])
    return frames[..., border[2] : border[2] + height, border[0] : border[0] + width]


def published_network() -> nn.Module:
    """AMT-S of the installed package vbench, with initial weights.

    Importing `vbench` itself needs a dozen packages that the network does not. Meanwhile an empty module therefore
    stands in for it, and only the network's own modules are executed.

    Raises:
        NotComputed: the package is missing or has no such network.
    """
    name = "vbench"
    needs = (
        f"not computed: needs the package {VBENCH} for amt-s.pth, which has the code of AMT-S; its licence is "
        f"CC BY-NC 4.0, so it is not in this package: pip install --no-deps {VBENCH}"
    )
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise NotComputed(needs)
    imported = sys.modules.get(name)
    stand_in = ModuleType(name)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = stand_in
    try:
        module = importlib.import_module("vbench.third_party.amt.networks.AMT-S")
    except ImportError as error:
        raise NotComputed(f"{needs}; the installed one cannot be used ({error})") from error
    finally:
        del sys.modules[name]
        if imported is not None:
            sys.modules[name] = imported
    return cast(nn.Module, module.Model())
