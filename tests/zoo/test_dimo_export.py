"""Motions as files that other programs open."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gltf_validator import validator
from scipy.spatial import cKDTree
from tiny_dimo import tiny_dimo, tiny_pipeline

from renderers import gltf
from renderers.gaussians import ply
from renderers.gaussians.features import rotation_matrices
from zoo.dimo import skin
from zoo.dimo.model import KeyPointMotion
from zoo.dimo.page import skinned_splats
from zoo.export import gaussian_surface, write_mp4


@pytest.fixture(scope="module")
def motion():
    return tiny_pipeline().sample(1)


@pytest.fixture(scope="module")
def exported(motion, tmp_path_factory):
    return motion.save(tmp_path_factory.mktemp("glb") / "egg.glb", detail=48)


def skinned(motion, vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The model's linear blend skinning (DIMO §3.2.3) of any points, float64 [T, P, 3]."""
    rest = motion.model.key_points.double()
    moved, turns = (
        motion.trajectories.positions.double(),
        rotation_matrices(motion.trajectories.rotations.double()),
    )
    joints, points = torch.as_tensor(joints), torch.as_tensor(vertices)
    apart = points[:, None] - rest[joints]  # [P, 4, 3]
    carried = (turns[:, joints] @ apart[..., None]).squeeze(-1) + moved[:, joints]
    return (torch.as_tensor(weights)[..., None] * carried).sum(2).numpy()


def test_the_glb_is_valid(exported):
    assert validator()([exported])[0]["messages"] == []


def test_the_validator_sees_a_wrong_one(exported, tmp_path):
    broken = tmp_path / "broken.glb"
    broken.write_bytes(exported.read_bytes().replace(b'"VEC4"', b'"VEC9"', 1))
    assert validator()([broken])[0]["errors"] > 0


def test_the_glb_moves_as_the_model_does(motion, exported):
    asset = gltf.load(exported)
    (animation,) = asset.animations
    mesh = skin.canonical_surface(motion.model, 48)
    joints, weights = skin.vertex_weights(motion.model, mesh.vertices)
    expected = skinned(motion, mesh.vertices, joints, weights)
    times = (motion.phases * motion.seconds).tolist()
    found = np.stack([asset.positions(0, time) for time in times])
    assert animation.duration == pytest.approx(times[-1])
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(expected - expected[:1]).max() > 0.01  # the control: it moves
    assert np.abs(found[::-1] - expected).max() > 0.01


def test_a_vertex_at_a_gaussian_moves_with_it(motion):
    """Weights at a Gaussian's centre are that Gaussian's own, so splats and surface stay together."""
    model = motion.model
    joints, weights = skin.vertex_weights(model, model.means.numpy())
    dense = np.zeros((len(joints), len(model.key_points)))
    np.put_along_axis(dense, joints, weights, 1)
    own = model.skinning_weights().numpy()
    assert np.abs(dense.sum(1) - 1).max() < 1e-6
    assert np.abs(dense - own).max() < 1e-4
    still = KeyPointMotion(*(field[None] for field in motion.trajectories))
    with torch.no_grad():
        means = model.skin(still).means.numpy()
    assert np.abs(skinned(motion, model.means.double().numpy(), joints, weights) - means).max() < 1e-4


def test_the_same_motion_gives_the_same_bytes(motion, exported, tmp_path):
    again = motion.save(tmp_path / "again.glb", detail=48)
    assert again.read_bytes() == exported.read_bytes()
    first, second = (motion.save(tmp_path / f"{i}.mp4", resolution=64) for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_key_frames_can_be_more(motion, tmp_path):
    asset = gltf.load(motion.save(tmp_path / "smooth.glb", detail=24, frames=25))
    assert asset.animations[0].duration == pytest.approx(float(motion.phases[-1]) * motion.seconds)


def test_a_model_without_key_points_has_no_joints(tmp_path):
    bare = tiny_pipeline(factorised=False).sample(0)
    with pytest.raises(ValueError, match="no joints"):
        bare.save(tmp_path / "egg.glb")


def test_a_ball_of_gaussians_has_the_surface_of_a_ball():
    height, angle = (
        1 - (2 * np.arange(3000) + 1) / 3000,
        np.arange(3000) * np.pi * (3 - 5**0.5),
    )  # evenly spread
    around = np.sqrt(1 - height**2)
    directions = np.stack([around * np.cos(angle), height, around * np.sin(angle)], 1)
    colors = directions * 0.5 + 0.5
    still = np.tile(np.eye(3), (3000, 1, 1))
    scales, opacities = np.full((3000, 3), 0.02), np.full(3000, 0.9)
    mesh = gaussian_surface(0.5 * directions, still, scales, opacities, colors, detail=48)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert 0.5 < radii.min() and radii.max() < 0.56  # a single surface: cavities are filled
    corners = mesh.vertices[mesh.triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((faces * corners.mean(1)).sum(1) > -1e-9).all()  # counter-clockwise from outside
    assert (mesh.normals * mesh.vertices).sum(1).min() / 0.5 > 0.9
    edges = np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 2).all()  # closed
    assert np.abs(mesh.colors - (mesh.vertices / radii[:, None] * 0.5 + 0.5)).max() < 0.1


def test_an_mp4_holds_the_whole_motion(motion, tmp_path):
    import av

    path = motion.save(tmp_path / "egg.mp4", fps=12, resolution=96)
    with av.open(str(path)) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
        assert float(video.streams.video[0].average_rate) == 12
    assert frames.shape == (round(8 / 9 * 2 * 12) + 1, 96, 96, 3)
    assert (frames[:, [0, 0, -1, -1], [0, -1, 0, -1]] > 245).all()  # white behind, the object inside
    assert (frames < 200).any(axis=(1, 2, 3)).all()
    expected = motion.resampled(len(frames)).render(motion.resampled(len(frames)).default_camera(96))[0]
    assert np.abs(frames.astype(float) - expected).mean() < 4


def test_a_video_with_odd_sides_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="even"):
        write_mp4(tmp_path / "odd.mp4", np.zeros((2, 15, 16, 3), np.uint8), 8)
    assert list(tmp_path.iterdir()) == []


def test_a_ply_sequence_is_the_gaussians(motion, tmp_path):
    folder = motion.save(tmp_path / "egg.ply")
    files = sorted(folder.iterdir())
    assert folder == tmp_path / "egg" and [file.name for file in files][:2] == ["000.ply", "001.ply"]
    assert len(files) == len(motion.phases)
    read, expected = ply.read(files[4]), motion.gaussians()
    assert torch.allclose(read.means[0], expected.means[4], atol=1e-6)
    assert torch.allclose(read.scales, expected.scales, rtol=1e-4)
    turned = torch.nn.functional.normalize(expected.quats[4], dim=-1)
    assert ((read.quats[0] * turned).sum(-1).abs() > 1 - 1e-5).all()
    assert torch.allclose(read.sh[0, :, 0] * ply.SH_C0 + 0.5, expected.colors[0], atol=1e-5)


def test_exports_of_a_model_that_stretches(tmp_path):
    """A page's numbers, .ply and .npz give the centres and scales of `DIMO.skin`."""
    motion = tiny_pipeline(stretching=True).motion(2)
    expected, frames = motion.gaussians(), np.arange(len(motion.phases))
    splats = skinned_splats(motion.model, [("it", motion.trajectories)], motion.phases, motion.seconds)
    assert np.abs(splats.centres(0, frames) - expected.means.numpy()).max() < 1e-5
    # The control: without strains, as of a model that does not stretch.
    assert np.abs(replace(splats, strains=None).centres(0, frames) - expected.means.numpy()).max() > 1e-3
    assert splats.motion.shape[-1] == 13 and (expected.scales.std(0) > 0).any()
    read = ply.read(sorted(motion.save(tmp_path / "egg.ply").iterdir())[4])
    assert torch.allclose(read.scales[0], expected.scales[4], rtol=1e-4)
    arrays = np.load(motion.save(tmp_path / "egg.npz"))
    strains = motion.model.strains(motion.trajectories.positions)
    assert np.allclose(arrays["strains"], strains.numpy(), atol=1e-7)


def test_exports_of_a_model_of_discs(tmp_path):
    """A page's slopes are the gradients of its weights (finite differences); .ply has the discs of `DIMO.skin`."""
    motion = tiny_pipeline(stretching=True, discs=True).motion(2)
    expected, model = motion.gaussians(), motion.model
    splats = skinned_splats(model, [("it", motion.trajectories)], motion.phases, motion.seconds)
    step = 1e-3
    for axis in range(3):
        weights = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            moved.means.data[:, axis] += sign * step
            weights.append(moved.skinning_weights().gather(1, model.neighbours).detach().numpy())
        slopes = (weights[0] - weights[1]) / (2 * step)
        assert np.abs(splats.slopes[..., axis] - slopes).max() < 0.01 * np.abs(slopes).max()
    read = ply.read(sorted(motion.save(tmp_path / "egg.ply").iterdir())[4])
    assert torch.allclose(read.scales[0], expected.scales[4], rtol=1e-4)
    assert tiny_pipeline().motion(2).model.config.discs is False
    plain = skinned_splats(
        tiny_pipeline().model, [("it", motion.trajectories)], motion.phases, motion.seconds
    )
    assert plain.slopes is None


def test_an_npz_has_what_skinning_needs(motion, tmp_path):
    arrays = np.load(motion.save(tmp_path / "egg.npz"))
    assert str(arrays["name"]) == motion.name and arrays["z"].shape == (8,)
    assert np.array_equal(arrays["positions"], motion.trajectories.positions.numpy())
    assert np.allclose(np.linalg.norm(arrays["rotations"], axis=-1), 1, atol=1e-6)
    turns = rotation_matrices(torch.tensor(arrays["rotations"])).numpy()
    apart = arrays["means"][:, None] - arrays["key_points"]
    carried = np.einsum("tkij,nkj->tnki", turns, apart) + arrays["positions"][:, None]
    means = (arrays["skinning_weights"][None, ..., None] * carried).sum(2)
    assert np.abs(means - motion.gaussians().means.numpy()).max() < 1e-5


def test_usd_has_the_vertices_of_the_glb(motion, tmp_path):
    """Points at every frame, and vertex colours that the material reads."""
    from pxr import Usd, UsdGeom, UsdShade

    asset = gltf.load(motion.save(tmp_path / "egg.glb", detail=24))
    stage = Usd.Stage.Open(str(motion.save(tmp_path / "egg.usd", detail=24)))
    (prim,) = (each for each in stage.Traverse() if each.IsA(UsdGeom.Mesh))
    mesh, times = UsdGeom.Mesh(prim), (motion.phases * motion.seconds).tolist()
    for time in (times[0], times[len(times) // 2], times[-1]):
        points = np.array(mesh.GetPointsAttr().Get(time * stage.GetTimeCodesPerSecond()))
        assert np.abs(points - asset.positions(0, time) - asset.origin(0)).max() < 1e-5
    colors = UsdGeom.PrimvarsAPI(prim).GetPrimvar("displayColor").Get()
    assert np.abs(np.array(colors) - asset.colors[:, :3]).max() < 1e-6
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    source = surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source
    assert UsdShade.Shader(source.GetPrim()).GetIdAttr().Get() == "UsdPrimvarReader_float3"


def test_a_4dgs_file_has_the_gaussians_at_every_frame_and_between(motion, tmp_path):
    """Read by fourdgs, whose validator finds no error; its values are quantised."""
    import fourdgs
    from fourdgs.validate import validate

    path = motion.save(tmp_path / "egg.4dgs")
    report = validate(path.read_bytes())
    assert report.ok, report.findings
    scene, expected = fourdgs.read(str(path)), motion.gaussians()
    means = expected.means.double().numpy()
    times = ((motion.phases - motion.phases[0]) * motion.seconds).double().numpy()
    count = means.shape[1]
    # The format's own bounds: 2 % of the median scale on each axis; velocities for the length of a frame.
    step = fourdgs.quantization.Bounds.for_profile("fine", median_scale=float(expected.scales.median()))
    bound = 3**0.5 * (step.pos + step.motion * times[1]) * 1.05 + 1e-6

    def matched(time: float) -> dict:
        state = scene.gaussians.state_at(time, cutoff=scene.header.cutoff)
        assert len(state["indices"]) == count  # of one frame: the others are not valid then
        return state

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        # The order is that of the file's chunks.
        return max(cKDTree(b).query(a)[0].max(), cKDTree(a).query(b)[0].max())

    for frame in (0, 3, len(times) - 1):
        state = matched(times[frame] + 1e-6)
        assert apart(state["centers"], means[frame]) <= bound
        opacity = np.sort(expected.opacities[0].double().numpy())
        assert np.abs(np.sort(state["opacity"]) - opacity).max() < 0.01
    middle = matched((times[2] + times[3]) / 2)
    assert apart(middle["centers"], (means[2] + means[3]) / 2) <= bound


def test_an_unknown_ending_is_refused(motion, tmp_path):
    with pytest.raises(
        ValueError, match=r"\.mp4, \.glb, \.fbx, \.usd, \.usda, \.usdc, \.usdz, \.ply, \.4dgs, \.npz"
    ):
        motion.save(tmp_path / "egg.stl")


def test_a_vertex_keeps_the_joints_with_the_largest_weights():
    """With six key points per Gaussian, the four nearest of them: glTF has four joints per vertex."""
    model = tiny_dimo(neighbours=6, graph=6)
    vertices = model.means.detach().double().numpy()[:50]
    joints, weights = skin.vertex_weights(model, vertices)
    kept = np.sort(weights, axis=1)[:, ::-1]
    every = model.skinning_weights().detach().double().numpy()[:50]
    largest = np.sort(every, axis=1)[:, :-5:-1]
    np.testing.assert_allclose(kept, largest / largest.sum(1, keepdims=True), atol=1e-4)
    assert (np.take_along_axis(every, joints, 1)[weights > 0.01] > 0).all()
