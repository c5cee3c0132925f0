"""Train DIMO motion spaces: `python -m factory.train dimo --objects creatures://kangaroo,… --out …`.

Every object's motions are first rendered (`factory.motion_videos`), unless it comes with motion videos. Then one task
per object trains its motion space; the tasks run in parallel on the cluster. Below `--out`:

    motions/<object>/           motion videos
    models/dimo/<object>/       the model; `--out` is a registry: `zoo.load("dimo/<object>", home=OUT)`
    leaderboard.md              metrics of all models
    _factory/                   ledger of the tasks, and checkpoints of unfinished trainings

The same command resumes: committed tasks are skipped, and a killed training continues from its newest checkpoint with
the same result, to the bit, as an uninterrupted one.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import Ledger, Outcome, Record, Stage, Task, run, task_key
from factory.console import Show
from factory.motion_videos.run import SubjectVideos
from factory.training.overrides import apply_overrides
from factory.training.progress import ProgressWriter, training_status
from zoo.dimo.config import DIMOConfig
from zoo.threads import worker_threads

if TYPE_CHECKING:
    from zoo.dimo.data import MotionVideos
    from zoo.dimo.model import DIMO


TRAINING_VERSION = "1"  # increment when the same videos and configuration would give another model
PRESETS: dict[str, Callable[[], DIMOConfig]] = {
    "laptop": DIMOConfig.laptop,
    "bundled": DIMOConfig.bundled,
    "paper": DIMOConfig.paper,
}
# Configuration fields that version 0.1 did not have.
ADDED = (
    "blending",
    "root",
    "stretching",
    "discs",
    "smoothing",
    "losses.tracks",
    "pretraining.untracked_steps",
    "joint.untracked_steps",
    "joint.remove_strays",
    "joint.polish_steps",
    "joint.surface_steps",
    "joint.prior_steps",
)
WORK = "_factory/training"  # <key>/: checkpoint and progress of a task, until it is committed
PROTOCOL = (
    "PSNR, SSIM and silhouette IoU of the motions trained on, on white, over all frames of views that were never "
    "trained on, half-way between the training views and at other elevations; worst is the worst motion's. "
    "motion_error is the mean distance to true points of the surface, in a world where the cameras are 2 away. "
    "torn is the share of solid Gaussians whose six nearest neighbours are, in the median, more than 1.5 times as far "
    "away as in the canonical pose, in a motion's worst frame; torn_truth is that of the true points. "
    "unseen are motions never trained on, their latents found from the training views."
)


# Of motion videos without held-out views: those that a video model generated.
TRAINED_VIEWS = (
    "PSNR, SSIM and silhouette IoU of the motions trained on, on white, over all frames of the views trained on, as "
    "there are no others; worst is the worst motion's. psnr_still is that of a motion's first frame, repeated. torn is "
    "the share of solid Gaussians whose six nearest neighbours are, in the median, more than 1.5 times as far away as "
    "in the canonical pose, in a motion's worst frame. unseen are motions never trained on, their latents found from "
    "the same views."
)


@dataclass(frozen=True)
class DIMOTrainingJob:
    """Payload of one training task. Its JSON enters the task's key and the ledger, so its keys must not change.

    Attributes:
        object: name of the object and of its model.
        variant: name of an ablation; "" for the model that is published.
        motions: names of the motions to train on; empty = all training motions.
        seed: of the training.
        config: of the model and its training.
        videos: folder of the object's motion videos; not part of the key.
    """

    object: str
    variant: str
    motions: tuple[str, ...]
    seed: int
    config: DIMOConfig
    videos: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "motions": list(self.motions)}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> DIMOTrainingJob:
        config = DIMOConfig(**payload["config"])
        return cls(**{**payload, "motions": tuple(payload["motions"]), "config": config})

    @property
    def label(self) -> str:
        return ", ".join([self.object, *filter(None, [self.variant]), *self.motions])

    def task(self, stage: DimoStage, videos_key: str) -> Task:
        """The task of this job. `videos_key`: `SubjectVideos.key`, for the content of `videos`."""
        settings = self.to_json()
        del settings["videos"]
        settings["config"] = _without_added(settings["config"])
        settings |= {"unseen": stage.unseen, "encoder": stage.encoder}
        key = task_key("dimo", TRAINING_VERSION, videos_key, json.dumps(settings, sort_keys=True))
        return Task(key, self.to_json(), self.label)


def _without_added(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it enters a task's key: without those fields in `ADDED` that have the presets' values.

    Version 0.1 did not have these fields. A training that it finished with a preset therefore counts as done.
    """
    config = json.loads(json.dumps(config))
    # The presets for the CPU start from the visual hull, the published configuration from a ball.
    published = config["pretraining"]["initial"] == "ball"
    small = config["resolution"] <= DIMOConfig.laptop().resolution
    preset = asdict(PRESETS["paper" if published else "laptop" if small else "bundled"]())
    for path in ADDED:
        *parents, name = path.split(".")
        values, present = config, preset
        for parent in parents:
            values, present = values[parent], present[parent]
        if values[name] == present[name]:
            del values[name]
    return config


@dataclass
class DimoStage(Stage):
    """Train one object's motion space, evaluate it and publish it to the registry.

    Attributes:
        out: folder of the registry.
        num_cpus, num_gpus: resources of one training; may be fractions.
        gpu_memory: bytes of GPU memory that one training needs; 0 to reserve `num_gpus`.
        checkpoint_s: seconds of training between two checkpoints.
        unseen: also fit latents to the held-out motions and evaluate those.
        encoder: language model of the text heads, a hub name or a folder; "" for no text heads.
    """

    out: str = "."
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    gpu_memory: int = 0
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
        from zoo.dimo.training import CheckpointError, train

        job = DIMOTrainingJob.from_json(task.payload)
        videos = MotionVideos.open(job.videos)
        trained_on = videos.select(job.motions or "train")
        work = Path(self.out, WORK, task.key)
        work.mkdir(parents=True, exist_ok=True)
        progress = ProgressWriter(work / "progress.json", self.checkpoint_s)
        checkpoint = work / "checkpoint.safetensors"
        try:
            model = train(
                trained_on,
                job.config,
                checkpoint=checkpoint,
                seed=job.seed,
                device=self.device,
                on_step=progress,
            )
        except CheckpointError:
            # The next attempt starts without it; after other errors, it continues from the last checkpoint.
            checkpoint.unlink(missing_ok=True)
            raise
        if job.variant:
            progress.stage("measuring")
            metrics = measure(model, trained_on, None)
            return Outcome("done", {**_summary(metrics), "seconds": progress.seconds})
        return self._publish(model, videos, trained_on, job.object, progress)

    def _publish(
        self, model: DIMO, videos: MotionVideos, trained_on: MotionVideos, name: str, progress: ProgressWriter
    ) -> Outcome:
        import zoo
        from zoo.dimo.pipeline import DIMOPipeline

        text = None
        if self.encoder:
            from zoo.dimo.text import train_text_head

            progress.stage("text")
            text = train_text_head(trained_on.sentences, name=self.encoder, seed=0)
        progress.stage("measuring")
        seconds = float(videos.provenance.get("seconds", 2.0))
        pipeline = DIMOPipeline.of(model, trained_on, seconds=seconds, text=text)
        heldout = videos.select("heldout")
        # Evaluate the pipeline's model: its weights are rounded as in the published file.
        metrics = measure(pipeline.model, trained_on, heldout if self.unseen and len(heldout) else None)
        steps = model.config.pretraining.steps + model.config.joint.steps
        metrics["training"] = {"steps": steps, "motions": len(trained_on), "views": len(videos.train_views)}
        pipeline.metrics = metrics
        # The output belongs to the user, whatever the licence of the object; zoo.publish checks it before sharing. The
        # name of an object may end with a hyphen, where it was cut; that of a model may not.
        target = f"local:dimo/{name.strip('-')}"
        reference = zoo.publish(pipeline, target, home=self.out, own_use=True)
        size = sum(zoo.info(reference, home=self.out).files.values())
        summary = {**_summary(metrics), "seconds": progress.seconds, "bytes": size, "model": reference}
        return Outcome("done", summary)


def measure(model: DIMO, trained_on: MotionVideos, heldout: MotionVideos | None) -> dict[str, Any]:
    """The content of `metrics.json`; deterministic."""
    from zoo.dimo.evaluation import evaluate
    from zoo.dimo.training import fit_latent

    views = None if trained_on.heldout_views else trained_on.train_views
    measured: dict[str, Any] = evaluate(model, trained_on, views=views)
    if views is not None:
        _add_still(measured, trained_on, views)
    source = trained_on.provenance.get("title") or trained_on.object
    metrics = {
        "protocol": PROTOCOL if views is None else TRAINED_VIEWS,
        "dataset": {"name": f"motion videos of {source}", "type": "motion-videos"},
        "mean": _means(measured),
        "worst": {
            "psnr": measured["worst_psnr"],
            "motion": measured["worst_motion"],
            "torn": max(row["torn"] for row in measured["motions"]),
        },
        "resolution": measured["resolution"],
        "gaussians": measured["gaussians"],
        "motions": measured["motions"],
    }
    if heldout is not None:
        unseen: dict[str, Any] = evaluate(model, heldout, latents=fit_latent(model, heldout), views=views)
        if views is not None:
            _add_still(unseen, heldout, views)
        metrics["unseen"] = _means(unseen) | {
            "worst_psnr": unseen["worst_psnr"],
            "motions": unseen["motions"],
        }
    return metrics


def _add_still(measured: dict[str, Any], videos: MotionVideos, views: Sequence[int]) -> None:
    """Add what the still pose reaches to the result of `evaluate`."""
    from zoo.dimo.evaluation import still_psnr

    values = still_psnr(videos, views)
    for row, value in zip(measured["motions"], values, strict=True):
        row["psnr_still"] = value
    measured["psnr_still"] = sum(values) / len(values)


def _means(measured: dict[str, Any]) -> dict[str, float]:
    names = ("psnr", "psnr_still", "ssim", "iou", "motion_error", "arap", "torn", "torn_truth")
    return {name: measured[name] for name in names if name in measured}


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that the ledger records and the leaderboard shows."""
    summary = {
        **metrics["mean"],
        "worst_psnr": metrics["worst"]["psnr"],
        "worst_motion": metrics["worst"]["motion"],
    }
    if "unseen" in metrics:
        summary["unseen_psnr"] = metrics["unseen"]["psnr"]
    return summary


# Names of ablations; they are part of task keys.
ALONE, SHARED = "one motion at a time", "one motion at a time, steps shared"


def ablations(config: DIMOConfig) -> dict[str, DIMOConfig]:
    """Variant → configuration, the ablations of the paper's Table 5.

    Its row "one motion at a time" trains on other motions rather than with another configuration: see `training_tasks`.
    """
    return {
        "without motion factorisation": replace(config, factorised=False),
        "without latent space": replace(config, latent_space=False),
        "without motion pre-training": replace(
            config, pretraining=replace(config.pretraining, steps=0, untracked_steps=0)
        ),
    }


def training_tasks(
    subjects: Sequence[SubjectVideos],
    config: DIMOConfig,
    stage: DimoStage,
    seed: int = 0,
    ablation: bool = False,
) -> Iterator[Task]:
    """One task per object that has motion videos, and with `ablation` its variants.

    The variants are those of `ablations`, and two trainings on each motion alone: `ALONE` with all training steps,
    `SHARED` with 1/motions of them, so that all motions together take as many steps as the joint training.
    """
    for videos in subjects:
        if videos.folder is None:
            continue
        full = DIMOTrainingJob(videos.name, "", (), seed, config, str(videos.folder))
        jobs = [full, *_ablation_jobs(full)] if ablation else [full]
        yield from (job.task(stage, videos.key) for job in jobs)


def _ablation_jobs(full: DIMOTrainingJob) -> Iterator[DIMOTrainingJob]:
    from zoo.dimo.data import MotionVideos

    config = full.config
    for variant, ablated in ablations(config).items():
        yield replace(full, variant=variant, config=ablated)
    motions = MotionVideos.open(full.videos).select("train").names
    short = _steps_shared(config, len(motions))
    for variant, alone in ((ALONE, config), (SHARED, short)):
        for motion in motions:
            yield replace(full, variant=variant, motions=(motion,), config=alone)


def _steps_shared(config: DIMOConfig, motions: int) -> DIMOConfig:
    """`config` with the steps of every part of the training divided by the number of motions."""
    names = ("untracked_steps", "polish_steps", "surface_steps")
    joint = {name: getattr(config.joint, name) // motions for name in names}
    first = {name: getattr(config.pretraining, name) // motions for name in ("steps", "untracked_steps")}
    return replace(
        config,
        pretraining=replace(config.pretraining, **first),
        joint=replace(config.joint, steps=max(1, config.joint.steps // motions), **joint),
    )


def configured(preset: str, overrides: Iterable[str] = ()) -> DIMOConfig:
    """A preset of DIMO with overrides such as "joint.steps=100"; see `apply_overrides`."""
    return apply_overrides(PRESETS[preset](), overrides)


def train_objects(
    subjects: Sequence[SubjectVideos],
    stage: DimoStage,
    config: DIMOConfig,
    ledger: Ledger,
    *,
    seed: int = 0,
    ablation: bool = False,
    workers: int | None = None,
    show: Show | None = None,
) -> dict[str, tuple[Task, Record]]:
    """Train a motion space for every object that has motion videos.

    Args:
        subjects: result of `make_motions`.
        seed: of the training. It does not affect the motion videos.
        ablation: also train the variants of `training_tasks`.
        workers: number of parallel workers; None = as many as fit on the cluster, 0 = this process, without Ray.
    Returns:
        Label of each task → the task and its record.
    Raises:
        StageError, StorageError: finished trainings are kept; calling this again resumes.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    tasks = list(training_tasks(subjects, config, stage, seed, ablation))
    results: dict[str, tuple[Task, Record]] = {}

    def on_resolved(task: Task, record: Record) -> None:
        results[task.label] = (task, record)
        if record.status == "done":  # a lost worker cannot need the checkpoint any more
            shutil.rmtree(Path(stage.out, WORK, task.key), ignore_errors=True)

    with worker_threads(workers):
        run(
            stage,
            tasks,
            ledger,
            workers=workers,
            on_resolved=on_resolved,
            on_tick=show
            and (
                lambda progress: show(
                    lambda: training_status(progress, Path(stage.out, WORK), tasks, results)
                )
            ),
        )
    return results


def resolve_encoder(name: str) -> str:
    """The language model that `--text` selects; "" for none.

    "auto" is decided in the driver, so that all workers use the same model whatever is installed on them.
    """
    from zoo.text_encoder import MINILM, WHEEL

    if name != "auto":
        return "" if name == "none" else name
    return MINILM if all(map(importlib.util.find_spec, ("transformers", WHEEL))) else ""


def folder_bytes(folder: Path) -> int:
    """Total size of the files of a folder of motion videos, which a training maps into memory."""
    return sum(file.stat().st_size for file in folder.iterdir())
