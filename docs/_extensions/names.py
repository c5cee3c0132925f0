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
import re
from typing import Any

from sphinx.application import Sphinx

FENCE = re.compile(r"^```\{names\} (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"(Args|Arguments|Returns|Raises|Attributes|Yields|Warns|Notes?|Examples?):\s*$")


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
                f".. py:{kind}:: {package}.{name}",
                "",
                f"   The same as :py:obj:`{parent}.{name}`.",
                "",
            ]
            continue
        if inspect.ismodule(value):
            lines += [f".. py:module:: {package}.{name}", "", f"   {_first_line(value)}", ""]
        elif inspect.isclass(value):
            lines += [f".. autoclass:: {package}.{name}", "   :members:", ""]
        elif inspect.isfunction(value):
            lines += [f".. autofunction:: {package}.{name}", ""]
        else:  # a constant; its docstring would be that of its type
            text = repr(value) if len(repr(value)) <= 100 else f"{type(value).__name__} of {len(value)}"
            lines += [f".. py:data:: {package}.{name}", "", f"   ``{text}``", ""]
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
    """Prepare a docstring: characters that are no markup here, and text that is laid out by its indentation.

    Runs before napoleon. A paragraph that is indented without a heading such as "Args:" above it is a table or an
    example, and becomes a literal block.
    """
    result: list[str] = []
    section, literal = False, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            section, literal = bool(SECTION.match(line)), False
        if line.strip() and indent and not section and not literal:
            result += ["", "::", ""]
            literal = True
        if not literal:
            line = re.sub(r"(?<!`)([*|\\])", r"\\\1", line) if "`" not in line else _outside_literals(line)
        result.append(line)
    lines[:] = result


def _outside_literals(line: str) -> str:
    """Escape markup characters outside `literals`; a reference's trailing underscore too."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*|\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", replace_fences)
    app.connect("autodoc-process-docstring", keep_layout, priority=100)  # before napoleon, which has 500
    return {"version": "1", "parallel_read_safe": True}
