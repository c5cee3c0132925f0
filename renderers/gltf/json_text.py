"""Parsing of the JSON part of a glTF file."""

from __future__ import annotations

import json
from typing import Any

from renderers.gltf.files import reason
from renderers.gltf.limits import GltfError, UnsupportedGltf


def parse_json(text: bytes) -> dict:
    """Parse the JSON part of a glTF 2.0 file; members that are null are left out.

    Bytes that are not UTF-8, as in names that were written in Latin-1, become lone surrogates: file names keep their
    bytes.

    Raises:
        UnsupportedGltf: the file has another version of glTF.
        GltfError: it is not glTF. The message does not name the asset; `Document` adds that.
    """
    try:
        root = json.loads(text.decode("utf-8-sig", "surrogateescape"), object_pairs_hook=_without_nulls)
    except (ValueError, RecursionError) as error:
        raise GltfError(
            f"not a glTF file: expected GLB or JSON, and it cannot be parsed as JSON ({reason(error)})"
        ) from None
    if not isinstance(root, dict):
        raise GltfError("not a glTF file: expected a JSON object at the top level")
    asset = root.get("asset")
    version = asset.get("version") if isinstance(asset, dict) else None
    if isinstance(version, int | float) and not isinstance(version, bool):
        version = str(version)
    if not isinstance(version, str):
        raise GltfError("asset.version is missing, expected '2.0'; is this a glTF file?")
    if version.split(".")[0] != "2":
        raise UnsupportedGltf(f"glTF version {version[:20]!r}, expected '2.0'; convert it to glTF 2.0")
    return root


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object without the members that are null, which some exporters write for absent ones."""
    return {key: value for key, value in pairs if value is not None}
