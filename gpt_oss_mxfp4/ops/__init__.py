"""Typed bindings of the Mojo ops: the only part of the package that names one.

Each function checks what the graph knows (ranks, dtypes, static sizes), states the equation, and adds one
custom op to the graph under construction. Graphs that use them pass ``custom_extensions=[custom_ops()]``.

Where each runs:

- grouped_matmul, grouped_matmul_swiglu: CPU; any GPU, slowly, as the reference
- grouped_matmul_packed, grouped_matmul_swiglu_packed, grouped_mlp_packed: Hopper, on what swizzle packs
- dequantize, swizzle, route, group, route_and_group, combine: CPU and any GPU
- dense: CPU; on Hopper MAX's matmul, or of few tokens ours
- attention, quantize, quantize_dense, quantized_dense: CPU
- attention_sm90: Hopper; prompts by MAX's attention

Sizes: T tokens, k experts per token, P = T * k routed rows, E experts, K reduced axis, N outputs of a weight
matrix, I intermediate size, H hidden size. Routed rows are sorted by expert; rows of one expert are contiguous.
Activations are float32 on a CPU and bfloat16 on a GPU.
"""

from gpt_oss_mxfp4.ops.attention import attention, attention_sm90
from gpt_oss_mxfp4.ops.dense import dense, quantize_dense, quantized_dense
from gpt_oss_mxfp4.ops.grouped_matmul import (
    grouped_matmul,
    grouped_matmul_packed,
    grouped_matmul_swiglu,
    grouped_matmul_swiglu_packed,
    grouped_mlp_packed,
)
from gpt_oss_mxfp4.ops.library import custom_ops
from gpt_oss_mxfp4.ops.moe import combine, group, route, route_and_group
from gpt_oss_mxfp4.ops.mxfp4 import dequantize, quantize, swizzle

__all__ = [
    "attention",
    "attention_sm90",
    "combine",
    "custom_ops",
    "dense",
    "dequantize",
    "group",
    "grouped_matmul",
    "grouped_matmul_packed",
    "grouped_matmul_swiglu",
    "grouped_matmul_swiglu_packed",
    "grouped_mlp_packed",
    "quantize",
    "quantize_dense",
    "quantized_dense",
    "route",
    "route_and_group",
    "swizzle",
]
