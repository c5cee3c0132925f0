"""Training groups that die and are restarted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from group_work import add_up, expected, read_state
from process_tree import LOOPBACK

from cluster import Session, StageError
from cluster.storage import Storage
from cluster.training import Group, train_together

SUPPORT = Path(__file__).parents[1] / "support"


def run(out: Path, group: Group, **job: object) -> tuple[dict, list[int]]:
    """Train; return the final state and the steps observed during the run."""
    storage, seen = Storage(out, "tmp"), []
    job = {"out": str(out), "steps": 20, "batch": 4, "save_every": 5, **job}
    train_together(
        add_up,
        job,
        storage,
        group,
        name="sum",
        progress=lambda: read_state(storage)["step"],
        on_tick=lambda: seen.append(read_state(storage)["step"]),
    )
    return read_state(storage), seen


@pytest.mark.slow
def test_a_group_that_lost_a_worker_continues_from_the_latest_checkpoint(
    session: Session, tmp_path: Path
) -> None:
    state, seen = run(tmp_path, Group(2), dies_at=12)
    assert state["step"] == 20 and state["value"] == expected(20, 4)
    assert state["sizes"] == [2] * 20  # steps 10 and 11 were computed twice and counted once
    assert seen and set(seen) <= {0, 5, 10, 15, 20}
    addresses = set(json.loads((tmp_path / "addresses.json").read_text()))
    assert addresses <= LOOPBACK


@pytest.mark.slow
def test_repeated_failures_without_progress_end_the_run_with_their_cause(
    session: Session, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"failed 3 times in a row without progress beyond 5;(.|\n)*no sum"):
        run(tmp_path, Group(1), raises_at=7)
    state, _ = run(tmp_path, Group(1))  # the same run without the fault
    assert state["value"] == expected(20, 4)


@pytest.mark.slow
def test_missing_gpus_and_memory_urls_are_reported(session: Session, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="with 1 GPUs each need 2, and this machine has 0"):
        run(tmp_path, Group(2, num_gpus=1.0))
    with pytest.raises(ValueError, match="visible to this process only"):
        train_together(add_up, {}, Storage("memory://x", "tmp"), Group(), name="x", progress=lambda: 0)


@pytest.mark.slow
def test_a_group_that_lost_a_machine_continues_on_the_remaining_ones(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(SUPPORT),
        "HOME": str(tmp_path),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        env.pop(name, None)
    driver = [sys.executable, "-P", str(SUPPORT / "group_loss_driver.py"), str(tmp_path / "out")]
    result = subprocess.run(driver, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    state = read_state(Storage(tmp_path / "out", "tmp"))
    assert state["step"] == 400 and state["value"] == expected(400, 4)
    assert set(state["sizes"]) == {1, 2} and state["sizes"] == sorted(state["sizes"], reverse=True)
