"""The numba kernels of the CPU back end: projection, depth sorting, compositing, and their derivatives.

Method: EWA splatting (Zwicker et al. 2001, "EWA Volume Splatting") as used by 3D Gaussian splatting (Kerbl et al. 2023,
§4-6; Σ = M·Mᵀ and Σ' are its eq. 6 and 5), with the conventions and thresholds of gsplat 1.5 (Ye et al. 2024, whose
report derives the same gradients). `reference.py` is the readable definition; the tests compare the two.

Symbols, used in the comments below
    μ, R, s, o      mean, rotation matrix, scales and opacity of a Gaussian; M = R·diag(s), covariance Σ = M·Mᵀ
    W, t            rotation and translation of a world-to-camera matrix; c = W·μ + t is the centre in camera space
    J               2×3 Jacobian of the perspective projection at c: rows (fx/z, 0, -fx·x/z²) and (0, fy/z, -fy·y/z²)
    p, q            the two rows of J·W·M, so that the 2D covariance Σ' = J·W·Σ·Wᵀ·Jᵀ has the entries
                    xx = p·p + ε, xy = p·q, yy = q·q + ε  (ε is the blur `eps2d`)
    x', y'          projected centre in pixels; dx, dy is the offset of a pixel centre from it
    σ, α            σ = ½ (dx, dy)·Σ'⁻¹·(dx, dy)ᵀ and α = min(0.999, o·exp(-σ))
    T               transmittance: T_i = Π_{j<i} (1 - α_j), Gaussians in order of depth
    f               blended features (colours, normals, depth, and a constant 1 whose blend is alpha)
    L, g, d_v       the loss; g = ∂L/∂(blended features of a pixel); d_v = ∂L/∂v for any variable v

Ellipses. Σ'⁻¹ is stored as (a, k, h) after completing the square: with u = dx - k·dy,

    σ = ½ (a·u² + h·dy²),   a = yy/det Σ',   k = xy/yy,   h = 1/yy.

Both terms are positive, so thin ellipses lose no digits to cancellation, unlike in A·dx² + 2B·dx·dy + C·dy².

Tiles. An image is divided into tiles of 32×32 pixels, and a tile into 8×8 blocks of 4×4 pixels: one vector of 16 lanes.
The blocks of a tile that a splat touches are one 64-bit mask, computed from the exact outline of the ellipse α = 1/255.
Compositing visits the splats of a tile from front to back and, for each, the set bits of its mask. When all pixels of
a block are finished, its bit is cleared from the masks that follow, so the backward pass visits exactly the
(splat, block) pairs that were composited.

Determinism. Threads never add to the same memory: each (splat, tile) pair has its own slot for gradients, and slots are
summed in a fixed order. Results are bit-identical for any number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from renderers import simd
from renderers.gaussians import layout
from renderers.gaussians.layout import BLOCK, BLOCKS, CHUNK, FAR, MOMENTS, NEAR, PIXELS, RECORD, TILE
from renderers.kernel_cache import announce_compilation, compiler
from renderers.simd import (
    LANES,
    WIDE_LANES,
    absolute,
    broadcast,
    broadcast_at,
    ceil,
    floor,
    get,
    lane_sum,
    load,
    logarithm,
    lowest_bit,
    mask_bits,
    maximum,
    minimum,
    put,
    reciprocal,
    select,
    span_bits,
    sqrt,
    store,
    wide_column,
)

ALPHA_MIN, LOG_255 = 1.0 / 255.0, math.log(255.0)
ALPHA_MAX = np.float32(0.999)
TRANSMITTANCE_MIN = np.float32(1e-4)
RADIUS_SIGMAS = 3.33  # beyond 3.33 standard deviations even o = 1 gives α < 1/255
FLATTEST, FARTHEST = (
    1e-30,
    1e9,
)  # smallest a and h, largest |x'| and |y'| (pixels): float32 would overflow beyond
MARGIN = 0.01  # pixels added to outlines against rounding; `draw` tests every pixel exactly

# With X = (σ - ln o)/8, α = exp(-8X) = P(X)⁸ on 0 <= X <= LIMIT = ln(255)/8, where P approximates exp(-X): the minimax
# polynomial of degree 5 (Remez), relative error 7.5e-8. X <= LIMIT is the test α >= 1/255.
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
# Lanes 0-7 are the eight rows of blocks in a tile, for the right end (SIDE 1) of the span of blocks that an ellipse
# touches; lanes 8-15 are the same rows for the left end (SIDE -1). BAND_TOP is the y of the first pixel centres of a
# row of blocks.
BAND_TOP = (_LANE % 8 * BLOCK + 0.5).astype(np.float32)
SIDE = np.where(_LANE < 8, 1, -1).astype(np.float32)
NO_SPAN = np.zeros(LANES, np.float32)
WIDE_LANE = np.arange(WIDE_LANES, dtype=np.float64)

ONE = np.uint64(1)


SOURCES = (__file__, layout.__file__, simd.__file__)
kernel = compiler(SOURCES)

announce_compilation(__name__, "splats: compiling the CPU kernels for this machine, once (about 5 s) …")
# Inlined before type inference: a function of its own would be compiled to machine code that nothing calls.
inline = njit(error_model="numpy", inline="always")


# --- projection: eight Gaussians per vector, in float64 ---------------------------------------------


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
    """Row vector times 3×3 matrix."""
    return (
        _dot(vector, _column(matrix, 0)),
        _dot(vector, _column(matrix, 1)),
        _dot(vector, _column(matrix, 2)),
    )


@inline
def _load_vec3(array, first, count):
    """Load rows first..first + count - 1 of an [n, 3] array as three vectors of lanes."""
    return (
        wide_column(array, 3 * first, 3, count),
        wide_column(array, 3 * first + 1, 3, count),
        wide_column(array, 3 * first + 2, 3, count),
    )


@inline
def _rotation(quats, first, count):
    """Load quaternions wxyz from row `first` on; return R (row by row), the unit quaternions and 1 / length."""
    w, x, y, z = (
        wide_column(quats, 4 * first, 4, count),
        wide_column(quats, 4 * first + 1, 4, count),
        wide_column(quats, 4 * first + 2, 4, count),
        wide_column(quats, 4 * first + 3, 4, count),
    )
    inverse = 1.0 / sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    R = (
        1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
    )  # fmt: skip
    return R, (w, x, y, z), inverse


@inline
def _scaled(R, scale):
    """M = R·diag(s), row by row: its columns are the axes of the Gaussian."""
    return (
        R[0] * scale[0], R[1] * scale[1], R[2] * scale[2],
        R[3] * scale[0], R[4] * scale[1], R[5] * scale[2],
        R[6] * scale[0], R[7] * scale[1], R[8] * scale[2],
    )  # fmt: skip


@inline
def _entry(array, index):
    return broadcast(np.float64(get(array, index)))


@inline
def _load_camera(viewmats, Ks, i):
    """Load W, t and (fx, fy, cx, cy) of camera i, each copied to all lanes."""
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
    """Clamp x/z (or y/z) to 15 % of the image size outside the image; also return where it is unclamped.

    The local affine approximation of EWA splatting degenerates for points far outside the view frustum, so J is
    evaluated at the clamped tangent, as in 3DGS and gsplat.
    """
    border = 0.15 * size / focal
    low, high = -centre / focal - border, (size - centre) / focal + border
    return minimum(maximum(ratio, low), high), (ratio >= low) & (ratio <= high)


@inline
def _project_eight(W, t, pinhole, mean, axes, width, height, eps2d):
    """Project eight Gaussians into one camera: the part shared by `project` and `project_backward`.

    Returns:
        in_range: mask, depth between the clipping planes.
        c, inverse: the centre in camera space (depth 1 where out of range) and 1 / z.
        tan_x, free_x, tan_y, free_y: tangents x/z and y/z, clamped, and masks of where they are not clamped.
        a0, a1: the rows of J·W. With gx = fx/z: a0 = gx·(W₀ - tan_x·W₂), and likewise a1, where W_i is row i of W.
        p, q, normal: the rows of J·W·M and their cross product p × q.
        det0, det: det Σ' without and with the blur ε.
        xx, yy: the diagonal of Σ' with the blur.
    """
    fx, fy, cx, cy = pinhole
    one = broadcast(1.0)
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
    # Lagrange's identity (Cauchy-Binet): det(Σ' - ε·I) = |p|²|q|² - (p·q)² = |p × q|², without the cancellation of
    # xx·yy - xy². Adding ε to the diagonal: det = |p × q|² + ε·(|p|² + |q|²) + ε².
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
    """Project Gaussians first..last of every scene into every camera.

    All arrays are flat; their logical shapes are given here.

    Args:
        means, quats, scales, opacities: inputs, float32 [S or 1, N, …].
        shared: four flags, whether each of these fields has one scene for all.
        viewmats, Ks: inputs, float32 [S·C, 4, 4] and [S·C, 3, 3].
        means2d: output, float32 [S·C, N, 2].
        ellipses: output, float32 [S·C, N, 3]: (a, k, h).
        depths, keys: outputs, [S·C, N]: depth as float32, and as float64 for sorting.
        opacities2d: output, float32 [S·C, N], after antialiasing.
        radii: output, int32 [S·C, N, 2]: half extent of the outline α = 1/255 (at most 3.33 standard deviations),
            rounded up.
        records: output, float32 [S·C, N, RECORD].
    All outputs but the depths are 0 for culled Gaussians.
    """
    buffer = np.empty(12 * WIDE_LANES, np.float64)
    zero, one = broadcast(0.0), broadcast(1.0)
    for i in range(len(viewmats) // 16):
        s = i // cameras
        W, t, pinhole = _load_camera(viewmats, Ks, i)
        for n in range(first, last, WIDE_LANES):
            count = min(WIDE_LANES, last - n)
            mean = _load_vec3(means, n + (0 if shared[0] else s * N), count)
            R, _, _ = _rotation(quats, n + (0 if shared[1] else s * N), count)
            scale = _load_vec3(scales, n + (0 if shared[2] else s * N), count)
            in_range, c, inverse, _, _, _, _, _, _, p, q, _, det0, det, xx, yy = _project_eight(
                W, t, pinhole, mean, _scaled(R, scale), width, height, eps2d
            )
            opacity = wide_column(opacities, n + (0 if shared[3] else s * N), 1, count)
            solid = det > zero
            det = select(solid, det, one)
            if antialiased:  # the 2D Mip filter of Yu et al. 2023: o·√(det0 / det)
                opacity = opacity * sqrt(det0 / det)
            x, y = pinhole[0] * c[0] * inverse + pinhole[2], pinhole[1] * c[1] * inverse + pinhole[3]
            log_opacity = logarithm(maximum(opacity, broadcast(1e-30)))
            # α = 1/255 where σ = ln(255·o): an ellipse of r = √(2σ) standard deviations, half extents r·√xx and r·√yy.
            squared = minimum(
                maximum(2.0 * (log_opacity + LOG_255), zero), broadcast(RADIUS_SIGMAS * RADIUS_SIGMAS)
            )
            half_width, half_height = sqrt(squared * xx), sqrt(squared * yy)
            rx, ry = ceil(half_width), ceil(half_height)
            drawn = in_range & solid & (opacity >= ALPHA_MIN)
            drawn = drawn & (x + rx > zero) & (x - rx < width) & (y + ry > zero) & (y - ry < height)
            drawn = drawn & (absolute(x) < FARTHEST) & (absolute(y) < FARTHEST)
            # The ellipse (a, k, h) of the module docstring.
            inverse_yy = one / select(yy > zero, yy, one)
            a, h = maximum(yy / det, broadcast(FLATTEST)), maximum(inverse_yy, broadcast(FLATTEST))
            store(buffer, 0 * WIDE_LANES, select(drawn, x, zero))
            store(buffer, 1 * WIDE_LANES, select(drawn, y, zero))
            store(buffer, 2 * WIDE_LANES, select(drawn, a, zero))
            store(buffer, 3 * WIDE_LANES, select(drawn, _dot(p, q) * inverse_yy, zero))
            store(buffer, 4 * WIDE_LANES, select(drawn, h, zero))
            store(buffer, 5 * WIDE_LANES, select(drawn, opacity, zero))
            store(buffer, 6 * WIDE_LANES, select(drawn, minimum(rx, broadcast(2e9)), zero))
            store(buffer, 7 * WIDE_LANES, select(drawn, minimum(ry, broadcast(2e9)), zero))
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
    """Backward pass of `project` for the chunks first..last of CHUNK Gaussians.

    The chain rule is followed from the outputs to the inputs: (a, k, h) → (xx, xy, yy, det) → (p, q) → (M, J·W) →
    (s, R, c, W) → (quaternion, μ, t). Comments give each step in the symbols of the module docstring. All arrays are
    flat.

    Args:
        opacities2d: output of `project`; 0 marks culled Gaussians.
        d_means2d, d_ellipses, d_depths, d_opacities2d: gradients of the outputs of `project`.
        d_means, d_quats, d_scales, d_opacities: outputs, float32 [S or 1, N, …], added to; a shared field receives the
            sum over scenes.
        d_views: output, float64 [chunks, S·C, 3, 4], added to: each chunk's part of ∂L/∂[W | t]. Empty if the cameras
            need no gradient.
    """
    images = len(viewmats) // 16
    buffer = np.empty(11 * WIDE_LANES, np.float64)
    zero, one = broadcast(0.0), broadcast(1.0)
    for n in range(first * CHUNK, min(last * CHUNK, N), WIDE_LANES):
        chunk, count = n // CHUNK, min(WIDE_LANES, N - n)
        present = load(WIDE_LANE, 0) < np.float64(count)
        for s in range(images // cameras):
            n_mean, n_quat = n + (0 if shared[0] else s * N), n + (0 if shared[1] else s * N)
            n_scale, n_opacity = n + (0 if shared[2] else s * N), n + (0 if shared[3] else s * N)
            mean, scale = _load_vec3(means, n_mean, count), _load_vec3(scales, n_scale, count)
            R, (w, x, y, z), inverse_length = _rotation(quats, n_quat, count)
            axes = _scaled(R, scale)
            opacity = wide_column(opacities, n_opacity, 1, count)
            m0 = m1 = m2 = d_opacity = zero  # m = ∂L/∂μ
            g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = zero  # g = ∂L/∂M, row by row
            for i in range(s * cameras, (s + 1) * cameras):
                at = i * N + n
                W, t, pinhole = _load_camera(viewmats, Ks, i)
                drawn = present & (wide_column(opacities2d, at, 1, count) > zero)
                e0 = e1 = (
                    zero  # e = ∂L/∂c, the centre in camera space; e2 starts with the gradient of the depth
                )
                e2 = select(present, wide_column(d_depths, at, 1, count), zero)
                if mask_bits(drawn):
                    _, c, inverse, tan_x, free_x, tan_y, free_y, a0, a1, p, q, normal, det0, det, _, yy = (
                        _project_eight(W, t, pinhole, mean, axes, width, height, eps2d)
                    )
                    det, yy = select(drawn, det, one), select(drawn, yy, one)
                    inverse_det, h = one / det, one / yy
                    a, k = yy * inverse_det, _dot(p, q) * h
                    da, dk, dh = _load_vec3(d_ellipses, at, count)
                    da, dk, dh = select(drawn, da, zero), select(drawn, dk, zero), select(drawn, dh, zero)
                    # a = yy/det, k = xy/yy, h = 1/yy, hence ∂a/∂yy = 1/det, ∂a/∂det = -a/det, ∂k/∂xy = h,
                    # ∂k/∂yy = -k·h, ∂h/∂yy = -h².
                    d_yy = da * inverse_det - (dk * k + dh * h) * h
                    d_xy = dk * h
                    d_det = -da * a * inverse_det
                    d_det0 = zero
                    d_alpha = select(drawn, wide_column(d_opacities2d, at, 1, count), zero)
                    if antialiased:
                        # o' = o·ρ with ρ = √(det0/det): ∂ρ/∂det0 = 1/(2·ρ·det), ∂ρ/∂det = -ρ/(2·det).
                        compensation = sqrt(det0 * inverse_det)
                        change = 0.5 * d_alpha * opacity * inverse_det
                        d_alpha = d_alpha * compensation
                        positive = compensation > zero
                        d_det0 = select(positive, change / select(positive, compensation, one), zero)
                        d_det = d_det - change * compensation
                    d_opacity = d_opacity + d_alpha
                    # det = det0 + ε·(p·p + q·q) + ε², det0 = |n|² with n = p × q, xx = p·p + ε, xy = p·q, yy = q·q + ε:
                    # ∂det0/∂p = 2·q × n, ∂det0/∂q = 2·n × p, ∂xy/∂p = q, ∂xy/∂q = p, ∂yy/∂q = 2·q. From here on
                    # d_det0, d_xx and d_yy are the factors of q × n, p and q.
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
                    # p = a0·M, q = a1·M (row vectors): ∂L/∂M_ij = a0_i·dp_j + a1_i·dq_j.
                    g00 = a0[0] * dp[0] + a1[0] * dq[0] + g00
                    g01 = a0[0] * dp[1] + a1[0] * dq[1] + g01
                    g02 = a0[0] * dp[2] + a1[0] * dq[2] + g02
                    g10 = a0[1] * dp[0] + a1[1] * dq[0] + g10
                    g11 = a0[1] * dp[1] + a1[1] * dq[1] + g11
                    g12 = a0[1] * dp[2] + a1[1] * dq[2] + g12
                    g20 = a0[2] * dp[0] + a1[2] * dq[0] + g20
                    g21 = a0[2] * dp[1] + a1[2] * dq[1] + g21
                    g22 = a0[2] * dp[2] + a1[2] * dq[2] + g22
                    # ∂L/∂a0 = M·dp, ∂L/∂a1 = M·dq.
                    da0 = _dot(_row(axes, 0), dp), _dot(_row(axes, 1), dp), _dot(_row(axes, 2), dp)
                    da1 = _dot(_row(axes, 0), dq), _dot(_row(axes, 1), dq), _dot(_row(axes, 2), dq)
                    gx, gy = pinhole[0] * inverse, pinhole[1] * inverse
                    # a0 = gx·(W₀ - tan_x·W₂), a1 = gy·(W₁ - tan_y·W₂); clamped tangents are constants.
                    d_tan_x = select(free_x, -gx * _dot(da0, _row(W, 2)), zero)
                    d_tan_y = select(free_y, -gy * _dot(da1, _row(W, 2)), zero)
                    d_x = gx * select(drawn, wide_column(d_means2d, 2 * at, 2, count), zero)
                    d_y = gy * select(drawn, wide_column(d_means2d, 2 * at + 1, 2, count), zero)
                    # x' = fx·x/z + cx, tan_x = x/z, gx = fx/z; each is proportional to 1/z, and ∂(1/z)/∂z = -(1/z)²:
                    # d_x is ∂L/∂x', times fx/z.
                    e0 = d_x + d_tan_x * inverse
                    e1 = d_y + d_tan_y * inverse
                    e2 = e2 - inverse * (
                        _dot(da0, a0) + _dot(da1, a1) + d_x * c[0] + d_y * c[1]
                        + d_tan_x * tan_x + d_tan_y * tan_y
                    )  # fmt: skip
                    if len(d_views):  # ∂L/∂W through a0 and a1
                        view = (chunk * images + i) * 12
                        for j in range(3):
                            x_share, y_share = gx * da0[j], gy * da1[j]
                            d_views[view + j] += lane_sum(x_share)
                            d_views[view + 4 + j] += lane_sum(y_share)
                            d_views[view + 8 + j] -= lane_sum(x_share * tan_x + y_share * tan_y)
                # c = W·μ + t: ∂L/∂μ = Wᵀ·e, ∂L/∂W = e·μᵀ, ∂L/∂t = e.
                m0 = W[0] * e0 + W[3] * e1 + W[6] * e2 + m0
                m1 = W[1] * e0 + W[4] * e1 + W[7] * e2 + m1
                m2 = W[2] * e0 + W[5] * e1 + W[8] * e2 + m2
                if len(d_views):
                    view = (chunk * images + i) * 12
                    for j in range(3):
                        d_views[view + j] += lane_sum(e0 * mean[j])
                        d_views[view + 4 + j] += lane_sum(e1 * mean[j])
                        d_views[view + 8 + j] += lane_sum(e2 * mean[j])
                    d_views[view + 3] += lane_sum(e0)
                    d_views[view + 7] += lane_sum(e1)
                    d_views[view + 11] += lane_sum(e2)
            store(buffer, 0 * WIDE_LANES, m0)
            store(buffer, 1 * WIDE_LANES, m1)
            store(buffer, 2 * WIDE_LANES, m2)
            # M_ij = R_ij·s_j: ∂L/∂s_j = Σ_i R_ij·g_ij and ∂L/∂R_ij = g_ij·s_j.
            store(buffer, 3 * WIDE_LANES, R[0] * g00 + R[3] * g10 + R[6] * g20)
            store(buffer, 4 * WIDE_LANES, R[1] * g01 + R[4] * g11 + R[7] * g21)
            store(buffer, 5 * WIDE_LANES, R[2] * g02 + R[5] * g12 + R[8] * g22)
            g00, g10, g20 = g00 * scale[0], g10 * scale[0], g20 * scale[0]  # now g = ∂L/∂R
            g01, g11, g21 = g01 * scale[1], g11 * scale[1], g21 * scale[1]
            g02, g12, g22 = g02 * scale[2], g12 * scale[2], g22 * scale[2]
            # Half of ∂L/∂(unit quaternion), from R(w, x, y, z) in _rotation, e.g. ∂R/∂w = 2·[0 -z y; z 0 -x; -y x 0].
            dw = x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01)
            dx = w * (g21 - g12) - 2.0 * x * (g11 + g22) + y * (g01 + g10) + z * (g02 + g20)
            dy = w * (g02 - g20) + x * (g01 + g10) - 2.0 * y * (g00 + g22) + z * (g12 + g21)
            dz = w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - 2.0 * z * (g00 + g11)
            # Normalisation q̂ = q/|q|: ∂L/∂q = (I - q̂·q̂ᵀ)·∂L/∂q̂ / |q|.
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


# --- tile lists: which splat touches which blocks, front to back ------------------------------------


@inline
def _tile_range(centre, radius, tiles):
    """Return the first tile and one past the last tile that the interval centre ± radius touches."""
    first = max(math.floor((centre - radius) / TILE), 0.0)
    last = min(math.floor((centre + radius) / TILE) + 1.0, np.float64(tiles))
    return np.int64(first), np.int64(max(first, last))


@kernel
def count_slots(first, last, means2d, radii, tiles_x, tiles_y, slots):
    """Write to slots (int64 [images]) an upper bound of the number of (splat, tile) pairs of images first..last."""
    for i in range(first, last):
        number = 0
        for n in range(means2d.shape[1]):
            if radii[i, n, 0] > 0:
                x0, x1 = _tile_range(means2d[i, n, 0], radii[i, n, 0], tiles_x)
                y0, y1 = _tile_range(means2d[i, n, 1], radii[i, n, 1], tiles_y)
                number += (x1 - x0) * (y1 - y0)
        slots[i] = number


@inline
def _sort_by_depth(depths, radii, order):
    """Write the indices of the visible Gaussians of one image to `order`, nearest first; return their number.

    A stable radix sort (11 bits per pass) on the float64 depths, of which 30 bits of mantissa are kept: far fewer false
    ties than with float32. Positive IEEE floats are ordered like their bit patterns. Ties are ordered by index.
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
        for d in range(2049):
            starts[d] = 0
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
        for r in range(number):
            order[r] = indices[r]
    return number


@inline
def _block_mask(x, y, k, inverse_a, h, max_square, top, reach, margin):
    """Return which of a tile's 8×8 blocks an ellipse touches: bit 8·row + column.

    Args:
        x, y: centre relative to the tile's corner, pixels.
        k, inverse_a, h: the ellipse; inverse_a = 1/a.
        max_square: 2·ln(255·o), the value of a·u² + h·dy² on the outline α = 1/255.
        top: dy of the outline's rightmost point; -top is that of the leftmost.
        reach: half height of the outline plus the margin.
        margin: pixels added to the outline against rounding.
    """
    side = load(SIDE, 0)
    low = load(BAND_TOP, 0) - y
    high = minimum(low + (BLOCK - 1), broadcast(reach))
    low = maximum(low, broadcast(-reach))
    # The right edge is x + k·dy + √((max_square - h·dy²)/a), a concave function of dy: its maximum over a row of blocks
    # is at the outline's rightmost point, or at the end of the row nearer to it. The left edge is its mirror image.
    dy = maximum(minimum(side * top, high), low)
    zero = broadcast(np.float32(0.0))
    half_width = sqrt(maximum(max_square - h * dy * dy, zero) * inverse_a)
    outward = side * (x + k * dy) + half_width + margin
    blocks = floor((outward + (BLOCK - 0.5)) * (1 / BLOCK))
    count = minimum(maximum(side * blocks, zero), broadcast(np.float32(8.0)))
    return span_bits(select(low <= high, count, load(NO_SPAN, 0)))


@kernel
def sort(
    first, last, keys, radii, records, tiles_x, tiles_y, slot_start,
    order, drawn, splat_start, tile_start, splats, masks, slots,
):  # fmt: skip
    """Build, for every tile of images first..last, the list of splats that touch it, nearest first.

    A rank is the position of a visible splat in the depth order of its image. A slot is the index of a (splat, tile)
    pair, counted in order of rank; gradients are stored per slot.

    Args:
        keys, radii, records: outputs of `project`, [images, N, …].
        slot_start: int64 [images + 1], where the pairs of an image begin in splats, masks and slots.
        order: output, int32 [images, N]: rank → index of the Gaussian.
        drawn: output, int64 [images]: number of ranks.
        splat_start: output, int64 [images, N + 1]: rank → its first slot.
        tile_start: output, int64 [images, tiles + 1]: where the list of a tile begins in the next three.
        splats: output, int32: indices of Gaussians, front to back within a tile.
        masks: output, uint64: the blocks that each of them touches.
        slots: output, int64: the slot of each pair.
    """
    tiles = tiles_x * tiles_y
    fill = np.empty(tiles, np.int64)
    for i in range(first, last):
        number = _sort_by_depth(keys[i], radii[i], order[i])
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
            max_square = max(np.float32(16) * (LIMIT - records[i, n, 5]), np.float32(0))
            inverse_a = np.float32(1) / a
            margin = np.float32(MARGIN) + np.float32(1e-5) * half_width
            # dy = r·xy/√xx at the rightmost point, with half_width = r·√xx and half_height = r·√yy.
            top = k * half_height * (half_height / max(half_width, np.float32(1e-12)))
            reach = half_height + margin
            x0, x1 = _tile_range(x, radii[i, n, 0], tiles_x)
            y0, y1 = _tile_range(y, radii[i, n, 1], tiles_y)
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    mask = _block_mask(
                        np.float32(x - tile_x * TILE), np.float32(y - tile_y * TILE), k, inverse_a, h,
                        max_square, top, reach, margin,
                    )  # fmt: skip
                    # Written unconditionally and overwritten by the next pair if the mask is empty: a branch would be
                    # mispredicted often.
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


# --- compositing -------------------------------------------------------------------------------------


@inline
def _falloff(x):
    """exp(-8·x), by the polynomial above."""
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
    """Composite the tiles first..last, counted through all images, front to back (Kerbl et al. 2023, eq. 3).

    For every pixel: C = Σ_i T_i·α_i·f_i + T_final·background, T_{i+1} = T_i·(1 - α_i). The Gaussian that would bring T
    to 1e-4 or below is not composited, nor is anything behind it.

    Args:
        records: float32 [images · N · RECORD].
        features: float32 [images · N · padded]: F channels, a constant 1, and zeros up to a multiple of 4.
        background: float32 [images · F].
        masks: blocks that are finished are cleared.
        image: output, float32 [images · H · W · F].
        alpha_image: output, float32 [images · H · W]: the blend of the constant 1. Unlike 1 - T_final it keeps its
            precision where coverage is small.
        left: output, float32 [tiles · PIXELS] in block order: T_final.
        stops: output, float32 [tiles · PIXELS] in block order: the position in the tile's list at which a pixel was
            finished; infinity if it was not, -1 outside the image.
        tile_stop: output, int64 [tiles]: the position at which all pixels of a tile were finished, or the list's end.
    """
    tiles = tiles_x * tiles_y
    # Per block: T, then the blended features, adjacent in memory because they are used together. T < 0 marks finished
    # pixels; its magnitude is T_final.
    state = np.empty(PIXELS * (1 + padded), np.float32)
    block = LANES * (1 + padded)
    zero = broadcast(np.float32(0.0))
    one = broadcast(np.float32(1.0))
    for index in range(first, last):
        i, tile = index // tiles, index % tiles
        tile_x, tile_y = tile % tiles_x * TILE, tile // tiles_x * TILE
        corner_x, corner_y = broadcast(np.float32(tile_x)), broadcast(np.float32(tile_y))
        start, end = tile_start[i, tile], tile_start[i, tile + 1]
        place_of_tile = index * PIXELS
        alive = np.uint64(0)
        for at in range(len(state)):
            state[at] = 0
        for b in range(BLOCKS):
            inside = (load(LANE_X, 0) + broadcast_at(BLOCK_X, b) < np.float32(width - tile_x)) & (
                load(LANE_Y, 0) + broadcast_at(BLOCK_Y, b) < np.float32(height - tile_y)
            )
            store(state, b * block, select(inside, one, -one))
            store(stops, place_of_tile + b * LANES, select(inside, broadcast(np.float32(np.inf)), -one))
            if mask_bits(inside):
                alive |= ONE << np.uint64(b)
        place = start
        while place < end and alive:
            todo = masks[place] & alive
            masks[place] = todo
            if todo:
                n = i * N + splats[place]
                k, a = broadcast_at(records, n * RECORD + 2), broadcast_at(records, n * RECORD + 3)
                h, faint = broadcast_at(records, n * RECORD + 4), broadcast_at(records, n * RECORD + 5)
                dy_corner = load(LANE_Y, 0) - (broadcast_at(records, n * RECORD + 1) - corner_y)
                u_corner = load(LANE_X, 0) - (broadcast_at(records, n * RECORD) - corner_x) - k * dy_corner
                while todo:
                    b = lowest_bit(todo)
                    todo &= todo - ONE
                    block_y = broadcast_at(BLOCK_Y, b)
                    dy = dy_corner + block_y
                    u = u_corner - k * block_y + broadcast_at(BLOCK_X, b)
                    x = a * u * u + (
                        h * dy * dy + faint
                    )  # (σ - ln o)/8; the record holds a/16, h/16, -ln(o)/8
                    alpha = select(x <= LIMIT, minimum(_falloff(x), broadcast(ALPHA_MAX)), zero)
                    before = load(state, b * block)  # T_i
                    after = before - alpha * before  # T_i·(1 - α_i)
                    open_ = after > TRANSMITTANCE_MIN
                    weight = select(open_, alpha * before, zero)
                    store(state, b * block, select(open_, after, -absolute(before)))
                    finished = (before > zero) & (after <= TRANSMITTANCE_MIN)
                    if mask_bits(finished):
                        at = place_of_tile + b * LANES
                        store(
                            stops, at, select(finished, broadcast(np.float32(place - start)), load(stops, at))
                        )
                        if not mask_bits(open_):
                            alive &= ~(ONE << np.uint64(b))
                    at = b * block + LANES
                    for f in range(n * padded, (n + 1) * padded, 4):
                        _accumulate(state, at, weight, broadcast_at(features, f))
                        _accumulate(state, at + LANES, weight, broadcast_at(features, f + 1))
                        _accumulate(state, at + 2 * LANES, weight, broadcast_at(features, f + 2))
                        _accumulate(state, at + 3 * LANES, weight, broadcast_at(features, f + 3))
                        at += 4 * LANES
            place += 1
        tile_stop[index] = place
        for b in range(BLOCKS):
            remains = absolute(load(state, b * block))
            store(left, place_of_tile + b * LANES, remains)
            for f in range(channels):
                at = b * block + (1 + f) * LANES
                store(state, at, remains * broadcast_at(background, i * channels + f) + load(state, at))
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
    """Backward pass of `draw` for the tiles first..last, back to front.

    Let g be the gradient of a pixel's blended features, and B_i what is seen behind Gaussian i, as a fraction of
    T_{i+1}, projected on g:

        B_i = Σ_{j>i} (T_j/T_{i+1})·α_j·(f_j·g) + (T_final/T_{i+1})·(background·g).

    Then C = … + T_i·(α_i·f_i + (1 - α_i)·(what is behind)) gives

        ∂L/∂f_i = T_i·α_i·g,                      ∂L/∂α_i = T_i·(f_i·g - B_i),
        B_{i-1} = α_i·(f_i·g) + (1 - α_i)·B_i,    T_i = T_{i+1}/(1 - α_i).

    So one scalar per pixel (B) is carried instead of a colour. As α = o·exp(-σ), with w_i = α_i·∂L/∂α_i:

        ∂L/∂o = Σw/o,   ∂L/∂σ = -w,   σ = ½ (a·u² + h·dy²),   u = dx - k·dy,

    so the gradients of o, x', y', a, k and h are linear in the sums over pixels Σw, Σw·u, Σw·dy, Σw·u², Σw·u·dy and
    Σw·dy² (MOMENTS); `gather` evaluates them. Where α is clamped to 0.999, w = 0.

    Args:
        d_image: float32 [images · H · W · F]. d_alpha_image: float32 [images · H · W].
        d_slots: output, float32 [slots · (MOMENTS + padded)]: per (splat, tile) pair the MOMENTS and ∂L/∂f.
    """
    tiles = tiles_x * tiles_y
    # Per block: T, B, and g (the gradients of the F channels, then that of alpha).
    state = np.empty(PIXELS * (2 + padded), np.float32)
    block = LANES * (2 + padded)
    d_feature = np.empty(padded * LANES, np.float32)
    row_size = MOMENTS + padded
    zero = broadcast(np.float32(0.0))
    one = broadcast(np.float32(1.0))
    for index in range(first, last):
        i, tile = index // tiles, index % tiles
        tile_x, tile_y = tile % tiles_x * TILE, tile // tiles_x * TILE
        corner_x, corner_y = broadcast(np.float32(tile_x)), broadcast(np.float32(tile_y))
        start, end = tile_start[i, tile], tile_start[i, tile + 1]
        place_of_tile = index * PIXELS
        for at in range(len(state)):
            state[at] = 0
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
            behind = zero  # B of the last Gaussian: background·g; alpha has no background
            for f in range(channels):
                behind = (
                    load(state, b * block + (2 + f) * LANES) * broadcast_at(background, i * channels + f)
                    + behind
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
            k, a = broadcast_at(records, n * RECORD + 2), broadcast_at(records, n * RECORD + 3)
            h, faint = broadcast_at(records, n * RECORD + 4), broadcast_at(records, n * RECORD + 5)
            dy_corner = load(LANE_Y, 0) - (broadcast_at(records, n * RECORD + 1) - corner_y)
            u_corner = load(LANE_X, 0) - (broadcast_at(records, n * RECORD) - corner_x) - k * dy_corner
            now = broadcast(np.float32(place - start))
            w1 = wu = wy = wuu = wuy = wyy = zero
            for at in range(len(d_feature)):
                d_feature[at] = 0
            while todo:
                b = lowest_bit(todo)
                todo &= todo - ONE
                block_y = broadcast_at(BLOCK_Y, b)
                dy = dy_corner + block_y
                u = u_corner - k * block_y + broadcast_at(BLOCK_X, b)
                x = a * u * u + (h * dy * dy + faint)
                full = _falloff(x)
                drawn = (x <= LIMIT) & (now < load(stops, place_of_tile + b * LANES))
                alpha = select(drawn, minimum(full, broadcast(ALPHA_MAX)), zero)
                after = load(state, b * block)  # T_{i+1}
                before = select(drawn, after * reciprocal(one - alpha), after)
                store(state, b * block, before)
                weight = alpha * before  # T_i·α_i
                shown = zero  # f_i·g
                at = b * block + 2 * LANES
                for f in range(0, padded, 4):
                    d0, d1 = load(state, at), load(state, at + LANES)
                    d2, d3 = load(state, at + 2 * LANES), load(state, at + 3 * LANES)
                    at += 4 * LANES
                    shown = broadcast_at(features, n * padded + f) * d0 + shown
                    shown = broadcast_at(features, n * padded + f + 1) * d1 + shown
                    shown = broadcast_at(features, n * padded + f + 2) * d2 + shown
                    shown = broadcast_at(features, n * padded + f + 3) * d3 + shown
                    to = f * LANES
                    _accumulate(d_feature, to, weight, d0)
                    _accumulate(d_feature, to + LANES, weight, d1)
                    _accumulate(d_feature, to + 2 * LANES, weight, d2)
                    _accumulate(d_feature, to + 3 * LANES, weight, d3)
                behind = load(state, b * block + LANES)  # B_i
                step = shown - behind
                store(state, b * block + LANES, alpha * step + behind)
                w = select(full <= ALPHA_MAX, weight * step, zero)  # α_i·∂L/∂α_i
                w1 = w1 + w
                w_u, w_y = w * u, w * dy
                wu = wu + w_u
                wy = wy + w_y
                wuu = w_u * u + wuu
                wuy = w_u * dy + wuy
                wyy = w_y * dy + wyy
            d_slots[slot], d_slots[slot + 1], d_slots[slot + 2] = lane_sum(w1), lane_sum(wu), lane_sum(wy)
            d_slots[slot + 3], d_slots[slot + 4], d_slots[slot + 5] = (
                lane_sum(wuu),
                lane_sum(wuy),
                lane_sum(wyy),
            )
            for f in range(channels):
                d_slots[slot + MOMENTS + f] = lane_sum(load(d_feature, f * LANES))


@kernel
def gather(
    first, last, ellipses, opacities, order, drawn, splat_start, slot_start, d_slots,
    d_means2d, d_ellipses, d_opacities, d_features,
):  # fmt: skip
    """Sum the slots of every splat of images first..last in a fixed order and convert moments to gradients.

    With ∂L/∂σ = -w, ∂u/∂x' = -1, ∂u/∂y' = k, ∂dy/∂y' = -1 and ∂u/∂k = -dy, σ = ½ (a·u² + h·dy²) gives

        ∂L/∂x' = a·Σw·u            ∂L/∂a = -½ Σw·u²
        ∂L/∂y' = h·Σw·dy - k·a·Σw·u   ∂L/∂k = a·Σw·u·dy    ∂L/∂h = -½ Σw·dy².

    Args:
        d_means2d, d_ellipses, d_opacities, d_features: outputs, float32 [images, N, 2], [images, N, 3], [images, N] and
            [images, N, F]; 0 for culled Gaussians.
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
            for j in range(width):
                sums[j] = 0
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
