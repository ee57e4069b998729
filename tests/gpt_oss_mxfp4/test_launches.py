"""What a step launches on a Hopper GPU, as MAX fuses the graph: one more would be one more at every layer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.make_synthetic import SIZES
from tests.sparse_checkpoint import make_sparse_checkpoint

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

ONCE = [
    "gather",  # the embedding
    "static_broadcast_to_slice_sub",  # each sequence's last token
    "reduce_rms_norm",
    "matmul_gpu",
]

LAYER = [
    "reduce_rms_norm",
    "matmul_bias_gpu",  # queries, keys and values at once
    "rope_split_store_ragged_paged",
    "mha_ragged_paged_sink_weights",
    "matmul_bias_gpu",
    "composite_rms_norm_residual_add",
    "matmul_bias_gpu",  # the router
    "route_and_group",  # of few tokens one kernel
    "grouped_matmul_swiglu_packed",
    "grouped_matmul_packed",
    "combine",  # and the residual
]


OURS = {
    "mha_ragged_paged_sink_weights": "paged_sm90",
}
"""What takes the place of MAX's kernels."""


@pytest.mark.parametrize(
    ("size", "experts", "others"), [("20b", "sm90", "max"), ("120b", "sm90_mlp", "sm90")]
)
def test_a_layer_is_eleven_launches(size: str, experts: str, others: str, tmp_path: Path) -> None:
    """Or ten, where one kernel multiplies by both matrices of experts; others are as many as MAX's."""
    folder = make_sparse_checkpoint(tmp_path / "model", SIZES[size])
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpt_oss_mxfp4.launches", str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        env={
            **ENVIRONMENT,
            "MXFP4_GROUPED_KERNEL": experts,
            "MXFP4_ATTENTION_KERNEL": others,
            "MXFP4_DENSE_KERNEL": others,
        },
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ") for line in done.stdout.splitlines() if ": " in line]
    launched = {name: kernels.split() for name, kernels in lines}
    layer = [OURS.get(name, name) if others == "sm90" else name for name in LAYER]
    if experts == "sm90_mlp":
        first = layer.index("grouped_matmul_swiglu_packed")
        layer[first : first + 2] = ["grouped_mlp_packed"]
    assert launched["sliding_attention"] == layer
    assert launched["full_attention"] == layer
    assert launched["GptOss"] == ONCE
