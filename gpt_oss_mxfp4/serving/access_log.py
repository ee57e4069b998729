"""What is told of each request: one line of name=value pairs, and nothing of what was asked or answered."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")
_LONGEST = 200


@dataclass
class Exchange:
    """A request and what became of it.

    Args:
        method: HTTP's.
        path: without the query.
        client: address, or "-".
        status: of the answer, or None where there was none.
        prompt_tokens: tokens of the prompt, as far as MAX counted them.
        tokens: that were generated.
        ended: "ok", or what ended it: "client_left", "refused", "stopped" or "error".
        why: of a refusal, OpenAI's name of the field or of the case.
        begin: by the monotonic clock.
        over: whether it has been answered, or was left.
        at_end: what is done then.
    """

    method: str
    path: str
    client: str = "-"
    status: int | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    ended: str = "ok"
    why: str | None = None
    begin: float = field(default_factory=time.monotonic)
    over: bool = False
    at_end: AsyncExitStack = field(default_factory=AsyncExitStack)

    def line(self) -> str:
        """The line, without its end."""
        pairs = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "method": self.method,
            "path": self.path,
            "status": self.status or "-",
            "seconds": f"{time.monotonic() - self.begin:.3f}",
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "ended": self.ended,
            "why": self.why,
            "client": self.client,
        }
        return " ".join(
            f"{name}={_quoted(str(value))}" for name, value in pairs.items() if value is not None
        )


CURRENT: ContextVar[Exchange | None] = ContextVar("gpt_oss_mxfp4.exchange", default=None)
"""The exchange that a task works for; tasks that it starts inherit it."""

Tell = Callable[[str], None]
"""Prints a line."""


def _quoted(text: str) -> str:
    """Returns a value that has no spaces or controls, or its JSON: nobody writes lines of their own into the log."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
