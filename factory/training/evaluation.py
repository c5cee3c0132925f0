"""Evaluation of models on the cluster: one task per model, whose output is the registry that the model is in."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import Outcome, Stage, Task, task_key
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.protocol import Protocol

EVALUATION_VERSION = "1"  # increment when the same model and protocol would give other results


@dataclass
class EvaluationStage(Stage):
    """Evaluate one model per task; the result's files are committed with the task."""

    num_cpus: float = 1.0
    memory: int = 4 * 2**30
    timeout_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        self.child_env = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

    def process(self, task: Task) -> Outcome:
        from zoo.evaluation.api import evaluate_with_pictures
        from zoo.evaluation.sheet import write_sheet
        from zoo.evaluation.store import EVALUATIONS, RESULT, SHEET, folder_of

        job = task.payload
        protocol = Protocol(job["protocol"])
        try:
            result, measurement = evaluate_with_pictures(
                job["model"], protocol, truth=job["truth"], home=job["home"]
            )
        except EvaluationError as error:  # another attempt would end in the same way
            return Outcome("quarantined", reason=" ".join(str(error).split()))
        home = Path(job["home"])
        folder = Path(EVALUATIONS) / folder_of(result, home).relative_to(home / EVALUATIONS)
        with tempfile.TemporaryDirectory() as temporary:
            sheet = Path(temporary) / SHEET
            write_sheet(sheet, result, measurement)
            files = {
                (folder / RESULT).as_posix(): result.to_bytes(),
                (folder / SHEET).as_posix(): sheet.read_bytes(),
            }
        summary = {"model": result.model, "primary": result.primary, "mean": result.mean(result.primary)}
        return Outcome("done", summary, files)


def describe_model(name: str, home: Path) -> dict[str, Any]:
    """Name, family, object and weights of a model."""
    from zoo import repository
    from zoo.lookup import find

    located = find(name, home)
    config = located.check()
    files = repository.read_manifest(located.folder)
    weights = {file: files[file]["sha256"] for file in sorted(files) if file.endswith(".safetensors")}
    about = {"family": config.family, "object": config.init.get("object", "")}
    return {"name": name, **about, "weights": weights}


def evaluation_task(model: dict[str, Any], protocol: Protocol, truth: Path, home: Path) -> Task:
    """The task of one model; its key is of the model's name and weights, of the protocol and of the code measured.

    Args:
        model: of `describe_model`.
        protocol: to evaluate it under.
        truth: folder of the true clips.
        home: the registry, which is also the task's output.
    """
    from zoo.evaluation.tasks import measured_code  # imports torch, which the command's help does not need

    weights = json.dumps([model["name"], model["weights"]], sort_keys=True)
    code = [f"{name} {version}" for name, version in measured_code(protocol, model["family"]).items()]
    key = task_key("evaluate", EVALUATION_VERSION, protocol.sha256, weights, *code)
    payload = {
        "model": model["name"],
        "protocol": dict(protocol.content),
        "truth": str(truth.resolve()),
        "home": str(home.resolve()),
    }
    return Task(key, payload, model["name"])
