"""Prints, as a line of JSON for each case that standard input has one of, what an op says of it at run time.

A case is a list: the op's name, and for each tensor its shape and how many bytes it lies behind an aligned address. A
program of its own, as the GPU is a driver's that runs no kernels.
"""

from __future__ import annotations

import functools
import json
import math
import sys

from max.driver import Accelerator, Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, TensorValue

from gpt_oss_mxfp4 import ops
from tests.modules import Body, Inputs, load_together


def _mlp(*inputs: TensorValue) -> TensorValue:
    x, gate_up, gate_up_bias, down, down_bias, offsets, order, counts = inputs
    return ops.grouped_mlp_packed(
        x, gate_up, gate_up_bias, down, down_bias, offsets, order, counts, limit=7
    )


PACKED = [(DType.bfloat16, 2), (DType.uint8, 4), (DType.bfloat16, 2), (DType.uint8, 4)]
OPS: dict[str, tuple[list[tuple[DType, int]], Body]] = {
    "mlp": ([*PACKED, (DType.bfloat16, 2), *3 * [(DType.int32, 1)]], _mlp),
    "dense": (
        [(DType.bfloat16, 2), (DType.bfloat16, 2), (DType.bfloat16, 1)],
        functools.partial(ops.dense, kernel="sm90"),
    ),
    "strided": (
        [
            (DType.bfloat16, 2),
            (DType.uint8, 4),
            (DType.uint8, 3),
            (DType.bfloat16, 2),
            (DType.int32, 1),
        ],
        ops.grouped_matmul,
    ),
}
"""Dtype and rank of what each takes, and the op."""


def sizes_unknown(op: str) -> Inputs:
    """Gives an op's inputs in a graph that knows no size."""
    inputs, _ = OPS[op]
    return [
        (dtype, [f"{op}_{place}_{axis}" for axis in range(rank)])
        for place, (dtype, rank) in enumerate(inputs)
    ]


def place(device: Device, dtype: DType, shape: list[int], behind: int) -> Buffer:
    """Gives a tensor that lies so many bytes behind an aligned address."""
    size = math.prod(shape) * dtype.size_in_bytes
    whole = Buffer(shape=[size + 64], dtype=DType.uint8, device=device)
    return whole[behind : behind + size].view(dtype, shape)


def main() -> None:
    """Compile what is asked for, and try."""
    device = Accelerator()
    cases = json.load(sys.stdin)
    graphs = {op: (sizes_unknown(op), OPS[op][1]) for op, *_ in cases}
    models = load_together(
        InferenceSession(devices=[device]), graphs, DeviceRef.from_device(device)
    )
    for op, *tensors in cases:
        inputs = [
            place(device, dtype, *tensor)
            for (dtype, _), tensor in zip(OPS[op][0], tensors, strict=True)
        ]
        try:
            models[op].execute(*inputs)
            said = ""
        except ValueError as error:
            said = str(error)
        print(json.dumps(said))


if __name__ == "__main__":
    main()
