"""LocalModel: a model in this process. It is compiled once, and what a prompt shares with earlier ones stays cached."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from gpt_oss_mxfp4.chat.answer import End, Message
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.endpoint.turn import Piece, read_turn
from gpt_oss_mxfp4.footprint import default_length
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.machine import check_engine, loading_step
from gpt_oss_mxfp4.options import Effort, Refused
from gpt_oss_mxfp4.physical_memory import check_memory
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.threads import limit_threads


class LocalModel:
    """Loads a model, and answers.

    Args:
        options: which, where and how.
        progress: tells what is loaded.

    Raises:
        CheckpointError: the checkpoint is not one this package can run.
        Refused: it is not there, this machine cannot run it, or it has no chat template.
    """

    def __init__(self, options: ChatOptions, progress: Progress) -> None:
        limit_threads(options.threads)
        check_engine(options)
        self.name = options.model_name
        self._checkpoint = open_model(options.model, progress)
        check_tokenizer(self._checkpoint.folder, content=False)
        self._length = _length(options.max_length, self._checkpoint.config.max_position_embeddings)
        asked = f"--max-length: {self._length}"
        check_memory(self._checkpoint, options, self._length, asked, progress)
        self._options = options
        self._stopped = threading.Event()
        with progress.step("loading MAX"):
            from gpt_oss_mxfp4 import engine, prompt
        self._engine, self._encode = engine, prompt.encode_chat
        self._tokenizer = prompt.load_tokenizer(self._checkpoint)
        if not self._tokenizer.chat_template:
            raise Refused(
                f"{self._checkpoint.folder}: must have a chat template to chat; generate continues a text without one"
            )
        with progress.step(*loading_step(options)):
            self._pipeline = engine.load(self._checkpoint, self._length - 1, 1, options, reuse=True)

    def answer(
        self, messages: Sequence[Message], *, effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        """Gives pieces of the answer as they come, and at last its end; see ``Answerer``."""
        self._stopped.clear()  # now, not when the first piece is asked for: Ctrl-C may come before
        return self._answer(messages, effort, temperature, seed)

    def _answer(
        self, messages: Sequence[Message], effort: Effort, temperature: float, seed: int
    ) -> Iterator[Piece | End]:
        prompt = self._encode(self._checkpoint, self._tokenizer, messages, effort)
        room = self._length - len(prompt.ids)
        if room < 1:
            raise Refused(
                f"the conversation has {len(prompt.ids)} tokens, and {self._length} is all that --max-length allows: "
                "/new begins another"
            )
        limit = min(room, self._options.max_new_tokens)
        options = dataclasses.replace(
            self._options, temperature=temperature, seed=seed, max_new_tokens=limit
        )
        turn = read_turn(self._tokenizer, prompt.ids, None, every_call=True)
        calls: list[Piece] = []
        tokens = 0
        begin = end = time.monotonic()
        # Closed even where it is not read to its end: what it has of the cache is free for the next answer.
        with contextlib.closing(self._engine.stream(self._pipeline, prompt, options)) as stream:
            for ids in stream:
                end = time.monotonic()
                begin = end if not tokens else begin
                tokens += len(ids)
                for token_id in ids:
                    yield from _without_calls(turn.add(token_id), calls)
                if self._stopped.is_set():
                    break
        yield from _without_calls(turn.finish(), calls)
        stopped = self._stopped.is_set()
        cut = tokens >= limit and not stopped and not turn.stopped
        yield End(len(prompt.ids), tokens, end - begin, cut, stopped, _whole_calls(calls))

    def stop(self) -> None:
        """Has the answer end with the token that is being made."""
        self._stopped.set()


def _without_calls(pieces: Iterable[Piece], calls: list[Piece]) -> Iterator[Piece]:
    """Gives the pieces of reasoning and answer, and appends those of calls to a list."""
    for piece in pieces:
        if piece.kind is Kind.CALL:
            calls.append(piece)
        else:
            yield piece


def _whole_calls(pieces: Iterable[Piece]) -> tuple[tuple[str, str], ...]:
    """Name and arguments of each call."""
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.tool is not None:
            calls.append((piece.tool, ""))
        name, arguments = calls[-1]
        calls[-1] = name, arguments + piece.text
    return tuple(calls)


def _length(wanted: int | None, limit: int) -> int:
    if wanted is not None and wanted > limit:
        raise Refused(f"--max-length: must be at most the model's {limit} tokens")
    return default_length(limit) if wanted is None else wanted
