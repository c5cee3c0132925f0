"""Ctrl-C at any moment of any command: one line on stderr, exit code 130, and the same command resumes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupted import interrupt

import factory.__main__
from zoo import interrupts

RENDER = (
    "factory.render --source creatures://bird --out new --resolution 32 --views 2 --num-frames 4 --fps 4 "
    "--max-animations 1 --quiet --workers 0"
)
COMMANDS = {
    "factory.render": RENDER,
    "factory.motions": "factory.motions --objects creatures://bird --out new --workers 0",
    "factory.train dimo": "factory.train dimo --objects creatures://bird --out new --workers 0",
    "factory.train mvvdm": "factory.train mvvdm --data nowhere --out new --workers 0",
    "factory.animate": "factory.animate --source nowhere --prompts nowhere.txt --out new --workers 0",
    "factory.evaluate": "factory.evaluate dimo/bird --protocol dimo-between --truth nowhere --out new --workers 0",
    "factory.curate": "factory.curate report --data nowhere",
    "factory.publish": "factory.publish --data nowhere --to local:shelf",
    "factory.status": "factory.status nowhere",
    "factory.view": "factory.view nowhere",
    "factory": "factory render --help",
    "zoo": "zoo sample dimo/bird --out new.npz",
}


@pytest.fixture(autouse=True)
def interruptible():
    """Child processes inherit an ignored SIGINT, as that of a job in the background of a script is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "stopped" in line


def content(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of every file of a dataset or registry, without the ledger and reports, which record times."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "_factory" not in file.parts and not file.match("report-*.html")
    }


@pytest.mark.parametrize("number", [1, 250])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c_during_imports(command, number, tmp_path):
    if command.startswith("factory render"):
        number = number // 10 + 1  # it imports nothing but the standard library until it knows the command
    if command.startswith("factory.status"):
        number = min(number, 100)  # it imports little
    if command.startswith("zoo") and number > 1:
        number = 600  # torch discards every exception, that of Ctrl-C too, while it imports numpy, which is around 250
    check(interrupt(command, f"import:{number}", tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hooks"]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c_some_time_after_the_start(command, delay, tmp_path):
    """By the clock, to the whole process group, as a terminal sends it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda event, arguments: event == 'import' and arguments[0] == 'zoo.lazy' "
        "and os.close(int(os.environ.pop('STARTED', -1))))\n"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *command.split()],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "STARTED": str(writer)},
        cwd=tmp_path,
        pass_fds=[writer],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    with open(reader, "rb") as started:
        started.read()  # until the process closes its end
    time.sleep(delay)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=120)[1]
    assert "Traceback" not in stderr
    assert ended or process.returncode == 130 or "stopped" not in stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The dataset of `RENDER`, made without an interruption."""
    folder = tmp_path_factory.mktemp("finished")
    subprocess.run([sys.executable, "-P", "-m", *RENDER.split()], cwd=folder, check=True, capture_output=True)
    return folder / "new"


@pytest.mark.parametrize(
    "written",
    [
        "data/train/part-00000",
        "contact_sheet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("locks/", "done/", "staged/", "shards/", "runs/", "ATTRIBUTION", "README")
        ),
    ],
)
def test_ctrl_c_while_a_file_is_written_leaves_a_dataset_that_resumes(written, finished, tmp_path):
    check(interrupt(RENDER, f"rename:{written}", tmp_path))
    again = interrupt(RENDER, "never", tmp_path)
    assert again.returncode == 0, again.stderr
    assert content(tmp_path / "new") == content(finished)


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path):
    """A shell starts background jobs like this."""
    code = (
        f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv({sys.executable!r}, %r)"
    )
    command = [sys.executable, "-P", "-m", "factory", "--help"]
    hooked = {**os.environ, "PYTHONPATH": str(tmp_path / ".hooks"), "INTERRUPT_AT": "import:1"}
    interrupt("factory --help", "import:1", tmp_path)  # writes the hook
    done = subprocess.run([sys.executable, "-c", code % command], env=hooked, capture_output=True, text=True)
    assert done.returncode == 0 and "render" in done.stdout


def test_importing_the_packages_elsewhere_changes_nothing():
    code = "import signal, sys, zoo, factory; hooks = sys.unraisablehook is sys.__unraisablehook__; "
    code += "print(hooks, signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


@pytest.mark.parametrize(
    ("argv", "orig_argv", "name"),
    [
        (["-m", "--out", "x"], ["python", "-P", "-m", "factory.render", "--out", "x"], "factory.render"),
        (["-m", "list"], ["python", "-mzoo", "list"], "zoo"),
        (["-m"], ["python", "-m", "factory"], "factory"),
        (["-m", "zoo"], ["python", "-m", "pytest", "zoo"], None),
        (["-m", "-m", "zoo"], ["python", "-m", "other", "-m", "zoo"], None),
        (["/usr/bin/menagerie", "render"], ["python", "/usr/bin/menagerie", "render"], "menagerie"),
        (["train.py"], ["python", "train.py"], None),
        (["-c"], ["python", "-c", "import zoo"], None),
        ([""], ["python"], None),
    ],
)
def test_the_command_of_a_process(argv, orig_argv, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert interrupts.command_name() == name


def test_every_command_is_interrupted():
    assert {name.split()[0] for name in COMMANDS} == {
        *(f"factory.{name}" for name in factory.__main__.COMMANDS), "factory", "zoo",
    }  # fmt: skip
