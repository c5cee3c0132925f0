"""MV-VDM: a multi-view video diffusion model (Animate3D, Jiang et al., NeurIPS 2024, §3.1).

Given images of a static object from several views and a prompt, it generates one video per view, consistent with each
other. `MVVDMPipeline` samples, `train` with the objective `Denoising` trains, `evaluate` compares with ground truth.

Names are imported on first use: `MVVDMConfig` needs neither torch nor diffusers.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.mvvdm.autoencoder import PatchAutoencoder, Reconstruction
    from zoo.mvvdm.checkpoint import CheckpointFile
    from zoo.mvvdm.config import MVVDMConfig
    from zoo.mvvdm.denoising import Denoising
    from zoo.mvvdm.evaluation import TrueClip, evaluate
    from zoo.mvvdm.parts import load_parts
    from zoo.mvvdm.pipeline import MVVDMOutput, MVVDMPipeline, mvvdm_scheduler
    from zoo.mvvdm.plan import TrainingPlan
    from zoo.mvvdm.training import train
    from zoo.mvvdm.unet import MVVDMUNet
    from zoo.mvvdm.views import condition_cameras, condition_views

__all__ = [
    "CheckpointFile",
    "Denoising",
    "MVVDMConfig",
    "MVVDMOutput",
    "MVVDMPipeline",
    "MVVDMUNet",
    "PatchAutoencoder",
    "Reconstruction",
    "TrainingPlan",
    "TrueClip",
    "condition_cameras",
    "condition_views",
    "evaluate",
    "load_parts",
    "mvvdm_scheduler",
    "train",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "CheckpointFile": "zoo.mvvdm.checkpoint",
            "Denoising": "zoo.mvvdm.denoising",
            "MVVDMConfig": "zoo.mvvdm.config",
            "MVVDMOutput": "zoo.mvvdm.pipeline",
            "MVVDMPipeline": "zoo.mvvdm.pipeline",
            "MVVDMUNet": "zoo.mvvdm.unet",
            "PatchAutoencoder": "zoo.mvvdm.autoencoder",
            "Reconstruction": "zoo.mvvdm.autoencoder",
            "TrainingPlan": "zoo.mvvdm.plan",
            "TrueClip": "zoo.mvvdm.evaluation",
            "condition_cameras": "zoo.mvvdm.views",
            "condition_views": "zoo.mvvdm.views",
            "evaluate": "zoo.mvvdm.evaluation",
            "load_parts": "zoo.mvvdm.parts",
            "mvvdm_scheduler": "zoo.mvvdm.pipeline",
            "train": "zoo.mvvdm.training",
        },
    )
