"""Real renders on several hosts, into an object store: machines, links, the driver and the storage fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts
from ray_hosts import CLIENT, HEAD, RayCluster, ray_cluster
from s3_server import client_env

SUPPORT = Path(__file__).parents[1] / "support"
STORE, STORE_ADDRESS, STORE_PORT = "s3", "10.77.0.6", 9000
OUT = "s3://bucket/out"
ASSETS = int(os.environ.get("MENAGERIE_HOSTS_ASSETS", "667"))
TASKS = 3 * ASSETS  # an asset is opened, and then its two clips are rendered
CUT_S = 60.0
SHAPE = (
    f"--resolution 32 --num-frames 4 --max-animations 1 --views 2 --source creatures://robot?count={ASSETS}"
)
COMMAND = (sys.executable, "-P", "-m", "factory.render", "--out", OUT, *SHAPE.split(), "--quiet")
READ = f"""
import json, factory
from cluster import Ledger, Storage
clips = [(clip.metadata["asset_uid"], clip.metadata["clip_id"]) for clip in factory.load_clips({OUT!r})]
ledger = Ledger({OUT!r})
records = {{record.key: record for record in ledger}}
print(json.dumps({{
    "clips": clips, "count": ledger.count(), "attempts": Storage({OUT!r}).names("_factory/attempts"),
    "workers": sorted({{record.worker.split(":")[0] for record in records.values()}}),
}}))
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hosts_allowed")]
pytest.importorskip("moto", reason="moto, of the extra dev, is missing")


class Store:
    """The S3 server of `s3_server`, on a host of its own."""

    def __init__(self, hosts: Hosts) -> None:
        argv = [sys.executable, "-P", SUPPORT / "s3_server.py", STORE_ADDRESS, STORE_PORT]
        self._process = hosts[STORE].popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._faults: dict[str, Any] = {}
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def counted(self, **faults: Any) -> dict[str, dict[str, int]]:
        """What the server has counted. Faults, if any, replace those injected so far."""
        self._faults = faults or self._faults
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._faults) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def markers(self) -> Counter[str]:
        """Path of each marker of a done task → number of times that it was written."""
        written = self.counted()["written"].items()
        return Counter({path: count for path, count in written if "/_factory/done/" in path})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """Besides the usual hosts, one with the store."""
    env = client_env(f"http://{STORE_ADDRESS}:{STORE_PORT}")
    with ray_cluster(tmp_path / "hosts", [STORE], env) as cluster:
        assert cluster.hosts[STORE].address == STORE_ADDRESS
        yield cluster


def test_real_renders_with_everything_failing(cluster: RayCluster) -> None:
    """A machine dies, another is cut off, the head is far away, the driver is killed; then the store is throttled."""
    hosts, store, begin = cluster.hosts, Store(cluster.hosts), time.monotonic()
    process = cluster.submit(*COMMAND)

    def log(event: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s, {len(store.markers()):5} done: {event}", flush=True)

    def wait(fraction: float, seconds: float) -> None:
        message = f"fewer than {fraction} of the tasks after {seconds} s"
        cluster.wait_while_running(
            process, lambda: len(store.markers()) >= fraction * TASKS, seconds, message
        )

    try:
        wait(0.1, 600)
        log("w1 is switched off")
        hosts["w1"].stop()
        wait(0.15, 300)
        log("w2 is cut off")
        hosts.cut("w2")
        cluster.replace("w1")
        cluster.keep_running_for(CUT_S)
        hosts.mend("w2")
        log("w2 is back")
        wait(0.3, 600)
        hosts.condition(HEAD, delay_s=0.1, loss=0.02)
        log("the head is far away")
        wait(0.4, 600)
        cluster.kill_driver(process, " ".join(COMMAND[:4]))
        log("the driver is killed")
        process = cluster.submit(*COMMAND)
        wait(0.5, 600)
        hosts.condition(HEAD)
        before = store.counted(rate=20.0, errors=0.01)
        log("the store takes 20 requests per second and fails 1 %")
        assert cluster.wait_for_end(process, 1200) == 0, cluster.output()
        log("finished")
        after = store.counted(rate=0.0)
        written = store.markers()
        print(
            "answers", before["answers"], after["answers"], "requests", before["requests"], after["requests"]
        )
        result = hosts[CLIENT].run([sys.executable, "-P", "-c", READ])
    finally:
        store.close()
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    clips = list(map(tuple, found["clips"]))
    print(
        f"{len(clips)} clips, {found['count']}, workers {found['workers']}, "
        f"markers written twice: {sum(count > 1 for count in written.values())}"
    )
    assert len(clips) == len(set(clips)) == 2 * ASSETS and len({asset for asset, _ in clips}) == ASSETS
    assert found["count"] == {"done": TASKS} and found["attempts"] == []
    assert after["answers"].get("500", 0) - before["answers"].get("500", 0) >= 5
    assert after["answers"].get("503", 0) - before["answers"].get("503", 0) >= 20
    assert len(written) == TASKS and set(written.values()) == {1}, "a marker was written twice"
