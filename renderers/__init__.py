"""Render animated glTF meshes and Gaussian splats. This package imports none of the other packages.

* `renderers.cameras`: pinhole cameras, orbits and conversions between camera conventions.
* `renderers.gltf`: animated glTF 2.0 assets, evaluated at any time.
* `renderers.meshes`: clips of animated meshes (OpenGL, pyrender, Blender).
* `renderers.gaussians`: differentiable Gaussian splatting (gsplat, numba, plain torch).
* `renderers.video`: frames to H.264 mp4.
"""

__all__ = ["cameras", "gaussians", "gltf", "meshes", "video"]
