"""`python -m factory.train mvvdm`: its command-line options, and the command."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import Ledger, OutputLock, Storage
from factory.console import (
    OK,
    OutputOptions,
    ProgressDisplay,
    add_options,
    notice,
    option,
    print_result,
    read_options,
    run_command,
)
from factory.motion_videos.options import check_registry
from factory.run_report import RunReport
from factory.training.leaderboard import aligned, markdown
from factory.training.machine import check_resources
from factory.training.mvvdm.job import MVVDMTrainingJob, check_workers, job_of
from factory.training.mvvdm.pictures import read_progress, validation_pictures
from factory.training.mvvdm.recipe import RECIPES, MVVDMRecipe, ablations
from factory.training.mvvdm.run import train_model
from factory.training.overrides import apply_overrides
from zoo.errors import OptionError
from zoo.hub_access import check_target


def _workers(text: str) -> int | tuple[int, int]:
    """ "2" → 2, "1-4" → (1, 4)."""
    try:
        numbers = [int(part) for part in text.split("-")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] >= 0:
        return numbers[0]
    if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    raise argparse.ArgumentTypeError(f"expected a number or LEAST-MOST, got {text!r}")


@dataclass(frozen=True)
class MVVDMTrainingOptions:
    """What is trained, on which dataset and where to."""

    data: str = option(help="MV-Video dataset: a folder that every machine sees, hub:org/name, or a URL")
    out: str = option(help="a folder that every machine sees, or a URL")
    test_data: str | None = option(
        None,
        "dataset whose clips the model is measured on (default: the test or validation split of --data; if it has "
        "neither, its training clips, which the model card then says)",
    )
    quality: str = option(
        "ok", "least rating of the clips to train on (docs/curation.md)", choices=("any", "ok", "high")
    )
    preset: str = option(
        "tiny", "network, length of the training and size of the clips", choices=tuple(RECIPES)
    )
    set: tuple[str, ...] = option(
        (), "override values of the preset, such as plan.steps=100", metavar="NAME=VALUE"
    )
    name: str | None = option(None, "of the model (default: the preset's)")
    publish: str | None = option(
        None, "local:mvvdm/NAME or hub:org/NAME (default: the registry at --out)", metavar="TARGET"
    )
    seed: int = option(0, "of the training: initial weights, noise and the order of the clips", at_least=0)
    ablation: bool = option(
        False,
        "also train the network without spatial attention in its motion modules, without MV2V-Adapter, and without "
        "both, as NAME-without-…, and compare",
    )

    def check(self) -> None:
        """Check the names of the model, and that this account can publish there.

        Raises:
            OptionError: it cannot.
        """
        if self.name is not None and "/" in self.name:
            raise OptionError(f"--name {self.name}: expected a name without '/', such as tiny-birds")
        if self.name is not None:
            check_target(f"local:mvvdm/{self.name}", "--name", family="mvvdm")
        if self.publish is not None:
            check_target(self.publish, "--publish", family="mvvdm")
        if self.publish is not None and self.ablation:
            raise OptionError("--publish publishes one model, --ablation trains four: leave one of them out")


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers share the training, and how each of them works."""

    workers: int | tuple[int, int] = option(
        1,
        "workers that train one model together; LEAST-MOST: as many of these as there is room for; 0: in this "
        "process, without Ray",
        parse=_workers,
        metavar="N|LEAST-MOST",
    )
    cpus: float = option(1.0, "CPUs per worker", more_than=0)
    gpus: float = option(0.0, "GPUs per worker", at_least=0)
    sharded: bool = option(False, "shard the network over the workers (FSDP) instead of replicating it (DDP)")
    at_once: int = option(1, "examples per forward pass of a worker; raise it on a GPU", at_least=1)
    compile: bool = option(False, "torch.compile the network: minutes at the start, faster steps afterwards")
    gradient_checkpointing: bool = option(False, "recompute activations: less memory, a third more time")
    loader_workers: int = option(2, "processes per worker that decode clips", at_least=0)
    save_every: int = option(500, "steps between two checkpoints", at_least=1)
    validate_every: int = option(500, "steps between two validation pictures", at_least=1)
    test_clips: int = option(16, "held-out clips that the model is measured on", at_least=1)


@dataclass(frozen=True)
class PretrainedParts:
    """What preset `paper` starts from: hub repositories, folders or files."""

    mvdream: str | None = option(None, "MVDream, the multi-view image diffusion model")
    motion_adapter: str | None = option(None, "AnimateDiff's motion modules (default: its version 1.5-2)")
    ip_adapter: str | None = option(None, "IP-Adapter's image projection and attention")
    base: str | None = option(None, "Stable Diffusion: autoencoder, text encoder and tokenizer")
    image_encoder: str | None = option(None, "CLIP image encoder of the IP-Adapter")


def _jobs(
    training: MVVDMTrainingOptions, arguments: dict[str, Any], recipe: MVVDMRecipe
) -> list[MVVDMTrainingJob]:
    """The training, and with `--ablation` those without a part of the network."""
    variants = ablations(recipe) if training.ablation else {}
    jobs = [job_of(argparse.Namespace(**arguments), recipe)]
    for suffix, ablated in variants.items():
        arguments = arguments | {"name": f"{jobs[0].name}-{suffix}"}
        jobs.append(job_of(argparse.Namespace(**arguments), ablated))
    return jobs


def ablation_table(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A header row, then one row per model with its mean metrics.

    Args:
        results: name of the model → result of `train_model`.
    """
    metrics = [name for name, value in next(iter(results.values())).items() if isinstance(value, int | float)]
    rows = [["model", *metrics]]
    for name, result in results.items():
        values = [result[metric] for metric in metrics]
        rows.append([name, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)])
    return rows


def add_parser(families: Any) -> argparse.ArgumentParser:
    """Add `mvvdm` to the families of `factory.train`."""
    parser = families.add_parser(
        "mvvdm",
        help="a multi-view video diffusion model",
        description="Train a multi-view video diffusion model on a dataset. The same command resumes.",
    )
    add_options(parser, MVVDMTrainingOptions)
    add_options(parser.add_argument_group("workers"), WorkerOptions)
    group = parser.add_argument_group(
        "parts", "what preset paper starts from: hub repositories, folders or files"
    )
    add_options(group, PretrainedParts)
    add_options(parser.add_argument_group("output"), OutputOptions)
    return parser


def _train_all(
    jobs: Sequence[MVVDMTrainingJob],
    workers: WorkerOptions,
    ablation: bool,
    output: OutputOptions,
    report: RunReport,
) -> tuple[str, dict[str, Any]]:
    """Train one model after the other; returns the result as text and as JSON."""
    storage = report.ledger.storage
    results: dict[str, dict[str, Any]] = {}
    for job in jobs:
        report.state = functools.partial(read_progress, storage, job.key)
        report.pictures = functools.partial(validation_pictures, storage, job.key)
        # Trainings of different models may share a registry: they write different files.
        lock = OutputLock(storage, "factory.train mvvdm", job.key, on_wait=notice)
        with lock, ProgressDisplay(output) as display:
            results[job.name] = train_model(
                job, workers.workers, workers.cpus, workers.gpus, show=display.update
            )
    if not ablation:
        (result,) = results.values()
        report.result = "\n".join(f"{name:18} {value}" for name, value in result.items())
        return report.result, result
    table = ablation_table(results)
    storage.write("ablation.md", markdown(table).encode())
    report.result = aligned(table)
    return report.result, {"models": results}


def run(args: argparse.Namespace, parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """Run the command; exit code 0 once the model is published. `argv`: the command line, for the report."""
    training, workers = read_options(args, MVVDMTrainingOptions), read_options(args, WorkerOptions)
    parts, output = read_options(args, PretrainedParts), read_options(args, OutputOptions)

    def action() -> int:
        try:
            training.check()
            check_resources(workers.cpus, workers.gpus, workers.workers)
            recipe = apply_overrides(RECIPES[training.preset](), training.set)
            check_workers(workers.workers, recipe)
            jobs = _jobs(training, {**vars(training), **vars(workers), **vars(parts)}, recipe)
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        out = jobs[0].out
        Storage(out).check_writable()
        check_registry(out)
        with RunReport("factory.train mvvdm", Ledger(out), (), argv, notice) as report:
            text, data = _train_all(jobs, workers, training.ablation, output, report)
        print_result(output, text, data)
        return OK

    return run_command("factory.train", action, json_errors=output.json)
