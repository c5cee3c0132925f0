"""Species, individuals and motions of the creatures, and the functions that build them."""

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
# Part of the fingerprint. Increment when the bytes for a seed change, so that clips are rendered again.
VERSION = "1"
SPECIES = (
    *("kangaroo", "bird", "robot", "human", "fox", "cat"),
    *("fish", "snake", "crab", "flower", "jellyfish", "drop"),
)

_QUERY = {"seed": "[0-9]{1,9}", "count": "[0-9]{1,9}", "motions": "[1-9][0-9]{0,3}|train|heldout"}


@dataclass(frozen=True)
class Motion:
    """One motion of a species.

    Attributes:
        name: identifier, used as the name of the animation.
        sentence: caption, e.g. "hops twice".
        split: "train" or "heldout".
    """

    name: str
    sentence: str
    split: str


@dataclass(frozen=True)
class CreatureRef:
    """Reference to one individual. It is not built until `glb` is called.

    Attributes:
        species: name of the species.
        seed: the individual.
        motions: motions to include: "" for all, "train" or "heldout" for a split, or a number to draw with the seed.
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
        """Content address, computed from the generator's version and arguments without building the creature."""
        return f"creature:{VERSION}:{self.species}:{self.seed}" + (f":{self.motions}" if self.motions else "")

    def motion_names(self) -> list[str]:
        """Return the names of the motions in the GLB, in the species' order."""
        known = motions(self.species)
        if not self.motions.isdecimal():
            return [motion.name for motion in known if self.motions in ("", motion.split)]
        rng = np.random.default_rng([SPECIES.index(self.species), self.seed])
        drawn = rng.choice(len(known), min(int(self.motions), len(known)), replace=False)
        return [known[k].name for k in sorted(drawn)]

    def glb(self) -> bytes:
        """Build the creature and return the bytes of its GLB."""
        return build(self.species, self.seed, self.motion_names())


def species() -> tuple[str, ...]:
    """Return the names of all species, starting with the three used by the bundled models."""
    return SPECIES


def motions(species: str) -> tuple[Motion, ...]:
    """Return the motions of a species, training motions first. The split of a motion is the same for every seed."""
    return tuple(_repertoire(species).values())


@cache
def _repertoire(species: str) -> dict[str, Motion]:
    """Return the motions by name. The name is the sentence in lower case with hyphens."""
    module = _module(species)
    repertoire = [
        Motion(re.sub("[^a-z]+", "-", sentence.lower()), sentence, split)
        for split, sentences in (("train", module.TRAIN), ("heldout", module.HELDOUT))
        for sentence in sentences
    ]
    return {motion.name: motion for motion in repertoire}


def grow(species: str, seed: int = 0) -> Creature:
    """Return one individual as a `Creature`: body, gestures and morph targets, not yet exported.

    Raises:
        ValueError: the species does not exist or the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"creature {species!r}: the seed must be a whole number from 0 up, got {seed}")
    return _module(species).grow(Genes(species, seed))


def build(species: str, seed: int = 0, motions: Sequence[str] | None = None) -> bytes:
    """Build a GLB with the creature in its rest pose and one animation per motion.

    Each animation has keys at k/24 s for k = 0…48, and starts from the rest pose. Poses are exact at the keys.

    Args:
        species: one of `species()`.
        seed: the individual; 0 is the reference individual of the species. The result is deterministic.
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
    """Return one pose track per sentence. All sentences are solved in one batch."""
    if not sentences:
        return []
    takes = [creature.act(sentence) for sentence in sentences]
    whole = solve(Take.joined(takes))
    edges = np.cumsum([0, *(len(take.angles) for take in takes)])
    return [whole[a:b] for a, b in pairwise(edges)]


def _morph_target(mesh: Mesh, morph: Callable[[Mesh], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return position and normal offsets [N, 3] of a morph target; normals are derived from the faces."""
    offsets = morph(mesh)
    return offsets, mesh.face_normals(mesh.positions + offsets) - mesh.face_normals(mesh.positions)


def _module(species: str) -> ModuleType:
    if species not in SPECIES:
        raise ValueError(f"no creature is called {species!r}; expected one of {', '.join(SPECIES)}")
    return import_module(f"factory.sources.creatures.kinds.{species}")


def enumerate_uri(uri: str) -> Iterator[CreatureRef]:
    """Yield the individuals that a URI refers to, without building them.

    creatures://kangaroo            the individual with seed 0
    creatures://kangaroo?seed=7     one individual
    creatures://kangaroo?count=100  seeds 0–99 (seed=7&count=100: 7–106)
    creatures://*?count=2000        2,000 individuals, cycling through the species
    creatures://fox?motions=train   only the training motions ("heldout": the others; 4: four, drawn with the seed)
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
    options = {key: values[0] for key, values in query.items()}
    first, count = int(options.get("seed", 0)), int(options.get("count", len(kinds)))
    return (
        CreatureRef(kinds[k % len(kinds)], first + k // len(kinds), options.get("motions", ""))
        for k in range(count)
    )
