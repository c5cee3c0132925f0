"""`python -m factory.evaluate`: evaluate many models under a protocol on the cluster, and make its truth.

    python -m factory.evaluate dimo/kangaroo dimo/fox --protocol dimo-views --out out/models
    python -m factory.evaluate --protocol mvvdm-creatures --truth-only --out truth

`--out` is a registry: its models can be named, and the results are where `python -m zoo leaderboard --home OUT` reads
them. The truth is made in OUT/truth unless --truth has it. The same command resumes: a model whose weights were
evaluated under this protocol is not evaluated again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import Ledger, OutputLock, Progress, Record, check_output, run
from factory.console import (
    FAILED,
    OK,
    OutputOptions,
    ProgressDisplay,
    Status,
    add_options,
    notice,
    option,
    print_result,
    read_options,
    run_command,
)
from factory.motion_videos.options import add_motion_options, read_motion_options, render_motions
from factory.run_report import RunReport
from factory.sources import SourceError, creatures
from factory.training.evaluation import EvaluationStage, describe_model, evaluation_task
from factory.training.leaderboard import aligned
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.protocol import Protocol, open_protocol
from zoo.export.html.report import embedded

TRUTH = "truth"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated, and where the results go."""

    protocol: str = option(help="name of a protocol of the package, or a .json file")
    out: str = option(
        help="registry of models: results go to evaluations/ in it; with --truth-only, the truth's folder"
    )
    truth: str | None = option(
        None, "folder of the true clips (default: OUT/truth, where missing ones are made)"
    )
    truth_only: bool = option(False, "make the truth of the protocol's objects, and evaluate nothing")
    objects: tuple[str, ...] = option((), "with --truth-only: of these objects only", metavar="NAME")
    workers: int | None = option(
        None,
        "parallel workers; 0: in this process, without Ray (default: as many as the cluster has room for)",
        at_least=0,
    )
    retry_quarantined: bool = option(False, "retry the models that earlier runs gave up on")


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.evaluate") -> int:
    """Run the command; exit code 0 if every model was evaluated, the closing table lists the others."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Evaluate models under a protocol, and make its truth. The same command resumes.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="family/name of a model to evaluate")
    add_options(parser, EvaluateOptions)
    add_options(parser.add_argument_group("output"), OutputOptions)
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    options, output = read_options(args, EvaluateOptions), read_options(args, OutputOptions)
    if bool(args.models) == options.truth_only:
        parser.error("expected models to evaluate, or --truth-only" + (", got both" if args.models else ""))
    if options.objects and not options.truth_only:
        parser.error("--objects: is for --truth-only; the objects are those of the models")

    def action() -> int:
        protocol = open_protocol(options.protocol)
        ours = ("models/*/*/refs/main", "motions/*/motions.json", "evaluations/*", "truth/*", "assets/*.glb")
        check_output(options.out, ours=ours, pages={"leaderboard.md": b"| model | PSNR |"})
        if options.truth_only:
            objects = _listed(protocol, options.objects or tuple(protocol.content["objects"]))
            made = make_truth(protocol, objects, Path(options.out), options.workers, output)
            print_result(output, "\n".join(map(str, made)), {"truth": [str(path) for path in made]})
            return OK
        ledger = Ledger(options.out)
        report = RunReport("factory.evaluate", ledger, ("EvaluationStage",), argv, notice)
        with OutputLock(ledger.storage, "factory.evaluate", on_wait=notice), report:
            return _evaluate(args.models, protocol, options, report, output)

    return run_command(
        "factory.evaluate", action, errors=(SourceError, EvaluationError), json_errors=output.json
    )


def _listed(protocol: Protocol, objects: Sequence[str]) -> list[str]:
    """Objects of a protocol; refuses others."""
    known = protocol.content["objects"]
    if unknown := [name for name in objects if name not in known]:
        raise EvaluationError(f"{protocol.title} has no object {unknown[0]!r}; it lists {', '.join(known)}")
    return list(objects)


# --- truth ---------------------------------------------------------------------------------------------


def make_truth(
    protocol: Protocol, objects: Sequence[str], folder: Path, workers: int | None, output: OutputOptions
) -> list[Path]:
    """Make the true clips of objects of a protocol; those that exist stay.

    Returns:
        The folder of motion videos, or the file, of each object.
    """
    if protocol.content["truth"]["format"] == "glTF":
        return [_write_creature(protocol, name, folder) for name in objects]
    made = [folder / "motions" / name for name in objects]
    for name, target in zip(objects, made, strict=True):
        if not (target / "motions.json").is_file():
            _render(protocol.command(name, str(folder)), workers, output)
    return made


def _render(command: str, workers: int | None, output: OutputOptions) -> None:
    """Run the `factory.motions` command of a protocol."""
    parser = argparse.ArgumentParser(prog="python -m factory.motions")
    add_motion_options(parser)
    options, recipe = read_motion_options(parser, parser.parse_args(shlex.split(command)[3:]))
    ledger = Ledger(options.out)
    with OutputLock(ledger.storage, "factory.motions", on_wait=notice), ProgressDisplay(output) as display:
        subjects = render_motions(replace(options, workers=workers), recipe, ledger, display.update)
    if faults := [subject.fault for subject in subjects if subject.fault]:
        raise EvaluationError(f"`{command}` made no motion videos: {faults[0]}")


def _write_creature(protocol: Protocol, name: str, folder: Path) -> Path:
    """Rebuild a creature with the motions that the protocol lists, as .glb."""
    from renderers.files import atomic_path

    entry = protocol.content["objects"][name]
    (reference,) = creatures.enumerate_uri(entry["source"])
    path = folder / "assets" / f"{name}.glb"
    if not path.is_file():
        data = creatures.build(reference.species, reference.seed, list(entry["clips"]))
        with atomic_path(path) as part:
            part.write_bytes(data)
    return path


# --- models --------------------------------------------------------------------------------------------


def _evaluate(
    models: Sequence[str],
    protocol: Protocol,
    options: EvaluateOptions,
    report: RunReport,
    output: OutputOptions,
) -> int:
    ledger = report.ledger
    home = Path(ledger.root)
    described = [describe_model(name, home) for name in dict.fromkeys(models)]
    truth = Path(options.truth) if options.truth else home / TRUTH
    per_object = protocol.content["truth"]["format"] == "motion videos"
    objects = [each["object"] for each in described] if per_object else list(protocol.content["objects"])
    objects = list(dict.fromkeys(objects))
    if options.truth is None:
        make_truth(protocol, _listed(protocol, objects), truth, options.workers, output)
    for name in objects:
        if not any((truth / place).exists() for place in _places(name, per_object)):
            from zoo.evaluation.tasks import missing_truth  # imports torch

            raise missing_truth(protocol, name, truth)
    tasks = [evaluation_task(each, protocol, truth, home) for each in described]
    if options.retry_quarantined:
        ledger.retry_quarantined()
    records: dict[str, Record] = {}

    def status(progress: Progress) -> Status:
        return Status(
            unit="models",
            done=len(records),
            total=len(tasks),
            growing=False,
            seconds=progress.seconds,
            facts={"workers": progress.workers},
        )

    with ProgressDisplay(output) as display:
        run(
            EvaluationStage(),
            tasks,
            ledger,
            workers=options.workers,
            on_resolved=lambda task, record: records.update({task.label: record}),
            on_tick=lambda progress: display.update(lambda: status(progress)),
        )
    report.result = _table(records)
    report.pictures = lambda: _sheets(ledger, records)
    print_result(output, report.result, {"models": {name: each.summary for name, each in records.items()}})
    return OK if all(record.status == "done" for record in records.values()) else FAILED


def _sheets(ledger: Ledger, records: dict[str, Record]) -> Iterator[str]:
    """The pictures of the best, median and worst clip of each model."""
    for name, record in records.items():
        for file in record.files:
            if file.endswith(".png") and (data := ledger.storage.read(file)):
                yield embedded(data, f"{name}: the best, the median and the worst clip", side=1200)


def _places(name: str, per_object: bool) -> list[str]:
    """Where the truth of an object may be, see `zoo.evaluation.dimo.open_truth` and `zoo.evaluation.scenes`."""
    if per_object:
        return [f"motions/{name}/motions.json", f"{name}/motions.json", "motions.json"]
    return [f"assets/{name}.glb", f"{name}.glb"]


def _table(records: dict[str, Record]) -> str:
    rows = [["model", "metric", "mean", "95 % interval", ""]]
    for name, record in records.items():
        mean = record.summary.get("mean")
        if record.status == "done" and mean:
            rows.append([name, record.summary["primary"], *_interval(mean), ""])
        else:
            rows.append([name, "", "", "", record.reason or "no clip has a score"])
    return aligned(rows)


def _interval(mean: Sequence[float]) -> list[str]:
    return [f"{mean[0]:.4g}", f"{mean[1]:.4g} – {mean[2]:.4g}"]


if __name__ == "__main__":
    sys.exit(main())
