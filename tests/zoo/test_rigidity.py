"""The share of torn points against hand-computed cases, and the neighbours against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from zoo.metrics import nearest_neighbours, torn_share


def test_neighbours_are_scipys_without_the_point_itself():
    points = torch.randn(3000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, expected = cKDTree(points.numpy()).query(points.numpy(), 7)
    assert (nearest_neighbours(points).numpy() == expected[:, 1:]).all()
    twice = torch.cat([points[:5], points[:5]])  # each point has a twin, which is its nearest neighbour
    assert nearest_neighbours(twice, 1)[:, 0].tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert nearest_neighbours(points[:3], 6).shape == (3, 2)


def test_torn_points_by_hand():
    """A row of ten points; the last is pulled out to three times its distance from the others, then to 1.4 times."""
    row = torch.stack([torch.arange(10.0), torch.zeros(10), torch.zeros(10)], 1)
    far, near = row.clone(), row.clone()
    far[9, 0], near[9, 0] = (
        8 + 3,
        8 + 1.2,
    )  # its neighbours 8 and 7 are at distances 3 and 4, instead of 1 and 2
    shares = torn_share(torch.stack([row, far, near]), row, neighbours=2)
    # Ratios of point 9 in `far`: 3 and 2, median 2.5. Point 8's are 3 and 1: 2. Point 7's neighbours are 6 and 8.
    assert shares.tolist() == pytest.approx([0, 0.2, 0])
    assert torn_share(far[None], row, neighbours=2, stretch=2.2).tolist() == pytest.approx([0.1])
    assert torn_share(far[None], row, neighbours=2, stretch=2.6).tolist() == [0]


def test_bending_tears_nothing_and_half_an_object_left_behind_does():
    """A sheet of paper rolled up into a cylinder, rigid motions, and a cut through the middle."""
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(20)), -1).reshape(-1, 2) / 20
    sheet = torch.tensor(np.concatenate([grid, np.zeros((600, 1))], 1))
    radius = 1.5 / (2 * math.pi)
    angle = sheet[:, 0] / radius
    rolled = torch.stack([radius * angle.sin(), sheet[:, 1], radius * (1 - angle.cos())], 1)
    turn = torch.tensor(Rotation.from_rotvec([1.0, -2.0, 0.5]).as_matrix())
    assert torn_share(torch.stack([sheet @ turn.T + 5, rolled]), sheet).tolist() == [0, 0]
    assert torn_share(1.4 * sheet[None], sheet).tolist() == [0]
    assert torn_share(1.6 * sheet[None], sheet).tolist() == [1]
    cut = sheet.clone()
    cut[sheet[:, 0] > 0.7] += torch.tensor([0.0, 0.0, 0.5])
    # Both columns at the cut: three of six neighbours, or more, are on the other side or diagonal to it.
    assert 0 < torn_share(cut[None], sheet).item() < 0.1
    shuffled = sheet[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    assert torn_share(shuffled[None], sheet).item() > 0.95


def test_few_points_and_wrong_shapes():
    assert torn_share(torch.zeros(4, 1, 3), torch.zeros(1, 3)).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="one reference for each of 5 points, got 4"):
        torn_share(torch.zeros(2, 5, 3), torch.zeros(4, 3))
