"""MXFP4 of arrays outside a graph: what an exporter of trained weights needs."""

from __future__ import annotations

import atexit
import functools
import gc
import math

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType
from numpy.typing import NDArray

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE


def quantize_array(x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Rounds an array to MXFP4 by :func:`gpt_oss_mxfp4.ops.quantize`, on the CPU.

    The first call of a process compiles the op's graph; all shapes share it.

    Args:
        x: [..., K] float32, at least one axis, K a multiple of 32; one that is not contiguous is copied first.
            bfloat16, which NumPy lacks, widens to float32 exactly and gives the same result.

    Returns:
        blocks [..., K/32, 16] uint8 and scales [..., K/32] uint8, as checkpoints hold them.

    Raises:
        ValueError: wrong rank or dtype, or a K that is no multiple of 32.

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 and 6.3.

    Example:
        Hugging Face's experts in floats are [E, K, N]: ``quantize_array(weight.swapaxes(1, 2))``.
    """
    op = "mxfp4.quantize"
    if x.dtype != np.float32:
        raise ValueError(f"{op}: x must be float32, got {x.dtype}")
    if x.ndim < 1:
        raise ValueError(f"{op}: x must have rank 1 or more, got shape {x.shape}")
    *outer, k = x.shape
    if k % GROUP_SIZE != 0:
        raise ValueError(f"{op}: x.shape[-1] must be a multiple of {GROUP_SIZE}, got {k}")
    rows = np.ascontiguousarray(x).reshape(math.prod(outer), k)
    blocks, scales = _quantize_rows().execute(Buffer.from_numpy(rows))
    k_groups = k // GROUP_SIZE
    return (
        blocks.to_numpy().reshape(*outer, k_groups, BYTES_PER_GROUP),
        scales.to_numpy().reshape(*outer, k_groups),
    )


@functools.cache
def _quantize_rows() -> Model:
    """Compiles the one graph: [rows, k] float32, both sizes free."""
    rows = TensorType(DType.float32, ["rows", "k"], DeviceRef.CPU())
    with Graph("quantize_rows", input_types=[rows], custom_extensions=[ops.custom_ops()]) as graph:
        graph.output(*ops.quantize(graph.inputs[0].tensor))
    return InferenceSession(devices=[CPU()]).load(graph)


@atexit.register
def _free() -> None:
    """MAX's objects that are left to the interpreter's end may abort it (NOTES F78)."""
    _quantize_rows.cache_clear()
    gc.collect()
