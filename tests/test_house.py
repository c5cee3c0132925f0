"""Which package may know which, and that what runs is what was installed."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# What of ours each package may import beside itself; only `cluster` may import Ray.
MAY_IMPORT = {
    "renderers": set(),
    "cluster": set(),
    "zoo": {"renderers"},
    "factory": {"renderers", "cluster", "zoo"},
}
# Neither Ray nor a graphics library is needed to load a model.
HEAVY = ("ray", "bpy", "moderngl", "OpenGL", "pyrender", "gsplat")


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level name and line of every absolute import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0], node.lineno


def violations(package: str, root: Path) -> list[str]:
    """Sentences about imports in `root` that `package` may not have."""
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    if package != "cluster":
        forbidden.add("ray")
    return [
        f"{file.relative_to(root.parent)}:{line} imports {name}"
        for file in sorted(root.rglob("*.py"))
        for name, line in imported(ast.parse(file.read_bytes()))
        if name in forbidden
    ]


def package_root(name: str) -> Path:
    return Path(importlib.util.find_spec(name).origin).parent


def fresh(code: str, cwd: Path, *flags: str) -> str:
    """Standard output of a new interpreter."""
    command = [sys.executable, *flags, "-c", code]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_imports_only_what_it_may(package):
    root = package_root(package)
    assert list(root.rglob("*.py"))
    assert violations(package, root) == []


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("renderers", "import zoo"),
        ("renderers", "def late():\n    from cluster.stage import Stage"),
        ("cluster", "import renderers.cameras as c"),
        ("zoo", "from factory import planning"),
        ("zoo", "if True:\n    import ray"),
        ("factory", "import importlib\nimportlib.import_module('ray.data')"),
    ],
)
def test_a_forbidden_import_is_seen(tmp_path, package, line):
    (tmp_path / package / "deep").mkdir(parents=True)
    (tmp_path / package / "deep" / "module.py").write_text(f"import numpy\nfrom . import ray\n{line}\n")
    assert len(violations(package, tmp_path / package)) == 1


@pytest.mark.parametrize("package", ["zoo", "renderers", "renderers.meshes", "renderers.gltf"])
def test_import_is_light(tmp_path, package):
    """Not even present: a finder that refuses them stands before all others."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is not on this machine")
sys.meta_path.insert(0, Refuse())
import {package}
torch = sys.modules.get("torch")
assert torch is None or not torch.cuda.is_initialized()
print(sorted(set({HEAVY!r}) & {{name.split(".")[0] for name in sys.modules}}))
"""
    assert fresh(code, tmp_path, "-P").strip() == "[]"


def test_the_check_for_light_imports_sees_a_heavy_one(tmp_path):
    with pytest.raises(AssertionError, match="No module named 'nothing_of_the_kind'"):
        fresh("import nothing_of_the_kind", tmp_path, "-P")


def test_the_installed_packages_are_used(tmp_path):
    """Names as common as `cluster` and `zoo` stand in many working directories; `-P` keeps those out."""
    for package in MAY_IMPORT:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    names = ", ".join(MAY_IMPORT)
    code = f"import {names}; print(*(m.__file__ for m in ({names})), sep='\\n')"
    installed = [Path(line) for line in fresh(code, tmp_path, "-P").split()]
    homes = {file.parent.parent.resolve() for file in installed}
    assert homes == {_home_of_the_distribution(tmp_path)}
    decoys = {Path(line).parent.parent.resolve() for line in fresh(code, tmp_path).split()}
    assert decoys == {tmp_path.resolve()}  # without -P


def _home_of_the_distribution(cwd: Path) -> Path:
    """Where pip says it put menagerie4d: site-packages, or the checkout for an editable install."""
    code = (
        "from importlib.metadata import distribution as d; m = d('menagerie4d'); "
        "print(m.locate_file('').resolve()); print(m.read_text('direct_url.json') or '{}')"
    )
    site, origin = fresh(code, cwd, "-P").splitlines()
    origin = json.loads(origin)
    if origin.get("dir_info", {}).get("editable"):
        return Path(origin["url"].removeprefix("file://")).resolve()
    return Path(site)


def test_constraints_are_pins_without_addresses():
    """Every line is name==version: no URL, no path, no index."""
    text = (Path(__file__).parents[1] / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pin = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+( ; [^/]+)?")
    assert [line for line in lines if not pin.fullmatch(line)] == []
    assert not re.search(r"https?:|file:|/|--index|@ ", text)
    names = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {"numpy", "torch", "ray", "datasets", "moderngl"} <= names


def test_every_requirement_is_pinned_where_it_is_installed():
    """A dependency that this environment has, has a pin of the same version."""
    text = (Path(__file__).parents[1] / "constraints.txt").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for requirement in importlib.metadata.requires("menagerie4d") or []:
        name = re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")
        if name != "menagerie4d":
            assert name in pins, f"{requirement} has no pin in constraints.txt"
