"""The packages' public names: complete, importable, and light until they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["zoo", "zoo.dimo", "zoo.export", "zoo.metrics", "zoo.mvvdm"])
def test_all_public_names_can_be_imported(package):
    if package == "zoo.mvvdm":
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    module = importlib.import_module(package)
    assert module.__doc__ and module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None, name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        module.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from zoo.dimo import DIMOConfig", "torch"),
        ("from zoo.mvvdm import MVVDMConfig", "diffusers"),
        ("from zoo.export import SkinnedAnimation", "torch"),
        ("import zoo, zoo.__main__; zoo.info('bundled:mvvdm/tiny')", "torch"),
    ],
)
def test_names_are_imported_on_first_use(tmp_path, statement, absent):
    code = f"import sys\n{statement}\nprint({absent!r} in sys.modules)"
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
