"""Machine code of the CPU rasteriser in the package: of these sources, the same images on every level of processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm import needs_arm, run_on_arm
from packaged_machine_code import kernels_of_archives

from renderers import machine_code
from renderers.machine_code import LEVELS, load_archive, processor_levels
from renderers.meshes.cpu import kernel_code

needs_archive = pytest.mark.skipif(
    not processor_levels(), reason="the package has no machine code for this processor"
)
HERE = Path(__file__).parent


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(HERE), str(HERE.parent / "support")])
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_the_archives_are_compiled_from_these_sources():
    """Fails after a change of the kernels: run `make kernels` and commit the archives."""
    from renderers.meshes.cpu import kernels

    for names in kernels_of_archives(kernel_code, kernels.draw._cache._impl.locator.sources):
        assert {"draw", "survey", "place_vertices", "halve_level"} <= names
    assert max(path.stat().st_size for path in kernel_code.ARCHIVES.glob("*.zip")) < 180_000


@needs_archive
def test_the_first_image_needs_neither_numba_nor_a_folder_for_machine_code(tmp_path):
    """It is the same for all levels of processors, with any number of threads of BLAS."""
    code = """
import sys
sys.modules["numba"] = None  # makes the import fail
from test_cpu_renderer import digest
print(digest())
"""
    home = {
        "HOME": str(tmp_path / "none"),
        "XDG_CACHE_HOME": str(tmp_path / "none"),
        "OPENBLAS_NUM_THREADS": "2",
    }
    found = {level: run(code, **home, MENAGERIE_KERNELS=level) for level in processor_levels()}
    assert len({done.stdout for done in found.values()}) == 1, {k: v.stdout for k, v in found.items()}
    assert all(done.stdout and not done.stderr for done in found.values())
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@needs_archive
@needs_arm
def test_images_and_geometry_are_the_same_on_arm(tmp_path):
    code = "from test_cpu_renderer import digest; print(digest())"
    assert run_on_arm(code, folder=tmp_path, path=(HERE, HERE.parent / "support")) == run(code).stdout


@needs_archive
def test_arguments_of_another_type_are_refused_with_the_name_of_the_field():
    kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES)
    points = np.zeros((3, 3), np.float32)
    assert kernels.farthest(points + 2, np.arange(3)) == 12.0
    with pytest.raises(TypeError, match=r"farthest: argument 0: expected a C-contiguous float32 array"):
        kernels.farthest(points.astype(float), np.arange(3))
    from renderers.meshes.cpu.layout import Mesh

    wrong = Mesh(*[np.zeros(0)] * 12)
    with pytest.raises(TypeError, match=r"draw: argument 0\.corners: expected a C-contiguous uint32"):
        kernels.draw(wrong, *[None] * 17)


@needs_archive
def test_the_address_of_an_array_is_that_of_its_first_item():
    array = np.arange(24.0).reshape(2, 3, 4)
    array.flags.writeable = False
    mapped = np.frombuffer(b"12345678", np.uint16)
    for part in (array, array[1:], array[:0], array[1, 2, 1:2], mapped[1:], np.float32(3)[None]):
        assert machine_code.data_address(part) == part.__array_interface__["data"][0]


@needs_archive
def test_words_of_a_named_tuple_are_forgotten_with_its_arrays():
    """Another tuple may get the identities of the arrays of a deleted one."""
    from renderers.meshes.cpu.layout import Bins

    kind = {
        "name": "Bins", "fields": ["starts", "records", "place"], "kinds": ["int32[1]", "uint32[1]", "int32[1]"],
    }  # fmt: skip
    convert = machine_code._converter("bins", kind)
    for size in range(1, 200):
        bins = Bins(np.zeros(size, np.int32), np.zeros(2 * size, np.uint32), np.zeros(size, np.int32))
        words = np.frombuffer(convert(bins), np.int64).reshape(3, 7)
        assert convert(bins) == words.tobytes()
        assert words[:, 2].tolist() == [size, 2 * size, size]
        assert words[:, 4].tolist() == [array.ctypes.data for array in bins]
        del bins
    remembered = convert.__closure__[[c for c in convert.__code__.co_freevars].index("words")].cell_contents
    assert not remembered


@pytest.mark.slow
@needs_archive
def test_images_equal_those_of_kernels_that_numba_compiles_here(tmp_path):
    code = "from test_cpu_renderer import digest; print(digest())"
    compiled = run(code, MENAGERIE_KERNELS="numba", NUMBA_CACHE_DIR=str(tmp_path))
    assert compiled.stderr.count("compiling the CPU kernels") == 1
    assert run(code, MENAGERIE_KERNELS="").stdout == compiled.stdout


@pytest.mark.slow
def test_compiling_again_gives_the_same_bytes(tmp_path):
    run(
        f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]; from renderers.meshes.cpu.compile import main; main()"
    )
    for level in LEVELS:
        expected = (kernel_code.ARCHIVES / f"{level}.zip").read_bytes()
        assert (tmp_path / f"{level}.zip").read_bytes() == expected, level
