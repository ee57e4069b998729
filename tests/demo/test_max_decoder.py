"""Decoding by this package: how it is asked to; what it computes is tested elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import max_decoder as module
from demo.max_decoder import decode_in_max
from demo.questions import MAX_ANSWER_TOKENS
from gpt_oss_mxfp4.options import GenerateOptions
from gpt_oss_mxfp4.prompt import Prompt


def test_answers_are_whole_greedy_and_of_one_pipeline(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.save_pretrained(tmp_path)
    pipelines: list[tuple[Any, ...]] = []
    asked: list[list[int]] = []

    def load(*arguments: Any) -> Any:
        pipelines.append(arguments)
        return "pipeline"

    def stream(pipeline: Any, prompt: Prompt, options: GenerateOptions) -> Iterator[list[int]]:
        assert pipeline == "pipeline"
        assert prompt.harmony
        assert prompt.tokenizer.get_vocab() == tokenizer.get_vocab()
        assert (options.temperature, options.max_new_tokens) == (0.0, MAX_ANSWER_TOKENS)
        asked.append(prompt.ids)
        yield [prompt.ids[0], 1]
        yield []
        yield [2]

    checkpoint = SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr(module, "open_checkpoint", lambda folder: checkpoint)
    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "stream", stream)
    answers = list(decode_in_max(tmp_path, [[5, 6], [7]], max_prompt_tokens=40))
    assert answers == [[5, 1, 2], [7, 1, 2]]
    assert asked == [[5, 6], [7]]
    ((given, *tokens, options),) = pipelines
    assert (given, tokens, options.activations) == (checkpoint, [40, MAX_ANSWER_TOKENS], "bfloat16")
