"""The CPU back end: the numba kernels as torch autograd functions, run on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.gaussians.features import blended_features, split_outputs
from renderers.gaussians.kernel_code import load_kernels
from renderers.gaussians.layout import CHUNK, MOMENTS, PIXELS, RECORD, TILE
from renderers.gaussians.threads import get_threads
from renderers.gaussians.types import Rendered, Scene

kernels = load_kernels()


def draw(scene: Scene) -> Rendered:
    """Render a validated scene; see `renderers.gaussians.render`."""
    S, C, _ = scene.shape
    means2d, ellipses, depths, opacities, keys, radii, records = _Project.apply(
        scene.means, scene.quats, scene.scales, scene.opacities, scene.viewmats, scene.Ks,
        (scene.width, scene.height, scene.eps2d, scene.antialiased),
    )  # fmt: skip
    blended, background = blended_features(scene, depths if "depth" in scene.want else None)
    if background is None:
        background = blended.new_zeros(S, C, blended.shape[-1])
    image, alpha = _Composite.apply(
        means2d, ellipses, opacities, blended, background, keys, radii, records, scene.width, scene.height
    )
    return split_outputs(scene, image, alpha[..., None], radii, means2d)


class _Project(torch.autograd.Function):
    """`kernels.project` and its backward pass.

    Differentiable outputs: means2d [S, C, N, 2], ellipses [S, C, N, 3], depths [S, C, N], opacities [S, C, N].
    Others: sort keys float64 [S, C, N], radii int32 [S, C, N, 2], records [S, C, N, RECORD].
    """

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        settings: tuple[int, int, float, bool],
    ) -> tuple[Tensor, ...]:
        S, C, N = viewmats.shape[0], viewmats.shape[1], means.shape[1]
        tensors = [t.detach().contiguous() for t in (means, quats, scales, opacities, viewmats, Ks)]
        shared = tuple(len(t) != S for t in tensors[:4])
        outputs = (
            torch.empty(S, C, N, 2),
            torch.empty(S, C, N, 3),
            torch.empty(S, C, N),
            torch.empty(S, C, N),
            torch.empty(S, C, N, dtype=torch.float64),
            torch.empty(S, C, N, 2, dtype=torch.int32),
            torch.empty(S, C, N, RECORD),
        )
        means2d, ellipses, depths, opacities2d, keys, radii, records = (_flat(t) for t in outputs)
        fields, views = [_flat(t) for t in tensors[:4]], [_flat(t) for t in tensors[4:]]
        parallel_for(
            kernels.project, N, N, C, *fields, shared, *views, *settings,
            means2d, ellipses, depths, keys, opacities2d, radii, records,
        )  # fmt: skip
        ctx.save_for_backward(*tensors, outputs[3])
        ctx.settings = settings
        ctx.mark_non_differentiable(*outputs[4:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, opacities2d = ctx.saved_tensors
        S, C, N = opacities2d.shape
        received = [
            np.zeros(S * C * N * width, np.float32) if g is None else _flat(g.contiguous())
            for g, width in zip(gradients[:4], (2, 3, 1, 1), strict=True)
        ]
        d_fields = [torch.zeros_like(t) for t in tensors[:4]]
        chunks = -(-N // CHUNK)
        d_views = np.zeros((chunks, S, C, 3, 4) if ctx.needs_input_grad[4] else 0)
        fields, views = [_flat(t) for t in tensors[:4]], [_flat(t) for t in tensors[4:]]
        shared = tuple(len(t) != S for t in tensors[:4])
        parallel_for(
            kernels.project_backward, chunks, N, C, *fields, shared, *views, *ctx.settings, _flat(opacities2d),
            *received, *(_flat(t) for t in d_fields), d_views.ravel(),
        )  # fmt: skip
        d_viewmats = None
        if ctx.needs_input_grad[4]:
            d_viewmats = torch.zeros_like(tensors[4])
            d_viewmats[:, :, :3] = torch.from_numpy(d_views.sum(0))
        return *d_fields, d_viewmats, None, None


class _Composite(torch.autograd.Function):
    """`kernels.sort`, `kernels.draw` and the backward pass.

    Composites projected splats with features [S, C, N, F] over a background [S, C, F] to an image [S, C, H, W, F] and
    its alpha [S, C, H, W].
    """

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        ellipses: Tensor,
        opacities: Tensor,
        features: Tensor,
        background: Tensor,
        keys: Tensor,
        radii: Tensor,
        records: Tensor,
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor]:
        S, C, N, F = features.shape
        centres, outlines, opacity, depth_keys, extents, table, behind = (
            _images(t.detach().contiguous())
            for t in (means2d, ellipses, opacities, keys, radii, records, background)
        )
        padded = F // 4 * 4 + 4
        padded_features = features.new_zeros(S * C * N, padded)
        padded_features[:, :F] = features.detach().reshape(S * C * N, F)
        padded_features[:, F] = 1.0  # blends to alpha
        lists = _tile_lists(centres, extents, depth_keys, table, width, height)

        tiles = S * C * lists.tiles_x * lists.tiles_y
        image, alpha = torch.empty(S, C, height, width, F), torch.empty(S, C, height, width)
        left = np.empty(tiles * PIXELS, np.float32)
        stops = np.empty(tiles * PIXELS, np.float32)
        tile_stop = np.empty(tiles, np.int64)
        parallel_for(
            kernels.draw, tiles, lists.tiles_x, lists.tiles_y, N, lists.tile_start, lists.splats, lists.masks,
            table.ravel(), padded_features.view(-1).numpy(), padded, behind.ravel(), height, width, F,
            image.view(-1).numpy(), alpha.view(-1).numpy(), left, stops, tile_stop,
        )  # fmt: skip
        # Not tensors, hence not saved by save_for_backward; `draw` has cleared finished blocks from the masks.
        ctx.draw_arguments = (
            lists.tiles_x, lists.tiles_y, N, lists.tile_start, lists.splats, lists.masks, lists.slots, table.ravel(),
            padded_features.view(-1).numpy(), padded, behind.ravel(), height, width, F, left, stops, tile_stop,
        )  # fmt: skip
        ctx.gather_arguments = (
            outlines, opacity, lists.order, lists.drawn, lists.splat_start, lists.slot_start,
        )  # fmt: skip
        ctx.save_for_backward(alpha)
        ctx.slot_shape = len(lists.slots), MOMENTS + padded
        ctx.tiles = tiles
        ctx.shape = S, C, N, F
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor, d_alpha: Tensor) -> tuple[Tensor | None, ...]:
        S, C, N, F = ctx.shape
        d_image, d_alpha = d_image.contiguous(), d_alpha.contiguous()
        d_slots = np.empty(ctx.slot_shape, np.float32)
        parallel_for(
            kernels.draw_backward, ctx.tiles, *ctx.draw_arguments,
            d_image.view(-1).numpy(), d_alpha.view(-1).numpy(), d_slots.ravel(),
        )  # fmt: skip
        outputs = (
            torch.empty(S, C, N, 2),
            torch.empty(S, C, N, 3),
            torch.empty(S, C, N),
            torch.empty(S, C, N, F),
        )
        parallel_for(kernels.gather, S * C, *ctx.gather_arguments, d_slots, *(_images(t) for t in outputs))
        d_background = None
        if ctx.needs_input_grad[4]:
            (alpha,) = ctx.saved_tensors
            d_background = torch.einsum("schw,schwf->scf", 1 - alpha, d_image)
        return *outputs, d_background, None, None, None, None, None


class _TileLists(NamedTuple):
    """The outputs of `kernels.sort` for all images, and the number of tiles per image in x and y."""

    tiles_x: int
    tiles_y: int
    slot_start: np.ndarray
    order: np.ndarray
    drawn: np.ndarray
    splat_start: np.ndarray
    tile_start: np.ndarray
    splats: np.ndarray
    masks: np.ndarray
    slots: np.ndarray


def _tile_lists(
    means2d: np.ndarray, radii: np.ndarray, keys: np.ndarray, records: np.ndarray, width: int, height: int
) -> _TileLists:
    """List the splats of every tile, nearest first. All arrays are [images, N, …]."""
    images, N = keys.shape
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    counts = np.empty(images, np.int64)
    parallel_for(kernels.count_slots, images, means2d, radii, tiles_x, tiles_y, counts)
    slot_start = np.concatenate([[0], np.cumsum(counts)])
    lists = _TileLists(
        tiles_x,
        tiles_y,
        slot_start,
        order=np.empty((images, N), np.int32),
        drawn=np.empty(images, np.int64),
        splat_start=np.empty((images, N + 1), np.int64),
        tile_start=np.empty((images, tiles_x * tiles_y + 1), np.int64),
        splats=np.empty(slot_start[-1], np.int32),
        masks=np.empty(slot_start[-1], np.uint64),
        slots=np.empty(slot_start[-1], np.int64),
    )
    parallel_for(kernels.sort, images, keys, radii, records, tiles_x, tiles_y, *lists[2:])
    return lists


def _flat(tensor: Tensor) -> np.ndarray:
    """View a tensor as a one-dimensional numpy array."""
    return tensor.numpy().reshape(-1)


def _images(tensor: Tensor) -> np.ndarray:
    """View a tensor [S, C, …] as a numpy array [S·C, …]."""
    array = tensor.numpy()
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def parts(count: int, threads: int) -> list[tuple[int, int]]:
    """Divide 0..count into four ranges per thread, as their costs differ (crowded tiles take longer)."""
    number = min(count, 4 * threads) if threads > 1 else 1
    return [(count * i // number, count * (i + 1) // number) for i in range(number)]


def parallel_for(function: Callable, count: int, *arguments: object) -> None:
    """Run `function(first, last, *arguments)` over ranges that cover 0..count, on `get_threads()` threads."""
    threads = max(1, min(get_threads(), count))
    todo = deque(parts(count, threads))

    def work() -> None:
        while todo:
            try:
                first, last = todo.popleft()
            except IndexError:  # another thread took the last range
                return
            function(first, last, *arguments)

    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        # All ranges are taken by now: a helper that has not started (busy machine) need not run.
        if not helper.cancel():
            helper.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="splats")


if hasattr(os, "register_at_fork"):  # a forked child does not inherit threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
