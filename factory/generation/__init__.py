"""Motion videos of one still object, generated: prompts → videos → mattes → judges → views → a folder for DIMO.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.generation.jobs import STAGES, GenerationRecipe, StillObject
    from factory.generation.run import GenerationError, generate_motions
    from factory.generation.still import find_still
    from factory.generation.takes import Generation

_HOME = {
    "STAGES": "factory.generation.jobs",
    "Generation": "factory.generation.takes",
    "GenerationError": "factory.generation.run",
    "GenerationRecipe": "factory.generation.jobs",
    "StillObject": "factory.generation.jobs",
    "find_still": "factory.generation.still",
    "generate_motions": "factory.generation.run",
}
__all__ = [
    "STAGES",
    "Generation",
    "GenerationError",
    "GenerationRecipe",
    "StillObject",
    "find_still",
    "generate_motions",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
