"""Sizes of the arrays that the kernels of the CPU back end and their caller share. Imports nothing."""

CHUNK = 256  # Gaussians per partial sum of camera gradients; fixed, so that sums do not depend on the thread count
TILE, BLOCK, BLOCKS = 32, 4, 64  # pixels per side of a tile and of a block; blocks per tile
PIXELS = TILE * TILE
MOMENTS = 6  # sums over pixels, see draw_backward: Σw, Σw·u, Σw·dy, Σw·u², Σw·u·dy, Σw·dy²
RECORD = 8  # per splat: x', y', k, a/16, h/16, -ln(o)/8, half width and half height of the outline α = 1/255
