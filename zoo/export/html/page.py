"""The page around a scene: one HTML file that requests nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from zoo.export.html.arrays import pack, unpack
from zoo.terminal import printable

LONGEST_TEXT = 300  # characters of a title or a fact; the rest is cut off
# Browsers run only the script, and use only the style sheet, with these hashes: not even a text that was not escaped
# could add another. `default-src 'none'` forbids every request.
_POLICY = "default-src 'none'; img-src data:; script-src '{script}'; style-src '{style}'"


def write_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, object],
    renderer: Sequence[str],
    scene: dict[str, Any],
    arrays: dict[str, np.ndarray],
    differences: dict[str, int] | None = None,
) -> None:
    """Write a page that plays a scene.

    Args:
        path: of the file.
        title: of the page, any text.
        facts: shown below the title, label → value, any text.
        renderer: names of the scripts that draw the scene, such as "splats".
        scene: settings of the player and the renderer, JSON-serialisable.
        arrays: of the scene, see `zoo.export.html.arrays.pack`.
        differences: likewise.
    """
    description, block = pack(arrays, differences)
    script = "\n".join(_asset(f"{name}.js") for name in ("data", *renderer, "player"))
    style = _asset("page.css")
    fields = {
        "policy": _POLICY.format(script=_hash(script), style=_hash(style)),
        "title": escaped(title),
        "facts": "".join(
            f"<div><dt>{escaped(label)}</dt><dd>{escaped(value)}</dd></div>" for label, value in facts.items()
        ),
        "style": style,
        "script": script,
        "scene": _json({**scene, "arrays": description}),
        "block": block,
    }
    # One pass, so that a text with the name of a field in it is not replaced.
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], _asset("page.html"))
    path.write_text(text, encoding="utf-8", newline="\n")


def read_page(path: str | os.PathLike[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """Read the scene of a page: its settings, and its arrays as float64.

    Raises:
        ValueError: the file is not a page of `write_page`.
    """
    text = Path(path).read_text(encoding="utf-8")
    scene = re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.DOTALL)
    block = re.search(r'<script type="text/plain" id="block">(.*?)</script>', text, re.DOTALL)
    if scene is None or block is None:
        raise ValueError(f"{path}: expected a page written by this package, found no scene in it")
    settings = json.loads(scene[1])
    return settings, unpack(settings.pop("arrays"), block[1])


def plain(text: object) -> str:
    """A text of any origin on one line, of bounded length, with control and bidirectional characters escaped."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def escaped(text: object) -> str:
    """The same, as HTML."""
    return escape(plain(text))


def _asset(name: str) -> str:
    return files("zoo.export.html").joinpath(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(value: object) -> str:
    """JSON that cannot end the element it is in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
