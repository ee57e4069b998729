"""Turn: what a client is told of the assistant's turn, token by token: its reasoning, its answer, its calls.

Which is which :func:`message_kind` says, but that some calls are reasoning: of gpt-oss's own tools (``browser.search``,
``python``) where they are not offered, and any where no tools are. ``chat`` offers none, and asks for calls all the
same, to tell of them. Nothing here imports MAX.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpt_oss_mxfp4.detokenize import Decoder, StreamingDetokenizer
from gpt_oss_mxfp4.harmony import Event, HarmonyParser, MessageEnd, SpecialTokenDecoder, is_harmony
from gpt_oss_mxfp4.harmony_header import Header, Kind, message_kind

FUNCTIONS = "functions."
"""What stands before the name of a tool that the client offers, where the model calls it."""

_NO_TOOLS = ("browser", "python", "functions", "assistant", "user", "developer", "system", "all")
"""Recipients that no client has: gpt-oss's own tools, and whom a message may be for that calls none."""

_BETWEEN_MESSAGES = "\n"
"""Stands between two messages of one kind, as in ``generate``'s answers."""


@dataclass(frozen=True)
class Piece:
    """The next piece of a turn.

    Args:
        kind: of the message it belongs to.
        text: of the message; of a call, its arguments. Empty where a call begins or ends alone.
        tool: the tool's name, where a call begins; with what stands before it, if no tools are offered.
        ended: whether a call ends here; not where it is cut off.
    """

    kind: Kind
    text: str
    tool: str | None = None
    ended: bool = False


class Turn(Protocol):
    """Takes a generation's tokens one by one."""

    kind: Kind | None
    """Of the message whose text the last token is; None where it is no text."""

    @property
    def faults(self) -> int:
        """How often the tokens broke the format so far."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether the last token was one that ends an answer, as far as the format tells."""
        ...

    def add(self, token_id: int) -> list[Piece]:
        """Takes the next token and gives what it completes."""
        ...

    def finish(self) -> list[Piece]:
        """Gives what is left where no more tokens come."""
        ...


class PlainTurn:
    """A turn outside of the format: all of its text is the answer. A raw prompt has it, or another chat template.

    Args:
        tokenizer: of the model.
    """

    kind: Kind | None = Kind.ANSWER
    faults: int = 0
    stopped: bool = False

    def __init__(self, tokenizer: Decoder) -> None:
        self._detokenizer = StreamingDetokenizer(tokenizer)

    def add(self, token_id: int) -> list[Piece]:
        """Takes the next token and gives the text that it completes."""
        return _answer(self._detokenizer.add([token_id]))

    def finish(self) -> list[Piece]:
        """Gives what is left where no more tokens come."""
        return _answer(self._detokenizer.finish())


class HarmonyTurn:
    """A turn in the harmony format.

    Args:
        parser: of the tokens to come.
        offered: names of the tools that the model may call; None where the client offers none.
        every_call: whether calls are told as calls even where no tools are offered.
    """

    kind: Kind | None

    def __init__(
        self, parser: HarmonyParser, offered: Collection[str] | None, *, every_call: bool = False
    ) -> None:
        self._parser = parser
        self._offered = offered
        self._every_call = every_call
        self._open = False  # whether the message that is being read has been given a piece of
        self._said: set[Kind] = set()
        self.kind = None

    @property
    def faults(self) -> int:
        """How often the tokens broke the format so far."""
        return self._parser.faults

    @property
    def stopped(self) -> bool:
        """Whether the last token was one that ends an answer."""
        return self._parser.stopped

    def add(self, token_id: int) -> list[Piece]:
        """Takes the next token and gives what it completes."""
        events = self._parser.add([token_id])
        header = self._parser.header
        self.kind = None if header is None or self._parser.special else self._kind(header)
        return self._pieces(events)

    def finish(self) -> list[Piece]:
        """Gives what is left where no more tokens come."""
        return self._pieces(self._parser.finish())

    def _pieces(self, events: Sequence[Event]) -> list[Piece]:
        return [piece for event in events for piece in self._take(event)]

    def _take(self, event: Event) -> list[Piece]:
        kind, opened = self._kind(event.header), self._open
        tool = None if opened or kind is not Kind.CALL else self._tool(event.header)
        if isinstance(event, MessageEnd):
            self._open = False
            if kind is not Kind.CALL:
                return []
            return [Piece(kind, "", tool, ended=event.token is not None)]
        self._open = True
        text = event.text
        if not opened and kind is not Kind.CALL:
            text = _BETWEEN_MESSAGES * (kind in self._said) + text
            self._said.add(kind)
        return [Piece(kind, text, tool)]

    def _kind(self, header: Header) -> Kind:
        kind = message_kind(header)
        return Kind.REASONING if kind is Kind.CALL and not self._is_wanted(header) else kind

    def _is_wanted(self, header: Header) -> bool:
        recipient = header.recipient or ""
        if self._offered is None:
            return self._every_call
        # What was not offered is the client's to refuse, as with OpenAI: as reasoning it would end the turn in nothing.
        offered = recipient.startswith(FUNCTIONS) or recipient in self._offered
        return offered or recipient.partition(".")[0] not in _NO_TOOLS

    def _tool(self, header: Header) -> str:
        recipient = header.recipient or ""
        return recipient if self._offered is None else recipient.removeprefix(FUNCTIONS)


def read_turn(
    tokenizer: SpecialTokenDecoder,
    prompt: Sequence[int],
    offered: Collection[str] | None,
    *,
    every_call: bool = False,
) -> Turn:
    """Begins the turn that follows a prompt.

    Args:
        tokenizer: of the model.
        prompt: token ids.
        offered: names of the tools that the model may call; None where the client offers none.
        every_call: whether calls are told as calls even where no tools are offered.
    """
    if not is_harmony(tokenizer, prompt):
        return PlainTurn(tokenizer)
    return HarmonyTurn(HarmonyParser(tokenizer, prompt), offered, every_call=every_call)


def _answer(text: str) -> list[Piece]:
    return [Piece(Kind.ANSWER, text)] if text else []
