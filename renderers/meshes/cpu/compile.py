"""Compile the kernels ahead of time: `python -m renderers.meshes.cpu.compile [--level x86-64-v3] [folder]`.

Writes `compiled/` of `renderers.meshes.cpu`, an archive per processor level, see `renderers.machine_code`. Run it
whenever a source file of the kernels has changed: `make kernels`.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path

import numpy as np

from renderers.kernel_archives import Signature, run_compiler, signature_of, write_archive
from renderers.meshes.cpu.kernel_code import ARCHIVES, SOURCES


def signatures() -> dict[str, Signature]:
    """Render a scene that needs all kernels; return the signatures that numba inferred."""
    from renderers import gltf
    from renderers.cameras import orbit_cameras
    from renderers.meshes import RenderSettings, Shot, render_clip
    from renderers.meshes.cpu import kernels

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.gltf"
        path.write_text(json.dumps(_scene()))
        asset = gltf.load(path)
    shot = Shot(
        None, np.zeros(1), np.eye(4), orbit_cameras(np.zeros(1), 0.0, 3.0, fov_y=0.7, width=8, height=8)
    )
    render_clip(asset, shot, RenderSettings(normals=True), backend="cpu")
    called = {name: value for name, value in vars(kernels).items() if getattr(value, "overloads", None)}
    # Kernels only, which release the global interpreter lock: the functions that they call have overloads, too.
    names = sorted(name for name, value in called.items() if value.targetoptions.get("nogil"))
    return {name: signature_of(called[name]) for name in names}


def _scene() -> dict:
    """Return a glTF file of one textured, blended triangle."""
    from PIL import Image

    image = io.BytesIO()
    Image.new("RGBA", (2, 2), (200, 100, 50, 128)).save(image, "PNG")
    points = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32)
    return {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": _data(points.tobytes()), "byteLength": points.nbytes}],
        "bufferViews": [{"buffer": 0, "byteLength": points.nbytes}],
        "accessors": [
            {
                "bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3",
                "min": points.min(0).tolist(), "max": points.max(0).tolist(),
            }
        ],
        "images": [{"uri": _data(image.getvalue(), "image/png")}],
        "textures": [{"source": 0}],
        "materials": [{"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }  # fmt: skip


def _data(content: bytes, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write(path: Path, given: dict[str, Signature]) -> None:
    """Write an archive for the target that numba is set to; see `renderers.kernel_archives.run_compiler`."""
    from renderers.kernel_cache import UNCOUNTED
    from renderers.meshes.cpu import kernels, layout

    tuples = {name: value for name, value in vars(layout).items() if isinstance(value, type)}
    write_archive(path, kernels, given, SOURCES, tuples, **UNCOUNTED)


def main() -> None:
    """Compile for all levels, or for one."""
    run_compiler("renderers.meshes.cpu.compile", __doc__.split("\n")[0], ARCHIVES, signatures)


if __name__ == "__main__":
    main()
