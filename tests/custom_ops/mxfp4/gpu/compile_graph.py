"""Compiles every op that has a GPU kernel for a Hopper GPU that is not here.

A program of its own: MAX counts virtual devices for a whole process.
"""

from __future__ import annotations

from max.driver import (
    Accelerator,
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, TensorValue

from gpt_oss_mxfp4 import ops
from tests.gpu.graphs import build, moe_stage

EXPERTS, HIDDEN, INNER = 4, 128, 64


def body(
    x: TensorValue,
    logits: TensorValue,
    w1: TensorValue,
    s1: TensorValue,
    b1: TensorValue,
    w2: TensorValue,
    s2: TensorValue,
    b2: TensorValue,
) -> tuple[TensorValue, ...]:
    """Both paths of a layer's experts, and the weights in floats."""
    up = ops.swizzle(w1, s1), b1
    down = ops.swizzle(w2, s2), b2
    return (
        moe_stage(x, logits, up, down, top_k=2, limit=7.0, packed=True),
        moe_stage(x, logits, (w1, s1, b1), (w2, s2, b2), top_k=2, limit=7.0, packed=False),
        ops.dequantize(w1, s1, DType.float32),
        ops.dequantize(w2, s2, DType.bfloat16),
    )


def main() -> None:
    """Compile, and say so."""
    set_virtual_device_api("cuda")
    set_virtual_device_count(1)
    set_virtual_device_target_arch("sm_90a")
    graph = build(
        "experts",
        DeviceRef.GPU(),
        [
            (DType.bfloat16, ["t", HIDDEN]),
            (DType.float32, ["t", EXPERTS]),
            (DType.uint8, [EXPERTS, 2 * INNER, HIDDEN // 32, 16]),
            (DType.uint8, [EXPERTS, 2 * INNER, HIDDEN // 32]),
            (DType.bfloat16, [EXPERTS, 2 * INNER]),
            (DType.uint8, [EXPERTS, HIDDEN, INNER // 32, 16]),
            (DType.uint8, [EXPERTS, HIDDEN, INNER // 32]),
            (DType.bfloat16, [EXPERTS, HIDDEN]),
        ],
        body,
    )
    session = InferenceSession(devices=[Accelerator()])
    session.init_all(session.compile(graph))  # compiling goes on in the background until then
    print("compiled")


if __name__ == "__main__":
    main()
