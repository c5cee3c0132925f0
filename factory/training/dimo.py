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

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import Ledger, Outcome, Progress, Record, Stage, Task, run, run_inline, task_key
from factory.console import Show
from factory.motion_videos.run import SubjectVideos
from factory.training.overrides import changed
from factory.training.progress import ProgressWriter, training_status
from zoo.dimo.config import DIMOConfig

if TYPE_CHECKING:
    from zoo.dimo.data import MotionVideos
    from zoo.dimo.model import DIMO


TRAINING_VERSION = "1"  # raise it when the same videos and configuration would give another model
PRESETS: dict[str, Callable[[], DIMOConfig]] = {
    "laptop": DIMOConfig.laptop,
    "bundled": DIMOConfig.bundled,
    "paper": DIMOConfig.paper,
}
WORK = "_factory/training"  # <key>/: a task's checkpoint and its progress, until it is committed
PROTOCOL = (
    "PSNR, SSIM and silhouette IoU of the motions trained on, on white, over all frames of views that were never "
    "trained on, half-way between the training views and at other elevations; worst is the worst motion's. "
    "motion_error is the mean distance to true points of the surface, in a world where the cameras are 2 away. "
    "unseen are motions never trained on, their latents found from the training views."
)


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
        told = ProgressWriter(work / "progress.json", self.checkpoint_s)
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
        self, model: DIMO, videos: MotionVideos, trained_on: MotionVideos, name: str, told: ProgressWriter
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


ALONE, SHARED = "one motion at a time", "one motion at a time, steps shared"


def ablations(config: DIMOConfig) -> dict[str, DIMOConfig]:
    """The paper's Table 5, but for one motion at a time, which is another list of motions."""
    return {
        "without motion factorisation": replace(config, factorised=False),
        "without latent space": replace(config, latent_space=False),
        "without motion pre-training": replace(config, pretraining=replace(config.pretraining, steps=0)),
    }


def training_tasks(
    made: Sequence[SubjectVideos], config: DIMOConfig, stage: DimoStage, seed: int = 0, ablation: bool = False
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

        for variant, ablated in ablations(config).items():
            yield _task(one, ablated, stage, seed, variant)
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
    made: SubjectVideos,
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
    key = task_key("dimo", TRAINING_VERSION, made.key, told)
    label = ", ".join([made.name, *filter(None, [variant]), *motions])
    return Task(key, {**what, "videos": str(made.folder)}, label)


def configured(preset: str, changes: Iterable[str] = ()) -> DIMOConfig:
    """A preset of DIMO with some of its values changed; see `changed`."""
    return changed(PRESETS[preset](), changes)


def train_objects(
    made: Sequence[SubjectVideos],
    stage: DimoStage,
    config: DIMOConfig,
    ledger: Ledger,
    *,
    seed: int = 0,
    ablation: bool = False,
    workers: int | None = None,
    show: Show | None = None,
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

    def on_tick(progress: Progress) -> None:
        if show:
            show(lambda: training_status(progress, Path(stage.out, WORK), tasks, results))

    if workers == 0:
        run_inline(stage, tasks, ledger, on_resolved)
    else:
        run(stage, tasks, ledger, workers=workers, on_resolved=on_resolved, on_tick=on_tick)
    return results


def text_encoder_name(wanted: str) -> str:
    """The language model of text heads; the same for all workers, whatever each of them has installed."""
    from zoo.text_encoder import MINILM, WHEEL

    if wanted != "auto":
        return "" if wanted == "none" else wanted
    return MINILM if all(map(importlib.util.find_spec, ("transformers", WHEEL))) else ""


def folder_size(folder: Path) -> int:
    """Bytes of the files of a folder: a training maps them."""
    return sum(file.stat().st_size for file in folder.iterdir())
