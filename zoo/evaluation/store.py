"""Where results are kept: in a registry, and in the metrics.json of models.

HOME/evaluations/<family>/<name>/<protocol>-<hash>/metrics.json, sheet.png     `python -m zoo evaluate`
metrics.json of a model: {"evaluations": {"<protocol>-<hash>": result}}         `attach`, for hubs and bundles
zoo/bundled/evaluations/animate3d/<protocol>-<hash>/metrics.json               of `FITTER`, which is no model with files
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo import hub, repository
from zoo.errors import ZooError
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.result import Result, checked, code_status, protocol_status, read_result
from zoo.evaluation.tasks import FITTER
from zoo.lookup import BUNDLED, models_folder

EVALUATIONS, RESULT, SHEET = "evaluations", "metrics.json", "sheet.png"


@dataclass(frozen=True)
class Entry:
    """A result of a model that can be loaded.

    Attributes:
        model: the name that loads the model, or `FITTER`.
        result: its result.
        marks: sentences on why it may not be comparable or reproducible.
        sheet: picture of clips; None if it is not here.
    """

    model: str
    result: Result
    marks: tuple[str, ...] = ()
    sheet: Path | None = None


@dataclass
class Collection:
    """Results of all models of a registry or an organisation.

    Attributes:
        entries: results that were accepted.
        refused: sentences on results that were not.
        models: name → description of every model; None if it cannot be read.
    """

    entries: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    models: dict[str, hub.ModelInfo | None] = field(default_factory=dict)


def key_of(result: Result) -> str:
    """Name of a result's folder: its protocol and the beginning of the hash."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", result.protocol["name"])
    return f"{name}-{result.protocol['sha256'][:12]}"


def results_folder(home: str | os.PathLike[str] | None) -> Path:
    """Folder of the results in a registry."""
    return models_folder(home).parent / EVALUATIONS


def folder_of(result: Result, home: str | os.PathLike[str] | None) -> Path:
    """Folder of a result in a registry."""
    parts = [re.sub(r"[^A-Za-z0-9._-]", "-", part).strip(".") or "-" for part in result.model.split("/")]
    return results_folder(home).joinpath(*parts, key_of(result))


def attach(name: str, results: Iterable[Result], *, home: str | os.PathLike[str] | None = None) -> str:
    """Publish a model to the local registry with results in its metrics.json; the weights stay bit for bit.

    Args:
        name: of the model.
        results: of these weights; they replace earlier ones of the same protocol.
        home: folder of the registry.

    Returns:
        The name that loads this revision.

    Raises:
        EvaluationError: a result is of other weights.
    """
    info, model = hub.info(name, home=home), hub.load(name, home=home)
    known = dict(model.metrics.get(EVALUATIONS) or {})
    for result in results:
        if mark := _weights_mark(info, result):
            raise EvaluationError(f"{name}: the result of {result.protocol['name']} is {mark}")
        known[key_of(result)] = dict(result.content)
    model.metrics = {**model.metrics, EVALUATIONS: dict(sorted(known.items()))}
    path = info.name.partition(":")[2].partition("@")[0]
    return hub.publish(model, f"local:{path}", home=home)


def collect(pattern: str = "*", *, home: str | os.PathLike[str] | None = None) -> Collection:
    """Results of the models that match a pattern of `zoo.list_models`, such as "*" or "hub:org/*"."""
    collection = Collection()
    for name in hub.list_models(pattern, home=home):
        try:
            info: hub.ModelInfo | None = hub.info(name, home=home)
        except (ZooError, OSError, ValueError) as error:
            info = None
            collection.refused.append(f"{name}: {error}")
        collection.models[name] = info
        if info is not None:
            _add_attached(collection, name, info)
            _add_stored(collection, name, info, home)
    _add_fitter(collection, pattern, home)
    return collection


def _add_attached(collection: Collection, name: str, info: hub.ModelInfo) -> None:
    attached = info.metrics.get(EVALUATIONS)
    for key, content in attached.items() if isinstance(attached, dict) else ():
        try:
            result = checked(content, f"{name}: metrics.json, {key}")
        except EvaluationError as error:
            collection.refused.append(str(error))
            continue
        _add(collection, name, info, result, None)


def _add_stored(
    collection: Collection, name: str, info: hub.ModelInfo, home: str | os.PathLike[str] | None
) -> None:
    path = info.name.partition(":")[2].partition("@")[0]
    _add_files(collection, name, info, sorted(results_folder(home).joinpath(path).glob(f"*/{RESULT}")))


def _add_files(collection: Collection, name: str, info: hub.ModelInfo | None, files: Iterable[Path]) -> None:
    for file in files:
        try:
            result = read_result(file)
        except (EvaluationError, OSError) as error:
            collection.refused.append(str(error))
            continue
        sheet = file.with_name(SHEET)
        _add(collection, name, info, result, sheet if sheet.is_file() else None)


def _add_fitter(collection: Collection, pattern: str, home: str | os.PathLike[str] | None) -> None:
    """Results of `FITTER`: those of the registry, then those of the package that these do not replace."""
    source, separator, rest = pattern.rpartition(":")
    if not fnmatch.fnmatchcase(FITTER, rest):
        return
    folders = {"local": results_folder(home), "bundled": BUNDLED / EVALUATIONS}
    replaced: set[str] = set()
    for place, folder in folders.items():
        files = sorted(folder.joinpath(FITTER).glob(f"*/{RESULT}")) if source in ("", place) else []
        name = f"{place}:{FITTER}" if separator else FITTER
        _add_files(collection, name, None, [file for file in files if file.parent.name not in replaced])
        replaced |= {file.parent.name for file in files}


def _add(
    collection: Collection, name: str, info: hub.ModelInfo | None, result: Result, sheet: Path | None
) -> None:
    """Add a result with its marks. Of equal results, stored and attached, the one with a picture is kept."""
    weights = _weights_mark(info, result) if info else ""
    marks = tuple(filter(None, (protocol_status(result), code_status(result), weights)))
    for number, entry in enumerate(collection.entries):
        if entry.model == name and entry.result.sha256 == result.sha256:
            if entry.sheet is None and sheet is not None:
                collection.entries[number] = Entry(name, result, marks, sheet)
            return
    collection.entries.append(Entry(name, result, marks, sheet))


def _weights_mark(info: hub.ModelInfo, result: Result) -> str:
    """ "of other weights …" if the model's weights are not those that were measured."""
    files: dict[str, Any] = repository.read_manifest(info.folder)
    present = {file: files[file].get("sha256") for file in files if file.endswith(".safetensors")}
    if result.content["model"]["weights"] == present:
        return ""
    return "of other weights than the model has now; evaluate it again"
