"""HarmonyParser: token ids of gpt-oss's harmony format to messages, each piece of text with its header.

A message is ``<|start|>role<|channel|>name<|message|>text<|end|>``. One that calls a tool ends in ``<|call|>``, the
last one of an answer in ``<|return|>``.

What breaks the format loses no text. Text where a header should be, with no ``<|message|>`` behind it, is a message of
its own, given as a whole once something else begins; so is a tool's call that is cut off in its header. Where the
tokens' end cuts it off it is no call, as the tool's name may not be whole, and its text is reasoning. A message that
another's header cuts off ends there. A special token that means nothing where it stands is skipped.

Source: https://developers.openai.com/cookbook/articles/openai-harmony
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gpt_oss_mxfp4.detokenize import Decoder, StreamingDetokenizer
from gpt_oss_mxfp4.harmony_header import (
    Header,
    Kind,
    is_regular,
    is_role,
    message_kind,
    parse_cut_header,
    parse_header,
)

START = "<|start|>"
END = "<|end|>"
MESSAGE = "<|message|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
RETURN = "<|return|>"
CALL = "<|call|>"
END_OF_TEXT = "<|endoftext|>"
"""No part of the format, but one of the tokens that the published models stop at."""

SPECIAL_TOKENS = (START, END, MESSAGE, CHANNEL, CONSTRAIN, RETURN, CALL)
STOP_TOKENS = (RETURN, CALL, END_OF_TEXT)

_BETWEEN = ""
"""The section of what stands between messages, where a ``<|start|>`` should be."""


class SpecialTokenDecoder(Decoder, Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def get_added_vocab(self) -> dict[str, int]:
        """Gives the ids of added tokens, the special ones among them."""
        ...


@dataclass(frozen=True)
class Delta:
    """The next piece of a message's text, never empty."""

    header: Header
    text: str


@dataclass(frozen=True)
class MessageEnd:
    """The end of a message, also of one without text.

    Args:
        header: of the message.
        token: the special token that ended it; None where no more tokens came.
    """

    header: Header
    token: str | None


Event = Delta | MessageEnd


def is_harmony(tokenizer: SpecialTokenDecoder, prompt: Sequence[int]) -> bool:
    """Whether a prompt is in the harmony format: its tokenizer has all special tokens, and it begins a message."""
    ids = tokenizer.get_added_vocab()
    return all(token in ids for token in SPECIAL_TOKENS) and ids[START] in prompt


def stop_ids(tokenizer: SpecialTokenDecoder) -> list[int]:
    """Ids of the tokens that end an answer, as far as the tokenizer has them."""
    ids = tokenizer.get_added_vocab()
    return [ids[token] for token in STOP_TOKENS if token in ids]


class HarmonyParser:
    """Reads what a model says behind a prompt, token by token: how they are cut into calls changes nothing.

    Args:
        tokenizer: of the model.
        prompt: what the tokens to come continue, in the harmony format (:func:`is_harmony`). The first message of the
            answer usually begins in it, with ``<|start|>assistant``.
    """

    header: Header | None
    """Of the message whose text is being read; None in a header and between messages."""

    stopped: bool
    """Whether the last token was one that ends an answer."""

    special: bool
    """Whether the last token was one of the format's own, and no text."""

    faults: int
    """How often the tokens broke the format so far, where one could say how they should have been."""

    def __init__(self, tokenizer: SpecialTokenDecoder, prompt: Sequence[int]) -> None:
        ids = tokenizer.get_added_vocab()
        self._tokenizer = tokenizer
        self._tokens = {
            ids[token]: token for token in (*SPECIAL_TOKENS, *STOP_TOKENS) if token in ids
        }
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._sections: dict[str, list[int]] = {}  # of the header, by the token that opens each
        self.faults = 0
        self.header = None
        self.stopped = self.special = False
        begin = max(i for i, token_id in enumerate(prompt) if token_id == ids[START])
        self.add(prompt[begin:])
        self.faults = 0

    def add(self, ids: Sequence[int]) -> list[Event]:
        """Takes the next tokens and gives what they complete, often nothing."""
        events: list[Event] = []
        for token_id in ids:
            token = self._tokens.get(token_id)
            self.stopped, self.special = token in STOP_TOKENS, token is not None
            if self.header is None:
                events += self._read_header(token_id, token)
            else:
                events += self._read_text(self.header, token_id, token)
        return events

    def finish(self) -> list[Event]:
        """Gives what is left where no more tokens come."""
        return self._cut_header(None) if self.header is None else self._end_text(self.header, None)

    def _read_text(self, header: Header, token_id: int, token: str | None) -> list[Event]:
        if token not in (None, MESSAGE, CONSTRAIN):
            self.faults += token in (START, CHANNEL)  # no end
            return self._end_text(header, token)
        self.faults += token is not None
        text = self._detokenizer.add([token_id])
        return [Delta(header, text)] if text else []

    def _end_text(self, header: Header, token: str | None) -> list[Event]:
        text = self._detokenizer.finish()
        self._begin_header(token)
        return [*([Delta(header, text)] if text else []), MessageEnd(header, token)]

    def _begin_header(self, token: str | None) -> None:
        self.header = None
        self._sections = {token: []} if token in (START, CHANNEL) else {}

    def _read_header(self, token_id: int, token: str | None) -> list[Event]:
        if token is None:
            section = next(reversed(self._sections), _BETWEEN)
            self._sections.setdefault(section, []).append(token_id)
            return []
        if token == MESSAGE:
            events = self._leave_between(token)
            self.header = parse_header(*map(self._section_text, (START, CHANNEL, CONSTRAIN)))
            self.faults += not is_regular(self.header)
            return events
        if token == CONSTRAIN or (token == CHANNEL and CHANNEL not in self._sections):
            events = self._leave_between(token)
            self._sections.setdefault(token, [])
            return events
        return self._cut_header(token)

    def _cut_header(self, token: str | None) -> list[Event]:
        events = self._leave_between(token)
        header, text = parse_cut_header(*map(self._section_text, (START, CHANNEL, CONSTRAIN)))
        if token is None and message_kind(header) is Kind.CALL:
            header = replace(header, channel="analysis", recipient=None)
        self.faults += bool(self._sections) and token is not None
        self._begin_header(token)
        return events + _whole_message(header, text, token)

    def _leave_between(self, token: str | None) -> list[Event]:
        """Makes a message of what stands between messages, unless it is a role whose ``<|start|>`` is missing."""
        text = self._section_text(_BETWEEN)
        ids = self._sections.pop(_BETWEEN, [])
        self.faults += bool(text.strip())
        if is_role(text):
            self._sections[START] = ids
            return []
        return _whole_message(Header(), text.strip(), token)

    def _section_text(self, token: str) -> str:
        return self._tokenizer.decode(self._sections.get(token, []), skip_special_tokens=True)


def _whole_message(header: Header, text: str, token: str | None) -> list[Event]:
    if text:
        return [Delta(header, text), MessageEnd(header, token)]
    return [MessageEnd(header, token)] if header.recipient else []
