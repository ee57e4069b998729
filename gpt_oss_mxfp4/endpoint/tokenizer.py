"""HarmonyTokenizer: MAX's tokenizer for gpt-oss, which renders chats into prompts."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError
from max.pipelines.context import TextContext
from max.pipelines.context.exceptions import InputError, PromptTooLongError
from max.pipelines.lib import TextTokenizer
from max.pipelines.lib.tokenizer import run_with_default_executor
from max.pipelines.modeling.types import (
    TextGenerationRequest,
    TextGenerationRequestMessage,
    TextGenerationRequestTool,
)
from transformers import PreTrainedTokenizerBase

from gpt_oss_mxfp4.endpoint.errors import FieldError
from gpt_oss_mxfp4.endpoint.messages import (
    messages_for_template,
    tools_for_template,
    variables_for_template,
)
from gpt_oss_mxfp4.harmony import CHANNEL, MESSAGE, stop_ids
from gpt_oss_mxfp4.special_text import MARK, reveal
from gpt_oss_mxfp4.template_encoder import TemplateEncoder

FINAL_HEADER = f"{CHANNEL}final{MESSAGE}"
"""What an answer begins with that is nothing but the message to the user."""

_BEGINNING = "beginning_of_the_answer"
"""Of what is handed from ``new_context`` to ``apply_chat_template``, among the template's variables."""

_RESERVED = (_BEGINNING, *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)

SERVER = "max.serve.router.openai_routes"
"""What a process that serves has imported before it makes a tokenizer."""


class HarmonyTokenizer(TextTokenizer):
    """Renders chats as TextTokenizer does, but loses none of their text and takes none of it for special tokens.

    An answer ends with harmony's stop tokens, whatever ``generation_config.json`` says of them. In a process that
    serves, which has imported MAX's routes before it makes a tokenizer, it installs the endpoint's hooks.

    Args:
        model_path: folder of the checkpoint.
        pipeline_config: what MAX was asked for.
        options: TextTokenizer's own.
    """

    def __init__(self, model_path: str, pipeline_config: Any, **options: Any) -> None:
        super().__init__(model_path, pipeline_config, **options)
        self._eos_token_ids |= set(stop_ids(self.delegate))
        self._encoder = TemplateEncoder(self.delegate)
        if SERVER in sys.modules:
            from gpt_oss_mxfp4.endpoint import hooks

            hooks.install(HarmonyTokenizer)

    async def new_context(self, request: TextGenerationRequest) -> TextContext:
        """Tokenizes a request.

        Raises:
            InputError: it is a chat that cannot be rendered.
        """
        wanted = request.response_format
        beginning = ""
        if wanted is not None and wanted.type == "grammar":  # see HarmonyToolParser
            beginning, wanted = wanted.grammar or "", None
        elif wanted is not None and wanted.type == "json_schema":  # MAX gives "text" a schema too
            # A grammar holds from the first token on, where it would allow no header.
            beginning = FINAL_HEADER
        variables = _checked(variables_for_template, request.chat_template_options or {}, _RESERVED)
        options = {**variables, _BEGINNING: beginning}
        return await super().new_context(
            replace(request, response_format=wanted, chat_template_options=options)
        )

    def apply_chat_template(
        self,
        messages: list[TextGenerationRequestMessage],
        tools: list[TextGenerationRequestTool] | None,
        **options: Any,
    ) -> str:
        """Renders a chat, for :meth:`encode` alone: special tokens in what its messages say are hidden.

        Raises:
            InputError: the template, or the format, has no place for something in it.
        """
        beginning = options.pop(_BEGINNING, "")
        dicts = _checked(messages_for_template, [_flat(message) for message in messages])
        hide = self._encoder.hide
        try:
            rendered = self.delegate.apply_chat_template(
                hide(dicts),
                tools=hide(tools_for_template(tools)) if tools else None,
                tokenize=False,
                **{"add_generation_prompt": True, **hide(options)},
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"messages and tools: must suit the model's chat template ({reveal(str(error))})"
            ) from error
        return f"{rendered}{beginning}"

    async def encode(
        self, prompt: str | Any, add_special_tokens: bool = True
    ) -> npt.NDArray[np.integer[Any]]:
        """Tokenizes a text, or takes token ids as they are."""
        if not isinstance(prompt, str) or MARK not in prompt:
            return await super().encode(prompt, add_special_tokens)
        ids = await run_with_default_executor(self._encoder.encode, prompt)
        if self.max_length and len(ids) > self.max_length:
            raise PromptTooLongError(len(ids), self.max_length)
        return np.array(ids)


def _flat(message: TextGenerationRequestMessage) -> dict[str, Any]:
    try:
        return message.flatten_content()
    except ValueError as error:
        raise InputError("messages: content must be text, gpt-oss reads nothing else") from error


def _checked(check: Any, *arguments: Any) -> Any:
    try:
        return check(*arguments)
    except FieldError as error:
        raise InputError(str(error)) from error
