"""Training on the cluster: DIMO motion spaces, one per object, and MV-VDM (`factory.training.mvvdm`).

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.training.dimo import (
        PRESETS,
        DimoStage,
        DIMOTrainingJob,
        configured,
        train_objects,
        training_tasks,
    )
    from factory.training.overrides import apply_overrides

_HOME = {
    "DIMOTrainingJob": "factory.training.dimo",
    "DimoStage": "factory.training.dimo",
    "PRESETS": "factory.training.dimo",
    "apply_overrides": "factory.training.overrides",
    "configured": "factory.training.dimo",
    "train_objects": "factory.training.dimo",
    "training_tasks": "factory.training.dimo",
}
__all__ = [
    "PRESETS",
    "DIMOTrainingJob",
    "DimoStage",
    "apply_overrides",
    "configured",
    "train_objects",
    "training_tasks",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
