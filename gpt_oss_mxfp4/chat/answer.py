"""An answer as it comes, whoever gives it: pieces of text, then what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.options import Effort

Message = Mapping[str, str]
"""A message of a conversation, as OpenAI's API has it: ``role`` and ``content``."""


@dataclass(frozen=True)
class End:
    """The end of an answer.

    Args:
        prompt_tokens: of the whole conversation before it, or None where nobody counted.
        tokens: of the answer, reasoning included, or None.
        seconds: from its first token to its last.
        cut: whether more would have come, but for the tokens that are allowed.
        stopped: whether it was stopped.
        calls: names and arguments of functions that the model called, though none was offered.
    """

    prompt_tokens: int | None = None
    tokens: int | None = None
    seconds: float = 0.0
    cut: bool = False
    stopped: bool = False
    calls: tuple[tuple[str, str], ...] = ()


class Answerer(Protocol):
    """Who answers."""

    name: str
    """Of the model."""

    def answer(
        self, messages: Sequence[Message], *, effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        """Gives pieces of the reasoning and the answer as they come, and at last the end, which has the calls.

        Args:
            messages: the conversation, the last one the user's.
            effort: of the reasoning.
            temperature: 0 for the likeliest token always.
            seed: of the sampling.

        Raises:
            Refused: it cannot be given, the conversation is too long say.
        """
        ...

    def stop(self) -> None:
        """Has the answer that is coming end, from another thread."""
        ...
