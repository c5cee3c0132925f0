"""Package names that are imported on first use, so that importing a package does not import what it may not need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) for a package's `__init__.py`; at the top level, with `__version__`.

    Bind them under `if not TYPE_CHECKING`, since a type checker accepts any name of a module with `__getattr__`.

    Args:
        package: its `__name__`.
        homes: public name → module that defines it.
    """

    def getter(name: str) -> Any:
        if name == "__version__" and "." not in package:
            from importlib.metadata import version  # imports the packages for e-mail, which takes a while

            return version("menagerie4d")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    def names() -> list[str]:
        version = () if "." in package else ("__version__",)
        return sorted({*vars(sys.modules[package]), *homes, *version})

    return getter, names
