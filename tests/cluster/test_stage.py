from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest

from cluster import Failure, Outcome, Task


def test_a_task_is_restored_from_json() -> None:
    task = Task("a1-b.c", {"path": "x/y.glb", "windows": (1, 2.5)}, "Fox")
    assert Task.from_json(task.to_json()) == task
    assert task.payload["windows"] == [1, 2.5]  # as in a resumed run
    assert Task("k").label == "k"


@pytest.mark.parametrize("key", ["", "../etc", "a/b", ".hidden", "x" * 201, "ä", "a\n"])
def test_a_key_must_be_a_file_name(key: str) -> None:
    with pytest.raises(ValueError, match=r"Task\.key"):
        Task(key)


def test_values_that_json_cannot_represent_are_refused() -> None:
    with pytest.raises(TypeError, match="Task 'k': payload"):
        Task("k", {"frames": np.zeros(3)})
    with pytest.raises(TypeError, match=r"Outcome\.summary"):
        Outcome("done", {"frames": np.zeros(3)})


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", ""])
def test_files_stay_below_the_output(path: str) -> None:
    with pytest.raises(ValueError, match=r"Outcome\.files"):
        Outcome("done", files={path: b""})


def test_files_are_bytes() -> None:
    with pytest.raises(TypeError, match=r"'a\.txt', got str"):
        Outcome("done", files={"a.txt": "text"})


def test_an_outcome_requires_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Outcome("filtered")
    with pytest.raises(ValueError, match="follow_up"):
        Outcome("quarantined", reason="truncated", follow_up=[Task("k")])
    with pytest.raises(ValueError, match="status"):
        Outcome("failed", reason="?")


def test_importing_cluster_does_not_import_ray() -> None:
    code = "import sys, cluster; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_recognised_behind_the_error_that_reports_it(code: int) -> None:
    """It stops the run: as a failed attempt of each task, it would soon give up on all of them."""
    full = OSError(code, "cannot write")
    try:
        try:
            raise full
        except OSError as error:
            raise RuntimeError("the model was not published") from error
    except RuntimeError as error:
        assert Failure.of(error).disk_full and Failure.of(error).reason.startswith("RuntimeError: the model")
    assert Failure.of(full).disk_full
    for other in (OSError(errno.EACCES, "denied"), ValueError("No space left on device")):
        assert not Failure.of(other).disk_full
