"""The exported folder is a whole checkpoint, whose weights are those that training saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from demo.architecture import EXPERT_WEIGHTS, remove_rounding  # noqa: E402  (needs both)
from demo.export import export  # noqa: E402
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint  # noqa: E402
from gpt_oss_mxfp4.harmony import is_harmony, stop_ids  # noqa: E402
from tests.demo.tiny import SIZES, random_model  # noqa: E402


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("export") / "new"
    model = random_model(tokenizer)
    remove_rounding(model, keep_rounded=False)
    export(model, tokenizer, path)
    return path


def test_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_this_package_opens_it(folder: Path, tokenizer: Any) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.notes == ()
    for name, size in SIZES.items():
        assert getattr(checkpoint.config, name) == (tuple(size) if isinstance(size, list) else size)
    assert checkpoint.config.vocab_size == len(tokenizer)
    assert checkpoint.config.swiglu_limit == 7.0
    assert checkpoint.config.eos_token_ids == (tokenizer.eos_token_id,)


def test_the_config_is_as_published_ones_are(folder: Path, tokenizer: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GptOssForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert config["quantization_config"]["quant_method"] == "mxfp4"
    assert config["pad_token_id"] == tokenizer.pad_token_id
    # Nothing of how it was trained.
    text = json.dumps(config)
    assert "sink_attention" not in text
    assert "sorted_experts" not in text


def test_it_stops_where_harmony_stops(folder: Path, tokenizer: Any) -> None:
    generation = json.loads((folder / "generation_config.json").read_text())
    assert sorted(generation["eos_token_id"]) == sorted(stop_ids(tokenizer))
    assert generation["pad_token_id"] == tokenizer.pad_token_id
    assert generation["bos_token_id"] == tokenizer.bos_token_id
    assert generation.get("do_sample", False) is False


def test_its_tokenizer_writes_harmony(folder: Path, tokenizer: Any) -> None:
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "What is 12 + 34?"}]
    texts = [
        t.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for t in (tokenizer, loaded)
    ]
    assert texts[0] == texts[1]
    assert is_harmony(loaded, loaded.encode(texts[1]))


def test_transformers_loads_the_weights_that_training_saw(folder: Path, tokenizer: Any) -> None:
    seen = random_model(tokenizer)
    remove_rounding(seen, keep_rounded=True)
    loaded, report = transformers.GptOssForCausalLM.from_pretrained(
        folder,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        dtype=torch.bfloat16,
        output_loading_info=True,
    )
    assert not any(report.values()), report
    weights = loaded.state_dict()
    assert weights.keys() == seen.state_dict().keys()
    for name, want in seen.state_dict().items():
        assert weights[name].dtype == torch.bfloat16
        assert torch.equal(weights[name], want.to(torch.bfloat16)), name
        if name.endswith(EXPERT_WEIGHTS):  # which bfloat16 holds exactly
            assert torch.equal(weights[name].float(), want)


def test_the_model_is_left_as_it_was(tokenizer: Any, tmp_path: Path) -> None:
    model, other = (random_model(tokenizer) for _ in range(2))
    for one in (model, other):
        remove_rounding(one, keep_rounded=False)
    config = model.config.to_dict()
    export(model, tokenizer, tmp_path)
    assert model.config.to_dict() == config
    weights = model.state_dict()
    assert all(torch.equal(weights[name], want) for name, want in other.state_dict().items())
