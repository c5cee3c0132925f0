"""The numba kernels that evaluate poses: key frames, node matrices, skinning, normals.

A frame of a small model is a few hundred short operations, which NumPy needs longer to begin than to carry out. The
order of the operations is that of the formulas, nothing is fused, and poses have the same bits on every processor.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from renderers import fixed
from renderers.kernel_cache import UNCOUNTED, announce_compilation, compiler

SINE_SERIES = fixed.SINE_SERIES
STRAIGHT = 1e-6  # sine of the angle between keys below which they are interpolated linearly
HUGE = np.float32(1e18)  # lengths of vectors whose squares may overflow
ZERO, ONE = np.float32(0.0), np.float32(1.0)

kernel = compiler([__file__, fixed.__file__], counts_references=False)
inline = njit(error_model="numpy", inline="always", **UNCOUNTED)

announce_compilation(__name__, "glTF: compiling the kernels of poses for this machine, once …")


# --- key frames and nodes ------------------------------------------------------------------------------


@kernel
def find_keys(time, starts, times, low, high, phase, step):
    """For each line of key times: the keys before and after a time, the phase (0-1) and the seconds between them.

    Args:
        starts: int64 [L + 1], the lines in `times`, float64 [...], ascending in each line.
        low, high: int64 [L], phase, step: float64 [L], output.
    """
    for line in range(len(low)):
        first, last = starts[line], starts[line + 1]
        before, after = first, last  # bisection: all keys before `before` are at most `time`
        while before < after:
            middle = (before + after) >> 1
            if time < times[middle]:
                after = middle
            else:
                before = middle + 1
        a = max(before - 1 - first, 0)
        b = min(a + 1, last - first - 1)
        length = times[first + b] - times[first + a]
        low[line], high[line], step[line], phase[line] = a, b, length, 0.0
        if length > 0.0:
            phase[line] = min(max((time - times[first + a]) / length, 0.0), 1.0)


@kernel
def interpolate(values, first, lines, moves, rows, low, high, phase, out):
    """Interpolate channels linearly.

    Args:
        values: float64 [keys, w] of all channels.
        first: int64 [c], first key of each; lines: int64 [c], its line of key times; moves: float64 [c], 0 for STEP.
        rows: int64 [c], the rows of `out`, float64 [..., w], to write.
        low, high, phase: of `find_keys`.
    """
    for c in range(len(rows)):
        line = lines[c]
        u = phase[line] * moves[c]
        before, after = first[c] + low[line], first[c] + high[line]
        for n in range(values.shape[1]):
            a = values[before, n]
            out[rows[c], n] = a + (values[after, n] - a) * u


@inline
def _sine(x):
    """As `fixed.sin_quarter`."""
    square = x * x
    value = SINE_SERIES[0]
    for n in range(1, len(SINE_SERIES)):
        value = value * square + SINE_SERIES[n]
    return x * value


@kernel
def interpolate_rotations(values, arcs, first, lines, moves, rows, low, high, phase, out):
    """Interpolate unit quaternions spherically along the shorter arc.

    Args:
        values: float64 [keys, 4].
        arcs: float64 [keys, 2], the angle between each key and the next, and its sine.
    See `interpolate` for the others.
    """
    for c in range(len(rows)):
        line = lines[c]
        u = phase[line] * moves[c]
        a, b = values[first[c] + low[line]], values[first[c] + high[line]]
        angle, sine = arcs[first[c] + low[line], 0], arcs[first[c] + low[line], 1]
        sign = -1.0 if a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] < 0.0 else 1.0
        p, q = 1.0 - u, u
        if not sine < STRAIGHT:
            p, q = _sine(p * angle) / sine, _sine(q * angle) / sine
        x, y = p * a[0] + q * (sign * b[0]), p * a[1] + q * (sign * b[1])
        z, w = p * a[2] + q * (sign * b[2]), p * a[3] + q * (sign * b[3])
        length = np.sqrt(x * x + y * y + z * z + w * w)
        if length > 0.0:
            x, y, z, w = x / length, y / length, z / length, w / length
        else:
            x, y, z, w = 0.0, 0.0, 0.0, 1.0
        row = out[rows[c]]
        row[0], row[1], row[2], row[3] = x, y, z, w


@kernel
def place_nodes(moving, nodes, parents, translation_scale, rotation, local, world):
    """Compose the local matrices T·R·S of some nodes, then multiply matrices along the tree.

    Args:
        moving: int64 [m], the nodes to compose.
        nodes, parents: int64 [k], the nodes whose world matrices depend on them, parents first; the parent of a root is
            the last row of `world`.
        translation_scale: float64 [2n, 3], n translations, then n scales.
        rotation: float64 [n, 4], unit quaternions xyzw.
        local: float64 [n, 4, 4], input and output; world: float64 [n + 1, 4, 4], input and output.
    """
    for node in moving:
        x, y, z, w = rotation[node, 0], rotation[node, 1], rotation[node, 2], rotation[node, 3]
        matrix = local[node]
        matrix[0, 0], matrix[1, 1] = 1 - 2 * (y * y + z * z), 1 - 2 * (x * x + z * z)
        matrix[2, 2] = 1 - 2 * (x * x + y * y)
        matrix[0, 1], matrix[1, 0] = 2 * (x * y - z * w), 2 * (x * y + z * w)
        matrix[0, 2], matrix[2, 0] = 2 * (x * z + y * w), 2 * (x * z - y * w)
        matrix[1, 2], matrix[2, 1] = 2 * (y * z - x * w), 2 * (y * z + x * w)
        for i in range(3):
            for j in range(3):
                matrix[i, j] *= translation_scale[len(rotation) + node, j]
            matrix[i, 3], matrix[3, i] = translation_scale[node, i], 0.0
        matrix[3, 3] = 1.0
    for k in range(len(nodes)):
        _multiply(world[parents[k]], local[nodes[k]], world[nodes[k]])


@inline
def _multiply(a, b, out):
    """Matrix product of [4, 4], terms in order."""
    for i in range(4):
        for j in range(4):
            out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j] + a[i, 3] * b[3, j]


# --- vertices ------------------------------------------------------------------------------------------


@inline
def _normalise(directions, first, last):
    """Normalise columns of float32 [3, N]; zero and infinite ones become +Y.

    Nothing is done if a coordinate is above `HUGE`. Returns whether all were normalised.
    """
    largest = ZERO
    for i in range(first, last):
        for n in range(3):
            size = abs(directions[n, i])
            if size > largest or size != size:  # stays NaN, which is not huge: no vector is scaled then
                largest = size
    if largest > HUGE:
        return False
    for i in range(first, last):
        x, y, z = directions[0, i], directions[1, i], directions[2, i]
        length = np.sqrt(x * x + y * y + z * z)
        if not (length > ZERO and length < np.inf):
            x, y, z, length = ZERO, ONE, ZERO, ONE
        directions[0, i], directions[1, i], directions[2, i] = x / length, y / length, z / length
    return True


@kernel
def place_rigid(matrix, cofactor, positions, normals, first, last, out, directions, with_normals):
    """Transform vertices first .. last - 1 of one part, a chain of fused multiply-adds (`fixed.fused_product`).

    Args:
        matrix: float32 [3, 4]; cofactor: float32 [3, 3], for normals.
        positions, normals: float32 [3, N], mesh space.
        out, directions: float32 [3, N], output. Without `with_normals` directions are left as they are.
    Returns:
        Whether the directions are unit vectors: see `_normalise`.
    """
    for n in range(3):
        for i in range(first, last):
            value = np.float32(np.float64(matrix[n, 0]) * positions[0, i] + 0.0)
            value = np.float32(np.float64(matrix[n, 1]) * positions[1, i] + np.float64(value))
            value = np.float32(np.float64(matrix[n, 2]) * positions[2, i] + np.float64(value))
            out[n, i] = value + matrix[n, 3]
    if not with_normals:
        return True
    for n in range(3):
        for i in range(first, last):
            value = np.float32(np.float64(cofactor[n, 0]) * normals[0, i] + 0.0)
            value = np.float32(np.float64(cofactor[n, 1]) * normals[1, i] + np.float64(value))
            directions[n, i] = np.float32(np.float64(cofactor[n, 2]) * normals[2, i] + np.float64(value))
    return _normalise(directions, first, last)


@kernel
def place_joints(world, joints, inverse_bind, offset, origin, moved, out):
    """Write the matrices of the joints of a skin, float32 [J, 12]; return the largest size of their linear parts.

    Args:
        world: float64 [n + 1, 4, 4]; joints: int64 [J], nodes; inverse_bind: float64 [J, 4, 4].
        offset, origin: float64 [3]. If `moved`, matrices act on positions relative to `offset` and give positions
            relative to `origin`: (M | t) becomes (M | t + M·offset - origin). Large terms cancel here, before they are
            rounded to float32.
    """
    largest = 0.0
    for k in range(len(joints)):
        a, b = world[joints[k]], inverse_bind[k]
        for i in range(3):
            for j in range(4):
                value = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j] + a[i, 3] * b[3, j]
                if j < 3:
                    size = abs(value)
                    if size > largest or size != size:
                        largest = size
                    out[k, 4 * i + j] = np.float32(value) + ZERO  # turns -0 into 0, as sums do
                    continue
                if moved:
                    at = 0.0
                    for n in range(3):
                        entry = a[i, 0] * b[0, n] + a[i, 1] * b[1, n] + a[i, 2] * b[2, n] + a[i, 3] * b[3, n]
                        at = entry * offset[n] if n == 0 else at + entry * offset[n]
                    value += at - origin[i]
                out[k, 4 * i + 3] = np.float32(value) + ZERO
    return largest


@kernel
def skin(
    matrices, starts, joints, weights, positions, normals, small, first, row, out, directions, determinants,
    with_normals,
):  # fmt: skip
    """Linear blend skinning of consecutive vertices: one blended 3 x 4 matrix Σ w_k M_k per vertex.

    The sums are fused multiply-adds in order of joints (`fixed.fused_product`).

    Args:
        matrices: float32 [J, 12].
        starts: int64 [n + 1]; vertex v has the influences starts[v] .. starts[v + 1] - 1 of joints, int32 [m], and
            weights, float64 [m].
        positions, normals: float32 [3, N], mesh space.
        small: normals are multiplied with it first, so that cofactors stay within the range of float32.
        first: the first vertex in arrays of N.
        row: float32 [12], scratch memory.
        out, directions: float32 [3, N], output; determinants: float32 [n], output, of the linear parts. Without
            `with_normals` the latter two are left as they are.
    Returns:
        Whether the directions are unit vectors: see `_normalise`.
    """
    count, small = len(starts) - 1, np.float32(small)
    for v in range(count):
        i = first + v
        for n in range(12):
            row[n] = ZERO
        for k in range(starts[v], starts[v + 1]):
            joint, weight = joints[k], weights[k]
            for n in range(12):
                row[n] = np.float32(np.float64(matrices[joint, n]) * weight + np.float64(row[n]))
        a0, a1, a2, b0, b1, b2 = row[0], row[1], row[2], row[4], row[5], row[6]
        c0, c1, c2 = row[8], row[9], row[10]
        x, y, z = positions[0, i], positions[1, i], positions[2, i]
        out[0, i] = a0 * x + a1 * y + a2 * z + row[3]
        out[1, i] = b0 * x + b1 * y + b2 * z + row[7]
        out[2, i] = c0 * x + c1 * y + c2 * z + row[11]
        if not with_normals:
            continue
        # Rows of the cofactor matrix: cross products of the two rows that follow.
        p0, p1, p2 = b1 * c2 - b2 * c1, b2 * c0 - b0 * c2, b0 * c1 - b1 * c0
        q0, q1, q2 = c1 * a2 - c2 * a1, c2 * a0 - c0 * a2, c0 * a1 - c1 * a0
        r0, r1, r2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
        determinant = a0 * p0 + a1 * p1 + a2 * p2
        determinants[v] = determinant
        x, y, z = normals[0, i] * small, normals[1, i] * small, normals[2, i] * small
        sign = -ONE if determinant < ZERO else ONE
        directions[0, i] = sign * (p0 * x + p1 * y + p2 * z)
        directions[1, i] = sign * (q0 * x + q1 * y + q2 * z)
        directions[2, i] = sign * (r0 * x + r1 * y + r2 * z)
    return not with_normals or _normalise(directions, first, first + count)


@intrinsic
def _inverse_power(typing, value):
    """Return 2^-e of a positive, normal float64 = m 2^e with m in [1/2, 1)."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        exponent = builder.lshr(builder.bitcast(arguments[0], word), ir.Constant(word, 52))
        exponent = builder.sub(ir.Constant(word, 1023 + 1022), exponent)
        return builder.bitcast(builder.shl(exponent, ir.Constant(word, 52)), ir.DoubleType())

    return types.float64(types.float64), generate


@kernel
def flat_normals(positions, first, last, mirrored, directions):
    """Write the unit normals of triangles of three vertices each, vertices first .. last - 1, float32 [3, N].

    Sides are scaled by a power of two, which is exact, to at most 1: products of long sides would overflow.
    """
    for i in range(first, last, 3):
        largest = ZERO
        for n in range(3):
            for k in (1, 2):
                size = abs(positions[n, i + k] - positions[n, i])
                if size > largest or size != size:
                    largest = size
        scale = 1.0
        if largest > ZERO and largest < np.inf:
            scale = _inverse_power(np.float64(largest))
        ax = np.float32(np.float64(positions[0, i + 1] - positions[0, i]) * scale)
        ay = np.float32(np.float64(positions[1, i + 1] - positions[1, i]) * scale)
        az = np.float32(np.float64(positions[2, i + 1] - positions[2, i]) * scale)
        bx = np.float32(np.float64(positions[0, i + 2] - positions[0, i]) * scale)
        by = np.float32(np.float64(positions[1, i + 2] - positions[1, i]) * scale)
        bz = np.float32(np.float64(positions[2, i + 2] - positions[2, i]) * scale)
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = np.sqrt(x * x + y * y + z * z)
        if not (length > ZERO and length < np.inf):
            x, y, z, length = ZERO, ONE, ZERO, ONE
        length = -length if mirrored else length
        for k in range(3):
            directions[0, i + k], directions[1, i + k] = x / length, y / length
            directions[2, i + k] = z / length
