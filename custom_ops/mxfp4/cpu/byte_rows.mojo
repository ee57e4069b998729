"""Weight rows of 8 bits with a scale per group of 32: int8 with bfloat16 scales, and MXFP8 (E4M3 with E8M0 scales)."""

from std.memory import bitcast
from std.sys.intrinsics import masked_load

from ..decode import decode_e4m3_f32, decode_e8m0
from ..format import GROUP_SIZE
from ..pointers import ConstPointer
from .weights import (
    LANE_INDEX,
    PREFETCH_BYTES,
    QUARTER_RUNS,
    WeightRows,
    WordPointer,
    load_registers,
    prefetch_byte,
    prefetch_registers,
)
from .words import HAS_INT8_DOT, LANES, Words, per_word


def scale_dtype(element: DType) -> DType:
    """Gives the dtype of the scales that go with weights of 8 bits.

    Args:
        element: Of the weights: int8 or float8_e4m3fn.

    Returns:
        The dtype: bfloat16 for int8, uint8 (E8M0) for float8_e4m3fn.
    """
    return DType.bfloat16 if element == DType.int8 else DType.uint8


@fieldwise_init
struct ByteRows[element: DType, word_dtype: DType, packed_registers: Int = 1](WeightRows):
    """Rows of bytes [rows, k], a scale to each 32.

    A chunk is LANES 32-bit words of four elements; byte j of lane l's word is k = 4l + j. As float32 it goes to vector j.
    As bfloat16 bytes v and v + 2 make the two halves of a word of vector v. As int8 a word stays as it is, but for the zero point.
    Or a chunk is four registers, int8 words alone: a lane has half of a group then, word w of it in vector w.

    Parameters:
        element: What a byte is: int8 or float8_e4m3fn.
        word_dtype: What words decode to: float32, bfloat16, or, of int8 elements, int8.
        packed_registers: Registers of bytes in a chunk.
    """

    comptime word = Self.word_dtype
    """What a word holds."""
    comptime registers = Self.packed_registers
    """Registers of bytes in a chunk."""
    comptime vectors = Self.registers * 4 // per_word(Self.word_dtype)
    """Four bytes in each 32-bit word; one, two or four to each decoded word."""
    comptime group_lanes = 1 if Self.registers == 4 else Self._group_words
    """A group of 32 bytes is eight words, in as many lanes or in two that do not follow one another."""
    comptime folds = False
    """An int8's bfloat16 has no room for the bits of another scale."""
    comptime zero_point = 128 if HAS_INT8_DOT else 0
    """Int8 without sign is the value plus 128."""
    comptime ByDot = ByteRows[
        Self.element, Self.word_dtype, 4 if Self.word_dtype == DType.int8 else 1
    ]
    """Sums of int8 products take three instructions each, as many as three products."""

    var values: ConstPointer[DType.uint8]
    """Weights, [rows, k] bytes."""
    var scales: ConstPointer[scale_dtype(Self.element)]
    """Scales, [rows, k / 32]."""
    var k_groups: Int
    """Groups in a row, K / 32."""

    comptime _group_words = GROUP_SIZE // 4
    comptime _chunk_words = Self.registers * LANES

    @inline(.always)
    def by_dot(self) -> Self.ByDot:
        """Gives the same rows as `dot` takes them.

        Returns:
            The rows.
        """
        return {self.values, self.scales, self.k_groups}

    @inline(.always)
    def load[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.registers]:
        """Loads one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            Four elements to a lane of each register.
        """
        var word = self._first_word(row, chunk)
        var left = self.k_groups * Self._group_words - chunk * Self._chunk_words
        return load_registers[Self.registers, tail](word, left)

    @inline(.always)
    def _first_word(self, row: Int, chunk: Int) -> ConstPointer[DType.uint32]:
        var first = (row * self.k_groups * Self._group_words + chunk * Self._chunk_words) * 4
        return self.values.unsafe_offset(first).unsafe_bitcast[UInt32]()

    @inline(.always)
    def _element[j: Int](self, packed: Words) -> SIMD[DType.float32, LANES]:
        """Gives byte j of each lane, exactly; a multiple of 2^16 as bits, for its significand is short.
        """
        comptime if Self.element == DType.int8:
            var bytes = bitcast[DType.int32, LANES](packed << UInt32(24 - 8 * j)) >> 24
            return bytes.cast[DType.float32]()
        else:
            return decode_e4m3_f32(packed >> UInt32(8 * j))

    @inline(.always)
    def decode[
        v: Int, fold: Bool
    ](self, packed: Array[Words, Self.registers], scale: Words) -> Words:
        """Widens one vector of a chunk.

        Parameters:
            v: The vector.
            fold: Not read.

        Args:
            packed: Bytes.
            scale: Not read.

        Returns:
            Words.
        """
        comptime if Self.word == DType.int8:
            comptime assert Self.element == DType.int8, "int8 words are of int8 weights"
            return packed[v] ^ UInt32(0x8080_8080 if Self.zero_point else 0)
        elif Self.word == DType.bfloat16:
            var low = bitcast[DType.uint32, LANES](self._element[v](packed[0]))
            var high = bitcast[DType.uint32, LANES](self._element[v + 2](packed[0]))
            return (low >> 16) | high
        else:
            return bitcast[DType.uint32, LANES](self._element[v](packed[0]))

    @inline(.always)
    def read_scales[fold: Bool](self, row: Int, first: Int, end: Int, target: WordPointer):
        """Widens some of a row's scales to float32, and asks for those of rows to come.

        Parameters:
            fold: Not read.

        Args:
            row: The row.
            first: The first scale.
            end: Past the last.
            target: One word for every scale of the row's chunks, and LANES.
        """
        # As bits: for CPUs without bfloat16 a vector of it goes through float32 and back, by a call for each element.
        comptime dtype = DType.uint16 if Self.element == DType.int8 else DType.uint8
        var source = self.scales.unsafe_offset(row * self.k_groups).unsafe_bitcast[Scalar[dtype]]()
        comptime runs = 2 if Self.registers == 4 else 1
        for i in range(first, end, LANES):
            var group = i // runs
            prefetch_byte(
                source.unsafe_offset(group + PREFETCH_BYTES // GROUP_SIZE).unsafe_bitcast[UInt8]()
            )
            var s = SIMD[dtype, LANES](0)
            if group + LANES <= self.k_groups:
                s = source.unsafe_load[width=LANES, alignment=1](group)
            else:
                var left = SIMD[DType.int32, LANES](Int32(self.k_groups - group))
                s = masked_load[LANES](source.unsafe_offset(group), LANE_INDEX.lt(left), s)
            var bits = s.cast[DType.uint32]()
            comptime if Self.registers == 4:
                bits = bits.shuffle[mask=QUARTER_RUNS[runs]]()
            comptime if Self.element == DType.int8:
                target.unsafe_store[alignment=4](i, bits << 16)
            else:
                target.unsafe_store[alignment=4](i, bitcast[DType.uint32, LANES](decode_e8m0(bits)))

    @inline(.always)
    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for weights.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        self._prefetch(row, chunk, PREFETCH_BYTES)

    @inline(.always)
    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for a chunk's weights.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        self._prefetch(row, chunk, 0)

    @inline(.always)
    def _prefetch(self, row: Int, chunk: Int, ahead: Int):
        var bytes = self._first_word(row, chunk).unsafe_bitcast[UInt8]().unsafe_offset(ahead)
        prefetch_registers[Self.registers](bytes)
