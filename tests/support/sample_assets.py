"""Real animated models for tests: a small CC0 set in this repository, and a larger collection if it is present.

The larger collection contains models under other licences (CC-BY, Apache-2.0, …) and is never committed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "gltf"
COLLECTION = Path(__file__).resolve().parents[3] / "shared" / "assets" / "gltf"
CASES = (
    Path(__file__).resolve().parents[1] / "assets" / "cases"
)  # inputs that were once refused or drawn wrongly (CC0)
requires_collection = pytest.mark.skipif(
    not COLLECTION.is_dir(),
    reason=f"the larger collection of models is not present: {COLLECTION} does not exist",
)
BUNDLED_ANIMATED = ("greenman.glb", "knight.glb")


def model(name: str) -> Path:
    """Return the path of a model of either set."""
    bundled = BUNDLED / name
    return bundled if bundled.exists() else COLLECTION / name


def collected(*names: str) -> list[str]:
    """Return `names`, models of the larger collection, as test parameters; none if it is absent."""
    return list(names) if COLLECTION.is_dir() else []


def with_bundled(*names: str) -> list[str]:
    """Return test parameters: the bundled models, and `names` of the larger collection if it is present."""
    return [*BUNDLED_ANIMATED, *collected(*names)]


ANIMATED = with_bundled(
    "01_cs_rotate/01_cs_rotate.gltf",
    "03_all_animations/03_all_animations.gltf",
    "CesiumMan.glb",
    "CesiumMilkTruck.glb",
    "Fox.glb",
    "KayKit_Knight.glb",
    "MorphStressTest.glb",
    "Quaternius_robot.glb",
    "box_sparse.glb",
    "mannequiny.glb",
    "phoenix_bird.glb",
)
