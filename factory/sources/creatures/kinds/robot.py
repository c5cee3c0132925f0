"""A robot made of rounded boxes, with an emissive face and an antenna."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import GLOSSY, METAL, Body, Material
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import bend, both, ease, foot, pulses, shift, together, waves
from factory.sources.creatures.palette import Colour, Genes, colour, mix
from factory.sources.creatures.shapes import ball, box, limb
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # shell, trim, glow
    ("#e9e4da", "#e2703a", "#67e0ea"),
    ("#8fb7c9", "#f2c14e", "#c8f560"),
    ("#d6675a", "#f3e9dc", "#ffe27a"),
    ("#7fae8b", "#f0ead6", "#ff9d5c"),
    ("#8c86b8", "#f4b9c2", "#8ff0c8"),
)
STEEL = colour("#7d858c")
SCREEN = colour("#1b222b")
TRAIN = sentences("""
    walks forward; walks forward and looks left; walks backwards; walks on the spot and nods; turns left; turns right;
    turns around; steps to the left; steps to the right and waves its right hand; walks in a curve to the left;
    walks in a curve to the right and shakes its head; jumps once; jumps twice; jumps three times and nods;
    jumps forward once; jumps forward twice; jumps backwards; jumps to the left; jumps round to the right;
    waves its right hand; waves its left hand and bounces; waves its left hand, then waves its right hand;
    raises both arms; raises its right arm, then bows; spreads its arms; claps; claps and leans left; points left;
    points right and looks right; points forward with its right hand; flaps its arms; punches; swings its arms; bows;
    dances; dances and looks up; spins its torso; twists; bounces and nods; crouches; crouches, then jumps once;
    shakes its head and leans back; nods, then points left; looks left, then looks right; looks up; leans forward;
    sways; kicks with its left foot; balances on its right foot and spreads its arms; bleeps
""")
HELDOUT = sentences("""
    walks forward and waves its left hand; jumps to the right; turns left, then waves its right hand;
    points right, then bows; claps and leans right; looks right, then looks left;
    steps to the left and raises both arms; kicks with its right foot; bounces and shakes its head;
    crouches, then raises both arms
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    shell, trim, light = genes.palette(PALETTES, hue_deg=35)
    wide, belly, head, ears = genes.vary(0.12), genes.vary(0.12), genes.vary(0.12), genes.chance(0.6)
    round_head, smile = genes.chance(0.35, portrait=False), genes.chance(0.7)
    red, green, blue = (round(0.9 * c, 4) for c in light)
    glow = Material("glow", roughness=0.4, emissive=(red, green, blue))
    body = Body(_skeleton(wide))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    chest, skull, dark = at["chest"] + (0, 0.11, 0), at["head"] + (0, 0.165, 0), mix(STEEL, SCREEN, 0.5)
    width, face = 0.2 * head, skull + (0, 0, 0.148)
    if round_head:
        crown = ball("head", shell, skull, (width * 1.06, 0.175, 0.175))
        face = face + (0, 0, 0.003)
    else:
        crown = box("head", shell, skull, (width, 0.155, 0.15), 0.06)
    body.solid(box("chest", shell, chest, (0.185 * wide, 0.155 * belly, 0.125), 0.05), crown,
        box("body", trim, at["body"] + (0, 0.01, 0), (0.135 * wide, 0.06, 0.1), 0.04), detail=8)
    body.solid(
        limb("chest", STEEL, at["spine"], at["chest"], 0.06),
        limb("neck", STEEL, at["neck"] - (0, 0.03, 0), at["head"], 0.045),
        limb("head", STEEL, skull + (0, 0.13, 0), at["antenna"] + (0, 0.09, 0), 0.012),
        material=METAL,
        detail=6,
    )
    body.solid(box("head", SCREEN, face, (width * 0.78, 0.105, 0.02 if not round_head else 0.035), 0.018),
        material=GLOSSY, detail=7)
    body.solid(box("chest", trim, chest + (0, -0.01, 0.12), (0.1 * wide, 0.07, 0.014), 0.012), detail=6)
    for k in range(3):
        body.solid(ball("chest", light, chest + (0.055 * (k - 1), -0.01, 0.137), (0.017, 0.017, 0.008)),
            material=glow, detail=4)
    front = face + (0, 0.02, 0.022 if not round_head else 0.036)
    for x in (1, -1):
        body.solid(ball(f"{'left' if x > 0 else 'right'}_eye", light, front + (0.068 * x * head, 0, 0),
            (0.03, 0.036, 0.01)), material=glow, detail=6)
    mouth = [front + (0.045 * u * head, -0.072 + (0.018 * u * u if smile else 0), 0) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("head", light, a, b, 0.0085) for a, b in pairwise(mouth)), material=glow, detail=3)
    body.solid(ball("antenna", light, at["antenna"] + (0, 0.11, 0), 0.035), material=glow, detail=6)
    for side, x in g.SIDES.items():
        if ears:
            body.solid(limb("head", trim, skull + (width * x * 0.97, 0, 0),
                skull + (width * x * 0.97 + 0.03 * x, 0, 0), 0.055, 0.045), detail=6)
        _arm(body, side, x, at, shell, trim, dark)
        _leg(body, side, at, shell, trim)
    return Creature(body, _phrases())


def _arm(
    body: Body, side: str, x: int, at: dict[str, np.ndarray], shell: Colour, trim: Colour, dark: Colour
) -> None:
    shoulder, elbow, hand = (at[f"{side}_{part}"] for part in ("upper_arm", "forearm", "hand"))
    body.solid(ball(f"{side}_upper_arm", trim, shoulder, 0.068), ball(f"{side}_forearm", dark, elbow, 0.042),
        detail=6)
    body.solid(limb(f"{side}_upper_arm", STEEL, shoulder, elbow, 0.034), material=METAL, detail=5)
    body.solid(limb(f"{side}_forearm", shell, elbow + (hand - elbow) * 0.25, hand, 0.048, 0.058), detail=6)
    palm = hand + (0, -0.055, 0)
    body.solid(ball(f"{side}_hand", dark, palm + (0, 0.01, 0), (0.045, 0.035, 0.045)), detail=5)
    for dx, dz in ((0.034, 0.022), (-0.034, 0.022), (0, -0.038)):
        body.solid(limb(f"{side}_hand", trim, palm + (dx, 0, dz), palm + (dx * 1.05, -0.055, dz * 1.05), 0.019,
            0.015), detail=4)


def _leg(body: Body, side: str, at: dict[str, np.ndarray], shell: Colour, trim: Colour) -> None:
    hip, knee, ankle = (at[f"{side}_{part}"] for part in ("thigh", "shin", "foot"))
    body.solid(limb(f"{side}_thigh", STEEL, hip, knee, 0.045), ball(f"{side}_foot", STEEL, ankle, 0.045),
        material=METAL, detail=6)
    body.solid(ball(f"{side}_shin", trim, knee, 0.056),
        limb(f"{side}_shin", shell, knee + (ankle - knee) * 0.35, ankle + (0, 0.03, 0), 0.052, 0.066), detail=6)
    body.solid(box(f"{side}_foot", trim, (ankle[0], 0.045, ankle[2] + 0.035), (0.075, 0.045, 0.115), 0.036), detail=7)


def _skeleton(wide: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.43, 0))
    s.row("body", {"spine": (0, 0.46, 0), "chest": (0, 0.52, 0), "neck": (0, 0.8, 0), "head": (0, 0.84, 0)})
    s.joint("antenna", "head", (0, 1.15, 0))
    for side, x in g.SIDES.items():
        s.joint(f"{side}_eye", "head", (0.07 * x, 1.03, 0.16))
        shoulder = (0.185 * wide + 0.045) * x
        s.row("chest", {f"{side}_upper_arm": (shoulder, 0.71, 0),
            f"{side}_forearm": (shoulder + 0.045 * x, 0.57, -0.015),
            f"{side}_hand": (shoulder + 0.05 * x, 0.43, 0.02)})
        s.row("body", {f"{side}_thigh": (0.09 * x, 0.4, 0), f"{side}_shin": (0.1 * x, 0.26, 0.03),
            f"{side}_foot": (0.1 * x, 0.1, -0.01)})
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.1 * x, 0, 0.03))
    return s


def _phrases() -> Book:
    trunk, neck, size = ("spine", "chest"), ("chest", "head"), 1.15
    tuck = together(both("upper_arm", roll=35, curve=pulses(1)),
        *(foot(leg, y=0.03, curve=pulses(1)) for leg in g.SIDES))
    book = g.looks(size, neck) | g.stances(size, trunk) | g.walks(size, g.BIPED, stride=0.36) | g.kicks(size)
    book |= g.arms(size, trunk) | g.leaps(size, "jumps", flight=tuck)
    swing = together(bend("left_upper_arm", pitch=30, curve=waves(3)),
        bend("right_upper_arm", pitch=-30, curve=waves(3)))
    for phrase in ("walks forward", "walks backwards", "walks on the spot"):
        book[phrase] = together(book[phrase], swing)
    return book | {
        "bows": together(bend("spine", pitch=46), bend("head", pitch=16), g.lean(z=-0.07),
            both("upper_arm", -20, roll=18)),
        "dances": together(
            g.lean(x=0.06, degrees=4, curve=waves(2)),
            bend("chest", roll=12, curve=waves(2)),
            bend("head", roll=-14, curve=waves(2)),
            g.crouch(0.05, pulses(4)),
            both("upper_arm", roll=50),
            both("forearm", pitch=-80, curve=pulses(4)),
        ),
        "spins its torso": together(bend("spine", yaw=360, curve=ease()), both("upper_arm", roll=75), g.crouch(0.02)),
        "bleeps": together(shift("head", y=0.09, curve=pulses(3)), shift("antenna", y=0.03, curve=pulses(6)),
            g.crouch(0.09), bend("antenna", roll=14, curve=waves(6)), both("forearm", pitch=-75)),
    }
