"""Whole folders: what is found, counted and noted, and the exact refusal of each broken one."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.survey import survey
from tests.gpt_oss_mxfp4.checkpoint.small import (
    DTYPE_BYTES,
    ORIGINAL,
    Tensors,
    file_bytes,
    raw_file,
    refusal,
    small_tensors,
    write_folder,
)
from tests.gpt_oss_mxfp4.checkpoint.test_schema import BF16, LAYER_20B
from tests.gpt_oss_mxfp4.test_config import GPT_OSS_20B

PUBLISHED = "openai/gpt-oss-20b (or openai/gpt-oss-120b)"
AGAIN = "The download is incomplete or mixed: download the checkpoint again"
DAMAGED = "The file is damaged or was not written as safetensors: download it again"
LEFTOVERS = "Remove the files that are leftovers of another download"
NO_PART = "Move a file that is no part of the model out of the folder, or download it again"

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def halves() -> dict[str, Tensors]:
    """The small checkpoint in two shards."""
    items = list(small_tensors().items())
    return {ONE: dict(items[:20]), TWO: dict(items[20:])}


def weight_map(files: dict[str, Tensors]) -> dict[str, str]:
    return {name: file for file, tensors in files.items() for name in tensors}


def original_bytes() -> int:
    return sum(DTYPE_BYTES[dtype] * math.prod(shape) for dtype, shape in ORIGINAL.values())


def test_single_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors()})
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.folder == folder
    assert checkpoint.files == (folder / "model.safetensors",)
    assert checkpoint.notes == ()
    assert checkpoint.config.hidden_size == 64
    tensors = {name: (entry.dtype, entry.shape) for name, entry in checkpoint.entries.items()}
    assert tensors == small_tensors()


def test_shards_with_an_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, halves(), weight_map(halves()))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.files == (folder / ONE, folder / TWO)
    assert set(checkpoint.entries) == set(small_tensors())
    assert checkpoint.entries["lm_head.weight"].file == folder / TWO


def test_shards_without_an_index_follow_from_their_headers(tmp_path: Path) -> None:
    assert len(open_checkpoint(write_folder(tmp_path, halves())).entries) == len(small_tensors())


def test_links_are_followed_as_the_download_cache_has_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "snapshot", {})
    blob = tmp_path / "blob"
    blob.write_bytes(file_bytes(small_tensors()))
    (folder / "model.safetensors").symlink_to(blob)
    assert open_checkpoint(folder).files == (folder / "model.safetensors",)


def test_full_size_20b_opens_from_its_header_alone(tmp_path: Path) -> None:
    tensors: Tensors = {
        "model.embed_tokens.weight": ("BF16", (201088, 2880)),
        "model.norm.weight": ("BF16", (2880,)),
        "lm_head.weight": ("BF16", (201088, 2880)),
    }
    for layer in range(24):
        tensors |= {f"model.layers.{layer}.{name}": spec for name, spec in LAYER_20B.items()}
    header, position = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = position + DTYPE_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = raw_file(json.dumps(header).encode())
    (tmp_path / "config.json").write_text(json.dumps(GPT_OSS_20B))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(text)
        file.truncate(len(text) + position)  # 13.8 GB of hole, which a weight byte would fill
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint.entries) == 459
    assert sum(entry.nbytes for entry in checkpoint.entries.values()) == 13_761_264_768


def test_both_layouts_load_the_model_tensors_and_say_so(tmp_path: Path) -> None:
    files = {**halves(), "model.safetensors": ORIGINAL}
    folder = write_folder(tmp_path, files, weight_map(halves()))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.files == (folder / ONE, folder / TWO)
    assert set(checkpoint.entries) == set(small_tensors())
    assert checkpoint.notes == (
        "4 block.* tensors (14464 bytes, in model.safetensors) are a second copy in the original/"
        " layout and are not used: the model.* tensors are",
    )
    assert original_bytes() == 14464


def test_both_layouts_in_one_file_load_the_model_tensors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors() | ORIGINAL})
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.entries) == set(small_tensors())
    assert len(checkpoint.notes) == 1


def test_sub_folders_are_never_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors()})
    for name in ("original", "metal"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(b"not even safetensors")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.files == (folder / "model.safetensors",)
    assert checkpoint.notes == ()


def test_hidden_files_are_never_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors()})
    (folder / "._model.safetensors").write_bytes(b"what macOS leaves beside a file")
    assert open_checkpoint(folder).files == (folder / "model.safetensors",)
    (folder / "config.json").unlink()
    assert [file.name for file in survey(folder).files] == ["model.safetensors"]


def test_tied_embedding_needs_no_lm_head(tmp_path: Path) -> None:
    tensors = small_tensors(tie_word_embeddings=True)
    folder = write_folder(tmp_path, {"model.safetensors": tensors}, tie_word_embeddings=True)
    assert "lm_head.weight" not in open_checkpoint(folder).entries


def test_tied_embedding_leaves_a_stored_lm_head_alone_and_says_so(tmp_path: Path) -> None:
    tensors = small_tensors()
    folder = write_folder(tmp_path, {"model.safetensors": tensors}, tie_word_embeddings=True)
    checkpoint = open_checkpoint(folder)
    assert "lm_head.weight" not in checkpoint.entries
    assert checkpoint.notes == (
        "lm_head.weight (2048 bytes) is not used: tie_word_embeddings is true, the embedding"
        " serves",
    )


def test_packed_experts_need_no_quantization_config(tmp_path: Path) -> None:
    files = {"model.safetensors": small_tensors()}
    open_checkpoint(write_folder(tmp_path, files, quantization_config=None))


def bf16_tensors() -> Tensors:
    """As transformers writes an unquantized gpt-oss."""
    tensors: Tensors = {}
    for name, spec in small_tensors().items():
        if name.endswith("_blocks"):
            tensors[name.removesuffix("_blocks")] = ("BF16", (2, 64, 64))
        elif not name.endswith("_scales"):
            tensors[name] = spec
    return tensors


@pytest.mark.parametrize("quantization_config", [None, {"quant_method": "mxfp4"}])
def test_bf16_experts_are_refused(tmp_path: Path, quantization_config: Any) -> None:
    files = {"model.safetensors": bf16_tensors()}
    folder = write_folder(tmp_path, files, quantization_config=quantization_config)
    assert refusal(folder) == (
        "FOLDER: experts must be MXFP4 (gate_up_proj_blocks and so on), got 4 unpacked tensors such"
        " as model.layers.0.mlp.experts.down_proj: this package multiplies straight from 4 bits."
        f" {BF16}."
    )


def test_original_layout_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # without weights beside it no checkpoint
    folder = write_folder(tmp_path / "original", {"model.safetensors": ORIGINAL})
    # The config there has other keys; the layout is named before they are missed.
    (folder / "config.json").write_text('{"num_experts": 32}')
    assert refusal(folder) == (
        "FOLDER: must hold model.* tensors, got only the block.* names of the original/ layout"
        " (4 tensors such as block.0.attn.norm.scale), which is not read here. Give the root folder"
        f" of {PUBLISHED}, which holds the same weights as model.* tensors, or make such a folder:"
        " gpt-oss-mxfp4 convert FOLDER --output NEW_FOLDER."
    )


def test_original_layout_names_the_folder_above_where_that_is_a_checkpoint(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"model.safetensors": small_tensors()})
    folder = write_folder(root / "original", {"model.safetensors": ORIGINAL})
    assert refusal(folder).endswith(f"which is not read here. Give the folder above it, {root}.")


def test_repository_with_nothing_but_sub_folders_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {})
    write_folder(folder / "original", {"model.safetensors": ORIGINAL})
    assert refusal(folder) == (
        "FOLDER: must hold *.safetensors files, has none. Give the root folder of a checkpoint such"
        f" as {PUBLISHED}; its sub-folder original/ is not read."
    )


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        "FOLDER: must hold config.json, does not. Give the root folder of a checkpoint such as"
        f" {PUBLISHED}."
    )


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == "FOLDER: must be a folder, is not. Check the path."


def test_bad_config_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"model.safetensors": small_tensors()}, vocab_size=0)
    assert refusal(folder).startswith("FOLDER/config.json: vocab_size must be an integer from 1")


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, halves(), weight_map(halves()))
    (folder / TWO).unlink()
    assert refusal(folder) == f"FOLDER: {TWO} must be in the folder, is missing. {AGAIN}."


def test_dangling_link_is_a_missing_shard(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {})
    (folder / "model.safetensors").symlink_to(tmp_path / "pruned")
    text = "model.safetensors must be in the folder, is missing"
    assert refusal(folder) == f"FOLDER: {text}. {AGAIN}."


def test_truncated_shard_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, halves(), weight_map(halves()))
    content = (folder / TWO).read_bytes()
    (folder / TWO).write_bytes(content[:-1])
    assert refusal(folder) == (
        f"FOLDER: {TWO}: must have {len(content)} bytes by its header, has {len(content) - 1}:"
        f" 1 are missing. {DAMAGED}."
    )


def test_all_damaged_shards_come_in_one_message(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, halves())
    (folder / ONE).write_bytes(b"")
    (folder / TWO).write_bytes(raw_file(b"[]"))
    assert refusal(folder) == (
        "FOLDER: 2 faults\n"
        "bad header (1):\n"
        f"  {TWO}: header must begin with '{{', got '['\n"
        f"  cure: {DAMAGED}.\n"
        "truncated file (1):\n"
        f"  {ONE}: must open with an 8-byte header length, has only 0 bytes\n"
        f"  cure: {DAMAGED}."
    )


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("../model.safetensors", "../model.safetensors"),
        ("/etc/model.safetensors", "/etc/model.safetensors"),
        ("original/model.safetensors", "original/model.safetensors"),
        ("..\\model.safetensors", "..\\model.safetensors"),
        (".model.safetensors", ".model.safetensors"),
        ("model.bin", "model.bin"),
        ("\0.safetensors", r"'\x00.safetensors'"),
        ("", "''"),
        (7, "7"),
        (["model.safetensors"], "['model.safetensors']"),
    ],
)
def test_index_that_leaves_its_folder_is_refused(tmp_path: Path, file: Any, shown: str) -> None:
    claims = {**weight_map(halves()), "lm_head.weight": file}
    assert refusal(write_folder(tmp_path, halves(), claims)) == (
        "FOLDER/model.safetensors.index.json: weight_map must name *.safetensors files of its own"
        f" folder, got {shown}. {AGAIN}."
    )


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_a_weight_map_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path, halves())
    (folder / "model.safetensors.index.json").write_text(text)
    assert refusal(folder) == (
        f"FOLDER/model.safetensors.index.json: weight_map must be an object, not empty. {AGAIN}."
    )


def test_index_with_equal_keys_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, halves())
    text = f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}'
    (folder / "model.safetensors.index.json").write_text(text)
    assert refusal(folder) == (
        "FOLDER/model.safetensors.index.json: holds the key a twice."
        " Download the file again from the repository it came from."
    )


def test_index_that_names_a_tensor_its_shard_lacks_is_refused(tmp_path: Path) -> None:
    claims = {**weight_map(halves()), "lm_head.weight": ONE}
    text = f"lm_head.weight must be in {ONE} by model.safetensors.index.json, is not"
    assert refusal(write_folder(tmp_path, halves(), claims)) == f"FOLDER: {text}. {AGAIN}."


def test_tensor_that_the_index_does_not_list_is_refused(tmp_path: Path) -> None:
    files: dict[str, Tensors] = {
        **halves(),
        "adapter.safetensors": {"lora_A.weight": ("BF16", (4, 4))},
    }
    folder = write_folder(tmp_path, files, weight_map(halves()))
    text = "lora_A.weight in adapter.safetensors must be listed in model.safetensors.index.json"
    assert refusal(folder) == f"FOLDER: {text}, is not. {NO_PART}."


def test_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    files: dict[str, Tensors] = {
        **halves(),
        "model.safetensors": {"model.norm.weight": ("BF16", (64,))},
    }
    text = f"model.norm.weight must be in one file, is in {TWO} and model.safetensors"
    assert refusal(write_folder(tmp_path, files)) == f"FOLDER: {text}. {LEFTOVERS}."


def test_faults_of_the_tensor_table_name_the_folder(tmp_path: Path) -> None:
    tensors = small_tensors()
    del tensors["model.layers.0.mlp.experts.gate_up_proj_scales"]
    folder = write_folder(tmp_path, {"model.safetensors": tensors})
    assert refusal(folder).startswith(
        "FOLDER: model.layers.0.mlp.experts.gate_up_proj_blocks must have"
    )


def test_error_travels_between_processes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.faults == caught.value.faults
