"""The CPU back end: `kernels` behind torch autograd."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.gaussians.features import blended_features, split_outputs
from renderers.gaussians.threads import get_threads
from renderers.gaussians.types import Rendered, Scene

try:
    from renderers.gaussians import kernels
except ImportError as error:
    raise RuntimeError(
        f"Splats on the CPU need numba, which does not import here ({error}): pip install 'menagerie4d[splat]', "
        "or use float64 tensors for the slow plain-torch back end"
    ) from error


def draw(scene: Scene) -> Rendered:
    """`renderers.gaussians.render` for one checked scene."""
    S, C, _ = scene.shape
    means2d, ellipses, depths, opacities, keys, radii, records = _Project.apply(
        scene.means, scene.quats, scene.scales, scene.opacities, scene.viewmats, scene.Ks,
        (scene.width, scene.height, scene.eps2d, scene.antialiased),
    )  # fmt: skip
    blended, background = blended_features(scene, depths if "depth" in scene.want else None)
    if background is None:
        background = blended.new_zeros(S, C, blended.shape[-1])
    image, alpha = _Draw.apply(
        means2d, ellipses, opacities, blended, background, keys, radii, records, scene.width, scene.height
    )
    return split_outputs(scene, image, alpha[..., None], radii, means2d)


class _Project(torch.autograd.Function):
    """Gaussians and cameras to means2d [S, C, N, 2], ellipses [S, C, N, 3], depths and opacities [S, C, N], and
    without gradient: sort keys float64 [S, C, N], radii int32 [S, C, N, 2] and records [S, C, N, RECORD]."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, viewmats, Ks, settings):
        S, C, N = *viewmats.shape[:2], means.shape[1]
        tensors = [t.detach().contiguous() for t in (means, quats, scales, opacities, viewmats, Ks)]
        shared = tuple(len(t) != S for t in tensors[:4])
        outputs = (
            torch.empty(S, C, N, 2),
            torch.empty(S, C, N, 3),
            torch.empty(S, C, N),
            torch.empty(S, C, N),
            torch.empty(S, C, N, dtype=torch.float64),
            torch.empty(S, C, N, 2, dtype=torch.int32),
            torch.empty(S, C, N, kernels.RECORD),
        )
        means2d, ellipses, depths, opacities2d, keys, radii, records = (_flat(t) for t in outputs)
        fields, views = [_flat(t) for t in tensors[:4]], [_flat(t) for t in tensors[4:]]
        _spread(
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
    def backward(ctx, *gradients):
        *tensors, opacities2d = ctx.saved_tensors
        S, C, N = opacities2d.shape
        received = [
            np.zeros(S * C * N * width, np.float32) if g is None else _flat(g.contiguous())
            for g, width in zip(gradients[:4], (2, 3, 1, 1), strict=True)
        ]
        written = [torch.zeros_like(t) for t in tensors[:4]]
        chunks = -(-N // kernels.CHUNK)
        d_views = np.zeros((chunks, S, C, 3, 4) if ctx.needs_input_grad[4] else 0)
        fields, views = [_flat(t) for t in tensors[:4]], [_flat(t) for t in tensors[4:]]
        shared = tuple(len(t) != S for t in tensors[:4])
        _spread(
            kernels.project_backward, chunks, N, C, *fields, shared, *views, *ctx.settings, _flat(opacities2d),
            *received, *(_flat(t) for t in written), d_views.ravel(),
        )  # fmt: skip
        d_viewmats = None
        if ctx.needs_input_grad[4]:
            d_viewmats = torch.zeros_like(tensors[4])
            d_viewmats[:, :, :3] = torch.from_numpy(d_views.sum(0))
        return *written, d_viewmats, None, None


class _Draw(torch.autograd.Function):
    """Projected splats with features [S, C, N, F] on a background [S, C, F] to the image [S, C, H, W, F] and its
    alpha [S, C, H, W]."""

    @staticmethod
    def forward(ctx, means2d, ellipses, opacities, features, background, keys, radii, records, width, height):
        S, C, N, F = features.shape
        images = S * C
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        tiles = tiles_x * tiles_y
        means2d, ellipses, opacities, keys, radii, records, background = (
            _images(t.detach().contiguous())
            for t in (means2d, ellipses, opacities, keys, radii, records, background)
        )
        padded = F // 4 * 4 + 4
        with_one = features.new_zeros(images * N, padded)
        with_one[:, :F] = features.detach().reshape(images * N, F)
        with_one[:, F] = 1.0

        counts = np.empty(images, np.int64)
        _spread(kernels.count_slots, images, means2d, radii, tiles_x, tiles_y, counts)
        slot_start = np.concatenate([[0], np.cumsum(counts)])
        order = np.empty((images, N), np.int32)
        drawn = np.empty(images, np.int64)
        splat_start = np.empty((images, N + 1), np.int64)
        tile_start = np.empty((images, tiles + 1), np.int64)
        splats = np.empty(slot_start[-1], np.int32)
        masks = np.empty(slot_start[-1], np.uint64)
        slots = np.empty(slot_start[-1], np.int64)
        _spread(
            kernels.sort, images, keys, radii, records, tiles_x, tiles_y, slot_start,
            order, drawn, splat_start, tile_start, splats, masks, slots,
        )  # fmt: skip

        image, alpha = torch.empty(S, C, height, width, F), torch.empty(S, C, height, width)
        left = np.empty(images * tiles * kernels.PIXELS, np.float32)
        stops = np.empty(images * tiles * kernels.PIXELS, np.float32)
        tile_stop = np.empty(images * tiles, np.int64)
        _spread(
            kernels.draw, images * tiles, tiles_x, tiles_y, N, tile_start, splats, masks, records.ravel(),
            with_one.view(-1).numpy(), padded, background.ravel(), height, width, F,
            image.view(-1).numpy(), alpha.view(-1).numpy(), left, stops, tile_stop,
        )  # fmt: skip
        ctx.lists = (tiles_x, tiles_y, N, tile_start, splats, masks, slots, records.ravel())
        ctx.drawn = (
            with_one.view(-1).numpy(), padded, background.ravel(), height, width, F, left, stops, tile_stop,
        )  # fmt: skip
        ctx.splats = (ellipses, opacities, order, drawn, splat_start, slot_start)
        ctx.save_for_backward(alpha)
        ctx.shape = S, C, N, F
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, d_image, d_alpha):
        S, C, N, F = ctx.shape
        d_image, d_alpha = d_image.contiguous(), d_alpha.contiguous()
        slots, padded, tile_stop = ctx.lists[6], ctx.drawn[1], ctx.drawn[-1]
        d_slots = np.empty((len(slots), kernels.MOMENTS + padded), np.float32)
        _spread(
            kernels.draw_backward, len(tile_stop), *ctx.lists, *ctx.drawn,
            d_image.view(-1).numpy(), d_alpha.view(-1).numpy(), d_slots.ravel(),
        )  # fmt: skip
        outputs = (
            torch.empty(S, C, N, 2),
            torch.empty(S, C, N, 3),
            torch.empty(S, C, N),
            torch.empty(S, C, N, F),
        )
        _spread(kernels.gather, S * C, *ctx.splats, d_slots, *(_images(t) for t in outputs))
        d_background = None
        if ctx.needs_input_grad[4]:
            (alpha,) = ctx.saved_tensors
            d_background = torch.einsum("schw,schwf->scf", 1 - alpha, d_image)
        return *outputs, d_background, None, None, None, None, None


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.numpy().reshape(-1)


def _images(tensor: Tensor) -> np.ndarray:
    """[S, C, …] as a numpy view [S·C, …]."""
    array = tensor.numpy()
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def parts(count: int, threads: int) -> list[tuple[int, int]]:
    """0..count cut into ranges for so many threads: more ranges than threads, as crowded tiles take longer."""
    number = min(count, 4 * threads) if threads > 1 else 1
    return [(count * i // number, count * (i + 1) // number) for i in range(number)]


def _spread(function: Callable, count: int, *arguments: object) -> None:
    """Run `function(first, last, *arguments)` over 0..count, on as many threads as `set_threads` allows."""
    threads = max(1, min(get_threads(), count))
    todo = deque(parts(count, threads))

    def work() -> None:
        while todo:
            try:
                first, last = todo.popleft()
            except IndexError:  # another thread was quicker
                return
            function(first, last, *arguments)

    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        # On a busy machine a helper may not even have begun: then there is nothing to wait for.
        if not helper.cancel():
            helper.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="splats")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
