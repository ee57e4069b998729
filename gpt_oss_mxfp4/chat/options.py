"""What ``chat`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt_oss_mxfp4.options import Effort, EngineOptions, SamplingOptions

Shown = Literal["on", "off"]
"""Whether something is shown."""


@dataclass(frozen=True, kw_only=True)
class ChatOptions(EngineOptions, SamplingOptions):
    """Each field is the argument of the same name, checked by itself.

    Args:
        url: of a server to ask, or None to run the model here. ``model`` is then the name it serves it by, or None for
            its first.
        api_key_file: file with the server's API key, or None.
        max_length: tokens that a conversation may have, or None for the default, or fewer if the model takes fewer.
        effort: of the reasoning.
        system: instructions before the conversation, or nothing.
        reasoning: whether it is shown, or None to show it on a terminal alone.
    """

    url: str | None = None
    api_key_file: Path | None = None
    max_length: int | None = None
    max_new_tokens: int = 4096
    effort: Effort = "medium"
    system: str = ""
    reasoning: Shown | None = None
