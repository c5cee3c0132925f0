"""A crab with stalked eyes, two large claws and a sideways gait."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import bend, both, foot, hops, pulses, shift, steps, together, waves
from factory.sources.creatures.palette import INK, Colour, Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # shell, belly, spots
    ("#e2583e", "#f9d3a8", "#f79a6d"),
    ("#3f8fb0", "#e9e2c8", "#7fc6d6"),
    ("#e09a3a", "#fbeccb", "#f5c878"),
    ("#8e5aa5", "#f0d8e8", "#bd8fd0"),
    ("#5d9a5b", "#eef0cf", "#98c984"),
)
ROWS = ("fore", "mid", "hind")
LEGS = tuple(f"{row}_{side}" for row in ROWS for side in ("left", "right"))
TRIPODS = (("fore_left", "mid_right", "hind_left"), ("fore_right", "mid_left", "hind_right"))
TRAIN = sentences("""
    scuttles to the left; scuttles to the right; scuttles to the left and snaps its claws;
    scuttles to the right and raises both claws; walks forward; walks forward and raises both claws; walks backwards;
    walks on the spot; turns left; turns right; turns around; waves its left claw; waves its right claw;
    waves its right claw and looks up; waves its left claw, then waves its right claw; raises both claws;
    raises both claws and nods; raises its left claw; raises its right claw and looks right; snaps its claws;
    snaps its claws and leans forward; snaps its left claw; spreads its claws; spreads its claws and turns left;
    claps its claws; hides its face; hides its face, then raises both claws; boxes; looks left;
    looks left, then looks right; looks up; nods; shakes its head; wiggles its eyes; crouches;
    crouches, then jumps once; stands up tall; leans left; leans right and snaps its claws; leans back;
    leans forward, then leans back; sways; twists; bounces; dances; dances and spreads its claws; drums with its feet;
    jumps once; jumps to the right; shivers
""")
HELDOUT = sentences("""
    scuttles to the right and snaps its claws; scuttles to the left and raises both claws;
    walks forward and looks left; waves its left claw and leans right; raises its right claw and nods;
    raises its left claw and looks left; snaps its right claw; jumps to the left; looks right, then looks left;
    leans left and waves its right claw
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    shell, belly, spot = genes.palette(PALETTES, hue_deg=12)
    wide, tall, left_claw, right_claw = (genes.vary(0.12), genes.vary(0.12), 1.6 * genes.vary(0.2),
        1.4 * genes.vary(0.2))
    freckles = genes.points(14, (-0.2, 0, -0.16), (0.2, 0.1, 0.1))
    freckled = genes.chance(0.7)
    body = Body(_skeleton(wide))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    centre, dark = at["shell"], mix(shell, INK, 0.35)
    crust = [ball("shell", shell, centre, (0.215 * wide, 0.128 * tall, 0.165), blend=0.05),
        ball("shell", shell, centre + (0, -0.012, 0.06), (0.18 * wide, 0.1 * tall, 0.125), blend=0.06)]
    spots = [Paint(spot, ball("", spot, onto(crust, centre + p * (1, 1, 1) + (0, 0.05, 0)),
        0.014 + 0.018 * (k % 3) / 2).measure, 0.012) for k, p in enumerate(freckles)]
    under = ball("", belly, centre - (0, 0.125, -0.02), (0.24, 0.07, 0.2))
    body.skin(crust, 0.019, [*(spots if freckled else []), Paint(belly, under.measure, 0.03)])
    smile = [onto(crust, centre + (0.05 * u, -0.018 + 0.016 * u * u, 0.2)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("shell", mix(shell, INK, 0.8), a, b, 0.0068) for a, b in pairwise(smile)), detail=3)
    for side, x in g.SIDES.items():
        stalk = at[f"{side}_eye"]
        top = stalk + (0.008 * x, 0.098, 0.02)
        body.skin([limb(f"{side}_eye", shell, stalk - (0, 0.03, 0), top, 0.022, 0.018),
            ball(f"{side}_eye", shell, top - (0, 0.002, 0.012), 0.045, blend=0.02)], 0.015)
        g.eye(body, f"{side}_eye", top + (0.002 * x, 0.004, 0.018), 0.043, yaw=8 * x, pitch=-6,
            iris=colour("#4a3b34"), flat=0.75)
        _claw(body, side, x, at, shell, belly, left_claw if x > 0 else right_claw)
    legs = []
    for leg in LEGS:
        hip, knee, tip = (at[f"{leg}_{part}"] for part in ("upper", "lower", "tip"))
        sole = body.skeleton.legs[leg].sole
        legs.append(
            [limb(f"{leg}_upper", shell, hip, knee, 0.036, 0.03, blend=0.02),
                limb(f"{leg}_lower", shell, knee, tip, 0.028, 0.019, blend=0.012),
                limb(f"{leg}_tip", dark, tip, sole + (0, 0.009, 0), 0.019, 0.0085, blend=0.006)]
        )
    for shapes in legs:
        body.skin(shapes, 0.016)
    return Creature(body, _phrases())


def _claw(
    body: Body, side: str, x: int, at: dict[str, np.ndarray], shell: Colour, belly: Colour, size: float
) -> None:
    shoulder, elbow, wrist, hinge = (at[f"{side}_{part}"] for part in ("upper_arm", "forearm", "hand", "pincer"))
    arm = [limb(f"{side}_upper_arm", shell, shoulder, elbow, 0.036, 0.034, blend=0.02),
        limb(f"{side}_forearm", shell, elbow, wrist, 0.032, 0.03, blend=0.015)]
    palm = wrist + np.array([-0.005 * x, 0.008, 0.055]) * size
    arm += [
        ball(f"{side}_hand", shell, palm, np.array([0.056, 0.05, 0.07]) * size, blend=0.03),
        limb(f"{side}_hand", shell, palm + np.array([0.026 * x, 0, 0.035]) * size,
            palm + np.array([0.018 * x, 0.004, 0.125]) * size, 0.034 * size, 0.011 * size, blend=0.025),
    ]
    body.skin(arm, 0.017, [Paint(belly, ball("", belly, palm + np.array([0.012 * x, 0, 0.135]) * size,
        0.045 * size).measure, 0.02)])
    finger = [
        limb(f"{side}_pincer", shell, hinge, hinge + np.array([-0.012 * x, 0, 0.045]) * size, 0.026 * size,
            0.021 * size, blend=0.02),
        limb(f"{side}_pincer", belly, hinge + np.array([-0.012 * x, 0, 0.045]) * size,
            hinge + np.array([0.008 * x, 0, 0.085]) * size, 0.021 * size, 0.008 * size, blend=0.01),
    ]
    body.skin(finger, 0.0145)


def _skeleton(wide: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.19, 0))
    s.joint("shell", "body", (0, 0.2, 0))
    for side, x in g.SIDES.items():
        s.joint(f"{side}_eye", "shell", (0.07 * x, 0.295, 0.09))
        w = 0.155 * wide * x
        arm = {"upper_arm": (w, 0.19, 0.1), "forearm": (w + 0.1 * x, 0.205, 0.155),
            "hand": (w + 0.085 * x, 0.225, 0.23)}
        s.row("shell", {f"{side}_{part}": place for part, place in arm.items()})
        s.joint(f"{side}_pincer", f"{side}_hand", (w + 0.05 * x, 0.236, 0.34))
        for row, z, out in zip(ROWS, (0.045, -0.03, -0.1), (0.98, 1.05, 0.95), strict=True):
            reach = 0.13 * out * x
            leg = {"upper": (0.165 * wide * x, 0.165, z), "lower": (0.165 * wide * x + reach, 0.24, 1.5 * z - 0.005),
                "tip": (0.165 * wide * x + 1.5 * reach, 0.08, 1.9 * z - 0.01)}
            s.row("body", {f"{row}_{side}_{part}": place for part, place in leg.items()})
            upper, lower, tip = (f"{row}_{side}_{part}" for part in leg)
            s.leg(f"{row}_{side}", upper, lower, tip,
                (0.165 * wide * x + 1.64 * reach, 0, 2.05 * z - 0.01))
    return s


def stalks(**angles: Any) -> g.Gesture:
    """Bend both eye stalks."""
    return together(*(bend(f"{side}_eye", **angles) for side in g.SIDES))


def snap(side: str, x: int) -> g.Gesture:
    """Open and close one claw repeatedly."""
    return bend(f"{side}_pincer", yaw=-38 * x, curve=pulses(5))


def _phrases() -> Book:
    size, trunk = 0.5, ("shell",)
    up = both("upper_arm", pitch=-62, roll=22)
    guard = together(both("upper_arm", yaw=-38, pitch=-34), both("forearm", yaw=-34, pitch=-22))
    book = g.stances(size, trunk, "shell") | g.walks(size, TRIPODS, 6, 0.55)
    snaps = together(*(snap(side, x) for side, x in g.SIDES.items()), both("upper_arm", pitch=-24))
    book |= {
        "crouches": together(g.crouch(0.052), bend("shell", pitch=6), both("upper_arm", pitch=-14)),
        "bounces": together(g.crouch(0.048, waves(4)), both("upper_arm", pitch=-30, curve=pulses(4)), g.lean(z=0.03)),
        "sways": together(g.lean(x=0.085, degrees=9, curve=waves(1)), bend("shell", roll=-6, curve=waves(1))),
        "walks on the spot": together(steps(TRIPODS, 6, lift=0.09, tip_deg=0), g.crouch(0.045, pulses(3)),
            bend("shell", roll=8, curve=waves(3))),
        "jumps once": hops(1, height=0.14, crouch=0.045),
        "raises both claws": together(up, g.lean(z=-0.05, degrees=8), g.crouch(0.02)),
        "snaps its claws": together(snaps, g.lean(z=0.045, curve=pulses(2)), g.crouch(0.03)),
        "spreads its claws": together(both("upper_arm", yaw=42, pitch=-22), bend("shell", pitch=-9), g.lean(z=-0.05)),
        "claps its claws": together(both("upper_arm", yaw=-20, pitch=-26), both("upper_arm", yaw=26, curve=pulses(4)),
            g.lean(z=0.03), g.crouch(0.05, pulses(4))),
        "hides its face": together(guard, bend("shell", pitch=10), g.crouch(0.045), g.lean(z=-0.05)),
        "boxes": together(
            *(bend(f"{s}_upper_arm", pitch=-34, yaw=-22 * x, curve=g.alternate(k))
                for k, (s, x) in enumerate(g.SIDES.items())),
            *(shift(f"{s}_hand", z=0.05, curve=g.alternate(k)) for k, s in enumerate(g.SIDES)),
            bend("body", yaw=13, curve=waves(2)),
            g.lean(z=0.06, degrees=4),
        ),
        "looks up": together(bend("shell", pitch=-22), stalks(pitch=-26), g.lean(z=-0.05), g.crouch(-0.015)),
        "nods": together(bend("shell", pitch=20, curve=pulses(3)), stalks(pitch=24, curve=pulses(3)), g.crouch(0.03),
            g.lean(z=0.03)),
        "shakes its head": together(bend("shell", yaw=17, curve=waves(3)), stalks(roll=22, curve=waves(3)),
            g.crouch(0.045), g.lean(z=0.04)),
        "wiggles its eyes": together(bend("left_eye", roll=-34, pitch=12, curve=waves(4)),
            bend("right_eye", roll=34, pitch=12, curve=waves(4)), g.crouch(-0.03), g.lean(z=0.06)),
        "stands up tall": together(g.crouch(-0.075), bend("shell", pitch=-8), up),
        "dances": together(g.lean(x=0.08, degrees=8, curve=waves(2)), g.crouch(0.05, pulses(4)),
            both("upper_arm", pitch=-50, roll=16), bend("shell", yaw=12, curve=waves(2)), snaps),
        "drums with its feet": together(*(foot(leg, y=0.05, curve=g.alternate(k % 2, 10))
            for k, leg in enumerate(LEGS)), bend("shell", roll=7, curve=waves(5)), g.lean(z=0.035), g.crouch(0.02)),
    }
    return book | _sided_phrases()


def _sided_phrases() -> Book:
    book: Book = {}
    for side, x in g.SIDES.items():
        arm, scuttle = f"{side}_upper_arm", steps(TRIPODS, 8, side=0.5 * x, lift=0.045, bob=0.012, tip_deg=0)
        book |= {
            f"scuttles to the {side}": together(scuttle, bend("shell", roll=-5 * x), stalks(roll=-14 * x)),
            f"jumps to the {side}": hops(1, side=0.2 * x, height=0.12, crouch=0.045),
            f"waves its {side} claw": together(bend(arm, pitch=-70, roll=20 * x), bend(f"{side}_forearm", yaw=34,
                roll=20, curve=waves(4)), g.lean(x=-0.06 * x, degrees=7)),
            f"raises its {side} claw": together(bend(arm, pitch=-66, yaw=10 * x), g.lean(x=-0.04 * x, z=-0.03,
                degrees=6)),
            f"snaps its {side} claw": together(snap(side, x), bend(arm, pitch=-24, yaw=-12 * x), bend("body",
                yaw=-9 * x), g.lean(x=0.045 * x, z=0.04)),
            f"looks {side}": together(bend("shell", yaw=14 * x), bend("body", yaw=14 * x),
                stalks(yaw=50 * x, roll=-18 * x), g.lean(x=0.04 * x)),
        }
    return book
