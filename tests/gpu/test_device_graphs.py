"""Device graphs on the device: what was captured once gives the tokens of launches that are told each step."""

from __future__ import annotations

import gc
import os

import pytest

if os.environ.get("MXFP4_GPU_TESTS") != "1":  # before MAX is imported, which takes seconds
    pytest.skip("set MXFP4_GPU_TESTS=1 on a Hopper host", allow_module_level=True)
pytest.importorskip("transformers", reason="MAX's serving extras are not installed")

from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.options import EngineOptions
from tests.golden import CHECKPOINT, load_prompts

pytestmark = pytest.mark.gpu

NEW_TOKENS = 64
PROMPTS = [prompt.token_ids.tolist() for prompt in load_prompts()]
"""Of 7, 200 and 4200 tokens: below the window, above it, and where attention would be split."""


def test_tokens_are_the_same_alone_and_in_a_batch() -> None:
    runs = []
    batches = [*([prompt] for prompt in PROMPTS), PROMPTS]
    for device_graphs in (False, True):
        options = EngineOptions(devices="gpu", device_graphs=device_graphs)
        longest = max(map(len, PROMPTS))
        pipeline = engine.load(
            open_checkpoint(CHECKPOINT), longest, NEW_TOKENS, options, len(PROMPTS)
        )
        runs.append([list(engine.stream_batch(pipeline, batch, NEW_TOKENS)) for batch in batches])
        del pipeline
        gc.collect()  # MAX's objects refer to each other, and two caches may not fit
    assert runs[0] == runs[1]
