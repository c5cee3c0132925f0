"""The ablations of Animate3D's optimisation: `python -m benchmarks.animate --ablation`."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_mvvdm import tiny_videos_pipeline

from zoo.animate3d.fitting import fit
from zoo.animate3d.paper import PaperSettings
from zoo.animate3d.refine import RefineSettings

ROOT = Path(__file__).parents[2]
PARTS = [
    "as configured",
    "without ARAP",
    "without progressive frames",
    "without control points",
    "without polishing",
    "without SDS",
]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script, which is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        return importlib.import_module("benchmarks.animate")


def test_each_variant_lacks_one_part_and_has_as_many_steps(bench):
    paper, sds = PaperSettings(), RefineSettings()
    variants = bench.ablations(paper, sds)
    assert list(variants) == PARTS and variants["as configured"] == (paper, sds)

    def changed(settings: object, whole: object) -> set[str]:
        return {name for name, value in asdict(settings).items() if value != asdict(whole)[name]}

    rigid, refined = variants["without ARAP"]
    assert changed(rigid, paper) == changed(refined, sds) == {"arap"} and rigid.arap == refined.arap == 0
    at_once, refined = variants["without progressive frames"]
    assert changed(at_once, paper) == {"steps_per_frame", "last_steps"} and refined == sds
    assert (at_once.steps_per_frame, at_once.last_steps) == (0, 50 * 15 + 150)
    each, refined = variants["without control points"]
    assert changed(each, paper) == {"controlled"} and refined == sds
    each, refined = variants["without polishing"]
    assert changed(each, paper) == {"polish"} and refined == sds
    assert variants["without SDS"] == (paper, None)
    assert bench.ablations(paper, None) == {name: (variants[name][0], None) for name in PARTS[:-1]}


def test_a_row_is_printed_per_variant(bench, capsys, monkeypatch):
    monkeypatch.setattr(bench, "FRAMES", 4)
    (clip,) = bench.clips(None, ["fish"])
    paper = PaperSettings(side=32, gaussians=100, steps_per_frame=1, last_steps=2, arap_points=16)
    sds = RefineSettings(side=32, gaussians=100, steps=1, arap_points=16)
    scores = bench.run_ablations(clip, tiny_videos_pipeline(), paper, sds)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [*PARTS, "still model"]
    errors = [score.error for score in scores.values()]
    assert len(set(errors)) == 6 and np.isfinite(errors).all(), "each part changes the result"


def test_settings_are_for_the_method_that_has_them(bench):
    (clip,) = bench.clips(None, ["fish"])
    views = bench.cameras(side=16)
    arguments = clip.asset, clip.render(views), clip.in_asset(views), clip.times
    with pytest.raises(ValueError, match="fit: settings: expected None, as method graph has none"):
        fit(*arguments, settings=PaperSettings())
    with pytest.raises(TypeError, match="fit: settings: expected PaperSettings"):
        fit(*arguments, method="paper", settings=RefineSettings())


@pytest.mark.slow
def test_without_rigidity_a_motion_is_recovered_worse(bench):
    (clip,) = bench.clips(None, ["kangaroo"])
    with_it, without = (
        bench.run(clip, method="paper", settings=settings)[0]
        for settings in (PaperSettings(gaussians=1000), PaperSettings(gaussians=1000, arap=0.0))
    )
    errors = [
        bench.evaluate(clip, result.motion.move(clip.still.positions.astype(np.float64)))[0]
        for result in (with_it, without)
    ]
    assert errors[0] < 0.5 and errors[1] > 1.2 * errors[0]
