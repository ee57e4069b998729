"""Registers `dense.matmul` and `dense.matmul_bias`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..cpu.epilogue import BiasEpilogue, Epilogue
from ..cpu.grouped_matmul import dense_matmul
from ..cpu.words import word_of
from ..cpu.bf16_rows import Bf16Rows
from .tensors import data, require_cpu, require_equal


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
