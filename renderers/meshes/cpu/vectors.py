"""Vector operations of the rasteriser: coverage and depth of 16 samples at a time.

The arithmetic is written as LLVM vectors without fast-math flags, so that a processor with wider or narrower registers
computes the same bits.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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
def spread_planes(typing, lanes, offsets, a0, b0, a1, b1, a2, b2, a3, b3):
    """Write a_i * x + b_i * y of the 16 samples of a block to lanes[16 i ...], for i = 0..3.

    Args:
        lanes: float32 [64], output.
        offsets: float32 [32], x of the 16 samples of a block, then y.
    """

    def generate(context, builder, signature, arguments):
        lanes, offsets, *planes = arguments
        kind = signature.args[0]
        x, y = (
            _load(
                builder,
                _address(
                    context, builder, signature.args[1], offsets, ir.Constant(_INT64, LANES * i), _FLOATS
                ),
            )
            for i in range(2)
        )
        for i in range(4):
            a, b = (_broadcast(builder, value) for value in planes[2 * i : 2 * i + 2])
            value = builder.fadd(builder.fmul(a, x), builder.fmul(b, y))
            _store(
                builder,
                value,
                _address(context, builder, kind, lanes, ir.Constant(_INT64, LANES * i), _FLOATS),
            )
        return context.get_dummy_value()

    return types.void(lanes, offsets, *[types.float32] * 8), generate


def _depth_and_coverage(context, builder, lanes_type, lanes, at, least, low, high):
    """Return the bits of 1 / w, int32, and the mask of the samples inside the three edges."""
    inside = None
    for i in range(3):
        rest = _load(
            builder, _address(context, builder, lanes_type, lanes, ir.Constant(_INT64, LANES * i), _FLOATS)
        )
        edge = builder.fadd(_broadcast(builder, at[i]), rest)
        mask = builder.fcmp_ordered(">", edge, _broadcast(builder, least[i]))
        inside = mask if inside is None else builder.and_(inside, mask)
    rest = _load(
        builder, _address(context, builder, lanes_type, lanes, ir.Constant(_INT64, LANES * 3), _FLOATS)
    )
    depth = builder.fadd(_broadcast(builder, at[3]), rest)
    low, high = _broadcast(builder, low), _broadcast(builder, high)
    depth = builder.select(builder.fcmp_ordered(">", depth, low), depth, low)
    depth = builder.select(builder.fcmp_ordered("<", depth, high), depth, high)
    return builder.bitcast(depth, _INTS), inside


@intrinsic
def cover(typing, depths, ids, place, lanes, e0, e1, e2, depth, t0, t1, t2, low, high, number):
    """Draw an opaque triangle into one block of 16 samples: keep the nearest depth, and its number.

    Args:
        depths: int32 array, bits of 1 / w per sample; larger is nearer (positive floats order as their bits do).
        ids: int32 array, number of the triangle per sample.
        place: index of the first sample of the block in both.
        lanes: from `spread_planes`.
        e0, e1, e2, depth: values of the three edges and of 1 / w at the corner of the block.
        t0, t1, t2: a sample is inside if the edges exceed these.
        low, high: bounds of 1 / w.
        number: number to store.
    """

    def generate(context, builder, signature, arguments):
        depths, ids, place, lanes = arguments[:4]
        kinds = signature.args
        z, inside = _depth_and_coverage(
            context, builder, kinds[3], lanes, arguments[4:8], arguments[8:11], *arguments[11:13]
        )
        any_inside = builder.icmp_unsigned(
            "!=", builder.bitcast(inside, ir.IntType(LANES)), ir.IntType(LANES)(0)
        )
        with builder.if_then(any_inside):
            z = builder.select(inside, z, ir.Constant(_INTS, [0] * LANES))
            z_address = _address(context, builder, kinds[0], depths, place, _INTS)
            id_address = _address(context, builder, kinds[1], ids, place, _INTS)
            before, owner = _load(builder, z_address), _load(builder, id_address)
            nearer = builder.icmp_signed(">", z, before)
            _store(builder, builder.select(nearer, z, before), z_address)
            _store(builder, builder.select(nearer, _broadcast(builder, arguments[13]), owner), id_address)
        return context.get_dummy_value()

    f = types.float32
    return types.void(depths, ids, types.int64, lanes, f, f, f, f, f, f, f, f, f, types.int32), generate


@intrinsic
def candidates(typing, depths, place, lanes, e0, e1, e2, depth, t0, t1, t2, low, high, minimum, out):
    """Return the mask (int64) of the samples of a block that a triangle covers at least as near as what is there.

    Args:
        minimum: 1 to require that it is nearer than what is there, 0 to accept equal depths.
        out: int32 [16], receives the bits of 1 / w.
    See `cover` for the others.
    """

    def generate(context, builder, signature, arguments):
        depths, place, lanes = arguments[:3]
        kinds = signature.args
        z, inside = _depth_and_coverage(
            context, builder, kinds[2], lanes, arguments[3:7], arguments[7:10], *arguments[10:12]
        )
        before = _load(builder, _address(context, builder, kinds[0], depths, place, _INTS))
        before = builder.add(before, _broadcast(builder, arguments[12]))
        nearer = builder.icmp_signed(">=", z, before)
        _store(
            builder, z, _address(context, builder, kinds[13], arguments[13], ir.Constant(_INT64, 0), _INTS)
        )
        return _bits(builder, builder.and_(inside, nearer))

    f = types.float32
    result = types.int64(depths, types.int64, lanes, f, f, f, f, f, f, f, f, f, types.int32, out)
    return result, generate


@intrinsic
def covered(typing, ids, place):
    """Return the mask (int64) of the 16 samples from `place` on whose number is not negative."""

    def generate(context, builder, signature, arguments):
        value = _load(builder, _address(context, builder, signature.args[0], *arguments, _INTS))
        return _bits(builder, builder.icmp_signed(">=", value, ir.Constant(_INTS, [0] * LANES)))

    return types.int64(ids, types.int64), generate
