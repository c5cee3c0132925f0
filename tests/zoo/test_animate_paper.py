"""Method `paper` of `zoo.animate3d`: the field, the rigidity, the Gaussians of a mesh, and 4D-SDS."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from renderers.gaussians.features import rotation_matrices
from renderers.gltf import load
from renderers.meshes import RenderSettings, Shot, render_clip
from zoo.animate3d import refine as stage2
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.controls import nearest
from zoo.animate3d.graph import GraphPose, make_graph, move_points, still_pose
from zoo.animate3d.hexplane import MotionField
from zoo.animate3d.paper import (
    FieldMotion,
    PaperSettings,
    carried_by,
    controls_of,
    graph_poses,
    neighbours_on,
    reconstruct,
    track_field,
)
from zoo.animate3d.rigidity import arap
from zoo.animate3d.solver import STIFFNESS, Problem
from zoo.animate3d.still_splats import (
    PIXEL,
    UNIT,
    StillSplats,
    make_splats,
    matching_loss,
    oversampled,
    picture_loss,
    targets,
)
from zoo.animate3d.surface import make_surface
from zoo.animate3d.views import make_views
from zoo.mvvdm.autoencoder import PatchAutoencoder
from zoo.mvvdm.denoising import target
from zoo.mvvdm.schedule import signal_at

SMALL = ((8, 8, 8, 4),)
FRAMES, SIDE = 4, 48


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    """A fish that swims, from four sides, and its problem."""
    motion = creatures.motions("fish")[0].name
    asset = load(creatures.build("fish", 19, [motion]), name="fish")
    times = np.linspace(0, asset.animations[0].duration / 4, FRAMES)
    still = asset.pose(0, 0.0)
    low, high = still.positions.min(0), still.positions.max(0)
    views = orbit_cameras(
        np.radians([0, 90, 180, 270]), np.radians(15), 2.2 * float((high - low).max()),
        fov_y=np.radians(40), width=SIDE, height=SIDE,
    )  # fmt: skip
    placed = views.world_to_camera.copy()
    placed[:, :3, 3] -= placed[:, :3, :3] @ (low + high) / 2
    cameras = Cameras(placed, views.K, SIDE, SIDE)
    shot = Shot(0, times, np.eye(4), cameras)
    videos = render_clip(asset, shot, RenderSettings(samples=4), backend="cpu").frames
    surface = make_surface(asset, still)
    seen = make_views(videos / np.float32(255), cameras, surface.centre, surface.scale)
    problem = Problem(surface, make_graph(surface, 60), seen, calibrate(surface, seen), STIFFNESS["rendered"])
    truth = np.array([asset.positions(0, time) for time in times], np.float64)
    frames, tensor_cameras = targets(problem.views, SIDE)
    splats = make_splats(problem, 500, frames, tensor_cameras, 0)
    return SimpleNamespace(
        problem=problem, truth=truth, frames=frames, cameras=tensor_cameras, splats=splats,
        neighbours=neighbours_on(problem, splats),
    )  # fmt: skip


def trained(field: MotionField) -> MotionField:
    """The field with other parameters everywhere."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return field


def test_the_planes_have_the_published_sizes():
    planes = MotionField().planes
    assert sum(plane.numel() for plane in planes[:6]) == 139_200
    assert sum(plane.numel() for plane in planes[6:]) == 556_800


def test_an_untrained_field_moves_nothing_and_no_field_moves_the_first_frame():
    random = np.random.default_rng(0)
    points = torch.from_numpy(random.uniform(-1, 1, (50, 3))).float()
    quats = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(50, 4))).float(), dim=-1)
    times = torch.linspace(-1, 1, 5)
    moved = MotionField()(points, quats, times, growing=True)
    assert torch.allclose(moved.means, points.expand(5, -1, -1), atol=1e-6)
    assert torch.allclose(moved.quats, quats.expand(5, -1, -1), atol=1e-6)
    assert not moved.growth.any()
    other = trained(MotionField())(points, quats, times, growing=True)
    assert torch.equal(other.means[0], points) and not other.growth[0].any()
    assert torch.allclose(other.quats[0], quats, atol=1e-7)
    assert ((other.means[1:] - points).norm(dim=-1).mean(1) > 0.01).all()


def test_the_whole_turns_by_yaw_after_pitch_after_roll():
    field, wanted = MotionField(resolutions=SMALL), torch.tensor([0.4, -0.7, 1.9])
    features = torch.ones(1, 3, 16)
    with torch.no_grad():
        field.whole_turn[0].weight.fill_(1 / 16)  # every hidden unit is 1
        field.whole_turn[2].weight[:] = ((wanted + torch.pi) / (2 * torch.pi)).logit()[:, None] / 16
        turn, _ = field.whole(features)
    expected = Rotation.from_euler("xyz", wanted.numpy()).as_matrix()  # fixed axes: R_z R_y R_x
    assert np.allclose(rotation_matrices(turn)[0].numpy(), expected, atol=1e-5)


def test_the_gradient_of_the_field_agrees_with_finite_differences():
    field = trained(MotionField(resolutions=SMALL)).double()
    points = torch.linspace(-0.83, 0.79, 12).double().reshape(4, 3)
    quats = torch.eye(4).double()
    times = torch.tensor([-0.31, 0.57]).double()
    weights = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(2)).double()

    def value() -> torch.Tensor:
        return (torch.cat(field(points, quats, times, growing=True), -1) * weights).sum()

    check_gradient(field, value, 1e-6)


def check_gradient(field: MotionField, value, step: float, share: float = 1e-5) -> None:
    """Compare the derivative along random directions, one per kind of parameter, with central differences."""
    groups = {"planes": list(field.planes), "shift": list(field.shift.parameters())}
    groups |= {"turn": list(field.turn.parameters()), "whole": list(field.whole_turn.parameters())}
    random = torch.Generator().manual_seed(3)
    for name, parameters in groups.items():
        directions = [torch.randn(p.shape, generator=random).to(p) for p in parameters]
        gradients = torch.autograd.grad(value(), parameters)
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += sign * step * direction
                ends.append(float(value()))
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter -= sign * step * direction
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=share, abs=share), name
        assert abs(slope) > 1e-6, name


def test_arap_is_zero_for_rigid_motion_and_positive_for_shear(case):
    splats = case.splats
    nearest, weights = case.neighbours
    rows = torch.arange(len(splats.means))
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, 2.0, -0.5]).as_matrix()).float()
    shear = torch.eye(3)
    shear[0, 1] = 0.3
    still = splats.means
    rigid, sheared = ((still @ m.T + 0.4)[None] for m in (turn, shear))
    assert arap(still, rigid, case.neighbours, rows) < 1e-10
    scale = ((still[nearest] - still[:, None]).square() * weights[..., None]).sum((1, 2)).mean()
    # The best rotation leaves an edge of a sheared surface at most 0.3, and usually half of that, of its length.
    assert 0.001 < float(arap(still, sheared, case.neighbours, rows) / scale) < 0.09
    assert torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=1e-5)
    assert (nearest != torch.arange(len(nearest))[:, None]).all()


def test_discs_look_like_the_first_frame(case):
    """Their silhouette is neither larger nor smaller than the mesh's, unlike that of one Gaussian per edge."""
    splats, mask = case.splats, case.frames[0, ..., 3]

    def area(chosen: StillSplats) -> float:
        alpha = render(chosen.at(chosen.still()), case.cameras, eps2d=PIXEL).output("alpha")
        return float(alpha.sum() / mask.sum())

    assert 0.95 < area(splats) < 1.1
    assert area(replace(splats, log_scales=splats.log_scales + np.log(2.5))) > 1.15


def test_a_graph_takes_over_a_motion_that_it_can_make(case):
    problem = case.problem
    graph, still = problem.graph, problem.surface.points
    turns = Rotation.from_rotvec(np.stack([np.zeros(60), graph.centres[:, 2], np.zeros(60)], 1)).as_matrix()
    bent = GraphPose(turns, graph.centres + 0.1 * np.sin(3 * graph.centres[:, [2, 0, 1]]))
    expected = move_points(problem.matrix, graph, bent, still)[0]
    poses = graph_poses(problem, np.array([still, expected]))
    moved = move_points(problem.matrix, graph, poses[1], still)[0]
    moves = float(np.linalg.norm(expected - still, axis=1).mean())
    assert float(np.linalg.norm(moved - expected, axis=1).mean()) < 0.06 * moves
    assert np.allclose(poses[1].rotations @ poses[1].rotations.swapaxes(1, 2), np.eye(3), atol=1e-9)
    assert np.array_equal(poses[0].positions, graph.centres)


def bent(case: SimpleNamespace) -> GraphPose:
    """A pose in which nodes turn by different angles, up to 0.8 and beyond half a turn."""
    graph = case.problem.graph
    angles = np.stack(
        [0.8 * np.sin(5 * graph.centres[:, 2]), 3.0 + graph.centres[:, 0], 0 * graph.centres[:, 1]], 1
    )
    turns = Rotation.from_rotvec(angles).as_matrix()
    return GraphPose(turns, graph.centres + 0.1 * np.sin(3 * graph.centres[:, [2, 0, 1]]))


def carried_motion(case: SimpleNamespace, pose: GraphPose) -> FieldMotion:
    """Splats in a still and another pose of the graph, which an untrained field leaves as they are."""
    carried = carried_by([still_pose(case.problem.graph), pose])
    return FieldMotion(case.splats, MotionField(), 2, controls_of(case.problem, case.splats), carried)


@torch.no_grad()
def test_control_points_carry_gaussians_as_the_graph_carries_the_surface(case):
    problem, splats, pose = case.problem, case.splats, bent(case)
    moved = carried_motion(case, pose).moved(torch.arange(2))
    assert torch.allclose(moved.means[0], splats.means, atol=1e-5)
    assert torch.allclose(moved.quats[0], splats.quats, atol=1e-5)
    expected, _ = move_points(problem.matrix[splats.points], problem.graph, pose, splats.means.numpy() / UNIT)
    assert np.allclose(moved.means[1], expected * UNIT, atol=1e-4)


@torch.no_grad()
def test_gaussians_turn_with_their_control_points(case):
    turn, centres = Rotation.from_rotvec([0.2, -2.9, 1.4]), case.problem.graph.centres
    rigid = GraphPose(np.tile(turn.as_matrix(), (len(centres), 1, 1)), turn.apply(centres) + 0.3)
    moved = carried_motion(case, rigid).moved(torch.tensor([1]))
    assert np.allclose(moved.means[0], turn.apply(case.splats.means.numpy()) + 0.3 * UNIT, atol=1e-4)
    expected = turn.as_matrix() @ rotation_matrices(case.splats.quats).numpy()
    assert np.allclose(rotation_matrices(moved.quats[0]).numpy(), expected, atol=1e-4)


@torch.no_grad()
def test_either_quaternion_of_a_rotation_carries_the_same(case):
    """q and -q are one rotation, and neighbours that turn differently may have either."""
    motion = carried_motion(case, bent(case))
    expected = motion.moved(torch.tensor([1]))
    motion.carried[1][1, ::2] *= -1
    moved = motion.moved(torch.tensor([1]))
    assert torch.allclose(moved.means, expected.means, atol=1e-5)
    assert torch.allclose(rotation_matrices(moved.quats), rotation_matrices(expected.quats), atol=1e-4)


def test_control_points_become_the_nodes_of_the_graph(case):
    pose = bent(case)
    still, moved = carried_motion(case, pose).poses(case.problem)
    assert np.array_equal(still.positions, case.problem.graph.centres)
    assert np.allclose(moved.positions, pose.positions, atol=1e-5)
    assert np.allclose(moved.rotations, pose.rotations, atol=1e-5)


def test_points_in_space_are_carried_by_the_nearest_control_points():
    centres = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [5, 5, 5]])
    binding = nearest(centres, torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [40, 0, 0]]))
    assert binding.nodes.shape == (3, 4) and torch.allclose(binding.weights.sum(1), torch.ones(3))
    assert binding.nodes[:, 0].tolist()[::2] == [0, 4] and set(binding.nodes[1, :2].tolist()) == {1, 2}
    assert torch.allclose(binding.weights[1, 0], binding.weights[1, 1])
    assert (binding.weights.diff(dim=1) <= 0).all()


# --- comparing pictures ---------------------------------------------------------------------------------


def blob(x: float) -> tuple[Gaussians, TensorCameras]:
    """One Gaussian of 2 pixels at x, seen by a camera of 64 pixels, one unit of which is 16 pixels."""
    rig = orbit_cameras([0.0], 0.0, 4.0, fov_y=2 * np.arctan(0.5), width=64, height=64)
    one = {"quats": torch.tensor([[[1.0, 0, 0, 0]]]), "scales": torch.full((1, 1, 3), 0.12)}
    colors, opacities = torch.tensor([[[0.9, 0.2, 0.1]]]), torch.tensor([[0.95]])
    return (
        Gaussians(torch.tensor([[[x, 0.0, 0.0]]]), **one, opacities=opacities, colors=colors),
        TensorCameras.from_cameras(rig),
    )


def picture(gaussians: Gaussians, cameras: TensorCameras) -> torch.Tensor:
    drawn = render(gaussians, cameras, background=0.0, eps2d=PIXEL)
    return torch.cat([drawn.output("rgb"), drawn.output("alpha")], -1)


def test_pictures_as_published_are_a_special_case():
    here, cameras = blob(0.0)
    frames = picture(blob(0.3)[0], cameras)
    as_published = matching_loss(here, cameras, frames, colors=1.0, levels=1, robust=np.inf)
    assert torch.allclose(as_published, picture_loss(here, cameras, frames))
    nearly = matching_loss(here, cameras, frames, colors=1.0, levels=1, robust=1e2)
    assert torch.allclose(nearly, as_published, rtol=1e-3)
    coverage, colors = (matching_loss(here, cameras, frames, c, 1, np.inf) for c in (0.0, 6.0))
    assert torch.allclose(colors - as_published, 5 * (as_published - coverage), rtol=1e-3)
    assert colors > as_published > coverage > 0
    assert float(matching_loss(here, cameras, picture(here, cameras), 10.0, 4, 0.15)) < 1e-9


def test_coarse_pictures_attract_from_further_away():
    """12 pixels apart, fine pictures do not overlap."""
    _, cameras = blob(0.0)
    frames = picture(blob(0.75)[0], cameras)

    def pull(levels: int) -> float:
        gaussians, _ = blob(0.0)
        place = gaussians.means.requires_grad_()
        matching_loss(gaussians, cameras, frames, 10.0, levels, np.inf).backward()
        return float(-place.grad[0, 0, 0])

    assert pull(4) > 0 and pull(4) > 20 * abs(pull(1))


def test_large_differences_cost_linearly():
    """The cost of a blob that is missing, of any size, lies below its square and grows with its area."""
    here, cameras = blob(0.0)
    frames = picture(blob(1.2)[0], cameras)
    robust, square = (matching_loss(here, cameras, frames, 1.0, 1, delta) for delta in (0.05, np.inf))
    # For d >> δ: 2 δ d instead of d², and never more than that.
    assert 0.05 * float(square) < float(robust) < 0.35 * float(square)


def error(case: SimpleNamespace, points: np.ndarray) -> float:
    surface = case.problem.surface
    moved = points[:, surface.vertices] * surface.scale + surface.centre
    apart = np.linalg.norm(moved - case.truth, axis=-1)[1:].mean()
    return float(apart / np.linalg.norm(case.truth[:1] - case.truth, axis=-1)[1:].mean())


def displaced(case: SimpleNamespace, motion: FieldMotion) -> np.ndarray:
    problem = case.problem
    return np.array(
        [
            move_points(problem.matrix, problem.graph, pose, problem.surface.points)[0]
            for pose in motion.poses(problem)
        ]
    )


def test_only_right_videos_are_polished(case, monkeypatch):
    monkeypatch.setattr("zoo.animate3d.paper.polish", lambda problem, poses: ["polished"])
    quick = PaperSettings(side=16, gaussians=20, steps_per_frame=0, last_steps=1, arap_points=4)
    generated = replace(case.problem, stiffness=STIFFNESS["generated"])
    assert track_field(case.problem, settings=quick) == ["polished"]
    assert len(track_field(generated, settings=quick)) == FRAMES
    assert len(track_field(case.problem, settings=replace(quick, polish=False))) == FRAMES
    assert not PaperSettings.published().polish


def test_small_videos_are_drawn_finely_and_not_polished(case, monkeypatch):
    sizes = []
    monkeypatch.setattr("zoo.animate3d.paper.polish", lambda problem, poses: ["polished"])
    monkeypatch.setattr(
        "zoo.animate3d.paper.reconstruct",
        lambda motion, near, frames, cameras, *rest: sizes.append((frames.shape[3], cameras.width)),
    )
    quick = PaperSettings(gaussians=20, steps_per_frame=0, last_steps=1, arap_points=4)
    for side, width, polished in ((SIDE, SIDE, True), (95, SIDE, True), (96, 96, False), (160, 144, False)):
        poses = track_field(case.problem, settings=replace(quick, side=side))
        assert sizes.pop() == (SIDE, width) and (poses == ["polished"]) == polished
    track_field(case.problem, settings=replace(quick, side=160, oversample=False))
    assert sizes == [(SIDE, SIDE)] and not PaperSettings.published().oversample


def test_pictures_drawn_finely_are_averaged(case):
    """Reduced videos are seen at the same place, and nearer than by pictures that are drawn with as few pixels."""
    still = case.splats.still()
    small, cameras = case.frames[:1], case.cameras
    for _ in range(2):
        small = small.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    coarse = TensorCameras(cameras.viewmats, torch.diag(torch.tensor([0.25, 0.25, 1])) @ cameras.Ks, 12, 12)
    fine = oversampled(small, coarse, SIDE + 11)
    assert (fine.width, fine.height) == (SIDE, SIDE) and torch.allclose(fine.Ks, cameras.Ks)

    def loss(of: TensorCameras, shift: float = 0.0) -> float:
        return float(picture_loss(case.splats.at(still._replace(means=still.means + shift)), of, small))

    assert loss(fine) < 0.5 * loss(coarse) and loss(fine) < 0.1 * min(loss(fine, 0.1), loss(fine, -0.1))
    whole = picture(case.splats.at(still), fine).unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).mean((3, 5))
    assert float(picture_loss(case.splats.at(still), fine, whole)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("controlled", [True, False])
def test_a_motion_is_recovered_from_its_videos(case, controlled):
    controls = controls_of(case.problem, case.splats) if controlled else None
    settings = PaperSettings(steps_per_frame=35, last_steps=35, frames_at_once=2)
    motion = FieldMotion(case.splats, MotionField(0), FRAMES, controls)
    reconstruct(motion, case.neighbours, case.frames, case.cameras, settings)
    first, still = motion.poses(case.problem)[0], still_pose(case.problem.graph)
    assert np.array_equal(first.positions, still.positions) and np.array_equal(
        first.rotations, still.rotations
    )
    points = displaced(case, motion)
    assert np.abs(points[0] - case.problem.surface.points).max() < 1e-12  # sums of weighted rotations
    assert error(case, points) < 0.6
    # Control: other videos do not lead there.
    other = FieldMotion(case.splats, MotionField(0), FRAMES, controls)
    reconstruct(other, case.neighbours, case.frames[:, [1, 0, 3, 2]], case.cameras, settings)
    assert error(case, displaced(case, other)) > 0.8


# --- stage 2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_clean_latents_of_every_kind_of_prediction(kind):
    random = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 3, 5, 2, 2, generator=random) for _ in range(2))
    t = torch.tensor([137])
    level = signal_at(t, latents)
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    predicted = target(kind, latents[None], noise[None], t)[0]
    assert torch.allclose(stage2.clean(kind, noisy, predicted, t), latents, atol=1e-5)


def test_the_aim_is_guided_rescaled_and_keeps_the_first_frame():
    latents = torch.randn(4, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = {}

    def unet(sample, timestep, text, camera, image):
        seen["sample"] = sample
        return torch.stack([torch.full_like(latents, 1.0), latents])  # without the sentence, and with it

    unet.dtype = torch.float32
    kind = SimpleNamespace(config=SimpleNamespace(prediction_type="sample"))
    pipeline = SimpleNamespace(unet=unet, scheduler=kind)
    conditions = SimpleNamespace(text=torch.zeros(2, 1, 1), camera=None, image=None)
    aim = stage2.likelier(pipeline, latents, conditions, 100, 6.0, torch.Generator().manual_seed(1))
    assert torch.equal(seen["sample"][:, :, 0], latents[:, 0].expand(2, -1, -1, -1, -1))
    assert not torch.allclose(seen["sample"][0, :, 1:], latents[:, 1:], atol=0.05)
    assert torch.equal(aim[:, 0], latents[:, 0])
    # ε_c + 5 (ε_c - ε_u), of which a quarter has the standard deviation of ε_c: a sixth, as ε_u is constant.
    guided = latents + 5 * (latents - 1)
    assert torch.allclose(aim[:, 1:], (0.25 / 6 + 0.75) * guided[:, 1:], atol=1e-4)


def test_the_gradient_of_4d_sds_agrees_with_finite_differences():
    """Through autoencoder, renderer and field, in double precision; the aim is a constant."""
    random = np.random.default_rng(4)
    count = 12
    splats = StillSplats(
        np.arange(count),
        torch.from_numpy(random.uniform(-0.5, 0.5, (count, 3))),
        torch.from_numpy(random.normal(size=(count, 4))),
        torch.from_numpy(np.log(random.uniform(0.1, 0.3, (count, 3)))),
        torch.full((count,), 0.8).double(),
        torch.from_numpy(random.uniform(0, 1, (count, 3))),
    )
    field = MotionField(resolutions=SMALL).double()
    with torch.no_grad():  # a motion that keeps all in the picture
        for head in (field.shift, field.turn, field.grow, field.whole_turn):
            head[2].weight += 0.05 * torch.randn(
                head[2].weight.shape, generator=torch.Generator().manual_seed(5)
            )
    motion = FieldMotion(splats, field, 3)
    pipeline = SimpleNamespace(vae=PatchAutoencoder(latent_channels=8).double())
    rig = stage2.random_rig(np.random.default_rng(6), 16)
    frames = torch.arange(3)
    with torch.no_grad():
        aim = stage2.encode(pipeline, stage2.video(motion, frames, rig))
        aim = aim + torch.randn(aim.shape, generator=torch.Generator().manual_seed(7))

    def value() -> torch.Tensor:
        return stage2.distillation(stage2.encode(pipeline, stage2.video(motion, frames, rig)), aim)

    check_gradient(field, value, 1e-6, share=1e-4)


def test_rigs_see_the_model_from_four_sides():
    random = np.random.default_rng(0)
    for _ in range(50):
        rig = stage2.random_rig(random, 64)
        eyes = rig.camera_to_world[:, :3, 3]
        azimuths = np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2]))
        assert np.allclose(np.diff(azimuths) % 360, 90, atol=1e-6)
        elevation = np.degrees(np.arcsin(eyes[:, 1] / np.linalg.norm(eyes, axis=1)))
        assert -1e-9 <= elevation.min() and elevation.max() <= 30 + 1e-9
        reach = np.linalg.norm(eyes[0]) * 32 / rig.K[0, 0, 0]  # half of the picture, at the centre
        assert 0.8 <= reach <= 1.0
