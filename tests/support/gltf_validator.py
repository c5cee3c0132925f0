"""Run the Khronos glTF validator on files written by the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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


def validator() -> Callable[[list[Path]], list[dict]]:
    """Return the validator's reports by path; skip the test if the validator is not installed."""
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
