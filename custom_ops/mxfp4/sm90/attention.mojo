"""Decode attention over a paged KV cache: `mma` operands straight from global memory, split along the keys.

A decode step reads every key and value of a sequence once, and one block for each of 8 key-value heads is too few
blocks to saturate memory bandwidth. So a cluster of blocks shares a head: its warps take tiles of 16 keys in turn, each
with its own online softmax. A block merges the partial results of its warps, and the cluster those of its blocks,
through distributed shared memory; only there is the sink added, so it counts once.

Tiles bypass shared memory: which dimension an index k or a row of a product stands for is arbitrary, as long as both
operands and the result agree, so each lane loads 16 contiguous bytes of a row and already holds fragments.

- Scores^T = K Q^T [16 keys, 8 heads]. Lane l holds keys l / 4 and l / 4 + 8, dimensions 8 (l % 4) to + 7 of each 32,
  and the same dimensions of head l / 4 of Q.
- Output^T = V^T weights^T [16 dimensions, 8 heads]. Lane l holds dimensions 8 (l / 4) to + 7 of keys 2 (l % 4), + 1,
  + 8 and + 9: rows l / 4 and l / 4 + 8 of product i are dimensions 2i and 2i + 1 of these eight.

Sources: PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type", "movmatrix", "mapa"; for merging
partial results, FlashDecoding, Dao et al. 2023.
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

from ..gpu.overlap import let_next_kernel_begin, overlap_attributes, wait_for_kernels_before
from ..paged_cache import PagedCache
from ..pointers import ConstPointer
from .operands import operand_a, operand_b
from .ptx import (
    SharedFloats,
    address_in_cluster,
    read_cluster,
    select_bytes,
    transpose_8_by_8,
)

comptime HEAD_DIM = 64
"""D, dimensions of a head in both published models."""

comptime MAX_GROUP = 8
"""Maximum query heads per key-value head: the columns of a product."""

comptime TILE_KEYS = 16
"""Keys per tile; a page holds a whole number of tiles."""

comptime _KEY_WORDS = HEAD_DIM // 8
"""Words of each key, and of the query, that a lane holds."""

comptime _VALUE_WORDS = HEAD_DIM // 16
"""Words of each value that a lane holds."""

comptime _MAX_PARTS = 8
"""The most blocks per cluster that every GPU with clusters supports."""

comptime _GPCS = 8
"""Graphics processing clusters of a Hopper GPU, each with an even number of multiprocessors. A cluster of blocks lies
in one of them."""

comptime WARPS = 8
"""Warps per block where multiprocessors have two blocks each."""

comptime MANY_WARPS = 16
"""Warps per block where they have one each: a warp has the loads of one tile in flight, and twice as many of them have
twice as many (NOTES N116)."""


@fieldwise_init
struct _Tile(TrivialRegisterPassable):
    """A lane's words of 16 keys and their values, two dimensions per word."""

    var keys: SIMD[DType.uint32, 2 * _KEY_WORDS]
    """Dimensions 8 (l % 4) to + 7 of each 32, of keys l / 4 and l / 4 + 8."""
    var values: SIMD[DType.uint32, 4 * _VALUE_WORDS]
    """Dimensions 8 (l / 4) to + 7, of keys 2 (l % 4), + 1, + 8 and + 9."""


@fieldwise_init
struct _Sequence(TrivialRegisterPassable):
    """The part of the cache that one query attends to, for one key-value head."""

    var keys: ConstPointer[DType.bfloat16]
    """The head's first key in the layer's first page."""
    var values: ConstPointer[DType.bfloat16]
    """The head's first value there."""
    var table: ConstPointer[DType.uint32]
    """The sequence's pages, [length / page size]."""
    var page_stride: Int
    """Elements from one page to the next."""
    var row_stride: Int32
    """Elements from one key to the next."""
    var last_page: UInt32
    """The cache's last page, read in place of any beyond it."""
    var page_shift: Int32
    """Binary logarithm of the page size."""
    var begin: Int32
    """The first position attended to."""
    var end: Int32
    """One past the last position attended to."""

    @inline(.always)
    def page(self, tile: Int32) -> UInt32:
        """Loads the page of a tile, or of the last tile if there are no more."""
        var position = min(tile * TILE_KEYS, self.end - 1)
        return self.table[unsafe_offset=Int(position >> self.page_shift)]

    @inline(.always)
    def load(self, tile: Int32, page: UInt32, lane: Int32) -> _Tile:
        """Loads a tile; values past the end, of weight 0, must be finite: the last is repeated."""
        var position = tile * TILE_KEYS
        var start = Int(min(page, self.last_page)) * self.page_stride
        var slot = position & ((1 << self.page_shift) - 1)
        var last = self.end - 1 - position
        var words = _Tile(0, 0)
        comptime for i in range(2):
            # A key past the end may be anything: its score is masked.
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
    # Not `invariant`: the preceding kernel may still be writing this memory when this one begins.
    return bitcast[DType.uint32, 4](source.unsafe_load[width=8, alignment=16, invariant=False]())


@inline(.always)
def _pack(low: Float32, high: Float32) -> UInt32:
    return bitcast[DType.uint32, 1](SIMD[DType.float32, 2](low, high).cast[DType.bfloat16]())


@inline(.always)
def _from_lane(x: SIMD[DType.float32, 2], distance: UInt32) -> SIMD[DType.float32, 2]:
    """Returns the values of the lane whose index differs in the bit `distance`."""
    return SIMD[DType.float32, 2](shuffle_xor(x[0], distance), shuffle_xor(x[1], distance))


@fieldwise_init
struct _Softmax(TrivialRegisterPassable):
    """A warp's online softmax, for heads 2 (l % 4) and + 1."""

    var largest: SIMD[DType.float32, 2]
    """Running maximum of the scores, times log2(e); the same in all lanes of a head."""
    var totals: SIMD[DType.float32, 2]
    """Sums of the weights of this lane's keys, relative to the maximum."""
    var sums: SIMD[DType.float32, 4 * _VALUE_WORDS]
    """Sums of weighted values: four per product, dimensions 2i and 2i + 1 for both heads."""

    @inline(.always)
    def add(
        mut self,
        tile: _Tile,
        q: SIMD[DType.uint32, _KEY_WORDS],
        scale: Float32,
        seen: SIMD[DType.bool, 2],
    ):
        """Adds a tile, in which `seen` selects keys l / 4 and l / 4 + 8; at least one of all 16 is selected.
        """
        var scores = SIMD[DType.float32, 4](0)
        comptime for i in range(0, _KEY_WORDS, 2):
            mma(
                scores,
                operand_a(
                    tile.keys[i],
                    tile.keys[_KEY_WORDS + i],
                    tile.keys[i + 1],
                    tile.keys[_KEY_WORDS + i + 1],
                ),
                operand_b(q[i], q[i + 1]),
                scores,
            )
        comptime for i in range(4):
            scores[i] = scores[i] * scale if seen[i // 2] else neg_inf[DType.float32]()
        var largest = max(scores.slice[2](), scores.slice[2, offset=2]())
        comptime for i in range(3):  # across the lanes of a head
            largest = max(largest, _from_lane(largest, UInt32(4 << i)))
        largest = max(largest, self.largest)
        var factors = exp2(self.largest - largest)
        self.largest = largest
        var weights = exp2(scores - largest.join(largest))
        self.totals = self.totals.fma(factors, weights.slice[2]() + weights.slice[2, offset=2]())
        var b = operand_b(
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
                operand_a(
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
struct _Shares[count: Int](TrivialRegisterPassable):
    """Partial softmaxes of several warps or blocks, for one dimension of one head.

    Parameters:
        count: How many, a power of two.
    """

    var largest: SIMD[DType.float32, Self.count]
    """Maximum scores, times log2(e); -inf for a warp without keys or a block that does not exist."""
    var totals: SIMD[DType.float32, Self.count]
    """Sums of weights."""
    var sums: SIMD[DType.float32, Self.count]
    """Weighted values."""

    @inline(.always)
    def join(self, least: Float32) -> Tuple[Float32, Float32, Float32]:
        """Merges the shares; returns the maximum score (`least` or more), the sum of weights and the weighted value.
        """
        var largest = max(self.largest.reduce_max(), least)
        var weights = exp2(self.largest - largest)
        return (
            largest,
            (weights * self.totals).reduce_add(),
            (weights * self.sums).reduce_add(),
        )


@fieldwise_init
struct _Parts[warps: Int](TrivialRegisterPassable):
    """Partial results of each head in shared memory, those of the warps and then the block's: the maximum score, the
    sum of weights and the weighted values.

    Parameters:
        warps: Of the block.
    """

    comptime head_floats = 2 + HEAD_DIM
    comptime warp_floats = MAX_GROUP * Self.head_floats
    comptime size = (Self.warps + 1) * Self.warp_floats

    var floats: SharedFloats
    """[warps + 1, MAX_GROUP, 2 + HEAD_DIM]."""

    @inline(.always)
    def leave(self, softmax: _Softmax, warp: Int, lane: Int):
        """Stores a warp's softmax."""
        var totals = softmax.totals
        comptime for i in range(3):  # across the lanes of a head
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
        """Merges the warps' results for one dimension of a head."""
        var of_head = self.floats.unsafe_offset(head * Self.head_floats)
        var shares = _Shares[Self.warps](0, 0, 0)
        comptime for warp in range(Self.warps):
            var of_warp = of_head.unsafe_offset(warp * Self.warp_floats)
            shares.largest[warp] = of_warp[unsafe_offset=0]
            shares.totals[warp] = of_warp[unsafe_offset=1]
            shares.sums[warp] = of_warp[unsafe_offset=2 + dimension]
        # A block may have seen no key: a finite maximum avoids -inf - -inf, which is NaN.
        var largest, total, sum = shares.join(least=min_finite[DType.float32]())
        var of_block = of_head.unsafe_offset(Self.warps * Self.warp_floats)
        if dimension == 0:
            of_block[unsafe_offset=0] = largest
            of_block[unsafe_offset=1] = total
        of_block[unsafe_offset=2 + dimension] = sum

    @inline(.always)
    def join_parts(self, parts: Int, head: Int, dimension: Int, sink: Float32) -> Float32:
        """Merges the blocks' results and the sink for one dimension of a head; all remote loads are issued first.
        """
        var of_block = self.floats.unsafe_offset(
            Self.warps * Self.warp_floats + head * Self.head_floats
        )
        var shares = _Shares[_MAX_PARTS](0, 0, 0)
        comptime for part in range(_MAX_PARTS):
            var there = address_in_cluster(of_block, min(part, parts - 1))
            var value = address_in_cluster(of_block.unsafe_offset(dimension), min(part, parts - 1))
            shares.largest[part] = read_cluster[0](there)
            shares.totals[part] = read_cluster[1](there)
            shares.sums[part] = read_cluster[2](value)
        comptime for part in range(_MAX_PARTS):
            if part >= parts:
                shares.largest[part] = neg_inf[DType.float32]()
        var largest, total, sum = shares.join(least=sink)
        return sum / (total + exp2(sink - largest))


# Two resident blocks of 8 warps per multiprocessor, or one of 16, so that some loads overlap others' arithmetic.
@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(32 * warps)),
    `nvvm.minctasm`=SIMDLength(MANY_WARPS // warps),
)
def attention_kernel[
    warps: Int
](
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
    """Computes attention for the tokens of sequence z and the query heads of key-value head y, by block index.

    The blocks along x form a cluster. Correct for any ragged batch, but slow with many tokens per sequence, as each of
    them reads all keys again.

    Parameters:
        warps: Of a block.

    Args:
        output: [T, heads, D].
        q: [T, heads, D], already rotated; 16-byte aligned.
        row_offsets: [B + 1], ascending.
        sinks: [heads].
        keys: The layer's keys in the first page, [page size, kv_heads, D]; 16-byte aligned.
        values: The layer's values there.
        cache_lengths: [B], tokens before those of this step.
        table: [B, table_width], the pages of each sequence.
        page_stride: Elements from one page to the next, a multiple of 8.
        pages: Pages of the cache; a larger page number in the table reads the last page.
        page_shift: Binary logarithm of the page size, which is at least `TILE_KEYS`.
        table_width: Maximum pages per sequence; positions beyond them are ignored.
        group: Query heads per key-value head, at most `MAX_GROUP`.
        scale: Factor on the scores, times log2(e).
        window: Positions a query attends to, its own included; below 1 for all.
    """
    var floats = stack_allocation[
        _Parts[warps].size, Float32, alignment=8, address_space=AddressSpace.SHARED
    ]()
    var left = _Parts[warps](floats)
    var part = Int(block_idx.x)
    var parts = Int(grid_dim.x)
    var kv_head = Int(block_idx.y)
    var kv_heads = Int(grid_dim.y)
    var sequence = Int(block_idx.z)
    var thread = Int(thread_idx.x)
    wait_for_kernels_before()
    let_next_kernel_begin()
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
            Int32(parts * warps),
            Int32(thread % 32),
        )
        left.leave(softmax, thread // 32, thread % 32)
        barrier()
        for item in range(thread, Int(group) * HEAD_DIM, 32 * warps):
            left.join_warps(item // HEAD_DIM, item % HEAD_DIM)
        cluster_sync()
        for item in range(thread, (Int(group) - part + parts - 1) // parts * HEAD_DIM, 32 * warps):
            var of_group = part + parts * (item // HEAD_DIM)
            var sink = sinks[unsafe_offset=kv_head * Int(group) + of_group].cast[DType.float32]()
            var joined = left.join_parts(parts, of_group, item % HEAD_DIM, sink * log2e)
            output[
                unsafe_offset=(first_head + of_group) * HEAD_DIM + item % HEAD_DIM
            ] = joined.cast[DType.bfloat16]()
        cluster_sync()  # others may still read the shared memory that this block overwrites next, or frees on exit


@inline(.always)
def _attend(
    seen: _Sequence,
    q: ConstPointer[DType.bfloat16],
    scale: Float32,
    turn: Int32,
    turns: Int32,
    lane: Int32,
) -> _Softmax:
    """Processes every `turns`-th tile, prefetching the next one, and the page of the one after, before each.
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
    """Returns how many blocks share a key-value head.

    The largest power of two that gives each multiprocessor at most one block, or two blocks if it is 2, and each warp a
    tile of the window. Measured on an H200: with more blocks, each has less to do but as much to merge.

    Args:
        sequences: B.
        kv_heads: Key-value heads.
        window: Positions a query attends to; below 1 for all.
        multiprocessors: Multiprocessors of the device.

    Returns:
        A power of two, at most 8.
    """
    var parts = _MAX_PARTS
    while parts > 1 and (
        sequences * kv_heads * parts > multiprocessors * (2 if parts == 2 else 1)
        or (window > 0 and window < parts * WARPS * TILE_KEYS)
    ):
        parts //= 2
    return parts


def choose_warps(clusters: Int, parts: Int, window: Int, multiprocessors: Int) -> Int:
    """Returns the warps per block: many where each block has a multiprocessor to itself, and no window leaves some idle.

    More clusters than are sure to fit at once could make a second round, in which they would take as long again; where
    two blocks share a multiprocessor, they fit.

    Args:
        clusters: Of the launch.
        parts: Blocks per cluster.
        window: Positions a query attends to; below 1 for all.
        multiprocessors: Multiprocessors of the device.

    Returns:
        `WARPS` or `MANY_WARPS`.
    """
    # In each GPC fewer multiprocessors may be left over than make a cluster, by two.
    var alone = clusters * parts + _GPCS * max(parts - 2, 0) <= multiprocessors
    return MANY_WARPS if alone and (window < 1 or window >= MANY_WARPS * TILE_KEYS) else WARPS


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
    """Launches attention on a device.

    Args:
        ctx: The device.
        output: [T, heads, D].
        q: [T, heads, D].
        row_offsets: [sequences + 1].
        sinks: [heads].
        cache: Keys and values, including those of this step.
        pages: Pages of the cache.
        cache_lengths: [sequences], tokens before those of this step.
        sequences: B.
        group: Query heads per key-value head.
        scale: Factor on the scores.
        window: Positions a query attends to, its own included; below 1 for all.

    Raises:
        If the launch fails.
    """
    if sequences == 0:
        return
    var multiprocessors = Int(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT))
    var parts = choose_parts(sequences, cache.kv_heads, window, multiprocessors)
    var chosen = choose_warps(cache.kv_heads * sequences, parts, window, multiprocessors)
    comptime for warps in [WARPS, MANY_WARPS]:
        if warps == chosen:
            ctx.enqueue_function[attention_kernel[warps]](
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
                block_dim=32 * warps,
                # Without this attribute a block is a cluster of one, for which cluster barriers work all the same.
                cluster_dim=Optional(Dim(parts)) if parts > 1 else None,
                attributes=overlap_attributes(ctx),
            )
