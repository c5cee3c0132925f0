"""Entries of the public names of a package, from their docstrings.

In a page, a fence lists names, which the build replaces by their entries:

    ```{names} zoo
    load
    list_models
    ```

Each entry has an anchor, such as `zoo.load`. docs/reference/*.md have an example for every name, which the tests run.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

FENCE = re.compile(r"^```\{names\} (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"(Args|Arguments|Returns|Raises|Attributes|Yields|Warns|Notes?|Examples?):\s*$")
TABLE = re.compile(r"\S.* {2,}\S")


def entries(package: str, names: list[str]) -> str:
    """Return the entries as reStructuredText."""
    lines = [f".. currentmodule:: {package}", ""]
    for name in names:
        value = _value(package, name)
        home = getattr(value, "__module__", "") or ""
        parent = package.split(".")[0]
        if (
            package != parent
            and name in importlib.import_module(parent).__all__
            and value is _value(parent, name)
        ):
            kind = "class" if inspect.isclass(value) else "function"
            lines += [
                f".. py:{kind}:: {name}",
                "",
                f"   The same as :py:obj:`{parent}.{name}`.",
                "",
            ]
            continue
        if inspect.ismodule(value):
            anchor = f"{package}.{name}"  # Sphinx's own for a module is module-…
            lines += [".. raw:: html", "", f'   <span id="{anchor}"></span>', ""]
            lines += [f".. py:module:: {anchor}", "", f"   {_first_line(value)}", ""]
            lines += [f".. currentmodule:: {package}", ""]  # of the entries that follow
        elif inspect.isclass(value):
            lines += [f".. autoclass:: {package}.{name}", "   :members:", ""]
        elif inspect.isfunction(value):
            lines += [f".. autofunction:: {package}.{name}", ""]
        else:  # a constant; its docstring would be that of its type
            text = repr(value) if len(repr(value)) <= 100 else f"{type(value).__name__} of {len(value)}"
            lines += [f".. py:data:: {name}", "", f"   ``{text}``", ""]
        if home.startswith(package.split(".")[0]) and home != package and not inspect.ismodule(value):
            lines += [f"   Defined in ``{home}``.", ""]
    return "\n".join(lines)


def _value(package: str, name: str) -> Any:
    """An attribute, or a submodule that is no attribute before its first import."""
    module = importlib.import_module(package)
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{package}.{name}")


def _first_line(value: Any) -> str:
    return (inspect.getdoc(value) or "").split("\n")[0]


def replace_fences(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the fences of a page by blocks of reStructuredText."""

    def block(match: re.Match[str]) -> str:
        return f"````{{eval-rst}}\n{entries(match[1], match[2].split())}\n````"

    source[0] = FENCE.sub(block, source[0])


def keep_layout(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Prepare a docstring: escape what is no markup here, and keep text that is laid out by its indentation.

    Runs before napoleon. Outside of sections such as "Args:", an indented paragraph is an example, and one whose first
    line has a gap of several spaces is a table; both become literal blocks.
    """
    result: list[str] = []
    section = False
    for paragraph in _paragraphs(lines):
        first = paragraph[0]
        if not first.startswith(" "):
            section = bool(SECTION.match(first))
        indented = first.startswith(" ")
        if not section and (indented or (TABLE.match(first) and len(paragraph) > 1)):
            result += ["::", "", *("    " + line for line in paragraph), ""]
        else:
            # A heading may follow text without an empty line between them.
            for line in paragraph:
                if SECTION.match(line):
                    section = True
                    result += [""] if result and result[-1] else []
                result.append(_escaped(line))
            result.append("")
    lines[:] = result


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Groups of lines between empty ones."""
    for filled, group in itertools.groupby(lines, key=lambda line: bool(line.strip())):
        if filled:
            yield list(group)


def _escaped(line: str) -> str:
    """Escape markup characters outside of `literals`; the star of a list stays."""
    bullet = re.match(r"\s*\* ", line)
    start = bullet.end() if bullet else 0
    parts = line[start:].split("`")
    parts[::2] = [re.sub(r"([*|\\])", r"\\\1", part) for part in parts[::2]]
    return line[:start] + "`".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", replace_fences)
    app.connect("autodoc-process-docstring", keep_layout, priority=100)  # before napoleon, which has 500
    return {"version": "1", "parallel_read_safe": True}
