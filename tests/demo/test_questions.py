"""Prompts, and judging: the last message counts, token by token, and nothing before it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo import questions as module
from demo.questions import (
    MAX_ANSWER_TOKENS,
    Judged,
    Question,
    accuracy,
    encode,
    encode_answer,
    encode_prompt,
    held_out_questions,
    judge,
    questions,
    seeded,
    standard_questions,
)
from demo.tasks import SHARES, Conversation, draw
from demo.tasks.calculator import CALCULATOR

SUM = Question(
    task="add",
    messages=[{"role": "user", "content": "What is 12 + 34?"}],
    answer={"role": "assistant", "thinking": "Add.", "content": "46"},
    tools=[],
    effort="medium",
)
CALL = Question(
    task="calculate",
    messages=[{"role": "user", "content": "12 * 34"}],
    answer={
        "role": "assistant",
        "thinking": "Use the calculator.",
        "tool_calls": [
            {"function": {"name": "calculator", "arguments": '{"expression": "12 * 34"}'}}
        ],
    },
    tools=[CALCULATOR],
    effort="medium",
)

ANALYSIS = "<|channel|>analysis<|message|>Add.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
COMMENTARY = "<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"


@dataclass(frozen=True)
class Case:
    answer: str
    right: bool
    question: Question = SUM


CASES = {
    "right": Case(f"{ANALYSIS}{FINAL}46<|return|>", True),
    "other analysis": Case(
        f"<|channel|>analysis<|message|>47?<|end|><|start|>assistant{FINAL}46<|return|>", True
    ),
    "no analysis": Case(f"{FINAL}46<|return|>", True),
    "two analyses": Case(f"{ANALYSIS}{ANALYSIS}{FINAL}46<|return|>", True),
    "corrected": Case(f"{FINAL}47<|end|><|start|>assistant{FINAL}46<|return|>", True),
    "wrong": Case(f"{ANALYSIS}{FINAL}47<|return|>", False),
    "right, then wrong": Case(f"{FINAL}46<|end|><|start|>assistant{FINAL}47<|return|>", False),
    "only the beginning": Case(f"{ANALYSIS}{FINAL}4<|return|>", False),
    "more than asked": Case(f"{ANALYSIS}{FINAL}46.<|return|>", False),
    "a space before": Case(f"{ANALYSIS}{FINAL} 46<|return|>", False),
    "cut off": Case(f"{ANALYSIS}{FINAL}46", False),
    "another end": Case(f"{ANALYSIS}{FINAL}46<|end|>", False),
    "no final": Case("<|channel|>analysis<|message|>46<|return|>", False),
    "final in commentary": Case(f"{ANALYSIS}<|channel|>commentary<|message|>46<|return|>", False),
    "text alone": Case("46<|return|>", False),
    "nothing": Case("", False),
    "right call": Case(f'{ANALYSIS}{COMMENTARY}{{"expression": "12 * 34"}}<|call|>', True, CALL),
    "call, no analysis": Case(f'{COMMENTARY}{{"expression": "12 * 34"}}<|call|>', True, CALL),
    "other arguments": Case(f'{COMMENTARY}{{"expression": "12 * 35"}}<|call|>', False, CALL),
    "other spaces": Case(f'{COMMENTARY}{{"expression": "12*34"}}<|call|>', False, CALL),
    "another function": Case(
        "<|channel|>commentary to=functions.expression <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>',
        False,
        CALL,
    ),
    "another channel": Case(
        "<|channel|>analysis to=functions.calculator <|constrain|>json<|message|>"
        '{"expression": "12 * 34"}<|call|>',
        False,
        CALL,
    ),
    "call that returns": Case(f'{COMMENTARY}{{"expression": "12 * 34"}}<|return|>', False, CALL),
    "answer without the call": Case(f"{ANALYSIS}{FINAL}408<|return|>", False, CALL),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_last_message_is_judged_exactly(case: Case, tokenizer: Any) -> None:
    answer = tokenizer.encode(case.answer, add_special_tokens=False)
    assert judge(tokenizer, [case.question], lambda prompts: [answer]) == [
        Judged(case.question, encode_prompt(tokenizer, case.question), answer, case.right)
    ]


def test_the_right_answers_are_right(tokenizer: Any) -> None:
    asked = held_out_questions(80, seed=5)

    def decode(prompts: list[list[int]]) -> Iterator[list[int]]:
        assert prompts == [encode_prompt(tokenizer, question) for question in asked]
        for question in asked:
            yield encode_answer(tokenizer, question)

    assert accuracy(judge(tokenizer, asked, decode)) == dict.fromkeys([*SHARES, "all"], 1.0)


def test_an_answer_for_each_question_is_asked_for(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        judge(tokenizer, [SUM, SUM], lambda prompts: [[]])


def test_prompt_and_answer_are_the_whole_conversation(tokenizer: Any) -> None:
    rng = random.Random(0)
    for _ in range(100):
        conversation = draw(rng, held_out=False)
        asked = questions(conversation)
        for question in asked:
            whole = encode(tokenizer, question, [*question.messages, question.answer])
            assert encode_prompt(tokenizer, question) + encode_answer(tokenizer, question) == whole
        assert [*asked[-1].messages, asked[-1].answer] == conversation.messages
        assert {q.effort for q in asked} == {conversation.effort}


def test_a_prompt_ends_where_the_answer_begins(tokenizer: Any) -> None:
    prompt = tokenizer.decode(encode_prompt(tokenizer, CALL))
    assert prompt.endswith("<|start|>user<|message|>12 * 34<|end|><|start|>assistant")
    assert "type calculator = (_: {" in prompt
    assert tokenizer.decode(encode_answer(tokenizer, CALL)) == (
        "<|channel|>analysis<|message|>Use the calculator.<|end|><|start|>assistant"
        f'{COMMENTARY}{{"expression": "12 * 34"}}<|call|>'
    )


def test_the_effort_is_the_questions(tokenizer: Any) -> None:
    question = Question("add", SUM.messages, SUM.answer, [], "high")
    assert "Reasoning: high<|end|>" in tokenizer.decode(encode_prompt(tokenizer, question))


def test_a_call_and_the_answer_from_its_result_are_two_questions() -> None:
    (conversation,) = [draw(random.Random(0), held_out=False, tasks={"calculate": 1.0})]
    call, answer = questions(conversation)
    assert "tool_calls" in call.answer
    assert call.messages[-1]["role"] == "user"
    assert answer.messages[-1]["role"] == "tool"
    assert answer.answer is conversation.messages[-1]


def test_the_standard_questions_are_500_of_all_tasks_alike(tokenizer: Any) -> None:
    asked = standard_questions()
    counts = Counter(question.task for question in asked)
    assert len(asked) == 500
    assert counts.keys() == SHARES.keys()
    assert set(counts.values()) == {71, 72}
    assert asked == standard_questions()
    # What both decoders leave room for.
    assert max(len(encode_answer(tokenizer, question)) for question in asked) < MAX_ANSWER_TOKENS
    assert max(len(encode_prompt(tokenizer, question)) for question in asked) <= 832


def test_only_what_is_held_out_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Conversation] = []

    def spy(rng: random.Random, **options: Any) -> Conversation:
        seen.append(draw(rng, **options))
        return seen[-1]

    monkeypatch.setattr(module, "draw", spy)
    asked = held_out_questions(40, seed=1)
    assert all(conversation.held_out for conversation in seen)
    assert all(q in [one for c in seen for one in questions(c)] for q in asked)


@pytest.mark.parametrize("count", [0, 1, 8, 13])
def test_as_many_questions_as_asked_for(count: int) -> None:
    assert len(held_out_questions(count, seed=0)) == count


def test_another_seed_asks_something_else() -> None:
    assert held_out_questions(16, seed=0) == held_out_questions(16, seed=0)
    assert held_out_questions(16, seed=0) != held_out_questions(16, seed=1)


def test_accuracy_is_the_share_of_right_answers_of_a_task_and_of_all() -> None:
    judged = [
        Judged(Question(task, [], {}, [], "low"), [], [], right)
        for task, right in [("count", True), ("add", False), ("add", True), ("add", False)]
    ]
    assert accuracy(judged) == {"add": 1 / 3, "all": 0.5, "count": 1.0}
    assert accuracy([]) == {}


def test_random_choices_are_of_their_own_for_each_purpose() -> None:
    assert seeded(0, "a").random() == seeded(0, "a").random()
    assert len({seeded(seed, purpose).random() for seed in (0, 1) for purpose in "ab"}) == 4
