"""MXFP4 weight rows in the checkpoint's own order."""

from std.memory import bitcast
from std.sys import llvm_intrinsic
from std.sys.intrinsics import masked_load

from ..decode import (
    HAS_BYTE_LOOKUP,
    decode_e2m1_bf16x32,
    decode_e2m1_f32,
    decode_e2m1_f32x8,
    decode_e2m1_int8,
    decode_e8m0,
)
from ..format import BYTES_PER_GROUP, E8M0_BIAS
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
from .words import HAS_INT8_DOT, LANES, Floats, Words, per_word

comptime _FOLD_BIAS = 125
"""Powers of two that are added to decoded words before a scale's are taken off: 6 * 2^125 is the largest bfloat16 of its
kind, and every scale up to 2^125 is then a subtraction."""

comptime _MIN_FOLDED = 64
comptime _MAX_FOLDED = 190
"""Scale bytes that are folded into words: 2^-63 to 2^63, far from where a product of bfloat16 would be subnormal."""

comptime _START_EXPONENT = 22
"""Of half a unit in an int8 sum, of twice the value: 2^23 times that, as a float32 whose last bit is the unit."""

comptime _START_SIGNIFICAND = 0x40_0000
"""Of 1.5: as far from the next power of two below as above."""

comptime _MAX_STARTED = 254 - _START_EXPONENT
"""Largest scale byte that a start has room for."""


@fieldwise_init
struct Mxfp4Rows[word_dtype: DType, packed_registers: Int = 1](WeightRows):
    """MXFP4 rows, blocks [rows, K/32, 16] and scales [rows, K/32].

    A chunk is LANES 32-bit words of 8 codes. Nibble j of lane l's word is k = 8l + j. As float32 it goes to vector j. As
    bfloat16 the nibbles v and v + 4 make the two halves of a word of vector v: k = 8l + v and 8l + 4 + v. As int8 the
    low nibbles of the four bytes make a word of vector 0, the high ones of vector 1: k = 8l + 2i + v. Or it is four registers, int8 alone:
    a lane has the 16 bytes of a whole group then, k = 8w + 2i + n of it in byte i of vector 2w + n.

    Worked address, AVX-512, K = 2880: row 17, chunk 3 begins at byte 17 * 1440 + 3 * 64 = 24672, its scales at
    17 * 90 + 3 * 4 = 1542.

    Parameters:
        word_dtype: What words decode to: float32 or bfloat16, the code's value; int8, twice the value plus 12.
        packed_registers: Registers of codes in a chunk.
    """

    comptime word = Self.word_dtype
    """What a word holds."""
    comptime registers = Self.packed_registers
    """Registers of codes in a chunk."""
    comptime vectors = Self.registers * 8 // per_word(Self.word_dtype)
    """Eight codes in each 32-bit word of codes; one, two or four to each decoded word."""
    comptime group_lanes = 4 // Self.registers
    """A group of 32 codes is four words of eight."""
    comptime folds = Self.word_dtype != DType.int8 or (HAS_INT8_DOT and LANES == 16)
    """A scale is an addition to a bfloat16's exponent, a factor of a float32, and the exponent of what int8 sums start from,
    which takes registers that sums of pairs and AVX2 do not have (NOTES N118)."""
    comptime zero_point = 12
    """Twice the largest magnitude, 6."""
    comptime ByDot = Mxfp4Rows[Self.word_dtype, 4 if Self.word_dtype == DType.int8 else 1]
    """Sums of int8 products are scaled, others rarely."""

    var blocks: ConstPointer[DType.uint8]
    """E2M1 codes, [rows, k_groups, 16]."""
    var scales: ConstPointer[DType.uint8]
    """E8M0 bytes, [rows, k_groups]."""
    var k_groups: Int
    """Groups in a row, K / 32."""

    comptime _groups_per_chunk = Self.registers * LANES // 4

    @inline(.always)
    def by_dot(self) -> Self.ByDot:
        """Gives the same rows as `dot` takes them.

        Returns:
            The rows.
        """
        return {self.blocks, self.scales, self.k_groups}

    @inline(.always)
    def load[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.registers]:
        """Loads one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            Eight codes to a lane of each register.
        """
        var first_group = chunk * Self._groups_per_chunk
        var codes = self.blocks.unsafe_offset(
            (row * self.k_groups + first_group) * BYTES_PER_GROUP
        ).unsafe_bitcast[UInt32]()
        return load_registers[Self.registers, tail](codes, 4 * (self.k_groups - first_group))

    @inline(.always)
    def decode[
        v: Int, fold: Bool
    ](self, packed: Array[Words, Self.registers], scale: Words) -> Words:
        """Decodes one vector of a chunk by table lookup.

        Parameters:
            v: The vector.
            fold: Whether words are multiplied by their scales; not int8.

        Args:
            packed: Codes.
            scale: What a folded scale takes off each exponent.

        Returns:
            Words.
        """
        comptime if Self.word == DType.bfloat16:
            var halves = bitcast[DType.uint16, 32](packed[0]) >> UInt16(4 * v)
            comptime if fold:
                # Saturation keeps zero zero, whose word is 0 for both signs.
                return bitcast[DType.uint32, LANES](
                    llvm_intrinsic["llvm.usub.sat", SIMD[DType.uint16, 32], has_side_effect=False](
                        bitcast[DType.uint16, 32](decode_e2m1_bf16x32[_FOLD_BIAS](halves)),
                        bitcast[DType.uint16, 32](scale),
                    )
                )
            else:
                return rebind[Words](decode_e2m1_bf16x32[0](halves))
        elif Self.word == DType.int8:
            return decode_e2m1_int8(packed[v // 2] >> UInt32(4 * (v % 2)))
        else:
            var values: Floats
            comptime if HAS_BYTE_LOOKUP and LANES == 8:
                values = rebind[Floats](
                    decode_e2m1_f32x8[v](rebind[SIMD[DType.uint32, 8]](packed[0]))
                )
            else:
                values = decode_e2m1_f32(packed[0] >> UInt32(4 * v))
            comptime if fold:
                values *= bitcast[DType.float32, LANES](scale)
            return bitcast[DType.uint32, LANES](values)

    @inline(.always)
    def read_scales[fold: Bool](self, row: Int, first: Int, end: Int, target: WordPointer):
        """Decodes some of a row's scale bytes, and asks for those of rows to come.

        Parameters:
            fold: Whether to what `decode` subtracts of bfloat16, in both halves of a word, or to what int8 sums start from;
                otherwise to float32.

        Args:
            row: The row.
            first: The first scale.
            end: Past the last.
            target: One word for every scale of the row's chunks, and LANES.
        """
        var bytes = self.scales.unsafe_offset(row * self.k_groups)
        for i in range(first, end, LANES):
            # Asked for as far ahead as the codes are, in rows.
            prefetch_byte(bytes.unsafe_offset(i + PREFETCH_BYTES // BYTES_PER_GROUP))
            var s = SIMD[DType.uint8, LANES](E8M0_BIAS)
            if i + LANES <= self.k_groups:
                s = bytes.unsafe_load[width=LANES, alignment=1](i)
            else:
                var left = SIMD[DType.int32, LANES](Int32(self.k_groups - i))
                s = masked_load[LANES](bytes.unsafe_offset(i), LANE_INDEX.lt(left), s)
            var wide = s.cast[DType.uint32]()
            comptime if fold and Self.word == DType.bfloat16:
                var exponent = (UInt32(E8M0_BIAS + _FOLD_BIAS) - wide) << 7
                target.unsafe_store[alignment=4](i, exponent | (exponent << 16))
            elif fold and Self.word == DType.int8:
                comptime assert Self.registers == 1, "dot does not fold int8's scales"
                var start = (wide + UInt32(_START_EXPONENT)) << 23 | _START_SIGNIFICAND
                target.unsafe_store[alignment=4](i, start)
            else:
                var values = decode_e8m0(wide)
                comptime if Self.word == DType.int8:
                    values *= 0.5  # a word holds twice the value
                comptime if Self.registers == 4:
                    values = values.shuffle[mask=QUARTER_RUNS[1]]()
                target.unsafe_store[alignment=4](i, bitcast[DType.uint32, LANES](values))

    @inline(.always)
    def fits_folding(self, first_row: Int, rows: Int) -> Bool:
        """Tells whether every scale of some rows is between 2^-63 and 2^63, or, of int8 words, at most 2^105.

        Args:
            first_row: The first row.
            rows: How many.

        Returns:
            Whether bfloat16 words can hold the scaled values, with room for products, or int8 sums can start from their scale.
        """
        comptime width = 64
        comptime Bytes = SIMD[DType.uint8, width]
        var bytes = self.scales.unsafe_offset(first_row * self.k_groups)
        var count = rows * self.k_groups
        var low = Bytes(E8M0_BIAS)
        var high = Bytes(E8M0_BIAS)
        var whole = count // width * width
        for i in range(0, whole, width):
            var s = bytes.unsafe_load[width=width, alignment=1](i)
            low = min(low, s)
            high = max(high, s)
        for i in range(whole, count):
            var s = Bytes(bytes[unsafe_offset=i])
            low = min(low, s)
            high = max(high, s)
        comptime if Self.word == DType.int8:
            return high.reduce_max() <= _MAX_STARTED
        return low.reduce_min() >= _MIN_FOLDED and high.reduce_max() <= _MAX_FOLDED

    @inline(.always)
    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for codes.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        self._prefetch(row, chunk, PREFETCH_BYTES)

    @inline(.always)
    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for a chunk's codes.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        self._prefetch(row, chunk, 0)

    @inline(.always)
    def _prefetch(self, row: Int, chunk: Int, ahead: Int):
        var first_group = row * self.k_groups + chunk * Self._groups_per_chunk
        var codes = self.blocks.unsafe_offset(first_group * BYTES_PER_GROUP + ahead)
        prefetch_registers[Self.registers](codes)
