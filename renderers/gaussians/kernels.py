"""The numba kernels of the CPU back end: project, sort, draw, and their derivatives.

An image is cut into tiles of 32×32 pixels, a tile into 8×8 blocks of 4×4: sixteen pixels, one vector of lanes. Which
blocks a splat reaches in a tile is one 64-bit mask, found from the exact outline of the ellipse α = 1/255. Drawing
walks a tile's splats from front to back and each splat's set bits; a block leaves the walk when all its pixels are
finished, and its bit is cleared from the masks, so the way back visits exactly the pairs that were drawn.

Nothing is added across threads: gradients go to one slot per (splat, tile) and are summed in a fixed order. That
gives the same bits for any number of threads.

An ellipse is kept as (a, k, h): with dy the distance from the centre in y and u = dx - k·dy, the exponent is
σ = (a·u² + h·dy²) / 2. Both terms are positive, so needles lose no digits to cancellation as they do in the usual
a·dx² + 2b·dx·dy + c·dy².
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
from numba import njit
from numba.core import event

from renderers.gaussians.simd import (
    LANES,
    WIDE_LANES,
    bits,
    ceiling,
    floor,
    get,
    higher,
    load,
    logarithm,
    lower,
    lowest_bit,
    magnitude,
    put,
    reciprocal,
    root,
    select,
    span_bits,
    splat,
    splat_at,
    store,
    total,
    wide_column,
)
from renderers.gaussians.types import FAR, NEAR

CHUNK = 256  # Gaussians whose camera gradients are summed together, for any number of threads
TILE, BLOCK, BLOCKS = 32, 4, 64
PIXELS = TILE * TILE
MOMENTS = 6  # Σw, Σw·u, Σw·dy, Σw·u², Σw·u·dy, Σw·dy²
RECORD = 8  # what is read of a splat: x, y, k, a/16, h/16, -ln(o)/8, half its width and height at α = 1/255

ALPHA_MIN, LOG_255 = 1.0 / 255.0, math.log(255.0)
ALPHA_MAX = np.float32(0.999)
TRANSMITTANCE_MIN = np.float32(1e-4)
RADIUS_SIGMAS = 3.33
FLATTEST, FARTHEST = 1e-30, 1e9  # curvature and pixels at which float32 would overflow
MARGIN = 0.01  # pixels by which outlines are widened, against rounding; every pixel is tested exactly later

# α = exp(-8x) = p(x)⁸ for x in 0..ln(255)/8, p of degree 5 with relative error 7.5e-8 (Remez).
LIMIT = np.float32(LOG_255 / 8)
P0, P1, P2, P3, P4, P5 = (
    np.float32(v)
    for v in (0.9999999403953552, -0.9999929070472717, 0.49988704919815063, -0.16599327325820923,
              0.03980664908885956, -0.005867757834494114)
)  # fmt: skip

_LANE = np.arange(LANES)
LANE_X = (_LANE % BLOCK + 0.5).astype(np.float32)
LANE_Y = (_LANE // BLOCK + 0.5).astype(np.float32)
BLOCK_X = (np.arange(BLOCKS) % 8 * BLOCK).astype(np.float32)
BLOCK_Y = (np.arange(BLOCKS) // 8 * BLOCK).astype(np.float32)
# The eight bands of blocks in a tile, twice: first row of pixel centres; right ends (1) and left ends (-1).
BAND_TOP = (_LANE % 8 * BLOCK + 0.5).astype(np.float32)
SIDE = np.where(_LANE < 8, 1, -1).astype(np.float32)
NO_SPAN = np.zeros(LANES, np.float32)
WIDE_LANE = np.arange(WIDE_LANES, dtype=np.float64)

ONE = np.uint64(1)


# numba knows a cached kernel by this file's text alone: a change of simd.py must change this line (a test compares).
SIMD_DIGEST = "03cd8092a01376e7"


def kernel(function: Callable) -> Callable:
    """Compile on first call and run without the interpreter lock.

    The machine code is kept in NUMBA_CACHE_DIR, beside this file, or, where that is read-only, in the user's cache
    folder; where nothing can be written it is made anew in every process.
    """
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:
        return njit(function, nogil=True, error_model="numpy")


class _SayOnce(event.Listener):
    """One line on stderr when a kernel of this file is really compiled, not read from the cache."""

    said = False

    def on_start(self, event: event.Event) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.said and getattr(function, "__module__", None) == __name__:
            self.said = True
            print(
                "splats: compiling the CPU kernels for this machine, once (10-20 s) …",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _SayOnce())
inline = njit(error_model="numpy")


# --- projection, eight Gaussians at a time in float64 -----------------------------------------------


@inline
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def _row(matrix, i):
    return matrix[3 * i], matrix[3 * i + 1], matrix[3 * i + 2]


@inline
def _column(matrix, j):
    return matrix[j], matrix[3 + j], matrix[6 + j]


@inline
def _times(vector, matrix):
    """Row vector times matrix."""
    return (
        _dot(vector, _column(matrix, 0)),
        _dot(vector, _column(matrix, 1)),
        _dot(vector, _column(matrix, 2)),
    )


@inline
def _three(array, first, count):
    """Rows of three from row `first` on, as lanes."""
    return (
        wide_column(array, 3 * first, 3, count),
        wide_column(array, 3 * first + 1, 3, count),
        wide_column(array, 3 * first + 2, 3, count),
    )


@inline
def _rotation(quats, first, count):
    """Rotation matrices of quaternions from row `first` on, their normalised parts and 1 / length."""
    w, x, y, z = (
        wide_column(quats, 4 * first, 4, count),
        wide_column(quats, 4 * first + 1, 4, count),
        wide_column(quats, 4 * first + 2, 4, count),
        wide_column(quats, 4 * first + 3, 4, count),
    )
    inverse = 1.0 / root(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    R = (
        1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
    )  # fmt: skip
    return R, (w, x, y, z), inverse


@inline
def _scaled(R, scale):
    """R · diag(scale): the axes of the Gaussians as columns."""
    return (
        R[0] * scale[0], R[1] * scale[1], R[2] * scale[2],
        R[3] * scale[0], R[4] * scale[1], R[5] * scale[2],
        R[6] * scale[0], R[7] * scale[1], R[8] * scale[2],
    )  # fmt: skip


@inline
def _entry(array, index):
    return splat(np.float64(get(array, index)))


@inline
def _view(viewmats, Ks, i):
    """Rotation, translation and (fx, fy, cx, cy) of camera i, each in all lanes."""
    v, k = 16 * i, 9 * i
    W = (
        _entry(viewmats, v), _entry(viewmats, v + 1), _entry(viewmats, v + 2),
        _entry(viewmats, v + 4), _entry(viewmats, v + 5), _entry(viewmats, v + 6),
        _entry(viewmats, v + 8), _entry(viewmats, v + 9), _entry(viewmats, v + 10),
    )  # fmt: skip
    t = _entry(viewmats, v + 3), _entry(viewmats, v + 7), _entry(viewmats, v + 11)
    return W, t, (_entry(Ks, k), _entry(Ks, k + 4), _entry(Ks, k + 2), _entry(Ks, k + 5))


@inline
def _clamped_tangent(ratio, focal, centre, size):
    """The tangent at which the projection is linearised, and where it is the point's own."""
    border = 0.15 * size / focal
    low, high = -centre / focal - border, (size - centre) / focal + border
    return lower(higher(ratio, low), high), (ratio >= low) & (ratio <= high)


@inline
def _project_eight(W, t, pinhole, mean, axes, width, height, eps2d):
    """What both directions need of Gaussians in one camera.

    Returns: where their depth allows drawing; the centre in camera space (at depth 1 elsewhere) and 1 / depth; both
    clamped tangents and where each is free; rows a0, a1 of J·W; rows p, q of J·W·axes (2×3, the projected axes) and
    their cross product; the determinants of the unblurred and the blurred covariance, and its xx and yy.
    """
    fx, fy, cx, cy = pinhole
    one = splat(1.0)
    depth = _dot(_row(W, 2), mean) + t[2]
    in_range = (depth >= NEAR) & (depth <= FAR)
    c = _dot(_row(W, 0), mean) + t[0], _dot(_row(W, 1), mean) + t[1], select(in_range, depth, one)
    inverse = one / c[2]
    tan_x, free_x = _clamped_tangent(c[0] * inverse, fx, cx, width)
    tan_y, free_y = _clamped_tangent(c[1] * inverse, fy, cy, height)
    gx, gy = fx * inverse, fy * inverse
    a0 = gx * (W[0] - tan_x * W[6]), gx * (W[1] - tan_x * W[7]), gx * (W[2] - tan_x * W[8])
    a1 = gy * (W[3] - tan_y * W[6]), gy * (W[4] - tan_y * W[7]), gy * (W[5] - tan_y * W[8])
    p, q = _times(a0, axes), _times(a1, axes)
    normal = _cross(p, q)
    # Cauchy-Binet: no difference of large products, unlike xx·yy - xy².
    det0 = _dot(normal, normal)
    pp, qq = _dot(p, p), _dot(q, q)
    det = det0 + eps2d * (pp + qq) + eps2d * eps2d
    return (
        in_range,
        c,
        inverse,
        tan_x,
        free_x,
        tan_y,
        free_y,
        a0,
        a1,
        p,
        q,
        normal,
        det0,
        det,
        pp + eps2d,
        qq + eps2d,
    )


@kernel
def project(
    first, last, N, cameras, means, quats, scales, opacities, shared, viewmats, Ks, width, height, eps2d, antialiased,
    means2d, ellipses, depths, keys, opacities2d, radii, records,
):  # fmt: skip
    """Gaussians first..last of every scene into every camera.

    All arrays are flat. In: means, quats, scales, opacities [S or 1, N, …]; shared: whether each of the four has one
    scene for all; viewmats [S·C, 4, 4], Ks [S·C, 3, 3].
    Out: means2d [S·C, N, 2], ellipses (a, k, h) [S·C, N, 3], depths [S·C, N] and as float64 keys, opacities2d
    [S·C, N], radii int32 [S·C, N, 2] and records [S·C, N, RECORD]; where not drawn all but the depths are 0.
    """
    buffer = np.empty(12 * WIDE_LANES, np.float64)
    zero, one = splat(0.0), splat(1.0)
    for i in range(len(viewmats) // 16):
        s = i // cameras
        W, t, pinhole = _view(viewmats, Ks, i)
        for n in range(first, last, WIDE_LANES):
            count = min(WIDE_LANES, last - n)
            mean = _three(means, n + (0 if shared[0] else s * N), count)
            R, _, _ = _rotation(quats, n + (0 if shared[1] else s * N), count)
            scale = _three(scales, n + (0 if shared[2] else s * N), count)
            in_range, c, inverse, _, _, _, _, _, _, p, q, _, det0, det, xx, yy = _project_eight(
                W, t, pinhole, mean, _scaled(R, scale), width, height, eps2d
            )
            opacity = wide_column(opacities, n + (0 if shared[3] else s * N), 1, count)
            solid = det > zero
            det = select(solid, det, one)
            if antialiased:
                opacity = opacity * root(det0 / det)
            x, y = pinhole[0] * c[0] * inverse + pinhole[2], pinhole[1] * c[1] * inverse + pinhole[3]
            log_opacity = logarithm(higher(opacity, splat(1e-30)))
            squared = lower(higher(2.0 * (log_opacity + LOG_255), zero), splat(RADIUS_SIGMAS * RADIUS_SIGMAS))
            half_width, half_height = root(squared * xx), root(squared * yy)
            rx, ry = ceiling(half_width), ceiling(half_height)
            drawn = in_range & solid & (opacity >= ALPHA_MIN)
            drawn = drawn & (x + rx > zero) & (x - rx < width) & (y + ry > zero) & (y - ry < height)
            drawn = drawn & (magnitude(x) < FARTHEST) & (magnitude(y) < FARTHEST)
            inverse_yy = one / select(yy > zero, yy, one)
            a, h = higher(yy / det, splat(FLATTEST)), higher(inverse_yy, splat(FLATTEST))
            store(buffer, 0 * WIDE_LANES, select(drawn, x, zero))
            store(buffer, 1 * WIDE_LANES, select(drawn, y, zero))
            store(buffer, 2 * WIDE_LANES, select(drawn, a, zero))
            store(buffer, 3 * WIDE_LANES, select(drawn, _dot(p, q) * inverse_yy, zero))
            store(buffer, 4 * WIDE_LANES, select(drawn, h, zero))
            store(buffer, 5 * WIDE_LANES, select(drawn, opacity, zero))
            store(buffer, 6 * WIDE_LANES, select(drawn, lower(rx, splat(2e9)), zero))
            store(buffer, 7 * WIDE_LANES, select(drawn, lower(ry, splat(2e9)), zero))
            store(buffer, 8 * WIDE_LANES, select(drawn, log_opacity, zero))
            store(buffer, 9 * WIDE_LANES, _dot(_row(W, 2), mean) + t[2])
            store(buffer, 10 * WIDE_LANES, half_width)
            store(buffer, 11 * WIDE_LANES, half_height)
            for lane in range(count):
                at = i * N + n + lane
                x_, y_, k_ = get(buffer, lane), get(buffer, 8 + lane), get(buffer, 24 + lane)
                a_, h_ = get(buffer, 16 + lane), get(buffer, 32 + lane)
                put(means2d, 2 * at, x_)
                put(means2d, 2 * at + 1, y_)
                put(ellipses, 3 * at, a_)
                put(ellipses, 3 * at + 1, k_)
                put(ellipses, 3 * at + 2, h_)
                put(opacities2d, at, get(buffer, 40 + lane))
                put(radii, 2 * at, np.int32(get(buffer, 48 + lane)))
                put(radii, 2 * at + 1, np.int32(get(buffer, 56 + lane)))
                put(depths, at, get(buffer, 72 + lane))
                put(keys, at, get(buffer, 72 + lane))
                put(records, RECORD * at, x_)
                put(records, RECORD * at + 1, y_)
                put(records, RECORD * at + 2, k_)
                put(records, RECORD * at + 3, a_ / 16)
                put(records, RECORD * at + 4, h_ / 16)
                put(records, RECORD * at + 5, get(buffer, 64 + lane) / -8)
                put(records, RECORD * at + 6, get(buffer, 80 + lane))
                put(records, RECORD * at + 7, get(buffer, 88 + lane))


@kernel
def project_backward(
    first, last, N, cameras, means, quats, scales, opacities, shared, viewmats, Ks, width, height, eps2d,
    antialiased, opacities2d, d_means2d, d_ellipses, d_depths, d_opacities2d,
    d_means, d_quats, d_scales, d_opacities, d_views,
):  # fmt: skip
    """Gradients of `project` for the chunks first..last of CHUNK Gaussians, added to d_means … [S or 1, N, …]; a
    shared field receives the sum over scenes. d_views float64 [chunks, S·C, 3, 4] receives each chunk's share of the
    camera gradients; it is empty when they are not wanted. All arrays are flat."""
    images = len(viewmats) // 16
    buffer = np.empty(11 * WIDE_LANES, np.float64)
    zero, one = splat(0.0), splat(1.0)
    for n in range(first * CHUNK, min(last * CHUNK, N), WIDE_LANES):
        chunk, count = n // CHUNK, min(WIDE_LANES, N - n)
        present = load(WIDE_LANE, 0) < np.float64(count)
        for s in range(images // cameras):
            n_mean, n_quat = n + (0 if shared[0] else s * N), n + (0 if shared[1] else s * N)
            n_scale, n_opacity = n + (0 if shared[2] else s * N), n + (0 if shared[3] else s * N)
            mean, scale = _three(means, n_mean, count), _three(scales, n_scale, count)
            R, (w, x, y, z), inverse_length = _rotation(quats, n_quat, count)
            axes = _scaled(R, scale)
            opacity = wide_column(opacities, n_opacity, 1, count)
            m0 = m1 = m2 = d_opacity = zero  # gradients of mean and opacity
            g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = zero  # of the axes, row by row
            for i in range(s * cameras, (s + 1) * cameras):
                at = i * N + n
                W, t, pinhole = _view(viewmats, Ks, i)
                drawn = present & (wide_column(opacities2d, at, 1, count) > zero)
                e0 = e1 = zero  # gradient of the centre in camera space
                e2 = select(present, wide_column(d_depths, at, 1, count), zero)
                if bits(drawn):
                    _, c, inverse, tan_x, free_x, tan_y, free_y, a0, a1, p, q, normal, det0, det, _, yy = (
                        _project_eight(W, t, pinhole, mean, axes, width, height, eps2d)
                    )
                    det, yy = select(drawn, det, one), select(drawn, yy, one)
                    inverse_det, h = one / det, one / yy
                    a, k = yy * inverse_det, _dot(p, q) * h
                    da, dk, dh = _three(d_ellipses, at, count)
                    da, dk, dh = select(drawn, da, zero), select(drawn, dk, zero), select(drawn, dh, zero)
                    d_yy = da * inverse_det - (dk * k + dh * h) * h
                    d_xy = dk * h
                    d_det = -da * a * inverse_det
                    d_det0 = zero
                    d_alpha = select(drawn, wide_column(d_opacities2d, at, 1, count), zero)
                    if antialiased:
                        compensation = root(det0 * inverse_det)
                        change = 0.5 * d_alpha * opacity * inverse_det
                        d_alpha = d_alpha * compensation
                        positive = compensation > zero
                        d_det0 = select(positive, change / select(positive, compensation, one), zero)
                        d_det = d_det - change * compensation
                    d_opacity = d_opacity + d_alpha
                    d_det0 = 2.0 * (d_det0 + d_det)
                    d_xx = 2.0 * eps2d * d_det
                    d_yy = 2.0 * (d_yy + eps2d * d_det)
                    qn, np_ = _cross(q, normal), _cross(normal, p)
                    dp = (
                        d_xx * p[0] + d_xy * q[0] + d_det0 * qn[0],
                        d_xx * p[1] + d_xy * q[1] + d_det0 * qn[1],
                        d_xx * p[2] + d_xy * q[2] + d_det0 * qn[2],
                    )
                    dq = (
                        d_yy * q[0] + d_xy * p[0] + d_det0 * np_[0],
                        d_yy * q[1] + d_xy * p[1] + d_det0 * np_[1],
                        d_yy * q[2] + d_xy * p[2] + d_det0 * np_[2],
                    )
                    g00 = a0[0] * dp[0] + a1[0] * dq[0] + g00
                    g01 = a0[0] * dp[1] + a1[0] * dq[1] + g01
                    g02 = a0[0] * dp[2] + a1[0] * dq[2] + g02
                    g10 = a0[1] * dp[0] + a1[1] * dq[0] + g10
                    g11 = a0[1] * dp[1] + a1[1] * dq[1] + g11
                    g12 = a0[1] * dp[2] + a1[1] * dq[2] + g12
                    g20 = a0[2] * dp[0] + a1[2] * dq[0] + g20
                    g21 = a0[2] * dp[1] + a1[2] * dq[1] + g21
                    g22 = a0[2] * dp[2] + a1[2] * dq[2] + g22
                    da0 = _dot(_row(axes, 0), dp), _dot(_row(axes, 1), dp), _dot(_row(axes, 2), dp)
                    da1 = _dot(_row(axes, 0), dq), _dot(_row(axes, 1), dq), _dot(_row(axes, 2), dq)
                    gx, gy = pinhole[0] * inverse, pinhole[1] * inverse
                    d_tan_x = select(free_x, -gx * _dot(da0, _row(W, 2)), zero)
                    d_tan_y = select(free_y, -gy * _dot(da1, _row(W, 2)), zero)
                    d_x = gx * select(drawn, wide_column(d_means2d, 2 * at, 2, count), zero)
                    d_y = gy * select(drawn, wide_column(d_means2d, 2 * at + 1, 2, count), zero)
                    e0 = d_x + d_tan_x * inverse
                    e1 = d_y + d_tan_y * inverse
                    e2 = e2 - inverse * (
                        _dot(da0, a0) + _dot(da1, a1) + d_x * c[0] + d_y * c[1]
                        + d_tan_x * tan_x + d_tan_y * tan_y
                    )  # fmt: skip
                    if len(d_views):
                        view = (chunk * images + i) * 12
                        for j in range(3):
                            x_share, y_share = gx * da0[j], gy * da1[j]
                            d_views[view + j] += total(x_share)
                            d_views[view + 4 + j] += total(y_share)
                            d_views[view + 8 + j] -= total(x_share * tan_x + y_share * tan_y)
                m0 = W[0] * e0 + W[3] * e1 + W[6] * e2 + m0
                m1 = W[1] * e0 + W[4] * e1 + W[7] * e2 + m1
                m2 = W[2] * e0 + W[5] * e1 + W[8] * e2 + m2
                if len(d_views):
                    view = (chunk * images + i) * 12
                    for j in range(3):
                        d_views[view + j] += total(e0 * mean[j])
                        d_views[view + 4 + j] += total(e1 * mean[j])
                        d_views[view + 8 + j] += total(e2 * mean[j])
                    d_views[view + 3] += total(e0)
                    d_views[view + 7] += total(e1)
                    d_views[view + 11] += total(e2)
            store(buffer, 0 * WIDE_LANES, m0)
            store(buffer, 1 * WIDE_LANES, m1)
            store(buffer, 2 * WIDE_LANES, m2)
            store(buffer, 3 * WIDE_LANES, R[0] * g00 + R[3] * g10 + R[6] * g20)
            store(buffer, 4 * WIDE_LANES, R[1] * g01 + R[4] * g11 + R[7] * g21)
            store(buffer, 5 * WIDE_LANES, R[2] * g02 + R[5] * g12 + R[8] * g22)
            g00, g10, g20 = g00 * scale[0], g10 * scale[0], g20 * scale[0]  # from here on the gradient of R
            g01, g11, g21 = g01 * scale[1], g11 * scale[1], g21 * scale[1]
            g02, g12, g22 = g02 * scale[2], g12 * scale[2], g22 * scale[2]
            dw = x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01)
            dx = w * (g21 - g12) - 2.0 * x * (g11 + g22) + y * (g01 + g10) + z * (g02 + g20)
            dy = w * (g02 - g20) + x * (g01 + g10) - 2.0 * y * (g00 + g22) + z * (g12 + g21)
            dz = w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - 2.0 * z * (g00 + g11)
            along = dw * w + dx * x + dy * y + dz * z
            twice = 2.0 * inverse_length
            store(buffer, 6 * WIDE_LANES, (dw - along * w) * twice)
            store(buffer, 7 * WIDE_LANES, (dx - along * x) * twice)
            store(buffer, 8 * WIDE_LANES, (dy - along * y) * twice)
            store(buffer, 9 * WIDE_LANES, (dz - along * z) * twice)
            store(buffer, 10 * WIDE_LANES, d_opacity)
            for lane in range(count):
                for j in range(3):
                    d_means[3 * (n_mean + lane) + j] += buffer[j * WIDE_LANES + lane]
                    d_scales[3 * (n_scale + lane) + j] += buffer[(3 + j) * WIDE_LANES + lane]
                for j in range(4):
                    d_quats[4 * (n_quat + lane) + j] += buffer[(6 + j) * WIDE_LANES + lane]
                d_opacities[n_opacity + lane] += buffer[10 * WIDE_LANES + lane]


# --- which splat reaches which block, front to back -------------------------------------------------


@inline
def _tile_range(centre, radius, tiles):
    """Tiles first..last (exclusive) that the interval centre ± radius touches."""
    first = max(math.floor((centre - radius) / TILE), 0.0)
    last = min(math.floor((centre + radius) / TILE) + 1.0, np.float64(tiles))
    return np.int64(first), np.int64(max(first, last))


@kernel
def count_slots(first, last, means2d, radii, tiles_x, tiles_y, slots):
    """How many (splat, tile) pairs each of the images first..last may need: slots int64 [images]."""
    for i in range(first, last):
        number = 0
        for n in range(means2d.shape[1]):
            if radii[i, n, 0] > 0:
                x0, x1 = _tile_range(means2d[i, n, 0], radii[i, n, 0], tiles_x)
                y0, y1 = _tile_range(means2d[i, n, 1], radii[i, n, 1], tiles_y)
                number += (x1 - x0) * (y1 - y0)
        slots[i] = number


@inline
def _nearest_first(depths, radii, order):
    """Indices of the drawn Gaussians of one image into `order`, by depth, ties by index; returns their number.

    Radix sort on 30 bits of mantissa: far fewer false ties than a float32 depth has.
    """
    codes = depths.view(np.int64)
    keys, spare_keys = np.empty(len(depths), np.int64), np.empty(len(depths), np.int64)
    spare = np.empty(len(depths), np.int32)
    number = 0
    lowest, highest = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(0)
    for n in range(len(depths)):
        if radii[n, 0] > 0:
            order[number] = n
            keys[number] = codes[n] >> 22
            lowest, highest = min(lowest, keys[number]), max(highest, keys[number])
            number += 1
    indices = order
    starts = np.empty(2049, np.int64)
    shift = 0
    while number and (highest - lowest) >> shift:
        starts[:] = 0
        for r in range(number):
            starts[((keys[r] - lowest) >> shift & 2047) + 1] += 1
        for d in range(2048):
            starts[d + 1] += starts[d]
        for r in range(number):
            digit = (keys[r] - lowest) >> shift & 2047
            spare_keys[starts[digit]] = keys[r]
            spare[starts[digit]] = indices[r]
            starts[digit] += 1
        keys, spare_keys = spare_keys, keys
        indices, spare = spare, indices
        shift += 11
    if shift // 11 % 2:
        order[:number] = indices[:number]
    return number


@inline
def _block_mask(x, y, k, inverse_a, h, room, top, reach, margin):
    """Which of a tile's 8×8 blocks an ellipse touches, as bits (row by row).

    Args:
        x, y: centre from the tile's corner. k, 1/a, h: its shape. room: 2 ln(255 o), the largest a·u² + h·dy².
        top: dy of its rightmost point. reach: half its height. margin: pixels it is widened by.
    """
    side = load(SIDE, 0)
    low = load(BAND_TOP, 0) - y
    high = lower(low + (BLOCK - 1), splat(reach))
    low = higher(low, splat(-reach))
    # The edges x(dy) are concave: within a band of rows the extreme is the ellipse's own, or at the band's nearer end.
    dy = higher(lower(side * top, high), low)
    zero = splat(np.float32(0.0))
    half_width = root(higher(room - h * dy * dy, zero) * inverse_a)
    outward = side * (x + k * dy) + half_width + margin
    blocks = floor((outward + (BLOCK - 0.5)) * (1 / BLOCK))
    count = lower(higher(side * blocks, zero), splat(np.float32(8.0)))
    return span_bits(select(low <= high, count, load(NO_SPAN, 0)))


@kernel
def sort(
    first, last, keys, radii, records, tiles_x, tiles_y, slot_start,
    order, drawn, splat_start, tile_start, splats, masks, slots,
):  # fmt: skip
    """Lists of splats, nearest first, for every tile of the images first..last.

    A rank is a drawn splat's place in its image's depth order, a slot its (splat, tile) pair in that order.
    slot_start int64 [images + 1] says where an image's pairs begin in the last three outputs.

    Out: order int32 [images, N] (rank → Gaussian), drawn int64 [images] (number of ranks), splat_start int64
    [images, N + 1] (rank → first slot), tile_start int64 [images, tiles + 1] and, from there, splats int32
    (Gaussians), masks uint64 and slots int64 in the order of drawing.
    """
    tiles = tiles_x * tiles_y
    fill = np.empty(tiles, np.int64)
    for i in range(first, last):
        number = _nearest_first(keys[i], radii[i], order[i])
        drawn[i] = number
        base = slot_start[i]
        room_for = slot_start[i + 1] - base
        slot_tile = np.empty(room_for, np.int32)
        slot_splat = np.empty(room_for, np.int32)
        slot_mask = np.empty(room_for, np.uint64)
        tile_start[i] = 0
        slot = 0
        for rank in range(number):
            n = order[i, rank]
            x, y, k = records[i, n, 0], records[i, n, 1], records[i, n, 2]
            a, h = np.float32(16) * records[i, n, 3], np.float32(16) * records[i, n, 4]
            splat_start[i, rank] = slot
            half_width, half_height = records[i, n, 6], records[i, n, 7]
            room = max(np.float32(16) * (LIMIT - records[i, n, 5]), np.float32(0))
            inverse_a = np.float32(1) / a
            margin = np.float32(MARGIN) + np.float32(1e-5) * half_width
            top = k * half_height * (half_height / max(half_width, np.float32(1e-12)))
            reach = half_height + margin
            x0, x1 = _tile_range(x, radii[i, n, 0], tiles_x)
            y0, y1 = _tile_range(y, radii[i, n, 1], tiles_y)
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    mask = _block_mask(
                        np.float32(x - tile_x * TILE), np.float32(y - tile_y * TILE), k, inverse_a, h,
                        room, top, reach, margin,
                    )  # fmt: skip
                    # Always written, kept if not empty: a branch here would often be guessed wrong.
                    tile = tile_y * tiles_x + tile_x
                    put(slot_tile, slot, np.int32(tile))
                    put(slot_splat, slot, n)
                    put(slot_mask, slot, mask)
                    kept = np.int64(mask != np.uint64(0))
                    tile_start[i, tile + 1] += kept
                    slot += kept
        splat_start[i, number] = slot
        tile_start[i, 0] = base
        for tile in range(tiles):
            fill[tile] = tile_start[i, tile]
            tile_start[i, tile + 1] += tile_start[i, tile]
        for j in range(slot):
            tile = slot_tile[j]
            place = fill[tile]
            fill[tile] += 1
            splats[place] = slot_splat[j]
            masks[place] = slot_mask[j]
            slots[place] = base + j


# --- drawing -----------------------------------------------------------------------------------------


@inline
def _falloff(x):
    """exp(-8x), in all lanes."""
    p = P5 * x + P4
    p = p * x + P3
    p = p * x + P2
    p = p * x + P1
    p = p * x + P0
    p = p * p
    p = p * p
    return p * p


@inline
def _accumulate(array, at, weight, value):
    store(array, at, weight * value + load(array, at))


@kernel
def draw(
    first, last, tiles_x, tiles_y, N, tile_start, splats, masks, records, features, padded, background,
    height, width, channels, image, alpha_image, left, stops, tile_stop,
):  # fmt: skip
    """Blend the tiles first..last (counted through all images).

    In: records [images · N · RECORD]; features float32 [images · N · padded], F of them and a 1, padded to a multiple
    of 4; background [images · F].
    Out: image float32 [images · H · W · F]; alpha_image [images · H · W], what the ones blend to: unlike one minus the
    transmittance it keeps its digits where little is covered; left and stops float32 [tiles · PIXELS] in block order:
    the transmittance that is left, and the place in the tile's list at which a pixel was finished; tile_stop int64
    [tiles]: the place at which all were. masks: blocks that were finished earlier are cleared.
    """
    tiles = tiles_x * tiles_y
    # One after the other for each block, as all are touched together: transmittance, features.
    state = np.empty(PIXELS * (1 + padded), np.float32)
    block = LANES * (1 + padded)
    zero = splat(np.float32(0.0))
    one = splat(np.float32(1.0))
    for index in range(first, last):
        i, tile = index // tiles, index % tiles
        tile_x, tile_y = tile % tiles_x * TILE, tile // tiles_x * TILE
        corner_x, corner_y = splat(np.float32(tile_x)), splat(np.float32(tile_y))
        start, end = tile_start[i, tile], tile_start[i, tile + 1]
        place_of_tile = index * PIXELS
        alive = np.uint64(0)
        state[:] = 0
        for b in range(BLOCKS):
            inside = (load(LANE_X, 0) + splat_at(BLOCK_X, b) < np.float32(width - tile_x)) & (
                load(LANE_Y, 0) + splat_at(BLOCK_Y, b) < np.float32(height - tile_y)
            )
            store(state, b * block, select(inside, one, -one))  # negative: finished
            store(stops, place_of_tile + b * LANES, select(inside, splat(np.float32(np.inf)), -one))
            if bits(inside):
                alive |= ONE << np.uint64(b)
        place = start
        while place < end and alive:
            todo = masks[place] & alive
            masks[place] = todo
            if todo:
                n = i * N + splats[place]
                k, a = splat_at(records, n * RECORD + 2), splat_at(records, n * RECORD + 3)
                h, faint = splat_at(records, n * RECORD + 4), splat_at(records, n * RECORD + 5)
                dy_corner = load(LANE_Y, 0) - (splat_at(records, n * RECORD + 1) - corner_y)
                u_corner = load(LANE_X, 0) - (splat_at(records, n * RECORD) - corner_x) - k * dy_corner
                while todo:
                    b = lowest_bit(todo)
                    todo &= todo - ONE
                    block_y = splat_at(BLOCK_Y, b)
                    dy = dy_corner + block_y
                    u = u_corner - k * block_y + splat_at(BLOCK_X, b)
                    x = a * u * u + (h * dy * dy + faint)
                    alpha = select(x <= LIMIT, lower(_falloff(x), splat(ALPHA_MAX)), zero)
                    before = load(state, b * block)
                    after = before - alpha * before
                    open_ = after > TRANSMITTANCE_MIN
                    weight = select(open_, alpha * before, zero)
                    store(state, b * block, select(open_, after, -magnitude(before)))
                    finished = (before > zero) & (after <= TRANSMITTANCE_MIN)
                    if bits(finished):
                        at = place_of_tile + b * LANES
                        store(stops, at, select(finished, splat(np.float32(place - start)), load(stops, at)))
                        if not bits(open_):
                            alive &= ~(ONE << np.uint64(b))
                    at = b * block + LANES
                    for f in range(n * padded, (n + 1) * padded, 4):
                        _accumulate(state, at, weight, splat_at(features, f))
                        _accumulate(state, at + LANES, weight, splat_at(features, f + 1))
                        _accumulate(state, at + 2 * LANES, weight, splat_at(features, f + 2))
                        _accumulate(state, at + 3 * LANES, weight, splat_at(features, f + 3))
                        at += 4 * LANES
            place += 1
        tile_stop[index] = place
        for b in range(BLOCKS):
            remains = magnitude(load(state, b * block))
            store(left, place_of_tile + b * LANES, remains)
            for f in range(channels):
                at = b * block + (1 + f) * LANES
                store(state, at, remains * splat_at(background, i * channels + f) + load(state, at))
            x, y = tile_x + b % 8 * BLOCK, tile_y + b // 8 * BLOCK
            for row in range(min(BLOCK, height - y)):
                pixel = (i * height + y + row) * width + x
                lane = b * block + LANES + row * BLOCK
                for column in range(min(BLOCK, width - x)):
                    for f in range(channels):
                        put(image, (pixel + column) * channels + f, get(state, lane + column + f * LANES))
                    put(alpha_image, pixel + column, get(state, lane + column + channels * LANES))


@kernel
def draw_backward(
    first, last, tiles_x, tiles_y, N, tile_start, splats, masks, slots, records, features, padded, background,
    height, width, channels, left, stops, tile_stop, d_image, d_alpha_image, d_slots,
):  # fmt: skip
    """Gradients of `draw` for the tiles first..last, from back to front.

    In: d_image float32 [images · H · W · F], d_alpha_image [images · H · W].
    Out: d_slots float32 [slots · (MOMENTS + padded)]: moments of w = α·∂L/∂α over the splat's pixels in the tile, and
    the gradient of its features.
    """
    tiles = tiles_x * tiles_y
    # For each block: transmittance, what shows through a pixel times the gradient of its colour, that gradient.
    state = np.empty(PIXELS * (2 + padded), np.float32)
    block = LANES * (2 + padded)
    d_feature = np.empty(padded * LANES, np.float32)
    row_size = MOMENTS + padded
    zero = splat(np.float32(0.0))
    one = splat(np.float32(1.0))
    for index in range(first, last):
        i, tile = index // tiles, index % tiles
        tile_x, tile_y = tile % tiles_x * TILE, tile // tiles_x * TILE
        corner_x, corner_y = splat(np.float32(tile_x)), splat(np.float32(tile_y))
        start, end = tile_start[i, tile], tile_start[i, tile + 1]
        place_of_tile = index * PIXELS
        state[:] = 0
        for b in range(BLOCKS):
            store(state, b * block, load(left, place_of_tile + b * LANES))
            x, y = tile_x + b % 8 * BLOCK, tile_y + b // 8 * BLOCK
            for row in range(min(BLOCK, height - y)):
                pixel = (i * height + y + row) * width + x
                lane = b * block + 2 * LANES + row * BLOCK
                for column in range(min(BLOCK, width - x)):
                    for f in range(channels):
                        put(state, lane + column + f * LANES, get(d_image, (pixel + column) * channels + f))
                    put(state, lane + column + channels * LANES, get(d_alpha_image, pixel + column))
            behind = zero
            for f in range(channels):
                behind = (
                    load(state, b * block + (2 + f) * LANES) * splat_at(background, i * channels + f) + behind
                )
            store(state, b * block + LANES, behind)
        for place in range(tile_stop[index], end):
            for j in range(slots[place] * row_size, (slots[place] + 1) * row_size):
                d_slots[j] = 0
        for place in range(tile_stop[index] - 1, start - 1, -1):
            todo = masks[place]
            slot = slots[place] * row_size
            if not todo:
                for j in range(row_size):
                    d_slots[slot + j] = 0
                continue
            n = i * N + splats[place]
            k, a = splat_at(records, n * RECORD + 2), splat_at(records, n * RECORD + 3)
            h, faint = splat_at(records, n * RECORD + 4), splat_at(records, n * RECORD + 5)
            dy_corner = load(LANE_Y, 0) - (splat_at(records, n * RECORD + 1) - corner_y)
            u_corner = load(LANE_X, 0) - (splat_at(records, n * RECORD) - corner_x) - k * dy_corner
            now = splat(np.float32(place - start))
            w1 = wu = wy = wuu = wuy = wyy = zero
            d_feature[:] = 0
            while todo:
                b = lowest_bit(todo)
                todo &= todo - ONE
                block_y = splat_at(BLOCK_Y, b)
                dy = dy_corner + block_y
                u = u_corner - k * block_y + splat_at(BLOCK_X, b)
                x = a * u * u + (h * dy * dy + faint)
                full = _falloff(x)
                drawn = (x <= LIMIT) & (now < load(stops, place_of_tile + b * LANES))
                alpha = select(drawn, lower(full, splat(ALPHA_MAX)), zero)
                after = load(state, b * block)
                before = select(drawn, after * reciprocal(one - alpha), after)
                store(state, b * block, before)
                weight = alpha * before
                shown = zero
                at = b * block + 2 * LANES
                for f in range(0, padded, 4):
                    d0, d1 = load(state, at), load(state, at + LANES)
                    d2, d3 = load(state, at + 2 * LANES), load(state, at + 3 * LANES)
                    at += 4 * LANES
                    shown = splat_at(features, n * padded + f) * d0 + shown
                    shown = splat_at(features, n * padded + f + 1) * d1 + shown
                    shown = splat_at(features, n * padded + f + 2) * d2 + shown
                    shown = splat_at(features, n * padded + f + 3) * d3 + shown
                    to = f * LANES
                    _accumulate(d_feature, to, weight, d0)
                    _accumulate(d_feature, to + LANES, weight, d1)
                    _accumulate(d_feature, to + 2 * LANES, weight, d2)
                    _accumulate(d_feature, to + 3 * LANES, weight, d3)
                behind = load(state, b * block + LANES)
                step = shown - behind
                store(state, b * block + LANES, alpha * step + behind)
                w = select(full <= ALPHA_MAX, weight * step, zero)
                w1 = w1 + w
                w_u, w_y = w * u, w * dy
                wu = wu + w_u
                wy = wy + w_y
                wuu = w_u * u + wuu
                wuy = w_u * dy + wuy
                wyy = w_y * dy + wyy
            d_slots[slot], d_slots[slot + 1], d_slots[slot + 2] = total(w1), total(wu), total(wy)
            d_slots[slot + 3], d_slots[slot + 4], d_slots[slot + 5] = total(wuu), total(wuy), total(wyy)
            for f in range(channels):
                d_slots[slot + MOMENTS + f] = total(load(d_feature, f * LANES))


@kernel
def gather(
    first, last, ellipses, opacities, order, drawn, splat_start, slot_start, d_slots,
    d_means2d, d_ellipses, d_opacities, d_features,
):  # fmt: skip
    """Sum the slots of every splat of the images first..last and turn moments into gradients.

    Out, zero where nothing is drawn: d_means2d [images, N, 2], d_ellipses [images, N, 3], d_opacities [images, N],
    d_features [images, N, F].
    """
    width = d_slots.shape[1]
    channels = d_features.shape[2]
    sums = np.empty(width, np.float64)
    for i in range(first, last):
        d_means2d[i] = 0
        d_ellipses[i] = 0
        d_opacities[i] = 0
        d_features[i] = 0
        for rank in range(drawn[i]):
            sums[:] = 0
            for slot in range(splat_start[i, rank], splat_start[i, rank + 1]):
                for j in range(width):
                    sums[j] += d_slots[slot_start[i] + slot, j]
            n = order[i, rank]
            a, k, h = (
                np.float64(ellipses[i, n, 0]),
                np.float64(ellipses[i, n, 1]),
                np.float64(ellipses[i, n, 2]),
            )
            d_means2d[i, n, 0] = a * sums[1]
            d_means2d[i, n, 1] = h * sums[2] - k * a * sums[1]
            d_ellipses[i, n, 0] = -0.5 * sums[3]
            d_ellipses[i, n, 1] = a * sums[4]
            d_ellipses[i, n, 2] = -0.5 * sums[5]
            d_opacities[i, n] = sums[0] / opacities[i, n]
            for f in range(channels):
                d_features[i, n, f] = sums[MOMENTS + f]
