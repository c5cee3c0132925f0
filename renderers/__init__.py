"""Render animated glTF meshes and Gaussian splats. This package imports none of the other packages.

* `renderers.cameras`: pinhole cameras, orbits and conversions between camera conventions.
* `renderers.gltf`: animated glTF 2.0 assets, evaluated at any time.
* `renderers.meshes`: clips of animated meshes (OpenGL, pyrender, Blender).
* `renderers.gaussians`: differentiable Gaussian splatting (gsplat, numba, plain torch).
* `renderers.video`: frames to H.264 mp4.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

__all__ = ["__version__", "cameras", "gaussians", "gltf", "meshes", "video"]
__version__: str

if not TYPE_CHECKING:  # a type checker accepts any name of a module with __getattr__

    def __getattr__(name: str) -> str:
        if name == "__version__":  # reading it takes milliseconds
            return importlib.metadata.version("menagerie4d")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
