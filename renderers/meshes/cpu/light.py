"""The light of `renderers.meshes.environment` on 16 fragments at a time.

The formulas are those of the fragment shader of the OpenGL back end (`renderers.meshes.opengl.shaders`,
`renderers.meshes.specular`). Exponentials and the sRGB curve are polynomials, and nothing is fused or reordered, so
every processor computes the same bits.

A chunk of fragments is a float32 array with one row per quantity (`ROWS`), STRIDE apart, and CHUNK columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from renderers import simd
from renderers.kernel_cache import UNCOUNTED
from renderers.meshes import environment, specular
from renderers.meshes.cpu.layout import CHUNK, STRIDE
from renderers.meshes.cpu.vectors import align_stack, store_quads, transposed, transposed_short
from renderers.simd import (
    LANES,
    broadcast_exact,
    floor,
    lane,
    load_exact,
    mask_bits,
    maximum,
    minimum,
    power_of_two,
    select,
    sqrt,
    store,
)

# Rows of a chunk. Inputs: normal, vector to the eye (any lengths), base colour, metallic, roughness, occlusion and
# emission, linear. An unlit fragment has occlusion 0 and its colour as emission.
NORMAL, EYE, BASE, METALLIC, ROUGHNESS, OCCLUSION, EMISSION = 0, 3, 6, 9, 10, 11, 12
# Rows of `interpolate`. Inputs: the place of the fragment in the image, pixels. Outputs: barycentric coordinates;
# derivatives of E q / sum of E q (see `kernels`) with respect to x (three) and y (three), with a constant sum; u, v,
# du/dx, dv/dx, du/dy, dv/dy of the base colour. AT is the place of the fragment in its pixel.
PIXEL, WEIGHTS, SLOPES, TEXCOORD, AT = 15, 17, 20, 26, 32
LOBES = 34  # scratch of `shade`: the coefficients of the lobe at one roughness
ENCODED = 35  # output of `shade`: sRGB-encoded colours, 0-1, and 1, side by side in the room of four rows

SOURCES = (__file__, simd.__file__, environment.__file__, specular.__file__)

_f = np.float32
_ZERO, _ONE = _f(0), _f(1)
_AMBIENT = np.array(environment.AMBIENT, np.float32)
_GRADIENT = np.array(environment.GRADIENT, np.float32)
_AXES = np.array([light.axis for light in environment.LIGHTS], np.float32)
_COLOURS = np.array([light.colour for light in environment.LIGHTS], np.float32)
_SHARPNESS = np.array([light.sharpness for light in environment.LIGHTS], np.float32)
_TERMS = np.array([environment.irradiance_terms(light) for light in environment.LIGHTS], np.float32)
_LIGHTS = len(environment.LIGHTS)
_LOBE = np.array(specular.LOBE, np.float32)  # [powers of cosine, powers of roughness, 4]
_COSINES, _ROUGHNESSES = _LOBE.shape[:2]
# [powers of roughness * 32]: the coefficients of a power side by side, 4 per power of cosine.
_LOBE_ROWS = np.zeros((_ROUGHNESSES, 32), np.float32)
_LOBE_ROWS[:, : 4 * _COSINES] = _LOBE.transpose(1, 0, 2).reshape(_ROUGHNESSES, -1)
_LOBE_ROWS = _LOBE_ROWS.ravel()
_MEAN = np.array(specular.MEAN_ALBEDO, np.float32)
_LEAST_ROUGHNESS = _f(specular.LEAST_ROUGHNESS)
_LOG2_E = _f(1.4426950408889634)
# 2^f for f in [0, 1): minimax polynomial, relative error 2e-9.
_EXP2 = np.array(
    [1.0, 0.6931470036506653, 0.24022983014583588, 0.055483341217041016, 0.009678840637207031,
     0.0012439691927284002, 0.00021702241792809218], np.float32
)  # fmt: skip
# The sRGB curve above its linear part as a polynomial in the square root, error 0.04 / 255.
_SRGB = np.array(
    [-0.042231280356645584, 1.5752527713775635, -1.8993194103240967, 3.8978519439697266, -5.002102851867676,
     3.417773723602295, -0.947373628616333], np.float32
)  # fmt: skip
_SRGB_KNEE, _SRGB_SLOPE = _f(0.0031308), _f(12.92)
# Its inverse as a polynomial, error 0.004 / 255 of the encoded value.
_LINEAR = np.array(
    [0.0008717907476238906, 0.034495700150728226, 0.49817851185798645, 0.7716770172119141, -0.5407825112342834,
     0.32310929894447327, -0.08758196979761124], np.float32
)  # fmt: skip
_LINEAR_KNEE = _f(0.04045)

inline = njit(error_model="numpy", inline="always", **UNCOUNTED)


@inline
def _exp(x):
    """Return e^x for x <= 0; results below 2^-120 are 2^-120."""
    t = maximum(x * _LOG2_E, broadcast_exact(_f(-120)))
    whole = floor(t)
    f = t - whole
    p = f * _EXP2[6] + _EXP2[5]
    p = p * f + _EXP2[4]
    p = p * f + _EXP2[3]
    p = p * f + _EXP2[2]
    p = p * f + _EXP2[1]
    p = p * f + _EXP2[0]
    return p * power_of_two(whole)


@inline
def _encode(x):
    """Encode linear light as sRGB, 0-1."""
    x = maximum(minimum(x, broadcast_exact(_ONE)), broadcast_exact(_ZERO))
    s = sqrt(x)
    p = s * _SRGB[6] + _SRGB[5]
    p = p * s + _SRGB[4]
    p = p * s + _SRGB[3]
    p = p * s + _SRGB[2]
    p = p * s + _SRGB[1]
    p = p * s + _SRGB[0]
    return select(x < _SRGB_KNEE, x * _SRGB_SLOPE, p)


@inline
def decode(x):
    """Decode sRGB, 0-1, to linear light."""
    p = x * _LINEAR[6] + _LINEAR[5]
    p = p * x + _LINEAR[4]
    p = p * x + _LINEAR[3]
    p = p * x + _LINEAR[2]
    p = p * x + _LINEAR[1]
    p = p * x + _LINEAR[0]
    return select(x < _LINEAR_KNEE, x * (_ONE / _SRGB_SLOPE), p)


@inline
def _cubic(k, r, component):
    """One coefficient of the lobe, a polynomial in the roughness."""
    p = r * _LOBE[k, 4, component] + _LOBE[k, 3, component]
    p = p * r + _LOBE[k, 2, component]
    p = p * r + _LOBE[k, 1, component]
    return p * r + _LOBE[k, 0, component]


@inline
def _lobe(c, r, component):
    """A, B or a coefficient of the mean direction, at cosine `c` and roughness `r` (`specular.LOBE`)."""
    p = _cubic(5, r, component)
    p = p * c + _cubic(4, r, component)
    p = p * c + _cubic(3, r, component)
    p = p * c + _cubic(2, r, component)
    p = p * c + _cubic(1, r, component)
    return p * c + _cubic(0, r, component)


@inline
def _lobes_at(rows, roughness):
    """Write `_cubic` of all powers and components at one roughness, a scalar, to the row LOBES."""
    r = broadcast_exact(roughness)
    for half in range(0, 2 * LANES, LANES):
        p = r * load_exact(_LOBE_ROWS, 128 + half) + load_exact(_LOBE_ROWS, 96 + half)
        p = p * r + load_exact(_LOBE_ROWS, 64 + half)
        p = p * r + load_exact(_LOBE_ROWS, 32 + half)
        store(rows, LOBES * STRIDE + half, p * r + load_exact(_LOBE_ROWS, half))


@inline
def _uniform_lobe(c, rows, component):
    """As `_lobe`, at the roughness of `_lobes_at`."""
    first = LOBES * STRIDE + component
    p = c * rows[first + 20] + rows[first + 16]
    p = p * c + rows[first + 12]
    p = p * c + rows[first + 8]
    p = p * c + rows[first + 4]
    return p * c + rows[first]


@inline
def _reflected(a, b, further_scale, mean, f0):
    """Albedo of the glossy lobe with all reflections (`specular.reflected`)."""
    f = f0 * _f(20.0 / 21.0) + _f(1.0 / 21.0)
    further = f * mean / (_ONE - f * (_ONE - mean))
    return (f0 * a + b) * (further * further_scale + _ONE)


@inline
def _soft_cosine(c, knee):
    x = c * _f(0.36)
    edge = knee / _f(1.44)
    n = x + edge
    clamped = maximum(minimum(c, broadcast_exact(_ONE)), broadcast_exact(_ZERO))
    return select((x <= edge) & (x >= -edge), n * n / knee, clamped)


@inline
def _sixteen(rows, k, lobes_at):
    """Shade fragments k..k + 15 of a chunk.

    `lobes_at` is the roughness of the coefficients in the row LOBES; returns it or the one that they have now.
    """
    first = k + EYE * STRIDE
    vx, vy, vz = (
        load_exact(rows, first),
        load_exact(rows, first + STRIDE),
        load_exact(rows, first + 2 * STRIDE),
    )
    nx, ny, nz = load_exact(rows, k), load_exact(rows, k + STRIDE), load_exact(rows, k + 2 * STRIDE)
    square = nx * nx + ny * ny + nz * nz
    usable = square > _f(1e-30)  # a surface without a normal faces the eye
    nx, ny, nz = select(usable, nx, vx), select(usable, ny, vy), select(usable, nz, vz)
    inverse = _ONE / sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    inverse = _ONE / sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * inverse, vy * inverse, vz * inverse
    metallic = load_exact(rows, k + METALLIC * STRIDE)
    roughness = maximum(load_exact(rows, k + ROUGHNESS * STRIDE), broadcast_exact(_LEAST_ROUGHNESS))
    occlusion = load_exact(rows, k + OCCLUSION * STRIDE)

    nv = nx * vx + ny * vy + nz * vz
    c = maximum(minimum(maximum(nv, -nv), broadcast_exact(_ONE)), broadcast_exact(_f(0.02)))
    one_roughness = lane(roughness, 0)
    if mask_bits((roughness <= one_roughness) & (roughness >= one_roughness)) == 0xFFFF:
        # Most materials have one roughness: a sixth of the arithmetic, in the same order.
        if one_roughness != lobes_at:
            _lobes_at(rows, one_roughness)
            lobes_at = one_roughness
        a, b = _uniform_lobe(c, rows, 0), _uniform_lobe(c, rows, 1)
        along, across = _uniform_lobe(c, rows, 2), _uniform_lobe(c, rows, 3)
    else:
        a, b = _lobe(c, roughness, 0), _lobe(c, roughness, 1)
        along, across = _lobe(c, roughness, 2), _lobe(c, roughness, 3)
    a, b = maximum(a, broadcast_exact(_ZERO)), maximum(b, broadcast_exact(_ZERO))
    mx = along * nx + across * (nv * nx - vx)
    my = along * ny + across * (nv * ny - vy)
    mz = along * nz + across * (nv * nz - vz)
    square = mx * mx + my * my + mz * mz
    length2 = maximum(minimum(square, broadcast_exact(_f(0.999))), broadcast_exact(_f(1e-6)))
    length = sqrt(length2)
    kappa = length * (_f(3.0) - length2) / (_ONE - length2)
    peak = kappa / (_ONE - _exp(kappa * _f(-2.0)))
    scale = kappa / length
    if mask_bits(square > _f(0.999)) != 0:
        scale = kappa / sqrt(maximum(square, broadcast_exact(_f(1e-6))))
    kx, ky, kz = mx * scale, my * scale, mz * scale
    glossy_r = my * _GRADIENT[0] + _AMBIENT[0]
    glossy_g = my * _GRADIENT[1] + _AMBIENT[1]
    glossy_b = my * _GRADIENT[2] + _AMBIENT[2]
    up = ny * _f(0.66666667)
    light_r = up * _GRADIENT[0] + _AMBIENT[0]
    light_g = up * _GRADIENT[1] + _AMBIENT[1]
    light_b = up * _GRADIENT[2] + _AMBIENT[2]
    for i in range(_LIGHTS):
        s = _SHARPNESS[i]
        dx, dy, dz = kx + s * _AXES[i, 0], ky + s * _AXES[i, 1], kz + s * _AXES[i, 2]
        x = sqrt(maximum(dx * dx + dy * dy + dz * dz, broadcast_exact(_f(1e-8))))
        lamp = peak * _exp(minimum(x - kappa - s, broadcast_exact(_ZERO))) * (_ONE - _exp(x * _f(-2.0))) / x
        glossy_r = glossy_r + lamp * _COLOURS[i, 0]
        glossy_g = glossy_g + lamp * _COLOURS[i, 1]
        glossy_b = glossy_b + lamp * _COLOURS[i, 2]
        cosine = nx * _AXES[i, 0] + ny * _AXES[i, 1] + nz * _AXES[i, 2]
        lamp = (_soft_cosine(cosine, _TERMS[i, 2]) * _TERMS[i, 0] + _TERMS[i, 1]) * _TERMS[i, 3]
        light_r = light_r + lamp * _COLOURS[i, 0]
        light_g = light_g + lamp * _COLOURS[i, 1]
        light_b = light_b + lamp * _COLOURS[i, 2]
    total = a + b
    inverse = _ONE / maximum(
        total, broadcast_exact(_ONE)
    )  # the fit exceeds 1 by up to 2 % for smooth surfaces
    a, b = a * inverse, b * inverse
    e = maximum(a + b, broadcast_exact(_f(0.05)))
    more = (_ONE - e) / e
    mean = roughness * _MEAN[4] + _MEAN[3]
    mean = mean * roughness + _MEAN[2]
    mean = mean * roughness + _MEAN[1]
    mean = mean * roughness + _MEAN[0]
    coat = _reflected(a, b, more, mean, broadcast_exact(_f(0.04)))
    rest = (_ONE - coat) * (_ONE - metallic)
    coat = coat * (_ONE - metallic)
    no_metal = mask_bits((metallic <= _ZERO) & (metallic >= _ZERO)) == 0xFFFF
    red, green = c, c
    for i in range(3):
        base = load_exact(rows, k + (BASE + i) * STRIDE)
        glossy = glossy_r if i == 0 else (glossy_g if i == 1 else glossy_b)
        light = light_r if i == 0 else (light_g if i == 1 else light_b)
        light = maximum(light, broadcast_exact(_ZERO))
        reflection = coat
        if not no_metal:
            reflection = coat + _reflected(a, b, more, mean, base) * metallic
        colour = reflection * glossy + rest * base * light
        colour = colour * occlusion + load_exact(rows, k + (EMISSION + i) * STRIDE)
        encoded = _encode(colour)
        if i == 0:
            red = encoded
        elif i == 1:
            green = encoded
        else:
            store_quads(rows, ENCODED * STRIDE + 4 * k, red, green, encoded, broadcast_exact(_ONE))
    return lobes_at


@inline
def _interpolate_sixteen(rows, corners, vertices, colors, screen, eye_x, eye_y, eye_z, textured, k):
    """Interpolate the attributes of fragments k..k + 15 of a chunk."""
    x, y = load_exact(rows, k + PIXEL * STRIDE), load_exact(rows, k + (PIXEL + 1) * STRIDE)
    x0, y0, q0, _ = transposed_short(screen, corners, k)
    x1, y1, q1, _ = transposed_short(screen, corners, k + STRIDE)
    x2, y2, q2, _ = transposed_short(screen, corners, k + 2 * STRIDE)
    x0, x1, x2, y0, y1, y2 = x0 - x, x1 - x, x2 - x, y0 - y, y1 - y, y2 - y
    w0, w1, w2 = (x1 * y2 - x2 * y1) * q0, (x2 * y0 - x0 * y2) * q1, (x0 * y1 - x1 * y0) * q2
    total = w0 + w1 + w2
    some = maximum(maximum(total, -total), broadcast_exact(_f(1e-30)))
    inverse = select(total < _ZERO, -_ONE / some, _ONE / some)
    w0, w1, w2 = w0 * inverse, w1 * inverse, w2 * inverse
    store(rows, k + WEIGHTS * STRIDE, w0)
    store(rows, k + (WEIGHTS + 1) * STRIDE, w1)
    store(rows, k + (WEIGHTS + 2) * STRIDE, w2)
    if len(colors) > 0:
        r0, g0, b0, _ = transposed_short(colors, corners, k)
        r1, g1, b1, _ = transposed_short(colors, corners, k + STRIDE)
        r2, g2, b2, _ = transposed_short(colors, corners, k + 2 * STRIDE)
        store(rows, k + BASE * STRIDE, r0 * w0 + r1 * w1 + r2 * w2)
        store(rows, k + (BASE + 1) * STRIDE, g0 * w0 + g1 * w1 + g2 * w2)
        store(rows, k + (BASE + 2) * STRIDE, b0 * w0 + b1 * w1 + b2 * w2)
    # Position, normal, u and v of the three corners.
    c0 = transposed(vertices, corners, k)
    c1 = transposed(vertices, corners, k + STRIDE)
    c2 = transposed(vertices, corners, k + 2 * STRIDE)
    # The corners are relative to the eye: the vector to the eye is the negative.
    store(rows, k + EYE * STRIDE, -((c0[0] - eye_x) * w0 + (c1[0] - eye_x) * w1 + (c2[0] - eye_x) * w2))
    store(rows, k + (EYE + 1) * STRIDE, -((c0[1] - eye_y) * w0 + (c1[1] - eye_y) * w1 + (c2[1] - eye_y) * w2))
    store(rows, k + (EYE + 2) * STRIDE, -((c0[2] - eye_z) * w0 + (c1[2] - eye_z) * w1 + (c2[2] - eye_z) * w2))
    store(rows, k + NORMAL * STRIDE, c0[3] * w0 + c1[3] * w1 + c2[3] * w2)
    store(rows, k + (NORMAL + 1) * STRIDE, c0[4] * w0 + c1[4] * w1 + c2[4] * w2)
    store(rows, k + (NORMAL + 2) * STRIDE, c0[5] * w0 + c1[5] * w1 + c2[5] * w2)
    if textured:
        q0, q1, q2 = q0 * inverse, q1 * inverse, q2 * inverse
        sx0, sx1, sx2 = (y1 - y2) * q0, (y2 - y0) * q1, (y0 - y1) * q2
        sy0, sy1, sy2 = (x2 - x1) * q0, (x0 - x2) * q1, (x1 - x0) * q2
        first = k + SLOPES * STRIDE
        store(rows, first, sx0)
        store(rows, first + STRIDE, sx1)
        store(rows, first + 2 * STRIDE, sx2)
        store(rows, first + 3 * STRIDE, sy0)
        store(rows, first + 4 * STRIDE, sy1)
        store(rows, first + 5 * STRIDE, sy2)
        u0, u1, u2, v0, v1, v2 = c0[6], c1[6], c2[6], c0[7], c1[7], c2[7]
        u, v = u0 * w0 + u1 * w1 + u2 * w2, v0 * w0 + v1 * w1 + v2 * w2
        first = k + TEXCOORD * STRIDE
        store(rows, first, u)
        store(rows, first + STRIDE, v)
        store(rows, first + 2 * STRIDE, (u0 - u) * sx0 + (u1 - u) * sx1 + (u2 - u) * sx2)
        store(rows, first + 3 * STRIDE, (v0 - v) * sx0 + (v1 - v) * sx1 + (v2 - v) * sx2)
        store(rows, first + 4 * STRIDE, (u0 - u) * sy0 + (u1 - u) * sy1 + (u2 - u) * sy2)
        store(rows, first + 5 * STRIDE, (v0 - v) * sy0 + (v1 - v) * sy1 + (v2 - v) * sy2)


@njit(error_model="numpy", **UNCOUNTED)
def interpolate(rows, corners, vertices, colors, screen, eye_x, eye_y, eye_z, textured, count):
    """Interpolate the attributes of the first `count` fragments of a chunk.

    Args:
        corners: uint32 [3 * STRIDE], the vertices of the corners; valid ones up to the next multiple of 16.
        vertices, colors, screen: see `layout.Mesh` and `kernels.project`. The interpolated colour, if there are any, is
            written to the rows BASE.
        eye_x, eye_y, eye_z: position of the camera.
        textured: whether the rows SLOPES and TEXCOORD are needed.
    """
    align_stack()
    for k in range(0, count, LANES):
        _interpolate_sixteen(rows, corners, vertices, colors, screen, eye_x, eye_y, eye_z, textured, k)


@njit(error_model="numpy", **UNCOUNTED)
def shade(rows, count):
    """Compute the encoded colours of the first `count` fragments of a chunk, float32 [ROWS * STRIDE]."""
    align_stack()
    lobes_at = _f(-1.0)
    for k in range(0, count, LANES):
        lobes_at = _sixteen(rows, k, lobes_at)
