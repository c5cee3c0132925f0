"""A rasteriser for the CPU in numba: no graphics library, and kernels with the same bits on all processors.

How a frame is rendered:

1. The asset is posed in numpy; its vertices are placed in the world once per frame (`scene.py`).
2. Per view, vertices are projected and triangles culled, clipped and sorted into tiles (`kernels.py`).
3. Per tile, the visible triangle of every sample is determined. Each pixel is shaded once per visible triangle, 16 of
   these fragments at a time (`light.py`). Textures finer than the pixels are read once per sample.
4. Translucent fragments are blended from far to near, per sample, over what is visible behind them.

The image is the one of the `opengl` back end (`shaders.py` there has the equations). Averaging and blending happen in
sRGB-encoded values, as there.
"""

from renderers.meshes.cpu.renderer import CPURenderer

__all__ = ["CPURenderer"]
