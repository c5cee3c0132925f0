"""Animated glTF 2.0 assets: parse, validate, and evaluate at any time. Uses numpy and no graphics library.

    asset = load("fox.glb")
    pose = asset.pose(animation=0, time=0.5)      # positions and normals in world space
    for primitive in asset.primitives:
        material = asset.materials[primitive.material]
        triangles = pose.positions[primitive.triangles]

Supports skins, morph targets and node transforms with STEP, LINEAR and CUBICSPLINE interpolation. World coordinates are
those of glTF: +Y up, front +Z, metres. Invalid files raise `GltfError`, unsupported ones `UnsupportedGltf`.
"""

from renderers.gltf.animations import Animation
from renderers.gltf.asset import Asset, Pose, Primitive, load
from renderers.gltf.files import find_file, path_text
from renderers.gltf.formats import SNIFFED_BYTES, FileFormat, format_of_suffix, identify
from renderers.gltf.limits import GltfError, Limits, UnsupportedGltf
from renderers.gltf.materials import Material, Texture

__all__ = [
    "SNIFFED_BYTES",
    "Animation",
    "Asset",
    "FileFormat",
    "GltfError",
    "Limits",
    "Material",
    "Pose",
    "Primitive",
    "Texture",
    "UnsupportedGltf",
    "find_file",
    "format_of_suffix",
    "identify",
    "load",
    "path_text",
]
