"""The SIMD vectors of the kernels, compared with numpy."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed")

from renderers import simd  # noqa: E402  (needs numba)


def test_arithmetic_matches_numpy() -> None:
    @numba.njit
    def compute(a, b, out):
        x, y = simd.load(a, 0), simd.load(b, 0)
        simd.store(out, 0, x * y + 2 - x / y)
        simd.store(out, 16, simd.select((x < y) & (y >= 0), simd.sqrt(simd.absolute(x)), -y))
        simd.store(out, 32, simd.floor(simd.maximum(x, simd.minimum(y, simd.broadcast_at(a, 3)))))
        simd.store(out, 48, simd.reciprocal(y))
        return simd.lane_sum(x), simd.mask_bits(x > y)

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=16).astype(np.float32) for _ in range(2))
    out = np.empty(64, np.float32)
    total, bits = compute(a, b, out)
    np.testing.assert_allclose(out[:16], a * b + 2 - a / b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(out[16:32], np.where((a < b) & (b >= 0), np.sqrt(abs(a)), -b), rtol=1e-6)
    np.testing.assert_array_equal(out[32:48], np.floor(np.maximum(a, np.minimum(b, a[3]))))
    np.testing.assert_allclose(out[48:], 1 / b, rtol=3e-7)
    assert total == pytest.approx(a.sum(), abs=1e-5)
    assert bits == sum(1 << i for i in range(16) if a[i] > b[i])


def test_column_loads_and_logarithms() -> None:
    @numba.njit
    def compute(table, values, columns, logarithms):
        for count in range(1, 9):
            simd.store(columns, 8 * (count - 1), simd.wide_column(table, 1, 3, count))
        for i in range(0, len(values), 8):
            simd.store(logarithms, i, simd.logarithm(simd.load(values, i)))

    table = np.arange(24, dtype=np.float32)
    values = np.exp(np.random.default_rng(1).uniform(-69, 3, 8000))
    values[:8] = [1.0, 0.5, 2.0, np.sqrt(0.5), np.sqrt(2.0), 1 - 1e-12, 1e-30, 1 / 255]
    columns, logarithms = np.empty(64), np.empty(8000)
    compute(table, values, columns, logarithms)
    for count in range(1, 9):
        expected = 1.0 + 3.0 * np.minimum(np.arange(8), count - 1)
        np.testing.assert_array_equal(columns[8 * (count - 1) : 8 * count], expected)
    np.testing.assert_allclose(logarithms, np.log(values), rtol=0, atol=1e-12)


def test_span_bits_match_a_loop() -> None:
    @numba.njit
    def spans(counts):
        return simd.span_bits(simd.load(counts, 0))

    rng = np.random.default_rng(2)
    for _ in range(50):
        counts = rng.integers(0, 9, 16)
        expected = sum(1 << (8 * i + b) for i in range(8) for b in range(counts[8 + i], counts[i]))
        assert int(spans(counts.astype(np.float32))) == expected
