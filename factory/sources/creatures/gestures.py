"""Phrase books shared by several species, for skeletons with the standard joint names, and the eye geometry.

A book maps a phrase to a gesture. `size` is the height of the creature in metres; translations are proportional to it.
`neck` lists the joints that rotate the head, starting at the trunk. `own` is the possessive used in phrases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from factory.sources.creatures.body import GLOSSY, Body
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    both,
    curl,
    ease,
    foot,
    hold,
    hops,
    pulses,
    shift,
    steps,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, WHITE, Colour
from factory.sources.creatures.shapes import Shape, Vector, ball, rotation
from renderers import fixed

SIDES = {"left": 1, "right": -1}
TIMES = {"once": 1, "twice": 2, "three times": 3}
BIPED = (("left",), ("right",))
TROT = (("front_left", "back_right"), ("front_right", "back_left"))
Book = dict[str, Gesture]


def crouch(depth: float, curve: Curve | None = None) -> Gesture:
    """Lower the body by `depth` metres; the feet stay planted."""
    return shift("body", y=-depth, curve=curve)


def lean(x: float = 0, z: float = 0, degrees: float = 0, curve: Curve | None = None) -> Gesture:
    """Shift the body left (x) and forward (z) in metres, and tilt it in that direction by `degrees`."""
    size = max(math.sqrt(x * x + z * z), 1e-9)
    tilt = bend("body", pitch=degrees * z / size, roll=-degrees * x / size, curve=curve)
    return together(shift("body", x=x, z=z, curve=curve), tilt)


def tumble(pivot: float, pitch: float = 0, roll: float = 0, curve: Curve | None = None) -> Gesture:
    """Rotate the root forwards (pitch) or sideways (roll), in degrees, about a point `pivot` metres above the floor."""
    curve = curve or ease(0.3, 0.75)

    def around(s: np.ndarray) -> np.ndarray:
        return np.radians(pitch or roll) * curve(s)

    rise = shift("root", y=pivot, curve=lambda s: 1 - fixed.cos(around(s)))
    swing = shift(
        "root", x=pivot if roll else 0, z=0 if roll else -pivot, curve=lambda s: fixed.sin(around(s))
    )
    return together(bend("root", pitch=pitch, roll=roll, curve=curve), rise, swing)


def alternate(which: int, count: int = 4) -> Curve:
    """Return a curve with the even (`which` = 0) or odd (1) pulses of a train of `count` pulses."""
    return lambda s: fixed.sin(count * np.pi * s) ** 2 * (np.floor(count * s).clip(0, count - 1) % 2 == which)


# ---------------------------------------------------------------------------------------- books


def looks(size: float, neck: Sequence[str], ease_off: float = 1.0, own: str = "its") -> Book:
    """Head gestures: look, nod, shake and tilt, with small body motion.

    `ease_off` < 1 reduces the pitch, for heads with a smaller range of motion.
    """
    low = ease_off
    book = {
        "looks up": together(curl(neck, pitch=-52 * low), lean(z=-0.055 * size, degrees=4)),
        "looks down": together(curl(neck, pitch=50 * low), lean(z=-0.03 * size), crouch(0.03 * size)),
        "nods": together(
            curl(neck, pitch=42 * low, curve=pulses(3)), lean(z=0.055 * size), crouch(0.03 * size, pulses(3))
        ),
        f"shakes {own} head": together(
            curl(neck, yaw=55, curve=waves(3)), crouch(0.03 * size), lean(z=0.045 * size)
        ),
    }
    for side, x in SIDES.items():
        book |= {
            f"looks {side}": together(
                curl(neck, yaw=80 * x), bend("body", yaw=11 * x), lean(x=0.03 * x * size)
            ),
            f"tilts {own} head {side}": together(
                curl(neck, roll=-52 * x), lean(x=-0.05 * x * size, degrees=4)
            ),
        }
    return book


def stances(size: float, trunk: Sequence[str], head: str = "head", own: str = "its") -> Book:
    """Whole-body gestures with planted feet: crouch, lean, sway, twist, bounce, shiver and turn."""
    book = {
        "crouches": together(crouch(0.15 * size), curl(trunk, pitch=20), bend(head, pitch=-14)),
        "leans forward": together(lean(z=0.075 * size, degrees=9), curl(trunk, pitch=9), bend(head, pitch=-8)),
        "leans back": together(lean(z=-0.065 * size, degrees=9), curl(trunk, pitch=-9), bend(head, pitch=10)),
        "sways": together(lean(x=0.075 * size, degrees=6, curve=waves(1)), curl(trunk, roll=10, curve=waves(1))),
        "sways twice": together(lean(x=0.09 * size, degrees=7, curve=waves(2)), curl(trunk, roll=10, curve=waves(2))),
        "twists": together(bend("body", yaw=16, curve=waves(2)), curl(trunk, yaw=36, curve=waves(2)),
            crouch(0.03 * size)),
        "bounces": together(crouch(0.115 * size, pulses(4)), bend(head, pitch=10, curve=pulses(4))),
        "shivers": together(
            crouch(0.1 * size), lean(z=-0.05 * size), curl(trunk, yaw=9, curve=waves(9)),
                bend(head, yaw=9, roll=5, curve=waves(9))
        ),
    }  # fmt: skip
    for side, x in SIDES.items():
        turned = together(curl(trunk, roll=-13 * x), bend(head, roll=10 * x))
        book |= {
            f"leans {side}": together(lean(x=0.085 * x * size, degrees=8), turned, crouch(0.015 * size)),
            f"turns {own} body {side}": together(
                bend("body", yaw=16 * x), curl(trunk, yaw=34 * x), lean(z=-0.03 * size)
            ),
        }
    return book


def walks(
    size: float, gait: Sequence[Sequence[str]], count: int = 6, stride: float = 0.5, verb: str = "walks"
) -> Book:
    """Walking and turning gaits. `stride` is the distance covered in one clip (2 s), as a multiple of `size`."""
    way, lift, bob = stride * size, 0.055 * size, 0.014 * size
    book = {
        f"{verb} forward": steps(gait, count, forward=way, lift=lift, bob=bob),
        f"{verb} backwards": steps(gait, count, forward=-0.75 * way, lift=lift, bob=bob),
        f"{verb} on the spot": steps(gait, count, lift=2 * lift, bob=2.5 * bob),
        "turns around": steps(gait, count + 2, turn_deg=180, lift=lift, bob=bob),
    }
    for side, x in SIDES.items():
        book |= {
            f"steps to the {side}": steps(gait, max(4, count - 2), side=0.55 * way * x, lift=lift, bob=bob),
            f"turns {side}": steps(gait, count, turn_deg=90 * x, lift=lift, bob=bob),
            f"{verb} in a curve to the {side}": steps(
                gait, count, 0.8 * way, 0.3 * way * x, 70 * x, lift, bob
            ),
        }
    return book


def leaps(
    size: float, verb: str, forward: float = 0.25, height: float = 0.16, flight: Gesture | None = None
) -> Book:
    """Jumps with all feet, in place, in a direction and turning. `flight` is applied during each airborne phase."""
    hop = partial(hops, crouch=0.07 * size, flight=flight)
    book = {f"{verb} backwards": hop(1, forward=-forward * size, height=0.7 * height * size)}
    for times, n in TIMES.items():
        tall = height * size * (1.25, 1.0, 0.8)[n - 1]
        book |= {
            f"{verb} {times}": hop(n, height=1.3 * tall),
            f"{verb} forward {times}": hop(n, forward=forward * size * (0.6 + 0.4 * n), height=tall),
        }
    for side, x in SIDES.items():
        book |= {
            f"{verb} to the {side}": hop(1, side=forward * size * x, height=0.8 * height * size),
            f"{verb} round to the {side}": hop(
                2, 0.3 * forward * size, turn_deg=100 * x, height=0.7 * height * size
            ),
        }
    return book


def arms(size: float, trunk: Sequence[str], hand: str = "hand", reach: float = 1.0, own: str = "its") -> Book:
    """Arm gestures for arms that hang down in the rest pose. `reach` < 1 scales down the joint angles."""
    up, out = 150 * reach, 85 * reach
    chest = trunk[-1]
    book = {
        "raises both arms": together(both("upper_arm", roll=up), crouch(-0.02 * size), curl(trunk, pitch=-10),
            lean(z=-0.04 * size)),
        f"spreads {own} arms": together(both("upper_arm", roll=out), lean(z=0.03 * size), curl(trunk, pitch=-10)),
        "claps": together(
            both("upper_arm", pitch=-62, yaw=-4), both("forearm", pitch=-18, yaw=-16), lean(z=0.05 * size),
                crouch(0.05 * size),
            both("upper_arm", yaw=22, curve=pulses(4)), crouch(0.03 * size, pulses(4)),
        ),
        "reaches forward": together(both("upper_arm", pitch=-80 * reach), lean(z=0.06 * size, degrees=5),
            curl(trunk, pitch=10)),
        f"swings {own} arms": together(
            bend("left_upper_arm", pitch=45, roll=8, curve=waves(2)),
                bend("right_upper_arm", pitch=-45, roll=-8, curve=waves(2)),
            curl(trunk, yaw=20, curve=waves(2)), crouch(0.05 * size, pulses(4)),
                shift("body", x=0.025 * size, curve=waves(2)),
        ),
        f"flaps {own} arms": together(both("upper_arm", roll=out, curve=pulses(4)), crouch(0.05 * size, pulses(4)),
            lean(z=-0.02 * size)),
        "punches": together(
            *(bend(f"{side}_upper_arm", pitch=-78 * reach, curve=alternate(k)) for k, side in enumerate(SIDES)),
            both("forearm", pitch=-30), curl(trunk, yaw=34, curve=waves(2)), lean(z=0.055 * size, degrees=4),
        ),
    }  # fmt: skip
    for side, x in SIDES.items():
        arm, fore = f"{side}_upper_arm", f"{side}_forearm"
        book |= {
            f"waves {own} {side} {hand}": together(
                bend(arm, roll=0.83 * up * x), bend(fore, roll=30 * x, curve=waves(4)), lean(x=-0.05 * size * x),
                    bend(chest, roll=7 * x)
            ),
            f"raises {own} {side} arm": together(bend(arm, pitch=-0.95 * up, roll=6 * x), lean(x=-0.04 * size * x,
                degrees=3), bend(chest, roll=10 * x)),
            f"points {side}": together(bend(arm, roll=out * x), bend(chest, yaw=24 * x), lean(x=0.05 * size * x)),
            f"points forward with {own} {side} {hand}": together(
                bend(arm, pitch=-88 * reach), bend(chest, yaw=-20 * x), lean(z=0.05 * size)),
        }  # fmt: skip
    return book


def kicks(size: float, pitch: float = -30, own: str = "its") -> Book:
    """Gestures with one foot off the floor: kick, tap and balance."""
    book: Book = {}
    for side, x in SIDES.items():
        away = -0.04 * size * x  # shift the weight to the other foot
        book |= {
            f"kicks with {own} {side} foot": together(
                foot(side, y=0.14 * size, z=0.2 * size, pitch=pitch, curve=hold(0.45, 0.35)),
                    lean(x=away, z=-0.045 * size, degrees=10)
            ),
            f"taps {own} {side} foot": together(foot(side, y=0.03 * size, pitch=0.6 * pitch, curve=pulses(4)),
                lean(x=1.3 * away, degrees=3), crouch(0.02 * size)),
            f"balances on {own} {'right' if x > 0 else 'left'} foot": together(
                foot(side, x=0.1 * size * x, y=0.13 * size), lean(x=2 * away, degrees=9)
            ),
        }  # fmt: skip
    return book


# ---------------------------------------------------------------------------------------- eyes


def eye(
    body: Body, joint: str, centre: Vector, radius: float,
    yaw: float = 0, pitch: float = 0, iris: Colour | None = None, flat: float = 0.6, full: bool = False,
) -> None:  # fmt: skip
    """Add a glossy eye with a highlight to `body`.

    Args:
        body: the body to extend.
        joint: the joint that moves the eye.
        centre: centre in the rest pose, metres.
        radius: radius in metres.
        yaw, pitch: viewing direction in degrees.
        iris: colour of the iris; None gives a plain dark eye.
        flat: depth as a fraction of the radius.
        full: whether the iris covers the whole eye, without a white sclera.
    """
    look, thin = rotation(pitch, yaw), flat / 0.6

    def disc(
        colour: Colour, size: float, out: float, thick: float, up: float = 0.0, aside: float = 0.0
    ) -> Shape:
        place = np.asarray(centre, float) + fixed.transformed(np.array([aside, up, out]), look) * radius
        return ball(joint, colour, place, (size * radius, size * radius, thick * radius), pitch, yaw)

    if full:
        layers = [disc(iris or WHITE, 1, 0, flat), disc(INK, 0.62, 0.3 * thin, 0.38)]
        glint = disc((1, 1, 1), 0.2, 0.66 * thin, 0.12, 0.3, 0.18)
    elif iris is None:
        layers = [disc(INK, 1, 0, flat)]
        glint = disc((1, 1, 1), 0.24, 0.52 * thin, 0.1, 0.36, 0.18)
    else:
        layers = [
            disc(WHITE, 1, 0, flat),
            disc(iris, 0.62, 0.36 * thin, 0.3),
            disc(INK, 0.38, 0.5 * thin, 0.24),
        ]
        glint = disc((1, 1, 1), 0.16, 0.7 * thin, 0.1, 0.2, 0.14)
    body.solid(*layers, material=GLOSSY, detail=6)
    body.solid(glint, material=GLOSSY, detail=3)
