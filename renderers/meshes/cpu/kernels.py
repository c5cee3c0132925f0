"""The numba kernels of the CPU back end: projection, clipping, rasterisation, texture sampling and shading.

Symbols, used in the comments below
    P_i, w_i        world position of corner i of a triangle, and its depth along the optical axis
    x_i, y_i, q_i   its projection in pixels (x right, y down), and q_i = 1 / w_i
    E_i(X, Y)       edge function opposite corner i: twice the signed area of the triangle (X, Y), j, k
    b_i             perspective-correct barycentric coordinates: b_i = E_i q_i / sum_j E_j q_j (also for w_j < 0)

Coverage. An edge from j to k is E = A X + B Y + C with A = y_j - y_k, B = x_k - x_j and
C = -(A (x_j + x_k) + B (y_j + y_k)) / 2. Reversing the edge negates A, B, C and every rounding, so triangles that share
an edge neither overlap nor leave a gap. A sample on an edge belongs to the triangle for which A > 0, or A = 0 and
B > 0.

Depth. 1 / w is linear on screen. The bits of positive floats are ordered like the floats, so depths are compared as
integers. The largest is the nearest.

Shading. A fragment is a pixel and one triangle that is visible in some of its samples. It is shaded once, at the
centroid of these samples, where all attributes are interpolated. Textures are filtered over the footprint of the pixel.

Determinism. No arithmetic is fused or reordered, and sums have a fixed order.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from renderers import simd
from renderers.kernel_cache import UNCOUNTED, announce_compilation, compiler
from renderers.meshes import opacity
from renderers.meshes.cpu import layout, light, vectors
from renderers.meshes.cpu.layout import (
    ALIKE,
    BASE,
    BASE_MAP,
    BLEND,
    CLAMP,
    CUTOFF,
    DETAILED,
    DOUBLE_SIDED,
    EMISSIVE,
    EMISSIVE_MAP,
    HEIGHT,
    LAYER,
    LAYERS,
    LEVELS,
    MASK,
    METALLIC,
    METALLIC_ROUGHNESS_MAP,
    MIRROR,
    NEAREST,
    NORMAL_MAP,
    NORMAL_SCALE,
    OCCLUSION,
    OCCLUSION_MAP,
    OFFSETS,
    ORDER,
    PIXEL_SHIFT,
    REPEAT,
    ROUGHNESS,
    SOLID,
    UNLIT,
    WEIGHTED,
    WIDTH,
    WRAP_S,
    WRAP_T,
)
from renderers.meshes.cpu.light import (
    AT,
    CHUNK,
    EMISSION,
    ENCODED,
    EYE,
    NORMAL,
    PIXEL,
    SLOPES,
    STRIDE,
    TEXCOORD,
    WEIGHTS,
)
from renderers.meshes.cpu.vectors import (
    LANES,
    align_stack,
    append_visible,
    bilinear,
    bilinear_encoded,
    bilinear_linear,
    bit_set,
    bits_to_mask,
    blend_four,
    block_boxes,
    candidates,
    count_bits,
    covered,
    covered_in_four,
    deposit,
    deposit_all,
    exponent,
    exponents,
    fill_16,
    float_bits,
    lane_numbers,
    largest,
    load_channels,
    load_quad,
    make_quad,
    matches,
    mix_alpha,
    pixel_places,
    project_points,
    set_up_triangles,
    smallest,
    store_bytes,
    store_short,
    take_number,
    texture_levels,
    transposed_short,
    triangle_boxes,
    with_bit,
    write_1,
    write_2,
    write_4,
)
from renderers.simd import (
    broadcast_exact,
    load_exact,
    mask_bits,
    maximum,
    minimum,
    select,
    zero_quad,
)

SOLID_ALPHA, FAINTEST_ALPHA = opacity.SOLID_ALPHA, opacity.FAINTEST_ALPHA
TINY = np.float32(vectors.TINY)
NO_DEPTH = 1e-30
NEAREST_DEPTH = 1e-4  # distance of the near plane, as a fraction of the farthest visible distance
_DIGIT, _DIGITS = 11, 1 << 11  # bits of a digit in sorting, and values
BASE_ROW, METALLIC_ROW, ROUGHNESS_ROW, OCCLUSION_ROW = (
    light.BASE,
    light.METALLIC,
    light.ROUGHNESS,
    light.OCCLUSION,
)
SMALL, FEWEST = 4, 6  # blocks per side of the records that `_find_blocks` finds, and how many it takes to pay
UNIT, ONE, ZERO = 1.0 / 255.0, np.float32(1.0), np.float32(0.0)

kernel = compiler(
    [
        __file__,
        layout.__file__,
        opacity.__file__,
        vectors.__file__,
        simd.__file__,
        *light.SOURCES,
    ],
    counts_references=False,
)
inline = njit(error_model="numpy", inline="always", **UNCOUNTED)
helper = njit(error_model="numpy", **UNCOUNTED)

announce_compilation(
    __name__, "meshes: compiling the CPU kernels for this machine, once (about two minutes) …"
)


# --- textures ----------------------------------------------------------------------------------------


@kernel
def halve_level(texels, source, width, height, offset, squared):
    """Write the next level of a texture, each texel the mean of 2 x 2 texels, or of 2 on an axis of one texel.

    With `squared`, colours are the square roots of the mean of squares: nearly the mean of linear light.
    """
    half_width, half_height = max(width // 2, 1), max(height // 2, 1)
    for y in range(half_height):
        top = source + (2 * y + 1) * (width + 2) + 1
        bottom = top + (width + 2 if height > 1 else 0)
        place = offset + (y + 1) * (half_width + 2) + 1
        for x in range(half_width):
            left, right = 2 * x, 2 * x + (1 if width > 1 else 0)
            a, b = np.uint32(texels[top + left]), np.uint32(texels[top + right])
            c, d = np.uint32(texels[bottom + left]), np.uint32(texels[bottom + right])
            # Two channels at a time, each in 16 bits.
            mask, half, two = np.uint32(0xFF00FF), np.uint32(0x20002), np.uint32(2)
            even = (a & mask) + (b & mask) + (c & mask) + (d & mask) + half
            shift = np.uint32(8)
            odd = (
                ((a >> shift) & mask) + ((b >> shift) & mask) + ((c >> shift) & mask) + ((d >> shift) & mask)
            )
            odd = ((odd + half) >> two) & mask
            word = ((even >> two) & mask) | (odd << shift)
            if squared:
                word &= np.uint32(0xFF000000)
                for channel in range(3):
                    by, low = np.uint32(8 * channel), np.uint32(255)
                    total = 0.0
                    for texel in (a, b, c, d):
                        value = float((texel >> by) & low)
                        total += value * value
                    word |= np.uint32(math.sqrt(0.25 * total) + 0.5) << by
            texels[place + x] = word


@kernel
def fill_border(texels, offset, width, height, wrap_s, wrap_t):
    """Write the border of a level: the opposite side for repeats, else the outermost texels."""
    stride = width + 2
    for y in range(1, height + 1):
        row = offset + y * stride
        left, right = (width, 1) if wrap_s == REPEAT else (1, width)
        texels[row] = texels[row + left]
        texels[row + width + 1] = texels[row + right]
    top, bottom = (height, 1) if wrap_t == REPEAT else (1, height)
    for x in range(stride):
        texels[offset + x] = texels[offset + top * stride + x]
        texels[offset + (height + 1) * stride + x] = texels[offset + bottom * stride + x]


@kernel
def pack_alphas(texels, offset, width, height, out):
    """Write the alphas of each texel of a level, of those to the right and below, and of the one below right."""
    stride, shift, high = width + 2, np.uint32(24), np.uint32(0xFF000000)
    for place in range(offset, offset + (height + 1) * stride):
        first = np.uint32(texels[place]) >> shift
        second = (np.uint32(texels[place + 1]) & high) >> np.uint32(16)
        third = (np.uint32(texels[place + stride]) & high) >> np.uint32(8)
        out[place] = first | second | third | (np.uint32(texels[place + stride + 1]) & high)


@inline
def _fold(coordinate, wrap):
    """Map a texture coordinate to 0..1 according to the wrap mode."""
    u = coordinate if abs(coordinate) < 1e7 else 0.0  # also if it is not a number
    if wrap == CLAMP:
        u = min(max(u, 0.0), 1.0)
    elif wrap == MIRROR:
        u = abs(u - 2.0 * math.floor(0.5 * u + 0.5))
    else:
        u = u - math.floor(u)
    return u


@inline
def _locate(materials, texture, level, u, v):
    """Return the index of the upper left of four texels, the stride of rows, and the weights of right and bottom."""
    samplers = materials.samplers
    width = max(samplers[texture, WIDTH] >> level, 1)
    height = max(samplers[texture, HEIGHT] >> level, 1)
    u = _fold(u, samplers[texture, WRAP_S]) * width
    v = _fold(v, samplers[texture, WRAP_T]) * height
    stride = width + 2
    place = samplers[texture, OFFSETS + level]
    if samplers[texture, NEAREST]:
        x, y = min(int(u), width - 1), min(int(v), height - 1)
        place += (y + 1) * stride + x + 1
        fx, fy = 0.0, 0.0
    else:
        u, v = u + 0.5, v + 0.5  # the border is texel 0
        x, y = min(int(u), width), min(int(v), height)
        place += y * stride + x
        fx, fy = u - x, v - y
    return place, stride, fx, fy


@inline
def _mix(texels, place, stride, shift, fx, fy):
    """Interpolate one channel of four texels, 0..1; `shift` is 8 times its number."""
    a, b = float((texels[place] >> shift) & 255), float((texels[place + 1] >> shift) & 255)
    c, d = float((texels[place + stride] >> shift) & 255), float((texels[place + stride + 1] >> shift) & 255)
    top, bottom = a + fx * (b - a), c + fx * (d - c)
    return (top + fy * (bottom - top)) * UNIT


@inline
def _level(materials, texture, rate):
    """Return the level whose texels are 1 to 2 of the distance, in texels of level 0, between two look-ups.

    Args:
        rate: square of the distance. It is that between samples of a pixel, so the level is rounded to the finer one.
    """
    level = 0
    last = materials.samplers[texture, LEVELS] - 1
    if rate >= 1.0:
        level = min((exponent(min(float(rate), 1e30)) - 1) >> 1, last)
    return level


# --- projection and clipping --------------------------------------------------------------------------


@kernel
def place_vertices(points, matrix, out):
    """Transform points float32 [N, 3] with matrix float64 [3, 4]."""
    for i in range(len(points)):
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        for j in range(3):
            out[i, j] = matrix[j, 0] * x + matrix[j, 1] * y + matrix[j, 2] * z + matrix[j, 3]


@kernel
def pack_vertices(positions, normals, texcoords, out):
    """Write the attributes that every fragment needs side by side: position, normal, u and v of the base colour."""
    for i in range(len(out)):
        for n in range(3):
            out[i, n] = positions[i, n]
            out[i, 3 + n] = normals[i, n]
        out[i, 6], out[i, 7] = texcoords[i, BASE_MAP, 0], texcoords[i, BASE_MAP, 1]


@kernel
def farthest(points, chosen):
    """Return the largest squared length of the chosen points."""
    largest = 0.0
    for i in chosen:
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        largest = max(largest, x * x + y * y + z * z)
    return largest


@helper
def _project(points, matrix, out):
    """Project world points with matrix float64 [3, 4] = K [R | t]; out: float32 [N, 4], x, y, 1 / w and w."""
    whole = len(points) - len(points) % LANES
    for i in range(0, whole, LANES):
        project_points(points, i, matrix, NO_DEPTH, out)
    for i in range(whole, len(points)):
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        if abs(w) < NO_DEPTH:
            w = NO_DEPTH
        q = 1.0 / w
        out[i, 0] = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]) * q
        out[i, 1] = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]) * q
        out[i, 2] = q
        out[i, 3] = w


@inline
def _crossing(screen, a, b, near):
    """Return x, y and 1 / w where the edge from a (visible) to b (not) crosses w = near.

    x w and y w are linear along the edge. Both triangles at an edge compute the same point.
    """
    wa, wb = float(screen[a, 3]), float(screen[b, 3])
    t = (near - wa) / (wb - wa)
    x = screen[a, 0] * wa * (1.0 - t) + screen[b, 0] * wb * t
    y = screen[a, 1] * wa * (1.0 - t) + screen[b, 1] * wb * t
    return x / near, y / near, 1.0 / near


@helper
def _clip(screen, a, b, c, near, polygon):
    """Clip a triangle at w = near; write up to four corners (x, y, 1 / w) and return their number."""
    count = 0
    for i in range(3):
        here = a if i == 0 else (b if i == 1 else c)
        there = b if i == 0 else (c if i == 1 else a)
        visible, next_visible = screen[here, 3] >= near, screen[there, 3] >= near
        if visible:
            polygon[count, 0], polygon[count, 1] = screen[here, 0], screen[here, 1]
            polygon[count, 2] = screen[here, 2]
            count += 1
        if visible != next_visible:
            first, second = (here, there) if visible else (there, here)
            x, y, q = _crossing(screen, first, second, near)
            polygon[count, 0], polygon[count, 1], polygon[count, 2] = x, y, q
            count += 1
    return count


@inline
def _worth_a_look(mesh, corners, first, near, width, height, margin):
    """Return the bits of those of 16 triangles that `_assemble` cannot surely leave out.

    Float32 is enough for most. A triangle is only left out if the error cannot change the decision, and if all of its
    corners are in front of the near plane. Comparisons with values that are not numbers are false: these are kept.

    Args:
        corners: x, y and w of the three corners, `exact` lanes.
    """
    x0, y0, w0, x1, y1, w1, x2, y2, w2 = corners
    front = minimum(minimum(w0, w1), w2) > np.float32(near) * np.float32(1.0001)
    # The back face: errors of 2^-24 in each of four differences, two products and the last difference.
    p, m = (x1 - x0) * (y2 - y0), (x2 - x0) * (y1 - y0)
    bound = (simd.absolute(p) + simd.absolute(m)) * np.float32(1e-6) + np.float32(1e-20)
    back = (p - m) * load_exact(mesh.culled_winding, first) > bound
    left, right = minimum(minimum(x0, x1), x2), maximum(maximum(x0, x1), x2)
    top, bottom = minimum(minimum(y0, y1), y2), maximum(maximum(y0, y1), y2)
    out_left, out_top = right <= ZERO, bottom <= ZERO
    out_right, out_bottom = left >= np.float32(width), top >= np.float32(height)
    left_out = mask_bits(back) | mask_bits(out_left) | mask_bits(out_top)
    left_out |= mask_bits(out_right) | mask_bits(out_bottom)
    last = min(first + LANES, len(mesh.kinds)) - 1
    if mesh.kinds[last] == SOLID:
        # Between samples: see `_assemble`. Below 4096 pixels, coordinates are rounded by less than 1 / 512.
        inset = np.float32(margin) - np.float32(1.0 / 512.0)
        near_by = (minimum(left, top) > np.float32(-4096.0)) & (maximum(right, bottom) < np.float32(4096.0))
        no_column = simd.floor(left + inset) >= simd.floor(right - inset) + ONE
        no_row = simd.floor(top + inset) >= simd.floor(bottom - inset) + ONE
        left_out |= mask_bits(near_by) & (mask_bits(no_column) | mask_bits(no_row))
    return 0xFFFF & ~np.int64(left_out & mask_bits(front))


@inline
def _finite(screen, i):
    return abs(screen[i, 0]) < 1e30 and abs(screen[i, 1]) < 1e30 and abs(screen[i, 3]) < 1e30


@helper
def _assemble(mesh, screen, near, width, height, margin, first_blended, records):
    """Cull and clip the triangles of a view into records.

    Args:
        margin: no sample is closer than this to the edge of its pixel, in pixels. Triangles between samples are left
            out. Those that are not solid keep the boxes of their pixels, from which the detail of their alpha is found.
        first_blended: the first triangle that is blended.
    Returns:
        The number of records, or minus the number required if there is not enough room; and the number of those of
        triangles before `first_blended`.
    """
    align_stack()
    room, boxes = len(records.points), records.lanes
    step = len(mesh.lanes) // 3
    count, solid = 0, -1
    for start in range(0, len(mesh.corners), LANES):
        x0, y0, _, w0 = transposed_short(screen, mesh.lanes, start)
        x1, y1, _, w1 = transposed_short(screen, mesh.lanes, step + start)
        x2, y2, _, w2 = transposed_short(screen, mesh.lanes, 2 * step + start)
        corners = (x0, y0, w0, x1, y1, w1, x2, y2, w2)
        remaining = _worth_a_look(mesh, corners, start, near, width, height, margin)
        if start <= first_blended < start + LANES:
            remaining |= 1 << (first_blended - start)
        if start + LANES > len(mesh.corners):
            remaining &= (1 << (len(mesh.corners) - start)) - 1
        if remaining == 0:
            continue
        one_kind = mesh.kinds[min(start + LANES, len(mesh.kinds)) - 1]
        inset = margin if one_kind == SOLID else 0.0
        usual, touched, positive = triangle_boxes(
            x0, y0, w0, x1, y1, w1, x2, y2, w2, near, inset, width, height, boxes
        )
        if (mesh.kinds[start] == SOLID) != (one_kind == SOLID):
            usual = 0  # boxes of both kinds
        while remaining:
            n = simd.lowest_bit(np.uint64(remaining))
            remaining &= remaining - 1
            f = start + n
            if f == first_blended:
                solid = count
            if (usual >> n) & 1 == 0:
                count = _assemble_one(mesh, screen, near, width, height, margin, records, f, count)
                continue
            if (touched >> n) & 1 == 0:
                continue
            clockwise = (positive >> n) & 1 != 0  # on screen, where y is down
            facing = 1 if clockwise != (mesh.winding[f] > 0) else -1
            records.facing[f] = facing
            if facing < 0 and mesh.culled[f]:
                continue
            if count < room:
                a = mesh.corners[f, 0]
                b, c = mesh.corners[f, 1 if clockwise else 2], mesh.corners[f, 2 if clockwise else 1]
                simd.store(records.points, 12 * count, load_quad(screen, 4 * np.int64(a)))
                simd.store(records.points, 12 * count + 4, load_quad(screen, 4 * np.int64(b)))
                simd.store(records.points, 12 * count + 8, load_quad(screen, 4 * np.int64(c)))
                for side in range(4):
                    simd.put(records.boxes, 4 * count + side, simd.get(boxes, LANES * side + n))
                simd.put(records.owners, count, np.uint32(f))
            count += 1
    return (count if count <= room else -count), (solid if solid >= 0 else count)


@helper
def _assemble_one(mesh, screen, near, width, height, margin, records, f, count):
    """Append the records of a triangle that may have to be clipped; return the new number of records."""
    room, polygon = len(records.points), records.polygon
    a, b, c = mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
    behind = (screen[a, 3] < near) + np.int64(screen[b, 3] < near) + np.int64(screen[c, 3] < near)
    if behind == 3 or not (_finite(screen, a) and _finite(screen, b) and _finite(screen, c)):
        return count
    x0, y0 = float(screen[a, 0]), float(screen[a, 1])
    area = (screen[b, 0] - x0) * (screen[c, 1] - y0) - (screen[c, 0] - x0) * (screen[b, 1] - y0)
    # The orientation in projective coordinates: corners behind the camera are mirrored on screen.
    if (screen[a, 3] < 0.0) != ((screen[b, 3] < 0.0) != (screen[c, 3] < 0.0)):
        area = -area
    if area == 0.0:
        return count
    facing = 1 if (area < 0.0) == (mesh.winding[f] > 0) else -1  # y is down: counter-clockwise has area < 0
    records.facing[f] = facing
    if facing < 0 and mesh.culled[f]:
        return count
    corners = 3
    if behind:
        corners = _clip(screen, a, b, c, near, polygon)
    else:
        for i in range(3):
            v = mesh.corners[f, i]
            polygon[i, 0], polygon[i, 1], polygon[i, 2] = screen[v, 0], screen[v, 1], screen[v, 2]
    for i in range(2, corners):
        j, k = (i - 1, i) if area > 0.0 else (i, i - 1)
        left = min(polygon[0, 0], polygon[j, 0], polygon[k, 0])
        right = max(polygon[0, 0], polygon[j, 0], polygon[k, 0])
        top = min(polygon[0, 1], polygon[j, 1], polygon[k, 1])
        bottom = max(polygon[0, 1], polygon[j, 1], polygon[k, 1])
        if not (right > 0.0 and bottom > 0.0 and left < width and top < height):
            continue
        if mesh.kinds[f] == SOLID:
            left, right = left + margin, right - margin
            top, bottom = top + margin, bottom - margin
        # Clamped before they become integers, whose range corners of clipped triangles may exceed.
        box = (
            np.int64(np.floor(max(left, 0.0))),
            np.int64(np.floor(max(top, 0.0))),
            np.int64(min(np.floor(right) + 1.0, float(width))),
            np.int64(min(np.floor(bottom) + 1.0, float(height))),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        if count < room:
            for n in range(3):
                records.points[count, n] = polygon[0, n]
                records.points[count, 4 + n] = polygon[j, n]
                records.points[count, 8 + n] = polygon[k, n]
            for n in range(4):
                records.boxes[count, n] = box[n]
            records.owners[count] = f
        count += 1
    return count


@inline
def _centroid_distance(mesh, f, eye, v):
    """Return the square of the distance from an eye to the centroid of a triangle."""
    total = 0.0
    for n in range(3):
        centre = 0.0
        for k in range(3):
            centre += mesh.positions[mesh.corners[f, k], n]
        total += (centre / 3.0 - eye[v, n]) * (centre / 3.0 - eye[v, n])
    return total


@helper
def _sort_far_to_near(mesh, eyes, v, records, first, count, lists):
    """Sort the records first .. count - 1 by the distance of their triangles, farthest first; equal ones stay in order.

    A radix sort of the bits of the distances, which are ordered like these, by digits of 11 bits. Returns the row of
    `lists.order` with the result.
    """
    number, order, keys, digits = count - first, lists.order, lists.keys, lists.digits
    digits[:] = 0
    low = np.uint64(_DIGITS - 1)
    for n in range(number):
        key = ~float_bits(_centroid_distance(mesh, np.int64(records.owners[first + n]), eyes, v))
        order[0, n], keys[0, n] = first + n, key
        for d in range(len(digits)):
            digits[d, np.int64((key >> np.uint64(_DIGIT * d)) & low)] += 1
    row = 0
    for d in range(len(digits)):
        shift, total, same = np.uint64(_DIGIT * d), 0, False
        for value in range(_DIGITS):
            of_value = digits[d, value]
            same = same or of_value == number
            digits[d, value] = total
            total += of_value
        if same:  # nothing to sort
            continue
        for n in range(number):
            key = keys[row, n]
            value = np.int64((key >> shift) & low)
            place = digits[d, value]
            digits[d, value] = place + 1
            order[1 - row, place], keys[1 - row, place] = order[row, n], key
        row = 1 - row
    return row


@inline
def _tiles_of(records, r, grid):
    boxes, across, down = records.boxes, grid.tile_shift_x, grid.tile_shift_y
    return boxes[r, 0] >> across, boxes[r, 1] >> down, (boxes[r, 2] - 1) >> across, (boxes[r, 3] - 1) >> down


@helper
def _bin_records(records, order, row, count, grid, columns, bins):
    """Sort records into tiles by counting.

    Args:
        order: uint32 [2, R]; `order[row, :count]` is the order of drawing; without a row (-1) that of the records.
        bins: output.
    Returns:
        The number of elements of `bins.records`; minus this number if there is not enough room.
    """
    starts, found, place = bins.starts, bins.records, bins.place
    starts[:] = 0
    for n in range(count):
        r = n if row < 0 else np.int64(order[row, n])
        left, top, right, bottom = _tiles_of(records, r, grid)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                starts[y * columns + x + 1] += 1
    for i in range(len(starts) - 1):
        starts[i + 1] += starts[i]
        place[i] = starts[i]
    total = starts[len(starts) - 1]
    if total > len(found):
        return -total
    for n in range(count):
        r = n if row < 0 else np.int64(order[row, n])
        left, top, right, bottom = _tiles_of(records, r, grid)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                found[place[y * columns + x]] = r
                place[y * columns + x] += 1
    return total


# --- interpolation -------------------------------------------------------------------------------------


@inline
def _weights(screen, i, j, k, x, y):
    """Return E_i q_i, E_j q_j and E_k q_k at a point of the screen."""
    xi, yi = screen[i, 0] - x, screen[i, 1] - y
    xj, yj = screen[j, 0] - x, screen[j, 1] - y
    xk, yk = screen[k, 0] - x, screen[k, 1] - y
    return (
        (xj * yk - xk * yj) * screen[i, 2],
        (xk * yi - xi * yk) * screen[j, 2],
        (xi * yj - xj * yi) * screen[k, 2],
    )


@inline
def _barycentric(screen, i, j, k, x, y):
    """Return b_i, b_j, b_k and 1 / sum of E q."""
    wi, wj, wk = _weights(screen, i, j, k, x, y)
    total = wi + wj + wk
    inverse = 1.0 / total if total != 0.0 else 0.0
    return wi * inverse, wj * inverse, wk * inverse, inverse


@inline
def _slopes(screen, i, j, k, inverse):
    """Return the derivatives of E q, divided by the sum of E q, with respect to x (three) and y (three)."""
    qi, qj, qk = screen[i, 2] * inverse, screen[j, 2] * inverse, screen[k, 2] * inverse
    xi, yi = float(screen[i, 0]), float(screen[i, 1])
    xj, yj = float(screen[j, 0]), float(screen[j, 1])
    xk, yk = float(screen[k, 0]), float(screen[k, 1])
    return (
        (yj - yk) * qi, (yk - yi) * qj, (yi - yj) * qk,
        (xk - xj) * qi, (xi - xk) * qj, (xj - xi) * qk,
    )  # fmt: skip


@inline
def _texcoord(mesh, slot, i, j, k, b, s):
    """Return u, v at barycentric coordinates b, and their derivatives du/dx, dv/dx, du/dy, dv/dy."""
    t = mesh.texcoords
    ui, uj, uk = float(t[i, slot, 0]), float(t[j, slot, 0]), float(t[k, slot, 0])
    vi, vj, vk = float(t[i, slot, 1]), float(t[j, slot, 1]), float(t[k, slot, 1])
    u = ui * b[0] + uj * b[1] + uk * b[2]
    v = vi * b[0] + vj * b[1] + vk * b[2]
    ux = ui * s[0] + uj * s[1] + uk * s[2] - u * (s[0] + s[1] + s[2])
    vx = vi * s[0] + vj * s[1] + vk * s[2] - v * (s[0] + s[1] + s[2])
    uy = ui * s[3] + uj * s[4] + uk * s[5] - u * (s[3] + s[4] + s[5])
    vy = vi * s[3] + vj * s[4] + vk * s[5] - v * (s[3] + s[4] + s[5])
    return u, v, ux, vx, uy, vy


@inline
def _rate(materials, texture, d):
    """Return the square of the larger distance, in texels, that the texture coordinates move per pixel in x or y."""
    width, height = materials.samplers[texture, WIDTH], materials.samplers[texture, HEIGHT]
    along_x = (d[0] * width) * (d[0] * width) + (d[1] * height) * (d[1] * height)
    along_y = (d[2] * width) * (d[2] * width) + (d[3] * height) * (d[3] * height)
    return max(along_x, along_y)


@helper
def _read(mesh, materials, texture, slot, i, j, k, b, s):
    """Look up RGB of the texture of a slot once; the level is the nearest or the next finer one."""
    u, v, ux, vx, uy, vy = _texcoord(mesh, slot, i, j, k, b, s)
    level = _level(materials, texture, _rate(materials, texture, (ux, vx, uy, vy)))
    place, stride, fx, fy = _locate(materials, texture, level, u, v)
    texels = materials.texels
    return (
        _mix(texels, place, stride, 0, fx, fy),
        _mix(texels, place, stride, 8, fx, fy),
        _mix(texels, place, stride, 16, fx, fy),
    )


@helper
def _normal(mesh, materials, facing, f, b, s):
    """Return the shading normal, of any length, towards the visible side of double-sided materials."""
    m, winding = mesh.materials[f], mesh.winding[f]
    i, j, k = mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
    normals = mesh.normals
    nx = normals[i, 0] * b[0] + normals[j, 0] * b[1] + normals[k, 0] * b[2]
    ny = normals[i, 1] * b[0] + normals[j, 1] * b[1] + normals[k, 1] * b[2]
    nz = normals[i, 2] * b[0] + normals[j, 2] * b[1] + normals[k, 2] * b[2]
    texture = materials.textures[m, NORMAL_MAP]
    if texture >= 0:
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length > 0.0:
            nx, ny, nz = nx / length, ny / length, nz / length
        # Cotangent frame (Schueler 2013) of the parametrisation of the triangle by two edges p and q, oriented as on
        # screen: needs no TANGENT attribute and follows the deformation.
        points, t = mesh.positions, mesh.texcoords
        sign = float(facing * winding)
        px = float(points[j, 0]) - points[i, 0]
        py = float(points[j, 1]) - points[i, 1]
        pz = float(points[j, 2]) - points[i, 2]
        qx = float(points[k, 0]) - points[i, 0]
        qy = float(points[k, 1]) - points[i, 1]
        qz = float(points[k, 2]) - points[i, 2]
        up = sign * (float(t[j, NORMAL_MAP, 0]) - t[i, NORMAL_MAP, 0])
        vp = sign * (float(t[j, NORMAL_MAP, 1]) - t[i, NORMAL_MAP, 1])
        uq = sign * (float(t[k, NORMAL_MAP, 0]) - t[i, NORMAL_MAP, 0])
        vq = sign * (float(t[k, NORMAL_MAP, 1]) - t[i, NORMAL_MAP, 1])
        # a = q x n, c = n x p: tangent = a u_p + c u_q, bitangent = a v_p + c v_q.
        ax, ay, az = qy * nz - qz * ny, qz * nx - qx * nz, qx * ny - qy * nx
        cx, cy, cz = ny * pz - nz * py, nz * px - nx * pz, nx * py - ny * px
        tx, ty, tz = ax * up + cx * uq, ay * up + cy * uq, az * up + cz * uq
        bx, by, bz = ax * vp + cx * vq, ay * vp + cy * vq, az * vp + cz * vq
        size = max(tx * tx + ty * ty + tz * tz, bx * bx + by * by + bz * bz)
        if size > 0.0:
            red, green, blue = _read(mesh, materials, texture, NORMAL_MAP, i, j, k, b, s)
            scale = materials.factors[m, NORMAL_SCALE] / math.sqrt(size)
            lx, ly, lz = (2.0 * red - 1.0) * scale, (2.0 * green - 1.0) * scale, 2.0 * blue - 1.0
            # In glTF v points down in the image, so the bitangent is -dv.
            nx, ny, nz = (
                tx * lx - bx * ly + nx * lz,
                ty * lx - by * ly + ny * lz,
                tz * lx - bz * ly + nz * lz,
            )
    if facing < 0 and materials.flags[m, DOUBLE_SIDED]:
        nx, ny, nz = -nx, -ny, -nz
    return nx, ny, nz


# --- rasterisation ------------------------------------------------------------------------------------


@inline
def _edge(points, r, j, k, tile_x, tile_y):
    """Return A, B and the value at the corner of the tile of the edge from j to k, and what samples must exceed."""
    xj, yj = float(points[r, 4 * j]), float(points[r, 4 * j + 1])
    xk, yk = float(points[r, 4 * k]), float(points[r, 4 * k + 1])
    a, b = yj - yk, xk - xj
    c = -0.5 * (a * (xj + xk) + b * (yj + yk))
    least = TINY if a > 0.0 or (a == 0.0 and b > 0.0) else np.float32(0.0)
    return a, b, a * tile_x + (b * tile_y + c), least


@inline
def _alpha_planes(mesh, materials, screen, f, x, y, planes):
    """Write 1 / w, u / w, v / w and vertex alpha / w of a triangle as planes [4, 3]: value at (x, y), slopes.

    Returns its texture.
    """
    i, j, k = mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
    xi, yi = float(screen[i, 0]), float(screen[i, 1])
    xj, yj = float(screen[j, 0]), float(screen[j, 1])
    xk, yk = float(screen[k, 0]), float(screen[k, 1])
    area = (xj - xi) * (yk - yi) - (xk - xi) * (yj - yi)
    inverse = 1.0 / area if area != 0.0 else 0.0
    t = mesh.texcoords
    for n in range(4):
        vi, vj, vk = 1.0, 1.0, 1.0
        if n == 1 or n == 2:
            vi, vj, vk = (
                float(t[i, BASE_MAP, n - 1]),
                float(t[j, BASE_MAP, n - 1]),
                float(t[k, BASE_MAP, n - 1]),
            )
        elif n == 3 and len(mesh.colors) > 0:
            vi, vj, vk = float(mesh.colors[i, 3]), float(mesh.colors[j, 3]), float(mesh.colors[k, 3])
        vi, vj, vk = vi * screen[i, 2], vj * screen[j, 2], vk * screen[k, 2]
        slope_x = ((yj - yk) * vi + (yk - yi) * vj + (yi - yj) * vk) * inverse
        slope_y = ((xk - xj) * vi + (xi - xk) * vj + (xj - xi) * vk) * inverse
        planes[n, 1], planes[n, 2] = slope_x, slope_y
        planes[n, 0] = vi + slope_x * (x - xi) + slope_y * (y - yi)
    return materials.textures[mesh.materials[f], BASE_MAP]


@helper
def _flush(mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, count, layered, blending):
    """Shade fragments and add them: to the sums of their pixels, or if `layered` to the colours of their samples.

    With `blending`, those of blended materials are translucent (`work.alphas`).
    """
    triangles, coverage = work.triangles, work.coverage
    sorted_by_material = _sort_by_material(mesh, materials, grid, work, count)
    if sorted_by_material:
        triangles, coverage = work.sorted_triangles, work.sorted_coverage
    _load_corners(mesh, grid, tile_x, tile_y, work, triangles, coverage, count)
    light.interpolate(
        work.rows, work.corners, mesh.vertices, mesh.colors, screen,
        np.float32(eye[0]), np.float32(eye[1]), np.float32(eye[2]), len(materials.texels) > 1, count,
    )  # fmt: skip
    _gather(mesh, materials, records, grid, work, triangles, coverage, count)
    light.shade(work.rows, count)
    rows, samples = work.rows, grid.samples
    for n in range(count):
        slot = np.int64(work.slots[n]) if sorted_by_material else n
        color = load_quad(rows, ENCODED * STRIDE + 4 * slot)
        mask, p = np.int64(work.coverage[n]) & 0xFFFF, np.int64(work.coverage[n]) >> PIXEL_SHIFT
        if not layered:
            simd.store(work.sums, 4 * p, load_quad(work.sums, 4 * p) + color * count_bits(mask))
            continue
        translucent = blending and mesh.kinds[work.triangles[n]] == BLEND
        if samples == 4:
            alphas = make_quad(ONE, ONE, ONE, ONE)
            if translucent:
                alphas = load_quad(work.alphas, LANES * n)
            blend_four(work.colors, 16 * p, color, alphas, mask)
            continue
        for s in range(samples):
            if (mask >> s) & 1:
                place = 4 * (p * samples + s)
                blended = color
                if translucent:
                    alpha = work.alphas[n, s]
                    blended = color * alpha + load_quad(work.colors, place) * (ONE - alpha)
                simd.store(work.colors, place, blended)


@helper
def _sort_by_material(mesh, materials, grid, work, count):
    """Sort fragments so that most groups of 16 have one material; return False if there is nothing to sort.

    Without textures, several materials in a group cost less than sorting.
    Those of materials whose textures are looked up once per sample are sorted by the covered samples, too: samples that
    no fragment of a group has are not looked up.
    """
    tally, coverage, samples = work.tally, work.coverage, grid.samples
    if len(tally) <= 2 or len(materials.texels) <= 1 or count == 0:
        return False
    m, same = mesh.materials[work.triangles[0]], 1
    while same < count and mesh.materials[work.triangles[same]] == m:
        same += 1
    if same == count and (samples != 4 or materials.flags[m, WEIGHTED] == 0):
        return False
    tally[:] = 0
    for n in range(count):
        tally[_order_of_shading(mesh, materials, grid, work.triangles[n], coverage[n]) + 1] += 1
    if tally[_order_of_shading(mesh, materials, grid, work.triangles[0], coverage[0]) + 1] == count:
        return False
    for m in range(1, len(tally)):
        tally[m] += tally[m - 1]
    for n in range(count):
        f = work.triangles[n]
        m = _order_of_shading(mesh, materials, grid, f, coverage[n])
        slot = tally[m]
        tally[m] = slot + 1
        work.slots[n] = slot
        work.sorted_triangles[slot], work.sorted_coverage[slot] = f, coverage[n]
    return True


@inline
def _order_of_shading(mesh, materials, grid, f, coverage):
    """Return the number that a fragment is sorted by, see `layout.ORDER`."""
    m = np.int64(mesh.materials[f])
    number = np.int64(materials.flags[m, ORDER])
    if grid.samples == 4 and materials.flags[m, WEIGHTED]:
        number += np.int64(coverage) & 0xFFFF
    return number


@inline
def _load_corners(mesh, grid, tile_x, tile_y, work, triangles, coverage, count):
    """Write the vertices, materials and places of fragments, the inputs of `light.interpolate`."""
    rows, samples = work.rows, grid.samples
    if samples == 4:
        zero, one = broadcast_exact(ZERO), broadcast_exact(ONE)
        for k in range(0, count, LANES):
            x, y, number = zero, zero, zero
            for s in range(4):
                has = bit_set(coverage, k, s)
                x = x + select(has, broadcast_exact(grid.inside[s, 0]), zero)
                y = y + select(has, broadcast_exact(grid.inside[s, 1]), zero)
                number = number + select(has, one, zero)
            number = maximum(number, one)  # of the fragments that complete the last 16
            simd.store(rows, AT * STRIDE + k, x / number)
            simd.store(rows, (AT + 1) * STRIDE + k, y / number)
    elif samples == 1:
        half = broadcast_exact(np.float32(0.5))
        for k in range(0, count, LANES):
            simd.store(rows, AT * STRIDE + k, half)
            simd.store(rows, (AT + 1) * STRIDE + k, half)
    else:
        for n in range(count):
            mask, at_x, at_y = np.int64(coverage[n]) & 0xFFFF, np.float32(0.5), np.float32(0.5)
            if mask != (1 << samples) - 1:
                at_x, at_y = np.float32(0.0), np.float32(0.0)
                for s in range(samples):
                    if (mask >> s) & 1:
                        at_x += grid.inside[s, 0]
                        at_y += grid.inside[s, 1]
                number = count_bits(mask)
                at_x, at_y = at_x / number, at_y / number
            rows[AT * STRIDE + n], rows[(AT + 1) * STRIDE + n] = at_x, at_y
    left, top = np.float32(tile_x), np.float32(tile_y)
    for k in range(0, count, LANES):
        x, y = pixel_places(coverage, k, grid.block_shift, grid.tile_shift_x - grid.block_shift)
        simd.store(rows, PIXEL * STRIDE + k, x + left + load_exact(rows, AT * STRIDE + k))
        simd.store(rows, (PIXEL + 1) * STRIDE + k, y + top + load_exact(rows, (AT + 1) * STRIDE + k))
        first, second, third, material = transposed_short(mesh.corners, triangles, k)
        simd.store(work.corners, k, first)
        simd.store(work.corners, STRIDE + k, second)
        simd.store(work.corners, 2 * STRIDE + k, third)
        simd.store(work.materials, k, material)


@inline
def _row(rows, first, n):
    """Return three consecutive rows of fragment n."""
    return rows[first * STRIDE + n], rows[(first + 1) * STRIDE + n], rows[(first + 2) * STRIDE + n]


@inline
def _put(rows, first, n, a, b, c):
    """Store three consecutive rows of fragment n."""
    rows[first * STRIDE + n], rows[(first + 1) * STRIDE + n], rows[(first + 2) * STRIDE + n] = a, b, c


@helper
def _add_details(mesh, materials, facing, f, rows, n):
    """Apply the maps of normals, metallic, roughness and occlusion to fragment n."""
    m = mesh.materials[f]
    i, j, k = mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
    b0, b1, b2 = _row(rows, WEIGHTS, n)
    b = (float(b0), float(b1), float(b2))
    x0, x1, x2 = _row(rows, SLOPES, n)
    y0, y1, y2 = _row(rows, SLOPES + 3, n)
    s = (float(x0), float(x1), float(x2), float(y0), float(y1), float(y2))
    if materials.textures[m, NORMAL_MAP] >= 0:
        nx, ny, nz = _normal(mesh, materials, facing, f, b, s)
        _put(rows, NORMAL, n, nx, ny, nz)
    texture = materials.textures[m, METALLIC_ROUGHNESS_MAP]
    if texture >= 0:
        _, green, blue = _read(mesh, materials, texture, METALLIC_ROUGHNESS_MAP, i, j, k, b, s)
        rows[ROUGHNESS_ROW * STRIDE + n] *= np.float32(green)
        rows[METALLIC_ROW * STRIDE + n] *= np.float32(blue)
    texture = materials.textures[m, OCCLUSION_MAP]
    if texture >= 0:
        red, _, _ = _read(mesh, materials, texture, OCCLUSION_MAP, i, j, k, b, s)
        rows[OCCLUSION_ROW * STRIDE + n] = 1.0 + materials.factors[m, OCCLUSION] * (red - 1.0)


@helper
def _gather(mesh, materials, records, grid, work, triangles, coverage, count):
    """Look up the textures of fragments and complete the inputs of `light.shade`, 16 at a time by material."""
    for k in range(0, count, LANES):
        remaining = (1 << min(count - k, LANES)) - 1
        while remaining:
            m = work.materials[k + simd.lowest_bit(np.uint64(remaining))]
            bits = remaining & matches(work.materials, k, np.int32(m))
            remaining &= ~bits
            _apply_material(mesh, materials, records, grid, work, triangles, coverage, k, bits, m)


@inline
def _put_lanes(rows, first, k, chosen, a, b, c):
    """Store three rows of the chosen ones of fragments k..k + 15."""
    place = first * STRIDE + k
    simd.store(rows, place, select(chosen, a, load_exact(rows, place)))
    place += STRIDE
    simd.store(rows, place, select(chosen, b, load_exact(rows, place)))
    place += STRIDE
    simd.store(rows, place, select(chosen, c, load_exact(rows, place)))


@inline
def _apply_material(mesh, materials, records, grid, work, triangles, coverage, k, bits, m):
    """Complete the inputs of `light.shade` for those of fragments k..k + 15 in `bits`, which have material m."""
    rows, factors, flags = work.rows, materials.factors, materials.flags
    chosen = bits_to_mask(bits)
    red = broadcast_exact(factors[m, BASE])
    green, blue = broadcast_exact(factors[m, BASE + 1]), broadcast_exact(factors[m, BASE + 2])
    if len(mesh.colors) > 0:
        place = BASE_ROW * STRIDE + k
        red = red * load_exact(rows, place)
        green = green * load_exact(rows, place + STRIDE)
        blue = blue * load_exact(rows, place + 2 * STRIDE)
    _put_lanes(rows, BASE_ROW, k, chosen, red, green, blue)
    red = broadcast_exact(factors[m, EMISSIVE])
    green, blue = broadcast_exact(factors[m, EMISSIVE + 1]), broadcast_exact(factors[m, EMISSIVE + 2])
    _put_lanes(rows, EMISSION, k, chosen, red, green, blue)
    for slot in (BASE_MAP, EMISSIVE_MAP):
        texture = materials.textures[m, slot]
        if texture >= 0:
            if slot != BASE_MAP and flags[m, ALIKE] == 0:
                for n in range(LANES):
                    if (bits >> n) & 1:
                        u, v, ux, vx, uy, vy = _other_texcoord(mesh, triangles[k + n], slot, rows, k + n)
                        _put(rows, TEXCOORD, k + n, u, v, ux)
                        _put(rows, TEXCOORD + 3, k + n, vx, uy, vy)
            row = BASE_ROW if slot == BASE_MAP else EMISSION
            edged = flags[m, WEIGHTED] != 0
            weighted = edged and slot == BASE_MAP
            _multiply_texture(materials, grid, work, coverage, k, bits, texture, row, edged, weighted)
    zero, one = broadcast_exact(ZERO), broadcast_exact(ONE)
    if flags[m, UNLIT]:
        _put_lanes(rows, NORMAL, k, chosen, zero, zero, one)
        _put_lanes(rows, EYE, k, chosen, zero, zero, one)
        _put_lanes(rows, METALLIC_ROW, k, chosen, zero, one, zero)  # metallic, roughness, occlusion
        place = BASE_ROW * STRIDE + k
        red, green = load_exact(rows, place), load_exact(rows, place + STRIDE)
        _put_lanes(rows, EMISSION, k, chosen, red, green, load_exact(rows, place + 2 * STRIDE))
    else:
        metallic, roughness = broadcast_exact(factors[m, METALLIC]), broadcast_exact(factors[m, ROUGHNESS])
        _put_lanes(rows, METALLIC_ROW, k, chosen, metallic, roughness, one)
        if flags[m, DETAILED]:
            for n in range(LANES):
                if (bits >> n) & 1:
                    f = triangles[k + n]
                    _add_details(mesh, materials, records.facing[f], f, rows, k + n)
        if flags[m, DOUBLE_SIDED] and materials.textures[m, NORMAL_MAP] < 0:  # else done
            backs = 0
            for n in range(LANES):
                backs |= np.int64(records.facing[triangles[k + n]] < 0) << n
            if backs & bits:
                place = NORMAL * STRIDE + k
                nx, ny = load_exact(rows, place), load_exact(rows, place + STRIDE)
                nz = load_exact(rows, place + 2 * STRIDE)
                _put_lanes(rows, NORMAL, k, bits_to_mask(backs & bits), -nx, -ny, -nz)


@inline
def _multiply_texture(materials, grid, work, coverage, k, bits, texture, row, edged, weighted):
    """Multiply three rows of those of fragments k..k + 15 in `bits` with the linear colour of a texture.

    The mean of encoded colours over the footprint of the pixel, a parallelogram with the sides a = d(u, v) / dX and
    b = d(u, v) / dY in texels of level 0. Its second moments are the matrix a aᵀ + b bᵀ (up to a factor), with
    eigenvalues l1 >= l2: 1 to 4 look-ups are made along the longer axis, of length sqrt(l1), at the level of their
    distance.

    Args:
        edged: the surface has edges of transparency: the texture is looked up once for each sample of the fragment.
        weighted: the look-ups are weighted by alpha.
    """
    rows, samplers, samples = work.rows, materials.samplers, grid.samples
    place = TEXCOORD * STRIDE + k
    u, v = load_exact(rows, place), load_exact(rows, place + STRIDE)
    ux, vx = load_exact(rows, place + 2 * STRIDE), load_exact(rows, place + 3 * STRIDE)
    uy, vy = load_exact(rows, place + 4 * STRIDE), load_exact(rows, place + 5 * STRIDE)
    zero, one, tiny = broadcast_exact(ZERO), broadcast_exact(ONE), broadcast_exact(np.float32(1e-30))
    width, height = samplers[texture, WIDTH], samplers[texture, HEIGHT]
    across, down = np.float32(width), np.float32(height)
    nearest = samplers[texture, NEAREST] != 0
    by_sample = nearest or edged or grid.filter[5] != ZERO  # the edges of nearest texels are sharp, too
    most = broadcast_exact(np.float32(1e30))
    ax, ay, bx, by = ux * across, vx * down, uy * across, vy * down
    xx, xy, yy = ax * ax + bx * bx, ax * ay + bx * by, ay * ay + by * by
    difference = xx - yy
    root = simd.sqrt(difference * difference + xy * xy * np.float32(4.0))
    long = maximum(minimum((xx + yy + root) * np.float32(0.5), most), tiny)
    short = maximum(minimum((xx + yy - root) * np.float32(0.5), most), tiny)
    # The eigenvector of l1: (l1 - yy, xy) or (xy, l1 - xx), whichever has the larger first element.
    wide = difference >= ZERO
    axis_x = select(wide, difference + root, xy * np.float32(2.0))
    axis_y = select(wide, xy * np.float32(2.0), root - difference)
    scale = simd.sqrt(long / maximum(axis_x * axis_x + axis_y * axis_y, tiny))
    axis_x, axis_y = axis_x * scale * (ONE / across), axis_y * scale * (ONE / down)
    # Squares of encoded values are nearly linear light.
    squared = long <= (np.float32(3e30) if by_sample else grid.filter[0])
    taps = select(long > short * grid.filter[2], one + ONE, one)
    taps = select(long > short * grid.filter[3], one + np.float32(2.0), taps)
    taps = select(long > short * grid.filter[4], one + np.float32(3.0), taps)
    taps = select(squared, one, taps)
    length = maximum(short, long / (taps * taps)) * grid.filter[1]
    number = 4
    if by_sample:
        length, number = maximum(ax * ax + ay * ay, bx * bx + by * by) / np.float32(samples), samples
    level = simd.floor(exponents(maximum(length, tiny)) * np.float32(0.5))
    last = broadcast_exact(np.float32(samplers[texture, LEVELS] - 1))
    level = minimum(maximum(level, zero), last)
    start, columns, lines = texture_levels(
        samplers, texture * samplers.shape[1] + OFFSETS, width, height, level
    )
    step = one / taps
    red, green, blue, total = zero, zero, zero, zero
    some_squared = np.int64(mask_bits(squared)) & bits != 0
    for t in range(number):
        if by_sample:
            dx = grid.inside[t, 0] - load_exact(rows, AT * STRIDE + k)
            dy = grid.inside[t, 1] - load_exact(rows, (AT + 1) * STRIDE + k)
            tap_u, tap_v = u + ux * dx + uy * dy, v + vx * dx + vy * dy
            active = bit_set(coverage, k, t)
            if np.int64(mask_bits(active)) & bits == 0:
                continue
        else:
            active = taps > np.float32(t)
            if np.int64(mask_bits(active)) & bits == 0:
                break
            offset = (step * (np.float32(t) + np.float32(0.5))) - np.float32(0.5)
            tap_u, tap_v = u + axis_x * offset, v + axis_y * offset
        tap_u = _fold_lanes(tap_u, samplers[texture, WRAP_S])
        tap_v = _fold_lanes(tap_v, samplers[texture, WRAP_T])
        weight = one
        if by_sample:
            r, g, b, a = bilinear_linear(materials.texels, start, columns, lines, tap_u, tap_v, nearest)
            if weighted:
                weight = a + np.float32(1e-3)
        elif some_squared:
            r, g, b = bilinear(materials.texels, start, columns, lines, tap_u, tap_v, nearest, squared)
        else:
            r, g, b = bilinear_encoded(materials.texels, start, columns, lines, tap_u, tap_v, nearest)
        weight = select(active, weight, zero)
        total = total + weight
        red, green, blue = red + r * weight, green + g * weight, blue + b * weight
    scale = np.float32(UNIT) / maximum(total, tiny)
    place = row * STRIDE + k
    _put_lanes(
        rows, row, k, bits_to_mask(bits),
        light.decode(red * scale) * load_exact(rows, place),
        light.decode(green * scale) * load_exact(rows, place + STRIDE),
        light.decode(blue * scale) * load_exact(rows, place + 2 * STRIDE),
    )  # fmt: skip


@helper
def _other_texcoord(mesh, f, slot, rows, n):
    """Return u, v and their derivatives (`_texcoord`) of another slot than the base colour for fragment n."""
    b0, b1, b2 = _row(rows, WEIGHTS, n)
    x0, x1, x2 = _row(rows, SLOPES, n)
    y0, y1, y2 = _row(rows, SLOPES + 3, n)
    t, i, j, k = mesh.texcoords, mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
    ui, uj, uk = t[i, slot, 0], t[j, slot, 0], t[k, slot, 0]
    vi, vj, vk = t[i, slot, 1], t[j, slot, 1], t[k, slot, 1]
    u, v = ui * b0 + uj * b1 + uk * b2, vi * b0 + vj * b1 + vk * b2
    return (
        u,
        v,
        (ui - u) * x0 + (uj - u) * x1 + (uk - u) * x2,
        (vi - v) * x0 + (vj - v) * x1 + (vk - v) * x2,
        (ui - u) * y0 + (uj - u) * y1 + (uk - u) * y2,
        (vi - v) * y0 + (vj - v) * y1 + (vk - v) * y2,
    )


@inline
def _set_up(records, r, grid, tile_x, tile_y):
    """Prepare a record for a tile.

    Returns (slope in x, slope in y, value at the corner of the tile) of the three edges and of 1 / w, float32; their
    values at the 16 samples of a block without that at its corner; what samples must exceed; and the bounds of 1 / w.
    """
    points, one = records.points, np.float32
    a0, b0, c0, t0 = _edge(points, r, 1, 2, tile_x, tile_y)
    a1, b1, c1, t1 = _edge(points, r, 2, 0, tile_x, tile_y)
    a2, b2, c2, t2 = _edge(points, r, 0, 1, tile_x, tile_y)
    x0, y0 = float(points[r, 0]), float(points[r, 1])
    q0, q1, q2 = points[r, 2], points[r, 6], points[r, 10]
    inverse = 1.0 / ((points[r, 4] - x0) * (points[r, 9] - y0) - (points[r, 8] - x0) * (points[r, 5] - y0))
    a3 = (a0 * q0 + a1 * q1 + a2 * q2) * inverse
    b3 = (b0 * q0 + b1 * q1 + b2 * q2) * inverse
    c3 = q0 + a3 * (tile_x - x0) + b3 * (tile_y - y0)
    e = (
        (one(a0), one(b0), one(c0)),
        (one(a1), one(b1), one(c1)),
        (one(a2), one(b2), one(c2)),
        (one(a3), one(b3), one(c3)),
    )
    return e, _rest(grid, e), (t0, t1, t2), min(q0, q1, q2), max(q0, q1, q2)


@inline
def _rest(grid, e):
    """Return the values of planes at the 16 samples of a block without those at its corner."""
    x, y = load_exact(grid.offsets, 0), load_exact(grid.offsets, LANES)
    return (
        x * e[0][0] + y * e[0][1],
        x * e[1][0] + y * e[1][1],
        x * e[2][0] + y * e[2][1],
        x * e[3][0] + y * e[3][1],
    )


@inline
def _set_up_before(grid, work, n):
    """As `_set_up`, of record n of those that `set_up_triangles` prepared."""
    p = work.prepared
    e = (
        (p[n], p[16 + n], p[32 + n]),
        (p[48 + n], p[64 + n], p[80 + n]),
        (p[96 + n], p[112 + n], p[128 + n]),
        (p[144 + n], p[160 + n], p[176 + n]),
    )
    return e, _rest(grid, e), (p[192 + n], p[208 + n], p[224 + n]), p[240 + n], p[256 + n]


@inline
def _test(e, rest, least, low, high, x, y):
    """Return which of the 16 samples of a block a triangle covers, and its 1 / w at all of them; see `_set_up`."""
    inside = (rest[0] + _at(e[0], x, y) > least[0]) & (rest[1] + _at(e[1], x, y) > least[1])
    inside = inside & (rest[2] + _at(e[2], x, y) > least[2])
    depth = maximum(rest[3] + _at(e[3], x, y), broadcast_exact(low))
    return inside, minimum(depth, broadcast_exact(high))


@inline
def _blocks(records, r, grid, tile_x, tile_y):
    """Return the first and last column and row of blocks that a record touches in a tile, and sizes of blocks."""
    shift, boxes = grid.block_shift, records.boxes
    left = max(boxes[r, 0] - tile_x, 0) >> shift
    top = max(boxes[r, 1] - tile_y, 0) >> shift
    right = (min(boxes[r, 2] - tile_x, grid.tile_width) - 1) >> shift
    bottom = (min(boxes[r, 3] - tile_y, grid.tile_height) - 1) >> shift
    return left, top, right, bottom, grid.tile_width >> shift, grid.block_width, grid.block_height


@inline
def _at(plane, x, y):
    """Return the value of a plane (slopes and value at the corner of the tile) at a block."""
    return plane[0] * x + (plane[1] * y + plane[2])


@inline
def _touched(e, rest, least, first, right, y, bw):
    """Return the bits of those of the 16 blocks of a row from `first` to `right` that a triangle may touch.

    Rounding is monotonic: if the largest of the 16 values of an edge is not inside, none is.
    """
    x = lane_numbers() * np.float32(bw) + np.float32(first * bw)
    at0 = x * e[0][0] + (e[0][1] * y + e[0][2])
    at1 = x * e[1][0] + (e[1][1] * y + e[1][2])
    at2 = x * e[2][0] + (e[2][1] * y + e[2][2])
    above0, above1, above2 = largest(rest[0]), largest(rest[1]), largest(rest[2])
    touched = (at0 + above0 > least[0]) & (at1 + above1 > least[1]) & (at2 + above2 > least[2])
    return np.int64(mask_bits(touched)) & ((1 << min(right + 1 - first, LANES)) - 1)


@inline
def _draw_wide(e, rest, least, low, high, left, top, right, bottom, across, bw, bh, work, f):
    """Draw a solid record that is several blocks wide.

    Rounding is monotonic: if the largest of the 16 values of an edge is not inside, none is, and if the smallest is
    inside, all are. Blocks are first classified so, 16 at a time, and most are outside or inside.
    """
    above0, above1, above2 = largest(rest[0]), largest(rest[1]), largest(rest[2])
    below0, below1, below2 = smallest(rest[0]), smallest(rest[1]), smallest(rest[2])
    lowest, highest = broadcast_exact(low), broadcast_exact(high)
    for by in range(top, bottom + 1):
        y = np.float32(by * bh)
        for first in range(left, right + 1, LANES):
            x = lane_numbers() * np.float32(bw) + np.float32(first * bw)
            at0 = x * e[0][0] + (e[0][1] * y + e[0][2])
            at1 = x * e[1][0] + (e[1][1] * y + e[1][2])
            at2 = x * e[2][0] + (e[2][1] * y + e[2][2])
            touched = (at0 + above0 > least[0]) & (at1 + above1 > least[1]) & (at2 + above2 > least[2])
            remaining = np.int64(mask_bits(touched)) & ((1 << min(right + 1 - first, LANES)) - 1)
            whole = (at0 + below0 > least[0]) & (at1 + below1 > least[1]) & (at2 + below2 > least[2])
            filled = np.int64(mask_bits(whole))
            while remaining:
                n = simd.lowest_bit(np.uint64(remaining))
                remaining &= remaining - 1
                place, block_x = (by * across + first + n) * LANES, np.float32((first + n) * bw)
                if (filled >> n) & 1:
                    depth = maximum(rest[3] + _at(e[3], block_x, y), lowest)
                    deposit_all(work.depths, work.ids, place, minimum(depth, highest), np.int32(f))
                else:
                    inside, depth = _test(e, rest, least, low, high, block_x, y)
                    deposit(work.depths, work.ids, place, inside, depth, np.int32(f))


@inline
def _draw_record(
    mesh, materials, screen, records, n, grid, tile_x, tile_y, work, blend_threshold, planes, layers
):
    """Draw the opaque samples of record n of `work.batch` to the depths and ids of a tile.

    Translucent samples of blended records are remembered for `_draw_translucent`, if `layers`, the number of blocks
    that are remembered, is not negative. Returns the new number.
    """
    r = np.int64(work.batch[n])
    f = records.owners[r]
    e, rest, least, low, high = _set_up_before(grid, work, n)
    left, top, right, bottom, across, bw, bh = _blocks(records, r, grid, tile_x, tile_y)
    kind = mesh.kinds[f]
    if kind == SOLID and right - left >= 3:
        _draw_wide(e, rest, least, low, high, left, top, right, bottom, across, bw, bh, work, f)
    elif kind == SOLID:
        for by in range(top, bottom + 1):
            y = np.float32(by * bh)
            for bx in range(left, right + 1):
                x = np.float32(bx * bw)
                inside, depth = _test(e, rest, least, low, high, x, y)
                deposit(work.depths, work.ids, (by * across + bx) * LANES, inside, depth, np.int32(f))
    else:
        m = mesh.materials[f]
        threshold = materials.factors[m, CUTOFF] if kind == MASK else np.float32(blend_threshold)
        prepared = False  # small triangles often cover no sample, or none that can be seen
        texture, level, origin_x, origin_y = -1, 0, np.float32(0.0), np.float32(0.0)
        remembered = kind == BLEND and layers >= 0
        nearer = np.int32(0 if remembered else 1)  # translucent samples may be as far as what is there
        start, complete = layers, remembered
        for by in range(top, bottom + 1):
            y = np.float32(by * bh)
            for first in range(left, right + 1, LANES):
                remaining = _touched(e, rest, least, first, right, y, bw)
                while remaining:
                    bx = first + simd.lowest_bit(np.uint64(remaining))
                    remaining &= remaining - 1
                    x = np.float32(bx * bw)
                    place = (by * across + bx) * LANES
                    inside, depth = _test(e, rest, least, low, high, x, y)
                    found = candidates(work.depths, place, inside, depth, nearer, work.found)
                    if found:
                        if not prepared:
                            texture, level, origin_x, origin_y = _prepare_alpha(
                                mesh, materials, screen, records, r, grid, tile_x, tile_y, planes
                            )
                            prepared = True
                        alpha = _alpha_lanes(
                            mesh, materials, grid, m, texture, level, planes, x - origin_x, y - origin_y
                        )
                        deposit(
                            work.depths, work.ids, place, inside & (alpha >= threshold), depth, np.int32(f)
                        )
                        if remembered:
                            found &= np.int64(mask_bits(_translucent(alpha)))
                            if found and layers < LAYERS:
                                simd.store(work.layers, layers * LAYER, alpha)
                                simd.store(work.layers, layers * LAYER + LANES, depth)
                                work.layer_blocks[layers], work.layer_masks[layers] = by * across + bx, found
                                layers += 1
                            elif found:
                                complete = False
        if kind == BLEND:
            records.layer_starts[r] = start
            records.layer_counts[r] = layers - start if complete else -1
    return layers


@inline
def _translucent(alpha):
    return (alpha >= np.float32(FAINTEST_ALPHA)) & (alpha < np.float32(SOLID_ALPHA))


@inline
def _prepare_alpha(mesh, materials, screen, records, r, grid, tile_x, tile_y, planes):
    """Set up `planes` of `_alpha_lanes` for a record in a tile.

    Returns the base texture, the level to read, and the origin of the planes relative to the tile: the first block that
    the triangle touches, so that float32 is enough.
    """
    f = records.owners[r]
    box = records.boxes[r]
    left, top = max(box[0] - tile_x, 0), max(box[1] - tile_y, 0)
    texture = _alpha_planes(mesh, materials, screen, f, float(tile_x + left), float(tile_y + top), planes)
    level = 0
    if texture >= 0:
        x = 0.5 * (min(box[2] - tile_x, grid.tile_width) - left)
        y = 0.5 * (min(box[3] - tile_y, grid.tile_height) - top)
        q = planes[0, 0] + planes[0, 1] * x + planes[0, 2] * y
        w = 1.0 / q if q != 0.0 else 0.0
        u = (planes[1, 0] + planes[1, 1] * x + planes[1, 2] * y) * w
        v = (planes[2, 0] + planes[2, 1] * x + planes[2, 2] * y) * w
        slopes = (
            (planes[1, 1] - u * planes[0, 1]) * w,
            (planes[2, 1] - v * planes[0, 1]) * w,
            (planes[1, 2] - u * planes[0, 2]) * w,
            (planes[2, 2] - v * planes[0, 2]) * w,
        )
        level = _level(materials, texture, _rate(materials, texture, slopes) / grid.samples)
    return texture, level, np.float32(left), np.float32(top)


@inline
def _fold_lanes(coordinate, wrap):
    """As `_fold`, of 16 coordinates; mirrored ones may exceed 1 by a rounding error."""
    zero, one = broadcast_exact(np.float32(0.0)), broadcast_exact(ONE)
    u = select(simd.absolute(coordinate) < np.float32(1e7), coordinate, zero)
    if wrap == CLAMP:
        u = minimum(maximum(u, zero), one)
    elif wrap == MIRROR:
        u = simd.absolute(u - simd.floor(u * np.float32(0.5) + np.float32(0.5)) * np.float32(2.0))
    else:
        u = minimum(u - simd.floor(u), one)
    return u


@inline
def _alpha_lanes(mesh, materials, grid, m, texture, level, planes, x, y):
    """Return the alpha of a material at the 16 samples of a block at (x, y), relative to the origin of `planes`."""
    x, y = load_exact(grid.offsets, 0) + x, load_exact(grid.offsets, LANES) + y
    w = x * planes[0, 1] + y * planes[0, 2] + planes[0, 0]
    w = ONE / select(simd.absolute(w) > np.float32(NO_DEPTH), w, broadcast_exact(ONE))
    alpha = broadcast_exact(materials.factors[m, BASE + 3])
    if len(mesh.colors) > 0:
        alpha = alpha * ((x * planes[3, 1] + y * planes[3, 2] + planes[3, 0]) * w)
    if texture >= 0:
        samplers = materials.samplers
        width = max(samplers[texture, WIDTH] >> level, 1)
        height = max(samplers[texture, HEIGHT] >> level, 1)
        u = (x * planes[1, 1] + y * planes[1, 2] + planes[1, 0]) * w
        v = (x * planes[2, 1] + y * planes[2, 2] + planes[2, 0]) * w
        u = _fold_lanes(u, samplers[texture, WRAP_S]) * np.float32(width)
        v = _fold_lanes(v, samplers[texture, WRAP_T]) * np.float32(height)
        if samplers[texture, NEAREST]:
            # The centre of a texel: interpolation returns the texel itself.
            u = minimum(simd.floor(u), broadcast_exact(np.float32(width - 1))) + ONE
            v = minimum(simd.floor(v), broadcast_exact(np.float32(height - 1))) + ONE
        else:
            u, v = u + np.float32(0.5), v + np.float32(0.5)  # the border is texel 0
        start = samplers[texture, OFFSETS + level]
        alpha = alpha * (mix_alpha(materials.alphas, start, width + 2, u, v) * np.float32(UNIT))
    return alpha


@inline
def _draw_translucent(mesh, materials, screen, records, r, grid, tile_x, tile_y, eye, work, planes, count):
    """Append the translucent fragments of a record; returns the new number of fragments."""
    f = records.owners[r]
    if records.layer_counts[r] >= 0:
        start = np.int64(records.layer_starts[r])
        for n in range(start, start + records.layer_counts[r]):
            block = np.int64(work.layer_blocks[n])
            depth = load_exact(work.layers, n * LAYER + LANES)
            inside = bits_to_mask(np.int64(work.layer_masks[n]))
            found = candidates(work.depths, block * LANES, inside, depth, np.int32(0), work.found)
            count = _append_translucent(
                mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, f, block, found,
                n * LAYER, count,
            )  # fmt: skip
        return count
    e, rest, least, low, high = _set_up(records, r, grid, tile_x, tile_y)
    left, top, right, bottom, across, bw, bh = _blocks(records, r, grid, tile_x, tile_y)
    m = mesh.materials[f]
    texture, level, origin_x, origin_y = _prepare_alpha(
        mesh, materials, screen, records, r, grid, tile_x, tile_y, planes
    )
    for by in range(top, bottom + 1):
        y = np.float32(by * bh)
        for bx in range(left, right + 1):
            x = np.float32(bx * bw)
            block = by * across + bx
            inside, depth = _test(e, rest, least, low, high, x, y)
            found = candidates(work.depths, block * LANES, inside, depth, np.int32(0), work.found)
            if found == 0:
                continue
            alpha = _alpha_lanes(mesh, materials, grid, m, texture, level, planes, x - origin_x, y - origin_y)
            found &= np.int64(mask_bits(_translucent(alpha)))
            simd.store(work.layers, LAYERS * LAYER, alpha)
            count = _append_translucent(
                mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, f, block, found,
                LAYERS * LAYER, count,
            )  # fmt: skip
    return count


@inline
def _append_translucent(
    mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, f, block, found, first, count
):
    """Append the fragments of a block with the samples in `found`, whose alpha is at `first` in `work.layers`."""
    samples = grid.samples
    full, shift = (1 << samples) - 1, 4 - 2 * grid.block_shift  # base 2 logarithm of the samples
    while found:
        p = simd.lowest_bit(np.uint64(found)) >> shift
        mask = (found >> (p * samples)) & full
        found &= ~(full << (p * samples))
        if samples == 4:
            simd.store(work.alphas, LANES * count, load_quad(work.layers, first + 4 * p))
        else:
            for s in range(samples):
                work.alphas[count, s] = work.layers[first + p * samples + s]
        pixel = (block << (4 - shift)) + p
        simd.put(work.triangles, count, np.uint32(f))
        simd.put(work.coverage, count, np.uint32(pixel << PIXEL_SHIFT | mask))
        count += 1
        if count == CHUNK:
            _flush(mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, count, True, True)
            count = 0
    return count


@inline
def _append_visible(work, place, samples, count):
    """Append the visible fragments of the 16 samples from `place` on; return the new number of fragments."""
    if samples == 4:
        return count + append_visible(work.ids, place, work.triangles, work.coverage, count)
    full = (1 << samples) - 1
    pixel = place // samples
    uniform = np.int64(
        0xFFFF
    )  # bits of the samples that show the triangle of the first sample of their pixel
    if samples == 16:
        uniform = matches(work.ids, place, work.ids[place])
    for first in range(0, LANES, samples):
        remaining = full
        if (uniform >> first) & full == full:
            f = work.ids[place + first]
            remaining = 0
            if f >= 0:
                work.triangles[count], work.coverage[count] = f, pixel << PIXEL_SHIFT | full
                count += 1
        while remaining:
            # The first remaining sample, and all others of its triangle.
            f = work.ids[place + first + simd.lowest_bit(np.uint64(remaining))]
            mask = (matches(work.ids, place, f) >> first) & full
            remaining &= ~mask
            if f >= 0:
                work.triangles[count], work.coverage[count] = f, pixel << PIXEL_SHIFT | mask
                count += 1
        pixel += 1
    return count


@helper
def _draw_opaque(
    mesh, materials, screen, records, grid, tile_x, tile_y, bins, tile, work, threshold, planes, layers
):
    """Determine the visible surface of every sample of a tile; `layers`: see `_draw_record`."""
    for n in range(grid.tile_width * grid.tile_height * grid.samples):
        work.depths[n] = 0
        work.ids[n] = -1
    end = np.int64(bins.starts[tile + 1])
    for first in range(np.int64(bins.starts[tile]), end, LANES):
        for n in range(LANES):
            work.batch[n] = bins.records[min(first + n, end - 1)]
        set_up_triangles(records.points, work.batch, tile_x, tile_y, work.prepared)
        count = min(end - first, LANES)
        small = _find_blocks(mesh, records, grid, tile_x, tile_y, work, count)
        for group in range(0, count, 4):
            # Small records, and in their order the others, each of which is drawn alone.
            blocks = work.touched[group >> 2]
            others = (~small >> group) & ((1 << min(count - group, 4)) - 1)
            while blocks != 0 or others:
                now = blocks
                if others:
                    now &= (1 << (LANES * simd.lowest_bit(np.uint64(others)))) - 1
                blocks ^= now
                while now:
                    bit = simd.lowest_bit(np.uint64(now))
                    now &= now - 1
                    _draw_block(grid, work, group + (bit >> 4), bit & (LANES - 1))
                if others:
                    n = group + simd.lowest_bit(np.uint64(others))
                    others &= others - 1
                    layers = _draw_record(
                        mesh,
                        materials,
                        screen,
                        records,
                        n,
                        grid,
                        tile_x,
                        tile_y,
                        work,
                        threshold,
                        planes,
                        layers,
                    )


@inline
def _find_blocks(mesh, records, grid, tile_x, tile_y, work, count):
    """Find the blocks of a tile that solid records of at most SMALL x SMALL blocks may touch.

    The records of `work.batch` are tested at once, one block of each at a time. Rounding is monotonic: if the largest
    value of an edge in the rectangle around the samples of a block is not inside, none of them is.

    Args:
        count: number of records of `work.batch`, which `set_up_triangles` prepared.
    Returns:
        The bits of these records, 0 if they are too few. `touched` of `work` is written, and if there are any,
        `block_corners`, `first_samples`, `owners` and `rests`.
    """
    p, offsets = work.prepared, grid.offsets
    solid = count
    while solid > 0 and mesh.kinds[records.owners[work.batch[solid - 1]]] != SOLID:
        solid -= 1  # they come first
    x, y, wide, tall, first_samples = block_boxes(
        records.boxes, work.batch, tile_x, tile_y, grid.tile_width, grid.tile_height, grid.block_shift,
        grid.tile_shift_x,
    )  # fmt: skip
    limit = broadcast_exact(np.float32(SMALL))
    bits = np.int64(mask_bits((wide <= limit) & (tall <= limit))) & ((1 << solid) - 1)
    if count_bits(bits) < np.float32(FEWEST):
        bits = 0
    touched = broadcast_exact(ZERO)  # bits
    if bits:
        small, nothing = bits_to_mask(bits), broadcast_exact(ZERO)
        a0, b0, c0 = load_exact(p, 0), load_exact(p, 16), load_exact(p, 32)
        a1, b1, c1 = load_exact(p, 48), load_exact(p, 64), load_exact(p, 80)
        a2, b2, c2 = load_exact(p, 96), load_exact(p, 112), load_exact(p, 128)
        a3, b3, c3 = load_exact(p, 144), load_exact(p, 160), load_exact(p, 176)
        low, high = broadcast_exact(grid.reach[0]), broadcast_exact(grid.reach[1])
        above0 = maximum(a0 * low, a0 * high) + maximum(b0 * low, b0 * high)
        above1 = maximum(a1 * low, a1 * high) + maximum(b1 * low, b1 * high)
        above2 = maximum(a2 * low, a2 * high) + maximum(b2 * low, b2 * high)
        least0, least1, least2 = load_exact(p, 192), load_exact(p, 208), load_exact(p, 224)
        columns, rows = largest(select(small, wide, nothing)), largest(select(small, tall, nothing))
        for row in range(np.int64(rows)):
            down = y + np.float32(row * grid.block_height)
            d0, d1, d2, d3 = b0 * down + c0, b1 * down + c1, b2 * down + c2, b3 * down + c3
            in_row = small & (tall > np.float32(row))
            for column in range(np.int64(columns)):
                across = x + np.float32(column * grid.block_width)
                e0, e1, e2 = a0 * across + d0, a1 * across + d1, a2 * across + d2
                inside = (e0 + above0 > least0) & (e1 + above1 > least1) & (e2 + above2 > least2)
                block = SMALL * row + column
                touched = with_bit(touched, inside & in_row & (wide > np.float32(column)), block)
                place = 4 * LANES * block
                simd.store(work.block_corners, place, e0)
                simd.store(work.block_corners, place + LANES, e1)
                simd.store(work.block_corners, place + 2 * LANES, e2)
                simd.store(work.block_corners, place + 3 * LANES, a3 * across + d3)
        simd.store(work.first_samples, 0, first_samples)
        sample_x, sample_y = load_exact(offsets, 0), load_exact(offsets, LANES)
        for n in range(count):
            simd.put(work.owners, n, records.owners[work.batch[n]])
            for plane in range(4):
                slope = 48 * plane + n
                rest = sample_x * simd.get(p, slope) + sample_y * simd.get(p, slope + 16)
                simd.store(work.rests, (4 * n + plane) * LANES, rest)
    store_short(work.touched, touched)
    return bits


@inline
def _draw_block(grid, work, n, block):
    """Draw record n of `work.batch` into a block, as numbered by `_find_blocks`, with the arithmetic of `_test`."""
    p, rests, corners = work.prepared, work.rests, work.block_corners
    rest, corner = 4 * LANES * n, 4 * LANES * block + n
    inside = load_exact(rests, rest) + simd.get(corners, corner) > simd.get(p, 192 + n)
    inside = inside & (load_exact(rests, rest + 16) + simd.get(corners, corner + 16) > simd.get(p, 208 + n))
    inside = inside & (load_exact(rests, rest + 32) + simd.get(corners, corner + 32) > simd.get(p, 224 + n))
    depth = load_exact(rests, rest + 48) + simd.get(corners, corner + 48)
    depth = minimum(
        maximum(depth, broadcast_exact(simd.get(p, 240 + n))), broadcast_exact(simd.get(p, 256 + n))
    )
    blocks_across = grid.tile_width >> grid.block_shift
    place = (
        np.int64(simd.get(work.first_samples, n)) + (block // SMALL * blocks_across + block % SMALL) * LANES
    )
    deposit(work.depths, work.ids, place, inside, depth, np.int32(simd.get(work.owners, n)))


@inline
def _byte(value):
    """Return values of 0..1 as 0..255, to be truncated to the nearest integers."""
    value = value * np.float32(255.0) + np.float32(0.5)
    return minimum(maximum(value, broadcast_exact(np.float32(0.0))), broadcast_exact(np.float32(255.0)))


@inline
def _write_straight(red, green, blue, alpha, out):
    """Write 16 premultiplied colours as bytes with straight alpha to uint32 [16]."""
    nothing = broadcast_exact(np.float32(0.0))
    visible = alpha > np.float32(0.0)
    if mask_bits((alpha >= ONE) & (alpha <= ONE)) != 0xFFFF:  # divisions by 1 change nothing
        red, green, blue = (
            select(visible, red / alpha, nothing),
            select(visible, green / alpha, nothing),
            select(visible, blue / alpha, nothing),
        )
    store_bytes(out, _byte(red), _byte(green), _byte(blue), _byte(select(visible, alpha, nothing)))


@helper
def _resolve(grid, tile_x, tile_y, work, layered, background, clear, image):
    """Write the pixels of a tile: the mean of their premultiplied samples, with straight alpha."""
    samples, sums = grid.samples, work.sums
    height, width = image.shape
    pixels = grid.tile_width * grid.tile_height
    share = np.float32(1.0) / np.float32(samples)
    inside = tile_x + grid.tile_width <= width and tile_y + grid.tile_height <= height
    if layered:
        for p in range(pixels):
            total = zero_quad()
            for s in range(p * samples, (p + 1) * samples):
                total = total + load_quad(work.colors, 4 * s)
            simd.store(sums, 4 * p, total)
    for first in range(0, pixels, LANES):
        empty = not layered
        if empty and samples == 4:
            empty = covered_in_four(work.ids, first * samples) == 0
        elif empty:
            for place in range(first * samples, (first + LANES) * samples, LANES):
                empty = empty and covered(work.ids, place) == 0
        if empty:
            for n in range(LANES):
                work.bytes[n] = background
        else:
            red, green, blue, alpha = load_channels(sums, 4 * first)
            if not layered:
                uncovered = broadcast_exact(np.float32(samples)) - alpha
                red, green, blue = (
                    red + uncovered * clear[0],
                    green + uncovered * clear[1],
                    blue + uncovered * clear[2],
                )
                alpha = alpha + uncovered * clear[3]
            _write_straight(red * share, green * share, blue * share, alpha * share, work.bytes)
            for place in range(4 * first, 4 * (first + LANES), LANES):
                simd.store(sums, place, broadcast_exact(np.float32(0.0)))
        if inside:
            place = (np.int64(grid.places[first, 1]) + tile_y) * width + grid.places[first, 0] + tile_x
            if samples == 4:
                write_2(work.bytes, image, place, width)
            elif samples == 1:
                write_4(work.bytes, image, place, width)
            else:
                write_1(work.bytes, image, place, width)
            continue
        for n in range(LANES):
            x, y = grid.places[first + n, 0] + tile_x, grid.places[first + n, 1] + tile_y
            if x < width and y < height:
                image[y, x] = work.bytes[n]


@helper
def _fill(image, tile_x, tile_y, grid, background):
    """Write the background to the pixels of a tile."""
    height, width = image.shape
    right = min(tile_x + grid.tile_width, width)
    for y in range(tile_y, min(tile_y + grid.tile_height, height)):
        x = tile_x
        while x + LANES <= right:
            fill_16(image, y * width + x, background)
            x += LANES
        for rest in range(x, right):
            image[y, rest] = background


@helper
def _draw_view(mesh, materials, screen, records, grid, columns, opaque, blended, eye, clear, work, image):
    """Draw one view.

    Args:
        mesh, materials, screen, records, grid, work: see `layout`; screen is the output of `_project`.
        columns: number of tiles per row.
        opaque: `Bins` of all records.
        blended: `Bins` of the records with translucent parts, from far to near.
        eye: float64 [3], position of the camera.
        clear: float32 [4], premultiplied encoded colour behind everything.
        image: uint32 [H, W], output: RGBA bytes with straight alpha.
    """
    samples = grid.samples
    pixels = grid.tile_width * grid.tile_height
    planes = work.planes
    work.sums[:] = np.float32(0.0)  # `_resolve` leaves zeros
    _write_straight(
        broadcast_exact(clear[0]), broadcast_exact(clear[1]), broadcast_exact(clear[2]), broadcast_exact(clear[3]),
        work.bytes,
    )  # fmt: skip
    background = work.bytes[0]
    for tile in range(len(opaque.starts) - 1):
        tile_x, tile_y = tile % columns * grid.tile_width, tile // columns * grid.tile_height
        layered = blended.starts[tile + 1] > blended.starts[tile]
        if opaque.starts[tile + 1] == opaque.starts[tile]:
            _fill(image, tile_x, tile_y, grid, background)
            continue
        if layered:
            behind = load_quad(clear, 0)
            for n in range(0, LANES, 4):
                simd.store(work.colors, n, behind)
            four = load_exact(work.colors, 0)
            for n in range(LANES, 4 * pixels * samples, LANES):
                simd.store(work.colors, n, four)
        if opaque.starts[tile + 1] > opaque.starts[tile]:
            _draw_opaque(
                mesh,
                materials,
                screen,
                records,
                grid,
                tile_x,
                tile_y,
                opaque,
                tile,
                work,
                SOLID_ALPHA,
                planes,
                0 if layered else -1,
            )
            count = 0
            for first in range(0, pixels * samples, 4 * LANES):
                if covered_in_four(work.ids, first) == 0:
                    continue
                if count > CHUNK - 4 * LANES:
                    _flush(
                        mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, count, layered, False
                    )  # fmt: skip
                    count = 0
                for place in range(first, first + 4 * LANES, LANES):
                    count = _append_visible(work, place, samples, count)
            _flush(mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, count, layered, False)
        if layered:
            count = 0
            for n in range(blended.starts[tile], blended.starts[tile + 1]):
                count = _draw_translucent(
                    mesh, materials, screen, records, blended.records[n], grid, tile_x, tile_y, eye, work,
                    planes, count,
                )  # fmt: skip
            _flush(mesh, materials, screen, records, grid, tile_x, tile_y, eye, work, count, True, True)
        _resolve(grid, tile_x, tile_y, work, layered, background, clear, image)


@inline
def _project_point(points, matrix, i, j, k, b):
    """Return x, y (pixels) and w of the point of a triangle with barycentric coordinates b."""
    x = points[i, 0] * b[0] + points[j, 0] * b[1] + points[k, 0] * b[2]
    y = points[i, 1] * b[0] + points[j, 1] * b[1] + points[k, 1] * b[2]
    z = points[i, 2] * b[0] + points[j, 2] * b[1] + points[k, 2] * b[2]
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    inverse = 1.0 / w if w != 0.0 else 0.0
    return (
        (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]) * inverse,
        (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]) * inverse,
        w,
    )


@helper
def _survey_view(mesh, materials, screen, records, grid, columns, opaque, following, matrix, work, surface):
    """Draw the surface of one view, float32 [H, W, 8]; see `survey`.

    Args:
        matrix: float64 [3, 4], the projection of `_project`.
    See `_draw_view` for the others.
    """
    planes = work.planes
    height, width = surface.shape[:2]
    for tile in range(len(opaque.starts) - 1):
        tile_x, tile_y = tile % columns * grid.tile_width, tile // columns * grid.tile_height
        if opaque.starts[tile + 1] == opaque.starts[tile]:
            continue
        _draw_opaque(
            mesh, materials, screen, records, grid, tile_x, tile_y, opaque, tile, work, 0.5, planes, -1
        )
        for p in range(grid.tile_width * grid.tile_height):
            f = work.ids[p]
            if f < 0:
                continue
            px, py = grid.places[p, 0] + tile_x, grid.places[p, 1] + tile_y
            if px >= width or py >= height:
                continue
            i, j, k = mesh.corners[f, 0], mesh.corners[f, 1], mesh.corners[f, 2]
            b0, b1, b2, inverse = _barycentric(screen, i, j, k, px + 0.5, py + 0.5)
            b = (b0, b1, b2)
            s6 = _slopes(screen, i, j, k, inverse)
            nx, ny, nz = _normal(mesh, materials, records.facing[f], f, b, s6)
            length = math.sqrt(nx * nx + ny * ny + nz * nz)
            if length > 0.0:
                nx, ny, nz = nx / length, ny / length, nz / length
            depth = screen[i, 3] * b0 + screen[j, 3] * b1 + screen[k, 3] * b2
            out = surface[py, px]
            out[0], out[1], out[2], out[3] = depth, nx, ny, nz
            # Both ends are projected in the same way: the motion is exactly 0 where nothing moves.
            here_x, here_y, _ = _project_point(mesh.positions, matrix, i, j, k, b)
            next_x, next_y, w = _project_point(following, matrix, i, j, k, b)
            out[4], out[5] = np.nan, np.nan
            if w > 0.0:
                out[4], out[5] = next_x - here_x, next_y - here_y
            q = 1.0 / depth
            out[6], out[7] = q * (s6[0] + s6[1] + s6[2]), q * (s6[3] + s6[4] + s6[5])


# --- views -----------------------------------------------------------------------------------------


@helper
def _prepare(
    mesh, views, v, radius, first_blended, grid, margin, columns, records, lists, opaque, blended, sorted_too
):
    """Project, cull and clip the triangles of a view and sort them into tiles; return False without enough room.

    Args:
        sorted_too: whether to fill `blended`.
    See `draw` for the others.
    """
    _project(mesh.positions, views.matrices[v], lists.screen)
    near = NEAREST_DEPTH * (views.distances[v] + radius)
    count, first = _assemble(
        mesh, lists.screen, near, views.width, views.height, margin, first_blended, records
    )
    if count < 0:
        lists.required[0] = -count
        return False
    needed = _bin_records(records, lists.order, -1, count, grid, columns, opaque)
    if needed >= 0 and sorted_too:
        row = 0
        if first < count:
            row = _sort_far_to_near(mesh, views.eyes, v, records, first, count, lists)
        needed = _bin_records(records, lists.order, row, count - first, grid, columns, blended)
    if needed < 0:
        lists.required[1] = -needed
    return needed >= 0


@kernel
def draw(
    mesh, materials, views, queue, v, radius, first_blended, grid, margin, columns, records, lists, opaque, blended,
    clear, work, images, t,
):  # fmt: skip
    """Draw views of a frame until none is left.

    Args:
        queue: int64 [1], the next view that no thread has taken.
        v: the view to begin with; -1 to take one.
        mesh, materials, views, grid, records, lists, opaque, blended, work: see `layout`.
        radius: no visible vertex is farther from the world origin.
        first_blended: the first triangle that is blended.
        margin: see `_assemble`.
        columns: number of tiles per row.
        clear: float32 [4], premultiplied encoded colour behind everything.
        images: uint32 [V, T, H, W], output: RGBA bytes with straight alpha.
        t: the frame.
    Returns:
        The view that could not be drawn since there was not enough room, see `Lists.required`; the number of views
        when all are taken.
    """
    if v < 0:
        v = take_number(queue)
    while v < len(views.eyes):
        if not _prepare(
            mesh, views, v, radius, first_blended, grid, margin, columns, records, lists, opaque, blended, True,
        ):  # fmt: skip
            return v
        _draw_view(
            mesh, materials, lists.screen, records, grid, columns, opaque, blended, views.eyes[v], clear, work,
            images[v, t],
        )  # fmt: skip
        v = take_number(queue)
    return len(views.eyes)


@kernel
def survey(
    mesh, materials, views, queue, v, radius, first_blended, grid, margin, columns, records, lists, opaque,
    following, work, surface,
):  # fmt: skip
    """Depth, normals and motion of the first surface that is at least half opaque, at the centres of pixels.

    Args:
        grid: with one sample per pixel.
        following: float32 [N, 3], world positions in the next frame.
        surface: float32 [V, H, W, 8], output, 0 for background: depth, normal, motion in pixels, change of 1 / depth
            per pixel to the right and downwards. Motion is NaN if it ends behind the camera.
    See `draw` for the others and for the value returned.
    """
    if v < 0:
        v = take_number(queue)
    while v < len(views.eyes):
        if not _prepare(
            mesh, views, v, radius, first_blended, grid, margin, columns, records, lists, opaque, opaque, False,
        ):  # fmt: skip
            return v
        _survey_view(
            mesh, materials, lists.screen, records, grid, columns, opaque, following, views.matrices[v], work,
            surface[v],
        )  # fmt: skip
        v = take_number(queue)
    return len(views.eyes)
