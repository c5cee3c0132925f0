"""Protocols: what is measured, on which clips, and how, as JSON files with a hash.

A file has these keys:

    name, version   of the protocol; a change of any other key needs a new version
    about           one paragraph for readers
    task            which program runs it: a key of `zoo.evaluation.tasks.TASKS`
    truth           format of the true clips, and the command that makes them, with {source}, {object} and {folder}
    objects         object → {"source", "clips": {clip: SHA-256}}
    settings        of the task: views, frames, resolution, background, seeds …
    metrics         metric → settings
    controls        rows that every table has beside the model
    order           pairs of controls; the first must score better than the second (`zoo.evaluation.controls`), in
                    all metrics whose settings have no "order" of their own
    primary         the metric that orders clips and models
    bootstrap       samples, seed and level of the intervals

The hash is the SHA-256 of the canonical JSON of the whole content. It is part of every result, and only results with
the same hash are put into one table. For an object that a protocol does not list, `Protocol.with_object` gives a
protocol of its own with the clips of that object, and so with another hash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from renderers.arguments import shown
from zoo.evaluation.canonical import digest
from zoo.evaluation.errors import EvaluationError

KEYS = {
    "name": str,
    "version": int,
    "about": str,
    "task": str,
    "truth": dict,
    "objects": dict,
    "settings": dict,
    "metrics": dict,
    "controls": list,
    "order": list,
    "primary": str,
    "bootstrap": dict,
}
OWN = "+"  # between the name of a protocol and that of an object that it does not list


@dataclass(frozen=True)
class Protocol:
    """A protocol; `content` is that of its file.

    Raises:
        EvaluationError: a key is missing, unknown or of another type.
    """

    content: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.content, Mapping):
            raise EvaluationError(f"protocol: expected a JSON object, got {shown(self.content)}")
        name = self.content.get("name", "protocol")
        for key, kind in KEYS.items():
            value = self.content.get(key)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise EvaluationError(f"protocol {name}: {key}: expected {_NOUNS[kind]}, got {shown(value)}")
        if unknown := sorted(set(self.content) - set(KEYS)):
            raise EvaluationError(f"protocol {name}: unknown key {unknown[0]!r}; expected {', '.join(KEYS)}")
        controls = self.content["controls"]
        for metric, settings in self.content["metrics"].items():
            if not isinstance(settings, dict):
                raise EvaluationError(
                    f"protocol {name}: metrics: {metric}: expected an object, got {shown(settings)}"
                )
        for pair in [
            *self.content["order"],
            *(each for m in self.content["metrics"] for each in self.order(m)),
        ]:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not set(pair) <= set(controls):
                raise EvaluationError(
                    f"protocol {name}: order: expected pairs of its controls, got {shown(pair)}"
                )
        if self.content["primary"] not in self.content["metrics"]:
            raise EvaluationError(
                f"protocol {name}: primary: expected one of its metrics, got {self.content['primary']!r}"
            )

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Protocol({self.title!r}, {self.sha256[:12]}, metrics {', '.join(self.metrics)})"

    @property
    def name(self) -> str:
        return self.content["name"]

    @property
    def version(self) -> int:
        return self.content["version"]

    @property
    def title(self) -> str:
        """Name and version, e.g. "dimo-views v1"."""
        return f"{self.name} v{self.version}"

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return self.content["metrics"]

    def order(self, metric: str) -> list[tuple[str, str]]:
        """Pairs of controls; the first must have a better score in the metric than the second."""
        return [tuple(pair) for pair in self.metrics[metric].get("order", self.content["order"])]

    @property
    def settings(self) -> dict[str, Any]:
        return self.content["settings"]

    @cached_property
    def sha256(self) -> str:
        """Hash of the content."""
        return digest(self.content)

    def command(self, object_name: str, folder: str = "truth") -> str:
        """The command that makes the truth of an object below a folder."""
        source = self.content["objects"].get(object_name, {}).get("source", f"{object_name}.glb")
        fields = {"source": source, "object": object_name, "folder": folder, "protocol": self.name}
        return self.content["truth"]["command"].format(**fields)

    def with_object(self, object_name: str, clips: Mapping[str, str]) -> Protocol:
        """The protocol for an object that it does not list.

        Args:
            object_name: of the object; it becomes part of the protocol's name.
            clips: clip → SHA-256.
        """
        objects = {object_name: {"source": "", "clips": dict(clips)}}
        content = {**self.content, "name": f"{self.name}{OWN}{object_name}", "objects": objects}
        return Protocol(content)

    def of_object(self, object_name: str) -> dict[str, str] | None:
        """Clip → SHA-256 of an object; None if the protocol does not list it."""
        entry = self.content["objects"].get(object_name)
        return None if entry is None else entry["clips"]


_NOUNS = {str: "text", int: "an integer", dict: "an object", list: "a list"}


def protocols() -> list[str]:
    """Names of the protocols in the package, sorted."""
    return sorted(
        file.name.removesuffix(".json")
        for file in files("zoo").joinpath("protocols").iterdir()
        if file.name.endswith(".json")
    )


def open_protocol(name: str | os.PathLike[str] | Protocol) -> Protocol:
    """A protocol by the name of one in the package, or by the path of a .json file.

    Raises:
        EvaluationError: there is none, or the file is not a protocol.
    """
    if isinstance(name, Protocol):
        return name
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"protocol: expected a name, a .json file or a Protocol, got {shown(name)}")
    text = os.fspath(name)
    if text.endswith(".json"):
        source, where = Path(text), text
    else:
        source, where = files("zoo").joinpath("protocols", f"{text}.json"), text  # type: ignore[assignment]
        if text not in protocols():
            raise EvaluationError(
                f"protocol: there is no {text!r}; expected one of {', '.join(protocols())}, or a .json file"
            )
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"{where}: no such file; expected a protocol") from None
    except (ValueError, RecursionError):
        raise EvaluationError(f"{where}: not JSON; expected a protocol") from None
    return Protocol(content)
