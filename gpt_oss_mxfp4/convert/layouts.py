"""Which layout a folder's tensors are of, and the refusal of those that cannot be converted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.fields import shown
from gpt_oss_mxfp4.checkpoint.layout import (
    BLOCKS,
    CONFIG_FILE,
    PLAIN_EXPERTS,
    find_foreign,
    has_quark_codes,
    is_original,
    is_other_model,
)
from gpt_oss_mxfp4.convert.per_expert import EXPERT, GateUp, Spelling

Target = Literal["mxfp4", "bf16", "original"]
"""What can be converted to, and from: Hugging Face's layout with MXFP4 or with BF16 experts, or OpenAI's own."""

TITLES: dict[Target, str] = {
    "mxfp4": "Hugging Face's layout with MXFP4 experts",
    "bf16": "Hugging Face's layout with BF16 experts",
    "original": "OpenAI's original/ layout",
}


def recognise(
    dtypes: Mapping[str, str], config: Mapping[str, Any], gate_up: GateUp | None, where: Path
) -> Target | Spelling:
    """Names the layout of a checkpoint.

    Args:
        dtypes: safetensors dtype of each tensor by name.
        config: its config.json.
        gate_up: the order of gate and up rows, where the user has said it.
        where: what an error calls it.

    Returns:
        The layout, or how a producer of tensors for single experts spells it.

    Raises:
        CheckpointError: none of ours, or one that cannot be converted.
    """
    if is_other_model(config):
        text = f'model_type must be "gpt_oss", got {shown(config["model_type"])}'
        cure = "Give a checkpoint of gpt-oss: openai/gpt-oss-20b, a BF16 fine-tune of it"
        raise CheckpointError(where / CONFIG_FILE, [Fault("other model", text, cure)])
    if match := find_foreign(dtypes):
        foreign, name = match
        text = f"must be of a layout that can be converted, is {foreign.layout.description}"
        _refuse(where, text, name, foreign.cure)
    names = sorted(dtypes)
    parts = [match for match in map(EXPERT.fullmatch, names) if match]
    found: set[Target] = set()
    if any(name.endswith(BLOCKS) for name in names):
        found.add("mxfp4")
    if any(name.endswith(PLAIN_EXPERTS) for name in names):
        found.add("bf16")
    if names and all(map(is_original, names)):
        found = {"original"}
    if len(found) + bool(parts) != 1:
        kinds = sorted(TITLES[target] for target in found)
        kinds += ["tensors for single experts"] if parts else []
        got = " and ".join(kinds) or "no experts of any kind known here"
        text = f"must have the experts of all layers in one layout, has {got}"
        cure = "Take all files from one repository: openai/gpt-oss-20b, a BF16 fine-tune of it"
        raise CheckpointError(where, [Fault("unknown layout", text, cure)])
    if parts:
        return _spelling(parts, dtypes, config, gate_up, where)
    if gate_up is not None:
        [target] = found
        text = f"--gate-up is for checkpoints with tensors for single experts, this is {TITLES[target]}"
        raise CheckpointError(where, [Fault("wrong option", text, "Leave --gate-up out")])
    return found.pop()


def _spelling(
    parts: list[re.Match[str]],
    dtypes: Mapping[str, str],
    config: Mapping[str, Any],
    gate_up: GateUp | None,
    where: Path,
) -> Spelling:
    fused = any(part[4] == "gate_up_proj" for part in parts)
    nested = parts[0][2] or ""
    packed = any(part[5] == "weight_packed" for part in parts)
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        quantization = {}
    if packed:
        producer = "compressed-tensors"
        _check_method(quantization, "compressed-tensors", where)
        _check_compressed(quantization, where)
    elif has_quark_codes(dtypes):
        producer = "AMD Quark"
        _check_method(quantization, "quark", where)
        _check_quark(quantization, where)
    else:
        cure = "Save the experts of a layer in one tensor, as transformers does, and convert that"
        text = (
            "must be MXFP4 where each expert has tensors of its own, has no codes in U8 with scales"
        )
        _refuse(where, text, parts[0][0], cure)
    order = gate_up or _known_order(packed=packed, fused=fused, nested=bool(nested))
    if order is None:
        how = "gate_up_proj" if fused else "gate_proj and up_proj"
        text = (
            f"{producer}: the order of rows in {how} cannot be told from the file, programs that write such files"
            " differ in it"
        )
        cure = (
            "Say it: --gate-up halves where gates come first and then ups (two tensors: each is what its name says),"
            " --gate-up interleaved where they take turns through both; the wrong one gives a model that talks"
            " nonsense"
        )
        raise CheckpointError(where, [Fault("ambiguous layout", text, cure)])
    return Spelling(producer, "weight_packed" if packed else "weight", nested, fused, order)


def _known_order(*, packed: bool, fused: bool, nested: bool) -> GateUp | None:
    """The order of rows where only one is met: AMD's repositories, and llm-compressor's first layout (NOTES F56)."""
    if not packed and fused:
        return "interleaved"
    if packed and nested and not fused:
        return "halves"
    return None


def _check_method(quantization: Mapping[str, Any], wanted: str, where: Path) -> None:
    if (method := quantization.get("quant_method")) not in (None, wanted):
        text = f"quantization_config.quant_method must be {shown(wanted)} with such tensors, got {shown(method)}"
        cure = (
            "This producer's files have not been seen: convert a BF16 repository of the same model"
        )
        raise CheckpointError(where, [Fault("unknown producer", text, cure)])


def _check_compressed(quantization: Mapping[str, Any], where: Path) -> None:
    groups = quantization.get("config_groups")
    named = [quantization.get("format")]
    if isinstance(groups, dict):
        named += [group.get("format") for group in groups.values() if isinstance(group, dict)]
    for form in named:
        if form not in (None, "mxfp4-pack-quantized", "mixed-precision"):
            text = f'quantization_config.format must be "mxfp4-pack-quantized", got {shown(form)}'
            cure = "Other formats of compressed-tensors are not MXFP4: convert a BF16 repository"
            raise CheckpointError(where, [Fault("not MXFP4", text, cure)])


def _check_quark(quantization: Mapping[str, Any], where: Path) -> None:
    everywhere = quantization.get("global_quant_config")
    weight = everywhere.get("weight") if isinstance(everywhere, dict) else None
    if isinstance(weight, dict):
        for key, wanted in (("dtype", "fp4"), ("group_size", 32), ("scale_format", "e8m0")):
            if weight.get(key) not in (None, wanted):
                text = f"quantization_config: weight.{key} must be {shown(wanted)}, got {shown(weight[key])}"
                cure = "Other formats of Quark are not MXFP4: convert a BF16 repository"
                raise CheckpointError(where, [Fault("not MXFP4", text, cure)])
    if "rotation" in str(quantization.get("algo_config")):
        text = "quantization_config.algo_config must have no rotation: activations would have to be rotated too"
        cure = "Convert a checkpoint that was quantized without it"
        raise CheckpointError(where, [Fault("rotated weights", text, cure)])


def _refuse(where: Path, text: str, name: str, cure: str) -> NoReturn:
    text = f"{text} (it has {quoted(name)})"
    raise CheckpointError(where, [Fault("cannot be converted", text, cure)])
