"""An output folder is refused if Ray would delete it, or if a worker has another folder at its path."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_stages import Work

import cluster.worker
from cluster import Ledger, StorageError, Task, run
from cluster.child import ChildSpec
from cluster.worker import Worker
from factory.sources.folder import FolderSource
from factory.sources.source import SourceError

JOB = Path("session_1/runtime_resources/working_dir_files/_ray_pkg_1")


def test_a_worker_looks_for_a_file_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.worker, "VISIBLE_S", 0.0)
    ledger = Ledger(tmp_path / "out")
    ledger.storage.write("_factory/tmp/probe", b"")
    spec = ChildSpec.of(Work())
    assert Worker(spec, ledger, "_factory/tmp/probe").ready() and Worker(spec, ledger).ready()
    other = Ledger(tmp_path / "another machine's")
    with pytest.raises(
        StorageError, match=r"does not see the output folder .*another machine's.* share under the same"
    ):
        Worker(spec, other, "_factory/tmp/probe").ready()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_working_directory_of_a_job_is_no_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (tmp_path / JOB).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / JOB)
    ledger = Ledger("out")
    with pytest.raises(StorageError, match="temporary working directory of a submitted job"):
        ledger.storage.check_writable()
    with pytest.raises(StorageError, match="temporary working directory of a submitted job"):
        run(Work(), [Task("a")], ledger, workers=workers)
    assert not list((tmp_path / JOB).iterdir())


def test_an_input_that_was_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / JOB).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / JOB)
    with pytest.raises(SourceError, match=r"'models': no such file or folder; .*\.gitignore.*absolute path"):
        FolderSource("models")
    Path("models").mkdir()  # Ray uploads the folder, without what is in it
    assert "is empty" in (reason := FolderSource("models").why_empty()) and ".gitignore" in reason
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"'models': no such file or folder$"):
        FolderSource("models")
