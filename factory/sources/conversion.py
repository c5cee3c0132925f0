"""Files that are not glTF, made into it by Blender in a process of its own."""

from __future__ import annotations

from pathlib import Path

from factory.sources.downloads import Cache, file_sha256

CONVERTED = ("fbx", "blend")
CONVERTER_VERSION = "1"  # raise it when the same file would give another .glb
_TIMEOUT_S = 300.0


def to_glb(file: Path, kind: str) -> Path:
    """The .glb of an FBX or BLEND file, made once and kept in the cache.

    Raises:
        RenderError: there is no Blender here, or it cannot read the file.
    """
    from renderers.meshes import blender

    name = f"glb {CONVERTER_VERSION} of {kind} {file_sha256(file)}"
    return Cache().make(name, lambda target: blender.convert(file, kind, target, timeout=_TIMEOUT_S))
