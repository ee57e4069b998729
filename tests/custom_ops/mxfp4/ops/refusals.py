"""Prints, as a line of JSON for each case that standard input has one of, what an op says of it at run time.

A case is a list: the op's name, and for each tensor its shape and how many bytes it lies behind an aligned address. A
program of its own, as the GPU is a driver's that runs no kernels.
"""

from __future__ import annotations

import json
import math
import sys

from max.driver import Accelerator, Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from gpt_oss_mxfp4 import ops

PACKED = [DType.bfloat16, DType.uint8, DType.bfloat16, DType.uint8, DType.bfloat16]
TYPES = {
    "mlp": [*PACKED, DType.int32, DType.int32, DType.int32],
    "dense": 3 * [DType.bfloat16],
}
RANKS = {"mlp": [2, 4, 2, 4, 2, 1, 1, 1], "dense": [2, 2, 1]}


def apply(op: str, inputs: list[TensorValue]) -> TensorValue:
    """Adds an op to the graph."""
    if op == "mlp":
        *weights, offsets, order, counts = inputs
        x, gate_up, gate_up_bias, down, down_bias = weights
        return ops.grouped_mlp_packed(
            x, gate_up, gate_up_bias, down, down_bias, offsets, order, counts, limit=7
        )
    x, w, bias = inputs
    return ops.dense(x, w, bias, kernel="sm90")


def build(op: str) -> Graph:
    """Makes a graph that knows no size."""
    types = [
        TensorType(dtype, [f"{op}_{place}_{axis}" for axis in range(rank)], DeviceRef.GPU())
        for place, (dtype, rank) in enumerate(zip(TYPES[op], RANKS[op], strict=True))
    ]
    with Graph(op, input_types=types, custom_extensions=[ops.custom_ops()]) as graph:
        graph.output(apply(op, [value.tensor for value in graph.inputs]))
    return graph


def place(device: Device, dtype: DType, shape: list[int], behind: int) -> Buffer:
    """Gives a tensor that lies so many bytes behind an aligned address."""
    size = math.prod(shape) * dtype.size_in_bytes
    whole = Buffer(shape=[size + 64], dtype=DType.uint8, device=device)
    return whole[behind : behind + size].view(dtype, shape)


def main() -> None:
    """Compile what is asked for, and try."""
    device = Accelerator()
    session = InferenceSession(devices=[device])
    cases = json.load(sys.stdin)
    models = {op: session.load(build(op)) for op in dict.fromkeys(case[0] for case in cases)}
    for op, *tensors in cases:
        inputs = [
            place(device, dtype, *tensor) for dtype, tensor in zip(TYPES[op], tensors, strict=True)
        ]
        try:
            models[op].execute(*inputs)
            said = ""
        except ValueError as error:
            said = str(error)
        print(json.dumps(said))


if __name__ == "__main__":
    main()
