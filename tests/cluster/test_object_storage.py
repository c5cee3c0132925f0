"""Runs on S3: two independent servers, throttled, failing, slow and with connections that break."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_stages import Work
from exactly_once import problems
from hosts_driver import expected
from s3_server import Faults, S3Server, s3rver_program

import cluster.storage
from cluster import Ledger, Outcome, Storage, StorageError, Task, run_inline

pytest.importorskip("moto", reason="moto, of the extra dev, is missing")
pytest.importorskip("s3fs", reason="s3fs, of the extra s3, is missing")
SUPPORT = Path(__file__).parents[1] / "support"
ROOT = "s3://bucket/out"
TASKS = 240


@pytest.fixture(params=["moto", pytest.param("s3rver", marks=pytest.mark.slow)])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    import s3fs

    if request.param == "s3rver" and (shutil.which("node") is None or s3rver_program() is None):
        pytest.skip(
            "s3rver needs node and the npm package s3rver in the checkout, or MENAGERIE_S3RVER=its folder"
        )

    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no settings of this machine
    with S3Server(kind=request.param) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


def work(count: int) -> list[Task]:
    return [Task(f"t{number}") for number in range(count)]


def test_requests_faults_and_refusals(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    run_inline(Work(), work(2), Ledger(ROOT))
    before = s3.requests.copy()
    run_inline(Work(), work(22), Ledger(ROOT))
    fresh = s3.requests - before
    run_inline(Work(), work(22), Ledger(ROOT))
    again = s3.requests - before - fresh
    # Per task: its file, its marker, and whether there is a marker already. The rest is per run.
    assert fresh["put"] == 2 * 20 + 2 and fresh["get"] == 20 + 2
    for run in (fresh, again):
        assert run["list"] <= 12 and run["head"] <= 6
    assert again["get"] == 22 and not again["put"]
    assert s3.answers[500] == 0

    s3.faults = Faults(errors=0.15, cuts=0.05)
    assert run_inline(Work(), work(15), Ledger("s3://bucket/rough")).counts == {"done": 15}
    s3.faults = Faults()
    assert s3.answers[500] > 0 and {record.key for record in Ledger("s3://bucket/rough")} == {
        task.key for task in work(15)
    }

    s3.faults.expired.add(s3.key)
    with pytest.raises(StorageError, match="token has expired"):
        run_inline(Work(), work(1), Ledger("s3://bucket/expired"))
    s3.faults = Faults()
    with pytest.raises(StorageError, match="The specified bucket does not exist"):
        run_inline(Work(), work(1), Ledger("s3://nowhere/out"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=r"[Cc]redentials"):
        run_inline(Work(), work(1), Ledger("s3://bucket/anonymous"))


def test_the_server_counts_writes_whose_answer_is_lost() -> None:
    with S3Server() as server:
        server.faults = Faults(cuts=1.0)
        client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        client.request("PUT", "/bucket/name", b"value")
        with pytest.raises(http.client.RemoteDisconnected):
            client.getresponse()
        client.close()
        assert server.written == {"/bucket/name": 1}


def test_an_internal_error_after_the_last_attempt_of_a_throttled_request_is_repeated(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    storage = Storage(ROOT)
    storage.write("name", b"value")
    faults = [(503, "SlowDown", ""), (500, "InternalError", "")]
    monkeypatch.setattr(s3, "refusal", lambda headers: faults.pop(0) if faults else None)
    assert storage.read("name") == b"value" and not faults
    monkeypatch.setattr(
        s3, "refusal", lambda headers: (500, "InternalError", "We encountered an internal error")
    )
    with pytest.raises(StorageError, match=r"cannot read files.*internal error"):
        storage.read("name")


def test_a_late_marker_does_not_replace_the_first(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was cut off between its look for a commit and its marker; and a store that does not know how."""
    task, slow, fast = Task("t"), Ledger(ROOT), Ledger(ROOT)
    fast.commit(task, Outcome("done", {"by": "fast"}), worker="fast")
    with monkeypatch.context() as patch:
        patch.setattr(slow, "_committed", lambda key: None)  # it looked before
        late = slow.commit(task, Outcome("done", {"by": "slow"}), worker="slow")
    if s3.kind == "moto":  # s3rver does not know the header
        assert late.worker == Ledger(ROOT).record("t").worker == "fast"
    else:
        assert late.worker == Ledger(ROOT).record("t").worker == "slow"
    marker = slow._marker("done", "t")
    slow.storage.write(marker, b"{")  # damaged: counts as absent
    assert (
        slow.commit(task, Outcome("done"), worker="slow").worker == Ledger(ROOT).record("t").worker == "slow"
    )
    s3.faults = Faults(unknown={"If-None-Match"})
    assert slow.storage.write_new(marker, b"{}") and slow.storage.read(marker) == b"{}"


class Driver:
    """`hosts_driver` in a process of its own, on an embedded Ray."""

    def __init__(self, s3: S3Server, audit: Path, key: str = "") -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hosts_driver", ROOT, str(audit), str(TASKS)],
            env={**env, **s3.env(key), "PYTHONPATH": str(SUPPORT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._audit = audit

    def wait_for(self, written: int, seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while self._audit.read_bytes().count(b"\n") < written:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, f"fewer than {written} tasks after {seconds} s"
            time.sleep(0.1)

    def end(self, seconds: float = 400) -> str:
        return self.process.communicate(timeout=seconds)[0]


@pytest.mark.slow
def test_a_throttled_and_failing_store_killed_drivers_and_expired_credentials(
    s3: S3Server, tmp_path: Path
) -> None:
    audit = tmp_path / "audit"
    audit.touch()
    s3.faults = Faults(rate=20.0, errors=0.01, cuts=0.01, slow=0.02)
    for stop_at in (TASKS // 5, 2 * TASKS // 5):
        driver = Driver(s3, audit)
        driver.wait_for(stop_at)
        driver.process.kill()
        driver.process.communicate()
    driver = Driver(s3, audit)
    driver.wait_for(3 * TASKS // 5)
    s3.faults.expired.add(s3.key)
    output = driver.end()
    assert driver.process.returncode == 1 and "token has expired" in output, output
    if s3.kind == "moto":
        driver = Driver(s3, audit, "renewed")
    else:  # which knows one key only
        s3.faults.expired.clear()
        driver = Driver(s3, audit)
    output = driver.end()
    assert driver.process.returncode == 0 and f"{TASKS} tasks" in output, output
    assert s3.answers[500] >= 5 and s3.answers[503] >= 5, s3.answers
    print("answers", dict(s3.answers), "requests per task", {k: n / TASKS for k, n in s3.requests.items()})
    s3.faults = Faults()
    assert problems(ROOT, audit, expected(TASKS)) == []
    attempts = {name.partition("/")[0] for name in Storage(ROOT).names("_factory/attempts")}
    assert attempts == {key for key, result in expected(TASKS).items() if result != "done"}


@pytest.mark.slow
@pytest.mark.parametrize("s3", ["moto"], indirect=True)  # s3rver does not list uploads
def test_unfinished_uploads_are_removed(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(ROOT)
    size = 101 * 2**20  # more than s3fs writes in one request
    storage.write("whole", bytes(size))
    assert s3.requests["put part"] == 3 and s3.uploads() == 0
    for folder in ("out", "output"):  # what a killed writer leaves
        storage.filesystem.call_s3("create_multipart_upload", Bucket="bucket", Key=f"{folder}/killed")
    assert s3.uploads() == 2
    with monkeypatch.context() as patch:  # they may still have a writer
        patch.setattr(cluster.storage, "STALE_S", 1e12)
        storage.sweep()
    assert s3.uploads() == 2
    storage.sweep()
    assert s3.uploads() == 1, "the upload of another folder was removed, or that of this one was not"
