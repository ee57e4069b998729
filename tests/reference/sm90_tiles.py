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


def word_bits() -> NDArray[np.intp]:
    """The bit of a word that holds each bit of a code: [register 4, half 2, bit 4], bit 3 the sign.

    In register R the bits of half h belong at 16h + 15 (sign) and 16h + 8, 7, 6. Rotating the word left by 6, 2
    and 12 brings those of registers 0, 1 and 2 there; those of register 3 are there, the lowest of each 8 above.
    """
    register, half, bit = np.indices((4, 2, 4))
    place = 16 * half + np.where(bit == 3, 15, 6 + bit)
    rotated = (place - np.array([6, 2, 12, 0])[register]) % 32
    return np.where((register == 3) & (bit == 0), place + 8, rotated)


def scale_bits() -> NDArray[np.intp]:
    """The lowest of the eight neighbouring bits of a word (31 is followed by 0) that hold a scale: [group 2, lower 2].

    Those of the first group stand where a bfloat16 has its exponent, in the half that `lower` says; rotating the word
    right by 8 brings those of the second group there.
    """
    group, lower = np.indices((2, 2))
    return (16 * lower + 7 + 8 * group) % 32


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
    warp, quarter, group, lower = np.indices((4, 8, 2, 2))
    for e in range(experts):
        for i in range(row_tiles):
            for j in range(k_tiles):
                fragments = codes[e, i * TILE + source[row], j * TILE + k]
                words = np.zeros(fragments.shape[:3], np.uint32)
                for (register, half, bit), place in np.ndenumerate(word_bits()):
                    words |= (fragments[..., register, half] >> bit & 1) << np.uint32(place)
                packed[e, i, j, :2048] = words.reshape(-1).view(np.uint8)
                rows = source[16 * warp + quarter + 8 * lower]
                fields = stored[e, i * TILE + rows, 2 * j + group].astype(np.uint64)
                scale_words = np.zeros(fields.shape[:2], np.uint64)
                for (one_group, one_lower), place in np.ndenumerate(scale_bits()):
                    scale_words |= fields[..., one_group, one_lower] << np.uint64(place)
                around = (scale_words | scale_words >> np.uint64(32)).astype(np.uint32)
                packed[e, i, j, 2048:] = around.reshape(-1).view(np.uint8)
    return packed
