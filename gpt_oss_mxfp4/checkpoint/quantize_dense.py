"""Dense weights rounded to 8 bits while they are loaded, a matrix at a time."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Mapping

import numpy as np
from max.driver import Buffer, DLPackArray
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType
from max.graph.weights import WeightData

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.checkpoint.kinds import is_rounded
from gpt_oss_mxfp4.kept_graphs import load_kept_graph
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE
from gpt_oss_mxfp4.ops.dense import QuantizedFormat
from gpt_oss_mxfp4.ops.library import digest_sources


def quantize_dense(
    weights: Mapping[str, WeightData], form: QuantizedFormat, session: InferenceSession
) -> dict[str, WeightData | DLPackArray]:
    """Replaces the weights of attention and of the logits by values and scales of 8 bits.

    The BF16 pages of a mapped file are given back as soon as they are read, so that memory does not hold both.

    Args:
        weights: every tensor of a checkpoint, from :func:`adapt`.
        form: "int8" or "mxfp8".
        session: MAX's, for the CPU; what it compiles, or finds compiled, is the rounding.

    Returns:
        The weights, ``X.weight`` replaced by ``X.weight_values`` and ``X.weight_scales``.

    Raises:
        ValueError: a matrix whose inputs are no multiple of 32.
    """
    model = _compile(form, session)
    quantized: dict[str, WeightData | DLPackArray] = dict(weights)
    for name in filter(is_rounded, weights):
        del quantized[name]
        values, scales = _round(model, name, weights[name], form)
        quantized[f"{name}_values"] = values
        quantized[f"{name}_scales"] = scales
    return quantized


def _round(
    model: Model, name: str, weight: WeightData, form: QuantizedFormat
) -> tuple[DLPackArray, DLPackArray]:
    k = int(weight.shape[1])
    if k % GROUP_SIZE:
        raise ValueError(
            f"gpt_oss_mxfp4: {name} must have a multiple of {GROUP_SIZE} inputs for --dense-weights {form}, got {k}; "
            "run with --dense-weights bfloat16"
        )
    buffer = weight.to_buffer()
    values, scales = model.execute(buffer)
    _release_pages(buffer)
    return values, scales


def _compile(form: QuantizedFormat, session: InferenceSession) -> Model:
    """Compiles the rounding of one matrix, of any sizes."""

    def build() -> Graph:
        types = [TensorType(DType.bfloat16, ["rows", "k"], DeviceRef.CPU())]
        extensions = [ops.custom_ops()]
        with Graph("quantize_dense", input_types=types, custom_extensions=extensions) as graph:
            graph.output(*ops.quantize_dense(graph.inputs[0].tensor, form))
        return graph

    return load_kept_graph(session, ("quantize_dense", form, digest_sources()), build)


def _release_pages(buffer: Buffer) -> None:
    """Lets the kernel drop the whole pages of a file that a tensor maps; what reads them again gets them again."""
    if sys.platform != "linux":  # elsewhere the same advice means something else
        return
    view = np.from_dlpack(
        buffer.view(DType.uint8, [buffer.num_elements * buffer.dtype.size_in_bytes])
    )
    first = -(-view.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (view.ctypes.data + view.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)
