"""Machine code compiled ahead of time: it is of these sources, gives the results of numba, and is called safely."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from arm import needs_arm, run_on_arm
from packaged_machine_code import kernels_of_archives

from renderers.gaussians import kernel_code
from renderers.machine_code import LEVELS, MACHINES, load_archive, processor_levels

llvm = pytest.importorskip("llvmlite.binding", reason="llvmlite is not installed")

needs_archive = pytest.mark.skipif(
    not processor_levels(), reason="the package has no machine code for this processor"
)


def _count(kernels: object, dtype: type = np.int64) -> int:
    """Pairs of a splat of radius 40 in the corner of an image with 3×3 tiles: it touches four of them."""
    slots = np.zeros(1, dtype)
    means2d, radii = np.zeros((1, 1, 2), np.float32), np.full((1, 1, 2), 40, np.int32)
    kernels.count_slots(0, 1, means2d, radii, 3, 3, slots)
    return int(slots[0])


def test_the_archives_are_compiled_from_these_sources() -> None:
    """Fails after a change of the kernels: run `make kernels` and commit the archives."""
    from renderers.gaussians import kernels

    for names in kernels_of_archives(kernel_code, kernels.SOURCES):
        assert {"project", "sort", "draw", "draw_backward", "gather"} <= names


@needs_archive
@pytest.mark.parametrize("level", LEVELS)
def test_a_kernel_of_each_supported_level_runs(level: str) -> None:
    if level not in processor_levels():
        assert load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES, level) is None
        pytest.skip(f"this processor does not support {level}")
    assert _count(load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES, level)) == 4


def test_archives_of_other_sources_or_processors_are_not_used(tmp_path: Path) -> None:
    changed = tmp_path / "kernels.py"
    changed.write_bytes(Path(kernel_code.SOURCES[0]).read_bytes() + b"# changed\n")
    assert load_archive(kernel_code.ARCHIVES, [str(changed), *kernel_code.SOURCES[1:]], "x86-64-v3") is None
    assert load_archive(tmp_path, kernel_code.SOURCES, "x86-64-v3") is None
    assert load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES, "x86-64-v9") is None


def test_the_level_follows_the_features_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def level(*features: str, machine: str = "x86_64", system: str = "linux") -> str | None:
        monkeypatch.setattr(
            llvm,
            "get_host_cpu_features",
            lambda: dict.fromkeys(features, True) | {"f16c": "f16c" in features},
        )
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr(sys, "platform", system)
        return next(iter(processor_levels.__wrapped__()), None)

    every, three = (MACHINES["x86_64"][level] for level in ("x86-64-v4", "x86-64-v3"))
    assert level(*every) == "x86-64-v4" and level(*three) == "x86-64-v3"
    assert level(*every[:-1]) == "x86-64-v3"  # AVX-512 without vectors of 128 and 256 bits (Knights Landing)
    assert level(*three[:-1]) == level() == "x86-64"
    assert level(machine="aarch64") == "aarch64"
    assert level(*every, system="darwin") is level(machine="ppc64le") is None


@needs_archive
def test_splats_are_drawn_without_importing_numba() -> None:
    code = """
import sys
sys.modules["numba"] = None  # makes `import numba` fail
import torch
from renderers.gaussians import Gaussians, TensorCameras, render
t = lambda *v: torch.tensor(v)
g = Gaussians(t(0., 0, 2).view(1, 1, 3), t(1., 0, 0, 0).view(1, 1, 4), t(.1, .1, .1).view(1, 1, 3), t(.5).view(1, 1),
              colors=t(1., 1, 1).view(1, 1, 3))
g.means.requires_grad_()
picture = render(g, TensorCameras(torch.eye(4)[None, None], t(9., 0, 4, 0, 9, 4, 0, 0, 1).view(1, 1, 3, 3), 8, 8))
picture.rgb.square().sum().backward()
print(bool(picture.alpha.detach().max() > 0.3), bool(g.means.grad.any()))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("True True", "")


@needs_archive
@pytest.mark.parametrize("slots", [np.int32, np.float64])
def test_arrays_of_another_type_are_refused(slots: type) -> None:
    """Machine code would read and write them as if they were int64."""
    kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES)
    with pytest.raises(TypeError, match=r"count_slots: argument 6: expected a C-contiguous int64 array"):
        _count(kernels, slots)


@needs_archive
def test_arrays_of_another_shape_and_a_wrong_number_of_arguments_are_refused() -> None:
    kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES)
    radii, slots = np.zeros((1, 4, 2), np.int32), np.zeros(1, np.int64)
    with pytest.raises(TypeError, match=r"argument 2: expected .* 3 dimensions, got float32 \[4, 2\]"):
        kernels.count_slots(0, 1, np.zeros((4, 2), np.float32), radii, 1, 1, slots)
    with pytest.raises(TypeError, match=r"argument 2: expected .* C-contiguous"):
        kernels.count_slots(0, 1, np.zeros((1, 8, 2), np.float32)[:, ::2], radii, 1, 1, slots)
    with pytest.raises(ValueError, match="zip"):
        kernels.count_slots(0, 1, np.zeros((1, 4, 2), np.float32), radii, 1, 1)


def _sort(kernels: object, pairs: int) -> np.ndarray:
    """Sort one image with one culled splat, with room for a number of (splat, tile) pairs."""
    integers, drawn = np.zeros((1, 2), np.int64), np.full(1, -1, np.int64)
    kernels.sort(
        0, 1, np.zeros((1, 1)), np.zeros((1, 1, 2), np.int32), np.zeros((1, 1, 8), np.float32), 1, 1,
        np.array([0, pairs]), np.zeros((1, 1), np.int32), drawn, integers, integers.copy(),
        np.zeros(1, np.int32), np.zeros(1, np.uint64), np.zeros(1, np.int64),
    )  # fmt: skip
    return drawn


def _virtual_memory() -> int:
    """Bytes of this process's address space: it grows with arrays that are allocated but never written as well."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@needs_archive
def test_kernels_release_their_temporary_arrays_and_report_a_lack_of_memory() -> None:
    kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES)
    assert _sort(kernels, 1) == [0]
    before = _virtual_memory()
    for _ in range(1000):
        _sort(kernels, 20_000)  # 16 bytes per pair: a leak would be 320 MB
    assert _virtual_memory() - before < 50e6
    with pytest.raises(MemoryError, match="sort: there is not enough memory"):
        _sort(kernels, 1 << 55)


@pytest.mark.slow
@needs_archive
def test_images_and_gradients_equal_those_of_kernels_that_numba_compiles_here(tmp_path: Path) -> None:
    code = """
import sys, numpy, torch
sys.path.insert(0, sys.argv[1])
from splat_scenes import scene
from renderers.gaussians import cpu, render
out = {"packaged": numpy.array(type(cpu.kernels).__name__ == "SimpleNamespace")}
for name in ("opaque", "cloud"):
    gaussians, cameras, options = scene(name, 4)
    gaussians.means.requires_grad_()
    picture = render(gaussians, cameras, **options)
    picture.rgb.square().sum().backward()
    out |= {name: picture.rgb.detach().numpy(), name + "'": gaussians.means.grad.numpy()}
if not out["packaged"]:  # the types that numba infers are those that the archives are compiled for
    from renderers.gaussians.compile import ARGUMENTS
    from renderers.kernel_archives import Signature, signature_of
    for name, arguments in ARGUMENTS.items():
        assert signature_of(getattr(cpu.kernels, name)) == Signature(arguments), name
numpy.savez(sys.argv[2], **out)
"""
    results = {}
    for chosen in ("numba", ""):
        path = tmp_path / f"{chosen}.npz"
        command = [sys.executable, "-P", "-c", code, str(Path(__file__).parents[2] / "support"), str(path)]
        environment = {**os.environ, "MENAGERIE_KERNELS": chosen}
        subprocess.run(command, env=environment, check=True)
        results[chosen] = dict(np.load(path))
    assert results[""].pop("packaged") and not results["numba"].pop("packaged")
    for name, expected in results["numba"].items():
        assert expected.any() and np.array_equal(results[""][name], expected), name


# Repeats calls of kernels; prints the largest difference of their results, relative to the largest value, or "same".
REPLAY = """
import pathlib, pickle, sys
import numpy as np
from renderers.gaussians.kernel_code import load_kernels

kernels = load_kernels()
for name, arguments, expected in pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()):
    getattr(kernels, name)(*arguments)
    worst = "same"
    for ours, theirs in zip(arguments, expected):
        if isinstance(ours, np.ndarray) and ours.tobytes() != theirs.tobytes():
            differences = np.where(ours == theirs, 0, ours.astype(float) - theirs)  # infinity is equal to itself
            worst = np.abs(differences).max() / np.abs(theirs[np.isfinite(theirs)]).max()
    print(name, worst)
"""


@pytest.mark.slow
@needs_archive
@needs_arm
def test_images_are_the_same_on_arm_and_gradients_nearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All kernels of both passes, each with the arguments that it has here."""
    from splat_scenes import scene

    from renderers.gaussians import cpu, render

    if "x86-64-v3" not in processor_levels():
        pytest.skip("this processor has no fused multiply-add: images differ")
    calls = []

    def recorder(name: str) -> object:
        def call(*arguments: object) -> None:
            before = copy.deepcopy(arguments)
            getattr(packaged, name)(*arguments)
            calls.append((name, before, copy.deepcopy(arguments)))

        return call

    packaged = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES)
    monkeypatch.setattr(cpu, "kernels", SimpleNamespace(**{name: recorder(name) for name in vars(packaged)}))
    for kind in ("cloud", "needles", "opaque", "near", "edges"):
        gaussians, cameras, options = scene(kind, 4)
        gaussians.means.requires_grad_()
        render(gaussians, cameras, **options).rgb.square().sum().backward()
    (tmp_path / "calls").write_bytes(pickle.dumps(calls))
    (tmp_path / "arm").mkdir()
    printed = run_on_arm(REPLAY, str(tmp_path / "calls"), folder=tmp_path / "arm").splitlines()
    results = [tuple(line.split()) for line in printed]
    assert {name for name, _ in results} == set(vars(packaged))
    for name, difference in results:
        # Its reciprocals are estimates that x86-64 refines, here and there with another last bit.
        assert difference == "same" or (name == "draw_backward" and float(difference) < 1e-6), name


@pytest.mark.slow
def test_compiling_again_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", "renderers.gaussians.compile", str(tmp_path)], check=True)
    for level in LEVELS:
        expected = (kernel_code.ARCHIVES / f"{level}.zip").read_bytes()
        assert (tmp_path / f"{level}.zip").read_bytes() == expected, level
