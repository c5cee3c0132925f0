"""The CPU back end: `kernels` behind torch autograd."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.gaussians import Rendered, get_threads, kernels, reference
from renderers.gaussians.checks import Scene

PROJECTION_CHUNK = 4096  # Gaussians; fixed, so that sums over chunks have the same bits for any thread count


def draw(scene: Scene) -> Rendered:
    """`renderers.gaussians.render` for one checked scene."""
    S, C, _ = scene.shape
    means2d, ellipses, depths, opacities, keys, radii = _Project.apply(
        scene.means, scene.quats, scene.scales, scene.opacities, scene.viewmats, scene.Ks,
        (scene.width, scene.height, scene.eps2d, scene.antialiased),
    )  # fmt: skip
    blended, background = reference.features(scene, depths)
    if background is None:
        background = blended.new_zeros(S, C, blended.shape[-1])
    image, left = _Draw.apply(
        means2d, ellipses, opacities, blended, background, keys, radii, scene.width, scene.height
    )
    return reference.rendered(scene, image, 1 - left[..., None], radii, means2d)


class _Project(torch.autograd.Function):
    """Gaussians and cameras to means2d [S, C, N, 2], ellipses [S, C, N, 3], depths and opacities [S, C, N], and
    without gradient: sort keys float64 [S, C, N] and radii int32 [S, C, N, 2]."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, viewmats, Ks, settings):
        S, C, N = *viewmats.shape[:2], means.shape[1]
        tensors = [t.detach().contiguous() for t in (means, quats, scales, opacities)]
        tensors += [viewmats.detach().reshape(S * C, 4, 4).contiguous(), Ks.detach().reshape(S * C, 3, 3).contiguous()]
        outputs = (
            torch.empty(S, C, N, 2),
            torch.empty(S, C, N, 3),
            torch.empty(S, C, N),
            torch.empty(S, C, N),
            torch.empty(S, C, N, dtype=torch.float64),
            torch.empty(S, C, N, 2, dtype=torch.int32),
        )
        means2d, ellipses, depths, opacities2d, keys, radii = (_images(t) for t in outputs)
        arrays = (*(t.numpy() for t in tensors), *settings, means2d, ellipses, depths, keys, opacities2d, radii)
        _spread(kernels.project, N, C, *arrays)
        ctx.save_for_backward(*tensors, outputs[-1])
        ctx.settings = settings
        ctx.mark_non_differentiable(*outputs[-2:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        *tensors, radii = ctx.saved_tensors
        S, C, N, _ = radii.shape
        received = [
            np.zeros((S * C, N, *tail), np.float32) if g is None else _images(g.contiguous())
            for g, tail in zip(gradients[:4], ((2,), (3,), (), ()), strict=True)
        ]
        written = [torch.zeros_like(t) for t in tensors[:4]]
        chunks = range(0, N, PROJECTION_CHUNK)
        d_views = np.zeros((len(chunks), S * C if ctx.needs_input_grad[4] else 0, 3, 4))

        def run(first: int, last: int, *rest: object) -> None:
            for chunk in range(first, last):
                begin = chunk * PROJECTION_CHUNK
                kernels.project_backward(begin, min(begin + PROJECTION_CHUNK, N), chunk, *rest)

        _spread(
            run, len(chunks), C, *(t.numpy() for t in tensors), *ctx.settings, _images(radii), *received,
            *(t.numpy() for t in written), d_views,
        )  # fmt: skip
        d_viewmats = None
        if ctx.needs_input_grad[4]:
            d_viewmats = tensors[4].new_zeros(S, C, 4, 4)
            d_viewmats[:, :, :3] = torch.from_numpy(d_views.sum(0)).reshape(S, C, 3, 4)
        return *written, d_viewmats, None, None


class _Draw(torch.autograd.Function):
    """Projected splats with features [S, C, N, F] on a background [S, C, F] to the image [S, C, H, W, F] and the
    transmittance that is left [S, C, H, W]."""

    @staticmethod
    def forward(ctx, means2d, ellipses, opacities, features, background, keys, radii, width, height):
        S, C, N, F = features.shape
        images, padded = S * C, -(-F // 4) * 4
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        tiles = tiles_x * tiles_y
        means2d, ellipses, opacities, keys, radii = (
            _images(t.detach().contiguous()) for t in (means2d, ellipses, opacities, keys, radii)
        )
        features = _images(torch.nn.functional.pad(features.detach(), (0, padded - F)).contiguous())
        background = _images(background.detach().contiguous())

        counts = np.empty(images, np.int64)
        _spread(kernels.count_slots, images, means2d, radii, tiles_x, tiles_y, counts)
        slot_start = np.concatenate([[0], np.cumsum(counts)])
        order = np.empty((images, N), np.int32)
        drawn = np.empty(images, np.int64)
        records = np.empty((images, N, kernels.RECORD), np.float32)
        splat_start = np.empty((images, N + 1), np.int64)
        tile_start = np.empty((images, tiles + 1), np.int64)
        ranks = np.empty(slot_start[-1], np.int32)
        masks = np.empty(slot_start[-1], np.uint64)
        slots = np.empty(slot_start[-1], np.int64)
        _spread(
            kernels.sort, images, means2d, ellipses, opacities, keys, radii, tiles_x, tiles_y, slot_start,
            order, drawn, records, splat_start, tile_start, ranks, masks, slots,
        )  # fmt: skip

        image = torch.empty(S, C, height, width, F)
        left = np.empty((images * tiles, kernels.PIXELS), np.float32)
        stops = np.empty((images * tiles, kernels.PIXELS), np.float32)
        tile_stop = np.empty(images * tiles, np.int64)
        _spread(
            kernels.draw, images * tiles, tiles_x, tiles_y, tile_start, ranks, masks, records, order, features,
            background, _images(image), left, stops, tile_stop,
        )  # fmt: skip
        ctx.lists = (tiles_x, tiles_y, tile_start, ranks, masks, slots, records, order)
        ctx.drawn = (features, background, left, stops, tile_stop)
        ctx.splats = (ellipses, opacities, order, drawn, splat_start, slot_start)
        ctx.shape = S, C, N, F
        blocks = left.reshape(images, tiles_y, tiles_x, 8, 8, 4, 4).transpose(0, 1, 3, 5, 2, 4, 6)
        plain = blocks.reshape(images, tiles_y * kernels.TILE, tiles_x * kernels.TILE)[:, :height, :width]
        plain = torch.from_numpy(np.ascontiguousarray(plain)).reshape(S, C, height, width)
        ctx.save_for_backward(plain)
        return image, plain

    @staticmethod
    @once_differentiable
    def backward(ctx, d_image, d_left):
        S, C, N, F = ctx.shape
        images = S * C
        d_image, d_left = d_image.contiguous(), d_left.contiguous()
        slots, padded = ctx.lists[5], ctx.drawn[0].shape[2]
        d_slots = np.empty((len(slots), kernels.MOMENTS + padded), np.float32)
        _spread(
            kernels.draw_backward, len(ctx.drawn[2]), *ctx.lists, *ctx.drawn, _images(d_image), _images(d_left), d_slots
        )
        outputs = torch.empty(S, C, N, 2), torch.empty(S, C, N, 3), torch.empty(S, C, N), torch.empty(S, C, N, F)
        _spread(kernels.gather, images, *ctx.splats, d_slots, *(_images(t) for t in outputs))
        d_background = None
        if ctx.needs_input_grad[4]:
            (left,) = ctx.saved_tensors
            d_background = torch.einsum("schw,schwf->scf", left, d_image)
        return *outputs, d_background, None, None, None, None


def _images(tensor: Tensor) -> np.ndarray:
    """[S, C, …] as a numpy view [S·C, …]."""
    return tensor.detach().flatten(0, 1).numpy()


def _spread(function: Callable, count: int, *arguments: object) -> None:
    """Run `function(first, last, *arguments)` over 0..count, on as many threads as `set_threads` allows."""
    threads = min(get_threads(), count)
    if threads <= 1:
        function(0, count, *arguments)
        return
    parts = min(count, 4 * threads)  # more parts than threads: crowded tiles take longer
    bounds = [count * p // parts for p in range(parts + 1)]
    runs = [_pool(threads).submit(function, a, b, *arguments) for a, b in zip(bounds, bounds[1:], strict=False)]
    for run in runs:
        run.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="splats")
