"""Convert FBX and BLEND files to .glb with Blender, in a separate process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from factory.sources.downloads import Cache, file_sha256

CONVERTED = ("fbx", "blend")
CONVERTER_VERSION = "1"  # increment when the same input would convert to a different .glb
_TIMEOUT_S = 300.0


def to_glb(file: Path, kind: str, images: Sequence[Path] = ()) -> Path:
    """Convert an FBX or BLEND file to .glb, or return the cached result of an earlier conversion.

    Args:
        file: the input file.
        kind: "fbx" or "blend".
        images: textures that the file may refer to; Blender searches them by their names.

    Raises:
        RenderError: Blender is not installed, or it cannot read the file.
    """
    from renderers.meshes import blender

    name = f"glb {CONVERTER_VERSION} of {kind} {file_sha256(file)}"
    if images:
        contents = "".join(f"{image.name}\x1f{file_sha256(image)}\x1f" for image in images)
        name += f" with images {hashlib.sha256(contents.encode('utf-8', 'replace')).hexdigest()}"
    return Cache().make(
        name, lambda target: blender.convert(file, kind, target, images=images, timeout=_TIMEOUT_S)
    )
