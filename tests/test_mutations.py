"""The list of mutations fits the sources and the tests, and its runner tells killed mutants from survivors."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).parents[1]
MUTATIONS = mutants.read_mutations(mutants.LIST)


def test_sixty_faults_in_all_four_packages():
    assert len(MUTATIONS) >= 60
    assert {mutation.file.partition("/")[0] for mutation in MUTATIONS} == set(mutants.PACKAGES)
    assert all(mutation.reason for mutation in MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_its_file_and_names_existing_tests(mutation):
    """The mutated source is another valid program, so that tests fail for what it computes and not for its syntax."""
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    mutated = mutation.apply(source)
    assert mutated != source
    if mutation.file.endswith(".py"):
        compile(mutated, mutation.file, "exec")
    elif node := shutil.which("node"):
        subprocess.run([node, "--check", "-"], input=mutated, check=True, text=True, capture_output=True)
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert re.search(
            rf"^def {name.partition('[')[0]}\(", (ROOT / file).read_text(encoding="utf-8"), re.M
        ), test


# --- the runner, on a package of one function ----------------------------------------------------------


def entry(name: str = "sign", **changes: object) -> str:
    fields = {
        "name": name, "file": "zoo/total.py", "old": "a + b", "new": "a - b", "reason": "the sign",
        "tests": ["test_total.py::test_sum"],
    } | changes  # fmt: skip
    return "[[mutation]]\n" + "\n".join(f"{key} = {value!r}" for key, value in fields.items()) + "\n"


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Write a list of mutations and run it; returns the exit code."""
    package, tests = tmp_path / "installed" / "zoo", tmp_path / "repository"
    package.mkdir(parents=True)
    tests.mkdir()
    (package / "__init__.py").touch()
    (package / "total.py").write_text(
        "def total(a, b):\n    return a + b\n\n\ndef twice(a):\n    return 2 * a\n"
    )
    (tests / "test_total.py").write_text(
        "from zoo.total import total\n\n\ndef test_sum():\n    assert total(2, 3) == 5\n\n\n"
        "def test_false():\n    assert total(2, 3) == 6\n"
    )

    def of_installed(folder: Path) -> mutants.Tree:
        mutants.shutil.copytree(package, folder / "zoo")
        return mutants.Tree(folder, tests)

    monkeypatch.setattr(mutants.Tree, "of_installed", of_installed)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # quicker

    def run(*entries: str, only: tuple[str, ...] = ()) -> int:
        path = tmp_path / "list.toml"
        path.write_text("\n".join(entries))
        options = [part for name in only for part in ("--only", name)]
        return mutants.main(["--list", str(path), *options])

    yield run
    assert (package / "total.py").read_text().count("a + b") == 1  # only the copy was changed


def test_a_killed_mutant(listed, capsys):
    assert listed(entry()) == 0
    out = capsys.readouterr().out
    assert re.match(r"sign  killed +\d+\.\d s  zoo/total\.py: the sign\n1 of 1 killed", out)


def test_a_survivor_fails_unless_it_is_listed_with_the_reason(listed, capsys):
    unseen = entry("unseen", old="2 * a", new="3 * a")
    assert listed(entry(), unseen) == 1
    assert "unseen  SURVIVED" in capsys.readouterr().out
    explained = entry("unseen", old="2 * a", new="3 * a", survives="no test calls it")
    assert listed(unseen.replace("unseen", "other"), explained, only=("unseen",)) == 0
    assert "0 of 1 killed, 1 listed as survivors" in capsys.readouterr().out
    assert listed(entry(survives="it cannot be seen")) == 1  # but it can


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"old": "a * b"}, "sign: the old text is no longer in zoo/total.py; update the entry"),
        ({"old": "a"}, "the old text occurs"),
        ({"file": "zoo/sum.py"}, "there is no zoo/sum.py"),
        ({"tests": ["test_total.py::test_false"]}, "do not all pass on the unchanged packages"),
        ({"tests": ["test_total.py::test_gone"]}, "do not all pass on the unchanged packages"),
        ({"new": "a + b"}, "expected a replacement that differs"),
        ({"tests": []}, "at least one test"),
        ({"name": ""}, "reason missing"),
        ({"line": 3}, "unknown fields line"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_an_invalid_list_is_refused_with_a_sentence(listed, capsys, changes, words):
    text = entry(**changes)
    assert listed(text.replace("reason =", "# ") if "name" in changes else text) == 2
    assert words in capsys.readouterr().err


def test_names_are_unique_and_survivors_few(listed, capsys):
    assert listed(entry(), entry()) == 2
    assert "two entries are named sign" in capsys.readouterr().err
    assert listed(*(entry(str(number), survives="never called") for number in range(4))) == 2
    assert "expected at most 3 survivors, got 0, 1, 2, 3" in capsys.readouterr().err
    assert listed(entry(), only=("other",)) == 2
    assert "has no mutation other" in capsys.readouterr().err


def test_a_mutant_that_cannot_be_imported_is_an_error(listed, capsys):
    assert listed(entry(old="def total(a, b):", new="def sum(a, b):")) == 2
    assert "sign: pytest ended with code" in capsys.readouterr().err
