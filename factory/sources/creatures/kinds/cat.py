"""A cat with whiskers and an articulated tail, in tabby, tuxedo, calico, siamese or plain coats."""

from __future__ import annotations

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures import quadruped as q
from factory.sources.creatures.body import GLOSSY, Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    bend,
    curl,
    foot,
    hold,
    hops,
    pulses,
    ripple,
    shift,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, WHITE, Colour, Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto
from renderers import fixed

COATS = (  # fur, markings, bib and paws, eyes
    ("#e59a4a", "#b9642a", "#fbf0dd", "#7fb24e"),
    ("#3a3a42", "#26262c", "#f4f3f0", "#e8c34a"),
    ("#a8a9ae", "#6d6e76", "#f1f0ee", "#e0b13c"),
    ("#f0e4cf", "#6b4a3a", "#f7efe0", "#5aa9dd"),
    ("#8a6f5a", "#4c3a30", "#e9dccb", "#9cc25a"),
)
TRAIN = sentences("""
    walks forward; walks forward and looks right; walks backwards; trots forward; turns left; turns right;
    turns around; steps to the right; walks in a curve to the left; leaps once; leaps twice; leaps forward once;
    leaps forward twice; leaps backwards; leaps to the right; leaps round to the left; does a backflip; pounces;
    crouches, then pounces; sits; sits and looks left; sits and tilts its head left; sits and swings its tail left;
    licks its paw; lies down; lies down and swings its tail right; bows to play; stretches; arches its back;
    arches its back and looks left; begs; rears up; sniffs the ground; shakes itself; digs; chases its tail; meows;
    meows and looks up; raises its right paw; waves its left paw; waves its left paw, then looks down;
    kicks with its right hind foot; curls round to the right; swings its tail left; swishes its tail;
    looks up, then looks down; shakes its head; tilts its head right; leans forward; kneads
""")
HELDOUT = sentences("""
    walks forward and looks left; steps to the left; leaps to the left; sits and looks right;
    lies down and swings its tail left; arches its back and looks right; waves its right paw, then looks down;
    curls round to the left; meows, then sits; raises its left paw
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    fur, mark, bib, eyes = genes.palette(COATS, hue_deg=4)
    h, plump, tail = 1.22 * genes.vary(0.07), genes.vary(0.15), genes.vary(0.15)
    striped, socks = genes.chance(0.6), genes.chance(0.7)
    reach = [(0, 0.03, -0.06), (0, 0.075, -0.15 * tail), (0, 0.15, -0.205 * tail), (0, 0.24, -0.22 * tail),
        (0, 0.31, -0.19 * tail)]
    body = Body(q.skeleton(0.36 * genes.vary(0.08), 0.31 * genes.vary(0.08), reach, 0.08, (0.135, 0.075)))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    hips, chest, skull = at["body"], at["chest"], at["head"] + (0, 0.05, 0.035)
    ends = [at[name] for name in q.TAILS] + [hips + reach[4]]
    paws = bib if socks else fur
    skin = [
        ball("body", fur, hips + (0, -0.015, 0.01), (0.1 * plump, 0.102, 0.11), blend=0.06),
        limb("spine", fur, hips + (0, -0.012, 0.08), chest - (0, 0.02, 0.04), 0.093 * plump, 0.09 * plump,
            blend=0.06),
        ball("chest", fur, chest + (0, -0.015, 0.015), (0.09 * plump, 0.105, 0.095), blend=0.06),
        limb("neck", fur, at["neck"] - (0, 0.02, 0.02), at["head"] + (0, 0.02, 0), 0.074, 0.07, blend=0.05),
        *q.legs(body.skeleton, fur, paws, 0.95),
        *(limb(joint, fur, a, b, 0.031, 0.031 if k < 3 else 0.024, blend=0.008)
            for k, (joint, a, b) in enumerate(zip(q.TAILS, ends[:-1], ends[1:], strict=True))),
    ]
    head = [
        ball("head", fur, skull, (0.108 * h, 0.092 * h, 0.092 * h)),
        *(ball("head", fur, skull + (0.062 * h * x, -0.035 * h, 0.02 * h), (0.05 * h, 0.042 * h, 0.06 * h),
            blend=0.04) for x in (1, -1)),
        *(ball("head", bib, skull + (0.022 * h * x, -0.04 * h, 0.083 * h), (0.031 * h, 0.025 * h, 0.026 * h),
            blend=0.015) for x in (1, -1)),
    ]
    rings = [_rings(mark, np.array([0, 0.15, 1.0]), 0.085, 0.036,
        ("body", "spine", "chest", "back_left_upper", "back_right_upper")),
        *(_rings(mark, np.array([0, 1.0, -0.4]), 0.075, 0.034, q.TAILS) for _ in (1,))]
    tip = Paint(mark, ball("", mark, ends[4], 0.06).measure, 0.02, q.TAILS)
    breast = Paint(bib, ball("", bib, chest + (0, -0.03, 0.1), (0.055, 0.115, 0.075)).measure, 0.02)
    body.skin(skin, 0.019, [*(rings if striped else []), tip, breast])
    brow = [Paint(mark, limb("", mark, skull + (u * h, 0.06 * h, 0.08 * h), skull + (1.3 * u * h, 0.12 * h, 0.03 * h),
        0.0085).measure, 0.009) for u in (-0.035, 0, 0.035)]
    body.skin(head, 0.015, brow if striped else [])
    ears, lining = [], []
    for side, x in g.SIDES.items():
        root, top = skull + (0.055 * h * x, 0.055 * h, -0.005), skull + (0.083 * h * x, 0.152 * h, -0.01)
        ears.append(limb(f"{side}_ear", fur, root, top, 0.043 * h, 0.009, flat=0.5, flat_axis=(0.3 * x, 0, 1)))
        lining.append(Paint(colour("#e7a3a0"), limb("", bib, root + (0.004 * x, 0.02, 0.026), top + (-0.004 * x,
            -0.028, 0.012), 0.021, 0.005).measure, 0.01))
        g.eye(body, "head", onto(head, skull + (0.05 * h * x, 0.012 * h, 0.08 * h)), 0.027 * h, yaw=24 * x, pitch=-4,
            iris=eyes, full=True, flat=0.46)
        for k in (-1, 0, 1):
            start = skull + (0.05 * h * x, -0.04 * h + 0.008 * k, 0.088 * h)
            body.solid(limb("head", WHITE, start, start + (0.1 * x, 0.022 * k + 0.006, -0.012), 0.0024, 0.0014),
                detail=2)
    body.skin(ears, 0.0125, lining)
    body.solid(ball("head", colour("#d98a8a"), skull + (0, -0.024 * h, 0.109 * h), (0.014 * h, 0.01 * h, 0.009 * h)),
        material=GLOSSY, detail=4)
    body.solid(ball("jaw", mix(bib, INK, 0.15), skull + (0, -0.066 * h, 0.072 * h),
        (0.024 * h, 0.016 * h, 0.024 * h)), detail=5)
    return Creature(body, _phrases())


def _rings(
    mark: Colour, axis: np.ndarray, period: float, width: float, only: tuple[str, ...]
) -> Paint:
    """Return a paint of wavy tabby stripes perpendicular to `axis`, with `period` and `width` in metres."""
    axis = axis / fixed.norm(axis)

    def inside(p: np.ndarray) -> np.ndarray:
        along = fixed.dot(p, axis) + 0.012 * fixed.sin(30 * p[:, 0]) + 0.02 * np.abs(p[:, 0])
        low = np.clip(0.27 - p[:, 1], 0, 1)  # narrow the stripes towards the belly
        return np.abs(along % period - period / 2) - width / 2 + 0.35 * low

    return Paint(mark, inside, 0.014, only)


def _phrases() -> Book:
    book = q.book(0.56, 0.36)
    flip = together(g.tumble(0.36, pitch=-360, curve=lambda s: s * s * (3 - 2 * s)),
        *(foot(leg, y=0.08, curve=pulses(1)) for leg in q.LEGS))
    return book | {
        "meows": book["speaks up"],
        "does a backflip": hops(1, -0.12, height=0.3, crouch=0.07, flight=flip),
        "arches its back": together(
            shift("spine", y=0.06),
            shift("chest", y=-0.05),
            shift("body", y=0.012),
            bend("body", pitch=-14),
            bend("chest", pitch=26),
            bend("head", pitch=10),
            curl(q.TAILS, pitch=24),
            *(foot(leg, z=-0.05 if "front" in leg else 0.05) for leg in q.LEGS),
        ),
        "licks its paw": together(
            foot("front_right", x=0.07, y=0.21, z=0.07, pitch=60, curve=hold(0.25, 0.25)),
            foot("front_right", y=0.025, curve=waves(3)),
            g.lean(x=0.03, z=-0.04),
            curl(q.NECK, pitch=34, yaw=-16),
            bend("head", pitch=9, curve=waves(3)),
            bend("body", pitch=-14),
        ),
        "swishes its tail": together(ripple(q.TAILS, yaw=26, count=2, lag=0.1), bend("body", yaw=-12, curve=waves(2)),
            g.lean(z=-0.03), bend("head", pitch=12)),
        "kneads": together(
            *(foot(f"front_{side}", y=0.055, z=0.02, curve=g.alternate(k, 6)) for k, side in enumerate(g.SIDES)),
            g.lean(z=-0.035),
            shift("body", x=0.025, curve=waves(3)),
            bend("chest", roll=-8, curve=waves(3)),
            bend("head", pitch=16),
            g.crouch(0.03),
        ),
    }
