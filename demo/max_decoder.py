"""Greedy decoding of a checkpoint by this package, many prompts on one compiled pipeline."""

from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer

from demo.questions import MAX_ANSWER_TOKENS
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.engine import load, stream
from gpt_oss_mxfp4.options import GenerateOptions
from gpt_oss_mxfp4.prompt import Prompt


def decode_in_max(
    folder: Path, prompts: list[list[int]], *, max_prompt_tokens: int = 832
) -> Iterator[list[int]]:
    """Gives the answer's token ids for each prompt's, as `generate` would print them.

    Args:
        folder: a checkpoint.
        prompts: token ids.
        max_prompt_tokens: what the KV cache is made for; one size for all calls is compiled once.
    """
    checkpoint = open_checkpoint(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = GenerateOptions(model=str(folder), prompt="", max_new_tokens=MAX_ANSWER_TOKENS)
    pipeline = load(checkpoint, max_prompt_tokens, MAX_ANSWER_TOKENS, options)
    for ids in prompts:
        pieces = stream(pipeline, Prompt(ids, tokenizer, harmony=True), options)
        yield [token for piece in pieces for token in piece]
