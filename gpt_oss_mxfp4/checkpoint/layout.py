"""Which layout a checkpoint's tensors are of, and the refusal of those that cannot be loaded.

For the refusal names suffice, so an index can be judged before its weights are downloaded.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"

PUBLISHED = "openai/gpt-oss-20b (or openai/gpt-oss-120b)"
"""The repositories whose root folder is what this package loads."""

QUANTIZATION_CONFIG = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}
"""What a published config.json says of its quantization, for checkpoints that are made here."""

BLOCKS = "_blocks"
"""Ending of a tensor of E2M1 codes."""

SCALES = "_scales"
"""Ending of the tensor of E8M0 scales beside it."""

CONVERT = (
    "gpt-oss-mxfp4 convert FOLDER --output NEW_FOLDER"
    " (one on the Hub after `hf download REPOSITORY --local-dir FOLDER`)"
)
"""What to run on a checkpoint that can be converted."""

BF16_CURE = f"Use a checkpoint with MXFP4 experts: {PUBLISHED}; or round a BF16 fine-tune to them: {CONVERT}"

PROJECTIONS = ("gate_up_proj", "down_proj")
"""What names call the experts' two matmuls."""

PLAIN_EXPERTS = tuple(f".mlp.experts.{projection}" for projection in PROJECTIONS)
"""Endings of experts that are not quantized."""

_ORIGINAL_NAMES = ("embedding.weight", "norm.scale", "unembedding.weight")


@dataclass(frozen=True)
class Layout:
    """A way to lay out gpt-oss's weights.

    Args:
        name: One word, for programs.
        description: A line, for readers.
    """

    name: str
    description: str


HUGGING_FACE = Layout("huggingface", "Hugging Face names, experts in MXFP4")
HUGGING_FACE_BF16 = Layout("huggingface-bf16", "Hugging Face names, experts not quantized")
ORIGINAL = Layout("original", "OpenAI's original/ names, experts in MXFP4")
ORIGINAL_BF16 = Layout("original-bf16", "OpenAI's original/ names, experts not quantized")
QUARK = Layout("quark", "AMD Quark, a tensor of codes and one of scales for each matrix")
COMPRESSED_TENSORS = Layout("compressed-tensors", "compressed-tensors, packed codes and scales")
OTHER_MODEL = Layout("other-model", "another model's")
UNKNOWN = Layout("unknown", "not recognised")
EMPTY = Layout("empty", "no tensor could be read")


@dataclass(frozen=True)
class Foreign:
    """A layout that is neither loaded nor converted.

    Args:
        layout: What it is.
        names: Of the tensors that tell it.
        cure: What to do instead.
        dtypes: How the safetensors dtypes of these tensors begin.
    """

    layout: Layout
    names: re.Pattern[str]
    cure: str
    dtypes: tuple[str, ...] = ("",)


FOREIGN = (
    Foreign(
        Layout("bitsandbytes", "bitsandbytes"),
        re.compile(r".+\.(absmax|quant_map|nested_absmax|quant_state\.bitsandbytes__\w+)"),
        "Its 4-bit numbers are of another kind (NF4): convert the BF16 repository of the same model",
    ),
    Foreign(
        Layout("nvfp4", "NVFP4"),
        re.compile(r".+\.(weight_global_scale|weight_scale_2|input_global_scale)"),
        "It has E4M3 scales for 16 elements, which MXFP4 cannot hold: convert a BF16 repository of the same model",
    ),
    Foreign(
        Layout("integers", "an integer format (GPTQ, AWQ or int4 compressed-tensors)"),
        re.compile(r".+\.(qweight|qzeros|g_idx|weight_shape|weight_zero_point)"),
        "Integers with their scales are no MXFP4: convert a BF16 repository of the same model",
    ),
    Foreign(
        Layout("unsloth", "Unsloth's layout of single experts"),
        re.compile(r".+\.experts\.(gate_up_projs|down_projs)\..+|.+\.mlp\.router\.linear\..+"),
        "Convert Unsloth's -BF16 repository of the same model, which has the experts of a layer in one tensor",
    ),
    Foreign(
        Layout("adapter", "an adapter (LoRA)"),
        re.compile(r".+\.(lora_A|lora_B|lora_embedding_A)\..+"),
        "Merge it into its base model with the program that trained it, and save that as BF16",
    ),
    Foreign(
        Layout("fp8", "FP8"),
        re.compile(r".*\.experts\..*"),
        "Its experts have 8 bits, not 4: convert a BF16 repository of the same model",
        ("F8_E4M3", "F8_E5M2"),
    ),
)
"""The first that fits is meant: NVFP4 has scales in FP8."""


def is_weight_file(name: str) -> bool:
    """Whether a file is one of a checkpoint's weight files, of which folders and repositories may have any number.

    Args:
        name: Its path below the checkpoint's folder. Files of sub-folders are other copies of the weights, and hidden
            ones are other programs' leftovers.
    """
    return name.endswith(".safetensors") and "/" not in name and not name.startswith(".")


def recognise_layout(dtypes: Mapping[str, str], fields: Mapping[str, Any]) -> Layout:
    """Names the layout of a checkpoint, whether this package loads it or not.

    Args:
        dtypes: Safetensors dtype of each tensor, by name.
        fields: The object in config.json, unchecked; empty where there is none.

    Returns:
        One of this file's layouts. Where two lie side by side, the one that is loaded.
    """
    quantization = fields.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    packed = any(name.endswith((".weight_packed", "_weight_packed")) for name in dtypes)
    if not dtypes:
        return EMPTY
    if any(".mlp.experts." in name and name.endswith(BLOCKS) for name in dtypes):
        return HUGGING_FACE
    if is_other_model(fields):
        return OTHER_MODEL
    if found := find_foreign(dtypes):
        return found[0].layout
    if packed or method == "compressed-tensors":
        return COMPRESSED_TENSORS
    if method == "quark" or has_quark_codes(dtypes):
        return QUARK
    if any(name.startswith("block.") for name in dtypes):
        coded = any(name.endswith(".blocks") for name in dtypes)
        return ORIGINAL if coded else ORIGINAL_BF16
    if any(name.endswith(PLAIN_EXPERTS) for name in dtypes):
        return HUGGING_FACE_BF16
    return UNKNOWN


def is_other_model(fields: Mapping[str, Any]) -> bool:
    """Whether a config.json says that it is not gpt-oss's; that of the original layout does not say."""
    return bool(fields.get("model_type", "gpt_oss") != "gpt_oss")


def find_foreign(dtypes: Mapping[str, str]) -> tuple[Foreign, str] | None:
    """Finds the foreign layout that a checkpoint is of, and the first tensor by name that tells it."""
    names = sorted(dtypes)
    for foreign in FOREIGN:
        for name in filter(foreign.names.fullmatch, names):
            if dtypes[name].startswith(foreign.dtypes):
                return foreign, name
    return None


def has_quark_codes(dtypes: Mapping[str, str]) -> bool:
    """Whether experts have codes, two a byte, and scales beside them, named as AMD Quark names them."""
    return any(
        ".experts." in name and dtypes.get(name.removesuffix("_scale")) == "U8"
        for name in dtypes
        if name.endswith("_scale")
    )


def is_original(name: str) -> bool:
    """Whether a tensor name is of the layout of the published ``original/`` folders."""
    return name.startswith("block.") or name in _ORIGINAL_NAMES


def check_layout(names: Iterable[str], folder: Path) -> None:
    """Refuses a checkpoint that has only the original layout, or only BF16 experts.

    Args:
        names: The tensor names.
        folder: Where they were found.

    Raises:
        CheckpointError: If all names are of the original layout; or if experts are there and not
            one ``_blocks`` tensor is.
    """
    names = sorted(names)
    plain = [name for name in names if name.endswith(PLAIN_EXPERTS)]
    if names and all(map(is_original, names)):
        text = (
            "must hold model.* tensors, got only the block.* names of the original/ layout"
            f" ({len(names)} tensors such as {quoted(names[0])}), which is not read here"
        )
        raise CheckpointError(folder, [Fault("original layout", text, _original_cure(folder))])
    if plain and not any(name.endswith(BLOCKS) for name in names):
        text = (
            f"experts must be MXFP4 (gate_up_proj_blocks and so on), got {len(plain)} unpacked"
            f" tensors such as {quoted(plain[0])}: this package multiplies straight from 4 bits"
        )
        raise CheckpointError(folder, [Fault("BF16 experts", text, BF16_CURE)])


def _original_cure(folder: Path) -> str:
    above = folder.resolve().parent
    beside = (file.name for file in above.glob("*"))
    if (above / CONFIG_FILE).is_file() and any(map(is_weight_file, beside)):
        return f"Give the folder above it, {above}"
    return (
        f"Give the root folder of {PUBLISHED}, which holds the same weights as model.* tensors, or"
        " make such a folder: gpt-oss-mxfp4 convert FOLDER --output NEW_FOLDER"
    )
