"""Motion videos on disk, and the batches that training cuts from them."""

import numpy as np
import pytest
import torch
from tiny_motions import FRAMES, tiny_videos

from renderers.gaussians import Gaussians, TensorCameras, render
from zoo.dimo.data import MotionVideos, over, shrink, write_motion
from zoo.dimo.feed import FULL_EVERY, Feed
from zoo.dimo.points import calmest_frame, visual_hull


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> MotionVideos:
    return tiny_videos(tmp_path_factory.mktemp("caterpillar"), resolution=64)


def test_a_folder_opens_as_it_was_written(videos):
    again = MotionVideos.open(videos.folder)
    assert (again.names, again.splits, again.phases) == (videos.names, videos.splits, videos.phases)
    assert np.array_equal(again.world_to_camera, videos.world_to_camera)
    assert again.read([0, 2], [1], [0, 3]).shape == (2, 1, 2, 64, 64, 4)
    assert again.points(1).shape == (FRAMES, 15, 3)
    assert again.provenance == {"licence": "CC0-1.0"}


def test_motions_are_selected_by_name_index_or_split(videos):
    heldout = videos.select("heldout")
    assert heldout.names == ("motion 2",)
    assert torch.equal(heldout.read([0], [0], [1]), videos.read([2], [0], [1]))
    assert videos.select(["motion 1", 0]).names == ("motion 1", "motion 0")
    with pytest.raises(KeyError, match="no motion 'flies'"):
        videos.select(["flies"])
    with pytest.raises(IndexError, match="3 motions"):
        videos.select([3])


def test_smaller_pictures_are_averages_without_the_background_in_them():
    """Half of the block is covered, in red; what is under the transparent half must not show."""
    frames = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    frames[0, :, 0] = torch.tensor([200, 10, 0, 255], dtype=torch.uint8)
    frames[0, :, 1] = torch.tensor([0, 255, 0, 0], dtype=torch.uint8)
    assert shrink(frames, 1, 1)[0, 0, 0].tolist() == [200, 10, 0, 128]
    color, alpha = over(frames[:, :1, :1])
    assert color.flatten().tolist() == pytest.approx([200 / 255, 10 / 255, 0]) and alpha.item() == 1.0
    assert over(frames[:, :1, 1:])[0].tolist() == [[[[1.0, 1.0, 1.0]]]]


def test_cameras_follow_the_size_and_are_shared_where_they_can_be(videos):
    cameras = videos.cameras([0, 1], [0, 4], 3, 32)
    assert cameras.viewmats.shape == (1, 2, 4, 4) and (cameras.width, cameras.height) == (32, 32)
    assert np.allclose(cameras.Ks[0, 0, :2], videos.K[0, 0, :2] / 2)
    moved = videos.world_to_camera.copy()
    moved[1, :, 2, 3] += 0.1
    different = MotionVideos(**(vars(videos) | {"world_to_camera": moved})).cameras([0, 1], [0, 4], 3, 16)
    assert different.viewmats.shape == (6, 2, 4, 4)
    assert torch.equal(different.viewmats[2], different.viewmats[0])  # frames fastest
    assert not torch.equal(different.viewmats[3], different.viewmats[0])


def test_what_is_wrong_is_said(videos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"motions\.json"):
        MotionVideos.open(tmp_path)
    with pytest.raises(ValueError, match="resolution: expected an integer from 1 to 64, got 65"):
        videos.read([0], [0], [0], 65)
    with pytest.raises(ValueError, match="uint8 frames"):
        write_motion(tmp_path, "a", np.zeros((1, 1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="phases"):
        MotionVideos(**(vars(videos) | {"phases": [0.0]}))
    with pytest.raises(ValueError, match="without folders"):
        MotionVideos(**(vars(videos) | {"files": ["../a", "b", "c"]}))
    folder = tmp_path / "short"
    folder.mkdir()
    short = tiny_videos(folder)
    write_motion(folder, short.files[1], np.zeros((6, 2, 32, 32, 4), np.uint8))
    with pytest.raises(ValueError, match=r"motion 1\.npy: expected uint8 \[6, 5, 32, 32, 4\]"):
        MotionVideos.open(folder)


def _feed(videos, resolution=64, seed=(0, 1)) -> Feed:
    return Feed(videos, videos.train_views, (2, 3, 2), ((0, resolution),), 4, seed)


@pytest.mark.parametrize("resolution", [64, 32, 24])
def test_a_cut_shows_what_the_whole_picture_shows_there(videos, resolution):
    """Targets and cameras are cut alike: splats drawn with the cut cameras are the cut of the whole picture."""
    feed = _feed(videos, resolution)
    cut = feed.batch(1)
    motions, frames = cut.motions.tolist(), cut.frames.tolist()
    assert cut.targets.shape[:2] == (4, 3)
    if resolution != 24:  # 64 is no multiple of 24: no cut
        assert cut.share < 1
    full = videos.cameras(motions, [0, 1, 2, 3], len(frames), resolution)
    points = torch.from_numpy(np.stack([videos.points(m)[t] for m in motions for t in frames]))
    balls = Gaussians(
        points, torch.tensor([1.0, 0, 0, 0]).expand(1, 15, 4), torch.full((1, 15, 3), 0.05),
        torch.full((1, 15), 0.9), colors=torch.rand(1, 15, 3),
    )  # fmt: skip
    whole = render(balls, TensorCameras(full.viewmats, full.Ks, resolution, resolution)).rgb
    part = render(balls, cut.cameras).rgb
    stored = videos.read(motions, [0, 1, 2, 3], frames, resolution).transpose(1, 2).flatten(0, 1)
    for s in range(4):
        for c in range(3):
            view = _view(videos, cut.cameras.viewmats[s, c])
            shift = full.Ks[0, view, :2, 2] - cut.cameras.Ks[s, c, :2, 2]
            x, y = (int(v) for v in shift.round())
            here = slice(y, y + cut.cameras.height), slice(x, x + cut.cameras.width)
            assert torch.allclose(whole[s, view][here], part[s, c], atol=1e-5)
            target = cut.targets[s, c].int()
            visible = target[..., 3:] > 0
            assert ((stored[s, view][here].int() - target) * visible).abs().max() <= 1
            outside = stored[s, view].clone()
            outside[here] = 0
            assert outside[..., 3].max() == 0  # nothing of the object is cut off


def _view(videos, viewmat) -> int:
    return int(np.abs(videos.world_to_camera[0] - viewmat.numpy()).sum((1, 2)).argmin())


def test_batches_follow_from_the_seed_and_the_step_alone(videos):
    feed, other = _feed(videos, 32), _feed(videos, 32)
    run = list(feed.batches(0, 6))
    for step in (4, 2):
        again = other.batch(step)
        assert torch.equal(again.targets, run[step].targets) and torch.equal(again.noise, run[step].noise)
        assert torch.equal(again.cameras.Ks, run[step].cameras.Ks)
    assert run[0].share == 1.0 and FULL_EVERY == 8
    assert not torch.equal(_feed(videos, 32, (1, 1)).batch(4).noise, run[4].noise)


def test_the_hull_holds_the_object_in_its_colours(videos):
    motion, frame = calmest_frame(videos, [0, 1, 2, 3])
    assert frame == 0
    points, colors = visual_hull(videos, motion, frame, [0, 1, 2, 3], 400, np.random.default_rng(0))
    truth = videos.points(motion)[frame]
    gaps = np.linalg.norm(points[:, None] - truth, axis=-1)
    assert gaps.min(axis=1).max() < 0.25 and gaps.min(axis=0).max() < 0.12
    left, right = colors[points[:, 0] < -0.2].mean(0), colors[points[:, 0] > 0.2].mean(0)
    assert left[0] < right[0] - 0.3 and left[2] > right[2] + 0.3
