"""Dot products of weight rows with a few rows of activations: each weight is decoded once for all of them.

    for row: for chunk: words = decode(row, chunk)
        for m: sums[m] += scale(chunk) * (words . x[m, chunk])

With one row or two that is limited by reading weights, so rows go strictly in order and memory is asked for ahead of use.
With more, arithmetic counts: scales are folded into words where they fit, and pairs of weight rows share activations. Where
words need no decoding, or activations are four bytes each, those are most of what is read: a block of chunks, whose activations
stay in L1, goes through all weight rows before the next block does.
"""

from std.math import ceildiv
from std.memory import bitcast

from .pack import row_words, x_scales_word
from .weights import (
    WeightRows,
    WordPointer,
    chunk_k,
    groups_per_chunk,
    lane_scales,
    words_per_chunk,
)
from .words import LANES, Floats, PairSums, Sums, Words, multiply_add, multiply_add_of_group

comptime FloatPointer = MutPointer[Float32, MutUntrackedOrigin]
"""Sums in a buffer of the op's own."""

comptime TILE_N = 32
"""Weight rows, that is outputs, that a kernel call produces."""


def _pass_rows[Rows: WeightRows]() -> Int:
    """Most rows of activations that one pass over the weights multiplies: with the words of a pair of rows, which each
    row of activations meets all at once where sums are scaled, eight rows' sums do not fit the registers.
    """
    return 7 if Rows.word == DType.int8 and LANES == 16 else 8


comptime _BLOCK_ROWS = 4 if LANES == 16 else 3
"""Fewest rows of activations that weight rows share, in pairs and in blocks."""

comptime _BLOCK_BYTES = 16384
"""Activations of a block of chunks, half of a small L1: weights pass through the other half."""

comptime _LEAD_BYTES = 4096
"""How far ahead of a walk through a block its weights are asked for."""


def _fold_rows[word: DType]() -> Int:
    """Fewest rows of activations for which folding scales into words is less work than multiplying sums by them.

    A multiplication a word of float32 is more, but where products beside their sums would not fit the registers.
    """
    comptime if word == DType.bfloat16:
        return 4
    else:
        return 6 if LANES == 8 else Int.MAX


def _in_blocks[Rows: WeightRows, m: Int]() -> Bool:
    return takes_blocks[Rows]() and m >= _BLOCK_ROWS


def takes_blocks[Rows: WeightRows]() -> Bool:
    """Tells whether chunks go in blocks, with `_BLOCK_ROWS` rows of activations or more (NOTES N87, N95).

    Parameters:
        Rows: The weights' format.

    Returns:
        Whether each packed register is one of words, or activations are so many bytes that decoding hides behind them.
    """
    return Rows.vectors == Rows.registers or (LANES == 8 and Rows.word == DType.float32)


@fieldwise_init
struct _Walk(TrivialRegisterPassable):
    """One pass over some weight rows."""

    var first_row: Int
    """The first weight row."""
    var rows: Int
    """Weight rows."""
    var k: Int
    """Elements in a row."""
    var chunks: Int
    """Chunks in a row."""
    var chunk_bytes: Int
    """Packed weights of a chunk."""
    var first: Int
    """The first chunk of the block."""
    var end: Int
    """Past its last."""
    var turn: Int
    """Which of the block's passes this is: each asks for its share of the next block's weights."""
    var passes: Int
    """Passes over the block."""

    @inline(.always)
    def ahead(self, n: Int) -> Tuple[Int, Int]:
        """Gives the row to ask for while row n is multiplied, and what to add to a chunk's place in it.

        One pass asks a few rows ahead, several for what the next block will want: the same rows, or those after them.
        """
        var lead = self.rows
        if self.passes == 1:
            lead = ceildiv(_LEAD_BYTES, (self.end - self.first) * self.chunk_bytes)
        elif n % self.passes != self.turn:
            return (self.first_row + n, 0)
        if n + lead < self.rows:
            return (self.first_row + n + lead, 0)
        if self.end < self.chunks:
            return (self.first_row + n + lead - self.rows, self.end - self.first)
        return (self.first_row + n + lead, -self.first)


@inline(.always)
def _add_chunk[
    Rows: WeightRows, m: Int, pair: Int, fold: Bool, tail: Bool
](
    weights: Rows,
    row: Int,
    ahead: Array[Tuple[Int, Int], pair],
    chunk: Int,
    x: WordPointer,
    x_stride: Int,
    scales: WordPointer,
    scales_stride: Int,
    mut sums: Array[Floats, pair * m],
):
    """Adds one chunk of `pair` weight rows, times m rows of activations, to sums[r * m + i]."""
    comptime scale_sums = Rows.group_lanes > 0 and not fold
    # Few sums: separate products, for each sum's additions wait for one another.
    comptime direct = not scale_sums and pair * m >= 4
    comptime Packed = Array[Words, Rows.registers]
    var packed = Array[Packed, pair](fill=Packed(fill=Words(0)))
    var scale = Array[Words, pair](fill=Words(0))
    comptime for r in range(pair):
        comptime if _in_blocks[Rows, m]():
            weights.prefetch_chunk(ahead[r][0], chunk + ahead[r][1])
        else:
            # Counted from the pair's last row: what lies between the two is under way already.
            weights.prefetch_ahead(row + r + pair - 1, chunk)
        packed[r] = weights.load[tail](row + r, chunk)
        scale[r] = lane_scales[Rows](scales.unsafe_offset(r * scales_stride), chunk)
    var x_chunk = x.unsafe_offset(row_words[Rows](chunk))
    comptime if direct:
        comptime for v in range(Rows.vectors):
            var words = Array[Words, pair](fill=Words(0))
            comptime for r in range(pair):
                words[r] = weights.decode[v, fold](packed[r], scale[r])
            comptime for i in range(m):
                var source = x_chunk.unsafe_offset(i * x_stride).unsafe_load[width=LANES](v * LANES)
                comptime for r in range(pair):
                    comptime s = r * m + i
                    sums[s] = rebind[Floats](
                        multiply_add[Rows.word, Rows.zero_point](
                            rebind[Sums[Rows.word]](sums[s]), words[r], source
                        )
                    )
    else:
        var words = Array[Words, pair * Rows.vectors](fill=Words(0))
        comptime for r in range(pair):
            comptime for v in range(Rows.vectors):
                words[r * Rows.vectors + v] = weights.decode[v, fold](packed[r], scale[r])
        comptime for i in range(m):
            _add_products[Rows, pair, m, i, scale_sums](
                words, scale, x_chunk.unsafe_offset(i * x_stride), sums
            )


@inline(.always)
def _add_products[
    Rows: WeightRows, pair: Int, m: Int, i: Int, scale_sums: Bool
](
    words: Array[Words, pair * Rows.vectors],
    scale: Array[Words, pair],
    x: WordPointer,
    mut sums: Array[Floats, pair * m],
):
    """Adds a chunk's products by one row of activations, which are summed by themselves first, to sums[r * m + i].
    """
    var products = Array[Sums[Rows.word], pair](fill=Sums[Rows.word](0))
    comptime if Rows.word == DType.int8 and Rows.zero_point:
        var start = x.unsafe_load[width=LANES](words_per_chunk[Rows]())
        comptime for r in range(pair):
            products[r] = rebind[Sums[Rows.word]](bitcast[DType.int32, LANES](start))
    var pairs = Array[PairSums, pair](fill=PairSums(0))
    comptime for v in range(Rows.vectors):
        var source = x.unsafe_load[width=LANES](v * LANES)
        comptime for r in range(pair):
            products[r] = multiply_add_of_group[Rows.word, Rows.zero_point, v, Rows.vectors](
                products[r], pairs[r], words[r * Rows.vectors + v], source
            )
    comptime for r in range(pair):
        var total = products[r].cast[DType.float32]()
        comptime s = r * m + i
        comptime if scale_sums:
            # One after the other: their product may leave float32's range where the sum does not.
            comptime if Rows.word == DType.int8:
                total *= bitcast[DType.float32, LANES](
                    x.unsafe_load[width=LANES](x_scales_word[Rows]())
                )
            sums[s] = total.fma(bitcast[DType.float32, LANES](scale[r]), sums[s])
        else:
            sums[s] += total


@inline(.always)
def _dot_rows[
    Rows: WeightRows, m: Int, pair: Int, fold: Bool
](
    weights: Rows,
    walk: _Walk,
    n: Int,
    x: WordPointer,
    scales: WordPointer,
    partial: FloatPointer,
    y: FloatPointer,
):
    """Multiplies a block of `pair` weight rows by m rows of activations; with the last block, output i of row r goes to
    y[i * TILE_N + r], before it sums go to `partial`.
    """
    comptime unroll = max(1, 4 // Rows.vectors)
    comptime groups = groups_per_chunk[Rows]()
    var row = walk.first_row + n
    var first = 0
    var end = walk.chunks
    comptime if _in_blocks[Rows, m]():
        first = walk.first
        end = walk.end
    var full_end = min(end, walk.k // chunk_k[Rows]())
    var x_stride = row_words[Rows](walk.chunks)
    var scales_stride = scales_per_row[Rows](walk.chunks)
    var ahead = Array[Tuple[Int, Int], pair](fill=(row, 0))
    comptime for r in range(pair):
        weights.read_scales[fold](
            row + r, first * groups, end * groups, scales.unsafe_offset(r * scales_stride)
        )
        comptime if _in_blocks[Rows, m]():
            ahead[r] = walk.ahead(n + r)
    var sums = Array[Floats, pair * m](fill=Floats(0))
    comptime if _in_blocks[Rows, m]():
        if first > 0:
            comptime for s in range(pair * m):
                sums[s] = partial.unsafe_load[width=LANES](s * LANES)
    for i in range((full_end - first) // unroll):
        comptime for u in range(unroll):
            _add_chunk[Rows, m, pair, fold, False](
                weights,
                row,
                ahead,
                first + i * unroll + u,
                x,
                x_stride,
                scales,
                scales_stride,
                sums,
            )
    for chunk in range(first + (full_end - first) // unroll * unroll, full_end):
        _add_chunk[Rows, m, pair, fold, False](
            weights, row, ahead, chunk, x, x_stride, scales, scales_stride, sums
        )
    if end > full_end:
        _add_chunk[Rows, m, pair, fold, True](
            weights, row, ahead, full_end, x, x_stride, scales, scales_stride, sums
        )
    comptime if _in_blocks[Rows, m]():
        if end < walk.chunks:
            comptime for s in range(pair * m):
                partial.unsafe_store(s * LANES, sums[s])
            return
    comptime for r in range(pair):
        comptime for i in range(m):
            y[unsafe_offset=i * TILE_N + r] = sums[r * m + i].reduce_add()


def scales_per_row[Rows: WeightRows](chunks: Int) -> Int:
    """Gives the words that a row's scales take, room for whole registers included.

    Parameters:
        Rows: The weights' format.

    Args:
        chunks: Chunks in a row.

    Returns:
        Words.
    """
    return chunks * groups_per_chunk[Rows]() + LANES


def dot[
    Rows: WeightRows
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    m: Int,
    scales: WordPointer,
    partial: FloatPointer,
    y: FloatPointer,
):
    """Multiplies `rows` weight rows by m rows of activations.

    Parameters:
        Rows: The weights' format.

    Args:
        weights: All weight rows.
        first_row: The first to multiply.
        rows: How many, at most TILE_N.
        k: Elements in a row.
        x: [m, row_words] packed words.
        m: Rows of activations.
        scales: Scratch, [2, scales_per_row].
        partial: Scratch, [m, TILE_N, LANES] where the format `takes_blocks`.
        y: [m, TILE_N] float32, of which the first `rows` columns are written.
    """
    # Folded into what int8 sums start from they save an instruction in twelve, which does not show here.
    comptime if Rows.folds and Rows.word != DType.int8:
        if m >= _fold_rows[Rows.word]() and weights.fits_folding(first_row, rows):
            _dot_all[Rows, True](weights, first_row, rows, k, x, m, scales, partial, y)
            return
    _dot_all[Rows, False](weights, first_row, rows, k, x, m, scales, partial, y)


def _dot_all[
    Rows: WeightRows, fold: Bool
](
    weights: Rows,
    first_row: Int,
    rows: Int,
    k: Int,
    x: WordPointer,
    m: Int,
    scales: WordPointer,
    partial: FloatPointer,
    y: FloatPointer,
):
    """Goes through blocks of chunks, each in passes of `_pass_rows` rows of activations or fewer, as even as can be.
    """
    var chunks = ceildiv(k, chunk_k[Rows]())
    var words = row_words[Rows](chunks)
    var passes = ceildiv(m, _pass_rows[Rows]())
    var block = max(1, chunks)
    comptime if takes_blocks[Rows]():
        if m >= _BLOCK_ROWS:
            block = ceildiv(block, ceildiv(ceildiv(m, passes) * words * 4 + 1, _BLOCK_BYTES))
    # At least one: a row of no elements has sums, too.
    for first in range(0, max(1, chunks), block):
        for p in range(passes):
            var begin = m * p // passes
            var count = m * (p + 1) // passes - begin
            var walk = _Walk(
                first_row,
                rows,
                k,
                chunks,
                Rows.registers * LANES * 4,
                first,
                min(chunks, first + block),
                p,
                passes,
            )
            comptime for size in range(1, _pass_rows[Rows]() + 1):
                if count == size:
                    _dot_pass[Rows, size, fold](
                        weights,
                        walk,
                        x.unsafe_offset(begin * words),
                        scales,
                        partial.unsafe_offset(begin * TILE_N * LANES),
                        y.unsafe_offset(begin * TILE_N),
                    )


def _dot_pass[
    Rows: WeightRows, m: Int, fold: Bool
](
    weights: Rows,
    walk: _Walk,
    x: WordPointer,
    scales: WordPointer,
    partial: FloatPointer,
    y: FloatPointer,
):
    comptime scale_sums = Rows.group_lanes > 0 and not fold
    comptime pair = 2 if m >= _BLOCK_ROWS and (LANES == 16 or (m <= 4 and not scale_sums)) else 1
    var whole = walk.rows // pair * pair
    for n in range(0, whole, pair):
        _dot_rows[Rows, m, pair, fold](
            weights, walk, n, x, scales, partial.unsafe_offset(n * m * LANES), y.unsafe_offset(n)
        )
    for n in range(whole, walk.rows):
        _dot_rows[Rows, m, 1, fold](
            weights, walk, n, x, scales, partial.unsafe_offset(n * m * LANES), y.unsafe_offset(n)
        )
