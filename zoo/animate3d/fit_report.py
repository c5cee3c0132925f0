"""`FitReport`: what an animation was fitted to, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.cameras import Cameras
from zoo.animate3d.agreement import Agreement
from zoo.animate3d.alignment import Alignment
from zoo.animate3d.fitting import Fit
from zoo.animate3d.splats.fitting import SplatFit
from zoo.animate3d.videos import Videos


@dataclass(frozen=True)
class FitReport:
    """How an animation was fitted, and how far to trust it.

    Attributes:
        videos: what the model was fitted to.
        cameras: of the videos, in the world of the model's file.
        alignment: of the videos' first frames with the still model.
        agreement: of the views' silhouettes with each other, before the fit.
        fit: the solver's result with its residuals.
        sentence: that the videos were generated from, None if they were given.
        video_model: name of the model that generated them, None if they were given.
    """

    videos: Videos
    cameras: Cameras
    alignment: Alignment
    agreement: Agreement
    fit: Fit | SplatFit
    sentence: str | None
    video_model: str | None

    @property
    def doubtful_frames(self) -> list[int]:
        """Frames in which the fit should not be trusted: their residual is large, or they are contested (`Fit`)."""
        return [int(frame) for frame in np.flatnonzero(self.fit.doubtful)]

    @property
    def frame_methods(self) -> tuple[str, ...]:
        """The method that found each frame, if more than one did."""
        methods = self.fit.methods if isinstance(self.fit, Fit) else ()
        return methods if len(set(methods)) > 1 else ()

    def sentences(self) -> list[str]:
        """The result in sentences, for people."""
        T = len(self.videos.times)
        doubtful = self.doubtful_frames
        listed = ", ".join(map(str, doubtful[:8])) + (" …" if len(doubtful) > 8 else "")
        result = [
            self.agreement.sentence(),
            f"after the fit, {float(np.median(self.fit.residual[1:])):.0%} of the largest difference between the still "
            f"model and the videos is left in the median frame",
            f"{len(doubtful)} of {T} frames are doubtful: {listed}" if doubtful else "no frame is doubtful",
        ]
        if isinstance(self.fit, Fit) and (disputed := int(self.fit.contested.sum())):
            result.append(
                f"in {disputed} of {T} frames, a motion far from this one shows the videos nearly as well"
            )
        if self.frame_methods:
            result.append(
                f"method paper found {self.frame_methods.count('paper')} of {T} frames, graph the others"
            )
        return result
