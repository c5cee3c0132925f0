"""A cluster of several hosts with addresses of their own: machines and links fail, and every task ends exactly once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exactly_once import problems
from hosts import Hosts, open_ports, wait_for
from hosts_driver import expected
from ray_hosts import CLIENT, ENV, HEAD, RAY, ROOT, RayCluster, documented_ports, ray_cluster

import factory
from cluster import Ledger
from cluster.metrics import GAUGES

SUPPORT = Path(__file__).parents[1] / "support"
TASKS = 2000
CUT_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hosts_allowed")]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path / "hosts") as cluster:
        yield cluster


class Job:
    """The job of `hosts_driver`, submitted by the client until it succeeds."""

    def __init__(self, cluster: RayCluster, folder: Path, count: int) -> None:
        self.cluster, self.count = cluster, count
        self.root, self.audit, self.source = folder / "out", folder / "audit", folder / "job"
        self.audit.touch()
        self.source.mkdir()
        for module in ("hosts_driver", "cluster_stages", "exactly_once"):
            shutil.copy(SUPPORT / f"{module}.py", self.source)
        self.submissions = 0
        self.submit()

    def submit(self) -> None:
        entrypoint = (sys.executable, "-m", "hosts_driver", self.root, self.audit, self.count)
        self.process = self.cluster.submit(*entrypoint, options=("--working-dir", "."), cwd=self.source)
        self.submissions += 1

    def written(self) -> int:
        """Number of markers that have been written."""
        return self.audit.read_bytes().count(b"\n")

    def wait(self, written: float, seconds: float) -> None:
        """Wait until so many markers have been written."""
        message = f"fewer than {written} tasks after {seconds} s"
        self.cluster.wait_while_running(self.process, lambda: self.written() >= written, seconds, message)

    def wait_for_success(self, seconds: float) -> str:
        """Submit again whenever the job has failed, as a user or a `backoffLimit` does; return the output."""
        end = time.monotonic() + seconds
        while self.cluster.wait_for_end(self.process, end - time.monotonic()) != 0:
            assert self.submissions < 5, self.cluster.output()
            self.submit()
        return self.cluster.output()

    def blamed(self) -> set[str]:
        """The tasks with a failed attempt."""
        return {path.name for path in (self.root / "_factory" / "attempts").iterdir()}


def faulty(count: int) -> set[str]:
    return {key for key, result in expected(count).items() if result != "done"}


def test_a_machine_dies_another_is_cut_off_the_head_is_far_away_and_the_driver_is_killed(
    cluster: RayCluster, tmp_path: Path
) -> None:
    hosts = cluster.hosts
    job = Job(cluster, tmp_path, TASKS)
    job.wait(0.1 * TASKS, 400)
    hosts["w1"].stop()
    job.wait(0.15 * TASKS, 120)
    hosts.cut("w2")
    cluster.replace("w1")
    cluster.keep_running_for(CUT_S)
    hosts.mend("w2")
    job.wait(0.4 * TASKS, 300)
    hosts.condition(HEAD, delay_s=0.1, loss=0.02)
    job.wait(0.5 * TASKS, 300)
    cluster.kill_driver(job.process, f"{sys.executable} -m hosts_driver")
    job.submit()
    job.wait(0.65 * TASKS, 300)
    hosts.condition(HEAD)
    output = job.wait_for_success(600)
    assert f"{TASKS} tasks" in output
    assert problems(job.root, job.audit, expected(TASKS)) == []
    assert job.blamed() == faulty(TASKS)
    workers = {line.split()[2] for line in job.audit.read_text().splitlines()}
    assert len(workers) >= 6, "not all workers came back"
    assert job.submissions == 2


def test_a_lost_head(cluster: RayCluster, tmp_path: Path) -> None:
    """The same command on a new head resumes; the workers join it by themselves."""
    job = Job(cluster, tmp_path, 400)
    job.wait(100, 400)
    cluster.hosts[HEAD].stop()
    job.process.kill()  # it would try to reach the job server for long
    job.process.wait()
    cluster.hosts.add(HEAD, cluster.hosts[HEAD].address)
    cluster.start_head()
    cluster.wait_started(HEAD)
    before = job.written()
    job.submit()
    output = job.wait_for_success(420)
    assert "400 tasks" in output and before >= 100
    assert problems(job.root, job.audit, expected(400)) == []
    assert job.blamed() == faulty(400)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RayCluster]:
    """A head, a worker and a client. The folder /private is another one on each of them."""
    (tmp_path / "private").mkdir()
    with Hosts(tmp_path / "hosts", [HEAD, "w1", CLIENT], hidden=[tmp_path / "private"], env=ENV) as hosts:
        cluster = RayCluster(hosts, cpus=2)
        cluster.start(("w1",))
        yield cluster


def render(cluster: RayCluster, folder: Path, out: object, *more: object) -> str:
    """Submit a job that renders two clips, from a folder; return its output."""
    shape = "--resolution 32 --num-frames 4 --max-animations 1 --views 2".split()
    command = [sys.executable, "-P", "-m", "factory.render", "--out", out, *shape, *more]
    process = cluster.submit(*command, options=("--working-dir", "."), cwd=folder)
    process.wait(400)
    return f"{cluster.output()}\nexit code {process.returncode}"


def metrics(cluster: RayCluster, url: str) -> dict[str, float]:
    """Values of our metrics, as Prometheus would scrape them from another machine."""
    code = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=20).read().decode())"
    page = cluster.hosts[CLIENT].run([sys.executable, "-c", code]).stdout
    lines = re.findall(r"^ray_menagerie_(\w+)\{(.*)\} (\S+)$", page, re.M)
    return {name: float(value) for name, labels, value in lines if 'Stage="Short"' in labels}


def test_a_job_from_another_machine(small: RayCluster, tmp_path: Path) -> None:
    hosts = small.hosts
    # Ports: those of the table and no others, except for the range of the worker processes.
    documented = documented_ports()
    workers = set(range(10100, 10400))
    for name, kind in ((HEAD, "head"), ("w1", "worker")):
        found = open_ports(hosts[CLIENT], hosts[name].address)
        assert found - documented[kind] == set(), f"{name}: not documented"
        assert documented[kind] - workers - found == set(), f"{name}: documented, but closed"

    # Without the token, nobody submits, joins or looks.
    code = f"""
import urllib.request, urllib.error
for path in ("/api/jobs/", "/api/version", "/nodes?view=summary"):
    try:
        print(urllib.request.urlopen({small.job_server!r} + path, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    assert hosts[CLIENT].run([sys.executable, "-c", code]).stdout.split() == ["401"] * 3
    outsider = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    status = hosts[CLIENT].run([RAY, "status", "--address", small.address], env=outsider)
    assert status.returncode != 0 and "CPU" not in status.stdout
    code = f"import ray; ray.init('ray://{hosts[HEAD].address}:6388'); print('joined')"
    client = hosts[CLIENT].run([sys.executable, "-c", code], env=outsider)
    assert client.returncode != 0 and "joined" not in client.stdout

    # From a folder whose .gitignore names the inputs; relative outputs; a folder that the machines do not share.
    job = tmp_path / "project"
    (job / "models").mkdir(parents=True)
    (job / ".gitignore").write_text("models/\n")
    (job / "models" / "robot.glb").write_bytes(b"an input")
    assert ".gitignore names: give an absolute path" in render(
        small, job, tmp_path / "out", "--source", "models"
    )
    robots = ("--source", "creatures://robot?count=2")
    assert "temporary working directory of a submitted job" in render(small, job, "out", *robots)
    answer = render(small, job, tmp_path / "private" / "out", *robots)
    assert "w1 does not see the output folder" in answer and answer.endswith("exit code 1")
    answer = render(small, job, tmp_path / "out", *robots)
    assert answer.endswith("exit code 0") and len(list((tmp_path / "out").rglob("*.parquet"))) >= 1


def test_metrics_task_names_and_a_reader_whose_clock_differs(small: RayCluster, tmp_path: Path) -> None:
    hosts, folder = small.hosts, tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import time\nnow = time.time\ntime.time = lambda: now() + 300\n"
    )
    job = Job(small, tmp_path, 400)
    job.wait(60, 400)
    seen: dict[str, float] = {}

    def scraped() -> bool:
        seen.update(metrics(small, f"http://{hosts[HEAD].address}:6385/metrics"))
        return len(seen) >= 8 and seen["tasks_done"] > 0

    wait_for(scraped, 60, f"{seen}")
    assert set(seen) == {name.removeprefix("menagerie_") for name in GAUGES}
    assert seen["workers"] == 2 and seen["tasks_running"] in (1, 2) and 1 < seen["tasks_per_second"] < 100
    listed = hosts[CLIENT].run(
        [RAY, "list", "tasks", "--address", small.job_server, "--limit", "1000", "--format=json"]
    )
    names = {task["name"] for task in json.loads(listed.stdout[listed.stdout.index("[") :])}
    assert "Worker, Short" in names and not any("task-00003" in name for name in names)
    command = [sys.executable, "-m", "factory.status", job.root]
    status = hosts[CLIENT].run(command, env={"PYTHONPATH": str(folder)})
    assert status.returncode == 0 and re.search(r"^state +running", status.stdout, re.M), status.stdout
    job.wait_for_success(300)
    assert problems(job.root, job.audit, expected(400)) == []


def test_the_package_is_uploaded_as_a_wheel(tmp_path: Path) -> None:
    """The machines have its dependencies only; the recipe is that of docs/deploy.md."""
    dist = tmp_path / "dist"
    build = [Path(sys.executable).with_name("uv"), "build", "--wheel", "--quiet", "-o", dist, ROOT]
    subprocess.run(list(map(str, build)), check=True)
    (wheel,) = dist.glob("*.whl")
    site = Path(factory.__file__).parents[1]
    hidden = [site / name for name in ("cluster", "factory", "renderers", "zoo")]
    hidden += site.glob("menagerie4d-*.dist-info")
    with Hosts(tmp_path / "hosts", [HEAD, "w1", CLIENT], hidden=hidden, env=ENV) as hosts:
        cluster = RayCluster(hosts, cpus=2)
        cluster.start(("w1",))
        there = hosts["w1"].run([sys.executable, "-P", "-c", "import factory.render"])
        assert "No module named 'factory.render'" in there.stderr
        (tmp_path / "job").mkdir()
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "job")], check=True)
        entrypoint = (sys.executable, "-m", "factory.render", "--out", tmp_path / "out")
        shape = (
            "--resolution 32 --num-frames 4 --max-animations 1 --views 2 --source creatures://robot?count=2"
        )
        options = ("--working-dir", "job")
        process = cluster.submit(*entrypoint, *shape.split(), options=options, cwd=tmp_path)
        assert process.wait(400) == 0, cluster.output()
        assert "rendered     4 clips of 2 assets" in cluster.output()


def test_real_clips_with_a_machine_and_the_driver_lost(cluster: RayCluster, tmp_path: Path) -> None:
    """60 assets with two clips each; a machine is switched off, and the driver is killed."""
    out, hosts = tmp_path / "out", cluster.hosts
    shape = "--resolution 32 --num-frames 4 --max-animations 1 --views 2 --source creatures://robot?count=60"
    command = (sys.executable, "-P", "-m", "factory.render", "--out", out, *shape.split())

    def done() -> int:
        cluster.keep_running()
        return len(list(out.glob("_factory/done/*/*.json")))

    process = cluster.submit(*command)
    wait_for(lambda: done() >= 70, 240)  # of 180: an asset is opened, and then its clips are rendered
    hosts["w3"].stop()
    wait_for(lambda: done() >= 90, 240)
    cluster.kill_driver(process, f"{sys.executable} -P -m factory.render")
    process = cluster.submit(*command)
    assert cluster.wait_for_end(process, 300) == 0, cluster.output()
    rows = [(clip.metadata["asset_uid"], clip.metadata["clip_id"]) for clip in factory.load_clips(out)]
    assert len(rows) == len({clip for _, clip in rows}) == 120 and len({asset for asset, _ in rows}) == 60
    assert Ledger(out).count() == {"done": 180} and not list(out.glob("_factory/attempts/*"))
