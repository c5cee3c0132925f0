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

LANES = 16

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


def _bits(builder, mask):
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _INT64)


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
        kinds = signature.args
        z = builder.select(inside, builder.bitcast(depth, _INTS), ir.Constant(_INTS, [0] * LANES))
        z_address = _address(context, builder, kinds[0], depths, place, _INTS)
        id_address = _address(context, builder, kinds[1], ids, place, _INTS)
        before, owner = _load(builder, z_address), _load(builder, id_address)
        nearer = builder.icmp_signed(">", z, before)
        _store(builder, builder.select(nearer, z, before), z_address)
        _store(builder, builder.select(nearer, _broadcast(builder, number), owner), id_address)
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
def like_first_of_four(typing, ids, place):
    """Return the mask (int64) of the 16 samples from `place` on with the number of the first of their group of four."""

    def generate(context, builder, signature, arguments):
        value = _load(builder, _address(context, builder, signature.args[0], *arguments, _INTS))
        firsts = ir.Constant(_INTS, [i // 4 * 4 for i in range(LANES)])
        return _bits(builder, builder.icmp_signed("==", value, builder.shuffle_vector(value, value, firsts)))

    return types.int64(ids, types.int64), generate


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
def transposed(typing, table, numbers, first):
    """Load the 16 rows numbers[first], numbers[first + 1], ... of a table, as one vector of `exact` lanes per column.

    Args:
        table: float32 [N, 8].
        numbers: uint32 array.
        first: index of the first number.
    """
    return _transposed(table, numbers, 8)


@intrinsic
def transposed_short(typing, table, numbers, first):
    """As `transposed`, of a table float32 [N, 4]."""
    return _transposed(table, numbers, 4)


def _transposed(table, numbers, columns):
    def generate(context, builder, signature, arguments):
        row_type = ir.VectorType(_FLOAT, columns)
        table, numbers, first = arguments
        data = context.make_array(signature.args[0])(context, builder, table).data
        places = context.make_array(signature.args[1])(context, builder, numbers).data
        rows = []
        for i in range(LANES):
            place = builder.gep(places, [builder.add(first, ir.Constant(_INT64, i))])
            number = builder.zext(builder.load(place), _INT64)
            address = builder.gep(data, [builder.mul(number, ir.Constant(_INT64, columns))])
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
        return context.make_tuple(builder, signature.return_type, parts[0])

    return types.UniTuple(simd.exact, columns)(table, numbers, types.int64), generate


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
def load_quad(typing, array, index):
    """Load four consecutive float32 values."""

    def generate(context, builder, signature, arguments):
        return _load(builder, _address(context, builder, signature.args[0], *arguments, simd.quads.vector))

    return simd.quads(array, types.int64), generate


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
def within(typing, value, limit):
    """Return whether all four lanes are at least 0 and less than a limit."""

    def generate(context, builder, signature, arguments):
        value, limit = arguments
        limits = simd._broadcast(builder, limit, 4)
        above = builder.fcmp_ordered(">=", value, ir.Constant(simd.quads.vector, [0.0] * 4))
        both = builder.and_(above, builder.fcmp_ordered("<", value, limits))
        return builder.icmp_unsigned("==", builder.bitcast(both, ir.IntType(4)), ir.IntType(4)(15))

    return types.boolean(simd.quads, types.float32), generate


@intrinsic
def mix_four(typing, texels, start, stride, x, y):
    """Interpolate RGBA at four places of a texture, 0..65535, as `simd.mix_texels` does at one.

    Args:
        texels: uint16 array.
        start: index of the first texel of the level.
        stride: distance to the texel below.
        x, y: four places in texels, not negative.
    Returns:
        `exact` lanes: R, G, B, A of the first place, then of the others.
    """

    def generate(context, builder, signature, arguments):
        texels, start, stride, x, y = arguments
        ints, pair = ir.VectorType(_INT32, 4), ir.VectorType(ir.IntType(16), 8)
        column, row = builder.fptosi(x, ints), builder.fptosi(y, ints)
        right = builder.fsub(x, builder.sitofp(column, simd.quads.vector))
        down = builder.fsub(y, builder.sitofp(row, simd.quads.vector))
        place = builder.add(
            builder.mul(row, simd._broadcast(builder, builder.trunc(stride, _INT32), 4)),
            builder.shl(column, ir.Constant(ints, [2] * 4)),
        )
        each = ir.Constant(_INTS, [i // 4 for i in range(LANES)])
        right, down = (builder.shuffle_vector(value, value, each) for value in (right, down))

        def mixed(offset):
            pairs = []
            for i in range(4):
                index = builder.zext(builder.extract_element(place, ir.Constant(_INT32, i)), _INT64)
                index = builder.add(builder.add(index, start), offset)
                pairs.append(
                    _load_pair(builder, _address(context, builder, signature.args[0], texels, index, pair))
                )
            sixteen = ir.Constant(_INTS, list(range(16)))
            first, second = (builder.shuffle_vector(pairs[i], pairs[i + 1], sixteen) for i in (0, 2))
            sides = [
                builder.shuffle_vector(
                    first, second, ir.Constant(_INTS, [8 * (i // 4) + 4 * side + i % 4 for i in range(LANES)])
                )
                for side in range(2)
            ]
            a, b = (builder.uitofp(builder.zext(side, _INTS), _FLOATS) for side in sides)
            return builder.fadd(a, builder.fmul(right, builder.fsub(b, a)))

        top, bottom = mixed(ir.Constant(_INT64, 0)), mixed(stride)
        return builder.fadd(top, builder.fmul(down, builder.fsub(bottom, top)))

    return simd.exact(texels, types.int64, types.int64, simd.quads, simd.quads), generate


@intrinsic
def mix_channel(typing, texels, start, stride, x, y):
    """Interpolate one channel at 16 places of a texture, 0..65535; arguments as of `mix_four`."""

    def generate(context, builder, signature, arguments):
        texels, start, stride, x, y = arguments
        column, row = builder.fptosi(x, _INTS), builder.fptosi(y, _INTS)
        right = builder.fsub(x, builder.sitofp(column, _FLOATS))
        down = builder.fsub(y, builder.sitofp(row, _FLOATS))
        place = builder.add(
            builder.mul(row, _broadcast(builder, builder.trunc(stride, _INT32))),
            builder.shl(column, ir.Constant(_INTS, [2] * LANES)),
        )
        data = context.make_array(signature.args[0])(context, builder, texels).data
        places = [
            builder.add(builder.zext(builder.extract_element(place, ir.Constant(_INT32, i)), _INT64), start)
            for i in range(LANES)
        ]

        def texel(offset):
            result = ir.Constant(ir.VectorType(ir.IntType(16), LANES), ir.Undefined)
            for i in range(LANES):
                value = builder.load(builder.gep(data, [builder.add(places[i], offset)]))
                result = builder.insert_element(result, value, ir.Constant(_INT32, i))
            return builder.uitofp(builder.zext(result, _INTS), _FLOATS)

        def mix(first, second, weight):
            return builder.fadd(first, builder.fmul(weight, builder.fsub(second, first)))

        one = ir.Constant(_INT64, 4)
        top = mix(texel(ir.Constant(_INT64, 0)), texel(one), right)
        bottom = mix(texel(stride), texel(builder.add(stride, one)), right)
        return mix(top, bottom, down)

    return simd.exact(texels, types.int64, types.int64, simd.exact, simd.exact), generate


@intrinsic
def prefetch(typing, array, index):
    """Tell the processor to load an element of an array into its caches."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments, ir.IntType(8))
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, flag(0), flag(3), flag(1)])  # to read; keep it in all caches; data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _load_pair(builder, address):
    value = builder.load(address)
    value.align = 2
    return value


@intrinsic
def quad(typing, value, number):
    """Return lanes 4 number to 4 number + 3 of 16; `number` is 0, 1, 2 or 3 and constant once loops are unrolled."""

    def generate(context, builder, signature, arguments):
        value, number = arguments
        parts = [
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(_INT32, 4), list(range(4 * i, 4 * i + 4)))
            )
            for i in range(4)
        ]
        result = parts[0]
        for i in range(1, 4):
            chosen = builder.icmp_signed("==", number, ir.Constant(_INT64, i))
            result = builder.select(chosen, parts[i], result)
        return result

    return simd.quads(simd.exact, types.int64), generate


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


@intrinsic
def covered(typing, ids, place):
    """Return the mask (int64) of the 16 samples from `place` on whose number is not negative."""

    def generate(context, builder, signature, arguments):
        value = _load(builder, _address(context, builder, signature.args[0], *arguments, _INTS))
        return _bits(builder, builder.icmp_signed(">=", value, ir.Constant(_INTS, [0] * LANES)))

    return types.int64(ids, types.int64), generate
