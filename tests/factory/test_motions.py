"""Motion videos: one framing for all motions, frames, splits, and byte-identical reruns."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sample_assets import model, requires_collection
from sample_clips import disc_row
from tiny_gltf import CORNERS, TinyGltf

from cluster import Ledger
from factory.assets.record import AssetRecord
from factory.dataset.schema import write_row
from factory.motion_videos.jobs import DatasetClips, MotionJob, MotionsJob, read_job
from factory.motion_videos.plan import (
    AnimationSource,
    ClipSource,
    MotionPlan,
    MotionRecipe,
    _splits,
    plan_clips,
    plan_motions,
    sentence,
    surface_points,
)
from factory.motion_videos.run import make_motions
from factory.motion_videos.stage import slug
from factory.motion_videos.subjects import find_subjects, object_name
from factory.motions import main
from factory.sources import SourceError, open_source
from renderers import gltf
from renderers.cameras import Cameras
from zoo.dimo.data import MotionVideos

SMALL = MotionRecipe(resolution=48, frames=4, points=64)
ROBOT = "creatures://robot?motions=3"


def tiny(*animations: tuple[list[float], list[list[float]]]) -> TinyGltf:
    """A tetrahedron with animations of its translation, given as key times and positions."""
    file = TinyGltf()
    node = file.node(mesh=file.mesh())
    file.scene(node)
    for times, places in animations:
        file.animation((node, "translation", times, places))
    for index, animation in enumerate(file.json.get("animations", [])):
        animation["name"] = f"Move_{index}"
    return file


def planned(file: TinyGltf, recipe: MotionRecipe = SMALL):
    record = AssetRecord("tiny.glb", "folder", "tiny.glb", "sha256:0")
    return plan_motions(gltf.load(file.glb(), name="tiny.glb"), record, recipe)


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("motions")
    (made,) = make_motions([ROBOT], out, SMALL, workers=0)
    assert (made.name, made.motions, made.fault) == ("robot", 3, "") and made.folder == out / "motions/robot"
    return out


# --- framing --------------------------------------------------------------------------------------------


def extent(asset: gltf.Asset, plans, recipe: MotionRecipe, scale: float = 1.0) -> float:
    """Largest image coordinate of any vertex in any frame, motion and view; 1 is the edge of the image."""
    half, largest = recipe.resolution / 2, 0.0
    for plan in plans:
        transform = np.reshape(plan.source.asset_to_world, (4, 4))
        cameras = Cameras(plan.world_to_camera, plan.K, recipe.resolution, recipe.resolution)
        for time in plan.source.timestamps:
            points = asset.positions(plan.source.animation, time)[asset.visible]
            pixels, _ = cameras.project(scale * (points @ transform[:3, :3].T + transform[:3, 3]))
            largest = max(largest, float(np.abs(pixels / half - 1).max()))
    return largest


def test_one_framing_contains_every_vertex_of_every_motion_in_every_view():
    (record,) = open_source("creatures://kangaroo?motions=6").list()
    asset = gltf.load(open_source(record.location).fetch(record))
    recipe = MotionRecipe(frames=7)
    plans, _ = plan_motions(asset, record, recipe)
    assert len({tuple(plan.source.asset_to_world) for plan in plans}) == 1
    assert extent(asset, plans, recipe) == pytest.approx(1 - recipe.margin, abs=1e-5)
    assert extent(asset, plans, recipe, scale=1.05) > 1  # at a slightly larger scale, it does not fit
    # Every motion starts from the rest pose, whose box is centred.
    transform = np.reshape(plans[0].source.asset_to_world, (4, 4))
    rest = asset.positions(None, 0)[asset.visible] @ transform[:3, :3].T + transform[:3, 3]
    np.testing.assert_allclose(rest.min(0) + rest.max(0), 0, atol=1e-4)


def test_cameras_follow_the_recipe():
    cameras = MotionRecipe().cameras()
    places = cameras.camera_to_world[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 2.0)
    azimuths = np.rad2deg(np.arctan2(places[:, 0], places[:, 2])) % 360
    elevations = np.rad2deg(np.arcsin(places[:, 1] / 2))
    np.testing.assert_allclose(azimuths, [*range(0, 360, 45), 22.5, 112.5, 202.5, 292.5], atol=1e-9)
    np.testing.assert_allclose(elevations, [0, 20] * 4 + [10, 25, -5, 15], atol=1e-9)
    assert np.rad2deg(2 * np.arctan(128 / cameras.K[0, 0, 0])) == pytest.approx(33.9)


# --- frames and motions --------------------------------------------------------------------------------


def test_frames_are_evenly_spaced_over_two_seconds_or_a_shorter_animation():
    plans, _ = planned(tiny(([1, 5], [[0, 0, 0], [4, 0, 0]]), ([0, 0.5], [[0, 0, 0], [1, 0, 0]])))
    assert plans[0].source.timestamps == [1.0, 1.5, 2.0, 2.5] and plans[0].seconds == 2.0
    assert plans[1].source.timestamps == [0.0, 0.125, 0.25, 0.375] and plans[1].seconds == 0.5


def test_poses_are_left_out_with_a_reason_unless_requested():
    moving, still = ([0, 1], [[0, 0, 0], [1, 0, 0]]), ([0, 1], [[0, 0, 0], [0, 0, 0]])
    pose = ([0], [[0, 1, 0]])
    plans, rejected = planned(tiny(moving, still, pose, moving))
    assert [plan.name for plan in plans] == ["Move_0", "Move_3"]
    assert {r.animation_name: r.reason for r in rejected} == {"Move_1": "motionless", "Move_2": "zero length"}
    plans, rejected = planned(tiny(moving, still, pose, moving), replace(SMALL, poses=True))
    assert len(plans) == 4 and not rejected


def test_surface_points_are_on_the_surface_with_uniform_density():
    asset = gltf.load(tiny(([0, 1], [[0, 0, 0], [1, 0, 0]])).glb())
    corners, weights = surface_points(asset, 6000, 0)
    points = (asset.positions(None, 0)[corners] * weights[..., None]).sum(1)
    # A tetrahedron with corners 0, (1,0,0), (0,2,0), (0,0,3): x + y/2 + z/3 is 1 on one face, a coordinate 0 on others.
    distance = np.minimum(np.abs(points).min(1), np.abs(points @ [1, 1 / 2, 1 / 3] - 1))
    assert distance.max() < 1e-6
    areas = [
        np.linalg.norm(np.cross(b - a, c - a)) / 2 for a, b, c in (CORNERS[[0, 2, 1]], CORNERS[[0, 1, 3]])
    ]
    whole = sum(areas) + np.linalg.norm(np.cross([0, 2, 0], [0, 0, 3])) / 2
    whole += np.linalg.norm(np.cross(CORNERS[2] - CORNERS[1], CORNERS[3] - CORNERS[1])) / 2
    found = [(np.abs(points[:, axis]) < 1e-6).mean() for axis in (2, 1)]
    np.testing.assert_allclose(found, np.array(areas) / whole, atol=1e-3)


def test_tracked_points_project_onto_the_rendered_object(robot):
    videos = MotionVideos.open(robot / "motions/robot")
    cameras = MotionRecipe(resolution=48).cameras()
    for motion in range(len(videos)):
        points = videos.points(motion)
        assert points.shape == (4, 64, 3)
        for frame in range(4):
            alpha = videos.read([motion], range(12), [frame])[0, :, 0, ..., 3].numpy()
            pixels, _ = cameras.project(points[frame])
            column, row = pixels.astype(int).transpose(2, 0, 1)
            assert (alpha[np.arange(12)[:, None], row, column] > 0).mean() > 0.97
            control = alpha[np.arange(12)[:, None], row, 47 - column] > 0
            assert control.mean() < 0.97  # but not onto its mirror image
        assert np.linalg.norm(points[-1] - points[0], axis=-1).max() > 0.02


# --- names, sentences, splits ---------------------------------------------------------------------------


def test_held_out_motions_are_the_creatures_own_or_follow_from_the_names():
    names = [f"motion {i}" for i in range(76)]
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    splits = dict(zip(names, _splits(names, "", MotionRecipe(heldout=16)), strict=True))
    assert {name for name, split in splits.items() if split == "heldout"} == set(by_hash[:16])
    assert _splits(names, "", MotionRecipe()).count("heldout") == 15
    assert _splits(["shakes-its-head"], "kangaroo", MotionRecipe()) == ["train"]
    from factory.sources import creatures

    motions = creatures.motions("kangaroo")
    splits_of_kangaroo = _splits([motion.name for motion in motions], "kangaroo", MotionRecipe())
    assert splits_of_kangaroo == [motion.split for motion in motions]
    assert splits_of_kangaroo.count("heldout") == 10


def test_names_become_sentences_and_slugs():
    assert sentence("1H_Melee_Attack_Chop") == "1H melee attack chop"
    assert sentence("Armature|Robot_ThumbsUp") == "robot thumbs up"
    assert sentence("---") == "---"
    assert object_name("creatures", "creature-kangaroo-0") == "kangaroo"
    assert object_name("creatures", "creature-kangaroo-7") == "kangaroo-7"
    assert object_name("folder", "people/KayKit_Knight.glb") == "kaykit-knight"
    assert slug("Läuft…") == "l-uft" and slug("??") == "unnamed"


def test_index_and_provenance(robot):
    videos = MotionVideos.open(robot / "motions/robot")
    assert videos.object == "robot" and set(videos.splits) <= {"train", "heldout"}
    assert videos.phases == (0.0, 0.25, 0.5, 0.75)
    assert videos.train_views == tuple(range(8)) and videos.heldout_views == (8, 9, 10, 11)
    provenance = videos.provenance
    assert provenance["licence"] == "CC0-1.0" and provenance["author"] == "Menagerie"
    assert provenance["seconds"] == 2.0 and len(provenance["sha256"]) == 64
    assert provenance["attribution"].startswith('"Robot 0" by Menagerie')
    assert all(" " in sentence for sentence in videos.sentences)


# --- reruns --------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(robot, tmp_path):
    make_motions([ROBOT], tmp_path / "again", SMALL, workers=0)
    assert contents(tmp_path / "again/motions/robot") == contents(robot / "motions/robot")
    make_motions([ROBOT], tmp_path / "seed", replace(SMALL, points_seed=1), workers=0)
    points = [sorted((out / "motions/robot").glob("*.points.npy"))[0] for out in (robot, tmp_path / "seed")]
    assert points[0].read_bytes() != points[1].read_bytes()


def test_keys_of_existing_ledgers_stay_valid():
    assert MotionRecipe().hash() == "9372ba0aeabff9cd"
    assert MotionRecipe(points_seed=7).hash() == "cc38758fe0621b07"


def test_jobs_survive_json():
    record = AssetRecord("tiny.glb", "folder", "tiny.glb", "sha256:0", tags=("tiny",))
    rendered = MotionPlan(
        "hop", "hops", "train", 2.0, AnimationSource(1, [0.0], [1.0] * 16), [[[1.0]]], [[[2.0]]]
    )
    copied = replace(rendered, source=ClipSource("clip-1", [0, 2], [4]))
    for job in (
        MotionsJob("tiny", record),
        MotionsJob("disc", DatasetClips("mv", ("clip-0", "clip-1"))),
        MotionJob("tiny", record, rendered, "hop-1"),
        MotionJob("disc", DatasetClips("mv"), copied, "hop-2"),
    ):
        assert read_job(json.loads(json.dumps(job.to_json()))) == job


def test_a_rerun_renders_nothing_and_another_recipe_keeps_the_files(robot):
    before = {file: file.stat().st_mtime_ns for file in robot.rglob("*.npy")}
    (made,) = make_motions([ROBOT], robot, SMALL, workers=0)
    assert {file: file.stat().st_mtime_ns for file in robot.rglob("*.npy")} == before
    (other,) = make_motions([ROBOT], robot, replace(SMALL, resolution=32), workers=0)
    assert other.key != made.key and MotionVideos.open(other.folder).resolution == 32
    (back,) = make_motions([ROBOT], robot, SMALL, workers=0)
    assert back.key == made.key and MotionVideos.open(back.folder).resolution == 48


def test_existing_motion_videos_are_used_as_they_are(robot):
    (made,) = make_motions([f"other={robot / 'motions/robot'}"], robot, SMALL, workers=0)
    assert (made.name, made.folder, made.motions) == ("other", robot / "motions/robot", 3)


# --- clips of a dataset ---------------------------------------------------------------------------------


def clip_rows(count: int = 3) -> list[dict]:
    """Clips of one asset, each with its own world."""
    rows = []
    for i in range(count):
        scale, offset = 0.3 + 0.1 * i, [0.1 * i, -0.2, 0.05]
        transform = np.eye(4)
        transform[:3, :3] *= scale
        transform[:3, 3] = offset
        rows.append(
            {
                **disc_row(16, 8),
                "clip_id": f"clip-{i}",
                "animation_name": f"Roll_{i}",
                "animation_index": i,
                "asset_to_world": transform.tolist(),
            }
        )
    return rows


def test_clips_are_transformed_to_one_world():
    rows = clip_rows()
    plans, fault = plan_clips(rows, replace(SMALL, heldout=0))
    assert not fault and [plan.sentence for plan in plans] == ["roll 0", "roll 1", "roll 2"]
    smallest = np.asarray(rows[0]["asset_to_world"])
    ratio = np.tan(np.deg2rad(33.9 / 2)) * 2 / (np.tan(np.deg2rad(20)) * 3)
    common = np.diag([ratio, ratio, ratio, 1]) @ smallest
    points = np.random.default_rng(0).normal(size=(20, 4))
    points[:, 3] = 1
    for row, plan in zip(rows, plans, strict=True):
        views = [*range(0, 16, 2), 1, 5, 9, 13]
        assert plan.source.views == views and plan.source.frames == [0, 2, 4, 6]
        matrices = np.asarray(plan.world_to_camera)
        np.testing.assert_allclose(
            matrices[:, :3, :3] @ matrices[:, :3, :3].transpose(0, 2, 1),
            np.tile(np.eye(3), (12, 1, 1)),
            atol=1e-9,
        )
        theirs = Cameras(np.asarray(row["world_to_camera"])[views], np.asarray(row["K"])[views], 64, 64)
        ours = Cameras(matrices, plan.K, 64, 64)
        expected, _ = theirs.project((points @ np.asarray(row["asset_to_world"]).T)[:, :3])
        projected, _ = ours.project((points @ common.T)[:, :3])
        np.testing.assert_allclose(projected, expected, atol=1e-6)


def test_clips_of_different_sizes_are_refused():
    rows = clip_rows()
    rows[1] = {**rows[1], "num_frames": 7}
    assert plan_clips(rows, SMALL) == ([], "its clips differ in num_frames")


def test_a_dataset_becomes_motion_videos(tmp_path):
    folder = tmp_path / "mv/data/train"
    folder.mkdir(parents=True)
    for i, row in enumerate(clip_rows()):
        (folder / f"part-{i:05d}.parquet").write_bytes(write_row(row))
    (made,) = make_motions([str(tmp_path / "mv")], tmp_path / "out", replace(SMALL, heldout=1), workers=0)
    assert (made.name, made.motions, made.heldout) == ("disc-1", 3, 1)
    videos = MotionVideos.open(made.folder)
    assert videos.resolution == 64 and videos.phases == (0, 0.25, 0.5, 0.75) and videos.points(0) is None
    assert videos.provenance["attribution"] == disc_row()["attribution"]
    from factory import load_clips

    clip = load_clips(tmp_path / "mv").clip("clip-1").read(views=[2], frames=[4])
    np.testing.assert_array_equal(videos.read([1], [1], [2])[0, 0, 0].numpy(), clip.frames[0, 0])


# --- errors -------------------------------------------------------------------------------------


def printed(capsys, tmp_path, *arguments: str) -> str:
    assert main(["--objects", *arguments, "--out", str(tmp_path / "out"), "--workers", "0", "--quiet"]) == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in (out + err).splitlines() if line]
    return line


def test_objects_without_videos_are_reported_with_a_reason(capsys, tmp_path):
    (tmp_path / "still.glb").write_bytes(tiny().glb())
    (tmp_path / "one.glb").write_bytes(tiny(([0, 1], [[0, 0, 0], [1, 0, 0]])).glb())
    (tmp_path / "text.glb").write_text("no glTF at all")
    assert printed(capsys, tmp_path, str(tmp_path / "still.glb")) == (
        "still  no videos: not animated: 0 motions to train on, and a motion space needs at least 2"
    )
    assert "one  no videos: 1 motions to train on, and a motion space needs at least 2" in printed(
        capsys, tmp_path, str(tmp_path / "one.glb")
    )
    assert "text  no videos: text.glb" in printed(capsys, tmp_path, str(tmp_path / "text.glb"))
    assert "no creature is called 'unicorn'" in printed(capsys, tmp_path, "creatures://unicorn")
    assert "no such file or folder" in printed(capsys, tmp_path, str(tmp_path / "nowhere"))


def test_a_remote_output_is_refused():
    assert main(["--objects", "creatures://robot", "--out", "memory://somewhere", "--workers", "0"]) == 1


def test_names_of_objects_are_unique(tmp_path):
    (tmp_path / "Robot.glb").write_bytes(tiny(([0, 1], [[0, 0, 0], [1, 0, 0]])).glb())
    with pytest.raises(SourceError, match="two objects are called 'robot'"):
        find_subjects(["creatures://robot", str(tmp_path / "Robot.glb")])
    subjects = find_subjects(["creatures://robot", f"other={tmp_path / 'Robot.glb'}"])
    assert [subject.name for subject in subjects] == ["robot", "other"]
    with pytest.raises(SourceError, match="contains 2; leave out"):
        find_subjects(["mine=creatures://robot?count=2"])
    with pytest.raises(SourceError, match=r"is empty: it contains no .glb, .gltf or .vrm file"):
        (tmp_path / "empty").mkdir()
        find_subjects([str(tmp_path / "empty")])


def test_invalid_recipes_are_refused(capsys, tmp_path):
    for option, value in (
        ("--frames", "1"),
        ("--heldout-views", "9"),
        ("--margin", "0.6"),
        ("--seconds", "0"),
    ):
        with pytest.raises(SystemExit):
            main(["creatures://robot", "--out", str(tmp_path), option, value])
        assert "expected" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "no object" in capsys.readouterr().err


def test_a_motion_that_cannot_be_rendered_is_given_up_and_the_others_are_kept(tmp_path, monkeypatch):
    from factory.motion_videos import stage as motions

    def fail_on_one(self, job):
        if job.motion.name == "Move_1":
            raise RuntimeError("no graphics driver")
        return render_motion(self, job)

    render_motion = motions.MotionStage._render_motion
    monkeypatch.setattr(motions.MotionStage, "_render_motion", fail_on_one)
    move = ([0, 1], [[0, 0, 0], [1, 0, 0]])
    (tmp_path / "mover.glb").write_bytes(tiny(move, move, move).glb())
    arguments = [[str(tmp_path / "mover.glb")], tmp_path / "out", SMALL]
    (made,) = make_motions(*arguments, workers=0)
    assert made.motions == 2 and list(made.quarantined.values()) == ["RuntimeError: no graphics driver"]
    assert MotionVideos.open(made.folder).names == ("Move_0", "Move_2")
    monkeypatch.undo()
    Ledger(tmp_path / "out").retry_quarantined()
    (made,) = make_motions(*arguments, workers=0)
    assert made.motions == 3 and not made.quarantined


@pytest.mark.parametrize(
    ("name", "moving", "all_motions", "heldout"),
    [("knight.glb", 3, 4, 1), pytest.param("KayKit_Knight.glb", 69, 76, 16, marks=requires_collection)],
)
def test_motions_of_an_artists_knight(name, moving, all_motions, heldout):
    """Animations of a single key are rejected unless poses are requested."""
    (subject,) = find_subjects([str(model(name))])
    record = subject.origin
    asset = gltf.load(model(name))
    plans, rejected = plan_motions(asset, record, MotionRecipe(frames=3))
    assert len(plans) == moving and {r.reason for r in rejected} == {"zero length"}
    plans, _ = plan_motions(asset, record, MotionRecipe(frames=3, poses=True, heldout=heldout))
    assert [plan.split for plan in plans].count("train") == all_motions - heldout
    assert len(plans) == all_motions
