"""Without a seed, samples come from torch's global generator; with one, they leave all global generators alone."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_dimo import SENTENCES, tiny_dimo, tiny_pipeline
from tiny_gltf import moving
from tiny_motions import tiny_config, tiny_videos

import zoo
from zoo import text_encoder
from zoo.commands import MotionChoice
from zoo.dimo import DIMOPipeline
from zoo.dimo.config import LossWeights

pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_mvvdm import PLAN, batches, objective, tiny_videos_pipeline, weights_of


@pytest.fixture(scope="module")
def egg():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def videos():
    return tiny_videos_pipeline()


@pytest.fixture(scope="module")
def asset(tmp_path_factory):
    path = tmp_path_factory.mktemp("asset") / "a.glb"
    path.write_bytes(moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).glb())
    return path


@pytest.fixture
def samplers(egg, videos, asset) -> dict[str, Callable[..., np.ndarray]]:
    """What samples, as a function of the seed."""

    def animate(*seed: int, **options: object) -> np.ndarray:
        options |= {"seed": seed[0]} if seed else {}
        return videos.animate(asset, "hops", num_inference_steps=2, **options).frames

    return {
        "dimo": lambda *seed: egg.sample(*seed).z.numpy(),
        "dimo frames": lambda *seed: egg.sample(*seed, frames=4).trajectories.positions.numpy(),
        "mvvdm": lambda *seed: videos.sample(*seed).frames,
        "mvvdm noisy sampler": lambda *seed: videos.sample(*seed, eta=1.0).frames,
        "mvvdm animate": animate,
    }


NAMES = ["dimo", "dimo frames", "mvvdm", "mvvdm noisy sampler", "mvvdm animate"]


class States:
    """The states of all global generators."""

    def __init__(self) -> None:
        self.torch, self.random, self.numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()

    def unchanged(self) -> bool:
        now = States()
        numpy = all(np.array_equal(a, b) for a, b in zip(self.numpy, now.numpy, strict=True))
        return torch.equal(self.torch, now.torch) and self.random == now.random and numpy


@pytest.mark.parametrize("name", NAMES)
def test_without_a_seed(samplers, name):
    sample = samplers[name]
    torch.manual_seed(5)
    first, second = sample(), sample()
    assert not np.array_equal(first, second)
    torch.manual_seed(5)
    again = [sample(), sample()]
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])
    torch.manual_seed(6)
    assert not np.array_equal(sample(), first)


@pytest.mark.parametrize("name", NAMES)
def test_the_users_own_draws_continue(samplers, name):
    """A sample uses up some numbers of the global generator, but does not set its state anew."""
    torch.manual_seed(5)
    samplers[name]()
    after = torch.rand(3)
    torch.manual_seed(5)
    samplers[name]()
    assert torch.equal(torch.rand(3), after)
    torch.manual_seed(6)
    samplers[name]()
    assert not torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("name", NAMES)
def test_with_a_seed(samplers, name):
    sample = samplers[name]
    before = States()
    first = sample(7)
    assert before.unchanged()
    torch.manual_seed(1)
    assert np.array_equal(sample(7), first)
    assert not np.array_equal(sample(8), first)


def test_what_needs_no_randomness_draws_none(egg, tmp_path):
    before = States()
    egg.motion(0).save(tmp_path / "a.mp4", resolution=32)
    egg.interpolate(0, 1, 2)[1].save(tmp_path / "a.glb", detail=12)
    egg.sample(egg.model.mu[0])
    list(MotionChoice(seed=3).results(egg))
    list(MotionChoice(between=(SENTENCES[0], SENTENCES[1])).results(egg))
    assert before.unchanged()


@pytest.mark.parametrize("name", ["bundled:dimo/fox", "bundled:mvvdm/tiny"])
def test_loading_draws_no_numbers(name):
    """Modules are initialised at random before their weights are read."""
    before = States()
    zoo.load(name)
    assert before.unchanged()


def test_publishing_and_reconstructing_draw_no_numbers(tmp_path):
    videos = tiny_videos(tmp_path, motions=1).select([0])
    pipeline = DIMOPipeline(tiny_dimo(losses=LossWeights(lpips=0.0), views=4), "egg", SENTENCES)
    before = States()
    zoo.publish(pipeline, "local:dimo/egg", home=tmp_path)
    first, second = (pipeline.reconstruct(videos, steps=2).z for _ in range(2))
    assert before.unchanged() and torch.equal(first, second)


@pytest.mark.skipif(
    importlib.util.find_spec(text_encoder.WHEEL) is None, reason="the language model's wheel is not installed"
)
def test_loading_the_language_model_draws_no_numbers():
    """It is loaded by the first sentence, for example while sampling with a seed."""
    before = States()
    text_encoder.TextEncoder(text_encoder.MINILM)
    assert before.unchanged()


def test_a_generator_of_the_users(videos):
    before = States()
    first = videos.sample(generator=torch.Generator().manual_seed(3)).frames
    assert before.unchanged()
    assert np.array_equal(first, videos.sample(3).frames)
    with pytest.raises(ValueError, match="either a seed or a generator, got both; omit seed=3"):
        videos.sample(3, generator=torch.Generator())
    with pytest.raises(ValueError, match="latents: expected finite floats"):
        videos.sample(3, latents=torch.full((2, 2, 3, 4, 4), torch.nan))


def test_training_draws_no_global_numbers(tmp_path):
    """With its own seed, training neither depends on the global generators nor changes them."""
    import zoo.dimo.training
    import zoo.mvvdm

    videos = tiny_videos(tmp_path)
    steps = replace(tiny_config().pretraining, steps=3), replace(tiny_config().joint, steps=3)
    config = tiny_config(pretraining=steps[0], joint=steps[1])
    results = []
    for seed in (1, 2):
        model = objective()
        torch.manual_seed(seed)
        before = States()
        zoo.mvvdm.train(model, batches, replace(PLAN, steps=2))
        trained = zoo.dimo.training.train(videos.select("train"), config, seed=3)
        assert before.unchanged()
        results.append(torch.cat([weights_of(model), weights_of(trained)]))
    assert torch.equal(*results)
