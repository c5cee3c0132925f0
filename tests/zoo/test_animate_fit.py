"""The graph solver of `zoo.animate3d`: its terms, its derivatives, and the motion that it recovers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_info, threadpool_limits

from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gltf import Asset, Pose, load
from renderers.meshes import RenderSettings, Shot, render_clip
from zoo.animate3d import kernels
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.fit_report import FitReport
from zoo.animate3d.fitting import _MENDED, Fit, Progress, _poses, fit
from zoo.animate3d.graph import GraphPose, make_graph, move_points, still_pose
from zoo.animate3d.limbs import articulated_step, basis, find_limbs, in_order, swing, swing_limbs
from zoo.animate3d.limits import FIT_VERSIONS
from zoo.animate3d.mending import Pass, mend, polish
from zoo.animate3d.solver import STIFFNESS, Problem, Stage, descend
from zoo.animate3d.surface import LONGEST_EDGE, make_surface
from zoo.animate3d.tracking import COARSE, FINE, LIMBS, Fitted, Search, middle
from zoo.animate3d.views import Views, make_views

RECORDED = Path(__file__).with_name("animate_fit.json")  # displacements of nodes, as shares of the diagonal
WHOLE = Stage(1.0, 1, 1, 1.0)

FRAMES, SIDE = 4, 64


class Case:
    """A creature, a few frames of its motion rendered from four sides, and a small problem."""

    def __init__(self, species: str = "kangaroo", motion: str = "waves-its-right-paw-then-bows") -> None:
        self.asset: Asset = load(creatures.build(species, 18, [motion]), name=species)
        self.times = np.arange(FRAMES) / 24 * 3
        self.still: Pose = self.asset.pose(0, 0.0)
        self.truth = np.array([self.asset.positions(0, time) for time in self.times], np.float64)
        low, high = self.still.positions.min(0), self.still.positions.max(0)
        extent = float((high - low).max())
        views = orbit_cameras(
            np.radians([0, 90, 180, 270]),
            np.radians(15),
            3 * extent,
            fov_y=np.radians(40),
            width=SIDE,
            height=SIDE,
        )
        world_to_camera = views.world_to_camera.copy()
        world_to_camera[:, :3, 3] -= world_to_camera[:, :3, :3] @ (low + high) / 2
        self.cameras = Cameras(world_to_camera, views.K, SIDE, SIDE)
        shot = Shot(0, self.times, np.eye(4), self.cameras)
        self.videos = render_clip(self.asset, shot, RenderSettings(samples=4), backend="cpu").frames

    def fit(self, videos: np.ndarray | None = None, views: list[int] | None = None, **options: object) -> Fit:
        views = [0, 1, 2, 3] if views is None else views
        videos = self.videos[views] if videos is None else videos
        return fit(self.asset, videos, self.cameras[views], self.times, still=self.still, nodes=60, **options)  # type: ignore[arg-type]

    def error(self, result: Fit) -> float:
        """Mean distance to the truth as a share of the mean distance that the truth moves."""
        moved = result.motion.move(self.still.positions.astype(np.float64))
        error = np.linalg.norm(moved - self.truth, axis=-1)[1:].mean()
        return float(error / np.linalg.norm(self.truth[:1] - self.truth, axis=-1)[1:].mean())


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(scope="module")
def problem(case: Case) -> Problem:
    surface = make_surface(case.asset, case.still)
    views = make_views(case.videos / np.float32(255), case.cameras, surface.centre, surface.scale)
    graph = make_graph(surface, 40)
    return Problem(surface, graph, views, calibrate(surface, views), STIFFNESS["rendered"])


@pytest.fixture(scope="module")
def fitted(case: Case) -> Fit:
    return case.fit()


def random_pose(problem: Problem, size: float) -> GraphPose:
    rng = np.random.default_rng(0)
    return still_pose(problem.graph).stepped(rng.normal(scale=size, size=(len(problem.graph.centres), 6)))


def test_the_surface_is_the_asset_with_short_edges(case, problem):
    surface = problem.surface
    unit = (case.still.positions - surface.centre) / surface.scale
    assert np.abs(surface.points[surface.vertices] - unit).max() < 2e-5
    assert np.ptp(surface.points, axis=0).max() == pytest.approx(1, abs=1e-5)
    edges = surface.points[surface.faces] - surface.points[np.roll(surface.faces, 1, 1)]
    assert np.linalg.norm(edges, axis=-1).max() <= LONGEST_EDGE * 1.001
    triangles = np.concatenate([part.triangles for part in case.asset.primitives])
    areas = []
    for points, faces in ((unit, triangles), (surface.points, surface.faces)):
        a, b, c = (points[faces[:, i]] for i in range(3))
        areas.append(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    assert areas[1] == pytest.approx(areas[0], rel=1e-4)


def test_weights_sum_to_one_and_the_still_pose_moves_nothing(problem):
    points, turn = move_points(
        problem.matrix, problem.graph, still_pose(problem.graph), problem.surface.points
    )
    assert np.allclose(problem.graph.point_weights.sum(1), 1)
    assert np.abs(points - problem.surface.points).max() < 1e-12 and np.allclose(turn, np.eye(3))


def test_the_energy_is_zero_for_rigid_motion_and_positive_for_shear_bending_and_stretch(problem):
    centres = problem.graph.centres
    R = Rotation.from_euler("xyz", [0.7, -0.4, 1.1]).as_matrix()
    turned = np.tile(R, (len(centres), 1, 1))
    assert problem.graph_energy(GraphPose(turned, centres @ R.T + [0.1, 0.2, -0.3]), WHOLE) < 1e-18
    still = np.tile(np.eye(3), (len(centres), 1, 1))
    shear = np.eye(3) + 0.1 * np.outer([1, 0, 0], [0, 1, 0])
    assert problem.graph_energy(GraphPose(still, centres @ shear.T), WHOLE) > 0.1
    assert problem.graph_energy(GraphPose(still, 1.1 * centres), WHOLE) > 0.1
    half = np.where((centres[:, 1] > 0)[:, None, None], Rotation.from_rotvec([0.5, 0, 0]).as_matrix(), still)
    bent = np.einsum("kij,kj->ki", half, centres)
    assert problem.graph_energy(GraphPose(half, bent), WHOLE) > 0.1


def test_stretch_is_not_robust_and_bending_and_loose_edges_are(problem):
    """Doubling a large stretch costs four times as much; doubling a large sideways shift less than three times."""
    graph = problem.graph
    first = int(np.argmin(graph.loose))
    k, l = graph.edges[first]
    line = graph.centres[l] - graph.centres[k]
    side = np.cross(line, [0.3, 0.5, 0.8])
    one = replace(
        graph, edges=graph.edges[first:][:1], stiffness=graph.stiffness[first:][:1], loose=np.array([False])
    )
    single = Problem(problem.surface, one, problem.views, problem.appearance, problem.stiffness)

    def energy(direction: np.ndarray, length: float) -> float:
        pose = still_pose(one)
        pose.positions[l] += length * direction / np.linalg.norm(direction)
        return single.graph_energy(pose, WHOLE)

    assert energy(line, 0.8) / energy(line, 0.4) == pytest.approx(4, rel=1e-6)
    assert energy(side, 0.8) / energy(side, 0.4) < 3
    single.graph = replace(one, loose=np.array([True]))
    assert energy(line, 0.8) / energy(line, 0.4) < 1.2  # a loose edge lets go


def test_the_normal_equations_of_the_graph_agree_with_finite_differences(problem):
    pose, K = random_pose(problem, 0.004), len(problem.graph.centres)
    H, g = np.zeros((6 * K, 6 * K)), np.zeros(6 * K)
    problem.graph_energy(pose, WHOLE, H, g)
    full = np.triu(H) + np.triu(H, 1).T
    assert np.linalg.eigvalsh(full).min() > -1e-6 * np.abs(full).max()
    rng = np.random.default_rng(1)
    for _ in range(5):
        direction = rng.normal(size=(K, 6))
        h = 1e-5
        numeric = (
            problem.graph_energy(pose.stepped(h * direction), WHOLE)
            - problem.graph_energy(pose.stepped(-h * direction), WHOLE)
        ) / (2 * h)
        assert numeric == pytest.approx(-2 * g @ direction.ravel(), rel=0.05)


def test_node_terms_are_the_jacobian_transposed_times_the_terms_of_the_points(problem):
    """`gather` against J^T M J and J^T m with the Jacobian of `move_points` by finite differences."""
    surface, graph, pose = problem.surface, problem.graph, random_pose(problem, 0.1)
    n, K = len(surface.points), len(graph.centres)
    rng = np.random.default_rng(2)
    M, m, chosen = np.zeros((n, 6)), np.zeros((n, 3)), rng.choice(n, 20, replace=False)
    blocks = rng.normal(size=(20, 3, 3))
    blocks = blocks @ blocks.swapaxes(1, 2)
    M[chosen] = blocks[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    m[chosen] = rng.normal(size=(20, 3))
    H, g = np.zeros((6 * K, 6 * K)), np.zeros(6 * K)
    kernels.gather(
        M, m, graph.point_nodes, graph.point_weights, surface.points, graph.centres, pose.rotations, H, g
    )
    J = np.zeros((20, 3, 6 * K))
    for column in range(6 * K):
        step = np.zeros(6 * K)
        step[column] = 1e-5
        ends = [
            move_points(problem.matrix, graph, pose.stepped(sign * step.reshape(K, 6)), surface.points)[0][
                chosen
            ]
            for sign in (1, -1)
        ]
        J[:, :, column] = (ends[0] - ends[1]) / 2e-5
    assert np.abs(g - np.einsum("pic,pi->c", J, m[chosen])).max() < 1e-6
    expected = np.einsum("pic,pij,pjd->cd", J, blocks, J)
    assert np.abs(np.triu(H) - np.triu(expected)).max() < 1e-6


def test_the_image_terms_point_downhill(problem):
    """A short step along the image terms' own gradient lowers the cost at about the predicted rate."""
    pose, stage, K = still_pose(problem.graph), Stage(2.0, 1, 1, 1.0), len(problem.graph.centres)
    terms = problem.image_terms(pose, problem.level(stage), FRAMES - 1)
    H, g = np.zeros((6 * K, 6 * K)), np.zeros(6 * K)
    surface, graph = problem.surface, problem.graph
    kernels.gather(
        terms.M,
        terms.m,
        graph.point_nodes,
        graph.point_weights,
        surface.points,
        graph.centres,
        pose.rotations,
        H,
        g,
    )
    step = (0.005 * g / np.abs(g).max()).reshape(K, 6)
    costs = [problem.image_cost(pose.stepped(s * step), problem.level(stage), FRAMES - 1) for s in (-1, 1)]
    assert (costs[1] - costs[0]) / 2 == pytest.approx(-2 * float(g @ step.ravel()), rel=0.4)


def test_a_swing_turns_a_limb_rigidly_and_leaves_the_rest(problem):
    pose = still_pose(problem.graph)
    for limb in in_order(find_limbs(problem.graph)):
        swung = swing(pose, limb, np.array([0.3, -0.9, 0.4]))
        rest, rigid = limb.share == 0, limb.share == 1
        assert rest.any() and rigid[limb.tip]
        assert np.array_equal(swung.positions[rest], pose.positions[rest])
        lengths = [np.linalg.norm(p[rigid] - p[limb.tip], axis=1) for p in (swung.positions, pose.positions)]
        assert np.allclose(*lengths, atol=1e-12)
        joint = pose.positions[limb.joint].mean(0)
        before, after = (np.linalg.norm(each.positions[limb.tip] - joint) for each in (pose, swung))
        assert after == pytest.approx(before, abs=1e-12)
        assert np.linalg.norm(swung.positions[limb.tip] - pose.positions[limb.tip]) > 0.02


def test_extremities_are_limbs(problem):
    """The tips of ears, tail, paws and feet: the lowest, the rearmost and the outermost node are in some limb."""
    graph = problem.graph
    groups = find_limbs(graph)
    tips = graph.centres[[group[0].tip for group in groups]]
    assert 4 <= len(groups) <= 12
    for node in (graph.centres[:, 1].argmin(), graph.centres[:, 2].argmin(), graph.centres[:, 1].argmax()):
        assert np.linalg.norm(tips - graph.centres[node], axis=1).min() < 2 * graph.spacing


def test_steps_of_limbs_agree_with_finite_differences(problem):
    pose, limbs = random_pose(problem, 0.05), in_order(find_limbs(problem.graph))
    columns = basis(pose, limbs)
    for column in np.random.default_rng(3).choice(columns.shape[1], 8, replace=False):
        step = np.zeros(columns.shape[1])
        step[column] = 1e-5
        moved = [articulated_step(pose, limbs, sign * step) for sign in (1, -1)]
        numeric = (moved[0].positions - moved[1].positions) / 2e-5
        turned = (
            Rotation.from_matrix(moved[0].rotations @ moved[1].rotations.swapaxes(1, 2)).as_rotvec() / 2e-5
        )
        expected = columns[:, column].reshape(-1, 6)
        assert np.abs(numeric - expected[:, 3:]).max() < 1e-6
        assert np.abs(turned - expected[:, :3]).max() < 1e-6


def test_a_limb_that_moved_far_is_found(problem):
    """The target is the model with its longest limb swung by 110 degrees, which descent alone does not reach."""
    groups, still = find_limbs(problem.graph), still_pose(problem.graph)
    limb = max(
        (limb for group in groups for limb in group),
        key=lambda limb: np.linalg.norm(still.positions[limb.tip] - still.positions[limb.joint].mean(0)),
    )
    arm = still.positions[limb.tip] - still.positions[limb.joint].mean(0)
    axis = np.cross(arm, [0.3, 0.2, 0.9])
    target = swing(still, limb, np.radians(110) * axis / np.linalg.norm(axis))
    canvas, _ = problem.draw(target, problem.views.level(1.0, 1))
    views = Views(np.stack([canvas.image] * 2), problem.views.extrinsics, problem.views.intrinsics)
    other = Problem(problem.surface, problem.graph, views, problem.appearance, problem.stiffness)

    def missed(pose: GraphPose) -> float:
        return float(np.linalg.norm(pose.positions[limb.tip] - target.positions[limb.tip]))

    plain, _ = descend(other, still, COARSE[0], 1)
    found, energy = swing_limbs(other, groups, still, other.energy(still, LIMBS[0], 1), LIMBS[0], 1)
    assert energy < 0.5 * other.energy(still, LIMBS[0], 1)
    assert missed(plain) > 0.5 * missed(still)
    assert missed(found) < 0.25 * missed(still)


class Line:
    """A problem whose poses are places of a node on a line, which are their energies, and a way down from each."""

    stiffness = STIFFNESS["rendered"]

    def __init__(self, monkeypatch: pytest.MonkeyPatch, down: Callable[[float, Stage], float]) -> None:
        def descend(problem: Line, pose: GraphPose, stage: Stage, frame: int) -> tuple[GraphPose, float]:
            place = down(self.energy(pose), stage)
            return self.at(place), place

        monkeypatch.setattr("zoo.animate3d.tracking.descend", descend)
        monkeypatch.setattr(
            "zoo.animate3d.tracking.descend_limbs", lambda one, limbs, *rest: descend(one, *rest)
        )

    def at(self, place: float) -> GraphPose:
        return GraphPose(np.eye(3)[None], np.full((1, 3), place))

    def energy(self, pose: GraphPose, *_: object) -> float:
        return float(pose.positions[0, 0])

    def best_from(self, *places: float) -> float:
        search = Search(self, [], missed=100.0, bad=100.0)  # type: ignore[arg-type]
        return search.fit_frame(1, [self.at(place) for place in places]).energy


def test_a_start_whose_energy_falls_late_is_not_left_out(monkeypatch):
    line = Line(monkeypatch, lambda place, stage: 0.5 if place > 5 else place)
    assert line.best_from(1.0, 9.0, 2.0, 3.0) == 0.5


def test_a_start_that_coarse_stages_lead_away_is_not_lost(monkeypatch):
    line = Line(monkeypatch, lambda place, stage: place if stage in FINE else 4.0)
    assert line.best_from(3.0, 0.5, 2.0) == 0.5


def test_the_pose_between_two_is_half_way(problem):
    first = still_pose(problem.graph)
    step = np.random.default_rng(4).normal(scale=0.3, size=(len(first.positions), 6))
    half = middle(first, first.stepped(step))
    expected = first.stepped(step / 2)
    assert np.allclose(half.positions, expected.positions) and np.allclose(half.rotations, expected.rotations)


def test_polishing_brings_a_pose_back_to_what_the_videos_show(problem):
    views = replace(problem.views, frames=problem.views.frames[[0, 0]], _levels={})
    twice = replace(problem, views=views, _canvases={})
    still = still_pose(problem.graph)
    beside = GraphPose(still.rotations, still.positions + [0.03, -0.02, 0.02])  # 0.7 pixels
    first, found = polish(twice, [still, beside])
    assert first is still

    def apart(pose: GraphPose) -> float:
        moved = move_points(twice.matrix, twice.graph, pose, twice.surface.points)[0]
        return float(np.linalg.norm(moved - twice.surface.points, axis=1).mean())

    assert apart(found) < 0.5 * apart(beside)


def test_each_frame_is_of_the_motion_with_the_lower_energy(case, monkeypatch):
    """Videos without motion, and two motions that are still in some frames only."""
    still = np.repeat(case.videos[:, :1], FRAMES, 1)
    graph, paper = [0, 0, 1, 1], [0, 1, 0, 1]  # how far each is from the truth, in steps

    def moved(steps: list[int]):
        def track(problem: Problem, progress: Progress | None, *_: object) -> list[GraphPose]:
            progress and progress(FRAMES, FRAMES)
            pose = still_pose(problem.graph)
            return [replace(pose, positions=pose.positions + 0.02 * step) for step in steps]

        return track

    monkeypatch.setattr("zoo.animate3d.fitting.track", moved(graph))
    monkeypatch.setattr("zoo.animate3d.paper.track_field", moved(paper))
    monkeypatch.setattr("zoo.animate3d.fitting.polish", lambda problem, poses, *_: poses)
    monkeypatch.setitem(_MENDED, "graph", (1.0, 0))  # frames are not fitted again
    monkeypatch.setitem(_MENDED, "best", (1.0, 0))
    done: list[tuple[int, int]] = []
    result = case.fit(still, method="best", progress=lambda *step: done.append(step))
    assert result.methods == ("graph", "graph", "paper", "graph")
    shifts = np.linalg.norm(result.motion.positions - result.motion.nodes, axis=-1).max(1)
    assert np.allclose(shifts[:3], 0) and shifts[3] > 0
    assert done == [
        (0, FRAMES),
        (1, FRAMES),
        (2, FRAMES),
        (FRAMES, FRAMES),
    ]  # tracked, mended, by `paper`, at the end
    assert case.fit(still, method="paper").methods == ("paper",) * FRAMES

    about = FitReport(
        videos=SimpleNamespace(times=case.times), cameras=None, alignment=None,
        agreement=SimpleNamespace(sentence=str), fit=result, sentence=None, video_model=None,
    )  # fmt: skip
    assert about.sentences()[-1] == "method paper found 1 of 4 frames, graph the others"


@pytest.mark.parametrize(
    ("method", "stiffness"), [("best", "rendered"), ("best", "generated"), ("graph", "rendered")]
)
def test_what_the_methods_find_is_polished(case, problem, method, stiffness, monkeypatch):
    """Videos without motion, and two motions that are off by 0.02 of the model's size."""

    def track(problem: Problem, progress: Progress | None, *_: object) -> list[GraphPose]:
        pose = still_pose(problem.graph)
        return [pose] + [replace(pose, positions=pose.positions + 0.02)] * (FRAMES - 1)

    monkeypatch.setattr("zoo.animate3d.fitting.track", track)
    monkeypatch.setattr("zoo.animate3d.paper.track_field", track)
    monkeypatch.setitem(_MENDED, method, (1.0, 0))
    monkeypatch.setitem(_MENDED, "graph", (1.0, 0))
    still = np.repeat(case.videos[:, :1], FRAMES, 1)
    motion = case.fit(still, method=method, stiffness=stiffness).motion
    assert np.abs(motion.positions - motion.nodes).mean() < 0.25 * 0.02 * problem.surface.scale


@pytest.mark.parametrize(
    ("method", "stiffness"), [("graph", "rendered"), ("graph", "generated"), ("best", "rendered")]
)
def test_progress_ends_with_the_fit(problem, method, stiffness, monkeypatch):
    """It ends once, after the last frame is polished and mended, and goes on while this happens."""
    events: list[object] = []

    def noted(name: str) -> None:
        step = getattr(Pass, name) if name == "visit" else polish

        def run(*arguments: object) -> object:
            events.append(name)
            return step(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(
            "zoo.animate3d.mending.Pass.visit" if name == "visit" else "zoo.animate3d.fitting.polish", run
        )

    noted("visit")
    noted("polish")

    def track(problem: Problem, progress: Progress | None, *_: object) -> list[GraphPose]:
        for frame in range(1, FRAMES):
            progress and progress(frame + 1, FRAMES)
        return [still_pose(problem.graph)] * FRAMES

    monkeypatch.setattr("zoo.animate3d.fitting.track", track)
    monkeypatch.setattr("zoo.animate3d.paper.track_field", track)
    monkeypatch.setitem(_MENDED, "graph", (10.0, 2))  # no frame is so bad
    monkeypatch.setitem(_MENDED, "best", (10.0, 2))
    other = replace(problem, stiffness=STIFFNESS[stiffness], _canvases={})
    _poses(other, method, None, None, lambda *step: events.append(step))
    steps = [event for event in events if isinstance(event, tuple)]
    assert events[-1] == (FRAMES, FRAMES) and steps.count((FRAMES, FRAMES)) == 1
    assert steps == sorted(steps) and {total for _, total in steps} == {FRAMES}
    if stiffness == "rendered":
        last = len(events) - 1 - events[::-1].index("polish")
        assert any(isinstance(event, tuple) and event[0] > 2 for event in events[last:-1]), (
            "mended in silence"
        )


def test_a_lost_frame_is_found_again_from_those_beside_it(problem, monkeypatch):
    """The model's longest limb is swung by 80 degrees in both frames; the first of them lost it."""
    monkeypatch.setitem(_MENDED, "graph", (0.05, 1))
    limb = max(in_order(find_limbs(problem.graph)), key=lambda limb: float(limb.share.sum()))
    still = still_pose(problem.graph)
    target = swing(still, limb, np.radians(80) * np.array([0.6, 0.0, 0.8]))
    image = problem.draw(target, problem.views.level(1.0, 1))[0].image.copy()
    frames = np.stack([problem.views.frames[0], image, image])
    other = replace(problem, views=replace(problem.views, frames=frames, _levels={}), _canvases={})
    monkeypatch.setattr("zoo.animate3d.fitting.track", lambda *_: [still, still, target])
    monkeypatch.setattr("zoo.animate3d.fitting.polish", lambda problem, poses, *_: poses)
    poses = _poses(other, "graph", None, None, None)[0]
    assert poses[0] is still
    lost, left = (np.abs(pose.positions - target.positions).mean() for pose in (still, poses[1]))
    assert left < 0.1 * lost
    stiff = replace(other, stiffness=STIFFNESS["generated"], _canvases={})
    assert mend(stiff, [[still, still, target]], 0.03, 1)[0][1] is still  # views of generated videos disagree


@pytest.mark.parametrize(("rises", "taken"), [([2, 2, 2, -7, -1], [2, 3, 4, 5, 6]), ([2, 2, 2, -5, 0], [])])
def test_a_branch_is_taken_when_the_sum_of_its_energies_is_lower(monkeypatch, rises, taken):
    """Energies are 10, of another place of the only node by a rise more; fits stay where they begin, but in frame 2."""

    def placed(x: float) -> GraphPose:
        return GraphPose(np.eye(3)[None], np.array([[x, 0.0, 0.0]]))

    def energy(pose: GraphPose, stage: Stage, frame: int) -> float:
        return 10.0 + (rises[frame - 2] if pose.positions[0, 0] > 0.5 and frame > 1 else 0)

    def best(self: Pass, candidates: list[GraphPose], frame: int, ways: object) -> Fitted:
        along = len(candidates) == 2 and frame > 1
        pose = placed(1.0) if along and (frame == 2 or candidates[0].positions[0, 0] > 0.5) else placed(0.0)
        return Fitted(pose, energy(pose, WHOLE, frame))

    monkeypatch.setattr(Pass, "_best", best)
    monkeypatch.setattr("zoo.animate3d.mending._PATIENCE", 1.0)
    poses = [placed(0.0) for _ in range(7)]
    problem = SimpleNamespace(anchor=None, energy=energy)
    forwards = Pass(problem, [], 1.0, poses, range(1, 7), set(range(7)))  # type: ignore[arg-type]
    for frame in forwards.order:
        forwards.visit(frame)
    assert sorted(forwards.improved) == taken
    assert [frame for frame, pose in enumerate(poses) if pose.positions[0, 0] > 0.5] == taken


def test_calibration_makes_the_still_model_look_like_frame_0(problem):
    level = problem.views.level(1.0, 1)
    first, last = (problem.image_cost(still_pose(problem.graph), level, frame) for frame in (0, FRAMES - 1))
    assert first < 0.02 * last


def test_frame_0_is_the_still_model_and_the_motion_is_recovered(case, fitted):
    moved = fitted.motion.move(case.still.positions.astype(np.float64))
    assert np.abs(moved[0] - case.still.positions).max() < 1e-12 * np.ptp(case.still.positions)
    assert case.error(fitted) < 0.3
    assert np.array_equal(fitted.motion.times, case.times)
    assert fitted.residual[1:].max() < 0.5 and fitted.residual.shape == fitted.doubtful.shape == (FRAMES,)


@pytest.mark.parametrize("stiffness", list(FIT_VERSIONS))
def test_another_motion_of_the_same_videos_has_another_version(case, fitted, stiffness):
    """A tenth more resistance to bending moves nodes by 4e-4 of the diagonal or more, noise of 1e-6 by 2e-7."""
    motion = (fitted if stiffness == "rendered" else case.fit(stiffness=stiffness)).motion
    found = (motion.positions[-1] - motion.nodes) / np.linalg.norm(np.ptp(case.still.positions, axis=0))
    now = json.dumps({"version": FIT_VERSIONS[stiffness], "displacements": found[::4].round(4).tolist()})
    recorded = json.loads(RECORDED.read_text())[stiffness]
    assert recorded["version"] == FIT_VERSIONS[stiffness], f"write to {RECORDED.name}: {now}"
    apart = np.linalg.norm(found[::4] - recorded["displacements"], axis=1).mean()
    assert apart < 2e-4, f"raise FIT_VERSIONS[{stiffness!r}], and write to {RECORDED.name}: {now}"


def test_the_wrong_order_of_cameras_fails_and_is_reported(case, fitted):
    wrong = case.fit(videos=case.videos[[1, 0, 3, 2]])
    assert case.error(wrong) > 3 * case.error(fitted) and case.error(wrong) > 0.8
    assert (
        wrong.residual.mean() > 2 * fitted.residual.mean()
        and wrong.doubtful[1:].any()
        and not wrong.doubtful[0]
    )


def test_one_view_gives_a_finite_motion_better_than_none(case):
    result = case.fit(views=[0])
    assert np.isfinite(result.motion.positions).all() and result.motion.positions.shape[0] == FRAMES
    assert case.error(result) < 1


def test_videos_without_motion_give_none(case):
    """The mean vertex moves less than a quarter of a pixel, of which the model is 29 high."""
    result = case.fit(videos=np.repeat(case.videos[:, :1], FRAMES, 1))
    moved = result.motion.move(case.still.positions.astype(np.float64))
    extent = np.ptp(case.still.positions, axis=0).max()
    assert np.linalg.norm(moved - moved[0], axis=-1).mean() < 0.25 / 29 * extent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": np.zeros((4, FRAMES, SIDE, SIDE, 3), np.uint8)}, "expected uint8 or float"),
        ({"videos": np.zeros((3, FRAMES, SIDE, SIDE, 4), np.uint8)}, "one per camera"),
        ({"videos": np.full((4, FRAMES, SIDE, SIDE, 4), np.nan, np.float32)}, "finite values"),
        ({"stiffness": "soft"}, "expected one of rendered, generated"),
    ],
)
def test_wrong_arguments_are_refused(case, change, message):
    with pytest.raises(ValueError, match=message):
        case.fit(**change)


def test_blas_has_one_thread_during_a_fit_and_as_many_as_before_after_it(case: Case) -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    during: list[list[int]] = []
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        fit(
            case.asset, case.videos[:1, :2], case.cameras[[0]], case.times[:2], still=case.still, nodes=8,
            progress=lambda done, total: during.append(threads()),
        )  # fmt: skip
        after = threads()
    assert before and set(before) == {2}
    assert during and all(each == [1] * len(before) for each in during)
    assert after == before
