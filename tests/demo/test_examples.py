"""What is learnt, token by token, and how conversations are put into batches."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from demo.examples import IGNORED, Example, encode_example, pad, split
from demo.questions import encode_answer, questions
from demo.tasks import Conversation, draw
from demo.tasks.calculator import CALCULATOR


def test_the_answers_are_learnt_and_nothing_else(tokenizer: Any) -> None:
    conversation = Conversation(
        task="calculate",
        question="12 * 34",
        messages=[
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "12*34"},
            {
                "role": "assistant",
                "thinking": "Use the calculator.",
                "tool_calls": [
                    {"function": {"name": "calculator", "arguments": '{"expression": "12 * 34"}'}}
                ],
            },
            {"role": "tool", "content": "408"},
            {"role": "assistant", "thinking": "It says 408.", "content": "408"},
        ],
        tools=[CALCULATOR],
    )
    example = encode_example(tokenizer, conversation)
    pieces: list[list[int]] = []
    before = False
    for target in example.targets:
        if target != IGNORED and not before:
            pieces.append([])
        if target != IGNORED:
            pieces[-1].append(target)
        before = target != IGNORED
    assert [tokenizer.decode(piece) for piece in pieces] == [
        "<|channel|>analysis<|message|>Use the calculator.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>',
        "<|channel|>analysis<|message|>It says 408.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>408<|return|>",
    ]


def test_ids_are_the_conversation_and_targets_are_the_next_ids(tokenizer: Any) -> None:
    rng = random.Random(0)
    for _ in range(100):
        conversation = draw(rng, held_out=False)
        example = encode_example(tokenizer, conversation)
        text = tokenizer.apply_chat_template(
            conversation.messages,
            tools=conversation.tools or None,
            reasoning_effort=conversation.effort,
            tokenize=False,
        )
        assert tokenizer.decode(example.ids) == text
        assert len(example.targets) == len(example.ids)
        answers = [token for q in questions(conversation) for token in encode_answer(tokenizer, q)]
        assert [target for target in example.targets if target != IGNORED] == answers
        assert all(
            target in (IGNORED, following)
            for target, following in zip(example.targets, [*example.ids[1:], IGNORED], strict=True)
        )


def test_padding_is_on_the_right_and_not_learnt() -> None:
    examples = [Example([1, 2, 3], [2, IGNORED, IGNORED]), Example([4], [5])]
    ids, targets = pad(examples, pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert targets.tolist() == [[2, IGNORED, IGNORED], [5, IGNORED, IGNORED]]


@settings(deadline=None)  # tests do not time
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 200))
def test_groups_hold_all_examples_and_no_more_tokens_than_allowed(
    lengths: list[int], max_tokens: int
) -> None:
    examples = [Example([i] * length, [i] * length) for i, length in enumerate(lengths)]
    groups = split(examples, max_tokens)
    assert sorted(e.ids[0] for group in groups for e in group) == list(range(len(lengths)))
    for group in groups:
        ids, _ = pad(group, pad_id=-1)
        assert ids.numel() <= max_tokens
    # As few as the order by length allows: no group takes the first example of the next.
    for group, following in itertools.pairwise(groups):
        assert (len(group) + 1) * len(following[0].ids) > max_tokens


def test_one_example_that_is_too_long_is_a_group_by_itself() -> None:
    long, short = Example([0] * 50, [0] * 50), Example([0], [0])
    assert split([long, short, long], max_tokens=40) == [[short], [long], [long]]
