"""Videos for `zoo.animate`: reading, transparency, agreement of views, alignment with the still model, and the call."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from factory.sources import creatures
from renderers.gltf import load
from renderers.meshes import Shot, composite, render_clip
from renderers.video import encode_h264
from zoo.__main__ import main
from zoo.animate3d import animate, cameras_around, read_videos, render_stills, view_agreement
from zoo.animate3d.alignment import AlignmentError, check_alignment, compare_first_frames
from zoo.animate3d.matte import BackgroundError
from zoo.animate3d.viewpoints import read_cameras, relative_to_origin
from zoo.mvvdm.views import condition_cameras, condition_views, framing_transform

FRAMES = 4


@pytest.fixture(scope="module")
def asset():
    return load(creatures.build("fox", 0, ["trots-forward"]))


@pytest.fixture(scope="module")
def clip(asset):
    """The truth: four views of an animation, 96 pixels."""
    cameras = condition_cameras(4, 96)
    times = np.linspace(0, 0.5, FRAMES)
    return render_clip(asset, Shot(0, times, framing_transform(asset, cameras), cameras))


# --- cameras -----------------------------------------------------------------------------------------


def test_cameras_in_the_files_world_see_what_mvvdm_is_given(asset):
    stills = composite(render_stills(asset, cameras_around(asset, size=64)), (127, 127, 127))
    difference = np.abs(stills.astype(int) - condition_views(asset, 4, 64))
    assert difference.mean() < 0.1  # of 255; another camera differs by more than 5
    turned = composite(
        render_stills(asset, cameras_around(asset, [90, 180, 270, 0], size=64)), (127, 127, 127)
    )
    assert np.abs(turned.astype(int) - condition_views(asset, 4, 64)).mean() > 5


def test_cameras_do_not_depend_on_the_units_of_the_file(asset):
    cameras = cameras_around(asset, size=64)
    pixels, _ = cameras.project(asset.positions(None, 0.0)[asset.visible].astype(float))
    assert 0.14 < pixels.min() / 64 * 2 < 0.2 or 0.14 < 2 - pixels.max() / 64 * 2 < 0.2  # the margin of 15 %
    near = relative_to_origin(cameras, asset)
    assert np.allclose(near.world_to_camera, cameras.world_to_camera)  # this asset is at the origin


def test_cameras_are_written_and_read(tmp_path, asset):
    cameras = cameras_around(asset, [10, 200], [5, -20], 48)
    (tmp_path / "cameras.json").write_text(json.dumps(cameras.to_json()))
    assert read_cameras(tmp_path / "cameras.json") == cameras
    (tmp_path / "cameras.json").write_text('{"width": 3}')
    with pytest.raises(ValueError, match=r"cameras\.json: cameras: expected an object with width"):
        read_cameras(tmp_path / "cameras.json")
    (tmp_path / "cameras.json").write_text("azimuth 0, 90")
    with pytest.raises(ValueError, match=r"cameras\.json: expected the cameras as `zoo stills` .* not JSON"):
        read_cameras(tmp_path / "cameras.json")


# --- transparency ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("background", "error", "area"), [((127, 127, 127), 1.5, 0.04), ((0, 0, 0), 1.5, 0.06)]
)
def test_alpha_is_recovered_from_a_plain_background(clip, background, error, area):
    videos = read_videos(composite(clip.frames, background))
    alpha, truth = videos.frames[..., 3].astype(float), clip.frames[..., 3].astype(float)
    assert np.abs(alpha - truth).mean() < error  # of 255
    assert abs(alpha.sum() / truth.sum() - 1) < area
    solid = truth == 255
    inside = ndimage.binary_erosion(solid, np.ones((1, 1, 3, 3)))
    assert np.abs(videos.frames[inside].astype(int) - clip.frames[inside])[..., :3].max() == 0


def test_alpha_of_the_source_is_kept(clip):
    assert np.array_equal(read_videos(clip.frames).frames, clip.frames)


def test_regions_of_the_backgrounds_colour_inside_the_object_stay():
    frames = np.full((1, 2, 40, 40, 3), 200, np.uint8)
    frames[:, :, 10:30, 10:30] = (250, 30, 30)
    frames[:, :, 18:22, 18:22] = 200
    alpha = read_videos(frames).frames[..., 3]
    assert alpha[0, 0, 20, 20] == 255 and alpha[0, 0, 5, 5] == 0


def test_several_background_colours_are_refused(clip):
    frames = composite(clip.frames, (127, 127, 127)).copy()
    frames[:, :, :, 48:][clip.frames[:, :, :, 48:, 3] == 0] = (20, 160, 20)
    with pytest.raises(BackgroundError, match="view 0: expected a background of one colour"):
        read_videos(frames)
    frames[:] = 90
    with pytest.raises(BackgroundError, match="frame 0 shows only background"):
        read_videos(frames)


# --- files -------------------------------------------------------------------------------------------


def _written(folder: Path, frames: np.ndarray, fps: float = 8) -> list[Path]:
    paths = [folder / f"view_{view:02d}.mp4" for view in range(len(frames))]
    for path, video in zip(paths, frames, strict=True):
        encode_h264(video, fps, crf=12, to=str(path))
    return paths


def test_files_folders_and_arrays_give_the_same(tmp_path, clip):
    frames = composite(clip.frames, (255, 255, 255))
    paths = _written(tmp_path, frames)
    listed, folder, array = read_videos(paths), read_videos(tmp_path), read_videos(frames, fps=8)
    assert np.array_equal(listed.frames, folder.frames) and np.array_equal(listed.times, folder.times)
    assert np.allclose(listed.times, np.arange(FRAMES) / 8) and np.allclose(array.times, listed.times)
    assert np.abs(listed.frames[..., 3].astype(int) - array.frames[..., 3]).mean() < 2
    pictures = tmp_path / "pictures" / "front"
    pictures.mkdir(parents=True)
    for index, frame in enumerate(clip.frames[0]):
        Image.fromarray(frame).save(
            pictures / f"f{index + 8}.png"
        )  # f8, f9, f10: in the order of the numbers
    read = read_videos(tmp_path / "pictures", fps=8)
    assert np.array_equal(read.frames, clip.frames[:1])
    Image.fromarray(clip.frames[0, 0]).save(
        tmp_path / "a.webp", save_all=True, append_images=[Image.fromarray(f) for f in clip.frames[0, 1:]],
        duration=125, lossless=True, exact=True,
    )  # fmt: skip
    moving = read_videos(tmp_path / "a.webp")
    assert np.array_equal(moving.frames, clip.frames[:1]) and np.allclose(moving.times, read.times)
    assert read_videos(moving) is moving
    assert np.allclose(read_videos(moving, fps=4).times, np.arange(FRAMES) / 4)


def test_wrong_videos_get_a_sentence(tmp_path, clip):
    frames = composite(clip.frames, (255, 255, 255))
    paths = _written(tmp_path, frames)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ValueError, match=r"text.mp4: expected a video .* FFmpeg cannot decode"):
        read_videos([text])
    encode_h264(frames[0, :2], 8, to=str(tmp_path / "short.mp4"))
    with pytest.raises(
        ValueError, match=r"same length and size in all views, got 4 frames of 96×96 .* 2 frames"
    ):
        read_videos([paths[0], tmp_path / "short.mp4"])
    encode_h264(frames[0], 30, to=str(tmp_path / "fast.mp4"))
    with pytest.raises(ValueError, match=r"one frame rate, got 8 in view_00.mp4 and 30 in fast.mp4"):
        read_videos([paths[0], tmp_path / "fast.mp4"])
    with pytest.raises(FileNotFoundError, match=r"nowhere.mp4: no such file"):
        read_videos([tmp_path / "nowhere.mp4"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="one video per view"):
        read_videos(empty)
    for array, sentence in (
        (np.zeros((2, 8, 8, 3), np.uint8), r"\[V, T, H, W, 3 or 4\]"),
        (np.full((1, 2, 8, 8, 3), 1.5), "floats in 0..1"),
        (frames[:, :1], "at least 2 frames"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_videos(array)
    with pytest.raises(TypeError, match="uint8"):
        read_videos(np.zeros((1, 2, 8, 8, 3), np.int32))


def test_pictures_and_archives_in_the_place_of_videos_get_a_sentence(tmp_path, clip):
    frames = composite(clip.frames, (255, 255, 255))
    stills = tmp_path / "stills"
    stills.mkdir()
    for view in range(4):
        Image.fromarray(frames[view, 0]).save(stills / f"view_{view:02d}.png")
    with pytest.raises(
        ValueError, match=r"stills: expected a video per view, got the pictures of `zoo stills`"
    ):
        read_videos(stills, fps=8)
    with pytest.raises(ValueError, match=r"at least 2 frames, got 1 in view_00.png; give a video per view"):
        read_videos(sorted(stills.iterdir()))
    archive = tmp_path / "videos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(stills / "view_00.png")
    with pytest.raises(ValueError, match=r"videos.zip: expected a video .* this is a zip archive; unpack it"):
        read_videos(archive)
    huge = tmp_path / "huge"
    huge.mkdir()
    size = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", size), (b"IDAT", b""))
    ]
    (huge / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"0.png: the picture is too large .*; make the frames smaller"):
        read_videos(huge, fps=8)


def test_cameras_in_the_folder_are_those_of_the_files_that_are_named(tmp_path, asset, clip, monkeypatch):
    """A shell passes videos/*.mp4 as names: the cameras are the same as with the folder."""
    path, folder = tmp_path / "fox.glb", tmp_path / "videos"
    path.write_bytes(creatures.build("fox", 0, []))
    folder.mkdir()
    paths = _written(folder, composite(clip.frames, (255, 255, 255)))
    cameras = cameras_around(asset, [30, 120, 210, 300], 40, 96)
    (folder / "cameras.json").write_text(json.dumps(cameras.to_json()))

    class Compared(Exception):
        pass

    def compare(first, stills, azimuths):
        raise Compared(stills)

    monkeypatch.setattr("zoo.animate3d.api.check_alignment", compare)
    expected = render_stills(load(path), cameras)
    every = [0, 1, 2, 3]
    for given, views in (
        (folder, every),
        (paths, every),
        ([paths[3], paths[1]], [3, 1]),
        (paths[2], [2]),
    ):
        with pytest.raises(Compared) as caught:
            animate(path, videos=given)
        assert np.array_equal(caught.value.args[0], expected[views])
    with pytest.raises(Compared) as caught:
        animate(path, videos=paths, azimuths_deg=[0, 90, 180, 270])
    assert not np.array_equal(caught.value.args[0], expected)
    paths[3].unlink()
    with pytest.raises(ValueError, match=r"cameras\.json: expected one camera per video .* 4 cameras for 3"):
        animate(path, videos=paths[:2])


# --- agreement and alignment -------------------------------------------------------------------------


def test_views_of_one_object_agree_and_warped_ones_do_not(clip):
    alpha = clip.frames[..., 3]
    right = view_agreement(alpha, clip.cameras)
    assert right.mean < 0.5 and right.pixels.shape[:2] == (FRAMES, len(right.pairs))
    # A shift of one view along the image's columns by 3 pixels moves both of its outermost planes by about 3.
    moved = alpha.copy()
    moved[1] = np.roll(moved[1], 3, 1)
    shifted = view_agreement(moved, clip.cameras)
    assert 2.3 < shifted.mean * len(right.pairs) / sum(1 in pair for pair in right.pairs) < 3.7
    assert shifted.per_view(4).argmax() == 1
    assert "disagree by" in shifted.sentence()
    single = view_agreement(alpha[:1], clip.cameras[:1])
    assert np.isnan(single.mean) and "cannot be measured" in single.sentence()


def test_first_frames_must_show_the_still_model(asset):
    cameras = cameras_around(asset, size=64)
    stills = render_stills(asset, cameras)
    assert check_alignment(stills, stills, [0, 90, 180, 270]).iou.min() == 1
    wrong = stills[[1, 0, 2, 3]]
    assert compare_first_frames(wrong, stills).order in (
        (1, 0, 2, 3),
        (3, 0, 2, 1),
        (1, 2, 0, 3),
        (3, 2, 0, 1),
    )
    with pytest.raises(
        AlignmentError, match=r"does not show the still model.*azimuths 90, 0, 180, 270"
    ) as caught:
        check_alignment(wrong, stills, [0, 90, 180, 270])
    sheet = Path(str(caught.value).partition("(")[2].partition(" shows")[0])
    assert Image.open(sheet).size == (256, 128)
    sheet.unlink()


def test_wrong_arguments_of_animate(tmp_path, asset, clip):
    path = tmp_path / "fox.glb"
    path.write_bytes(creatures.build("fox", 0, []))
    with pytest.raises(ValueError, match="either a sentence or videos, got neither"):
        animate(path)
    with pytest.raises(ValueError, match="either a sentence or videos, got both"):
        animate(path, "trots", videos=clip.frames)
    with pytest.raises(ValueError, match="got no words"):
        animate(path, "  ")
    with pytest.raises(ValueError, match="stiffness: expected one of rendered, generated, got 'soft'"):
        animate(path, videos=clip.frames, stiffness="soft")
    with pytest.raises(ValueError, match="method: expected one of graph, paper, best, got 'field'"):
        animate(path, videos=clip.frames, method="field")
    with pytest.raises(ValueError, match="refine: expected a sentence"):
        animate(path, videos=clip.frames, refine=True)
    with pytest.raises(TypeError, match="guidance_scale: is an option of the video model"):
        animate(path, videos=clip.frames, guidance_scale=3)
    with pytest.raises(ValueError, match="one camera per video, got 2 cameras for 4 videos"):
        animate(path, videos=clip.frames, azimuths_deg=[0, 90])
    with pytest.raises(TypeError, match="azimuths_deg: expected one angle in degrees per video, got 90"):
        animate(path, videos=clip.frames, azimuths_deg=90)
    with pytest.raises(AlignmentError, match="first frame of view"):
        animate(path, videos=clip.frames[[1, 0, 3, 2]])


@pytest.mark.parametrize(
    ("out", "more", "words"),
    [
        ("views/view_00.mp4", [], "would replace files of"),
        ("views.ply", [], "would replace files of"),
        ("a.html", ["--report", "a.html"], "is --out, too"),
    ],
)
def test_the_command_replaces_nothing_that_it_reads(tmp_path, monkeypatch, capsys, clip, out, more, words):
    """Nor its own result. A folder `views` takes the place of views.ply: one file per frame."""
    monkeypatch.chdir(tmp_path)
    Path("fox.glb").write_bytes(creatures.build("fox", 0, []))
    Path("views").mkdir()
    Path("views/view_00.mp4").write_bytes(b"a video")
    assert main(["animate", "fox.glb", "--videos", "views", "--out", out, *more]) == 2
    assert words in capsys.readouterr().err
    assert Path("views/view_00.mp4").read_bytes() == b"a video" and not Path("a.html").exists()


@pytest.mark.slow
def test_a_model_follows_its_own_videos(tmp_path, asset, clip):
    """The whole way, against the true vertices, and the report's page."""
    from zoo.animate3d.report import write_report

    path = tmp_path / "fox.glb"
    path.write_bytes(creatures.build("fox", 0, ["trots-forward"]))
    animation = animate(path, videos=clip.frames, fps=6)
    still = asset.positions(None, 0.0).astype(float)
    truth = np.stack([asset.positions(0, time) for time in np.linspace(0, 0.5, FRAMES)])
    error = np.linalg.norm(animation.vertices() - truth, axis=-1)[1:].mean()
    assert error < 0.5 * np.linalg.norm(still - truth, axis=-1)[1:].mean()
    assert animation.report.agreement.mean < 0.5 and animation.report.alignment.iou.min() > 0.9
    page = write_report(tmp_path / "report.html", animation).read_text()
    assert page.count("<video") == 12 and "http" not in page
    with pytest.raises(ValueError, match="frames are not those of its videos"):
        write_report(tmp_path / "trimmed.html", animation.trim(0.1))
    assert animation.save(tmp_path / "out.glb").stat().st_size > path.stat().st_size
