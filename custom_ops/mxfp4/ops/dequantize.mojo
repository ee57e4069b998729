"""Registers `mxfp4.dequantize`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..cpu.dequantize import dequantize_groups
from ..cpu.float_mode import enable_subnormals, write_float_mode
from ..gpu.dequantize import enqueue_dequantize
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from .tensors import address, data, require_aligned, require_equal

comptime _GROUPS_PER_TASK = 4096
"""Groups that are worth a thread of their own: 70 KB read."""


@extensibility.register("mxfp4.dequantize")
struct Dequantize:
    """MXFP4 expanded to float32 or bfloat16."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        blocks: InputTensor[dtype=DType.uint8, rank=3, ...],
        scales: InputTensor[dtype=DType.uint8, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Expands every group.

        Parameters:
            target: Where the op runs.
            dtype: Type of the output.

        Args:
            y: [rows, K].
            blocks: [rows, K/32, 16] uint8.
            scales: [rows, K/32] uint8.
            ctx: The device.

        Raises:
            If shapes disagree, or on a GPU blocks is not aligned to 4 bytes.
        """
        comptime op = "mxfp4.dequantize"
        comptime for axis in range(2):
            require_equal(
                op,
                "scales.shape = blocks.shape[0..1]",
                scales.shape()[axis],
                blocks.shape()[axis],
            )
        require_equal(op, "blocks.shape[2]", blocks.shape()[2], BYTES_PER_GROUP)
        require_equal(op, "y.shape[0] = blocks.shape[0]", y.shape()[0], blocks.shape()[0])
        require_equal(
            op,
            "y.shape[1] = 32 * blocks.shape[1]",
            y.shape()[1],
            GROUP_SIZE * blocks.shape()[1],
        )
        var groups = scales.shape()[0] * scales.shape()[1]
        var blocks_data = data(blocks)
        var scales_data = data(scales)
        var y_data = data(y)
        comptime if target == "cpu":
            var threads = max(1, min(parallelism_level(), groups // _GROUPS_PER_TASK))

            def expand(thread: Int) {imm}:
                var mode = enable_subnormals()
                dequantize_groups(
                    blocks_data,
                    scales_data,
                    groups * thread // threads,
                    groups * (thread + 1) // threads,
                    y_data,
                )
                write_float_mode(mode)

            sync_parallelize(expand, threads)
        else:
            require_aligned(op, "blocks", address(blocks), 4)
            enqueue_dequantize[dtype](ctx, y_data, blocks_data, scales_data, groups)
