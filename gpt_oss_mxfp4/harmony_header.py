"""Header: who says a message of the harmony format and what it is for, read from the text before ``<|message|>``.

The text falls into sections, by the special token that opens each: the role behind ``<|start|>``, the channel behind
``<|channel|>``, the type of the message's text behind ``<|constrain|>``. The recipient of a tool's call, ``to=name``,
stands behind the role or the channel; the type may stand behind either without its ``<|constrain|>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

CHANNELS = ("analysis", "commentary", "final")

_ROLE = re.compile(r"\s*(assistant|user|developer|system)")
_CHANNEL = re.compile(rf"\s*({'|'.join(CHANNELS)})")
_TYPE = re.compile(r"\s*(json|code)")
_WORD = re.compile(r"\s*(\S+)")
_RECIPIENT = re.compile(r"(?:^|\s)to=(\S+)")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a message is. A part that its header leaves out is None.

    Args:
        role: who speaks: assistant, or else someone whom the model makes up.
        channel: analysis, commentary or final.
        recipient: the tool that is called: functions.calculator, say.
    """

    role: str | None = None
    channel: str | None = None
    recipient: str | None = None


class Kind(Enum):
    """What a message is for whoever asked."""

    REASONING = "reasoning"
    ANSWER = "answer"
    CALL = "call"


def message_kind(header: Header) -> Kind:
    """What a message is for: the one place that decides it.

    The answer is every message of the assistant that is neither reasoning nor a tool's call: commentary without a
    recipient, which the format means for the user to see, and one whose channel is missing or unknown, as it would be
    lost otherwise. What the model makes up for others to say is reasoning.
    """
    if not by_assistant(header):
        return Kind.REASONING
    if header.recipient is not None and header.channel != "final":
        return Kind.CALL
    return Kind.REASONING if header.channel == "analysis" else Kind.ANSWER


def by_assistant(header: Header) -> bool:
    """Whether a message is the assistant's own."""
    return header.role in (None, "assistant")


def is_role(text: str) -> bool:
    """Whether text is the name of a role and nothing else."""
    return _ROLE.fullmatch(text.rstrip()) is not None


def is_regular(header: Header) -> bool:
    """Whether a header is one that the format has for what a model says: the assistant's, in a channel of its own."""
    return header.role == "assistant" and header.channel in CHANNELS


def parse_header(role: str, channel: str, content_type: str) -> Header:
    """Reads the sections of a header that ``<|message|>`` ended. What is left of them, the type say, is dropped.

    Args:
        role: text of the section; empty, like the others, where there is none.
        channel: text of the section.
        content_type: text of the section.
    """
    who, behind_role = _first(_WORD, role)
    where, behind_channel = _first(_WORD, channel)
    recipient, _ = _take_recipient(f"{behind_role} {behind_channel} {content_type}")
    return Header(role=who, channel=where, recipient=recipient)


def parse_cut_header(role: str, channel: str, content_type: str) -> tuple[Header, str]:
    """Reads the sections of a header that something else ended: what no header holds is the message's text.

    Args:
        role: text of the section, see :func:`parse_header`.
        channel: text of the section.
        content_type: text of the section.

    Returns:
        The header, as far as it goes, and the text.
    """
    who, behind_role = _first(_ROLE, role)
    where, behind_channel = _first(_CHANNEL, channel)
    _, behind_type = _first(_TYPE, content_type)
    recipient, rest = _take_recipient(f"{behind_role} {behind_channel} {behind_type}")
    return Header(role=who, channel=where, recipient=recipient), rest.strip()


def _first(name: re.Pattern[str], text: str) -> tuple[str | None, str]:
    match = name.match(text)
    if match is None or match[1].startswith("to="):
        return None, text
    return match[1], text[match.end() :]


def _take_recipient(text: str) -> tuple[str | None, str]:
    match = _RECIPIENT.search(text)
    if match is None:
        return None, text
    return match[1], f"{text[: match.start()]} {text[match.end() :].lstrip()}"
