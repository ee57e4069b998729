"""The server answers the official client as OpenAI's would, many at a time as each alone."""

from __future__ import annotations

import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from demo.questions import held_out_questions
from tests.serving.server import BATCH, KEY, MODEL, Server, shared_server

pytestmark = pytest.mark.slow

QUESTION = "What is 4587 + 968?"
CLIENTS = 32


@pytest.fixture(scope="module")
def server() -> Server:
    return shared_server()


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client


def chat(client: OpenAI, question: str, tokens: int = 192) -> str:
    """The whole text that a question gets."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=tokens,
    )
    return whole_text(answer.choices[0].message)


def whole_text(message: object) -> str:
    """Reasoning and content, however they are told apart."""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    return f"{reasoning or ''}{getattr(message, 'content', None) or ''}"


def test_the_model_is_listed_under_its_name(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(NotFoundError, match="The model `openai/gpt` does not exist"):
        client.models.retrieve("openai/gpt")


def test_a_chat_is_answered_and_its_tokens_counted(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.endswith("5555")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens
    assert 20 < answer.usage.prompt_tokens < answer.usage.completion_tokens < 120


def test_a_streamed_chat_is_the_same_in_pieces(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [whole_text(c.choices[0].delta) for c in chunks if c.choices]
    assert len([piece for piece in pieces if piece]) > 20
    assert "".join(pieces) == chat(client, QUESTION)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 20


def test_a_completion_continues_its_prompt_streamed_or_not(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": "1 2 3 4 5 6",
        "temperature": 0,
        "max_tokens": 16,
    }
    whole = client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert whole.choices[0].text
    assert "".join(pieces) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 16


def test_max_tokens_and_stop_strings_end_an_answer(client: OpenAI) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    asked: dict[str, Any] = {"model": MODEL, "messages": messages, "temperature": 0}
    short = client.chat.completions.create(**asked, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 3
    reasoned = client.chat.completions.create(**asked, stop=["hundreds"])
    assert "thousands" in whole_text(reasoned.choices[0].message)  # strings end answers alone
    asked["messages"] = [{"role": "user", "content": 'Reverse the word "lantern".'}]
    stopped = client.chat.completions.create(**asked, stop=["tn"])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == "nre"


def test_equal_seeds_give_equal_answers_and_others_do_not(client: OpenAI) -> None:
    def sampled(seed: int) -> str:
        answer = client.completions.create(
            model=MODEL, prompt="What is", temperature=2, seed=seed, max_tokens=24
        )
        return answer.choices[0].text

    first = sampled(5)
    assert sampled(5) == first
    assert {sampled(seed) for seed in range(6, 10)} != {first}


def test_many_clients_at_once_each_get_what_they_get_alone(client: OpenAI) -> None:
    """Eight times as many as are computed at once, so that they wait, join and leave the batch at all moments."""
    questions = [q for q in held_out_questions(84, seed=3) if not q.tools][:CLIENTS]
    random.Random(3).shuffle(questions)
    asked = [
        (str(question.messages[-1]["content"]), 4 + 23 * index % 60)
        for index, question in enumerate(questions)
    ]
    assert len(asked) == CLIENTS > 4 * BATCH
    alone = [chat(client, *one) for one in asked]
    with ThreadPoolExecutor(CLIENTS) as pool:
        together = list(pool.map(lambda one: chat(client, *one), asked))
    assert together == alone
    assert len({len(text) for text in alone}) > CLIENTS // 4


def test_metrics_count_requests_tokens_and_batches(server: Server) -> None:
    chat(server.client, QUESTION)
    served = 'maxserve_request_count_total{code="200",path="/v1/chat/completions"}'
    names = (served, "maxserve_num_output_tokens_total")
    kinds = ("maxserve_batch_size", "maxserve_cache_num_used_blocks")
    deadline = time.monotonic() + 60  # another process counts, a moment later
    while time.monotonic() < deadline:
        metrics = server.metrics()
        if all(metrics.get(name, 0) >= 1 for name in names) and all(
            any(name.startswith(kind) for name in metrics) for kind in kinds
        ):
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"{names} and {kinds} are not all counted in {metrics}")
    assert metrics["maxserve_num_output_tokens_total"] > 20


def test_health_and_readiness_need_no_key(server: Server) -> None:
    for path, status in (("/health", "ready"), ("/ready", "ready"), ("/v1/health", "ready")):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})


def test_the_log_has_a_line_for_each_request_and_nothing_of_its_text(server: Server) -> None:
    secret = "lantern"
    before = len(server.log)
    answer = chat(server.client, f'Reverse the word "{secret}".')
    assert "nretnal" in answer
    httpx.get(f"{server.url}/v1/models?{secret}", headers={"Authorization": f"Bearer {KEY}"})
    deadline = time.monotonic() + 60  # a line follows its answer
    while " path=/v1/models " not in server.log[before:] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert re.search(
        r"^time=\S+Z method=POST path=/v1/chat/completions status=200 seconds=\d+\.\d{3} prompt_tokens=\d+ "
        r"tokens=\d+ ended=ok client=127\.0\.0\.1$",
        server.log[before:],
        re.MULTILINE,
    )
    assert " path=/v1/models status=200 " in server.log[before:]
    for text in (secret, "nretnal", KEY, "Traceback"):
        assert text not in server.log
