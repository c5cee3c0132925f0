"""The real animated models that tests use when they lie beside the checkout (never committed)."""

from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[3] / "shared" / "assets" / "gltf"
requires_assets = pytest.mark.skipif(
    not ASSETS.is_dir(), reason=f"the sample models are not here: {ASSETS} does not exist"
)
ANIMATED = (
    "01_cs_rotate/01_cs_rotate.gltf",
    "03_all_animations/03_all_animations.gltf",
    "CesiumMan.glb",
    "CesiumMilkTruck.glb",
    "Fox.glb",
    "KayKit_Knight.glb",
    "MorphStressTest.glb",
    "Quaternius_robot.glb",
    "box_sparse.glb",
    "greenman.glb",
    "mannequiny.glb",
    "phoenix_bird.glb",
)
