"""A kangaroo with long feet and a heavy tail, optionally with a joey in its pouch."""

from __future__ import annotations

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import GLOSSY, Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    bend,
    both,
    curl,
    foot,
    hops,
    pulses,
    ripple,
    shift,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, WHITE, Colour, Genes, mix
from factory.sources.creatures.shapes import ball, limb
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # fur, belly, ear lining and nose bridge
    ("#b9794a", "#f0dcbf", "#e8a79a"),
    ("#8d8a92", "#dedad6", "#d59aa0"),
    ("#c2613b", "#f3d3b0", "#eab09a"),
    ("#77604f", "#d8c3a5", "#cf9486"),
)

TRAIN = sentences("""
    hops once; hops twice; hops three times and looks left; hops forward once; hops forward twice;
    hops forward twice and looks left; hops forward three times; hops backwards; hops to the left;
    hops to the right and looks up; hops round to the left; hops round to the right and nods; leaps around;
    hops once, then boxes; waves its left paw; waves its right paw; waves its right paw and leans left;
    waves its left paw, then nods; raises both paws; stretches up tall; spreads its paws and sways; claps; boxes;
    boxes and bounces; boxes, then bows; looks left; looks left, then looks right; looks up; looks down; nods;
    shakes its head; shakes its head, then hops backwards; tilts its head left; sits back on its tail;
    sits back on its tail and waves its left paw; bows; crouches; crouches, then hops forward once; leans forward;
    leans right; leans left, then leans right; sways twice; twists; bounces; shivers; dances; peeks into its pouch;
    swings its tail left; kicks with its right foot; taps its left foot and looks down
""")
HELDOUT = sentences("""
    hops forward twice and looks right; hops to the right; hops round to the right; waves its right paw, then bows;
    boxes and looks up; sits back on its tail and nods; looks down, then looks left; swings its tail right;
    leans right and waves its left paw; crouches, then hops twice
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    fur, belly, pink = genes.palette(PALETTES, hue_deg=5)
    dark = mix(fur, INK, 0.75)
    slim, tall, ears, tail = genes.vary(0.14), genes.vary(0.08), genes.vary(0.3), genes.vary(0.15)
    head, joey = 1.12 * genes.vary(0.12), genes.chance(0.5)
    body = Body(_skeleton(tall, tail, head))
    at = {name: position for name, position in zip(body.skeleton.names, body.skeleton.positions, strict=True)}
    hips, chest, skull = at["body"], at["chest"], at["head"] + (0, 0.07 * head, 0.02)
    h = head

    skin = [
        ball("body", fur, hips + (0, -0.03, 0.0), (0.215 * slim, 0.235, 0.225), blend=0.1),
        ball("body", fur, hips + (0, -0.09, 0.11), (0.165 * slim, 0.165, 0.16), blend=0.1),
        limb("spine", fur, at["spine"], chest, 0.17 * slim, 0.135 * slim, blend=0.14),
        ball("chest", fur, chest + (0, 0.0, 0.02), (0.145 * slim, 0.15, 0.13), blend=0.1),
        limb("neck", fur, at["neck"], at["head"], 0.088, 0.08, blend=0.08),
        ball("head", fur, skull, (0.122 * h, 0.118 * h, 0.135 * h), blend=0.05),
        limb("head", fur, skull + (0, -0.028 * h, 0.07 * h), skull + (0, -0.058 * h, 0.185 * h), 0.078 * h, 0.054 * h,
            blend=0.07),
    ]
    tails = ["tail1", "tail2", "tail3", "tail4", "tail5"]
    for joint, end, r0, r1 in zip(tails[:-1], tails[1:], (0.14, 0.098, 0.075, 0.055), (0.098, 0.075, 0.055, 0.038),
        strict=True):
        skin.append(limb(joint, fur, at[joint], at[end], r0, r1, blend=0.012))
    ear_shapes = []
    for side, x in (("left", 1), ("right", -1)):
        thigh, shin, foot_ = (at[f"{side}_{part}"] for part in ("thigh", "shin", "foot"))
        skin += [
            ball(f"{side}_thigh", fur, (thigh + shin) / 2 + (0.01 * x, 0.035, -0.015), (0.098, 0.185, 0.135),
                pitch=-52, blend=0.07),
            limb(f"{side}_shin", fur, shin, foot_, 0.062, 0.04, blend=0.05),
            limb(f"{side}_foot", fur, foot_ + (0, -0.015, 0), foot_ + (0, -0.045, 0.17), 0.045, 0.042, blend=0.04),
            limb(f"{side}_foot", dark, foot_ + (0.005 * x, -0.046, 0.16), foot_ + (0.012 * x, -0.05, 0.33), 0.047,
                0.04, blend=0.03),
            limb(f"{side}_upper_arm", fur, at[f"{side}_upper_arm"], at[f"{side}_forearm"], 0.056, 0.042, blend=0.05),
            limb(f"{side}_forearm", fur, at[f"{side}_forearm"], at[f"{side}_hand"], 0.04, 0.03, blend=0.03),
            ball(f"{side}_hand", dark, at[f"{side}_hand"] + (0, -0.015, 0.025), (0.036, 0.033, 0.048), blend=0.025),
        ]
        root = at[f"{side}_ear"]
        middle = root + (0.045 * x, 0.12 * ears, -0.012)
        ear_shapes += [ball(f"{side}_ear", fur, middle, (0.052, 0.145 * ears, 0.026), roll=-16 * x, pitch=-6,
            blend=0.02), limb(f"{side}_ear", fur, root - (0, 0.03, 0), middle, 0.03, 0.035, blend=0.03)]
    front = ball("", belly, hips + (0, 0.09, 0.19), (0.15, 0.37, 0.2))
    throat = ball("", belly, at["neck"] + (0, 0.04, 0.1), (0.07, 0.16, 0.07))
    jaw = ball("", belly, skull + (0, -0.1 * h, 0.1 * h), (0.1, 0.055 * h, 0.17))
    tail_tip = ball("", dark, at["tail5"], (0.1, 0.1, 0.17))
    body.skin(skin, 0.031, [Paint(belly, front.measure, 0.03, ("body", "spine", "chest", "neck")),
        Paint(belly, throat.measure, 0.03), Paint(belly, jaw.measure, 0.025, ("head",)),
        Paint(dark, tail_tip.measure, 0.06)])
    lining = [Paint(pink, ball("", pink, at[f"{side}_ear"] + (0.047 * x, 0.13 * ears, 0.02),
        (0.033, 0.1 * ears, 0.022), roll=-16 * x).measure, 0.012) for side, x in (("left", 1), ("right", -1))]
    body.skin(ear_shapes, 0.0175, lining)
    for x in (1, -1):
        g.eye(body, "head", skull + (0.094 * h * x, 0.022 * h, 0.078 * h), 0.034 * h, yaw=48 * x)
    body.solid(ball("head", INK, skull + (0, -0.038 * h, 0.236 * h), (0.034 * h, 0.024 * h, 0.02 * h)),
        material=GLOSSY, detail=6)
    if joey:
        _joey(body, hips, fur, belly, pink)
    return Creature(body, _phrases())


def _joey(body: Body, hips: np.ndarray, fur: Colour, belly: Colour, pink: Colour) -> None:
    top = hips + (0, 0.1, 0.265)
    light = mix(fur, WHITE, 0.12)
    shapes = [ball("joey", light, top, (0.062, 0.058, 0.058)),
        limb("joey", light, top + (0, -0.012, 0.03), top + (0, -0.024, 0.072), 0.036, 0.026, blend=0.03),
        limb("joey", light, top, top - (0, 0.12, 0.06), 0.05, 0.05)]
    shapes += [ball("joey", light, top + (0.044 * x, 0.08, -0.01), (0.022, 0.05, 0.013), roll=-18 * x, blend=0.012)
        for x in (1, -1)]
    body.skin(shapes, 0.014)
    for x in (1, -1):
        g.eye(body, "joey", top + (0.042 * x, 0.014, 0.036), 0.014, yaw=42 * x)
    body.solid(ball("joey", INK, top + (0, -0.018, 0.098), (0.014, 0.011, 0.01)), material=GLOSSY, detail=4)
    body.skin(
        [
            limb("body", belly, hips + (0.105 * a, 0.02 + 0.02 * abs(a), 0.23 - 0.03 * abs(a)),
                hips + (0.105 * b, 0.02 + 0.02 * abs(b), 0.23 - 0.03 * abs(b)), 0.026, blend=0.01)
            for a, b in ((-1, -0.5), (-0.5, 0), (0, 0.5), (0.5, 1))
        ],
        0.017,
    )


def _skeleton(tall: float, tail: float, head: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.5, -0.06))
    s.row("body", {"spine": (0, 0.58, -0.05), "chest": (0, 0.5 + 0.3 * tall, 0.02),
        "neck": (0, 0.5 + 0.4 * tall, 0.07), "head": (0, 0.5 + 0.54 * tall, 0.12)})
    s.joint("joey", "body", (0, 0.5, 0.16))
    reach = [(0, 0.44, -0.2), (0, 0.27, -0.4), (0, 0.15, -0.56), (0, 0.085, -0.74), (0, 0.06, -0.98)]
    s.row("body", {f"tail{k + 1}": (0, y, -0.2 + (z + 0.2) * tail) for k, (_, y, z) in enumerate(reach)})
    s.keep_off_floor([f"tail{k}" for k in range(1, 6)], (0.14, 0.11, 0.08, 0.06, 0.042))
    shoulder = 0.5 + 0.34 * tall
    for side, x in (("left", 1), ("right", -1)):
        s.row("body", {f"{side}_thigh": (0.14 * x, 0.47, -0.07), f"{side}_shin": (0.205 * x, 0.345, 0.13),
            f"{side}_foot": (0.195 * x, 0.095, -0.14)})
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.2 * x, 0, 0.1))
        s.row("chest", {f"{side}_upper_arm": (0.13 * x, shoulder, 0.05),
            f"{side}_forearm": (0.195 * x, shoulder - 0.15, 0.07), f"{side}_hand": (0.165 * x, shoulder - 0.19, 0.2)})
        s.joint(f"{side}_ear", "head", (0.055 * x, 0.5 + 0.54 * tall + 0.16 * head, 0.11))
    return s


def _phrases() -> Book:
    trunk, neck, size = ("spine", "chest"), ("chest", "neck", "head"), 1.25
    tails = [f"tail{k}" for k in range(1, 5)]
    flight = together(*(foot(leg, y=0.05, z=-0.03, pitch=28, curve=pulses(1)) for leg in g.SIDES),
        both("ear", pitch=-25, curve=pulses(1)), curl(tails, pitch=-24, curve=pulses(1)),
        bend("chest", pitch=10, curve=pulses(1)))
    book = g.looks(size, neck, 0.85) | g.stances(size, trunk) | g.kicks(size) | g.arms(size, trunk, "paw", reach=0.75)
    book |= g.leaps(size, "hops", flight=flight)
    book |= {
        "leaps around": hops(1, turn_deg=180, height=0.28, flight=flight),
        "boxes": together(book["punches"], shift("body", x=0.05, curve=waves(2))),
        "raises both paws": book["raises both arms"],
        "spreads its paws": book["spreads its arms"],
        "sits back on its tail": together(g.lean(z=-0.11, degrees=16), g.crouch(0.07), bend("chest", pitch=-8)),
        "bows": together(curl(trunk, pitch=46), bend("head", pitch=10), g.lean(z=0.03), g.crouch(0.05)),
        "stretches up tall": together(g.crouch(-0.09), curl(trunk, pitch=-16), bend("head", pitch=-16),
            both("upper_arm", pitch=-130, roll=12)),
        "dances": together(
            g.lean(x=-0.085, degrees=9, curve=waves(2)),
            bend("chest", roll=-15, curve=waves(2)),
            bend("head", roll=16, curve=waves(2)),
            g.crouch(0.06, pulses(4)),
            both("upper_arm", pitch=-60, roll=18),
            curl(tails, yaw=70, curve=waves(2)),
        ),
        "wags its tail": together(ripple(tails, yaw=17, count=3), bend("body", yaw=-10, curve=waves(3))),
        "peeks into its pouch": together(curl(("chest", "neck", "head"), pitch=84), both("upper_arm", roll=26),
            g.lean(z=-0.085, degrees=6), bend("joey", pitch=-12)),
    }
    for side, x in g.SIDES.items():
        book[f"swings its tail {side}"] = together(curl(tails, yaw=-68 * x), bend("body", yaw=18 * x),
            bend("head", yaw=-30 * x), g.lean(z=0.1, degrees=4))
    return book
