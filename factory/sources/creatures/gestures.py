"""Gestures and features that many species share, for joints that go by the usual names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factory.sources.creatures.body import GLOSSY, Body
from factory.sources.creatures.motion import Curve, Gesture, bend, ease, shift, together
from factory.sources.creatures.palette import INK, WHITE, Colour
from factory.sources.creatures.shapes import ball, rotation


def eye(
    body: Body, joint: str, centre: Sequence[float], radius: float,
    yaw: float = 0, pitch: float = 0, iris: Colour | None = None, flat: float = 0.6,
) -> None:  # fmt: skip
    """A dark glossy eye with a glint, or, with an `iris`, a white one with a coloured ring; it looks along yaw and pitch."""
    c = np.asarray(centre, float)
    look = rotation(pitch, yaw)

    def disc(colour: Colour, size: float, out: float, thick: float, up: float = 0.0, aside: float = 0.0):
        place = c + look @ np.array([aside, up, out]) * radius
        return ball(joint, colour, place, (size * radius, size * radius, thick * radius), pitch, yaw)

    layers = [disc(INK, 1, 0, flat)]
    if iris:
        layers = [
            disc(WHITE, 1, 0, flat),
            disc(iris, 0.62, 0.36 * flat / 0.6, 0.3),
            disc(INK, 0.38, 0.5 * flat / 0.6, 0.24),
        ]
    body.solid(*layers, material=GLOSSY, detail=6)
    body.solid(
        disc(
            (1, 1, 1), 0.24, (0.52 if not iris else 0.72) * flat / 0.6, 0.1, 0.36 if not iris else 0.2, 0.18
        ),
        material=GLOSSY,
        detail=3,
    )


SIDES = {"left": 1, "right": -1}


def crouch(depth: float, curve: Curve | None = None) -> Gesture:
    """Sinks by `depth` metres on bent knees (the feet stay)."""
    return shift("body", y=-depth, curve=curve)


def lean(x: float = 0, z: float = 0, degrees: float = 0, curve: Curve | None = None) -> Gesture:
    """Shifts the weight by metres to the left (x) and forward (z), tilting the body that way by `degrees`."""
    size = max((x * x + z * z) ** 0.5, 1e-9)
    return together(
        shift("body", x=x, z=z, curve=curve),
        bend("body", pitch=degrees * z / size, roll=-degrees * x / size, curve=curve),
    )


def spin(turns: float, curve: Curve | None = None) -> Gesture:
    """Turns everything about the vertical, feet and all: only while nothing touches the floor."""
    return bend("root", yaw=360 * turns, curve=curve or ease(0.3, 0.75))
