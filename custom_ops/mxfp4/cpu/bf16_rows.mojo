"""BF16 weight rows, as they are in a checkpoint."""

from std.memory import bitcast

from ..pointers import ConstPointer
from .weights import PREFETCH_BYTES, WeightRows, WordPointer, prefetch_byte
from .words import LANES, Words


@fieldwise_init
struct Bf16Rows[word_dtype: DType](WeightRows):
    """BF16 rows [rows, k]: pairs of neighbours as they are, or widened to float32, exactly: the low half of a pair is
    vector 0, the high one vector 1.

    Parameters:
        word_dtype: What words decode to: bfloat16 or float32.
    """

    comptime word = Self.word_dtype
    """What a word holds."""
    comptime vectors = 1 if Self.word_dtype == DType.bfloat16 else 2
    """A register of 32-bit pairs, as it is or widened to two."""
    comptime registers = 1
    """Its words need little or no decoding."""
    comptime group_lanes = 0
    """BF16 has no scales."""
    comptime folds = False
    """BF16 has no scales."""
    comptime zero_point = 0
    """Words have a sign."""
    comptime ByDot = Bf16Rows[Self.word_dtype]
    """As they are."""

    var values: ConstPointer[DType.bfloat16]
    """Weights, [rows, k]."""
    var k: Int
    """Elements in a row."""

    @inline(.always)
    def by_dot(self) -> Self.ByDot:
        """Gives the same rows as `dot` takes them.

        Returns:
            These.
        """
        return Bf16Rows[Self.word_dtype](self.values, self.k)

    @inline(.always)
    def load[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.registers]:
        """Loads one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            Two elements to a lane.
        """
        var k_off = chunk * (2 * LANES)
        var source = self.values.unsafe_offset(row * self.k + k_off)
        comptime if tail:
            var pairs = Words(0)
            for i in range(min(2 * LANES, self.k - k_off)):
                var bits = bitcast[DType.uint16](source[unsafe_offset=i])
                pairs[i // 2] |= bits.cast[DType.uint32]() << UInt32(16 * (i % 2))
            return [pairs]
        else:
            return [source.unsafe_bitcast[UInt32]().unsafe_load[width=LANES, alignment=1]()]

    @inline(.always)
    def decode[
        v: Int, fold: Bool
    ](self, packed: Array[Words, Self.registers], scale: Words) -> Words:
        """Widens one half of each pair, or leaves both.

        Parameters:
            v: The vector.
            fold: Not read.

        Args:
            packed: Pairs.
            scale: Not read.

        Returns:
            Words.
        """
        comptime if Self.word == DType.bfloat16:
            return packed[0]
        elif v == 0:
            return packed[0] << 16
        else:
            return packed[0] & 0xFFFF_0000

    def read_scales[fold: Bool](self, row: Int, first: Int, end: Int, target: WordPointer):
        """Does nothing: BF16 has no scales.

        Parameters:
            fold: Not read.

        Args:
            row: The row.
            first: Not read.
            end: Not read.
            target: Not written.
        """
        pass

    @inline(.always)
    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for weights where a chunk is a whole cache line; with narrower registers that costs more than it saves.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        comptime if LANES == 16:
            comptime k_ahead = PREFETCH_BYTES // 2 // 2  # half as far as for codes, two bytes each
            self._prefetch_element(row * self.k + chunk * (2 * LANES) + k_ahead)

    @inline(.always)
    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for a chunk's weights.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        self._prefetch_element(row * self.k + chunk * (2 * LANES))

    @inline(.always)
    def _prefetch_element(self, element: Int):
        prefetch_byte(self.values.unsafe_offset(element).unsafe_bitcast[UInt8]())
