"""A fox with a bib, socks and a bushy tail, in red, silver, arctic or fennec colours."""

from __future__ import annotations

from factory.sources.creatures import gestures as g
from factory.sources.creatures import quadruped as q
from factory.sources.creatures.body import GLOSSY, Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import bend, both, curl, pulses, together, waves
from factory.sources.creatures.palette import INK, Genes, mix
from factory.sources.creatures.shapes import ball, limb, onto

PALETTES = (  # fur, bib, socks
    ("#d9702e", "#fbf1e2", "#3a2a26"),
    ("#8f929b", "#f0efec", "#34353b"),
    ("#eceae6", "#ffffff", "#b9bcc4"),
    ("#e2bd85", "#fcf3e0", "#a97f56"),
    ("#a4532c", "#f4e3cc", "#2c201d"),
)
TRAIN = sentences("""
    walks forward; walks forward and looks left; walks backwards; trots forward; trots forward and wags its tail;
    turns left; turns right; turns around; steps to the left; walks in a curve to the right; leaps once; leaps twice;
    leaps forward once; leaps forward twice; leaps backwards; leaps to the left; leaps round to the right; pounces;
    pounces and looks left; sits; sits and looks up; sits and tilts its head left; lies down;
    lies down and looks right; bows to play; bows to play, then leaps once; begs; rears up; stretches;
    sniffs the ground; sniffs the ground, then looks up; shakes itself; digs; digs and wags its tail; chases its tail;
    barks; barks and wags its tail; howls; sits and howls; raises its left paw; waves its right paw;
    waves its left paw, then sits; kicks with its left hind foot; curls round to the left;
    looks left, then looks right; nods; shakes its head; crouches; leans back; twitches its ears
""")
HELDOUT = sentences("""
    walks forward and looks right; steps to the right; leaps to the right; sits and nods; lies down and looks left;
    howls, then sits; waves its left paw; curls round to the right; sniffs the ground, then looks left;
    raises its right paw
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    fur, bib, sock = genes.palette(PALETTES, hue_deg=4)
    h, brush, ears, plump = 1.22 * genes.vary(0.08), genes.vary(0.2), genes.vary(0.25), genes.vary(0.12)
    body = Body(q.skeleton(0.4 * genes.vary(0.08), 0.34 * genes.vary(0.08),
        [(0, 0.0, -0.06), (0, 0.0, -0.16), (0, 0.03, -0.26), (0, 0.07, -0.36)], head=(0.15, 0.1)))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    hips, chest, skull, end = at["body"], at["chest"], at["head"] + (0, 0.055, 0.04), at["tail4"]
    skin = [
        ball("body", fur, hips + (0, -0.01, 0.01), (0.098 * plump, 0.105, 0.115), blend=0.06),
        limb("spine", fur, hips + (0, 0, 0.08), chest - (0, 0.01, 0.04), 0.09 * plump, 0.097 * plump, blend=0.06),
        ball("chest", fur, chest + (0, -0.01, 0.02), (0.105 * plump, 0.118, 0.11), blend=0.06),
        limb("neck", fur, at["neck"] - (0, 0.02, 0.02), at["head"] + (0, 0.02, 0), 0.078, 0.068, blend=0.06),
        *q.legs(body.skeleton, fur, sock),
        limb("tail1", fur, at["tail1"] + (0, 0, 0.05), at["tail2"], 0.04, 0.066 * brush, blend=0.03),
        limb("tail2", fur, at["tail2"], at["tail3"], 0.066 * brush, 0.096 * brush, blend=0.01),
        limb("tail3", fur, at["tail3"], end, 0.096 * brush, 0.07 * brush, blend=0.01),
        limb("tail4", bib, end, end + (0, 0.045, -0.11), 0.07 * brush, 0.016, blend=0.01),
    ]
    head = [
        ball("head", fur, skull, (0.108 * h, 0.095 * h, 0.1 * h)),
        *(limb("head", fur, skull + (0.045 * h * x, -0.035 * h, 0.01), skull + (0.112 * h * x, -0.055 * h, 0.0),
            0.05 * h, 0.018 * h, blend=0.05) for x in (1, -1)),
        limb("head", fur, skull + (0, -0.03 * h, 0.06 * h), skull + (0, -0.05 * h, 0.175 * h), 0.056 * h, 0.027 * h,
            blend=0.05),
    ]
    jaw = [limb("jaw", bib, skull + (0, -0.06 * h, 0.05 * h), skull + (0, -0.075 * h, 0.145 * h), 0.034 * h,
        0.018 * h)]
    breast = ball("", bib, chest + (0, 0.0, 0.115), (0.068, 0.13, 0.09))
    cheeks = [ball("", bib, skull + (0.072 * h * x, -0.075 * h, 0.08 * h), (0.06 * h, 0.055 * h, 0.12 * h),
        yaw=-22 * x) for x in (1, -1)]
    tip = ball("", bib, end + (0, 0.05, -0.12), (0.1, 0.1, 0.115))
    body.skin(skin, 0.02, [Paint(bib, breast.measure, 0.02), Paint(bib, tip.measure, 0.03, ("tail3", "tail4"))])
    body.skin(head, 0.015, [Paint(bib, cheek.measure, 0.012) for cheek in cheeks])
    body.skin(jaw, 0.015)
    ear_shapes, lining = [], []
    for side, x in g.SIDES.items():
        root = at[f"{side}_ear"] + (0.006 * x, -0.045 + 0.03 * (h - 1), -0.005)
        top = root + (0.032 * x, 0.135 * ears * h, -0.008)
        ear_shapes.append(limb(f"{side}_ear", fur, root, top, 0.052 * h, 0.009, flat=0.5, flat_axis=(0.35 * x, 0, 1)))
        lining += [Paint(mix(sock, bib, 0.1), ball("", INK, top, 0.045).measure, 0.02),
            Paint(bib, limb("", bib, root + (0, 0.02, 0.03), top + (0, -0.035, 0.015), 0.027, 0.006).measure, 0.01)]
        g.eye(body, "head", onto(head, skull + (0.058 * h * x, 0.012 * h, 0.085 * h)), 0.023 * h, yaw=30 * x,
            pitch=-6)
    body.skin(ear_shapes, 0.0125, lining)
    body.solid(ball("head", INK, skull + (0, -0.043 * h, 0.2 * h), (0.021 * h, 0.016 * h, 0.014 * h)),
        material=GLOSSY, detail=5)
    return Creature(body, _phrases())


def _phrases() -> Book:
    book = q.book(0.62, 0.4)
    return book | {
        "barks": book["speaks up"],
        "howls": together(curl(q.NECK, pitch=-80), bend("jaw", pitch=24), g.lean(z=-0.04, degrees=4), g.crouch(0.02),
            both("ear", pitch=-30)),
        "twitches its ears": together(bend("left_ear", roll=-24, curve=pulses(4)),
            bend("right_ear", roll=24, curve=waves(3)), curl(q.NECK, yaw=30, roll=14), g.lean(z=0.045),
            g.crouch(0.02)),
    }
