"""Whatever a config or a header says, a plan is whole or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.convert.conversion import plan_conversion
from gpt_oss_mxfp4.convert.experts import check_sizes
from gpt_oss_mxfp4.convert.layouts import TITLES, Target
from gpt_oss_mxfp4.convert.per_expert import GateUp
from gpt_oss_mxfp4.convert.shards import make_shards
from gpt_oss_mxfp4.options import Refused
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields, raw_file
from tests.gpt_oss_mxfp4.convert.folders import (
    Tensor,
    Tensors,
    as_original,
    original_config,
    small_model,
    u8,
    write_checkpoint,
)
from tests.gpt_oss_mxfp4.convert.test_experts import as_bf16
from tests.gpt_oss_mxfp4.convert.test_per_expert import COMPRESSED, PRODUCERS, QUARK

Case = tuple[Tensors, dict[str, Any]]


def cases() -> dict[str, Case]:
    """A sound checkpoint of each layout."""
    model = small_model(np.random.default_rng(5))
    first = PRODUCERS["llm-compressor, first"][0]
    return {
        "mxfp4": (model, config_fields()),
        "bf16": (as_bf16(model), config_fields(quantization_config=None)),
        "original": (as_original(model), original_config()),
        "Quark": (PRODUCERS["Quark"][0].save(model), config_fields(quantization_config=QUARK)),
        "first": (first.save(model), config_fields(quantization_config=COMPRESSED)),
    }


CASES = cases()

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["yarn", "mxfp4", "quark", "compressed-tensors", 7, 32, 64, 1e300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=4,
)


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[Tensors, str]:
    """A sound checkpoint with some of its config, or of its tensors, replaced."""
    tensors, config = CASES[draw(st.sampled_from(sorted(CASES)))]
    tensors, config = dict(tensors), json.loads(json.dumps(config))
    for key in draw(st.lists(st.sampled_from(sorted(config)), max_size=2)):
        config[key] = draw(JSON)
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2, unique=True)):
        tensor = tensors.pop(name)
        if new := draw(
            st.sampled_from(["", name, f"{name}.absmax", "x", *sorted(CASES["mxfp4"][0])])
        ):
            dtype = draw(st.sampled_from([tensor.dtype, "BF16", "U8", "F8_E8M0"]))
            size = 2 if dtype == "BF16" else 1
            flat = np.zeros(draw(st.sampled_from([0, 1, 16, tensor.data.size])), f"u{size}")
            tensors[new] = tensor._replace(dtype=dtype, data=flat)
    return tensors, json.dumps(config)


def _never(_: Any) -> Any:
    raise AssertionError("no weight is read by a plan")


def plan(folder: Path, to: Target, gate_up: GateUp | None = None) -> int:
    """Plans, and gives the bytes of all files."""
    conversion = plan_conversion(folder, to, gate_up, None, _never)
    for output in conversion.outputs:
        assert output.nbytes == sum(piece.nbytes for piece in output.pieces)
    return sum(shard.nbytes for shard in make_shards(conversion.outputs))


@pytest.mark.parametrize("to", TITLES)
@pytest.mark.parametrize("name", CASES)
def test_every_sound_layout_becomes_every_other(name: str, to: Target, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "source", *CASES[name])
    if name == to:
        with pytest.raises(Refused, match="already; --to names another"):
            plan(folder, to)
    else:
        assert plan(folder, to) > 40_000


SCALES, BLOCKS = (f"model.layers.1.mlp.experts.down_proj_{part}" for part in ("scales", "blocks"))


@pytest.mark.parametrize(
    ("lacks", "has", "fault"),
    [
        ([SCALES], {}, f"{BLOCKS} must have {SCALES} beside it, which is missing"),
        ([], {SCALES: u8(np.zeros((4, 64, 1)))}, f"{SCALES} must have num_local_experts = 2"),
        ([], {"lm_head.weight": u8(np.zeros((16, 64)))}, "lm_head.weight must be BF16, got U8"),
        ([], {"x": u8(np.zeros(1))}, "x in model-00001-of-00001.safetensors must not be there"),
        (["model.norm.weight"], {}, "model.norm.weight must be there, is missing"),
    ],
)
def test_what_is_wrong_is_said_in_the_loader_s_words(
    lacks: list[str], has: Tensors, fault: str, tmp_path: Path
) -> None:
    tensors, config = CASES["mxfp4"]
    kept = {name: tensor for name, tensor in tensors.items() if name not in lacks}
    folder = write_checkpoint(tmp_path / "source", {**kept, **has}, config)
    with pytest.raises(CheckpointError) as refused:
        plan(folder, "bf16")
    assert str(refused.value).startswith(f"{folder}: {fault}")
    with pytest.raises(CheckpointError) as not_loaded:
        open_checkpoint(folder)
    assert str(refused.value) == str(not_loaded.value)


def test_experts_that_are_to_be_rounded_must_be_bf16(tmp_path: Path) -> None:
    tensors, config = CASES["bf16"]
    name = "model.layers.0.mlp.experts.down_proj"
    single = Tensor("F32", np.zeros(tensors[name].data.shape, np.uint32))
    folder = write_checkpoint(tmp_path / "source", {**tensors, name: single}, config)
    with pytest.raises(CheckpointError) as error:
        plan(folder, "mxfp4")
    assert str(error.value) == (
        f"{folder}: {name} must be BF16, got F32 in model-00001-of-00001.safetensors."
        " Save experts that are to be rounded as BF16, nothing is cast here."
    )


def test_what_a_config_says_of_mxfp4_experts_must_be_true(tmp_path: Path) -> None:
    tensors, config = CASES["mxfp4"]
    config = {**config, "quantization_config": {"quant_method": "quark"}}
    folder = write_checkpoint(tmp_path / "source", tensors, config)
    with pytest.raises(CheckpointError, match='quant_method must be "mxfp4", got "quark"'):
        plan(folder, "bf16")


def test_an_expert_s_matrix_has_a_gibibyte_at_most(tmp_path: Path) -> None:
    check_sizes([(2**14, 2**15)], tmp_path)
    with pytest.raises(CheckpointError, match="at most 536870912 elements, got 16384 x 32769"):
        check_sizes([(64, 32), (2**14, 2**15 + 1)], tmp_path)


def test_a_second_copy_is_left_out_and_its_names_are_not_printed(tmp_path: Path) -> None:
    tensors, config = CASES["mxfp4"]
    more = {**tensors, "block.\x1b[31m": next(iter(tensors.values()))}
    conversion = plan_conversion(
        write_checkpoint(tmp_path / "source", more, config), "original", None, None, _never
    )
    assert conversion.notes == (
        "1 block.* tensors (2048 bytes, in model-00001-of-00001.safetensors) are a second copy in the original/ layout"
        " and are not used: the model.* tensors are",
    )


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(case=spoilt(), to=st.sampled_from(sorted(TITLES)), gate_up=st.sampled_from([None, "halves"]))
def test_whatever_is_said_the_plan_is_whole_or_refused(
    case: tuple[Tensors, str],
    to: Target,
    gate_up: GateUp | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tensors, config = case
    folder = tmp_path_factory.mktemp("source")
    header, position = {}, 0
    for name, tensor in tensors.items():
        end = position + tensor.data.nbytes
        shape = list(tensor.data.shape)
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    data = b"".join(tensor.data.tobytes() for tensor in tensors.values())
    (folder / "x.safetensors").write_bytes(raw_file(json.dumps(header).encode(), data))
    (folder / "config.json").write_text(config)
    refused: Exception | None = None
    try:
        assert plan(folder, to, gate_up) > 0
    except (CheckpointError, Refused) as error:
        refused = error
    assert refused is None or 10 < len(str(refused)) < 20_000
