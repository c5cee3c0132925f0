"""A small round bird with flapping, pecking and hopping gestures."""

from __future__ import annotations

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
    foot,
    hold,
    pulses,
    shift,
    together,
    waves,
)
from factory.sources.creatures.palette import Genes, mix
from factory.sources.creatures.shapes import ball, limb
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # back, breast, belly, beak and legs
    ("#4f8fc4", "#f08a4b", "#fbeedd", "#f2b33d"),
    ("#6f6a66", "#d9543f", "#f2e8dc", "#5b4a42"),
    ("#f2c53d", "#f7dc74", "#fff3cf", "#ef8a3a"),
    ("#5aa469", "#a8d26f", "#f4f3d0", "#e2a13a"),
    ("#d94f4f", "#e57a5c", "#f6d5c0", "#f0b541"),
)
TRAIN = sentences("""
    flaps its wings; flaps its wings and looks up; spreads its wings; spreads its wings and leans left;
    spreads its wings and looks right; spreads its wings, then bows; raises its left wing; raises its right wing;
    raises its right wing and leans left; raises its left wing, then raises its right wing; flutters up;
    flutters up and looks left; flutters up and nods; flutters to the right; flutters backwards; loops the loop;
    hops once; hops twice and looks right; hops three times; hops forward once; hops forward twice;
    hops forward three times and nods; hops backwards; hops to the left; hops to the right; hops round to the left;
    hops round to the right and flaps its wings; walks forward; walks forward and nods; walks backwards; turns around;
    steps to the left; walks in a curve to the right; pecks the ground; pecks the ground, then looks up;
    looks left, then looks right; looks left; looks up; looks down; nods; shakes its head; tilts its head left;
    tilts its head right and crouches; bows; chirps; chirps and spreads its wings; wags its tail; dances; shivers;
    leans forward, then leans back
""")
HELDOUT = sentences("""
    flaps its wings and looks left; raises its left wing and leans right; flutters to the left;
    hops forward twice and looks left; hops round to the right; walks forward and looks right;
    looks right, then pecks the ground; chirps, then bows; tilts its head right; spreads its wings and nods
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    back, breast, belly, horn = genes.palette(PALETTES, hue_deg=15)
    dark = mix(back, (0.01, 0.01, 0.02), 0.55)
    plump, wing, tail, crest = (genes.vary(0.12), genes.vary(0.15), genes.vary(0.25),
        genes.chance(0.4, portrait=True))
    body = Body(_skeleton(wing))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    skull = at["head"] + (0, 0.06, 0.02)
    skin = [
        ball("body", back, at["body"] + (0, 0, 0), (0.155 * plump, 0.15, 0.18), pitch=-22, blend=0.06),
        ball("chest", back, at["chest"] + (0, 0.0, 0.02), (0.142 * plump, 0.14, 0.135), blend=0.09),
        ball("head", back, skull, (0.128, 0.122, 0.122), blend=0.08),
        limb("tail", dark, at["tail"] + (0, -0.01, 0.09), at["tail"] + (0, 0.02, -0.2 * tail), 0.07, 0.06, blend=0.04,
            flat=0.4, flat_axis=(0, 1, 0.1)),
    ]
    if crest:
        skin += [limb("head", back, skull + (0, 0.09, -0.02 - 0.03 * k),
            skull + (0, 0.17 - 0.03 * k, -0.06 - 0.045 * k), 0.022, 0.009, blend=0.03) for k in range(3)]
    for side in g.SIDES:
        skin.append(limb(f"{side}_thigh", back, at[f"{side}_thigh"], at[f"{side}_shin"] + (0, 0.015, 0), 0.055, 0.03,
            blend=0.05))
    front = ball("", breast, at["chest"] + (0, -0.015, 0.13), (0.125, 0.145, 0.11))
    face = ball("", breast, skull + (0, -0.05, 0.1), (0.085, 0.085, 0.07))
    under = ball("", belly, at["body"] + (0, -0.15, 0.05), (0.1, 0.1, 0.17))
    body.skin(skin, 0.0215, [Paint(breast, front.measure, 0.022), Paint(breast, face.measure, 0.02),
        Paint(belly, under.measure, 0.03)])

    for side, x in g.SIDES.items():
        one, two, tip = (at[f"{side}_wing{k}"] for k in (1, 2, 3))
        wings = [
            limb(f"{side}_wing1", back, one, two, 0.075, 0.08, blend=0.03, flat=0.34, flat_axis=(1, 0.18 * x, 0)),
            limb(f"{side}_wing2", back, two, tip, 0.08, 0.052, blend=0.02, flat=0.32, flat_axis=(1, 0.18 * x, 0)),
            limb(f"{side}_wing2", dark, tip, tip + (0.004 * x, -0.045, -0.05), 0.05, 0.022, blend=0.02, flat=0.34,
                flat_axis=(1, 0.18 * x, 0)),
        ]
        bar = ball("", belly, (one + two) / 2 + (0.0, -0.055, -0.035), (0.1, 0.016, 0.085), pitch=-30)
        body.skin(wings, 0.0175, [Paint(mix(back, belly, 0.65), bar.measure, 0.012)])
        g.eye(body, "head", skull + (0.094 * x, 0.022, 0.068), 0.031, yaw=52 * x)
        ankle = at[f"{side}_foot"]
        body.solid(limb(f"{side}_shin", horn, at[f"{side}_shin"], ankle, 0.014, 0.012), detail=4)
        toes = ((0.035, 0.09), (0, 0.105), (-0.035, 0.09), (0, -0.055))
        body.solid(*(limb(f"{side}_foot", horn, (ankle[0], 0.013, ankle[2]), (ankle[0] + dx, 0.011, ankle[2] + dz),
            0.013, 0.0105) for dx, dz in toes), detail=4)
    beak = skull + (0, -0.022, 0.112)
    body.solid(limb("head", horn, beak, beak + (0, -0.012, 0.085), 0.036, 0.007),
        limb("jaw", mix(horn, dark, 0.25), beak - (0, 0.016, 0.004), beak + (0, -0.03, 0.05), 0.026, 0.006), detail=7)
    return Creature(body, _phrases())


def _skeleton(wing: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.28, -0.04))
    s.row("body", {"chest": (0, 0.345, 0.035), "head": (0, 0.435, 0.055)})
    s.joint("jaw", "head", (0, 0.46, 0.17))
    s.joint("tail", "body", (0, 0.27, -0.19))
    for side, x in g.SIDES.items():
        s.row("chest", {f"{side}_wing1": (0.145 * x, 0.385, 0.02),
            f"{side}_wing2": (0.172 * x, 0.385 - 0.1 * wing, -0.055),
            f"{side}_wing3": (0.168 * x, 0.385 - 0.165 * wing, -0.15)})
        s.row("body", {f"{side}_thigh": (0.07 * x, 0.19, -0.03), f"{side}_shin": (0.078 * x, 0.12, 0.015),
            f"{side}_foot": (0.075 * x, 0.022, -0.02)})
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.075 * x, 0, 0.0))
    return s


def _flap(count: int, up: float = 95) -> Gesture:
    """Flap the wings, with a phase delay at the tips."""
    late = 0.12 / count
    return together(both("wing1", pitch=-12, yaw=-10, roll=up, curve=pulses(count)),
        both("wing2", roll=-0.3 * up, curve=lambda s: pulses(count)(np.maximum(s - late, 0))))


def _phrases() -> Book:
    trunk, neck, size = ("body", "chest"), ("chest", "head", "head", "head"), 0.56
    tucked = together(*(foot(leg, y=0.03, z=-0.02, pitch=35, curve=pulses(1)) for leg in g.SIDES))
    flight = together(tucked, _flap(1, 60))
    aloft = together(*(foot(leg, y=0.02, z=-0.03, pitch=50, curve=hold(0.2, 0.2)) for leg in g.SIDES), _flap(6),
        bend("tail", pitch=18))
    up = together(shift("root", y=0.26, curve=hold(0.45, 0.4)), bend("body", pitch=-12), aloft)
    book = g.looks(size, neck, 0.6) | g.stances(size, trunk) | g.walks(size, g.BIPED, stride=0.5, count=8)
    book |= g.leaps(size, "hops", forward=0.28, flight=flight)
    book |= {
        "flaps its wings": together(_flap(4), shift("body", y=0.012, curve=pulses(4)), bend("body", pitch=-14),
            g.lean(z=-0.025)),
        "spreads its wings": together(both("wing1", pitch=-8, roll=88), bend("chest", pitch=-12), g.lean(z=-0.02),
            g.crouch(-0.01)),
        "flutters up": up,
        "flutters backwards": together(up, shift("root", z=-0.2, curve=ease(0.1, 0.9)), bend("body", pitch=-14)),
        "loops the loop": together(aloft, shift("root", y=0.12, curve=hold(0.3, 0.3)),
            g.tumble(0.5, pitch=-360, curve=ease(0.2, 0.8))),
        "pecks the ground": together(bend("body", pitch=50, curve=hold(0.25, 0.25)), bend("chest", pitch=12),
            bend("head", pitch=20, curve=pulses(3)), g.crouch(0.02), shift("body", z=-0.035),
            bend("tail", pitch=-20)),
        "bows": together(bend("body", pitch=36), bend("head", pitch=30), shift("body", z=-0.04),
            both("wing1", pitch=16, roll=30)),
        "chirps": together(bend("jaw", pitch=28, curve=pulses(4)), curl(neck, pitch=-44), g.crouch(0.03, pulses(4)),
            g.lean(z=0.025, degrees=3)),
        "wags its tail": together(bend("tail", yaw=34, curve=waves(4)), bend("body", yaw=-16, curve=waves(4)),
            g.lean(z=0.025)),
        "dances": together(g.lean(x=0.045, degrees=12, curve=waves(2)), bend("head", roll=20, curve=waves(2)),
            g.crouch(0.03, pulses(4)), _flap(4, 35)),
    }
    for side, x in g.SIDES.items():
        book |= {
            f"raises its {side} wing": together(bend(f"{side}_wing1", roll=125 * x), g.lean(x=-0.035 * x,
                degrees=10)),
            f"flutters to the {side}": together(up, shift("root", x=0.22 * x, curve=ease(0.1, 0.9)), bend("body",
                roll=-14 * x)),
        }
    return book
