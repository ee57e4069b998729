"""Packed weight rows as the CPU kernels read them: the trait `WeightRows`, and what every format shares."""

from std.sys.intrinsics import PrefetchOptions, masked_load, prefetch
from std.utils import IndexList

from ..pointers import ConstPointer
from .transpose import quarter_run, transpose_quarters
from .words import LANES, Words, per_word

comptime WordPointer = MutPointer[UInt32, MutUntrackedOrigin]
"""Words in a buffer of the op's own: packed activations, decoded weights or scales."""

comptime PREFETCH_BYTES = 8192
"""How far ahead of the multiply packed weights are asked for (NOTES N11)."""


trait WeightRows(TrivialRegisterPassable):
    """Rows of a weight matrix [rows, k] that decode, one chunk at a time, to words in registers.

    A chunk is what one register of packed weights holds, or four. It decodes to `vectors` registers of words. From one
    register vector v has every `vectors`-th element: element i of it is `k = chunk * chunk_k + vectors * i + v`. So lane l of
    every vector holds elements of the same `chunk_k / LANES` consecutive k, which lie inside one group of a scale.

    From four registers a lane has 16 consecutive bytes, which ones `quarter_run` says: the elements of word w of them go to vectors
    `s w` to `s w + s - 1`, s being `vectors / 4`, each to every s-th. Sums of a lane's products then have four times as many terms before they are scaled.
    """

    comptime word: DType
    """What a word holds: float32, bfloat16 or int8."""
    comptime vectors: Int
    """Registers of words in a chunk."""
    comptime registers: Int
    """Registers of packed weights in a chunk: 1 or 4."""
    comptime group_lanes: Int
    """Consecutive lanes that share a scale; 0 where there are no scales, 1 where a chunk is four registers."""
    comptime folds: Bool
    """Whether scales can be folded, exactly, where `fits_folding` says so: into words, or, of int8 words, into what a group's
    sum starts from. The bits of 1.5 * 2^23 * scale plus an int32 sum below 2^22, as integers, are those of a float32 that is
    larger by sum * scale, where the scale is a power of two: a subtraction takes the place of a conversion and a product."""
    comptime zero_point: Int
    """What int8 words have added, to be without sign; 0 where they have theirs."""
    comptime ByDot: WeightRows
    """The same rows as `dot` takes them: in chunks of four registers where each sum is scaled, in their own otherwise."""

    def by_dot(self) -> Self.ByDot:
        """Gives the same rows as `dot` takes them.

        Returns:
            The rows.
        """
        ...

    def load[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.registers]:
        """Loads one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end; what lies there decodes to zero.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            Packed weights.
        """
        ...

    def decode[
        v: Int, fold: Bool
    ](self, packed: Array[Words, Self.registers], scale: Words) -> Words:
        """Decodes one vector of a chunk.

        Parameters:
            v: The vector.
            fold: Whether words are multiplied by their scales.

        Args:
            packed: The chunk, as `load` gave it.
            scale: The scale of each lane as `read_scales` wrote it; read where they are folded.

        Returns:
            Words.
        """
        ...

    def read_scales[fold: Bool](self, row: Int, first: Int, end: Int, target: WordPointer):
        """Writes some of a row's scales, one word each, and up to LANES words after them.

        Parameters:
            fold: Whether to be folded, by `decode` or as the start of int8 sums; otherwise as float32, to multiply sums by.

        Args:
            row: The row.
            first: The first scale.
            end: Past the last; what would lie past the row's own is no scale.
            target: One word for every scale of the row's chunks, and LANES.
        """
        ...

    def fits_folding(self, first_row: Int, rows: Int) -> Bool:
        """Tells whether every scale of some rows can be folded into words.

        Args:
            first_row: The first row.
            rows: How many.

        Returns:
            Whether words and products stay in the range of normal numbers, starts in that of finite ones; never where
            nothing is folded.
        """
        return False

    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for what a walk along the rows in order will want some kilobytes after this chunk.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        ...

    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for one chunk's weights; the row may lie past the last.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        ...


def words_per_chunk[Rows: WeightRows]() -> Int:
    """Gives the words in a chunk of weights.

    Parameters:
        Rows: The weights' format.

    Returns:
        Words, all vectors together.
    """
    return Rows.vectors * LANES


def chunk_k[Rows: WeightRows]() -> Int:
    """Gives the elements in a chunk.

    Parameters:
        Rows: The weights' format.

    Returns:
        Elements along the reduced axis.
    """
    return words_per_chunk[Rows]() * per_word(Rows.word)


def groups_per_chunk[Rows: WeightRows]() -> Int:
    """Gives the scales of a chunk, as `read_scales` writes them.

    Parameters:
        Rows: The weights' format.

    Returns:
        Scales, one to a lane from four registers, 0 where there are none.
    """
    return LANES // Rows.group_lanes if Rows.group_lanes else 0


@inline(.always)
def lane_scales[Rows: WeightRows](scales: WordPointer, chunk: Int) -> Words:
    """Gives the scale of each lane of a chunk.

    Parameters:
        Rows: The weights' format.

    Args:
        scales: A row's scales, from `read_scales`.
        chunk: The chunk.

    Returns:
        Each of the chunk's scales, repeated for its lanes; zeros where there are none.
    """
    comptime if Rows.group_lanes == 0:
        return Words(0)
    else:
        comptime groups = groups_per_chunk[Rows]()
        return _repeat[Rows.group_lanes](scales.unsafe_load[width=groups](chunk * groups))


@inline(.always)
def _repeat[width: SIMDLength, //, count: Int](values: SIMD[DType.uint32, width]) -> Words:
    comptime if count == 1:
        return rebind[Words](values)
    else:
        return _repeat[count // 2](values.interleave(values))


def word_pointer(buffer: List[Words]) -> WordPointer:
    """Gives the words of a list of registers, which is aligned as registers are.

    Args:
        buffer: The list, which the caller keeps.

    Returns:
        Its first word.
    """
    return (
        buffer.unsafe_ptr()
        .unsafe_bitcast[UInt32]()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


@inline(.always)
def prefetch_byte(address: ConstPointer[DType.uint8]):
    """Asks for a cache line, into L2: into L1 the few misses it can have at once would be the limit (NOTES N11).

    Args:
        address: Any byte of it, mapped or not.
    """
    prefetch[PrefetchOptions().for_read().medium_locality().to_data_cache()](address)


@inline(.always)
def prefetch_registers[registers: Int](address: ConstPointer[DType.uint8]):
    """Asks for what some registers hold.

    Parameters:
        registers: How many.

    Args:
        address: Of the first byte, mapped or not.
    """
    comptime for r in range(registers):
        prefetch_byte(address.unsafe_offset(r * 4 * LANES))


@inline(.always)
def load_registers[
    registers: Int, tail: Bool
](source: ConstPointer[DType.uint32], left: Int) -> Array[Words, registers]:
    """Loads a chunk of packed weights, and turns four registers (`transpose_quarters`).

    Parameters:
        registers: 1 or 4.
        tail: Whether the chunk may reach past the row's end.

    Args:
        source: Its first word, at any address.
        left: Words from there to the row's end; read for a tail.

    Returns:
        The chunk, zeros past the row's end.
    """
    var packed = Array[Words, registers](fill=Words(0))
    comptime for r in range(registers):
        comptime if tail:
            var inside = LANE_INDEX.lt(SIMD[DType.int32, LANES](Int32(left - r * LANES)))
            packed[r] = masked_load[LANES](source.unsafe_offset(r * LANES), inside, Words(0))
        else:
            packed[r] = source.unsafe_load[width=LANES, alignment=1](r * LANES)
    comptime if registers == 4:
        return rebind_var[Array[Words, registers]](
            transpose_quarters(rebind[Array[Words, 4]](packed))
        )
    return packed^


def _lane_index() -> SIMD[DType.int32, LANES]:
    var index = SIMD[DType.int32, LANES](0)
    for lane in range(LANES):
        index[lane] = Int32(lane)
    return index


comptime LANE_INDEX = _lane_index()
"""Lane l holds l."""


def _quarter_runs(runs: Int) -> IndexList[LANES]:
    var index = IndexList[LANES]()
    for lane in range(LANES):
        index[lane] = quarter_run(lane) // runs
    return index


comptime QUARTER_RUNS[runs: Int] = _quarter_runs(runs)
"""Where lane l of a chunk of four registers finds its scale.

Parameters:
    runs: Runs of 16 bytes that share one.
"""
