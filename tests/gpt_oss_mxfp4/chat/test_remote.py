"""The command against a server: through pipes, and what it says where the server does not do its part."""

from __future__ import annotations

import http.client
import io
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.chat import remote
from gpt_oss_mxfp4.chat.answer import End
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.options import Refused
from tests.endpoint import Break, Endpoint, Hold, called, said, serve, thought


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve(Endpoint()) as endpoint:
        yield endpoint


@dataclass(frozen=True)
class Done:
    out: str
    err: str
    code: int
    rates: list[float] = field(default_factory=list, compare=False)


Chat = Callable[..., Done]


@pytest.fixture
def chat(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Runs the command, its input from a pipe; rates are taken out of what it says."""

    def run(url: str, typed: str, *arguments: str) -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        code = cli.main(["chat", "--url", url, *arguments])
        out, err = capfd.readouterr()
        rate = r", ([\d.]+) tokens/s"
        rates = [float(found) for found in re.findall(rate, err)]
        return Done(out, re.sub(rate, "", err), code, rates)

    return run


COUNTS = "prompt: 17 tokens; generation: 42 tokens\n"


def test_each_line_of_a_pipe_is_a_turn_and_answers_alone_are_printed(
    chat: Chat, endpoint: Endpoint
) -> None:
    endpoint.say(thought("hm"), said("Ye"), said("s. €"))
    options = "--effort low --top-k 5 --top-p 0.9 --seed 3 --max-new-tokens 9"
    done = chat(endpoint.url, "One?\nTwo?\n", *options.split())
    assert done == Done("Yes. €\nYes. €\n", COUNTS * 2, 0)
    body = endpoint.bodies[1]
    assert body["messages"] == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes. €"},
        {"role": "user", "content": "Two?"},
    ]
    assert (body["model"], body["reasoning_effort"], body["stream"]) == ("stand/in", "low", True)
    assert (body["temperature"], body["top_k"], body["top_p"]) == (1.0, 5, 0.9)
    assert body["stream_options"] == {"include_usage": True}
    assert (body["seed"], body["max_completion_tokens"]) == (3 + 2**32, 9)


def test_a_command_without_an_input_is_refused(
    endpoint: Endpoint, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["chat", "--url", endpoint.url]) == 2
    message = "standard input: must be open, questions come from there"
    assert capfd.readouterr().err == f"gpt-oss-mxfp4: {message}\n"


def test_reasoning_stands_under_a_title_if_asked_for(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.say(thought("hm"), said("Yes."))
    done = chat(endpoint.url, "One?\n", "--reasoning", "on")
    assert done.out == "[analysis]\nhm\n\n[final]\nYes.\n"


def test_options_that_reach_no_server_are_told(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.say(said("Yes."))
    options = "--model other --threads 1 --dense-weights int8 --max-length 99 --verbose"
    done = chat(endpoint.url, "One?\n", *options.split())
    assert (done.out, endpoint.bodies[0]["model"]) == ("Yes.\n", "other")
    assert not {"top_k", "top_p"}.intersection(endpoint.bodies[0])
    assert done.err.replace(COUNTS, "").splitlines() == [
        "--dense-weights: has no effect with --url, the server decides",
        "--threads: has no effect with --url, the server decides",
        "--max-length: has no effect with --url, the server decides",
    ]


def test_a_call_of_a_tool_is_told(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.say(*called("add", '{"a": 1}'), finish="tool_calls")
    done = chat(endpoint.url, "One?\n")
    note = 'the model called add, but chat offers no tools: {"a": 1}\n'
    assert done == Done("\n", note + COUNTS, 0)
    null = '{"name": "add", "arguments": null}}, {"function": null}'
    endpoint.say(f'{{"choices": [{{"delta": {{"tool_calls": [{{"function": {null}]}}}}]}}')
    assert chat(endpoint.url, "One?\n").err.startswith("the model called add, but")


def test_no_server_is_told_in_one_line(chat: Chat) -> None:
    done = chat("http://127.0.0.1:9", "One?\n")
    assert (done.out, done.code) == ("", 2)
    assert re.fullmatch(
        r"gpt-oss-mxfp4: http://127\.0\.0\.1:9: cannot be reached \(.*\)\n", done.err
    )


def test_a_server_without_encryption_is_not_talked_to_where_it_is_asked_for(
    chat: Chat, endpoint: Endpoint
) -> None:
    endpoint.say(said("Yes."))
    done = chat(endpoint.url.replace("http:", "https:"), "One?\n", "--model", "any")
    assert (done.out, done.code, endpoint.bodies) == ("\n", 2, [])
    assert re.search(r"https://\S+: cannot be reached \(.*SSL.*\)\n$", done.err)


@pytest.mark.parametrize("models", [5, {}, {"data": []}, {"data": [{}]}, {"data": None}])
def test_a_server_that_lists_no_model_is_refused(
    chat: Chat, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, models: object
) -> None:
    monkeypatch.setattr(endpoint, "models", models)
    done = chat(endpoint.url, "One?\n")
    message = f"gpt-oss-mxfp4: {endpoint.url}: must list the models it serves\n"
    assert done == Done("", message, 2)


def test_an_answer_may_take_longer_than_a_connection(
    chat: Chat, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.5)
    hold = Hold()
    endpoint.say(thought("hm"), hold, said("Yes."))
    timer = threading.Timer(1, hold.release)
    timer.start()
    done = chat(endpoint.url, "One?\n")
    assert done.out == "Yes.\n"
    [rate] = done.rates
    assert 0 < rate < 41 / 0.9, "42 tokens in a second"


def test_an_answer_that_is_cut_off_is_told(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.say(said("So"), '{"choices": [{"finish_reason": "length"}]}', finish="")
    done = chat(endpoint.url, "One?\n")
    assert done == Done("So\n", f"cut off: the tokens are used up\n{COUNTS}", 0)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://host:0", "http://[::1"],
)
def test_an_address_that_is_none_is_refused(chat: Chat, url: str) -> None:
    done = chat(url, "")
    assert done.err == f"gpt-oss-mxfp4: --url: must be like http://127.0.0.1:8000, got {url!r}\n"
    assert done.code == 2


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host", ("host", 80)),
        ("http://[::1]", ("::1", 80)),  # which HTTPConnection takes for port 1 of ":"
        ("http://[2001:db8::abcd]", ("2001:db8::abcd", 80)),
        ("https://[2001:db8::abcd]/v1", ("2001:db8::abcd", 443)),
        ("https://[::1]:8000", ("::1", 8000)),
    ],
)
def test_a_port_is_the_addresss_own_or_its_schemes(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, url: str, address: tuple[str, int]
) -> None:
    asked = []

    def unreachable(address: tuple[str, int], *_: object) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    done = chat(url, "One?\n")
    assert done == Done("", f"gpt-oss-mxfp4: {url}: cannot be reached (no network)\n", 2)
    assert asked == [address]


def test_a_hosts_name_that_cannot_be_is_told_in_one_line(chat: Chat) -> None:
    done = chat("http://my host:8000", "One?\n")
    assert (done.out, done.code) == ("", 2)
    assert re.fullmatch(r"gpt-oss-mxfp4: http://my host:8000: cannot be reached \(.*\)\n", done.err)


def test_a_key_is_sent_and_a_missing_one_told(
    chat: Chat, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.say(said("Yes."))
    endpoint.key = "secret"
    done = chat(endpoint.url, "One?\n")
    assert done.code == 2
    assert done.err == (
        f"gpt-oss-mxfp4: {endpoint.url}: wants an API key; name its file with --api-key-file, or set "
        "GPT_OSS_MXFP4_API_KEY\n"
    )
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", "secret")
    assert chat(endpoint.url, "One?\n").out == "Yes.\n"
    monkeypatch.setenv("GPT_OSS_MXFP4_API_KEY", "wrong")
    file = tmp_path / "key"
    file.write_text("secret\n")
    assert chat(endpoint.url, "One?\n", "--api-key-file", str(file)).out == "Yes.\n"
    file.write_text("secret\nanother\n")
    assert chat(endpoint.url, "One?\n", "--api-key-file", str(file)).out == "Yes.\n"
    file.write_text("schlüssel\n")
    done = chat(endpoint.url, "One?\n", "--api-key-file", str(file))
    message = f"--api-key-file: {file} must hold nothing but printable ASCII"
    assert done.err == f"gpt-oss-mxfp4: {message}\n"
    file.write_text("\n")
    done = chat(endpoint.url, "One?\n", "--api-key-file", str(file))
    message = f"--api-key-file: {file} must hold a key, one a line; it has none"
    assert done == Done("", f"gpt-oss-mxfp4: {message}\n", 2)
    file.unlink()
    done = chat(endpoint.url, "One?\n", "--api-key-file", str(file))
    assert done.err == (
        f"gpt-oss-mxfp4: --api-key-file: {file} cannot be read (No such file or directory)\n"
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "the prompt has 5000 tokens,\nmore than 4096\x1b[2J",
            "the prompt has 5000 tokens, more than 4096␛[2J",
        ),
        ("", "Bad Request"),
    ],
)
def test_a_refusal_ends_a_pipe_in_the_servers_words_or_http_s(
    chat: Chat, endpoint: Endpoint, message: str, told: str
) -> None:
    endpoint.refuse(400, message)
    done = chat(endpoint.url, "One?\n")
    assert done == Done("\n", f"gpt-oss-mxfp4: {endpoint.url}: {told} (400)\n", 2)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Break(), r"http://\S+: the connection broke off.*"),
        ({"error": {"message": "out of memory"}}, "the server failed: out of memory"),
        ({"error": "out of\n\x1b[2J"}, "the server failed: out of ␛\\[2J"),
    ],
)
def test_an_answer_that_breaks_off_is_told(
    chat: Chat, endpoint: Endpoint, step: object, message: str
) -> None:
    endpoint.say(said("So far"), step)  # type: ignore[arg-type]
    done = chat(endpoint.url, "One?\n")
    assert (done.out, done.code) == ("So far\n", 2)
    assert re.fullmatch(f"gpt-oss-mxfp4: {message}\n", done.err)


@pytest.mark.parametrize(
    "chunk",
    [
        *("5", "[1]", '"error"', "null"),
        *('{"choices": 5}', '{"choices": [5]}', '{"choices": [{"delta": 5}]}'),
        *('{"usage": 5}', '{"usage": {"completion_tokens": "42"}}'),
        *(
            f'{{"choices": [{{"delta": {delta}}}]}}'
            for delta in (
                *('{"content": 5}', '{"reasoning": ["hm"]}', '{"tool_calls": 5}'),
                *('{"tool_calls": [5]}', '{"tool_calls": [{"index": [0]}]}'),
                '{"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}',
            )
        ),
    ],
)
def test_a_chunk_of_another_form_is_told(chat: Chat, endpoint: Endpoint, chunk: str) -> None:
    endpoint.say(said("So far"), chunk)
    message = "the server's answer could not be read: it is not of the form that OpenAI's API has"
    assert chat(endpoint.url, "One?\n") == Done("So far\n", f"gpt-oss-mxfp4: {message}\n", 2)


@pytest.mark.parametrize("chunk", ["{", "[" * 100_000])
def test_a_chunk_that_is_no_json_is_told(chat: Chat, endpoint: Endpoint, chunk: str) -> None:
    endpoint.say(chunk)
    message = "the server's answer could not be read: it is not JSON"
    assert chat(endpoint.url, "One?\n").err == f"gpt-oss-mxfp4: {message}\n"


def test_stopping_while_it_connects_keeps_the_request_from_going_out(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.say(said("Yes."))
    model = remote.RemoteModel(ChatOptions(url=endpoint.url))
    question = [{"role": "user", "content": "One?"}]
    connect = http.client.HTTPConnection.connect

    def interrupted(connection: http.client.HTTPConnection) -> None:
        model.stop()
        connect(connection)

    with monkeypatch.context() as patched:
        patched.setattr(http.client.HTTPConnection, "connect", interrupted)
        with pytest.raises(Refused, match=r"^stopped$"):
            list(model.answer(question, effort="low", temperature=0, seed=0))
    assert endpoint.bodies == []
    *_, end = model.answer(question, effort="low", temperature=0, seed=0)
    assert isinstance(end, End)
    assert end.tokens == 42, "the next answer is whole"


def test_what_a_server_leaves_out_or_null_is_not_missed(chat: Chat, endpoint: Endpoint) -> None:
    null = '{"choices": null, "usage": null, "error": null}'
    endpoint.say(null, '{"choices": [{"delta": null}]}', said("Yes."))
    assert chat(endpoint.url, "One?\n") == Done("Yes.\n", COUNTS, 0)
