"""Graphs of this package's ops for a device, and arrays to and from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType, TensorValue
from numpy.typing import NDArray

from gpt_oss_mxfp4 import ops
from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16

Inputs = Sequence[tuple[DType, Sequence[str | int]]]


def build(
    name: str,
    device: DeviceRef,
    inputs: Inputs,
    body: Callable[..., TensorValue | tuple[TensorValue, ...]],
) -> Graph:
    """Makes a graph whose inputs and outputs all lie on one device."""
    types = [TensorType(dtype, shape, device) for dtype, shape in inputs]
    with Graph(name, input_types=types, custom_extensions=[ops.CUSTOM_OPS]) as graph:
        result = body(*(value.tensor for value in graph.inputs))
        graph.output(*(result if isinstance(result, tuple) else (result,)))
    return graph


def load(
    name: str,
    device: Device,
    inputs: Inputs,
    body: Callable[..., TensorValue | tuple[TensorValue, ...]],
) -> Model:
    """Compiles a graph for a device that is there."""
    return InferenceSession(devices=[device]).load(
        build(name, DeviceRef.from_device(device), inputs, body)
    )


def send(device: Device, array: NDArray[Any], dtype: DType | None = None) -> Buffer:
    """Copies an array to a device; as bfloat16, its nearest values."""
    if dtype == DType.bfloat16:
        return Buffer.from_numpy(encode_bfloat16(array)).view(DType.bfloat16).to(device)
    return Buffer.from_numpy(np.ascontiguousarray(array)).to(device)


def fetch(buffer: Buffer) -> NDArray[Any]:
    """Copies a result back; bfloat16 widens to float32."""
    here = buffer.to(CPU())
    if here.dtype == DType.bfloat16:
        return decode_bfloat16(here.view(DType.uint16).to_numpy())
    return np.array(here.to_numpy())


def poison(device: Device, *shape: int) -> None:
    """Leaves NaN where the next output of a shape is likely to be put: what a kernel does not write is seen then."""
    nan = np.full(shape, 0x7FC0, np.uint16)
    buffers = [Buffer.from_numpy(nan).to(device) for _ in range(4)]
    device.synchronize()
    del buffers


GROUPED: Inputs = [
    (DType.bfloat16, ["rows", "k"]),
    (DType.uint8, ["experts", "n", "groups", 16]),
    (DType.uint8, ["experts", "n", "groups"]),
    (DType.bfloat16, ["experts", "n"]),
    (DType.int32, ["offsets"]),
]
"""Inputs of the grouped matmul on the checkpoint's layout."""

GROUPED_PACKED: Inputs = [
    (DType.bfloat16, ["rows", "k"]),
    (DType.uint8, ["experts", "row_tiles", "k_tiles", 2176]),
    (DType.bfloat16, ["experts", "n"]),
    (DType.int32, ["offsets"]),
]
"""Inputs of the grouped matmul on packed weights."""

ORDER = (DType.int32, ["routed"])
"""The row order, which both grouped matmuls with SwiGLU take last."""


def moe_stage(
    x: TensorValue,
    logits: TensorValue,
    gate_up: Sequence[Any],
    down: Sequence[Any],
    *,
    top_k: int,
    limit: float,
    packed: bool,
) -> TensorValue:
    """Adds a layer's experts: route, group, both matmuls, combine.

    Args:
        x: [T, H].
        logits: [T, E] float32.
        gate_up: blocks, scales and bias, or tiles and bias.
        down: the same.
        top_k: experts of a token.
        limit: clamp of SwiGLU.
        packed: whether weights are tiles.
    """
    experts = int(gate_up[0].shape[0])
    ids, weights = ops.route(logits, top_k)
    order, places, offsets = ops.group(ids, experts)
    if packed:
        tiles, bias = gate_up
        h = ops.grouped_matmul_swiglu_packed(x, tiles, bias, offsets, order, limit)
        tiles, bias = down
        y = ops.grouped_matmul_packed(h, tiles, bias, offsets, x_follows_offsets=True)
    else:
        blocks, scales, bias = gate_up
        h = ops.grouped_matmul_swiglu(x, blocks, scales, bias, offsets, order, limit)
        blocks, scales, bias = down
        y = ops.grouped_matmul(h, blocks, scales, bias, offsets)
    return ops.combine(y, places, weights)
