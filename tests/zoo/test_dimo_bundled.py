"""The DIMO models that the package carries: as good as it says, and calm between their motions."""

from __future__ import annotations

import pytest

import zoo
from zoo.dimo.evaluation import arap_energy, interpolation_rigidity

BUNDLED = zoo.list_models("bundled:dimo/*")


def test_the_kangaroo_and_four_more_are_there():
    assert {name.rpartition("/")[2] for name in BUNDLED} == {"bird", "cat", "fox", "kangaroo", "robot"}


@pytest.mark.parametrize("name", BUNDLED)
def test_what_was_measured(name):
    """Held-out views at 256 px, all 50 motions."""
    metrics = zoo.info(name).metrics
    kangaroo = name.endswith("kangaroo")
    assert metrics["resolution"] == 256 and len(metrics["motions"]) == 50
    assert metrics["mean"]["psnr"] >= (28 if kangaroo else 26)
    if kangaroo:
        assert metrics["mean"]["iou"] >= 0.93 and metrics["worst"]["psnr"] >= 24


@pytest.mark.parametrize("name", BUNDLED)
def test_motions_never_trained_on(name, request):
    """Found from their videos in at most 300 steps, the mean of ten on held-out views."""
    if name.endswith("robot"):
        request.applymarker(pytest.mark.xfail(reason="22.6 dB, wanted: 24", strict=True))
    unseen = zoo.info(name).metrics["unseen"]
    assert len(unseen["motions"]) == 10 and unseen["psnr"] >= 24


@pytest.mark.parametrize("name", BUNDLED)
def test_half_way_between_two_motions_nothing_comes_apart(name):
    """Rigidity energy over 20 random pairs, at most 1.5 times the less rigid end's."""
    model = zoo.load(name).model
    assert interpolation_rigidity(model)["worst_ratio"] <= 1.5
    # Control: four times as far out as any motion, the decoder does anything.
    assert (arap_energy(model, 4 * model.mu) > 1.5 * arap_energy(model, model.mu)).any()
