"""Converts checkpoint order to `Sm90Tiles` and back, word by word, so that any device's threads can share the work."""

from ..pointers import ConstPointer
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from .fragments import a_k, a_lower, fragment_row
from .sm90_tiles import (
    CODE_BYTES,
    MAX_SCALE,
    SCALE_BYTES,
    SCALE_OFFSET,
    STEPS,
    TILE_BYTES,
    TILE_K,
    TILE_ROWS,
    Sm90Tiles,
    gather_code,
    gather_scales,
    gather_word,
    source_row,
    spread_code,
    spread_word,
)


@fieldwise_init
struct TilePlace(TrivialRegisterPassable):
    """A tile of one expert."""

    var expert: Int
    """The expert."""
    var row_tile: Int
    """The tile along rows."""
    var k_tile: Int
    """The tile along k."""


@fieldwise_init
struct CheckpointRow(TrivialRegisterPassable):
    """A lane's row of a tile in checkpoint order, where codes are [experts, rows, k / 32, 16]."""

    var row: Int
    """The row, counted over all experts."""
    var exists: Bool
    """False for padding."""
    var groups: Int
    """Groups per row."""

    def __init__(out self, tiles: Sm90Tiles, tile: TilePlace, warp: Int, lane: Int, lower: Int):
        """Locates a row.

        Args:
            tiles: The weights' sizes.
            tile: The tile.
            warp: The index of the warp in its warpgroup.
            lane: The lane.
            lower: 0 for the lane's first row, 1 for the lower one.
        """
        var inside = source_row(fragment_row(warp, lane, lower))
        var row = tile.row_tile * TILE_ROWS + inside
        self.exists = row < tiles.rows
        self.row = tile.expert * tiles.rows + row
        self.groups = tiles.k // GROUP_SIZE

    def code_byte(self, k: Int) -> Int:
        """Returns the byte that holds the codes of an even k and the next.

        Args:
            k: The even k.

        Returns:
            Its index, or -1 in padding.
        """
        if not self.exists or k >= self.groups * GROUP_SIZE:
            return -1
        return self.row * self.groups * BYTES_PER_GROUP + k // 2

    def scale_byte(self, group: Int) -> Int:
        """Returns the byte that holds a group's scale.

        Args:
            group: The group of the row.

        Returns:
            Its index, or -1 in padding.
        """
        return self.row * self.groups + group if self.exists and group < self.groups else -1


def swizzle_word(
    blocks: ConstPointer[DType.uint8],
    tiles: Sm90Tiles,
    tile: TilePlace,
    warp: Int,
    lane: Int,
    step: Int,
) -> UInt32:
    """Packs one word of codes.

    Args:
        blocks: [experts, rows, k / 32, 16].
        tiles: The weights' sizes.
        tile: The tile.
        warp: The index of the warp in its warpgroup.
        lane: The lane.
        step: The step of 16 k.

    Returns:
        The word at `word_byte`; zero codes in padding.
    """
    var registers = SIMD[DType.uint32, 4](0)
    comptime for register in range(4):
        var row = CheckpointRow(tiles, tile, warp, lane, a_lower(register))
        var byte = row.code_byte(tile.k_tile * TILE_K + 16 * step + a_k(lane, register, 0))
        if byte >= 0:
            var codes = blocks[unsafe_offset=byte].cast[DType.uint32]()
            registers[register] = spread_code(codes & 15) | (spread_code(codes >> 4) << 16)
    return gather_word(registers)


def swizzle_scales(
    scales: ConstPointer[DType.uint8], tiles: Sm90Tiles, tile: TilePlace, warp: Int, lane: Int
) -> UInt32:
    """Packs one word of scales.

    Args:
        scales: [experts, rows, k / 32].
        tiles: The weights' sizes.
        tile: The tile.
        warp: The index of the warp in its warpgroup.
        lane: The lane.

    Returns:
        The word at `scales_byte`; zeros in padding. Scales above `MAX_SCALE` are stored as the exponent of infinity:
        their weights become infinite or NaN, never finite and wrong.
    """
    var groups = SIMD[DType.uint32, 2](0)
    comptime for lower in range(2):
        var row = CheckpointRow(tiles, tile, warp, lane, lower)
        comptime for group in range(2):
            var byte = row.scale_byte(tile.k_tile * (TILE_K // GROUP_SIZE) + group)
            if byte >= 0:
                var stored = min(scales[unsafe_offset=byte], MAX_SCALE + 1) + SCALE_OFFSET
                groups[group] |= stored.cast[DType.uint32]() << UInt32(16 * lower + 7)
    return gather_scales(groups[0], groups[1])


comptime PARTS = CODE_BYTES // 4
"""Words of codes per tile: the parts into which its packing is divided among threads."""


@inline(.always)
def swizzle_part(
    packed: MutPointer[UInt8, MutUntrackedOrigin],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    tiles: Sm90Tiles,
    number: Int,
    part: Int,
):
    """Packs one word of codes of a tile and, for the first parts, one word of scales.

    Args:
        packed: All tiles, 4-byte aligned, written.
        blocks: [experts, rows, k / 32, 16].
        scales: [experts, rows, k / 32].
        tiles: The weights' sizes.
        number: The tile's index in memory order.
        part: The word's index in memory order, 0..`PARTS` - 1.
    """
    var tile = TilePlace(
        number // (tiles.row_tiles() * tiles.k_tiles()),
        number // tiles.k_tiles() % tiles.row_tiles(),
        number % tiles.k_tiles(),
    )
    var here = packed.unsafe_offset(number * TILE_BYTES)
    here.unsafe_bitcast[UInt32]()[unsafe_offset=part] = swizzle_word(
        blocks, tiles, tile, part // (32 * STEPS), part // STEPS % 32, part % STEPS
    )
    if part < SCALE_BYTES // 4:
        here.unsafe_bitcast[UInt32]()[unsafe_offset=PARTS + part] = swizzle_scales(
            scales, tiles, tile, part // 8, part % 8 * 4
        )


def unswizzle_word(
    word: UInt32,
    blocks: MutPointer[UInt8, MutUntrackedOrigin],
    tiles: Sm90Tiles,
    tile: TilePlace,
    warp: Int,
    lane: Int,
    step: Int,
):
    """Unpacks one word of codes to four bytes of the checkpoint, which belong to no other word.

    Args:
        word: The word at `word_byte`.
        blocks: [experts, rows, k / 32, 16], written.
        tiles: The weights' sizes.
        tile: The tile.
        warp: The index of the warp in its warpgroup.
        lane: The lane.
        step: The step of 16 k.
    """
    var registers = spread_word(word)
    comptime for register in range(4):
        var row = CheckpointRow(tiles, tile, warp, lane, a_lower(register))
        var byte = row.code_byte(tile.k_tile * TILE_K + 16 * step + a_k(lane, register, 0))
        if byte >= 0:
            var low = gather_code(registers[register] & 0xFFFF)
            var high = gather_code(registers[register] >> 16)
            blocks[unsafe_offset=byte] = (low | (high << 4)).cast[DType.uint8]()
