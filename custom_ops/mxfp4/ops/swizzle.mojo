"""Registers `mxfp4.swizzle`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..format import BYTES_PER_GROUP, GROUP_SIZE
from ..gpu.swizzle import enqueue_swizzle
from ..layouts.sm90_swizzle import PARTS, swizzle_part
from ..layouts.sm90_tiles import TILE_BYTES, Sm90Tiles
from .tensors import address, data, require_aligned, require_equal


@extensibility.register("mxfp4.swizzle")
struct Swizzle:
    """Weights packed for Hopper, on any device."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        tiles: OutputTensor[dtype=DType.uint8, rank=4, ...],
        blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
        scales: InputTensor[dtype=DType.uint8, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        """Packs every tile.

        Parameters:
            target: Where the op runs.

        Args:
            tiles: [E, ceil(N / 64), ceil(K / 64), 2176] uint8.
            blocks: [E, N, K / 32, 16] uint8.
            scales: [E, N, K / 32] uint8.
            ctx: The device.

        Raises:
            If shapes disagree, or on a GPU blocks is not aligned to 4 bytes.
        """
        comptime op = "mxfp4.swizzle"
        require_equal(op, "blocks.shape[3]", blocks.shape()[3], BYTES_PER_GROUP)
        comptime for axis in range(3):
            require_equal(
                op,
                "scales.shape = blocks.shape[0..2]",
                scales.shape()[axis],
                blocks.shape()[axis],
            )
        var experts = blocks.shape()[0]
        var sizes = Sm90Tiles(blocks.shape()[1], blocks.shape()[2] * GROUP_SIZE)
        require_equal(op, "tiles.shape[0] = experts", tiles.shape()[0], experts)
        require_equal(op, "tiles.shape[1] = ceil(rows / 64)", tiles.shape()[1], sizes.row_tiles())
        require_equal(op, "tiles.shape[2] = ceil(K / 64)", tiles.shape()[2], sizes.k_tiles())
        require_equal(op, "tiles.shape[3]", tiles.shape()[3], TILE_BYTES)
        var packed = data(tiles)
        var blocks_data = data(blocks)
        var scales_data = data(scales)
        comptime if target == "cpu":
            var count = experts * sizes.row_tiles() * sizes.k_tiles()
            var threads = max(1, min(parallelism_level(), count))

            def pack(thread: Int) {imm}:
                for number in range(count * thread // threads, count * (thread + 1) // threads):
                    for part in range(PARTS):
                        swizzle_part(packed, blocks_data, scales_data, sizes, number, part)

            sync_parallelize(pack, threads)
        else:
            require_aligned(op, "blocks", address(blocks), 4)
            enqueue_swizzle(ctx, packed, blocks_data, scales_data, sizes, experts)
