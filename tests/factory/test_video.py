"""Stored pixels match the rendered ones on any background, and other decoders give the same result."""

from __future__ import annotations

import io
import zlib

import av
import numpy as np
import pytest
from sample_assets import model, with_bundled
from sample_clips import disc_clip, disc_colour, disc_coverage, psnr, silhouette_band

from factory.dataset.codecs.video import (
    bleed_colour,
    decode_h264,
    decode_on,
    encode_colour,
    pack_alpha,
    unpack_alpha,
)
from renderers import video
from renderers.meshes.clip import GREY, WHITE, composite_in_place
from renderers.video import encode_h264

BACKGROUNDS = {"white": WHITE, "black": (0, 0, 0), "grey": GREY, "red": (255, 0, 0)}


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """Grey frames, uint8 [20, 64, 96, 3], all different; grey because 4:2:0 subsamples colour."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (8, 12, 1)).repeat(8, 0).repeat(8, 1).repeat(3, 2)
    return np.stack([np.roll(coarse, 3 * t, axis=1) for t in range(20)]).astype(np.uint8)


def torchcodec_frames(torchcodec, data: bytes, frames: list[int]) -> np.ndarray:
    return torchcodec.VideoDecoder(data, dimension_order="NHWC").get_frames_at(frames).data.numpy()


# --- colour past the silhouette -------------------------------------------------------------------


def test_colour_goes_one_pixel_past_the_silhouette_and_no_further():
    frames = np.zeros((1, 5, 5, 4), np.uint8)
    frames[0, 1, 1] = (10, 20, 30, 255)
    frames[0, 1, 2] = (110, 120, 130, 51)  # a fifth covered: a fifth of the weight
    bled = bleed_colour(frames)[0]

    assert bled[1, 1].tolist() == [10, 20, 30, 255]
    assert bled[1, 2].tolist() == [110, 120, 130, 255]  # covered pixels keep their own colour
    assert bled[0, 0].tolist() == [10, 20, 30, 255]  # sees the first only
    assert bled[1, 3].tolist() == [110, 120, 130, 255]  # sees the second only
    # (10 * 255 + 110 * 51) / 306 = 26.67
    assert bled[2, 1].tolist() == [27, 37, 47, 255]
    for y, x in ((1, 4), (3, 1), (4, 4)):
        assert bled[y, x].tolist() == [*GREY, 255]


def test_colour_past_a_silhouette_at_the_border_of_the_picture():
    frames = np.zeros((2, 4, 4, 4), np.uint8)
    frames[0, 0, 0] = (200, 100, 50, 255)
    frames[1, 3, 3] = (50, 100, 200, 255)
    bled = bleed_colour(frames)
    assert (bled[0, :2, :2, :3] == (200, 100, 50)).all()
    assert (bled[1, 2:, 2:, :3] == (50, 100, 200)).all()
    assert (bled[0, 2:, 2:, :3] == GREY).all() and (bled[1, :2, :2, :3] == GREY).all()


# --- the video ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [64, 66, 96])
def test_same_frames_give_the_same_bytes_and_name_no_encoder(moving, width):
    moving = moving[:, :, :width]
    data = encode_h264(moving, 24)
    for used in range(1, 16):  # in memory with old content, which x264's macroblock tree would depend on
        litter = [np.full(size, used, np.uint8) for size in range(1000, 100_000, 9000)]
        del litter
        assert encode_h264(moving.copy(), 24) == data
    assert b"x264" not in data and b"Lav" not in data
    with_alpha = np.concatenate([moving, np.full((*moving.shape[:3], 1), 9, np.uint8)], axis=-1)
    assert encode_h264(with_alpha, 24) == data


def test_processors_encode_the_same_bytes(moving, monkeypatch):
    """x264 with its vector code for this processor and without any."""
    data = encode_h264(moving, 24)
    monkeypatch.setattr(video, "X264", f"{video.X264}:asm=0")
    assert encode_h264(moving, 24) == data


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (34, 46), (16, 18)])
def test_planes_are_what_ffmpeg_makes_of_the_colours(size):
    """Noise whose alpha is 0 in places, over all frames and in a part of them that the object covers."""
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (5, *size, 4), np.uint8)
    frames[..., 3] *= rng.random(frames.shape[:3]) < 0.3
    frames[2, ..., 3] = 255
    small = np.zeros_like(frames)
    small[1:, 4:11, 6:9] = frames[1:, 4:11, 6:9]
    convert = video._Yuv420()
    for given in (frames, small):
        for picture, frame in zip(encoded_pictures(given), bleed_colour(given), strict=True):
            for plane, expected in zip(
                picture, planes(convert(av.VideoFrame.from_ndarray(frame, format="rgba"))), strict=True
            ):
                np.testing.assert_array_equal(plane, expected)


def encoded_pictures(frames: np.ndarray) -> list[list[np.ndarray]]:
    """The planes of each picture that `encode_colour` gives to the encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "_encode", lambda pictures, *_: [planes(picture) for picture in pictures])
        return encode_colour(frames, 24)


def planes(picture: av.VideoFrame) -> list[np.ndarray]:
    """Copies of the planes, without row padding."""
    widths = (picture.width, picture.width // 2, picture.width // 2)
    return [plane[:, :width].copy() for plane, width in zip(video.planes_of(picture), widths, strict=True)]


@pytest.mark.parametrize("width", [16, 18, 64, 96])
def test_the_colour_video_is_that_of_the_whole_frames(width):
    """Whatever part of them is covered: bytes are the same."""
    rng = np.random.default_rng(width)
    for rows, columns in (
        (slice(0, 0), slice(0, 0)),
        (slice(0, 1), slice(0, 1)),
        (slice(9, 31), slice(5, 6)),
    ):
        frames = np.zeros((5, 48, width, 4), np.uint8)
        covered = frames[:, rows, columns]
        covered[:] = rng.integers(0, 256, covered.shape)
        assert encode_colour(frames, 24) == encode_h264(bleed_colour(frames), 24)


def test_what_others_see_in_the_file(moving):
    with av.open(io.BytesIO(encode_h264(moving, 24))) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 24 and stream.frames == 20
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
        assert [index for index, key in enumerate(keys) if key] == [0, 8, 16]


def test_what_torchcodec_sees_in_the_file(torchcodec, moving):
    metadata = torchcodec.VideoDecoder(encode_h264(moving, 24)).metadata
    assert (metadata.color_space, metadata.color_primaries) == ("bt709", "bt709")
    assert metadata.color_transfer_characteristic == "iec61966-2-1"
    assert (metadata.num_frames, metadata.average_fps, metadata.duration_seconds) == (20, 24, 20 / 24)


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), GREY, WHITE, (0, 0, 0)]
)
def test_a_flat_colour_comes_back_through_another_decoder(torchcodec, colour):
    flat = np.broadcast_to(np.array(colour, np.uint8), (2, 32, 32, 3))
    data = encode_h264(flat, 24)
    for decoded in (torchcodec_frames(torchcodec, data, [0, 1]), decode_h264(data)):
        assert np.abs(decoded.astype(int) - flat).max() <= 3


def test_a_colour_decoded_with_another_matrix_does_not_come_back():
    data = encode_h264(np.broadcast_to(np.array((0, 255, 0), np.uint8), (1, 32, 32, 3)), 24)
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU601")
    assert np.abs(frame.to_ndarray().astype(int) - (0, 255, 0)).max() > 10


@pytest.mark.parametrize("gop", [1, 8, 250])
def test_every_frame_by_its_index_as_torchcodec_finds_it(torchcodec, moving, gop):
    data = encode_h264(moving, 24, gop=gop)
    everything = decode_h264(data)
    assert everything.shape == moving.shape and everything.dtype == np.uint8
    assert psnr(everything, moving, np.ones(moving.shape[:3], bool)) > 35
    # Control: one frame off.
    assert psnr(everything[1:], moving[:-1], np.ones((19, 64, 96), bool)) < 20
    for index in range(len(moving)):
        assert np.array_equal(decode_h264(data, [index])[0], everything[index])
    picked = [17, 3, 3, 9]
    assert np.array_equal(decode_h264(data, picked), everything[picked])
    assert np.abs(torchcodec_frames(torchcodec, data, picked).astype(int) - everything[picked]).max() <= 1
    rgba = decode_h264(data, picked, channels=4)
    assert np.array_equal(rgba[..., :3], everything[picked]) and (rgba[..., 3] == 255).all()
    assert decode_h264(data, []).shape == (0, 64, 96, 3)


@pytest.mark.parametrize("size", [(34, 50), (50, 34), (36, 68)])
def test_no_column_is_left_out(size):
    """Widths of 16n + 2 and 16n + 4, for which swscale does not write all columns of rgba."""
    noise = np.random.default_rng(4).integers(0, 256, (3, *size, 3), np.uint8)
    data = encode_h264(noise, 24)
    with av.open(io.BytesIO(data)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(decode_h264(data), expected)
    assert np.array_equal(decode_h264(data, channels=4)[..., :3], expected)


def test_other_matrices_are_refused(moving):
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(moving[0], "rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"limited range with the matrix of BT\.709.*got \('yuv420p', 2, "):
        decode_h264(target.getvalue())


def test_colour_and_alpha_of_two_sizes_are_refused(moving):
    video, levels = encode_h264(moving, 24), np.arange(256, dtype=np.uint8)
    for alpha, out in (
        ((20, 64, 98), (1, 3, 64, 96)),
        ((19, 64, 96), (1, 3, 64, 96)),
        ((20, 64, 96), (1, 3, 64, 98)),
    ):
        packed = pack_alpha(np.zeros(alpha, np.uint8))
        with pytest.raises(ValueError, match=r"sizes differ: .*20 frames, 96x64"):
            decode_on(GREY, video, packed, [0], levels, np.empty(out, np.uint8))


def test_refusals_say_what_was_wrong(moving):
    with pytest.raises(ValueError, match="requires even sides from 2 to 16384, got 95x64"):
        encode_h264(moving[:, :, :95], 24)
    with pytest.raises(ValueError, match=r"expected frames uint8 \[T, H, W, 3\].*float64"):
        encode_h264(moving / 255.0, 24)
    with pytest.raises(ValueError, match="T > 0"):
        encode_h264(moving[:0], 24)
    data = encode_h264(moving, 24)
    for index in (20, -1):
        with pytest.raises(IndexError, match=f"frame {index} of a video of 20"):
            decode_h264(data, [index])
    for damaged in (b"", data[:300], b"not a video" * 99):
        with pytest.raises(ValueError, match=r"not a readable H\.264 mp4"):
            decode_h264(damaged)


# --- alpha ----------------------------------------------------------------------------------------


def test_alpha_is_lossless_and_anybody_reads_it():
    alpha = disc_clip(views=1).frames[0, ..., 3]
    data = pack_alpha(alpha)
    assert np.array_equal(unpack_alpha(data), alpha)
    assert np.array_equal(unpack_alpha(data, [5, 0]), alpha[[5, 0]])
    assert np.array_equal(np.load(io.BytesIO(zlib.decompress(data))), alpha)
    assert len(data) < alpha.size / 10
    noise = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    assert np.array_equal(unpack_alpha(pack_alpha(noise)), noise)


def test_alpha_refusals():
    data = pack_alpha(np.zeros((2, 4, 4), np.uint8))
    npy = io.BytesIO()
    np.save(npy, np.zeros((2, 4, 4), np.int8))
    others = [
        zlib.compress(npy.getvalue()),
        zlib.compress(b"\x93NUMPY nothing"),
        zlib.compress(zlib.decompress(data) + b"0"),
    ]
    for damaged in (b"", data[:-3], *others):
        with pytest.raises(ValueError, match="not a packed alpha"):
            unpack_alpha(damaged)
    with pytest.raises(ValueError, match=r"expected uint8 \[T, H, W\]"):
        pack_alpha(np.zeros((2, 4, 4)))


# --- composited -----------------------------------------------------------------------------------


def composited(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, ...]) -> np.ndarray:
    frames = np.concatenate([colour[..., :3], alpha[..., None]], axis=-1)
    composite_in_place(frames, background)
    return frames[..., :3]


@pytest.mark.parametrize("background", BACKGROUNDS.values(), ids=BACKGROUNDS)
def test_a_disc_on_a_background_is_the_disc_drawn_on_it(background):
    """Reference: coverage × colour, computed from the formula of the disc."""
    clip = disc_clip(views=2, frames=8, size=96)
    view = 1
    coverage = np.stack([disc_coverage(t, 8, 96) for t in range(8)])[..., None]
    direct = coverage * disc_colour(view, 2) + (1.0 - coverage) * np.array(background)
    alpha = clip.frames[view, ..., 3]
    band = silhouette_band(alpha)
    stored = bleed_colour(clip.frames[view])
    decoded = decode_h264(encode_h264(stored, 24))

    assert psnr(composited(stored, alpha, background), direct, band) >= 45  # required: 38
    assert psnr(composited(decoded, alpha, background), direct, band) >= 36
    assert (composited(decoded, alpha, background)[alpha == 0] == background).all()
    # Controls: straight colour interpreted as premultiplied, and compositing on grey before encoding.
    wrong = np.clip(stored[..., :3] + (1 - coverage) * np.array(background), 0, 255)
    on_grey = coverage * disc_colour(view, 2) + (1.0 - coverage) * np.array(GREY)
    subtracted = decode_h264(encode_h264(np.rint(on_grey).astype(np.uint8), 24)) + (1.0 - coverage) * (
        np.array(background) - np.array(GREY)
    )
    if background != (0, 0, 0):
        assert psnr(wrong, direct, band) < 38
    assert psnr(subtracted, direct, band) < psnr(composited(decoded, alpha, background), direct, band) - 6


@pytest.mark.parametrize("name", with_bundled("Fox.glb"))
def test_a_rendered_model_on_white_is_the_model_rendered_on_white(name, monkeypatch):
    """Reference: the same renderer with a white instead of a transparent clear colour."""
    moderngl = pytest.importorskip("moderngl")
    from renderers.cameras import orbit_cameras
    from renderers.gltf import load
    from renderers.meshes import RenderError, RenderSettings, Shot, render_clip

    asset = load(model(name))
    points = asset.pose(2, 0.0).positions[asset.visible]
    scale = 0.9 / np.linalg.norm(np.ptp(points, axis=0))
    transform = np.diag([scale, scale, scale, 1.0])
    transform[:3, 3] = -scale * (points.min(axis=0) + points.max(axis=0)) / 2
    cameras = orbit_cameras([0.7, 4.0], 0.3, 1.5, fov_y=0.7, width=256, height=256)
    shot = Shot(2, np.arange(6) / 24, transform, cameras)
    try:
        clip = render_clip(asset, shot, RenderSettings(samples=4), backend="opengl")
    except RenderError as error:
        pytest.skip(f"OpenGL does not run here: {error}")
    clear = moderngl.Framebuffer.clear
    monkeypatch.setattr(
        moderngl.Framebuffer, "clear", lambda self, *colour, **rest: clear(self, 1.0, 1.0, 1.0, 1.0, **rest)
    )
    direct = render_clip(asset, shot, RenderSettings(samples=4), backend="opengl").frames
    assert (direct[..., 3] == 255).all() and (clip.frames[..., 3] == 0).any()

    for view in range(2):
        alpha = clip.frames[view, ..., 3]
        band = silhouette_band(alpha)
        stored = bleed_colour(clip.frames[view])
        before = psnr(composited(stored, alpha, WHITE), direct[view, ..., :3], band)
        after = psnr(
            composited(decode_h264(encode_h264(stored, 24)), alpha, WHITE), direct[view, ..., :3], band
        )
        assert before >= 38
        assert after >= 30
        assert psnr(composited(stored, alpha, GREY), direct[view, ..., :3], band) < 20  # control
