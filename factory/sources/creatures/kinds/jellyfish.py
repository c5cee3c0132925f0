"""A jellyfish with a pulsing bell and trailing tentacles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Material, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    ease,
    hold,
    pulses,
    shift,
    swell,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

PALETTES = (  # bell, rim, tentacles, spots
    ("#b79be8", "#f2a9d0", "#e6c4f2", "#f7e3fb"),
    ("#6fc3d8", "#f5f0d8", "#a8e0e2", "#e8fbf5"),
    ("#f29a8e", "#fbd9a8", "#f7bfae", "#fff0df"),
    ("#8fcf9f", "#f3f0b2", "#bfe6c4", "#f4fbe0"),
    ("#7f93dd", "#c7b6f2", "#a9c0f0", "#e6ecfd"),
)
SATIN = Material("satin", roughness=0.45)
ARMS = 7
LINKS = 4
TRAIN = sentences("""
    pulses; pulses and rises; pulses twice and sinks; swims up; swims up and tilts left; swims up, then sinks; sinks;
    sinks and spreads its tentacles; drifts to the left; drifts to the right; drifts forward; drifts backwards;
    drifts to the left and pulses; drifts forward and looks up; darts up; darts forward; darts to the right;
    tilts left; tilts right; tilts left, then tilts right; looks up; looks down; looks left;
    looks left, then looks right; nods; shakes its head; spins; spins and rises; spins the other way;
    twirls its tentacles; twirls its tentacles and sinks; spreads its tentacles;
    spreads its tentacles and tilts right; gathers its tentacles; gathers its tentacles, then darts up;
    waves its tentacles; waves its tentacles and drifts to the right; swings its tentacles left;
    swings its tentacles right; curls up its tentacles; curls up its tentacles and spins; flattens its bell;
    puffs up its bell; puffs up its bell and nods; flattens its bell, then darts up; sways; sways and sinks;
    loops the loop; somersaults; dances
""")
HELDOUT = sentences("""
    pulses and sinks; drifts to the right and pulses; swims up and tilts right; looks right, then looks left;
    swings its tentacles left and rises; gathers its tentacles and tilts left; spins and sinks;
    spreads its tentacles and tilts left; puffs up its bell, then sinks; darts to the left
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    tint, rim, arm, spot = genes.palette(PALETTES, hue_deg=32)
    wide, tall, long, thick = genes.vary(0.14), genes.vary(0.18), genes.vary(0.2), genes.vary(0.2)
    freckled, frill = genes.chance(0.6), genes.vary(0.3)
    body = Body(_skeleton(wide, long))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    crown = at["bell"]
    dome = [ball("bell", tint, crown + (0, 0.05, 0), (0.2 * wide, 0.165 * tall, 0.2 * wide), blend=0.05),
        ball("bell", tint, crown + (0, -0.015, 0), (0.212 * wide, 0.075, 0.212 * wide), blend=0.06)]
    ring = [2 * np.pi * k / 12 for k in range(12)]
    dome += [ball("bell", rim, crown + (0.19 * wide * fixed.sin(a), -0.065, 0.19 * wide * fixed.cos(a)),
        (0.046, 0.036 * frill, 0.046), blend=0.03) for a in ring]
    hem = Paint(rim, lambda p: p[:, 1] - crown[1] + 0.042 + 0.012 * fixed.cos(12 * fixed.arctan2(p[:, 0], p[:, 2])),
        0.018)
    freckles = [
        Paint(spot, ball("", spot,
            onto(dome[:1], crown + (0.2 * fixed.sin(a), 0.05 + h, 0.2 * fixed.cos(a))), r).measure, 0.012)
        for a, h, r in ((0.9, 0.1, 0.03), (1.6, 0.05, 0.02), (2.3, 0.12, 0.026), (3.3, 0.07, 0.032),
            (4.1, 0.13, 0.02), (5.1, 0.06, 0.028), (5.6, 0.14, 0.018), (0.3, 0.19, 0.024), (3.0, 0.2, 0.02))
    ]
    body.skin(dome, 0.021, [hem, *(freckles if freckled else [])], SATIN)
    for x in (1, -1):
        g.eye(body, "bell", onto(dome, crown + (0.066 * x, 0.032, 0.2 * wide)), 0.027, yaw=20 * x)
        body.solid(ball("bell", mix(tint, colour("#f0607a"), 0.5),
            onto(dome, crown + (0.112 * x, -0.004, 0.19 * wide)), (0.02, 0.013, 0.012), yaw=32 * x), detail=4)
    smile = [onto(dome, crown + (0.03 * u, 0.002 + 0.013 * u * u, 0.21 * wide)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("bell", mix(tint, INK, 0.85), a, b, 0.0055) for a, b in pairwise(smile)), detail=3)
    for k in range(ARMS):
        chain = [at[f"arm{k}_{link}"] for link in range(LINKS)]
        chain.append(chain[-1] + (chain[-1] - chain[-2]) * (0.9, 1.0, 0.9))
        middle = k == ARMS - 1
        radii = np.array([0.03, 0.026, 0.02, 0.014, 0.007]) * thick * (1.5 if middle else 1.0)
        shades = [mix(arm, rim, u) for u in (0.0, 0.2, 0.5, 0.9)]
        body.skin([limb(f"arm{k}_{n}", shades[n], a, b, radii[n], radii[n + 1], blend=0.006)
            for n, (a, b) in enumerate(pairwise(chain))], 0.015, material=SATIN)
    return Creature(body, _phrases())


def _skeleton(wide: float, long: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.76, 0))
    s.joint("bell", "body", (0, 0.76, 0))
    for k in range(ARMS):
        angle = 2 * np.pi * (k + 0.5) / (ARMS - 1)
        out = np.array([fixed.sin(angle), 0, fixed.cos(angle)]) * (0.135 * wide if k < ARMS - 1 else 0.0)
        drop = [(0.0, 0.05), (0.012, 0.15), (-0.004, 0.255), (0.02, 0.36)]
        reach = long * (1 + 0.12 * (k % 3 - 1))
        s.row("bell", {f"arm{k}_{link}": (out[0] * (1 + 4 * w), 0.76 - d * reach, out[2] * (1 + 4 * w))
            for link, (w, d) in enumerate(drop)})
    return s


def _arms(inward: float = 0, swing_x: float = 0, swing_z: float = 0, around: float = 0, curve: Curve | None = None,
    tip: float = 1.0) -> Gesture:
    """Bend all tentacles: inwards, to the left, forwards, or around the vertical axis.

    Angles are in degrees per tentacle, distributed over its links; `tip` > 1 gives more to the outer links.
    """
    parts = []
    for k in range(ARMS):
        angle = 2 * np.pi * (k + 0.5) / (ARMS - 1)
        inner = 0 if k == ARMS - 1 else inward
        pitch = inner * fixed.cos(angle) - swing_z - around * fixed.sin(angle)
        roll = -inner * fixed.sin(angle) + swing_x - around * fixed.cos(angle)
        share = np.array([tip**n for n in range(LINKS)])
        share /= share.sum()
        parts += [bend(f"arm{k}_{n}", pitch=pitch * share[n], roll=roll * share[n], curve=curve)
            for n in range(LINKS)]
    return together(*parts)


def _pulse(count: int, much: float = 1.0) -> Gesture:
    """Contract and expand the bell `count` times; the tentacles follow with a delay."""
    late = 0.2 / count
    return together(swell("bell", x=-0.2 * much, y=0.16 * much, z=-0.2 * much, curve=pulses(count)),
        _arms(inward=26 * much, curve=lambda s: pulses(count)(np.maximum(s - late, 0)) * hold(0.1, 0.1)(s), tip=1.5))


def idle(count: float = 1.5, much: float = 18) -> Gesture:
    """Travelling waves along the tentacles."""
    return together(*(bend(f"arm{k}_{n}", pitch=much * float(fixed.cos(2.1 * k)),
        roll=much * float(fixed.sin(2.1 * k)),
        curve=waves(count, 0.12 * n + 0.07 * k)) for k in range(ARMS) for n in range(1, LINKS)))


def move(x: float = 0, y: float = 0, z: float = 0, curve: Curve | None = None) -> Gesture:
    """Translate the whole animal, in metres."""
    return shift("root", x=x, y=y, z=z, curve=curve or ease(0.05, 0.95))


def _phrases() -> Book:
    away, arrive = ease(0.05, 0.95), hold(0.35, 0.35)
    book = {
        "pulses": together(_pulse(3), move(y=0.04, curve=pulses(3))),
        "pulses twice": together(_pulse(2, 1.3), move(y=0.03, curve=pulses(2))),
        "rises": move(y=0.16),
        "sinks": together(move(y=-0.105), _arms(inward=-42, tip=1.4), swell("bell", x=0.06, z=0.06, y=-0.06)),
        "swims up": together(_pulse(3), move(y=0.3)),
        "darts up": together(
            swell("bell", x=0.14, y=-0.18, z=0.14, curve=lambda s: pulses(1)(np.clip(s / 0.5, 0, 1))),
            swell("bell", x=-0.22, y=0.22, z=-0.22, curve=lambda s: pulses(1)(np.clip((s - 0.4) / 0.6, 0, 1))),
            move(y=0.36, curve=ease(0.42, 0.85)),
            _arms(inward=30, curve=hold(0.5, 0.3)),
        ),
        "darts forward": together(bend("body", pitch=52, curve=arrive), move(z=0.38, curve=ease(0.3, 0.8)),
            _pulse(2, 1.1)),
        "looks up": together(bend("bell", pitch=-34), _arms(swing_z=30), move(z=-0.03, curve=hold())),
        "looks down": together(bend("bell", pitch=32), _arms(swing_z=-26), move(z=0.03, curve=hold())),
        "nods": together(bend("bell", pitch=27, curve=pulses(3)), _arms(swing_z=-24, curve=pulses(3)),
            move(y=-0.03, curve=hold())),
        "shakes its head": together(bend("bell", yaw=46, curve=waves(3)), idle(1.5, 10), move(z=0.045, curve=hold())),
        "spins": together(bend("root", yaw=360, curve=away), _arms(inward=-32), _arms(around=30)),
        "spins the other way": together(bend("root", yaw=-360, curve=away), _arms(inward=-32), _arms(around=-30)),
        "twirls its tentacles": together(_arms(swing_x=56, curve=waves(2), tip=1.3), _arms(swing_z=56, curve=waves(2,
            0.25), tip=1.3), move(y=0.05, curve=hold())),
        "spreads its tentacles": together(_arms(inward=-95, tip=1.2), move(y=0.03, curve=hold())),
        "gathers its tentacles": together(_arms(inward=44, tip=0.8), swell("bell", x=-0.1, z=-0.1, y=0.06),
            move(y=0.04, curve=hold())),
        "waves its tentacles": together(idle(2.5, 34), move(y=-0.03, curve=hold())),
        "curls up its tentacles": together(_arms(inward=-210, tip=1.15), move(y=-0.04, curve=hold())),
        "flattens its bell": together(swell("bell", x=0.2, y=-0.3, z=0.2), _arms(inward=-24)),
        "puffs up its bell": together(swell("bell", x=0.13, y=0.3, z=0.13), idle(1.5, 8), move(y=0.12, curve=hold())),
        "sways": together(move(x=0.1, curve=waves(1)), bend("body", roll=-20, curve=waves(1)),
            _arms(swing_x=-30, curve=waves(1, 0.1), tip=1.4)),
        "loops the loop": together(g.tumble(1.0, pitch=360, curve=ease(0.05, 0.95)), idle(1.5, 20), _arms(inward=18)),
        "somersaults": together(g.tumble(0.69, pitch=360, curve=ease(0.1, 0.9)), _arms(inward=26),
            move(y=0.06, curve=hold())),
        "dances": together(move(x=0.08, curve=waves(2)), bend("body", roll=22, curve=waves(2)), _pulse(4, 0.6),
            _arms(swing_x=40, curve=waves(2, 0.15))),
    }
    return book | _sided_phrases()


def _sided_phrases() -> Book:
    arrive = hold(0.35, 0.35)
    book: Book = {}
    for name, x, z in (("to the left", 1, 0), ("to the right", -1, 0), ("forward", 0, 1), ("backwards", 0, -1)):
        lean = bend("body", pitch=18 * z, roll=-18 * x)
        book[f"drifts {name}"] = together(move(x=0.24 * x, z=0.24 * z), lean,
            _arms(swing_x=-34 * x, swing_z=-34 * z, tip=1.3), idle(1.5, 8))
    for side, x in g.SIDES.items():
        book |= {
            f"darts to the {side}": together(bend("body", roll=-50 * x, curve=arrive), move(x=0.36 * x,
                curve=ease(0.3, 0.8)), _pulse(2, 1.1)),
            f"tilts {side}": together(bend("body", roll=-36 * x), _arms(swing_x=22 * x),
                move(x=0.02 * x, curve=hold())),
            f"looks {side}": together(bend("body", yaw=62 * x), _arms(around=-22 * x),
                move(x=0.04 * x, curve=hold())),
            f"swings its tentacles {side}": together(_arms(swing_x=68 * x, tip=1.2), bend("bell", roll=9 * x)),
        }
    return book
