"""Training of MV-VDM: one model on all workers, from an MV-Video dataset to a published model.

Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
