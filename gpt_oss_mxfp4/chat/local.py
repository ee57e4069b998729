"""LocalModel: a model in this process. It is compiled once, and what a prompt shares with earlier ones stays cached."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence

from gpt_oss_mxfp4.chat.answer import End, Message, Piece
from gpt_oss_mxfp4.chat.options import ChatOptions, Effort
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.detokenize import StreamingDetokenizer
from gpt_oss_mxfp4.footprint import default_length
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.harmony import Delta, Event, HarmonyParser, HarmonyTokenizer
from gpt_oss_mxfp4.harmony_header import Kind, message_kind
from gpt_oss_mxfp4.machine import check_engine, loading_step
from gpt_oss_mxfp4.options import Refused
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
        reader = _HarmonyReader(self._tokenizer, prompt.ids) if prompt.harmony else None
        text = StreamingDetokenizer(self._tokenizer)
        tokens = 0
        begin = end = time.monotonic()
        # Closed even where it is not read to its end: what it has of the cache is free for the next answer.
        with contextlib.closing(self._engine.stream(self._pipeline, prompt, options)) as stream:
            for ids in stream:
                end = time.monotonic()
                begin = end if not tokens else begin
                tokens += len(ids)
                yield from reader.add(ids) if reader else _plain(text.add(ids))
                if self._stopped.is_set():
                    break
        yield from reader.finish() if reader else _plain(text.finish())
        stopped = self._stopped.is_set()
        cut = tokens >= limit and not stopped and not (reader and reader.stopped)
        calls = tuple(reader.calls) if reader else ()
        yield End(len(prompt.ids), tokens, end - begin, cut, stopped, calls)

    def stop(self) -> None:
        """Has the answer end with the token that is being made."""
        self._stopped.set()


class _HarmonyReader:
    """Sorts harmony's messages into reasoning, calls and the answer, see :func:`message_kind`."""

    def __init__(self, tokenizer: HarmonyTokenizer, prompt: Sequence[int]) -> None:
        self._parser = HarmonyParser(tokenizer, prompt)
        self._call = ""
        self._answered = False
        self._open = False  # whether the message that is being read has given text of the answer
        self.calls: list[tuple[str, str]] = []

    @property
    def stopped(self) -> bool:
        """Whether the last token was one that ends an answer."""
        return self._parser.stopped

    def add(self, ids: Sequence[int]) -> Iterator[Piece]:
        """Takes the next tokens and gives what they complete."""
        for event in self._parser.add(ids):
            yield from self._pieces(event)

    def finish(self) -> Iterator[Piece]:
        """Gives what is left where no more tokens come."""
        for event in self._parser.finish():
            yield from self._pieces(event)

    def _pieces(self, event: Event) -> Iterator[Piece]:
        kind = message_kind(event.header)
        if kind is Kind.CALL:
            if isinstance(event, Delta):
                self._call += event.text
            else:
                self.calls.append((event.header.recipient or "", self._call))
                self._call = ""
            return
        if not isinstance(event, Delta):
            self._open = False
        elif kind is Kind.ANSWER:
            between = "\n" if self._answered and not self._open else ""
            self._answered = self._open = True
            yield Piece("answer", between + event.text)
        else:
            yield Piece("reasoning", event.text)


def _plain(text: str) -> Iterator[Piece]:
    if text:
        yield Piece("answer", text)


def _length(wanted: int | None, limit: int) -> int:
    if wanted is not None and wanted > limit:
        raise Refused(f"--max-length: must be at most the model's {limit} tokens")
    return default_length(limit) if wanted is None else wanted
