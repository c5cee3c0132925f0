"""A tropical fish that swims above the floor."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Gesture,
    bend,
    both,
    curl,
    ease,
    hold,
    pulses,
    ripple,
    shift,
    swell,
    together,
    waves,
)
from factory.sources.creatures.palette import Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

PALETTES = (  # body, band, fins, belly
    ("#f07f2e", "#fdf6ea", "#e2571f", "#ffb765"),
    ("#3f8fd2", "#f7d84a", "#f2b62f", "#a5d8f0"),
    ("#f2c93a", "#2d3a4a", "#f5e39a", "#fdf0b8"),
    ("#d9567f", "#fbe4ea", "#a63c8a", "#f6b4c4"),
    ("#43b39a", "#e9f7d8", "#f0925a", "#bfe8cf"),
)
SPINE = ("mid", "tail1", "tail2")
TRAIN = sentences("""
    swims forward; swims forward and looks left; swims backwards; swims up; swims down; swims up, then swims down;
    swims to the left; swims to the right; swims in a curve to the left; swims in a curve to the right; darts forward;
    darts forward, then turns left; turns left; turns right; turns around; spins round; loops the loop; rolls over;
    rolls over and swims up; somersaults; wiggles; wiggles and swims down; wags its tail; wags its tail and noses up;
    flaps its fins; flaps its fins and swims up; spreads its fins; raises its left fin;
    raises its right fin and tilts left; waves its left fin; waves its right fin; curls left;
    curls left, then curls right; noses up; noses down; noses down and wags its tail; tilts left; tilts right;
    tilts left, then tilts right; looks left; looks right and swims up; nods; shakes its head; gulps;
    gulps and swims forward; puffs up; puffs up, then darts forward; shivers; dances; plays dead
""")
HELDOUT = sentences("""
    swims forward and looks right; swims up and looks left; swims down, then swims up;
    turns right, then darts forward; curls right; raises its left fin and tilts right; noses up and flaps its fins;
    rolls over and swims down; wiggles and swims up; puffs up and tilts left
""")

SIDEWAYS = (1, 0, 0)  # flattening axis of the fins


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    base, band, fins, belly = genes.palette(PALETTES, hue_deg=14)
    tall, long, sail, bands = genes.vary(0.16), genes.vary(0.12), genes.vary(0.25), genes.pick((2, 1, 3, 0))
    body = Body(_skeleton(long))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    centre = at["body"]
    z = np.array([0, 0, long])
    skin = [
        ball("body", base, centre + 0.06 * z, (0.1, 0.15 * tall, 0.17 * long), blend=0.08),
        ball("mid", base, at["mid"] - 0.02 * z, (0.078, 0.115 * tall, 0.14 * long), blend=0.1),
        limb("tail1", base, at["tail1"] + 0.03 * z, at["tail2"], 0.052, 0.034, blend=0.08),
        ball("jaw", belly, at["jaw"] + 0.015 * z, (0.045, 0.03, 0.045), blend=0.03),
        ball("body", base, centre + (0, 0.012, 0.2 * long), (0.055, 0.048, 0.045), blend=0.05),
    ]
    under = ball("", belly, centre + (0, -0.16 * tall, 0.02), (0.16, 0.11 * tall, 0.26 * long))
    places = [(0.085, 0.022), (-0.075, 0.026), (-0.185, 0.02)][:bands]
    rings = [Paint(c, _band(centre[2] + u * long, w + extra), 0.009) for u, w in places
        for c, extra in ((mix(base, (0, 0, 0), 0.75), 0.007), (band, 0))]
    body.skin(skin, 0.0175, [Paint(belly, under.measure, 0.04), *rings])

    edge = mix(fins, (0.01, 0.01, 0.02), 0.6)
    root = at["tail2"]
    caudal = [
        limb("tail2", fins, root + 0.02 * z, root + (0, 0.105 * sail, -0.13), 0.034, 0.03, blend=0.03, flat=0.3,
            flat_axis=SIDEWAYS),
        limb("tail2", fins, root + 0.02 * z, root + (0, -0.095 * sail, -0.13), 0.034, 0.03, blend=0.03, flat=0.3,
            flat_axis=SIDEWAYS),
        limb("tail2", fins, root + 0.02 * z, root + (0, 0, -0.1), 0.034, 0.036, blend=0.03, flat=0.3,
            flat_axis=SIDEWAYS),
    ]
    heights = ((0.09, 0.025), (0.02, 0.06 * sail + 0.015), (-0.06, 0.055 * sail + 0.01), (-0.13, 0.0))
    ridge = [centre + (0, (0.1 + h) * tall, u * long) for u, h in heights]
    dorsal = [limb("dorsal", fins, a, b, 0.04, 0.036, blend=0.02, flat=0.3, flat_axis=SIDEWAYS)
        for a, b in pairwise(ridge)]
    keel = [limb("mid", fins, centre + (0, -0.1 * tall, -0.06), centre + (0, -0.15 * tall, -0.12), 0.034, 0.02,
        flat=0.34, flat_axis=SIDEWAYS)]

    def rim(p: np.ndarray) -> np.ndarray:
        return 0.175 * sail - fixed.hypot(p[:, 1] - root[1], p[:, 2] - root[2])

    for shapes, paints in ((caudal, [Paint(edge, rim, 0.02)]), (dorsal, []), (keel, [])):
        body.skin(shapes, 0.014, paints)
    for side, x in g.SIDES.items():
        fin = at[f"{side}_fin"]
        body.skin([limb(f"{side}_fin", fins, fin, fin + (0.085 * x, -0.03, -0.075), 0.022, 0.036 * sail, flat=0.32,
            flat_axis=(0.5 * x, 1, 0.2))], 0.0125)
        g.eye(body, "body", onto(skin, centre + (0.1 * x, 0.045 * tall, 0.145 * long)), 0.036, yaw=66 * x,
            iris=colour("#3d4a58"))
    smile = [onto(skin, centre + (0.042 * u, -0.028 + 0.012 * u * u, 0.25 * long)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("body", mix(base, (0, 0, 0), 0.8), a, b, 0.0055) for a, b in pairwise(smile)), detail=3)
    return Creature(body, _phrases())


def _band(at: float, width: float):
    return lambda p: np.abs(p[:, 2] - at - 1.1 * (p[:, 1] - 0.5) ** 2) - width


def _skeleton(long: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.5, 0.03))
    s.row("body", {"mid": (0, 0.5, 0.03 - 0.09 * long), "tail1": (0, 0.5, 0.03 - 0.19 * long),
        "tail2": (0, 0.5, 0.03 - 0.28 * long)})
    s.joint("dorsal", "body", (0, 0.6, 0.0))
    s.joint("jaw", "body", (0, 0.475, 0.03 + 0.17 * long))
    for side, x in g.SIDES.items():
        s.joint(f"{side}_fin", "body", (0.088 * x, 0.475, 0.085))
    return s


def _stroke(count: int, much: float = 1.0) -> Gesture:
    """Swim: a travelling wave along the spine, with paddling fins."""
    return together(bend("body", yaw=-9 * much, curve=waves(count)),
        ripple(SPINE, yaw=24 * much, count=count, lag=0.16), both("fin", yaw=25, roll=14, curve=pulses(count)),
        bend("dorsal", roll=8 * much, curve=waves(count, 0.2)))


def _phrases() -> Book:
    away, stroke = ease(0.05, 0.95), _stroke(3)
    body = "body"
    arrive = hold(0.35, 0.35)
    book = {
        "swims forward": together(shift("root", z=0.32, curve=away), _stroke(4)),
        "swims backwards": together(shift("root", z=-0.24, curve=away), _stroke(3, 0.6),
            both("fin", yaw=-30, curve=pulses(4))),
        "swims up": together(shift("root", y=0.24, curve=away), bend(body, pitch=-36), stroke),
        "swims down": together(shift("root", y=-0.13, curve=away), bend(body, pitch=34), stroke),
        "darts forward": together(shift("root", z=-0.07, curve=hold(0.3, 0.2)),
            shift("root", z=0.42, curve=ease(0.35, 0.7)), _stroke(5, 1.2)),
        "turns around": together(bend("root", yaw=180, curve=away), curl(SPINE, yaw=-60, curve=arrive),
            bend(body, roll=-14)),
        "spins round": together(bend("root", yaw=360, curve=away), curl(SPINE, yaw=-55, curve=arrive),
            shift("root", y=0.07)),
        "loops the loop": together(g.tumble(0.76, pitch=-360, curve=ease(0.05, 0.95)), _stroke(4, 0.7)),
        "rolls over": together(bend(body, roll=360, curve=ease(0.1, 0.9)), both("fin", roll=30),
            shift("root", z=0.08, curve=away)),
        "somersaults": together(bend(body, pitch=360, curve=ease(0.1, 0.9)), curl(SPINE, pitch=-30, curve=arrive),
            shift("root", y=0.1)),
        "wiggles": together(_stroke(5, 1.3), shift("root", x=0.03, curve=waves(5))),
        "wags its tail": together(ripple(SPINE, yaw=30, count=3, lag=0.1), shift("root", z=0.05, y=0.02)),
        "flaps its fins": together(both("fin", roll=60, curve=pulses(5)), shift("root", y=0.05, curve=pulses(5)),
            bend(body, pitch=-10)),
        "spreads its fins": together(both("fin", yaw=-20, roll=50), swell("dorsal", y=0.3), bend(body, pitch=-14),
            shift("root", z=-0.06)),
        "noses up": together(bend(body, pitch=-48), shift("root", y=0.03)),
        "noses down": together(bend(body, pitch=46), shift("root", y=0.04)),
        "nods": together(bend(body, pitch=26, curve=pulses(3)), shift("root", z=0.03)),
        "shakes its head": together(bend(body, yaw=28, curve=waves(3)), curl(SPINE, yaw=-44, curve=waves(3)),
            shift("root", z=-0.03)),
        "gulps": together(bend("jaw", pitch=34, curve=pulses(4)), bend(body, pitch=-12),
            shift("root", z=0.05, curve=pulses(4)), _stroke(2, 0.4)),
        "puffs up": together(swell(body, x=0.55, y=0.16, z=0.02, curve=hold(0.25, 0.25)), both("fin", roll=40),
            shift("root", y=0.03)),
        "shivers": together(_stroke(9, 0.5), shift("root", z=-0.05), bend(body, pitch=8)),
        "dances": together(shift("root", x=0.08, curve=waves(2)), bend(body, roll=-26, curve=waves(2)),
            shift("root", y=0.05, curve=pulses(4)), _stroke(4, 0.6)),
        "plays dead": together(bend(body, roll=172, curve=hold(0.35, 0.3)),
            shift("root", y=0.1, curve=hold(0.6, 0.3)), both("fin", roll=40)),
    }
    for side, x in g.SIDES.items():
        bank = together(bend(body, roll=-20 * x), curl(SPINE, yaw=-45 * x, curve=arrive))
        book |= {
            f"swims to the {side}": together(shift("root", x=0.24 * x, curve=away), bend(body, yaw=34 * x), stroke),
            f"swims in a curve to the {side}": together(
                shift("root", x=0.2 * x, curve=ease(0.3, 1)), shift("root", z=0.2, curve=ease(0, 0.7)),
                bend("root", yaw=85 * x, curve=away), bank, _stroke(3, 0.6)),
            f"turns {side}": together(bend("root", yaw=90 * x, curve=away), bank),
            f"curls {side}": together(curl(("mid", "tail1", "tail2"), yaw=-105 * x), bend(body, yaw=32 * x)),
            f"tilts {side}": together(bend(body, roll=-48 * x), shift("root", x=0.04 * x)),
            f"looks {side}": together(bend(body, yaw=46 * x), curl(SPINE, yaw=-50 * x), shift("root", x=0.02 * x)),
            f"raises its {side} fin": together(bend(f"{side}_fin", roll=75 * x), bend(body, roll=16 * x),
                shift("root", x=-0.045 * x)),
            f"waves its {side} fin": together(bend(f"{side}_fin", roll=70 * x), bend(f"{side}_fin", roll=32,
                curve=waves(4)), bend(body, roll=14 * x, yaw=16 * x)),
        }
    return book
