"""OpenAI's layout and Hugging Face's: the same bytes under other names, and the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.schema import expected_tensors
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.convert.original import original_name, original_tensors
from tests import tolerances
from tests.golden import CHECKPOINT, load_prompts
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields
from tests.gpt_oss_mxfp4.convert.folders import (
    as_numbers,
    as_original,
    assert_same_tensors,
    bf16,
    convert,
    original_config,
    read_tensors,
    refusal,
    small_model,
    write_checkpoint,
)
from tests.measure import logit_error
from tests.reference import original

PROMPTS = [prompt for prompt in load_prompts() if prompt.name in ("short", "window")]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint in OpenAI's layout, by the tests' own code."""
    tensors = as_original(read_tensors(CHECKPOINT))
    config = {
        **original_config(),
        **{
            key: value
            for key, value in json.loads((CHECKPOINT / "config.json").read_text()).items()
            if key in original_config()
        },
        "num_experts": 8,
        "experts_per_token": 4,
        "rope_theta": 150000,
    }
    return write_checkpoint(tmp_path_factory.mktemp("twin") / "original", tensors, config, 3)


def test_a_seed_of_openai_s_layout_becomes_its_twin_of_hugging_face_s(
    twin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert(capfd, twin, "--output", tmp_path / "hf", "--tokenizer", CHECKPOINT)
    assert_same_tensors(read_tensors(tmp_path / "hf"), read_tensors(CHECKPOINT))
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "hf" / name).read_text() == (CHECKPOINT / name).read_text()


def test_a_seed_of_hugging_face_s_layout_becomes_its_twin_of_openai_s(
    twin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert(capfd, CHECKPOINT, "--to", "original", "--output", tmp_path / "original")
    assert_same_tensors(read_tensors(tmp_path / "original"), read_tensors(twin))
    made = json.loads((tmp_path / "original/config.json").read_text())
    assert made == json.loads((twin / "config.json").read_text())


def test_back_and_forth_gives_equal_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards = ("--shard-gb", "0.001")
    convert(capfd, CHECKPOINT, "--to", "original", "--output", tmp_path / "1/original", *shards)
    for i in (1, 2):
        tokenizer = ("--tokenizer", CHECKPOINT)
        convert(
            capfd, tmp_path / f"{i}/original", "--output", tmp_path / f"{i}/hf", *shards, *tokenizer
        )
        to = ("--to", "original", *shards)
        convert(capfd, tmp_path / f"{i}/hf", "--output", tmp_path / f"{i + 1}/original", *to)
    for layout in ("hf", "original"):
        files = sorted(path.name for path in (tmp_path / "1" / layout).iterdir())
        assert files == sorted(path.name for path in (tmp_path / "2" / layout).iterdir())
        assert len([name for name in files if name.endswith(".safetensors")]) == 4
        for name in files:
            once = (tmp_path / "1" / layout / name).read_bytes()
            assert once == (tmp_path / "2" / layout / name).read_bytes(), name


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_openai_s_own_computation_on_what_is_written_gives_the_golden_logits(
    prompt: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those are transformers', from Hugging Face's layout."""
    convert(capfd, CHECKPOINT, "--to", "original", "--output", tmp_path / "original")
    config = json.loads((tmp_path / "original/config.json").read_text())
    weights = as_numbers(read_tensors(tmp_path / "original"))
    logits = original.forward(config, weights, prompt.token_ids)  # type: ignore[attr-defined]
    error = logit_error(logits[prompt.positions], prompt.logits)  # type: ignore[attr-defined]
    bound = tolerances.REFERENCE_LOGITS
    assert (error.maximum <= bound.maximum, error.mean <= bound.mean, error.top1) == (True, True, 1)


def test_other_orders_of_rows_would_be_seen_in_the_logits(twin: Path) -> None:
    config = json.loads((twin / "config.json").read_text())
    weights = as_numbers(read_tensors(twin))
    prompt = PROMPTS[0]
    size = config["head_dim"]
    pairs = (
        np.arange(size).reshape(2, -1).T.reshape(-1)
    )  # what a layout of neighbouring pairs needs
    for name, rows in (
        ("block.1.attn.qkv.weight", np.arange(512).reshape(-1, size)[:, pairs].reshape(-1)),
        ("block.1.attn.qkv.weight", np.roll(np.arange(512), 128)),  # k before q
        ("block.1.attn.out.weight", np.roll(np.arange(192), 1)),
    ):
        moved = {**weights, name: weights[name][rows]}
        logits = original.forward(config, moved, prompt.token_ids)
        error = logit_error(logits[prompt.positions], prompt.logits)
        assert error.maximum > 100 * tolerances.REFERENCE_LOGITS.maximum, name
    blocks = weights["block.1.mlp.mlp1_weight.blocks"]
    halves = np.concatenate([blocks[:, 0::2], blocks[:, 1::2]], axis=1)
    logits = original.forward(
        config, {**weights, "block.1.mlp.mlp1_weight.blocks": halves}, prompt.token_ids
    )
    assert logit_error(logits[prompt.positions], prompt.logits).maximum > 1e-3


def test_every_tensor_has_one_place_in_openai_s_layout() -> None:
    tensors = expected_tensors(GptOssConfig.from_dict(config_fields()))
    specs = original_tensors(tensors)
    assert {original_name(name) for name in tensors} == set(specs)
    assert len(specs) == 3 + 2 * 15
    assert specs["block.1.attn.qkv.weight"] == ("BF16", (4 * 8 + 2 * 2 * 8, 64))
    assert specs["block.1.attn.qkv.bias"] == ("BF16", (64,))
    assert specs["block.0.mlp.mlp1_weight.blocks"] == ("U8", (2, 64, 2, 16))


def test_a_tied_output_matrix_is_written_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    tensors = small_model(rng)
    del tensors["lm_head.weight"]
    source = write_checkpoint(tmp_path / "tied", tensors, config_fields(tie_word_embeddings=True))
    convert(capfd, source, "--to", "original", "--output", tmp_path / "original")
    made = read_tensors(tmp_path / "original")
    assert (made["unembedding.weight"].data == made["embedding.weight"].data).all()
    convert(capfd, tmp_path / "original", "--output", tmp_path / "hf")
    assert not open_checkpoint(tmp_path / "hf").config.tie_word_embeddings


def test_an_output_matrix_beside_a_tied_one_is_left_out_and_it_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    tied = config_fields(tie_word_embeddings=True)
    source = write_checkpoint(tmp_path / "tied", small_model(rng), tied)
    err = convert(capfd, source, "--to", "original", "--output", tmp_path / "original")
    note = "lm_head.weight (2048 bytes) is not used: tie_word_embeddings is true, the embedding serves\n"
    assert note in err
    made = read_tensors(tmp_path / "original")
    assert (made["unembedding.weight"].data == made["embedding.weight"].data).all()


@pytest.mark.parametrize(
    ("text", "noted"),
    [(None, False), ("{", True), (json.dumps(config_fields(swiglu_limit=6.0)), True)],
    ids=["none", "no JSON", "another model's"],
)
def test_a_config_beside_the_tokenizer_that_is_no_config_of_the_model_is_not_used(
    text: str | None,
    noted: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    source = write_checkpoint(
        tmp_path / "original", as_original(small_model(rng)), original_config()
    )
    given = tmp_path / "given"
    given.mkdir()
    (given / "tokenizer.json").write_text("{}")
    if text is not None:
        (given / "config.json").write_text(text)
    err = convert(capfd, source, "--tokenizer", given, "--output", tmp_path / "hf")
    note = f"{given / 'config.json'} is of another model and is not used\n"
    assert (note in err) == noted
    assert "config.json has no token ids" in err
    assert (tmp_path / "hf/tokenizer.json").is_file()
    assert open_checkpoint(tmp_path / "hf").config.swiglu_limit == 7.0


def test_a_tied_config_beside_the_tokenizer_is_used_but_for_the_tie(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    """OpenAI's layout has an output matrix in any case."""
    source = write_checkpoint(
        tmp_path / "original", as_original(small_model(rng)), original_config()
    )
    fields = config_fields(eos_token_id=7)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({**fields, "tie_word_embeddings": True}))
    convert(capfd, source, "--output", tmp_path / "hf")
    made = json.loads((tmp_path / "hf/config.json").read_text())
    assert made == {**fields, "tie_word_embeddings": False}


def test_missing_and_misshapen_tensors_of_openai_s_layout_come_in_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    tensors = as_original(small_model(rng))
    del tensors["block.1.attn.sinks"]
    tensors["block.0.attn.qkv.bias"] = bf16(np.zeros(65))
    source = write_checkpoint(tmp_path / "original", tensors, original_config())
    message = refusal(capfd, source, "--output", tmp_path / "hf")
    assert message.startswith(f"{source}: 2 faults\n")
    assert "  block.1.attn.sinks must be there, is missing\n" in message
    assert "  block.0.attn.qkv.bias must be [64], got [65] in " in message


def test_without_a_config_beside_it_one_is_made_and_what_it_lacks_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    source = write_checkpoint(
        tmp_path / "original", as_original(small_model(rng)), original_config()
    )
    err = convert(capfd, source, "--output", tmp_path / "hf")
    assert "config.json has no token ids" in err
    assert "no tokenizer.json was found" in err
    made, given = open_checkpoint(tmp_path / "hf").config, GptOssConfig.from_dict(config_fields())
    assert made == given


def test_the_folder_above_original_gives_tokenizer_and_config(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    root = tmp_path / "root"
    write_checkpoint(root / "original", as_original(small_model(rng)), original_config())
    (root / "config.json").write_text(json.dumps(config_fields(eos_token_id=7), indent=2) + "\n")
    (root / "tokenizer.json").write_text("{}")
    (root / "chat_template.jinja").write_text("{{ messages }}")
    (root / "modeling_evil.py").write_text("raise SystemExit(3)")
    convert(capfd, root / "original", "--output", tmp_path / "hf")
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    assert (tmp_path / "hf/config.json").read_text() == (root / "config.json").read_text()
