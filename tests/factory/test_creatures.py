"""Creatures: the GLB that comes out, its determinism, and where feet and tails are allowed to be."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from creature_motion import perform_all

from factory.sources import creatures
from factory.sources.creatures import glb
from factory.sources.creatures.motion import TIMES, Take
from factory.sources.creatures.pose import solve
from factory.sources.creatures.shapes import euler
from renderers import gltf

ALL = creatures.species()
GROUNDED = [name for name in ALL if name not in ("fish", "jellyfish")]


def document(data: bytes) -> dict:
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def test_the_three_bundled_species_come_first_and_there_are_at_least_twelve():
    assert ALL[:3] == ("kangaroo", "bird", "robot")
    assert len(set(ALL)) == len(ALL) >= 12


@pytest.mark.parametrize("species", ALL)
def test_sixty_motions_with_distinct_sentences_fifty_to_train_on(species):
    motions = creatures.motions(species)
    assert len({motion.name for motion in motions}) == len({motion.sentence for motion in motions}) == 60
    assert [motion.split for motion in motions] == ["train"] * 50 + ["heldout"] * 10
    for motion in motions:  # every phrase of every sentence is known, and starts from rest
        assert motion.sentence == motion.sentence.strip() and motion.sentence[0].islower()


@pytest.mark.parametrize("species", ALL)
def test_the_glb_loads_with_its_motions_and_sizes(species):
    chosen = [motion.name for motion in creatures.motions(species)[:2]]
    asset = gltf.load(creatures.build(species, 3, chosen), name=species)
    assert [animation.name for animation in asset.animations] == chosen
    assert 2000 <= asset.num_vertices <= 10_000
    points = asset.pose(None, 0.0).positions
    assert 0.3 < np.ptp(points, axis=0).max() < 2.5  # metres
    if species in GROUNDED:
        assert abs(points[:, 1].min()) < 0.01
    for animation in range(2):
        assert asset.animations[animation].duration == pytest.approx(2.0)
        assert np.abs(asset.pose(animation, 0.0).positions - points).max() < 1e-5  # starts from rest


@pytest.mark.parametrize("species", ["kangaroo", "crab", "drop"])
def test_an_independent_reader_sees_what_the_generator_meant(species):
    """Skins, inverse kinematics and morph targets, through the file and back, at key times."""
    stride, frames = 40, [0, 8, 15, 47]
    meant = perform_all(species, 2, stride, frames)
    asset = gltf.load(creatures.build(species, 2), name=species)
    for index in (0, 17, 52):
        for k, frame in enumerate(frames):
            seen = asset.pose(index, frame / 24).positions[::stride]
            assert np.abs(seen - meant.vertices[index, k]).max() < 2e-5 * meant.diagonal
        off = asset.pose(index, (frames[1] + 1) / 24).positions[::stride]  # and not one frame later
        assert np.abs(off - meant.vertices[index, 1]).max() > 1e-3 * meant.diagonal


def test_descriptions_and_licence_travel_in_the_file():
    said = document(creatures.build("robot", 5, ["dances"]))
    assert said["animations"][0]["extras"] == {"description": "dances", "split": "train"}
    assert said["asset"]["copyright"] == "CC0-1.0"
    assert said["asset"]["extras"]["seed"] == 5
    assert all(material.get("alphaMode", "OPAQUE") == "OPAQUE" for material in said["materials"])


def test_same_seed_same_bytes_in_another_process():
    here = [hashlib.sha256(creatures.build(name, 7)).hexdigest() for name in ("fox", "drop")]
    code = (
        "import hashlib; from factory.sources import creatures as c; c.build('cat', 1, []);"
        "print(*(hashlib.sha256(c.build(n, 7)).hexdigest() for n in ('fox', 'drop')))"
    )
    for salt in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": salt, "PATH": ""},
        )
        assert there.stdout.split() == here
    assert hashlib.sha256(creatures.build("fox", 8)).hexdigest() != here[0]


@pytest.mark.parametrize("species", ALL)
def test_seeds_differ_in_shape_and_colour(species):
    first, second = (creatures.grow(species, seed).body.merged()[0] for seed in (1, 2))
    same_shape = first.positions.shape == second.positions.shape and np.allclose(
        first.positions, second.positions
    )
    assert not same_shape
    assert np.abs(first.colours.mean(0) - second.colours.mean(0)).max() > 1e-3


@pytest.mark.parametrize("species", ALL)
def test_skin_weights_are_shares_among_few_joints(species):
    for mesh in creatures.grow(species, 1).body.meshes:
        assert (mesh.weights.astype(np.float32).sum(1) == 1).all()
        assert (mesh.weights >= 0).all()
        assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)
        # Turned outwards: the enclosed volume is positive. Closed: all but a few pinched edges are used once
        # either way.
        a, b, c = mesh.positions[mesh.triangles.T]
        assert np.einsum("ni,ni->n", a, np.cross(b, c)).sum() > 0
        directed = np.sort(np.concatenate([mesh.triangles[:, [k, (k + 1) % 3]] for k in range(3)]), axis=1)
        _, uses = np.unique(directed, axis=0, return_counts=True)
        assert (uses % 2 == 0).all()
        assert (uses == 2).mean() > 0.98


def test_planted_feet_stay_and_stepping_feet_do_not_slide():
    for species in ("robot", "fox", "kangaroo"):
        creature = creatures.grow(species)
        skeleton = creature.body.skeleton
        still = ["leans left", "nods, then crouches" if "crouches" in creature.phrases else "nods"]
        walking = [] if species == "kangaroo" else ["walks forward", "turns left"]
        for sentence in still + walking:
            take = creature.act(sentence)
            soles = np.stack([_sole(skeleton, solve(take), leg) for leg in skeleton.legs.values()])
            planted = soles[..., 1] < 1e-3
            speed = np.linalg.norm(np.diff(soles, axis=1), axis=-1)
            sliding = np.where(planted[:, 1:] & planted[:, :-1], speed, 0)
            assert sliding.max() < 2e-3, (species, sentence)
            assert planted.any(0).all(), (species, sentence)
            if sentence in walking:
                assert speed.max() > 0.01  # the control: feet that step do move


def _sole(skeleton, pose, leg) -> np.ndarray:
    """[T, 3]: where the sole of a leg is when the joints are where the pose puts them."""
    joint, chain = skeleton.index(leg.foot), []
    while joint >= 0:
        chain.append(joint)
        joint = skeleton.parents[joint]
    points = np.broadcast_to(leg.sole - skeleton.rest[chain[0]], pose.translations[:, 0].shape)
    for joint in chain:
        points = np.einsum("tij,tj->ti", pose.rotations[:, joint], points) + pose.translations[:, joint]
    return points


@pytest.mark.parametrize("species", ["kangaroo", "cat", "snake"])
def test_nothing_sinks_into_the_floor(species):
    done = perform_all(species, 1, stride=6, frames=range(0, 48, 3))
    lowest = done.vertices[..., 1].min((1, 2)) / done.height
    assert lowest.min() > -0.01, done.motions[lowest.argmin()].sentence


@pytest.mark.slow
@pytest.mark.parametrize("species", ALL)
def test_nothing_sinks_into_the_floor_for_many_seeds(species):
    for seed in range(4):
        done = perform_all(species, seed, stride=4)
        lowest = done.vertices[..., 1].min((1, 2)) / done.height
        assert lowest.min() > -0.01, (seed, done.motions[lowest.argmin()].sentence)


def test_morph_weights_stay_where_viewers_do_not_clamp_them():
    creature = creatures.grow("drop", 2)
    for pose in creatures.perform(creature, [motion.sentence for motion in creatures.motions("drop")]):
        weights = np.stack(list(pose.morphs.values()))
        assert 0 <= weights.min() and weights.max() <= 1


def test_quaternions_are_those_of_a_library():
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    angles = np.random.default_rng(0).uniform(-7, 7, (200, 3))
    ours = glb.quaternions(euler(angles))
    theirs = rotation.from_euler("YXZ", angles[:, [1, 0, 2]]).as_quat()
    assert np.abs(np.abs((ours * theirs).sum(1)) - 1).max() < 1e-12
    assert ((ours[1:] * ours[:-1]).sum(1) >= 0).all()


def test_keys_are_the_frames():
    assert len(TIMES) == 49 and TIMES[24] == 1.0


# ---------------------------------------------------------------------------------------- names and URIs


def test_uris_name_individuals_lazily():
    portrait = list(creatures.enumerate_uri("creatures://kangaroo"))
    assert [(ref.species, ref.seed) for ref in portrait] == [("kangaroo", 0)]
    assert [ref.seed for ref in creatures.enumerate_uri("creatures://fox?seed=7&count=3")] == [7, 8, 9]
    many = list(creatures.enumerate_uri("creatures://*?count=2000"))
    assert len({ref.uid for ref in many}) == 2000
    assert {ref.species for ref in many} == set(ALL)
    assert many[13].uri == f"creatures://{ALL[1]}?seed=1"
    assert [ref.uid for ref in creatures.enumerate_uri(many[13].uri)] == [many[13].uid]


@pytest.mark.parametrize(
    "uri, said",
    [
        ("creatures://unicorn", "no creature is called 'unicorn'"),
        ("creatures://", "creature URI"),
        ("file://kangaroo", "creature URI"),
        ("creatures://fox?seed=-1", "whole number"),
        ("creatures://fox?sead=1", "sead=1"),
        ("creatures://fox?seed=1&seed=2", "seed=1,2"),
    ],
)
def test_what_is_no_uri_is_refused_at_once(uri, said):
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        creatures.enumerate_uri(uri)


def test_unknown_motions_and_phrases_are_named():
    with pytest.raises(ValueError, match="no motion 'flies'"):
        creatures.build("fox", 0, ["flies"])
    with pytest.raises(ValueError, match="whole number from 0 up, got -1"):
        creatures.build("fox", -1)
    with pytest.raises(KeyError, match="no gesture is called 'flies'"):
        creatures.grow("fox").act("sits and flies")


def test_gestures_of_nothing_leave_the_rest_pose():
    skeleton = creatures.grow("robot").body.skeleton
    pose = solve(Take(skeleton, frames=2))
    assert np.abs(pose.rotations - np.eye(3)).max() < 1e-9
    assert np.abs(pose.translations - skeleton.offsets).max() < 1e-12


# ---------------------------------------------------------------------------------------- commands


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "factory.sources.creatures", *arguments], capture_output=True, text=True
    )


def test_export_writes_the_same_bytes_as_build(tmp_path):
    path = tmp_path / "fox.glb"
    done = command("export", "fox", "--seed", "3", "--motion", "sits", "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == creatures.build("fox", 3, ["sits"])
    refused = command("export", "fox", "--motion", "flies", "-o", str(path))
    assert refused.returncode != 0 and "no motion 'flies'" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_gallery_fits_the_repository(tmp_path):
    done = command("gallery", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    files = list(tmp_path.iterdir())
    assert {path.name for path in files} == {"README.md", "species.png", *(f"{name}.png" for name in ALL)}
    assert sum(path.stat().st_size for path in files) < 1.5e6
