"""Packs weights for Hopper on the device itself, with a block for each tile and a thread for each word."""

from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..layouts.sm90_swizzle import PARTS, swizzle_part
from ..layouts.sm90_tiles import Sm90Tiles
from ..pointers import ConstPointer


def swizzle_kernel(
    packed: MutPointer[UInt8, MutUntrackedOrigin],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    rows: Int32,
    k: Int32,
):
    """Packs one word of codes of tile `block_idx.x` and, in the first threads, one word of scales.

    Args:
        packed: All tiles.
        blocks: [experts, rows, k / 32, 16].
        scales: [experts, rows, k / 32].
        rows: Weight rows of an expert.
        k: Elements of a row, a multiple of 32.
    """
    swizzle_part(
        packed,
        blocks,
        scales,
        Sm90Tiles(Int(rows), Int(k)),
        Int(block_idx.x),
        Int(thread_idx.x),
    )


def enqueue_swizzle(
    ctx: DeviceContext,
    packed: MutPointer[UInt8, MutUntrackedOrigin],
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    tiles: Sm90Tiles,
    experts: Int,
) raises:
    """Packs weights on a device.

    Args:
        ctx: The device.
        packed: All tiles.
        blocks: [experts, rows, k / 32, 16].
        scales: [experts, rows, k / 32].
        tiles: The weights' sizes.
        experts: E.

    Raises:
        If the launch fails.
    """
    var count = experts * tiles.row_tiles() * tiles.k_tiles()
    if count == 0:
        return
    ctx.enqueue_function[swizzle_kernel](
        packed,
        blocks,
        scales,
        Int32(tiles.rows),
        Int32(tiles.k),
        grid_dim=count,
        block_dim=PARTS,
    )
