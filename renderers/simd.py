"""SIMD vectors as numba types: 16 lanes of float32 or 8 lanes of float64.

numba relies on LLVM's auto-vectoriser, which fails easily: an index of the wrong integer type can make a loop ten times
slower. The types defined here are LLVM vectors, so kernels written with them are vectorised by construction. AVX-512
has registers of this size; on AVX2 and NEON LLVM splits a vector into two or four registers.

    a, b = load(array, 0), broadcast(np.float32(2))   # 16 consecutive values; one value in all lanes
    store(array, 0, select(a <= b, a * b + a, b))

Vectors combine with vectors of the same type and with scalars: + - * / < <= > >=. Comparisons return masks; combine
masks with & and convert them to integers with `mask_bits`. Indices are used without wrap-around and bounds checks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

LANES, WIDE_LANES = 16, 8

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class _Lanes(types.Type):
    """A vector type. `element`: numba type of a lane; `vector`: LLVM type; `count`: number of lanes.

    `flags` are LLVM's for its arithmetic. With "contract", a * b + c may be compiled to a fused multiply-add. No other
    reordering is allowed.
    """

    def __init__(
        self,
        name: str,
        element: types.Type,
        llvm: ir.Type,
        count: int,
        flags: tuple[str, ...] = ("contract",),
    ) -> None:
        self.element, self.vector, self.count = element, ir.VectorType(llvm, count), count
        self.flags = flags
        super().__init__(name)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: object, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


floats = _Lanes("float32 lanes", types.float32, ir.FloatType(), LANES)
doubles = _Lanes("float64 lanes", types.float64, ir.DoubleType(), WIDE_LANES)
exact = _Lanes(
    "exact float32 lanes", types.float32, ir.FloatType(), LANES, flags=()
)  # the same on every processor
quads = _Lanes(
    "4 float32 lanes", types.float32, ir.FloatType(), 4, flags=()
)  # the channels of a texel, exact
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


def _load(kind: _Lanes, array: types.Array, index: types.Integer) -> tuple:
    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(address, kind.vector.as_pointer()))
        value.align = kind.element.bitwidth // 8
        return value

    return kind(array, index), generate


@intrinsic
def load(typing, array, index):
    """Load consecutive values of a contiguous array, starting at `index`, into all lanes."""
    return _load(_KINDS[array.dtype], array, index)


@intrinsic
def load_exact(typing, array, index):
    """Load 16 consecutive values of a contiguous float32 array into `exact` lanes."""
    return _load(exact, array, index)


@intrinsic
def store(typing, array, index, value):
    """Store all lanes to consecutive elements of a contiguous array, starting at `index`."""

    def generate(context, builder, signature, arguments):
        address = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        stored = builder.store(arguments[2], builder.bitcast(address, value.vector.as_pointer()))
        stored.align = value.element.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic
def wide_column(typing, array, index, step, count):
    """Load array[index + i * step] of a contiguous float32 array into float64 lane i = 0..7.

    Lanes from `count` (1-8) upwards repeat lane count - 1, so that nothing is read past the end of the array.
    """

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
    """Load one element of a contiguous array as a scalar."""

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature.args[0], *arguments))

    return array.dtype(array, index), generate


@intrinsic
def put(typing, array, index, value):
    """Store a scalar to one element of a contiguous array."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _pointer(context, builder, signature.args[0], arguments[0], arguments[1]))
        return context.get_dummy_value()

    return types.void(array, index, array.dtype), generate


# --- scalars to vectors and back ----------------------------------------------------------------------


@intrinsic
def broadcast(typing, value):
    """Copy a scalar to all lanes: a float32 to 16 lanes, any other type to 8 lanes of float64."""
    kind = floats if value == types.float32 else doubles

    def generate(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], kind.element)
        return _broadcast(builder, number, kind.count)

    return kind(value), generate


@intrinsic
def broadcast_exact(typing, value):
    """Copy a scalar to all 16 lanes of `exact`."""

    def generate(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], exact.element)
        return _broadcast(builder, number, LANES)

    return exact(value), generate


@intrinsic
def zero_quad(typing):
    """Return four lanes of 0."""

    def generate(context, builder, signature, arguments):
        return _constant(quads.vector, 0.0)

    return quads(), generate


@intrinsic
def lane(typing, value, index):
    """Return one lane as a scalar; `index` must be a constant."""

    def generate(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], builder.trunc(arguments[1], _INT32))

    return value.element(value, types.int64), generate


@intrinsic
def broadcast_at(typing, array, index):
    """Copy one element of a contiguous array to all lanes."""
    kind = _KINDS[array.dtype]

    def generate(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        return _broadcast(builder, value, kind.count)

    return kind(array, index), generate


@intrinsic
def select(typing, condition, yes, no):
    """Return, per lane, `yes` where the mask is set and `no` elsewhere."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return yes(_MASKS[yes.count], yes, yes), generate


@intrinsic
def mask_bits(typing, condition):
    """Convert a mask to a uint64; bit i is lane i."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(condition.count)), _INT64)

    return types.uint64(condition), generate


@intrinsic
def lane_sum(typing, value):
    """Return the sum of all lanes."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(value.vector.element, -0.0)
        name = f"llvm.vector.reduce.fadd.{_suffix(value)}"
        return _call(builder, name, value.vector.element, zero, arguments[0], fastmath=("reassoc",))

    return value.element(value), generate


@intrinsic
def lowest_bit(typing, word):
    """Return the index of the lowest set bit of a non-zero 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def span_bits(typing, count):
    """Set bits count[8 + i] (inclusive) to count[i] (exclusive) of byte i, for i = 0..7, in a 64-bit word.

    Args:
        count: 16 float32 lanes, integers 0..8.
    """

    def generate(context, builder, signature, arguments):
        ints, small = ir.VectorType(_INT32, LANES), ir.VectorType(ir.IntType(8), LANES)
        one = _constant(ints, 1)
        below = builder.sub(builder.shl(one, builder.fptosi(arguments[0], ints)), one)
        halves = builder.bitcast(builder.trunc(below, small), ir.VectorType(_INT64, 2))
        ends, starts = (builder.extract_element(halves, ir.Constant(_INT32, i)) for i in (0, 1))
        return builder.and_(ends, builder.not_(starts))

    return types.uint64(floats), generate


# --- arithmetic --------------------------------------------------------------------------------------


def _define(symbol: Callable, emit: Callable, returns_mask: bool = False) -> None:
    """Define a Python operator for two vectors of one type, and for a vector and a scalar.

    The operators are lowered directly: an `@overload` would be compiled as a function for every operator and pair of
    types, which took most of the time that the kernels need to compile.
    """

    @infer_global(symbol)
    class _Operator(AbstractTemplate):
        def generic(self, args, kws):
            lanes = next((each for each in args if isinstance(each, _Lanes)), None)
            if len(args) != 2 or lanes is None or lanes.element is types.boolean:
                return None
            if all(each is lanes or isinstance(each, types.Number) for each in args):
                return signature(_MASKS[lanes.count] if returns_mask else lanes, *args)
            return None

    def lower(context, builder, signature, arguments):
        kind = next(each for each in signature.args if isinstance(each, _Lanes))
        return emit(
            builder,
            *(
                value
                if given is kind
                else _broadcast(builder, context.cast(builder, value, given, kind.element), kind.count)
                for value, given in zip(arguments, signature.args, strict=True)
            ),
            kind.flags,
        )

    for operands in ((_Lanes, _Lanes), (_Lanes, types.Number), (types.Number, _Lanes)):
        lower_builtin(symbol, *operands)(lower)


_define(operator.add, lambda b, x, y, flags: b.fadd(x, y, flags=flags))
_define(operator.sub, lambda b, x, y, flags: b.fsub(x, y, flags=flags))
_define(operator.mul, lambda b, x, y, flags: b.fmul(x, y, flags=flags))
_define(operator.truediv, lambda b, x, y, _: b.fdiv(x, y))
_define(operator.lt, lambda b, x, y, _: b.fcmp_ordered("<", x, y), returns_mask=True)
_define(operator.le, lambda b, x, y, _: b.fcmp_ordered("<=", x, y), returns_mask=True)
_define(operator.gt, lambda b, x, y, _: b.fcmp_ordered(">", x, y), returns_mask=True)
_define(operator.ge, lambda b, x, y, _: b.fcmp_ordered(">=", x, y), returns_mask=True)


@infer_global(operator.and_)
class _And(AbstractTemplate):
    def generic(self, args, kws):
        masks = len(args) == 2 and args[0] is args[1] and isinstance(args[0], _Lanes)
        return signature(args[0], *args) if masks and args[0].element is types.boolean else None


@lower_builtin(operator.and_, _Lanes, _Lanes)
def _lower_and(context, builder, signature, arguments):
    return builder.and_(*arguments)


@infer_global(operator.neg)
class _Negative(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], *args) if len(args) == 1 and isinstance(args[0], _Lanes) else None


@lower_builtin(operator.neg, _Lanes)
def _lower_negative(context, builder, signature, arguments):
    return builder.fneg(arguments[0])


def _unary(name: str) -> Callable:
    @intrinsic
    def operation(typing, value):
        def generate(context, builder, signature, arguments):
            return _call(builder, f"llvm.{name}.{_suffix(value)}", value.vector, arguments[0])

        return value(value), generate

    return operation


sqrt = _unary("sqrt")
floor = _unary("floor")
ceil = _unary("ceil")
absolute = _unary("fabs")


def _pair(comparison: str) -> Callable:
    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, arguments):
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return a(a, a), generate

    return operation


# As IEEE comparisons are false for NaN, both return b if a is NaN.
minimum = _pair("<")
maximum = _pair(">")


@intrinsic
def reciprocal(typing, value):
    """Return 1 / value to about 1 ulp, for 16 lanes of finite, normal float32."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(_constant(floats.vector, 1.0), arguments[0], flags=("arcp", "ninf", "contract"))

    return floats(floats), generate


@intrinsic
def _exponent(typing, value):
    """Return p and value / 2^p with integer p such that the quotient is in [√½, √2); positive, normal float64."""

    def generate(context, builder, signature, arguments):
        ints = ir.VectorType(_INT64, WIDE_LANES)
        word = builder.bitcast(arguments[0], ints)
        # 0x3FE6… is the bit pattern of √½: relative to it, the exponent field is p.
        shifted = builder.sub(word, _constant(ints, 0x3FE6A09E667F3BCD))
        power = builder.ashr(shifted, _constant(ints, 52))
        quotient = builder.bitcast(builder.sub(word, builder.shl(power, _constant(ints, 52))), doubles.vector)
        number = builder.sitofp(power, doubles.vector)
        return context.make_tuple(builder, signature.return_type, (number, quotient))

    return types.UniTuple(doubles, 2)(doubles), generate


def logarithm(value):
    """Return the natural logarithm of 8 lanes of positive, normal float64, to 1e-12 absolute."""


@overload(logarithm)
def _(value):
    def implementation(value):
        power, m = _exponent(value)
        # log m = 2 artanh(s) = 2 s (1 + s²/3 + s⁴/5 + … + s¹⁶/17), |s| < 0.172 for m in [√½, √2)
        s = (m - 1.0) / (m + 1.0)
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


@intrinsic
def power_of_two(typing, value):
    """Return 2^value for 16 `exact` lanes of integers from -126 to 127."""

    def generate(context, builder, signature, arguments):
        ints = ir.VectorType(_INT32, LANES)
        biased = builder.add(builder.fptosi(arguments[0], ints), _constant(ints, 127))
        return builder.bitcast(builder.shl(biased, _constant(ints, 23)), exact.vector)

    return exact(exact), generate
