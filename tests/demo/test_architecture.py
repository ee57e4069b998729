"""The model in training computes what transformers' own gpt-oss does, and is one once it is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from demo.architecture import EXPERT_WEIGHTS, make_config, make_model, remove_rounding  # noqa: E402
from demo.fake_quantize import round_to_mxfp4  # noqa: E402
from tests.demo.tiny import random_model, tiny_config, tiny_model  # noqa: E402  (all need both)

RTOL, ATOL = 1e-3, 1e-3
"""Of float32 logits of up to 10, which attention and experts of two layers sum in another order."""


def ids(batch: int, tokens: int) -> Any:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 500, (batch, tokens)))


def eager(model: Any) -> Any:
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    return model.eval()


def test_sizes_fit_mxfp4_and_the_real_architecture(tokenizer: Any) -> None:
    config = make_config(tokenizer)
    real = transformers.GptOssConfig()
    assert config.hidden_size % 32 == config.intermediate_size % 32 == 0
    assert config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert config.vocab_size == len(tokenizer)
    for name in (
        "head_dim",
        "sliding_window",
        "num_experts_per_tok",
        "rope_parameters",
        "rms_norm_eps",
    ):
        assert getattr(config, name) == getattr(real, name)
    assert config.tie_word_embeddings is False
    ends = tokenizer.convert_tokens_to_ids(["<|return|>", "<|call|>"])
    assert config.eos_token_id == ends
    assert config.pad_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_training_starts_with_layers_that_do_nothing(tokenizer: Any) -> None:
    model = tiny_model(tokenizer)
    x = ids(2, 40)
    with torch.no_grad():
        output = model.model(x, use_cache=False).last_hidden_state
        embedded = model.model.embed_tokens(x)
        torch.testing.assert_close(output, model.model.norm(embedded))
        assert not model(x, use_cache=False).logits.any()
    zeros = {name for name, p in model.named_parameters() if not p.any()}
    assert {
        "lm_head.weight",
        "model.layers.0.self_attn.sinks",
        "model.layers.0.mlp.router.bias",
    } < zeros
    assert "model.layers.0.self_attn.q_proj.weight" not in zeros


def test_the_same_seed_makes_the_same_model(tokenizer: Any) -> None:
    one, other = (tiny_model(tokenizer, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    another = tiny_model(tokenizer, seed=4).state_dict()
    assert not torch.equal(one["model.embed_tokens.weight"], another["model.embed_tokens.weight"])


def test_every_weight_is_set(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever transformers initialises is replaced, so that its version does not matter."""
    config = tiny_config(tokenizer)
    monkeypatch.setattr(
        transformers.GptOssForCausalLM,
        "_init_weights",
        lambda self, module: [p.data.fill_(torch.nan) for p in module.parameters(recurse=False)],
    )
    model = make_model(config, 0)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_model_in_training_is_transformers_own(tokenizer: Any) -> None:
    """Fused attention, sorted experts and the window, on a batch that is padded on the right."""
    trained, plain = random_model(tokenizer), random_model(tokenizer)
    remove_rounding(plain, keep_rounded=True)
    x = ids(3, 50)
    mask = torch.ones(3, 50, dtype=torch.int64)
    mask[1, 35:] = mask[2, 1:] = 0
    with torch.no_grad():
        got = trained(x, use_cache=False).logits
        want = eager(plain)(x, attention_mask=mask, use_cache=False).logits
    seen = mask.bool()
    assert want[seen].abs().max() > 3
    torch.testing.assert_close(got[seen], want[seen], rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("part", ["sinks", "window", "rounding"])
def test_every_part_moves_the_logits(tokenizer: Any, part: str) -> None:
    """Otherwise the comparison above would prove nothing."""
    models = [random_model(tokenizer) for _ in range(2)]
    for model in models:
        remove_rounding(model, keep_rounded=model is models[0] or part != "rounding")
    if part == "sinks":
        models[1].model.layers[1].self_attn.sinks.data.fill_(-100.0)
    if part == "window":
        models[1].model.layers[0].self_attn.sliding_window = None
        for model in models:  # eager attention has the window from its mask
            model.set_attn_implementation("sink_attention")
    with torch.no_grad():
        one, other = (model(ids(1, 50), use_cache=False).logits for model in models)
    assert (one - other).abs().max() > 100 * ATOL


def weights_behind_the_rounding(model: Any) -> dict[str, Any]:
    """Copies of what is trained, under the names of a plain model."""
    return {
        name.replace("parametrizations.", "").removesuffix(".original"): p.detach().clone()
        for name, p in model.named_parameters()
    }


def test_experts_are_rounded_and_nothing_else(tokenizer: Any) -> None:
    model = random_model(tokenizer)
    originals = weights_behind_the_rounding(model)
    remove_rounding(model, keep_rounded=True)
    after = dict(model.named_parameters())
    assert originals.keys() == after.keys()
    for name, parameter in after.items():
        expert = name.endswith(EXPERT_WEIGHTS)
        want = round_to_mxfp4(originals[name]) if expert else originals[name]
        assert torch.equal(parameter, want), name
        assert expert != torch.equal(parameter, originals[name])


def test_what_was_trained_behind_the_rounding_comes_back(tokenizer: Any) -> None:
    model = random_model(tokenizer)
    originals = weights_behind_the_rounding(model)
    remove_rounding(model, keep_rounded=False)
    plain = dict(transformers.GptOssForCausalLM(model.config).named_parameters())
    assert plain.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, originals[name]), name


def test_a_model_without_rounding_answers_as_any_other(tokenizer: Any) -> None:
    """A cache, and padding on the left, which attention in training knows nothing of."""
    model, plain = random_model(tokenizer), random_model(tokenizer)
    for one in (model, plain):
        remove_rounding(one, keep_rounded=False)
    eager(plain)
    x = ids(2, 30)
    x[0, :9] = model.config.pad_token_id
    mask = torch.ones_like(x)
    mask[0, :9] = 0
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False}
    with torch.inference_mode():
        got, want = (one.generate(x, **options) for one in (model, plain))
    assert got.tolist() == want.tolist()
