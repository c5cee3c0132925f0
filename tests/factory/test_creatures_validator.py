"""The Khronos glTF validator has nothing to say about creatures."""

from __future__ import annotations

from pathlib import Path

import pytest
from gltf_validator import validator

from factory.sources import creatures


@pytest.fixture(scope="module")
def validate():
    return validator()


def written(folder: Path, seeds, motions: int | None) -> list[Path]:
    paths = []
    for species in creatures.species():
        names = [motion.name for motion in creatures.motions(species)][:motions]
        for seed in seeds:
            paths.append(folder / f"{species}-{seed}.glb")
            paths[-1].write_bytes(creatures.build(species, seed, names))
    return paths


def assert_silent(reports: list[dict]) -> None:
    for report in reports:
        assert (report["errors"], report["warnings"]) == (0, 0), report


def test_every_species_is_valid(validate, tmp_path):
    assert_silent(validate(written(tmp_path, [1], 2)))


@pytest.mark.slow
def test_twenty_seeds_with_all_motions_are_valid(validate, tmp_path):
    for seed in range(20):
        assert_silent(validate(written(tmp_path, [seed], None)))


def test_a_broken_file_is_noticed(validate, tmp_path):
    path = tmp_path / "broken.glb"
    data = creatures.build("robot", 0, [])
    path.write_bytes(data.replace(b'"UNSIGNED', b'"unsigned').replace(b'"SCALAR"', b'"SCALER"', 1))
    assert validate([path])[0]["errors"] > 0
