"""Chunks of a generation as MAX's routes take them: token ids in, reasoning, answer and calls out."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from max.pipelines.context import GenerationStatus

from gpt_oss_mxfp4.endpoint.calls import write_call
from gpt_oss_mxfp4.endpoint.stop_strings import StopStrings
from gpt_oss_mxfp4.endpoint.turn import Piece, Turn
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.options import HARMONY_LOGGER

logger = logging.getLogger(HARMONY_LOGGER)

Chunk = Any
"""MAX's TokenGeneratorOutput."""

T = TypeVar("T")


@dataclass
class _Part:
    """Text that follows one another in a chunk, of one kind."""

    reasoning: bool
    text: str


async def turn_chunks(
    chunks: AsyncGenerator[Chunk, None],
    begin: Callable[[Sequence[int]], Turn],
    stop: StopStrings,
    cancel: Callable[[], None],
    name: str,
) -> AsyncGenerator[Chunk, None]:
    """Tells reasoning, answer and calls apart.

    Reasoning that a chunk's tokens complete comes before or after answer as it was said, in chunks of its own. Calls
    come amid the answer as :mod:`gpt_oss_mxfp4.endpoint.calls` writes them. Counts add up to all tokens, those of
    reasoning messages' texts being reasoning; log probabilities are those of the answer's tokens.

    Args:
        chunks: with all tokens, and text that is not looked at.
        begin: begins the turn that follows a prompt's token ids.
        stop: what ends the answer.
        cancel: tells MAX that no more tokens are wanted.
        name: of the request, for the log.
    """
    turn: Turn | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if turn is None:
                turn = begin([int(i) for i in chunk.prompt_token_ids])
            kinds: list[Kind | None] = []
            pieces: list[Piece] = []
            for token_id in chunk.token_ids or ():
                pieces += turn.add(token_id)
                kinds.append(turn.kind)
            if chunk.status.is_done:
                pieces += turn.finish()
            parts = _parts(pieces, stop)
            if stop.stopped:
                chunk = replace(chunk, status=GenerationStatus.END_OF_SEQUENCE)
            elif chunk.status.is_done:
                _add(parts, reasoning=False, text=stop.finish())
            for told in _told(chunk, kinds, parts):
                yield told
            if stop.stopped:
                cancel()
                break
    if turn is not None and turn.faults:
        logger.warning(
            "request %s: faults in the answer's harmony format: %d; no text of it is lost",
            name,
            turn.faults,
        )


def _parts(pieces: Iterable[Piece], stop: StopStrings) -> list[_Part]:
    """Texts to tell, up to where a string stops the answer."""
    parts: list[_Part] = []
    for piece in pieces:
        if piece.kind is Kind.ANSWER:
            _add(parts, reasoning=False, text=stop.add(piece.text))
            if stop.stopped:
                break
            continue
        _add(parts, reasoning=False, text=stop.finish())
        if piece.kind is Kind.CALL:
            _add(parts, reasoning=False, text=write_call(piece))
        else:
            _add(parts, reasoning=True, text=piece.text)
    return parts


def _add(parts: list[_Part], *, reasoning: bool, text: str) -> None:
    if not text:
        return
    if parts and parts[-1].reasoning == reasoning:
        parts[-1].text += text
    else:
        parts.append(_Part(reasoning, text))


def _told(chunk: Chunk, kinds: list[Kind | None], parts: list[_Part]) -> list[Chunk]:
    """Chunks for each part of one: what was known of the prompt in the first, of the tokens in the last."""
    reasoning = kinds.count(Kind.REASONING)
    last = replace(
        chunk,
        decoded_tokens=None,
        decoded_reasoning_tokens=None,
        token_count=len(kinds) - reasoning,
        reasoning_token_count=reasoning,
        token_log_probabilities=_of_answer(chunk.token_log_probabilities, kinds),
        top_log_probabilities=_of_answer(chunk.top_log_probabilities, kinds),
        sampled_tokens=_of_answer(chunk.sampled_tokens, kinds),
        stop_sequence=None,
    )
    if len(parts) < 2:
        return [_with_text(last, part) for part in parts] or [last]
    before = replace(
        last,
        status=GenerationStatus.ACTIVE,
        token_count=0,
        reasoning_token_count=0,
        token_log_probabilities=None,
        top_log_probabilities=None,
        sampled_tokens=None,
        token_ids=None,
    )
    after = {"prompt_token_ids": None, "cached_token_count": None}
    told = [before, *[replace(before, **after)] * (len(parts) - 2), replace(last, **after)]
    return [_with_text(chunk, part) for chunk, part in zip(told, parts, strict=True)]


def _with_text(chunk: Chunk, part: _Part) -> Chunk:
    field = "decoded_reasoning_tokens" if part.reasoning else "decoded_tokens"
    return replace(chunk, **{field: part.text})


def _of_answer(values: Sequence[T] | None, kinds: Sequence[Kind | None]) -> list[T] | None:
    """What there is of the answer's tokens among values of all tokens."""
    if not values:
        return None
    return [v for v, kind in zip(values, kinds, strict=True) if kind is Kind.ANSWER] or None
