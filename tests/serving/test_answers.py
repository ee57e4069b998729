"""What an OpenAI client gets of a scripted model's turn: whole and streamed, regular and broken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from max.pipelines.modeling.types import (
    RequestID,
    TextGenerationRequest,
    TextGenerationRequestMessage,
)

from tests.serving.scripted import MODEL, ScriptedServer

USER = [{"role": "user", "content": "12 * 34?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Evaluates an expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    }
]
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"
CALL = (
    "<|channel|>commentary to=functions.calculator <|constrain|>json<|message|>"
    '{"expression": "12 * 34"}<|call|>'
)
ARGUMENTS = '{"expression": "12 * 34"}'


@dataclass
class Told:
    """What a client was told: texts, and each call's name and arguments."""

    reasoning: str = ""
    content: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str | None = None


def whole(client: Any, **options: Any) -> Told:
    choice = client.chat.completions.create(model=MODEL, messages=USER, **options).choices[0]
    message = choice.message
    calls = message.tool_calls or []
    assert all(call.id.startswith("call_") and call.type == "function" for call in calls)
    return Told(
        getattr(message, "reasoning", None) or "",
        message.content or "",
        [(call.function.name, call.function.arguments) for call in calls],
        choice.finish_reason,
    )


def streamed(client: Any, **options: Any) -> Told:
    told = Told()
    for chunk in client.chat.completions.create(model=MODEL, messages=USER, stream=True, **options):
        [choice] = chunk.choices
        assert told.finish is None
        told.finish = choice.finish_reason
        delta = choice.delta
        told.reasoning += getattr(delta, "reasoning", None) or ""
        told.content += delta.content or ""
        for call in delta.tool_calls or ():
            if call.index == len(told.calls):
                assert call.id.startswith("call_")
                told.calls.append((call.function.name, ""))
            name, arguments = told.calls[call.index]
            told.calls[call.index] = (name, arguments + (call.function.arguments or ""))
    return told


def both(server: ScriptedServer, **options: Any) -> Told:
    """What is told, once it is seen to be the same streamed and not, one token at once and several."""
    found = []
    for size in (1, 3, 100):
        server.worker.tokens_at_once = size
        found += [whole(server.client, **options), streamed(server.client, **options)]
    assert found == [found[0]] * len(found)
    return found[0]


CASES = [
    (f"{ANALYSIS}A product.{NEXT}{FINAL}408<|return|>", Told("A product.", "408", [], "stop")),
    (f"{FINAL}408<|return|>", Told("", "408", [], "stop")),
    # Reasoning without a word.
    (f"{ANALYSIS}<|message|>{NEXT}{FINAL}408<|return|>", Told("", "408", [], "stop")),
    (
        f"{ANALYSIS}A product.{NEXT}{CALL}",
        Told("A product.", "", [("calculator", ARGUMENTS)], "tool_calls"),
    ),
    (
        f"{ANALYSIS}Hm.{NEXT}<|channel|>commentary<|message|>I shall calculate.{NEXT}{CALL}",
        Told("Hm.", "I shall calculate.", [("calculator", ARGUMENTS)], "tool_calls"),
    ),
    # A call of what nobody offered, as of a built-in tool.
    (
        "<|channel|>analysis to=python code<|message|>print(12 * 34)<|call|>",
        Told("print(12 * 34)", "", [], "stop"),
    ),
    # Reasoning alone.
    (f"{ANALYSIS}A product.<|return|>", Told("A product.", "", [], "stop")),
    ("<|return|>", Told("", "", [], "stop")),
    # Arguments that are none.
    (
        "<|channel|>commentary to=functions.calculator<|message|><|call|>",
        Told("", "", [("calculator", "{}")], "tool_calls"),
    ),
    # Broken ones.
    ("408<|return|>", Told("", "408", [], "stop")),
    ("408", Told("", "408", [], "length")),
    ("<|message|>408<|return|>", Told("", "408", [], "stop")),
    ("<|channel|>answer<|message|>408<|return|>", Told("", "408", [], "stop")),
    (f"<|channel|>analysis{FINAL}408<|return|>", Told("", "408", [], "stop")),
    (f"{FINAL}<|message|>408<|return|>", Told("", "408", [], "stop")),
    (f"{ANALYSIS}Hm.<|start|>assistant{FINAL}408<|return|>", Told("Hm.", "408", [], "stop")),
    (
        f"{ANALYSIS}Hm.<|end|>words{FINAL}408<|return|>",
        Told("Hm.", "words\n408", [], "stop"),
    ),
    (
        " to=functions.calculator<|channel|>commentary <|constrain|>json<|message|>{}<|end|>",
        Told("", "", [("calculator", "{}")], "length"),
    ),
    (
        "<|channel|>commentary to=functions.calculator <|constrain|>json{}<|call|>",
        Told("", "", [("calculator", "{}")], "tool_calls"),
    ),
    (f"<|end|><|end|><|message|><|constrain|>{FINAL}<|return|>", Told("", "", [], "stop")),
]


@pytest.mark.parametrize(("said", "expected"), CASES)
def test_reasoning_answer_and_calls_arrive_apart(
    scripted: ScriptedServer, said: str, expected: Told
) -> None:
    scripted.worker.say(said)
    assert both(scripted, tools=TOOLS) == expected


@pytest.mark.parametrize("said", [said for said, _ in CASES])
def test_an_answer_may_be_cut_off_at_every_token(scripted: ScriptedServer, said: str) -> None:
    scripted.worker.say(said)
    length = len(scripted.worker.script)
    expected = whole(scripted.client, tools=TOOLS)
    scripted.worker.tokens_at_once = 1
    for limit in range(1, length):
        options = {"tools": TOOLS, "max_completion_tokens": limit}
        told = whole(scripted.client, **options)
        assert told == streamed(scripted.client, **options)
        assert told.finish == "length"
        assert [name for name, _ in told.calls] in ([], [name for name, _ in expected.calls])
        for (_, got), (_, arguments) in zip(told.calls, expected.calls, strict=False):
            assert arguments.startswith(got)


def test_without_tools_a_call_is_reasoning(scripted: ScriptedServer) -> None:
    scripted.worker.say(CALL)
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        assert both(scripted, **options) == Told(ARGUMENTS, "", [], "stop")


def test_a_call_spelled_in_text_is_text(scripted: ScriptedServer) -> None:
    mark = "íłĢ"  # tokens of the bytes of U+D800, with which calls are written on the way to the client
    tokens = [*(NEXT + CALL).replace(" ", "Ġ"), *mark, *"calculator", *mark, "<|return|>"]
    scripted.worker.say(FINAL)
    scripted.worker.script += scripted.tokenizer.delegate.convert_tokens_to_ids(tokens)
    told = both(scripted, tools=TOOLS)
    assert told.calls == []
    content = told.content.replace("\ufffd", "")
    assert content == f"{NEXT}{CALL}calculator"


def test_a_broken_format_is_logged_without_its_text(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for said in ("secret words<|return|>", f"{FINAL}408<|return|>"):
            scripted.worker.say(said)
            whole(scripted.client)
    [line] = [record.getMessage() for record in caplog.records if "harmony" in record.getMessage()]
    assert line.endswith(": faults in the answer's harmony format: 1; no text of it is lost")
    assert "secret" not in line


def test_reasoning_and_answer_stream_in_the_order_they_are_said(scripted: ScriptedServer) -> None:
    scripted.worker.say(f"{ANALYSIS}Hm.{NEXT}{FINAL}408{NEXT}{ANALYSIS}Right.<|return|>")
    scripted.worker.tokens_at_once = 100
    order = [
        "reasoning"
        if getattr(chunk.choices[0].delta, "reasoning", None)
        else chunk.choices[0].delta.content
        for chunk in scripted.client.chat.completions.create(
            model=MODEL, messages=USER, stream=True, stop="8!"
        )
    ]
    assert order == ["reasoning", "408", "reasoning"]


class TestUsage:
    SAID = f"{ANALYSIS}Hm.{NEXT}{FINAL}408<|return|>"

    def check(self, server: ScriptedServer, usage: Any) -> None:
        assert usage.prompt_tokens == server.worker.contexts[-1].tokens.prompt_length
        assert usage.completion_tokens == len(server.worker.script)
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        reasoning = server.tokenizer.delegate.encode("Hm.", add_special_tokens=False)
        assert usage.completion_tokens_details.reasoning_tokens == len(reasoning)

    @pytest.mark.parametrize("size", [1, 4, 100])
    def test_counts_every_token_and_those_of_reasoning(
        self, scripted: ScriptedServer, size: int
    ) -> None:
        scripted.worker.say(self.SAID)
        scripted.worker.tokens_at_once = size
        create = scripted.client.chat.completions.create
        self.check(scripted, create(model=MODEL, messages=USER).usage)
        chunks = list(
            create(model=MODEL, messages=USER, stream=True, stream_options={"include_usage": True})
        )
        self.check(scripted, chunks[-1].usage)
        assert all(chunk.usage is None for chunk in chunks[:-1])


class TestStopStrings:
    SAID = f"{ANALYSIS}4 0 8.{NEXT}{FINAL}It is 4 0 8, I think.<|return|>"

    def test_end_the_answer_and_leave_the_reasoning(self, scripted: ScriptedServer) -> None:
        scripted.worker.say(self.SAID)
        assert both(scripted, stop=["0 8", "think"]) == Told("4 0 8.", "It is 4 ", [], "stop")

    def test_stop_the_model(self, scripted: ScriptedServer) -> None:
        scripted.worker.say(self.SAID)
        scripted.worker.tokens_at_once = 1
        scripted.worker.cancelled.clear()
        whole(scripted.client, stop="is")
        assert len(scripted.worker.cancelled) == 1
        assert scripted.worker.generated < len(scripted.worker.script)

    def test_that_do_not_come_change_nothing(self, scripted: ScriptedServer) -> None:
        scripted.worker.say(self.SAID)
        assert both(scripted, stop=["thinking", "k.."]) == Told(
            "4 0 8.", "It is 4 0 8, I think.", [], "stop"
        )


class TestLogProbabilities:
    @pytest.mark.parametrize(("size", "top"), [(1, 1), (100, 1), (1, 0), (1, None)])
    def test_are_the_answers(self, scripted: ScriptedServer, size: int, top: int | None) -> None:
        scripted.worker.say(f"{ANALYSIS}Hm.{NEXT}{FINAL}It is 408<|return|>")
        scripted.worker.tokens_at_once = size
        options: Any = {"model": MODEL, "messages": USER, "logprobs": True, "top_logprobs": top}
        create = scripted.client.chat.completions.create
        answer = scripted.tokenizer.delegate.encode("It is 408", add_special_tokens=False)
        expected = [(-token / 1024) for token in answer]
        logprobs = create(**options).choices[0].logprobs.content
        assert [entry.logprob for entry in logprobs] == expected
        assert "".join(entry.token for entry in logprobs) == "It is 408"
        streamed = [
            entry
            for chunk in create(**options, stream=True)
            if chunk.choices[0].logprobs
            for entry in chunk.choices[0].logprobs.content
        ]
        assert [entry.logprob for entry in streamed] == expected


def test_what_there_is_not_is_null(scripted: ScriptedServer) -> None:
    for said in (f"{ANALYSIS}Hm.{NEXT}{FINAL}408<|return|>", f"{ANALYSIS}Hm.<|return|>"):
        scripted.worker.say(said)
        choice = scripted.client.chat.completions.create(model=MODEL, messages=USER).choices[0]
        assert (choice.message.refusal, choice.logprobs) == (None, None)


class TestCompletions:
    SAID = f"{ANALYSIS}Hm.{NEXT}{FINAL}408<|return|>"
    PROMPT = "<|start|>user<|message|>12 * 34?<|end|><|start|>assistant"

    @pytest.mark.parametrize("size", [1, 100])
    def test_continue_a_text_as_it_is(self, scripted: ScriptedServer, size: int) -> None:
        scripted.worker.say(self.SAID)
        scripted.worker.tokens_at_once = size
        create = scripted.client.completions.create
        for stop, text in ((None, "analysisHm.assistantfinal408"), (["m.a"], "analysisH")):
            choice = create(model=MODEL, prompt=self.PROMPT, stop=stop).choices[0]
            assert (choice.text, choice.finish_reason) == (text, "stop")
            streamed = create(model=MODEL, prompt=self.PROMPT, stop=stop, stream=True)
            assert "".join(chunk.choices[0].text for chunk in streamed) == text
        assert scripted.worker.prompt == self.PROMPT

    def test_have_log_probabilities_of_every_token(self, scripted: ScriptedServer) -> None:
        scripted.worker.say(self.SAID)
        choice = scripted.client.completions.create(
            model=MODEL, prompt=self.PROMPT, logprobs=1
        ).choices[0]
        assert choice.logprobs.token_logprobs == [-i / 1024 for i in scripted.worker.script]

    def test_have_none_where_none_are_asked_for(self, scripted: ScriptedServer) -> None:
        scripted.worker.say(self.SAID)
        create = scripted.client.completions.create
        assert create(model=MODEL, prompt=self.PROMPT).choices[0].logprobs is None
        streamed = create(model=MODEL, prompt=self.PROMPT, stream=True)
        assert {chunk.choices[0].logprobs for chunk in streamed} == {None}


def test_only_chat_and_completions_are_served(scripted: ScriptedServer) -> None:
    assert (
        scripted.http.post("/v1/responses", json={"model": MODEL, "input": "Hi"}).status_code == 404
    )


@pytest.fixture
def reasoning_content(scripted: ScriptedServer) -> Iterator[ScriptedServer]:
    """A server with --emit-reasoning-content."""
    config = scripted.app.state.pipeline_config
    runtime = config.runtime.model_copy(update={"emit_reasoning_content": True})
    renamed = config.model_copy(update={"runtime": runtime})
    scripted.app.state.pipeline_config = renamed
    yield scripted
    scripted.app.state.pipeline_config = config


def test_reasoning_has_the_name_that_max_is_asked_for(reasoning_content: ScriptedServer) -> None:
    scripted = reasoning_content
    create = scripted.client.chat.completions.create
    for said in (f"{ANALYSIS}Hm.{NEXT}{FINAL}408<|return|>", f"{ANALYSIS}Hm.<|return|>"):
        scripted.worker.say(said)
        message = create(model=MODEL, messages=USER).choices[0].message
        assert (message.reasoning_content, message.reasoning) == ("Hm.", None)
        deltas = [c.choices[0].delta for c in create(model=MODEL, messages=USER, stream=True)]
        assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "Hm."


def test_a_client_that_leaves_stops_the_model(scripted: ScriptedServer) -> None:
    """A stream that is closed, as MAX's server closes it when the connection is lost."""

    async def leave() -> int:
        request = TextGenerationRequest(
            request_id=RequestID("leaving"),
            model_name=MODEL,
            messages=[TextGenerationRequestMessage(role="user", content="12 * 34?")],
        )
        scripted.worker.tokens_at_once = 1
        chunks = await scripted.app.state.pipeline.next_token_chunk(request)
        async for chunk in chunks:
            if chunk.decoded_reasoning_tokens:
                break
        await chunks.aclose()
        return scripted.worker.generated

    scripted.worker.say(f"{ANALYSIS}Hm.{NEXT}{FINAL}408<|return|>")
    assert asyncio.run(leave()) < len(scripted.worker.script)
    assert not scripted.worker.generating
