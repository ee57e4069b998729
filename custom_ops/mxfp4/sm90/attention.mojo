"""Attention of single tokens over a paged KV cache: memory to the registers of `mma`, parts joined in a cluster.

A step that generates reads every key and value of a sequence once, and 8 key-value heads are too few blocks to read
them fast. So a cluster of blocks shares a head: its warps take tiles of 16 keys in turn, each with a softmax of its
own; a block joins its warps', and the cluster its blocks', through each other's shared memory, where the sink counts
once.

A tile needs no shared memory: which k of a product stands for which dimension, and which of its rows, is free as long
as both factors and the result agree, so a lane asks for 16 bytes of a row and has fragments.

- Scores^T = K Q^T [16 keys, 8 heads]. Lane l has keys l / 4 and l / 4 + 8, and dimensions 8 (l % 4) to + 7 of each 32;
  of Q, head l / 4, the same dimensions.
- Output^T = V^T weights^T [16 dimensions, 8 heads]. Lane l has dimensions 8 (l / 4) to + 7, of the keys 2 (l % 4), + 1,
  + 8 and + 9: rows l / 4 and l / 4 + 8 of product i are the dimensions 2i and 2i + 1 of its eight.

Source: PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type", "movmatrix", "mapa"; the joining of
parts: FlashDecoding, Dao et al. 2023.
"""

from std.bit import log2_floor
from std.math import ceildiv, exp2
from std.math.constants import log2e
from std.memory import bitcast, stack_allocation
from std.utils import StaticTuple
from std.utils.numerics import min_finite, neg_inf

from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, barrier, block_idx, grid_dim, thread_idx
from max.gpu.compute.mma import mma
from max.gpu.host import DeviceAttribute, DeviceContext, Dim
from max.gpu.memory import AddressSpace
from max.gpu.primitives.cluster import cluster_sync
from max.gpu.primitives.warp import shuffle_xor

from ..paged_cache import PagedCache
from ..pointers import ConstPointer
from .ptx import (
    SharedFloats,
    address_in_cluster,
    read_cluster,
    select_bytes,
    transpose_8_by_8,
)

comptime ATTENTION_THREADS = 256
"""Threads of a block."""

comptime HEAD_DIM = 64
"""D, dimensions of a head, as both published models have."""

comptime MAX_GROUP = 8
"""Query heads of a key-value head, at most: the columns of a product."""

comptime TILE_KEYS = 16
"""Keys of a tile; a page holds whole ones."""

comptime _KEY_WORDS = HEAD_DIM // 8
"""Words of a key that a lane has, and of a query."""

comptime _VALUE_WORDS = HEAD_DIM // 16
"""Words of a value that a lane has."""

comptime _SHARES = 8
"""Warps of a block, and blocks of a cluster at most, on any GPU that has clusters."""

comptime _WARPS = ATTENTION_THREADS // 32


@fieldwise_init
struct _Tile(TrivialRegisterPassable):
    """A lane's words of 16 keys and their values, two dimensions to a word."""

    var keys: SIMD[DType.uint32, 2 * _KEY_WORDS]
    """Of keys l / 4 and l / 4 + 8, dimensions 8 (l % 4) to + 7 of each 32."""
    var values: SIMD[DType.uint32, 4 * _VALUE_WORDS]
    """Of keys 2 (l % 4), + 1, + 8 and + 9, dimensions 8 (l / 4) to + 7."""


@fieldwise_init
struct _Sequence(TrivialRegisterPassable):
    """What one query sees of the cache, of one key-value head."""

    var keys: ConstPointer[DType.bfloat16]
    """The head's first key in the layer's first page."""
    var values: ConstPointer[DType.bfloat16]
    """Its first value there."""
    var table: ConstPointer[DType.uint32]
    """Pages, [length / page size]."""
    var page_stride: Int
    """Elements from page to page."""
    var row_stride: Int32
    """Elements from key to key."""
    var last_page: UInt32
    """What is beyond the cache reads this page."""
    var page_shift: Int32
    """The page size's logarithm."""
    var begin: Int32
    """The first position that is seen."""
    var end: Int32
    """The position behind the query's own."""

    @inline(.always)
    def page(self, tile: Int32) -> UInt32:
        """Asks for the page of a tile, or of the last one."""
        var position = min(tile * TILE_KEYS, self.end - 1)
        return self.table[unsafe_offset=Int(position >> self.page_shift)]

    @inline(.always)
    def load(self, tile: Int32, page: UInt32, lane: Int32) -> _Tile:
        """Asks for a tile; behind the last value, whose weights are zero, that one is read instead, which is a number.
        """
        var position = tile * TILE_KEYS
        var start = Int(min(page, self.last_page)) * self.page_stride
        var slot = position & ((1 << self.page_shift) - 1)
        var last = self.end - 1 - position
        var words = _Tile(0, 0)
        comptime for i in range(2):
            # A key behind the last one may be anything: its score is not looked at.
            var row = slot + lane // 4 + Int32(8 * i)
            var key = self.keys.unsafe_offset(start).unsafe_offset(
                Int(row * self.row_stride + lane % 4 * 8)
            )
            comptime for j in range(0, _KEY_WORDS, 4):
                words.keys = words.keys.insert[offset=i * _KEY_WORDS + j](
                    _load_8(key.unsafe_offset(8 * j))
                )
        comptime for i in range(4):
            var row = slot + min(lane % 4 * 2 + Int32(i % 2 + 8 * (i // 2)), last)
            var value = self.values.unsafe_offset(start).unsafe_offset(
                Int(row * self.row_stride + lane // 4 * 8)
            )
            words.values = words.values.insert[offset=i * _VALUE_WORDS](_load_8(value))
        return words


@inline(.always)
def _load_8(source: ConstPointer[DType.bfloat16]) -> SIMD[DType.uint32, 4]:
    return bitcast[DType.uint32, 4](source.unsafe_load[width=8, alignment=16]())


@inline(.always)
def _pack(low: Float32, high: Float32) -> UInt32:
    return bitcast[DType.uint32, 1](SIMD[DType.float32, 2](low, high).cast[DType.bfloat16]())


@inline(.always)
def _a(w0: UInt32, w1: UInt32, w2: UInt32, w3: UInt32) -> SIMD[DType.bfloat16, 8]:
    """Makes a fragment of A: rows l / 4 and l / 4 + 8 of the lower 8 k, then of the upper."""
    return bitcast[DType.bfloat16, 8](SIMD[DType.uint32, 4](w0, w1, w2, w3))


@inline(.always)
def _b(w0: UInt32, w1: UInt32) -> SIMD[DType.bfloat16, 4]:
    return bitcast[DType.bfloat16, 4](SIMD[DType.uint32, 2](w0, w1))


@inline(.always)
def _from_lane(x: SIMD[DType.float32, 2], distance: UInt32) -> SIMD[DType.float32, 2]:
    """Gives the numbers of the lane whose number differs in one bit."""
    return SIMD[DType.float32, 2](shuffle_xor(x[0], distance), shuffle_xor(x[1], distance))


@fieldwise_init
struct _Softmax(TrivialRegisterPassable):
    """A warp's softmax so far, of heads 2 (l % 4) and + 1."""

    var largest: SIMD[DType.float32, 2]
    """The largest score, times log2(e); the same in all lanes of a head."""
    var totals: SIMD[DType.float32, 2]
    """Sums of the weights of this lane's keys, as shares of the largest."""
    var sums: SIMD[DType.float32, 4 * _VALUE_WORDS]
    """Weighted values: four of each product, dimensions 2i and 2i + 1 by both heads."""

    @inline(.always)
    def add(
        mut self,
        tile: _Tile,
        q: SIMD[DType.uint32, _KEY_WORDS],
        scale: Float32,
        seen: SIMD[DType.bool, 2],
    ):
        """Takes in a tile, in which keys l / 4 and l / 4 + 8 are seen or not, at least one of all 16.
        """
        var scores = SIMD[DType.float32, 4](0)
        comptime for i in range(0, _KEY_WORDS, 2):
            mma(
                scores,
                _a(
                    tile.keys[i],
                    tile.keys[_KEY_WORDS + i],
                    tile.keys[i + 1],
                    tile.keys[_KEY_WORDS + i + 1],
                ),
                _b(q[i], q[i + 1]),
                scores,
            )
        comptime for i in range(4):
            scores[i] = scores[i] * scale if seen[i // 2] else neg_inf[DType.float32]()
        var largest = max(scores.slice[2](), scores.slice[2, offset=2]())
        comptime for i in range(3):  # over the lanes of a head
            largest = max(largest, _from_lane(largest, UInt32(4 << i)))
        largest = max(largest, self.largest)
        var factors = exp2(self.largest - largest)
        self.largest = largest
        var weights = exp2(scores - largest.join(largest))
        self.totals = self.totals.fma(factors, weights.slice[2]() + weights.slice[2, offset=2]())
        var b = _b(
            transpose_8_by_8(_pack(weights[0], weights[1])),
            transpose_8_by_8(_pack(weights[2], weights[3])),
        )
        comptime for i in range(_VALUE_WORDS):
            var k0 = tile.values[i]
            var k1 = tile.values[_VALUE_WORDS + i]
            var k8 = tile.values[2 * _VALUE_WORDS + i]
            var k9 = tile.values[3 * _VALUE_WORDS + i]
            var d = self.sums.slice[4, offset=4 * i]() * factors.join(factors)
            mma(
                d,
                _a(
                    select_bytes[0x5410](k0, k1),
                    select_bytes[0x7632](k0, k1),
                    select_bytes[0x5410](k8, k9),
                    select_bytes[0x7632](k8, k9),
                ),
                b,
                d,
            )
            self.sums = self.sums.insert[offset=4 * i](d)


@fieldwise_init
struct _Shares(TrivialRegisterPassable):
    """One dimension of one head as several saw it, each of whom has a softmax of its own."""

    var largest: SIMD[DType.float32, _SHARES]
    """The largest scores, times log2(e); -inf of who saw no key."""
    var totals: SIMD[DType.float32, _SHARES]
    """Sums of weights."""
    var sums: SIMD[DType.float32, _SHARES]
    """Weighted values."""

    @inline(.always)
    def join(self, least: Float32) -> Tuple[Float32, Float32, Float32]:
        """Gives what one would have who saw all: a largest score, which is no less than another one, sum, value.
        """
        var largest = max(self.largest.reduce_max(), least)
        var weights = exp2(self.largest - largest)
        return (
            largest,
            (weights * self.totals).reduce_add(),
            (weights * self.sums).reduce_add(),
        )


@fieldwise_init
struct _Parts(TrivialRegisterPassable):
    """What a block's warps leave of each head, and behind that what the block leaves: the largest score, the sum of
    weights, weighted values.
    """

    comptime head_floats = 2 + HEAD_DIM
    comptime warp_floats = MAX_GROUP * Self.head_floats
    comptime size = (_WARPS + 1) * Self.warp_floats

    var floats: SharedFloats
    """[warps + 1, MAX_GROUP, 2 + HEAD_DIM]."""

    @inline(.always)
    def leave(self, softmax: _Softmax, warp: Int, lane: Int):
        """Writes a warp's softmax."""
        var totals = softmax.totals
        comptime for i in range(3):  # over the lanes of a head
            totals += _from_lane(totals, UInt32(4 << i))
        comptime for i in range(2):
            var head = 2 * (lane % 4) + i
            var to = self.floats.unsafe_offset(warp * Self.warp_floats + head * Self.head_floats)
            if lane < 4:
                to.unsafe_store(0, softmax.largest[i])
                to.unsafe_store(1, totals[i])
            comptime for j in range(_VALUE_WORDS):
                to.unsafe_store[alignment=8](
                    2 + 8 * (lane // 4) + 2 * j,
                    SIMD[DType.float32, 2](softmax.sums[4 * j + i], softmax.sums[4 * j + 2 + i]),
                )

    @inline(.always)
    def join_warps(self, head: Int, dimension: Int):
        """Joins what the warps left of one head's dimension."""
        var of_head = self.floats.unsafe_offset(head * Self.head_floats)
        var shares = _Shares(0, 0, 0)
        comptime for warp in range(_WARPS):
            var of_warp = of_head.unsafe_offset(warp * Self.warp_floats)
            shares.largest[warp] = of_warp[unsafe_offset=0]
            shares.totals[warp] = of_warp[unsafe_offset=1]
            shares.sums[warp] = of_warp[unsafe_offset=2 + dimension]
        # A block may have seen no key: what it leaves is to differ from others' by a number.
        var largest, total, sum = shares.join(least=min_finite[DType.float32]())
        var of_block = of_head.unsafe_offset(_WARPS * Self.warp_floats)
        if dimension == 0:
            of_block[unsafe_offset=0] = largest
            of_block[unsafe_offset=1] = total
        of_block[unsafe_offset=2 + dimension] = sum

    @inline(.always)
    def join_parts(self, parts: Int, head: Int, dimension: Int, sink: Float32) -> Float32:
        """Joins what a cluster's blocks left of one head's dimension, and the sink; all are asked before any is joined.
        """
        var of_block = self.floats.unsafe_offset(
            _WARPS * Self.warp_floats + head * Self.head_floats
        )
        var shares = _Shares(0, 0, 0)
        comptime for part in range(_SHARES):
            var there = address_in_cluster(of_block, min(part, parts - 1))
            var value = address_in_cluster(of_block.unsafe_offset(dimension), min(part, parts - 1))
            shares.largest[part] = read_cluster[0](there)
            shares.totals[part] = read_cluster[1](there)
            shares.sums[part] = read_cluster[2](value)
        comptime for part in range(_SHARES):
            if part >= parts:
                shares.largest[part] = neg_inf[DType.float32]()
        var largest, total, sum = shares.join(least=sink)
        return sum / (total + exp2(sink - largest))


# Two blocks to a multiprocessor, so that one's loads hide behind the other's arithmetic.
@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(ATTENTION_THREADS)),
    `nvvm.minctasm`=SIMDLength(2),
)
def attention_kernel(
    output: MutPointer[BFloat16, MutUntrackedOrigin],
    q: ConstPointer[DType.bfloat16],
    row_offsets: ConstPointer[DType.uint32],
    sinks: ConstPointer[DType.bfloat16],
    keys: ConstPointer[DType.bfloat16],
    values: ConstPointer[DType.bfloat16],
    cache_lengths: ConstPointer[DType.uint32],
    table: ConstPointer[DType.uint32],
    page_stride: Int64,
    pages: Int32,
    page_shift: Int32,
    table_width: Int32,
    group: Int32,
    scale: Float32,
    window: Int32,
):
    """Attends from each token of sequence z by the query heads of key-value head y; the blocks along x are a cluster.

    Any ragged batch is right; with many tokens a sequence it is slow, as each reads all keys for itself.

    Args:
        output: [T, heads, D].
        q: [T, heads, D], rotated; 16-byte aligned.
        row_offsets: [B + 1], ascending.
        sinks: [heads].
        keys: The layer's in the first page, [page size, kv_heads, D]; 16-byte aligned.
        values: Its values there.
        cache_lengths: [B], tokens before this step's.
        table: [B, table_width], pages of a sequence.
        page_stride: Elements from page to page, a multiple of 8.
        pages: Pages of the cache; what lies beyond in the table is read as the last.
        page_shift: Logarithm of the page size, which is `TILE_KEYS` or more.
        table_width: Pages that a sequence may have; what it is longer is not seen.
        group: Query heads of a key-value head, at most `MAX_GROUP`.
        scale: What scores are multiplied by, times log2(e).
        window: Positions a query sees, itself included; below 1 for all.
    """
    var floats = stack_allocation[
        _Parts.size, Float32, alignment=8, address_space=AddressSpace.SHARED
    ]()
    var left = _Parts(floats)
    var part = Int(block_idx.x)
    var parts = Int(grid_dim.x)
    var kv_head = Int(block_idx.y)
    var kv_heads = Int(grid_dim.y)
    var sequence = Int(block_idx.z)
    var thread = Int(thread_idx.x)
    var first_row = Int(row_offsets[unsafe_offset=sequence])
    var end_row = Int(row_offsets[unsafe_offset=sequence + 1])
    for row in range(first_row, end_row):
        var end = min(
            Int32(cache_lengths[unsafe_offset=sequence]) + Int32(row - first_row + 1),
            table_width << page_shift,
        )
        var seen = _Sequence(
            keys.unsafe_offset(kv_head * HEAD_DIM),
            values.unsafe_offset(kv_head * HEAD_DIM),
            table.unsafe_offset(sequence * Int(table_width)),
            Int(page_stride),
            Int32(kv_heads * HEAD_DIM),
            UInt32(pages - 1),
            page_shift,
            max(end - window, 0) if window > 0 else 0,
            end,
        )
        var first_head = (row * kv_heads + kv_head) * Int(group)
        var head = first_head + min(thread % 32 // 4, Int(group) - 1)
        var softmax = _attend(
            seen,
            q.unsafe_offset(head * HEAD_DIM),
            scale,
            Int32(part + parts * (thread // 32)),
            Int32(parts * _WARPS),
            Int32(thread % 32),
        )
        left.leave(softmax, thread // 32, thread % 32)
        barrier()
        for item in range(thread, Int(group) * HEAD_DIM, ATTENTION_THREADS):
            left.join_warps(item // HEAD_DIM, item % HEAD_DIM)
        cluster_sync()
        for item in range(
            thread, (Int(group) - part + parts - 1) // parts * HEAD_DIM, ATTENTION_THREADS
        ):
            var of_group = part + parts * (item // HEAD_DIM)
            var sink = sinks[unsafe_offset=kv_head * Int(group) + of_group].cast[DType.float32]()
            var joined = left.join_parts(parts, of_group, item % HEAD_DIM, sink * log2e)
            output[
                unsafe_offset=(first_head + of_group) * HEAD_DIM + item % HEAD_DIM
            ] = joined.cast[DType.bfloat16]()
        cluster_sync()  # others may still read what this block is to write again, or to leave behind


@inline(.always)
def _attend(
    seen: _Sequence,
    q: ConstPointer[DType.bfloat16],
    scale: Float32,
    turn: Int32,
    turns: Int32,
    lane: Int32,
) -> _Softmax:
    """Takes one tile of so many; before it is multiplied the next one is asked for, and the page of the one after.
    """
    var of_q = SIMD[DType.uint32, _KEY_WORDS](0)
    comptime for j in range(0, _KEY_WORDS, 4):
        of_q = of_q.insert[offset=j](_load_8(q.unsafe_offset(8 * j + Int(lane % 4 * 8))))
    var softmax = _Softmax(neg_inf[DType.float32](), 0, 0)
    var tile = seen.begin // TILE_KEYS + turn
    var end = ceildiv(seen.end, TILE_KEYS)
    if tile >= end:
        return softmax
    var words = seen.load(tile, seen.page(tile), lane)
    var page = seen.page(tile + turns)
    while True:
        var next = tile + turns
        var next_words = words
        if next < end:
            next_words = seen.load(next, page, lane)
            page = seen.page(next + turns)
        var key = SIMD[DType.int32, 2](0, 8) + (tile * TILE_KEYS + lane // 4)
        softmax.add(words, of_q, scale, key.ge(seen.begin) & key.lt(seen.end))
        if next >= end:
            return softmax
        tile = next
        words = next_words


def choose_parts(sequences: Int, kv_heads: Int, window: Int, multiprocessors: Int) -> Int:
    """Gives how many blocks share a key-value head: as many as give each multiprocessor one, two at least where each has
    room for both, and none that a window leaves no tile.

    As measured on an H200: more blocks have less to do and as much to join.

    Args:
        sequences: B.
        kv_heads: Key-value heads.
        window: Positions a query sees; below 1 for all.
        multiprocessors: Of the device.

    Returns:
        A power of two, at most 8.
    """
    var parts = _SHARES
    while parts > 1 and (
        sequences * kv_heads * parts > multiprocessors * (2 if parts == 2 else 1)
        or (window > 0 and window < parts * _WARPS * TILE_KEYS)
    ):
        parts //= 2
    return parts


def enqueue_attention(
    ctx: DeviceContext,
    output: MutPointer[BFloat16, MutUntrackedOrigin],
    q: ConstPointer[DType.bfloat16],
    row_offsets: ConstPointer[DType.uint32],
    sinks: ConstPointer[DType.bfloat16],
    cache: PagedCache[DType.bfloat16],
    pages: Int,
    cache_lengths: ConstPointer[DType.uint32],
    sequences: Int,
    group: Int,
    scale: Float32,
    window: Int,
) raises:
    """Attends on a device.

    Args:
        ctx: The device.
        output: [T, heads, D].
        q: [T, heads, D].
        row_offsets: [sequences + 1].
        sinks: [heads].
        cache: Keys and values, this step's among them.
        pages: Pages of the cache.
        cache_lengths: [sequences], tokens before this step's.
        sequences: B.
        group: Query heads of a key-value head.
        scale: What scores are multiplied by.
        window: Positions a query sees, itself included; below 1 for all.

    Raises:
        The launch fails.
    """
    if sequences == 0:
        return
    var multiprocessors = Int(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT))
    var parts = choose_parts(sequences, cache.kv_heads, window, multiprocessors)
    ctx.enqueue_function[attention_kernel](
        output,
        q,
        row_offsets,
        sinks,
        cache.pages.unsafe_offset(cache.layer_offset(is_value=False)),
        cache.pages.unsafe_offset(cache.layer_offset(is_value=True)),
        cache_lengths,
        cache.table,
        Int64(cache.page_stride),
        Int32(pages),
        Int32(log2_floor(cache.page_size)),
        Int32(cache.table_width),
        Int32(group),
        scale * log2e,
        Int32(window),
        grid_dim=(parts, cache.kv_heads, sequences),
        block_dim=ATTENTION_THREADS,
        # A cluster of one would wait at barriers of clusters all the same.
        cluster_dim=Optional(Dim(parts)) if parts > 1 else None,
    )
