"""Packed weights as the Hopper kernels read them: tiles of 64 rows by 64 k, in the order of tensor core registers.

    [expert][row tile][k tile] of 2176 bytes:
        codes  [warp 4][lane 32][step 4] of 32-bit words, the 8 codes of a lane's A fragment in that step of 16 k
        scales [warp 4][lane / 4] of 32-bit words, the 4 scales of a lane's two rows in both groups of 32 k

so that a lane's codes of a tile are one 16-byte load, its scales one 4-byte load shared by four lanes, and a run of k
tiles one bulk copy. Rows and k are padded to multiples of 64 with zero codes, included in `expert_bytes`. gpt-oss needs
no padding: 2880 = 45 * 64 and 5760 = 90 * 64.

A word stores the bits `s e1 e0 m` of the code for half h of register R where one rotation (for R = 3, one xor with a
shift) and one mask bring them to bits 15 and 8..6 of that half (`spread_word`); there they are a bfloat16 of the code's
value times 2^-126. A scale byte s is stored as s + 126, the exponent field of 2^(s - 1), so that the product of the two
is the weight. A word of scales stores those of a group where one mask, for the second group after a rotation, leaves a
bfloat16 in each half: of the lane's first row and of its lower row.
"""

from std.bit import rotate_bits_left, rotate_bits_right
from std.math import ceildiv

from ..format import GROUP_SIZE

comptime TILE_ROWS = 64
"""Rows of a tile: what one wgmma takes."""

comptime TILE_K = 64
"""Elements of a row in a tile: four steps of 16, two groups."""

comptime STEPS = TILE_K // 16
"""Steps of 16 k, and words of a lane, in a tile."""

comptime CODE_BYTES = TILE_ROWS * TILE_K // 2
"""Bytes of a tile's codes."""

comptime SCALE_BYTES = TILE_ROWS * TILE_K // GROUP_SIZE
"""Bytes of a tile's scales."""

comptime TILE_BYTES = CODE_BYTES + SCALE_BYTES
"""Bytes of a tile, a multiple of 16 as bulk copies require."""

comptime SCALE_OFFSET = 126
"""Added to a scale byte s: s + 126 is the exponent field of the bfloat16 2^(s - 1)."""

comptime MAX_SCALE = 128
"""The largest scale byte s for which 2^(s - 1) is a bfloat16 and its product with every code is finite."""

comptime _KEPT = UInt32(0x81C0_81C0)
"""Mask of a code's bits in both halves of a register: 15, 8, 7 and 6."""

comptime _EXPONENTS = UInt32(0x7F80_7F80)
"""Mask of a bfloat16's exponent in both halves of a register: 14..7."""


@fieldwise_init
struct Sm90Tiles(TrivialRegisterPassable):
    """The tiles of all experts' [rows, k] weights.

    Worked, 2880 rows, k = 2880: expert 1, row tile 2, k tile 3 begins at ((1 * 45 + 2) * 45 + 3) * 2176 = 4608768.
    """

    var rows: Int
    """Weight rows of an expert."""
    var k: Int
    """Elements of a row, a multiple of 32."""

    @inline(.always)
    def row_tiles(self) -> Int:
        """Returns the number of tiles along an expert's rows.

        Returns:
            Tiles, the last of which may be padded.
        """
        return ceildiv(self.rows, TILE_ROWS)

    @inline(.always)
    def k_tiles(self) -> Int:
        """Returns the number of tiles along k.

        Returns:
            Tiles, the last of which may be padded.
        """
        return ceildiv(self.k, TILE_K)

    @inline(.always)
    def expert_bytes(self) -> Int:
        """Returns the size of one expert.

        Returns:
            Bytes, padding included.
        """
        return self.row_tiles() * self.k_tiles() * TILE_BYTES

    @inline(.always)
    def tile_byte(self, expert: Int, row_tile: Int, k_tile: Int) -> Int:
        """Returns the offset of a tile.

        Args:
            expert: The expert.
            row_tile: The tile along rows.
            k_tile: The tile along k.

        Returns:
            Bytes from the start of the weights.
        """
        return ((expert * self.row_tiles() + row_tile) * self.k_tiles() + k_tile) * TILE_BYTES


@inline(.always)
def word_byte(warp: Int, lane: Int, step: Int) -> Int:
    """Returns the offset of a word of codes in its tile; a lane's four words are contiguous.

    Worked: warp 2, lane 5, step 3 -> ((2 * 32 + 5) * 4 + 3) * 4 = 1116.

    Args:
        warp: The index of the warp in its warpgroup.
        lane: The lane.
        step: The step of 16 k, 0..3.

    Returns:
        Bytes from the start of the tile.
    """
    return ((warp * 32 + lane) * STEPS + step) * 4


@inline(.always)
def scales_byte(warp: Int, lane: Int) -> Int:
    """Returns the offset of a lane's word of scales in its tile.

    Worked: warp 2, lane 21 -> 2048 + (2 * 8 + 5) * 4 = 2132.

    Args:
        warp: The index of the warp in its warpgroup.
        lane: The lane.

    Returns:
        Bytes from the start of the tile.
    """
    return CODE_BYTES + (warp * 8 + lane // 4) * 4


@inline(.always)
def source_row(tile_row: Int) -> Int:
    """Returns which of 64 checkpoint rows is stored in a tile's row.

    Tile rows 16w + q and 16w + q + 8, a lane's first and its lower row, are checkpoint rows 2 * (8w + q) and the next,
    so that a lane's sums are of two adjacent outputs: SwiGLU finds gate and up in one lane, and a matmul without it
    stores both as one 4-byte word.

    Worked: tile row 27 = 16 + 11 is the lower row of q = 3 in warp 1 -> 2 * (8 + 3) + 1 = 23.

    Args:
        tile_row: The row in the tile.

    Returns:
        The row in the checkpoint, counted from the tile's first.
    """
    var warp = tile_row // 16
    return 2 * (8 * warp + tile_row % 8) + (tile_row // 8) % 2


@inline(.always)
def spread_word(word: UInt32) -> SIMD[DType.uint32, 4]:
    """Moves a word's codes to the sign, the low exponent bits and the top mantissa bit of bfloat16 numbers.

        word bit for register 0: 6 below its target, for register 1: 2 below, for register 2: 12 below (all modulo 32);
        for register 3: at its target, or 8 above for the lowest bit of a code, xored with the other of these two bits

    A linear bijection of 32 bits in eight instructions: four rotations or shifts and four masks, the last of which
    includes the xor. No four rotations of the mask fill a word, so two bits of register 3 cannot be at their targets.

    Args:
        word: Eight codes.

    Returns:
        Registers 0..3, in each half one code: `s` at bit 15, `e1 e0 m` at bits 8..6.
    """
    return SIMD[DType.uint32, 4](
        rotate_bits_left[6](word) & _KEPT,
        rotate_bits_left[2](word) & _KEPT,
        rotate_bits_left[12](word) & _KEPT,
        (word ^ (word >> 8)) & _KEPT,
    )


def gather_word(registers: SIMD[DType.uint32, 4]) -> UInt32:
    """Inverts `spread_word`.

    Args:
        registers: Four registers, zero but for bits 15 and 8..6 of their halves.

    Returns:
        The word.
    """
    var word = (
        rotate_bits_right[6](registers[0])
        | rotate_bits_right[2](registers[1])
        | rotate_bits_right[12](registers[2])
    )
    # From the highest down: each bit of register 3 determines one bit of the word, as high or higher.
    comptime places = [31, 24, 23, 22, 15, 8, 7, 6]
    comptime for i in range(8):
        comptime place = UInt32(places[i])
        comptime settled = place + 8 if place % 16 == 6 else place
        word |= (((spread_word(word)[3] ^ registers[3]) >> place) & 1) << settled
    return word


def spread_code(code: UInt32) -> UInt32:
    """Moves a code to where `spread_word` leaves it in the low half of a register.

    Args:
        code: The code `s e1 e0 m`.

    Returns:
        The sign at bit 15, the rest at bits 8..6.
    """
    return ((code & 8) << 12) | ((code & 7) << 6)


def gather_code(half: UInt32) -> UInt32:
    """Inverts `spread_code`.

    Args:
        half: A register's half.

    Returns:
        The code.
    """
    return ((half >> 12) & 8) | ((half >> 6) & 7)


@inline(.always)
def spread_scales[group: Int](word: UInt32) -> UInt32:
    """Moves a group's two scales to where a bfloat16 has its exponent.

        word bit for group 0: at its target, for group 1: 8 above (modulo 32)

    A bijection of 32 bits over both groups: a rotation, two masks.

    Parameters:
        group: The group of 32 k, 0..1.

    Args:
        word: A lane's four scales.

    Returns:
        At bits 14..7 the stored byte of the lane's first row, at bits 30..23 that of its lower row.
    """
    comptime if group == 0:
        return word & _EXPONENTS
    return rotate_bits_right[8](word) & _EXPONENTS


def gather_scales(group0: UInt32, group1: UInt32) -> UInt32:
    """Inverts `spread_scales`.

    Args:
        group0: The scales of the first group.
        group1: The scales of the second.

    Returns:
        The word.
    """
    return group0 | rotate_bits_left[8](group1)
