"""Training of MV-VDM: the loss, bit-identical resumption, and equal weights for any number of workers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_mvvdm import PLAN, batches, encode, examples, objective, weights_of

from renderers.cameras import mvvdm_camera_vectors, orbit_cameras
from zoo.mvvdm.denoising import Denoising, Encoded, diffuse, mirror, target
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.schedule import signal_levels
from zoo.mvvdm.training import CheckpointFile, Stopwatch, averages_of, levels, train

SUPPORT = Path(__file__).parents[1] / "support"


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# --- the loss -------------------------------------------------------------------------------------------


def test_the_schedule_has_the_published_values():
    """ᾱ of the linear schedule β = 0.00085 … 0.012, computed independently."""
    known = {0: 0.99915, 20: 0.98000, 200: 0.67326, 500: 0.16077, 961: 0.002478, 999: 0.001579}
    for step, level in known.items():
        assert float(signal_levels()[step]) == pytest.approx(level, rel=5e-4)


def test_the_schedule_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    torch.testing.assert_close(signal_levels(), theirs.alphas_cumprod, rtol=1e-5, atol=0)
    latents, noise, timestep = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([0, 300, 999])
    torch.testing.assert_close(diffuse(latents, noise, timestep), theirs.add_noise(latents, noise, timestep))


def test_targets_are_those_of_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    latents, noise, timestep = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([0, 300, 999])
    velocity = target("v_prediction", latents, noise, timestep)
    torch.testing.assert_close(velocity, theirs.get_velocity(latents, noise, timestep))
    assert target("epsilon", latents, noise, timestep) is noise
    assert target("sample", latents, noise, timestep) is latents


class Watching(torch.nn.Module):
    """A stand-in for the network that records its inputs and predicts zero noise."""

    def __init__(self, answer: float = 0.0) -> None:
        super().__init__()
        self.calls, self.answer = [], answer

    def forward(self, sample, timestep, text, camera, image):
        self.calls.append((sample, timestep, text, camera, image))
        found = torch.zeros_like(sample)
        found[:, :, 0] = self.answer
        return found


def test_the_first_frame_is_clean_and_no_part_of_the_loss():
    example, unet = examples(0, batch=2), Watching()
    loss = Denoising(unet, encode)(example, generators(0, 1))
    (sample, timestep, _, camera, image) = unet.calls[0]
    latents = example["frames"]
    assert torch.equal(sample[:, :, 0], latents[:, :, 0])
    assert timestep.shape == (2,) and timestep[0] != timestep[1]  # one per object
    assert torch.equal(camera, example["camera"]) and image is None
    signal = signal_levels()[timestep].view(2, 1, 1, 1, 1, 1)
    noise = (sample - signal.sqrt() * latents) / (1 - signal).sqrt()
    assert float(loss) == pytest.approx(float(noise[:, :, 1:].square().mean()), rel=1e-4)
    views = noise[0, :, 1:].flatten(1)
    assert abs(float(torch.corrcoef(views)[0, 1])) < 0.2  # noise is independent between views
    assert float(Denoising(Watching(1e6), encode)(example, generators(0, 1))) == float(loss)


def test_one_caption_in_ten_is_left_out():
    texts, frames = [], torch.zeros(1, 1, 2, 3, 2, 2)

    def hear(frames, captions, generators) -> Encoded:
        texts.extend(captions)
        return Encoded(frames, torch.zeros(1, 1, 4), None)

    heard = Denoising(Watching(), hear)
    for seed in range(1000):
        heard({"frames": frames, "caption": ["hops"], "camera": torch.zeros(1, 1, 16)}, generators(seed))
    assert set(texts) == {"", "hops"} and 75 <= texts.count("") <= 125


def test_noisier_steps_may_be_drawn_more_often():
    heard, shares = Watching(), {}
    for power in (1.0, 0.5):
        heard.calls.clear()
        model = Denoising(heard, encode, timestep_power=power)
        for seed in range(1000):
            model(examples(0, batch=1), generators(seed))
        steps = torch.cat([timestep for _, timestep, *_ in heard.calls])
        assert steps.dtype == torch.int64 and 0 <= steps.min() and steps.max() < 1000
        shares[power] = float((steps >= 500).float().mean())
    assert shares == pytest.approx({1.0: 0.5, 0.5: 0.75}, abs=0.05)


def test_half_of_the_examples_that_tell_of_a_side_are_mirrored():
    """Mirrored cameras equal those of a mirrored world, computed from matrices; sentences are mirrored by hand."""
    cameras = orbit_cameras(
        np.deg2rad([10, 100, 190]), np.deg2rad([5, 20, -8]), 3.0, fov_y=0.7, width=8, height=8
    )
    across = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored = replace(cameras, world_to_camera=across @ cameras.world_to_camera @ across)
    vectors, expected = (torch.from_numpy(mvvdm_camera_vectors(c))[None] for c in (cameras, mirrored))
    frames = torch.rand(3, 3, 2, 3, 4, 4)
    captions = ["raises its left wing, then leans right", "turns around", "leans left"]
    new_frames, new_captions, new_vectors = mirror(
        frames, captions, vectors.expand(3, -1, -1), torch.tensor([True, True, False])
    )
    assert new_captions == ["raises its right wing, then leans left", *captions[1:]]
    assert torch.equal(new_frames[0], frames[0].flip(-1)) and torch.equal(new_frames[1:], frames[1:])
    torch.testing.assert_close(new_vectors[0], expected[0])
    torch.testing.assert_close(new_vectors[1], vectors[0])
    torch.testing.assert_close(new_vectors[2], vectors[0])
    assert not torch.allclose(expected, vectors)

    heard, texts = Watching(), []

    def hear(frames, captions, generators) -> Encoded:
        texts.extend(captions)
        return Encoded(frames, torch.zeros(len(frames), 1, 4), None)

    model, examples = (
        Denoising(heard, hear, caption_dropout=0, mirrored=True),
        {"frames": frames[:1], "camera": vectors},
    )
    for seed in range(400):
        model({**examples, "caption": ["Left, or left over"]}, generators(seed))
    assert set(texts) == {"Left, or left over", "Right, or right over"}
    assert 160 <= texts.count("Left, or left over") <= 240


def test_encoders_get_no_gradient_and_are_not_moved_or_saved():
    encoder = torch.nn.Linear(3, 3)
    model = Denoising(Watching(), encoder)
    assert not list(model.parameters()) and not model.state_dict()


# --- the loop -------------------------------------------------------------------------------------------


def test_what_is_frozen_stays_to_the_bit_and_all_that_is_trained_moves():
    model = objective()
    model.unet.freeze_backbone()
    before = {name: p.clone() for name, p in model.named_parameters()}
    trained = {f"unet.{name}" for name, _ in model.unet.trainable_parameters()}
    train(model, batches, replace(PLAN, steps=3))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == trained and trained < set(before)


def test_the_rate_grows_and_falls():
    """Each report contains the learning rate of the next step."""
    reports = []
    plan = replace(PLAN, steps=40, batch=1, learning_rate=1e-3, warmup=19, cooldown=19)
    train(objective(), batches, plan, on_step=reports.append)
    rates = {each["step"]: each["rate"] for each in reports}
    assert rates == pytest.approx({1: 1e-4, 10: 5.5e-4, 20: 1e-3, 30: 5e-4, 40: 0})


def test_it_learns():
    reports = []
    train(objective(), batches, replace(PLAN, steps=60, batch=1, learning_rate=5e-3), on_step=reports.append)
    assert reports[-1]["loss"] < 0.6 * reports[0]["loss"] and reports[-1]["step"] == 60
    parts = [reports[-1][part] for part in ("loader", "forward", "backward", "optimiser", "other")]
    assert sum(parts) == pytest.approx(1) and reports[-1]["backward"] > reports[-1]["loader"]


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    undisturbed, reported = [], []
    whole = train(objective(), batches, PLAN, on_step=undisturbed.append)
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")

    class Killed(RuntimeError):
        pass

    def dying(first: int):
        for step, batch in enumerate(batches(first), first):
            if step == 3:
                raise Killed
            yield batch

    with pytest.raises(Killed):
        train(objective(), dying, PLAN, checkpoint=checkpoint, save_every=2)
    seen = []

    def watched(first: int):
        seen.append(first)
        return batches(first)

    resumed = train(
        objective(seed=1), watched, PLAN, checkpoint=checkpoint, save_every=2, on_step=reported.append
    )
    # The loss of the last report is the mean over steps 2 to 5, of which the killed run did 2.
    assert [report["step"] for report in undisturbed] == [1, 5]
    assert [report["loss"] for report in reported] == [undisturbed[1]["loss"]]
    assert seen == [2] and torch.equal(weights_of(resumed), weights_of(whole))
    kept = averages_of(checkpoint.read())
    assert all(torch.equal(kept[name], p) for name, p in resumed.named_parameters())
    other = train(objective(), batches, PLAN, seed=1)
    assert not torch.equal(weights_of(other), weights_of(whole))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint = CheckpointFile(tmp_path / "run.safetensors")
    train(objective(), batches, replace(PLAN, steps=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="is of another training"):
        train(objective(), batches, PLAN, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="is of another training"):
        train(objective(), batches, replace(PLAN, steps=1), checkpoint=checkpoint, seed=1)
    checkpoint.write(checkpoint.read()[:-100])
    with pytest.raises(ValueError, match="not a checkpoint"):
        train(objective(), batches, replace(PLAN, steps=1), checkpoint=checkpoint)


@pytest.mark.parametrize("at_once", [2, 3, 8])
def test_how_many_are_computed_at_once_changes_nothing(at_once):
    """Dropped captions, time steps and noise depend only on the example."""
    models = start, one, some, other = [objective() for _ in range(4)]
    for model in models[:3]:
        model.mirrored = True
    train(one, batches, replace(PLAN, steps=3))
    train(some, batches, replace(PLAN, steps=3), at_once=at_once)
    train(other, batches, replace(PLAN, steps=3), at_once=at_once)
    start, one, some, other = map(weights_of, models)
    assert (some - one).norm() < 1e-3 * (one - start).norm() < (other - one).norm()


def test_bytes_are_levels_between_minus_one_and_one():
    from factory.dataset.buffers import value_table

    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(levels(values), torch.from_numpy(value_table(torch.float32)).view(torch.float32))
    assert levels(values.long()).dtype == torch.int64


def test_what_is_kept_is_the_average(tmp_path):
    """The saved weights equal the moving average, computed here from its definition."""
    plan, last = replace(PLAN, steps=3), []
    for steps in (1, 2, 3):
        last.append(weights_of(train(objective(), batches, replace(plan, steps=steps, ema=0.0))))
    average = weights_of(objective())
    for step, value in enumerate(last):
        decay = min(plan.ema, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    seen = []
    kept = train(
        model := objective(),
        batches,
        plan,
        validate=lambda step: seen.append((step, weights_of(model))),
        validate_every=2,
    )
    torch.testing.assert_close(weights_of(kept), average, rtol=1e-5, atol=1e-7)
    assert [step for step, _ in seen] == [2, 3] and torch.equal(seen[1][1], weights_of(kept))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_full_precision_does(precision):
    full = weights_of(train(objective(), batches, PLAN)) - weights_of(objective())
    half = weights_of(train(objective(), batches, replace(PLAN, precision=precision))) - weights_of(
        objective()
    )
    assert torch.nn.functional.cosine_similarity(full, half, dim=0) > 0.95


def test_an_overflow_is_no_step_and_halves_the_scale():
    class Overflowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.calls = 0

        def forward(self, examples, generators):
            self.calls += 1
            return (self.weight * (torch.inf if self.calls == 2 else 1.0)).sum()

    def weight_after(steps: int) -> torch.Tensor:
        plan = TrainingPlan(steps=steps, batch=1, precision="fp16", ema=0.0, learning_rate=0.1)
        return train(Overflowing(), lambda first: iter([{}] * 9), plan).weight.detach()

    assert torch.equal(weight_after(1), weight_after(2)) and weight_after(3) < weight_after(2)


def test_gradient_checkpointing_changes_nothing():
    model = objective()
    model.unet.enable_gradient_checkpointing()
    kept = train(model, batches, replace(PLAN, steps=2))
    torch.testing.assert_close(
        weights_of(kept), weights_of(train(objective(), batches, replace(PLAN, steps=2)))
    )


def test_refusals():
    with pytest.raises(ValueError, match="expected one of fp32, bf16, fp16, got 'int8'"):
        TrainingPlan(steps=1, precision="int8")
    with pytest.raises(ValueError, match=r"TrainingPlan\.steps: expected at least 1, got 0"):
        TrainingPlan(steps=0)
    with pytest.raises(ValueError, match="no more examples at step 2 of 5"):
        train(
            objective(), lambda first: (batch for _, batch in zip(range(2), batches(0), strict=False)), PLAN
        )
    model = objective()
    with torch.no_grad():
        model.unet.conv_in.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        train(model, batches, PLAN)


def test_the_stopwatch_tells_where_the_time_went():
    import time

    watch = Stopwatch("cpu")
    watch.mark("other")
    time.sleep(0.04)
    watch.mark("loader")
    time.sleep(0.01)
    shares, seconds = watch.read()
    assert shares["loader"] > 0.5 > shares["other"] > 0 and seconds >= 0.05
    assert watch.read()[1] < 0.01


# --- many workers ---------------------------------------------------------------------------------------


def group(
    folder: Path, name: str, size: int, sharded: bool = False, steps: int = 99
) -> dict[str, torch.Tensor]:
    """Train with `size` processes for at most `steps` steps; return the averaged weights of their checkpoint."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    checkpoint, meeting = folder / f"{name}.safetensors", folder / f"{name}-{size}-{sharded}-{steps}"
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                SUPPORT / "tiny_mvvdm.py",
                *map(str, [rank, size, meeting, int(sharded), steps, checkpoint]),
            ],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    for worker in workers:
        output = worker.communicate(timeout=300)[0]
        assert worker.returncode == 0, output
    return averages_of(checkpoint.read_bytes())


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Whether weights are equal up to rounding, after five Adam steps of 1e-3."""
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=2e-5) for name in ours)


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in train(objective(), batches, PLAN).named_parameters()}


@pytest.mark.slow
def test_two_workers_equal_one_with_twice_the_batch(alone, tmp_path):
    assert close(group(tmp_path, "two", 2), alone)
    other = train(objective(), batches, replace(PLAN, steps=4)).named_parameters()
    assert not close(dict(other), alone)  # the tolerance detects one missing step


@pytest.mark.slow
def test_sharded_workers_three_workers_and_workers_that_come_and_go(alone, tmp_path):
    """FSDP; unequal shares; and a run of three workers that continues with two, sharded, and then with one."""
    assert close(group(tmp_path, "sharded", 2, sharded=True), alone)
    assert close(group(tmp_path, "three", 3), alone)
    group(tmp_path, "fewer", 3, steps=3)
    group(tmp_path, "fewer", 2, sharded=True, steps=4)
    assert close(group(tmp_path, "fewer", 1), alone)
