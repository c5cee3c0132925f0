"""Vector operations of the rasteriser: depth tests of 16 samples, texels of four samples, attributes of 16 fragments.

The arithmetic is written as LLVM vectors without fast-math flags, so that a processor with wider or narrower registers
computes the same bits.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from renderers import simd
from renderers.meshes.cpu.layout import PIXEL_SHIFT

LANES = 16
TINY = -1.1754943508222875e-38  # a sample on an edge exceeds this, but not 0

_INT32, _INT64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT32, LANES), ir.VectorType(_FLOAT, LANES)


def _broadcast(builder, value):
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


def _address(context, builder, array_type, array, index, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _load(builder, address):
    value = builder.load(address)
    value.align = 4
    return value


def _store(builder, value, address):
    builder.store(value, address).align = 4


def _scalars(builder, values):
    """Return the lanes of integers that are not negative, as int64.

    They take the way through memory, one instruction each where extracting takes two or three. An empty assembly
    statement hides that the loads are of what was stored: LLVM would extract the lanes instead.
    """
    room = cgutils.alloca_once(builder, _INTS)
    _store(builder, values, room)
    first = builder.bitcast(room, _INT32.as_pointer())
    hidden = builder.asm(ir.FunctionType(first.type, [first.type]), "", "=r,0", [first], side_effect=True)
    places = [builder.gep(hidden, [ir.Constant(_INT32, i)]) for i in range(LANES)]
    return [builder.zext(_load(builder, place), _INT64) for place in places]


@intrinsic
def align_stack(typing):
    """Align the stack of the function that contains this call to 64 bytes.

    Where the registers do not suffice, LLVM keeps vectors on the stack. It cannot align it after it has assigned the
    registers, and does so only for variables of functions. Else a vector of 512 bits crosses cache lines, or not, as
    the callers of the function happen to leave the stack: 12 % of the time of the light.
    """

    def generate(context, builder, signature, arguments):
        room = builder.bitcast(cgutils.alloca_once(builder, _INTS), _INT32.as_pointer())
        # An empty assembly statement keeps the variable, which nothing reads.
        builder.asm(ir.FunctionType(ir.VoidType(), [room.type]), "", "r", [room], side_effect=True)
        return context.get_dummy_value()

    return types.void(), generate


def _bits(builder, mask):
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _INT64)


@intrinsic
def deposit_all(typing, depths, ids, place, depth, number):
    """As `deposit`, of a block that the triangle covers whole."""

    def generate(context, builder, signature, arguments):
        depths, ids, place, depth, number = arguments
        _deposit(context, builder, signature.args, depths, ids, place, builder.bitcast(depth, _INTS), number)
        return context.get_dummy_value()

    return types.void(depths, ids, types.int64, depth, types.int32), generate


def _deposit(context, builder, kinds, depths, ids, place, z, number):
    z_address = _address(context, builder, kinds[0], depths, place, _INTS)
    id_address = _address(context, builder, kinds[1], ids, place, _INTS)
    before, owner = _load(builder, z_address), _load(builder, id_address)
    nearer = builder.icmp_signed(">", z, before)
    _store(builder, builder.select(nearer, z, before), z_address)
    _store(builder, builder.select(nearer, _broadcast(builder, number), owner), id_address)


@intrinsic
def deposit(typing, depths, ids, place, inside, depth, number):
    """Draw an opaque triangle into one block of 16 samples: keep the nearest depth, and its number.

    Args:
        depths: int32 array, bits of 1 / w per sample; larger is nearer (positive floats order as their bits do).
        ids: int32 array, number of the triangle per sample.
        place: index of the first sample of the block in both.
        inside: mask of the samples that the triangle covers.
        depth: 1 / w of the triangle, `exact` lanes.
        number: number to store.
    """

    def generate(context, builder, signature, arguments):
        depths, ids, place, inside, depth, number = arguments
        z = builder.select(inside, builder.bitcast(depth, _INTS), ir.Constant(_INTS, [0] * LANES))
        _deposit(context, builder, signature.args, depths, ids, place, z, number)
        return context.get_dummy_value()

    return types.void(depths, ids, types.int64, inside, depth, types.int32), generate


@intrinsic
def candidates(typing, depths, place, inside, depth, minimum, out):
    """Return the mask (int64) of the samples of a block that a triangle covers at least as near as what is there.

    Args:
        minimum: 1 to require that it is nearer than what is there, 0 to accept equal depths.
        out: int32 [16], receives the bits of 1 / w.
    See `deposit` for the others.
    """

    def generate(context, builder, signature, arguments):
        depths, place, inside, depth, minimum, out = arguments
        kinds = signature.args
        z = builder.bitcast(depth, _INTS)
        before = _load(builder, _address(context, builder, kinds[0], depths, place, _INTS))
        nearer = builder.icmp_signed(">=", z, builder.add(before, _broadcast(builder, minimum)))
        _store(builder, z, _address(context, builder, kinds[5], out, ir.Constant(_INT64, 0), _INTS))
        return _bits(builder, builder.and_(inside, nearer))

    return types.int64(depths, types.int64, inside, depth, types.int32, out), generate


@intrinsic
def matches(typing, ids, place, number):
    """Return the mask (int64) of the 16 samples from `place` on that have this number."""

    def generate(context, builder, signature, arguments):
        ids, place, number = arguments
        value = _load(builder, _address(context, builder, signature.args[0], ids, place, _INTS))
        return _bits(builder, builder.icmp_signed("==", value, _broadcast(builder, number)))

    return types.int64(ids, types.int64, types.int32), generate


@intrinsic
def append_visible(typing, ids, place, triangles, coverage, count):
    """Append the fragments of the 16 samples of four pixels: one for each triangle that a pixel shows.

    Args:
        ids: int32 array, number of the triangle per sample, -1 for none.
        place: index of the first sample.
        triangles, coverage: uint32 arrays, see `layout.Work`; 16 elements from `count` on are overwritten, those of no
            fragment with 0: the fragments that complete the last 16 have to be valid.
        count: number of fragments that they have.
    Returns:
        The number (int64) of new fragments. Those of a pixel are in the order of their first samples.
    """

    def generate(context, builder, signature, arguments):
        ids, place, triangles, coverage, count = arguments
        kinds = signature.args

        def constant(values):
            return ir.Constant(_INTS, values)

        zero = constant([0] * LANES)
        number = _load(builder, _address(context, builder, kinds[0], ids, place, _INTS))
        samples = zero  # those of the pixel that show the same triangle
        for s in range(4):
            order = constant([i // 4 * 4 + s for i in range(LANES)])
            same = builder.icmp_signed("==", number, builder.shuffle_vector(number, number, order))
            samples = builder.or_(samples, builder.select(same, constant([1 << s] * LANES), zero))
        earlier = builder.and_(samples, constant([(1 << i % 4) - 1 for i in range(LANES)]))
        first = builder.and_(
            builder.icmp_signed("==", earlier, zero), builder.icmp_signed(">=", number, zero)
        )
        pixel = _broadcast(builder, builder.trunc(builder.lshr(place, ir.Constant(_INT64, 2)), _INT32))
        pixel = builder.add(pixel, constant([i // 4 for i in range(LANES)]))
        samples = builder.or_(builder.shl(pixel, constant([PIXEL_SHIFT] * LANES)), samples)
        for kind, array, value in ((kinds[2], triangles, number), (kinds[3], coverage, samples)):
            chosen = simd._call(
                builder, "llvm.experimental.vector.compress.v16i32", _INTS, value, first, zero
            )
            _store(builder, chosen, _address(context, builder, kind, array, count, _INTS))
        return builder.ctpop(_bits(builder, first))

    return types.int64(ids, types.int64, triangles, coverage, types.int64), generate


@intrinsic
def take_number(typing, queue):
    """Return the number in an int64 array [1] and increase it by one, in one step for all threads."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(_INT64, 1), "monotonic")

    return types.int64(queue), generate


@intrinsic
def count_bits(typing, word):
    """Return the number of set bits of an int64 as float32."""

    def generate(context, builder, signature, arguments):
        return builder.uitofp(builder.ctpop(arguments[0]), _FLOAT)

    return types.float32(types.int64), generate


@intrinsic
def exponent(typing, value):
    """Return the exponent e of a positive, normal float64 = m 2^e with m in [1/2, 1)."""

    def generate(context, builder, signature, arguments):
        word = builder.lshr(builder.bitcast(arguments[0], _INT64), ir.Constant(_INT64, 52))
        return builder.sub(word, ir.Constant(_INT64, 1022))

    return types.int64(types.float64), generate


@intrinsic
def float_bits(typing, value):
    """Return the bits of a float64 as uint64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _INT64)

    return types.uint64(types.float64), generate


@intrinsic
def transposed(typing, table, numbers, first):
    """Load the 16 rows numbers[first], numbers[first + 1], ... of a table, as one vector of `exact` lanes per column.

    Args:
        table: float32 [N, 8].
        numbers: uint32 array.
        first: index of the first number.
    """
    return types.UniTuple(simd.exact, 8)(table, numbers, types.int64), _transposed(8)


@intrinsic
def transposed_short(typing, table, numbers, first):
    """As `transposed`, of a table [N, 4] of float32, or of uint32, whose bits are returned."""
    return types.UniTuple(simd.exact, 4)(table, numbers, types.int64), _transposed(4)


def _transposed(columns):
    """Return the generator of `transposed`."""

    def generate(context, builder, signature, arguments):
        table, numbers, first = arguments
        data = context.make_array(signature.args[0])(context, builder, table).data
        places = context.make_array(signature.args[1])(context, builder, numbers).data
        lanes = _columns(builder, data, places, first, columns, columns, 0)
        return context.make_tuple(builder, signature.return_type, lanes)

    return generate


def _columns(builder, data, places, first, columns, length, column):
    """Return some columns of the 16 rows of a table, whose numbers are at `places[first]`, as vectors of 16 lanes.

    Args:
        columns: how many, a power of two.
        length: of a row.
        column: the first.
    """
    row_type = ir.VectorType(_FLOAT, columns)
    rows = []
    for i in range(LANES):
        place = builder.gep(places, [builder.add(first, ir.Constant(_INT64, i))])
        number = builder.mul(builder.zext(builder.load(place), _INT64), ir.Constant(_INT64, length))
        address = builder.gep(data, [builder.add(number, ir.Constant(_INT64, column))])
        rows.append(_load(builder, builder.bitcast(address, row_type.as_pointer())))
    # Interleaving two vectors whose rows are n / 2 apart, for n = 16, 8, 4, 2, transposes: row i and row i + n / 2
    # alternate in every column. Vectors longer than 16 lanes are split into halves.
    while len(rows) > 1 and rows[0].type.count < LANES:
        rows = [_interleave(builder, a, b)[0] for a, b in _halves(rows)]
    parts = [[row] for row in rows]
    while len(parts) > 1:
        parts = [
            [half for a, b in zip(low, high, strict=True) for half in _interleave(builder, a, b)]
            for low, high in _halves(parts)
        ]
    return parts[0]


def _halves(items):
    half = len(items) // 2
    return list(zip(items[:half], items[half:], strict=True))


def _interleave(builder, a, b):
    """Return the elements of two vectors in turn: one vector of twice the length, or two if they have 16 lanes."""
    count = a.type.count
    order = [i // 2 + count * (i % 2) for i in range(2 * count)]
    size = min(2 * count, LANES)
    return [
        builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, size), order[i : i + size]))
        for i in range(0, 2 * count, size)
    ]


@intrinsic
def set_up_triangles(typing, points, numbers, tile_x, tile_y, out):
    """Prepare 16 records for a tile: see `kernels._set_up`, whose arithmetic this is.

    Args:
        points: float32 array [R, 12] of `layout.Records`.
        numbers: uint32 array [16], the records.
        tile_x, tile_y: place of the tile, pixels, int64.
        out: float32 array [17 * 16], output, 16 values of each: slope in x, slope in y and value at the corner of the
            tile of three edges and of 1 / w; what samples must exceed at the edges; least and largest 1 / w.
    """

    def generate(context, builder, signature, arguments):
        points, numbers, tile_x, tile_y, out = arguments
        wide, kinds = ir.VectorType(ir.DoubleType(), LANES), signature.args
        data = context.make_array(kinds[0])(context, builder, points).data
        places = context.make_array(kinds[1])(context, builder, numbers).data
        corners = [
            _columns(builder, data, places, ir.Constant(_INT64, 0), 4, 12, 4 * corner)[:3]
            for corner in range(3)
        ]
        (x0, y0, q0), (x1, y1, q1), (x2, y2, q2) = corners
        depths = q0, q1, q2
        left, top = (
            _broadcast(builder, builder.sitofp(value, ir.DoubleType())) for value in (tile_x, tile_y)
        )
        add, subtract, multiply = builder.fadd, builder.fsub, builder.fmul
        zero, half = ir.Constant(_FLOATS, [0.0] * LANES), ir.Constant(wide, [-0.5] * LANES)

        def widened(value):
            return builder.fpext(value, wide)

        edges, planes, limits = [], [], []
        for xj, yj, xk, yk in ((x1, y1, x2, y2), (x2, y2, x0, y0), (x0, y0, x1, y1)):
            a, b = subtract(yj, yk), subtract(xk, xj)
            c = multiply(half, widened(add(multiply(a, add(xj, xk)), multiply(b, add(yj, yk)))))
            value = add(multiply(widened(a), left), add(multiply(widened(b), top), c))
            edges.append((a, b))
            planes += [a, b, builder.fptrunc(value, _FLOATS)]
            level = builder.and_(builder.fcmp_ordered("==", a, zero), builder.fcmp_ordered(">", b, zero))
            owned = builder.or_(builder.fcmp_ordered(">", a, zero), level)
            limits.append(builder.select(owned, ir.Constant(_FLOATS, [TINY] * LANES), zero))
        area = multiply(subtract(x1, x0), subtract(y2, y0))
        area = subtract(area, multiply(subtract(x2, x0), subtract(y1, y0)))
        inverse = builder.fdiv(ir.Constant(wide, [1.0] * LANES), widened(area))
        value = widened(q0)
        for n, (tile, origin) in enumerate(((left, x0), (top, y0))):
            terms = [multiply(edge[n], q) for edge, q in zip(edges, depths, strict=True)]
            slope = multiply(widened(add(add(terms[0], terms[1]), terms[2])), inverse)
            planes.append(builder.fptrunc(slope, _FLOATS))
            value = add(value, multiply(slope, subtract(tile, widened(origin))))
        planes.append(builder.fptrunc(value, _FLOATS))
        results = planes + limits
        for comparison in ("<", ">"):
            extreme = depths[0]
            for depth in depths[1:]:
                extreme = builder.select(builder.fcmp_ordered(comparison, extreme, depth), extreme, depth)
            results.append(extreme)
        for n, value in enumerate(results):
            place = ir.Constant(_INT64, LANES * n)
            _store(builder, value, _address(context, builder, kinds[4], out, place, _FLOATS))
        return context.get_dummy_value()

    return types.void(points, numbers, types.int64, types.int64, out), generate


@intrinsic
def triangle_boxes(typing, x0, y0, w0, x1, y1, w1, x2, y2, w2, near, margin, width, height, boxes):
    """Find the pixels that 16 triangles can cover: see `kernels._assemble` for what is left out.

    Args:
        x0 to w2: `exact` lanes, the corners on screen, pixels, and their depths.
        near: depth of the near plane.
        margin: by how much boxes are smaller than the triangles on every side, pixels.
        width, height: of the image, int64.
        boxes: int32 array [64], output: left of 16 boxes, their tops, and one past right and bottom.
    Returns:
        The bits (int64) of the triangles in front of the near plane with finite corners; of those among them that have
        an area and touch the image, and whose box is not empty; and of those whose area is positive.
    """

    def generate(context, builder, signature, arguments):
        *corners, near, margin, width, height, boxes = arguments
        wide, whole = ir.VectorType(ir.DoubleType(), LANES), _INTS

        def everywhere(value):
            if isinstance(value, float):
                return ir.Constant(wide, [value] * LANES)
            if value.type == _INT64:
                value = builder.sitofp(value, ir.DoubleType())
            return _broadcast(builder, value)

        def extreme(comparison, *values):
            result = values[0]
            for value in values[1:]:
                result = builder.select(builder.fcmp_ordered(comparison, result, value), result, value)
            return result

        def floor(value):
            return simd._call(builder, "llvm.floor.v16f64", wide, value)

        def all_of(*conditions):
            result = conditions[0]
            for condition in conditions[1:]:
                result = builder.and_(result, condition)
            return result

        x0, y0, _, x1, y1, _, x2, y2, _ = corners
        first = builder.fmul(builder.fsub(x1, x0), builder.fsub(y2, y0))
        area = builder.fsub(first, builder.fmul(builder.fsub(x2, x0), builder.fsub(y1, y0)))
        flat = ir.Constant(_FLOATS, [0.0] * LANES)
        x0, y0, w0, x1, y1, w1, x2, y2, w2 = (builder.fpext(value, wide) for value in corners)
        near, margin, width, height = (everywhere(value) for value in (near, margin, width, height))
        zero, one = everywhere(0.0), everywhere(1.0)
        usual = [builder.fcmp_ordered("==", area, area)]  # not if it is too large for float32
        usual += [builder.fcmp_ordered(">=", value, near) for value in (w0, w1, w2)]
        usual += [
            builder.fcmp_ordered("<", simd._call(builder, "llvm.fabs.v16f64", wide, value), everywhere(1e30))
            for value in (x0, y0, w0, x1, y1, w1, x2, y2, w2)
        ]
        usual = all_of(*usual)
        left, right = extreme("<", x0, x1, x2), extreme(">", x0, x1, x2)
        top, bottom = extreme("<", y0, y1, y2), extreme(">", y0, y1, y2)
        touched = all_of(
            usual,
            builder.fcmp_ordered("!=", area, flat),
            builder.fcmp_ordered(">", right, zero),
            builder.fcmp_ordered(">", bottom, zero),
            builder.fcmp_ordered("<", left, width),
            builder.fcmp_ordered("<", top, height),
        )
        left = extreme(">", floor(builder.fadd(left, margin)), zero)
        top = extreme(">", floor(builder.fadd(top, margin)), zero)
        right = extreme("<", builder.fadd(floor(builder.fsub(right, margin)), one), width)
        bottom = extreme("<", builder.fadd(floor(builder.fsub(bottom, margin)), one), height)
        touched = all_of(
            touched, builder.fcmp_ordered("<", left, right), builder.fcmp_ordered("<", top, bottom)
        )
        for n, side in enumerate((left, top, right, bottom)):
            # Only the boxes of `touched` triangles are read: the others may be out of range.
            side = builder.select(touched, side, zero)
            place = ir.Constant(_INT64, LANES * n)
            address = _address(context, builder, signature.args[13], boxes, place, whole)
            _store(builder, builder.fptosi(side, whole), address)
        positive = builder.fcmp_ordered(">", area, flat)
        bits = [_bits(builder, mask) for mask in (usual, touched, positive)]
        return context.make_tuple(builder, signature.return_type, bits)

    lanes, scalars = [simd.exact] * 9, [types.float64, types.float64, types.int64, types.int64]
    return types.UniTuple(types.int64, 3)(*lanes, *scalars, boxes), generate


@intrinsic
def load_quad(typing, array, index):
    """Load four consecutive float32 values."""

    def generate(context, builder, signature, arguments):
        return _load(builder, _address(context, builder, signature.args[0], *arguments, simd.quads.vector))

    return simd.quads(array, types.int64), generate


@intrinsic
def load_channels(typing, array, index):
    """Load 16 quads of consecutive float32 values: the first of each, the second, the third and the fourth."""

    def generate(context, builder, signature, arguments):
        array, index = arguments
        kind, low, high = signature.args[0], range(8), range(8, LANES)

        def shuffle(a, b, order):
            return builder.shuffle_vector(a, b, ir.Constant(_INTS, list(order)))

        quads = []
        for i in range(4):
            place = builder.add(index, ir.Constant(_INT64, LANES * i))
            quads.append(_load(builder, _address(context, builder, kind, array, place, _FLOATS)))
        # Of eight quads each: their first and second values, and their third and fourth ones.
        pairs = [
            [shuffle(a, b, [4 * i + first + n for n in (0, 1) for i in low]) for first in (0, 2)]
            for a, b in (quads[:2], quads[2:])
        ]
        channels = [
            shuffle(pairs[0][c // 2], pairs[1][c // 2], [*part, *(LANES + i for i in part)])
            for c, part in enumerate((low, high, low, high))
        ]
        return context.make_tuple(builder, signature.return_type, channels)

    return types.UniTuple(simd.exact, 4)(array, types.int64), generate


@intrinsic
def store_quads(typing, array, index, a, b, c, d):
    """Store 16 quads of consecutive float32 values, given the first values of all, `exact` lanes, the second ones …"""

    def generate(context, builder, signature, arguments):
        array, index, *values = arguments
        _store_quads(context, builder, signature.args[0], array, index, values)
        return context.get_dummy_value()

    return types.void(array, types.int64, a, b, c, d), generate


def _store_quads(context, builder, kind, array, index, values):
    first, second = (_interleave(builder, *pair) for pair in (values[0::2], values[1::2]))
    quads = [part for pair in zip(first, second, strict=True) for part in _interleave(builder, *pair)]
    for i, part in enumerate(quads):
        place = builder.add(index, ir.Constant(_INT64, LANES * i))
        _store(builder, part, _address(context, builder, kind, array, place, _FLOATS))


@intrinsic
def project_points(typing, points, first, matrix, least, out):
    """Project 16 points: see `kernels._project`, whose arithmetic this is.

    Args:
        points: float32 array [N, 3], and first: the first point, int64.
        matrix: float64 array [3, 4].
        least: replaces depths that are closer to 0, float64.
        out: float32 array [N, 4].
    """

    def generate(context, builder, signature, arguments):
        points, first, matrix, least, out = arguments
        wide, kinds = ir.VectorType(ir.DoubleType(), LANES), signature.args
        start, parts = builder.mul(first, ir.Constant(_INT64, 3)), []
        for i in range(3):
            place = builder.add(start, ir.Constant(_INT64, LANES * i))
            parts.append(_load(builder, _address(context, builder, kinds[0], points, place, _FLOATS)))
        coordinates = []
        for axis in range(3):
            # Value 3 i + axis of the three vectors, those of the first two and then all.
            places = [3 * i + axis for i in range(LANES)]
            two = [p if p < 2 * LANES else 0 for p in places]
            three = [i if p < 2 * LANES else p - LANES for i, p in enumerate(places)]
            value = builder.shuffle_vector(parts[0], parts[1], ir.Constant(_INTS, two))
            value = builder.shuffle_vector(value, parts[2], ir.Constant(_INTS, three))
            coordinates.append(builder.fpext(value, wide))
        data = context.make_array(kinds[2])(context, builder, matrix).data

        def row(number):
            values = [
                _broadcast(builder, builder.load(builder.gep(data, [ir.Constant(_INT64, 4 * number + n)])))
                for n in range(4)
            ]
            terms = [builder.fmul(*pair) for pair in zip(values, coordinates, strict=False)]
            return builder.fadd(builder.fadd(builder.fadd(terms[0], terms[1]), terms[2]), values[3])

        x, y, w = (row(number) for number in range(3))
        least = _broadcast(builder, least)
        size = simd._call(builder, "llvm.fabs.v16f64", wide, w)
        w = builder.select(builder.fcmp_ordered("<", size, least), least, w)
        q = builder.fdiv(ir.Constant(wide, [1.0] * LANES), w)
        values = [builder.fptrunc(v, _FLOATS) for v in (builder.fmul(x, q), builder.fmul(y, q), q, w)]
        index = builder.mul(first, ir.Constant(_INT64, 4))
        _store_quads(context, builder, kinds[4], out, index, values)
        return context.get_dummy_value()

    return types.void(points, types.int64, matrix, types.float64, out), generate


@intrinsic
def make_quad(typing, a, b, c, d):
    """Return four float32 values as lanes."""

    def generate(context, builder, signature, arguments):
        result = ir.Constant(simd.quads.vector, ir.Undefined)
        for i, value in enumerate(arguments):
            result = builder.insert_element(result, value, ir.Constant(_INT32, i))
        return result

    return simd.quads(*[types.float32] * 4), generate


@intrinsic
def blend_four(typing, colors, place, color, alphas, mask):
    """Blend a colour over some of the four samples of a pixel.

    Args:
        colors: float32 array, premultiplied RGBA of samples.
        place: index of the first value of the first sample.
        color: four lanes, RGBA.
        alphas: four lanes, one for each sample.
        mask: int64, bits of the samples.
    """

    def generate(context, builder, signature, arguments):
        colors, place, color, alphas, mask = arguments
        address = _address(context, builder, signature.args[0], colors, place, _FLOATS)
        behind = _load(builder, address)
        color = builder.shuffle_vector(color, color, ir.Constant(_INTS, [i % 4 for i in range(LANES)]))
        alpha = builder.shuffle_vector(alphas, alphas, ir.Constant(_INTS, [i // 4 for i in range(LANES)]))
        rest = builder.fsub(ir.Constant(_FLOATS, [1.0] * LANES), alpha)
        blended = builder.fadd(builder.fmul(color, alpha), builder.fmul(behind, rest))
        bits = _broadcast(builder, builder.trunc(mask, _INT32))
        bits = builder.and_(bits, ir.Constant(_INTS, [1 << i // 4 for i in range(LANES)]))
        inside = builder.icmp_unsigned("!=", bits, ir.Constant(_INTS, [0] * LANES))
        _store(builder, builder.select(inside, blended, behind), address)
        return context.get_dummy_value()

    return types.void(colors, types.int64, color, alphas, types.int64), generate


@intrinsic
def texture_levels(typing, offsets, first, width, height, level):
    """Return the index of the first texel, the width and the height of levels of a texture: bits of int32 as lanes.

    Args:
        offsets, first: int64 array; offsets[first + l] is the first texel of level l.
        width, height: of level 0.
        level: `exact` lanes of integers.
    """

    def generate(context, builder, signature, arguments):
        offsets, first, width, height, level = arguments
        starts = context.make_array(signature.args[0])(context, builder, offsets).data
        starts = builder.gep(starts, [first])
        levels, one = builder.fptosi(level, _INTS), ir.Constant(_INTS, [1] * LANES)
        start = ir.Constant(_INTS, ir.Undefined)
        for i, number in enumerate(_scalars(builder, levels)):
            offset = builder.trunc(builder.load(builder.gep(starts, [number])), _INT32)
            start = builder.insert_element(start, offset, ir.Constant(_INT32, i))
        results = [start]
        for size in (width, height):
            side = builder.lshr(_broadcast(builder, builder.trunc(size, _INT32)), levels)
            results.append(builder.select(builder.icmp_signed(">", side, one), side, one))
        results = [builder.bitcast(value, _FLOATS) for value in results]
        return context.make_tuple(builder, signature.return_type, results)

    sizes = (types.int64, types.int64, types.int64)
    return types.UniTuple(simd.exact, 3)(offsets, *sizes, simd.exact), generate


@intrinsic
def bilinear(typing, texels, start, width, height, u, v, nearest, squared):
    """Interpolate RGB at 16 places of a texture, a tuple of three `exact` vectors, 0..255.

    Args:
        texels: uint32 array.
        start, width, height: see `texture_levels`.
        u, v: `exact` lanes, 0..1 (or more by rounding, see `kernels._fold_lanes`).
        nearest: bool, return the nearest texel instead of interpolating four.
        squared: mask of the lanes in which the squares of colours are interpolated, nearly linear light.
    """
    lanes = (*[simd.exact] * 5, types.boolean, squared)
    return types.UniTuple(simd.exact, 3)(texels, *lanes), _bilinear(3, linear=False)


@intrinsic
def bilinear_encoded(typing, texels, start, width, height, u, v, nearest):
    """As `bilinear`, squared in no lane."""
    lanes = (*[simd.exact] * 5, types.boolean)
    return types.UniTuple(simd.exact, 3)(texels, *lanes), _bilinear(3, linear=False)


@intrinsic
def bilinear_linear(typing, texels, start, width, height, u, v, nearest):
    """As `bilinear`, squared in all lanes; RGBA."""
    lanes = (*[simd.exact] * 5, types.boolean)
    return types.UniTuple(simd.exact, 4)(texels, *lanes), _bilinear(4, linear=True)


def _bilinear(channels, linear):
    """Return the generator of `bilinear` for the first channels; `linear`: squared in all lanes."""

    def generate(context, builder, signature, arguments):
        texels, start, width, height, u, v, nearest, *squared = arguments
        data = context.make_array(signature.args[0])(context, builder, texels).data
        start, width, height = (builder.bitcast(value, _INTS) for value in (start, width, height))
        place, stride, right, down = _texel_places(builder, start, width, height, u, v, nearest)
        upper, lower = _scalars(builder, place), _scalars(builder, builder.add(place, stride))
        # Upper left, upper right, lower left, lower right.
        quads = [*_texel_pairs(builder, data, upper), *_texel_pairs(builder, data, lower)]

        def channel(texel, number):
            value = builder.lshr(texel, ir.Constant(_INTS, [8 * number] * LANES))
            value = builder.and_(value, ir.Constant(_INTS, [255] * LANES)) if number < 3 else value
            return builder.uitofp(value, _FLOATS)

        def mix(first, second, weight):
            return builder.fadd(first, builder.fmul(weight, builder.fsub(second, first)))

        def four(values):
            return mix(mix(values[0], values[1], right), mix(values[2], values[3], right), down)

        def where_squared(yes, no):
            return yes if linear else builder.select(squared[0], yes, no)

        result = []
        for number in range(channels):
            values = [channel(texel, number) for texel in quads]
            if number == 3 or not (linear or squared):
                result.append(four(values))
                continue
            mixed = four([where_squared(builder.fmul(value, value), value) for value in values])
            root = simd._call(builder, "llvm.sqrt.v16f32", _FLOATS, mixed)
            result.append(where_squared(root, mixed))
        return context.make_tuple(builder, signature.return_type, result)

    return generate


def _texel_pairs(builder, data, places):
    """Load 16 texels and their right neighbours, a texel and its neighbour at once, as two vectors."""
    parts = []
    # Pairs 0, 1 of each group of four, then 2, 3: separating them takes one instruction within registers of four lanes.
    for order in ([0, 1], [2, 3]):
        pairs = ir.Constant(ir.VectorType(_INT64, LANES // 2), ir.Undefined)
        for i, lane in enumerate(4 * group + n for group in range(LANES // 4) for n in order):
            address = builder.bitcast(builder.gep(data, [places[lane]]), _INT64.as_pointer())
            pairs = builder.insert_element(pairs, _load(builder, address), ir.Constant(_INT32, i))
        parts.append(builder.bitcast(pairs, _INTS))
    texels = [LANES * (n // 2 % 2) + n // 4 * 4 + 2 * (n % 2) for n in range(LANES)]
    return [builder.shuffle_vector(*parts, ir.Constant(_INTS, [n + side for n in texels])) for side in (0, 1)]


def _texel_places(builder, start, width, height, u, v, nearest):
    """Return the numbers of the upper left texels, the numbers of texels per row, and the weights, in lanes."""

    def constant(value):
        return ir.Constant(_INTS, [value] * LANES)

    def whole(value):
        return builder.sitofp(value, _FLOATS)

    texel, weights = [], []
    half = ir.Constant(_FLOATS, [0.5] * LANES)
    for side, coordinate in ((width, u), (height, v)):
        # Position in texels of the level; the border is texel 0. As the coordinate is at most 1, the number is at most
        # that of the last texel before the border.
        place = builder.fmul(coordinate, whole(side))
        linear = builder.fadd(place, half)
        number = builder.fptosi(linear, _INTS)
        weight = builder.fsub(linear, whole(number))
        own, last = builder.fptosi(place, _INTS), builder.sub(side, constant(1))
        own = builder.select(builder.icmp_signed("<", own, last), own, last)
        texel.append(builder.select(nearest, builder.add(own, constant(1)), number))
        weights.append(builder.select(nearest, ir.Constant(_FLOATS, [0.0] * LANES), weight))
    stride = builder.add(width, constant(2))
    place = builder.add(start, builder.add(builder.mul(texel[1], stride), texel[0]))
    return place, stride, weights[0], weights[1]


@intrinsic
def pixel_places(typing, coverage, first, block_shift, across_shift):
    """Return x and y in the tile, `exact` lanes, of the pixels of 16 fragments.

    Args:
        coverage: uint32 array, see `layout.Work`; pixels as numbered by `layout.Grid`.
        first: index of the first fragment.
        block_shift, across_shift: base 2 logarithms of the pixels per side of a block and of the blocks per row.
    """

    def generate(context, builder, signature, arguments):
        coverage, first, *shifts = arguments
        shift, across = (_broadcast(builder, builder.trunc(value, _INT32)) for value in shifts)
        one = ir.Constant(_INTS, [1] * LANES)
        low = builder.sub(builder.shl(one, shift), one)
        number = _load(builder, _address(context, builder, signature.args[0], coverage, first, _INTS))
        number = builder.lshr(number, ir.Constant(_INTS, [PIXEL_SHIFT] * LANES))
        block = builder.lshr(number, builder.add(shift, shift))
        column = builder.and_(block, builder.sub(builder.shl(one, across), one))
        x = builder.add(builder.shl(column, shift), builder.and_(number, low))
        y = builder.and_(builder.lshr(number, shift), low)
        y = builder.add(builder.shl(builder.lshr(block, across), shift), y)
        places = [builder.uitofp(value, _FLOATS) for value in (x, y)]
        return context.make_tuple(builder, signature.return_type, places)

    return types.UniTuple(simd.exact, 2)(coverage, types.int64, types.int64, types.int64), generate


@intrinsic
def exponents(typing, value):
    """Return floor(log2(value)) of `exact` lanes of positive, normal numbers."""

    def generate(context, builder, signature, arguments):
        word = builder.lshr(builder.bitcast(arguments[0], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.sitofp(builder.sub(word, ir.Constant(_INTS, [127] * LANES)), _FLOATS)

    return simd.exact(simd.exact), generate


@intrinsic
def bits_to_mask(typing, bits):
    """Return lanes that are set where bits 0..15 of an int64 are."""

    def generate(context, builder, signature, arguments):
        word = builder.trunc(arguments[0], ir.IntType(LANES))
        return builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))

    return simd._MASKS[LANES](types.int64), generate


@intrinsic
def bit_set(typing, words, first, bit):
    """Return lanes that are set where a bit of the 16 words of a uint32 array from `first` on is."""

    def generate(context, builder, signature, arguments):
        words, first, bit = arguments
        value = _load(builder, _address(context, builder, signature.args[0], words, first, _INTS))
        value = builder.lshr(value, _broadcast(builder, builder.trunc(bit, _INT32)))
        value = builder.and_(value, ir.Constant(_INTS, [1] * LANES))
        return builder.icmp_unsigned("!=", value, ir.Constant(_INTS, [0] * LANES))

    return simd._MASKS[LANES](words, types.int64, types.int64), generate


@intrinsic
def mix_alpha(typing, alphas, start, stride, x, y):
    """Interpolate alpha at 16 places of a texture, 0..255.

    Args:
        alphas: uint32 array, see `layout.Materials`.
        start: index of the first texel of the level.
        stride: distance to the texel below.
        x, y: `exact` lanes, places in texels, not negative.
    """

    def generate(context, builder, signature, arguments):
        alphas, start, stride, x, y = arguments
        column, row = builder.fptosi(x, _INTS), builder.fptosi(y, _INTS)
        right = builder.fsub(x, builder.sitofp(column, _FLOATS))
        down = builder.fsub(y, builder.sitofp(row, _FLOATS))
        place = builder.add(builder.mul(row, _broadcast(builder, builder.trunc(stride, _INT32))), column)
        data = context.make_array(signature.args[0])(context, builder, alphas).data
        data = builder.gep(data, [start])
        quads = ir.Constant(_INTS, ir.Undefined)
        for i, index in enumerate(_scalars(builder, place)):
            value = builder.load(builder.gep(data, [index]))
            quads = builder.insert_element(quads, value, ir.Constant(_INT32, i))

        def alpha(number):
            value = builder.lshr(quads, ir.Constant(_INTS, [8 * number] * LANES))
            return builder.uitofp(builder.and_(value, ir.Constant(_INTS, [255] * LANES)), _FLOATS)

        def mix(first, second, weight):
            return builder.fadd(first, builder.fmul(weight, builder.fsub(second, first)))

        return mix(mix(alpha(0), alpha(1), right), mix(alpha(2), alpha(3), right), down)

    return simd.exact(alphas, types.int64, types.int64, simd.exact, simd.exact), generate


@intrinsic
def store_bytes(typing, out, red, green, blue, alpha):
    """Write 16 colours, `exact` lanes of 0..255, as RGBA bytes to uint32 [16], truncated."""

    def generate(context, builder, signature, arguments):
        out, *channels = arguments
        pixel = None
        for i, channel in enumerate(channels):
            value = builder.shl(builder.fptosi(channel, _INTS), ir.Constant(_INTS, [8 * i] * LANES))
            pixel = value if pixel is None else builder.or_(pixel, value)
        _store(
            builder, pixel, _address(context, builder, signature.args[0], out, ir.Constant(_INT64, 0), _INTS)
        )
        return context.get_dummy_value()

    return types.void(out, red, green, blue, alpha), generate


def _pixel_writer(side):
    """Return an intrinsic that writes 16 pixels of `layout.Grid` order, in blocks of `side` pixels, to an image."""

    @intrinsic
    def write(typing, values, image, place, stride):
        """Write uint32 [16] to a uint32 image; place: index of the first pixel, stride: pixels per row."""

        def generate(context, builder, signature, arguments):
            values, image, place, stride = arguments
            pixels = _load(
                builder,
                _address(context, builder, signature.args[0], values, ir.Constant(_INT64, 0), _INTS),
            )
            blocks, size = LANES // (side * side), LANES // side
            for row in range(side):
                order = [b * side * side + row * side + x for b in range(blocks) for x in range(side)]
                line = builder.shuffle_vector(pixels, pixels, ir.Constant(ir.VectorType(_INT32, size), order))
                address = _address(context, builder, signature.args[1], image, place, line.type)
                _store(builder, line, address)
                place = builder.add(place, stride)
            return context.get_dummy_value()

        return types.void(values, image, types.int64, types.int64), generate

    return write


# By the pixels per side of a block.
write_1, write_2, write_4 = _pixel_writer(1), _pixel_writer(2), _pixel_writer(4)


@intrinsic
def fill_16(typing, image, place, value):
    """Write a uint32 to 16 pixels of a row of an image, the first of which has the index `place`."""

    def generate(context, builder, signature, arguments):
        image, place, value = arguments
        address = _address(context, builder, signature.args[0], image, place, _INTS)
        _store(builder, _broadcast(builder, value), address)
        return context.get_dummy_value()

    return types.void(image, types.int64, types.uint32), generate


@intrinsic
def lane_numbers(typing):
    """Return `exact` lanes 0, 1, ..., 15."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_FLOATS, list(range(LANES)))

    return simd.exact(), generate


def _extreme(comparison):
    @intrinsic
    def reduce(typing, value):
        """Return the largest (smallest) of 16 `exact` lanes; NaN compares as neither."""

        def generate(context, builder, signature, arguments):
            lanes = arguments[0]
            for half in (8, 4, 2, 1):
                other = builder.shuffle_vector(
                    lanes, lanes, ir.Constant(_INTS, [(i + half) % LANES for i in range(LANES)])
                )
                lanes = builder.select(builder.fcmp_ordered(comparison, lanes, other), lanes, other)
            return builder.extract_element(lanes, ir.Constant(_INT32, 0))

        return types.float32(simd.exact), generate

    return reduce


largest, smallest = _extreme(">"), _extreme("<")


@intrinsic
def covered(typing, ids, place):
    """Return the mask (int64) of the 16 samples from `place` on whose number is not negative."""

    def generate(context, builder, signature, arguments):
        value = _load(builder, _address(context, builder, signature.args[0], *arguments, _INTS))
        return _bits(builder, builder.icmp_signed(">=", value, ir.Constant(_INTS, [0] * LANES)))

    return types.int64(ids, types.int64), generate


@intrinsic
def covered_in_four(typing, ids, place):
    """As `covered`, of the 64 samples from `place` on: a bit of the mask is set if any of four samples is covered."""

    def generate(context, builder, signature, arguments):
        ids, place = arguments
        value = None
        for i in range(4):
            first = builder.add(place, ir.Constant(_INT64, LANES * i))
            part = _load(builder, _address(context, builder, signature.args[0], ids, first, _INTS))
            value = part if value is None else builder.and_(value, part)
        return _bits(builder, builder.icmp_signed(">=", value, ir.Constant(_INTS, [0] * LANES)))

    return types.int64(ids, types.int64), generate


@intrinsic
def block_boxes(typing, boxes, numbers, tile_x, tile_y, tile_width, tile_height, shift, across):
    """Find the blocks of a tile that 16 boxes of pixels touch.

    Args:
        boxes: int32 [R, 4], see `layout.Records`; numbers: uint32 [16], the boxes.
        tile_x, tile_y, tile_width, tile_height: of the tile, pixels, int64.
        shift, across: base 2 logarithms of the width of a block and of a tile, int64.
    Returns:
        x and y of the first block in the tile, pixels; how many blocks it is wide and tall; and the index of the first
        sample of the first block, bits of int32. All `exact` lanes.
    """

    def generate(context, builder, signature, arguments):
        boxes, numbers, *scalars = arguments
        data = context.make_array(signature.args[0])(context, builder, boxes).data
        places = context.make_array(signature.args[1])(context, builder, numbers).data
        columns = _columns(builder, data, places, ir.Constant(_INT64, 0), 4, 4, 0)
        left, top, right, bottom = (builder.bitcast(column, _INTS) for column in columns)
        x, y, width, height, shift, across = (
            _broadcast(builder, builder.trunc(value, _INT32)) for value in scalars
        )
        zero, one = ir.Constant(_INTS, [0] * LANES), ir.Constant(_INTS, [1] * LANES)
        results, firsts, sizes = [], [], []
        for low, high, tile, size in ((left, right, x, width), (top, bottom, y, height)):
            low, high = builder.sub(low, tile), builder.sub(high, tile)
            low = builder.select(builder.icmp_signed(">", low, zero), low, zero)
            high = builder.select(builder.icmp_signed("<", high, size), high, size)
            first, last = builder.lshr(low, shift), builder.ashr(builder.sub(high, one), shift)
            firsts.append(first)
            results.append(builder.sitofp(builder.shl(first, shift), _FLOATS))
            sizes.append(builder.sitofp(builder.add(builder.sub(last, first), one), _FLOATS))
        place = builder.add(builder.shl(firsts[1], builder.sub(across, shift)), firsts[0])
        place = builder.shl(place, ir.Constant(_INTS, [4] * LANES))
        return context.make_tuple(
            builder, signature.return_type, [*results, *sizes, builder.bitcast(place, _FLOATS)]
        )

    return types.UniTuple(simd.exact, 5)(boxes, numbers, *[types.int64] * 6), generate


@intrinsic
def with_bit(typing, words, chosen, bit):
    """Set a bit, 0..31, in the chosen ones of 16 words, the bits of `exact` lanes."""

    def generate(context, builder, signature, arguments):
        words, chosen, bit = arguments
        one, zero = ir.Constant(_INTS, [1] * LANES), ir.Constant(_INTS, [0] * LANES)
        value = builder.shl(one, _broadcast(builder, builder.trunc(bit, _INT32)))
        result = builder.or_(builder.bitcast(words, _INTS), builder.select(chosen, value, zero))
        return builder.bitcast(result, _FLOATS)

    return simd.exact(words, chosen, types.int64), generate


@intrinsic
def store_short(typing, out, words):
    """Write the lower halves of 16 words, the bits of `exact` lanes, to int64 [4], four in each."""

    def generate(context, builder, signature, arguments):
        short = ir.VectorType(ir.IntType(16), LANES)
        value = builder.trunc(builder.bitcast(arguments[1], _INTS), short)
        address = _address(context, builder, signature.args[0], arguments[0], ir.Constant(_INT64, 0), short)
        builder.store(value, address).align = 8
        return context.get_dummy_value()

    return types.void(out, words), generate
