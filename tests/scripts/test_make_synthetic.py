"""The synthetic checkpoint: real layout, finite activations, careful with what is there."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from scripts import make_synthetic as script
from tests.reference.model import forward, read_checkpoint
from tests.reference.mxfp4 import dequantize

SMALL = script.Sizes(
    num_hidden_layers=2,
    num_local_experts=4,
    hidden_size=64,
    intermediate_size=32,
    num_attention_heads=2,
    num_key_value_heads=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint of two layers in several shards."""
    path = tmp_path_factory.mktemp("synthetic") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "MAX_SHARD_BYTES", 20_000_000)
        patch.setattr(script, "CHUNK_BYTES", 1_000_000)
        script.make_synthetic(path, SMALL)
    return path


@pytest.mark.parametrize(("size", "total_bytes"), [("20b", 13.76e9), ("120b", 65.25e9)])
def test_real_sizes(size, total_bytes):
    tensors = list(script.list_tensors(script.SIZES[size]))
    shards = script.split_shards(tensors)
    assert [tensor for shard in shards for tensor in shard] == tensors
    assert max(sum(t.num_bytes for t in shard) for shard in shards) <= 5e9
    assert sum(t.num_bytes for t in tensors) == pytest.approx(total_bytes, rel=1e-3)


def test_files(folder):
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [
        "config.json",
        "generation_config.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_index_names_the_shard_of_every_tensor(folder):
    safetensors = pytest.importorskip("safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = {}
    for path in folder.glob("*.safetensors"):
        for name, _ in safetensors.deserialize(path.read_bytes()):
            held[name] = path.name
    assert index["weight_map"] == held


def test_logits_are_finite_and_spread(folder):
    config, weights = read_checkpoint(folder)
    logits = forward(config, weights, np.arange(40) * 5000)
    assert 0.5 < logits.std() < 2


def test_experts_of_real_width_keep_the_size_of_their_input_and_layers_add_an_eighth(folder):
    _, weights = read_checkpoint(folder)
    for projection, size in (("gate_up_proj", 1), ("down_proj", 1 / 8)):
        name = f"model.layers.0.mlp.experts.{projection}"
        w = dequantize(weights[f"{name}_blocks"], weights[f"{name}_scales"])
        assert 1 < w.std() * np.sqrt(2880) / size < 1.5
    attention = weights["model.layers.0.self_attn.o_proj.weight"]
    assert attention.std() * np.sqrt(attention.shape[1]) == pytest.approx(1 / 8, rel=0.05)


def test_many_layers_are_not_chaotic(tmp_path, monkeypatch):
    """Rounding the experts' inputs to bfloat16 moves the logits little, even where another expert is chosen for it."""
    # Sums of 64 weights are made as large as those of 2880.
    monkeypatch.setattr(script, "SCALE_BYTES", tuple(byte + 3 for byte in script.SCALE_BYTES))
    sizes = replace(SMALL, num_hidden_layers=24, num_local_experts=16)
    script.make_synthetic(tmp_path, sizes)
    config, weights = read_checkpoint(tmp_path)
    tokens = np.arange(48) * 4000
    exact, rounded = [forward(config, weights, tokens, kind) for kind in ("float32", "bfloat16")]
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(exact, rounded, strict=True)]
    print(np.quantile(alike, [0, 0.1, 0.5]), (exact.argmax(-1) == rounded.argmax(-1)).mean())
    assert np.quantile(alike, 0.1) > 0.999


def test_fewer_layers_are_the_first_of_more(folder, tmp_path):
    script.make_synthetic(tmp_path, replace(SMALL, num_hidden_layers=1))
    config, weights = read_checkpoint(tmp_path)
    assert config["layer_types"] == ["sliding_attention"]
    _, more = read_checkpoint(folder)
    assert set(weights) < set(more)
    assert all(np.array_equal(w, more[name]) for name, w in weights.items())


def test_every_token_decodes(folder):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == script.VOCAB_SIZE
    assert all(tokenizer.convert_ids_to_tokens(list(range(script.VOCAB_SIZE))))
    assert tokenizer.eos_token_id == 200002
    assert tokenizer.convert_tokens_to_ids("<|call|>") == 200012
    text = "Größe, 尺寸 and\nsize"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([256 + 85, 256 + 86]) == " baba babe"


def test_refuses_to_overwrite(folder):
    with pytest.raises(FileExistsError, match=r"must hold no checkpoint, got config\.json"):
        script.make_synthetic(folder, SMALL)


def test_force_replaces_all_shards(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    script.make_synthetic(copy, SMALL, seed=1, force=True)
    assert [p.name for p in copy.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    _, before = read_checkpoint(folder)
    _, after = read_checkpoint(copy)
    name = "model.layers.0.mlp.experts.down_proj_blocks"
    assert not np.array_equal(before[name], after[name])


def test_asks_for_disk_space_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(OSError, match=r"must have 14\.0 GB free, got 1\.0 GB"):
        script.make_synthetic(tmp_path / "new", script.SIZES["20b"])
    assert not (tmp_path / "new").exists()


def test_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(script, "write_tokenizer", fail)
    with pytest.raises(OSError, match="disk full"):
        script.make_synthetic(tmp_path, SMALL)
    assert list(tmp_path.iterdir()) == []
