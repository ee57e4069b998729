"""The mixture of experts: routes tokens, multiplies by MXFP4 experts, sums them back."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight
from max.nn.layer import Module

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.layers.dense import Dense
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE
from gpt_oss_mxfp4.options import Activations


class Experts(Module):
    """All experts of a layer, in the checkpoint's packed layout: gate and up rows interleaved.

    Args:
        config: the model's sizes.
        device: where the weights lie.
        activations: precision the experts' inputs are rounded to.
    """

    def __init__(self, config: GptOssConfig, device: DeviceRef, activations: Activations) -> None:
        super().__init__()
        self.limit = config.swiglu_limit
        self.activations = activations
        experts, hidden, inner = (
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
        )

        def weight(name: str, dtype: DType, *shape: int) -> Weight:
            return Weight(name, dtype, [experts, *shape], device)

        self.gate_up_proj_blocks = weight(
            "gate_up_proj_blocks", DType.uint8, 2 * inner, hidden // GROUP_SIZE, BYTES_PER_GROUP
        )
        self.gate_up_proj_scales = weight(
            "gate_up_proj_scales", DType.uint8, 2 * inner, hidden // GROUP_SIZE
        )
        self.gate_up_proj_bias = weight("gate_up_proj_bias", DType.bfloat16, 2 * inner)
        self.down_proj_blocks = weight(
            "down_proj_blocks", DType.uint8, hidden, inner // GROUP_SIZE, BYTES_PER_GROUP
        )
        self.down_proj_scales = weight("down_proj_scales", DType.uint8, hidden, inner // GROUP_SIZE)
        self.down_proj_bias = weight("down_proj_bias", DType.bfloat16, hidden)

    def __call__(
        self, x: TensorValue, row_order: TensorValue, expert_offsets: TensorValue
    ) -> TensorValue:
        """Gives [P, hidden], one row per (token, expert) pair sorted by expert, of x [T, hidden]."""
        inner = ops.grouped_matmul_swiglu(
            x,
            self.gate_up_proj_blocks,
            self.gate_up_proj_scales,
            self.gate_up_proj_bias,
            expert_offsets,
            row_order,
            self.limit,
            self.activations,
        )
        return ops.grouped_matmul(
            inner,
            self.down_proj_blocks,
            self.down_proj_scales,
            self.down_proj_bias,
            expert_offsets,
            self.activations,
        )


class MoE(Module):
    """Router and experts: ``y[t] = sum over the top k experts e of weight[t, e] * expert_e(x[t])``.

    Args:
        config: the model's sizes.
        device: where the weights lie.
        activations: precision the experts' inputs are rounded to.
    """

    def __init__(self, config: GptOssConfig, device: DeviceRef, activations: Activations) -> None:
        super().__init__()
        self.num_experts = config.num_local_experts
        self.top_k = config.num_experts_per_tok
        self.router = Dense(config.hidden_size, self.num_experts, device, bias=True)
        self.experts = Experts(config, device, activations)

    def __call__(self, x: TensorValue) -> TensorValue:
        """Gives [T, hidden] of x's dtype for x [T, hidden]."""
        expert_ids, weights = ops.route(self.router(x).cast(DType.float32), self.top_k)
        row_order, expert_offsets = ops.group(expert_ids, self.num_experts)
        return ops.combine(self.experts(x, row_order, expert_offsets), row_order, weights)
