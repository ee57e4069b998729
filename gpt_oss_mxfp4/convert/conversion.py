"""From a folder and what is wanted of it to a whole plan; no byte of weight is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.checkpoint import drop_unused, find_tensors
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, quoted
from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.checkpoint.schema import TensorSpec, check_tensors, expected_tensors
from gpt_oss_mxfp4.checkpoint.strict_json import read_object
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.convert.configs import (
    from_original_config,
    same_model,
    to_original_config,
    with_experts,
)
from gpt_oss_mxfp4.convert.experts import (
    Quantize,
    bfloat16_tensors,
    check_sizes,
    to_bfloat16,
    to_mxfp4,
)
from gpt_oss_mxfp4.convert.layouts import TITLES, Target, recognise
from gpt_oss_mxfp4.convert.original import from_original, original_tensors, to_original
from gpt_oss_mxfp4.convert.per_expert import (
    DROPPED,
    GateUp,
    Spelling,
    as_bytes,
    expert_tensors,
    from_per_expert,
)
from gpt_oss_mxfp4.convert.plan import Output, split
from gpt_oss_mxfp4.options import Refused


@dataclass(frozen=True)
class Conversion:
    """What is made from what.

    Args:
        title: what the source is.
        to: the layout of the output.
        files: the source's files that hold tensors.
        outputs: the tensors of the output, in order.
        config: the output's config.json.
        notes: a line for each thing that is left out or assumed.
    """

    title: str
    to: Target
    files: tuple[Path, ...]
    outputs: tuple[Output, ...]
    config: dict[str, Any]
    notes: tuple[str, ...]


def plan_conversion(
    folder: Path, to: Target, gate_up: GateUp | None, companion: Path | None, quantize: Quantize
) -> Conversion:
    """Plans a conversion.

    Args:
        folder: the source.
        to: the layout that is wanted.
        gate_up: the order of gate and up rows, where the source needs to be told.
        companion: a folder that may have a config.json of the same model, for a source in the original layout.
        quantize: rounds experts, where they are BF16.

    Raises:
        CheckpointError: the source is not sound, or not of a layout that can be converted.
        Refused: it is in the wanted layout already.
    """
    notes: list[str] = []
    entries = find_tensors(folder)
    given = read_object(folder / CONFIG_FILE)
    dtypes = {name: entry.dtype for name, entry in entries.items()}
    layout = recognise(dtypes, given, gate_up, folder)
    if layout == to:
        raise Refused(f"{folder}: is in {TITLES[to]} already; --to names another")

    # What a source with MXFP4 experts says of its quantization must be true, as for the loader.
    fields = given if layout == "mxfp4" else with_experts(given, packed=True)
    if layout == "original":
        fields = _hugging_face_config(given, folder, companion, notes)
    config = GptOssConfig.from_dict(fields, where=folder / CONFIG_FILE)
    entries, unused = drop_unused(config, entries)
    notes += unused
    check_sizes(config.expert_shapes, folder)
    packed = expected_tensors(config)

    outputs = _in_hugging_face_layout(layout, packed, entries, config, folder, notes)
    if to == "bf16":
        outputs = to_bfloat16(outputs, folder)
        fields = with_experts(fields, packed=False)
    elif layout == "bf16":
        outputs = to_mxfp4(outputs, packed, quantize, folder)
    if to == "original":
        fields = to_original_config(config, folder / CONFIG_FILE)
        outputs = to_original(outputs)
    title = layout.producer if isinstance(layout, Spelling) else TITLES[layout]
    files = tuple(sorted({entry.file for entry in entries.values()}))
    return Conversion(title, to, files, tuple(outputs.values()), fields, tuple(notes))


def _hugging_face_config(
    given: Mapping[str, Any], folder: Path, companion: Path | None, notes: list[str]
) -> dict[str, Any]:
    """The config.json for a source in the original layout: the companion's where it is of the same model."""
    made = from_original_config(given, folder / CONFIG_FILE)
    config = GptOssConfig.from_dict(made, where=folder / CONFIG_FILE)
    if companion is not None and os.path.isfile(companion / CONFIG_FILE):
        try:
            fields = with_experts(read_object(companion / CONFIG_FILE), packed=True)
        except CheckpointError:
            fields = {}
        if same_model(fields, config):
            return (
                {**fields, "tie_word_embeddings": False}
                if fields.get("tie_word_embeddings")
                else fields
            )
        notes.append(f"{companion / CONFIG_FILE} is of another model and is not used")
    notes.append(
        "config.json has no token ids: the original layout names none; generation_config.json may"
    )
    return made


def _in_hugging_face_layout(
    layout: Target | Spelling,
    packed: Mapping[str, TensorSpec],
    entries: Mapping[str, TensorEntry],
    config: GptOssConfig,
    folder: Path,
    notes: list[str],
) -> dict[str, Output]:
    """The source's tensors under Hugging Face's names, their experts as they are."""
    experts = config.num_local_experts
    if isinstance(layout, Spelling):
        dropped = [name for name in entries if DROPPED.fullmatch(name)]
        if dropped:
            notes.append(
                f"{len(dropped)} scales of activations and of the KV cache, such as {quoted(dropped[0])}, are left"
                " out: here nothing is rounded by them, so logits differ slightly from those of a program that does"
            )
        entries = {
            name: as_bytes(entry) for name, entry in entries.items() if not DROPPED.fullmatch(name)
        }
        check_tensors(expert_tensors(packed, layout), entries, folder)
        return from_per_expert(packed, entries, layout)
    if layout == "original":
        check_tensors(original_tensors(packed).items(), entries, folder)
        return from_original(packed, entries, experts)
    wanted = packed if layout == "mxfp4" else bfloat16_tensors(packed)
    check_tensors(wanted.items(), entries, folder)
    return dict(_as_they_are(wanted, entries, experts))


def _as_they_are(
    wanted: Mapping[str, TensorSpec], entries: Mapping[str, TensorEntry], experts: int
) -> Iterable[tuple[str, Output]]:
    for name, spec in wanted.items():
        pieces = split(entries[name], experts if ".mlp.experts." in name else 1)
        yield name, Output(name, spec.dtype, spec.shape, pieces)
