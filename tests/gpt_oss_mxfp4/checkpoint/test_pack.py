"""Experts packed while they are loaded: on the CPU, against the packing in NumPy."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.engine import InferenceSession
from max.graph.weights import WeightData

from gpt_oss_mxfp4.checkpoint.adapt import adapt
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.pack import pack_experts
from tests.golden import CHECKPOINT
from tests.reference import sm90_tiles


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(CHECKPOINT)


def test_each_layers_experts_are_packed_and_nothing_else_is_touched(
    checkpoint: Checkpoint, session: InferenceSession
) -> None:
    weights = adapt(checkpoint)
    packed = pack_experts(checkpoint, weights, CPU(), session)
    for layer in range(checkpoint.config.num_hidden_layers):
        for projection in ("gate_up_proj", "down_proj"):
            name = f"model.layers.{layer}.mlp.experts.{projection}"
            blocks, scales = (
                np.from_dlpack(weights.pop(f"{name}_{kind}").to_buffer())
                for kind in ("blocks", "scales")
            )
            np.testing.assert_array_equal(
                np.from_dlpack(packed.pop(f"{name}_tiles")),
                sm90_tiles.swizzle(blocks, scales),
            )
    assert packed == weights


def test_a_gpu_of_another_kind_is_refused(
    checkpoint: Checkpoint, session: InferenceSession
) -> None:
    other: Any = SimpleNamespace(is_host=False, architecture_name="sm_100a")
    with pytest.raises(ValueError, match=r"must be a Hopper GPU \(sm_90\), got sm_100a; set"):
        pack_experts(checkpoint, adapt(checkpoint), other, session)


def test_more_experts_than_the_kernels_take_are_refused_before_they_are_packed(
    checkpoint: Checkpoint,
) -> None:
    config = dataclasses.replace(checkpoint.config, num_local_experts=511)
    session: Any = None
    with pytest.raises(CheckpointError) as error:
        pack_experts(dataclasses.replace(checkpoint, config=config), {}, CPU(), session)
    assert str(error.value) == (
        f"{CHECKPOINT}: num_local_experts must be at most 510 for Hopper's kernels, got 511. Set "
        "MXFP4_GROUPED_KERNEL=strided, which is slow and takes every checkpoint, or run on a CPU."
    )


def test_scales_that_do_not_fit_are_refused_by_name(
    checkpoint: Checkpoint, session: InferenceSession
) -> None:
    weights = adapt(checkpoint)
    name = "model.layers.1.mlp.experts.down_proj_scales"
    scales = np.from_dlpack(weights[name].to_buffer()).copy()
    scales[-1, -1, -1] = 129
    weights[name] = WeightData.from_numpy(scales, name)
    with pytest.raises(CheckpointError) as error:
        pack_experts(checkpoint, weights, CPU(), session)
    assert str(error.value) == (
        f"{CHECKPOINT}: {name} must be at most 128 (2^1) for Hopper's kernels, got 129. Set "
        "MXFP4_GROUPED_KERNEL=strided, which is slow and takes every checkpoint, or run on a CPU."
    )
