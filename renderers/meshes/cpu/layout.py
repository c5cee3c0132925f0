"""The arrays that the kernels work on: named tuples of numpy arrays, shared by the scene and the kernels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# How a triangle is drawn: it hides what is behind it, where its alpha passes the cutoff, or according to its alpha.
SOLID, MASK, BLEND = 0, 1, 2
# Texture slots of a material, in the order of `Materials.textures`.
BASE_MAP, METALLIC_ROUGHNESS_MAP, EMISSIVE_MAP, NORMAL_MAP, OCCLUSION_MAP, SLOTS = 0, 1, 2, 3, 4, 5
# Columns of `Materials.factors`.
BASE, EMISSIVE, CUTOFF, METALLIC, ROUGHNESS, NORMAL_SCALE, OCCLUSION, FACTORS = 0, 4, 7, 8, 9, 10, 11, 12
# Columns of `Materials.flags`.
# TEXTURED: has any texture; DETAILED: has one other than base colour and emission.
# WEIGHTED: colours of the base texture are weighted by its alpha.
# ALIKE: emission has the texture coordinates of the base colour.
# ORDER: fragments are sorted by this number before they are shaded; with WEIGHTED, by the sum of it and of the bits of
# the covered samples, of which there are SAMPLE_MASKS.
DOUBLE_SIDED, UNLIT, TEXTURED, DETAILED, WEIGHTED, ALIKE, ORDER, FLAGS = 0, 1, 2, 3, 4, 5, 6, 7
SAMPLE_MASKS = 16  # with four samples
# Columns of `Textures.samplers`; the offsets of the levels in `Textures.texels` follow.
WIDTH, HEIGHT, LEVELS, WRAP_S, WRAP_T, NEAREST, OFFSETS = 0, 1, 2, 3, 4, 5, 6
MAX_LEVELS = 12  # of textures of at most 2048 texels a side
REPEAT, MIRROR, CLAMP = 0, 1, 2
# Fragments shaded at a time, distance of the rows of their array `Work.rows`, and number of rows (`light`).
CHUNK, STRIDE, ROWS = 256, 272, 39  # a stride of a power of two would put rows into a few sets of the cache
PIXEL_SHIFT = 16  # see `Work.coverage`; a pixel has at most 16 samples, and a tile 4096 pixels
# Blocks of blended triangles that are remembered per tile, and float32 values of each (`Work.layers`).
LAYERS, LAYER = 4096, 32
WRAPS = {"repeat": REPEAT, "mirror": MIRROR, "clamp": CLAMP}


class Mesh(NamedTuple):
    """The F triangles that can be visible, solid ones first, then masked ones, then blended ones.

    Attributes:
        corners: uint32 [F, 4], three vertices and the material. Unsigned, since
            kernels need not test such indices for wrap-around.
        materials: uint32 [F].
        kinds: uint8 [F], SOLID, MASK or BLEND.
        culled: bool [F], the back face is never visible.
        winding: int8 [F], 1 if front faces are counter-clockwise, -1 if clockwise (mirrored parts).
        colors: float32 [N, 4], linear vertex colours; [0, 4] if all are 1.
        texcoords: float32 [N, SLOTS, 2], transformed texture coordinates per slot.
        positions, normals: float32 [N, 3], of the current frame in world space; normals of any length.
        vertices: float32 [N, 8], position, normal, and u and v of the base colour, side by side.
        lanes: uint32 [3 * L], the corners again, corner by corner, padded to a multiple of 16.
        culled_winding: float32 [L], 0 where the back face can be visible, else `winding`.
    """

    corners: np.ndarray
    materials: np.ndarray
    kinds: np.ndarray
    culled: np.ndarray
    winding: np.ndarray
    colors: np.ndarray
    texcoords: np.ndarray
    positions: np.ndarray
    normals: np.ndarray
    vertices: np.ndarray
    lanes: np.ndarray
    culled_winding: np.ndarray


class Materials(NamedTuple):
    """The materials of an asset and their textures.

    Attributes:
        factors: float32 [M, FACTORS].
        flags: int32 [M, FLAGS].
        textures: int32 [M, SLOTS], rows of `samplers`, -1 without a texture.
        samplers: int64 [T, OFFSETS + MAX_LEVELS].
        texels: uint32 [...], RGBA texels of all levels, R in the lowest byte, encoded as in the file. Each level has a
            border of one texel that repeats, mirrors or continues the image.
        alphas: uint32 [...], for each texel the alphas of it, of those to the right and below, and of the one below
            right, from the lowest byte on; only of textures with transparent parts, [1] if there are none.
    """

    factors: np.ndarray
    flags: np.ndarray
    textures: np.ndarray
    samplers: np.ndarray
    texels: np.ndarray
    alphas: np.ndarray


class Grid(NamedTuple):
    """How the samples of a tile are numbered: by block, then by pixel in the block, then by sample in the pixel.

    A block is 16 samples: 4 x 4, 2 x 2 or 1 x 1 pixels with 1, 4 or 16 samples each.

    Attributes:
        samples: per pixel.
        block_width, block_height: pixels.
        tile_width, tile_height: pixels.
        block_shift, tile_shift_x, tile_shift_y: base 2 logarithms of the sizes of blocks and tiles, which are powers of
            two: divisions by a variable are slow.
        offsets: float32 [32], x of the 16 samples in a block, then y.
        inside: float32 [samples, 2], x and y of the samples in a pixel.
        reach: float32 [2], least and largest x, and y, of the samples in a block.
        places: uint32 [pixels of a tile, 2], x and y of the pixels in a tile.
        filter: float32 [6], how textures are filtered, see `renderer.FILTER`.
    """

    samples: int
    block_width: int
    block_height: int
    tile_width: int
    tile_height: int
    block_shift: int
    tile_shift_x: int
    tile_shift_y: int
    offsets: np.ndarray
    inside: np.ndarray
    reach: np.ndarray
    places: np.ndarray
    filter: np.ndarray


class Records(NamedTuple):
    """The triangles of one view after culling and clipping.

    Attributes:
        points: float32 [R, 12], x, y (pixels), 1 / w and nothing that is read of each corner, clockwise on screen.
        boxes: int32 [R, 4], pixels: left, top, and one past right and bottom.
        owners: uint32 [R], the triangle of the mesh.
        facing: int8 [F], 1 if the front of the triangle is visible, -1 if the back is.
        polygon: float32 [4, 3], lanes: int32 [64], scratch memory.
        layer_starts, layer_counts: int32 [R], of blended records in the current tile: the first of `Work.layers`, and
            their number, -1 if they are not all there.
    """

    points: np.ndarray
    boxes: np.ndarray
    owners: np.ndarray
    facing: np.ndarray
    polygon: np.ndarray
    lanes: np.ndarray
    layer_starts: np.ndarray
    layer_counts: np.ndarray


class Bins(NamedTuple):
    """Which records touch a tile, in the order of drawing.

    Attributes:
        starts: int32 [tiles + 1], places in `records`.
        records: uint32 [...].
        place: int32 [tiles], scratch memory.
    """

    starts: np.ndarray
    records: np.ndarray
    place: np.ndarray


class Views(NamedTuple):
    """The V cameras of a shot.

    Attributes:
        width, height: pixels.
        eyes: float64 [V, 3], positions.
        distances: float64 [V], of the eyes from the world origin.
        matrices: float64 [V, 3, 4], K [R | t].
    """

    width: int
    height: int
    eyes: np.ndarray
    distances: np.ndarray
    matrices: np.ndarray


class Lists(NamedTuple):
    """What the kernels prepare of a view before it is drawn.

    Attributes:
        screen: float32 [N, 4], output of `kernels._project`.
        order: uint32 [2, R], the blended records, farthest first, and scratch memory of their sorting.
        keys: uint64 [2, R], what they are sorted by, and scratch memory.
        digits: int32 [6, 2048], scratch memory of sorting.
        required: int64 [2], output: how many records and how many elements of `Bins.records` a view needs, if there
            was not enough room.
    """

    screen: np.ndarray
    order: np.ndarray
    keys: np.ndarray
    digits: np.ndarray
    required: np.ndarray


class Work(NamedTuple):
    """Scratch memory of a thread.

    Attributes:
        depths, ids: int32 [samples of a tile], bits of 1 / w and the triangle of the visible surface.
        colors: float32 [samples of a tile * 4], premultiplied.
        sums: float32 [pixels of a tile * 4], premultiplied sums over samples.
        found: int32 [16], depths; bytes: uint32 [16], colours.
        triangles, coverage: uint32 [STRIDE], fragments: triangle; bits of the covered samples, and from PIXEL_SHIFT on
            the pixel of the tile.
        sorted_triangles, sorted_coverage: uint32 [STRIDE], the same, sorted for shading.
        slots: uint32 [STRIDE], the place of each fragment in them.
        tally: int64 [1 + numbers that fragments are sorted by].
        layers: float32 [(LAYERS + 1) * LAYER], alpha and 1 / w of the 16 samples of blocks of blended triangles; the
            last one is scratch memory.
        layer_blocks, layer_masks: uint32 [LAYERS], the block, and the bits of its translucent samples.
        corners: uint32 [3 * STRIDE], their vertices, see `light.interpolate`.
        materials: uint32 [STRIDE], their materials.
        alphas: float32 [CHUNK, 16], alpha per sample of translucent fragments.
        rows: float32 [ROWS * STRIDE], see `light`.
        planes: float32 [4, 3], see `kernels._alpha_planes`.
        batch: uint32 [16], records, and prepared: float32 [17 * 16], output of `vectors.set_up_triangles`.
        owners: uint32 [16], their triangles; first_samples: int32 [16], the first sample of the first block of each.
        touched: int64 [4], the bits of the blocks that they may touch, 16 for each record.
        rests: float32 [16 * 4 * 16], by record and plane, the values at the 16 samples of a block without that at its
            corner; block_corners: float32 [16 * 4 * 16], by block, plane and record, the values at these corners.
    """

    depths: np.ndarray
    ids: np.ndarray
    colors: np.ndarray
    sums: np.ndarray
    found: np.ndarray
    bytes: np.ndarray
    triangles: np.ndarray
    coverage: np.ndarray
    sorted_triangles: np.ndarray
    sorted_coverage: np.ndarray
    slots: np.ndarray
    tally: np.ndarray
    layers: np.ndarray
    layer_blocks: np.ndarray
    layer_masks: np.ndarray
    corners: np.ndarray
    materials: np.ndarray
    alphas: np.ndarray
    rows: np.ndarray
    planes: np.ndarray
    batch: np.ndarray
    prepared: np.ndarray
    owners: np.ndarray
    first_samples: np.ndarray
    touched: np.ndarray
    rests: np.ndarray
    block_corners: np.ndarray
