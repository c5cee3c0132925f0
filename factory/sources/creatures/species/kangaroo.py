"""A kangaroo: long feet, a tail to lean on, and as often as not a joey in the pouch."""

from __future__ import annotations

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import GLOSSY, Body, Paint
from factory.sources.creatures.creature import Creature
from factory.sources.creatures.motion import Gesture, bend, foot, hold, hops, pulses, shift, together, waves
from factory.sources.creatures.palette import INK, WHITE, Genes, mix
from factory.sources.creatures.shapes import ball, limb
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # fur, belly, ear lining and nose bridge
    ("#b9794a", "#f0dcbf", "#e8a79a"),
    ("#8d8a92", "#dedad6", "#d59aa0"),
    ("#c2613b", "#f3d3b0", "#eab09a"),
    ("#77604f", "#d8c3a5", "#cf9486"),
)

TRAIN = (
    "hops forward once",
    "hops forward twice and looks left",
    "hops on the spot twice",
    "hops round to the right",
    "waves its right paw",
    "waves its left paw, then nods",
    "sits back on its tail",
    "boxes",
    "dances",
    "bows",
    "looks left, then looks right",
)
HELDOUT = ("looks right, then hops forward once", "leans left and waves its right paw")


def grow(genes: Genes) -> Creature:
    fur, belly, pink = genes.palette(PALETTES)
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
        limb(
            "head",
            fur,
            skull + (0, -0.028 * h, 0.07 * h),
            skull + (0, -0.058 * h, 0.185 * h),
            0.078 * h,
            0.054 * h,
            blend=0.07,
        ),
    ]
    tails = ["tail1", "tail2", "tail3", "tail4", "tail5"]
    for joint, end, r0, r1 in zip(
        tails[:-1], tails[1:], (0.14, 0.098, 0.075, 0.055), (0.098, 0.075, 0.055, 0.038), strict=True
    ):
        skin.append(limb(joint, fur, at[joint], at[end], r0, r1, blend=0.012))
    ear_shapes = []
    for side, x in (("left", 1), ("right", -1)):
        thigh, shin, foot_ = (at[f"{side}_{part}"] for part in ("thigh", "shin", "foot"))
        skin += [
            ball(
                f"{side}_thigh",
                fur,
                (thigh + shin) / 2 + (0.01 * x, 0.035, -0.015),
                (0.098, 0.185, 0.135),
                pitch=-52,
                blend=0.07,
            ),
            limb(f"{side}_shin", fur, shin, foot_, 0.062, 0.04, blend=0.05),
            limb(
                f"{side}_foot",
                fur,
                foot_ + (0, -0.015, 0),
                foot_ + (0, -0.045, 0.17),
                0.045,
                0.042,
                blend=0.04,
            ),
            limb(
                f"{side}_foot",
                dark,
                foot_ + (0.005 * x, -0.046, 0.16),
                foot_ + (0.012 * x, -0.05, 0.33),
                0.047,
                0.04,
                blend=0.03,
            ),
            limb(
                f"{side}_upper_arm",
                fur,
                at[f"{side}_upper_arm"],
                at[f"{side}_forearm"],
                0.056,
                0.042,
                blend=0.05,
            ),
            limb(f"{side}_forearm", fur, at[f"{side}_forearm"], at[f"{side}_hand"], 0.04, 0.03, blend=0.03),
            ball(
                f"{side}_hand",
                dark,
                at[f"{side}_hand"] + (0, -0.015, 0.025),
                (0.036, 0.033, 0.048),
                blend=0.025,
            ),
        ]
        root = at[f"{side}_ear"]
        tip = root + (0.07 * x, 0.235 * ears, -0.03)
        middle = root + (0.045 * x, 0.12 * ears, -0.012)
        ear_shapes += [
            ball(
                f"{side}_ear", fur, middle, (0.052, 0.145 * ears, 0.026), roll=-16 * x, pitch=-6, blend=0.02
            ),
            limb(f"{side}_ear", fur, root - (0, 0.03, 0), middle, 0.03, 0.035, blend=0.03),
        ]
    front = ball("", belly, hips + (0, 0.09, 0.19), (0.15, 0.37, 0.2))
    throat = ball("", belly, at["neck"] + (0, 0.04, 0.1), (0.07, 0.16, 0.07))
    jaw = ball("", belly, skull + (0, -0.1 * h, 0.1 * h), (0.1, 0.055 * h, 0.17))
    tail_tip = ball("", dark, at["tail5"], (0.1, 0.1, 0.17))
    body.skin(
        skin, 0.026,
        [Paint(belly, front.measure, 0.03, ("body", "spine", "chest", "neck")), Paint(belly, throat.measure, 0.03), Paint(belly, jaw.measure, 0.025, ("head",)),
         Paint(dark, tail_tip.measure, 0.06)],
    )  # fmt: skip
    lining = [
        Paint(
            pink,
            ball(
                "",
                pink,
                at[f"{side}_ear"] + (0.047 * x, 0.13 * ears, 0.02),
                (0.033, 0.1 * ears, 0.022),
                roll=-16 * x,
            ).measure,
            0.012,
        )
        for side, x in (("left", 1), ("right", -1))
    ]
    body.skin(ear_shapes, 0.0145, lining)
    for x in (1, -1):
        g.eye(body, "head", skull + (0.094 * h * x, 0.022 * h, 0.078 * h), 0.034 * h, yaw=48 * x)
    body.solid(
        ball("head", INK, skull + (0, -0.038 * h, 0.236 * h), (0.034 * h, 0.024 * h, 0.02 * h)),
        material=GLOSSY,
        detail=6,
    )
    if joey:
        _joey(body, hips, fur, belly, pink)
    return Creature(body, _phrases())


def _joey(body: Body, hips, fur, belly, pink) -> None:
    top = hips + (0, 0.1, 0.265)
    light = mix(fur, WHITE, 0.12)
    shapes = [
        ball("joey", light, top, (0.062, 0.058, 0.058)),
        limb("joey", light, top + (0, -0.012, 0.03), top + (0, -0.024, 0.072), 0.036, 0.026, blend=0.03),
        limb("joey", light, top, top - (0, 0.12, 0.06), 0.05, 0.05),
    ]
    shapes += [
        ball("joey", light, top + (0.044 * x, 0.08, -0.01), (0.022, 0.05, 0.013), roll=-18 * x, blend=0.012)
        for x in (1, -1)
    ]
    body.skin(shapes, 0.0115)
    for x in (1, -1):
        g.eye(body, "joey", top + (0.042 * x, 0.014, 0.036), 0.014, yaw=42 * x)
    body.solid(ball("joey", INK, top + (0, -0.018, 0.098), (0.014, 0.011, 0.01)), material=GLOSSY, detail=4)
    body.skin(
        [
            limb(
                "body",
                belly,
                hips + (0.105 * a, 0.02 + 0.02 * abs(a), 0.23 - 0.03 * abs(a)),
                hips + (0.105 * b, 0.02 + 0.02 * abs(b), 0.23 - 0.03 * abs(b)),
                0.026,
                blend=0.01,
            )
            for a, b in ((-1, -0.5), (-0.5, 0), (0, 0.5), (0.5, 1))
        ],
        0.014,
    )


def _skeleton(tall: float, tail: float, head: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.5, -0.06))
    s.row(
        "body",
        {
            "spine": (0, 0.58, -0.05),
            "chest": (0, 0.5 + 0.3 * tall, 0.02),
            "neck": (0, 0.5 + 0.4 * tall, 0.07),
            "head": (0, 0.5 + 0.54 * tall, 0.12),
        },
    )
    s.joint("joey", "body", (0, 0.5, 0.16))
    reach = [(0, 0.44, -0.2), (0, 0.27, -0.4), (0, 0.15, -0.56), (0, 0.085, -0.74), (0, 0.06, -0.98)]
    s.row("body", {f"tail{k + 1}": (0, y, -0.2 + (z + 0.2) * tail) for k, (_, y, z) in enumerate(reach)})
    s.keep_off_floor([f"tail{k}" for k in range(1, 6)], (0.14, 0.11, 0.08, 0.06, 0.042))
    shoulder = 0.5 + 0.34 * tall
    for side, x in (("left", 1), ("right", -1)):
        s.row(
            "body",
            {
                f"{side}_thigh": (0.14 * x, 0.47, -0.07),
                f"{side}_shin": (0.205 * x, 0.345, 0.13),
                f"{side}_foot": (0.195 * x, 0.095, -0.14),
            },
        )
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.2 * x, 0, 0.1))
        s.row(
            "chest",
            {
                f"{side}_upper_arm": (0.13 * x, shoulder, 0.05),
                f"{side}_forearm": (0.195 * x, shoulder - 0.15, 0.07),
                f"{side}_hand": (0.165 * x, shoulder - 0.19, 0.2),
            },
        )
        s.joint(f"{side}_ear", "head", (0.055 * x, 0.5 + 0.54 * tall + 0.16 * head, 0.11))
    return s


def _phrases() -> dict[str, Gesture]:
    tuck = together(*(foot(leg, y=0.05, z=-0.03, pitch=28, curve=pulses(1)) for leg in g.SIDES))
    swish = together(bend("tail1", pitch=-10, curve=pulses(1)), bend("tail3", pitch=-12, curve=pulses(1)))
    leap = together(
        tuck,
        swish,
        bend("chest", pitch=10, curve=pulses(1)),
        bend("left_ear", pitch=-25, curve=pulses(1)),
        bend("right_ear", pitch=-25, curve=pulses(1)),
    )
    times = {"once": 1, "twice": 2, "three times": 3}
    book = {
        "sits back on its tail": together(
            g.lean(z=-0.11, degrees=16), g.crouch(0.07), bend("chest", pitch=-8), bend("head", pitch=-8)
        ),
        "bows": together(
            bend("spine", pitch=24),
            bend("chest", pitch=20),
            bend("head", pitch=10),
            g.lean(z=-0.05),
            g.crouch(0.05),
        ),
        "crouches low": together(g.crouch(0.19), bend("spine", pitch=24), bend("head", pitch=-22)),
        "stretches up tall": together(
            g.crouch(-0.085),
            bend("spine", pitch=-7),
            bend("chest", pitch=-8),
            bend("head", pitch=-16),
            *(bend(f"{s}_upper_arm", pitch=-130, roll=12 * x) for s, x in g.SIDES.items()),
        ),
        "nods": together(
            bend("head", pitch=24, curve=pulses(3)),
            bend("spine", pitch=13, curve=pulses(3)),
            g.crouch(0.04, pulses(3)),
        ),
        "shakes its head": together(
            bend("head", yaw=34, curve=waves(3)),
            bend("chest", yaw=-10, curve=waves(3)),
            bend("spine", pitch=9),
            g.lean(z=0.05),
        ),
        "scratches its belly": together(
            *(bend(f"{s}_forearm", pitch=26, yaw=-14 * x, curve=waves(4)) for s, x in g.SIDES.items()),
            bend("spine", pitch=-12),
            g.lean(z=-0.07, degrees=6),
            bend("head", pitch=22),
        ),
        "boxes": together(
            *(
                bend(f"{s}_upper_arm", pitch=-62, yaw=-10 * x, curve=pulses_of(k))
                for k, (s, x) in enumerate(g.SIDES.items())
            ),
            *(bend(f"{s}_forearm", pitch=22, curve=pulses_of(k)) for k, s in enumerate(g.SIDES)),
            bend("chest", yaw=22, curve=waves(2)),
            g.lean(z=0.07, degrees=5),
            shift("body", x=0.05, curve=waves(2)),
        ),
        "shivers": together(
            bend("chest", yaw=9, curve=waves(9)),
            bend("head", yaw=10, roll=5, curve=waves(9)),
            shift("body", x=0.02, curve=waves(9)),
            g.crouch(0.1),
            bend("spine", pitch=14),
        ),
        "turns around in a leap": hops(1, turn_deg=180, height=0.22, flight=leap),
        "dances": together(
            shift("body", x=0.085, curve=waves(2)),
            bend("body", roll=-9, curve=waves(2)),
            bend("chest", roll=15, curve=waves(2)),
            bend("head", roll=-16, curve=waves(2)),
            g.crouch(0.06, pulses(4)),
            *(bend(f"{s}_upper_arm", pitch=-60, roll=18 * x, curve=pulses(4)) for s, x in g.SIDES.items()),
            bend("tail2", yaw=26, curve=waves(2, 0.15)),
        ),
        "wags its tail": together(
            *(bend(f"tail{k}", yaw=17, curve=waves(3, 0.1 * k)) for k in range(1, 5)),
            bend("body", yaw=-10, curve=waves(3)),
            bend("chest", yaw=6, curve=waves(3)),
        ),
        "peeks into its pouch": together(
            bend("spine", pitch=14),
            bend("chest", pitch=22),
            bend("neck", pitch=24),
            bend("head", pitch=34),
            *(bend(f"{s}_upper_arm", roll=26 * x) for s, x in g.SIDES.items()),
            g.lean(z=-0.04),
        ),
    }
    for word, n in times.items():
        book[f"hops forward {word}"] = hops(n, forward=0.24 * n + 0.18, height=0.2, flight=leap)
        book[f"hops on the spot {word}"] = hops(n, height=0.3 if n < 3 else 0.2, flight=leap)
    book["hops back"] = hops(1, forward=-0.36, height=0.15, flight=tuck)
    for side, x in g.SIDES.items():
        other = "right" if side == "left" else "left"
        book |= {
            f"looks {side}": together(
                bend("chest", yaw=20 * x),
                bend("neck", yaw=20 * x),
                bend("head", yaw=34 * x, roll=-5 * x),
                bend("spine", yaw=9 * x),
                g.lean(x=0.04 * x),
            ),
            f"leans {side}": together(
                g.lean(x=0.11 * x, degrees=10),
                bend("spine", roll=-12 * x),
                bend("head", roll=12 * x),
                g.crouch(0.03),
            ),
            f"hops to the {side}": hops(1, side=0.4 * x, height=0.16, flight=leap),
            f"hops round to the {side}": hops(2, turn_deg=90 * x, forward=0.15, height=0.15, flight=leap),
            f"waves its {side} paw": together(
                bend(f"{side}_upper_arm", pitch=-60, roll=85 * x),
                bend(f"{side}_forearm", pitch=-42, curve=hold()),
                bend(f"{side}_forearm", roll=26, curve=waves(4)),
                g.lean(x=-0.05 * x, degrees=4),
                bend("chest", roll=11 * x),
                bend("head", roll=10 * x),
            ),
            f"swings its tail {side}": together(
                *(bend(f"tail{k}", yaw=17 * -x) for k in range(1, 5)),
                bend("body", yaw=8 * x),
                bend("head", yaw=18 * -x),
            ),
            f"kicks with its {side} foot": together(
                foot(side, y=0.2, z=0.27, pitch=-38, curve=hold(0.45, 0.35)),
                g.lean(x=-0.07 * x, z=-0.09, degrees=14),
                bend("chest", pitch=10),
            ),
            f"taps its {side} foot": together(
                foot(side, y=0.035, z=0.0, pitch=-22, curve=pulses(4)),
                g.lean(x=-0.07 * x, degrees=3),
                bend("head", pitch=10, curve=pulses(4)),
                bend("chest", yaw=10 * x),
            ),
            f"tilts its head {side}": together(
                bend("head", roll=-30 * x),
                bend("neck", roll=-12 * x),
                bend("chest", roll=-9 * x),
                g.lean(x=-0.05 * x),
                bend(f"{other}_ear", roll=14 * -x),
            ),
        }
    return book


def pulses_of(which: int):
    """Alternating bumps: four in all, the even ones for 0, the odd ones for 1."""
    return lambda s: np.sin(4 * np.pi * s) ** 2 * (np.floor(4 * s).clip(0, 3) % 2 == which)
