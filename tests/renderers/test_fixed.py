"""Arithmetic in a stated order: as accurate as NumPy's, which computes the expected values in extended precision."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scenes import add_mesh, add_texture, unlit
from tiny_gltf import TinyGltf

from renderers import fixed, gltf
from renderers.meshes.opacity import SOLID, triangle_opacity

COUNT = 20_000
RNG = np.random.default_rng(0)
WIDE, UNIT = RNG.uniform(-30, 30, COUNT), RNG.uniform(-1, 1, COUNT)


def error(values: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in units in the last place."""
    spacing = np.spacing(np.abs(expected.astype(np.float64)))
    return float(np.max(np.abs((values.astype(np.longdouble) - expected) / spacing)))


@pytest.mark.parametrize(
    ("name", "x", "units"),
    [
        ("sin", WIDE, 1.5), ("cos", WIDE, 1.5), ("tan", WIDE, 3), ("arctan", WIDE, 1), ("arctan", UNIT, 1),
        ("arcsin", UNIT, 2.5), ("arccos", UNIT, 2.5), ("exp", 10 * WIDE, 1), ("log", np.exp(WIDE), 1),
    ],
)  # fmt: skip
def test_functions_of_one_number(name, x, units):
    assert error(getattr(fixed, name)(x), getattr(np, name)(x.astype(np.longdouble))) <= units


def test_the_quarter_sine_the_angle_of_a_vector_and_powers():
    quarter, base = np.abs(UNIT) * np.pi / 2, np.abs(UNIT)
    assert error(fixed.sin_quarter(quarter), np.sin(quarter.astype(np.longdouble))) <= 3
    expected = np.arctan2(UNIT.astype(np.longdouble), WIDE.astype(np.longdouble))
    assert error(fixed.arctan2(UNIT, WIDE), expected) <= 3
    assert error(fixed.power(base, 2.4), np.power(base.astype(np.longdouble), np.longdouble(2.4))) <= 40


def test_ends_of_the_ranges():
    assert fixed.log(np.array([0.0, 1.0])).tolist() == [-np.inf, 0.0] and np.isnan(fixed.log(-1.0))
    assert fixed.exp(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, 1.0, np.inf]
    assert fixed.arccos(np.array([1.0, -1.0])).tolist() == [0.0, np.pi]
    assert fixed.arcsin(np.array([1.0, -1.0, 0.0])).tolist() == [np.pi / 2, -np.pi / 2, 0.0]
    assert np.isnan(fixed.sin(np.array([np.nan, np.inf]))).all()
    axes = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
    assert np.array_equal(fixed.arctan2(*axes.T), np.arctan2(*axes.T))


def test_products_inverses_and_determinants_are_those_of_numpy():
    a = RNG.normal(size=(100, 4, 4))
    a[:, 3] = [0, 0, 0, 1]
    b, points = RNG.normal(size=(100, 4, 4)), RNG.normal(size=(50, 3))
    assert np.allclose(fixed.product(a, b), a @ b, rtol=0, atol=1e-14)
    assert np.allclose(fixed.inverse(a) @ a, np.eye(4), rtol=0, atol=1e-9)
    assert np.allclose(fixed.determinant(a[:, :3, :3]), np.linalg.det(a[:, :3, :3]), rtol=0, atol=1e-13)
    expected = points @ a[0, :3, :3].T + a[0, :3, 3]
    assert np.allclose(fixed.transformed(points, a[0, :3, :3], a[0, :3, 3]), expected, rtol=0, atol=1e-14)


def test_eigenvectors_of_symmetric_matrices():
    m = RNG.normal(size=(100, 3, 3))
    symmetric = m + m.swapaxes(1, 2)
    values, vectors = fixed.eigen(symmetric)
    assert np.allclose(values, np.linalg.eigvalsh(symmetric), rtol=0, atol=1e-13)
    assert np.allclose(symmetric @ vectors, vectors * values[:, None], rtol=0, atol=1e-13)


def test_the_fused_product_rounds_once_per_term():
    """(1 + 2^-12)² - (1 + 2^-11) = 2^-24, which a separately rounded float32 product loses."""
    x = np.float32(1 + 2.0**-12)
    a, b = np.array([[1.0, x]], np.float32), np.array([[-np.float32(1 + 2.0**-11)], [x]], np.float32)
    assert np.float32(x * x) + b[0, 0] == 0
    assert fixed.fused_product(a, b).tolist() == [[2.0**-24]]


def test_interpolation_is_constant_outside_the_keys():
    x = np.array([-1.0, 0.0, 0.5, 2.0, 3.0, 9.0])
    assert (
        fixed.interpolated(x, [0, 1, 3], [1.0, 2.0, 4.0]).tolist()
        == np.interp(x, [0, 1, 3], [1, 2, 4]).tolist()
    )


def test_rotated_texture_coordinates_decide_about_opacity_without_fused_products():
    """A corner that is exactly between two texels if products are rounded, and beyond if they are fused to sums."""
    angle = 0.7
    cosine, sine = float(fixed.cos(angle)), float(fixed.sin(angle))
    for u, v in RNG.uniform(0.5, 1.0, (1000, 2)).astype(np.float32).tolist():
        rounded = cosine * u + sine * v
        first, second = Fraction(cosine) * Fraction(u), Fraction(sine) * Fraction(v)
        fused = [first + second, Fraction(float(first)) + second, first + Fraction(float(second))]
        if 0.5 <= rounded < 1.0 and all(float(total) > rounded for total in fused):
            break
    tiny = TinyGltf()
    alpha = np.full((16, 16), 255)
    alpha[:, 10] = 0  # two texels beyond the eighth are counted
    texture = add_texture(tiny, np.dstack([np.full((16, 16, 3), 200), alpha]))
    material = unlit(alphaMode="BLEND")
    transform = {"rotation": angle, "offset": [0.5 - rounded, 0.6]}
    material["pbrMetallicRoughness"]["baseColorTexture"] = {
        "index": texture, "extensions": {"KHR_texture_transform": transform},
    }  # fmt: skip
    uv = np.array([[u, v], [u - 0.2, v], [u, v - 0.2]], np.float32)
    tiny.scene(add_mesh(tiny, np.eye(3), [[0, 1, 2]], material, uv=uv))
    asset = gltf.load(tiny.glb())
    matrix = asset.materials[0].base_color_texture.transform
    assert tuple(matrix[0]) == (cosine, sine, 0.5 - rounded)
    assert np.concatenate(triangle_opacity(asset)).tolist() == [SOLID]
