"""Arithmetic that gives the same bits on every processor and platform.

IEEE 754 defines the result of one addition, multiplication, division or square root, so the elementwise arithmetic of
NumPy is the same everywhere. Three kinds of functions are not:

* Matrix products (`@`, `np.dot`, `np.tensordot`, `np.linalg.norm` of a vector) call BLAS. Its kernels are chosen for
  the processor, add in different orders, and fuse multiplications and additions. `np.einsum` fuses them on Arm.
* `np.linalg.inv`, `det` and `eigh` call LAPACK, which calls BLAS.
* Sine, exponential, power and so on come from vector code for the processor, or from the C library, which has variants
  for processors with fused multiply-add.

The functions here consist of elementwise operations in a stated order. Sums of fewer than eight terms along an axis
(`np.add.reduce`) are added in their order; NumPy adds longer ones pairwise, also in an order that depends only on the
shape. Whatever decides the bytes of a dataset uses them: poses, cameras, framing, measures and generated creatures.

The transcendental functions use the argument reductions and polynomials of FDLIBM (Sun Microsystems 1993, "Freely
Distributable LIBM"), with errors below one unit in the last place unless stated otherwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# --- products ------------------------------------------------------------------------------------


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the matrix products a @ b of stacks of small matrices, terms added in order of k.

    Args:
        a: [..., n, k], k < 8.
        b: [..., k, m].
    """
    return np.add.reduce(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def transformed(points: np.ndarray, matrix: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """Return points @ matrix.T + offset, terms added in order: the matrix applied to each point.

    Args:
        points: [..., k].
        matrix: [m, k].
        offset: [m]; None for 0.
    """
    columns = [points[..., k] for k in range(points.shape[-1])]
    kinds = [points, matrix] if offset is None else [points, matrix, offset]
    out = np.empty((*points.shape[:-1], len(matrix)), np.result_type(*kinds))
    for i, row in enumerate(matrix):
        total = columns[0] * row[0]
        for column, factor in zip(columns[1:], row[1:], strict=True):
            total = total + column * factor
        out[..., i] = total if offset is None else total + offset[i]
    return out


def fused_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b of float32 matrices [n, k] and [k, m], as a chain of fused multiply-adds in order of k.

    This is what BLAS computes on x86-64 with AVX-512: r = round(r + a_k b_k) for k = 0, 1, … The product of two float32
    is exact in float64. The sum is rounded to float64 first, which gives another float32 in one of 2^28 cases.
    """
    factors = a.astype(np.float64)
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        term = factors[:, k, None] * b[k]
        term += out
        out = term.astype(np.float32)
    return out


def norm(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths [...] of vectors [..., n]."""
    return np.sqrt(dot(vectors, vectors))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the inner products [...] of vectors [..., n], terms added in order."""
    total = a[..., 0] * b[..., 0]
    for k in range(1, a.shape[-1]):
        total = total + a[..., k] * b[..., k]
    return total


def applied(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the products [..., m] of matrices [..., m, k] and vectors [..., k], one matrix per vector."""
    return dot(matrices, vectors[..., None, :])


def hypot(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Return sqrt(x² + y²). Unlike `np.hypot`, it overflows for lengths above the square root of the largest number."""
    return np.sqrt(x * x + y * y)


def interpolated(x: np.ndarray, keys: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Interpolate linearly between `values` [n] at ascending `keys` [n], which are constant outside, as `np.interp`."""
    at, known = np.asarray(keys, np.float64), np.asarray(values, np.float64)
    first = np.searchsorted(at, x, side="right").clip(1, len(at) - 1) - 1
    slope = (known[first + 1] - known[first]) / (at[first + 1] - at[first])
    inside = slope * (x - at[first]) + known[first]
    return np.where(x < at[0], known[0], np.where(x >= at[-1], known[-1], inside))


# --- small matrices ------------------------------------------------------------------------------


def determinant(matrices: np.ndarray) -> np.ndarray:
    """Return the determinants [...] of matrices [..., 3, 3]: the first row times its cofactors."""
    return np.add.reduce(matrices[..., 0, :] * _cofactors(matrices)[..., 0, :], axis=-1)


def inverse(matrices: np.ndarray) -> np.ndarray:
    """Return the inverses of affine matrices [..., 4, 4], whose last row is (0, 0, 0, 1).

    (M | t) has the inverse (N | -N t), where N is the transposed cofactor matrix of M divided by its determinant.
    """
    linear = matrices[..., :3, :3]
    cofactors = _cofactors(linear)
    determinants = np.add.reduce(linear[..., 0, :] * cofactors[..., 0, :], axis=-1)
    inverses = np.swapaxes(cofactors, -1, -2) / determinants[..., None, None]
    result = np.zeros(matrices.shape)
    result[..., :3, :3] = inverses
    result[..., :3, 3] = -product(inverses, matrices[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1.0
    return result + 0.0  # turns -0 into 0


def _cofactors(m: np.ndarray) -> np.ndarray:
    """Cofactor matrices of [..., 3, 3]; row i is the cross product of the two rows that follow row i."""
    following, last = m[..., (1, 2, 0), :], m[..., (2, 0, 1), :]
    first, second = (1, 2, 0), (2, 0, 1)
    return following[..., first] * last[..., second] - following[..., second] * last[..., first]


_SWEEPS = 8  # Jacobi's method converges quadratically: matrices of four rows need five sweeps


def eigen(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues, ascending, and eigenvectors of symmetric matrices, by Jacobi's cyclic method.

    Each rotation makes one pair of off-diagonal entries zero (Golub and Van Loan, "Matrix Computations", 8.5):
    with θ = (a_qq - a_pp) / (2 a_pq), t = sign(θ) / (|θ| + sqrt(θ² + 1)), c = 1 / sqrt(t² + 1) and s = t c.

    Args:
        matrices: float64 [..., n, n].
    Returns:
        float64 [..., n], and [..., n, n] with the eigenvectors in columns.
    """
    a = np.array(matrices, np.float64)
    size = a.shape[-1]
    vectors = np.broadcast_to(np.eye(size), a.shape).copy()
    pairs = [(p, q) for p in range(size) for q in range(p + 1, size)]
    for _ in range(_SWEEPS):
        for p, q in pairs:
            off = a[..., p, q]
            zero = off == 0.0
            with np.errstate(over="ignore"):  # of θ, where t is 0
                theta = 0.5 * (a[..., q, q] - a[..., p, p]) / np.where(zero, 1.0, off)
                t = np.where(theta < 0.0, -1.0, 1.0) / (np.abs(theta) + np.sqrt(theta * theta + 1.0))
            t = np.where(zero, 0.0, t)
            c = 1.0 / np.sqrt(t * t + 1.0)
            c, s = c[..., None], (t * c)[..., None]
            for rotated in (a, np.swapaxes(a, -1, -2), vectors):  # columns of A, its rows, columns of V
                first, second = rotated[..., :, p].copy(), rotated[..., :, q].copy()
                rotated[..., :, p], rotated[..., :, q] = c * first - s * second, s * first + c * second
    values = np.diagonal(a, axis1=-2, axis2=-1)
    order = np.argsort(values, axis=-1, kind="stable")
    return np.take_along_axis(values, order, -1), np.take_along_axis(vectors, order[..., None, :], -1)


# --- trigonometry --------------------------------------------------------------------------------

_HALF_PI = 1.5707963267948966
# π/2 in parts: the first has 33 bits, so that its products with whole numbers below 2^20 are exact.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079632673412561417e00, 6.07710050650619224932e-11
_SINE = (
    1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
    -1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01,
)  # fmt: skip
_COSINE = (
    -1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
    2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02,
)  # fmt: skip
# 1 / (2k + 1)! with alternating signs, highest first: the sine's Taylor series up to x^23.
SINE_SERIES = (
    -3.8681701706306841e-23, 1.9572941063391263e-20, -8.2206352466243297e-18, 2.8114572543455206e-15,
    -7.6471637318198164e-13, 1.6059043836821613e-10, -2.5052108385441720e-08, 2.7557319223985893e-06,
    -1.9841269841269841e-04, 8.3333333333333332e-03, -1.6666666666666666e-01, 1.0,
)  # fmt: skip


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Evaluate a polynomial, coefficients highest first, by Horner's rule."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value


def sin(x: np.ndarray | float) -> np.ndarray:
    """Sine of angles in radians."""
    return _sine_cosine(x, 0)


def cos(x: np.ndarray | float) -> np.ndarray:
    """Cosine of angles in radians."""
    return _sine_cosine(x, 1)


def tan(x: np.ndarray | float) -> np.ndarray:
    """Tangent of angles in radians; errors of up to two units in the last place."""
    return sin(x) / cos(x)


def _sine_cosine(x: np.ndarray | float, quarters: int) -> np.ndarray:
    """Sine of x + quarters π/2. Angles above 10^6 are reduced by whole turns of the rounded 2π first."""
    x = np.asarray(x, np.float64)[...]
    with np.errstate(invalid="ignore"):
        x = np.where(np.abs(x) < 1e6, x, np.fmod(x, 4.0 * _HALF_PI))
    n = np.rint(x * (1.0 / _HALF_PI))
    rest, low = x - n * _HALF_PI_HIGH, n * _HALF_PI_LOW
    y = rest - low
    tail = (rest - y) - low  # x = n π/2 + y + tail, |y| <= π/4
    z = y * y
    cube = z * y
    sine = y - ((z * (0.5 * tail - cube * _polynomial(_SINE[:-1], z)) - tail) - cube * _SINE[-1])
    half = 0.5 * z
    unit = 1.0 - half
    cosine = unit + (((1.0 - unit) - half) + (z * (z * _polynomial(_COSINE, z)) - y * tail))
    with np.errstate(invalid="ignore"):
        quadrant = np.where(np.isfinite(n), n, 0.0).astype(np.int64) + quarters
    value = np.where(quadrant & 1, cosine, sine)
    return np.where(quadrant & 2, -value, value)[()]


def sin_quarter(x: np.ndarray) -> np.ndarray:
    """Sine of angles in 0-π/2: the Taylor series up to x^23, in less than half the time of `sin`.

    Errors are below three units in the last place.
    """
    return x * _polynomial(SINE_SERIES, x * x)


_ARCTAN = (
    1.62858201153657823623e-02, -3.65315727442169155270e-02, 4.97687799461593236017e-02,
    -5.83357013379057348645e-02, 6.66107313738753120669e-02, -7.69187620504482999495e-02,
    9.09088713343650656196e-02, -1.11111104054623557880e-01, 1.42857142725034663711e-01,
    -1.99999999998764832476e-01, 3.33333333333329318027e-01,
)  # fmt: skip
_ARCTAN_STEPS = (7 / 16, 11 / 16, 19 / 16, 39 / 16)
# arctan of 0, 1/2, 1, 3/2 and infinity, as sums of two numbers.
_ARCTAN_HIGH = np.array([
    0.0, 4.63647609000806093515e-01, 7.85398163397448278999e-01, 9.82793723247329054082e-01,
    1.57079632679489655800e00,
])  # fmt: skip
_ARCTAN_LOW = np.array([
    0.0, 2.26987774529616870924e-17, 3.06161699786838301793e-17, 1.39033110312309984516e-17,
    6.12323399573676603587e-17,
])  # fmt: skip


def arctan(x: np.ndarray | float) -> np.ndarray:
    """Inverse tangent, radians."""
    x = np.asarray(x, np.float64)
    size = np.abs(x)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reduced = [
            size,
            (2.0 * size - 1.0) / (2.0 + size),
            (size - 1.0) / (size + 1.0),
            (size - 1.5) / (1.0 + 1.5 * size),
            -1.0 / size,
        ]
        step = np.searchsorted(_ARCTAN_STEPS, size, side="right").clip(max=4)
        r = np.choose(step, reduced)
    z = r * r
    value = _ARCTAN_HIGH[step] - ((r * (z * _polynomial(_ARCTAN, z)) - _ARCTAN_LOW[step]) - r)
    return np.copysign(value, x)[()]


def arctan2(y: np.ndarray | float, x: np.ndarray | float) -> np.ndarray:
    """Angle of the vectors (x, y) in radians, in -π to π, as `np.arctan2` for finite numbers."""
    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(y) / np.abs(x)
    angle = arctan(np.where(np.isnan(ratio), 0.0, ratio))  # 0 / 0
    angle = np.where(np.signbit(x), 2.0 * _HALF_PI - (angle - 2.0 * _ARCTAN_LOW[4]), angle)
    return np.copysign(angle, y)[()]


def arccos(x: np.ndarray | float) -> np.ndarray:
    """Inverse cosine of numbers in -1 to 1, radians: 2 arctan of sqrt((1 - x) / (1 + x)), errors of up to 2 units."""
    x = np.asarray(x, np.float64)
    with np.errstate(divide="ignore"):
        return 2.0 * arctan(np.sqrt((1.0 - x) / (1.0 + x)))


def arcsin(x: np.ndarray | float) -> np.ndarray:
    """Inverse sine of numbers in -1 to 1, radians: arctan of x / sqrt(1 - x²), errors of up to 2 units."""
    x = np.asarray(x, np.float64)
    with np.errstate(divide="ignore"):
        return arctan(x / np.sqrt((1.0 - x) * (1.0 + x)))


# --- exponentials --------------------------------------------------------------------------------

_LOG2_HIGH, _LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_EXP = (
    4.13813679705723846039e-08, -1.65339022054652515390e-06, 6.61375632143793436117e-05,
    -2.77777777770155933842e-03, 1.66666666666666019037e-01,
)  # fmt: skip
_LOG_EVEN = (1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01)
_LOG_ODD = (
    1.479819860511658591e-01, 1.818357216161805012e-01, 2.857142874366239149e-01, 6.666666666666735130e-01,
)  # fmt: skip


def exp(x: np.ndarray | float) -> np.ndarray:
    """Exponential function."""
    x = np.clip(np.asarray(x, np.float64), -800.0, 800.0)
    n = np.rint(x * 1.44269504088896338700)
    high, low = x - n * _LOG2_HIGH, n * _LOG2_LOW
    r = high - low
    t = r * r
    c = r - t * _polynomial(_EXP, t)
    value = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.ldexp(value, np.where(np.isnan(n), 0.0, n).astype(np.int32))[()]


def log(x: np.ndarray | float) -> np.ndarray:
    """Natural logarithm of positive finite numbers; -inf for 0, NaN for negative ones."""
    x = np.asarray(x, np.float64)
    m, n = np.frexp(x)
    small = m < 0.70710678118654752440
    m, n = np.where(small, 2.0 * m, m), n - small
    f = m - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):  # numbers below 0, which give NaN
        s = f / (2.0 + f)
    z = s * s
    w = z * z
    rest = w * _polynomial(_LOG_EVEN, w) + z * _polynomial(_LOG_ODD, w)
    half = 0.5 * f * f
    value = n * _LOG2_HIGH - ((half - (s * (half + rest) + n * _LOG2_LOW)) - f)
    return np.where(x > 0.0, value, np.where(x == 0.0, -np.inf, np.nan))[()]


def power(x: np.ndarray | float, exponent: float) -> np.ndarray:
    """x^exponent = e^(exponent · log x) for x >= 0. Its relative error is about |exponent · log x| · 10^-16."""
    x = np.asarray(x, np.float64)
    return np.where(x > 0.0, exp(exponent * log(np.where(x > 0.0, x, 1.0))), 0.0)[()]
