"""Gaussian splats that move: from a file of 3DGS and videos to files of moving splats."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from trimesh.triangles import closest_point, points_to_barycentric

import zoo
from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, ply, render
from renderers.gaussians.features import rotate_harmonics, rotation_matrices
from renderers.gltf import load
from renderers.meshes import RenderSettings, Shot, render_clip
from zoo.__main__ import main
from zoo.animate3d import SplatAnimation, SplatMotion, cameras_around, fit_splats, load_splats, render_stills
from zoo.animate3d.alignment import AlignmentError
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.graph import make_graph
from zoo.animate3d.hexplane import MotionField
from zoo.animate3d.loading import load_model
from zoo.animate3d.paper import FieldMotion, PaperSettings
from zoo.animate3d.rigidity import nearest_neighbourhoods
from zoo.animate3d.solver import STIFFNESS, Problem
from zoo.animate3d.splats import fitting
from zoo.animate3d.splats.fitting import controls_among, follow
from zoo.animate3d.splats.stand_ins import merged, stand_ins
from zoo.animate3d.still_splats import GREY, UNIT, make_splats, targets
from zoo.animate3d.surface import make_surface
from zoo.animate3d.views import make_views
from zoo.errors import ModelError, UnsupportedError
from zoo.viewer.opening import open_scene

COUNT, FRAMES = 300, 5
CENTRE = np.array([3.0, -20.0, 7.0])


def egg(degree: int = 2, count: int = COUNT) -> Gaussians:
    """Discs on an egg of 4 units, far from the origin, in colours that depend on place and view."""
    random = np.random.default_rng(0)
    normals = random.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    turns = Rotation.align_vectors([[0, 0, 1]], [[0, 0, 1]])[0] * Rotation.random(count, random_state=0)
    axes = np.stack([np.cross(normals, turns.as_matrix()[:, 0]), normals], 1)
    axes[:, 0] /= np.linalg.norm(axes[:, 0], axis=1, keepdims=True)
    frames = np.stack([axes[:, 0], np.cross(axes[:, 1], axes[:, 0]), axes[:, 1]], -1)
    sh = random.normal(size=(count, (degree + 1) ** 2, 3)) * 0.15
    sh[:, 0] = normals + 0.5 * np.sign(normals[:, [1, 2, 0]])
    values = {
        "means": normals * [1.0, 2.0, 0.8] + CENTRE,
        "quats": Rotation.from_matrix(frames).as_quat(scalar_first=True) * 3,
        "scales": np.full((count, 3), 0.22) * [1.0, 1.3, 0.1],
        "opacities": np.full(count, 0.9),
        "sh": sh,
    }
    return Gaussians(**{name: torch.from_numpy(value).float()[None] for name, value in values.items()})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("splats") / "egg.ply"
    ply.write(path, egg())
    return path


@pytest.fixture(scope="module")
def model(path):
    return load_splats(path)


def around(model, side: int = 48) -> Cameras:
    return cameras_around(model, size=side)


def turning(model, degrees: float = 40.0) -> SplatAnimation:
    """Turns about the vertical axis through its centre, and rises by a tenth of its size."""
    still = model.gaussians.means[0].double().numpy()
    first = Rotation.from_quat(model.gaussians.quats[0].numpy(), scalar_first=True)
    means, quats = [], []
    for share in np.linspace(0, 1, FRAMES):
        turn = Rotation.from_rotvec([0, np.radians(degrees) * share, 0])
        means.append(turn.apply(still - CENTRE) + CENTRE + [0, 0.4 * share, 0])
        quats.append((turn * first).as_quat(scalar_first=True))
    motion = SplatMotion(np.array(means, np.float32), np.array(quats, np.float32), np.arange(FRAMES) / 4)
    return SplatAnimation(model, motion, "turns")


@pytest.fixture(scope="module")
def animation(model) -> SplatAnimation:
    return turning(model)


# --- loading --------------------------------------------------------------------------------------------


def test_a_file_gives_all_of_its_gaussians(path, model):
    given, read = egg(), model.gaussians
    assert torch.allclose(read.means, given.means, atol=1e-4)
    assert torch.allclose(read.sh, given.sh, atol=1e-5)
    centre, extent = model.unit()
    assert np.allclose(centre, CENTRE, atol=0.1) and 3.8 < extent < 4.0
    assert not model.notes  # this package's files say what is up


def test_strays_and_haze_do_not_count_for_the_extent(model):
    far = egg()
    for index, opacity in ((0, 0.9), (1, 0.02)):
        far.means[0, index] = 1000.0 * (index + 1)
        far.opacities[0, index] = opacity
    many = Gaussians(
        **{k: torch.cat([v, *[egg().__dict__[k]] * 3], 1) for k, v in far.__dict__.items() if v is not None}
    )
    assert load_splats(many).unit()[1] == pytest.approx(model.unit()[1], rel=0.05)


def test_which_way_is_up(path, tmp_path, model):
    scan = tmp_path / "scan.ply"  # as other programs write it: y down, without a comment
    content = path.read_bytes()
    line = next(line for line in content.split(b"\n") if line.startswith(b"comment"))
    scan.write_bytes(content.replace(line + b"\n", b""))
    assumed, turned = load_splats(scan), load_splats(scan, up="-y")
    assert torch.allclose(assumed.gaussians.means[..., 1:], -model.gaussians.means[..., 1:])
    assert torch.allclose(turned.gaussians.means, model.gaussians.means)
    assert "up='-y'" in assumed.notes[0] and not turned.notes


def broken(**changes) -> Gaussians:
    return Gaussians(**{**{k: v for k, v in egg().__dict__.items() if v is not None}, **changes})


@pytest.mark.parametrize(
    ("gaussians", "reason"),
    [
        (lambda: egg(count=4), "10 to 1000000 Gaussians, got 1 of 4"),
        (
            lambda: broken(opacities=torch.full((1, COUNT), 0.01)),
            "0 Gaussians have an opacity of 0.1 or more",
        ),
        (lambda: broken(means=torch.full((1, COUNT, 3), torch.nan)), "means has values that are not finite"),
        (lambda: broken(means=torch.ones(1, COUNT, 3)), "all Gaussians are at one place"),
        (lambda: broken(quats=torch.zeros(1, COUNT, 4)), "the quaternion 0"),
    ],
)
def test_unusable_splats_are_refused_in_a_sentence(gaussians, reason):
    with pytest.raises(ModelError, match=reason):
        load_splats(gaussians(), name="egg")


def test_other_files_are_refused_in_a_sentence(path, tmp_path):
    with pytest.raises(ModelError, match=r"no\.ply: cannot be read"):
        load_splats(tmp_path / "no.ply")
    (tmp_path / "mesh.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n"
    )
    with pytest.raises(ModelError, match="missing y"):
        load_splats(tmp_path / "mesh.ply")
    with pytest.raises(ModelError, match=r"not a mesh; zoo\.animate and"):
        load_model(path)


# --- drawing --------------------------------------------------------------------------------------------


def test_view_dependent_colours_turn_with_the_gaussians(model):
    """Splats that have turned, seen by a camera that has turned with them, look as before."""
    turn = Rotation.from_rotvec([0.4, 1.1, -0.7])
    still = model.gaussians
    moved = Gaussians(
        torch.from_numpy(turn.apply(still.means[0].numpy() - CENTRE)).float()[None],
        torch.from_numpy(
            (turn * Rotation.from_quat(still.quats[0].numpy(), scalar_first=True)).as_quat(scalar_first=True)
        ).float()[None],
        still.scales,
        still.opacities,
        sh=rotate_harmonics(still.sh[0], torch.from_numpy(turn.as_matrix()).float().expand(COUNT, 3, 3))[
            None
        ],
    )
    camera = around(model)[[0]]
    turned = camera.world_to_camera.copy()
    turned[0, :3, :3] = camera.world_to_camera[0, :3, :3] @ turn.as_matrix().T
    turned[0, :3, 3] = camera.world_to_camera[0, :3, :3] @ CENTRE + camera.world_to_camera[0, :3, 3]

    def picture(gaussians: Gaussians, view: Cameras) -> torch.Tensor:
        return render(gaussians, TensorCameras.from_cameras(view)).output("rgb")

    before = picture(still, camera)
    after = Cameras(turned, camera.K, camera.width, camera.height)
    assert float((picture(moved, after) - before).abs().max()) < 2e-3
    wrong = replace(moved, sh=still.sh)
    assert float((picture(wrong, after) - before).abs().max()) > 0.1


def test_rotating_harmonics_by_half_a_turn_changes_signs_only(tmp_path):
    """The independent rule by which .ply files of y down are turned."""
    gaussians = egg(degree=3)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    ply.write(tmp_path / "egg.ply", gaussians, up="y")
    expected = ply.read(tmp_path / "egg.ply", up="-y").sh
    assert torch.allclose(rotate_harmonics(gaussians.sh[0], turn.expand(COUNT, 3, 3)), expected[0], atol=1e-5)
    assert not torch.allclose(gaussians.sh, expected, atol=0.1)


def test_stills_show_the_splats_in_the_middle(model):
    stills = render_stills(model, around(model, 64))
    assert stills.shape == (4, 64, 64, 4)
    for still in stills[..., 3] > 127:
        rows, columns = np.nonzero(still)
        assert abs(rows.mean() - 31.5) < 3 and abs(columns.mean() - 31.5) < 3
        assert 40 < np.ptp(rows) < 60
    assert not np.array_equal(stills[0], stills[2])


# --- fitting --------------------------------------------------------------------------------------------


def problem_of(model, side: int = 48):
    videos = render_stills(model, around(model, side))[:, None].repeat(2, 1) / np.float32(255)
    return targets(make_views(videos, around(model, side), *model.unit()), side)


def difference(splats, frames, cameras) -> float:
    drawn = render(splats.at(splats.still()), cameras, background=GREY)
    alpha = drawn.output("alpha")[0, ..., 0].numpy() > 0.5
    mask = frames[0, ..., 3].numpy() > 0.5
    return float((alpha & mask).sum() / (alpha | mask).sum())


def test_few_gaussians_stand_for_many(model):
    frames, cameras = problem_of(model)
    all_of_them = stand_ins(model, 1000, frames, cameras, 0)
    centre, extent = model.unit()
    still = (model.gaussians.means[0].double().numpy() - centre) / extent * UNIT
    assert np.array_equal(all_of_them.points, np.arange(COUNT))
    assert np.allclose(all_of_them.means.numpy(), still, atol=1e-5)
    few = stand_ins(model, 60, frames, cameras, 0)
    assert len(few.means) == 60
    assert difference(few, frames, cameras) > 0.93
    # Control: as large as single Gaussians of the file, they leave holes.
    sizes = all_of_them.log_scales[torch.from_numpy(few.points)]
    assert difference(replace(few, log_scales=sizes), frames, cameras) < 0.85


def test_groups_keep_their_moments():
    """The law of total covariance: merging changes neither mean nor covariance of the whole."""
    random = np.random.default_rng(3)
    means, axes, colors = (random.normal(size=size) for size in ((90, 3), (90, 3, 3), (90, 3)))
    weight, group = random.uniform(1, 3, 90), np.arange(90) % 7
    one = merged(means, axes, colors, weight, np.zeros(90, int))
    total, middle, covariance, tint = merged(means, axes, colors, weight, group)
    share = total / total.sum()
    apart = middle - share @ middle
    whole = np.einsum("g,gij->ij", share, covariance + apart[:, :, None] * apart[:, None])
    assert np.allclose(share @ middle, one[1][0]) and np.allclose(share @ tint, one[3][0])
    assert np.allclose(whole, one[2][0])
    assert np.allclose(one[1][0], np.average(means, axis=0, weights=weight))


def test_neighbourhoods_are_the_nearest_others():
    places = np.arange(20.0)[:, None] * [1, 0, 0]
    places[7] = places[3]  # two at one place
    nearest, weights = nearest_neighbourhoods(places)
    assert nearest.shape == weights.shape == (20, 8)
    assert (nearest != torch.arange(20)[:, None]).all()
    assert 7 in nearest[3] and 3 in nearest[7]
    assert set(nearest[0].tolist()) == {1, 2, 3, 4, 5, 6, 7, 8}
    assert torch.allclose(weights.sum(1), torch.ones(20))


@pytest.mark.parametrize("controlled", [True, False])
def test_all_gaussians_follow_the_field_and_turn_with_it(model, controlled):
    """A field that turns and shifts the whole, of a file that is neither centred nor of unit size."""
    frames, cameras = problem_of(model)
    splats = stand_ins(model, 60, frames, cameras, 0)
    field = MotionField(resolutions=((4, 4, 4, 2),))
    angles, shift = torch.tensor([0.3, -0.5, 0.9]), torch.tensor([0.1, -0.2, 0.3])
    with torch.no_grad():
        for plane in field.planes:
            plane.fill_(1.0)
        for head in (field.whole_turn, field.whole_shift):
            head[0].weight.fill_(1 / 16)  # every hidden unit is 1
        field.whole_turn[2].weight[:] = ((angles + torch.pi) / (2 * torch.pi)).logit()[:, None] / 16
        field.whole_shift[2].weight[:] = ((shift + 1) / 2).logit()[:, None] / 16
    controls = controls_among(splats, 0) if controlled else None
    motion = follow(model, FieldMotion(splats, field, 2, controls), np.array([0.0, 0.5]))
    still, (centre, extent) = model.gaussians, model.unit()
    turn = Rotation.from_euler("xyz", angles.numpy())
    expected = turn.apply(still.means[0].numpy() - centre) + centre + shift.numpy() * extent / UNIT
    assert np.array_equal(motion.positions[0], still.means[0].numpy())
    assert np.allclose(motion.positions[1], expected, atol=1e-3)
    turned = turn.as_matrix() @ rotation_matrices(still.quats[0]).numpy()
    assert np.allclose(rotation_matrices(torch.from_numpy(motion.rotations[1])).numpy(), turned, atol=1e-3)


def test_the_viewer_says_how_to_open_moving_splats(animation, tmp_path):
    with pytest.raises(UnsupportedError, match=r'\.save\("moving\.ply"\) and view that folder'):
        open_scene(animation)
    animation.save(tmp_path / "moving.ply")
    assert open_scene(tmp_path / "moving").frames == FRAMES


def test_control_points_are_spread_over_the_splats(model):
    frames, cameras = problem_of(model)
    splats = stand_ins(model, 200, frames, cameras, 0)
    controls = controls_among(splats, 0)
    centres, means = controls.centres.numpy(), splats.means.numpy()
    assert len(centres) == fitting.NODES and cKDTree(means).query(centres)[0].max() == 0
    reach = cKDTree(centres).query(means)[0].max()
    assert reach < 2 * np.median(cKDTree(means).query(means, 2)[0][:, 1])
    # Every splat is carried where an untrained field leaves it.
    motion = FieldMotion(splats, MotionField(resolutions=((4, 4, 4, 2),)), 2, controls)
    assert np.allclose(motion.moved(torch.tensor([1])).means[0].detach(), means, atol=1e-5)


QUICK = PaperSettings(side=32, gaussians=60, steps_per_frame=1, last_steps=1, arap_points=16)


@pytest.fixture
def quick(monkeypatch):
    """Few steps, so that the way through is run, and not what it finds."""
    monkeypatch.setattr(fitting, "PaperSettings", lambda: QUICK)


def test_one_call_animates_a_file_of_splats(path, model, animation, quick, tmp_path):
    videos = animation.render(around(model), background=None)
    result = zoo.animate(path, videos=videos, fps=4)
    assert isinstance(result, SplatAnimation)
    assert np.array_equal(result.motion.positions[0], model.gaussians.means[0].numpy())
    assert len(result.report.fit.residual) == FRAMES and result.duration == 1.0
    assert result.report.sentences() and "SplatAnimation" in repr(result)
    assert "Gaussians" in result._repr_html_()
    from zoo.animate3d.report import write_report

    assert b"<video" in write_report(tmp_path / "report.html", result).read_bytes()
    with pytest.raises(ValueError, match="splats, which have no surface for a graph to move"):
        zoo.animate(path, videos=videos, method="graph")
    with pytest.raises(AlignmentError, match="does not show the still model"):
        zoo.animate(path, videos=np.roll(videos, 20, 3), fps=4)


def test_a_sentence_animates_splats(path, quick, monkeypatch):
    """The pictures of the splats are what the video model begins with."""
    seen = {}

    def generate(pictures, sentence, seed):
        seen["pictures"], seen["sentence"] = pictures, sentence
        return SimpleNamespace(frames=pictures[:, None].repeat(FRAMES, 1))

    video_model = SimpleNamespace(config=SimpleNamespace(resolution=48), animate=generate)
    result = zoo.animate(path, "wobbles", model=video_model)
    assert seen["sentence"] == "wobbles" and result.name == "wobbles"
    refined = []
    monkeypatch.setattr("zoo.animate3d.refine.refine", lambda *given: refined.append(given[3:]))
    zoo.animate(path, "wobbles", model=video_model, refine=True)
    assert refined == [(video_model, "wobbles")]
    assert np.array_equal(seen["pictures"], render_stills(load_splats(path), around(load_splats(path))))


def test_wrong_videos_are_refused(model):
    with pytest.raises(ValueError, match="fit_splats: videos: expected 4 videos of 48×48"):
        fit_splats(model, np.zeros((3, 2, 48, 48, 4), np.uint8), around(model), np.arange(2.0))
    with pytest.raises(TypeError, match="fit_splats: model"):
        fit_splats("egg.ply", np.zeros((4, 2, 48, 48, 4), np.uint8), around(model), np.arange(2.0))


# --- the result -----------------------------------------------------------------------------------------


def test_it_is_cut_looped_and_resampled(animation):
    assert np.array_equal(animation.trim(0.25, 0.75).motion.positions, animation.motion.positions[1:4])
    fine = animation.resample(8)
    assert len(fine.motion.times) == 9 and fine.motion.positions.dtype == np.float32
    middle = animation.motion.positions[:2].mean(0)
    assert np.allclose(fine.motion.positions[1], middle, atol=1e-5)
    looped = animation.loop(0.25)
    assert np.allclose(looped.motion.positions[0], looped.motion.positions[-1], atol=1e-5)
    with pytest.raises(ValueError, match=r"SplatAnimation\.resample: fps: 1e\+06 gives"):
        animation.resample(1e6)
    with pytest.raises(ValueError, match=r"SplatAnimation\.trim"):
        animation.trim(0.5, 0.5)
    with pytest.raises(ValueError, match="expected a motion of the 300 Gaussians"):
        replace(animation, motion=SplatMotion(np.zeros((2, 5, 3)), np.zeros((2, 5, 4)), np.arange(2.0)))


def test_renders_turn_as_it_does(animation):
    """The last frame is the first one, seen by a camera that stands on the other side of the motion."""
    front = animation.render(around(animation.model)[[0]], background=None)
    assert front.shape == (1, FRAMES, 48, 48, 4) and front.dtype == np.uint8
    assert not np.array_equal(front[0, 0], front[0, -1])
    rows = [np.nonzero(frame[..., 3] > 127)[0].mean() for frame in front[0]]
    assert rows[0] - rows[-1] == pytest.approx(48 / 10 * 0.85 * 0.85, abs=1.5)  # a tenth of its size, upwards


def test_every_format_has_the_motion(animation, tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    motion, still = animation.motion, animation.model.gaussians
    scene = fourdgs.read(str(animation.save(tmp_path / "egg.4dgs"))).gaussians
    state = scene.state_at(float(motion.times[3]) + 1e-6)
    order = cKDTree(state["centers"]).query(motion.positions[3])[0]
    assert len(state["centers"]) == COUNT and order.max() < 0.02

    folder = animation.save(tmp_path / "egg.ply")
    assert sorted(each.name for each in folder.iterdir()) == [f"{i:03d}.ply" for i in range(FRAMES)]
    last = ply.read(folder / "004.ply")
    assert np.allclose(last.means[0], motion.positions[-1], atol=1e-5)
    assert not torch.allclose(last.sh[:, :, 1:], still.sh[:, :, 1:], atol=0.05)  # turned with the Gaussians

    folder = animation.save(tmp_path / "stills.glb")
    last = fourdgs.from_gltf(str(folder / "004.glb")).gaussians
    assert np.allclose(last.positions, motion.positions[-1], atol=1e-4)
    assert np.allclose(last.scales, still.scales[0], rtol=1e-3)
    colors = (0.5 + ply.SH_C0 * still.sh[0, :, 0]).clamp(0, 1)
    assert np.allclose(last.colors[:, :3], colors, atol=0.01)

    arrays = np.load(animation.save(tmp_path / "egg.npz"))
    assert np.array_equal(arrays["means"], motion.positions) and arrays["sh"].shape == (COUNT, 9, 3)
    assert animation.save(tmp_path / "egg.mp4", resolution=64, fps=4).stat().st_size > 500


@pytest.mark.parametrize("suffix", [".fbx", ".usd", ".html"])
def test_formats_of_meshes_are_refused_before_anything_is_written(animation, tmp_path, suffix):
    with pytest.raises(
        ValueError, match=f"{suffix} is for meshes, and splats have no surface; save them as one of .4dgs"
    ):
        animation.save(tmp_path / f"egg{suffix}")
    with pytest.raises(ValueError, match="animations of splats are saved as one of"):
        animation.save(tmp_path / "egg.xyz")
    with pytest.raises(TypeError, match=r"SplatAnimation\.save: fps: not an option of \.npz"):
        animation.save(tmp_path / "egg.npz", fps=3)
    assert not list(tmp_path.iterdir())


def test_the_command_takes_splats(path, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        assert main([*map(str, arguments)])
        return capsys.readouterr().err

    stills = tmp_path / "stills"
    main([*map(str, ("stills", path, "--out", stills, "--resolution", 32))])
    assert len(list(stills.glob("view_*.png"))) == 4
    assert "splats have no surface" in refused("animate", path, "nods", "--out", tmp_path / "egg.fbx")
    for method in ("graph", "best"):
        assert "for a graph to move" in refused(
            "animate", path, "nods", "--method", method, "--out", tmp_path / "egg.4dgs"
        )
    missing = tmp_path / "nowhere.ply"
    assert f"{missing}: no such file" in refused("animate", missing, "nods", "--out", tmp_path / "egg.4dgs")
    assert not list(tmp_path.glob("egg*"))


# --- against the truth ----------------------------------------------------------------------------------


def true_motion(asset, times: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Displacements [T, N, 3] of the places of the surface that are nearest to points [N, 3] in frame 0."""
    truth = np.array([asset.positions(0, time) for time in times], np.float64)
    triangles = np.concatenate([part.triangles for part in asset.primitives])
    corners = truth[0][triangles]
    near = cKDTree(corners.mean(1)).query(means, 24)[1]
    places = closest_point(corners[near].reshape(-1, 3, 3), means.repeat(24, 0)).reshape(-1, 24, 3)
    best = np.linalg.norm(places - means[:, None], axis=-1).argmin(1)
    rows = np.arange(len(means))
    face = near[rows, best]
    shares = points_to_barycentric(corners[face], places[rows, best])
    moved = np.einsum("nk,tnkd->tnd", shares, truth[:, triangles[face]])
    return moved - moved[0]


@pytest.mark.slow
def test_splats_of_a_creature_follow_its_true_videos(tmp_path):
    """Against the surface of its own animation. docs/animate-experiments.md has the figure of 16 frames."""
    asset = load(creatures.build("fish", 19, ["nods"]), name="fish")
    times = np.linspace(0, asset.animations[0].duration, 9)[:-1]
    still = asset.pose(0, 0.0)
    low, high = still.positions.min(0), still.positions.max(0)
    views = orbit_cameras(
        np.radians([0, 90, 180, 270]), np.radians(15), 2.2 * float((high - low).max()),
        fov_y=np.radians(40), width=64, height=64,
    )  # fmt: skip
    placed = views.world_to_camera.copy()
    placed[:, :3, 3] -= placed[:, :3, :3] @ (low + high) / 2
    cameras = Cameras(placed, views.K, 64, 64)
    videos = render_clip(
        asset, Shot(0, times, np.eye(4), cameras), RenderSettings(samples=4), backend="cpu"
    ).frames

    surface = make_surface(asset, still)
    seen = make_views(videos / np.float32(255), cameras, surface.centre, surface.scale)
    problem = Problem(surface, make_graph(surface, 60), seen, calibrate(surface, seen), STIFFNESS["rendered"])
    discs = make_splats(problem, 1500, *targets(seen, 64), 0)
    unit = surface.scale / UNIT
    path = tmp_path / "fish.ply"
    ply.write(
        path,
        Gaussians(
            discs.means[None] * unit + torch.from_numpy(surface.centre).float(), discs.quats[None],
            discs.log_scales.exp()[None] * unit, discs.opacities[None], colors=discs.colors[None],
        ),
    )  # fmt: skip
    model = load_splats(path)
    expected = true_motion(asset, times, model.gaussians.means[0].double().numpy())

    def error(given: np.ndarray) -> float:
        settings = PaperSettings(steps_per_frame=40, last_steps=60, gaussians=1500)
        moved = fit_splats(model, given, cameras, times, settings=settings).motion.positions.astype(
            np.float64
        )
        apart = np.linalg.norm(moved - moved[0] - expected, axis=-1)[1:].mean()
        return float(apart / np.linalg.norm(expected, axis=-1)[1:].mean())

    assert error(videos) < 0.1
    assert error(videos[[1, 0, 3, 2]]) > 0.8  # control: other videos do not lead there
