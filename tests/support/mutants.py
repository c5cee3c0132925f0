"""Mutation testing: apply each fault of `tests/mutations.toml` to a copy of the packages and require that a test fails.

    .venv/bin/python tests/support/mutants.py                   # all of them: `make mutants`
    .venv/bin/python tests/support/mutants.py --only kl-sign    # one; may be repeated

The installed packages are copied to a temporary folder that precedes them on the path of the tests. The tests that the
mutations name must pass on the unchanged copy; then each mutation is applied, and at least one of its tests must fail.
Exit codes: 0 if every mutant is killed or listed with the reason why it survives, 1 if not, 2 if the list is invalid.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "mutations.toml"
PACKAGES = ("renderers", "cluster", "zoo", "factory")
SECONDS = 300  # limit of one run of pytest, per test file
MOST_SURVIVORS = 3

# pytest's exit codes, and one for the limit of time
PASSED, FAILED, TIMED_OUT = 0, 1, -1


class InvalidMutation(Exception):
    """The list of mutations is invalid, or does not fit the sources."""


@dataclass(frozen=True)
class Mutation:
    """A fault, and the tests that notice it.

    Attributes:
        name: unique; the argument of `--only`.
        file: relative to the repository, such as "zoo/dimo/losses.py".
        old, new: text that occurs once in the file, and its replacement.
        reason: what goes wrong with it.
        tests: node ids of pytest, of which at least one must fail.
        survives: why no test can notice it; None if one must.
    """

    name: str
    file: str
    old: str
    new: str
    reason: str
    tests: tuple[str, ...]
    survives: str | None = None

    def apply(self, source: str) -> str:
        """Return the source with the fault.

        Raises:
            InvalidMutation: the old text is not in the file exactly once.
        """
        count = source.count(self.old)
        if count != 1:
            where = "is no longer" if count == 0 else f"occurs {count} times"
            raise InvalidMutation(
                f"{self.name}: the old text {where} in {self.file}; update the entry in {LIST.name}: {self.old!r}"
            )
        return source.replace(self.old, self.new)


def read_mutations(path: Path) -> list[Mutation]:
    """Read and check a list of mutations.

    Raises:
        InvalidMutation: an entry has unknown or missing fields, changes nothing, or shares its name with another one.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutation", [])
    required = {field.name for field in fields(Mutation)} - {"survives"}
    mutations = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name", f"entry {number}")
        if missing := required - entry.keys():
            raise InvalidMutation(f"{name}: {', '.join(sorted(missing))} missing in {path.name}")
        if unknown := entry.keys() - required - {"survives"}:
            raise InvalidMutation(f"{name}: unknown fields {', '.join(sorted(unknown))} in {path.name}")
        if entry["old"] == entry["new"] or not entry["tests"]:
            raise InvalidMutation(f"{name}: expected a replacement that differs, and at least one test")
        mutations.append(Mutation(**{**entry, "tests": tuple(entry["tests"])}))
    names = [mutation.name for mutation in mutations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidMutation(f"{path.name}: two entries are named {', '.join(twice)}")
    survivors = [mutation.name for mutation in mutations if mutation.survives]
    if len(survivors) > MOST_SURVIVORS:
        raise InvalidMutation(
            f"{path.name}: expected at most {MOST_SURVIVORS} survivors, got {', '.join(survivors)}; kill some of them"
        )
    return mutations


@dataclass(frozen=True)
class Tree:
    """A copy of the packages that tests import instead of the installed ones.

    Attributes:
        folder: contains the packages.
        root: repository, where the tests are run.
    """

    folder: Path
    root: Path = ROOT

    @classmethod
    def of_installed(cls, folder: Path) -> Tree:
        """Copy the installed packages."""
        for name in PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise InvalidMutation(f"{name} is not installed: run make install")
            shutil.copytree(Path(spec.origin).parent, folder / name)
        return cls(folder)

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Apply a mutation temporarily."""
        path = self.folder / mutation.file
        if not path.is_file():
            raise InvalidMutation(
                f"{mutation.name}: there is no {mutation.file}; update the entry in {LIST.name}"
            )
        source = path.read_text(encoding="utf-8")
        path.write_text(mutation.apply(source), encoding="utf-8")
        try:
            yield
        finally:
            # The file is newer than its byte code now, which is therefore no longer used.
            path.write_text(source, encoding="utf-8")

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        """Run tests on the packages as they are in this tree.

        Returns:
            pytest's exit code, or `TIMED_OUT`, and its output.
        """
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",  # byte code of a mutant must not survive it
            "OMP_NUM_THREADS": "1",
        }
        options = ["-q", "-x", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
        command = [sys.executable, "-P", "-m", "pytest", *options]
        limit = SECONDS * len({test.partition("::")[0] for test in tests})
        try:
            result = subprocess.run(
                [*command, *tests],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return TIMED_OUT, f"still running after {limit} s"
        return result.returncode, result.stdout + result.stderr


def check_unchanged(tree: Tree, mutations: Sequence[Mutation]) -> None:
    """Check that all mutations fit the sources and that their tests pass without them.

    Raises:
        InvalidMutation: one does not.
    """
    for mutation in mutations:
        with tree.mutated(mutation):
            pass
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    code, output = tree.run(tests)
    if code != PASSED or " skipped" in output.splitlines()[-1]:
        raise InvalidMutation(f"the named tests do not all pass on the unchanged packages:\n{output[-3000:]}")


def verdict(tree: Tree, mutation: Mutation) -> str:
    """Run the tests of one mutant: "killed", "survived", "survives" if that is expected, or "unlisted kill".

    Raises:
        InvalidMutation: pytest could not run the tests, for instance because the mutant cannot be imported.
    """
    with tree.mutated(mutation):
        code, output = tree.run(mutation.tests)
    if code not in (PASSED, FAILED):
        raise InvalidMutation(f"{mutation.name}: pytest ended with code {code}:\n{output[-3000:]}")
    if mutation.survives:
        return "survives" if code == PASSED else "killed, but listed as a survivor"
    return "killed" if code == FAILED else "SURVIVED"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Apply known faults one by one; each must fail a test.")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="run this mutation only; repeatable"
    )
    parser.add_argument(
        "--list", type=Path, default=LIST, metavar="FILE", help="mutations (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    try:
        mutations = read_mutations(args.list)
        if unknown := set(args.only) - {mutation.name for mutation in mutations}:
            raise InvalidMutation(f"--only: {args.list.name} has no mutation {', '.join(sorted(unknown))}")
        mutations = [mutation for mutation in mutations if not args.only or mutation.name in args.only]
        return run_mutations(mutations)
    except InvalidMutation as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def run_mutations(mutations: Sequence[Mutation]) -> int:
    """Run all mutations, print a table and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Tree.of_installed(Path(folder))
        check_unchanged(tree, mutations)
        wide = max((len(mutation.name) for mutation in mutations), default=0)
        results = []
        for mutation in mutations:
            started = time.monotonic()
            results.append(verdict(tree, mutation))
            seconds = time.monotonic() - started
            row = f"{mutation.name:{wide}}  {results[-1]:9} {seconds:5.1f} s  {mutation.file}: {mutation.reason}"
            print(row, flush=True)
    killed = results.count("killed")
    print(f"{killed} of {len(results)} killed, {results.count('survives')} listed as survivors")
    return 0 if killed + results.count("survives") == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
