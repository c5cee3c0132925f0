"""The default back end: OpenGL 3.3 on EGL through moderngl, with identical behaviour on a GPU and on llvmpipe.

How a frame is rendered:

1. The asset is posed in numpy and uploaded once per frame; all views draw the same vertices (`scene.py`).
2. Each view is drawn at sqrt(samples) times the resolution into a small target that stays in the CPU cache, in
   sRGB-encoded, premultiplied colour (`targets.py`, `shaders.py`). On llvmpipe this is about twice as fast as
   multisampling.
3. A resolve pass averages the samples, divides by alpha, flips the image and writes it to its place in an atlas of all
   views, which is read back once per frame.

Averaging and blending happen in sRGB-encoded values, the space in which PNG files and videos are usually composited, so
a stored clip composited over a background equals a render over that background.

Invisible geometry is skipped: back faces of closed opaque parts, whatever `doubleSided` says, and triangles whose
texture is fully transparent.
"""

from renderers.meshes.opengl.renderer import OpenGLRenderer

__all__ = ["OpenGLRenderer"]
