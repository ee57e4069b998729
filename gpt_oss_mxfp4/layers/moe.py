"""The mixture of experts: routes tokens, multiplies by MXFP4 experts, sums them back."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Dim, Graph, TensorValue, Weight
from max.nn.layer import Module

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.layers.dense import Dense
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE
from gpt_oss_mxfp4.ops.mxfp4 import packed_shape
from gpt_oss_mxfp4.options import LayerOptions


class Experts(Module):
    """All experts of a layer, gate and up rows interleaved: in the checkpoint's layout, or packed for Hopper.

    Args:
        config: the model's sizes.
        device: where the weights lie.
        options: how layers multiply.
    """

    def __init__(self, config: GptOssConfig, device: DeviceRef, options: LayerOptions) -> None:
        super().__init__()
        self.limit = config.swiglu_limit
        self.options = options
        experts, hidden, inner = (
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
        )

        def weight(name: str, dtype: DType, *shape: Dim | int) -> Weight:
            return Weight(name, dtype, [experts, *shape], device)

        def blocks(name: str, rows: int, k: int) -> Weight:
            return weight(name, DType.uint8, rows, k // GROUP_SIZE, BYTES_PER_GROUP)

        if options.packed:
            self.gate_up_proj_tiles = weight(
                "gate_up_proj_tiles", DType.uint8, *packed_shape(2 * inner, hidden)
            )
            self.down_proj_tiles = weight(
                "down_proj_tiles", DType.uint8, *packed_shape(hidden, inner)
            )
        else:
            self.gate_up_proj_blocks = blocks("gate_up_proj_blocks", 2 * inner, hidden)
            self.gate_up_proj_scales = weight(
                "gate_up_proj_scales", DType.uint8, 2 * inner, hidden // GROUP_SIZE
            )
            self.down_proj_blocks = blocks("down_proj_blocks", hidden, inner)
            self.down_proj_scales = weight(
                "down_proj_scales", DType.uint8, hidden, inner // GROUP_SIZE
            )
        self.gate_up_proj_bias = weight("gate_up_proj_bias", DType.bfloat16, 2 * inner)
        self.down_proj_bias = weight("down_proj_bias", DType.bfloat16, hidden)

    def __call__(
        self,
        x: TensorValue,
        row_order: TensorValue,
        expert_offsets: TensorValue,
        counts: TensorValue,
    ) -> TensorValue:
        """Gives [P, hidden], one row per (token, expert) pair sorted by expert, of x [T, hidden]."""
        if self.options.packed:
            return self._multiply_packed(x, row_order, expert_offsets, counts)
        activations = self.options.activations
        inner = ops.grouped_matmul_swiglu(
            x,
            self.gate_up_proj_blocks,
            self.gate_up_proj_scales,
            self.gate_up_proj_bias,
            expert_offsets,
            row_order,
            self.limit,
            activations,
        )
        return ops.grouped_matmul(
            inner,
            self.down_proj_blocks,
            self.down_proj_scales,
            self.down_proj_bias,
            expert_offsets,
            activations,
        )

    def _multiply_packed(
        self,
        x: TensorValue,
        row_order: TensorValue,
        expert_offsets: TensorValue,
        counts: TensorValue,
    ) -> TensorValue:
        gate_up, down = resident(self.gate_up_proj_tiles), resident(self.down_proj_tiles)
        gate_up_bias, down_bias = self.gate_up_proj_bias, self.down_proj_bias
        if self.options.one_kernel:
            weights = gate_up, gate_up_bias, down, down_bias
            return ops.grouped_mlp_packed(
                x, *weights, expert_offsets, row_order, counts, self.limit
            )
        inner = ops.grouped_matmul_swiglu_packed(
            x, gate_up, gate_up_bias, expert_offsets, row_order, self.limit
        )
        return ops.grouped_matmul_packed(
            inner, down, down_bias, expert_offsets, x_follows_offsets=True
        )


def resident(weight: Weight) -> TensorValue:
    """Adds a weight to the graph that is on its device already: it was packed there, and is not sent again."""
    return Graph.current.add_weight(weight, force_initial_weight_on_host=False)


class MoE(Module):
    """Router and experts: ``y[t] = residual[t] + sum over the top k experts e of weight[t, e] * expert_e(x[t])``.

    Args:
        config: the model's sizes.
        device: where the weights lie.
        options: how layers multiply.
    """

    def __init__(self, config: GptOssConfig, device: DeviceRef, options: LayerOptions) -> None:
        super().__init__()
        self.num_experts = config.num_local_experts
        self.top_k = config.num_experts_per_tok
        # Weights as in the checkpoint and inputs as they come: rounding would change what is chosen.
        exact = LayerOptions(activations="float32", dense=options.dense)
        self.router = Dense(config.hidden_size, self.num_experts, device, exact, bias=True)
        self.experts = Experts(config, device, options)

    def __call__(self, x: TensorValue, residual: TensorValue) -> TensorValue:
        """Gives [T, hidden] for x and residual, both [T, hidden] of its dtype."""
        logits = self.router(x, DType.float32)
        weights, row_order, row_places, expert_offsets, counts = ops.route_and_group(
            logits, self.top_k
        )
        y = self.experts(x, row_order, expert_offsets, counts)
        return ops.combine(y, row_places, weights, residual)
