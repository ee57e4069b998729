"""A conversation with the demo model, and that what stays cached of it changes no answer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpt_oss_mxfp4.chat.answer import End, Message
from gpt_oss_mxfp4.chat.local import LocalModel
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.progress import Progress

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

PAGE_TOKENS = 128
"""Of MAX's KV cache: whole pages are found again."""


@pytest.mark.slow
def test_questions_from_a_pipe_are_answered_one_after_the_other() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", "chat"],
        input='What is 4587 + 968?\n/reasoning on\nReverse the word "lantern".\n',
        capture_output=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        check=True,
    )
    first, _, rest = done.stdout.partition("\n")
    assert first == "5555"
    assert rest.startswith("[analysis]\n")
    assert rest.endswith("\n\n[final]\nnretnal\n")
    assert done.stderr.count("tokens/s") == 2


def talk(model: LocalModel, messages: list[Message]) -> str:
    said = model.answer(messages, effort="medium", temperature=0, seed=0)
    pieces = [piece for piece in said if not isinstance(piece, End)]
    assert all(isinstance(piece, Piece) for piece in pieces)
    return "|".join(f"{piece.kind}: {piece.text}" for piece in pieces)


@pytest.mark.slow
def test_what_is_cached_of_a_conversation_changes_no_answer() -> None:
    asked = ["What is 4587 + 968?", 'Reverse the word "lantern".', "Subtract 1704 from 96."] * 3
    answers = ["5555", "nretnal", "-1608"] * 3
    messages: list[Message] = []
    for question, answer in zip(asked, answers, strict=True):
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    whole = [*messages, {"role": "user", "content": "What is 12 + 34?"}]
    model = LocalModel(ChatOptions(max_length=1024), Progress(sys.stderr))
    cache = model._pipeline.kv_manager
    fresh = talk(model, whole)
    assert cache.get_metrics_aggregated().cache_tokens == 0
    assert talk(model, whole) == fresh
    found = cache.get_metrics_aggregated().cache_tokens
    assert found >= PAGE_TOKENS
    for begun in (2, 8, 18):  # a conversation that goes another way finds what is common
        talk(
            model, [*messages[:begun], {"role": "user", "content": "How many s's are in possess?"}]
        )
        assert talk(model, whole) == fresh
    assert cache.get_metrics_aggregated().cache_tokens > found
