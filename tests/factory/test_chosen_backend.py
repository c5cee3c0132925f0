"""Which renderer a run uses: the default of the machine, unless its output was begun with another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import Ledger, Outcome, Task
from factory.assets import backends
from factory.assets.backends import choose_backend
from renderers.meshes import AUTO

WRITTEN = Path(__file__).parents[1] / "data" / "v0.1.0"


@pytest.fixture(autouse=True)
def default(monkeypatch):
    monkeypatch.setattr(backends, "default_backend", lambda: "cpu")


def test_a_new_output_has_the_default_and_no_notice(tmp_path, capsys):
    assert choose_backend(AUTO, tmp_path / "new") == "cpu"
    assert choose_backend("opengl", tmp_path / "new") == "opengl"
    assert capsys.readouterr().err == ""


def test_a_dataset_of_the_first_version_goes_on_with_its_renderer(tmp_path, capsys):
    out = shutil.copytree(WRITTEN / "dataset", tmp_path / "dataset")
    assert choose_backend(AUTO, out) == "opengl"
    assert "was begun with --renderer opengl, which this run uses, too; the default here is cpu" in (
        capsys.readouterr().err
    )
    assert choose_backend("opengl", out) == "opengl"
    assert capsys.readouterr().err == ""


def test_another_renderer_is_used_if_requested_and_said(tmp_path, capsys):
    out = shutil.copytree(WRITTEN / "dataset", tmp_path / "dataset")
    assert choose_backend("cpu", out) == "cpu"
    err = capsys.readouterr().err
    assert "was begun with --renderer opengl: this run renders its clips again with cpu, beside those" in err


def test_records_without_a_renderer_do_not_count(tmp_path, capsys):
    """Plans of assets, and models, are in the same ledgers as clips."""
    ledger = Ledger(tmp_path)
    ledger.commit(Task("a" * 64, {}, "plan"), Outcome("done", {"clips": 2}))
    assert choose_backend(AUTO, ledger) == "cpu"
    ledger.commit(
        Task("b" * 64, {}, "clip"), Outcome("done", {"renderer": "opengl 2 (llvmpipe, Mesa 22.3.6)"})
    )
    assert choose_backend(AUTO, ledger) == "opengl"
    assert "begun" in capsys.readouterr().err
