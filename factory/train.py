"""Motion videos in, trained models out: `python -m factory.train dimo --objects creatures://kangaroo,… --out …`.

First every object's motions are filmed, or taken where they lie (factory/motions.py); then every object is trained,
one task each, side by side on the cluster. Below `--out`:

    motions/<object>/           its motion videos
    models/dimo/<object>/       its model: `--out` is a registry, so `zoo.load("dimo/<object>", home=OUT)` loads it
    leaderboard.md              how good they all are
    _factory/                   what has become of every task, and checkpoints while there are any

The same command resumes: what is committed is not done twice, and a training that was killed goes on from its newest
checkpoint, to the bits that an undisturbed one would have given.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster import (
    Interrupted,
    Ledger,
    Outcome,
    Progress,
    Record,
    Stage,
    StageError,
    StorageError,
    Task,
    run,
    run_inline,
)
from factory import train_mvvdm
from factory.motion_plans import MotionRecipe
from factory.motions import Made, add_options, film_as_asked, read_options, summary
from factory.sources import SourceError
from factory.stages import digest
from zoo.dimo.config import DIMOConfig

if TYPE_CHECKING:
    from zoo.dimo.data import MotionVideos
    from zoo.dimo.model import DIMO

Config = TypeVar("Config")

TRAINING_VERSION = "1"  # raise it when the same videos and configuration would give another model
PRESETS: dict[str, Callable[[], DIMOConfig]] = {
    "laptop": DIMOConfig.laptop,
    "bundled": DIMOConfig.bundled,
    "paper": DIMOConfig.paper,
}
WORK = "_factory/training"  # <key>/: a task's checkpoint and its progress, until it is committed
TABLE_EVERY_S, LINES_EVERY_S = 2.0, 30.0
PROTOCOL = (
    "PSNR, SSIM and silhouette IoU of the motions trained on, on white, over all frames of views that were never "
    "trained on, half-way between the training views and at other elevations; worst is the worst motion's. "
    "motion_error is the mean distance to true points of the surface, in a world where the cameras are 2 away. "
    "unseen are motions never trained on, their latents found from the training views."
)


# --- the work: one object -----------------------------------------------------------------------------


@dataclass
class DimoStage(Stage):
    """Trains one object's motion space, measures it and puts it into the registry.

    Attributes:
        out: the registry. num_cpus, num_gpus: what one training takes; fractions are fine.
        checkpoint_s: seconds of training between two checkpoints.
        unseen: also reconstruct the motions that were held out.
        encoder: the language model of text heads, a hub name or a folder; "" for no text heads.
    """

    out: str = "."
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 8 * 2**30
    timeout_s: float = 24 * 3600.0
    checkpoint_s: float = 60.0
    unseen: bool = True
    encoder: str = ""

    def __post_init__(self) -> None:
        threads = str(max(1, int(self.num_cpus)))
        self.child_env = {name: threads for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"

    def process(self, task: Task) -> Outcome:
        from zoo.dimo.data import MotionVideos
        from zoo.dimo.training import train

        job = task.payload
        videos = MotionVideos.open(job["videos"])
        trained_on = videos.select(job["motions"] or "train")
        work = Path(self.out, WORK, task.key)
        work.mkdir(parents=True, exist_ok=True)
        told = _Teller(work / "progress.json", self.checkpoint_s)
        checkpoint = work / "checkpoint.safetensors"
        try:
            model = train(
                trained_on,
                DIMOConfig(**job["config"]),
                checkpoint=checkpoint,
                seed=job["seed"],
                device=self.device,
                on_step=told,
            )
        except ValueError:  # one that cannot be read must not spoil every attempt
            checkpoint.unlink(missing_ok=True)
            raise
        if job["variant"]:
            told.stage("measuring")
            metrics = _measure(model, trained_on, None)
            return Outcome("done", {**_figures(metrics), "seconds": told.seconds})
        return self._publish(model, videos, trained_on, job["object"], told)

    def _publish(
        self, model: DIMO, videos: MotionVideos, trained_on: MotionVideos, name: str, told: _Teller
    ) -> Outcome:
        import zoo
        from zoo.dimo.pipeline import DIMOPipeline

        text = None
        if self.encoder:
            from zoo.dimo.text import train_text_head

            told.stage("text")
            text = train_text_head(trained_on.sentences, name=self.encoder, seed=0)
        told.stage("measuring")
        seconds = float(videos.provenance.get("seconds", 2.0))
        pipeline = DIMOPipeline.of(model, trained_on, seconds=seconds, text=text)
        heldout = videos.select("heldout")
        # The pipeline's model has the weights of the file, rounded: what is measured is what is published.
        metrics = _measure(pipeline.model, trained_on, heldout if self.unseen and len(heldout) else None)
        steps = model.config.pretraining.steps + model.config.joint.steps
        metrics["training"] = {"steps": steps, "motions": len(trained_on), "views": len(videos.train_views)}
        pipeline.metrics = metrics
        reference = zoo.publish(pipeline, f"local:dimo/{name}", home=self.out)
        size = sum(zoo.info(reference, home=self.out).files.values())
        figures = _figures(metrics)
        return Outcome("done", {**figures, "seconds": told.seconds, "bytes": size, "model": reference})


class _Teller:
    """What `train` calls: tells the driver how far it is, and asks for checkpoints."""

    def __init__(self, file: Path, checkpoint_s: float) -> None:
        self._file, self._checkpoint_s = file, checkpoint_s
        self._saved = time.monotonic()
        self._last = read_progress(file)  # of an attempt that was killed
        self._pace = 0.0  # seconds a step, of late

    @property
    def seconds(self) -> float:
        """Of training, those before a resumption included."""
        return round(self._last.get("seconds", 0.0), 2)

    def __call__(self, progress: dict[str, Any]) -> bool:
        if progress["step"] > self._last.get("step", progress["step"]):
            pace = (progress["seconds"] - self._last["seconds"]) / (progress["step"] - self._last["step"])
            self._pace = 0.8 * self._pace + 0.2 * pace if self._pace else pace
        self._last = progress
        self._tell({**progress, "left": self._pace * (progress["steps"] - progress["step"])})
        if time.monotonic() - self._saved < self._checkpoint_s:
            return False
        self._saved = time.monotonic()
        return True

    def stage(self, name: str) -> None:
        """Something else than training has begun."""
        self._tell({**self._last, "stage": name, "left": 0.0})

    def _tell(self, what: dict[str, Any]) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(what))
        os.replace(part, self._file)


def read_progress(file: Path) -> dict[str, Any]:
    """What a training told last; empty if it has not told anything yet."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}


def _measure(model: DIMO, trained_on: MotionVideos, heldout: MotionVideos | None) -> dict[str, Any]:
    """What goes to metrics.json; the same model gives the same numbers."""
    from zoo.dimo.evaluation import evaluate
    from zoo.dimo.training import fit_latent

    measured = evaluate(model, trained_on)
    source = trained_on.provenance.get("title") or trained_on.object
    metrics = {
        "protocol": PROTOCOL,
        "dataset": {"name": f"motion videos of {source}", "type": "motion-videos"},
        "mean": _means(measured),
        "worst": {"psnr": measured["worst_psnr"], "motion": measured["worst_motion"]},
        "resolution": measured["resolution"],
        "gaussians": measured["gaussians"],
        "motions": measured["motions"],
    }
    if heldout is not None:
        found = evaluate(model, heldout, latents=fit_latent(model, heldout))
        metrics["unseen"] = _means(found) | {"worst_psnr": found["worst_psnr"], "motions": found["motions"]}
    return metrics


def _means(measured: dict[str, Any]) -> dict[str, float]:
    names = ("psnr", "ssim", "iou", "motion_error", "arap")
    return {name: measured[name] for name in names if name in measured}


def _figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The few that the ledger keeps and the leaderboard shows."""
    figures = {
        **metrics["mean"],
        "worst_psnr": metrics["worst"]["psnr"],
        "worst_motion": metrics["worst"]["motion"],
    }
    if "unseen" in metrics:
        figures["unseen_psnr"] = metrics["unseen"]["psnr"]
    return figures


# --- which trainings ----------------------------------------------------------------------------------

FULL = "as configured"
ALONE, SHARED = "one motion at a time", "one motion at a time, steps shared"


def ablations(config: DIMOConfig) -> dict[str, DIMOConfig]:
    """The paper's Table 5, but for one motion at a time, which is another list of motions."""
    return {
        "without motion factorisation": replace(config, factorised=False),
        "without latent space": replace(config, latent_space=False),
        "without motion pre-training": replace(config, pretraining=replace(config.pretraining, steps=0)),
    }


def training_tasks(
    made: Sequence[Made], config: DIMOConfig, stage: DimoStage, seed: int = 0, ablation: bool = False
) -> Iterator[Task]:
    """One task an object, and with `ablation` one a variant, and two a motion to learn each alone: with all the steps
    of the object's training, and with a share of them, so that as many pictures are shown in all.
    """
    for one in made:
        if one.folder is None:
            continue
        yield _task(one, config, stage, seed)
        if not ablation:
            continue
        from zoo.dimo.data import MotionVideos

        for variant, changed in ablations(config).items():
            yield _task(one, changed, stage, seed, variant)
        motions = MotionVideos.open(one.folder).select("train").names
        short = replace(
            config,
            pretraining=replace(config.pretraining, steps=config.pretraining.steps // len(motions)),
            joint=replace(config.joint, steps=config.joint.steps // len(motions)),
        )
        for variant, alone in ((ALONE, config), (SHARED, short)):
            for motion in motions:
                yield _task(one, alone, stage, seed, variant, [motion])


def _task(
    made: Made,
    config: DIMOConfig,
    stage: DimoStage,
    seed: int,
    variant: str = "",
    motions: Sequence[str] = (),
) -> Task:
    what = {
        "object": made.name,
        "variant": variant,
        "motions": list(motions),
        "seed": seed,
        "config": asdict(config),
    }
    told = json.dumps({**what, "unseen": stage.unseen, "encoder": stage.encoder}, sort_keys=True)
    key = digest("dimo", TRAINING_VERSION, made.key, told)
    label = ", ".join([made.name, *filter(None, [variant]), *motions])
    return Task(key, {**what, "videos": str(made.folder)}, label)


def configured(preset: str, changes: Iterable[str] = ()) -> DIMOConfig:
    """A preset of DIMO with some of its values changed; see `changed`."""
    return changed(PRESETS[preset](), changes)


def changed(config: Config, changes: Iterable[str]) -> Config:
    """A configuration with some of its values changed: "key_points=64", "joint.steps=100".

    Raises:
        ValueError: there is no such value, or it is of another kind.
    """
    for change in changes:
        path, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set {change}: expected NAME=VALUE, such as joint.steps=100")
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            pass  # a word
        config = _changed(config, path.split("."), value, change)
    return config


def _changed(config: Any, path: list[str], value: Any, change: str) -> Any:
    known = [option.name for option in fields(config)]
    if path[0] not in known:
        raise ValueError(
            f"--set {change}: {type(config).__name__} has no {path[0]!r}, only {', '.join(known)}"
        )
    before = getattr(config, path[0])
    if is_dataclass(before):
        value = _changed(before, path[1:] or [""], value, change)
    elif path[1:] or not (
        before is None or type(value) is type(before) or (type(before), type(value)) == (float, int)
    ):
        raise ValueError(f"--set {change}: expected something like {path[0]}={before!r}")
    return replace(config, **{path[0]: value})


# --- the run ------------------------------------------------------------------------------------------


def train_objects(
    made: Sequence[Made],
    stage: DimoStage,
    config: DIMOConfig,
    ledger: Ledger,
    *,
    seed: int = 0,
    ablation: bool = False,
    workers: int | None = None,
) -> dict[str, tuple[Task, Record]]:
    """Train every object that has motion videos; label → task and what became of it.

    Args:
        workers: side by side; None for as many as the cluster has room for, 0 for this process, without Ray.
    Raises:
        StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    tasks = list(training_tasks(made, config, stage, seed, ablation))
    results: dict[str, tuple[Task, Record]] = {}

    def on_resolved(task: Task, record: Record) -> None:
        results[task.label] = (task, record)
        if record.status == "done":  # until now a worker may have needed it
            shutil.rmtree(Path(stage.out, WORK, task.key), ignore_errors=True)

    if workers == 0:
        run_inline(stage, tasks, ledger, on_resolved)
    else:
        table = _Table(Path(stage.out, WORK), tasks, results)
        run(stage, tasks, ledger, workers=workers, on_resolved=on_resolved, on_tick=table)
        table.clear()
    return results


class _Table:
    """What is being trained: redrawn in place on a terminal, printed now and then elsewhere."""

    def __init__(self, work: Path, tasks: Sequence[Task], results: dict[str, tuple[Task, Record]]) -> None:
        self._work, self._results = work, results
        self._keys = {task.label: task.key for task in tasks}
        self._live = sys.stderr.isatty()
        self._drawn = 0
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + (TABLE_EVERY_S if self._live else LINES_EVERY_S)
        running = {
            label: read_progress(self._work / self._keys[label] / "progress.json")
            for label in progress.running
        }
        given_up = sum(record.status != "done" for _, record in self._results.values())
        head = (
            f"[{progress.seconds:5.0f} s] trained {len(self._results) - given_up}/{len(self._keys)}, "
            f"given up {given_up}, {progress.workers} workers"
        )
        self.clear()
        lines = [head, *progress_table(running)]
        print("\n".join(lines), file=sys.stderr, flush=True)
        self._drawn = len(lines)

    def clear(self) -> None:
        """Take the table off the terminal, so that what comes next stands in its place."""
        if self._live and self._drawn:
            print(f"\x1b[{self._drawn}A\x1b[J", end="", file=sys.stderr, flush=True)
        self._drawn = 0


def progress_table(running: dict[str, dict[str, Any]]) -> list[str]:
    """Lines, a training each. `running`: label → what it told last, empty before it does."""
    if not running:
        return []
    width = max(6, *(len(label) for label in running))
    lines = [f"  {'object':{width}}  {'stage':9}  {'step':>13}  {'loss':>9}  {'PSNR':>6}  {'left':>8}"]
    for label, told in sorted(running.items()):
        if not told:
            lines.append(f"  {label:{width}}  starting")
            continue
        steps = f"{told['step']}/{told['steps']}"
        lines.append(
            f"  {label:{width}}  {told['stage']:9}  {steps:>13}  {told['loss']:9.4g}  {told['psnr']:6.2f}  "
            f"{_duration(told['left']):>8}"
        )
    return lines


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# --- what a run says at the end -----------------------------------------------------------------------


def leaderboard(results: dict[str, tuple[Task, Record]]) -> list[list[str]]:
    """A head and a row a model, the best first."""
    rows = [["model", "PSNR", "worst", "worst motion", "IoU", "unseen", "seconds", "MiB", "revision"]]
    done = [
        (task, record.summary)
        for task, record in results.values()
        if record.status == "done" and not task.payload["variant"]
    ]
    for task, figures in sorted(done, key=lambda each: -each[1]["psnr"]):
        unseen = figures.get("unseen_psnr")
        rows.append(
            [
                f"dimo/{task.payload['object']}",
                f"{figures['psnr']:.2f}",
                f"{figures['worst_psnr']:.2f}",
                figures["worst_motion"],
                f"{figures['iou']:.3f}",
                "" if unseen is None else f"{unseen:.2f}",
                f"{figures['seconds']:.0f}",
                f"{figures['bytes'] / 2**20:.2f}",
                figures["model"].partition("@")[2][:12],
            ]
        )
    return rows


def ablation_table(results: dict[str, tuple[Task, Record]]) -> list[list[str]]:
    """A head and a row an object and variant: means over its motions."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task, record in results.values():
        if record.status == "done":
            place = task.payload["object"], task.payload["variant"] or FULL
            found.setdefault(place, []).append(record.summary)
    rows = [["object", "variant", "PSNR", "SSIM", "IoU", "motion error", "seconds"]]
    for (name, variant), summaries in found.items():
        mean = {
            what: sum(figures[what] for figures in summaries) / len(summaries)
            for what in ("psnr", "ssim", "iou", "motion_error")
            if what in summaries[0]
        }
        error = f"{mean['motion_error']:.4f}" if "motion_error" in mean else ""
        seconds = sum(figures["seconds"] for figures in summaries)
        rows.append(
            [
                name,
                variant,
                f"{mean['psnr']:.2f}",
                f"{mean['ssim']:.4f}",
                f"{mean['iou']:.3f}",
                error,
                f"{seconds:.0f}",
            ]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of a README."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]) + "\n"


# --- the command --------------------------------------------------------------------------------------


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="python -m factory.train", description="Train models. The same command resumes."
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    dimo = families.add_parser(
        "dimo",
        help="one motion space an object",
        description="Film the motions of objects and train a motion space for each. The same command resumes.",
    )
    add_options(dimo)
    group = dimo.add_argument_group("training")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="laptop",
        help="what is trained, and how long (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value of the preset, such as joint.steps=100",
    )
    group.add_argument("--cpus", type=float, default=1.0, help="of one training; may be a fraction")
    group.add_argument(
        "--gpus", type=float, default=0.0, help="of one training; may be a fraction, such as 0.25"
    )
    group.add_argument("--checkpoint-seconds", type=float, default=60.0, help="between two checkpoints")
    group.add_argument("--max-hours", type=float, default=24.0, help="one attempt at a training may take")
    group.add_argument(
        "--skip-unseen", action="store_true", help="do not reconstruct the motions that were held out"
    )
    group.add_argument(
        "--text",
        default="auto",
        metavar="MODEL",
        help="language model of the text heads, a hub name or a folder; auto: the one that is installed, if any; none",
    )
    group.add_argument(
        "--ablation", action="store_true", help="also train without each of the method's parts, and compare"
    )
    return parser, dimo, train_mvvdm.add_parser(families)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if at least one model was trained: the tables say which were not, and why."""
    parser, dimo, mvvdm = _parser()
    args = parser.parse_args(argv)
    if args.family == "mvvdm":
        return train_mvvdm.run(args, mvvdm, changed)
    for name in ("cpus", "checkpoint_seconds", "max_hours"):
        if getattr(args, name) <= 0.0:
            dimo.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name):g}")
    if args.gpus < 0.0:
        dimo.error(f"--gpus: expected 0 or more, got {args.gpus:g}")
    try:
        config = configured(args.preset, args.set)
    except ValueError as error:
        dimo.error(str(error))
    base = MotionRecipe(frames=config.frames, views=config.views, resolution=config.resolution)
    objects, recipe = read_options(dimo, args, base)
    try:
        return _run(args, objects, recipe, config)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, StageError, StorageError) as error:
        print(f"factory.train: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace, objects: list[str], recipe: MotionRecipe, config: DIMOConfig) -> int:
    ledger = Ledger(args.out)
    made = film_as_asked(args, ledger, objects, recipe)
    print(summary(made))
    stage = DimoStage(
        out=ledger.root,
        num_cpus=args.cpus,
        num_gpus=args.gpus,
        memory=8 * 2**30 + max((_size(one.folder) for one in made if one.folder), default=0),
        timeout_s=3600.0 * args.max_hours,
        checkpoint_s=args.checkpoint_seconds,
        unseen=not args.skip_unseen,
        encoder=_encoder(args.text),
    )
    results = train_objects(
        made, stage, config, ledger, seed=recipe.seed, ablation=args.ablation, workers=args.workers
    )
    tables = [leaderboard(results)] + ([ablation_table(results)] if args.ablation else [])
    ledger.storage.write("leaderboard.md", "\n".join(map(markdown, tables)).encode())
    print("\n" + "\n\n".join(map(aligned, tables)))
    for task, record in results.values():
        if record.status != "done":
            print(f"given up  {task.label}: {record.reason}")
    trained = any(record.status == "done" for _, record in results.values())
    if trained:
        print(f"\nload one with zoo.load('dimo/NAME', home={args.out!r})")
    return 0 if trained else 1


def _encoder(wanted: str) -> str:
    """The language model of text heads; the same for all workers, whatever each of them has installed."""
    from zoo.text_encoder import MINILM, WHEEL

    if wanted != "auto":
        return "" if wanted == "none" else wanted
    return MINILM if all(map(importlib.util.find_spec, ("transformers", WHEEL))) else ""


def _size(folder: Path) -> int:
    """Bytes of the files of a folder: a training maps them."""
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    from factory.train import main  # by its name, by which the cluster finds the stages of this file

    sys.exit(main())
