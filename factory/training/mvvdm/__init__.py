"""Training of MV-VDM: one model on all workers, from an MV-Video dataset to a published model.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.training.mvvdm.job import MVVDMTrainingJob, job_of
    from factory.training.mvvdm.recipe import RECIPES, MVVDMRecipe
    from factory.training.mvvdm.run import train_model
    from factory.training.mvvdm.worker import work

_HOME = {
    "MVVDMRecipe": "factory.training.mvvdm.recipe",
    "MVVDMTrainingJob": "factory.training.mvvdm.job",
    "RECIPES": "factory.training.mvvdm.recipe",
    "job_of": "factory.training.mvvdm.job",
    "train_model": "factory.training.mvvdm.run",
    "work": "factory.training.mvvdm.worker",
}
__all__ = ["RECIPES", "MVVDMRecipe", "MVVDMTrainingJob", "job_of", "train_model", "work"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
