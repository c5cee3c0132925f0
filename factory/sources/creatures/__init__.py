"""Procedurally generated CC0 creatures: skinned, coloured GLB models with captioned animations.

species()                       names of all species
motions("kangaroo")             motions of a species: name, sentence, split
build("kangaroo", seed=7)       bytes of a GLB with one 2 s animation per motion
enumerate_uri("creatures://*?count=2000")
"""

from factory.sources.creatures.catalogue import (
    LICENCE,
    SPECIES,
    VERSION,
    CreatureRef,
    Motion,
    build,
    enumerate_uri,
    grow,
    motions,
    perform,
    species,
)
from factory.sources.creatures.creature import Creature

__all__ = [
    "LICENCE",
    "SPECIES",
    "VERSION",
    "Creature",
    "CreatureRef",
    "Motion",
    "build",
    "enumerate_uri",
    "grow",
    "motions",
    "perform",
    "species",
]
