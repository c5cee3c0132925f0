"""Vertex trajectories of creatures by the textbook formula, for tests that compare many motions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factory.sources import creatures


@dataclass(frozen=True)
class Motions:
    """Trajectories of a creature's vertices and joints in each of its motions.

    Attributes:
        motions: M of them.
        rest: [V, 3]. vertices: float32 [M, T, V, 3], every `stride`-th vertex at `frames`.
        joints: [M, T, J, 3]; joints_rest: [J, 3]. diagonal, height: of the whole creature, metres.
    """

    motions: tuple[creatures.Motion, ...]
    rest: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints_rest: np.ndarray
    diagonal: float
    height: float


def perform_all(species: str, seed: int = 0, stride: int = 8, frames=range(0, 48, 2)) -> Motions:
    """Compute all motions of one creature."""
    creature = creatures.grow(species, seed)
    skeleton, meshes = creature.body.skeleton, creature.body.merged()
    motions = creatures.motions(species)
    poses = creatures.perform(creature, [motion.sentence for motion in motions])
    everything = np.concatenate([mesh.positions for mesh in meshes])
    rest = everything[::stride]
    offsets = {
        name: np.concatenate([morph(mesh) for mesh in meshes])[::stride]
        for name, morph in creature.morphs.items()
    }
    joints = np.concatenate([mesh.joints for mesh in meshes])[::stride].astype(int)
    weights = np.concatenate([mesh.weights for mesh in meshes])[::stride]
    frames = np.asarray(frames)
    vertices, places = [], []
    for pose in poses:
        world = _world(skeleton, pose[frames])
        places.append(world[:, :, :3, 3])
        skin = world[:, :, :3].copy()  # inverse bind matrices are translations: joints are upright at rest
        skin[..., 3] -= np.einsum("tjab,jb->tja", world[:, :, :3, :3], skeleton.positions)
        points = np.repeat(rest[None], len(frames), 0)
        for name, offset in offsets.items():
            points = points + pose.morphs[name][frames, None, None] * offset
        moved = 0
        for k in range(4):
            matrices = skin[:, joints[:, k]]
            moved = moved + weights[:, k, None] * (
                np.einsum("tvab,tvb->tva", matrices[..., :3], points) + matrices[..., 3]
            )
        vertices.append(moved.astype(np.float32))
    low, high = everything.min(0), everything.max(0)
    return Motions(
        motions,
        rest,
        np.stack(vertices),
        np.stack(places),
        skeleton.positions,
        float(np.linalg.norm(high - low)),
        float(high[1] - low[1]),
    )


def distances(vertices: np.ndarray) -> np.ndarray:
    """Return the mean distance between the vertex trajectories of each pair of motions, metres, [M, M]."""
    count = len(vertices)
    out = np.zeros((count, count))
    for i in range(count):
        difference = vertices[:i] - vertices[i]
        out[i, :i] = out[:i, i] = np.sqrt((difference**2).sum(-1)).mean((1, 2))
    return out


def _world(skeleton, pose) -> np.ndarray:
    """Return the joint-to-world transforms [T, J, 4, 4]."""
    frames, joints = pose.translations.shape[:2]
    world = np.zeros((frames, joints, 4, 4))
    world[..., :3, :3] = pose.rotations * pose.scales[:, :, None, :]
    world[..., :3, 3] = pose.translations
    world[..., 3, 3] = 1
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            world[:, joint] = world[:, parent] @ world[:, joint]
    return world
