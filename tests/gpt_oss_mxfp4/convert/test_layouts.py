"""What is recognised, and the names of what is not converted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.convert.layouts import recognise
from gpt_oss_mxfp4.convert.per_expert import GateUp, Spelling

EXPERTS = "model.layers.0.mlp.experts."
HERE = Path("folder")


def layout_of(*names: str, gate_up: GateUp | None = None) -> object:
    return recognise(dict.fromkeys(names, "U8"), {}, gate_up, HERE)


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (("lm_head.weight", f"{EXPERTS}gate_up_proj_blocks"), "mxfp4"),
        (("lm_head.weight", f"{EXPERTS}gate_up_proj", f"{EXPERTS}gate_up_proj_bias"), "bf16"),
        (("embedding.weight", "block.0.mlp.mlp1_weight.blocks"), "original"),
        (
            (f"{EXPERTS}0.gate_up_proj.weight", f"{EXPERTS}0.gate_up_proj.weight_scale"),
            Spelling("AMD Quark", "weight", "", True, "interleaved"),
        ),
        (
            (f"{EXPERTS}experts.0.gate_proj.weight_packed",),
            Spelling("compressed-tensors", "weight_packed", "experts.", False, "halves"),
        ),
    ],
)
def test_names_tell_the_layout(names: tuple[str, ...], layout: object) -> None:
    assert layout_of(*names) == layout


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"{EXPERTS}down_projs.0.weight.absmax", "is bitsandbytes"),
        (f"{EXPERTS}gate_up_projs.3.weight.quant_state.bitsandbytes__nf4", "is bitsandbytes"),
        (f"{EXPERTS}0.up_proj.weight_global_scale", "is NVFP4"),
        (f"{EXPERTS}0.up_proj.qweight", "is an integer format (GPTQ, AWQ or int4"),
        (f"{EXPERTS}gate_up_projs.0.weight", "is Unsloth's layout of single experts"),
        ("model.layers.0.mlp.router.linear.weight", "is Unsloth's layout of single experts"),
        ("base_model.model.lm_head.lora_A.weight", "is an adapter (LoRA)"),
    ],
)
def test_what_cannot_be_converted_is_named(name: str, what: str) -> None:
    with pytest.raises(CheckpointError) as error:
        layout_of("lm_head.weight", f"{EXPERTS}gate_up_proj", name)
    assert str(error.value).startswith(f"folder: must be of a layout that can be converted, {what}")
    assert f"(it has {name})" in str(error.value)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ"])
@pytest.mark.parametrize("name", [f"{EXPERTS}0.gate_up_proj.weight", f"{EXPERTS}gate_up_proj"])
def test_experts_in_fp8_are_named_and_not_taken_for_another_s(name: str, dtype: str) -> None:
    dtypes = {name: dtype, f"{name}_scale": "BF16", "lm_head.weight": "BF16"}
    with pytest.raises(CheckpointError) as error:
        recognise(dtypes, {"quantization_config": {"quant_method": "fp8"}}, None, HERE)
    assert str(error.value).startswith(
        f"folder: must be of a layout that can be converted, is FP8 (it has {name}). Its experts"
    )


def test_the_e4m3_scales_of_nvfp4_are_nvfp4() -> None:
    base = f"{EXPERTS}0.up_proj.weight"
    dtypes = {base: "U8", f"{base}_scale": "F8_E4M3", f"{base}_scale_2": "F32"}
    with pytest.raises(CheckpointError, match="is NVFP4"):
        recognise(dtypes, {}, None, HERE)


@pytest.mark.parametrize(
    ("names", "has"),
    [
        (("lm_head.weight",), "has no experts of any kind known here"),
        ((), "has no experts of any kind known here"),
        (
            (f"{EXPERTS}gate_up_proj_blocks", "model.layers.1.mlp.experts.gate_up_proj"),
            "has Hugging Face's layout with BF16 experts and Hugging Face's layout with MXFP4 experts",
        ),
        (
            (f"{EXPERTS}gate_up_proj", f"{EXPERTS}0.gate_proj.weight"),
            "has Hugging Face's layout with BF16 experts and tensors for single experts",
        ),
    ],
)
def test_a_mixture_or_another_model_is_refused(names: tuple[str, ...], has: str) -> None:
    with pytest.raises(CheckpointError) as error:
        layout_of(*names)
    assert str(error.value).startswith(
        f"folder: must have the experts of all layers in one layout, {has}. "
    )


@pytest.mark.parametrize(
    "dtypes",
    [
        {f"{EXPERTS}0.gate_proj.weight": "U8"},
        {f"{EXPERTS}0.gate_proj.weight": "I8", f"{EXPERTS}0.gate_proj.weight_scale": "BF16"},
    ],
    ids=["no scales", "8-bit integers"],
)
def test_single_experts_without_codes_and_scales_are_refused(dtypes: dict[str, str]) -> None:
    with pytest.raises(
        CheckpointError, match="must be MXFP4 where each expert has tensors of its own"
    ):
        recognise(dtypes, {}, None, HERE)


QUARK = {f"{EXPERTS}0.gate_up_proj.weight": "U8", f"{EXPERTS}0.gate_up_proj.weight_scale": "U8"}
COMPRESSED = {f"{EXPERTS}experts.0.gate_proj.weight_packed": "U8"}


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        (QUARK, []),
        (QUARK, {"quant_method": "quark", "global_quant_config": []}),
        (QUARK, {"global_quant_config": {"weight": []}}),
        (QUARK, {"global_quant_config": {"weight": {"dtype": None, "group_size": 32}}}),
        (COMPRESSED, []),
        (COMPRESSED, {"quant_method": "compressed-tensors", "config_groups": []}),
        (COMPRESSED, {"config_groups": {"group_0": []}}),
        (
            COMPRESSED,
            {
                "format": "mixed-precision",
                "config_groups": {"group_0": {"format": "mxfp4-pack-quantized"}},
            },
        ),
    ],
)
def test_a_config_need_not_say_how_experts_are_quantized(
    dtypes: dict[str, str], said: object
) -> None:
    assert isinstance(recognise(dtypes, {"quantization_config": said}, None, HERE), Spelling)


@pytest.mark.parametrize(
    ("dtypes", "said", "message"),
    [
        (QUARK, {"quant_method": "compressed-tensors"}, 'quant_method must be "quark" with such'),
        (
            QUARK,
            {"global_quant_config": {"weight": {"scale_format": "e4m3"}}},
            'weight.scale_format must be "e8m0", got "e4m3"',
        ),
        (COMPRESSED, {"quant_method": "quark"}, 'quant_method must be "compressed-tensors" with'),
        (
            COMPRESSED,
            {"config_groups": {"a": {}, "b": {"format": "nvfp4-pack-quantized"}}},
            'format must be "mxfp4-pack-quantized", got "nvfp4-pack-quantized"',
        ),
    ],
)
def test_a_config_that_says_otherwise_is_refused(
    dtypes: dict[str, str], said: object, message: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        recognise(dtypes, {"quantization_config": said}, None, HERE)


def test_dense_tensors_in_fp8_are_no_experts_in_fp8() -> None:
    dtypes = {f"{EXPERTS}gate_up_proj_blocks": "U8", "lm_head.weight": "F8_E4M3"}
    assert recognise(dtypes, {}, None, HERE) == "mxfp4"


def test_an_order_is_not_asked_for_where_there_is_none_to_tell() -> None:
    with pytest.raises(CheckpointError, match="this is Hugging Face's layout with BF16 experts"):
        layout_of(f"{EXPERTS}gate_up_proj", gate_up="halves")
