"""Attention against loops over float64, as this CPU computes it: groups, windows, splits, pages, batches."""

from std.math import exp, log, sqrt
from std.random import random_float64, seed
from std.testing import TestSuite, assert_true
from std.utils.numerics import nan

from mxfp4.cpu.attention import Attention
from mxfp4.cpu.cache_tile import TILE_KEYS
from mxfp4.paged_cache import PagedCache
from mxfp4.pointers import ConstPointer

comptime LAYERS = 2
comptime LAYER = 1
comptime AMPLITUDE = Float64(2)
"""Of queries, keys and values."""


@fieldwise_init
struct Sizes(Copyable, ImplicitlyCopyable, Movable):
    """Of a model and its pages."""

    var heads: Int
    var kv_heads: Int
    var head_dim: Int
    var window: Int
    var page: Int


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _near[dtype: DType](x: Float64) -> Float64:
    return Float64(x.cast[dtype]())


def _check[dtype: DType](sizes: Sizes, before: List[Int], tokens: List[Int]) raises:
    """Compares every query of a batch; sequences have `before` tokens in the cache already."""
    seed(1)
    var total = 0
    var pages = 0
    var table_width = 0
    for i in range(len(tokens)):
        total += tokens[i]
        var held = (before[i] + tokens[i] + sizes.page - 1) // sizes.page
        pages += held
        table_width = max(table_width, held)
    var row = sizes.kv_heads * sizes.head_dim
    var page_size = 2 * LAYERS * sizes.page * row
    # What no sequence has written is NaN: other layers, and positions past a sequence's end.
    var cache = List[Scalar[dtype]](length=pages * page_size, fill=nan[dtype]())
    var table = List[UInt32](length=len(tokens) * table_width, fill=0)
    var offsets: List[UInt32] = [0]
    var lengths = List[UInt32]()
    var page = pages
    for i in range(len(tokens)):
        offsets.append(offsets[i] + UInt32(tokens[i]))
        lengths.append(UInt32(before[i]))
        for p in range((before[i] + tokens[i] + sizes.page - 1) // sizes.page):
            page -= 1
            table[i * table_width + p] = UInt32(page)
    var paged = PagedCache[dtype](
        _const(cache),
        page_size,
        _const(table),
        table_width,
        LAYERS,
        LAYER,
        sizes.page,
        sizes.kv_heads,
        sizes.head_dim,
    )
    for i in range(len(tokens)):
        for position in range(before[i] + tokens[i]):
            for kv_head in range(sizes.kv_heads):
                for is_value in [False, True]:
                    var at = paged.offset(i, position, is_value, kv_head)
                    for d in range(sizes.head_dim):
                        cache[at + d] = random_float64(-AMPLITUDE, AMPLITUDE).cast[dtype]()
    var q = List[Float32](length=total * sizes.heads * sizes.head_dim, fill=0)
    for i in range(len(q)):
        q[i] = random_float64(-AMPLITUDE, AMPLITUDE).cast[DType.float32]()
    var sinks = List[Float32](length=sizes.heads, fill=0)
    for h in range(sizes.heads):
        sinks[h] = random_float64(-1, 8).cast[DType.float32]()
    var out = List[Float32](length=len(q), fill=-1)
    var scale = 1 / sqrt(Float64(sizes.head_dim))
    Attention(
        out.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        _const(q),
        _const(sinks),
        paged,
        sizes.heads,
        Float32(scale),
        sizes.window,
    ).run(_const(offsets), _const(lengths), len(tokens))

    var worst: Float64 = 0
    for i in range(len(tokens)):
        for t in range(tokens[i]):
            var position = before[i] + t
            var first = max(0, position - sizes.window + 1) if sizes.window > 0 else 0
            for head in range(sizes.heads):
                var kv_head = head * sizes.kv_heads // sizes.heads
                var query = (Int(offsets[i]) + t) * sizes.heads + head
                var weights = List[Float64]()
                var sum = exp(Float64(sinks[head]))
                for key in range(first, position + 1):
                    var at = paged.offset(i, key, False, kv_head)
                    var score: Float64 = 0
                    for d in range(sizes.head_dim):
                        score += _near[dtype](Float64(q[query * sizes.head_dim + d])) * Float64(
                            cache[at + d]
                        )
                    weights.append(exp(score * scale))
                    sum += weights[len(weights) - 1]
                for d in range(sizes.head_dim):
                    var want: Float64 = 0
                    for key in range(first, position + 1):
                        var at = paged.offset(i, key, True, kv_head)
                        want += weights[key - first] / sum * Float64(cache[at + d])
                    var error = abs(Float64(out[query * sizes.head_dim + d]) - want)
                    assert_true(error < 1, String("sequence ", i, " query ", t, " head ", head))
                    worst = max(worst, error)
    # Weights of values of 2 and less; a share of them is rounded by 2^-9 at most.
    var bound = AMPLITUDE * (3e-6 if dtype == DType.float32 else 2.0**-9)
    assert_true(worst < bound, String(worst, " ", dtype))
    _ = q^
    _ = sinks^
    _ = table^
    _ = offsets^
    _ = lengths^


def _check_both(sizes: Sizes, before: List[Int], tokens: List[Int]) raises:
    _check[DType.bfloat16](sizes, before, tokens)
    _check[DType.float32](sizes, before, tokens)


def test_groups_of_every_kind() raises:
    """Fours, twos, one alone, and more heads of a key than a task has rows."""
    for heads in [8, 6, 3, 80]:
        _check_both(Sizes(heads, 1, 64, 0, 64), [0], [67])


def test_longer_heads() raises:
    _check_both(Sizes(4, 2, 128, 0, 64), [3], [70])


def test_more_kv_heads_than_a_task_has_rows_for() raises:
    _check_both(Sizes(24, 3, 64, 0, 64), [0], [9])
    _check_both(Sizes(96, 12, 64, 0, 64), [300], [1])


def test_one_token_and_many_keys() raises:
    """One split, the first key of the next, and four of them; pages that splits do not end with."""
    for before in [0, 255, 256, 900]:
        _check_both(Sizes(8, 1, 64, 0, 64), [before], [1])
    _check_both(Sizes(8, 1, 64, 0, 192), [700], [1])


def test_windows() raises:
    """Of one key and of two, ending within a tile, and longer than a split."""
    for window in [1, 2, 100]:
        _check_both(Sizes(8, 1, 64, window, 64), [0], [131])
        _check_both(Sizes(8, 1, 64, window, 64), [257], [1])
    _check_both(Sizes(8, 1, 64, 300, 64), [801], [1])


def test_a_batch_of_everything() raises:
    """No token, a prompt, a prompt after others, one token of few and of many keys."""
    _check_both(Sizes(8, 2, 64, 0, 64), [5, 0, 130, 3, 600, 300], [0, 40, 9, 1, 1, 1])


def test_the_sink_is_counted_once() raises:
    """Scores of 0, and a sink that weighs as much as all keys: half of the values' mean."""
    comptime KEYS = 1024
    comptime size = 2 * TILE_KEYS
    var cache = List[BFloat16](length=2 * KEYS * size, fill=0)
    for i in range(KEYS * size):
        cache[KEYS * size + i] = 2
    var table: List[UInt32] = [0]
    var offsets: List[UInt32] = [0, 1]
    var lengths: List[UInt32] = [KEYS - 1]
    var q = List[Float32](length=size, fill=0)
    var sinks: List[Float32] = [log(Float32(KEYS))]
    var out = List[Float32](length=size, fill=-1)
    var paged = PagedCache[DType.bfloat16](
        _const(cache), 2 * KEYS * size, _const(table), 1, 1, 0, KEYS, 1, size
    )
    Attention(
        out.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        _const(q),
        _const(sinks),
        paged,
        1,
        1,
        0,
    ).run(_const(offsets), _const(lengths), 1)
    for d in range(size):
        assert_true(abs(out[d] - 1) < 1e-5, String(out[d]))
    _ = table^
    _ = offsets^
    _ = lengths^
    _ = sinks^
    _ = q^


def main() raises:
    TestSuite.discover_tests[__functions_in_module()]().run()
