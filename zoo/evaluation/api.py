"""`evaluate`: a model under a protocol.

result = zoo.evaluate("dimo/kangaroo", "dimo-views", truth="truth")
result.mean("psnr")                # mean and 95 % interval over clips
result.save("metrics.json")
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from renderers.arguments import flag, shown
from renderers.files import file_path
from zoo.evaluation.bootstrap import interval
from zoo.evaluation.controls import fitness
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.protocol import Protocol, open_protocol
from zoo.evaluation.result import FORMAT, Result, rounded, seal
from zoo.evaluation.scores import METRICS, PairMetric, missing_backbone
from zoo.evaluation.tasks import (
    CONTROL,
    FITTER,
    Assignment,
    Measurement,
    Progress,
    Row,
    check_family,
    measured_code,
    task_of,
)


def evaluate(
    model: Any,
    protocol: str | os.PathLike[str] | Protocol,
    *,
    truth: str | os.PathLike[str] | None = None,
    baseline: Any | Sequence[Any] = (),
    own_truth: bool = False,
    home: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Measure a model as a protocol says, beside controls whose quality is known.

    Computed with one thread, on the CPU: the same arguments give the same bytes.

    Args:
        model: name of a model, or a loaded one.
        protocol: name of a protocol in the package, path of a .json file, or a `Protocol`.
        truth: folder of the true clips; the error of a missing one has the command that makes it.
        baseline: another model, or several, measured on the same clips.
        own_truth: accept a truth that differs from that of the protocol; the result has a protocol hash of its own.
        home: folder of the local registry.
        progress: called with clips done, their number, and the name of the next.

    Returns:
        The result.

    Raises:
        TruthError: the truth is missing, or another one than the protocol's.
        EvaluationError: the protocol does not exist, or the model cannot be measured with it.
        UnsupportedError: the model is of another family.
    """
    return evaluate_with_pictures(
        model, protocol, truth=truth, baseline=baseline, own_truth=own_truth, home=home, progress=progress
    )[0]


def evaluate_with_pictures(
    model: Any,
    protocol: str | os.PathLike[str] | Protocol,
    *,
    truth: str | os.PathLike[str] | None = None,
    baseline: Any | Sequence[Any] = (),
    own_truth: bool = False,
    home: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Result, Measurement]:
    """The result, and the measurement that can draw clips of the model. Arguments as of `evaluate`."""
    chosen = open_protocol(protocol)
    flag(own_truth, "evaluate: own_truth")
    home = None if home is None else file_path(home, "evaluate: home")
    if progress is not None and not callable(progress):
        raise TypeError(f"evaluate: progress: expected a function, got {shown(progress)}")
    folder = None if truth is None else file_path(truth, "evaluate: truth")
    if folder is not None and not folder.is_dir():
        raise EvaluationError(f"evaluate: truth: {folder} is not a folder; expected one with true clips")
    baselines = (
        [baseline] if isinstance(baseline, str) or not isinstance(baseline, Sequence) else list(baseline)
    )
    run = task_of(chosen)
    loaded, described = {}, []
    for each in [model, *baselines]:
        value, description = _load(each, chosen, home)
        label = description["name"]
        while label in loaded:  # a model against itself
            label += "'"
        loaded[label] = value
        described.append(description)
    report = progress or (lambda done, total, clip: None)
    assignment = Assignment(chosen, loaded, folder, report, home)
    with _one_thread():
        measurement = run(assignment, own_truth)
    return _result(measurement, described), measurement


def _load(model: Any, protocol: Protocol, home: str | os.PathLike[str] | None) -> tuple[Any, dict[str, Any]]:
    """A model of a family that the protocol evaluates, and its entry in results."""
    from zoo import hub, repository
    from zoo.families import family_of

    if isinstance(model, str) and model == FITTER:
        check_family(protocol, FITTER, FITTER)
        return model, {"name": FITTER, "family": FITTER, "weights": {}}
    if isinstance(model, str):
        info = hub.info(model, home=home)
        check_family(protocol, model, info.family)
        name = info.name.partition("@")[0].removeprefix("local:").removeprefix("bundled:")
        files = repository.read_manifest(info.folder)
        weights = {file: files[file]["sha256"] for file in sorted(files) if file.endswith(".safetensors")}
        loaded = hub.load(model, home=home)
        if hasattr(loaded, "set_progress_bar_config"):  # of diffusers: a bar per clip, over the clips' own
            loaded.set_progress_bar_config(disable=True)
        # Not the revision: it changes when a result is put beside the weights.
        return loaded, {"name": name, "family": info.family, "weights": weights}
    try:
        family = family_of(model)
    except Exception:
        raise EvaluationError(
            f"evaluate: model: expected the name of a model or a loaded one, got {shown(model)}"
        ) from None
    check_family(protocol, repr(model), family)
    return model, {"name": f"{family}/{getattr(model, 'object', 'unnamed')}", "family": family, "weights": {}}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are then added in the same order on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(measurement: Measurement, described: Sequence[dict[str, Any]]) -> Result:
    protocol = measurement.protocol
    known = _known_metrics(protocol)
    rows = [_row(row, protocol) for row in measurement.rows]
    content = {
        "format": FORMAT,
        "protocol": {"name": protocol.name, "version": protocol.version, "sha256": protocol.sha256},
        "model": described[0],
        "baselines": list(described[1:]),
        "object": measurement.object,
        "truth": measurement.truth,
        "primary": protocol.content["primary"],
        "metrics": {name: _metric(name, known[name], rows, protocol) for name in protocol.metrics},
        "rows": rows,
        "difference": _differences(measurement.rows, protocol),
        "environment": _environment(),
    }
    if code := measured_code(protocol, described[0]["family"]):
        content["code"] = code
    return seal(content)


def _known_metrics(protocol: Protocol) -> dict[str, PairMetric]:
    if protocol.content["task"] == "dimo-between":
        from zoo.evaluation.between import METRICS as own

        return own
    return METRICS


def _row(row: Row, protocol: Protocol) -> dict[str, Any]:
    values = {name: [rounded(value) for value in each] for name, each in row.values.items()}
    means = {name: _mean(each, protocol) for name, each in values.items()}
    return {"name": row.name, "role": row.role, "clips": row.clips, "values": values, "mean": means}


def _mean(values: Sequence[float | None], protocol: Protocol) -> list[float] | None:
    """Mean over the clips that have a score, and its interval; None without any."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    settings = protocol.content["bootstrap"]
    low, high = interval(present, **settings)
    return [float(f"{each:.6g}") for each in (sum(present) / len(present), low, high)]


def _metric(
    name: str, metric: PairMetric, rows: Sequence[Mapping[str, Any]], protocol: Protocol
) -> dict[str, Any]:
    settings = protocol.metrics[name]
    entry = {"better": metric.better, "unit": metric.unit, "digits": metric.digits, "about": metric.about}
    entry["settings"] = settings
    if reason := missing_backbone(name, settings):
        return entry | {"missing": _without_paths(reason), "fit": False, "reason": ""}
    means = {
        row["name"]: row["mean"][name][0]
        for row in rows
        if row["role"] == CONTROL and row["mean"].get(name) is not None
    }
    if all(row["mean"].get(name) is None for row in rows):
        return entry | {
            "missing": "not computed: the truth lacks what it compares",
            "fit": False,
            "reason": "",
        }
    verdict = fitness(means, protocol.order(name), metric.better, metric.show)
    return entry | {"fit": verdict.fit, "reason": verdict.reason}


def _without_paths(reason: str) -> str:
    """The first part of a sentence: the folder of this machine is no part of a result."""
    return reason.partition(" in /")[0]


def _differences(rows: Sequence[Row], protocol: Protocol) -> dict[str, Any]:
    """Baseline → metric → mean and interval of model minus baseline, over the clips that both have."""
    model, result = rows[0], {}
    for row in rows:
        if row.role != "baseline" or row.clips != model.clips:
            continue
        result[row.name] = {
            name: _mean(
                [
                    None if a is None or b is None else a - b
                    for a, b in zip(values, row.values[name], strict=True)
                ],
                protocol,
            )
            for name, values in model.values.items()
        }
    return result


def _environment() -> dict[str, str]:
    """Versions that scores may depend on in their last digits."""
    from importlib.metadata import version

    return {name: version(name) for name in ("menagerie4d", "numpy", "torch")}
