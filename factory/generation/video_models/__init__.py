"""Image-to-video models of diffusers by name: one image and a sentence in, a video of the image's size out.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.generation.video_models.adapters import ADAPTERS, Adapter, FrameRule, Guidance, SizeRule
    from factory.generation.video_models.checkpoints import CHECKPOINTS, Checkpoint
    from factory.generation.video_models.cost import CostPlan, StageCost, plan_cost
    from factory.generation.video_models.loading import load_video_model
    from factory.generation.video_models.model import GeneratedVideo, VideoModel, VideoModelError
    from factory.generation.video_models.placement import PRESETS, CardPreset

_HOME = {
    "ADAPTERS": "factory.generation.video_models.adapters",
    "CHECKPOINTS": "factory.generation.video_models.checkpoints",
    "PRESETS": "factory.generation.video_models.placement",
    "Adapter": "factory.generation.video_models.adapters",
    "CardPreset": "factory.generation.video_models.placement",
    "Checkpoint": "factory.generation.video_models.checkpoints",
    "CostPlan": "factory.generation.video_models.cost",
    "FrameRule": "factory.generation.video_models.adapters",
    "GeneratedVideo": "factory.generation.video_models.model",
    "Guidance": "factory.generation.video_models.adapters",
    "SizeRule": "factory.generation.video_models.adapters",
    "StageCost": "factory.generation.video_models.cost",
    "VideoModel": "factory.generation.video_models.model",
    "VideoModelError": "factory.generation.video_models.model",
    "load_video_model": "factory.generation.video_models.loading",
    "plan_cost": "factory.generation.video_models.cost",
}
__all__ = [
    "ADAPTERS",
    "CHECKPOINTS",
    "PRESETS",
    "Adapter",
    "CardPreset",
    "Checkpoint",
    "CostPlan",
    "FrameRule",
    "GeneratedVideo",
    "Guidance",
    "SizeRule",
    "StageCost",
    "VideoModel",
    "VideoModelError",
    "load_video_model",
    "plan_cost",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
