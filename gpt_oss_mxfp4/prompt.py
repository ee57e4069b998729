"""Prompt: a text or a conversation in the model's tokens."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, one_line
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.harmony import is_harmony
from gpt_oss_mxfp4.options import Effort, Refused
from gpt_oss_mxfp4.special_text import reveal
from gpt_oss_mxfp4.template_encoder import TemplateEncoder


@dataclass(frozen=True)
class Prompt:
    """A prompt in the model's tokens.

    Args:
        ids: token ids, at least one.
        tokenizer: what made them.
        harmony: whether a chat template put them into the harmony format, in which the answer comes too.
        templated: whether a chat template made them, of whatever format.
    """

    ids: list[int]
    tokenizer: Any
    harmony: bool
    templated: bool = False


def encode_prompt(
    checkpoint: Checkpoint,
    text: str,
    *,
    raw: bool = False,
    system: str = "",
    effort: Effort | None = None,
) -> Prompt:
    """Encodes a prompt: as a user's message where the checkpoint has a chat template, as it is where it has none.

    Args:
        checkpoint: what the prompt is for.
        text: the prompt.
        raw: whether it is taken as it is even so.
        system: instructions before it, or nothing.
        effort: of the reasoning, or None for the template's own.

    Raises:
        Refused: the folder has no tokenizer of this model, its chat template fails or is missing and was to say
            something, or the prompt has no tokens.
    """
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.chat_template and not raw:
        instructions = [{"role": "system", "content": system}] if system else []
        messages = [*instructions, {"role": "user", "content": text}]
        return encode_chat(checkpoint, tokenizer, messages, effort)
    for option, given in (("--system", system), ("--effort", effort)):
        if given:
            why = (
                "--raw leaves out; give one of the two" if raw else "this model lacks; leave it out"
            )
            raise Refused(f"{option}: takes effect through the chat template, which {why}")
    ids = tokenizer.encode(text)
    if not ids:
        raise Refused("the prompt: must have tokens, has none")
    return Prompt(_checked_ids(checkpoint, ids), tokenizer, harmony=False)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Loads the tokenizer beside a checkpoint's weights, of Hugging Face's kind.

    Raises:
        Refused: the folder has none.
    """
    folder = checkpoint.folder
    try:
        # Never code of the folder's: unless told, transformers would ask on the terminal.
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of whatever kind the file's content trips
        cause = _tokenizer_fault(folder) or one_line(error)
        raise Refused(f"{folder}: must hold the model's tokenizer files ({cause})") from error


def _tokenizer_fault(folder: Path) -> str | None:
    """What is wrong with the files, in plainer words than transformers has for it."""
    try:
        check_tokenizer(folder)
    except CheckpointError as error:
        within = f"{Path(error.where).name}: " if Path(error.where) != folder else ""
        return f"{within}{error.faults[0].text}"
    return None


def encode_chat(
    checkpoint: Checkpoint,
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    effort: Effort | None = None,
) -> Prompt:
    """Encodes a conversation, up to where its next answer begins, by the checkpoint's chat template.

    What looks like a special token in a message is text: a file that is asked about cannot begin another message.

    Args:
        checkpoint: what the prompt is for.
        tokenizer: from :func:`load_tokenizer`, with a chat template.
        messages: each with a role and its content, as OpenAI's API has them.
        effort: of the reasoning: low, medium, high, or None for the template's own.

    Raises:
        Refused: the chat template fails, or the tokenizer is another model's.
    """
    asked = {} if effort is None else {"reasoning_effort": effort}
    encoder = _template_encoder(tokenizer)
    try:
        rendered = tokenizer.apply_chat_template(
            encoder.hide(messages), tokenize=False, add_generation_prompt=True, **asked
        )
    except Exception as error:  # a template is a program: it can fail in every way
        raise Refused(
            f"{checkpoint.folder}: must hold a chat template that works ({reveal(str(error))})"
        ) from error
    ids = encoder.encode(rendered)
    if not ids:
        raise Refused(f"{checkpoint.folder}: must hold a chat template that gives a prompt")
    ids = _checked_ids(checkpoint, ids)
    return Prompt(ids, tokenizer, harmony=is_harmony(tokenizer, ids), templated=True)


@functools.lru_cache(maxsize=1)
def _template_encoder(tokenizer: Any) -> TemplateEncoder:
    return TemplateEncoder(tokenizer)


def _checked_ids(checkpoint: Checkpoint, ids: Sequence[int]) -> list[int]:
    if max(ids) >= checkpoint.config.vocab_size:
        raise Refused(
            f"{checkpoint.folder}: must hold this model's tokenizer, got token {max(ids)} of a vocabulary of "
            f"{checkpoint.config.vocab_size}"
        )
    return [int(i) for i in ids]
