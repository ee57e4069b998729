"""Session: a conversation, and the commands that steer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from gpt_oss_mxfp4.chat.answer import Answerer, End, Message
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.chat.screen import Screen
from gpt_oss_mxfp4.checkpoint.errors import quoted
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.options import MAX_TEMPERATURE, Effort, Refused
from gpt_oss_mxfp4.quantity import count_text

HELP = """\
/new                     forget the conversation
/again                   answer the last question once more
/effort low|medium|high  how long to reason
/reasoning on|off        show the reasoning, or not
/temperature T           0 always takes the likeliest token
/system TEXT             instructions before the conversation; without a text, none
/help                    this
A line that ends in \\ goes on in the next; lines between two lines of \"\"\" are one message.
A message that begins with / wants a space before it. Ctrl-C stops an answer, Ctrl-D ends."""


SEED_STRIDE, SEEDS = 2**32, 2**63
"""From one answer's seed to the next, below what servers take: MAX adds the number of a token to it, so none is used
twice."""


class Session:
    """Takes what the user says, and shows the answers.

    Args:
        answerer: who answers.
        options: what holds until a command changes it.
        screen: shows answers.
        note: tells something in a line beside them.
        reasoning: whether reasoning is shown.
    """

    def __init__(
        self,
        answerer: Answerer,
        options: ChatOptions,
        screen: Screen,
        note: Callable[[str], None],
        *,
        reasoning: bool,
    ) -> None:
        self._answerer = answerer
        self._screen = screen
        self._note = note
        self._reasoning = reasoning
        self._effort: Effort = options.effort
        self._temperature = options.temperature
        self._system = options.system
        self._seed = options.seed % SEEDS
        self._messages: list[Message] = []
        self._answering = self._stopping = False

    def take(self, turn: str) -> None:
        """Does a command, or asks a question and shows the answer.

        Raises:
            Refused: it cannot be done; the conversation is what it was before.
        """
        if turn.startswith("/"):
            self._command(turn)
        else:
            self._ask(turn)

    def interrupt(self) -> bool:
        """Stops the answer that is coming, from another thread; returns False where it was to stop before."""
        if not self._answering:
            return True
        if self._stopping:
            return False
        self._stopping = True
        self._answerer.stop()
        return True

    def _command(self, line: str) -> None:
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "/help" and not value:
            self._note(HELP)
        elif name == "/new" and not value:
            self._messages.clear()
            self._note("a new conversation")
        elif name == "/again" and not value:
            self._ask_again()
        elif name == "/effort":
            if value not in get_args(Effort):
                raise Refused(f"/effort: must be low, medium or high, got {quoted(value)}")
            self._effort = value  # type: ignore[assignment]  # just checked
            self._note(f"effort: {value}")
        elif name == "/reasoning":
            if value not in ("on", "off"):
                raise Refused(f"/reasoning: must be on or off, got {quoted(value)}")
            self._reasoning = value == "on"
            self._note(f"reasoning: {value}")
        elif name == "/temperature":
            self._temperature = _temperature(value)
            self._note(f"temperature: {self._temperature:g}")
        elif name == "/system":
            self._system = value
            self._note("other instructions from here on" if value else "no instructions")
        else:
            raise Refused(
                f"{quoted(name)} is no command: /help lists them, and a space before it says it to the model"
            )

    def _ask_again(self) -> None:
        asked = [i for i, message in enumerate(self._messages) if message["role"] == "user"]
        if not asked:
            raise Refused("/again: nothing has been asked")
        kept = self._messages
        self._messages, question = kept[: asked[-1]], kept[asked[-1]]["content"]
        try:
            self._ask(question)
        except BaseException:
            self._messages = kept
            raise

    def _ask(self, question: str) -> None:
        system = [{"role": "system", "content": self._system}] if self._system else []
        asked = [*self._messages, {"role": "user", "content": question}]
        text = ""
        end = End()
        self._stopping = False
        pieces = self._answerer.answer(
            [*system, *asked],
            effort=self._effort,
            temperature=self._temperature,
            seed=self._seed,
        )
        self._answering = True
        try:
            for piece in pieces:
                if isinstance(piece, End):
                    end = piece
                else:
                    self._screen.show(piece, reasoning=self._reasoning)
                    text += piece.text if piece.kind is Kind.ANSWER else ""
        finally:
            self._answering = False
            self._seed = (self._seed + SEED_STRIDE) % SEEDS
            self._screen.end()
        # Reasoning is not kept: the format drops that of earlier answers.
        answered = [{"role": "assistant", "content": text}] if text else []
        self._messages = [*asked, *answered]
        self._tell(end, answered=bool(text))

    def _tell(self, end: End, *, answered: bool) -> None:
        for name, arguments in end.calls:
            self._note(
                f"the model called {quoted(name)}, but chat offers no tools: {quoted(arguments)}"
            )
        if end.stopped:
            self._note("stopped")
        elif end.cut:
            self._note("cut off: the tokens are used up")
        elif not answered and not end.calls:
            self._note("the model ended without an answer")
        if end.prompt_tokens is not None and end.tokens is not None:
            timed = end.tokens > 1 and end.seconds > 0
            rate = f", {(end.tokens - 1) / end.seconds:.2f} tokens/s" if timed else ""
            prompt, answer = (count_text(n, "token") for n in (end.prompt_tokens, end.tokens))
            self._note(f"prompt: {prompt}; generation: {answer}{rate}")


def _temperature(value: str) -> float:
    try:
        temperature = float(value)
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise Refused(
            f"/temperature: must be a number from 0 to {MAX_TEMPERATURE:g}, got {quoted(value)}"
        )
    return temperature
