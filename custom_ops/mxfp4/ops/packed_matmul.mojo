"""Registers `mxfp4.grouped_matmul_packed`, `mxfp4.grouped_matmul_swiglu_packed` and `mxfp4.grouped_mlp_packed`, for
weights packed for Hopper."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..activations import Activations
from ..layouts.sm90_tiles import TILE_BYTES, Sm90Tiles
from ..sm90.epilogue import Output
from ..sm90.grouped_mlp import Counts
from ..sm90.launch import enqueue_grouped_matmul, enqueue_grouped_mlp
from .tensors import address, data, require_aligned, require_equal, require_gpu, tokens_top_k


def _check[
    x: StaticString = "x", of: StaticString = ""
](
    op: StaticString,
    x_address: Int,
    k: Int,
    tiles: InputTensor[dtype=DType.uint8, rank=4, ...],
    bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    offsets: InputTensor[dtype=DType.int32, rank=1, ...],
    y_address: Int,
) raises:
    """Checks what one matmul takes.

    Parameters:
        x: What the op calls the activations.
        of: What its names of tiles and bias begin with.
    """
    comptime of_tiles: StaticString = of + "tiles"
    comptime of_bias: StaticString = of + "bias"
    comptime has_experts: StaticString = of_bias + ".shape[0] = experts"
    comptime has_row_tiles: StaticString = of_tiles + ".shape[1] = ceil(" + of_bias + ".shape[1] / 64)"
    comptime has_k_tiles: StaticString = of_tiles + ".shape[2] = ceil(" + x + ".shape[1] / 64)"
    comptime has_tile_bytes: StaticString = of_tiles + ".shape[3]"
    comptime has_groups: StaticString = x + ".shape[1] modulo 32"
    comptime has_pairs: StaticString = of_bias + ".shape[1] modulo 2"
    var experts = tiles.shape()[0]
    var sizes = Sm90Tiles(bias.shape()[1], k)
    require_equal(op, has_experts, bias.shape()[0], experts)
    require_equal(op, "expert_offsets.shape[0] = experts + 1", offsets.shape()[0], experts + 1)
    require_equal(op, has_row_tiles, tiles.shape()[1], sizes.row_tiles())
    require_equal(op, has_k_tiles, tiles.shape()[2], sizes.k_tiles())
    require_equal(op, has_tile_bytes, tiles.shape()[3], TILE_BYTES)
    require_equal(op, has_groups, k % 32, 0)
    require_equal(op, has_pairs, bias.shape()[1] % 2, 0)
    # Rows of activations and tiles are copied 16 bytes at a time; a lane has two biases and outputs.
    require_aligned(op, x, x_address, 16)
    require_aligned(op, of_tiles, address(tiles), 16)
    require_aligned(op, of_bias, address(bias), 4)
    require_aligned(op, "y", y_address, 4)


@extensibility.register("mxfp4.grouped_matmul_packed")
struct GroupedMatmulPacked:
    """Each expert's rows times its packed MXFP4 weights, plus bias, on Hopper."""

    @staticmethod
    def execute[
        target: StaticString, x_follows_offsets: Bool
    ](
        y: OutputTensor[dtype=DType.bfloat16, rank=2, ...],
        x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        tiles: InputTensor[dtype=DType.uint8, rank=4, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Multiplies rows that are already in expert order.

        Parameters:
            target: Where the op runs.
            x_follows_offsets: Whether x comes straight from `GroupedMatmulSwigluPacked` with the same offsets, and
                tiles and bias are weights: offsets, tiles and bias are then read while that op still runs.

        Args:
            y: [P, N] bfloat16.
            x: [P, K] bfloat16.
            tiles: [E, ceil(N / 64), ceil(K / 64), 2176] uint8, see `Sm90Tiles`.
            bias: [E, N] bfloat16, N even.
            offsets: [E + 1] int32; rows that they leave out are not written.
            ctx: The device.

        Raises:
            If shapes disagree, or a tensor is not aligned to what the kernel loads or stores at a time.
        """
        comptime op = "mxfp4.grouped_matmul_packed"
        require_gpu[op, target]()
        var rows = x.shape()[0]
        var k = x.shape()[1]
        _check(op, address(x), k, tiles, bias, offsets, address(y))
        require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], rows)
        require_equal(op, "y.shape[1] = bias.shape[1]", y.shape()[1], bias.shape()[1])
        enqueue_grouped_matmul(
            ctx,
            Output[gated=False](data(y), data(bias), bias.shape()[1]),
            Activations.in_expert_order(data(x), rows, k),
            data(tiles),
            data(offsets),
            tiles.shape()[0],
            overlapping=x_follows_offsets,
        )


@extensibility.register("mxfp4.grouped_matmul_swiglu_packed")
struct GroupedMatmulSwigluPacked:
    """Each token's row times its experts' packed gate and up weights, then bias, clamp and SwiGLU, on Hopper.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.bfloat16, rank=2, ...],
        x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        tiles: InputTensor[dtype=DType.uint8, rank=4, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        order: InputTensor[dtype=DType.int32, rank=1, ...],
        limit: Float32,
        ctx: DeviceContext,
    ) raises:
        """Gathers rows, multiplies and gates.

        Parameters:
            target: Where the op runs.

        Args:
            y: [P, I] bfloat16, rows in expert order.
            x: [T, K] bfloat16, rows in token order.
            tiles: [E, ceil(2I / 64), ceil(K / 64), 2176] uint8, see `Sm90Tiles`.
            bias: [E, 2I] bfloat16, gates and ups interleaved.
            offsets: [E + 1] int32; rows that they leave out are not written.
            order: [P] int32, the routed row at each place in expert order; one outside 0..P-1 takes a row of zeros.
            limit: The clamp.
            ctx: The device.

        Raises:
            If shapes disagree, or a tensor is not aligned to what the kernel loads or stores at a time.
        """
        comptime op = "mxfp4.grouped_matmul_swiglu_packed"
        require_gpu[op, target]()
        var rows = order.shape()[0]
        var k = x.shape()[1]
        _check(op, address(x), k, tiles, bias, offsets, address(y))
        require_equal(op, "y.shape[0] = row_order.shape[0]", y.shape()[0], rows)
        require_equal(op, "2 * y.shape[1] = bias.shape[1]", 2 * y.shape()[1], bias.shape()[1])
        if rows == 0:
            return
        var top_k = tokens_top_k(op, rows, x.shape()[0])
        enqueue_grouped_matmul(
            ctx,
            Output[gated=True](data(y), data(bias), bias.shape()[1], limit),
            Activations(data(x), data(order), rows, k, top_k),
            data(tiles),
            data(offsets),
            tiles.shape()[0],
            overlapping=True,
        )


@extensibility.register("mxfp4.grouped_mlp_packed")
struct GroupedMlpPacked:
    """Both of the above, one after the other: each token's row through its experts, on Hopper."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.bfloat16, rank=2, ...],
        inner: OutputTensor[dtype=DType.bfloat16, rank=2, ...],
        x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        gate_up_tiles: InputTensor[dtype=DType.uint8, rank=4, ...],
        gate_up_bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        down_tiles: InputTensor[dtype=DType.uint8, rank=4, ...],
        down_bias: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        offsets: InputTensor[dtype=DType.int32, rank=1, ...],
        order: InputTensor[dtype=DType.int32, rank=1, ...],
        counts: InputTensor[dtype=DType.int32, rank=1, ...],
        limit: Float32,
        ctx: DeviceContext,
    ) raises:
        """Gathers rows, multiplies, gates and multiplies again.

        Parameters:
            target: Where the op runs.

        Args:
            y: [P, H] bfloat16, rows in expert order.
            inner: [P, I] bfloat16, the intermediate result.
            x: [T, H] bfloat16, rows in token order.
            gate_up_tiles: [E, ceil(2I / 64), ceil(H / 64), 2176] uint8, see `Sm90Tiles`.
            gate_up_bias: [E, 2I] bfloat16, gates and ups interleaved.
            down_tiles: [E, ceil(H / 64), ceil(I / 64), 2176] uint8.
            down_bias: [E, H] bfloat16, H even.
            offsets: [E + 1] int32; rows that they leave out are not written.
            order: [P] int32, the routed row at each place in expert order; one outside 0..P-1 takes a row of zeros.
            counts: [E] int32, zeros, read by no other op: the kernel's counters.
            limit: The clamp.
            ctx: The device.

        Raises:
            If shapes disagree, or a tensor is not aligned to what the kernel loads or stores at a time.
        """
        comptime op = "mxfp4.grouped_mlp_packed"
        require_gpu[op, target]()
        var rows = order.shape()[0]
        var hidden = x.shape()[1]
        var experts = gate_up_tiles.shape()[0]
        _check[of="gate_up_"](
            op, address(x), hidden, gate_up_tiles, gate_up_bias, offsets, address(y)
        )
        _check["inner", "down_"](
            op, address(inner), inner.shape()[1], down_tiles, down_bias, offsets, address(y)
        )
        require_equal(op, "y.shape[0] = row_order.shape[0]", y.shape()[0], rows)
        require_equal(op, "inner.shape[0] = row_order.shape[0]", inner.shape()[0], rows)
        require_equal(op, "y.shape[1] = down_bias.shape[1]", y.shape()[1], down_bias.shape()[1])
        require_equal(op, "down_bias.shape[1] = x.shape[1]", down_bias.shape()[1], hidden)
        require_equal(
            op,
            "2 * inner.shape[1] = gate_up_bias.shape[1]",
            2 * inner.shape()[1],
            gate_up_bias.shape()[1],
        )
        require_equal(op, "counts.shape[0] = experts", counts.shape()[0], experts)
        if rows == 0:
            return
        var top_k = tokens_top_k(op, rows, x.shape()[0])
        enqueue_grouped_mlp(
            ctx,
            Output[gated=False](data(y), data(down_bias), hidden),
            Output[gated=True](data(inner), data(gate_up_bias), gate_up_bias.shape()[1], limit),
            rebind[Counts](data(counts)),
            Activations(data(x), data(order), rows, hidden, top_k),
            data(gate_up_tiles),
            data(down_tiles),
            data(offsets),
            experts,
        )
