"""Registers `mxfp4.grouped_matmul`, `mxfp4.grouped_matmul_swiglu` and `dense.matmul`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..cpu.epilogue import BiasEpilogue, Epilogue, SwigluEpilogue
from ..cpu.grouped_matmul import RowGather, grouped_matmul
from ..cpu.weights import Bf16Rows, Mxfp4Rows
from ..cpu.words import HAS_BF16_DOT
from ..format import BYTES_PER_GROUP, GROUP_SIZE
from .tensors import data, require_cpu, require_equal


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
    require_equal(
        op,
        "expert_offsets.shape[0] = experts + 1",
        offsets.shape()[0],
        experts + 1,
    )
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
    x: InputTensor[dtype=DType.float32, rank=2, ...],
    gather: RowGather,
    blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
    scales: InputTensor[dtype=DType.uint8, rank=3, ...],
    offsets: InputTensor[dtype=DType.int32, rank=1, ...],
    finish: Finish,
):
    """Runs the grouped matmul with the words that `activations` and the CPU allow."""
    comptime rounds = activations == DType.bfloat16
    comptime word = DType.bfloat16 if rounds and HAS_BF16_DOT else DType.float32
    var k_groups = blocks.shape()[2]
    grouped_matmul[round_to_bf16=rounds](
        data(x),
        gather,
        Mxfp4Rows[word](data(blocks), data(scales), k_groups),
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
        target: StaticString, activations: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        blocks: InputTensor[dtype=DType.uint8, rank=4, ...],
        scales: InputTensor[dtype=DType.uint8, rank=3, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Multiplies rows that are already in expert order.

        Parameters:
            target: Where the op runs.
            activations: What x is rounded to first: bfloat16 or float32.

        Args:
            y: [P, N] float32.
            x: [P, K] float32.
            blocks: [E, N, K/32, 16] uint8.
            scales: [E, N, K/32] uint8.
            bias: [E, N] bfloat16.
            offsets: [E + 1] int32.
            ctx: The device.

        Raises:
            Shapes that disagree, or offsets that do not ascend from 0 to P.
        """
        comptime op = "mxfp4.grouped_matmul"
        require_cpu[op, target]()
        var rows = x.shape()[0]
        var n = blocks.shape()[1]
        _check_weights(op, blocks, scales, bias, x.shape()[1])
        _check_offsets(op, offsets, blocks.shape()[0], rows)
        require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], rows)
        require_equal(op, "y.shape[1] = blocks.shape[1]", y.shape()[1], n)
        _multiply[activations](
            x,
            RowGather(data(offsets), 0),
            blocks,
            scales,
            offsets,
            BiasEpilogue[True](data(y), data(bias), n),
        )


@extensibility.register("mxfp4.grouped_matmul_swiglu")
struct GroupedMatmulSwiglu:
    """Each token's row times its experts' MXFP4 gate and up weights, then bias, clamp and SwiGLU.
    """

    @staticmethod
    def execute[
        target: StaticString, activations: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
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
            activations: What x is rounded to first: bfloat16 or float32.

        Args:
            y: [P, I] float32, rows in expert order.
            x: [T, K] float32, rows in token order.
            blocks: [E, 2I, K/32, 16] uint8, gate and up rows interleaved.
            scales: [E, 2I, K/32] uint8.
            bias: [E, 2I] bfloat16.
            offsets: [E + 1] int32.
            order: [P] int32, the routed row at each place in expert order.
            limit: The clamp.
            ctx: The device.

        Raises:
            Shapes that disagree, offsets that do not ascend from 0 to P, or an order that leaves 0..P-1.
        """
        comptime op = "mxfp4.grouped_matmul_swiglu"
        require_cpu[op, target]()
        var tokens = x.shape()[0]
        var rows = order.shape()[0]
        var n = blocks.shape()[1]
        _check_weights(op, blocks, scales, bias, x.shape()[1])
        _check_offsets(op, offsets, blocks.shape()[0], rows)
        require_equal(op, "y.shape[0] = row_order.shape[0]", y.shape()[0], rows)
        require_equal(op, "2 * y.shape[1] = blocks.shape[1]", 2 * y.shape()[1], n)
        if rows == 0:
            return
        if tokens == 0 or rows % tokens != 0:
            raise Error(
                op,
                ": row_order.shape[0] must be a multiple of the tokens = ",
                tokens,
                ", got ",
                rows,
            )
        var order_data = data(order)
        for place in range(rows):
            var row = Int(order_data[unsafe_offset=place])
            if row < 0 or row >= rows:
                raise Error(
                    op,
                    ": row_order must lie in 0..",
                    rows - 1,
                    ", got ",
                    row,
                    " at ",
                    place,
                )
        _multiply[activations](
            x,
            RowGather(order_data, rows // tokens),
            blocks,
            scales,
            offsets,
            SwigluEpilogue(data(y), data(bias), n, limit),
        )


def _dense[
    Finish: Epilogue, //
](
    x: InputTensor[dtype=DType.float32, rank=2, ...],
    w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    finish: Finish,
) raises:
    """Multiplies as the grouped matmul of a single expert does."""
    require_equal("dense.matmul", "w.shape[1] = x.shape[1]", w.shape()[1], x.shape()[1])
    var offsets = List[Int32](length=2, fill=0)
    offsets[1] = Int32(x.shape()[0])
    var offsets_data = offsets.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
    var k = x.shape()[1]
    grouped_matmul[round_to_bf16=False](
        data(x),
        RowGather(offsets_data, 0),
        Bf16Rows(data(w), k),
        offsets_data,
        1,
        w.shape()[0],
        k,
        finish,
    )
    _ = offsets^


@extensibility.register("dense.matmul")
struct DenseMatmul:
    """A matmul with BF16 weights that stay BF16 in memory."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ w.T`.

        Parameters:
            target: Where the op runs.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            w: [N, K] bfloat16.
            ctx: The device.

        Raises:
            Shapes that disagree.
        """
        require_cpu["dense.matmul", target]()
        # Without a bias its pointer is never read; any valid one will do.
        _dense(x, w, BiasEpilogue[False](data(y), data(w), w.shape()[0]))


@extensibility.register("dense.matmul_bias")
struct DenseMatmulBias:
    """A matmul with BF16 weights and bias that stay BF16 in memory."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ w.T + bias`.

        Parameters:
            target: Where the op runs.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            w: [N, K] bfloat16.
            bias: [N] bfloat16.
            ctx: The device.

        Raises:
            Shapes that disagree.
        """
        require_cpu["dense.matmul_bias", target]()
        require_equal(
            "dense.matmul_bias",
            "bias.shape[0] = w.shape[0]",
            bias.shape()[0],
            w.shape()[0],
        )
        _dense(x, w, BiasEpilogue[True](data(y), data(bias), w.shape()[0]))
