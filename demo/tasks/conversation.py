"""A conversation with a right answer, and whether training may ask it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""A chat message, as Hugging Face chat templates take them."""


@dataclass(frozen=True)
class Conversation:
    """Messages that end with the answer, or answers, to learn.

    Args:
        task: name of the task.
        question: what is asked, without the words around it: what is held out goes by this. Empty where it
            is always the same.
        messages: the conversation; every assistant's message after the last user's is to be learnt.
        tools: functions the model may call.
        effort: of reasoning, low, medium or high.
    """

    task: str
    question: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    effort: str = "medium"

    @property
    def held_out(self) -> bool:
        """Whether training must not ask it; never where nothing varies, as in a greeting."""
        return (
            bool(self.question)
            and hashlib.sha256(f"{self.task} {self.question}".encode()).digest()[0] < 26
        )

    def turns(self) -> Iterator[tuple[list[Message], Message]]:
        """Gives each answer to learn, behind the messages that it answers."""
        last_user = max(i for i, m in enumerate(self.messages) if m["role"] == "user")
        for i in range(last_user + 1, len(self.messages)):
            if self.messages[i]["role"] == "assistant":
                yield self.messages[:i], self.messages[i]


def ask(
    task: str, question: str, text: str, thinking: str, answer: str, tools: list[Any] | None = None
) -> Conversation:
    """Makes a conversation of a question and its answer."""
    messages = [
        {"role": "user", "content": text},
        {"role": "assistant", "thinking": thinking, "content": answer},
    ]
    return Conversation(task, question, messages, tools or [])
