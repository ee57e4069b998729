"""The command at a terminal: a pseudo-terminal, its keys, and what stands on it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.endpoint import Endpoint, Hold, said, serve, thought

PATIENCE_SECONDS = 60
CONTROL_C, CONTROL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve(Endpoint()) as endpoint:
        yield endpoint


class Terminal:
    """The command, and what it has written since the last wait."""

    def __init__(self, url: str, *arguments: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.fd, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpt_oss_mxfp4", "chat", "--url", url, *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            # A session of its own with this terminal: its Ctrl-C comes from the terminal itself.
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(0),
            env=inherited | {"TERM": "xterm", "INPUTRC": os.devnull} | environment,
        )
        os.close(child)
        self._unread = ""

    def type(self, keys: str | bytes) -> None:
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)

    def wait_for(self, pattern: str) -> str:
        """Gives all that is written up to a match of a pattern and with it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (match := re.search(pattern, self._unread)):
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {self._unread!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self._unread += os.read(self.fd, 65536).decode(errors="replace")
        text, self._unread = self._unread[: match.end()], self._unread[match.end() :]
        return text

    def end(self) -> int:
        """Waits for the command's end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while self.process.poll() is None and time.monotonic() < deadline:
                # Read on: setting a terminal back waits until all that was written to it is read.
                if select.select([self.fd], [], [], 0.1)[0]:
                    with contextlib.suppress(OSError):
                        os.read(self.fd, 65536)
            return self.process.wait(0)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self.fd)


def _take_terminal(fd: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def test_a_conversation_with_its_commands_and_its_end(endpoint: Endpoint) -> None:
    endpoint.say(thought("hm"), said("Yes.\x1b[2J"))
    terminal = Terminal(endpoint.url)
    assert "stand/in; /help lists commands" in terminal.wait_for("> ")
    terminal.type("One?\n")
    shown = terminal.wait_for(r"tokens/s\r\n.*> ")
    assert "\x1b[2mhm\x1b[0m\r\n\r\nYes.␛[2J\r\n" in shown
    assert "\x1b[2J" not in shown
    terminal.type("/reasoning off\n")
    terminal.wait_for("> ")
    terminal.type("/effort extreme\n")
    terminal.wait_for("must be low, medium or high")
    terminal.type(UP + UP + UP + "\n")  # the first question again, from the history
    assert "hm" not in terminal.wait_for(r"tokens/s\r\n.*> ").replace("> ", "")
    assert [body["messages"][-1]["content"] for body in endpoint.bodies] == ["One?", "One?"]
    terminal.type("one\\\n")
    terminal.wait_for(r"\. ")
    terminal.type("two\n")
    terminal.wait_for(r"tokens/s\r\n.*> ")
    assert endpoint.bodies[-1]["messages"][-1]["content"] == "one\ntwo"
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


def test_control_c_stops_the_answer_on_the_server_too_and_the_chat_goes_on(
    endpoint: Endpoint,
) -> None:
    endpoint.say(said("So far"), Hold())
    terminal = Terminal(endpoint.url)
    terminal.wait_for("> ")
    terminal.type("Go on forever\n")
    terminal.wait_for("So far")
    terminal.type(CONTROL_C)
    terminal.wait_for(r"stopped\r\n.*> ")
    assert endpoint.vanished.wait(PATIENCE_SECONDS), "the server still sends"
    terminal.type("given up")
    terminal.wait_for("given up")
    # Until readline waits: Python notices a signal that comes before that with the next key.
    time.sleep(1)
    terminal.type(CONTROL_C)  # at the prompt it gives up the line
    terminal.wait_for("> ")
    endpoint.say(said("Yes."))
    terminal.type("Two?\n")
    terminal.wait_for("Yes.")
    assert [message["content"] for message in endpoint.bodies[0]["messages"]] == [
        "Go on forever",
        "So far",
        "Two?",
    ]
    terminal.wait_for("> ")
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


def test_a_byte_that_is_no_utf_8_ends_no_conversation(endpoint: Endpoint) -> None:
    endpoint.say(said("Yes."))
    terminal = Terminal(endpoint.url)
    terminal.wait_for("> ")
    terminal.type(b"gr\xfc\xdf\n")
    terminal.wait_for(r"standard input: must be valid UTF-8\r\n.*> ")
    terminal.type("One?\n")
    terminal.wait_for(r"Yes\.(.|\r|\n)*> ")
    assert [body["messages"][-1]["content"] for body in endpoint.bodies] == ["One?"]
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour_nothing_of_it_is_written(
    endpoint: Endpoint, environment: dict[str, str]
) -> None:
    endpoint.say(thought("hm"), said("Yes."))
    terminal = Terminal(endpoint.url, **environment)
    terminal.wait_for("> ")
    terminal.type("One?\n")
    shown = terminal.wait_for(r"tokens/s\r\n.*> ")
    assert "[analysis]\r\nhm\r\n\r\n[final]\r\nYes.\r\n" in shown
    assert "\x1b[2m" not in shown
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


@pytest.mark.parametrize("piped", ["stdin", "stdout", "stderr"])
def test_where_one_end_is_no_terminal_there_are_no_prompts(endpoint: Endpoint, piped: str) -> None:
    endpoint.say(said("Yes."))
    terminal, child = pty.openpty()
    os.write(terminal, f"One?\n{CONTROL_D}".encode())
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), child) | {piped: subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-m", "gpt_oss_mxfp4", "chat", "--url", endpoint.url],
        stdin=streams["stdin"],
        stdout=streams["stdout"],
        stderr=streams["stderr"],
        start_new_session=True,
    ) as process:
        try:
            typed = b"One?\n" if piped == "stdin" else None
            written, told = process.communicate(typed, PATIENCE_SECONDS)
        finally:
            process.kill()
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # at its end
        while select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536)
    os.close(terminal)
    shown += (written or b"") + (told or b"")
    assert process.returncode == 0
    assert b"Yes." in shown
    assert b"/help" not in shown
    assert b"> " not in shown


def test_a_model_s_name_does_nothing_to_the_terminal(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "models", {"data": [{"id": "stand\x1b[2J"}]})
    terminal = Terminal(endpoint.url)
    assert "stand␛[2J; /help lists commands" in terminal.wait_for("> ")
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


def test_an_interrupt_from_elsewhere_stops_the_answer_too(endpoint: Endpoint) -> None:
    hold = Hold()
    endpoint.say(said("So far"), hold)
    terminal = Terminal(endpoint.url)
    terminal.wait_for("> ")
    terminal.type("One?\n")
    terminal.wait_for("So far")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for(r"stopped\r\n.*> ")
    hold.release()
    terminal.type(CONTROL_D)
    assert terminal.end() == 0
