"""The files in cluster/deploy: valid for the programs that read them, and consistent with the repository."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M).group(1)


def manifest(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


def pods(tree: object) -> list[dict]:
    """All pod specifications in a manifest."""
    if isinstance(tree, list):
        return [pod for each in tree for pod in pods(each)]
    if not isinstance(tree, dict):
        return []
    return [tree] if "containers" in tree else [pod for each in tree.values() for pod in pods(each)]


def test_manifests_name_the_version_of_ray_that_is_installed():
    assert manifest("raycluster.yaml")["spec"]["rayVersion"] == RAY
    assert manifest("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == RAY


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_pods_have_limits_a_token_and_no_root(name):
    spec = manifest(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] and cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = cluster["workerGroupSpecs"]
    assert [group["minReplicas"] for group in groups] == [0] * len(groups)
    found = pods(cluster)
    assert len(found) == 1 + len(groups)
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            resources = container["resources"]
            # Ray counts limits as what a machine has; a request below them would promise more than there is.
            assert resources["requests"] == resources["limits"]


def closed(schema: object) -> object:
    """The schema as Kubernetes applies it with strict validation: unknown fields are errors."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.parametrize(("name", "kind"), [("raycluster.yaml", "rayclusters"), ("rayjob.yaml", "rayjobs")])
def test_manifests_are_valid_for_kuberay(name, kind):
    folder = os.environ.get("MENAGERIE_KUBERAY_CRDS")
    if not folder:
        pytest.skip(
            "MENAGERIE_KUBERAY_CRDS: a folder with KubeRay's ray.io_rayclusters.yaml and ray.io_rayjobs.yaml"
        )
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.load((Path(folder) / f"ray.io_{kind}.yaml").read_text(), yaml.CSafeLoader)
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    validator = jsonschema.Draft202012Validator(schema)
    right = manifest(name)
    assert [error.message for error in validator.iter_errors(right)] == []
    for wrong in ("minReplica", "rayStartParam"):  # the control
        broken = copy.deepcopy(right)
        spec = broken["spec"].get("rayClusterSpec", broken["spec"])
        spec["workerGroupSpecs"][0][wrong] = 0
        assert list(validator.iter_errors(broken))


def test_the_autoscaler_file_is_valid_for_ray():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = manifest("autoscaler-aws.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    for change in ({"max_worker": 3}, {"upscaling_speed": "fast"}):  # the control
        with pytest.raises(Exception, match=next(iter(change))):
            validate_config(prepare_config({**copy.deepcopy(config), **change}))
    kinds = config["available_node_types"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert re.match(r"RAY_AUTH_MODE=token (?:\w+_PORT=\d+ )*ray start ", command)


def test_the_documented_ports_are_those_of_the_autoscaler_file():
    page = (ROOT / "docs" / "deploy.md").read_text().split("## Ports")[1]
    documented = set()
    for first, last in re.findall(r"^\| (\d+)(?:–(\d+))? \|", page, re.M):
        documented |= set(range(int(first), int(last or first) + 1))
    command = " ".join(manifest("autoscaler-aws.yaml")["head_start_ray_commands"])
    ports = {name: int(port) for name, port in re.findall(r"--([a-z-]*port)=(\d+)", command)}
    ports |= {name: int(port) for name, port in re.findall(r"(\w+_PORT)=(\d+)", command)}
    workers = set(range(ports.pop("min-worker-port"), ports.pop("max-worker-port") + 1))
    assert len(workers) >= 300 and len(set(ports.values())) == len(ports)
    assert documented == workers | set(ports.values())


def test_images_are_pinned_and_have_what_make_installs():
    stages = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.M)[1:]
    images = {stage.split(" AS ")[1].split()[0]: stage for stage in stages}
    packages = re.search(r"^SYSTEM_PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    for name in ("cpu", "gpu"):
        assert "-c /src/constraints.txt -r /src/pyproject.toml" in images[name]
        assert {"g++", "python3-dev", *packages} <= set(
            images[name].split()
        )  # meshoptimizer is built from source
        assert re.findall(r"^USER (.*)$", images[name], re.M) == ["1000:1000"]
        assert images[name].index("USER") > images[name].rindex("RUN")
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
    assert set(re.findall(r"--extra (\w+)", "".join(stages))) <= set(extras)


def test_the_slurm_script_refuses_wrong_use(tmp_path):
    script = ["bash", str(DEPLOY / "slurm-array.sh")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    result = subprocess.run(script, env=clean, capture_output=True, text=True, timeout=30)
    assert result.returncode == 2 and "expected the command to run" in result.stderr
    result = subprocess.run([*script, "true"], env=clean, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "sbatch --array" in result.stderr


@pytest.fixture
def loopback() -> Iterator[list[str]]:
    """Command that runs another in a network namespace of its own, which has nothing but its loopback interface."""
    name = f"menagerie-{os.getpid()}"
    if (
        shutil.which("ip") is None
        or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode
    ):
        pytest.skip("this process may not create network namespaces")
    inside = ["ip", "netns", "exec", name]
    subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    yield inside
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.slow
def test_a_slurm_array_renders_and_ends(tmp_path, loopback):
    """Element 0 offers no CPU, so that the clips are rendered by element 1, which starts first and is requeued once."""
    out, shared, job = tmp_path / "data", tmp_path / "shared", 4321
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_ARRAY_JOB_ID": str(job),
        "SHARED": str(shared),
        "NODE_IP": "127.0.0.1",
    }
    command = [
        *("python", "-P", "-m", "factory.render", "--out", str(out), "--source", "creatures://robot?count=2"),
        *("--resolution", "32", "--num-frames", "4", "--max-animations", "1", "--views", "2"),
    ]

    def start(element: int, cpus: int) -> subprocess.Popen:
        return subprocess.Popen(
            [*loopback, "bash", str(DEPLOY / "slurm-array.sh"), *command],
            env={**environment, "SLURM_ARRAY_TASK_ID": str(element), "SLURM_CPUS_PER_TASK": str(cpus)},
            stdout=(tmp_path / f"{element}.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    worker, head = start(1, 1), start(0, 0)
    try:
        deadline = time.monotonic() + 300
        while (
            not (out / "_factory" / "done").exists() and time.monotonic() < deadline and head.poll() is None
        ):
            time.sleep(0.2)
        worker.terminate()  # as Slurm preempts it
        assert worker.wait(60) == 143
        worker = start(1, 1)
        assert head.wait(300) == 0, (tmp_path / "0.log").read_text()
        assert worker.wait(60) == 0
    finally:
        for process in (worker, head):
            process.terminate()
            process.wait(60)
    folder = shared / str(job)
    assert (folder / "exit-code").read_text() == "0\n" and not (folder / "address").exists()
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert len((folder / "token").read_text()) == 64
    (run,) = (out / "_factory" / "runs").glob("*.json")
    assert json.loads(run.read_text())
    assert list(out.rglob("*.parquet"))
