"""Registers `dense.matmul`, `dense.matmul_bias` and `dense.matmul_bias_sm90`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from layout import Coord, TileTensor
from linalg.matmul import matmul
from max.gpu.host import DeviceContext

from ..cpu.epilogue import BiasEpilogue, Epilogue
from ..cpu.grouped_matmul import dense_matmul
from ..cpu.words import word_of
from ..cpu.bf16_rows import Bf16Rows
from ..sm90.dense import MAX_TOKENS, STEP, enqueue_dense
from .tensors import data, require_aligned, require_cpu, require_equal, require_gpu


def _dense[
    Finish: Epilogue, //, activations: DType
](
    x: InputTensor[dtype=DType.float32, rank=2, ...],
    w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    finish: Finish,
) raises:
    """Checks the inputs that both ops have, and multiplies."""
    require_equal("dense.matmul", "w.shape[1] = x.shape[1]", w.shape()[1], x.shape()[1])
    var k = x.shape()[1]
    dense_matmul[round_to_bf16=activations == DType.bfloat16](
        data(x),
        x.shape()[0],
        Bf16Rows[word_of(activations)](data(w), k),
        w.shape()[0],
        k,
        finish,
    )


@extensibility.register("dense.matmul")
struct DenseMatmul:
    """A matmul with BF16 weights that stay BF16 in memory."""

    @staticmethod
    def execute[
        target: StaticString, activations: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ w.T`.

        Parameters:
            target: Where the op runs.
            activations: Type to which x is rounded first: bfloat16 or float32.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            w: [N, K] bfloat16.
            ctx: The device.

        Raises:
            If shapes disagree.
        """
        require_cpu["dense.matmul", target]()
        # Without a bias its pointer is never read; any valid one will do.
        _dense[activations](x, w, BiasEpilogue[False](data(y), data(w), w.shape()[0]))


@extensibility.register("dense.matmul_bias")
struct DenseMatmulBias:
    """A matmul with BF16 weights and bias that stay BF16 in memory."""

    @staticmethod
    def execute[
        target: StaticString, activations: DType
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
            activations: Type to which x is rounded first: bfloat16 or float32.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            w: [N, K] bfloat16.
            bias: [N] bfloat16.
            ctx: The device.

        Raises:
            If shapes disagree.
        """
        require_cpu["dense.matmul_bias", target]()
        require_equal(
            "dense.matmul_bias",
            "bias.shape[0] = w.shape[0]",
            bias.shape()[0],
            w.shape()[0],
        )
        _dense[activations](x, w, BiasEpilogue[True](data(y), data(bias), w.shape()[0]))


@extensibility.register("dense.matmul_bias_sm90")
struct DenseMatmulBiasSm90:
    """A matmul on a Hopper GPU: our kernel for few tokens, MAX's own for the rest."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ w.T + bias`.

        Parameters:
            target: Where the op runs.
            dtype: Type of the output: bfloat16 or float32.

        Args:
            y: [T, N].
            x: [T, K].
            w: [N, K].
            bias: [N].
            ctx: The device.

        Raises:
            If shapes disagree, K is not a multiple of 32, or x or w is not aligned to 16 bytes.
        """
        comptime op = "dense.matmul_bias_sm90"
        require_gpu[op, target]()
        var tokens = x.shape()[0]
        var k = x.shape()[1]
        var outputs = w.shape()[0]
        require_equal(op, "w.shape[1] = x.shape[1]", w.shape()[1], k)
        require_equal(op, "bias.shape[0] = w.shape[0]", bias.shape()[0], outputs)
        require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], tokens)
        require_equal(op, "y.shape[1] = w.shape[0]", y.shape()[1], outputs)
        require_equal(op, "x.shape[1] modulo 32", k % STEP, 0)
        require_aligned(op, "x", Int(data(x)), 16)
        require_aligned(op, "w", Int(data(w)), 16)
        if tokens == 0 or outputs == 0:
            return
        if tokens <= MAX_TOKENS:
            enqueue_dense(ctx, data(y), data(x), data(w), data(bias), tokens, outputs, k)
            return
        var to = data(y)
        var of_output = data(bias)

        @__parameter
        @inline(.always)
        @__copy_capture(to, of_output, outputs)
        def add_bias[
            product_dtype: DType, width: SIMDLength, *, alignment: Int = 1
        ](at: Coord, product: SIMD[product_dtype, width]):
            var output = Int(at[1])
            var added = of_output.unsafe_load[width=width, alignment=max(2, alignment)](output)
            to.unsafe_store[alignment=max(2, alignment)](
                Int(at[0]) * outputs + output,
                (product.cast[DType.float32]() + added.cast[DType.float32]()).cast[dtype](),
            )

        # MAX's kernel does not compile for some float32 outputs. It stores nothing itself, so that any memory will do.
        var shape = y.to_tile_tensor[.int64]()
        matmul[transpose_b=True, elementwise_lambda_fn=add_bias, target=target](
            TileTensor(shape.ptr.unsafe_bitcast[BFloat16](), shape.layout),
            x.to_tile_tensor[.int64](),
            w.to_tile_tensor[.int64](),
            ctx,
        )
