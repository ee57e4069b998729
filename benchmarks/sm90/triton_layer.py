"""A layer's experts by Triton's `triton_kernels`, as of Triton 3.5.1, and what they should give, in plain torch.

The calls are those that vLLM makes for gpt-oss on Hopper. Source: vLLM's `gpt_oss_triton_kernels_moe.py` and
`mxfp4_utils.py`, and `triton_kernels/matmul_ogs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton_kernels.swiglu
from triton_kernels.matmul_ogs import (
    FnSpecs,
    FusedActivation,
    PrecisionConfig,
    matmul_ogs,
)
from triton_kernels.matmul_ogs_details import opt_flags
from triton_kernels.numerics_details.mxfp import upcast_from_mxfp
from triton_kernels.routing import GatherIndx, RoutingData, compute_expt_data_torch
from triton_kernels.tensor import FP4, convert_layout, wrap_torch_tensor
from triton_kernels.tensor_details import layout

from benchmarks.sm90.cases import LIMIT, SCALES, Routing, Sizes
from gpt_oss_mxfp4.mxfp4 import E2M1_VALUES

if "reduction_n" not in FusedActivation.__dataclass_fields__:
    raise ImportError(
        "FusedActivation has no reduction_n"
    )  # later versions, whose names are the same

ALPHA = 1.702
GROUPS_OF_A_STEP = 4
"""Groups of scales in a step of their kernel, which is of 128 k: it takes the last step's whole, wherever they end."""


@dataclass(frozen=True)
class Experts:
    """One matmul's weights as a checkpoint has them, on a device.

    Args:
        blocks: [E, N, K/32, 16] uint8.
        scales: [E, N, K/32] uint8.
        bias: [E, N] float32, which is what their kernel is called with; ours takes bfloat16.
    """

    blocks: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor

    def dequantize(self, expert: int) -> torch.Tensor:
        """Gives an expert's weights, [N, K] float32."""
        blocks, scales = self.blocks[expert], self.scales[expert]
        table = torch.tensor(E2M1_VALUES, device=blocks.device)
        codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2)  # low nibbles first
        weights = table[codes.int()] * torch.exp2(scales.float() - 127)[..., None]
        return weights.flatten(-2)


def draw_experts(experts: int, n: int, k: int, device: str) -> Experts:
    """Draws weights as the other side does: all codes alike, scales of a narrow range."""
    shape = (experts, n, k // 32)
    return Experts(
        torch.randint(256, (*shape, 16), dtype=torch.uint8, device=device),
        torch.randint(SCALES.start, SCALES.stop, shape, dtype=torch.uint8, device=device),
        torch.randn(experts, n, device=device),
    )


@dataclass(frozen=True)
class Matmul:
    """One matmul's weights as their function takes them.

    Args:
        weights: K by N for each expert: their tensor of codes, or bfloat16.
        bias: of the experts.
        precision: their options, which hold the scales.
    """

    weights: Any
    bias: torch.Tensor
    precision: PrecisionConfig


def pack(experts: Experts, warps: int) -> Matmul:
    """Puts weights, k a multiple of 64, into their Hopper layouts; that of the scales fixes the warps of a block."""
    # Both with k along the second axis. Behind their last group scales are padded: what a kernel takes there is
    # multiplied by weights of zero, so it must not be NaN.
    values = experts.blocks.flatten(-2).transpose(-2, -1)
    padding = (0, -experts.scales.shape[-1] % GROUPS_OF_A_STEP)
    scales = torch.nn.functional.pad(experts.scales, padding).transpose(-2, -1)
    of_values, value_options = layout.make_default_matmul_mxfp4_w_layout(mx_axis=1)
    of_scales, scale_options = layout.make_default_matmul_mxfp4_w_scale_layout(
        mx_axis=1, num_warps=warps
    )
    weights = convert_layout(wrap_torch_tensor(values, dtype=FP4), of_values, **value_options)
    scale = convert_layout(wrap_torch_tensor(scales), of_scales, **scale_options)
    return Matmul(weights, experts.bias, PrecisionConfig(weight_scale=scale))


def widen(experts: Experts) -> Matmul:
    """Writes weights out as bfloat16, by their kernel."""
    weights = upcast_from_mxfp(experts.blocks.flatten(-2), experts.scales, torch.bfloat16, axis=-1)
    return Matmul(weights.transpose(-2, -1), experts.bias, PrecisionConfig())


class Case:
    """Tokens with their routing, and room for the results.

    Args:
        x: [T, hidden] bfloat16.
        routing: where they go.
        sizes: of the layer.
    """

    def __init__(self, x: torch.Tensor, routing: Routing, sizes: Sizes) -> None:
        order = torch.from_numpy(routing.order).to(x.device)
        counts = torch.from_numpy(routing.counts).to(x.device)
        rows = len(routing.order)
        self.x, self.order, self.offsets = x, order, routing.offsets
        self.top_k = sizes.top_k
        self.routing = RoutingData(
            gate_scal=None,
            expt_hist=counts,
            n_expts_tot=sizes.experts,
            n_expts_act=sizes.top_k,
            expt_data=compute_expt_data_torch(counts, sizes.experts, rows),
        )
        back = torch.empty_like(order)
        back[order.long()] = torch.arange(rows, dtype=torch.int32, device=x.device)
        self.gather = GatherIndx(src_indx=order, dst_indx=back)
        self.activation = FusedActivation(
            FnSpecs("swiglu", triton_kernels.swiglu.swiglu_fn, ("alpha", "limit")),
            (ALPHA, LIMIT),
            2,
        )
        # The axis before is a batch of one, which theirs wants there.
        self.inner = x.new_empty(1, rows, sizes.inner)
        self.y = x.new_empty(1, rows, sizes.hidden)

    def run(self, up: Matmul, down: Matmul, split_k: int | None = None) -> None:
        """Runs both matmuls: rows gathered by the first, bias and SwiGLU in it, results left sorted by expert.

        Args:
            up: gates and ups.
            down: the second.
            split_k: blocks that share the k of an output; None leaves it to them.
        """
        opt_flags.update_opt_flags_constraints({"split_k": split_k})
        matmul_ogs(
            self.x,
            up.weights,
            up.bias,
            self.routing,
            gather_indx=self.gather,
            precision_config=up.precision,
            fused_activation=self.activation,
            y=self.inner,
        )
        matmul_ogs(
            self.inner[0],
            down.weights,
            down.bias,
            self.routing,
            precision_config=down.precision,
            y=self.y,
        )

    def compute_reference(self, up: Experts, down: Experts) -> torch.Tensor:
        """Gives what `run` should leave in `y`, float32: float32 sums, rounded to bfloat16 between the matmuls."""
        rows = self.x[self.order.long() // self.top_k].float()
        y = torch.empty_like(self.y[0], dtype=torch.float32)
        for expert in range(len(self.offsets) - 1):
            mine = slice(int(self.offsets[expert]), int(self.offsets[expert + 1]))
            sums = rows[mine] @ up.dequantize(expert).T + up.bias[expert]
            gate = sums[:, 0::2].clamp(max=LIMIT)
            linear = sums[:, 1::2].clamp(-LIMIT, LIMIT)
            inner = (linear + 1) * gate * torch.sigmoid(ALPHA * gate)
            y[mine] = inner.bfloat16().float() @ down.dequantize(expert).T + down.bias[expert]
        return y


Layer = Callable[[Case], None]


def make_layers(sets: Sequence[tuple[Experts, Experts]]) -> dict[str, dict[str, list[Layer]]]:
    """Makes what is timed: groups, of which the fastest counts, of layers over every set of weights."""
    packed: dict[str, list[Layer]] = {}
    for warps in (8, 4):
        matmuls = [(pack(up, warps), pack(down, warps)) for up, down in sets]
        for split_k, name in ((1, "1"), (None, "theirs")):
            packed[f"{warps} warps, split_k {name}"] = [
                partial(Case.run, up=up, down=down, split_k=split_k) for up, down in matmuls
            ]
    wide = [(widen(up), widen(down)) for up, down in sets]
    return {
        "MXFP4": packed,
        "bfloat16": {"resident": [partial(Case.run, up=up, down=down) for up, down in wide]},
        "dequantized": {"each time": [partial(_run_dequantized, up, down) for up, down in sets]},
    }


def _run_dequantized(up: Experts, down: Experts, case: Case) -> None:
    case.run(widen(up), widen(down))
