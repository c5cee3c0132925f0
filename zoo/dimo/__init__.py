"""DIMO: one generative model of an object's diverse motions (Mou et al., ICCV 2025), trained from videos of it.

Each motion is a point in a latent space. A decoder turns it into trajectories of key points, which carry 3D
Gaussians by linear blend skinning.

Names are imported on first use: `DIMOConfig` needs no torch.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.dimo.config import DIMOConfig, LossWeights
    from zoo.dimo.data import MotionVideos, write_motion
    from zoo.dimo.decoder import MotionDecoder
    from zoo.dimo.evaluation import evaluate
    from zoo.dimo.model import DIMO, KeyPointMotion
    from zoo.dimo.motion import Motion
    from zoo.dimo.pipeline import DIMOPipeline
    from zoo.dimo.text import TextHead, TextMatch, train_text_head
    from zoo.dimo.training import fit_latent, train

__all__ = [
    "DIMO",
    "DIMOConfig",
    "DIMOPipeline",
    "KeyPointMotion",
    "LossWeights",
    "Motion",
    "MotionDecoder",
    "MotionVideos",
    "TextHead",
    "TextMatch",
    "evaluate",
    "fit_latent",
    "train",
    "train_text_head",
    "write_motion",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "DIMO": "zoo.dimo.model",
            "DIMOConfig": "zoo.dimo.config",
            "DIMOPipeline": "zoo.dimo.pipeline",
            "KeyPointMotion": "zoo.dimo.model",
            "LossWeights": "zoo.dimo.config",
            "Motion": "zoo.dimo.motion",
            "MotionDecoder": "zoo.dimo.decoder",
            "MotionVideos": "zoo.dimo.data",
            "TextHead": "zoo.dimo.text",
            "TextMatch": "zoo.dimo.text",
            "evaluate": "zoo.dimo.evaluation",
            "fit_latent": "zoo.dimo.training",
            "train": "zoo.dimo.training",
            "train_text_head": "zoo.dimo.text",
            "write_motion": "zoo.dimo.data",
        },
    )
