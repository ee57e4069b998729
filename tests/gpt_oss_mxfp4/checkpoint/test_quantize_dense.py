"""Dense weights rounded while they are loaded, against the rounding in NumPy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from max.driver import Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import Shape
from max.graph.weights import WeightData, load_weights

from gpt_oss_mxfp4.checkpoint.adapt import adapt
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.quantize_dense import quantize_dense
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.checkpoint.small import raw_file
from tests.reference import dense
from tests.reference.bfloat16 import decode_bfloat16

PROJECTIONS = [f"self_attn.{p}_proj.weight" for p in "qkvo"]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(CHECKPOINT)


def bits(weight: WeightData) -> np.ndarray:
    return weight.to_buffer().view(DType.uint16).to_numpy()


def test_attention_and_logits_are_rounded_and_nothing_else_is_touched(
    checkpoint: Checkpoint, session: InferenceSession
) -> None:
    weights = adapt(checkpoint)
    rounded = quantize_dense(weights, "int8", session)
    layers = range(checkpoint.config.num_hidden_layers)
    names = [f"model.layers.{layer}.{p}" for layer in layers for p in PROJECTIONS]
    for name in [*names, "lm_head.weight"]:
        values, scales = dense.quantize_int8(decode_bfloat16(bits(weights.pop(name))))
        got_values, got_scales = (
            Buffer.from_dlpack(rounded.pop(f"{name}_{kind}")) for kind in ("values", "scales")
        )
        np.testing.assert_array_equal(got_values.to_numpy(), values)
        np.testing.assert_array_equal(got_scales.view(DType.uint16).to_numpy(), scales)
    assert rounded == weights


def test_mapped_weights_are_the_same_after_their_pages_were_given_back(
    checkpoint: Checkpoint, session: InferenceSession
) -> None:
    weights = adapt(checkpoint)
    before = bits(weights["lm_head.weight"]).copy()
    quantize_dense(weights, "int8", session)
    np.testing.assert_array_equal(bits(weights["lm_head.weight"]), before)


def test_inputs_that_are_no_multiple_of_a_group_are_refused(session: InferenceSession) -> None:
    name = "model.layers.0.self_attn.o_proj.weight"
    odd = Buffer.from_numpy(np.zeros((32, 48), np.uint16)).view(DType.bfloat16)
    message = (
        f"gpt_oss_mxfp4: {name} must have a multiple of 32 inputs for --dense-weights int8, got 48; run with "
        "--dense-weights bfloat16"
    )
    weight = WeightData(odd, name, DType.bfloat16, Shape([32, 48]))
    with pytest.raises(ValueError, match=re.escape(message)):
        quantize_dense({name: weight}, "int8", session)


def resident(path: Path) -> int:
    """Bytes of a file's mapping that this process holds in memory."""
    entries = Path("/proc/self/smaps").read_text().split("VmFlags")
    found = [re.search(r"^Rss: +(\d+) kB", e, re.MULTILINE) for e in entries if str(path) in e]
    return sum(1024 * int(match[1]) for match in found if match)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_pages_that_were_rounded_are_given_back(tmp_path: Path, session: InferenceSession) -> None:
    """A matrix of 8 MB, mapped from a file as checkpoints are."""
    path = tmp_path / "model.safetensors"
    data = np.full((1024, 4096), 0x3F80, np.uint16).tobytes()
    entry = {"dtype": "BF16", "shape": [1024, 4096], "data_offsets": [0, len(data)]}
    path.write_bytes(raw_file(json.dumps({"lm_head.weight": entry}).encode(), data))
    [(name, weight)] = load_weights([path]).items()
    quantize_dense({name: weight.data()}, "int8", session)
    assert resident(path) < 2**20
