"""An animated glTF 2.0 asset: parse, refuse, evaluate at time t. Numpy only, no graphics library.

    asset = load("fox.glb")
    pose = asset.pose(animation=0, time=0.5)      # positions and normals in world space
    for primitive in asset.primitives:
        material = asset.materials[primitive.material]
        triangles = pose.positions[primitive.triangles]

Skins, morph targets and node transforms; STEP, LINEAR and CUBICSPLINE. World: glTF's (+Y up, metres).
"""

from renderers.gltf.animations import Animation
from renderers.gltf.asset import Asset, Pose, Primitive, load
from renderers.gltf.document import GltfError, Limits, UnsupportedGltf
from renderers.gltf.materials import Material, Texture

__all__ = [
    "Animation",
    "Asset",
    "GltfError",
    "Limits",
    "Material",
    "Pose",
    "Primitive",
    "Texture",
    "UnsupportedGltf",
    "load",
]
