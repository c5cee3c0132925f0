"""Motions differ from one another, and what is held out is neither a copy nor out of range."""

from __future__ import annotations

import numpy as np
import pytest
from creature_motion import distances, perform_all

from factory.sources import creatures

LEAST = 0.02  # of the body's diagonal


def check(species: str, seed: int, stride: int) -> None:
    done = perform_all(species, seed, stride)
    apart = distances(done.vertices) / done.diagonal
    np.fill_diagonal(apart, np.inf)
    i, j = np.unravel_index(apart.argmin(), apart.shape)
    pair = f"{species} {seed}: {done.motions[i].sentence!r} and {done.motions[j].sentence!r}"
    assert apart.min() >= LEAST, f"{pair} are {apart.min():.4f} of the diagonal apart"

    # Neither copies: the nearest training motion is as far as any two motions are. Nor outside their range: no
    # point of the body, and no joint, goes farther from rest than training motions take it.
    train = np.array([motion.split == "train" for motion in done.motions])
    assert apart[np.ix_(~train, train)].min() >= LEAST
    farthest = np.linalg.norm(done.vertices - done.rest, axis=-1).max((1, 2))
    assert farthest[~train].max() <= 1.001 * farthest[train].max(), species
    joints = np.linalg.norm(done.joints - done.joints_rest, axis=-1).max(1)
    beyond = (joints[~train] - joints[train].max(0)).max() / done.diagonal
    assert beyond <= LEAST, f"{species} {seed}: a held-out joint goes {beyond:.3f} diagonals beyond training"


@pytest.mark.parametrize("species", creatures.species()[:3])
def test_motions_differ_and_held_out_ones_lie_within_training(species):
    check(species, 0, stride=16)


@pytest.mark.slow
@pytest.mark.parametrize("species", creatures.species())
def test_motions_differ_for_other_seeds(species):
    for seed in range(5):
        check(species, seed, stride=8)


def test_a_copy_is_noticed():
    done = perform_all("drop", 0, stride=64)
    twice = np.concatenate([done.vertices[:3], done.vertices[:1]])
    assert distances(twice)[3, 0] == 0 < distances(twice)[3, 1]
