"""The check that the machine code in the package is that of today's kernels."""

from __future__ import annotations

import json
import zipfile
from types import ModuleType

from renderers.machine_code import LEVELS, digest_files


def kernels_of_archives(kernel_code: ModuleType, compiled_from: list[str]) -> list[set[str]]:
    """The names of the kernels in each archive of a `kernel_code` module.

    Raises:
        AssertionError: an archive is missing, or is not of the source files `compiled_from`: run `make kernels` and
            commit the archives.
    """
    assert set(kernel_code.SOURCES) == set(compiled_from)
    archives = list(kernel_code.ARCHIVES.glob("*.zip"))
    assert {path.stem for path in archives} == set(LEVELS)
    names = []
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read("kernels.json"))
        assert index["sources"] == digest_files(kernel_code.SOURCES), path.name
        names.append(set(index["kernels"]))
    return names
