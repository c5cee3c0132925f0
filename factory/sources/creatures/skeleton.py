"""Skeletons: a tree of named joints, legs solved with inverse kinematics, and chains kept above the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Leg:
    """A two-bone chain solved with inverse kinematics towards a foothold.

    Attributes:
        upper, lower, foot: joint names, each the child of the previous one.
        sole: float [3], pivot of the foot on the floor, in the rest pose.
    """

    upper: str
    lower: str
    foot: str
    sole: np.ndarray


@dataclass(frozen=True)
class Chain:
    """Joints from base to tip, with the body radius in metres at each, that are lifted to stay above the floor."""

    joints: tuple[str, ...]
    radii: tuple[float, ...]


@dataclass
class Skeleton:
    """A joint hierarchy in topological order (parents first). Rest-pose joint frames are aligned with the world axes.

    "root" is on the floor and moves the whole creature, footholds included. Its child "body" follows the walking path.
    """

    names: list[str] = field(default_factory=lambda: ["root"])
    parents: list[int] = field(default_factory=lambda: [-1])
    rest: list[np.ndarray] = field(default_factory=lambda: [np.zeros(3)])
    legs: dict[str, Leg] = field(default_factory=dict)
    chains: list[Chain] = field(default_factory=list)

    def joint(self, name: str, parent: str, position: Sequence[float] | np.ndarray) -> str:
        """Add a joint at a world position of the rest pose, and return its name."""
        self.names.append(name)
        self.parents.append(self.names.index(parent))
        self.rest.append(np.asarray(position, float))
        return name

    def row(self, parent: str, joints: Mapping[str, Sequence[float] | np.ndarray]) -> list[str]:
        """Add a chain of joints below `parent`, each the child of the previous one, and return their names."""
        for name, position in joints.items():
            parent = self.joint(name, parent, position)
        return list(joints)

    def leg(self, name: str, upper: str, lower: str, foot: str, sole: Sequence[float] | np.ndarray) -> None:
        """Register three joints as a leg. The knee must be bent in the rest pose: this sets its bending direction."""
        self.legs[name] = Leg(upper, lower, foot, np.asarray(sole, float))

    def keep_off_floor(self, joints: Sequence[str], radii: Sequence[float]) -> None:
        """Register a chain, such as a tail, that is rotated up at its base where it would penetrate the floor."""
        self.chains.append(Chain(tuple(joints), tuple(radii)))

    def index(self, name: str) -> int:
        """Return the index of a joint."""
        return self.names.index(name)

    @property
    def positions(self) -> np.ndarray:
        """World positions of the joints in the rest pose, float [J, 3]."""
        return np.stack(self.rest)

    @property
    def offsets(self) -> np.ndarray:
        """Rest positions relative to the parent joint, float [J, 3]."""
        positions = self.positions
        return positions - np.where(np.array(self.parents)[:, None] < 0, 0, positions[self.parents])

    def kinship(self) -> np.ndarray:
        """Return bool [J, J]: same joint, parent or child. Skinning weights are limited to these pairs."""
        kin = np.eye(len(self.names), dtype=bool)
        for child, parent in enumerate(self.parents):
            if parent >= 0:
                kin[child, parent] = kin[parent, child] = True
        return kin
