"""The kernels of poses: compiled from these sources, the same bits on every level of processors as with NumPy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest
from packaged_machine_code import kernels_of_archives

from renderers import fixed, gltf
from renderers.gltf import kernel_code
from renderers.machine_code import LEVELS, load_archive, processor_levels

needs_archive = pytest.mark.skipif(
    not processor_levels(), reason="the package has no machine code for this processor"
)
VERTICES, JOINTS = 203, 7
HERE = Path(__file__).parent
CHILD = """
import hashlib, random, sys, warnings
import numpy as np
from test_gltf_fuzz import mutate, seeds
from renderers import gltf

warnings.simplefilter("ignore")
originals = seeds()
for number in range(int(sys.argv[1])):
    data, results = mutate(originals[number % len(originals)], random.Random(9000 + number)), []
    try:
        asset = gltf.load(data, name="file")
        for animation in [None, *range(min(2, len(asset.animations)))]:
            pose = asset.pose(animation, 0.3)
            results += [hashlib.sha256(part.tobytes()).hexdigest() for part in (pose.positions, pose.normals)]
    except gltf.GltfError as error:
        results.append(str(error))
    print(number, *results)
"""


def test_the_archives_are_compiled_from_these_sources():
    """Fails after a change of the kernels: run `make kernels` and commit the archives."""
    from renderers.gltf import kernels

    defined = {name for name, value in vars(kernels).items() if hasattr(value, "_cache")}
    for names in kernels_of_archives(kernel_code, kernels.skin._cache._impl.locator.sources):
        assert names == {name for name in defined if not name.startswith("_")}
    assert sum(path.stat().st_size for path in kernel_code.ARCHIVES.glob("*.zip")) < 80_000


def skin_inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Joints float32 [J, 12], sparse and dense weights of VERTICES vertices, positions and normals float32 [3, n]."""
    random = np.random.default_rng(seed)
    dense = random.random((VERTICES, JOINTS)).astype(np.float32) * (random.random((VERTICES, JOINTS)) < 0.4)
    dense[dense.sum(1) == 0, 2] = 1
    vertex, joint = np.nonzero(dense)
    matrices = random.normal(size=(JOINTS, 12)).astype(np.float32)
    matrices[3, 5] *= np.float32(-1)  # reflections, too
    return {
        "matrices": matrices,
        "starts": np.searchsorted(vertex, np.arange(VERTICES + 1)),
        "joints": joint.astype(np.int32),
        "weights": dense[vertex, joint].astype(np.float64),
        "dense": dense,
        "positions": random.normal(size=(3, VERTICES)).astype(np.float32),
        "normals": random.normal(size=(3, VERTICES)).astype(np.float32),
    }


def skinned(kernels: object, given: dict[str, np.ndarray], small: float = 0.3) -> tuple[np.ndarray, ...]:
    """Positions, directions and determinants from the kernel."""
    out, directions = np.zeros((3, VERTICES), np.float32), np.zeros((3, VERTICES), np.float32)
    determinants = np.zeros(VERTICES, np.float32)
    unit = kernels.skin(
        *(given[name] for name in ("matrices", "starts", "joints", "weights", "positions", "normals")),
        small, 0, np.zeros(12, np.float32), out, directions, determinants, True,
    )  # fmt: skip
    assert unit
    return out, directions, determinants


def test_skinning_has_the_bits_of_numpy():
    """A dense product of fused multiply-adds, and normals by cofactors, as NumPy computes them element by element."""
    given = skin_inputs()
    m = fixed.fused_product(given["matrices"].T, given["dense"].T).reshape(3, 4, -1)
    x, y, z = given["positions"]
    expected = np.stack([a * x + b * y + c * z + d for a, b, c, d in m])
    linear = m[:, :3].transpose(2, 0, 1)
    following, last = linear[:, (1, 2, 0)], linear[:, (2, 0, 1)]
    cofactors = np.empty_like(linear)
    for j, (k, n) in enumerate(((1, 2), (2, 0), (0, 1))):
        cofactors[:, :, j] = following[:, :, k] * last[:, :, n] - following[:, :, n] * last[:, :, k]
    determinant = np.add.reduce(linear[:, 0] * cofactors[:, 0], axis=-1)
    normals = given["normals"].T * np.float32(0.3)
    directions = fixed.dot(cofactors, normals[:, None]) * np.where(determinant < 0, -1, 1)[:, None].astype(
        np.float32
    )
    directions /= np.sqrt(fixed.dot(directions, directions))[:, None]
    out, found, determinants = skinned(kernel_code.load_kernels(), given)
    assert (determinant < 0).any() and (determinant > 0).any()
    assert out.tobytes() == expected.tobytes()
    assert determinants.tobytes() == determinant.tobytes()
    assert found.tobytes() == np.ascontiguousarray(directions.T).tobytes()
    given["weights"][5] = np.nextafter(
        given["weights"][5] + 1e-6, 1
    )  # the control: other weights, other bits
    assert skinned(kernel_code.load_kernels(), given)[0].tobytes() != expected.tobytes()


def test_vectors_whose_squares_overflow_are_left_to_numpy():
    given = skin_inputs()
    given["normals"] *= np.float32(1e25)
    with pytest.raises(AssertionError):
        skinned(kernel_code.load_kernels(), given)


def test_keys_before_and_after_a_time():
    lines = [[0.0, 0.5, 0.5, 2.0], [1.0], [0.25, 0.75]]
    starts, times = np.cumsum([0, *map(len, lines)]), np.concatenate(lines)
    for time in (-1.0, 0.0, 0.25, 0.3, 0.5, 0.75, 1.0, 1.9999, 2.0, 3.0):
        low, high, phase, step = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3), np.zeros(3)
        kernel_code.load_kernels().find_keys(time, starts, times, low, high, phase, step)
        for n, line in enumerate(lines):
            before = max(bisect_right(line, time) - 1, 0)
            after = min(before + 1, len(line) - 1)
            length = line[after] - line[before]
            assert (low[n], high[n], step[n]) == (before, after, length)
            assert phase[n] == (min(max((time - line[before]) / length, 0), 1) if length else 0)


@needs_archive
def test_all_levels_of_processors_give_the_same_bits():
    levels = processor_levels()
    assert len(levels) > 1
    given = skin_inputs(1)
    results = set()
    for level in levels:
        kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES, level)
        results.add(b"".join(array.tobytes() for array in skinned(kernels, given)))
    assert len(results) == 1


@pytest.mark.slow
def test_mutated_files_have_the_same_poses_with_kernels_that_check_indices(tmp_path):
    """An index out of bounds would become a refusal of the file with the checks, which it is not without them."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "support")])
    checked = {"MENAGERIE_KERNELS": "numba", "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = []
    for settings in ({}, checked):
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **settings}
        command = [sys.executable, "-P", "-c", CHILD, "400"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout.splitlines())
    assert len(outputs[0]) == 400 and outputs[0] == outputs[1]
    posed = [line for line in outputs[0] if len(line.split()[1]) == 64]
    assert 100 < len(posed) < 380


def test_a_sum_of_weights_that_overflows_is_drawn_as_the_first_joint(skinned_file):
    """All weights become zero then; the vertex follows one joint instead of collapsing to the origin."""
    asset = gltf.load(skinned_file)
    assert np.isfinite(asset.pose(None, 0.0).positions).all()
    assert np.ptp(asset.pose(None, 0.0).positions, axis=0).max() > 0.5


@pytest.fixture
def skinned_file(tmp_path):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    joints = np.zeros((3, 4), np.uint8)
    joints[:, 1] = 1
    weights = np.full((3, 4), 3e38, np.float32)
    data = points.tobytes() + joints.tobytes() + weights.tobytes()
    (tmp_path / "data.bin").write_bytes(data)
    views = [(0, 36), (36, 12), (48, 48)]
    accessors = [(5126, "VEC3"), (5121, "VEC4"), (5126, "VEC4")]
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "data.bin", "byteLength": len(data)}],
        "bufferViews": [{"buffer": 0, "byteOffset": at, "byteLength": size} for at, size in views],
        "accessors": [
            {"bufferView": n, "componentType": kind, "count": 3, "type": shape}
            for n, (kind, shape) in enumerate(accessors)
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}}]}],
        "nodes": [{"mesh": 0, "skin": 0}, {"translation": [0, 0, 1]}, {}],
        "skins": [{"joints": [1, 2]}],
        "scenes": [{"nodes": [0, 1, 2]}],
        "scene": 0,
    }
    document["accessors"][0] |= {"min": [0, 0, 0], "max": [1, 1, 0]}
    path = tmp_path / "skinned.gltf"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.slow
def test_compiling_again_gives_the_same_bytes(tmp_path):
    code = f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]; from renderers.gltf.compile import main; main()"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    for level in LEVELS:
        expected = (kernel_code.ARCHIVES / f"{level}.zip").read_bytes()
        assert (tmp_path / f"{level}.zip").read_bytes() == expected, level
