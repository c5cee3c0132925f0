"""Plan and render the motion videos of one object: `python -m factory.motions --objects … --out …`.

Every object gets a folder `motions/<object>/` below `--out`, in the format of `zoo.dimo.data.MotionVideos`. By default
each motion is rendered from 8 training views and 4 held-out views in 21 frames, with one world scale per object.

An object is an animated asset of any source, an asset of an MV-Video dataset, or an existing folder of motion videos:

    creatures://kangaroo    models/knight.glb    a folder of .glb    a dataset's folder or URL    out/motions/kangaroo

One task plans an object; its follow-up tasks render one motion each. The ledger records all of them, so the same
command resumes, and the same recipe gives byte-identical files.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster import Outcome, Stage, Task, task_key
from factory.assets.licences import attribution
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.plan import Rejection
from factory.clips.stage import check_renderer
from factory.motion_videos.jobs import DatasetClips, MotionJob, MotionsJob, read_job
from factory.motion_videos.plan import (
    AnimationSource,
    ClipSource,
    MotionPlan,
    MotionRecipe,
    clip_frames,
    clip_views,
    plan_clips,
    plan_motions,
    surface_points,
)
from factory.sources.downloads import DeadLink, WrongChecksum
from factory.sources.opening import AssetCache, refreshed_record
from renderers import fixed, gltf
from renderers.cameras import Cameras
from renderers.meshes import PICTURE_VERSIONS, RenderSettings, Shot, default_backend, renderer

if TYPE_CHECKING:
    from factory.dataset.reader import ClipDataset


LEAST_MOTIONS = 2  # training motions; a motion space cannot be learned from fewer


@dataclass(frozen=True)
class _ObjectPlan:
    """Result of planning an object.

    Attributes:
        motions: those to render or copy. rejected: animations that give no motion.
        summary: "provenance" and "index" for the object's `motions.json`.
        fault: why the object cannot be used, "" if it can.
    """

    motions: list[MotionPlan] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass
class MotionStage(Stage):
    """Plan objects and render their motions.

    Attributes:
        recipe: which motions, frames and cameras.
        settings, backend: how motions are rendered, and with which renderer.
        renders: whether any object needs the renderer; clips of a dataset are only copied.
    """

    recipe: MotionRecipe = field(default_factory=MotionRecipe)
    settings: RenderSettings = field(default_factory=RenderSettings)
    backend: str = field(default_factory=default_backend)
    renders: bool = True

    def __post_init__(self) -> None:
        recipe = self.recipe
        video_bytes = 4 * (recipe.views + recipe.heldout_views) * recipe.frames * recipe.resolution**2
        self.memory = 4 * 2**30 + 6 * video_bytes
        self.timeout_s = 300.0 + 3600.0 * (self.backend == "blender") + video_bytes / 1e6
        self._assets = AssetCache()
        self._datasets: dict[str, ClipDataset] = {}

    @property
    def identity(self) -> str:
        """Everything except the object that determines the rendered bytes; part of every task key."""
        parts = [self.recipe.hash(), self.settings.hash(), self.backend, PICTURE_VERSIONS[self.backend]]
        return ":".join(parts)

    def setup(self) -> None:
        if self.renders:  # fail before the first task on a machine that cannot render
            check_renderer(self.backend)

    def process(self, task: Task) -> Outcome:
        try:
            job = read_job(task.payload)
            if isinstance(job, MotionsJob):
                return self._plan(job, task.key)
            render_or_copy = self._render_motion if isinstance(job.origin, AssetRecord) else self._copy_motion
            frames, points, summary = render_or_copy(job)
        except DeadLink as error:
            return Outcome("filtered", reason=f"dead: {error.reason}")
        except (gltf.GltfError, WrongChecksum) as error:  # the file is bad: another attempt would not help
            return Outcome("quarantined", reason=str(error))
        path = f"{folder_of(job.object)}/{job.file}"
        files = {f"{path}.npy": _npy(frames)}
        if points is not None:
            files[f"{path}.points.npy"] = _npy(points)
        return Outcome("done", summary, files)

    def _plan(self, job: MotionsJob, key: str) -> Outcome:
        origin = job.origin
        plan = self._plan_asset(origin) if isinstance(origin, AssetRecord) else self._plan_clips(origin)
        reasons = "; ".join(sorted({rejection.reason for rejection in plan.rejected}))
        training = sum(motion.split == "train" for motion in plan.motions)
        fault = plan.fault
        if not fault and not plan.motions:
            fault = reasons
        elif not fault and training < LEAST_MOTIONS:
            left_out = f" (left out: {reasons})" if reasons else ""
            fault = f"{too_few(training)}{left_out}"
        rejected = [asdict(rejection) for rejection in plan.rejected]
        summary = {**plan.summary, "motions": len(plan.motions), "rejected": rejected}
        if fault:
            return Outcome("filtered", summary, reason=fault)
        return Outcome("done", summary, follow_up=[_motion_task(job, key, motion) for motion in plan.motions])

    def _plan_asset(self, listed: AssetRecord) -> _ObjectPlan:
        terms = Selection().policy_for(listed)
        listed = refreshed_record(listed, terms)
        if refusal := terms.refusal(listed):
            return _ObjectPlan(fault=refusal)
        asset, sha256 = self._assets.open(listed)
        record = listed.completed(asset.metadata)
        if refusal := terms.refusal(record):
            return _ObjectPlan(fault=refusal)
        if not asset.animations:
            return _ObjectPlan(fault=f"not animated: {too_few(0)}")
        motions, rejected = plan_motions(asset, listed, self.recipe)
        train, heldout = self.recipe.view_splits
        summary = {
            "provenance": provenance_of({**asdict(record), "asset_sha256": sha256}),
            "index": {
                "resolution": self.recipe.resolution,
                "phases": self.recipe.phases.tolist(),
                "train_views": train,
                "heldout_views": heldout,
            },
        }
        return _ObjectPlan(motions, rejected, summary)

    def _plan_clips(self, origin: DatasetClips) -> _ObjectPlan:
        dataset = self._dataset(origin.dataset)
        rows = [dataset.clip(clip_id).metadata for clip_id in origin.clips]
        motions, fault = plan_clips(rows, self.recipe)
        if fault:
            return _ObjectPlan(fault=fault)
        row = rows[0]
        train, heldout = clip_views(row["num_views"])
        summary = {
            "provenance": provenance_of({**row, "uid": row["asset_uid"]}),
            "index": {
                "resolution": row["height"],
                "phases": (clip_frames(row["num_frames"], self.recipe) / row["num_frames"]).tolist(),
                "train_views": list(range(len(train))),
                "heldout_views": list(range(len(train), len(train) + len(heldout))),
            },
        }
        return _ObjectPlan(motions, [], summary)

    def _render_motion(self, job: MotionJob) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        """Frames uint8 [V, T, H, W, 4], surface points float32 [T, P, 3] in the world, and the task's summary."""
        assert isinstance(job.origin, AssetRecord) and isinstance(job.motion.source, AnimationSource)
        asset, _ = self._assets.open(job.origin)
        source, side = job.motion.source, self.recipe.resolution
        asset_to_world = np.asarray(source.asset_to_world, np.float64).reshape(4, 4)
        cameras = Cameras(np.asarray(job.motion.world_to_camera), np.asarray(job.motion.K), side, side)
        shot = Shot(source.animation, np.asarray(source.timestamps), asset_to_world, cameras)
        clip = renderer(self.backend).render_clip(asset, shot, self.settings)
        corners, weights = surface_points(asset, self.recipe.points, self.recipe.points_seed)
        poses = [asset.positions(source.animation, time)[corners] for time in source.timestamps]
        points = (np.stack(poses) * weights[..., None]).sum(axis=2)
        asset_to_world = shot.centred(asset).asset_to_world
        points = fixed.transformed(points, asset_to_world[:3, :3], asset_to_world[:3, 3])
        return clip.frames, points.astype(np.float32), {"renderer": clip.renderer}

    def _copy_motion(self, job: MotionJob) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        """Frames uint8 [V, T, H, W, 4] of a dataset's clip; a dataset has no surface points."""
        assert isinstance(job.origin, DatasetClips) and isinstance(job.motion.source, ClipSource)
        clip = self._dataset(job.origin.dataset).clip(job.motion.source.clip_id)
        return clip.read(job.motion.source.views, job.motion.source.frames).frames, None, {}

    def _dataset(self, url: str) -> ClipDataset:
        from factory.dataset.reader import load_clips

        if url not in self._datasets:
            self._datasets[url] = load_clips(url)
        return self._datasets[url]


def _motion_task(job: MotionsJob, key: str, motion: MotionPlan) -> Task:
    """The task of one motion. `key`: of the object's planning task."""
    motion_key = task_key("motion", key, json.dumps(motion.to_json(), sort_keys=True))
    origin = job.origin if isinstance(job.origin, AssetRecord) else DatasetClips(job.origin.dataset)
    # The file name contains the key, so that two recipes can share a folder.
    file = f"{slug(motion.name)}-{motion_key[:8]}"
    payload = MotionJob(job.object, origin, motion, file).to_json()
    return Task(motion_key, payload, f"{job.object} – {motion.name}")


def provenance_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Source, author and licence for the model card, from an asset's record or a row of a dataset."""
    names = ("uid", "source", "title", "author", "licence", "source_url", "noai", "noai_checked_at")
    credit = attribution(metadata["title"], metadata["author"], metadata["source_url"], metadata["licence"])
    return {
        **{name: metadata[name] for name in names},
        "attribution": credit,
        "sha256": metadata["asset_sha256"],
    }


def too_few(training: int) -> str:
    """The error for an object with fewer than `LEAST_MOTIONS` training motions."""
    return f"{training} motions to train on, and a motion space needs at least {LEAST_MOTIONS}"


def folder_of(name: str) -> str:
    """Folder of an object's videos, relative to the output."""
    return f"motions/{name}"


def slug(name: str) -> str:
    """A file and model name: lower-case letters, digits and hyphens, at most 60 characters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
