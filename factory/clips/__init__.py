"""MV-Video clips of animated assets: planned, rendered, measured and packed into a dataset.

`render` does all of it; `plan_asset`, `measure_motion` and `MotionPolicy` are parts of it. Names are imported lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.clips.plan import ClipPlan, ClipRecipe, Rejection, plan_asset
    from factory.clips.quality import MotionPolicy, measure_motion, near_duplicates
    from factory.clips.run import render
    from factory.clips.similarity import frame_similarity
    from factory.clips.stage import RenderStage, asset_tasks
    from factory.clips.tally import RenderResult, Tally

_HOME = {
    "ClipPlan": "factory.clips.plan",
    "ClipRecipe": "factory.clips.plan",
    "MotionPolicy": "factory.clips.quality",
    "Rejection": "factory.clips.plan",
    "RenderResult": "factory.clips.tally",
    "RenderStage": "factory.clips.stage",
    "Tally": "factory.clips.tally",
    "asset_tasks": "factory.clips.stage",
    "frame_similarity": "factory.clips.similarity",
    "measure_motion": "factory.clips.quality",
    "near_duplicates": "factory.clips.quality",
    "plan_asset": "factory.clips.plan",
    "render": "factory.clips.run",
}
__all__ = [
    "ClipPlan",
    "ClipRecipe",
    "MotionPolicy",
    "Rejection",
    "RenderResult",
    "RenderStage",
    "Tally",
    "asset_tasks",
    "frame_similarity",
    "measure_motion",
    "near_duplicates",
    "plan_asset",
    "render",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
