"""Convert FBX and BLEND files to .glb with Blender, in a separate process."""

from __future__ import annotations

from pathlib import Path

from factory.sources.downloads import Cache, file_sha256

CONVERTED = ("fbx", "blend")
CONVERTER_VERSION = "1"  # increment when the same input would convert to a different .glb
_TIMEOUT_S = 300.0


def to_glb(file: Path, kind: str) -> Path:
    """Convert an FBX or BLEND file to .glb, or return the cached result of an earlier conversion.

    Args:
        file: the input file.
        kind: "fbx" or "blend".

    Raises:
        RenderError: Blender is not installed, or it cannot read the file.
    """
    from renderers.meshes import blender

    name = f"glb {CONVERTER_VERSION} of {kind} {file_sha256(file)}"
    return Cache().make(name, lambda target: blender.convert(file, kind, target, timeout=_TIMEOUT_S))
