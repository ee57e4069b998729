"""The small checkpoint: reproducible, and a whole one by transformers' own reading."""

import json

import numpy as np
import pytest

from tests.golden import CHECKPOINT
from tests.reference.model import read_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.make_checkpoint import make_checkpoint  # noqa: E402  (needs both of the above)


def test_golden_checkpoint_is_what_the_script_makes(tmp_path):
    make_checkpoint(tmp_path)
    _, made = read_checkpoint(tmp_path)
    _, golden = read_checkpoint(CHECKPOINT)
    assert made.keys() == golden.keys()
    assert all(np.array_equal(made[name], golden[name]) for name in golden)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_finds_every_tensor(dtype):
    _, loading = transformers.GptOssForCausalLM.from_pretrained(
        CHECKPOINT,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        dtype=dtype,
        output_loading_info=True,
    )
    assert not any(loading.values()), loading


def test_sizes_may_be_changed(tmp_path):
    make_checkpoint(tmp_path, num_hidden_layers=1, vocab_size=300, chat_template="{{ messages }}")
    config, weights = read_checkpoint(tmp_path)
    assert config["layer_types"] == ["sliding_attention"]
    assert weights["lm_head.weight"].shape == (300, 192)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).chat_template == "{{ messages }}"


def test_tokenizer_encodes_any_text():
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    text = "The lighthouse: 灯台 <|end|>\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids("<|end|>") in ids
    assert tokenizer.chat_template is None
    generation = json.loads((CHECKPOINT / "generation_config.json").read_text())
    assert tokenizer.eos_token_id in generation["eos_token_id"]
