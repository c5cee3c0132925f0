"""Every loss against hand-computed cases, scipy, or what it must be for rigid motions."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from zoo.dimo import losses
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.points import farthest_points
from zoo.metrics.trajectories import best_rotations


def _rigid(points: torch.Tensor, times: int, seed: int = 0) -> torch.Tensor:
    """Points [K, 3] turned and shifted at random, [1, T, K, 3] float64."""
    turns = torch.tensor(Rotation.random(times, random_state=seed).as_matrix())
    return (points @ turns.transpose(-1, -2) + torch.randn(times, 1, 3, dtype=torch.float64))[None]


def _cloud(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    points = torch.randn(count, 3, dtype=torch.float64)
    return points, torch.cdist(points, points).topk(5, largest=False).indices


def test_kl_by_hand():
    mu = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    log_var = torch.tensor([[0.0, 0.0], [0.0, math.log(2.0)]])
    assert losses.kl_divergence(mu, log_var).tolist() == pytest.approx([0.0, 0.5 * (6 - math.log(2))])
    grown = losses.kl_divergence(torch.linspace(0, 3, 7)[:, None], torch.zeros(7, 1))
    assert (grown.diff() > 0).all()


def test_arap_distances_by_hand():
    """Two points 1 apart, then 3 apart; canonical 1: |1 − 3| + |3 − 1| for each end, weights 1."""
    positions = torch.tensor([[[[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0], [0, 3.0, 0]]]], requires_grad=True)
    canonical, graph = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.tensor([[1], [0]])
    energy = losses.arap_distances(positions, canonical, graph, torch.ones(2))
    assert energy.tolist() == [8.0]


def test_arap_does_not_weigh_a_key_points_edge_to_itself():
    """As above; and with two neighbours at equal distance, of which one keeps its own: half of it."""
    positions = torch.tensor([[[[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0], [0, 3.0, 0]]]])
    canonical, radii = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.full((2,), 0.2)
    graph = torch.tensor([[0, 1], [1, 0]])  # rows of the motion graph begin with the key point itself
    assert losses.arap_distances(positions, canonical, graph, radii).tolist() == pytest.approx([8.0])
    assert losses.arap_distances(positions, canonical, graph[:, 1:], radii).tolist() == pytest.approx([8.0])
    canonical = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    positions = torch.stack([canonical, torch.tensor([[0.0, 0, 0], [3.0, 0, 0], [-1.0, 0, 0]])])[None]
    graph = torch.tensor([[0, 1, 2], [1, 1, 1], [2, 2, 2]])  # rows of the key point alone have no energy
    assert losses.arap_distances(positions, canonical, graph, torch.ones(3)).tolist() == pytest.approx([2.0])


@pytest.mark.parametrize("form", ["distances", "rotations"])
def test_arap_is_zero_for_rigid_motions_alone(form):
    points, graph = _cloud()
    radii = torch.ones(len(points), dtype=torch.float64)

    def energy(positions):
        if form == "distances":
            return losses.arap_distances(positions, points, graph, radii)
        return losses.arap_rotations(positions, graph)

    moving = _rigid(points, 4)
    assert energy(moving).item() == pytest.approx(0.0, abs=1e-9)
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 1] = 0.3
    moving[0, 2] = points @ shear.T
    assert energy(moving).item() > 0.1


@pytest.mark.parametrize("form", ["distances", "rotations"])
def test_arap_has_a_finite_gradient_where_points_coincide(form):
    positions = torch.zeros(1, 3, 4, 3, requires_grad=True)
    graph = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
    if form == "distances":
        energy = losses.arap_distances(positions, torch.zeros(4, 3), graph, torch.ones(4))
    else:
        energy = losses.arap_rotations(positions, graph)
    energy.sum().backward()
    assert torch.isfinite(positions.grad).all()


def test_arap_rotations_by_hand():
    """Edges x and y of length 1; later both are twice as long: two residuals of length 1."""
    first = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 1.0, 0]])
    positions = torch.stack([first, 2 * first])[None]
    graph = torch.tensor([[1, 2], [1, 1], [2, 2]])  # the others have but themselves
    assert losses.arap_rotations(positions, graph).item() == pytest.approx(2.0, abs=1e-5)


def test_best_rotations_are_scipys():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 6, 3))
    expected = Rotation.align_vectors(target, source)[0].as_matrix()
    assert np.allclose(best_rotations(torch.tensor(source), torch.tensor(target)), expected)


def test_chamfer_is_one_way_squared_and_summed():
    torch.manual_seed(0)
    points, guide = torch.randn(2, 9, 3), torch.randn(2, 15, 3)
    expected = [float((cKDTree(b).query(a)[0] ** 2).sum()) for a, b in zip(points, guide, strict=True)]
    assert losses.chamfer(points, guide).tolist() == pytest.approx(expected, rel=1e-5)
    assert losses.chamfer(guide[:, :4], guide).tolist() == pytest.approx([0.0, 0.0], abs=1e-10)
    assert losses.chamfer(guide, guide[:, :4]).sum() > 1  # the control: the other way it is not 0


def test_ssim_is_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 24, 20, 3))
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets**2) / 4.5)
    window /= window.sum()

    def blur(image):
        for axis in (0, 1):
            image = correlate1d(image, window, axis=axis)
        return image[5:-5, 5:-5]

    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    top = (2 * ma * mb + 0.01**2) * (2 * vab + 0.03**2)
    expected = (top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))).mean()
    measured = losses.ssim(torch.tensor(a)[None], torch.tensor(b)[None])
    assert measured.tolist() == pytest.approx([expected], abs=1e-9)
    assert losses.ssim(torch.tensor(a), torch.tensor(a)).item() == pytest.approx(1.0)


def test_depth_may_jump_only_where_the_colour_does():
    depth = torch.zeros(4, 4, 1)
    depth[:, 2:] = 1.0
    image = depth.expand(4, 4, 3)
    flat = torch.zeros(4, 4, 3)
    assert losses.depth_smoothness(depth, flat).item() == pytest.approx(1 / 3)  # one of three steps in x
    assert losses.depth_smoothness(depth, image).item() == pytest.approx(math.exp(-1) / 3)


def test_normals_may_turn_only_where_the_colour_changes():
    normal = torch.tensor([0.0, 0.0, 1.0]).repeat(3, 3, 1)
    assert losses.normal_smoothness(normal, torch.zeros(3, 3, 3)).item() == pytest.approx(2.0)
    normal[:, 1:] = torch.tensor([0.0, 1.0, 0.0])
    # In x: half the steps change two channels of three by 1.
    turned = 1 + (1 * (2 / 3 * math.sqrt(2) + 1 / 3) + 1) / 2
    assert losses.normal_smoothness(normal, torch.zeros(3, 3, 3)).item() == pytest.approx(turned)


@pytest.mark.slow  # building the network takes longer than all else here
def test_lpips_is_refused_with_a_sentence_where_its_weights_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _no_network)
    losses.lpips_network.cache_clear()
    with pytest.raises(RuntimeError, match="publishes as vgg16"):
        losses.lpips(torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64, 3))


def _no_network(*args: object, **kwargs: object):
    raise OSError("no network")


def test_farthest_points_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    chosen = [0]
    while len(chosen) < 6:
        gaps = [min(np.linalg.norm(p - points[c]) for c in chosen) for p in points]
        chosen.append(int(np.argmax(gaps)))
    assert farthest_points(torch.tensor(points), 6).tolist() == chosen
    assert farthest_points(torch.tensor(points), 30).tolist() == list(range(20))
    # The control: the mirrored index set of the published code is another, and less spread.
    mirrored = [-i - 1 for i in chosen]
    assert set(np.arange(20)[mirrored]) != set(chosen)


def test_rows_and_their_moments_stay_together():
    """A row kept by its index goes on exactly as if the others had never been dropped."""
    torch.manual_seed(0)
    start, slopes = torch.randn(20, 3), torch.randn(4, 20, 3)
    rows = farthest_points(start, 6)
    whole, cut = (torch.nn.Parameter(start.clone()) for _ in range(2))
    adams = [NamedAdam({"points": [p]}) for p in (whole, cut)]
    for step in range(4):
        whole.grad, cut.grad = slopes[step].clone(), slopes[step][rows if step > 1 else slice(None)].clone()
        for adam in adams:
            adam.step({"points": 0.1})
        if step == 1:
            cut = adams[1].select("points", rows)
    assert torch.equal(cut, whole[rows])
    grown = adams[1].append("points", torch.ones(2, 3))
    assert torch.equal(grown[-2:], torch.ones(2, 3)) and torch.equal(grown[:6], whole[rows])
    assert adams[1].state()["points.0.exp_avg"][6:].abs().sum() == 0
