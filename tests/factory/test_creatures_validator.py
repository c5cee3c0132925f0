"""The Khronos glTF validator has nothing to say about creatures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from factory.sources import creatures

SCRIPT = """
const { validateBytes } = require(process.argv[1]);
const { readFileSync } = require("fs");
(async () => {
  const reports = [];
  for (const file of process.argv.slice(2)) {
    const { issues } = await validateBytes(new Uint8Array(readFileSync(file)), { maxIssues: 5 });
    reports.push({ file, errors: issues.numErrors, warnings: issues.numWarnings, messages: issues.messages });
  }
  console.log(JSON.stringify(reports));
})();
"""


@pytest.fixture(scope="module")
def validate():
    """Paths → the validator's reports."""
    package = os.environ.get("MENAGERIE_GLTF_VALIDATOR")
    found = (
        [Path(package)]
        if package
        else [parent / "node_modules/gltf-validator" for parent in Path(__file__).resolve().parents]
    )
    found = [path for path in found if (path / "package.json").exists()]
    node = shutil.which("node")
    if not node or not found:
        pytest.skip(
            "the glTF validator needs node and the npm package gltf-validator; "
            "`npm install gltf-validator` in the checkout, or MENAGERIE_GLTF_VALIDATOR=its folder"
        )

    def run(paths: list[Path]) -> list[dict]:
        done = subprocess.run(
            [node, "-e", SCRIPT, str(found[0]), *map(str, paths)], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return run


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
