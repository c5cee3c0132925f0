"""Sixteen float32 lanes as a numba type, so that kernels say what the vector unit does.

numba leaves vectorisation to chance: one index of the wrong type and a loop runs ten times slower. These lanes are
LLVM vectors: AVX-512 runs them as they are, AVX2 and NEON in halves and quarters.

    a, b = load(array, 0), splat(2.0)        # 16 consecutive values, one value in all lanes
    store(array, 0, select(a <= b, a * b + a, b))

Masks (the results of comparisons) are 16 booleans: combine with &, reduce with `bits`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_FLAGS = ("contract",)  # a product and a sum may become one fused operation; nothing else is relaxed


class _Lanes(types.Type):
    pass


floats = _Lanes("lanes(float32)")
mask = _Lanes("lanes(bool)")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: object, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, _FLOATS if lanes is floats else _MASK)


def _pointer(context, builder, array_type, array, index):
    """Address of 16 consecutive elements; the index is taken as it is, without wrap-around or bounds."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _broadcast(builder, value):
    lanes = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), zeros)


@intrinsic
def load(typing, array, index):
    """16 values of a contiguous float32 array from `index` on."""

    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(address, _FLOATS.as_pointer()))
        value.align = 4
        return value

    return floats(array, index), generate


@intrinsic
def store(typing, array, index, value):
    """Write 16 values to a contiguous float32 array from `index` on."""

    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], builder.bitcast(address, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic
def splat(typing, value):
    """One value in all lanes."""

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, context.cast(builder, arguments[0], signature.args[0], types.float32))

    return floats(value), generate


@intrinsic
def splat_at(typing, array, index):
    """One element of a contiguous float32 array in all lanes."""

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, builder.load(_pointer(context, builder, signature.args[0], *arguments)))

    return floats(array, index), generate


@intrinsic
def get(typing, array, index):
    """One element of a contiguous array; like all of this file without wrap-around and bounds."""

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature.args[0], *arguments))

    return array.dtype(array, index), generate


@intrinsic
def put(typing, array, index, value):
    """Write one element of a contiguous array."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _pointer(context, builder, signature.args[0], arguments[0], arguments[1]))
        return context.get_dummy_value()

    return types.void(array, index, array.dtype), generate


@intrinsic
def select(typing, condition, yes, no):
    """Lane by lane: `yes` where the condition holds, else `no`."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return floats(mask, floats, floats), generate


@intrinsic
def bits(typing, condition):
    """A mask as the low 16 bits of an integer, lane 0 lowest."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(mask), generate


@intrinsic
def total(typing, value):
    """The sum of all lanes."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _FLOATS])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        zero = ir.Constant(ir.FloatType(), -0.0)
        return builder.call(reduce, [zero, arguments[0]], fastmath=("reassoc",))

    return types.float32(floats), generate


@intrinsic
def reciprocal(typing, value):
    """1 / value to about one unit in the last place; value finite and normal."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(
            ir.Constant(_FLOATS, [1.0] * LANES), arguments[0], flags=("arcp", "ninf", "contract")
        )

    return floats(floats), generate


@intrinsic
def lowest_bit(typing, word):
    """Index of the lowest set bit of a word that is not zero."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def span_bits(typing, count):
    """Bits [count[8 + i], count[i]) of byte i, for i = 0..7, as one 64-bit word; counts are whole, 0..8."""

    def generate(context, builder, signature, arguments):
        ints = ir.VectorType(ir.IntType(32), LANES)
        one = ir.Constant(ints, [1] * LANES)
        below = builder.sub(builder.shl(one, builder.fptosi(arguments[0], ints)), one)
        halves = builder.bitcast(
            builder.trunc(below, ir.VectorType(ir.IntType(8), LANES)), ir.VectorType(ir.IntType(64), 2)
        )
        ends, starts = (builder.extract_element(halves, ir.Constant(ir.IntType(32), i)) for i in (0, 1))
        return builder.and_(ends, builder.not_(starts))

    return types.uint64(floats), generate


def _unary(name: str) -> Callable:
    @intrinsic
    def operation(typing, value):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(_FLOATS, [_FLOATS])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
            return builder.call(function, arguments)

        return floats(floats), generate

    return operation


root = _unary("sqrt")
floor = _unary("floor")
magnitude = _unary("fabs")


@intrinsic
def _negated(typing, value):
    def generate(context, builder, signature, arguments):
        return builder.fneg(arguments[0])

    return floats(floats), generate


@overload(operator.neg)
def _(value):
    if value is floats:
        return lambda value: _negated(value)


def _define(symbol: Callable, kind: types.Type, operand: types.Type, emit: Callable) -> None:
    """Make a Python operator work on two lane values."""

    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return kind(operand, operand), generate

    @overload(symbol)
    def _(a, b):
        if a is operand and b is operand:
            return lambda a, b: operation(a, b)


_define(operator.add, floats, floats, lambda b, x, y: b.fadd(x, y, flags=_FLAGS))
_define(operator.sub, floats, floats, lambda b, x, y: b.fsub(x, y, flags=_FLAGS))
_define(operator.mul, floats, floats, lambda b, x, y: b.fmul(x, y, flags=_FLAGS))
_define(operator.lt, mask, floats, lambda b, x, y: b.fcmp_ordered("<", x, y))
_define(operator.le, mask, floats, lambda b, x, y: b.fcmp_ordered("<=", x, y))
_define(operator.gt, mask, floats, lambda b, x, y: b.fcmp_ordered(">", x, y))
_define(operator.and_, mask, mask, lambda b, x, y: b.and_(x, y))


def _pair(name: str, comparison: str) -> Callable:
    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, arguments):
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return floats(floats, floats), generate

    return operation


lower = _pair("lower", "<")
higher = _pair("higher", ">")
