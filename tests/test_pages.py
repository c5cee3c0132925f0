"""Commands and Python blocks in README.md and docs/ run as written.

Every command line is parsed by its own command. Those not listed in `NOT_RUN` are also run, in a folder that holds the
files which the pages mention. Lines that take long get the flags in `SHORTENED`, and run in the tests marked slow.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL, PYTHON = ("sh", "bash", "shell", "console"), ("python", "py")

# Part of a command line or Python block → why it is only parsed (a block: compiled, and its imports resolved).
NOT_RUN = {
    "make run": "installs system packages; it is run as a whole before a release",
    "make test ": "runs this test",
    "make install": "reinstalls the package that is being tested",
    "make check": "has its own place in continuous integration",
    "ray job submit": "needs a Ray cluster",
    "factory.curate caption": "downloads a language model",
    "benchmarks.population --out FOLDER  ": "takes hours: 2 000 creatures",
    "FOLDER --paired": "takes hours: 2 000 creatures",
    "FOLDER -- --num-frames 16": "takes an hour: 2 000 creatures",
    "--source objaverse --animated": "needs the network",
    "objaverse-xl://github": "needs the network",
    "sketchfab://search": "needs the network and a token",
    "open_renderer()": "a sketch: its renderer, paths and bucket are the reader's",
    'MotionVideos.open("motions/kangaroo")': "trains for a quarter of an hour",
    "MVVDMPipeline.from_pretrained_parts()": "downloads 8 GB and needs a GPU",
    "animate3d_motion_modules.ckpt": "downloads the published weights",
    '"hf://datasets/org/mv-video"': "needs the network",
    '"hub:org/kangaroo"': "needs the network and a token",
    "register_family": "names a package, boids, that the reader writes",
}
# Part of a command line → flags appended to it, so that it takes seconds.
SMALL = "--resolution 32 --num-frames 4 --views 4 --limit 1 --max-animations 1"
SHORTENED = {
    "creatures://kangaroo models/knight.glb": (
        "--frames 4 --views 4 --heldout-views 1 --resolution 32 --points 64 --limit 1 --skip-heldout "
        "--set joint.steps=2 --set pretraining.steps=2 --set resolution=32 --set frames=4 --set views=4"
    ),
    "creatures://*?count=200": "--resolution 32 --num-frames 16 --limit 3 --max-animations 1",
    "train mvvdm --data out/clips": (
        "--set plan.steps=1 --set plan.batch=2 --set autoencoder.steps=2 --set resolution=32"
    ),
    "--source models/ --out out/mine  ": SMALL,
    "creatures://*?count=100": SMALL,
    "list.jsonl": SMALL,
}
# Commands and blocks that take long or start Ray: run in the tests marked slow.
SLOW = (
    *SHORTENED,
    "zoo sample dimo/knight",  # needs the training above it
    "zoo animate mvvdm/tiny",
    "kangaroo.reconstruct(",  # fits a latent
    'zoo.load("mvvdm/tiny"',
    'zoo.load("local:mvvdm/tiny")',
    "--source models/ --out out/mine --dry-run",
    "factory.TrainingClips(",
    "factory.ray_dataset(",
)
# Placeholders in the pages → the value used in the tests.
PLACEHOLDERS = {"takedown UID": "takedown creature-kangaroo-0"}
# Page → code that defines the names that its blocks use and its text introduces.
GIVEN = {
    "docs/dataset.md": "checkpoint = {}",
    "docs/motions.md": (
        "import numpy as np\n"
        "from renderers.cameras import orbit_cameras\n"
        "cameras = orbit_cameras(np.zeros(1), 0.2, 2.4, fov_y=0.7, width=32, height=32)\n"
        "frames = np.full((1, 4, 32, 32, 4), 255, np.uint8)\n"
    ),
}

PREPARE = """
from pathlib import Path
from factory.sources.registry import open_source

source = open_source("creatures://kangaroo")
content = source.fetch(next(iter(source.list())))
content = content if isinstance(content, bytes) else content.read_bytes()
Path("models").mkdir()
for name in ("models/knight.glb", "fox.glb", "dragon.glb"):
    Path(name).write_bytes(content)
Path("list.jsonl").write_text('{"uid": "knight", "path": "models/knight.glb", "licence": "CC0-1.0"}\\n')

import torch
from renderers.gaussians import Gaussians, ply

means = 0.3 * torch.randn(1, 100, 3, generator=torch.Generator().manual_seed(0))
quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 100, 4)
scales, opacities, colors = torch.full((1, 100, 3), 0.05), torch.full((1, 100), 0.9), torch.rand(1, 100, 3)
splats = Gaussians(means, quats, scales, opacities, colors=colors)
ply.write("creature.ply", splats)
"""
RUN_BLOCKS = """
import json, sys, traceback
space = {"__name__": "page"}
for where, text in json.load(sys.stdin):
    try:
        exec(compile(text, where, "exec"), space)
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{where}: {type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Snippet:
    """A command line or a Python block, and its location."""

    where: str
    text: str

    @property
    def page(self) -> str:
        return self.where.rpartition(":")[0]

    def names(self, table) -> list[str]:
        return [key for key in table if key in self.text]


def snippets(page: str, markdown: str, kinds: tuple[str, ...]) -> list[Snippet]:
    """Return fenced blocks of the given languages; for shell blocks, each command line with its continuations."""
    result = []
    for token in MarkdownIt().parse(markdown):
        if token.type != "fence" or token.info.strip().split(" ")[0] not in kinds:
            continue
        line = token.map[0] + 2
        if kinds == PYTHON:
            result.append(Snippet(f"{page}:{line}", token.content))
            continue
        for text in re.sub(r"\\\n\s*", " ", token.content).splitlines():
            if text.strip() and not text.lstrip().startswith("#"):
                result.append(Snippet(f"{page}:{line}", text))
            line += 1
    return result


def of_all_pages(kinds: tuple[str, ...]) -> list[Snippet]:
    return [
        each
        for page in PAGES
        for each in snippets(page.relative_to(ROOT).as_posix(), page.read_text(), kinds)
    ]


COMMANDS, BLOCKS = of_all_pages(SHELL), of_all_pages(PYTHON)


class Parsed(Exception):
    """Raised when the arguments of a command were parsed successfully."""


def arguments_of(text: str) -> list[str]:
    """Split a command line, without comment and environment; for a Ray job, return the command that it submits."""
    words = shlex.split(text, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words[words.index("--") + 1 :] if words[:1] == ["ray"] else words


def fault(text: str, monkeypatch, capsys) -> str:
    """Return why a command line is not accepted, or an empty string."""
    words = arguments_of(text)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if set(words[1:]) <= set(targets) else f"make has no target {words[1:]}"
    if words[:2] == ["python", "-m"]:
        module, argv = words[2], words[3:]
    elif words[0] == "menagerie":
        module, argv = "factory", words[1:]
    else:
        return f"{words[0]!r} is not a command that this test can parse"
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self, *given, **named):
        parse_args(self, *given, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [words[0], *argv])
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # last: only `benchmarks` is not installed
    capsys.readouterr()
    try:
        runpy.run_module(module, run_name="__main__")
    except Parsed:
        return capsys.readouterr().err  # a notice: an old spelling
    except (SystemExit, ImportError) as error:
        return f"{error!r} {capsys.readouterr().err}"
    finally:
        monkeypatch.undo()
    return "the arguments were not parsed"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.where)
def test_a_command_line_is_accepted(command, monkeypatch, capsys):
    assert fault(command.text, monkeypatch, capsys) == ""


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "python -m factory.render --source models/ --out x --holdout 0.1  # old",
            "--holdout is called --heldout",
        ),
        ("python -m factory.render --no-such-flag --out x", "SystemExit"),
        ("python -m zoo dance dimo/kangaroo", "invalid choice"),
        ("python -m factory.nothing", "ImportError"),
        ("make nothing", "no target"),
        ("nothing --at all", "not a command"),
    ],
)
def test_a_wrong_command_line_is_reported(line, expected, monkeypatch, capsys):
    (command,) = snippets("page.md", f"Text.\n\n```sh\n{line}\n```\n", SHELL)
    assert expected in fault(command.text, monkeypatch, capsys)


@pytest.mark.parametrize("table", ["NOT_RUN", "SHORTENED", "SLOW", "PLACEHOLDERS"])
def test_no_entry_of_a_table_is_stale(table):
    missing = [key for key in globals()[table] if not any(key in each.text for each in COMMANDS + BLOCKS)]
    assert missing == []


def test_modules_named_in_running_text_exist():
    """`python -m MODULE` in inline code."""
    named = {
        (page.name, module)
        for page in PAGES
        for module in re.findall(r"`python -m ([\w.]+)", page.read_text())
    }
    missing = []
    for page, module in sorted(named):
        file = ROOT / module.replace(".", "/")
        if not (file.with_suffix(".py").is_file() or (file / "__main__.py").is_file()):
            missing.append(f"{page}: {module}")
    assert named and missing == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda each: each.where)
def test_a_block_compiles_and_its_imports_exist(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)


# --- running them --------------------------------------------------------------------------------------


def run(argv: list[str], folder: Path, stdin: str = "", seconds: float = 600) -> subprocess.CompletedProcess:
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MENAGERIE_HOME": str(folder / "home"),
    }
    return subprocess.run(
        argv, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=seconds
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Create the files that the pages assume: a dataset under each name used, models, splats."""
    folder = tmp_path_factory.mktemp("pages")
    prepared = run([sys.executable, "-P", "-c", PREPARE], folder)
    assert prepared.returncode == 0, prepared.stderr
    flags = "--source creatures://kangaroo --out out/mv-video --resolution 32 --limit 2 --max-animations 2 --workers 0"
    rendered = run(
        [
            sys.executable,
            "-P",
            "-m",
            "factory.render",
            *flags.split(),
            "--modalities",
            "depth,normals,flow,tracks",
        ],
        folder,
    )
    assert rendered.returncode == 0, rendered.stderr
    (folder / "path or org").mkdir()
    for name in ("path", "path or URL", "path or org/name", "DATASET"):
        (folder / name).symlink_to(folder / "out/mv-video")
    return folder


def run_blocks(blocks: list[Snippet], folder: Path) -> str:
    """Run the blocks of a page in order in one namespace; return the error, or an empty string."""
    given = [("given", GIVEN.get(blocks[0].page, ""))]
    content = json.dumps(given + [(each.where, each.text) for each in blocks])
    result = run([sys.executable, "-P", "-c", RUN_BLOCKS], folder, content)
    return result.stderr[-3000:] if result.returncode else ""


def run_lines(commands: list[Snippet], folder: Path) -> list[str]:
    """Run command lines in order; return one message per failure."""
    failures = []
    for command in commands:
        text = command.text
        for word, value in PLACEHOLDERS.items():
            text = text.replace(word, value)
        argv = arguments_of(text) + [
            flag for key in command.names(SHORTENED) for flag in SHORTENED[key].split()
        ]
        result = run(argv, folder)
        if result.returncode:
            failures.append(f"{command.where}: {shlex.join(argv)}\n{result.stderr[-1500:]}")
    return failures


def selected(all_of: list[Snippet], page: str, slow: bool) -> list[Snippet]:
    return [
        each
        for each in all_of
        if each.page == page and not each.names(NOT_RUN) and (slow or not each.names(SLOW))
    ]


def pages_with(all_of: list[Snippet], slow: bool) -> list[str]:
    """Return pages with code to run; with `slow`, those with an entry of SLOW."""
    pages = dict.fromkeys(each.page for each in all_of)
    return [
        page
        for page in pages
        if selected(all_of, page, slow)
        and (not slow or any(e.names(SLOW) for e in selected(all_of, page, True)))
    ]


@pytest.mark.parametrize("page", pages_with(BLOCKS, slow=False))
def test_blocks_run(page, folder):
    assert run_blocks(selected(BLOCKS, page, slow=False), folder) == ""


@pytest.mark.parametrize("page", pages_with(COMMANDS, slow=False))
def test_commands_run(page, folder):
    assert run_lines(selected(COMMANDS, page, slow=False), folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(BLOCKS, slow=True))
def test_blocks_run_whole_pages(page, folder):
    if "local:" in "".join(each.text for each in selected(BLOCKS, page, slow=True)):
        publish = 'import zoo; zoo.publish("mvvdm/tiny", "local:mvvdm/tiny")'
        assert run([sys.executable, "-P", "-c", publish], folder).returncode == 0
    assert run_blocks(selected(BLOCKS, page, slow=True), folder) == ""


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(COMMANDS, slow=True))
def test_commands_run_whole_pages(page, folder):
    assert run_lines(selected(COMMANDS, page, slow=True), folder) == []


def test_a_wrong_block_or_command_fails(tmp_path):
    page = "```python\nvalue = 1\n```\n\n```python\nvalue.no_such_name\n```\n"
    page += "\n```sh\npython -m zoo info dimo/nobody\n```\n"
    assert "page.md:6: AttributeError" in run_blocks(snippets("page.md", page, PYTHON), tmp_path)
    (failure,) = run_lines(snippets("page.md", page, SHELL), tmp_path)
    assert failure.startswith("page.md:10")
