"""MV-VDM: a video diffusion model of four views at once (Animate3D, Jiang et al., NeurIPS 2024, §3.1).

Four images of a still object and a sentence in, four consistent videos of the moving object out.

Names are imported on first use: `MVVDMConfig` needs neither torch nor diffusers.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.mvvdm.autoencoder import PatchAutoencoder
    from zoo.mvvdm.config import MVVDMConfig
    from zoo.mvvdm.evaluation import TrueClip, evaluate
    from zoo.mvvdm.pipeline import MVVDMOutput, MVVDMPipeline, mvvdm_scheduler
    from zoo.mvvdm.plan import TrainingPlan
    from zoo.mvvdm.training import train
    from zoo.mvvdm.unet import MVVDMUNet
    from zoo.mvvdm.views import condition_cameras, condition_views

__all__ = [
    "MVVDMConfig",
    "MVVDMOutput",
    "MVVDMPipeline",
    "MVVDMUNet",
    "PatchAutoencoder",
    "TrainingPlan",
    "TrueClip",
    "condition_cameras",
    "condition_views",
    "evaluate",
    "mvvdm_scheduler",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MVVDMConfig": "zoo.mvvdm.config",
        "MVVDMOutput": "zoo.mvvdm.pipeline",
        "MVVDMPipeline": "zoo.mvvdm.pipeline",
        "MVVDMUNet": "zoo.mvvdm.unet",
        "PatchAutoencoder": "zoo.mvvdm.autoencoder",
        "TrainingPlan": "zoo.mvvdm.plan",
        "TrueClip": "zoo.mvvdm.evaluation",
        "condition_cameras": "zoo.mvvdm.views",
        "condition_views": "zoo.mvvdm.views",
        "evaluate": "zoo.mvvdm.evaluation",
        "mvvdm_scheduler": "zoo.mvvdm.pipeline",
        "train": "zoo.mvvdm.training",
    },
)
