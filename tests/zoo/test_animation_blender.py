"""Exported animations and models of other formats, compared with Blender, which nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from blender_vertices import vertices, write_scene
from graph_motions import animated, graph_motion, patch, textured
from scipy.spatial import cKDTree
from tiny_dimo import tiny_pipeline
from tiny_gltf import TinyGltf

from renderers.gltf import load
from renderers.gltf.files import split_glb
from renderers.meshes import blender
from zoo.animate3d.animation import Animation
from zoo.animate3d.loading import load_model
from zoo.export.fbx import frame_times

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(blender.find() is None, reason="needs Blender (`make blender`)"),
]
EXACT = 1e-5  # of the diagonal
FRAMES = (0, 3, 6, 9, 12)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest distance of two sets of moving points [T, N, 3], matched both ways by their place in the first frame."""
    distances = []
    for a, b in ((ours, theirs), (theirs, ours)):
        near = cKDTree(b[0]).query(a[0])[1]
        distances.append(np.linalg.norm(a - b[:, near], axis=-1).max())
    return float(max(distances))


def corners(animation: Animation, times: np.ndarray) -> np.ndarray:
    asset = animation.model.asset
    triangles = np.concatenate([part.triangles for part in asset.primitives]).reshape(-1)
    return (animation.vertices(times) + asset.origin(None))[:, triangles]


@pytest.mark.parametrize("form", ["skin", "morph", "usd"])
@pytest.mark.parametrize("name", ["crowded", "rigged", "greenman"])
def test_blender_reads_the_same_vertices(tmp_path, name, form):
    """As .glb and .fbx in both forms, or as .usd, at five times."""
    animation = animated(name)
    times = animation.motion.times[list(FRAMES)]
    expected, diagonal = corners(animation, times), animation.model.diagonal()
    moved = np.linalg.norm(expected - expected[0], axis=-1).max()
    assert moved > 0.05 * diagonal, "the motion is too small to show an error"
    fps, _ = frame_times(animation.motion.times)
    if form == "usd":
        file = animation.save(tmp_path / "wave.usd")
        assert apart(expected, vertices(file, times, fps)) <= EXACT * diagonal
        return
    file = animation.save(tmp_path / "wave.fbx", as_=form)
    assert apart(expected, vertices(file, times, fps)) <= EXACT * diagonal
    file = animation.save(tmp_path / "wave.glb", as_=form, tolerance=0.0)
    asset = load(file)
    index = len(asset.animations) - 1  # the last of the file: `vertices` would play the first
    posed = blender.corner_positions(file, index, times.tolist())
    for part in asset.primitives:
        for time, theirs in zip(times, posed[part.node, part.index], strict=True):
            ours = (asset.positions(index, float(time)) + asset.origin(index))[part.triangles]
            assert np.abs(ours - theirs).max() <= EXACT * diagonal


def test_a_skin_with_key_frames_left_out_stays_within_its_tolerance(tmp_path):
    animation = animated("greenman")
    tolerance = 1e-3
    file = animation.save(tmp_path / "wave.glb", tolerance=tolerance, influences=4)
    stated = animation.error(tolerance=tolerance, influences=4)
    times = animation.motion.times[list(FRAMES)]
    asset = load(file)
    index = len(asset.animations) - 1
    posed = blender.corner_positions(file, index, times.tolist())
    theirs = np.concatenate(
        [posed[part.node, part.index].reshape(len(times), -1, 3) for part in asset.primitives], 1
    )
    assert apart(corners(animation, times), theirs) <= (stated + EXACT) * animation.model.diagonal()


@pytest.mark.parametrize("scales", [(2.0,), (1.0, 0.01), (100.0, 100.0)])
def test_nodes_with_a_scale(tmp_path, scales):
    """Blender's bones have no scale at rest: a scale in the inverse bind matrices would move the mesh elsewhere."""
    tiny = TinyGltf()
    mesh = tiny.add("meshes", primitives=[patch(tiny, textured(tiny, 1))])
    places = [
        tiny.node(mesh=mesh, scale=[s] * 3, translation=[3.0 * s * i, 1.0, 0.0]) for i, s in enumerate(scales)
    ]
    tiny.scene(*places)
    model = load_model(tiny.glb(), name="scaled")
    animation = Animation(model, graph_motion(model.asset), "wave")
    file = animation.save(tmp_path / "wave.glb", as_="skin", tolerance=0.0)
    times = animation.motion.times[list(FRAMES)]
    theirs = vertices(file, times, frame_times(animation.motion.times)[0])
    assert apart(corners(animation, times), theirs) <= EXACT * model.diagonal()


@pytest.fixture(scope="module", params=[".fbx", ".blend", ".usd"])
def scene(request, tmp_path_factory) -> Path:
    """A file that Blender wrote, with a rigged mesh, two empty objects and a camera."""
    file = tmp_path_factory.mktemp("scene") / f"scene{request.param}"
    write_scene(file)
    return file


def test_files_of_blender_keep_their_nodes_cameras_and_skins(scene, tmp_path):
    """A motion in them is written as morph targets, so that the file's own rig goes on working."""
    model = load_model(scene)
    before = model.editor().json
    names = {node.get("name") for node in before["nodes"]}
    mesh = "patch" if scene.suffix == ".usd" else "body"  # USD has an object and its mesh as two nodes
    assert {mesh, "marker", "upper", "lower"} <= names and len(before["cameras"]) == 1
    assert len(before["skins"]) == 1
    still = vertices(scene, [0.0], 24)[0]
    asset = model.asset
    ours = (model.vertices() + asset.origin(None))[np.concatenate([p.triangles for p in asset.primitives])]
    # The quads of the file are cut into triangles by either diagonal: their corners are compared.
    assert apart(ours.reshape(1, -1, 3), still[None]) <= EXACT * model.diagonal()
    animation = Animation(model, graph_motion(asset), "wave")
    assert animation.form() == "morph"
    after = json.loads(split_glb(animation.save(tmp_path / "wave.glb").read_bytes())[0])
    for kind in ("nodes", "cameras", "skins", "materials"):
        kept = after[kind][: len(before[kind])]
        assert [x.get("name") for x in kept] == [x.get("name") for x in before[kind]]
    assert after["skins"] == before["skins"] and after["cameras"] == before["cameras"]
    assert after["materials"] == before["materials"]


@pytest.mark.parametrize("suffix", [".fbx", ".usd"])
def test_motions_of_dimo_in_blender(tmp_path, suffix):
    """The same animation as the .glb, which the tests of DIMO compare with the model."""
    motion = tiny_pipeline().sample(1)
    asset = load(motion.save(tmp_path / "egg.glb", detail=24))
    times = ((motion.phases - motion.phases[0]) * motion.seconds).double().numpy()
    times = times[np.linspace(0, len(times) - 1, 5).round().astype(int)]
    triangles = np.concatenate([part.triangles for part in asset.primitives]).reshape(-1)
    ours = np.stack([asset.positions(0, float(t)) + asset.origin(0) for t in times])[:, triangles]
    diagonal = float(np.linalg.norm(np.ptp(ours[0], axis=0)))
    file = motion.save(tmp_path / f"egg{suffix}", detail=24)
    fps, _ = frame_times((motion.phases - motion.phases[0]).double().numpy() * motion.seconds)
    assert apart(ours, vertices(file, times, fps)) <= EXACT * diagonal
