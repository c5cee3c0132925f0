"""A potted flower with a face, movable leaves and folding petals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    both,
    curl,
    ease,
    hops,
    pulses,
    ripple,
    shift,
    swell,
    together,
    waves,
)
from factory.sources.creatures.palette import INK, Colour, Genes, colour, mix
from factory.sources.creatures.shapes import Shape, ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

PALETTES = (  # petals, petal hearts, disc, pot
    ("#f6f1ea", "#f5cf5e", "#f2b02e", "#c8693f"),
    ("#f2b62c", "#e0812a", "#7a4a2b", "#5f87a8"),
    ("#e8729c", "#f9c6d6", "#f4d35e", "#7f9a6a"),
    ("#8f7fd6", "#d6cdf6", "#f7e08a", "#d0a06a"),
    ("#e2543f", "#f79a5a", "#3c2a2a", "#e8dcc8"),
)
STEM = ("stem1", "stem2", "stem3", "head")
PETALS = 9
LEAVES = ("left_leaf", "right_leaf")
TRAIN = sentences("""
    sways; sways and nods; sways twice; sways twice and flaps its leaves; leans left; leans right;
    leans left, then leans right; leans forward; leans back; leans back and spreads its leaves; bows;
    bows, then stretches up tall; stretches up tall; stretches up tall and raises both leaves; ducks;
    ducks and hides its face; droops; droops, then stretches up tall; looks left; looks right;
    looks right, then looks left; looks up; looks down; nods; nods and raises its left leaf; shakes its head;
    tilts its head left; tilts its head right and leans left; spins its head; spins its head and sways;
    closes its petals; closes its petals and ducks; closes its petals, then leans back; flutters its petals;
    flutters its petals and looks right; waves its left leaf; waves its right leaf;
    waves its right leaf and leans left; raises both leaves; raises its left leaf and looks left; spreads its leaves;
    flaps its leaves; hides its face; hops once; hops twice; hops forward twice; hops to the left;
    hops round to the right; twirls; dances
""")
HELDOUT = sentences("""
    sways and raises both leaves; leans right, then leans left; ducks and spreads its leaves;
    nods and raises its right leaf; looks left, then looks right; tilts its head right;
    waves its left leaf and leans right; hops to the right; closes its petals and leans left; droops, then looks up
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    petal, heart, disc, clay = genes.palette(PALETTES, hue_deg=18)
    green = colour(genes.pick(("#5f9e4a", "#4f8f57", "#7aa844")))
    tall, long, broad, layers = (genes.vary(0.14), genes.vary(0.2), genes.vary(0.15),
        genes.chance(0.4, portrait=False))
    body = Body(_skeleton(tall))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    skull = at["head"] + (0, 0.0, 0.035)

    body.solid(_pot(clay, 0.0, 0.175, 0.092, 0.128), detail=10)
    body.solid(_pot(mix(clay, (1, 1, 1), 0.12), 0.165, 0.215, 0.148, 0.15), detail=10)
    body.solid(ball("body", colour("#4a3527"), (0, 0.205, 0), (0.128, 0.022, 0.128)), detail=7)
    joints = ["stem1", "stem2", "stem3", "head"]
    stem = [limb(a, green, at[a], at[b], 0.026, 0.024, blend=0.01) for a, b in pairwise(joints)]
    stem.append(limb("stem1", green, (0, 0.2, 0), at["stem1"], 0.034, 0.026, blend=0.02))
    body.skin(stem, 0.015)
    for side, x in g.SIDES.items():
        root, mid, tip = (at[f"{side}_leaf"], at[f"{side}_leaf_tip"],
            at[f"{side}_leaf_tip"] + (0.12 * x, -0.025, 0.012))
        leaf = [limb(f"{side}_leaf", green, root, mid, 0.02, 0.072, blend=0.02, flat=0.28,
            flat_axis=(-0.35 * x, 1, 0)), limb(f"{side}_leaf_tip", green, mid, tip, 0.072, 0.012, blend=0.008,
            flat=0.28, flat_axis=(0.1 * x, 1, 0))]
        vein = Paint(mix(green, (1, 1, 0.7), 0.4), _vein(root, tip), 0.01)
        body.skin(leaf, 0.014, [vein])
    crown = [*((1.0, 0.0, petal),), *(((0.72, 0.5, heart),) if layers else ())]
    for size, offset, tint in crown:
        for k in range(PETALS):
            _petal(body, k, offset, skull, size * long, broad, tint, heart)
    face = [ball("head", disc, skull + (0, 0, 0.012), (0.105, 0.105, 0.05))]
    body.skin(
        [*face, ball("head", green, at["head"] - (0, 0, 0.012), (0.07, 0.07, 0.045), blend=0.0)],
        0.015,
        [Paint(mix(disc, colour("#e0503a"), 0.4), ball("", disc, skull + (0.058 * x, -0.018, 0.06), 0.018).measure,
            0.02) for x in (1, -1)],
    )
    for x in (1, -1):
        g.eye(body, "head", onto(face, skull + (0.036 * x, 0.02, 0.06)), 0.0165, yaw=14 * x)
    smile = [onto(face, skull + (0.032 * u, -0.034 + 0.015 * u * u, 0.06)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("head", mix(disc, INK, 0.85), a, b, 0.005) for a, b in pairwise(smile)), detail=3)
    return Creature(body, _phrases())


def _vein(a: np.ndarray, b: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the distance to a stripe along the line from `a` to `b`, projected onto the xz plane."""
    return lambda p: np.abs(p[:, 2] - a[2] - (p[:, 0] - a[0]) * (b[2] - a[2]) / (b[0] - a[0])) - 0.006


def _pot(tint: Colour, low: float, high: float, narrow: float, wide: float) -> Shape:
    """A truncated cone with rounded edges, from height `low` to `high`, radius `narrow` to `wide`, in metres."""

    def measure(p: np.ndarray) -> np.ndarray:
        level = np.clip((p[..., 1] - low) / (high - low), 0, 1)
        side = fixed.hypot(p[..., 0], p[..., 2]) - (narrow + (wide - narrow) * level) + 0.015
        end = np.abs(p[..., 1] - (low + high) / 2) - (high - low) / 2 + 0.015
        return fixed.hypot(np.maximum(side, 0), np.maximum(end, 0)) + np.minimum(np.maximum(side, end), 0) - 0.015

    reach = max(narrow, wide)
    return Shape("body", tint, measure, np.array([-reach, low, -reach]), np.array([reach, high, reach]), 0.0)


def _petal(
    body: Body, k: int, offset: float, skull: np.ndarray, long: float, broad: float, tint: Colour, heart: Colour
) -> None:
    angle = 2 * np.pi * (k + offset) / PETALS
    out = np.array([fixed.sin(angle), fixed.cos(angle), 0.0])
    base = skull + 0.075 * out - (0, 0, 0.008 - 0.016 * (offset > 0))
    shape = limb(f"petal{k}", tint, base, base + 0.118 * long * out + (0, 0, 0.022), 0.03, 0.047 * broad, flat=0.3,
        flat_axis=(-0.2 * out[0], -0.2 * out[1], 1))
    glow = Paint(mix(tint, heart, 0.7), lambda p: fixed.norm(p - base) - 0.062, 0.05)
    body.solid(shape, detail=6, paints=[glow])


def _skeleton(tall: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0, 0))
    stem = {"stem1": (0, 0.27, 0), "stem2": (0.012, 0.27 + 0.11 * tall, 0), "stem3": (0.008, 0.27 + 0.23 * tall, 0),
        "head": (0, 0.27 + 0.36 * tall, 0.01)}
    s.row("body", stem)
    for k in range(PETALS):
        angle = 2 * np.pi * k / PETALS
        out = (0.075 * fixed.sin(angle), 0.075 * fixed.cos(angle), 0.03)
        s.joint(f"petal{k}", "head", np.array(stem["head"]) + out)
    for side, x in g.SIDES.items():
        y = 0.27 + (0.1 if x > 0 else 0.075) * tall
        s.row("stem1", {f"{side}_leaf": (0.02 * x, y, 0), f"{side}_leaf_tip": (0.145 * x, y + 0.055, 0.01)})
    return s


def _fold(degrees: float, curve: Curve | None = None) -> Gesture:
    """Rotate every petal about its base on the rim, towards the face."""
    turns = [(float(fixed.sin(a)), float(fixed.cos(a))) for a in (2 * np.pi * k / PETALS for k in range(PETALS))]
    return together(*(bend(f"petal{k}", pitch=degrees * c, yaw=-degrees * s, curve=curve)
        for k, (s, c) in enumerate(turns)))


def _phrases() -> Book:
    bounce = together(curl(STEM, pitch=22, curve=waves(1)), both("leaf", roll=40, curve=pulses(1)))
    hop = partial(hops, crouch=0.16, flight=bounce)
    book = {
        "sways": together(curl(STEM, roll=46, curve=waves(1)), ripple(LEAVES, roll=22, count=1)),
        "sways twice": together(curl(STEM, roll=46, curve=waves(2)), ripple(LEAVES, roll=22, count=2)),
        "leans forward": curl(STEM, pitch=44),
        "leans back": curl(STEM, pitch=-40),
        "bows": together(curl(STEM, pitch=92), both("leaf", roll=-14)),
        "stretches up tall": together(shift("stem2", y=0.035), shift("stem3", y=0.04), shift("head", y=0.045),
            curl(STEM, pitch=-14), both("leaf", roll=24)),
        "ducks": together(curl(("stem1", "stem2"), pitch=-62), curl(("stem3", "head"), pitch=66),
            shift("head", y=-0.03), both("leaf", roll=18)),
        "droops": together(curl(STEM, pitch=66, roll=18), both("leaf", roll=-52), _fold(-22), curl(LEAVES, pitch=10)),
        "looks up": together(bend("head", pitch=-46), curl(STEM[:3], pitch=-14)),
        "looks down": together(bend("head", pitch=44), curl(STEM[:3], pitch=10)),
        "nods": together(bend("head", pitch=36, curve=pulses(3)), curl(STEM[:3], pitch=26, curve=pulses(3))),
        "shakes its head": together(bend("head", yaw=46, curve=waves(3)), curl(STEM[:3], pitch=14),
            curl(STEM[:3], roll=12, curve=waves(3))),
        "spins its head": together(bend("head", roll=360, curve=ease(0.05, 0.95)), curl(STEM[:3], pitch=-16)),
        "closes its petals": together(_fold(64), curl(STEM, pitch=16)),
        "flutters its petals": together(_fold(40, pulses(5)), curl(STEM[:3], roll=22, pitch=-10)),
        "raises both leaves": together(both("leaf", roll=66), both("leaf_tip", roll=16), curl(STEM, pitch=-30)),
        "spreads its leaves": together(both("leaf", roll=-20, yaw=-14), swell("left_leaf", x=0.25),
            swell("right_leaf", x=0.25), curl(STEM, pitch=18)),
        "flaps its leaves": together(both("leaf", roll=58, curve=pulses(4)),
            both("leaf_tip", roll=-24, curve=pulses(4)), shift("stem2", y=0.03, curve=pulses(4)),
            curl(STEM, pitch=12)),
        "hides its face": together(both("leaf", roll=54, yaw=-64), both("leaf_tip", roll=26, yaw=-30),
            bend("head", pitch=34), curl(STEM[:3], pitch=18), _fold(30)),
        "twirls": together(bend("stem1", yaw=360, curve=ease(0.05, 0.95)), both("leaf", roll=34),
            curl(STEM[1:], roll=16)),
        "dances": together(curl(STEM[:2], roll=44, curve=waves(2)), curl(STEM[2:], roll=-62, curve=waves(2)),
            both("leaf", roll=46, curve=pulses(4)), swell("body", y=-0.06, x=0.03, z=0.03, curve=pulses(4))),
    }
    for n, times in enumerate(("once", "twice", "three times"), 1):
        book[f"hops {times}"] = hop(n, height=0.17)
        book[f"hops forward {times}"] = hop(n, forward=0.14 * n, height=0.13)
    for side, x in g.SIDES.items():
        leaf, tip = f"{side}_leaf", f"{side}_leaf_tip"
        book |= {
            f"leans {side}": curl(STEM, roll=-50 * x),
            f"looks {side}": together(bend("head", yaw=58 * x), curl(STEM[:3], yaw=16 * x, roll=-12 * x)),
            f"tilts its head {side}": together(bend("head", roll=-40 * x), curl(STEM[:3], roll=14 * x)),
            f"raises its {side} leaf": together(bend(leaf, roll=66 * x), bend(tip, roll=20 * x), curl(STEM,
                roll=16 * x)),
            f"waves its {side} leaf": together(bend(leaf, roll=56 * x), bend(tip, roll=46 * x, curve=waves(4)),
                bend(leaf, roll=16, curve=waves(4)), curl(STEM, roll=20 * x, pitch=-8)),
            f"hops to the {side}": hop(1, side=0.18 * x, height=0.14),
            f"hops round to the {side}": hop(2, turn_deg=100 * x, height=0.11),
        }
    return book
