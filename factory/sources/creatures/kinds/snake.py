"""A snake with an S-shaped rest pose that slithers, rears, strikes and flicks its tongue."""

from __future__ import annotations

import numpy as np

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import GLOSSY, Body, Paint
from factory.sources.creatures.creature import Creature, sentences
from factory.sources.creatures.gestures import Book
from factory.sources.creatures.motion import (
    Curve,
    Gesture,
    bend,
    curl,
    ease,
    hold,
    pulses,
    shift,
    together,
    waves,
)
from factory.sources.creatures.palette import Genes, colour, mix
from factory.sources.creatures.shapes import ball, limb, onto
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

PALETTES = (  # back, pattern, belly
    ("#7fb04f", "#4c7a34", "#eef0b8"),
    ("#e2a64a", "#8a4f2a", "#fbeac6"),
    ("#d85f4f", "#f6e3c0", "#f9efdc"),
    ("#5aa0a8", "#2f6470", "#dff1e6"),
    ("#8f7fc2", "#57468c", "#ece4f5"),
)
FRONT = ("front1", "front2", "front3", "front4", "front5")
BACK = ("back1", "back2", "back3", "back4", "back5", "back6")
NECK = ("front3", "front4", "front5", "head")
TRAIN = sentences("""
    slithers forward; slithers forward and flicks its tongue; slithers forward and looks left; slithers backwards;
    slithers to the left; slithers to the right; slithers on the spot; turns left; turns right; turns around;
    rears up high; rears up high and looks left; rears up high, then strikes; rears up high and flicks its tongue;
    strikes; strikes twice; strikes to the left; strikes to the right; lowers its head;
    lowers its head and looks right; lowers its head, then rears up high; lowers its head and slithers forward;
    looks left; looks left, then looks right; looks up; looks up and sways; bows; nods; nods and rattles its tail;
    shakes its head; sways; sways and flicks its tongue; leans left; leans right; leans right and rattles its tail;
    leans back; leans back, then strikes; leans forward; curls up its tail; coils up; coils up and looks left;
    coils up, then strikes; rattles its tail; swings its tail left; swings its tail right and nods;
    tilts its head left; tilts its head right and leans left; shivers; dances; springs up
""")
HELDOUT = sentences("""
    slithers forward and looks right; rears up high and looks right; leans left and rattles its tail;
    lowers its head and looks left; coils up and looks right; leans back and looks left; looks right, then looks left;
    swings its tail right; leans forward, then strikes; tilts its head left and leans right
""")


# The tables of shapes and gestures below are formatted manually.
# fmt: off

def _course(wave: float) -> np.ndarray:
    """Return the rest-pose spine from tail to head, float [13, 3]: an S on the floor and a raised neck."""
    x = np.array([-0.05, 0.06, 0.15, 0.17, 0.09, -0.03, -0.12, -0.13, -0.05, 0.0, 0, 0, 0]) * wave
    z = [-0.44, -0.4, -0.33, -0.23, -0.15, -0.12, -0.05, 0.05, 0.12, 0.145, 0.13, 0.125, 0.155]
    y = [0, 0, 0, 0, 0, 0, 0, 0, 0.035, 0.12, 0.22, 0.32, 0.4]
    return np.stack([x, y, z], 1)


def grow(genes: Genes) -> Creature:
    back, mark, belly = genes.palette(PALETTES, hue_deg=14)
    thick, wave, pattern = genes.vary(0.15), genes.vary(0.3), genes.pick(("saddles", "bands", "plain"))
    course = _course(wave)
    radius = thick * fixed.interpolated(np.arange(13), [0, 2, 6, 10, 12], [0.014, 0.036, 0.064, 0.058, 0.05])
    course[:, 1] += radius + 0.001
    body = Body(_skeleton(course))
    names = [*BACK[::-1], "body", *FRONT, "head"]
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    skull = at["head"] + (0, 0.022, 0.04)
    skin = []
    for k in range(12):  # joints branch from the middle, so a segment follows its joint nearer the middle
        joint = names[k + 1] if k < 6 else names[k]
        skin.append(limb(joint, back, course[k], course[k + 1], radius[k], radius[k + 1], blend=0.008))
    head = [ball("head", back, skull, (0.082 * thick, 0.062 * thick, 0.095), blend=0.03),
        ball("head", back, skull + (0, -0.012, 0.06), (0.06 * thick, 0.04, 0.055), blend=0.03)]
    bones = np.diff(course, axis=0)
    lengths = fixed.norm(bones)
    arc = np.concatenate([[0], np.cumsum(lengths)])

    def local(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return arc length along the spine, and the offset from it towards the belly side in units of the radius."""
        u = np.clip(fixed.dot(p[:, None] - course[:-1], bones) / lengths**2, 0, 1)
        nearest = course[:-1] + u[..., None] * bones
        k = fixed.norm(p[:, None] - nearest).argmin(1)
        rows = np.arange(len(p))
        out = (p - nearest[rows, k]) / fixed.interpolated(arc[k], arc, radius)[:, None]
        rise = np.clip(bones[k, 1] / lengths[k], 0, 1)
        return arc[k] + u[rows, k] * lengths[k], out[:, 2] * rise - out[:, 1] * np.sqrt(1 - rise**2)

    def saddles(p: np.ndarray) -> np.ndarray:
        along, belly_side = local(p)
        return np.abs(along % 0.11 - 0.055) - 0.018 + 0.022 * belly_side

    def bands(p: np.ndarray) -> np.ndarray:
        return np.abs(local(p)[0] % 0.11 - 0.055) - 0.022

    paints = [Paint(mark, {"saddles": saddles, "bands": bands}[pattern], 0.012)] if pattern != "plain" else []
    paints.append(Paint(belly, lambda p: 0.02 * (0.62 - local(p)[1]), 0.012, tuple(names[:-1])))
    body.skin([*skin, *head], 0.0155, paints)
    for x in (1, -1):
        g.eye(body, "head", onto(head, skull + (0.062 * thick * x, 0.04, 0.035)), 0.027, yaw=42 * x, pitch=-16,
            iris=colour("#f2c94c"), full=True)
        body.solid(ball("head", mix(back, (0, 0, 0), 0.8), onto(head, skull + (0.02 * x, 0.012, 0.11)),
            (0.006, 0.005, 0.005)), detail=3)
    root = at["tongue"]
    red = colour("#d8434e")
    fork = [limb("tongue", red, root + (0, 0, 0.045), root + (0.014 * x, 0, 0.075), 0.0045, 0.0025) for x in (1, -1)]
    body.solid(limb("tongue", red, root - (0, 0, 0.04), root + (0, 0, 0.045), 0.0055), *fork, material=GLOSSY,
        detail=3)
    return Creature(body, _phrases())


def _skeleton(course: np.ndarray) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", course[6])
    s.row("body", {name: course[7 + k] for k, name in enumerate(FRONT)} | {"head": course[12]})
    s.row("body", {name: course[5 - k] for k, name in enumerate(BACK)})
    s.joint("tongue", "head", course[12] + (0, -0.002, 0.135))
    return s


def _slither(count: float, much: float = 24) -> Gesture:
    """A travelling wave along the body on the floor; the neck counter-rotates to keep the head aimed."""
    waved = [bend(joint, yaw=-much, curve=waves(count, 0.3 + 0.1 * k)) for k, joint in enumerate(BACK[:5])]
    ahead = [bend(joint, yaw=0.5 * much, curve=waves(count, 0.12 - 0.1 * k)) for k, joint in enumerate(FRONT[:2])]
    return together(*waved, *ahead, curl(NECK[:2], yaw=-0.9 * much, curve=waves(count, 0.07)),
        shift("body", x=0.02, curve=waves(count)))


def _rise(much: float, curve: Curve | None = None) -> Gesture:
    """Lift the base of the neck off the floor and level the joints after it."""
    up = {"body": -38, "back1": 38, "front1": -8, "front2": 22, "front3": 18, "head": 6}
    return together(*(bend(joint, pitch=much * pitch, curve=curve) for joint, pitch in up.items()),
        shift("body", y=0.064 * much, z=-0.03 * much, curve=curve))


def _lower(much: float, curve: Curve | None = None) -> Gesture:
    """Bend the neck forward and down, keeping the head level."""
    down = {"front2": 24, "front3": 34, "front4": 8, "front5": -16, "head": -48}
    return together(*(bend(joint, pitch=much * pitch, curve=curve) for joint, pitch in down.items()))


def _phrases() -> Book:
    away = ease(0.05, 0.95)
    flick = together(shift("tongue", z=0.035, curve=pulses(4)), bend("tongue", pitch=16, curve=waves(8)))
    lunge = together(_lower(-0.4, _windup), _lower(0.75, _snap), shift("body", z=0.12, curve=_snap), flick)
    book = {
        "slithers forward": together(_slither(2.5), shift("root", z=0.36, curve=away)),
        "slithers backwards": together(_slither(2.5, -22), shift("root", z=-0.3, curve=away)),
        "slithers on the spot": _slither(2, 38),
        "turns around": together(bend("root", yaw=180, curve=away), _slither(2.5, 22)),
        "rears up high": _rise(1),
        "strikes": lunge,
        "strikes twice": together(_lower(0.7, pulses(2)), shift("body", z=0.1, curve=pulses(2)), flick),
        "lowers its head": together(_lower(1), shift("body", z=-0.05)),
        "looks up": together(curl(NECK, pitch=-62), shift("body", z=-0.03)),
        "bows": together(curl(("front3", "front4", "front5", "head"), pitch=92), shift("body", z=-0.06)),
        "nods": together(curl(NECK, pitch=48, curve=pulses(3)), shift("body", z=0.03)),
        "shakes its head": together(curl(NECK, yaw=70, curve=waves(3)), _rise(0.3)),
        "sways": together(curl(("front2", "front3", "front4"), roll=-56, curve=waves(1)),
            shift("body", x=0.06, curve=waves(1))),
        "flicks its tongue": together(flick, _lower(0.35), shift("body", z=0.04)),
        "leans back": together(curl(("front2", "front3"), pitch=-38), bend("head", pitch=26), shift("body", z=-0.05)),
        "leans forward": together(curl(("front2", "front3"), pitch=34), bend("head", pitch=-26),
            shift("body", z=0.04)),
        "curls up its tail": together(curl(BACK[3:], yaw=-190), bend("back3", pitch=22), curl(NECK, pitch=-20),
            shift("body", z=0.04)),
        "coils up": together(curl(BACK, yaw=230), curl(("front1", "front2"), yaw=-40), shift("body", x=0.04, z=-0.05),
            curl(NECK, yaw=40)),
        "rattles its tail": together(
            bend("back4", pitch=44, curve=hold(0.2, 0.2)), bend("back5", yaw=26, curve=waves(9)),
                bend("back6", yaw=30, curve=waves(9, 0.1)), curl(BACK[:4], yaw=34), shift("body", z=-0.03),
                bend("head", pitch=10)
        ),
        "shivers": together(_slither(9, 7), curl(NECK, yaw=10, curve=waves(9)), _lower(0.35), shift("body", z=-0.03)),
        "dances": together(curl(NECK, roll=60, curve=waves(2)), shift("body", x=-0.07, curve=waves(2)), _rise(0.5),
            curl(BACK, yaw=60, curve=waves(2))),
        "springs up": together(shift("root", y=0.22, curve=_snap), _slither(2, 22), _lower(0.5, _windup),
            _lower(-0.35, _snap), curl(BACK, pitch=30, curve=_snap)),
    }
    for side, x in g.SIDES.items():
        book |= {
            f"slithers to the {side}": together(_slither(2.5), shift("root", x=0.24 * x, z=0.14, curve=away),
                bend("root", yaw=40 * x, curve=away)),
            f"turns {side}": together(bend("root", yaw=90 * x, curve=away), curl(NECK, yaw=40 * x), _slither(2, 14)),
            f"strikes to the {side}": together(lunge, curl(("front1", "front2"), yaw=48 * x), shift("body",
                x=0.05 * x, curve=_snap)),
            f"looks {side}": together(curl(NECK, yaw=92 * x), shift("body", x=0.03 * x), curl(BACK[:3], yaw=-30 * x)),
            f"leans {side}": together(curl(("front2", "front3", "front4"), roll=-58 * x), bend("head", roll=30 * x),
                shift("body", x=0.02 * x)),
            f"swings its tail {side}": together(curl(BACK[:4], yaw=-74 * x), curl(NECK, yaw=30 * x), shift("body",
                x=-0.04 * x)),
            f"tilts its head {side}": together(curl(("front4", "front5", "head"), roll=-64 * x), shift("body",
                x=-0.04 * x, z=-0.02)),
        }
    return book


def _windup(s: np.ndarray) -> np.ndarray:
    return pulses(1)(np.clip(s / 0.5, 0, 1))


def _snap(s: np.ndarray) -> np.ndarray:
    return pulses(1)(np.clip((s - 0.35) / 0.55, 0, 1))
