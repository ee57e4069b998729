"""Registers `mxfp4.quantize`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..cpu.quantize import quantize_groups
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from .tensors import data, require_cpu, require_equal

comptime _GROUPS_PER_TASK = 4096
"""Groups that are worth a thread of their own: 512 KB of float32 read."""


@extensibility.register("mxfp4.quantize")
struct Quantize:
    """Float32 or bfloat16 rounded to MXFP4."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        blocks: OutputTensor[dtype=DType.uint8, rank=3, ...],
        scales: OutputTensor[dtype=DType.uint8, rank=2, ...],
        x: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Rounds every group.

        Parameters:
            target: Where the op runs.
            dtype: Type of the input.

        Args:
            blocks: [rows, K/32, 16] uint8.
            scales: [rows, K/32] uint8.
            x: [rows, K].
            ctx: The device.

        Raises:
            If K is not a multiple of 32, or shapes disagree.
        """
        comptime op = "mxfp4.quantize"
        require_cpu[op, target]()
        var rows = x.shape()[0]
        var k = x.shape()[1]
        if k % GROUP_SIZE != 0:
            raise Error(op, ": x.shape[-1] must be a multiple of ", GROUP_SIZE, ", got ", k)
        var k_groups = k // GROUP_SIZE
        require_equal(op, "scales.shape[0] = x.shape[0]", scales.shape()[0], rows)
        require_equal(op, "scales.shape[1] = x.shape[1] / 32", scales.shape()[1], k_groups)
        comptime for axis in range(2):
            require_equal(
                op,
                "blocks.shape[0..1] = scales.shape",
                blocks.shape()[axis],
                scales.shape()[axis],
            )
        require_equal(op, "blocks.shape[2]", blocks.shape()[2], BYTES_PER_GROUP)
        var groups = rows * k_groups
        var x_data = data(x)
        var blocks_data = data(blocks)
        var scales_data = data(scales)
        var threads = max(1, min(parallelism_level(), groups // _GROUPS_PER_TASK))

        def narrow(thread: Int) {imm}:
            quantize_groups(
                x_data,
                groups * thread // threads,
                groups * (thread + 1) // threads,
                blocks_data,
                scales_data,
            )

        sync_parallelize(narrow, threads)
