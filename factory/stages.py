"""The work of the factory, one task at a time: an asset becomes a plan of clips, a clip becomes a staged row.

An asset task opens the asset and plans it; its follow-up tasks are the clips. Both run in a supervised child,
because opening a stranger's file is where things hang, explode and crash.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

from cluster import Outcome, Stage, Task
from factory.catalog import AssetRecord
from factory.licences import UNKNOWN, to_spdx
from factory.planning import ClipPlan, Recipe, plan_asset
from factory.schema import ClipInfo, attribution, make_row, write_row
from factory.shards import staged_path
from factory.sources import open_source
from factory.splits import assign_split
from renderers import gltf
from renderers.meshes import PICTURE_VERSIONS, RenderSettings, renderer

_CACHED_ASSETS = 2  # a worker mostly sees the clips of one asset one after another


@dataclass
class RenderStage(Stage):
    """Assets and clips, as `asset_tasks` and this stage itself make them.

    Attributes:
        recipe: which clips. settings: how they are rendered. backend: by what.
        holdout: part of the assets that goes to the validation and to the test split, each.
        plan_only: stop after planning (a dry run).
    """

    recipe: Recipe = field(default_factory=Recipe)
    settings: RenderSettings = field(default_factory=RenderSettings)
    backend: str = "opengl"
    holdout: float = 0.0
    plan_only: bool = False

    def __post_init__(self) -> None:
        clip_bytes = 4 * self.recipe.views * self.recipe.num_frames * self.recipe.resolution**2
        self.memory = 4 * 2**30 + 4 * clip_bytes
        self.timeout_s = 120.0 + 3600.0 * (self.backend == "blender") + clip_bytes / 1e6
        self._assets: OrderedDict[str, tuple[gltf.Asset, str]] = OrderedDict()

    @property
    def identity(self) -> str:
        """Everything but the asset that decides what a clip looks like; part of every key."""
        parts = [self.recipe.hash(), self.settings.hash(), self.backend, PICTURE_VERSIONS[self.backend]]
        return ":".join(parts)

    def setup(self) -> None:
        if not self.plan_only:
            renderer(self.backend)  # now, so that a machine that cannot render says so at once

    def process(self, task: Task) -> Outcome:
        record = AssetRecord.from_json(task.payload["asset"])
        started = time.perf_counter()
        try:
            asset, sha256 = self._open(record)
            loaded = time.perf_counter() - started
            if "clip" not in task.payload:
                return self._plan(asset, record, loaded)
            return self._render(asset, record, sha256, task, loaded)
        except gltf.GltfError as error:  # known to be bad, with a sentence that says why: no second try
            return Outcome("quarantined", reason=str(error))

    def _open(self, record: AssetRecord) -> tuple[gltf.Asset, str]:
        if record.fingerprint not in self._assets:
            data = open_source(record.location).fetch(record)
            known, _, digest = record.fingerprint.partition(":")
            sha256 = digest if known == "sha256" else hashlib.sha256(data).hexdigest()
            self._assets[record.fingerprint] = gltf.load(data, name=record.uid), sha256
            while len(self._assets) > _CACHED_ASSETS:
                self._assets.popitem(last=False)
        return self._assets[record.fingerprint]

    def _plan(self, asset: gltf.Asset, record: AssetRecord, loaded: float) -> Outcome:
        if not asset.animations:
            return Outcome("filtered", reason="not animated")
        started = time.perf_counter()
        clips, rejections = plan_asset(asset, record.fingerprint, self.recipe)
        rejected = [asdict(rejection) for rejection in rejections]
        if not clips:
            return Outcome(
                "filtered", {"rejected": rejected}, reason="; ".join(sorted({r.reason for r in rejections}))
            )
        tasks = [self._clip_task(record, clip) for clip in clips]
        seconds = {"load": loaded, "plan": time.perf_counter() - started}
        summary = {"clips": len(clips), "rejected": rejected, "seconds": seconds}
        return Outcome("done", summary, follow_up=[] if self.plan_only else tasks)

    def _clip_task(self, record: AssetRecord, clip: ClipPlan) -> Task:
        plan = json.dumps(asdict(clip), sort_keys=True)
        key = _digest("clip", record.fingerprint, self.identity, plan)
        payload = {"asset": record.to_json(), "clip": asdict(clip)}
        return Task(key, payload, f"{record.uid} – {clip.animation_name} ({clip.window})")

    def _render(
        self, asset: gltf.Asset, record: AssetRecord, sha256: str, task: Task, loaded: float
    ) -> Outcome:
        plan = ClipPlan(**task.payload["clip"])
        started = time.perf_counter()
        clip = renderer(self.backend).render_clip(asset, plan.shot(self.recipe), self.settings)
        rendered = time.perf_counter()
        info = self._info(asset, record, sha256, task.key, plan)
        data = write_row(make_row(clip, info))
        seconds = {"load": loaded, "render": rendered - started, "encode": time.perf_counter() - rendered}
        summary = {"seconds": seconds, "bytes": len(data), "split": info.split, "renderer": clip.renderer}
        return Outcome("done", summary, files={staged_path(task.key): data})

    def _info(
        self, asset: gltf.Asset, record: AssetRecord, sha256: str, key: str, plan: ClipPlan
    ) -> ClipInfo:
        recipe, said = self.recipe, asset.metadata  # what the file says fills what the source does not
        licence = (
            record.licence
            if record.licence != UNKNOWN
            else to_spdx(said.get("license") or said.get("copyright"))
        )
        title = record.title or str(said.get("title") or record.uid)
        author = record.author or str(said.get("author") or "")
        source_url = record.source_url or str(said.get("source") or "")
        shot = plan.shot(recipe)
        fractions = {"train": 1 - 2 * self.holdout, "validation": self.holdout, "test": self.holdout}
        caption = asset.animations[plan.animation].description
        return ClipInfo(
            clip_id=key,
            split=assign_split(record.fingerprint, fractions),
            asset_uid=record.uid,
            asset_sha256=sha256,
            source=record.source,
            source_url=source_url,
            title=title,
            author=author,
            licence=licence,
            attribution=attribution(title, author, source_url, licence),
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
            caption=caption,
            caption_origin="the asset's author" if caption else "",
        )


def asset_tasks(records: Iterable[AssetRecord], stage: RenderStage) -> Iterator[Task]:
    """One task an asset, lazily."""
    for record in records:
        key = _digest("plan" if stage.plan_only else "asset", record.fingerprint, stage.identity)
        yield Task(key, {"asset": record.to_json()}, record.uid)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:40]
