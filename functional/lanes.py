"""Sixteen numbers at a time, for Numba: the three inner loops of functional/compiled.py as vector instructions.

Numba's own vectoriser has to prove that arrays do not overlap before every short loop, which costs more than
the loop. These are written for LLVM's vectors instead, which exist on every processor that Numba knows: one AVX-512
register is one of them, on others two or four are.

Numba's cache does not see changes of this file: after one, change functional/compiled.py too.

All arrays are C-contiguous. ``values`` are float32 [N, LANES]; a lane is one query position.
"""

import math

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

LANES = 16
# Keys scored together, so that a query's numbers are loaded once for all of them: what fits into the registers
KEYS = 8 if binding.get_host_cpu_features().get("avx512f") else 4

_FLOAT, _INT, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FUSED = ("contract",)  # multiply and add in one instruction


def _pointers(context, builder, signature, args):
    """The data of the arrays among the arguments; other arguments as they are."""
    return [
        arrayobj.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def _row(builder, pointer, index, vector=_VECTOR):
    """Pointer to row ``index`` of an array [N, LANES]."""
    return builder.gep(builder.bitcast(pointer, vector.as_pointer()), [index])


def _load(builder, pointer):
    return builder.load(pointer, align=4)


def _index(builder, pointer, at):
    """Element ``at`` of an int32 array."""
    return builder.sext(builder.load(builder.gep(pointer, [at])), _INDEX)


def _spread(builder, number):
    """A vector that holds one number sixteen times."""
    vector = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _higher(builder, one, other):
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


def _variable(builder, value):
    """A variable, which LLVM keeps in a register."""
    slot = cgutils.alloca_once(builder, value.type)
    builder.store(value, slot)
    return slot


def _score_block(squared: bool):
    @intrinsic
    def score_block(typingctx, queries, keys, rows, bias, places, block, scores, highest, peak):
        """Scores of ``KEYS`` keys, dot products or negative squared distances, and the highest of them.

        Args:
            queries: float32 [C, LANES]; keys: float32 [N, C].
            rows: int32 [>= KEYS * (block + 1)], which keys; places: int32, likewise, their rows of ``bias``.
            bias: float32 [P, LANES], added to the scores.
            block: int64, which KEYS of ``rows``.
            scores: rows KEYS * block and following are written; highest: row ``block`` is written.
            peak: float32 [LANES], raised to the highest of the block.
        """

        def generate(context, builder, signature, args):
            shape = arrayobj.make_array(signature.args[1])(context, builder, args[1]).shape
            channels = cgutils.unpack_tuple(builder, shape, 2)[1]
            query, key, row, added, place, block, out, highest, peak = _pointers(context, builder, signature, args)
            first = builder.mul(block, ir.Constant(_INDEX, KEYS))
            at = [builder.add(first, ir.Constant(_INDEX, k)) for k in range(KEYS)]
            starts = [builder.gep(key, [builder.mul(_index(builder, row, i), channels)]) for i in at]
            totals = [_variable(builder, _load(builder, _row(builder, added, _index(builder, place, i)))) for i in at]
            with cgutils.for_range(builder, channels) as loop:
                many = _load(builder, _row(builder, query, loop.index))
                for total, start in zip(totals, starts, strict=True):
                    one = _spread(builder, builder.load(builder.gep(start, [loop.index])))
                    if squared:
                        away = builder.fsub(many, one)
                        change = builder.fneg(builder.fmul(away, away, flags=_FUSED))
                    else:
                        change = builder.fmul(many, one, flags=_FUSED)
                    builder.store(builder.fadd(builder.load(total), change, flags=_FUSED), total)
            best = ir.Constant(_VECTOR, [-math.inf] * LANES)
            for i, total in zip(at, totals, strict=True):
                score = builder.load(total)
                builder.store(score, _row(builder, out, i), align=4)
                best = _higher(builder, score, best)
            builder.store(best, _row(builder, highest, block), align=4)
            peak = _row(builder, peak, ir.Constant(_INDEX, 0))
            builder.store(_higher(builder, best, _load(builder, peak)), peak, align=4)
            return context.get_dummy_value()

        return types.void(queries, keys, rows, bias, places, block, scores, highest, peak), generate

    return score_block


score_block_dot = _score_block(squared=False)
score_block_l2 = _score_block(squared=True)


@intrinsic
def count_at_least(typingctx, values, count, bound, counts):
    """Of each lane, how many of the first ``count`` values are ``bound`` or more.

    Args:
        values: float32 [>= count, LANES]; count: int64; bound: float32 [LANES]; counts: int32 [LANES], is written.
    """

    def generate(context, builder, signature, args):
        value, number, bound, out = _pointers(context, builder, signature, args)
        whole = ir.VectorType(_INT, LANES)
        first = ir.Constant(_INDEX, 0)
        bound = _load(builder, _row(builder, bound, first))
        total = _variable(builder, ir.Constant(whole, [0] * LANES))
        with cgutils.for_range(builder, number) as loop:
            reached = builder.fcmp_ordered(">=", _load(builder, _row(builder, value, loop.index)), bound)
            builder.store(builder.add(builder.load(total), builder.zext(reached, whole)), total)
        builder.store(builder.load(total), _row(builder, out, first, whole), align=4)
        return context.get_dummy_value()

    return types.void(values, count, bound, counts), generate


@intrinsic
def lanes_at_least(typingctx, values, row, bound):
    """The lanes in which ``values[row]`` is ``bound`` (float32 [LANES]) or more, as bits of an int64."""

    def generate(context, builder, signature, args):
        value, row, bound = _pointers(context, builder, signature, args)
        value = _load(builder, _row(builder, value, row))
        reached = builder.fcmp_ordered(">=", value, _load(builder, _row(builder, bound, ir.Constant(_INDEX, 0))))
        return builder.zext(builder.bitcast(reached, ir.IntType(LANES)), _INDEX)

    return types.int64(values, row, bound), generate


@intrinsic
def lowest_bit(typingctx, bits):
    """The index of the lowest bit that is set in an int64 other than 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate
