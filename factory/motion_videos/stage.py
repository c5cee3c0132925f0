"""One object's motions as motion spaces learn them: `python -m factory.motions --objects … --out …`.

Below `--out`, each object becomes a folder `motions/<object>/` that `zoo.dimo.data.MotionVideos` opens: every motion of
the object seen by 8 training views and 4 held-out views in 21 frames, in one world for all its motions.

An object is an animated asset of any source, an asset of an MV-Video dataset, or such a folder made before:

    creatures://kangaroo    models/knight.glb    a folder of .glb    a dataset's folder or URL    out/motions/kangaroo

Planning an object is a task, whose follow-ups are its motions, one task each, kept in the ledger: the same command
resumes, and the same recipe gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster import Outcome, Stage, Task, task_key
from factory.assets.licences import attribution
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.plan import Rejection
from factory.motion_videos.plan import (
    MotionPlan,
    MotionRecipe,
    clip_frames,
    clip_views,
    plan_clips,
    plan_motions,
    surface_points,
)
from factory.sources.downloads import DeadLink, WrongChecksum
from factory.sources.opening import AssetCache, settled
from renderers import gltf
from renderers.cameras import Cameras
from renderers.meshes import PICTURE_VERSIONS, RenderSettings, Shot, renderer

if TYPE_CHECKING:
    from factory.dataset.reader import ClipDataset


LEAST_MOTIONS = 2  # to train on; with fewer there is no space of motions


@dataclass
class MotionStage(Stage):
    """Plans objects and films their motions.

    Attributes:
        recipe: which motions, when and from where. settings: how they are rendered. backend: by what.
        films: whether anything is to be rendered; clips of a dataset have been.
    """

    recipe: MotionRecipe = field(default_factory=MotionRecipe)
    settings: RenderSettings = field(default_factory=RenderSettings)
    backend: str = "opengl"
    films: bool = True

    def __post_init__(self) -> None:
        recipe = self.recipe
        video_bytes = 4 * (recipe.views + recipe.heldout_views) * recipe.frames * recipe.resolution**2
        self.memory = 4 * 2**30 + 6 * video_bytes
        self.timeout_s = 300.0 + 3600.0 * (self.backend == "blender") + video_bytes / 1e6
        self._assets = AssetCache()
        self._datasets: dict[str, ClipDataset] = {}

    @property
    def identity(self) -> str:
        """Everything but the object that decides what its videos look like; part of every key."""
        parts = [self.recipe.hash(), self.settings.hash(), self.backend, PICTURE_VERSIONS[self.backend]]
        return ":".join(parts)

    def setup(self) -> None:
        if self.films:
            renderer(self.backend)  # now, so that a machine that cannot render says so at once

    def process(self, task: Task) -> Outcome:
        try:
            if "motion" not in task.payload:
                return self._plan(task)
            plan = MotionPlan(**task.payload["motion"])
            film = self._film if "asset" in task.payload else self._copy
            frames, points, summary = film(task, plan)
        except DeadLink as error:
            return Outcome("filtered", reason=f"dead: {error.reason}")
        except (gltf.GltfError, WrongChecksum) as error:  # known to be bad, and it says why: no second try
            return Outcome("quarantined", reason=str(error))
        path = f"{folder_of(task.payload['object'])}/{task.payload['file']}"
        files = {f"{path}.npy": _npy(frames)}
        if points is not None:
            files[f"{path}.points.npy"] = _npy(points)
        return Outcome("done", summary, files)

    def _plan(self, task: Task) -> Outcome:
        if "asset" in task.payload:
            plans, rejected, summary, fault = self._plan_asset(task)
        else:
            plans, rejected, summary, fault = self._plan_clips(task)
        reasons = "; ".join(sorted({rejection.reason for rejection in rejected}))
        trained = sum(plan.split == "train" for plan in plans)
        if not fault and not plans:
            fault = reasons
        elif not fault and trained < LEAST_MOTIONS:
            left_out = f" (left out: {reasons})" if reasons else ""
            fault = f"{_too_few(trained)}{left_out}"
        summary |= {"motions": len(plans), "rejected": [asdict(rejection) for rejection in rejected]}
        if fault:
            return Outcome("filtered", summary, reason=fault)
        return Outcome("done", summary, follow_up=[self._motion_task(task, plan) for plan in plans])

    def _plan_asset(self, task: Task) -> tuple[list[MotionPlan], list[Rejection], dict[str, Any], str]:
        record = AssetRecord.from_json(task.payload["asset"])
        terms = Selection().policy_for(record)
        record = settled(record, terms)
        if refusal := terms.refusal(record):
            return [], [], {}, refusal
        asset, sha256 = self._assets.open(record)
        known = record.completed(asset.metadata)
        if refusal := terms.refusal(known):
            return [], [], {}, refusal
        if not asset.animations:
            return [], [], {}, "not animated"
        plans, rejected = plan_motions(asset, record, self.recipe)
        train, heldout = self.recipe.view_splits
        summary = {
            "provenance": self._provenance({**asdict(known), "asset_sha256": sha256}),
            "index": {
                "resolution": self.recipe.resolution,
                "phases": self.recipe.phases.tolist(),
                "train_views": train,
                "heldout_views": heldout,
            },
        }
        return plans, rejected, summary, ""

    def _plan_clips(self, task: Task) -> tuple[list[MotionPlan], list[Rejection], dict[str, Any], str]:
        dataset = self._dataset(task.payload["dataset"])
        rows = [dataset.clip(clip_id).metadata for clip_id in task.payload["clips"]]
        plans, fault = plan_clips(rows, self.recipe)
        if fault:
            return [], [], {}, fault
        row = rows[0]
        train, heldout = clip_views(row["num_views"])
        summary = {
            "provenance": self._provenance({**row, "uid": row["asset_uid"]}),
            "index": {
                "resolution": row["height"],
                "phases": (clip_frames(row["num_frames"], self.recipe) / row["num_frames"]).tolist(),
                "train_views": list(range(len(train))),
                "heldout_views": list(range(len(train), len(train) + len(heldout))),
            },
        }
        return plans, [], summary, ""

    def _provenance(self, known: dict[str, Any]) -> dict[str, Any]:
        """What a model card says of the object; `known`: an asset's record, or a row of a dataset."""
        names = ("uid", "source", "title", "author", "licence", "source_url", "noai", "noai_checked_at")
        credit = attribution(known["title"], known["author"], known["source_url"], known["licence"])
        return {
            **{name: known[name] for name in names},
            "attribution": credit,
            "sha256": known["asset_sha256"],
        }

    def _motion_task(self, task: Task, plan: MotionPlan) -> Task:
        name, body = task.payload["object"], asdict(plan)
        key = task_key("motion", task.key, json.dumps(body, sort_keys=True))
        shared = {what: value for what, value in task.payload.items() if what != "clips"}
        # The key in the name: another recipe in the same folder is another file.
        payload = {**shared, "motion": body, "file": f"{slug(plan.name)}-{key[:8]}"}
        return Task(key, payload, f"{name} – {plan.name}")

    def _film(self, task: Task, plan: MotionPlan) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        asset, _ = self._assets.open(AssetRecord.from_json(task.payload["asset"]))
        what, side = plan.what, self.recipe.resolution
        asset_to_world = np.asarray(what["asset_to_world"], np.float64).reshape(4, 4)
        cameras = Cameras(np.asarray(plan.world_to_camera), np.asarray(plan.K), side, side)
        shot = Shot(what["animation"], np.asarray(what["timestamps"]), asset_to_world, cameras)
        clip = renderer(self.backend).render_clip(asset, shot, self.settings)
        corners, weights = surface_points(asset, self.recipe.points, self.recipe.seed)
        poses = [asset.positions(what["animation"], time)[corners] for time in what["timestamps"]]
        points = (np.stack(poses) * weights[..., None]).sum(axis=2)
        points = points @ asset_to_world[:3, :3].T + asset_to_world[:3, 3]
        return clip.frames, points.astype(np.float32), {"renderer": clip.renderer}

    def _copy(self, task: Task, plan: MotionPlan) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        clip = self._dataset(task.payload["dataset"]).clip(plan.what["clip_id"])
        return clip.read(plan.what["views"], plan.what["frames"]).frames, None, {}

    def _dataset(self, url: str) -> ClipDataset:
        from factory.dataset.reader import load_clips

        if url not in self._datasets:
            self._datasets[url] = load_clips(url)
        return self._datasets[url]


def _too_few(trained: int) -> str:
    return f"{trained} motions to train on, and a motion space needs at least {LEAST_MOTIONS}"


def folder_of(name: str) -> str:
    """Where an object's videos lie, relative to the output."""
    return f"motions/{name}"


def slug(name: str) -> str:
    """A name for files and models: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
