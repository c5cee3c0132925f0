"""ActionBench's distances on its published definition: hand-computed cases, alignments, and the order of its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from zoo import metrics
from zoo.metrics.actionbench import Alignment, _Nearest, axis_rotations

SAME = Alignment(torch.ones(3), torch.eye(3), torch.zeros(3), 0.0)


def cloud(count: int = 60, seed: int = 0) -> torch.Tensor:
    """Points in a box of three different sides."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5])


def test_chamfer_distances_by_hand():
    """Points 0 and 10 against 1, 10 and 14 on a line: to the target 1, 0; from it 1, 0, 4. Sums of means: ½ + 5/3."""
    a, b = torch.zeros(2, 3), torch.zeros(3, 3)
    a[:, 0], b[:, 0] = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 10.0, 14.0])
    assert metrics.chamfer_distance(a, b) == pytest.approx(1 / 2 + 5 / 3)
    # Not squared: twice the size is twice the distance.
    assert metrics.chamfer_distance(2 * a, 2 * b) == pytest.approx(2 * (1 / 2 + 5 / 3))
    frames, target = torch.stack([a, a]), torch.stack([b, b + torch.tensor([0.0, 3.0, 0.0])])
    second = (10**0.5 + 3) / 2 + (10**0.5 + 3 + 5) / 3
    value = metrics.chamfer_4d(frames, target, SAME)
    assert value == pytest.approx((1 / 2 + 5 / 3 + second) / 2)


def test_motion_distances_by_hand():
    """Points are matched in the first frame: there, both of the target are nearest to the one prediction at 0."""
    target = torch.zeros(2, 2, 3)
    target[0, :, 0] = torch.tensor([1.0, 2.0])
    target[1, :, 0] = torch.tensor([1.0, 6.0])
    predicted = torch.zeros(2, 1, 3)
    # To the prediction: (1 + 1) / 2 and (2 + 6) / 2. From it, its match is the first point: (1 + 1) / 2.
    assert metrics.motion_chamfer(predicted, target, SAME) == pytest.approx((1 + 4) / 2 + 1)
    # CD-4D matches anew in every frame and cannot see that two points were exchanged; CD-M can.
    swapped = target.clone()
    swapped[1] = target[1].flip(0)
    assert metrics.chamfer_4d(swapped, target, SAME) == 0
    assert metrics.motion_chamfer(swapped, target, SAME) == pytest.approx(2 * 5 / 2)
    assert metrics.motion_chamfer(target, target, SAME) == 0


def test_the_alignment_starts_from_the_published_rotations():
    """scipy's rotations of the published angles: azimuth, elevation and roll about x, y and z."""
    azimuths = [0] * 4 + [90] * 4 + [180] * 4 + [270] * 4 + [0] * 4 + [90] * 4
    elevations = [0] * 16 + [90] * 2 + [-90] * 2 + [90] * 2 + [-90] * 2
    rolls = [0, 90, 180, 270] * 4 + [0, 90] * 4
    angles = np.stack([azimuths, elevations, rolls], 1)
    expected = Rotation.from_euler("XYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(axis_rotations(), expected, atol=1e-6)


def test_the_alignment_of_the_truth_is_the_identity():
    found = metrics.align(cloud(), cloud(), iterations=3)
    assert found.loss == 0
    assert torch.equal(found.apply(cloud()), cloud())


def test_turned_scaled_and_shifted_points_are_aligned():
    """A quarter turn and more, which no single descent finds, other axis scales, and a shift."""
    points = cloud(100)
    turn = torch.tensor(Rotation.from_euler("XYZ", [95, 5, -4], degrees=True).as_matrix()).float()
    moved = (points * torch.tensor([1.1, 0.95, 1.05])) @ turn + torch.tensor([0.1, -0.2, 0.05])
    found = metrics.align(moved, points, iterations=80)
    assert (found.apply(moved) - points).norm(dim=-1).mean() < 0.03
    assert metrics.chamfer_distance(moved, points) > 0.3


def test_each_frame_is_aligned_for_cd3d_and_the_first_for_cd4d():
    """A truth that stands still, predicted as one that drifts away: CD-3D forgives it, CD-4D and CD-M do not."""
    target = cloud(50).expand(3, -1, -1)
    predicted = target + torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    three = metrics.chamfer_3d(predicted, target, iterations=30)
    four = metrics.chamfer_4d(predicted, target, iterations=3)
    motion = metrics.motion_chamfer(predicted, target, iterations=3)
    assert three < 0.06 < four < motion
    # The mean of the shifts, both directions.
    assert motion == pytest.approx(2 * 3**0.5 * 0.1, abs=1e-3)
    alignment = metrics.align_first(predicted, target, iterations=3)
    assert metrics.chamfer_4d(predicted, target, alignment) == pytest.approx(four)
    few = metrics.align_first(predicted, target, icp_points=20, iterations=1)
    assert few.loss == 0  # the same points of both clouds


def test_brute_force_and_the_tree_find_the_same_points():
    """The first is used on a GPU, in chunks."""
    tree = _Nearest(cloud(300))
    brute = _Nearest(cloud(300))
    brute._tree = None
    queries = cloud(5000, seed=1)
    assert torch.equal(tree(queries), brute(queries))
