"""Hopper's packed weights, tile by tile in loops of NumPy: the twin of `custom_ops/mxfp4/layouts/sm90_tiles.mojo`.

Source: PTX ISA 9.0, "Register Fragments for wgmma.mma_async.m64nNk16", matrix A; the packing is this project's own,
described in that file.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TILE = 64
CODE_BYTES = TILE * TILE // 2
TILE_BYTES = 2176
SCALE_OFFSET = 126


def fragment_coordinates() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and k within a tile of each code: [warp 4, lane 32, step 4, register 4, half 2] both."""
    warp, lane, step, register, half = np.indices((4, 32, 4, 4, 2))
    row = 16 * warp + lane // 4 + 8 * (register % 2)
    k = 16 * step + 2 * (lane % 4) + half + 8 * (register // 2)
    return row, k


def pack_words(fragments: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Packs codes [..., register 4, half 2] to words [...].

    In register R the bits of half h belong at 16h + 15 (sign) and 16h + 8, 7, 6. Rotating the word left by 6, 2 and 12
    brings those of registers 0, 1 and 2 there; register 3 is what the word xor itself shifted right by 8 has there.
    """
    words = np.zeros(fragments.shape[:-2], np.uint32)
    places = [
        (half, bit, 16 * half + (15 if bit == 3 else 6 + bit)) for half, bit in np.ndindex(2, 4)
    ]
    for register, rotation in enumerate((6, 2, 12)):
        for half, bit, place in places:
            is_set = fragments[..., register, half] >> np.uint32(bit) & 1
            words |= is_set << np.uint32((place - rotation) % 32)
    free = {31: 31, 24: 24, 23: 23, 22: 30, 15: 15, 8: 8, 7: 7, 6: 14}
    for half, bit, place in sorted(places, key=lambda where: -where[2]):
        is_set = fragments[..., 3, half] >> np.uint32(bit) & 1
        stands = (words ^ words >> np.uint32(8)) >> np.uint32(place) & 1
        words |= (is_set ^ stands) << np.uint32(free[place])
    return words


def source_rows() -> NDArray[np.intp]:
    """Checkpoint row of each row of a tile: the even ones above the odd ones of the same lanes."""
    row = np.arange(TILE)
    return 2 * (row // 16 * 8 + row % 8) + row // 8 % 2


def swizzle(blocks: ArrayLike, scales: ArrayLike) -> NDArray[np.uint8]:
    """Packs weights.

    Args:
        blocks: [E, N, K/32, 16] uint8, the earlier element in the low nibble.
        scales: [E, N, K/32] uint8, at most 128.

    Returns:
        [E, ceil(N/64), ceil(K/64), 2176] uint8, zero codes and zero scale bytes where padded.
    """
    blocks, scales = np.asarray(blocks, np.uint8), np.asarray(scales, np.uint8)
    experts, n, groups, _ = blocks.shape
    row_tiles, k_tiles = -(-n // TILE), -(-groups // 2)
    codes = np.zeros((experts, row_tiles * TILE, k_tiles * TILE), np.uint32)
    nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(experts, n, groups * 32)
    codes[:, :n, : groups * 32] = nibbles
    stored = np.zeros((experts, row_tiles * TILE, k_tiles * 2), np.uint8)
    stored[:, :n, :groups] = scales + SCALE_OFFSET

    packed = np.empty((experts, row_tiles, k_tiles, TILE_BYTES), np.uint8)
    row, k = fragment_coordinates()
    source = source_rows()
    warp, quarter, lower, group = np.indices((4, 8, 2, 2))
    for e in range(experts):
        for i in range(row_tiles):
            for j in range(k_tiles):
                fragments = codes[e, i * TILE + source[row], j * TILE + k]
                packed[e, i, j, :2048] = pack_words(fragments).reshape(-1).view(np.uint8)
                rows = source[16 * warp + quarter + 8 * lower]
                words = stored[e, i * TILE + rows, 2 * j + group].reshape(-1).view(np.uint32)
                packed[e, i, j, 2048:] = (words << 7 | words >> 25).view(np.uint8)
    return packed
