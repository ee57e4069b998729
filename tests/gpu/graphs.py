"""The graphs of the GPU tests, all of this package's ops in them, and arrays to and from a device."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.graph import TensorValue
from numpy.typing import NDArray

from gpt_oss_mxfp4 import ops
from tests.modules import Body, Inputs
from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16

LIMIT = 7.0

EXPERTS, TOP_K, HIDDEN, INNER = 8, 4, 128, 192
"""Of the whole stage, whose weights have sizes that the graph knows."""


ROUTER_OUTPUTS, ROUTER_K = 32, 2880
"""Logits of 20b's router, which are float32. MAX's matmul, of many tokens, wants sizes that the graph knows."""

BLOCKS: Inputs = [(DType.uint8, ["e", "n", "g", 16]), (DType.uint8, ["e", "n", "g"])]

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

STAGE: Inputs = [(DType.bfloat16, ["t", HIDDEN]), (DType.float32, ["t", EXPERTS])]
"""Inputs of the whole stage before its weights."""

STAGE_WEIGHTS: Inputs = [
    (DType.uint8, [EXPERTS, 2 * INNER, HIDDEN // 32, 16]),
    (DType.uint8, [EXPERTS, 2 * INNER, HIDDEN // 32]),
    (DType.bfloat16, [EXPERTS, 2 * INNER]),
    (DType.uint8, [EXPERTS, HIDDEN, INNER // 32, 16]),
    (DType.uint8, [EXPERTS, HIDDEN, INNER // 32]),
    (DType.bfloat16, [EXPERTS, HIDDEN]),
]

STAGE_TILES: Inputs = [
    (DType.uint8, [EXPERTS, 2 * INNER // 64, HIDDEN // 64, 2176]),
    (DType.bfloat16, [EXPERTS, 2 * INNER]),
    (DType.uint8, [EXPERTS, HIDDEN // 64, INNER // 64, 2176]),
    (DType.bfloat16, [EXPERTS, HIDDEN]),
]


def _dequantize(blocks: TensorValue, scales: TensorValue) -> tuple[TensorValue, ...]:
    return ops.dequantize(blocks, scales, DType.float32), ops.dequantize(
        blocks, scales, DType.bfloat16
    )


def _route(experts: int) -> Body:
    def body(logits: TensorValue) -> tuple[TensorValue, ...]:
        ids, weights = ops.route(logits, TOP_K)
        return ids, weights, *ops.group(ids, experts), *ops.route_and_group(logits, TOP_K)

    return body


def _swiglu(
    x: TensorValue,
    blocks: TensorValue,
    scales: TensorValue,
    bias: TensorValue,
    offsets: TensorValue,
    order: TensorValue,
) -> TensorValue:
    return ops.grouped_matmul_swiglu(x, blocks, scales, bias, offsets, order, LIMIT)


def _swiglu_packed(
    x: TensorValue, tiles: TensorValue, bias: TensorValue, offsets: TensorValue, order: TensorValue
) -> TensorValue:
    return ops.grouped_matmul_swiglu_packed(x, tiles, bias, offsets, order, LIMIT)


def _stage(x: TensorValue, logits: TensorValue, *weights: TensorValue) -> TensorValue:
    """A layer's experts: route, group, both matmuls, combine; added to what they take."""
    shares, order, places, offsets, _ = ops.route_and_group(logits, TOP_K)
    if len(weights) == len(STAGE_TILES):
        gate_up, gate_up_bias, down, down_bias = weights
        h = _swiglu_packed(x, gate_up, gate_up_bias, offsets, order)
        y = ops.grouped_matmul_packed(h, down, down_bias, offsets, x_follows_offsets=True)
    else:
        blocks, scales, bias = weights[:3]
        h = _swiglu(x, blocks, scales, bias, offsets, order)
        blocks, scales, bias = weights[3:]
        y = ops.grouped_matmul(h, blocks, scales, bias, offsets)
    return ops.combine(y, places, shares, x)


def _stage_in_one_kernel(x: TensorValue, logits: TensorValue, *weights: TensorValue) -> TensorValue:
    """The same, of few tokens both matmuls in one kernel."""
    shares, order, places, offsets, counts = ops.route_and_group(logits, TOP_K)
    gate_up, gate_up_bias, down, down_bias = weights
    y = ops.grouped_mlp_packed(
        x, gate_up, gate_up_bias, down, down_bias, offsets, order, counts, LIMIT
    )
    return ops.combine(y, places, shares, x)


GRAPHS: dict[str, tuple[Inputs, Body]] = {
    "dequantize": (BLOCKS, _dequantize),
    "swizzle": (BLOCKS, ops.swizzle),
    "routing_32": ([(DType.float32, ["t", 32])], _route(32)),
    "routing_128": ([(DType.float32, ["t", 128])], _route(128)),
    "router": (
        [
            (DType.bfloat16, ["t", ROUTER_K]),
            (DType.bfloat16, [ROUTER_OUTPUTS, ROUTER_K]),
            (DType.bfloat16, [ROUTER_OUTPUTS]),
        ],
        functools.partial(ops.dense, dtype=DType.float32, kernel="sm90"),
    ),
    "combine": (
        [
            (DType.bfloat16, ["p", "h"]),
            (DType.int32, ["t", "k"]),
            (DType.float32, ["t", "k"]),
            (DType.bfloat16, ["t", "h"]),
        ],
        ops.combine,
    ),
    "strided": (GROUPED, ops.grouped_matmul),
    "sm90": (GROUPED_PACKED, ops.grouped_matmul_packed),
    "strided_swiglu": ([*GROUPED, ORDER], _swiglu),
    "sm90_swiglu": ([*GROUPED_PACKED, ORDER], _swiglu_packed),
    "strided_stage": ([*STAGE, *STAGE_WEIGHTS], _stage),
    "sm90_stage": ([*STAGE, *STAGE_TILES], _stage),
    "sm90_mlp_stage": ([*STAGE, *STAGE_TILES], _stage_in_one_kernel),
}
"""Inputs of each graph, and what it makes of them."""


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
