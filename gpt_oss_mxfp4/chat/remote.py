"""RemoteModel: a model behind a server that speaks OpenAI's API, ``gpt-oss-mxfp4 serve`` or another."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from gpt_oss_mxfp4.chat.answer import End, Message
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.checkpoint.errors import one_line
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.key_file import read_keys
from gpt_oss_mxfp4.options import API_KEY_VARIABLE, Effort, Refused
from gpt_oss_mxfp4.terminal import harmless

CONNECT_SECONDS = 30

_BROKEN = (OSError, http.client.HTTPException, ValueError, RecursionError)
"""What a connection, or what came by it, ends in; a host's name that is none is a ValueError."""


T = TypeVar("T")


class RemoteModel:
    """Finds out what a server serves, and has it answer.

    Args:
        options: which server and model.

    Raises:
        Refused: the server cannot be reached, or does not admit us.
    """

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._url = options.url or ""
        try:
            address = urlsplit(self._url)
            port = address.port
        except ValueError:  # brackets or a port that are none
            address, port = urlsplit(""), None
        if address.scheme not in ("http", "https") or not address.hostname or port == 0:
            raise Refused(f"--url: must be like http://127.0.0.1:8000, got {self._url!r}")
        self._secure = address.scheme == "https"
        self._host = address.hostname
        # Without one HTTPConnection looks for a port behind the last colon, which an IPv6 address has too.
        self._port = port or (443 if self._secure else 80)
        self._path = address.path.rstrip("/").removesuffix("/v1")
        self._key = next(iter(read_keys(options.api_key_file)), "")  # a server's own may be several
        self._socket: socket.socket | None = None
        self._stopped = False
        self.name = options.model or self._served_model()

    def answer(
        self, messages: Sequence[Message], *, effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        """Gives pieces of the answer as they come, and at last its end; see ``Answerer``."""
        self._stopped = False  # now, not when the first piece is asked for: Ctrl-C may come before
        return self._answer(messages, effort, temperature, seed)

    def _answer(
        self, messages: Sequence[Message], effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "reasoning_effort": effort,
            "temperature": temperature,
            "max_completion_tokens": self._options.max_new_tokens,
            "seed": seed,
        }
        if self._options.top_k is not None:
            body["top_k"] = self._options.top_k  # not OpenAI's own, so sent only if asked for
        if self._options.top_p is not None:
            body["top_p"] = self._options.top_p
        reply = _Reply()
        with self._request("POST", "/v1/chat/completions", body) as response:
            try:
                for chunk in _chunks(response):
                    if self._stopped:  # before there was a connection to close
                        break
                    yield from reply.add(chunk)
            except (OSError, http.client.HTTPException) as error:
                if not self._stopped:
                    raise Refused(f"{self._url}: the connection broke off ({error})") from error
        if not (reply.finished or self._stopped):
            raise Refused(f"{self._url}: the connection broke off before the answer was complete")
        yield reply.end(stopped=self._stopped)

    def stop(self) -> None:
        """Closes the connection, which has the server stop too."""
        self._stopped = True
        connection = self._socket  # the other thread may be done with it
        if connection:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _served_model(self) -> str:
        with self._request("GET", "/v1/models", None) as response:
            try:
                return str(json.load(response)["data"][0]["id"])
            except (*_BROKEN, LookupError, TypeError) as error:
                raise Refused(f"{self._url}: must list the models it serves") from error

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection: http.client.HTTPConnection | None = None
        headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            try:
                connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
                connection.connect()
                self._socket = connection.sock
                if self._stopped:  # while there was no socket to close
                    raise Refused("stopped")
                self._socket.settimeout(None)  # a long prompt takes its time
                content = None if body is None else json.dumps(body).encode()
                connection.request(method, self._path + path, content, headers)
                response = connection.getresponse()
            except _BROKEN as error:
                if self._stopped:
                    raise Refused("stopped") from error
                raise Refused(f"{self._url}: cannot be reached ({error})") from error
            if response.status != 200:
                raise Refused(self._refusal(response))
            yield response
        finally:
            self._socket = None
            if connection:  # there is none to a name that cannot be
                connection.close()

    def _refusal(self, response: http.client.HTTPResponse) -> str:
        if response.status == 401:
            return f"{self._url}: wants an API key; name its file with --api-key-file, or set {API_KEY_VARIABLE}"
        text = ""
        with contextlib.suppress(*_BROKEN, LookupError, TypeError):
            text = response.read(4096).decode(errors="replace")
            text = str(json.loads(text)["error"]["message"])
        return f"{self._url}: {_line(text) or _line(response.reason)} ({response.status})"


class _Reply:
    """Reads the chunks of an answer."""

    def __init__(self) -> None:
        self.finished: str | None = None
        self._prompt_tokens: int | None = None
        self._tokens: int | None = None
        self._calls: dict[int, list[str]] = {}
        self._first = self._last = 0.0

    def add(self, chunk: Any) -> list[Piece]:
        """Takes a chunk and gives its text."""
        try:
            return list(self._read(chunk))
        except (AttributeError, TypeError) as error:
            raise Refused(
                "the server's answer could not be read: it is not of the form that OpenAI's API has"
            ) from error

    def _read(self, chunk: Any) -> Iterator[Piece]:
        if told := chunk.get("error"):
            told = told.get("message") if isinstance(told, dict) else told
            raise Refused(f"the server failed: {_line(told)}")
        if usage := chunk.get("usage"):
            self._prompt_tokens = _of(int, usage.get("prompt_tokens"))
            self._tokens = _of(int, usage.get("completion_tokens"))
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            self.finished = _of(str, choice.get("finish_reason")) or self.finished
            thought = _of(str, delta.get("reasoning_content") or delta.get("reasoning"))
            said = _of(str, delta.get("content"))
            if thought or said:
                self._last = time.monotonic()
                self._first = self._first or self._last
            if thought:
                yield Piece(Kind.REASONING, thought)
            if said:
                yield Piece(Kind.ANSWER, said)
            for call in delta.get("tool_calls") or []:
                parts = self._calls.setdefault(call.get("index", 0), ["", ""])
                function = call.get("function") or {}
                parts[0] += function.get("name") or ""
                parts[1] += function.get("arguments") or ""

    def end(self, *, stopped: bool) -> End:
        """Tells what became of the answer."""
        return End(
            prompt_tokens=self._prompt_tokens,
            tokens=self._tokens,
            seconds=self._last - self._first,
            cut=self.finished == "length",
            stopped=stopped and not self.finished,
            calls=tuple((name, arguments) for name, arguments in self._calls.values()),
        )


def _line(told: object) -> str:
    """What a server tells in one line, which does nothing to a terminal."""
    return harmless(one_line(told))


def _of(kind: type[T], value: Any) -> T | None:
    """A value that is of a kind, or None where it is left out; a TypeError where it is of another."""
    if not isinstance(value, kind | None):
        raise TypeError
    return value


def _chunks(response: http.client.HTTPResponse) -> Iterator[Any]:
    for line in response:
        if not line.startswith(b"data:"):
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:  # not JSON, or lists in lists for ever
            raise Refused("the server's answer could not be read: it is not JSON") from error
        yield chunk
