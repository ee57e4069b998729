"""Registers `attention.paged` and `attention.paged_sm90`."""

from std.math import ceildiv

import extensibility
from builtin_kernels.attention import (
    Struct_mha_ragged_paged_sink_weights_scalar_args as MaxAttention,
)
from extensibility import InputTensor, OutputTensor, _MutableInputTensor
from max.gpu.host import DeviceContext

from ..cpu.attention import Attention
from ..cpu.cache_tile import TILE_KEYS
from ..paged_cache import PagedCache
from ..pointers import ConstPointer
from ..sm90.attention import HEAD_DIM, MAX_GROUP, TILE_KEYS as SM90_TILE_KEYS, enqueue_attention
from .tensors import address, data, require_aligned, require_cpu, require_equal, require_gpu


def _check_sequences(
    op: StaticString,
    row_offsets: ConstPointer[DType.uint32],
    cache_lengths: ConstPointer[DType.uint32],
    sequences: Int,
    tokens: Int,
    room: Int,
) raises:
    """Refuses sequences that would make a kernel read past its queries or its row of the table."""
    require_equal(op, "row_offsets[0]", Int(row_offsets[unsafe_offset=0]), 0)
    for i in range(sequences):
        var begin = Int(row_offsets[unsafe_offset=i])
        var end = Int(row_offsets[unsafe_offset=i + 1])
        if end < begin:
            raise Error(op, ": row_offsets must ascend, got ", begin, " then ", end)
        var length = Int(cache_lengths[unsafe_offset=i]) + end - begin
        if length > room:
            raise Error(
                op, ": sequence ", i, " must fit its pages' ", room, " tokens, got ", length
            )
    require_equal(op, "row_offsets[B] = tokens", Int(row_offsets[unsafe_offset=sequences]), tokens)


def _check_pages[
    cache_dtype: DType, //
](
    op: StaticString,
    attention: Attention[cache_dtype],
    row_offsets: ConstPointer[DType.uint32],
    cache_lengths: ConstPointer[DType.uint32],
    sequences: Int,
    pages: Int,
) raises:
    """Refuses a table that would make a kernel read outside the cache; pages before the window may be anything.
    """
    var cache = attention.cache
    for i in range(sequences):
        var before = Int(cache_lengths[unsafe_offset=i])
        var end = before + Int(row_offsets[unsafe_offset=i + 1] - row_offsets[unsafe_offset=i])
        if end == before:  # no query, so no page is read
            continue
        for slot in range(
            attention.first_seen(before) // cache.page_size, ceildiv(end, cache.page_size)
        ):
            var page = cache.table[unsafe_offset=i * cache.table_width + slot]
            if Int(page) >= pages:
                raise Error(
                    op,
                    ": table[",
                    i,
                    ", ",
                    slot,
                    "] must be below the ",
                    pages,
                    " pages, got ",
                    page,
                )


@extensibility.register("attention.paged")
struct PagedAttention:
    """Causal attention with sinks over MAX's paged KV cache."""

    @staticmethod
    def execute[
        cache_dtype: DType, //, target: StaticString
    ](
        out_heads: OutputTensor[dtype=DType.float32, rank=3, ...],
        q: InputTensor[dtype=DType.float32, rank=3, ...],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        sinks: InputTensor[dtype=DType.float32, rank=1, ...],
        pages: _MutableInputTensor[dtype=cache_dtype, rank=6, ...],
        page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        table: InputTensor[dtype=DType.uint32, rank=2, ...],
        layer: UInt32,
        scale: Float32,
        window: Int32,
        ctx: DeviceContext,
    ) raises:
        """Computes the attention of each query to the keys of its sequence, which are already in the cache.

        Parameters:
            cache_dtype: Type of the cache, to which queries are rounded: float32 or bfloat16.
            target: Where the op runs.

        Args:
            out_heads: [T, heads, head_dim] float32.
            q: [T, heads, head_dim] float32, rotated.
            row_offsets: [B + 1] uint32.
            sinks: [heads] float32.
            pages: [pages, 2, layers, page_size, kv_heads, head_dim]; read only.
            page_stride: [1] int64, elements from one page to the next, or -1 if they are contiguous.
            cache_lengths: [B] uint32.
            table: [B, pages of the longest sequence] uint32.
            layer: The layer's index in the cache.
            scale: Factor on the scores.
            window: Positions a query attends to, its own included; below 1 for all.
            ctx: The device.

        Raises:
            If shapes disagree or do not divide into the kernel's tiles, or if sequences or pages are out of range.
        """
        comptime op = "attention.paged"
        comptime assert (
            cache_dtype == DType.bfloat16 or cache_dtype == DType.float32
        ), "the cache holds bfloat16 or float32"
        require_cpu[op, target]()
        var heads = q.shape()[1]
        var head_dim = q.shape()[2]
        var kv_heads = pages.shape()[4]
        comptime for axis in range(3):
            require_equal(
                op,
                "out.shape = q.shape",
                out_heads.shape()[axis],
                q.shape()[axis],
            )
        require_equal(op, "pages.shape[1] (key, value)", pages.shape()[1], 2)
        require_equal(op, "pages.shape[5] = q.shape[2]", pages.shape()[5], head_dim)
        require_equal(op, "sinks.shape[0] = q.shape[1]", sinks.shape()[0], heads)
        require_equal(op, "q.shape[1] modulo kv heads", heads % kv_heads, 0)
        require_equal(
            op,
            "page_size modulo the tile of keys",
            pages.shape()[3] % TILE_KEYS,
            0,
        )
        require_equal(op, "head_dim modulo the tile of keys", head_dim % TILE_KEYS, 0)
        var sequences = cache_lengths.shape()[0]
        require_equal(
            op,
            "row_offsets.shape[0] = sequences + 1",
            row_offsets.shape()[0],
            sequences + 1,
        )
        require_equal(op, "table.shape[0] = sequences", table.shape()[0], sequences)
        _check_sequences(
            op,
            data(row_offsets),
            data(cache_lengths),
            sequences,
            q.shape()[0],
            table.shape()[1] * pages.shape()[3],
        )
        if Int(layer) >= pages.shape()[2]:
            raise Error(op, ": layer must be below ", pages.shape()[2], ", got ", layer)
        var cache = _cache(pages, page_stride, table, layer)
        var attention = Attention[cache_dtype](
            data(out_heads),
            data(q),
            data(sinks),
            cache,
            heads,
            scale,
            Int(window),
        )
        _check_pages(
            op, attention, data(row_offsets), data(cache_lengths), sequences, pages.shape()[0]
        )
        attention.run(data(row_offsets), data(cache_lengths), sequences)


@extensibility.register("attention.paged_sm90")
struct PagedAttentionSm90:
    """Causal attention with sinks over MAX's paged KV cache: our kernel for decode steps, MAX's own for the rest.
    """

    @staticmethod
    def execute[
        target: StaticString, mask_str: StaticString, local_window_size: Int
    ](
        out_heads: OutputTensor[dtype=DType.bfloat16, rank=3, ...],
        q: InputTensor[dtype=DType.bfloat16, rank=3, ...],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        pages: _MutableInputTensor[dtype=DType.bfloat16, rank=6, ...],
        page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        table: InputTensor[dtype=DType.uint32, rank=2, ...],
        max_prompt_length: InputTensor[dtype=DType.uint32, rank=1, ...],
        max_cache_length: InputTensor[dtype=DType.uint32, rank=1, ...],
        layer: UInt32,
        scale: Float32,
        sinks: InputTensor[dtype=DType.bfloat16, rank=1, ...],
        dispatch_metadata: InputTensor[dtype=DType.int64, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes the attention of each query to the keys of its sequence, which are already in the cache.

        The inputs are those of MAX's `mo.mha.ragged.paged.sink_weights`, in the same order.

        Parameters:
            target: Where the op runs.
            mask_str: MAX's name for the mask.
            local_window_size: Positions a query attends to, its own included; -1 for all.

        Args:
            out_heads: [T, heads, 64].
            q: [T, heads, 64], rotated.
            row_offsets: [B + 1].
            pages: [pages, 2, layers, page_size, kv_heads, 64]; read only.
            page_stride: [1] on the CPU, elements from one page to the next, or -1 if they are contiguous.
            cache_lengths: [B].
            table: [B, pages of the longest sequence].
            max_prompt_length: [1] on the CPU.
            max_cache_length: [1] on the CPU.
            layer: The layer's index in the cache.
            scale: Factor on the scores.
            sinks: [heads].
            dispatch_metadata: [n], for MAX's kernel.
            ctx: The device.

        Raises:
            If shapes disagree, the kernel does not support them, or q or pages are not aligned to 16 bytes.
        """
        comptime op = "attention.paged_sm90"
        require_gpu[op, target]()
        var sequences = cache_lengths.shape()[0]
        if q.shape()[0] != sequences:  # a prompt: a decode step has one token per sequence
            MaxAttention.execute[
                target=target, mask_str=mask_str, local_window_size=local_window_size
            ](
                out_heads,
                q,
                row_offsets,
                pages,
                page_stride,
                cache_lengths,
                table,
                max_prompt_length,
                max_cache_length,
                layer,
                scale,
                sinks,
                dispatch_metadata,
                ctx,
            )
            return
        var heads = q.shape()[1]
        var page_size = pages.shape()[3]
        var kv_heads = pages.shape()[4]
        comptime for axis in range(3):
            require_equal(op, "out.shape = q.shape", out_heads.shape()[axis], q.shape()[axis])
        require_equal(op, "q.shape[2]", q.shape()[2], HEAD_DIM)
        require_equal(op, "pages.shape[1] (key, value)", pages.shape()[1], 2)
        require_equal(op, "pages.shape[5]", pages.shape()[5], HEAD_DIM)
        require_equal(op, "q.shape[1] modulo kv heads", heads % kv_heads, 0)
        require_equal(op, "sinks.shape[0] = q.shape[1]", sinks.shape()[0], heads)
        require_equal(
            op, "row_offsets.shape[0] = sequences + 1", row_offsets.shape()[0], sequences + 1
        )
        require_equal(op, "table.shape[0] = sequences", table.shape()[0], sequences)
        if Int(layer) >= pages.shape()[2]:
            raise Error(op, ": layer must be below ", pages.shape()[2], ", got ", layer)
        if heads // kv_heads > MAX_GROUP:
            raise Error(op, ": heads of a kv head must be at most ", MAX_GROUP)
        if page_size < SM90_TILE_KEYS or not page_size.is_power_of_two():
            raise Error(
                op,
                ": page_size must be a power of two from ",
                SM90_TILE_KEYS,
                " on, got ",
                page_size,
            )
        var cache = _cache(pages, page_stride, table, layer)
        require_equal(op, "page_stride modulo 8", cache.page_stride % 8, 0)
        require_aligned(op, "q", address(q), 16)
        require_aligned(op, "pages", Int(cache.pages), 16)
        enqueue_attention(
            ctx,
            data(out_heads),
            data(q),
            data(row_offsets),
            data(sinks),
            cache,
            pages.shape()[0],
            data(cache_lengths),
            sequences,
            heads // kv_heads,
            scale,
            local_window_size,
        )


def _cache[
    dtype: DType, //
](
    pages: _MutableInputTensor[dtype=dtype, rank=6, ...],
    page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
    table: InputTensor[dtype=DType.uint32, rank=2, ...],
    layer: UInt32,
) -> PagedCache[dtype]:
    """Describes where a layer's keys and values are stored."""
    var shape = pages.shape()
    var page_elements = Int(data(page_stride)[])
    if page_elements < 0:
        page_elements = 2 * shape[2] * shape[3] * shape[4] * shape[5]
    return PagedCache[dtype](
        pages.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin](),
        page_elements,
        data(table),
        table.shape()[1],
        shape[2],
        Int(layer),
        shape[3],
        shape[4],
        shape[5],
    )
