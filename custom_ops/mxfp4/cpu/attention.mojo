"""Causal attention with sinks and a window over a paged cache, on a CPU.

    for each block of queries of one sequence, each kv head: rows = queries x the query heads that share it
        largest = sink, total = 1, sums = 0           # the sink joins the softmax once, as exp(sink - largest)
        for each tile of keys that a query of the block sees:
            scores = q . k * scale, -inf where a row does not see the key
            rescale total and sums to the new largest; add exp(score - largest), and that times v
        out = sums / total

MAX's own CPU kernel adds the sink once per 128 keys, so its outputs are wrong past 128 tokens (NOTES N8).
"""

from std.math import exp
from std.utils.numerics import neg_inf

from max.algorithm import sync_parallelize
from std.runtime import parallelism_level

from ..pointers import ConstPointer
from .dot import FloatPointer
from .paged_cache import PagedCache
from .transpose import transpose_square
from .words import LANES, Floats

comptime _VECTORS = 4
"""Registers of keys in a tile and of elements in a step of the second product."""

comptime TILE_KEYS = _VECTORS * LANES
"""Keys of a tile; a page holds whole tiles."""

comptime _MAX_GROUP = 2 if LANES == 8 else 4
"""Heads multiplied together: their sums fill the registers, of which AVX2 has half as many."""

comptime _BLOCK_ROWS = 64
"""Rows of a task, or the heads that share a key where they are more: keys are transposed once for all of them."""

comptime _MIN_WORK_PER_THREAD = 1 << 18
"""Multiplications worth a thread of their own."""


@fieldwise_init
struct _Block(Copyable, ImplicitlyCopyable, Movable):
    """Consecutive queries of one sequence."""

    var sequence: Int
    var first_token: Int
    """The first query's row in the ragged batch."""
    var first_position: Int
    """Its position in the sequence."""
    var tokens: Int


@fieldwise_init
struct Attention(TrivialRegisterPassable):
    """One layer's attention over a ragged batch whose keys and values are in the cache already."""

    var out: MutPointer[Float32, MutUntrackedOrigin]
    """[T, heads, head_dim] float32."""
    var q: ConstPointer[DType.float32]
    """[T, heads, head_dim] float32, rotated."""
    var sinks: ConstPointer[DType.float32]
    """[heads] float32, one logit per query head."""
    var cache: PagedCache
    """Keys, rotated, and values."""
    var heads: Int
    """Query heads, a multiple of the cache's."""
    var scale: Float32
    """What scores are multiplied by."""
    var window: Int
    """Positions a query sees, itself included; below 1 for all."""

    def first_seen(self, position: Int) -> Int:
        """Gives the first position that the query at a position sees.

        Args:
            position: The query's.

        Returns:
            At least 0.
        """
        return max(0, position - self.window + 1) if self.window > 0 else 0

    def run(
        self,
        row_offsets: ConstPointer[DType.uint32],
        cache_lengths: ConstPointer[DType.uint32],
        sequences: Int,
    ):
        """Attends every query of the batch.

        Args:
            row_offsets: [sequences + 1] uint32, where each sequence's queries begin in q.
            cache_lengths: [sequences] uint32, positions of each sequence before them.
            sequences: B.
        """
        var shared = self.heads // self.cache.kv_heads
        var block_tokens = max(1, _BLOCK_ROWS // shared)
        var blocks = List[_Block]()
        var work = 0
        for sequence in range(sequences):
            var begin = Int(row_offsets[unsafe_offset=sequence])
            var end = Int(row_offsets[unsafe_offset=sequence + 1])
            var before = Int(cache_lengths[unsafe_offset=sequence])
            for first in range(begin, end, block_tokens):
                var tokens = min(block_tokens, end - first)
                var position = before + first - begin
                blocks.append(_Block(sequence, first, position, tokens))
                var seen = position + tokens - self.first_seen(position)
                work += tokens * seen * self.heads * self.cache.head_dim * 2
        var tasks = len(blocks) * self.cache.kv_heads
        var threads = max(
            1,
            min(parallelism_level(), tasks, work // _MIN_WORK_PER_THREAD),
        )

        def attend(thread: Int) {imm}:
            var rows = block_tokens * shared
            var width = self.cache.head_dim
            var scratch = List[Float32](
                unsafe_uninit_length=(width + _MAX_GROUP) * TILE_KEYS + rows * (width + 2)
            )
            var pointer = (
                scratch.unsafe_ptr()
                .unsafe_mut_cast[True]()
                .unsafe_origin_cast[MutUntrackedOrigin]()
            )
            for task in range(tasks - 1 - thread, -1, -threads):
                var block = blocks[task // self.cache.kv_heads]
                var kv_head = task % self.cache.kv_heads
                if shared % _MAX_GROUP == 0:
                    self._attend_block[_MAX_GROUP](block, kv_head, pointer)
                elif shared % 2 == 0:
                    self._attend_block[2](block, kv_head, pointer)
                else:
                    self._attend_block[1](block, kv_head, pointer)
            _ = scratch^

        if threads == 1:
            attend(0)
        else:
            sync_parallelize(attend, threads)

    def _attend_block[group: Int](self, block: _Block, kv_head: Int, scratch: FloatPointer):
        """Attends a block's queries in the heads that share a kv head; row r is (token r // shared, head r % shared).

        Parameters:
            group: Heads of one token that are multiplied together; divides the heads that share a key.
        """
        var shared = self.heads // self.cache.kv_heads
        var width = self.cache.head_dim
        var rows = block.tokens * shared
        var keys = scratch
        var scores = keys.unsafe_offset(width * TILE_KEYS)
        var sums = scores.unsafe_offset(group * TILE_KEYS)
        var largest = sums.unsafe_offset(rows * width)
        var totals = largest.unsafe_offset(rows)
        for row in range(rows):
            largest[unsafe_offset=row] = self.sinks[unsafe_offset=kv_head * shared + row % shared]
            totals[unsafe_offset=row] = 1
        for i in range(rows * width):
            sums[unsafe_offset=i] = 0

        var stride = self.cache.row_stride()
        var end = block.first_position + block.tokens
        var begin = self.first_seen(block.first_position)
        for first_key in range(begin // TILE_KEYS * TILE_KEYS, end, TILE_KEYS):
            _transpose_keys(
                self.cache.pages.unsafe_offset(
                    self.cache.offset(block.sequence, first_key, False, kv_head)
                ),
                stride,
                # Positions from `end` on are not written yet.
                min(TILE_KEYS, end - first_key),
                width,
                keys,
            )
            var values = self.cache.pages.unsafe_offset(
                self.cache.offset(block.sequence, first_key, True, kv_head)
            )
            for token in range(block.tokens):
                var position = block.first_position + token
                var low = max(0, self.first_seen(position) - first_key)
                var high = min(position - first_key + 1, TILE_KEYS)
                if high <= low:
                    continue
                var head = (block.first_token + token) * self.heads + kv_head * shared
                for i in range(0, shared, group):
                    var row = token * shared + i
                    _score[group](
                        self.q.unsafe_offset((head + i) * width),
                        keys,
                        width,
                        self.scale,
                        scores,
                    )
                    comptime for g in range(group):
                        var shrink = _soften(
                            scores.unsafe_offset(g * TILE_KEYS),
                            low,
                            high,
                            largest.unsafe_offset(row + g),
                            totals.unsafe_offset(row + g),
                        )
                        _multiply(sums.unsafe_offset((row + g) * width), width, shrink)
                    _add_values[group](
                        scores,
                        values.unsafe_offset(low * stride),
                        stride,
                        low,
                        high,
                        width,
                        sums.unsafe_offset(row * width),
                    )

        for row in range(rows):
            var head = kv_head * shared + row % shared
            var target = self.out.unsafe_offset(
                ((block.first_token + row // shared) * self.heads + head) * width
            )
            var source = sums.unsafe_offset(row * width)
            _multiply(source, width, 1 / totals[unsafe_offset=row])
            for d in range(0, width, LANES):
                target.unsafe_store[alignment=4](d, source.unsafe_load[width=LANES, alignment=4](d))


def _transpose_keys(
    source: ConstPointer[DType.float32],
    stride: Int,
    count: Int,
    width: Int,
    target: FloatPointer,
):
    """Turns `count` keys, `stride` apart, into [width, TILE_KEYS], zeros for absent keys."""
    for first in range(0, TILE_KEYS, LANES):
        for d in range(0, width, LANES):
            var rows = Array[Floats, LANES](fill=Floats(0))
            comptime for i in range(LANES):
                if first + i < count:
                    rows[i] = source.unsafe_load[width=LANES, alignment=4]((first + i) * stride + d)
            transpose_square(rows)
            comptime for i in range(LANES):
                target.unsafe_store[alignment=4]((d + i) * TILE_KEYS + first, rows[i])


@inline(.always)
def _score[
    group: Int
](
    q: ConstPointer[DType.float32],
    keys: FloatPointer,
    width: Int,
    scale: Float32,
    scores: FloatPointer,
):
    """Writes `scores[g, key] = q[g] . keys[:, key] * scale`."""
    var products = Array[Floats, group * _VECTORS](fill=Floats(0))
    for d in range(width):
        comptime for v in range(_VECTORS):
            var key = keys.unsafe_load[width=LANES, alignment=4](d * TILE_KEYS + v * LANES)
            comptime for g in range(group):
                products[g * _VECTORS + v] = Floats(q[unsafe_offset=g * width + d]).fma(
                    key, products[g * _VECTORS + v]
                )
    comptime for i in range(group * _VECTORS):
        scores.unsafe_store[alignment=4](i * LANES, products[i] * scale)


@inline(.always)
def _soften(
    scores: FloatPointer,
    low: Int,
    high: Int,
    largest: FloatPointer,
    total: FloatPointer,
) -> Float32:
    """Turns one row's scores into exp(score - largest), zero outside `low .. high - 1`, and updates largest and total.

    Returns:
        What the row's sums so far have to be multiplied by.
    """
    for key in range(low):
        scores[unsafe_offset=key] = neg_inf[DType.float32]()
    for key in range(high, TILE_KEYS):
        scores[unsafe_offset=key] = neg_inf[DType.float32]()
    var tops = Floats(largest[])
    comptime for v in range(_VECTORS):
        tops = max(tops, scores.unsafe_load[width=LANES, alignment=4](v * LANES))
    var top = tops.reduce_max()
    var shrink = exp(largest[] - top)
    var exps = Floats(0)
    comptime for v in range(_VECTORS):
        var weights = exp(scores.unsafe_load[width=LANES, alignment=4](v * LANES) - top)
        scores.unsafe_store[alignment=4](v * LANES, weights)
        exps += weights
    largest[] = top
    total[] = total[] * shrink + exps.reduce_add()
    return shrink


@inline(.always)
def _multiply(row: FloatPointer, width: Int, factor: Float32):
    """Multiplies a row in place."""
    for d in range(0, width, LANES):
        row.unsafe_store[alignment=4](d, row.unsafe_load[width=LANES, alignment=4](d) * factor)


@inline(.always)
def _add_values[
    group: Int
](
    weights: FloatPointer,
    values: ConstPointer[DType.float32],
    stride: Int,
    low: Int,
    high: Int,
    width: Int,
    sums: FloatPointer,
):
    """Adds `sum over key of weights[g, key] * values[key - low]` to each of `sums[g]`."""
    for d in range(0, width, _VECTORS * LANES):
        var parts = Array[Floats, group * _VECTORS](fill=Floats(0))
        for key in range(low, high):
            comptime for v in range(_VECTORS):
                var value = values.unsafe_load[width=LANES, alignment=4](
                    (key - low) * stride + d + v * LANES
                )
                comptime for g in range(group):
                    parts[g * _VECTORS + v] = Floats(
                        weights[unsafe_offset=g * TILE_KEYS + key]
                    ).fma(value, parts[g * _VECTORS + v])
        comptime for g in range(group):
            comptime for v in range(_VECTORS):
                var at = g * width + d + v * LANES
                sums.unsafe_store[alignment=4](
                    at,
                    sums.unsafe_load[width=LANES, alignment=4](at) + parts[g * _VECTORS + v],
                )
