"""The grouped matmul of a CPU: each expert's rows times its weights, threads taking blocks of outputs in turn.

    1. pack the rows, in expert order: as rows where an expert has few, as tiles where it has many
    2. each thread, while there is a block of outputs of an expert with rows: for each TILE_N of it dot or tile, then epilogue

Blocks of outputs balance whatever the routing and whoever else is on the cores, and are long enough streams of weights.
"""

from std.atomic import Atomic
from std.math import align_up, ceildiv

from max.algorithm import sync_parallelize
from std.runtime import parallelism_level

from ..pointers import ConstPointer
from .dot import TILE_N, FloatPointer, dot, scales_per_row, takes_blocks
from .epilogue import Epilogue
from .float_mode import enable_subnormals, write_float_mode
from .pack import pack_row, row_words, transpose_rows
from .tile import tile
from .transpose import transpose_square
from .weights import WeightRows, WordPointer, chunk_k, word_pointer
from .words import LANES, Floats, Words

comptime _MAX_TILE_ROWS = 6 * LANES
"""Most rows of one tile call; an expert with more takes several. A chunk of its packed bfloat16 words then fits L1."""


def _max_dot_rows[Rows: WeightRows]() -> Int:
    """The most rows of an expert that all go by dot (NOTES N11, N87, N95, N98)."""
    comptime if Rows.word == DType.bfloat16:
        return 4 * LANES if takes_blocks[Rows]() else 7 * LANES // 4
    elif Rows.word == DType.int8:
        return 2 * LANES if LANES == 8 else 3 * LANES // 4
    else:
        return 3 * LANES // 2 if LANES == 8 else LANES // 2


def _max_remainder[word: DType]() -> Int:
    """Rows past a whole register of tokens that are cheaper by dot than as one more register, part of it padding.
    """
    return LANES // 2 if word == DType.float32 and LANES == 16 else 3 * LANES // 4


comptime _MAX_SERIAL_PACK = 8
"""Rows that one thread packs faster than several would begin to."""

comptime _BLOCKS_PER_THREAD = 16
"""Blocks of outputs of a part, for each thread: who is done first takes the next, and waits little at the end."""

comptime _MIN_WORK_PER_THREAD = 1 << 18
"""Multiplications worth a thread of their own: a fork-join costs about as much as a hundred thousand."""


@fieldwise_init
struct RowGather(TrivialRegisterPassable):
    """Finds the row of x that a routed row multiplies: its own, or its token's."""

    var order: ConstPointer[DType.int32]
    """Row order [P] of `moe.group`; not read where rows_per_token is 0."""
    var rows_per_token: Int
    """Experts per token, or 0 where x is already in expert order."""

    @inline(.always)
    def x_row(self, row: Int) -> Int:
        """Gives the row of x for a routed row.

        Args:
            row: The routed row, in expert order.

        Returns:
            The row of x.
        """
        if self.rows_per_token == 0:
            return row
        return Int(self.order[unsafe_offset=row]) // self.rows_per_token


@fieldwise_init
struct _Part(Copyable, ImplicitlyCopyable, Movable):
    """Rows of one expert that one kernel call multiplies together."""

    var expert: Int
    var first_row: Int
    var rows: Int
    var words_off: Int
    var by_dot: Bool

    def padded_rows(self) -> Int:
        return self.rows if self.by_dot else align_up(self.rows, LANES)


def _cut_into_parts[
    Rows: WeightRows
](offsets: ConstPointer[DType.int32], experts: Int, k: Int) -> Tuple[List[_Part], Int]:
    """Lists the parts of all experts that have rows, in order, and where each one's packed words begin; and counts those.
    """
    var parts = List[_Part]()
    var words_off = 0
    for expert in range(experts):
        var row = Int(offsets[unsafe_offset=expert])
        var end = Int(offsets[unsafe_offset=expert + 1])
        while row < end:
            var rows = end - row
            var by_dot = rows <= _max_dot_rows[Rows]()
            if not by_dot:
                # Equal calls, in whole registers of tokens; a remainder goes by dot afterwards.
                var calls = ceildiv(rows, _MAX_TILE_ROWS)
                rows = min(rows, align_up(ceildiv(rows, calls), LANES))
                if rows % LANES <= _max_remainder[Rows.word]():
                    rows -= rows % LANES
            var part = _Part(expert, row, rows, words_off, by_dot)
            var words = _words_per_row[Rows.ByDot](k) if by_dot else _words_per_row[Rows](k)
            words_off += part.padded_rows() * words
            row += part.rows
            parts.append(part)
    return (parts^, words_off)


def _words_per_row[Rows: WeightRows](k: Int) -> Int:
    return row_words[Rows](ceildiv(k, chunk_k[Rows]()))


def _pack_rows[
    Rows: WeightRows, round_to_bf16: Bool
](
    first_row: Int,
    rows: Int,
    x: ConstPointer[DType.float32],
    gather: RowGather,
    k: Int,
    target: WordPointer,
):
    var chunks = ceildiv(k, chunk_k[Rows]())
    for i in range(rows):
        pack_row[Rows, round_to_bf16](
            x.unsafe_offset(gather.x_row(first_row + i) * k),
            k,
            chunks,
            target.unsafe_offset(i * row_words[Rows](chunks)),
        )


def _pack_part[
    Rows: WeightRows, round_to_bf16: Bool
](part: _Part, x: ConstPointer[DType.float32], gather: RowGather, k: Int, words: WordPointer,):
    var target = words.unsafe_offset(part.words_off)
    if part.by_dot:
        _pack_rows[Rows.ByDot, round_to_bf16](part.first_row, part.rows, x, gather, k, target)
        return
    var words_per_row = _words_per_row[Rows](k)
    var block = List[Words](unsafe_uninit_length=words_per_row)
    var block_words = word_pointer(block)
    for first in range(0, part.rows, LANES):
        var count = min(LANES, part.rows - first)
        _pack_rows[Rows, round_to_bf16](part.first_row + first, count, x, gather, k, block_words)
        transpose_rows(
            block_words,
            count,
            words_per_row,
            part.padded_rows(),
            target.unsafe_offset(first),
        )
    _ = block^


@fieldwise_init
struct _Scratch(TrivialRegisterPassable):
    """A thread's buffers."""

    var sums: FloatPointer
    """[_MAX_TILE_ROWS, TILE_N] float32."""
    var transposed: FloatPointer
    """[TILE_N, _MAX_TILE_ROWS] float32."""
    var scales: WordPointer
    """[TILE_N, scales_per_row] words."""
    var partial: FloatPointer
    """[_max_dot_rows, TILE_N, LANES] float32."""


def _multiply_part[
    Rows: WeightRows, Finish: Epilogue
](
    part: _Part,
    weights: Rows,
    words: WordPointer,
    k: Int,
    n: Int,
    first_n: Int,
    count: Int,
    finish: Finish,
    scratch: _Scratch,
):
    """Multiplies one part by TILE_N weight rows or fewer and hands the sums on, row by row."""
    var x = words.unsafe_offset(part.words_off)
    var weight_row = part.expert * n + first_n
    var sums = scratch.sums
    if part.by_dot:
        dot(
            weights.by_dot(),
            weight_row,
            count,
            k,
            x,
            part.rows,
            scratch.scales,
            scratch.partial,
            sums,
        )
    else:
        var stride = part.padded_rows()
        tile(weights, weight_row, count, k, x, stride, scratch.scales, scratch.transposed)
        for i in range(0, stride, LANES):
            for j in range(0, align_up(count, LANES), LANES):
                var square = Array[Floats, LANES](fill=Floats(0))
                comptime for r in range(LANES):
                    square[r] = scratch.transposed.unsafe_load[width=LANES]((j + r) * stride + i)
                transpose_square(square)
                comptime for r in range(LANES):
                    sums.unsafe_store((i + r) * TILE_N + j, square[r])
    for i in range(part.rows):
        finish.store(
            sums.unsafe_offset(i * TILE_N),
            part.first_row + i,
            part.expert,
            first_n,
            count,
        )


def grouped_matmul[
    Rows: WeightRows, Finish: Epilogue, round_to_bf16: Bool
](
    x: ConstPointer[DType.float32],
    gather: RowGather,
    weights: Rows,
    offsets: ConstPointer[DType.int32],
    experts: Int,
    n: Int,
    k: Int,
    finish: Finish,
):
    """Multiplies each expert's rows by its weights: `sums[p, :] = x[row(p), :] @ W[e(p)].T`, then the epilogue.

    Parameters:
        Rows: The weights' format.
        Finish: What makes outputs of sums.
        round_to_bf16: Whether activations are rounded to bfloat16 first.

    Args:
        x: [P or T, k] float32.
        gather: Which row of x a routed row takes.
        weights: [experts * n, k] packed rows.
        offsets: [experts + 1] int32, ascending from 0 to P.
        experts: E.
        n: Weight rows of an expert.
        k: Elements in a row.
        finish: The epilogue.
    """
    var rows = Int(offsets[unsafe_offset=experts])
    if rows == 0 or n == 0:
        return
    var cut = _cut_into_parts[Rows](offsets, experts, k)
    ref parts = cut[0]
    var buffer = List[Words](unsafe_uninit_length=ceildiv(cut[1], LANES))
    var words = word_pointer(buffer)

    var threads = max(
        1,
        min(
            parallelism_level(),
            ceildiv(rows * n * k, _MIN_WORK_PER_THREAD),
            ceildiv(n, 2),
        ),
    )

    def pack(thread: Int) {imm}:
        for i in range(thread, len(parts), threads):
            _pack_part[Rows, round_to_bf16](parts[i], x, gather, k, words)

    # A block is whole tiles where every thread gets some, and otherwise not fewer outputs than a tile decodes at once;
    # it is even, as SwiGLU pairs rows.
    var least = TILE_N if len(parts) * n >= 2 * threads * TILE_N else 8
    var block = align_up(ceildiv(n, threads * _BLOCKS_PER_THREAD), least)
    var blocks = ceildiv(n, block)
    var next = Atomic[Int64](0)
    var next_task = MutPointer(to=next)

    def multiply(thread: Int) {imm}:
        var mode = enable_subnormals()
        var sums = List[Words](unsafe_uninit_length=_MAX_TILE_ROWS * TILE_N // LANES)
        var transposed = List[Words](unsafe_uninit_length=_MAX_TILE_ROWS * TILE_N // LANES)
        # Of TILE_N rows for a tile, of two for dot.
        var scales = List[Words](
            unsafe_uninit_length=ceildiv(
                max(
                    TILE_N * scales_per_row[Rows](ceildiv(k, chunk_k[Rows]())),
                    2 * scales_per_row[Rows.ByDot](ceildiv(k, chunk_k[Rows.ByDot]())),
                ),
                LANES,
            )
        )
        var partial = List[Words](
            unsafe_uninit_length=_max_dot_rows[Rows]() * TILE_N if takes_blocks[Rows.ByDot]() else 0
        )
        var scratch = _Scratch(
            word_pointer(sums).unsafe_bitcast[Float32](),
            word_pointer(transposed).unsafe_bitcast[Float32](),
            word_pointer(scales),
            word_pointer(partial).unsafe_bitcast[Float32](),
        )
        while True:
            var task = Int(next_task[].fetch_add(Int64(1)))
            if task >= len(parts) * blocks:
                break
            var begin = task % blocks * block
            var end = min(n, begin + block)
            for first_n in range(begin, end, TILE_N):
                _multiply_part(
                    parts[task // blocks],
                    weights,
                    words,
                    k,
                    n,
                    first_n,
                    min(TILE_N, end - first_n),
                    finish,
                    scratch,
                )
        write_float_mode(mode)
        _ = sums^
        _ = transposed^
        _ = scales^
        _ = partial^

    if len(parts) == 1 or rows <= _MAX_SERIAL_PACK:
        for i in range(len(parts)):
            _pack_part[Rows, round_to_bf16](parts[i], x, gather, k, words)
    else:
        sync_parallelize(pack, threads)
    sync_parallelize(multiply, threads)
    _ = buffer^


def dense_matmul[
    Rows: WeightRows, Finish: Epilogue, //, round_to_bf16: Bool
](x: ConstPointer[DType.float32], rows: Int, weights: Rows, n: Int, k: Int, finish: Finish):
    """Multiplies all rows by one matrix, as the grouped matmul of a single expert.

    Parameters:
        Rows: The weights' format.
        Finish: What makes outputs of sums.
        round_to_bf16: Whether activations are rounded to bfloat16 first.

    Args:
        x: [rows, k] float32.
        rows: T.
        weights: [n, k] packed rows.
        n: Weight rows.
        k: Elements in a row.
        finish: The epilogue.
    """
    var offsets = List[Int32](length=2, fill=0)
    offsets[1] = Int32(rows)
    var offsets_data = offsets.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    grouped_matmul[round_to_bf16=round_to_bf16](
        x, RowGather(offsets_data, 0), weights, offsets_data, 1, n, k, finish
    )
    _ = offsets^
