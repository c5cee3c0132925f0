"""The weighted losses of both training stages, their schedules and initial positions, against values computed by hand.

One step is taken with all loss weights but one at 0, so that the loss of the step is that term.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_motions import tiny_config, tiny_videos

from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from zoo.dimo.config import DIMOConfig, LossWeights
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos, write_motion
from zoo.dimo.evaluation import evaluate
from zoo.dimo.fitting import picture_errors
from zoo.dimo.initial import carry_back, decode_positions, points_in_ball
from zoo.dimo.joint import JointStage
from zoo.dimo.objective import decayed_rate, latent_loss, latents, photometric, renders_per_motion
from zoo.dimo.points import farthest_points, spacing, visual_hull
from zoo.dimo.pretraining import KeyPointStage
from zoo.dimo.training import train

OFF = LossWeights(**{name: 0.0 for name in vars(LossWeights())})
STAGES = {"motion": KeyPointStage, "joint": JointStage}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return tiny_videos(tmp_path_factory.mktemp("caterpillar")).select("train")


def context(videos, losses: LossWeights = OFF, **changes: object) -> TrainingContext:
    """A training that starts from a ball, with a decoder that moves the key points by about 0.1."""
    config = tiny_config(losses=losses, **changes)
    config = replace(config, pretraining=replace(config.pretraining, initial="ball"))  # quicker than a hull
    run = TrainingContext(videos, config, 0, torch.device("cpu"))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        head = run.model.decoder.offset_head[1]
        head.weight.copy_(0.1 * torch.randn(head.weight.shape, generator=generator))
    return run


def stage_of(run: TrainingContext, name: str):
    return KeyPointStage(run) if name == "motion" else JointStage(run, None)


def loss_at(videos, name: str, losses: LossWeights, step: int = 1, **changes: object) -> float:
    """The loss of one step of a stage, taken from the initial state."""
    stage = stage_of(context(videos, losses, **changes), name)
    if name == "joint":
        stage.run.model.refresh()
    return stage.advance(step, stage.feed.batch(step)).loss.item()


# --- the latent space ----------------------------------------------------------------------------------


def test_latents_are_drawn_with_the_standard_deviation(videos):
    """Paper eq. 5: z = μ + σ ε. The stored parameter is log σ², so σ = 2 where it is log 4."""
    run = context(videos)
    with torch.no_grad():
        run.model.log_var.fill_(float(np.log(4.0)))
    batch = stage_of(run, "motion").feed.batch(0)
    torch.testing.assert_close(latents(run.model, batch), run.model.mu[batch.motions] + 2.0 * batch.noise)
    assert batch.noise.abs().sum() > 0
    plain = context(videos, latent_distribution=False)
    assert torch.equal(latents(plain.model, batch), plain.model.mu[batch.motions])


@pytest.mark.parametrize("name", STAGES)
def test_the_kl_divergence_is_added_to_the_loss(videos, name):
    """KL of N(μ, σ²) from N(0, 1) by torch.distributions, in both stages, times its weight."""
    run = context(videos, replace(OFF, kl=3.0))
    stage = stage_of(run, name)
    batch = stage.feed.batch(1)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(
        normal(run.model.mu, (0.5 * run.model.log_var).exp()), normal(0.0, 1.0)
    )
    expected = 3.0 * divergence[batch.motions].sum(1).mean()
    assert latent_loss(run.config, run.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    if name == "joint":
        run.model.refresh()
    assert stage.advance(1, batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_kl_divergence_pulls_the_latents_towards_the_standard_normal(videos):
    """Thirty steps with this loss alone bring mean and log variance nearer to 0."""
    run = context(videos, replace(OFF, kl=1.0))
    stage = KeyPointStage(run)
    before = run.model.mu.abs().mean().item(), run.model.log_var.abs().mean().item()
    for step in range(30):
        stage.advance(step, stage.feed.batch(step))
    after = run.model.mu.abs().mean().item(), run.model.log_var.abs().mean().item()
    assert after[0] < before[0] - 0.05 and after[1] < before[1] - 0.05


# --- rigidity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["distances", "rotations"])
@pytest.mark.parametrize("name", STAGES)
def test_arap_acts_in_both_stages_with_its_weight(videos, name, form):
    """A decoder that does not move the key points rigidly costs, in proportion to the weight."""
    none, once, twice = (loss_at(videos, name, replace(OFF, arap=weight), arap=form) for weight in (0, 1, 2))
    assert none == 0.0 and once > 0.01
    assert twice == pytest.approx(2 * once, rel=1e-4)


def test_arap_begins_and_ends_with_its_schedule(videos):
    """`arap_from` is the first step of stage 1 with it, `arap_until` the first of stage 2 without it."""
    config, only = tiny_config(), replace(OFF, arap=1.0)
    late = replace(config.pretraining, arap_from=5)
    assert loss_at(videos, "motion", only, 4, pretraining=late) == 0.0
    assert loss_at(videos, "motion", only, 5, pretraining=late) > 0.0
    early = replace(config.joint, arap_until=5)
    assert loss_at(videos, "joint", only, 4, joint=early) > 0.0
    assert loss_at(videos, "joint", only, 5, joint=early) == 0.0


# --- the Chamfer guide ---------------------------------------------------------------------------------


def test_the_guide_is_compared_with_the_same_frame_of_the_same_motion(videos):
    """Key points that are where the guide was cost nothing; shifted by d, K·|d|² per render of a motion."""
    run = context(videos, replace(OFF, chamfer=2.0), latent_distribution=False)
    stage = JointStage(run, None)
    run.model.refresh()
    still = decode_positions(run.model, videos)
    assert still.shape == (2, 5, len(run.model.key_points), 3) and still.diff(dim=1).abs().max() > 0.01
    assert still.diff(dim=0).abs().max() > 0.01
    batch = stage.feed.batch(2)
    stage.guide = still
    assert stage.advance(2, batch).loss.item() == pytest.approx(0.0, abs=1e-8)

    run = context(videos, replace(OFF, chamfer=2.0), latent_distribution=False)
    with torch.no_grad():  # far apart, so that the nearest point of the guide is the point itself
        stage = JointStage(run, None)
        run.model.key_points.mul_(20)
        run.model.refresh()
    shift = torch.tensor([0.001, -0.002, 0.002])  # |d| = 0.003
    stage.guide = decode_positions(run.model, videos) + shift
    expected = 2.0 * len(run.model.key_points) * 0.003**2 * renders_per_motion(batch)
    assert stage.advance(2, batch).loss.item() == pytest.approx(expected, rel=1e-3)


def test_the_guide_is_the_last_state_of_stage_one(videos):
    """The stage's own key points in every frame, with the radius and the decoder that it trained."""
    run = context(videos)
    stage = KeyPointStage(run)
    for step in range(3):
        stage.advance(step, stage.feed.batch(step))
    points, radius = stage.points.detach().clone(), stage.radius.detach().clone()
    guide = stage.finish()
    phases = torch.tensor(videos.phases)
    for motion in range(2):
        offsets = run.model.decoder(points, phases, run.model.mu[motion : motion + 1])[0]
        torch.testing.assert_close(guide[motion], points + offsets[0])
    assert torch.equal(run.model.key_points, points)
    assert torch.equal(run.model.log_radii, radius.expand(len(points)))


# --- colours -------------------------------------------------------------------------------------------


def test_the_colour_loss_is_the_mean_squared_error_times_the_renders_of_a_motion(videos):
    """On white, with straight alpha composited: computed in NumPy from the bytes of the targets."""
    run = context(videos, replace(OFF, rgb=7.0, mask=5.0))
    stage = JointStage(run, None)
    run.model.refresh()
    batch = stage.feed.batch(3)
    pixels = batch.targets.numpy().astype(np.float64) / 255
    target = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    with torch.no_grad():
        motion = run.model.trajectories(latents(run.model, batch), batch.phases)
        picture = render(
            run.model.skin(motion), batch.cameras, background=torch.ones(3), want=("rgb", "alpha")
        )
    error = np.square(picture.rgb.numpy() - target).mean() * batch.share
    mask = np.square(picture.alpha.numpy() - pixels[..., 3:]).mean() * batch.share
    renders = batch.targets.shape[1] * len(batch.frames)
    loss, reported = photometric(run.config, picture, batch)
    assert reported.item() == pytest.approx(error, rel=1e-4)
    assert loss.item() == pytest.approx(7.0 * renders * error + 5.0 * mask, rel=1e-4)
    assert stage.advance(3, batch).loss.item() == pytest.approx(loss.item(), rel=1e-4)


# --- schedules -----------------------------------------------------------------------------------------


def test_rates_fall_exponentially_from_their_first_to_their_last_value():
    rate = (1e-2, 1e-4)
    values = [decayed_rate(rate, step, 100) for step in (0, 50, 100, 200)]
    assert values == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])


def test_every_rate_of_both_stages_follows_its_setting(videos):
    """At the first and the last step; `means` begins to fall after `means_hold`, `points` ends at `points_steps`."""
    published = DIMOConfig.paper()
    config = tiny_config()
    joint = replace(published.joint, steps=10, means_hold=4, resolutions=config.joint.resolutions)
    motion = replace(
        published.pretraining, steps=10, points_steps=5, resolutions=((0, 16),), latents=(5e-3, 1e-3),
        color=(1e-2, 2e-2), opacity=(5e-2, 1e-2), radius=(1e-2, 3e-2),
    )  # fmt: skip
    run = context(videos, joint=joint, pretraining=motion)
    first, last = (KeyPointStage(run)._rates(step) for step in (0, 10))
    for name in ("decoder", "latents", "points", "radius", "color", "opacity"):
        assert (first[name], last[name]) == pytest.approx(getattr(motion, name)), name
    assert KeyPointStage(run)._rates(5)["points"] == pytest.approx(motion.points[1])
    stage = JointStage(run, None)
    first, last = stage._rates(0), stage._rates(10)
    names = {"log_scales": "scales", "opacity_logits": "opacities", "log_radii": "radii"}
    for name in ("decoder", "latents", "key_points", "colors", "quats", "means", *names):
        assert (first[name], last[name]) == pytest.approx(getattr(joint, names.get(name, name))), name
    assert stage._rates(4)["means"] == joint.means[0] > stage._rates(5)["means"]


# --- growth and pruning --------------------------------------------------------------------------------


def _densifying(videos, **changes: object) -> KeyPointStage:
    config = tiny_config()
    plan = replace(
        config.pretraining, steps=30, alpha_only=False, densify_every=5, densify_until=20, densify_pause=0,
        densify_gradient=1e-9, prune_opacity=0.0, prune_scale=10.0, **changes,
    )  # fmt: skip
    return KeyPointStage(context(videos, replace(OFF, rgb=1.0), pretraining=plan))


def test_stage_one_grows_while_it_densifies_and_not_after(videos):
    """The number of key points after every step: more after each densification, the same in between and at the end."""
    stage = _densifying(videos)
    counts = [len(stage.points)]
    for step in range(24):
        stage.advance(step, stage.feed.batch(step))
        counts.append(len(stage.points))
    assert counts[0] == 12 and counts[4] == 12 and counts[5] > 12
    assert counts[10] > counts[9] == counts[5] and counts[20] > counts[19]
    assert counts[24] == counts[20]
    assert stage.opacities.shape == (counts[-1],) and stage.colors.shape == (counts[-1], 3)


def test_annealing_resamples_to_the_configured_number(videos):
    stage = _densifying(videos, anneal_at=(7,))
    for step in range(6):
        stage.advance(step, stage.feed.batch(step))
    assert len(stage.points) > 12
    stage.advance(6, stage.feed.batch(6))
    assert len(stage.points) == 12


def test_pruning_removes_what_is_transparent_or_large_and_nothing_else(videos):
    config = tiny_config()
    joint = replace(config.joint, prune_every=2, prune_until=2, prune_opacity=0.3, prune_scale=0.2)
    run = context(videos, joint=joint)
    stage = JointStage(run, None)
    with torch.no_grad():
        run.model.opacity_logits.fill_(2.0)
        run.model.opacity_logits[:10] = -2.0  # opacity 0.12
        run.model.log_scales.fill_(float(np.log(0.05)))
        run.model.log_scales[10:15, 1] = float(np.log(0.5))
    kept = run.model.means[15:].detach().clone()
    count = len(run.model.means)
    stage.advance(0, stage.feed.batch(0))
    assert len(run.model.means) == count
    stage.advance(1, stage.feed.batch(1))
    assert len(run.model.means) == len(run.model.neighbours) == count - 15
    assert (run.model.means - kept).abs().max() < 0.05  # these, in this order, after two small steps
    before = len(run.model.means)
    with torch.no_grad():
        run.model.opacity_logits[:3] = -5.0
    for step in (2, 3):
        stage.advance(step, stage.feed.batch(step))
    assert len(run.model.means) == before  # the schedule is over


# --- initial positions ---------------------------------------------------------------------------------


def test_points_of_a_pose_are_carried_back_to_the_canonical_one(videos):
    """With the same displacement d everywhere, a point of the pose is d away from its canonical place."""
    run = context(videos)
    stage = JointStage(run, None)
    shift = torch.tensor([0.3, -0.1, 0.2])
    with torch.no_grad():
        head = stage.run.model.decoder.offset_head[1]
        head.weight.zero_()
        head.bias.copy_(shift)
    places = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(carry_back(run, places), places - shift)


def test_posed_key_points_are_carried_back_to_the_key_points(videos):
    """Key points with small radii move alone, each by its own displacement in the motion and frame of `run.pose`."""
    run = context(videos)
    JointStage(run, None)
    run.pose = (1, 3)
    with torch.no_grad():
        run.model.log_radii.fill_(float(np.log(1e-3)))
    phase = torch.tensor([videos.phases[3]])
    posed = run.model.paths(run.model.mu[1:], phase)[0, 0].detach()
    assert (posed - run.model.key_points).norm(dim=1).max() > 0.02
    torch.testing.assert_close(carry_back(run, posed), run.model.key_points.detach(), atol=1e-4, rtol=0)


def test_the_ball_is_filled_uniformly():
    """A ball of half the radius has an eighth of the points, and every octant as many as the others."""
    points = points_in_ball(np.random.default_rng(0), 8000, 0.5)
    radii = points.norm(dim=1)
    assert radii.max() <= 0.5 and (radii < 0.25).float().mean().item() == pytest.approx(1 / 8, abs=0.02)
    octants = (points > 0).long() @ torch.tensor([1, 2, 4])
    assert torch.bincount(octants).float().div(8000).tolist() == pytest.approx([1 / 8] * 8, abs=0.02)


def test_spacing_is_the_distance_to_the_three_nearest():
    """On a line 0, 1, 3, 7, the first has √((1 + 9 + 49) / 3), and farthest points start from it."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]])
    expected = [((1 + 9 + 49) / 3) ** 0.5, ((1 + 4 + 36) / 3) ** 0.5]
    assert spacing(points)[:2].tolist() == pytest.approx(expected)
    assert farthest_points(points, 3).tolist() == [0, 3, 2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_key_points_are_trained(videos, count):
    """Fewer than the four points that spacing is otherwise measured with, and as many Gaussians."""
    config = tiny_config(key_points=count, gaussians=count)
    motion = replace(config.pretraining, steps=3, initial="ball")
    model = train(videos, replace(config, pretraining=motion, joint=replace(config.joint, steps=3)))
    assert len(model.key_points) == count and all(p.isfinite().all() for p in model.parameters())
    assert np.isfinite(evaluate(model, videos)["motion_error"])
    others = torch.eye(3)[:count]
    assert spacing(others).tolist() == pytest.approx([0.1 if count == 1 else 2**0.5] * count)


# --- fitting -------------------------------------------------------------------------------------------


def test_fitting_starts_from_the_latent_with_the_smallest_error(videos):
    """Targets rendered by the model from one of its latents: that latent is the nearest, not 0 or the other."""
    run = context(videos, replace(OFF, rgb=1.0))
    stage = JointStage(run, None)
    model = run.model
    with torch.no_grad():
        model.mu.mul_(3)
        model.decoder.offset_head[1].weight.mul_(3)
        model.opacity_logits.fill_(3.0)
        model.colors.fill_(0.1)
    model.refresh()
    batch = stage.feed.batch(8)
    motions = len(batch.frames)
    for index in range(2):
        z = model.mu[index : index + 1]
        with torch.no_grad():
            scenes = model.skin(model.trajectories(z, batch.phases))
            cameras = replace(
                batch.cameras, viewmats=batch.cameras.viewmats[:motions], Ks=batch.cameras.Ks[:motions]
            )
            picture = render(scenes, cameras)
        straight = picture.rgb / picture.alpha.clamp(min=1e-6)
        targets = torch.cat([straight, picture.alpha], -1).clamp(0, 1).mul(255).round().byte()
        errors = picture_errors(model, replace(batch, targets=targets, cameras=cameras), model.mu)
        assert errors.argmin() == index and errors[index] < 1e-5 < errors[1 - index]


# --- the visual hull -----------------------------------------------------------------------------------


def test_points_of_the_hull_have_the_colours_of_the_side_that_faces_the_camera(tmp_path):
    """A ball that is red towards +Z and blue towards -Z, seen from four sides."""
    directions = torch.nn.functional.normalize(
        torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    red = torch.tensor([0.9, 0.1, 0.1])
    ball = Gaussians(
        0.3 * directions[None], torch.tensor([1.0, 0, 0, 0]).expand(1, 2000, 4), torch.full((1, 2000, 3), 0.02),
        torch.full((1, 2000), 0.98), colors=torch.where(directions[:, 2:] > 0, red, red.flip(0))[None],
    )  # fmt: skip
    cameras = orbit_cameras(np.deg2rad([0, 90, 180, 270]), 0.0, 2.0, fov_y=0.6, width=48, height=48)
    picture = render(ball, TensorCameras.from_cameras(cameras))
    straight = picture.rgb / picture.alpha.clamp(min=1e-6)
    frames = torch.cat([straight, picture.alpha], -1).clamp(0, 1).mul(255).round().byte().transpose(0, 1)
    write_motion(tmp_path, "still", frames.numpy(), None)
    videos = MotionVideos(
        tmp_path, "ball", ["still"], ["stands still"], ["train"], ["still"], 1, 48, [0.0],
        cameras.world_to_camera[None], cameras.K[None], range(4), [], {"licence": "CC0-1.0"},
    )  # fmt: skip
    videos.write()
    points, colors = visual_hull(videos, 0, 0, [0, 1, 2, 3], 600, np.random.default_rng(0))
    for side, channel in ((points[:, 2] > 0.15, 0), (points[:, 2] < -0.15, 2)):
        assert side.sum() > 50
        assert (colors[side].argmax(1) == channel).mean() > 0.95
