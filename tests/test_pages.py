"""Commands and Python blocks in README.md, docs/ and the generated cards run as written.

Every command line is parsed by its own command. Those not listed in `NOT_RUN` are also run: the lines and blocks of a
page in its order, in a folder that holds the files which the pages mention, and with a hub on the loopback interface
where a page publishes or loads. Lines that take long get the flags in `SHORTENED`, and run in the tests marked slow.
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
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import HubServer
from markdown_it import MarkdownIt

import zoo

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL, PYTHON = ("sh", "bash", "shell", "console"), ("python", "py")

# Part of a command line or Python block → why it is only parsed (a block: compiled, and its imports resolved).
NOT_RUN = {
    "python examples/": "tests/test_examples.py runs it",
    "make run": "installs system packages; it is run as a whole before a release",
    "make test ": "runs this test",
    "make install": "reinstalls the package that is being tested",
    "make arm-root": "downloads a Debian root folder",
    "make docs": "installs sphinx; tests/test_site.py builds the site",
    "make pictures": "needs the checkout; it is run when models change",
    "make check": "has its own place in continuous integration",
    "factory.view out/mv-video   ": "serves until it is stopped; tests/factory/test_view_browser.py runs it",
    "factory.view hub:org/mv-video": "serves until it is stopped",
    "rerender CLIP_ID": "its id is that of a clip of the reader; tests/factory/test_view.py runs such a command",
    "zoo view": "serves until it is stopped; tests/zoo/test_viewer_browser.py runs it",
    "make mutants": "applies its faults one by one, a quarter of an hour in all",
    "ray job submit": "needs a Ray cluster",
    "zipfile -e dist/": "needs a wheel; tests/cluster/test_hosts.py runs the recipe",
    "RAY_ADDRESS=host": "needs a Ray cluster",
    "factory.curate caption": "downloads a language model",
    "benchmarks.population --out FOLDER  ": "takes hours: 2 000 creatures",
    "FOLDER --paired": "takes hours: 2 000 creatures",
    "FOLDER -- --num-frames 16": "takes an hour: 2 000 creatures",
    "--source objaverse --animated": "needs the network",
    "objaverse-xl://github": "needs the network",
    "--renderer cpu --resolution 128 --out truth": "renders 1 GB of true clips",
    "--truth truth": "needs the true clips; tests/zoo/test_evaluation.py has small ones",
    'truth="truth"': "needs the true clips; tests/zoo/test_evaluation.py has small ones",
    "factory.animate": "animates for minutes; tests/factory/test_animate.py has a small model",
    "factory.evaluate": "needs the true clips; tests/factory/test_evaluate.py has small ones",
    "sketchfab://search": "needs the network and a token",
    "MVVDMPipeline.from_pretrained_parts()": "downloads 8 GB and needs a GPU",
    "animate3d_motion_modules.ckpt": "downloads the published weights",
    "--asset fox.glb": "generates videos for minutes",
    "data/motions/fox": "trains on the videos of the command above it",
    "--image otter.png": "downloads a video model",
    "load_video_model(": "downloads 24 GB and needs a GPU",
}
# Programs of docs/deploy.md, which need machines of their own: not run. Files that they name must exist, and commands
# of ours that they start are parsed.
DEPLOYING = ("docker", "kubectl", "ray", "sbatch", "export")
# Part of a command line → flags appended to it, so that it takes seconds.
SMALL = "--resolution 32 --num-frames 4 --views 4 --limit 1 --max-animations 1"
TINY_DIMO = (
    "--frames 4 --views 4 --heldout-views 1 --resolution 32 --points 64 --skip-heldout "
    "--set joint.steps=2 --set pretraining.steps=2 --set resolution=32 --set frames=4 --set views=4 "
    "--set joint.polish_steps=2 --set joint.surface_steps=2 "
    "--set pretraining.untracked_steps=0 --set joint.untracked_steps=0"
)
TINY_MVVDM = "--set plan.steps=1 --set plan.batch=2 --set autoencoder.steps=2 --set resolution=32"
SHORTENED = {
    "creatures://kangaroo models/knight.glb": TINY_DIMO,
    "creatures://kangaroo,creatures://bird": TINY_DIMO,
    "creatures://*?count=200": "--resolution 32 --num-frames 16 --limit 3 --max-animations 1",
    "train mvvdm --data out/clips": TINY_MVVDM,
    "--source models/ --out out/mine  ": SMALL,
    "--source models/ --out out/mine --dry-run": SMALL,
    "--source models/ --out out/depth": SMALL,
    "creatures://*?count=100": SMALL,
    "list.jsonl": SMALL,
    "factory.motions --objects": "--frames 4 --views 4 --heldout-views 1 --resolution 32 --points 64",
}
# Commands and blocks that take long or start Ray: run in the tests marked slow.
SLOW = (
    *SHORTENED,
    "zoo sample dimo/knight",  # needs the training above it
    "zoo animate",
    "plan_prompts(",  # loads a language model
    "zoo.animate(",
    "animation.save(",
    "zoo stills",
    "zoo sample dimo/kangaroo",
    "zoo render",
    "kangaroo.reconstruct(",  # fits a latent
    'zoo.load("mvvdm/tiny"',
    'zoo.load("local:mvvdm/tiny")',
    "factory.TrainingClips(",
    "factory.ray_dataset(",
    "MotionVideos.open(",
    'home="out/models"',  # needs the training above it
    "factory.publish",
    "org/mv-video",  # needs the publication above it
)
SLOW_PAGES = "docs/reference/"  # pages that run in the tests marked slow, whole
# Part of a command or block → what the tests run instead: names that the reader chooses, and sizes that take long.
REPLACED = {
    "takedown UID": "takedown creature-kangaroo-0",
    "/data/published/mv-video": "published/mv-video",
    "s3://bucket/thumbnails": "thumbnails",
    "report = run(": "from cluster import run_inline\nreport = run_inline(",  # the class is in no importable module
    "DIMOConfig.laptop()": (
        "DIMOConfig(key_points=12, gaussians=150, width=32, depth=3, skip=1, latent=4, frames=4, views=4, "
        "resolution=32, losses=LossWeights(lpips=0, ssim=0, depth=0, normal=0), "
        "pretraining=Pretraining(steps=2, batch=(2, 2, 2), resolutions=((0, 16),), initial='hull', "
        "alpha_only=True, densify_every=0, anneal_at=(), arap_from=0), "
        "joint=Joint(steps=2, batch=(2, 2, 2), resolutions=((0, 16),)), "
        "fit=LatentFit(steps=2, batch=(2, 2), resolutions=((0, 32),)))"
    ),
}
# Page → code that defines the names that its blocks use and its text introduces.
GIVEN = {
    "docs/cluster.md": (
        "import hashlib\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "paths = ['fox.glb', 'dragon.glb']\n"
        "file_sha256 = lambda path: hashlib.sha256(path.encode()).hexdigest()  # the test's files are equal\n"
        "open_renderer = lambda: SimpleNamespace(draw=lambda path: b'a picture' if 'fox' in path else None)\n"
    ),
    "docs/dataset.md": "checkpoint = {}",
    "docs/reference/dataset.md": "import os; os.environ['HF_HUB_OFFLINE'] = '1'",  # no retries
    "docs/dimo.md": "from zoo.dimo.config import Joint, LatentFit, LossWeights, Pretraining",
    "docs/motions.md": (
        "import numpy as np\n"
        "from renderers.cameras import orbit_cameras\n"
        "cameras = orbit_cameras(np.zeros(1), 0.2, 2.4, fov_y=0.7, width=32, height=32)\n"
        "frames = np.full((1, 4, 32, 32, 4), 255, np.uint8)\n"
    ),
    "docs/animate.md": (
        "import json\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from renderers.meshes import composite\n"
        "from renderers.video import encode_h264\n"
        "from zoo.animate3d import cameras_around, load_model, render_stills\n"
        "asset = load_model('dragon.glb').asset\n"
        "cameras = cameras_around(asset, size=64)\n"
        "Path('videos').mkdir()\n"
        "Path('videos/cameras.json').write_text(json.dumps(cameras.to_json()))\n"
        "import torch\n"
        "from renderers.gaussians import Gaussians, ply\n"
        "points = torch.from_numpy(asset.positions(None, 0.0) + asset.origin(None)).float()[None]\n"
        "some = points[:, :: 1 + points.shape[1] // 1500]\n"
        # Small beside the pixels of the videos: with 0.02, the silhouettes have twice the area of the mesh's.
        "size, count = 0.005 * float(points.amax() - points.amin()), some.shape[1]\n"
        "turns = torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4)\n"
        "sizes, solid, grey = torch.full((1, count, 3), size), torch.ones(1, count), torch.full((1, count, 3), 0.5)\n"
        "ply.write('dragon.ply', Gaussians(some, turns, sizes, solid, colors=grey))\n"
        "for view, still in enumerate(composite(render_stills(asset, cameras), 1.0)):\n"
        "    encode_h264(np.stack([still] * 4), 8, to=f'videos/view_{view:02d}.mp4')\n"
    ),
    "docs/mvvdm.md": 'import zoo; zoo.publish("mvvdm/tiny", "local:mvvdm/tiny")',
    "docs/zoo.md": 'import zoo; model = zoo.load("dimo/kangaroo")',
}
# Page → code that checks what the page says of its results.
THEN = {
    "docs/cluster.md": (
        "from cluster import Storage\n"
        "assert dict(report.counts) == {'done': 1, 'filtered': 1}, report\n"
        "assert len(list(Path('thumbnails').rglob('*.png'))) == 1\n"
    ),
}
# First words of a line that make a block of text a command or a program, which must be fenced as such.
CODE = re.compile(
    r"\s*(\$ |python3? |ray |make |menagerie |pip |uv |export |[A-Z_]+=\S+ |import |from \S+ import |zoo\.|factory\.)"
)

# Motions named in code, one or two at a time.
MOTIONS = (r'(?:\.motion\(|--motion )"([^"]*)"()', r'(?:\.interpolate\(|--between )"([^"]*)",? "([^"]*)"')

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
# Runs commands and blocks in order. `python -m zoo` runs in this process, which has imported torch already.
RUN_PAGE = """
import json, runpy, shlex, subprocess, sys, traceback
space = {"__name__": "page"}
for where, code in json.load(sys.stdin):
    try:
        if isinstance(code, str):
            exec(compile(code, where, "exec"), space)
        elif code[:3] == ["python", "-m", "zoo"]:
            sys.argv = code[2:]
            try:
                runpy.run_module("zoo", run_name="__main__")
            except SystemExit as end:
                assert not end.code, f"{shlex.join(code)}: exit code {end.code}"
        else:
            done = subprocess.run(code, capture_output=True, text=True)
            assert not done.returncode, f"{shlex.join(code)}: {done.stdout[-500:]} {done.stderr[-1500:]}"
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{where}: {type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Snippet:
    """A command line or a Python block, and its location."""

    where: str
    text: str
    is_python: bool

    @property
    def page(self) -> str:
        return self.where.rpartition(":")[0]

    def names(self, table) -> list[str]:
        return [key for key in table if key in self.text]


def snippets(page: str, markdown: str, kinds: tuple[str, ...] = (*SHELL, *PYTHON)) -> list[Snippet]:
    """Return fenced blocks of the given languages; for shell blocks, each command line with its continuations."""
    result = []
    for token in MarkdownIt().parse(markdown):
        language = token.info.strip().split(" ")[0]
        if token.type != "fence" or language not in kinds:
            continue
        line = token.map[0] + 2
        if language in PYTHON:
            result.append(Snippet(f"{page}:{line}", token.content, True))
            continue
        for text in re.sub(r"\\\n\s*", " ", token.content).splitlines():
            if text.strip() and not text.lstrip().startswith("#"):
                result.append(Snippet(f"{page}:{line}", text, False))
            line += 1
    return result


def unfenced(page: str, markdown: str) -> list[str]:
    """Lines of code in blocks that are neither shell nor Python, which no test would run."""
    return [
        f"{page}:{token.map[0] + 1}: {line.strip()}"
        for token in MarkdownIt().parse(markdown)
        if token.type in ("fence", "code_block") and token.info.strip().split(" ")[0] not in (*SHELL, *PYTHON)
        for line in token.content.splitlines()
        if CODE.match(line)
    ]


ALL = [each for page in PAGES for each in snippets(page.relative_to(ROOT).as_posix(), page.read_text())]
COMMANDS, BLOCKS = [each for each in ALL if not each.is_python], [each for each in ALL if each.is_python]


class Parsed(Exception):
    """Raised when the arguments of a command were parsed successfully."""


def arguments_of(text: str) -> list[str]:
    """Split a command line, without comment and environment; for a Ray job, return the command that it submits."""
    words = shlex.split(text, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[:3] == ["ray", "job", "submit"]:
        return words[words.index("--") + 1 :]
    if words[:2] == ["ray", "exec"]:
        return arguments_of(words[-1])
    if words[:1] == ["sbatch"]:
        return words[words.index("python") :]
    return words


def fault(text: str, monkeypatch, capsys) -> str:
    """Return why a command line is not accepted, or an empty string."""
    missing = [path for path in re.findall(r"cluster/deploy/[\w.-]+", text) if not (ROOT / path).is_file()]
    if missing:
        return f"no file {missing}"
    words = arguments_of(text)
    if words[0] in DEPLOYING:
        return ""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if set(words[1:]) <= set(targets) else f"make has no target {words[1:]}"
    if words[0] == "python" and words[1].endswith(".py"):
        return "" if (ROOT / words[1]).is_file() else f"no file {words[1]}"
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
        ("python examples/0_nothing.py", "no file"),
        ("kubectl apply -f cluster/deploy/rayjobs.yaml", "no file"),
        ("ray exec cluster.yaml 'RAY_ADDRESS=auto python -m factory.render --ot x'", "SystemExit"),
        ("sbatch --array=0-1 run.sh python -m factory.render --ot x", "SystemExit"),
    ],
)
def test_a_wrong_command_line_is_reported(line, expected, monkeypatch, capsys):
    (command,) = snippets("page.md", f"Text.\n\n```sh\n{line}\n```\n", SHELL)
    assert expected in fault(command.text, monkeypatch, capsys)


@pytest.mark.parametrize("table", ["NOT_RUN", "SHORTENED", "SLOW", "REPLACED"])
def test_no_entry_of_a_table_is_stale(table):
    missing = [key for key in globals()[table] if not any(key in each.text for each in ALL)]
    assert missing == []


def motions_in(text: str) -> list[str]:
    return [name for pattern in MOTIONS for pair in re.findall(pattern, text) for name in pair if name]


@pytest.mark.parametrize("each", [each for each in ALL if motions_in(each.text)], ids=lambda each: each.where)
def test_motions_that_are_named_exist(each):
    named = motions_in(each.text)
    config = json.loads((zoo.info("bundled:dimo/kangaroo").folder / "config.json").read_bytes())
    assert set(named) <= {*config["init"]["motions"], *config["init"]["sentences"]}


def test_names_of_motions_are_seen():
    text = 'x.motion("a"); x.interpolate("b", "c", steps=5)\nzoo sample x --motion "d" --between "e f" "g"'
    assert sorted(motions_in(text)) == ["a", "b", "c", "d", "e f", "g"]


def test_every_line_of_code_is_in_a_block_that_is_tested():
    assert [
        line for page in PAGES for line in unfenced(page.relative_to(ROOT).as_posix(), page.read_text())
    ] == []


@pytest.mark.parametrize(
    "line", ["python -m zoo list", "export A=1", "RAY_ADDRESS=x python", "import zoo", "zoo.load(1)"]
)
def test_a_line_of_code_outside_of_a_tested_block_is_seen(line):
    found = [f"page.md:3: {line}"]
    assert (
        unfenced("page.md", f"Text:\n\n    {line}\n")
        == unfenced("page.md", f"Text:\n\n```\n{line}\n```\n")
        == found
    )
    assert unfenced("page.md", f"```sh\n{line}\n```\n\n    data/ folder of {line}\n") == []


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


def run(
    argv: list[str], folder: Path, stdin: str = "", seconds: float = 900, hub: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run a program in a folder; `hub` is the environment of a `HubServer`, instead of no hub."""
    binaries = Path(sys.executable).parent
    environment = {
        **(os.environ if hub is None else hub),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MENAGERIE_HOME": str(folder / "home"),
    }
    return subprocess.run(
        argv, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=seconds
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Create the files that the pages assume: a dataset, models, splats."""
    folder = tmp_path_factory.mktemp("pages")
    prepared = run([sys.executable, "-P", "-c", PREPARE], folder)
    assert prepared.returncode == 0, prepared.stderr
    command = "python -P -m factory.render --source creatures://kangaroo --out out/mv-video --resolution 32 --limit 2"
    command += " --max-animations 2 --workers 0 --modalities depth,normals,flow,tracks"
    rendered = run(command.split(), folder)
    assert rendered.returncode == 0, rendered.stderr
    return folder


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    """A copy of the files for one page, with the dataset under each name used."""
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder)
    (folder / "path or org").mkdir()
    (folder / "path/or/org").mkdir(parents=True)
    shutil.copytree(folder / "out/mv-video/data", folder / "path/data")
    for name in ("path or URL", "path or org/name", "path/or/org/name"):
        (folder / name).symlink_to(folder / "out/mv-video")
    for name in ("DATASET", "folder"):  # these are changed or published
        shutil.copytree(folder / "out/mv-video", folder / name)
    return folder


def run_page(page: list[Snippet], folder: Path, hub: dict[str, str] | None = None) -> str:
    """Run commands and blocks in order, blocks in one namespace; return the error, or an empty string."""
    program: list[tuple[str, str | list[str]]] = []
    for each in page:
        text = each.text
        for part, value in REPLACED.items():
            text = text.replace(part, value)
        flags = [flag for key in each.names(SHORTENED) for flag in SHORTENED[key].split()]
        program.append((each.where, text if each.is_python else arguments_of(text) + flags))
    given, then = (("before", GIVEN.get(page[0].page, "")), ("after", THEN.get(page[0].page, "")))
    result = run([sys.executable, "-P", "-c", RUN_PAGE], folder, json.dumps([given, *program, then]), hub=hub)
    return result.stderr[-3000:] if result.returncode else ""


def selected(page: str, slow: bool) -> list[Snippet]:
    return [
        each
        for each in ALL
        if each.page == page
        and not each.names(NOT_RUN)
        and each.text.split()[0] not in DEPLOYING
        and (slow or not (each.names(SLOW) or page.startswith(SLOW_PAGES)))
    ]


def pages_with_code(slow: bool) -> list[str]:
    """Return pages with code to run; with `slow`, those with an entry of SLOW."""
    pages = dict.fromkeys(each.page for each in ALL)
    return [
        page
        for page in pages
        if selected(page, slow) and (not slow or len(selected(page, True)) > len(selected(page, False)))
    ]


def uses_hub(page: list[Snippet]) -> bool:
    return any(word in each.text for each in page for word in ("hub:", "hf://", '"org/'))


def check_page(page: list[Snippet], folder: Path, tmp_path: Path) -> None:
    if not uses_hub(page):
        assert run_page(page, folder) == ""
        return
    with HubServer(tmp_path / "hub") as server:
        assert run_page(page, folder, server.environment(tmp_path / "hub home")) == ""


@pytest.mark.parametrize("page", pages_with_code(slow=False))
def test_a_page_runs(page, folder, tmp_path):
    check_page(selected(page, slow=False), folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_code(slow=True))
def test_a_whole_page_runs(page, folder, tmp_path):
    check_page(selected(page, slow=True), folder, tmp_path)


def test_a_wrong_block_or_command_fails(tmp_path):
    page = "```python\nvalue = 1\n```\n\n```python\nvalue.no_such_name\n```\n"
    assert "page.md:6: AttributeError" in run_page(snippets("page.md", page), tmp_path)
    for line in ("python -m zoo info dimo/nobody", "python -m factory.curate report --data nowhere"):
        text = run_page(snippets("page.md", f"```python\nvalue = 1\n```\n\n```sh\n{line}\n```\n"), tmp_path)
        assert f"page.md:6: AssertionError: {line}" in text


# --- generated cards -----------------------------------------------------------------------------------


def card_of(folder: Path) -> list[Snippet]:
    return snippets("card", (folder / "README.md").read_text())


@pytest.mark.parametrize("name", ["dimo/kangaroo", pytest.param("mvvdm/tiny", marks=pytest.mark.slow)])
def test_the_card_of_a_model_runs(name, folder):
    page = card_of(zoo.info(f"bundled:{name}").folder)
    assert len(page) == 1 and run_page(page, folder) == "" and (folder / "sample.mp4").exists()


@pytest.mark.slow
def test_the_card_of_a_dataset_runs(folder):
    page = card_of(folder / "out/mv-video")
    assert len(page) == 2 and run_page(page, folder) == ""


@pytest.mark.slow
def test_the_cards_on_the_hub_run(folder, tmp_path):
    """Also without the hub, after two configurations of the dataset were loaded."""
    with HubServer(tmp_path / "hub") as server:
        hub = server.environment(tmp_path / "hub home")
        publish = "python -m factory.publish folder --to hub:org/mv-video\npython -m zoo publish dimo/fox hub:org/fox\n"
        assert run_page(snippets("page.md", f"```sh\n{publish}```\n"), folder, hub) == ""
        fetch = (
            "import pathlib, huggingface_hub\n"
            "for kind, name in (('dataset', 'org/mv-video'), ('model', 'org/fox')):\n"
            "    path = huggingface_hub.hf_hub_download(name, 'README.md', repo_type=kind)\n"
            "    pathlib.Path(kind).mkdir()\n"
            "    pathlib.Path(kind, 'README.md').write_bytes(pathlib.Path(path).read_bytes())\n"
        )
        assert run_page([Snippet("fetch:1", fetch, True)], folder, hub) == ""
        dataset, model = card_of(folder / "dataset"), card_of(folder / "model")
        assert "hf://datasets/org/mv-video" in dataset[1].text and '"preview"' in dataset[0].text
        assert 'zoo.load("hub:org/fox")' in model[0].text
        load = "import datasets\ndatasets.load_dataset('org/mv-video', 'default', split='train')\n"
        assert run_page([*dataset, *model, Snippet("load:1", load, True)], folder, hub) == ""
    offline = hub | {"HF_HUB_OFFLINE": "1"}
    assert run_page([dataset[0], *model], folder, offline) == ""
    unnamed = dataset[0].text.replace('"default", ', "")
    assert "configurations in the cache" in run_page([Snippet("unnamed:1", unnamed, True)], folder, offline)
