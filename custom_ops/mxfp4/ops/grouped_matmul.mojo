"""Registers `mxfp4.grouped_matmul` and `mxfp4.grouped_matmul_swiglu`, on weights in the checkpoint's layout."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..activations import Activations
from ..cpu.epilogue import BiasEpilogue, Epilogue, SwigluEpilogue
from ..cpu.grouped_matmul import RowGather, grouped_matmul
from ..cpu.mxfp4_rows import Mxfp4Rows
from ..cpu.words import word_of
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from ..gpu.grouped_matmul import enqueue_strided
from ..pointers import ConstPointer
from .tensors import (
    address,
    data,
    require_aligned,
    require_dtype,
    require_equal,
    require_row_order,
    tokens_top_k,
)


def _check_weights(
    op: StaticString,
    blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
    scales: InputTensor[dtype=DType.uint8, rank=3, ...],
    bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    k: Int,
) raises:
    require_equal(op, "blocks.shape[3]", blocks.shape()[3], BYTES_PER_GROUP)
    comptime for axis in range(3):
        require_equal(
            op,
            "scales.shape[0..2] = blocks.shape[0..2]",
            scales.shape()[axis],
            blocks.shape()[axis],
        )
    comptime for axis in range(2):
        require_equal(
            op,
            "bias.shape = blocks.shape[0..1]",
            bias.shape()[axis],
            blocks.shape()[axis],
        )
    require_equal(
        op,
        "x.shape[1] = 32 * blocks.shape[2]",
        k,
        blocks.shape()[2] * GROUP_SIZE,
    )


def _check_offsets(
    op: StaticString,
    offsets: InputTensor[dtype=DType.int32, rank=1, ...],
    experts: Int,
    rows: Int,
) raises:
    """Refuses offsets that would make a kernel read past its rows."""
    var values = data(offsets)
    require_equal(op, "expert_offsets[0]", Int(values[unsafe_offset=0]), 0)
    for expert in range(experts):
        if values[unsafe_offset=expert + 1] < values[unsafe_offset=expert]:
            raise Error(
                op,
                ": expert_offsets must ascend, got ",
                values[unsafe_offset=expert],
                " then ",
                values[unsafe_offset=expert + 1],
                " at expert ",
                expert,
            )
    require_equal(
        op,
        "expert_offsets[experts] = routed rows",
        Int(values[unsafe_offset=experts]),
        rows,
    )


def _multiply[
    Finish: Epilogue, //, activations: DType
](
    x: ConstPointer[DType.float32],
    gather: RowGather,
    blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
    scales: InputTensor[dtype=DType.uint8, rank=3, ...],
    offsets: InputTensor[dtype=DType.int32, rank=1, ...],
    finish: Finish,
):
    """Runs the grouped matmul with the words that `activations` and the CPU allow."""
    var k_groups = blocks.shape()[2]
    grouped_matmul[round_to_bf16=activations == DType.bfloat16](
        x,
        gather,
        Mxfp4Rows[word_of(activations)](data(blocks), data(scales), k_groups),
        data(offsets),
        blocks.shape()[0],
        blocks.shape()[1],
        k_groups * GROUP_SIZE,
        finish,
    )


@extensibility.register("mxfp4.grouped_matmul")
struct GroupedMatmul:
    """Each expert's rows times its MXFP4 weights, plus bias."""

    @staticmethod
    def execute[
        target: StaticString, activations: DType, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        x: InputTensor[dtype=dtype, rank=2, ...],
        blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
        scales: InputTensor[dtype=DType.uint8, rank=3, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Multiplies rows that are already in expert order.

        Parameters:
            target: Where the op runs.
            activations: Type to which x is rounded first on a CPU: bfloat16, float32 or, in groups of 32, int8.
            dtype: Type of x and y: float32 on a CPU, bfloat16 on a GPU.

        Args:
            y: [P, N].
            x: [P, K].
            blocks: [E, N, K/32, 16] uint8.
            scales: [E, N, K/32] uint8.
            bias: [E, N] bfloat16.
            offsets: [E + 1] int32.
            ctx: The device.

        Raises:
            If shapes disagree, on the CPU if offsets do not ascend from 0 to P, on a GPU if x or blocks is not aligned
            to 16 bytes; rows that offsets leave out are not written there.
        """
        comptime op = "mxfp4.grouped_matmul"
        require_dtype[op, target, dtype]()
        var rows = x.shape()[0]
        var experts = blocks.shape()[0]
        var n = blocks.shape()[1]
        _check_weights(op, blocks, scales, bias, x.shape()[1])
        require_equal(op, "expert_offsets.shape[0] = experts + 1", offsets.shape()[0], experts + 1)
        require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], rows)
        require_equal(op, "y.shape[1] = blocks.shape[1]", y.shape()[1], n)
        comptime if target == "cpu":
            _check_offsets(op, offsets, experts, rows)
            _multiply[activations](
                data(x).unsafe_bitcast[Float32](),
                RowGather(data(offsets), 0),
                blocks,
                scales,
                offsets,
                BiasEpilogue[True](data(y).unsafe_bitcast[Float32](), data(bias), n),
            )
        else:
            require_aligned(op, "x", address(x), 16)
            require_aligned(op, "blocks", address(blocks), 16)
            enqueue_strided[gated=False](
                ctx,
                data(y).unsafe_bitcast[BFloat16](),
                Activations.in_expert_order(data(x).unsafe_bitcast[BFloat16](), rows, x.shape()[1]),
                data(blocks),
                data(scales),
                data(bias),
                data(offsets),
                experts,
                n,
                0,
            )


@extensibility.register("mxfp4.grouped_matmul_swiglu")
struct GroupedMatmulSwiglu:
    """Each token's row times its experts' MXFP4 gate and up weights, then bias, clamp and SwiGLU.
    """

    @staticmethod
    def execute[
        target: StaticString, activations: DType, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        x: InputTensor[dtype=dtype, rank=2, ...],
        blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
        scales: InputTensor[dtype=DType.uint8, rank=3, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        order: InputTensor[dtype=DType.int32, rank=1, ...],
        limit: Float32,
        ctx: DeviceContext,
    ) raises:
        """Gathers rows, multiplies and gates.

        Parameters:
            target: Where the op runs.
            activations: Type to which x is rounded first on a CPU: bfloat16, float32 or, in groups of 32, int8.
            dtype: Type of x and y: float32 on a CPU, bfloat16 on a GPU.

        Args:
            y: [P, I], rows in expert order.
            x: [T, K], rows in token order.
            blocks: [E, 2I, K/32, 16] uint8, gate and up rows interleaved.
            scales: [E, 2I, K/32] uint8.
            bias: [E, 2I] bfloat16.
            offsets: [E + 1] int32.
            order: [P] int32, the routed row at each place in expert order.
            limit: The clamp.
            ctx: The device.

        Raises:
            If shapes disagree, on the CPU if offsets do not ascend from 0 to P or the order leaves 0..P-1, on a GPU if
            x or blocks is not aligned to 16 bytes; rows that offsets leave out are not written there.
        """
        comptime op = "mxfp4.grouped_matmul_swiglu"
        require_dtype[op, target, dtype]()
        var rows = order.shape()[0]
        var experts = blocks.shape()[0]
        var n = blocks.shape()[1]
        _check_weights(op, blocks, scales, bias, x.shape()[1])
        require_equal(op, "expert_offsets.shape[0] = experts + 1", offsets.shape()[0], experts + 1)
        require_equal(op, "y.shape[0] = row_order.shape[0]", y.shape()[0], rows)
        require_equal(op, "2 * y.shape[1] = blocks.shape[1]", 2 * y.shape()[1], n)
        if rows == 0:
            return
        var top_k = tokens_top_k(op, rows, x.shape()[0])
        comptime if target == "cpu":
            _check_offsets(op, offsets, experts, rows)
            require_row_order(op, data(order), rows)
            _multiply[activations](
                data(x).unsafe_bitcast[Float32](),
                RowGather(data(order), top_k),
                blocks,
                scales,
                offsets,
                SwigluEpilogue(data(y).unsafe_bitcast[Float32](), data(bias), n, limit),
            )
        else:
            require_aligned(op, "x", address(x), 16)
            require_aligned(op, "blocks", address(blocks), 16)
            enqueue_strided[gated=True](
                ctx,
                data(y).unsafe_bitcast[BFloat16](),
                Activations(
                    data(x).unsafe_bitcast[BFloat16](), data(order), rows, x.shape()[1], top_k
                ),
                data(blocks),
                data(scales),
                data(bias),
                data(offsets),
                experts,
                n,
                limit,
            )
