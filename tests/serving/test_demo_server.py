"""The real server with the demo model, through the official OpenAI client."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from demo.questions import Question, held_out_questions
from demo.tasks.calculator import CALCULATOR
from tests.serving.real import ENVIRONMENT, Server

pytestmark = pytest.mark.slow

QUESTIONS = [question for question in held_out_questions(84, seed=2) if not question.tools][:12]
"""Two of each task without tools."""

SUM = [{"role": "user", "content": "What is 4587 + 968?"}]
CALCULATOR_NAMED = {"name": "calculator"}
WORD = 'Reverse the word "lantern".'


@dataclass
class Told:
    """Reasoning, answer and how it ended."""

    reasoning: str
    content: str
    finish: str


def ask(server: Server, messages: Any, **options: Any) -> Told:
    choice = (
        server.client.chat.completions.create(
            model=server.model, messages=messages, temperature=0, **options
        )
    ).choices[0]
    message = choice.message
    return Told(message.reasoning or "", message.content, choice.finish_reason)


def ask_streaming(server: Server, messages: Any, **options: Any) -> Told:
    told = Told("", "", "")
    for chunk in server.client.chat.completions.create(
        model=server.model, messages=messages, temperature=0, stream=True, **options
    ):
        [choice] = chunk.choices
        told.reasoning += getattr(choice.delta, "reasoning", None) or ""
        told.content += choice.delta.content or ""
        told.finish = choice.finish_reason or told.finish
    return told


def test_reasoning_and_answer_are_those_of_the_command(server: Server) -> None:
    command = [
        sys.executable,
        "-m",
        "gpt_oss_mxfp4",
        "generate",
        "--prompt",
        WORD,
        "--show-reasoning",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    told = ask(server, [{"role": "user", "content": WORD}])
    assert done.stdout == f"[analysis]\n{told.reasoning}\n\n[final]\n{told.content}\n"
    assert told.content == "nretnal"
    assert told == ask_streaming(server, [{"role": "user", "content": WORD}])


def test_a_format_of_text_changes_nothing(server: Server) -> None:
    messages = [{"role": "user", "content": WORD}]
    told = ask(server, messages, response_format={"type": "text"})
    assert told == ask(server, messages)
    assert told.reasoning


def test_held_out_questions_are_answered_by_several_clients_at_once_as_alone(
    server: Server,
) -> None:
    def answer(question: Question) -> Told:
        return ask(server, question.messages, max_tokens=192, reasoning_effort=question.effort)

    alone = [answer(question) for question in QUESTIONS[:8]]
    with ThreadPoolExecutor(8) as clients:
        at_once = list(clients.map(answer, QUESTIONS))
    assert at_once[:8] == alone
    right = [
        told.content == question.answer["content"]
        for told, question in zip(at_once, QUESTIONS, strict=True)
    ]
    assert sum(right) >= len(QUESTIONS) - 1


def test_a_tools_round_trip(server: Server) -> None:
    """As an agent does it: each answer's message goes back as it came, the call's reasoning with it."""
    messages: list[Any] = [{"role": "user", "content": "What is 47 * 83? Use the calculator."}]
    create = server.client.chat.completions.create
    options: Any = {"model": server.model, "temperature": 0, "tools": [CALCULATOR]}
    called = create(messages=messages, **options).choices[0]
    assert called.finish_reason == "tool_calls"
    assert called.message.reasoning
    [call] = called.message.tool_calls
    assert call.function.name == "calculator"
    assert call.function.arguments == '{"expression": "47 * 83"}'
    messages += [
        called.message,
        {"role": "tool", "tool_call_id": call.id, "content": str(47 * 83)},
    ]
    answered = create(messages=messages, **options).choices[0]
    assert (answered.finish_reason, answered.message.content) == ("stop", "3901")
    messages += [answered.message, *SUM]
    assert create(messages=messages, **options).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": CALCULATOR_NAMED}])
def test_a_tool_is_called_where_it_must_be(server: Server, choice: Any) -> None:
    create = server.client.chat.completions.create
    answer = create(
        model=server.model,
        messages=[{"role": "user", "content": WORD}],
        temperature=0,
        tools=[CALCULATOR],
        tool_choice=choice,
        max_tokens=64,
    ).choices[0]
    [call] = answer.message.tool_calls
    assert call.function.name == "calculator"


def test_limits_and_stop_strings(server: Server) -> None:
    cut = ask(server, SUM, max_completion_tokens=12)
    assert cut.finish == "length"
    assert cut.content == ""
    assert ask(server, SUM).reasoning.startswith(cut.reasoning)
    # The reasoning has 55 in it as well.
    assert ask(server, SUM, stop=["55"]).content == ""
    assert ask(server, SUM, stop=["55"]).reasoning == ask(server, SUM).reasoning
    assert ask_streaming(server, SUM, stop="5 ").content == "5555"


def test_log_probabilities_are_the_answers(server: Server) -> None:
    create = server.client.chat.completions.create
    choice = create(
        model=server.model, messages=SUM, temperature=0, logprobs=True, top_logprobs=3
    ).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content == "5555"
    for token in tokens:
        best = token.top_logprobs[0]
        assert (best.token, best.logprob) == (token.token, token.logprob)
        assert -0.5 < token.logprob <= 0


def test_equal_seeds_give_equal_text(server: Server) -> None:
    def sample(seed: int) -> str:
        choice = server.client.chat.completions.create(
            model=server.model, messages=SUM, temperature=2.0, seed=seed, max_tokens=48
        ).choices[0]
        return f"{choice.message.reasoning}|{choice.message.content}"

    assert sample(0) == sample(0)
    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_completions_continue_text_as_it_is(server: Server) -> None:
    prompt = (
        "<|start|>system<|message|>Reasoning: medium<|end|>"
        "<|start|>user<|message|>What is 4587 + 968?<|end|><|start|>assistant"
    )
    completions = server.client.completions
    answer = completions.create(model=server.model, prompt=prompt, temperature=0, max_tokens=192)
    chat = ask(server, SUM)
    assert answer.choices[0].text == f"analysis{chat.reasoning}assistantfinal{chat.content}"


def test_a_schema_is_refused_on_a_cpu(server: Server) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError, match="response_format requires"):
        ask(server, SUM, response_format=schema)
    assert ask(server, SUM).content == "5555"
