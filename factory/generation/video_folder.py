"""Videos that were made elsewhere: a folder per motion, a video or a folder of pictures per view, and their cameras.

    my_videos/info.json                        {"azimuths_deg": [0, 90, …], "elevations_deg": [15, 15, …], …}
    my_videos/hops/view_00.mp4, view_01.mp4 …  or view_00/00.png …: what `zoo.animate3d.videos.read_videos` reads

info.json is that of DIMO's own data ("input_videos", "azimuths_deg", "elevations_deg"). It may also have "sentences"
(motion → sentence), "fps" (of pictures), "fov_y_deg" and "distance"; the default of the last two is DIMO's camera.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from factory.assets.record import AssetRecord
from factory.generation.jobs import MultiViewVideo, StillObject, ViewGeometry
from factory.motion_videos.plan import MotionRecipe, sentence
from factory.sources import SourceError
from renderers.meshes import composite

INFO = "info.json"
FPS = 10.5  # of pictures without a stated rate: 21 frames in two seconds
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class VideoFolder:
    """What `info.json` states.

    Attributes:
        folder: the folder.
        sentences: sentence → name of the motion's folder.
        geometry: of the cameras.
        fps: of pictures.
    """

    folder: Path
    sentences: dict[str, str]
    geometry: ViewGeometry
    fps: float

    @classmethod
    def open(cls, folder: str | Path) -> VideoFolder:
        """Read `info.json` and list the motions.

        Raises:
            SourceError: the file is missing or has other content, or there are no motions.
        """
        folder = Path(folder)
        try:
            info = json.loads((folder / INFO).read_text())
            azimuths = tuple(float(value) for value in info["azimuths_deg"])
            elevations = tuple(float(value) for value in info["elevations_deg"])
            recipe = MotionRecipe()
            fov, distance = (
                float(info.get("fov_y_deg", recipe.fov_y_deg)),
                float(info.get("distance", recipe.distance)),
            )
            fps, named = float(info.get("fps", FPS)), dict(info.get("sentences", {}))
            listed = [str(name) for name in info.get("input_videos", ())]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise SourceError(
                f"{folder / INFO}: expected JSON with azimuths_deg and elevations_deg, one number per view ({error!r})"
            ) from None
        if not azimuths or len(azimuths) != len(elevations):
            raise SourceError(
                f"{folder / INFO}: expected as many elevations_deg as azimuths_deg, got {len(elevations)} and "
                f"{len(azimuths)}"
            )
        names = listed or sorted(path.name for path in folder.iterdir() if path.is_dir())
        if wrong := [name for name in names if Path(name).name != name or not (folder / name).is_dir()]:
            raise SourceError(f"{folder / INFO}: there is no folder {wrong[0]!r} beside it")
        if not names:
            raise SourceError(f"{folder}: expected one folder per motion, found none")
        sentences = {str(named.get(name) or sentence(name)): name for name in names}
        return cls(folder, sentences, ViewGeometry(azimuths, elevations, fov, distance), fps)


def folder_record(folder: Path) -> AssetRecord:
    """The record of a folder of videos. Its fingerprint changes with the names, sizes and times of the files."""
    VideoFolder.open(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    return AssetRecord(folder.name, "videos", str(folder.resolve()), f"files:{digest}", title=folder.name)


class FolderVideos:
    """A source of videos: those of a folder."""

    def generate(self, still: StillObject, sentence: str, seed: int) -> MultiViewVideo:
        """Read the videos of one motion.

        Raises:
            SourceError: they cannot be read, or there is another number of them than of cameras.
        """
        from zoo.animate3d.videos import VIDEO_SUFFIXES, read_videos

        folder = VideoFolder.open(still.record.location)
        path = folder.folder / folder.sentences[sentence]
        has_rate = any(file.suffix.lower() in VIDEO_SUFFIXES for file in path.iterdir())
        try:
            videos = read_videos(path, fps=None if has_rate else folder.fps)
        except (ValueError, OSError) as error:
            raise SourceError(f"{path}: {error}") from None
        frames = videos.frames
        if len(frames) != len(folder.geometry):
            raise SourceError(f"{path}: {len(frames)} videos, but {INFO} has {len(folder.geometry)} cameras")
        colors = np.asarray(composite(frames, WHITE))
        about: dict[str, Any] = {"model": "videos", "folder": folder.folder.name, "motion": path.name}
        rate = 1 / float(videos.times[1] - videos.times[0])
        return MultiViewVideo(colors, colors[:, 0], rate, folder.geometry, WHITE, about, frames[..., 3])
