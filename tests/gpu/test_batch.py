"""Sequences of a batch on the device: each gets the tokens that it gets alone."""

from __future__ import annotations

import os

import pytest

if os.environ.get("MXFP4_GPU_TESTS") != "1":  # before MAX is imported, which takes seconds
    pytest.skip("set MXFP4_GPU_TESTS=1 on a Hopper host", allow_module_level=True)
pytest.importorskip("transformers", reason="MAX's serving extras are not installed")

from transformers import AutoTokenizer

from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import DEMO_MODEL, EngineOptions

pytestmark = pytest.mark.gpu

NEW_TOKENS = 8
QUESTIONS = [
    "What is 4587 + 968?",
    "What is 120 + 7?",
    "What is 77 - 8?",
    "What is 3000 + 21?",
]
"""Of a model whose likeliest tokens are far ahead of the others, and of 594 outputs: no multiple of a tile's."""


def test_a_sequence_gets_the_tokens_that_it_gets_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in QUESTIONS
    ]
    options = EngineOptions(devices="gpu")
    longest = max(map(len, prompts))
    pipeline = engine.load(open_checkpoint(DEMO_MODEL), longest, NEW_TOKENS, options, len(prompts))
    alone = [list(engine.stream_batch(pipeline, [prompt], NEW_TOKENS)) for prompt in prompts]
    together = list(engine.stream_batch(pipeline, prompts, NEW_TOKENS))
    assert together == [[step[0] for step in steps] for steps in zip(*alone, strict=True)]
