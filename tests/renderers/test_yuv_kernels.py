"""The kernel of video colours: its machine code in the package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from packaged_machine_code import kernels_of_archives

from renderers.machine_code import LEVELS, load_archive, processor_levels
from renderers.yuv import kernel_code

needs_archive = pytest.mark.skipif(
    not processor_levels(), reason="the package has no machine code for this processor"
)


def test_the_archives_are_compiled_from_these_sources():
    """Fails after a change of the kernel: run `make kernels` and commit the archives."""
    from renderers.yuv import kernels

    for names in kernels_of_archives(kernel_code, kernels.bleed_to_yuv._cache._impl.locator.sources):
        assert names == {"bleed_to_yuv"}
    assert sum(path.stat().st_size for path in kernel_code.ARCHIVES.glob("*.zip")) < 50_000


@needs_archive
def test_all_levels_of_processors_give_the_same_bits():
    levels = processor_levels()
    pixels = np.random.default_rng(0).integers(0, 1 << 32, (3, 40, 50), np.uint32)
    pixels[:, ::3] &= 0x00FFFFFF
    results = set()
    for level in levels:
        kernels = load_archive(kernel_code.ARCHIVES, kernel_code.SOURCES, level)
        luma, cb, cr = (np.zeros((3, *size), np.uint8) for size in ((38, 46), (19, 23), (19, 23)))
        kernels.bleed_to_yuv(pixels, 2, 4, 0xFF7F7F7F, np.zeros((4, 46), np.uint32), luma, cb, cr)
        results.add(b"".join(plane.tobytes() for plane in (luma, cb, cr)))
    assert len(levels) > 1 and len(results) == 1


@pytest.mark.slow
def test_compiling_again_gives_the_same_bytes(tmp_path):
    code = f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]; from renderers.yuv.compile import main; main()"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    for level in LEVELS:
        expected = (kernel_code.ARCHIVES / f"{level}.zip").read_bytes()
        assert (tmp_path / f"{level}.zip").read_bytes() == expected, level
