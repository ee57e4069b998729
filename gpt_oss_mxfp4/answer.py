"""What of the generated tokens is printed: all of their text, or the answer among harmony's messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gpt_oss_mxfp4.checkpoint.errors import quoted
from gpt_oss_mxfp4.detokenize import Decoder, StreamingDetokenizer
from gpt_oss_mxfp4.harmony import Event, HarmonyParser, MessageEnd
from gpt_oss_mxfp4.harmony_header import Header, Kind, by_assistant, message_kind

Write = Callable[[str], None]


class Answer(Protocol):
    """Takes a generation's tokens as they come."""

    def add(self, ids: Sequence[int]) -> None:
        """Takes the next tokens and prints the text that they complete."""
        ...

    def finish(self) -> None:
        """Prints what is left, and the line's end."""
        ...


class PlainAnswer:
    """Prints all text, without special tokens.

    Args:
        tokenizer: of the model.
        write: prints a piece of text.
    """

    def __init__(self, tokenizer: Decoder, write: Write) -> None:
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._write = write

    def add(self, ids: Sequence[int]) -> None:
        """Takes the next tokens and prints the text that they complete."""
        self._write(self._detokenizer.add(ids))

    def finish(self) -> None:
        """Prints what is left, and the line's end."""
        self._write(self._detokenizer.finish())
        self._write("\n")


class HarmonyAnswer:
    """Prints the answer, with the reasoning before it where that is asked for, and notes what became of a missing one.

    The answer is what :func:`message_kind` says it is, but for commentary: that announces a tool's call, of which
    nothing comes here, so it is shown with the reasoning. With the reasoning, each message stands under its channel's
    name; so does what the model makes up for others to say, under their role's.

    Args:
        parser: of the tokens to come.
        write: prints a piece of text.
        note: tells something in a line beside the text; called at the end alone, when the text's line has ended.
        max_new_tokens: how many tokens may come.
        show_reasoning: whether messages are printed that are no answer.
    """

    def __init__(
        self,
        parser: HarmonyParser,
        write: Write,
        note: Callable[[str], None],
        *,
        max_new_tokens: int,
        show_reasoning: bool,
    ) -> None:
        self._parser = parser
        self._write = write
        self._note = note
        self._max_new_tokens = max_new_tokens
        self._show_reasoning = show_reasoning
        self._tokens = 0
        self._printed = False
        self._open = False  # whether the message that is being read has been printed from
        self._call = ""  # text so far of the tool's call that is being read
        self._calls: list[str] = []
        self._answered = False
        self._unfinished = False

    def add(self, ids: Sequence[int]) -> None:
        """Takes the next tokens and prints the text that they complete."""
        self._tokens += len(ids)
        for event in self._parser.add(ids):
            self._take(event)

    def finish(self) -> None:
        """Prints what is left, and the line's end if there was a line; then come the notes."""
        for event in self._parser.finish():
            self._take(event)
        if self._printed or self._answered:
            self._write("\n")
        for call in self._calls:
            self._note(call)
        self._note_missing_answer()

    def _take(self, event: Event) -> None:
        header = event.header
        kind = message_kind(header)
        call = kind is Kind.CALL
        answer = kind is Kind.ANSWER and header.channel != "commentary"
        if isinstance(event, MessageEnd):
            if call:
                name = quoted(header.recipient)
                self._calls.append(
                    f"the model called {name}, but generate offers no tools: {quoted(self._call)}"
                )
            self._answered |= answer
            self._unfinished = answer and event.token is None
            self._open = False
            self._call = ""
        elif call:
            self._call += event.text
        elif answer or self._show_reasoning:
            if not self._open:
                self._begin(header)
            self._write(event.text)

    def _begin(self, header: Header) -> None:
        if self._printed:
            self._write("\n\n" if self._show_reasoning else "\n")
        if self._show_reasoning:
            self._write(f"[{_title(header)}]\n")
        self._printed = self._open = True

    def _note_missing_answer(self) -> None:
        limit = self._max_new_tokens
        cut = self._tokens >= limit and not self._parser.stopped
        if cut and not self._answered:
            cure = "" if self._show_reasoning else ", or see its reasoning with --show-reasoning"
            self._note(f"no answer within {limit} tokens: raise --max-new-tokens{cure}")
        elif cut and self._unfinished:
            self._note(f"the answer is cut off after {limit} tokens: raise --max-new-tokens")
        elif not self._answered and not self._calls:
            cure = "" if self._show_reasoning else ": see what it said with --show-reasoning"
            self._note(f"the model ended without an answer{cure}")


def _title(header: Header) -> str:
    title = header.channel if by_assistant(header) else header.role
    return quoted(title or "final")
