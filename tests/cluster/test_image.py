"""Both images, built by the steps of the Dockerfile in a Debian that debootstrap has made, and `make run` in them.

    debootstrap --variant=minbase bookworm /tmp/base
    MENAGERIE_IMAGE_BASE=/tmp/base pytest -m slow tests/cluster/test_image.py   # needs root, buildah and 12 GB of disk

The base replaces those of an image registry: `gpu` then has no CUDA compiler, and renders on the CPU. Everything else
is as `docker build` does it, except that the result is not packed into layers.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DATASET, VIDEO = "/home/ray/out/mv-video", "/home/ray/out/kangaroo.mp4"


def steps(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage of the Dockerfile, with continued lines joined."""
    text = (ROOT / "cluster" / "deploy" / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", "")
    (body,) = re.findall(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM |\Z)", text, re.M | re.S)
    return [(name, rest.strip()) for name, rest in re.findall(r"^([A-Z]+) (.*)$", body, re.M)]


def make_run() -> list[str]:
    """The commands of `make run`, with the image's Python in place of the one of the virtual environment."""
    lines = subprocess.run(
        ["make", "--dry-run", "--silent", "run", "BIN=/opt/menagerie/bin", f"OUT={DATASET}", "VENV=.image"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [line for line in lines if line.startswith("/opt/menagerie/bin/python -P -m ")]


def buildah(*arguments: object, check: bool = True) -> str:
    result = subprocess.run(
        ["buildah", *map(str, arguments)], capture_output=True, text=True, errors="replace"
    )
    assert not check or result.returncode == 0, (
        f"{arguments}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    )
    return result.stdout.strip()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[str]:
    base = os.environ.get("MENAGERIE_IMAGE_BASE")
    if not base or shutil.which("buildah") is None:
        pytest.skip("MENAGERIE_IMAGE_BASE: a folder with a Debian, made by debootstrap; and buildah (Debian)")
    name = buildah("from", "scratch")
    try:
        buildah("copy", "--quiet", name, base, "/")
        yield name
    finally:
        buildah("rm", name)


@pytest.mark.parametrize("stage", ["cpu", "gpu"])
def test_the_steps_are_read(stage: str) -> None:
    names = [name for name, _ in steps(stage)]
    assert names == ["ENV", "RUN", "COPY", "RUN", "COPY", "RUN", "RUN", "USER", "WORKDIR", "CMD"]
    assert len(make_run()) == 2 and DATASET in make_run()[0] and "kangaroo.mp4" in make_run()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "modules"), [("cpu", "ray torch s3fs"), ("gpu", "ray torch s3fs gsplat lpips")]
)
def test_the_image_is_built_and_runs(container: str, tmp_path: Path, stage: str, modules: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(context)], input=archive, check=True)
    run = ["run", "--isolation", "chroot", "--network", "host"]
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # this machine's way to the registries
        run += ["--env", f"{name}=/run/certificates.crt"]
    run += ["--volume", f"{CERTIFICATES}:/run/certificates.crt:ro"]
    for instruction, rest in steps(stage):
        print(instruction, rest[:100], flush=True)
        match instruction:
            case "ENV":
                paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                for pair in shlex.split(rest.replace("$PATH", paths)):
                    buildah("config", "--env", pair, container)
            case "RUN":
                buildah(*run, container, "--", "/bin/sh", "-c", rest)
            case "COPY":
                *sources, target = shlex.split(rest)
                buildah("copy", "--quiet", container, *(context / source for source in sources), target)
            case "USER":
                buildah("config", "--user", rest, container)
            case "WORKDIR":
                buildah("config", "--workingdir", rest, container)
            case "CMD":
                buildah("config", "--cmd", rest, container)
            case _:
                raise AssertionError(instruction)
    inside = ["run", "--isolation", "chroot", "--network", "host", "--env", "HOME=/home/ray"]
    assert buildah(*inside, container, "--", "id", "-u") == "1000"
    imports = f"import {modules.replace(' ', ', ')}"
    buildah(*inside, container, "--", "/opt/menagerie/bin/python", "-c", imports)
    for command in make_run():
        print(buildah(*inside, container, "--", *shlex.split(command)))
    listed = buildah(*inside, container, "--", "find", "/home/ray/out", "-type", "f")
    assert VIDEO in listed.splitlines() and ".parquet" in listed
    versions = buildah(*inside, container, "--", "/opt/menagerie/bin/python", "-m", "pip", "freeze")
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    for package in ("numba", *modules.split()):
        assert f"{package}=={pinned[package]}" in versions.splitlines()
