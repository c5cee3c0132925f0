"""Spheres of every metallic, roughness and base colour are as bright as in Cycles, under the same light."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from reflection import albedo, lobe_terms
from tiny_gltf import pack_glb, split_glb

from renderers import gltf
from renderers.meshes import RenderSettings, blender, render_clip
from renderers.meshes.specular import LEAST_ROUGHNESS, MEAN_ALBEDO

# Mean linear RGB of each sphere in Cycles (Blender 4.5, 256 paths per pixel), by `python -m benchmarks.metals --json`.
CYCLES = json.loads(Path(__file__).with_name("spheres_in_cycles.json").read_text())


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/, which is not installed."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


metals, specular = benchmark("metals"), benchmark("specular")


def ours(metallic: float, roughness: float, colour: str, folder: Path) -> np.ndarray:
    asset = gltf.load(metals.sphere(metallic, roughness, metals.COLOURS[colour], folder))
    clip = render_clip(asset, metals.shot(), RenderSettings(samples=4), backend="opengl")
    return metals.linear_mean(clip.frames[0, 0])


@pytest.mark.parametrize("colour", metals.COLOURS)
@pytest.mark.parametrize("metallic", metals.METALLIC)
def test_spheres_are_as_bright_as_in_cycles(tmp_path, metallic, colour):
    tolerance = 0.03 if metallic == 0.0 else 0.06
    for roughness in metals.ROUGHNESS:
        ratio = ours(metallic, roughness, colour, tmp_path) / CYCLES[f"{colour} {metallic:g} {roughness:g}"]
        assert np.abs(ratio - 1.0).max() < tolerance, (roughness, ratio)


def test_gltfs_default_material_differs_from_the_grey_background(tmp_path):
    """Metallic 1, roughness 1, white: with one reflection at the facets it is nearly as grey as the background."""
    mean = ours(1.0, 1.0, "white", tmp_path)
    encoded = 255 * (1.055 * mean ** (1 / 2.4) - 0.055)
    assert encoded.min() > 200  # Cycles, as in CYCLES: 223


@pytest.mark.parametrize("written", ["no material", "material", "pbrMetallicRoughness"])
def test_the_default_material_is_metallic_1_roughness_1_white(tmp_path, written):
    """As M10_sphere_mdefault_rdefault.glb: whatever is absent has the value that `test_spheres_…` compares."""
    path = metals.sphere(1.0, 1.0, metals.COLOURS["white"], tmp_path)
    explicit = ours(1.0, 1.0, "white", tmp_path)
    root, binary = split_glb(path.read_bytes())
    if written == "no material":
        del root["meshes"][0]["primitives"][0]["material"]
    root["materials"] = [{} if written == "material" else {"pbrMetallicRoughness": {}}]
    asset = gltf.load(pack_glb(json.dumps(root).encode(), binary))
    clip = render_clip(asset, metals.shot(), RenderSettings(samples=4), backend="opengl")
    np.testing.assert_array_equal(metals.linear_mean(clip.frames[0, 0]), explicit)


def test_the_fits_agree_with_sampled_integrals():
    generator = np.random.default_rng(0)
    for _ in range(60):
        cosine, roughness = generator.uniform(0.15, 1.0), generator.uniform(LEAST_ROUGHNESS, 1.0)
        sampled = np.array(specular.lobe(cosine, roughness, side=64))
        fitted = lobe_terms(np.array(cosine), np.array(roughness))
        assert np.abs(fitted - sampled).max() < 0.03, (cosine, roughness)


def test_a_mirror_reflects_everything_and_one_reflection_loses_two_thirds():
    cosines = (np.arange(64) + 0.5) / 64
    for roughness in (0.1, 0.5, 1.0):
        assert np.allclose(albedo(cosines, roughness, 1.0), 1.0, atol=1e-6)
        once = lobe_terms(cosines, np.full(64, roughness))[:, :2].sum(axis=1)
        assert (
            abs(2.0 * (once * cosines).mean() - np.polynomial.polynomial.polyval(roughness, MEAN_ALBEDO))
            < 0.02
        )
    assert once.min() < 0.35
    assert albedo(cosines, 1.0, 0.5).mean() < 0.5  # further reflections lose light, too


@pytest.mark.slow
@pytest.mark.skipif(blender.find() is None, reason="needs Blender")
def test_the_stored_means_are_those_of_cycles(tmp_path):
    for metallic, roughness, colour in itertools.product((0.0, 1.0), (0.5, 1.0), ("gold",)):
        path = metals.sphere(metallic, roughness, metals.COLOURS[colour], tmp_path)
        frame = blender.render_clip(path, metals.shot(), samples_per_pixel=metals.SAMPLES).frames[0, 0]
        assert np.allclose(
            metals.linear_mean(frame), CYCLES[f"{colour} {metallic:g} {roughness:g}"], rtol=0.01
        )
