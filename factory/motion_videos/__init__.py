"""Motion videos: every motion of an object, rendered from several views in one world, to train a motion space on.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.motion_videos.plan import MotionPlan, MotionRecipe, plan_clips, plan_motions, surface_points
    from factory.motion_videos.run import SubjectVideos, make_motions
    from factory.motion_videos.stage import MotionStage
    from factory.motion_videos.subjects import Subject, find_subjects

_HOME = {
    "MotionPlan": "factory.motion_videos.plan",
    "MotionRecipe": "factory.motion_videos.plan",
    "MotionStage": "factory.motion_videos.stage",
    "Subject": "factory.motion_videos.subjects",
    "SubjectVideos": "factory.motion_videos.run",
    "find_subjects": "factory.motion_videos.subjects",
    "make_motions": "factory.motion_videos.run",
    "plan_clips": "factory.motion_videos.plan",
    "plan_motions": "factory.motion_videos.plan",
    "surface_points": "factory.motion_videos.plan",
}
__all__ = [
    "MotionPlan",
    "MotionRecipe",
    "MotionStage",
    "Subject",
    "SubjectVideos",
    "find_subjects",
    "make_motions",
    "plan_clips",
    "plan_motions",
    "surface_points",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
