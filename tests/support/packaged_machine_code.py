"""The check that the machine code in the package is that of today's kernels."""

from __future__ import annotations

import json
import struct
import zipfile
from types import ModuleType

from renderers.machine_code import LEVELS, MACHINES, digest_files

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}  # EM_X86_64, EM_AARCH64


def kernels_of_archives(kernel_code: ModuleType, compiled_from: list[str]) -> list[set[str]]:
    """The names of the kernels in each archive of a `kernel_code` module.

    Raises:
        AssertionError: an archive is missing, has code for another machine or other signatures than the others, or is
            not of the source files `compiled_from`: run `make kernels` and commit the archives.
    """
    assert set(kernel_code.SOURCES) == set(compiled_from)
    archives = list(kernel_code.ARCHIVES.glob("*.zip"))
    assert {path.stem for path in archives} == set(LEVELS)
    indices = []
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            indices.append(json.loads(archive.read("kernels.json")))
            objects = [archive.read(name) for name in archive.namelist() if name.endswith(".o")]
        assert indices[-1]["sources"] == digest_files(kernel_code.SOURCES), path.name
        (machine,) = (name for name, levels in MACHINES.items() if path.stem in levels)
        for content in objects:
            assert content[:6] == b"\x7fELF\x02\x01", path.name  # 64 bits, little-endian
            assert struct.unpack_from("<H", content, 18) == (ELF_MACHINES[machine],), path.name
        assert len(objects) == len(indices[-1]["kernels"]) + 2, path.name
    assert all(index["kernels"] == indices[0]["kernels"] for index in indices)
    return [set(index["kernels"]) for index in indices]
