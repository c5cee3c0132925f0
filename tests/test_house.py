"""The house: which package and room may import which, sizes, faces, and that the installed packages are what runs."""

from __future__ import annotations

import ast
import importlib
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


# --- rooms: which part of a package may know which ---------------------------------------------------------

# Bottom first: a room may import those above it in this list, never those below.
ROOMS = {
    "renderers": [
        {"arguments", "files", "fixed", "machine_code", "values"},
        {"background", "cameras", "fields", "kernel_archives", "kernel_cache", "simd", "video"},
        {"gltf", "yuv"},
        {"gaussians", "meshes"},
    ],
    "cluster": [
        {"arguments", "digests"},
        {"local_files"},
        {"data", "signals", "stage", "storage", "waiting"},
        {"address", "segments"},
        {"child", "ledger", "lock", "session"},
        {"progress"},
        {"backlog", "output", "status", "training", "worker"},
        {"inline", "metrics", "pool"},
        {"dispatch"},
    ],
    "zoo": [
        {"errors", "formats", "interrupts", "lazy", "licences", "seeds", "terminal", "threads"},
        {"card", "metrics", "snapshots", "weights"},
        {"capabilities", "console", "export", "names", "placement", "precision", "repository"},
        {"hub_access", "hub_failures", "notebook", "provenance"},
        {"origin", "text_encoder"},
        {"choices", "dimo", "families", "huggingface", "mvvdm"},
        {"listing", "lookup"},
        {"hub"},
        {"animate3d"},
        {"evaluation", "viewer"},
        {"commands"},
        {"__main__"},
    ],
    "factory": [
        {"console", "run_report"},
        {"assets"},
        {"sources", "dataset"},
        {"clips"},
        {"browser", "motion_videos"},
        {"animations", "generation"},
        {"training"},
        {"animate", "render", "motions", "train", "evaluate", "curate", "publish", "status", "view"},
        {"__main__"},
    ],
}
MOST_ROOMS, MOST_ARROWS = 21, 73  # at the top level of factory/


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module below a package."""
    names = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports_between(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module → modules of `files` that it imports anywhere: in functions and for type checkers too."""
    edges = {}
    for name, file in files.items():
        targets = set()
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    targets.add(submodule if submodule in files else node.module)
        edges[name] = {target for target in targets if target in files} - {name}
    return edges


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, directly or through others."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen, stack = set(), [start]
        while stack:
            for target in edges[stack.pop()]:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        reach[start] = seen
    groups = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in edges
        if name in reach[name]
    }
    return [set(group) for group in groups]


def arrows(edges: dict[str, set[str]], package: str) -> set[tuple[str, str]]:
    """Imports between rooms, the parts directly below a package."""
    pairs = set()
    for name, targets in edges.items():
        for target in targets:
            rooms = [each.split(".")[1] for each in (name, target) if each != package]
            if len(rooms) == 2 and rooms[0] != rooms[1]:
                pairs.add((rooms[0], rooms[1]))
    return pairs


def upward(pairs: set[tuple[str, str]], layers: list[set[str]]) -> list[str]:
    """Sentences about rooms that import one of their own layer or of a higher one."""
    level = {room: index for index, layer in enumerate(layers) for room in layer}
    return [f"{a} imports {b}" for a, b in sorted(pairs) if level[b] >= level[a]]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_module_imports_itself_through_others(package):
    assert circles(imports_between(modules(package_root(package)))) == []


@pytest.mark.parametrize("package", ROOMS)
def test_lower_rooms_do_not_import_higher_ones(package):
    files = modules(package_root(package))
    pairs = arrows(imports_between(files), package)
    rooms = {name.split(".")[1] for name in files if name != package}
    assert rooms == set().union(*ROOMS[package]), "each room has a layer in ROOMS"
    assert upward(pairs, ROOMS[package]) == []
    if package == "factory":
        assert len(rooms) <= MOST_ROOMS and len(pairs) <= MOST_ARROWS


def plant(root: Path, **files: str) -> dict[str, set[str]]:
    """A package `house` with these modules (`assets__record` is assets/record.py), and its imports."""
    for name, text in files.items():
        file = root / "house" / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return imports_between(modules(root / "house"))


def test_a_planted_circle_is_seen(tmp_path):
    late = "def late():\n    from house.dataset import reader\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.clips\n"
    edges = plant(tmp_path, assets=late, dataset__reader="from house.clips import plan", clips=typed)
    assert circles(edges) == []  # assets → dataset.reader → clips → nothing else
    edges = plant(tmp_path, clips="from house import assets")
    assert circles(edges) == [{"house.assets", "house.dataset.reader", "house.clips"}]


def test_a_planted_upward_import_is_seen(tmp_path):
    edges = plant(
        tmp_path, assets__record="from house.clips import plan", clips__plan="import house.assets.record"
    )
    assert upward(arrows(edges, "house"), [{"assets"}, {"clips"}]) == ["assets imports clips"]
    assert upward(arrows(edges, "house"), [{"assets", "clips"}]) == [
        "assets imports clips",
        "clips imports assets",
    ]


# --- sizes ---------------------------------------------------------------------------------------------

MOST_LINES, MOST_FUNCTION_LINES, LEAST_ANNOTATED = 450, 60, 0.95
# Compiled kernels, and the sources of shaders.
KERNELS = {
    "renderers/gaussians/kernels.py",
    "renderers/simd.py",
    "renderers/meshes/cpu/kernels.py",
    "renderers/meshes/cpu/light.py",
    "renderers/meshes/cpu/vectors.py",
    "factory/dataset/codecs/planes.py",
    "zoo/animate3d/kernels.py",
}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def oversized(root: Path) -> list[str]:
    """Sentences about files and functions over the limits."""
    faults = []
    for file in sorted(root.rglob("*.py")):
        name, text = file.relative_to(root.parent).as_posix(), file.read_text()
        if name in KERNELS:
            continue
        if (count := len(text.splitlines())) > MOST_LINES:
            faults.append(f"{name}: {count} lines")
        for function in _functions(ast.parse(text)):
            if (count := function.end_lineno - function.lineno + 1) > MOST_FUNCTION_LINES:
                faults.append(f"{name}:{function.lineno} {function.name}: {count} lines")
    return faults


def annotated(root: Path) -> tuple[int, int]:
    """How many arguments of functions are annotated, and how many there are, without `self` and kernels."""
    count = total = 0
    for file in root.rglob("*.py"):
        if file.relative_to(root.parent).as_posix() in KERNELS:
            continue
        for function in _functions(ast.parse(file.read_bytes())):
            spec = function.args
            arguments = [
                *spec.posonlyargs,
                *spec.args,
                *spec.kwonlyargs,
                *filter(None, (spec.vararg, spec.kwarg)),
            ]
            arguments = [each for each in arguments if each.arg not in ("self", "cls")]
            total += len(arguments)
            count += sum(each.annotation is not None for each in arguments)
    return count, total


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_and_functions_stay_readable(package):
    assert oversized(package_root(package)) == []


def test_arguments_are_annotated():
    counts = [annotated(package_root(package)) for package in MAY_IMPORT]
    share = sum(count for count, _ in counts) / sum(total for _, total in counts)
    assert share >= LEAST_ANNOTATED, f"{share:.1%}"


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "examples"])
def test_scripts_beside_the_packages_stay_readable(folder):
    """They are no packages and not installed: none has an __init__.py, and no package imports them."""
    root = Path(__file__).parents[1] / folder
    assert oversized(root) == [] and not list(root.rglob("__init__.py"))
    assert not [
        str(file)
        for package in MAY_IMPORT
        for file in package_root(package).rglob("*.py")
        if re.search(rf"^\s*(from|import) {folder}\b", file.read_text(), re.MULTILINE)
    ]


def test_a_long_function_and_a_bare_argument_are_seen(tmp_path):
    (tmp_path / "house").mkdir()
    body = "\n".join("    x = 1" for _ in range(MOST_FUNCTION_LINES))
    (tmp_path / "house" / "long.py").write_text(f"def long(a, b: int):\n{body}\n" + "\n" * MOST_LINES)
    assert len(oversized(tmp_path / "house")) == 2
    assert annotated(tmp_path / "house") == (1, 2)


def test_no_command_defines_what_its_workers_have_to_import():
    """Workers cannot import a stage or a training of the main script: such a command fails unless `--workers 0`."""
    from cluster import Stage
    from factory.__main__ import COMMANDS

    modules = [importlib.import_module(f"factory.{name}") for name in COMMANDS]
    own = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    assert own and not [each for each in own if issubclass(each, Stage)]


# --- faces ---------------------------------------------------------------------------------------------

FACES = (
    "renderers", "renderers.gltf", "renderers.meshes", "renderers.gaussians", "cluster",
    "zoo", "zoo.dimo", "zoo.mvvdm", "zoo.export", "zoo.export.html", "zoo.metrics", "zoo.evaluation",
    "zoo.viewer",
    "factory", "factory.animations", "factory.assets", "factory.browser", "factory.sources", "factory.dataset",
    "factory.dataset.codecs", "factory.dataset.pages", "factory.clips", "factory.motion_videos", "factory.generation",
    "factory.generation.judging", "factory.generation.prompting", "factory.generation.video_models",
    "factory.training", "factory.training.mvvdm",
)  # fmt: skip


@pytest.mark.parametrize("name", FACES)
def test_every_name_of_a_face_can_be_imported(name):
    module = importlib.import_module(name)
    assert module.__doc__ and module.__all__
    for public in module.__all__:  # a submodule is no attribute before its first import
        assert hasattr(module, public) or importlib.import_module(f"{name}.{public}")
    assert sorted(set(module.__all__)) == sorted(module.__all__)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_packages_are_typed(package):
    assert (package_root(package) / "py.typed").is_file()


# --- what runs is what was installed ------------------------------------------------------------------


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
