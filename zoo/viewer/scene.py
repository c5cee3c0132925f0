"""What the server shows: one scene per pane of the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from renderers.cameras import Cameras
from zoo.export.html.page import plain
from zoo.viewer.wire import Part

FOV_DEG, AZIMUTH_DEG, ELEVATION_DEG = (
    33.9,
    35.0,
    12.0,
)  # of the camera along the shorter side, and where it starts
FPS = 24  # frames per second that are sent; the page interpolates between them
MARGIN = 1.1  # of the picture around the sphere that holds the scene


class Scene(Protocol):
    """A scene of the viewer.

    Attributes:
        title: of the pane, any text.
        formats: suffixes that `save` can write.
    """

    title: str
    formats: tuple[str, ...]

    def describe(self) -> Part:
        """What does not change: the header, of `Description.to_json`, and arrays."""

    def motion(self, choice: str) -> Part:
        """A motion that the page requests in JSON: the header, of `MotionFacts.to_json`, and arrays over time."""

    def save(self, choice: str, path: Path, camera: Cameras | None) -> Path:
        """Write that motion in the format of the path's suffix; videos as seen from a camera. Returns the path."""


@dataclass(frozen=True)
class Description:
    """The header of a scene.

    Attributes:
        kind: which script of the page draws it: "splats", "frames", "mesh" or "videos".
        title: of the pane.
        facts: label → value.
        names: of the motions to choose from.
        formats: of downloads.
        start: the choice to begin with.
        target, distance: where the camera looks, and from how far; ignored for videos.
        samples, text: whether random samples and sentences can be requested.
        points: of the motions on the map of latents, or None.
        explained: share of the latents' variance on the map.
        key_points: whether there are key points and skinning weights to show.
        extra: further fields of a kind.
    """

    kind: str
    title: str
    facts: dict[str, object]
    names: tuple[str, ...]
    formats: tuple[str, ...]
    start: dict[str, Any]
    target: tuple[float, ...] = (0.0, 0.0, 0.0)
    distance: float = 2.0
    samples: bool = False
    text: bool = False
    points: np.ndarray | None = None
    explained: float = 0.0
    key_points: bool = False
    extra: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The header that the page receives; texts are bounded and have no control characters."""
        points = None if self.points is None else np.round(self.points, 5).tolist()
        return {
            **(self.extra or {}),
            "kind": self.kind,
            "title": plain(self.title),
            "facts": [[plain(label), plain(value)] for label, value in self.facts.items()],
            "names": [plain(name) for name in self.names],
            "formats": list(self.formats),
            "start": self.start,
            "camera": {
                "target": list(map(float, self.target)),
                "distance": float(self.distance),
                "fov_deg": FOV_DEG,
                "azimuth_deg": AZIMUTH_DEG,
                "elevation_deg": ELEVATION_DEG,
            },
            "samples": self.samples,
            "text": self.text,
            "map": points and {"points": points, "explained": self.explained},
            "keyPoints": self.key_points,
        }


@dataclass(frozen=True)
class MotionFacts:
    """The header of a motion.

    Attributes:
        title: of the motion.
        frames: number of frames.
        first, last: phases of the first and of the last frame, as shown by the page.
        seconds: from the first frame to the last.
        point: on the map of latents, or None.
        nearest: trained motions as (name, share); see `confident`.
        confident: whether the shares are those that a text head predicted.
    """

    title: str
    frames: int
    seconds: float
    first: float = 0.0
    last: float = 1.0
    point: tuple[float, ...] | None = None
    nearest: tuple[tuple[str, float], ...] = ()
    confident: bool = False

    def to_json(self) -> dict[str, Any]:
        """The header that the page receives."""
        return {
            "title": plain(self.title),
            "frames": self.frames,
            "seconds": self.seconds,
            "first": self.first,
            "last": self.last,
            "point": self.point and list(map(float, self.point)),
            "nearest": [[plain(name), round(share, 4)] for name, share in self.nearest],
            "confident": self.confident,
        }


def distance_of(radius: float) -> float:
    """Distance from which a sphere fits into the picture, in the unit of its radius."""
    return float(MARGIN * max(radius, 1e-6) / np.sin(np.radians(FOV_DEG) / 2))
