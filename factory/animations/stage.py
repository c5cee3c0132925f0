"""The tasks of `factory.animate`: open a 3D model, and animate it by a sentence.

The task of a model opens its file and has one follow-up task per sentence. Both run in a supervised child process,
since an untrusted file can make a loader hang, run out of memory or crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster import Outcome, Stage, StageError, Task, task_key
from factory.animations.models import ModelCache
from factory.animations.preview import strip
from factory.animations.recipe import (
    AnimationJob,
    AnimationRecipe,
    ModelJob,
    VideoModel,
    read_job,
    settings_hash,
)
from factory.assets.licences import attribution
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.motion_videos.stage import slug
from factory.motion_videos.subjects import object_name
from factory.sources.downloads import DeadLink, WrongChecksum
from factory.sources.opening import refreshed_record
from renderers.gltf import GltfError
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.animate3d import Animation

FOLDER = "animations"


@dataclass
class AnimateStage(Stage):
    """Open 3D models and animate them.

    Attributes:
        recipe, model: how they are animated.
        plan_only: stop after opening the models (a dry run).
        fetch_s: seconds that downloading a file may take.
        num_gpus: of each worker; with some, the video model runs on the GPU.
    """

    recipe: AnimationRecipe = field(default_factory=AnimationRecipe)
    model: VideoModel = field(default_factory=lambda: VideoModel(""))
    plan_only: bool = False
    fetch_s: float = 0.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        self.memory = 8 * 2**30
        self.timeout_s = 3600.0 + self.fetch_s
        self._models = ModelCache()

    @property
    def settings(self) -> str:
        """The settings' hash; part of every key."""
        return settings_hash(self.recipe, self.model)

    def setup(self) -> None:
        if self.plan_only:
            return
        from zoo.hub import load

        try:
            self._pipeline: Any = load(
                self.model.name, home=self.model.home, device="cuda" if self.num_gpus else None
            )
        except (ZooError, ImportError) as error:
            raise StageError(f"{self.model.name}: {error}") from error
        self._pipeline.set_progress_bar_config(disable=True)

    def process(self, task: Task) -> Outcome:
        job = read_job(task.payload)
        try:
            return self._admit(job) if isinstance(job, ModelJob) else self._animate(job, task.key)
        except DeadLink as error:
            return Outcome("filtered", reason=f"dead: {error.reason}")
        except (GltfError, WrongChecksum, ZooError, ValueError) as error:  # another attempt would not help
            return Outcome("quarantined", reason=" ".join(str(error).split()) or type(error).__name__)

    def _admit(self, job: ModelJob) -> Outcome:
        """Open a model if its licence satisfies the terms: first as the source, then as the file states it."""
        record = refreshed_record(job.asset, job.terms)
        if refusal := job.terms.refusal(record):
            return Outcome("filtered", reason=refusal)
        still, _ = self._models.open(record)
        record = record.completed(still.asset.metadata)
        if refusal := job.terms.refusal(record):
            return Outcome("filtered", reason=refusal)
        tasks = [self._task(record, sentence) for sentence in job.sentences]
        summary = {"animations": len(tasks), "notes": list(still.notes)}
        return Outcome("done", summary, follow_up=[] if self.plan_only else tasks)

    def _task(self, record: AssetRecord, sentence: str) -> Task:
        # The credit is written into the result.
        key = task_key("animation", record.fingerprint, self.settings, sentence, _credit(record))
        return Task(key, AnimationJob(record, sentence).to_json(), f"{record.uid} – {sentence}")

    def _animate(self, job: AnimationJob, key: str) -> Outcome:
        from zoo.animate3d import Animation, animate

        recipe, record = self.recipe, job.asset
        still, sha256 = self._models.open(record, credit=_credit(record))
        animation = animate(
            still,
            job.sentence,
            model=self._pipeline,
            seed=recipe.noise_seed,
            stiffness=recipe.stiffness,
            **recipe.video_options(),
        )
        assert isinstance(animation, Animation)  # opening a file of splats is refused
        data, _ = animation.glb(recipe.form, tolerance=recipe.tolerance, influences=recipe.influences)
        stem = f"{FOLDER}/{object_name(record.source, record.uid)}/{slug(job.sentence)}-{key[:8]}"
        row = {
            "file": f"{stem}.glb",
            "preview": f"{stem}.jpg",
            **_source(record, sha256),
            "sentence": job.sentence,
            "model": self.model.name,
            "settings": self.settings,
            "recipe": asdict(recipe),
            "key": key,
            **_measures(animation, animation.form(recipe.form)),
        }
        return Outcome("done", row, {row["file"]: data, row["preview"]: strip(animation)})


def _credit(record: AssetRecord) -> str:
    return attribution(record.title, record.author, record.source_url, record.licence)


def _source(record: AssetRecord, sha256: str) -> dict[str, Any]:
    """Columns of the index that say where the 3D model is from; the names are those of a manifest."""
    names = ("uid", "source", "title", "author", "licence", "source_url", "noai", "noai_checked_at", "tags")
    columns = {name: getattr(record, name) for name in names}
    return {**columns, "tags": list(record.tags), "attribution": _credit(record), "asset_sha256": sha256}


def _measures(animation: Animation, form: str) -> dict[str, Any]:
    """Columns of the index about the result."""
    report = animation.report
    assert report is not None
    return {
        "form": form,
        "frames": len(animation.motion.times),
        "seconds": round(animation.duration, 6),
        "residual": round(float(np.median(report.fit.residual[1:])), 4),
        "doubtful_frames": report.doubtful_frames,
        "edge_stretch": round(animation.edge_stretch(), 4),
        "notes": list(animation.model.notes),
    }


def model_tasks(
    records: Iterable[AssetRecord], sentences: tuple[str, ...], stage: AnimateStage, selection: Selection
) -> Iterator[Task]:
    """Yield one task per 3D model."""
    for record in records:
        job = ModelJob(replace(record, animations=None), sentences, selection.policy_for(record))
        kind = "plan model" if stage.plan_only else "model"
        terms = json.dumps(job.terms.to_json(), sort_keys=True)
        text = json.dumps([record.to_json(), list(sentences)], sort_keys=True)
        yield Task(task_key(kind, record.fingerprint, stage.settings, terms, text), job.to_json(), record.uid)
