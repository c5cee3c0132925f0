"""Named joints in a tree, legs that can be planted, and chains that stay off the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Leg:
    """A two-bone chain that reaches for a foothold.

    Attributes:
        upper, lower, foot: joint names, each the child of the one before.
        sole: float [3], the point of the rest pose, on the floor, about which the foot tips.
    """

    upper: str
    lower: str
    foot: str
    sole: np.ndarray


@dataclass(frozen=True)
class Chain:
    """Joints from root to tip, with the body's thickness at each, that bend upwards rather than enter the floor."""

    joints: tuple[str, ...]
    radii: tuple[float, ...]


@dataclass
class Skeleton:
    """Joints in an order where parents come first. In the rest pose every joint is parallel to the world's axes.

    "root" lies on the floor and carries everything, footholds included; "body" is its child and is what walks.
    """

    names: list[str] = field(default_factory=lambda: ["root"])
    parents: list[int] = field(default_factory=lambda: [-1])
    rest: list[np.ndarray] = field(default_factory=lambda: [np.zeros(3)])
    legs: dict[str, Leg] = field(default_factory=dict)
    chains: list[Chain] = field(default_factory=list)

    def joint(self, name: str, parent: str, position: Sequence[float] | np.ndarray) -> str:
        """Adds a joint at a world position of the rest pose."""
        self.names.append(name)
        self.parents.append(self.names.index(parent))
        self.rest.append(np.asarray(position, float))
        return name

    def row(self, parent: str, joints: Mapping[str, Sequence[float] | np.ndarray]) -> list[str]:
        """Adds joints each the child of the one before, the first the child of `parent`."""
        for name, position in joints.items():
            parent = self.joint(name, parent, position)
        return list(joints)

    def leg(self, name: str, upper: str, lower: str, foot: str, sole: Sequence[float] | np.ndarray) -> None:
        """Declares three joints to be a leg; the knee must be bent in the rest pose, for that is how it bends."""
        self.legs[name] = Leg(upper, lower, foot, np.asarray(sole, float))

    def keep_off_floor(self, joints: Sequence[str], radii: Sequence[float]) -> None:
        """Declares a chain (a tail) that lifts at its base whenever it would enter the floor."""
        self.chains.append(Chain(tuple(joints), tuple(radii)))

    def index(self, name: str) -> int:
        """Position of a joint in the lists."""
        return self.names.index(name)

    @property
    def positions(self) -> np.ndarray:
        """float [J, 3], world, rest pose."""
        return np.stack(self.rest)

    @property
    def offsets(self) -> np.ndarray:
        """float [J, 3], each joint relative to its parent."""
        positions = self.positions
        return positions - np.where(np.array(self.parents)[:, None] < 0, 0, positions[self.parents])

    def kinship(self) -> np.ndarray:
        """bool [J, J]: is the same joint, its parent or its child. Skin weights spread among kin only."""
        kin = np.eye(len(self.names), dtype=bool)
        for child, parent in enumerate(self.parents):
            if parent >= 0:
                kin[child, parent] = kin[parent, child] = True
        return kin
