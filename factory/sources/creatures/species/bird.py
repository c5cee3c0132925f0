"""A round little bird that flaps, pecks and hops."""

from __future__ import annotations

from factory.sources.creatures import gestures as g
from factory.sources.creatures.body import Body, Paint
from factory.sources.creatures.creature import Creature
from factory.sources.creatures.motion import (
    Gesture,
    bend,
    foot,
    hold,
    hops,
    pulses,
    shift,
    steps,
    together,
    waves,
    within,
)
from factory.sources.creatures.palette import Genes, mix
from factory.sources.creatures.shapes import ball, limb
from factory.sources.creatures.skeleton import Skeleton

PALETTES = (  # back, breast, belly, beak and legs
    ("#4f8fc4", "#f08a4b", "#fbeedd", "#f2b33d"),
    ("#6f6a66", "#d9543f", "#f2e8dc", "#5b4a42"),
    ("#f2c53d", "#f7dc74", "#fff3cf", "#ef8a3a"),
    ("#5aa469", "#a8d26f", "#f4f3d0", "#e2a13a"),
    ("#d94f4f", "#e57a5c", "#f6d5c0", "#f0b541"),
)
TRAIN = (
    "flaps its wings",
    "hops forward twice",
    "pecks the ground",
    "looks left, then looks right",
    "spreads its wings and leans left",
    "dances",
    "flies up",
    "walks forward and nods",
)
HELDOUT = ("looks right, then pecks the ground",)


def grow(genes: Genes) -> Creature:
    back, breast, belly, horn = genes.palette(PALETTES)
    dark = mix(back, (0.01, 0.01, 0.02), 0.55)
    plump, wing, tail, crest = (
        genes.vary(0.12),
        genes.vary(0.15),
        genes.vary(0.25),
        genes.chance(0.4, portrait=True),
    )
    body = Body(_skeleton(wing))
    at = dict(zip(body.skeleton.names, body.skeleton.positions, strict=True))
    skull = at["head"] + (0, 0.06, 0.02)
    skin = [
        ball("body", back, at["body"] + (0, 0, 0), (0.155 * plump, 0.15, 0.18), pitch=-22, blend=0.06),
        ball("chest", back, at["chest"] + (0, 0.0, 0.02), (0.142 * plump, 0.14, 0.135), blend=0.09),
        ball("head", back, skull, (0.128, 0.122, 0.122), blend=0.08),
        limb(
            "tail",
            dark,
            at["tail"] + (0, -0.01, 0.09),
            at["tail"] + (0, 0.02, -0.2 * tail),
            0.07,
            0.06,
            blend=0.04,
            flat=0.4,
            flat_axis=(0, 1, 0.1),
        ),
    ]
    if crest:
        skin += [
            limb(
                "head",
                back,
                skull + (0, 0.09, -0.02 - 0.03 * k),
                skull + (0, 0.17 - 0.03 * k, -0.06 - 0.045 * k),
                0.022,
                0.009,
                blend=0.03,
            )
            for k in range(3)
        ]
    for side, x in g.SIDES.items():
        skin.append(
            limb(
                f"{side}_thigh",
                back,
                at[f"{side}_thigh"],
                at[f"{side}_shin"] + (0, 0.015, 0),
                0.055,
                0.03,
                blend=0.05,
            )
        )
    front = ball("", breast, at["chest"] + (0, -0.015, 0.13), (0.125, 0.145, 0.11))
    face = ball("", breast, skull + (0, -0.05, 0.1), (0.085, 0.085, 0.07))
    under = ball("", belly, at["body"] + (0, -0.15, 0.05), (0.1, 0.1, 0.17))
    body.skin(
        skin,
        0.018,
        [
            Paint(breast, front.measure, 0.022),
            Paint(breast, face.measure, 0.02),
            Paint(belly, under.measure, 0.03),
        ],
    )

    for side, x in g.SIDES.items():
        one, two, tip = (at[f"{side}_wing{k}"] for k in (1, 2, 3))
        wings = [
            limb(
                f"{side}_wing1",
                back,
                one,
                two,
                0.075,
                0.08,
                blend=0.03,
                flat=0.34,
                flat_axis=(1, 0.18 * x, 0),
            ),
            limb(
                f"{side}_wing2",
                back,
                two,
                tip,
                0.08,
                0.052,
                blend=0.02,
                flat=0.32,
                flat_axis=(1, 0.18 * x, 0),
            ),
            limb(
                f"{side}_wing2",
                dark,
                tip,
                tip + (0.004 * x, -0.045, -0.05),
                0.05,
                0.022,
                blend=0.02,
                flat=0.34,
                flat_axis=(1, 0.18 * x, 0),
            ),
        ]
        bar = ball("", belly, (one + two) / 2 + (0.0, -0.055, -0.035), (0.1, 0.016, 0.085), pitch=-30)
        body.skin(wings, 0.0145, [Paint(mix(back, belly, 0.65), bar.measure, 0.012)])
        g.eye(body, "head", skull + (0.094 * x, 0.022, 0.068), 0.031, yaw=52 * x)
        ankle = at[f"{side}_foot"]
        body.solid(limb(f"{side}_shin", horn, at[f"{side}_shin"], ankle, 0.014, 0.012), detail=4)
        toes = ((0.035, 0.09), (0, 0.105), (-0.035, 0.09), (0, -0.055))
        body.solid(
            *(
                limb(
                    f"{side}_foot",
                    horn,
                    (ankle[0], 0.013, ankle[2]),
                    (ankle[0] + dx, 0.011, ankle[2] + dz),
                    0.013,
                    0.0105,
                )
                for dx, dz in toes
            ),
            detail=4,
        )
    beak = skull + (0, -0.022, 0.112)
    body.solid(
        limb("head", horn, beak, beak + (0, -0.012, 0.085), 0.036, 0.007),
        limb("jaw", mix(horn, dark, 0.25), beak - (0, 0.016, 0.004), beak + (0, -0.03, 0.05), 0.026, 0.006),
        detail=7,
    )
    return Creature(body, _phrases())


def _skeleton(wing: float) -> Skeleton:
    s = Skeleton()
    s.joint("body", "root", (0, 0.28, -0.04))
    s.row("body", {"chest": (0, 0.345, 0.035), "head": (0, 0.435, 0.055)})
    s.joint("jaw", "head", (0, 0.46, 0.17))
    s.joint("tail", "body", (0, 0.27, -0.19))
    for side, x in g.SIDES.items():
        s.row(
            "chest",
            {
                f"{side}_wing1": (0.145 * x, 0.385, 0.02),
                f"{side}_wing2": (0.172 * x, 0.385 - 0.1 * wing, -0.055),
                f"{side}_wing3": (0.168 * x, 0.385 - 0.165 * wing, -0.15),
            },
        )
        s.row(
            "body",
            {
                f"{side}_thigh": (0.07 * x, 0.19, -0.03),
                f"{side}_shin": (0.078 * x, 0.12, 0.015),
                f"{side}_foot": (0.075 * x, 0.022, -0.02),
            },
        )
        s.leg(side, f"{side}_thigh", f"{side}_shin", f"{side}_foot", (0.075 * x, 0, 0.0))
    return s


def _flap(count: float, up: float = 95) -> Gesture:
    beat = pulses(count)
    sides = g.SIDES.items()
    return together(
        *(bend(f"{s}_wing1", pitch=-12, roll=up * x, yaw=-10 * x, curve=beat) for s, x in sides),
        *(
            bend(f"{s}_wing2", roll=-30 * x, curve=lambda s_: pulses(count)(s_ - 0.06) * (s_ > 0.06))
            for s, x in sides
        ),
    )


def _phrases() -> dict[str, Gesture]:
    spread = together(*(bend(f"{s}_wing1", roll=88 * x, pitch=-8, curve=hold()) for s, x in g.SIDES.items()))
    tuck = together(*(foot(leg, y=0.03, z=-0.02, pitch=35, curve=pulses(1)) for leg in g.SIDES), _flap(1, 55))
    gait = (("left",), ("right",))
    book = {
        "flaps its wings": together(
            _flap(4), shift("body", y=0.02, curve=pulses(4)), bend("body", pitch=-10), g.crouch(0.02)
        ),
        "spreads its wings": together(
            spread, bend("chest", pitch=-12), bend("head", pitch=-8), g.crouch(-0.015)
        ),
        "flies up": together(
            shift("root", y=0.3, curve=hold(0.45, 0.4)),
            within(0.05, 0.95, _flap(7)),
            bend("body", pitch=-14),
            bend("tail", pitch=18),
            *(foot(leg, y=0.02, z=-0.03, pitch=50) for leg in g.SIDES),
        ),
        "pecks the ground": together(
            bend("body", pitch=52, curve=hold(0.25, 0.25)),
            bend("chest", pitch=16),
            bend("head", pitch=22, curve=pulses(3)),
            g.crouch(0.03),
            shift("body", z=-0.03),
            bend("tail", pitch=-20),
        ),
        "nods": together(
            bend("head", pitch=26, curve=pulses(3)),
            bend("body", pitch=10, curve=pulses(3)),
            g.crouch(0.02, pulses(3)),
        ),
        "dances": together(
            shift("body", x=0.045, curve=waves(2)),
            bend("body", roll=-16, curve=waves(2)),
            bend("head", roll=20, curve=waves(2)),
            g.crouch(0.03, pulses(4)),
            _flap(4, 35),
        ),
        "walks forward": steps(gait, 6, forward=0.28, lift=0.045, bob=0.01),
    }
    for word, n in {"once": 1, "twice": 2, "three times": 3}.items():
        book[f"hops forward {word}"] = hops(
            n, forward=0.11 * n + 0.04, height=0.08, crouch=0.035, flight=tuck
        )
    for side, x in g.SIDES.items():
        book |= {
            f"looks {side}": together(
                bend("chest", yaw=14 * x),
                bend("head", yaw=52 * x, roll=-8 * x),
                bend("body", yaw=8 * x),
                g.lean(x=0.02 * x),
            ),
            f"leans {side}": together(g.lean(x=0.04 * x, degrees=14), bend("head", roll=16 * x)),
        }
    return book
