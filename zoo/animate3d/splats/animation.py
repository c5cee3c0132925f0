"""`SplatAnimation`: splats that move, to cut, render and save."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renderers.arguments import array, instance, integer
from renderers.background import Background, background_color
from renderers.cameras import Cameras
from renderers.values import by_value
from zoo.animate3d.limits import LARGEST_PICTURE, MOST_FRAMES
from zoo.animate3d.playing import Playable
from zoo.animate3d.splats.model import SplatModel
from zoo.animate3d.splats.motion import SplatMotion
from zoo.animate3d.viewpoints import three_quarter_view

if TYPE_CHECKING:
    from renderers.gaussians import Gaussians
    from zoo.animate3d.fit_report import FitReport

_MOST_PLACED = 100_000_000  # Gaussians times frames that are held in memory: 2.8 GB
_PREVIEW_FRAMES, _PREVIEW_SIDE = 24, 192


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SplatAnimation(Playable):
    """Splats and their motion, as returned by `zoo.animate` for a file of splats.

    Attributes:
        model: the still splats.
        motion: where they are over time.
        name: a title.
        report: how the motion was fitted to videos; None if it was not.
    """

    model: SplatModel
    motion: SplatMotion
    name: str = "animation"
    report: FitReport | None = None

    def __post_init__(self) -> None:
        instance(self.model, SplatModel, "SplatAnimation.model")
        instance(self.motion, SplatMotion, "SplatAnimation.motion")
        instance(self.name, str, "SplatAnimation.name")
        still, moved = self.model.gaussians.means.shape[1], self.motion.positions.shape[1]
        if still != moved:
            raise ValueError(
                f"SplatAnimation: expected a motion of the {still} Gaussians of {self.model.name}, got one of {moved}"
            )
        self._start_at_zero()

    def _repr_html_(self) -> str:
        from zoo.notebook import card, preview

        report, count = self.report, min(_PREVIEW_FRAMES, len(self.motion.times))
        frames = self.render(self.default_camera(_PREVIEW_SIDE), np.linspace(0, self.duration, count))[0]
        facts = {
            "model": self.model.name,
            "sentence": report.sentence if report else None,
            "video model": report.video_model if report else None,
            "frames": len(self.motion.times),
            "seconds": f"{self.duration:.3g}",
            "Gaussians": self.motion.positions.shape[1],
            "doubtful frames": len(report.doubtful_frames) if report else None,
        }
        fps = (count - 1) / self.duration if self.duration > 0 else 1.0
        return card(self.name, facts, preview(frames, fps))

    def _most_frames(self) -> int:
        return min(MOST_FRAMES, _MOST_PLACED // self.motion.positions.shape[1])

    def gaussians(self, time: float) -> Gaussians:
        """The Gaussians at a time, seconds from the first frame, as one scene; their colours have turned with them."""
        from zoo.animate3d.splats.drawing import scene

        moved = self._elapsed(array([time], "SplatAnimation.gaussians: time"))
        return scene(self.model, moved.positions[0], moved.rotations[0])

    def default_camera(self, resolution: int = 384) -> Cameras:
        """A fixed square three-quarter view that frames the whole motion, but for strays, with a small margin."""
        resolution = integer(resolution, "SplatAnimation.default_camera: resolution", 1, LARGEST_PICTURE)
        moved = self.motion.positions[:, self.model.solid].reshape(-1, 3).astype(np.float64)
        low, high = np.percentile(moved, [0.1, 99.9], axis=0)
        return three_quarter_view(moved[((moved >= low) & (moved <= high)).all(1)], resolution)

    def render(
        self, cameras: Cameras, times: np.ndarray | None = None, background: Background | None = 1.0
    ) -> np.ndarray:
        """Render every frame from every camera.

        Args:
            cameras: V cameras in the world of the model's file, the same for all frames (`default_camera`).
            times: seconds from the first frame; None = the frames of the motion.
            background: grey or RGB, sRGB-encoded, floats in 0..1 or integers in 0..255 (`renderers.background`);
                None = transparent.

        Returns:
            uint8 [V, T, H, W, 3], or [V, T, H, W, 4] with straight alpha if the background is None.
        """
        from zoo.animate3d.splats.drawing import draw

        instance(cameras, Cameras, "SplatAnimation.render: cameras")
        times = self.motion.times if times is None else array(times, "SplatAnimation.render: times", ("T",))
        color = (
            None if background is None else background_color(background, "SplatAnimation.render: background")
        )
        return np.stack([draw(self.gaussians(float(time)), cameras, color) for time in times], 1)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the animation in the format given by the file extension. A file appears complete or not at all.

        A missing folder is created. Options are checked before any work.

        .4dgs  the moving splats as one file (https://4dgs.dev), in plain colours
        .ply   folder with one file of 3DGS per frame: "roar.ply" writes roar/000.ply … and replaces the frames of an
               earlier animation (option: up="-y", as viewers of 3DGS expect, or "y" as in this package)
        .glb   folder with one glTF file of splats (KHR_gaussian_splatting) per frame, in plain colours: "roar.glb"
               writes roar/000.glb …; the extension has no motion
        .npz   arrays: centres and rotations over time, scales, opacities and spherical harmonics of the still splats
        .mp4   video from a fixed three-quarter view on white (options: fps=24, resolution=384, cameras=a single camera)

        Args:
            path: file to write, or the name of the folder with the suffix .ply or .glb.
            options: of the format.

        Returns:
            The path written: a file or a folder.

        Raises:
            TypeError, ValueError: unknown extension or option, or an option of another type or out of range.
            ModelError: what writes the format is not installed.
            OSError: the file cannot be written.
        """
        from zoo.animate3d.splats.saving import save

        return save(self, path, options)
