"""The tasks of `factory.render`: plan the clips of an asset, and render a clip into a staged dataset row.

The task of an asset opens it and plans its clips, which are its follow-up tasks. Both run in a supervised child
process, since an untrusted file can make a loader hang, run out of memory or crash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from cluster import Outcome, Stage, StageError, Task, task_key
from factory.assets.exclusions import TAKEN_DOWN
from factory.assets.licences import Policy, attribution
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.assets.splits import assign_split
from factory.clips.jobs import ANY_LICENCE, AssetJob, ClipJob, read_job
from factory.clips.plan import TURNTABLE, ClipPlan, ClipRecipe, Rejection, plan_asset
from factory.clips.quality import MotionPolicy
from factory.clips.similarity import frame_similarity
from factory.dataset.captions import caption_from_names
from factory.dataset.notes import count_notes
from factory.dataset.schema import ClipInfo, make_row, write_row
from factory.dataset.shards import staged_path
from factory.sources.downloads import DeadLink, WrongChecksum
from factory.sources.opening import AssetCache, refreshed_record
from renderers import gltf
from renderers.meshes import PICTURE_VERSIONS, RenderError, RenderSettings, default_backend, renderer


@dataclass
class RenderStage(Stage):
    """Plan assets and render their clips.

    Attributes:
        recipe: which clips are made of an asset.
        settings, backend: how they are rendered, and with which renderer.
        holdout: fraction of the assets in the validation split, and in the test split.
        plan_only: stop after planning (a dry run).
        curate: "off"; "tag" = measure each motion and write the verdict of `policy` to the column `quality`;
            "filter" = also leave out clips that break a rule which can be checked before rendering.
        policy: rules of the column `quality`.
        fetch_s: seconds that downloading a file may take.
        strict: leave out assets with notes, which cannot be drawn as their files specify.
        turntable: make clips of assets that are not animated, too: they turn once about the vertical axis.
        last_animation: make clips of the last animation of each asset only.
        taken_down: content addresses ("sha256:…") of files that must not enter the dataset under any name.
    """

    recipe: ClipRecipe = field(default_factory=ClipRecipe)
    settings: RenderSettings = field(default_factory=RenderSettings)
    backend: str = field(default_factory=default_backend)
    holdout: float = 0.0
    plan_only: bool = False
    curate: str = "tag"
    policy: MotionPolicy = field(default_factory=MotionPolicy)
    fetch_s: float = 0.0
    taken_down: frozenset[str] = frozenset()
    strict: bool = False
    turntable: bool = False
    last_animation: bool = False

    def __post_init__(self) -> None:
        pixels = self.recipe.views * self.recipe.num_frames * self.recipe.resolution**2
        clip_bytes = pixels * self.settings.bytes_per_pixel
        self.memory = 4 * 2**30 + 12 * pixels + clip_bytes  # encoding copies the colour frames
        self.timeout_s = 120.0 + self.fetch_s + 3600.0 * (self.backend == "blender") + clip_bytes / 1e6
        self._assets = AssetCache()

    @property
    def identity(self) -> str:
        """Everything except the asset that determines a clip's pixels; part of every key."""
        parts = [self.recipe.hash(), self.settings.hash(), self.backend, PICTURE_VERSIONS[self.backend]]
        return ":".join(parts)

    @property
    def selection(self) -> str:
        """Everything except the asset that determines which clips it gives."""
        parts = [self.identity]
        if self.curate == "filter":
            parts.append(self.policy.hash())
        if self.strict:
            parts.append("strict")
        if self.turntable:
            parts.append("turntable")
        if self.last_animation:
            parts.append("last animation")
        return ":".join(parts)

    def setup(self) -> None:
        if not self.plan_only:  # fail before the first task on a machine that cannot render
            check_renderer(self.backend)

    def process(self, task: Task) -> Outcome:
        job = read_job(task.payload)
        try:
            if isinstance(job, AssetJob):
                return self._admit(job.asset, job.terms)
            started = time.perf_counter()
            asset, sha256 = self._assets.open(job.asset)
            return self._render(asset, job, sha256, task.key, time.perf_counter() - started)
        except DeadLink as error:
            return Outcome("filtered", reason=f"dead: {error.reason}")
        except (
            gltf.GltfError,
            WrongChecksum,
        ) as error:  # the file is bad: another attempt would not help
            return Outcome("quarantined", reason=str(error))

    def _admit(self, record: AssetRecord, terms: Policy) -> Outcome:
        """Plan an asset if its licence satisfies the terms: first as the source, then as the file states it."""
        record = refreshed_record(record, terms)
        if refusal := terms.refusal(record):
            return Outcome("filtered", reason=refusal)
        started = time.perf_counter()
        asset, sha256 = self._assets.open(record)
        loaded = time.perf_counter() - started
        if f"sha256:{sha256}" in self.taken_down:
            return Outcome("filtered", reason=TAKEN_DOWN)
        record = record.completed(asset.metadata)
        if refusal := terms.refusal(record):
            return Outcome("filtered", reason=refusal)
        if self.strict and asset.notes:
            return Outcome("filtered", reason=f"strict: {'; '.join(asset.notes)}")
        return self._plan(asset, record, loaded)

    def _plan(self, asset: gltf.Asset, record: AssetRecord, loaded: float) -> Outcome:
        if not asset.animations and not self.turntable:
            return Outcome("filtered", reason="not animated")
        started = time.perf_counter()
        measure = self.curate != "off"
        only = range(len(asset.animations))[-1:] if self.last_animation else None
        clips, rejections = plan_asset(
            asset, record.fingerprint, self.recipe, measure=measure, turntable=self.turntable, only=only
        )
        if self.curate == "filter":
            clips, rejections = self._within_policy(clips, rejections)
        rejected = [asdict(rejection) for rejection in rejections]
        if not clips:
            return Outcome(
                "filtered", {"rejected": rejected}, reason="; ".join(sorted({r.reason for r in rejections}))
            )
        tasks = [self._clip_task(record, clip) for clip in clips]
        seconds = {"load": loaded, "plan": time.perf_counter() - started}
        summary: dict[str, Any] = {"clips": len(clips), "rejected": rejected, "seconds": seconds}
        if asset.notes:
            summary["notes"] = list(asset.notes)
        if clip_notes := count_notes(clip.notes for clip in clips):
            summary["clip_notes"] = clip_notes
        if turntables := sum(clip.animation == TURNTABLE for clip in clips):
            summary["turntables"] = turntables
        return Outcome("done", summary, follow_up=[] if self.plan_only else tasks)

    def _within_policy(
        self, clips: list[ClipPlan], rejections: list[Rejection]
    ) -> tuple[list[ClipPlan], list[Rejection]]:
        """Move the clips that break a rule of the policy to the rejections."""
        faults = [self.policy.faults({**clip.motion, **clip.measures}) for clip in clips]
        left_out = [
            Rejection(clip.animation, clip.animation_name, f"{'; '.join(broken)} ({clip.window} window)")
            for clip, broken in zip(clips, faults, strict=True)
            if broken
        ]
        kept = [clip for clip, broken in zip(clips, faults, strict=True) if not broken]
        return kept, rejections + left_out

    def _clip_task(self, record: AssetRecord, clip: ClipPlan) -> Task:
        decided = {name: value for name, value in clip.to_json().items() if name not in ("measures", "notes")}
        plan = json.dumps(decided, sort_keys=True)
        key = task_key("clip", record.fingerprint, self.identity, plan)
        return Task(
            key, ClipJob(record, clip).to_json(), f"{record.uid} – {clip.animation_name} ({clip.window})"
        )

    def _render(self, asset: gltf.Asset, job: ClipJob, sha256: str, key: str, loaded: float) -> Outcome:
        plan = job.clip
        started = time.perf_counter()
        clip = renderer(self.backend).render_clip(asset, plan.shot(self.recipe), self.settings)
        rendered = time.perf_counter()
        info = self._info(asset, job.asset, sha256, key, plan)
        info = replace(info, notes=(*asset.notes, *plan.notes))
        if self.curate != "off":
            measures = {**plan.measures, "motion_ssim": frame_similarity(clip.frames)}
            quality = self.policy.quality({**plan.motion, **measures})
            info = replace(info, measures=measures, quality=quality)
        measured = time.perf_counter()
        data = write_row(make_row(clip, info))
        seconds = {
            "load": loaded,
            "render": rendered - started,
            "measure": measured - rendered,
            "encode": time.perf_counter() - measured,
        }
        summary = {"seconds": seconds, "bytes": len(data), "split": info.split, "renderer": clip.renderer}
        return Outcome("done", summary, files={staged_path(key): data})

    def _info(
        self, asset: gltf.Asset, record: AssetRecord, sha256: str, key: str, plan: ClipPlan
    ) -> ClipInfo:
        recipe, record = self.recipe, record.completed(asset.metadata)
        shot = plan.shot(recipe)
        fractions = {"train": 1 - 2 * self.holdout, "validation": self.holdout, "test": self.holdout}
        description = "" if plan.animation == TURNTABLE else asset.animations[plan.animation].description
        caption = caption_from_names(record.title, record.tags, plan.animation_name, description)
        return ClipInfo(
            clip_id=key,
            split=assign_split(record.fingerprint, fractions),
            asset_uid=record.uid,
            asset_sha256=sha256,
            source=record.source,
            source_url=record.source_url,
            title=record.title,
            author=record.author,
            licence=record.licence,
            attribution=attribution(record.title, record.author, record.source_url, record.licence),
            noai=record.noai,
            noai_checked_at=record.noai_checked_at,
            animation_name=plan.animation_name,
            animation_index=plan.animation,
            window=plan.window,
            start_time=plan.start_time,
            end_time=plan.end_time,
            fps=recipe.fps,
            elevation_deg=plan.elevation_deg,
            azimuth_offset_deg=plan.azimuth_offset_deg,
            azimuths_deg=[plan.azimuth_offset_deg + 360.0 / recipe.views * v for v in range(recipe.views)],
            distance=recipe.distance,
            fov_y_deg=recipe.fov_y_deg,
            asset_to_world=shot.asset_to_world,
            renderer=self.backend,
            settings=self.settings,
            package_version=version("menagerie4d"),
            seed=recipe.seed,
            motion=plan.motion,
            caption=caption.text,
            caption_origin=caption.origin,
        )


def check_renderer(backend: str) -> None:
    """Start a back end.

    Raises:
        StageError: it cannot start on this machine.
    """
    try:
        renderer(backend)
    except (RenderError, ImportError, OSError) as error:
        raise StageError(f"no renderer: {error}") from error


def asset_tasks(
    records: Iterable[AssetRecord], stage: RenderStage, selection: Selection | None = None
) -> Iterator[Task]:
    """Yield one task per asset, with the licence policy of the selection; without one, every licence is accepted."""
    for record in records:
        terms = selection.policy_for(record) if selection else ANY_LICENCE
        parts = ["plan" if stage.plan_only else "asset", record.fingerprint, stage.selection]
        if terms != ANY_LICENCE:  # in the key, so that changed terms check assets again
            parts.append(json.dumps(terms.to_json(), sort_keys=True))
        yield Task(task_key(*parts), AssetJob(record, terms).to_json(), record.uid)
