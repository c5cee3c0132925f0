"""A cartoon child with a large head, in several skin colours, haircuts and outfits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    bend,
    both,
    curl,
    ease,
    foot,
    hold,
    hops,
    pulses,
    shift,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, Colour, Genes, colour, mix
from factory.sources.creatures.shapes import Shape, ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton

SKINS = ("#f0c4a0", "#8a5a3c", "#d89f72", "#f6d5bd", "#5e3d2b", "#b97a50")
HAIRS = ("#5a3822", "#221c1c", "#a5622c", "#d9b15f", "#8c3b22", "#3b2a22")
CLOTHES = (  # shirt, stripe, trousers, shoes
    ("#e8b23f", "#f7ead0", "#3f6ea3", "#c94f43"),
    ("#4fa08b", "#f1ead9", "#51463f", "#e9a33a"),
    ("#d9625a", "#fbe3c8", "#3d4a6b", "#f2efe6"),
    ("#6f86c9", "#e6ecf7", "#8a6f55", "#40403f"),
    ("#b57ab8", "#f3e2f1", "#4c6b5d", "#e8d26a"),
)
TRAIN = sentences("""
    walks forward; walks forward and waves their left hand; walks backwards; walks on the spot and looks left;
    turns left; turns right; turns around; steps to the right; steps to the left and claps;
    walks in a curve to the left; jumps once; jumps twice and looks up; jumps three times; jumps forward once;
    jumps forward twice; jumps backwards; jumps to the right; jumps round to the left; does a cartwheel;
    does a star jump; waves their right hand; waves their left hand and leans right;
    waves their right hand, then bows; raises both arms; raises their left arm and looks up; spreads their arms;
    spreads their arms and looks up; claps; claps and looks up; points left and looks left;
    points forward with their right hand; points forward with their left hand, then nods; swings their arms;
    flaps their arms; punches; reaches forward; shrugs; hugs themselves; bows; dances; dances and shakes their head;
    sits down; twists; crouches, then jumps once; nods; shakes their head; looks left, then looks right;
    leans back and looks up; kicks with their right foot; balances on their left foot
""")
HELDOUT = sentences("""
    walks forward and waves their right hand; steps to the left; jumps to the left; jumps round to the right;
    waves their left hand, then bows; points right and looks right; claps and leans left; looks right, then nods;
    kicks with their left foot; spreads their arms and balances on their right foot
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    skin, hair = genes.palette([(tone,) for tone in SKINS])[0], genes.palette([(tone,) for tone in HAIRS])[0]
    shirt, stripe, trousers, shoes = genes.palette(CLOTHES)
    tall, wide, h = genes.vary(0.08), genes.vary(0.1), 1.14 * genes.vary(0.06)
    striped, shorts, haircut = (genes.chance(0.5), genes.chance(0.5),
        genes.pick((_tuft, _bob, _curls, _buns, _ponytail)))
    body = Body(_skeleton(tall))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    skull, chest = at["head"] + (0, 0.148 * h, 0.01), at["chest"]
    torso = [
        limb("body", shirt, at["body"] + (0, 0.0, 0), at["spine"], 0.118 * wide, 0.116 * wide, blend=0.05),
        limb("spine", shirt, at["spine"], chest, 0.116 * wide, 0.115 * wide, blend=0.03),
        ball("chest", shirt, chest + (0, 0.035, 0), (0.128 * wide, 0.08, 0.098), blend=0.05),
    ]
    bare, legs = [limb("neck", skin, at["neck"] - (0, 0.03, 0), at["head"] + (0, 0.03, 0), 0.048)], []
    for side, x in g.SIDES.items():
        shoulder, elbow, hand = (at[f"{side}_{part}"] for part in ("upper_arm", "forearm", "hand"))
        hip, knee, ankle = (at[f"{side}_{part}"] for part in ("thigh", "shin", "foot"))
        torso.append(limb(f"{side}_upper_arm", shirt, shoulder, shoulder + 0.75 * (elbow - shoulder), 0.055, 0.056,
            blend=0.022))
        bare += [
            limb(f"{side}_upper_arm", skin, shoulder, elbow, 0.04, 0.036, blend=0.01),
            limb(f"{side}_forearm", skin, elbow, hand, 0.036, 0.031, blend=0.01),
            ball(f"{side}_hand", skin, hand + (0.004 * x, -0.03, 0.008), (0.03, 0.046, 0.04), blend=0.02),
            limb(f"{side}_hand", skin, hand + (0, -0.02, 0.02), hand + (-0.004 * x, -0.045, 0.048), 0.016, 0.013,
                blend=0.015),
            limb(f"{side}_shin", skin, knee, ankle, 0.046, 0.038, blend=0.01),
        ]
        legs += [limb(f"{side}_thigh", trousers, hip + (0, 0.01, 0), knee, 0.075, 0.06, blend=0.03),
            limb(f"{side}_shin", trousers, knee, knee + (0.1 if shorts else 0.8) * (ankle - knee), 0.06, 0.058,
            blend=0.01)]
    legs.append(limb("body", trousers, at["body"] - (0, 0.045, 0), at["body"] - (0, 0.01, 0), 0.118 * wide,
        blend=0.04))
    stripes = Paint(stripe, lambda p: 0.024 - abs((p[:, 1] - chest[1] + 0.028) % 0.096 - 0.048), 0.014)
    body.skin(torso, 0.0215, [stripes] if striped else [])
    body.skin(bare, 0.0235)
    body.skin(legs, 0.0235)
    body.skin([shape for side in g.SIDES for shape in _shoe(at[f"{side}_foot"], side, shoes)], 0.0205)
    cheeks = [Paint(mix(skin, colour("#e0605a"), 0.3), ball("", skin, skull + (0.1 * x, -0.045, 0.11), 0.034).measure,
        0.03) for x in (1, -1)]
    head = [
        ball("head", skin, skull, (0.148 * h, 0.152 * h, 0.142 * h)),
        ball("head", skin, skull + (0, -0.06 * h, 0.03 * h), (0.115 * h, 0.09 * h, 0.105 * h), blend=0.08),
        ball("head", skin, skull + (0, -0.03 * h, 0.142 * h), (0.02, 0.018, 0.02), blend=0.015),
        *(ball("head", skin, skull + (0.147 * h * x, -0.02, -0.005), (0.022, 0.036, 0.028), blend=0.012)
            for x in (1, -1)),
    ]
    body.skin(head, 0.0235, cheeks)
    for x in (1, -1):
        g.eye(body, "head", onto(head, skull + (0.06 * h * x, 0.01, 0.13 * h)), 0.029, yaw=22 * x, pitch=-4)
        brow = [onto(head, skull + (u * x, v, 0.13 * h)) for u, v in ((0.038, 0.066), (0.065, 0.073), (0.09, 0.064))]
        body.solid(*(limb("head", hair, a, b, 0.0075) for a, b in pairwise(brow)), detail=3)
    smile = [onto(head, skull + (0.05 * u, -0.085 * h + 0.022 * u * u, 0.14 * h)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("head", mix(skin, INK, 0.7), a, b, 0.0062) for a, b in pairwise(smile)), detail=3)
    body.skin(haircut(skull, hair, h), 0.0235)
    return Creature(body, _phrases())


def _shoe(ankle: np.ndarray, side: str, shoes: Colour) -> list[Shape]:
    toe = (ankle[0], 0.045, ankle[2] + 0.1)
    return [limb(f"{side}_foot", shoes, (ankle[0], 0.05, ankle[2] - 0.01), toe, 0.05, 0.046),
        limb(f"{side}_foot", shoes, ankle + (0, 0.005, 0), ankle - (0, 0.03, 0), 0.046, 0.05, blend=0.02)]


def _cap(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    """Return the base hair shapes of all haircuts, covering the top and back of the head."""
    return [ball("head", hair, skull + (0, 0.034 * h, -0.03 * h), (0.161 * h, 0.15 * h, 0.15 * h)),
        ball("head", hair, skull + (0, 0.115 * h, 0.055 * h), (0.112 * h, 0.05 * h, 0.085 * h), blend=0.03)]


def _tuft(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    return _cap(skull, hair, h) + [
        limb("head", hair, skull + (0, 0.16 * h, 0.03), skull + (0.05, 0.215 * h, 0.055), 0.04, 0.012, blend=0.03),
        limb("head", hair, skull + (0, 0.16 * h, 0.0), skull + (-0.035, 0.205 * h, 0.02), 0.04, 0.012, blend=0.03),
    ]


def _bob(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    sides = [ball("head", hair, skull + (0.13 * h * x, -0.05, -0.02), (0.045, 0.12, 0.09), blend=0.05)
        for x in (1, -1)]
    return _cap(skull, hair, h) + sides + [ball("head", hair, skull + (0, -0.06, -0.1), (0.13, 0.11, 0.06),
        blend=0.06)]


def _curls(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    ring = [(0.13, 0.07, 0.02), (0.1, 0.13, 0.06), (0.03, 0.165, 0.075), (0.13, 0.03, -0.07), (0.09, 0.15, -0.05),
        (0.1, -0.05, -0.09)]
    balls = [ball("head", hair, skull + (x * u * h, v * h, w * h), 0.062 * h, blend=0.03) for u, v,
        w in ring for x in (1, -1)]
    return _cap(skull, hair, h) + balls


def _buns(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    return _cap(skull, hair, h) + [ball("head", hair, skull + (0.12 * x, 0.145 * h, -0.03), 0.065, blend=0.02)
        for x in (1, -1)]


def _ponytail(skull: np.ndarray, hair: Colour, h: float) -> list[Shape]:
    tie = skull + (0, 0.07, -0.175 * h)
    return _cap(skull, hair, h) + [limb("ponytail", hair, tie, tie + (0, -0.07, -0.06), 0.045, 0.05, blend=0.03),
        limb("ponytail", hair, tie + (0, -0.07, -0.06), tie + (0, -0.19, -0.05), 0.05, 0.014, blend=0.01)]


def _skeleton(tall: float) -> Skeleton:
    s = Skeleton()
    hip = 0.44 * tall
    s.joint("body", "root", (0, hip, 0))
    up = {"spine": 0.07, "chest": 0.16, "neck": 0.265, "head": 0.305}
    s.row("body", {name: (0, hip + y, 0) for name, y in up.items()})
    s.joint("ponytail", "head", (0, hip + 0.52, -0.17))
    for side, x in g.SIDES.items():
        arm = {"upper_arm": (0.125 * x, hip + 0.225, 0), "forearm": (0.19 * x, hip + 0.1, -0.005),
            "hand": (0.225 * x, hip - 0.015, 0.03)}
        s.row("chest", {f"{side}_{part}": place for part, place in arm.items()})
        leg = {"thigh": (0.065 * x, hip - 0.03, 0), "shin": (0.072 * x, 0.54 * hip, 0.022),
            "foot": (0.072 * x, 0.085, -0.015)}
        s.row("body", {f"{side}_{part}": place for part, place in leg.items()})
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.072 * x, 0, 0.03))
    return s


def _phrases() -> Book:
    trunk, neck, size = ("spine", "chest"), ("chest", "neck", "head"), 1.1
    flight = together(both("upper_arm", roll=45, curve=pulses(1)),
        *(foot(leg, y=0.05, pitch=20, curve=pulses(1)) for leg in g.SIDES))
    own = "their"
    book = g.looks(size, neck, own=own) | g.stances(size, trunk, own=own) | g.walks(size, g.BIPED, stride=0.45)
    book |= g.kicks(size, own=own) | g.arms(size, trunk, reach=0.86, own=own) | g.leaps(size, "jumps", flight=flight)
    swing = together(bend("left_upper_arm", pitch=34, curve=waves(3)),
        bend("right_upper_arm", pitch=-34, curve=waves(3)))
    for phrase in ("walks forward", "walks backwards", "walks on the spot", "turns left", "turns right"):
        book[phrase] = together(book[phrase], swing)
    star = together(both("upper_arm", roll=110, curve=pulses(1)),
        *(foot(s, x=0.12 * x, roll=18 * x, curve=pulses(1)) for s, x in g.SIDES.items()))
    return book | {
        "does a star jump": hops(1, height=0.22, crouch=0.1, flight=star),
        "does a cartwheel": together(
            both("upper_arm", roll=124, curve=hold(0.2, 0.2)), g.tumble(0.62, roll=-360, curve=ease(0.2, 0.85)),
                shift("root", x=0.35, curve=ease(0.15, 0.9)),
                *(foot(s, x=0.1 * x, y=0.03) for s, x in g.SIDES.items())
        ),
        "shrugs": together(shift("left_upper_arm", y=0.035), shift("right_upper_arm", y=0.035),
            both("upper_arm", roll=18), both("forearm", pitch=-70, yaw=40), bend("head", roll=16), g.crouch(0.05),
            g.lean(z=-0.04)),
        "hugs themselves": together(both("upper_arm", pitch=-48, yaw=-22), both("forearm", pitch=-40, yaw=-62),
            bend("head", pitch=14, roll=12), g.lean(x=0.04, degrees=5, curve=waves(2)), g.crouch(0.05)),
        "bows": together(curl(trunk, pitch=52), bend("head", pitch=12), g.lean(z=-0.06),
            both("upper_arm", -26, roll=12)),
        "sits down": together(g.crouch(0.22, hold(0.4, 0.3)), g.lean(z=-0.13), curl(trunk, pitch=16),
            both("upper_arm", pitch=-35)),
        "dances": together(
            g.lean(x=0.07, degrees=6, curve=waves(2)),
            curl(trunk, roll=18, curve=waves(2)),
            bend("head", roll=-14, curve=waves(2)),
            g.crouch(0.05, pulses(4)),
            both("upper_arm", roll=60),
            bend("left_forearm", roll=50, curve=waves(2)),
            bend("right_forearm", roll=50, curve=waves(2)),
        ),
    }
