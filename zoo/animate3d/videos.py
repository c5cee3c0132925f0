"""Videos of one object from several views, as the fit takes them: same length, same size, transparent background.

They come from files, a folder, arrays, or an MV-VDM; `read_videos` brings all of these into one form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from renderers.arguments import number, shown
from renderers.background import Background
from renderers.files import file_path
from renderers.gltf import SNIFFED_BYTES, identify
from renderers.values import by_value
from zoo.animate3d.matte import cut_out

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".m4v", ".avi", ".gif", ".webp", ".apng")
LOSSY_SUFFIXES = VIDEO_SUFFIXES[:6]  # of formats whose background has coding noise
PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
SECONDS = 2.0  # duration of arrays, which have no frame rate: that of MV-VDM's videos
_STILL = re.compile(r"view_\d\d+\.png")  # of `zoo stills`
MOST_FRAMES, MOST_BYTES = 1000, 4 << 30


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Videos:
    """Synchronised videos of an object.

    Attributes:
        frames: uint8 [V, T, H, W, 4], sRGB-encoded, straight alpha.
        times: float64 [T], seconds from the beginning.
        names: of the V views, for messages.
    """

    frames: np.ndarray
    times: np.ndarray
    names: tuple[str, ...]

    def __repr__(self) -> str:
        V, T, H, W, _ = self.frames.shape
        return f"Videos({V} views, {T} frames of {W}×{H}, {self.times[-1]:.2f} s)"


def read_videos(
    source: Any,
    *,
    background: Background | None = None,
    fps: float | None = None,
) -> Videos:
    """Read videos of an object from several views.

    Args:
        source: one file per view, each a video, an animated picture or a folder with a picture per frame; a folder with
            these, in the order of their names; an array [V, T, H, W, 3 or 4], uint8 or floats in 0..1; an
            `MVVDMOutput`; or `Videos`, which keep their times.
        background: colour behind the object in videos without transparency; None = estimated at the border.
        fps: frame rate; None = that of the files, or `SECONDS` in total for arrays.

    Returns:
        The videos, all of one length and size.

    Raises:
        TypeError, ValueError: the source is of another type; a file is not a video; videos differ in length, size or
            frame rate, or have fewer than two frames; the background has several colours.
        FileNotFoundError: a file does not exist.
    """
    if fps is not None:
        fps = number(fps, "fps", 0.01, 1000.0)
    if isinstance(source, Videos):  # as read before, transparent and with their times
        count = source.frames.shape[1]
        return source if fps is None else replace(source, times=np.arange(count) / fps)
    if hasattr(source, "frames"):
        source = source.frames
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        clips = _from_array(source)
        names = [f"view {view}" for view in range(len(clips))]
        rates: list[float | None] = [(len(clips[0])) / SECONDS] * len(clips)
    else:
        paths = video_paths(source)
        names = [path.name for path in paths]
        read = [read_frames(path) for path in paths]
        clips, rates = [frames for frames, _ in read], [rate for _, rate in read]
    _check_same(clips, names)
    rate = fps or _rate(rates, names)
    frames = np.stack(
        [_transparent(frames, background, name) for frames, name in zip(clips, names, strict=True)]
    )
    return Videos(frames, np.arange(frames.shape[1]) / rate, tuple(names))


def _from_array(source: Any) -> list[np.ndarray]:
    array = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
    if array.ndim != 5 or array.shape[-1] not in (3, 4) or not array.size:
        raise ValueError(
            f"videos: expected an array [V, T, H, W, 3 or 4], got {array.dtype} {list(array.shape)}; a single video "
            f"needs a first axis of length 1"
        )
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("videos: expected floats in 0..1, got values outside of it or NaN")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"videos: expected uint8 or floats in 0..1, got {array.dtype}")
    return list(array)


def video_paths(source: Any) -> list[Path]:
    """One path per view, of a file, a folder, or a list of files; see `read_videos`."""
    if isinstance(source, str | os.PathLike):
        folder = file_path(source, "videos")
        if folder.is_file():
            return [folder]
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such file or folder; expected videos of the object")
        paths = _in_folder(folder)
        if paths == [folder] and all(_STILL.fullmatch(path.name) for path in _pictures(folder)):
            raise ValueError(
                f"{folder}: expected a video per view, got the pictures of `zoo stills`, with which videos begin; "
                f"continue each with a video of the same name"
            )
        return paths
    if not isinstance(source, Sequence) or not source:
        raise TypeError(
            f"videos: expected one file per view, a folder with them, or an array [V, T, H, W, 3 or 4], got "
            f"{shown(source)}"
        )
    paths = [file_path(each, "videos") for each in source]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; expected a video of the object")
    return paths


def _in_folder(folder: Path) -> list[Path]:
    """One path per view: the videos in a folder, or folders with a picture per frame."""
    if views := _views_in(folder):
        return views
    raise ValueError(
        f"{folder}: expected one video per view ({', '.join(VIDEO_SUFFIXES)}) or one folder of pictures per view, "
        f"found neither"
    )


def _views_in(folder: Path) -> list[Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if videos := [path for path in entries if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES]:
        return videos
    if folders := [path for path in entries if path.is_dir() and _pictures(path)]:
        return folders
    return [folder] if _pictures(folder) else []


def places_in_folder(paths: Sequence[Path]) -> tuple[list[int], int] | None:
    """Places of videos among those in their folder, as `video_paths` orders them, and how many these are.

    None if they are of several folders, or not what a folder is searched for.
    """
    folder = paths[0].parent
    names = [path.name for path in _views_in(folder)]
    if all(path.parent == folder and path.name in names for path in paths):
        return [names.index(path.name) for path in paths], len(names)
    return None


def _pictures(folder: Path) -> list[Path]:
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(
        paths, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.name)]
    )


def _parts(name: str) -> list[str]:
    """Split a name so that numbers are compared as such: "f2.png" is before "f10.png"."""
    return re.split(r"(\d+)", name)


def read_frames(path: Path) -> tuple[np.ndarray, float | None]:
    """Frames uint8 [T, H, W, 3 or 4] of a video, and its frame rate, None if it has none."""
    if path.is_dir():
        pictures = _pictures(path)
        if not pictures:
            raise ValueError(
                f"{path}: expected a picture per frame ({', '.join(PICTURE_SUFFIXES)}), found none"
            )
        return _read_pictures(pictures), None
    if path.suffix.lower() in (".gif", ".webp", ".apng", ".png"):
        return _read_animated_picture(path)
    return _read_video(path)


def _read_pictures(paths: Sequence[Path]) -> np.ndarray:
    from PIL import Image

    frames = []
    for path in paths[: MOST_FRAMES + 1]:
        try:
            with Image.open(path) as picture:
                frames.append(np.asarray(picture.convert("RGBA")))
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path}: the picture is too large ({error}); make the frames smaller") from None
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path}: expected a picture, but it cannot be decoded ({error})") from None
        if frames[-1].shape != frames[0].shape:
            raise ValueError(
                f"{path}: expected the size of the first frame, {_size(frames[0])}, got {_size(frames[-1])}"
            )
    _check_amount(len(frames), frames[0].nbytes, paths[0].parent)
    return np.stack(frames)


def _read_animated_picture(path: Path) -> tuple[np.ndarray, float | None]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as picture:
            _check_amount(getattr(picture, "n_frames", 1), picture.width * picture.height * 4, path)
            frames, milliseconds = [], []
            for frame in ImageSequence.Iterator(picture):
                frames.append(np.asarray(frame.convert("RGBA")))
                milliseconds.append(float(frame.info.get("duration", 0)))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: expected an animated picture, but it cannot be decoded ({error})"
        ) from None
    total = sum(milliseconds)
    return np.stack(frames), 1000.0 * len(frames) / total if total > 0 else None


def _read_video(path: Path) -> tuple[np.ndarray, float | None]:
    import av
    from av.error import FFmpegError

    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: expected a video, got a file without a video track")
            stream = container.streams.video[0]
            rate = stream.average_rate
            # The decoders that FFmpeg prefers for VP8 and VP9 discard transparency.
            alpha = stream.metadata.get("alpha_mode") == "1"
            libvpx = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name) if alpha else None
            decoder: Any = av.CodecContext.create(libvpx, "r") if libvpx else None
            for packet in container.demux(stream):
                for frame in decoder.decode(packet) if decoder else packet.decode():
                    has_alpha = frame.format.name.startswith(
                        ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")
                    )
                    frames.append(frame.to_ndarray(format="rgba" if has_alpha else "rgb24"))
                    _check_amount(len(frames), frames[-1].nbytes, path)
    except FFmpegError as error:
        with path.open("rb") as file:
            kind = identify(file.read(SNIFFED_BYTES), path.name)
        reason = f"this is {kind.name}" if kind else f"FFmpeg cannot decode it: {error.strerror}"
        advice = "unpack it and give the folder" if kind and "archive" in kind.name else "choose another file"
        raise ValueError(
            f"{path}: expected a video ({', '.join(VIDEO_SUFFIXES)}), but {reason}; {advice}"
        ) from None
    if not frames:
        raise ValueError(f"{path}: expected a video, got a file without frames")
    return np.stack(frames), float(rate) if rate else None


def _check_amount(frames: int, frame_bytes: int, path: Path) -> None:
    if frames > MOST_FRAMES or frames * frame_bytes > MOST_BYTES:
        raise ValueError(
            f"{path}: expected at most {MOST_FRAMES} frames and {MOST_BYTES >> 30} GiB of pixels; cut the video or "
            f"make it smaller"
        )


def _check_same(clips: Sequence[np.ndarray], names: Sequence[str]) -> None:
    for clip, name in zip(clips, names, strict=True):
        if clip.shape[:3] != clips[0].shape[:3]:
            raise ValueError(
                f"videos: expected the same length and size in all views, got {len(clips[0])} frames of "
                f"{_size(clips[0][0])} in {names[0]} and {len(clip)} frames of {_size(clip[0])} in {name}; cut the "
                f"longer ones, scale the larger ones"
            )
    if len(clips[0]) < 2:
        raise ValueError(
            f"videos: expected at least 2 frames, got {len(clips[0])} in {names[0]}; give a video per view, or a "
            f"folder with a picture per frame"
        )


def _rate(rates: Sequence[float | None], names: Sequence[str]) -> float:
    known = {rate: name for rate, name in zip(rates, names, strict=True) if rate}
    if not known:
        raise ValueError("videos: pictures have no frame rate; give it as fps (--fps)")
    if max(known) > 1.001 * min(known):
        raise ValueError(
            "videos: expected one frame rate, got "
            + " and ".join(f"{rate:g} in {name}" for rate, name in sorted(known.items())[:: len(known) - 1])
            + "; give the right one as fps (--fps)"
        )
    return next(iter(known))


def _transparent(frames: np.ndarray, background: Background | None, name: str) -> np.ndarray:
    if frames.shape[-1] == 4 and frames[..., 3].min() < 255:
        visible = frames[..., 3].reshape(len(frames), -1).max(1)
        if not visible.all():
            first = int(np.argmin(visible))
            raise ValueError(f"{name}: frame {first} is transparent; expected the object in all frames")
        return frames
    lossy = Path(name).suffix.lower() in LOSSY_SUFFIXES
    return cut_out(frames[..., :3], background, name, noise=14.0 if lossy else 6.0)


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}×{frame.shape[0]}"
