"""A liquid drop with a face, animated with morph targets: it splashes, oozes, stretches and bounces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import GLOSSY, Body, Material, Mesh, Paint
from factory.sources.creatures.creature import Creature, Morph, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    ease,
    hold,
    hops,
    morph,
    pulses,
    shift,
    together,
    waves,
    within,
)
from factory.sources.creatures.palette import INK, Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto, smooth_union
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

PALETTES = (  # body, top, base
    ("#4fb3e8", "#a8e2f7", "#2f86c9"),
    ("#8fd14f", "#d8f59a", "#5fa62f"),
    ("#f27aa8", "#fcc3d6", "#d24f86"),
    ("#f7a93b", "#fde09a", "#dd7f24"),
    ("#9a7fe0", "#d3c4fa", "#7355c4"),
)
SLIME = Material("slime", roughness=0.3)
HEIGHT = 0.46
TRAIN = sentences("""
    splashes flat; splashes flat, then stretches up; stretches up; stretches up and leans left;
    stretches up and twists left; stretches up, then melts; melts; melts and leans right; melts and oozes forward;
    oozes left; oozes right; oozes forward; oozes backwards; oozes left, then oozes right; creeps forward;
    creeps to the left; creeps to the right; leans left; leans right; leans left, then leans right; leans forward;
    leans back; bows; wobbles; wobbles and stretches up; wobbles and melts; rocks forward; swirls; jiggles;
    jiggles and leans back; ripples; ripples and leans left; pinches its waist; pinches its waist and leans right;
    puffs up; puffs up, then splashes flat; grows a crown; grows a crown and stretches up; grows a crown, then melts;
    twists left; twists left, then twists right; nods; shakes its head; shakes its head and melts; bounces; hops once;
    hops twice; hops forward twice; hops to the left; leaps up with a splash
""")
HELDOUT = sentences("""
    stretches up and leans right; melts and leans left; oozes right, then oozes left; wobbles and puffs up;
    twists right; ripples and leans right; grows a crown and leans left; hops to the right; melts, then stretches up;
    creeps backwards
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def grow(genes: Genes) -> Creature:
    body_colour, top, base = genes.palette(PALETTES, hue_deg=32)
    wide, tall, curl, size = genes.vary(0.14), genes.vary(0.14), genes.vary(0.6), genes.vary(0.15)
    body = Body(_skeleton())
    height = HEIGHT * tall
    shapes = [
        ball("body", body_colour, (0, 0.125, 0), (0.215 * wide, 0.165, 0.215 * wide)),
        limb("body", body_colour, (0, 0.215, 0), (0, 0.28 * tall, -0.005), 0.14 * wide, 0.085, blend=0.06),
        limb("body", body_colour, (0, 0.28 * tall, -0.005), (0.012 * curl, 0.37 * tall, -0.015), 0.085, 0.042,
            blend=0.03),
        limb("body", body_colour, (0.012 * curl, 0.37 * tall, -0.015), (0.05 * curl, height - 0.025, 0.0), 0.042,
            0.014, blend=0.02),
    ]
    shapes = [replace(shape, measure=_stand(shape.measure)) for shape in shapes]
    light = Paint(top, ball("", top, (0.03, height, 0.02), (0.16, 0.19 * tall, 0.16)).measure, 0.2)
    shade = Paint(base, ball("", base, (0, -0.02, 0), (0.4, 0.12, 0.4)).measure, 0.12)
    body.skin(shapes, 0.016, [light, shade], SLIME)
    eyes = {x: onto(shapes, (0.068 * x, 0.205, 0.2)) for x in (1, -1)}
    for x in eyes:
        g.eye(body, "body", eyes[x], 0.034 * size, yaw=20 * x, pitch=-12)
        blush = mix(body_colour, colour("#f0506a"), 0.5)
        body.solid(ball("body", blush, onto(shapes, (0.125 * x, 0.16, 0.15)), (0.022, 0.013, 0.012), yaw=38 * x),
            detail=4)
    smile = [onto(shapes, (0.036 * u, 0.155 + 0.016 * u * u, 0.2)) for u in (-1, -0.5, 0, 0.5, 1)]
    body.solid(*(limb("body", mix(body_colour, INK, 0.85), a, b, 0.0065) for a, b in pairwise(smile)), detail=3)
    body.solid(ball("body", (1, 1, 1), onto(shapes, (0.06, 0.33 * tall, 0.09)), (0.012, 0.026, 0.01), pitch=-30,
        yaw=30, roll=8), detail=4)
    reaches = [(name, name, REACH) for name in FIELDS] + [(OPPOSITE[name], name, -REACH) for name in OPPOSITE]
    targets = {name: _target(FIELDS[field], reach, height, eyes) for name, field, reach in reaches}
    return Creature(body, _phrases(), targets)


def _stand(measure: Callable) -> Callable:
    """Intersect a distance function with the half-space above the floor, with a smooth edge."""
    return lambda p: -smooth_union(-measure(p), p[..., 1] - 0.002, 0.05)


def _skeleton() -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0, 0))
    return s


# ---------------------------------------------------------------------------------------- morph targets

Offsets = tuple[np.ndarray, np.ndarray, np.ndarray]  # dx, dy, dz in metres


def _flat(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    """Flattened: wide and low, thicker at the rim."""
    out = 0.75 - 0.35 * h
    return out * x, -0.68 * h * HEIGHT, out * z


def _tall(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    slim = -0.34 * (1 - 0.3 * h)
    return slim * x, 0.62 * h * HEIGHT, slim * z


def _melt(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    """A puddle with a bump: the base spreads and the top sinks."""
    out = 1.15 * (1 - h) ** 2
    return out * x, -0.45 * h * HEIGHT, out * z


def _lean_x(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    return 0.3 * h**1.5, -0.09 * h**2, 0 * z


def _lean_z(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    return 0 * x, -0.09 * h**2, 0.3 * h**1.5


def _ooze_x(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    """The base extends to the left (+x) and the rest follows."""
    rest = 1 - h
    tongue = np.clip(x / 0.2 + 0.2, 0, None) * (rest * rest * rest)
    return 0.32 * tongue + 0.07 * (1 - h), -0.12 * h * HEIGHT * 2, -0.25 * tongue * z


def _ooze_back_x(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    dx, dy, dz = _ooze_x(-x, h, z)
    return -dx, dy, dz


def _ooze_z(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    dz, dy, dx = _ooze_x(z, h, x)
    return dx, dy, dz


def _ooze_back_z(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    dx, dy, dz = _ooze_z(x, h, -z)
    return dx, dy, -dz


def _pinch(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    waist = fixed.exp(-(((h - 0.42) / 0.16) ** 2))
    knob = fixed.exp(-(((h - 0.78) / 0.2) ** 2))
    return x * (-0.55 * waist + 0.75 * knob), 0.1 * h * HEIGHT, z * (-0.55 * waist + 0.75 * knob)


def _puff(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    out = 0.42 * fixed.power(fixed.sin(np.pi * np.clip(h, 0, 1)), 0.8) + 0.1
    return out * x, 0.14 * h * HEIGHT, out * z


def _crown(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    """A splash crown with six points."""
    angle, radius = fixed.arctan2(x, z), fixed.hypot(x, z)
    rim = fixed.exp(-(((h - 0.55) / 0.25) ** 2)) * np.clip(radius / 0.12, 0, 1)
    point = 0.5 + 0.5 * fixed.cos(6 * angle)
    return (x * rim * (0.25 + 0.45 * point), HEIGHT * (0.42 * rim * point - 0.4 * h**2),
        z * rim * (0.25 + 0.45 * point))


def _twist(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    angle = 1.1 * h
    return x * (fixed.cos(angle) - 1) + z * fixed.sin(angle), 0 * h, z * (fixed.cos(angle) - 1) - x * fixed.sin(angle)


def _untwist(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    dx, dy, dz = _twist(-x, h, z)
    return -dx, dy, dz


def _rings(x: np.ndarray, h: np.ndarray, z: np.ndarray) -> Offsets:
    out = 0.24 * fixed.sin(5 * np.pi * np.clip(h, 0, 1)) * (0.3 + 0.7 * np.clip(1.2 - h, 0, 1))
    return out * x, 0 * h, out * z


FIELDS: dict[str, Callable] = {
    "flat": _flat, "melt": _melt, "pinch": _pinch, "crown": _crown, "twist_left": _twist, "twist_right": _untwist,
    "ooze_left": _ooze_x, "ooze_right": _ooze_back_x, "ooze_forward": _ooze_z, "ooze_back": _ooze_back_z,
    "tall": _tall, "puff": _puff, "rings": _rings, "lean_left": _lean_x, "lean_forward": _lean_z,
}
"""Displacement fields: x, z in metres and h = y / height → offsets (dx, dy, dz) in metres; dy ≈ 0 on the floor."""

OPPOSITE = {"tall": "short", "puff": "slim", "rings": "grooves", "lean_left": "lean_right", "lean_forward": "lean_back"}
REACH = 1.5
"""Scale of the fields in morph targets. Viewers clamp weights to 0–1, so a weight of 1 is the largest deformation."""


def _pull(name: str, amount: float = 1.0, curve: Curve | None = None) -> Gesture:
    """Animate the weight of a target. Negative amounts use the opposite target, as weights cannot be negative."""
    curve = curve or hold()
    parts = [morph(name, 1 / REACH, lambda s: np.maximum(amount * curve(s), 0))]
    if name in OPPOSITE:
        parts.append(morph(OPPOSITE[name], 1 / REACH, lambda s: np.maximum(-amount * curve(s), 0)))
    return together(*parts)


def _target(field_: Callable, reach: float, height: float, eyes: dict[int, np.ndarray]) -> Morph:
    """Convert a displacement field to a morph target. Each eye moves rigidly with the offset at its centre."""

    def offsets(mesh: Mesh) -> np.ndarray:
        points = mesh.positions
        if mesh.material == GLOSSY:
            points = np.where(points[:, :1] > 0, eyes[1], eyes[-1])
        x, y, z = points.T
        return reach * np.stack(field_(x, np.clip(y / height, 0, 1.05), z), 1)

    return offsets


# ---------------------------------------------------------------------------------------- phrases


def _turning(count: float) -> tuple[Gesture, Gesture]:
    return _pull("lean_left", 0.9, waves(count)), _pull("lean_forward", 0.9, waves(count, 0.25))


def _phrases() -> Book:
    away = ease(0.05, 0.95)
    stretch = together(_pull("tall", 0.5, pulses(1)))
    hop = partial(hops, crouch=0.28, flight=stretch)
    sudden: Curve = hold(0.14, 0.4)
    book = {
        "splashes flat": together(_pull("flat", 1, sudden), _pull("rings", 0.5, lambda s: waves(4)(s) * (1 - s))),
        "stretches up": _pull("tall", 0.95),
        "melts": _pull("melt", 1, hold(0.45, 0.35)),
        "leans forward": _pull("lean_forward", 0.95),
        "leans back": _pull("lean_forward", -0.85),
        "bows": together(_pull("lean_forward", 1.25), _pull("melt", 0.3)),
        "wobbles": _pull("lean_left", 0.85, waves(2)),
        "rocks forward": _pull("lean_forward", 0.85, waves(2)),
        "swirls": together(*_turning(2), _pull("tall", 0.3)),
        "jiggles": together(_pull("puff", 0.45, waves(4)), _pull("tall", -0.3, waves(4))),
        "ripples": together(_pull("rings", 1, waves(3)), _pull("puff", 0.35)),
        "pinches its waist": _pull("pinch", 1),
        "puffs up": together(_pull("puff", 1), _pull("tall", 0.12)),
        "grows a crown": _pull("crown", 1, sudden),
        "nods": together(_pull("lean_forward", 0.75, pulses(3)), _pull("melt", 0.15)),
        "shakes its head": together(_pull("twist_left", 1, alternately(0)), _pull("twist_right", 1, alternately(1)),
            _pull("tall", 0.3)),
        "bounces": together(_pull("flat", 0.42, pulses(4)), _pull("tall", 0.2, waves(4))),
        "leaps up": together(shift("root", y=0.4, curve=lambda s: np.where(s < 0.6,
            4 * _unit_time(s) * (1 - _unit_time(s)), 0)), _pull("tall", 0.7, within_curve(0.1, 0.5))),
    }
    fall = within(0.58, 1.0, together(_pull("flat", 1.0, hold(0.2, 0.5)), _pull("rings", 0.5, waves(2))))
    book["leaps up with a splash"] = together(book["leaps up"], fall)
    for n, times in enumerate(("once", "twice", "three times"), 1):
        book[f"hops {times}"] = hop(n, height=0.24)
        book[f"hops forward {times}"] = hop(n, forward=0.15 * n, height=0.18)
    for side, x in g.SIDES.items():
        book |= {
            f"leans {side}": _pull("lean_left", 0.95 * x),
            f"oozes {side}": together(_pull(f"ooze_{side}", 1.1, hold(0.5, 0.35)), _pull("lean_left", 0.25 * x)),
            f"twists {side}": together(_pull(f"twist_{side}", 1.15), bend("body", yaw=34 * x), _pull("tall", 0.25)),
            f"creeps to the {side}": together(shift("root", x=0.22 * x, curve=away), _pull(f"ooze_{side}", 0.8,
                pulses(2)), _pull("melt", 0.25)),
            f"hops to the {side}": hop(1, side=0.2 * x, height=0.2),
        }
    for name, z in (("forward", 1), ("back", -1)):
        way = "backwards" if z < 0 else name
        book |= {
            f"oozes {way}": together(_pull(f"ooze_{name}", 1.1, hold(0.5, 0.35)), _pull("lean_forward", 0.25 * z)),
            f"creeps {way}": together(shift("root", z=0.22 * z, curve=away), _pull(f"ooze_{name}", 0.8, pulses(2)),
                _pull("melt", 0.25)),
        }
    return book


def alternately(which: int) -> Curve:
    return g.alternate(which, 6)


def _unit_time(s: np.ndarray) -> np.ndarray:
    return np.clip((s - 0.12) / 0.46, 0, 1)


def within_curve(start: float, end: float) -> Curve:
    return lambda s: pulses(1)(np.clip((s - start) / (end - start), 0, 1))
