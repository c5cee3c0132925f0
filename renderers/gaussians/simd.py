"""Vectors as numba types, so that kernels say what the vector unit does: 16 float32 or 8 float64 lanes.

numba leaves vectorisation to chance: one index of the wrong type and a loop runs ten times slower. These lanes are
LLVM vectors: AVX-512 runs them as they are, AVX2 and NEON in halves and quarters.

    a, b = load(array, 0), splat(np.float32(2))   # 16 consecutive values, one value in all lanes
    store(array, 0, select(a <= b, a * b + a, b))

Lanes combine with lanes of their kind and with numbers: + - * / < <= > >=. Comparisons give masks: combine those with
&, reduce them with `bits`. Indices are taken as they are: no wrap-around, no bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES, WIDE_LANES = 16, 8

_FLAGS = ("contract",)  # a product and a sum may become one fused operation; nothing else is relaxed
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class _Lanes(types.Type):
    """A vector type. `element`: the numba type of a lane; `vector`: the LLVM type; `count`: how many lanes."""

    def __init__(self, name: str, element: types.Type, llvm: ir.Type, count: int) -> None:
        self.element, self.vector, self.count = element, ir.VectorType(llvm, count), count
        super().__init__(name)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: object, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


floats = _Lanes("float32 lanes", types.float32, ir.FloatType(), LANES)
doubles = _Lanes("float64 lanes", types.float64, ir.DoubleType(), WIDE_LANES)
_MASKS = {n: _Lanes(f"mask of {n}", types.boolean, ir.IntType(1), n) for n in (LANES, WIDE_LANES)}
_KINDS = {types.float32: floats, types.float64: doubles}


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _broadcast(builder, value, count):
    lanes = ir.VectorType(value.type, count)
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, _constant(ir.VectorType(_INT32, count), 0))


def _call(builder, name, result, *arguments, **options):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)


def _suffix(kind: _Lanes) -> str:
    return f"v{kind.count}f{kind.element.bitwidth}"


# --- memory ------------------------------------------------------------------------------------------


@intrinsic
def load(typing, array, index):
    """Consecutive values of a contiguous array, as many as there are lanes of its type."""
    kind = _KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(address, kind.vector.as_pointer()))
        value.align = kind.element.bitwidth // 8
        return value

    return kind(array, index), generate


@intrinsic
def store(typing, array, index, value):
    """Write all lanes to consecutive places of a contiguous array."""
    kind = _KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        stored = builder.store(arguments[2], builder.bitcast(address, kind.vector.as_pointer()))
        stored.align = kind.element.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, kind), generate


@intrinsic
def wide_column(typing, array, index, step, count):
    """Every step-th float32 of a contiguous array as float64 lanes; lanes from `count` on repeat the last."""

    def generate(context, builder, signature, arguments):
        array, index, step, count = arguments
        last = builder.sub(count, ir.Constant(count.type, 1))
        lanes = ir.Constant(ir.VectorType(ir.FloatType(), WIDE_LANES), ir.Undefined)
        for lane in range(WIDE_LANES):
            number = ir.Constant(count.type, lane)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            place = builder.add(index, builder.mul(number, step))
            value = builder.load(_pointer(context, builder, signature.args[0], array, place))
            lanes = builder.insert_element(lanes, value, ir.Constant(_INT32, lane))
        return builder.fpext(lanes, doubles.vector)

    return doubles(array, types.int64, types.int64, types.int64), generate


@intrinsic
def get(typing, array, index):
    """One element of a contiguous array."""

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


# --- lanes from values and back ----------------------------------------------------------------------


@intrinsic
def splat(typing, value):
    """One number in all lanes: float32 in 16, any other in 8 of float64."""
    kind = floats if value == types.float32 else doubles

    def generate(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], kind.element)
        return _broadcast(builder, number, kind.count)

    return kind(value), generate


@intrinsic
def splat_at(typing, array, index):
    """One element of a contiguous array in all lanes of its type."""
    kind = _KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        return _broadcast(builder, value, kind.count)

    return kind(array, index), generate


@intrinsic
def select(typing, condition, yes, no):
    """Lane by lane: `yes` where the condition holds, else `no`."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return yes(_MASKS[yes.count], yes, yes), generate


@intrinsic
def bits(typing, condition):
    """A mask as the low bits of an integer, lane 0 lowest."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(condition.count)), _INT64)

    return types.uint64(condition), generate


@intrinsic
def total(typing, value):
    """The sum of all lanes."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(value.vector.element, -0.0)
        name = f"llvm.vector.reduce.fadd.{_suffix(value)}"
        return _call(builder, name, value.vector.element, zero, arguments[0], fastmath=("reassoc",))

    return value.element(value), generate


@intrinsic
def lowest_bit(typing, word):
    """Index of the lowest set bit of a 64-bit word that is not zero."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def span_bits(typing, count):
    """Bits [count[8 + i], count[i]) of byte i, for i = 0..7, as one 64-bit word; float32 lanes, whole, 0..8."""

    def generate(context, builder, signature, arguments):
        ints, small = ir.VectorType(_INT32, LANES), ir.VectorType(ir.IntType(8), LANES)
        one = _constant(ints, 1)
        below = builder.sub(builder.shl(one, builder.fptosi(arguments[0], ints)), one)
        halves = builder.bitcast(builder.trunc(below, small), ir.VectorType(_INT64, 2))
        ends, starts = (builder.extract_element(halves, ir.Constant(_INT32, i)) for i in (0, 1))
        return builder.and_(ends, builder.not_(starts))

    return types.uint64(floats), generate


# --- arithmetic --------------------------------------------------------------------------------------


def _define(symbol: Callable, emit: Callable, gives_mask: bool = False) -> None:
    """Make a Python operator work on lanes of either kind, and on lanes and numbers."""

    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return (_MASKS[a.count] if gives_mask else a)(a, a), generate

    @overload(symbol)
    def _(a, b):
        if isinstance(a, _Lanes) and a is b and a.element is not types.boolean:
            return lambda a, b: operation(a, b)
        if isinstance(a, _Lanes) and isinstance(b, types.Number):
            if a is floats:
                return lambda a, b: operation(a, splat(np.float32(b)))
            return lambda a, b: operation(a, splat(np.float64(b)))
        if isinstance(b, _Lanes) and isinstance(a, types.Number):
            if b is floats:
                return lambda a, b: operation(splat(np.float32(a)), b)
            return lambda a, b: operation(splat(np.float64(a)), b)


_define(operator.add, lambda b, x, y: b.fadd(x, y, flags=_FLAGS))
_define(operator.sub, lambda b, x, y: b.fsub(x, y, flags=_FLAGS))
_define(operator.mul, lambda b, x, y: b.fmul(x, y, flags=_FLAGS))
_define(operator.truediv, lambda b, x, y: b.fdiv(x, y))
_define(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), gives_mask=True)
_define(operator.le, lambda b, x, y: b.fcmp_ordered("<=", x, y), gives_mask=True)
_define(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), gives_mask=True)
_define(operator.ge, lambda b, x, y: b.fcmp_ordered(">=", x, y), gives_mask=True)


@intrinsic
def _both(typing, a, b):
    def generate(context, builder, signature, arguments):
        return builder.and_(*arguments)

    return a(a, a), generate


@overload(operator.and_)
def _(a, b):
    if isinstance(a, _Lanes) and a is b and a.element is types.boolean:
        return lambda a, b: _both(a, b)


@intrinsic
def _negated(typing, value):
    def generate(context, builder, signature, arguments):
        return builder.fneg(arguments[0])

    return value(value), generate


@overload(operator.neg)
def _(value):
    if isinstance(value, _Lanes):
        return lambda value: _negated(value)


def _unary(name: str) -> Callable:
    @intrinsic
    def operation(typing, value):
        def generate(context, builder, signature, arguments):
            return _call(builder, f"llvm.{name}.{_suffix(value)}", value.vector, arguments[0])

        return value(value), generate

    return operation


root = _unary("sqrt")
floor = _unary("floor")
ceiling = _unary("ceil")
magnitude = _unary("fabs")


def _pair(comparison: str) -> Callable:
    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, arguments):
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return a(a, a), generate

    return operation


lower = _pair("<")
higher = _pair(">")


@intrinsic
def reciprocal(typing, value):
    """1 / value to about one unit in the last place; float32 lanes, finite and normal."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(_constant(floats.vector, 1.0), arguments[0], flags=("arcp", "ninf", "contract"))

    return floats(floats), generate


@intrinsic
def _exponent(typing, value):
    """The power of two p with value / 2^p in [√½, √2), and that quotient; float64 lanes, positive and normal."""

    def generate(context, builder, signature, arguments):
        ints = ir.VectorType(_INT64, WIDE_LANES)
        word = builder.bitcast(arguments[0], ints)
        # Seen from √½ the exponent field counts whole powers.
        shifted = builder.sub(word, _constant(ints, 0x3FE6A09E667F3BCD))
        power = builder.ashr(shifted, _constant(ints, 52))
        quotient = builder.bitcast(builder.sub(word, builder.shl(power, _constant(ints, 52))), doubles.vector)
        number = builder.sitofp(power, doubles.vector)
        return context.make_tuple(builder, signature.return_type, (number, quotient))

    return types.UniTuple(doubles, 2)(doubles), generate


def logarithm(value):
    """Natural logarithm; float64 lanes, positive and normal. Error under 1e-12."""


@overload(logarithm)
def _(value):
    def implementation(value):
        power, m = _exponent(value)
        s = (m - 1.0) / (m + 1.0)  # log m = 2 artanh s, |s| < 0.172
        t = s * s
        p = 1.0 / 15.0 + t * (1.0 / 17.0)
        p = 1.0 / 13.0 + t * p
        p = 1.0 / 11.0 + t * p
        p = 1.0 / 9.0 + t * p
        p = 1.0 / 7.0 + t * p
        p = 1.0 / 5.0 + t * p
        p = 1.0 / 3.0 + t * p
        return power * 0.6931471805599453 + 2.0 * s * (1.0 + t * p)

    return implementation
