"""Packed weight rows as the CPU kernels read them: `WeightRows`, and its two formats."""

from std.memory import bitcast
from std.sys.intrinsics import PrefetchOptions, masked_load, prefetch

from ..decode import decode_e2m1_bf16x32, decode_e2m1_f32, decode_e8m0
from ..format import BYTES_PER_GROUP, E8M0_BIAS
from ..pointers import ConstPointer
from .words import LANES, Floats, Words, per_word

comptime _PREFETCH_BYTES = 8192
"""How far ahead of the multiply weights are asked for (NOTES N11)."""


trait WeightRows(TrivialRegisterPassable):
    """Rows of a weight matrix [rows, k] that decode, one chunk at a time, to words in registers.

    A chunk is `vectors * LANES` words. Decoding pulls vector v from every `vectors`-th element: element i of vector v
    is `k = chunk * chunk_k + vectors * i + v`. So lane l of every vector holds elements of the same
    `chunk_k / LANES` consecutive k, and with 8 of them each lane lies inside one MXFP4 group.
    """

    comptime word: DType
    """What a word holds: bfloat16 (two) or float32 (one)."""
    comptime vectors: Int
    """Registers of words in a chunk."""
    comptime scaled: Bool
    """Whether a chunk's sums are multiplied by `scale` afterwards."""

    def decode[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.vectors]:
        """Decodes one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end; what lies there decodes to zero.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            The chunk's words, one register per vector.
        """
        ...

    def scale[tail: Bool](self, row: Int, chunk: Int) -> Floats:
        """Decodes one chunk's scales.

        Parameters:
            tail: Whether the chunk may reach past the row's end; scales there are 1.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            The scale of each lane's elements.
        """
        ...

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


def chunk_words[Rows: WeightRows]() -> Int:
    """Gives the words in a chunk.

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
    return chunk_words[Rows]() * per_word(Rows.word)


@inline(.always)
def _prefetch(address: ConstPointer[DType.uint8]):
    prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](address)


def _group_shifts() -> Words:
    """Shift that brings lane l's scale byte, of LANES/4 in a word, down to bits 0..7."""
    var shifts = Words(0)
    for lane in range(LANES):
        shifts[lane] = UInt32(8 * (lane // 4))
    return shifts


comptime _GROUP_SHIFTS = _group_shifts()


@fieldwise_init
struct Mxfp4Rows[word_dtype: DType](WeightRows):
    """MXFP4 rows in the checkpoint's own order, blocks [rows, K/32, 16] and scales [rows, K/32].

    A chunk is LANES 32-bit words of 8 codes. Nibble v of lane l's word is k = 8l + v for float32 words; for bfloat16
    the nibbles v and v + 4 make the two halves of one output word: k = 8l + v and 8l + 4 + v.

    Worked address, AVX-512, K = 2880: row 17, chunk 3 begins at byte 17 * 1440 + 3 * 64 = 24672, its scales at
    17 * 90 + 3 * 4 = 1542.

    Parameters:
        word_dtype: What words decode to: bfloat16 or float32.
    """

    comptime word = Self.word_dtype
    """What a word holds."""
    comptime vectors = 8 // per_word(Self.word_dtype)
    """Eight codes in each 32-bit word of codes, one or two to each output word."""
    comptime scaled = True
    """E8M0 scales multiply a chunk's sums, exactly, for every scale byte."""

    var blocks: ConstPointer[DType.uint8]
    """E2M1 codes, [rows, k_groups, 16]."""
    var scales: ConstPointer[DType.uint8]
    """E8M0 bytes, [rows, k_groups]."""
    var k_groups: Int
    """Groups in a row, K / 32."""

    comptime _groups_per_chunk = LANES // 4

    @inline(.always)
    def decode[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.vectors]:
        """Decodes one chunk of a row by table lookup.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            The chunk's words, unscaled.
        """
        var first_group = chunk * Self._groups_per_chunk
        var codes = self._load_codes[tail](
            (row * self.k_groups + first_group) * BYTES_PER_GROUP,
            self.k_groups - first_group,
        )
        var words = Array[Words, Self.vectors](fill=Words(0))
        comptime for v in range(Self.vectors):
            comptime if Self.word == DType.bfloat16:
                var halves = bitcast[DType.uint16, 32](codes)
                words[v] = bitcast[DType.uint32, LANES](
                    decode_e2m1_bf16x32(halves >> UInt16(4 * v))
                )
            else:
                words[v] = bitcast[DType.uint32, LANES](decode_e2m1_f32(codes >> UInt32(4 * v)))
        return words^

    @inline(.always)
    def _load_codes[tail: Bool](self, byte_off: Int, groups_left: Int) -> Words:
        var codes = self.blocks.unsafe_offset(byte_off).unsafe_bitcast[UInt32]()
        comptime if tail:
            var words_left = SIMD[DType.int32, LANES](Int32(4 * groups_left))
            return masked_load[LANES](codes, _LANE_INDEX.lt(words_left), Words(0))
        else:
            return codes.unsafe_load[width=LANES, alignment=1]()

    @inline(.always)
    def scale[tail: Bool](self, row: Int, chunk: Int) -> Floats:
        """Decodes a chunk's scale bytes, each to the four lanes of its group.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            The scale of each lane's elements.
        """
        var first_group = chunk * Self._groups_per_chunk
        var bytes = self.scales.unsafe_offset(row * self.k_groups + first_group)
        var packed = UInt32(0)
        comptime if not tail and Self._groups_per_chunk == 4:
            packed = bytes.unsafe_bitcast[UInt32]().unsafe_load[alignment=1]()
        else:
            comptime for g in range(Self._groups_per_chunk):
                var inside = first_group + g < self.k_groups
                var s = bytes[unsafe_offset=g] if inside else UInt8(E8M0_BIAS)
                packed |= s.cast[DType.uint32]() << UInt32(8 * g)
        return decode_e8m0((Words(packed) >> _GROUP_SHIFTS) & 0xFF)

    @inline(.always)
    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for codes and, once a row, for the scales of the rows that those codes belong to.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        var first_group = row * self.k_groups + chunk * Self._groups_per_chunk
        _prefetch(self.blocks.unsafe_offset(first_group * BYTES_PER_GROUP + _PREFETCH_BYTES))
        if chunk == 0:
            comptime groups_ahead = _PREFETCH_BYTES // BYTES_PER_GROUP
            for line in range(0, self.k_groups + 64, 64):
                _prefetch(self.scales.unsafe_offset(first_group + groups_ahead + line))

    @inline(.always)
    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for a chunk's codes.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        var first_group = row * self.k_groups + chunk * Self._groups_per_chunk
        _prefetch(self.blocks.unsafe_offset(first_group * BYTES_PER_GROUP))


def _lane_index() -> SIMD[DType.int32, LANES]:
    var index = SIMD[DType.int32, LANES](0)
    for lane in range(LANES):
        index[lane] = Int32(lane)
    return index


comptime _LANE_INDEX = _lane_index()


@fieldwise_init
struct Bf16Rows(WeightRows):
    """BF16 rows [rows, k] widened to float32 words, exactly: the low half of a pair is vector 0, the high vector 1.
    """

    comptime word = DType.float32
    """What a word holds."""
    comptime vectors = 2
    """A register of 32-bit pairs widens to two."""
    comptime scaled = False
    """BF16 has no scales."""

    var values: ConstPointer[DType.bfloat16]
    """Weights, [rows, k]."""
    var k: Int
    """Elements in a row."""

    @inline(.always)
    def decode[tail: Bool](self, row: Int, chunk: Int) -> Array[Words, Self.vectors]:
        """Widens one chunk of a row.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            The chunk's words.
        """
        var k_off = chunk * (2 * LANES)
        var source = self.values.unsafe_offset(row * self.k + k_off)
        var pairs = Words(0)
        comptime if tail:
            for i in range(min(2 * LANES, self.k - k_off)):
                var bits = bitcast[DType.uint16](source[unsafe_offset=i])
                pairs[i // 2] |= bits.cast[DType.uint32]() << UInt32(16 * (i % 2))
        else:
            pairs = source.unsafe_bitcast[UInt32]().unsafe_load[width=LANES, alignment=1]()
        var words = Array[Words, Self.vectors](fill=Words(0))
        words[0] = pairs << 16
        words[1] = pairs & 0xFFFF_0000
        return words^

    @inline(.always)
    def scale[tail: Bool](self, row: Int, chunk: Int) -> Floats:
        """Gives ones: BF16 has no scales.

        Parameters:
            tail: Whether the chunk may reach past the row's end.

        Args:
            row: The row.
            chunk: The chunk within the row.

        Returns:
            Ones.
        """
        return Floats(1)

    @inline(.always)
    def prefetch_ahead(self, row: Int, chunk: Int):
        """Asks for weights where a chunk is a whole cache line; with narrower registers that costs more than it saves.

        Args:
            row: The row about to be multiplied.
            chunk: The chunk within the row.
        """
        comptime if LANES == 16:
            comptime k_ahead = _PREFETCH_BYTES // 2 // 2  # half as far as for codes, two bytes each
            self._prefetch_element(row * self.k + chunk * (2 * LANES) + k_ahead)

    @inline(.always)
    def prefetch_chunk(self, row: Int, chunk: Int):
        """Asks for a chunk's weights where it is a whole cache line.

        Args:
            row: The row.
            chunk: The chunk within the row.
        """
        comptime if LANES == 16:
            self._prefetch_element(row * self.k + chunk * (2 * LANES))

    @inline(.always)
    def _prefetch_element(self, element: Int):
        _prefetch(self.values.unsafe_offset(element).unsafe_bitcast[UInt8]())
