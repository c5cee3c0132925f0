"""Skeleton, leg shapes and phrase book shared by quadrupeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    both,
    curl,
    foot,
    hold,
    hops,
    pulses,
    ripple,
    shift,
    steps,
    together,
    waves,
)
from factory.sources.creatures.palette import Colour
from factory.sources.creatures.shapes import Shape, ball, limb
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

LEGS = ("front_left", "front_right", "back_left", "back_right")
TAILS = ("tail1", "tail2", "tail3", "tail4")
NECK = ("chest", "neck", "head")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def skeleton(long: float, tall: float, tail: Sequence[Sequence[float]], width: float = 0.085,
    head: Sequence[float] = (0.165, 0.11)) -> Skeleton:
    """Build a quadruped skeleton.

    Args:
        long: distance from hips to shoulders in metres.
        tall: height of the back in metres.
        tail: positions of the four tail joints relative to the hips, metres.
        width: lateral offset of the legs from the median plane in metres.
        head: offset (up, forward) of the head from the shoulders in metres.
    """
    s = Skeleton()
    back, front = -long / 2, long / 2
    s.joint("body", "root", (0, tall, back))
    s.row("body", {"spine": (0, tall + 0.01, 0), "chest": (0, tall, front - 0.02)})
    s.row("chest", {"neck": (0, tall + 0.07, front + 0.5 * head[1]), "head": (0, tall + head[0], front + head[1])})
    s.joint("jaw", "head", (0, tall + head[0] - 0.025, front + head[1] + 0.05))
    s.row("body", {name: np.array([0.0, tall, back]) + at for name, at in zip(TAILS, tail, strict=False)})
    s.keep_off_floor(TAILS, [0.05] * 4)
    for side, x in g.SIDES.items():
        s.joint(f"{side}_ear", "head", (0.06 * x, tall + head[0] + 0.105, front + head[1] - 0.02))
        w = width * x
        fore = {"upper": (w, tall - 0.03, front), "lower": (1.05 * w, 0.56 * tall, front - 0.05),
            "paw": (1.05 * w, 0.17 * tall, front)}
        hind = {"upper": (w, tall - 0.02, back), "lower": (1.15 * w, 0.58 * tall, back + 0.065),
            "paw": (1.1 * w, 0.25 * tall, back - 0.06)}
        for end, joints, parent in (("front", fore, "chest"), ("back", hind, "body")):
            s.row(parent, {f"{end}_{side}_{part}": place for part, place in joints.items()})
            sole = (1.05 * w, 0, front + 0.02) if end == "front" else (1.1 * w, 0, back - 0.03)
            upper, lower, paw = (f"{end}_{side}_{part}" for part in joints)
            s.leg(f"{end}_{side}", upper, lower, paw, sole)
    return s


def legs(s: Skeleton, fur: Colour, sock: Colour, thick: float = 1.0) -> list[Shape]:
    """Return the shapes of four legs: slim forelegs, hind legs with haunches, and round paws."""
    at = dict(zip(s.names, s.positions, strict=True))
    shapes = []
    for leg in LEGS:
        upper, lower, paw = (at[f"{leg}_{part}"] for part in ("upper", "lower", "paw"))
        x, ground = paw[0], s.legs[leg].sole[2]
        if leg.startswith("front"):
            shapes += [
                limb(f"{leg}_upper", fur, upper, lower, 0.058 * thick, 0.042 * thick, blend=0.04),
                limb(f"{leg}_lower", sock, lower, paw, 0.038 * thick, 0.033 * thick, blend=0.03),
                limb(f"{leg}_paw", sock, paw, (x, 0.035, ground - 0.005), 0.033 * thick, blend=0.01),
            ]
        else:
            haunch = (upper + lower) / 2
            shapes += [
                ball(f"{leg}_upper", fur, haunch + (0, 0.005, -0.005), (0.052 * thick, 0.1, 0.078), pitch=-24,
                    blend=0.05),
                limb(f"{leg}_lower", fur, lower, paw, 0.046 * thick, 0.03 * thick, blend=0.03),
                limb(f"{leg}_paw", sock, paw, (x, 0.035, ground - 0.005), 0.03 * thick, 0.031 * thick, blend=0.012),
            ]
        shapes.append(ball(f"{leg}_paw", sock, (x, 0.029, ground + 0.02), (0.039 * thick, 0.029, 0.05), blend=0.02))
    return shapes


def book(size: float, long: float, tail: Sequence[str] = TAILS) -> Book:
    """Return the phrase book for a quadruped `size` metres tall and `long` metres from hips to shoulders."""
    fore = [f"front_{side}" for side in g.SIDES]
    flight = together(
        *(foot(leg, y=0.06, z=0.05 if leg in fore else -0.07, pitch=30, curve=pulses(1)) for leg in LEGS),
        bend("body", pitch=-8, curve=lambda s: fixed.sin(2 * np.pi * s) * (s < 1)),
        both("ear", pitch=-16, curve=pulses(1)),
        curl(tail, pitch=-30, curve=pulses(1)),
    )
    phrases = g.looks(size, NECK, 0.9) | g.stances(size, ("spine", "chest")) | g.leaps(size, "leaps", 0.5, 0.24,
        flight)
    phrases |= g.walks(size, g.TROT, 6, 0.75) | {"trots forward": steps(g.TROT, 9, 0.95 * size, lift=0.09 * size,
        bob=0.02 * size)}
    phrases |= {
        "sits": sit(size, long),
        "lies down": together(g.crouch(0.24 * size, hold(0.35, 0.3)), bend("head", pitch=8), curl(tail, yaw=40)),
        "bows to play": together(bend("body", pitch=19), curl(("spine", "chest"), pitch=4), bend("head", pitch=-26),
            shift("body", z=-0.05, y=0.0), curl(tail, pitch=30), bend(tail[0], yaw=22, curve=waves(4))),
        "begs": together(rear(long), bend("head", pitch=30), *(foot(leg, y=0.03, curve=waves(3)) for leg in fore)),
        "rears up": together(rear(long, 0.75, hold(0.3, 0.35)), curl(tail, pitch=20)),
        "wags its tail": together(*_wag(tail, 4), bend("body", yaw=-9, curve=waves(4)), g.crouch(0.03 * size),
            bend("head", pitch=-10)),
        "sniffs the ground": together(curl(NECK, pitch=64), g.crouch(0.07 * size), g.lean(z=0.03),
            bend("head", pitch=7, curve=waves(5)), bend("chest", pitch=10)),
        "shakes itself": together(bend("body", roll=11, curve=waves(5)), bend("chest", roll=9, curve=waves(5, 0.1)),
            bend("head", roll=26, curve=waves(5, 0.2)), curl(tail, yaw=50, curve=waves(5, 0.3)),
            g.crouch(0.045 * size)),
        "pounces": together(g.crouch(0.06, lambda s: hold(0.6, 0.4)(np.minimum(s / 0.5, 1))),
            hops(1, 0.62 * size, height=0.26 * size, flight=flight)),
        "digs": together(bend("body", pitch=16), curl(NECK, pitch=34), g.crouch(0.02),
            *(foot(leg, y=0.05, z=0.07, curve=g.alternate(k, 8)) for k, leg in enumerate(fore)),
            shift("body", x=0.014, curve=waves(4))),
        "chases its tail": together(steps(g.TROT, 10, turn_deg=360, lift=0.04),
            curl(("spine", "chest", "head"), yaw=62, curve=hold(0.2, 0.2)),
            curl(tail, yaw=-60, curve=hold(0.2, 0.2))),
        "stretches": together(shift("body", y=-0.01, z=-0.06), bend("body", pitch=14), curl(NECK, pitch=-50),
            curl(tail, pitch=34), *(foot(leg, z=0.06, curve=hold(0.3, 0.25)) for leg in fore)),
        "speaks up": together(bend("jaw", pitch=26, curve=pulses(3)), curl(NECK, pitch=-30, curve=hold(0.2, 0.2)),
            shift("body", z=0.045, y=-0.015, curve=pulses(3))),
    }
    return phrases | _sided(size, tail)


def _sided(size: float, tail: Sequence[str]) -> Book:
    """Left and right variants: raise and wave a paw, kick, curl, swing the tail."""
    phrases: Book = {}
    for side, x in g.SIDES.items():
        away = g.lean(x=-0.035 * x, z=-0.035)
        phrases |= {
            f"raises its {side} paw": together(foot(f"front_{side}", y=0.13, z=0.12, pitch=35, curve=hold(0.25,
                0.25)), away, bend("head", roll=12 * x), bend("chest", roll=5 * x)),
            f"waves its {side} paw": together(
                foot(f"front_{side}", y=0.2, z=0.14, pitch=20, curve=hold(0.25, 0.25)),
                foot(f"front_{side}", x=0.04, y=0.035, curve=waves(4)),
                away,
                bend("body", pitch=-12, roll=5 * x),
                bend("head", roll=-10 * x),
                shift("body", x=-0.035 * x),
            ),
            f"kicks with its {side} hind foot": together(
                foot(f"back_{side}", y=0.16, z=-0.14, pitch=50, curve=pulses(2)), g.lean(x=-0.03 * x, z=0.05),
                bend("body", pitch=9)),
            f"curls round to the {side}": together(curl(("spine", *NECK), yaw=105 * x), curl(tail, yaw=-95 * x),
                g.crouch(0.03), g.lean(x=-0.03 * x)),
            f"swings its tail {side}": together(curl(tail, yaw=-100 * x), bend("body", yaw=10 * x), bend("head",
                yaw=-24 * x), g.lean(x=0.04 * x)),
        }
    return phrases


def _wag(tail: Sequence[str], count: float) -> list[Gesture]:
    return [ripple(tail, yaw=20, count=count, lag=0.08)]


def sit(size: float, long: float) -> Gesture:
    """Lower the hips and pitch the body so that the shoulders stay in place."""
    drop = 0.185 * size
    tilt = np.degrees(fixed.arcsin(drop / long))
    return together(
        shift("body", y=-drop, z=0.03, curve=hold(0.35, 0.3)), bend("body", pitch=-tilt, curve=hold(0.35, 0.3)),
            curl(NECK, pitch=0.75 * tilt, curve=hold(0.35, 0.3)),
            bend("tail1", pitch=0.9 * tilt, curve=hold(0.35, 0.3))
    )


def rear(long: float, much: float = 1.0, curve: Curve | None = None) -> Gesture:
    """Rear up on the hind legs; the forepaws follow the chest."""
    tilt = 56 * much
    angle = float(np.radians(tilt))
    rise, back = long * float(fixed.sin(angle)), long * float(1 - fixed.cos(angle))
    return together(
        bend("body", pitch=-tilt, curve=curve),
        shift("body", y=-0.05, z=0.11 * much, curve=curve),
        curl(("neck", "head"), pitch=0.8 * tilt, curve=curve),
        bend("tail1", pitch=0.5 * tilt, curve=curve),
        *(foot(f"front_{side}", y=rise + 0.03, z=0.22 * much - back, pitch=35, curve=curve) for side in g.SIDES),
    )
