"""Registers `dense.quantize`, `dense.matmul_quantized` and `dense.matmul_quantized_bias`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..cpu.byte_rows import ByteRows, scale_dtype
from ..cpu.epilogue import BiasEpilogue, Epilogue
from ..cpu.float_mode import enable_subnormals, write_float_mode
from ..cpu.grouped_matmul import dense_matmul
from ..cpu.quantize_bytes import quantize_bytes
from ..cpu.words import word_of
from ..format import GROUP_SIZE
from .tensors import data, require_cpu, require_equal

comptime _GROUPS_PER_TASK = 4096
"""Groups that are worth a thread of their own."""


def _element(dtype: DType) -> DType:
    """The element type of stored bytes: int8 as it is; E4M3 is stored as uint8."""
    return DType.int8 if dtype == DType.int8 else DType.float8_e4m3fn


@extensibility.register("dense.quantize")
struct DenseQuantize:
    """BF16 weights rounded to 8 bits with a scale per group of 32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, scale: DType
    ](
        values: OutputTensor[dtype=dtype, rank=2, ...],
        scales: OutputTensor[dtype=scale, rank=2, ...],
        w: InputTensor[dtype=DType.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Rounds every group.

        Parameters:
            target: Where the op runs.
            dtype: Type of values: int8, or uint8 for E4M3.
            scale: Type of scales: bfloat16 for int8, uint8 for E4M3.

        Args:
            values: [N, K].
            scales: [N, K/32].
            w: [N, K] bfloat16.
            ctx: The device.

        Raises:
            If K is not a multiple of 32, or shapes disagree.
        """
        comptime op = "dense.quantize"
        comptime element = _element(dtype)
        comptime assert scale == scale_dtype(element), "int8 has bfloat16 scales, E4M3 uint8"
        require_cpu[op, target]()
        var k = w.shape()[1]
        if k % GROUP_SIZE != 0:
            raise Error(op, ": w.shape[1] must be a multiple of ", GROUP_SIZE, ", got ", k)
        require_equal(op, "values.shape[0] = w.shape[0]", values.shape()[0], w.shape()[0])
        require_equal(op, "values.shape[1] = w.shape[1]", values.shape()[1], k)
        require_equal(op, "scales.shape[0] = w.shape[0]", scales.shape()[0], w.shape()[0])
        require_equal(op, "scales.shape[1] = w.shape[1] / 32", scales.shape()[1], k // GROUP_SIZE)
        var groups = w.shape()[0] * (k // GROUP_SIZE)
        var w_data = data(w)
        var values_data = data(values).unsafe_bitcast[UInt8]()
        var scales_data = data(scales).unsafe_bitcast[Scalar[scale_dtype(element)]]()
        var threads = max(1, min(parallelism_level(), groups // _GROUPS_PER_TASK))

        def narrow(thread: Int) {imm}:
            var mode = enable_subnormals()
            quantize_bytes[DType.bfloat16, element](
                w_data,
                groups * thread // threads,
                groups * (thread + 1) // threads,
                values_data,
                scales_data,
            )
            write_float_mode(mode)

        sync_parallelize(narrow, threads)


def _multiply[
    Finish: Epilogue, //, activations: DType, dtype: DType, scale: DType
](
    op: StaticString,
    y: OutputTensor[dtype=DType.float32, rank=2, ...],
    x: InputTensor[dtype=DType.float32, rank=2, ...],
    values: InputTensor[dtype=dtype, rank=2, ...],
    scales: InputTensor[dtype=scale, rank=2, ...],
    finish: Finish,
) raises:
    """Checks the tensors that both ops have, and multiplies."""
    comptime element = _element(dtype)
    comptime assert scale == scale_dtype(element), "int8 has bfloat16 scales, E4M3 uint8"
    var k = x.shape()[1]
    require_equal(op, "values.shape[1] = x.shape[1]", values.shape()[1], k)
    require_equal(op, "scales.shape[0] = values.shape[0]", scales.shape()[0], values.shape()[0])
    require_equal(op, "32 * scales.shape[1] = x.shape[1]", GROUP_SIZE * scales.shape()[1], k)
    require_equal(op, "y.shape[0] = x.shape[0]", y.shape()[0], x.shape()[0])
    require_equal(op, "y.shape[1] = values.shape[0]", y.shape()[1], values.shape()[0])
    dense_matmul[round_to_bf16=activations == DType.bfloat16](
        data(x),
        x.shape()[0],
        ByteRows[element, word_of(activations)](
            data(values).unsafe_bitcast[UInt8](),
            data(scales).unsafe_bitcast[Scalar[scale_dtype(element)]](),
            k // GROUP_SIZE,
        ),
        values.shape()[0],
        k,
        finish,
    )


@extensibility.register("dense.matmul_quantized")
struct DenseMatmulQuantized:
    """A matmul with 8-bit weights that stay 8-bit in memory."""

    @staticmethod
    def execute[
        target: StaticString, activations: DType, dtype: DType, scale: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        values: InputTensor[dtype=dtype, rank=2, ...],
        scales: InputTensor[dtype=scale, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ (values * scales).T`.

        Parameters:
            target: Where the op runs.
            activations: Type to which x is rounded first: bfloat16, float32 or, in groups of 32, int8.
            dtype: Type of values: int8, or uint8 for E4M3.
            scale: Type of scales: bfloat16 for int8, uint8 for E4M3.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            values: [N, K].
            scales: [N, K/32].
            ctx: The device.

        Raises:
            If shapes disagree.
        """
        comptime op = "dense.matmul_quantized"
        require_cpu[op, target]()
        var n = values.shape()[0]
        # Without a bias its pointer is never read; any valid one will do.
        var no_bias = data(values).unsafe_bitcast[BFloat16]()
        _multiply[activations](op, y, x, values, scales, BiasEpilogue[False](data(y), no_bias, n))


@extensibility.register("dense.matmul_quantized_bias")
struct DenseMatmulQuantizedBias:
    """A matmul with 8-bit weights that stay 8-bit in memory, and a BF16 bias."""

    @staticmethod
    def execute[
        target: StaticString, activations: DType, dtype: DType, scale: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        values: InputTensor[dtype=dtype, rank=2, ...],
        scales: InputTensor[dtype=scale, rank=2, ...],
        bias: InputTensor[dtype=DType.bfloat16, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `y = x @ (values * scales).T + bias`.

        Parameters:
            target: Where the op runs.
            activations: Type to which x is rounded first: bfloat16, float32 or, in groups of 32, int8.
            dtype: Type of values: int8, or uint8 for E4M3.
            scale: Type of scales: bfloat16 for int8, uint8 for E4M3.

        Args:
            y: [T, N] float32.
            x: [T, K] float32.
            values: [N, K].
            scales: [N, K/32].
            bias: [N] bfloat16.
            ctx: The device.

        Raises:
            If shapes disagree.
        """
        comptime op = "dense.matmul_quantized_bias"
        require_cpu[op, target]()
        var n = values.shape()[0]
        require_equal(op, "bias.shape[0] = values.shape[0]", bias.shape()[0], n)
        _multiply[activations](op, y, x, values, scales, BiasEpilogue[True](data(y), data(bias), n))
