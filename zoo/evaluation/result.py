"""`Result`: the scores of a model under a protocol, as a file that shows whether it was altered."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderers.arguments import shown
from renderers.files import atomic_path
from zoo.evaluation.canonical import digest
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.protocol import OWN, Protocol, open_protocol, protocols
from zoo.evaluation.tasks import BASELINE, CONTROL, MODEL, measured_code

FORMAT = 1
DIGITS = 7  # significant digits of stored scores: more would differ between builds of numpy and torch


@dataclass(frozen=True)
class Result:
    """A result; `content` is that of its file.

    The content has: format; protocol {name, version, sha256}; model {name, family, weights: {file: SHA-256}};
    baselines, the same of each; object; truth {clip: SHA-256}; primary; metrics {name: {better, unit, digits, about,
    fit, reason}, or {missing}}; rows [{name, role, clips: [name], values: {metric: [score of each clip]}, mean:
    {metric: [mean, low, high]}}]; difference {baseline: {metric: [mean, low, high]}} of paired clips; environment;
    code {name: version}, of tasks that measure code of this package, not only weights; and sha256, the hash of all
    the rest.
    """

    content: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        name = self.primary
        mean = self.mean(name)
        text = "not computed" if mean is None else f"{mean[0]:.4g} [{mean[1]:.4g}, {mean[2]:.4g}]"
        return f"Result({self.model!r}, {self.protocol['name']!r}, {name} {text}, {len(self.clips)} clips)"

    @property
    def sha256(self) -> str:
        return self.content["sha256"]

    @property
    def protocol(self) -> dict[str, Any]:
        """Name, version and SHA-256 of the protocol."""
        return self.content["protocol"]

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.content["model"]["name"]

    @property
    def object(self) -> str:
        return self.content["object"]

    @property
    def primary(self) -> str:
        return self.content["primary"]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return self.content["metrics"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.content["rows"]

    @property
    def clips(self) -> list[str]:
        """Names of the clips of the model's first row."""
        return self.rows[0]["clips"]

    def row(self, name: str) -> dict[str, Any]:
        """A row by its name.

        Raises:
            EvaluationError: there is none.
        """
        for row in self.rows:
            if row["name"] == name:
                return row
        raise EvaluationError(
            f"{self!r}: no row {name!r}; it has {', '.join(row['name'] for row in self.rows)}"
        )

    def mean(self, metric: str, row: str | None = None) -> tuple[float, float, float] | None:
        """Mean and interval of a metric; None if it was not computed.

        Args:
            metric: its name.
            row: name of a row; None = the model's first.
        """
        values = (self.rows[0] if row is None else self.row(row))["mean"].get(metric)
        return None if values is None else (values[0], values[1], values[2])

    def fit(self, metric: str) -> bool:
        """Whether a metric ranks the controls as it should."""
        return bool(self.metrics[metric].get("fit"))

    def summary(self) -> dict[str, float]:
        """Metric → mean of the model's first row."""
        return {name: mean[0] for name in self.metrics if (mean := self.mean(name)) is not None}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result as JSON; the same result gives the same bytes."""
        path = Path(path)
        with atomic_path(path) as part:
            part.write_bytes(self.to_bytes())
        return path

    def to_bytes(self) -> bytes:
        """The content of the result's file."""
        text = json.dumps(self.content, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")


def seal(content: Mapping[str, Any]) -> Result:
    """The result of a content, with its hash."""
    body = {key: value for key, value in content.items() if key != "sha256"}
    return Result({**body, "sha256": digest(body)})


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a result's file.

    Raises:
        EvaluationError: it is not a result, or it was altered.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise EvaluationError(f"{path}: not JSON; expected a result of python -m zoo evaluate") from None
    return checked(content, os.fspath(path))


def checked(content: Any, where: str) -> Result:
    """A result from its content.

    Args:
        content: from a file, of any origin.
        where: named in errors.

    Raises:
        EvaluationError: it has another form, or its hash is not that of its content.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("sha256"), str):
        raise EvaluationError(f"{where}: expected a result of python -m zoo evaluate, got {shown(content)}")
    if content.get("format") != FORMAT:
        raise EvaluationError(
            f"{where}: format {content.get('format')!r} of results, expected {FORMAT}; upgrade menagerie4d"
        )
    body = {key: value for key, value in content.items() if key != "sha256"}
    try:
        actual = digest(body)
    except ValueError as error:
        raise EvaluationError(f"{where}: not a result: {error}") from None
    if actual != content["sha256"]:
        raise EvaluationError(
            f"{where}: this result was altered: its content has the hash {actual[:12]}, it states "
            f"{content['sha256'][:12]}; evaluate the model again"
        )
    _check_form(content, where)
    return Result(content)


def _check_form(content: Mapping[str, Any], where: str) -> None:
    """Check the types that readers rely on; the hash proves consistency, not that the author used this program."""
    try:
        protocol, model, metrics = content["protocol"], content["model"], content["metrics"]
        texts = [protocol["name"], protocol["sha256"], model["name"], content["object"], content["primary"]]
        fine = all(isinstance(each, str) for each in texts) and isinstance(protocol["version"], int)
        fine &= (
            content["primary"] in metrics and isinstance(model["weights"], Mapping) and bool(content["rows"])
        )
        fine &= isinstance(content.get("code", {}), Mapping)
        for row in content["rows"]:
            fine &= row["role"] in (MODEL, BASELINE, CONTROL) and isinstance(row["name"], str)
            fine &= all(isinstance(clip, str) for clip in row["clips"])
            for name, mean in row["mean"].items():
                fine &= name in metrics and (mean is None or _is_interval(mean))
        for name, metric in metrics.items():
            fine &= isinstance(name, str) and ("missing" in metric or metric["better"] in ("higher", "lower"))
    except (KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise EvaluationError(
            f"{where}: expected a result of python -m zoo evaluate, some of its fields are wrong"
        )


def _is_interval(mean: Any) -> bool:
    return (
        isinstance(mean, list)
        and len(mean) == 3
        and all(isinstance(each, int | float) and math.isfinite(each) for each in mean)
    )


def protocol_status(result: Result) -> str:
    """How a result's protocol relates to the protocols installed here, as a sentence; "" if it is one of them."""
    name, version, sha256 = (result.protocol[key] for key in ("name", "version", "sha256"))
    known = _installed()
    if known.get(name.partition(OWN)[0]) is None:
        return f"protocol {name!r} is not in this package"
    if OWN in name:
        return f"on a truth of its own ({name.partition(OWN)[2]}), which the protocol does not list"
    if known[name].sha256 == sha256:
        return ""
    if known[name].version != version:
        return f"under version {version} of the protocol, this package has version {known[name].version}"
    return f"under another protocol of the name {name} (hash {sha256[:12]}, here {known[name].sha256[:12]})"


def code_status(result: Result) -> str:
    """Which code of this package was measured, as a sentence; "" if it is the present one.

    Results from before versions were recorded are of the first ones.
    """
    protocol = _installed().get(result.protocol["name"].partition(OWN)[0])
    present = measured_code(protocol, result.content["model"].get("family", "")) if protocol else {}
    stated = {**dict.fromkeys(present, "1"), **result.content.get("code", {})}
    changed = [
        f"version {stated[module]} of {module}, this package has version {version}"
        for module, version in present.items()
        if stated[module] != version
    ]
    return f"of {' and '.join(changed)}; evaluate it again" if changed else ""


def _installed() -> dict[str, Protocol]:
    return {name: open_protocol(name) for name in protocols()}


def rounded(value: float | None) -> float | None:
    """A score as it is stored."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def groups(results: list[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Results by the hash of their protocol; protocols by name and version, results by their first metric."""
    by_hash: dict[str, list[Result]] = {}
    for result in results:
        by_hash.setdefault(result.protocol["sha256"], []).append(result)
    order = sorted(
        by_hash, key=lambda sha: (by_hash[sha][0].protocol["name"], -by_hash[sha][0].protocol["version"], sha)
    )
    for sha in order:
        yield sha, sorted(by_hash[sha], key=_rank)


def _rank(result: Result) -> tuple[bool, float, str]:
    """Best first by the primary metric; results without it last."""
    mean, metric = result.mean(result.primary), result.metrics[result.primary]
    if mean is None:
        return True, 0.0, result.model
    return False, mean[0] if metric["better"] == "lower" else -mean[0], result.model
