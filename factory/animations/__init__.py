"""Many 3D models animated by many sentences: one task per pair, an index, a contact sheet, an MV-Video dataset.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.animations.recipe import AnimationRecipe, VideoModel
    from factory.animations.run import AnimationRun, animate_models
    from factory.animations.stage import AnimateStage

_HOME = {
    "AnimateStage": "factory.animations.stage",
    "AnimationRecipe": "factory.animations.recipe",
    "AnimationRun": "factory.animations.run",
    "VideoModel": "factory.animations.recipe",
    "animate_models": "factory.animations.run",
}
__all__ = ["AnimateStage", "AnimationRecipe", "AnimationRun", "VideoModel", "animate_models"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
