"""Registers `dense.matmul`, `dense.matmul_bias`, `dense.matmul_gpu` and `dense.matmul_bias_gpu`."""

from std.sys import size_of

import extensibility
from extensibility import InputTensor, OutputTensor
from layout import Coord, TileTensor
from linalg.matmul import matmul
from max.gpu.host import DeviceContext

from ..cpu.epilogue import BiasEpilogue, Epilogue
from ..cpu.grouped_matmul import dense_matmul
from ..cpu.words import word_of
from ..cpu.bf16_rows import Bf16Rows
from ..pointers import ConstPointer
from ..sm90.dense import MAX_TOKENS, STEP, enqueue_dense
from .tensors import address, data, require_aligned, require_cpu, require_equal, require_gpu


def _dense[
    Finish: Epilogue, //, activations: DType
](
    op: StaticString,
    y: OutputTensor[dtype=DType.float32, rank=2, ...],
    x: InputTensor[dtype=DType.float32, rank=2, ...],
    w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    finish: Finish,
) raises:
    """Checks the tensors that both ops have, and multiplies."""
    var k = x.shape()[1]
    require_equal(op, "w.shape[1] = x.shape[1]", w.shape()[1], k)
    require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], x.shape()[0])
    require_equal(op, "y.shape[1] = w.shape[0]", y.shape()[1], w.shape()[0])
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
        comptime op = "dense.matmul"
        require_cpu[op, target]()
        # Without a bias its pointer is never read; any valid one will do.
        _dense[activations](op, y, x, w, BiasEpilogue[False](data(y), data(w), w.shape()[0]))


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
        comptime op = "dense.matmul_bias"
        require_cpu[op, target]()
        var n = w.shape()[0]
        require_equal(op, "bias.shape[0] = w.shape[0]", bias.shape()[0], n)
        _dense[activations](op, y, x, w, BiasEpilogue[True](data(y), data(bias), n))


struct _Store[dtype: DType, has_bias: Bool](TrivialRegisterPassable):
    """Adds the bias to products and stores them, eight at a time where rows are aligned."""

    var y: MutPointer[Scalar[Self.dtype], MutUntrackedOrigin]
    var bias: ConstPointer[DType.bfloat16]
    var rows: Int
    var outputs: Int
    var is_aligned: Bool

    def __init__(
        out self,
        y: MutPointer[Scalar[Self.dtype], MutUntrackedOrigin],
        bias: ConstPointer[DType.bfloat16],
        rows: Int,
        outputs: Int,
    ):
        self.y = y
        self.bias = bias
        self.rows = rows
        self.outputs = outputs
        self.is_aligned = outputs % 8 == 0 and Int(y) % 16 == 0 and Int(bias) % 16 == 0

    @inline(.always)
    def _store[
        width: SIMDLength, //, together: Int
    ](self, row: Int, output: Int, product: SIMD[DType.float32, width]):
        var sums = product
        comptime if Self.has_bias:
            sums += self.bias.unsafe_load[width=width, alignment=2 * together](output).cast[
                DType.float32
            ]()
        self.y.unsafe_store[alignment=min(16, size_of[Self.dtype]() * together)](
            row * self.outputs + output, sums.cast[Self.dtype]()
        )

    @inline(.always)
    def __call__[
        width: SIMDLength, //
    ](self, row: Int, output: Int, product: SIMD[DType.float32, width]):
        """Stores products of a row, but for those past its end or the last row."""
        comptime together = Int(width) if Int(width) <= 8 else 1
        if row >= self.rows:
            return
        if output + Int(width) > self.outputs:
            comptime for i in range(Int(width)):
                if output + i < self.outputs:
                    self._store[1](row, output + i, product[i])
        elif self.is_aligned and output % together == 0:
            self._store[together](row, output, product)
        else:
            self._store[1](row, output, product)


def _dense_gpu[
    dtype: DType, //, *, has_bias: Bool, op: StaticString, target: StaticString, few: Bool
](
    y: OutputTensor[dtype=dtype, rank=2, ...],
    x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
    bias: ConstPointer[DType.bfloat16],
    ctx: DeviceContext,
) raises:
    """Checks the inputs that both ops have, and multiplies."""
    require_gpu[op, target]()
    var tokens = x.shape()[0]
    var k = x.shape()[1]
    var outputs = w.shape()[0]
    require_equal(op, "w.shape[1] = x.shape[1]", w.shape()[1], k)
    require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], tokens)
    require_equal(op, "y.shape[1] = w.shape[0]", y.shape()[1], outputs)
    require_aligned(op, "x", address(x), 16)
    require_aligned(op, "w", address(w), 16)
    if tokens == 0 or outputs == 0:
        return
    comptime if has_bias and few:
        require_equal(op, "x.shape[1] modulo 32", k % STEP, 0)
        if tokens <= MAX_TOKENS:
            enqueue_dense(ctx, data(y), data(x), data(w), bias, tokens, outputs, k)
            return
    var finish = _Store[dtype, has_bias](data(y), bias, tokens, outputs)

    @__parameter
    @inline(.always)
    @__copy_capture(finish)
    def store[
        product_dtype: DType, width: SIMDLength, *, alignment: Int = 1
    ](at: Coord, product: SIMD[product_dtype, width]):
        finish(Int(at[0]), Int(at[1]), product.cast[DType.float32]())

    # Without an epilogue MAX's kernel for Hopper stores whole tiles, past the last token, and gives an epilogue products
    # past a row's end where rows are not multiples of 16 bytes (NOTES F90). What it is given as output it does not touch,
    # so that any memory will do: it does not compile for some float32 outputs.
    var shape = y.to_tile_tensor[.int64]()
    matmul[transpose_b=True, elementwise_lambda_fn=store, target=target](
        TileTensor(shape.ptr.unsafe_bitcast[BFloat16](), shape.layout),
        x.to_tile_tensor[.int64](),
        w.to_tile_tensor[.int64](),
        ctx,
    )


@extensibility.register("dense.matmul_gpu")
struct DenseMatmulGpu:
    """A matmul with BF16 weights on a GPU, by MAX's own kernel."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        x: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ w.T`.

        Parameters:
            target: Where the op runs.
            dtype: Type of the output: bfloat16 or float32.

        Args:
            y: [T, N].
            x: [T, K].
            w: [N, K].
            ctx: The device.

        Raises:
            If shapes disagree, or x or w is not aligned to 16 bytes.
        """
        # Without a bias its pointer is never read; any valid one will do.
        _dense_gpu[has_bias=False, op="dense.matmul_gpu", target=target, few=False](
            y, x, w, data(w), ctx
        )


@extensibility.register("dense.matmul_bias_gpu")
struct DenseMatmulBiasGpu:
    """A matmul with BF16 weights and bias on a GPU, by MAX's kernel or of few tokens by ours."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, few: Bool
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
            few: Whether up to 32 tokens go to our kernel, for which K is a multiple of 32.

        Args:
            y: [T, N].
            x: [T, K].
            w: [N, K].
            bias: [N].
            ctx: The device.

        Raises:
            If shapes disagree, K is not a multiple of 32 for our kernel, or x or w is not aligned to 16 bytes.
        """
        comptime op = "dense.matmul_bias_gpu"
        require_equal(op, "bias.shape[0] = w.shape[0]", bias.shape()[0], w.shape()[0])
        _dense_gpu[has_bias=True, op=op, target=target, few=few](y, x, w, data(bias), ctx)
