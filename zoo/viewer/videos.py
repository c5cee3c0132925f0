"""Videos beside each other: results of MV-VDM, video files, and folders with one video per view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renderers.cameras import Cameras
from zoo.export.html.page import plain
from zoo.viewer.scene import Description, MotionFacts
from zoo.viewer.wire import Part

LARGEST = 512 << 20  # bytes of all frames; beyond, they are reduced in size


class VideosScene:
    """V videos of T frames."""

    formats: tuple[str, ...] = (".mp4",)

    def __init__(self, clips: Sequence[np.ndarray], fps: float, title: str, names: Sequence[str]) -> None:
        """Args: uint8 [T, H, W, 3 or 4] per view, all of one length and size; frame rate; title; names of the views."""
        shapes = {clip.shape[:3] for clip in clips}
        if len(shapes) != 1:
            raise ValueError(f"{title}: expected videos of one length and size, got {sorted(shapes)}")
        frames = np.stack([_opaque(clip) for clip in clips])
        step = 1
        while frames[:, :, ::step, ::step].size > LARGEST:
            step += 1
        self.frames = np.ascontiguousarray(frames[:, :, ::step, ::step])
        self.fps, self.title, self.names = float(fps), title, tuple(names)

    @staticmethod
    def of_output(output: Any) -> VideosScene:
        """Videos of an `MVVDMOutput`."""
        from zoo.mvvdm.images import SECONDS

        frames = output.frames
        if not isinstance(frames, np.ndarray) or frames.ndim != 5 or frames.shape[-1] != 3:
            raise ValueError("MVVDMOutput: expected frames of output_type 'uint8' or 'np' to view")
        if frames.dtype != np.uint8:
            frames = (np.nan_to_num(frames).clip(0, 1) * 255).round().astype(np.uint8)
        names = [f"view {view}" for view in range(len(frames))]
        return VideosScene(list(frames), frames.shape[1] / SECONDS, "MV-VDM", names)

    @staticmethod
    def of_files(path: Path) -> VideosScene:
        """A video file, or a folder with one per view."""
        from zoo.animate3d.videos import read_frames, video_paths

        paths = video_paths(path)
        clips = [read_frames(each) for each in paths]
        rate = next((fps for _, fps in clips if fps), 24.0)
        return VideosScene([frames for frames, _ in clips], rate, path.name, [each.name for each in paths])

    def describe(self) -> Part:
        """Facts and names."""
        V, T, H, W, _ = self.frames.shape
        facts = {"views": V, "frames": T, "size": f"{W} × {H}", "frames per second": f"{self.fps:g}"}
        header = Description(
            kind="videos", title=self.title, facts=facts, names=(self.title,), formats=self.formats,
            start={"kind": "trained", "index": 0}, extra={"views": list(map(plain, self.names))},
        )  # fmt: skip
        return header.to_json(), {}

    def motion(self, choice: str) -> Part:
        """The pixels: "videos" uint8 [V, T, H, W, 3]."""
        T = self.frames.shape[1]
        return MotionFacts(self.title, T, (T - 1) / self.fps).to_json(), {"videos": self.frames}

    def save(self, choice: str, path: Path, camera: Cameras | None) -> Path:
        """Write the videos side by side."""
        from zoo.export.video import write_mp4

        wide = np.concatenate(list(self.frames), axis=2)
        write_mp4(path, wide[:, : wide.shape[1] // 2 * 2, : wide.shape[2] // 2 * 2], self.fps)
        return path


def _opaque(clip: np.ndarray) -> np.ndarray:
    from renderers.meshes.clip import composite

    return composite(clip, 1.0) if clip.shape[-1] == 4 else clip
