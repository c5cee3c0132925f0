"""Creatures: an endless, licence-free (CC0) world of skinned, animated, coloured animals, things and drops.

species()                       names
motions("kangaroo")             what it can do: names, sentences, splits
build("kangaroo", seed=7)       a GLB with one 2 s animation a motion
enumerate_uri("creatures://*?count=2000")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import numpy as np

from factory.sources.creatures import glb
from factory.sources.creatures.body import Mesh
from factory.sources.creatures.creature import Creature
from factory.sources.creatures.motion import Take
from factory.sources.creatures.palette import Genes
from factory.sources.creatures.pose import Pose, solve

LICENCE = "CC0-1.0"
# Raise it when the same seed gives other bytes, so that clips are rendered again.
VERSION = "1"
SPECIES = (
    *("kangaroo", "bird", "robot", "human", "fox", "cat"),
    *("fish", "snake", "crab", "flower", "jellyfish", "drop"),
)

_QUERY = {"seed": "[0-9]{1,9}", "count": "[0-9]{1,9}", "motions": "[1-9][0-9]{0,3}|train|heldout"}


@dataclass(frozen=True)
class Motion:
    """One thing a species can do: `name` in files, `sentence` as a person says it, `split` train or heldout."""

    name: str
    sentence: str
    split: str


@dataclass(frozen=True)
class CreatureRef:
    """One individual, not yet built. `uid` is stable and names it in a dataset.

    `motions` is what a URI says of them: "" for all, "train" or "heldout", or a number, so many drawn by the seed.
    """

    species: str
    seed: int
    motions: str = ""

    @property
    def uid(self) -> str:
        return f"creature-{self.species}-{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.species.capitalize()} {self.seed}"

    @property
    def uri(self) -> str:
        return f"creatures://{self.species}?seed={self.seed}" + (
            f"&motions={self.motions}" if self.motions else ""
        )

    @property
    def fingerprint(self) -> str:
        """What the bytes follow from, so that they need not be built to be known."""
        return f"creature:{VERSION}:{self.species}:{self.seed}" + (f":{self.motions}" if self.motions else "")

    def motion_names(self) -> list[str]:
        """The motions that its GLB holds, in the species' order."""
        known = motions(self.species)
        if not self.motions.isdecimal():
            return [motion.name for motion in known if self.motions in ("", motion.split)]
        rng = np.random.default_rng([SPECIES.index(self.species), self.seed])
        drawn = rng.choice(len(known), min(int(self.motions), len(known)), replace=False)
        return [known[k].name for k in sorted(drawn)]

    def glb(self) -> bytes:
        """The GLB, built now."""
        return build(self.species, self.seed, self.motion_names())


def species() -> tuple[str, ...]:
    """All species, the three bundled ones first."""
    return SPECIES


def motions(species: str) -> tuple[Motion, ...]:
    """What `species` can do, the training motions first. The split goes with the name, for every seed."""
    return tuple(_repertoire(species).values())


@cache
def _repertoire(species: str) -> dict[str, Motion]:
    """Motions by name. A name is its sentence with hyphens."""
    module = _module(species)
    told = [
        Motion(re.sub("[^a-z]+", "-", sentence.lower()), sentence, split)
        for split, sentences in (("train", module.TRAIN), ("heldout", module.HELDOUT))
        for sentence in sentences
    ]
    return {motion.name: motion for motion in told}


def grow(species: str, seed: int = 0) -> Creature:
    """The individual `seed` of `species`, its body and its gestures, before any export."""
    if seed < 0:
        raise ValueError(f"creature {species!r}: a seed is a whole number from 0 up, got {seed}")
    return _module(species).grow(Genes(species, seed))


def build(species: str, seed: int = 0, motions: Sequence[str] | None = None) -> bytes:
    """A GLB with the creature in its rest pose and one animation a motion.

    Each animation has keys at k/24 s for k = 0…48, starts from the rest pose, and is exact at its keys.

    Args:
        species: one of `species()`.
        seed: the individual; 0 is the species' portrait. Same seed, same bytes.
        motions: names of the animations to include, in this order; None for all.
    """
    creature = grow(species, seed)
    known = _repertoire(species)
    names = list(known) if motions is None else list(motions)
    for name in names:
        if name not in known:
            raise ValueError(
                f"creature {species!r} has no motion {name!r}; creatures.motions({species!r}) lists them"
            )
    meshes = creature.body.merged()
    morphs = {
        name: [_morph_target(mesh, morph) for mesh in meshes] for name, morph in creature.morphs.items()
    }
    clips = [
        glb.Clip(name, known[name].sentence, known[name].split, pose)
        for name, pose in zip(names, perform(creature, [known[name].sentence for name in names]), strict=True)
    ]
    title = CreatureRef(species, seed).title
    extras = {"title": title, "author": "Menagerie", "license": LICENCE, "species": species, "seed": seed}
    return glb.write(species, meshes, creature.body.skeleton, clips, morphs, extras)


def perform(creature: Creature, sentences: Sequence[str]) -> list[Pose]:
    """The pose tracks of several sentences, solved in one go."""
    if not sentences:
        return []
    takes = [creature.act(sentence) for sentence in sentences]
    whole = solve(Take.joined(takes))
    edges = np.cumsum([0, *(len(take.angles) for take in takes)])
    return [whole[a:b] for a, b in pairwise(edges)]


def _morph_target(mesh: Mesh, morph: Callable[[Mesh], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Position and normal offsets of a target; normals from the faces before and after."""
    offsets = morph(mesh)
    return offsets, mesh.face_normals(mesh.positions + offsets) - mesh.face_normals(mesh.positions)


def _module(species: str) -> ModuleType:
    if species not in SPECIES:
        raise ValueError(f"no creature is called {species!r}; there are {', '.join(SPECIES)}")
    return import_module(f"factory.sources.creatures.kinds.{species}")


def enumerate_uri(uri: str) -> Iterator[CreatureRef]:
    """The individuals that a URI names, lazily; nothing is built.

    creatures://kangaroo            the portrait (seed 0)
    creatures://kangaroo?seed=7     one individual
    creatures://kangaroo?count=100  seeds 0–99 (seed=7&count=100: 7–106)
    creatures://*?count=2000        2 000 individuals, species in turn
    creatures://fox?motions=train   only the training motions ("heldout": the others; 4: four, drawn by the seed)
    """
    parts = urlsplit(uri)
    name, query = parts.netloc + parts.path.rstrip("/"), parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme != "creatures" or parts.fragment or not name:
        raise ValueError(
            f"{uri!r} is no creature URI; write creatures://SPECIES?seed=N or creatures://*?count=N"
        )
    kinds = SPECIES if name == "*" else (name,)
    _module(kinds[0])
    for key, values in query.items():
        if key not in _QUERY or len(values) != 1 or not re.fullmatch(_QUERY[key], values[0]):
            raise ValueError(
                f"{uri!r}: expected seed=N, count=N or motions=N|train|heldout with a whole number N, "
                f"got {key}={','.join(values)}"
            )
    said = {key: values[0] for key, values in query.items()}
    first, count = int(said.get("seed", 0)), int(said.get("count", len(kinds)))
    return (
        CreatureRef(kinds[k % len(kinds)], first + k // len(kinds), said.get("motions", ""))
        for k in range(count)
    )
