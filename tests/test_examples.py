"""The scripts and notebooks in examples/ run as written, one after another in one folder."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
QUICK = "1_sample_a_model.py"
# Files that each script writes, the last one being what it says to open.
WRITES = {
    "1_sample_a_model.py": (
        "motions/new.mp4",
        "motions/hop.glb",
        "motions/between-2.mp4",
        "motions/hop.html",
    ),
    "2_animate_a_mesh.py": ("animated/fox-looks-left.glb", "animated/fox-looks-left.mp4"),
    "3_render_your_models.py": ("clips/README.md", "clips/contact_sheet.png"),
    "4_read_a_dataset.py": ("clip.webp",),
    "5_train_a_motion_space.py": ("drop.mp4",),
    "6_evaluate_and_publish.py": (),
}
# Runs the code cells of a notebook in order, and shows the last expression of each as a notebook does.
RUN_NOTEBOOK = """
import ast, json, sys
space = {"__name__": "notebook"}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] != "code":
        continue
    tree = ast.parse("".join(cell["source"]))
    shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), space)
    if shown:
        value = eval(compile(ast.Expression(shown.value), f"cell {number}", "eval"), space)
        html = value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)
        print(json.dumps([number, type(value).__name__, html]))
"""


def run(folder: Path, *argv: str) -> str:
    environment = {**os.environ, "MENAGERIE_HOME": str(folder / "home"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-P", *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check_script(name: str, folder: Path) -> None:
    output = run(folder, str(EXAMPLES / name))
    opened = output.rstrip().splitlines()[-1].removeprefix("open ")
    assert (folder / opened).is_file()
    for file in WRITES[name]:
        assert (folder / "out/examples" / file).stat().st_size > 0
    assert not WRITES[name] or opened == f"out/examples/{WRITES[name][-1]}"


def test_a_script_runs(tmp_path):
    check_script(QUICK, tmp_path)
    assert len(list((tmp_path / "out/examples/motions").iterdir())) == 7


@pytest.mark.slow
def test_the_scripts_run_in_their_order(tmp_path):
    for name in SCRIPTS:
        check_script(name, tmp_path)


class Pictures(HTMLParser):
    def handle_starttag(self, tag, attrs):
        if tag == "img":
            assert dict(attrs)["src"].startswith("data:image/")
            self.count = getattr(self, "count", 0) + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown"),
    [("motions.ipynb", {"ModelNames": 6, "Motion": 1}), ("clips.ipynb", {"Clip": 1})],
)
def test_a_notebook_runs_and_shows_pictures(name, shown, tmp_path):
    pictures: dict[str, list[int]] = {}
    for line in run(tmp_path, "-c", RUN_NOTEBOOK, str(EXAMPLES / name)).splitlines():
        if line.startswith("["):
            _, kind, html = json.loads(line)
            parser = Pictures()
            parser.feed(html)
            pictures.setdefault(kind, []).append(getattr(parser, "count", 0))
    assert {kind: counts for kind, counts in pictures.items() if any(counts)}.keys() == shown.keys()
    assert all(set(pictures[kind]) == {count} for kind, count in shown.items())


def test_there_are_six_scripts_and_two_notebooks():
    assert list(WRITES) == SCRIPTS and len(SCRIPTS) == 6 and len(NOTEBOOKS) == 2
    page = (EXAMPLES.parent / "docs/examples.md").read_text()
    assert all(name in page for name in (*SCRIPTS, *NOTEBOOKS))


@pytest.mark.parametrize("name", [*SCRIPTS, *NOTEBOOKS])
def test_an_example_begins_with_what_it_shows_and_how_long_it_takes(name):
    text = (EXAMPLES / name).read_text()
    if name.endswith(".py"):
        text = ast.get_docstring(ast.parse(text))
    else:
        first = json.loads(text)["cells"][0]
        assert first["cell_type"] == "markdown"
        text = "".join(first["source"])
    assert re.search(r"Takes about (a minute|\d+ seconds)\.", text.replace("\n", " ")), text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_without_outputs(name):
    notebook = json.loads((EXAMPLES / name).read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            ast.parse("".join(cell["source"]))
