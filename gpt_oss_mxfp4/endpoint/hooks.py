"""Hooks into MAX's server, in five places that it has no registry for, or none that will do.

Each is checked for what it was when this was written. MAX's reasoning parsers mark spans of one chunk's tokens, its
tool parsers see text without special tokens, and its routes take some fields of a request and then ignore them (NOTES
N60). Another model in the same process is left alone, but that empty log probabilities of its completions are null.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from max.pipelines.context.exceptions import InputError
from max.pipelines.lib import PipelineConfig, TextTokenizer
from max.pipelines.lib.tool_parsing import names_from_tools
from max.serve.pipelines.llm import TokenGeneratorOutput, TokenGeneratorPipeline
from max.serve.router import openai_routes
from max.serve.router.openai_routes import OpenAIChatResponseGenerator
from max.serve.schemas.openai import CreateChatCompletionRequest, CreateCompletionRequest
from starlette.requests import Request

from gpt_oss_mxfp4.endpoint.chunks import turn_chunks
from gpt_oss_mxfp4.endpoint.errors import FieldError
from gpt_oss_mxfp4.endpoint.messages import drop_nulls
from gpt_oss_mxfp4.endpoint.requests import Sampler, check_chat, check_completion
from gpt_oss_mxfp4.endpoint.stop_strings import StopStrings
from gpt_oss_mxfp4.endpoint.tool_parser import HarmonyToolParser
from gpt_oss_mxfp4.endpoint.turn import PlainTurn, Turn, read_turn

CHAT = "/chat/completions"
"""How the path of a request for a chat ends. Any other without messages has a text continued as it is."""

_EXPECTED = (
    (TokenGeneratorPipeline, "next_token_chunk", ("self", "request", "parse_reasoning")),
    (OpenAIChatResponseGenerator, "complete", ("self", "requests")),
    (openai_routes, "get_tool_parser", ("app",)),
    (openai_routes, "_parse_openai_request_body", ("request", "request_id", "model_cls")),
    (openai_routes, "_process_log_probabilities", ("token_generator_outputs",)),
)

_CHUNK_FIELDS = {
    "status",
    "decoded_tokens",
    "decoded_reasoning_tokens",
    "token_count",
    "reasoning_token_count",
    "token_log_probabilities",
    "top_log_probabilities",
    "sampled_tokens",
    "stop_sequence",
    "token_ids",
    "prompt_token_ids",
    "cached_token_count",
}

_ZERO_SEED = 2**62
"""Stands for seed 0, which MAX's routes take for none."""


@functools.cache
def install(ours: type[TextTokenizer]) -> None:
    """Installs the hooks, once.

    Args:
        ours: class of the tokenizers by which servers of gpt-oss are known.

    Raises:
        RuntimeError: MAX's server is not what they were written for.
    """
    check_server()
    hooks: tuple[Callable[[Any], Any], ...] = (
        *(
            functools.partial(hook, ours)
            for hook in (_telling_turns, _as_openai_has_it, _reading_calls, _refusing_the_ignored)
        ),
        _without_empty_log_probabilities,
    )
    for (owner, name, _), hook in zip(_EXPECTED, hooks, strict=True):
        setattr(owner, name, hook(getattr(owner, name)))


def check_server() -> None:
    """Checks that MAX's server has what is hooked into.

    Raises:
        RuntimeError: it has not.
    """
    for owner, name, expected in _EXPECTED:
        function = vars(owner).get(name)
        got = () if function is None else tuple(inspect.signature(function).parameters)
        if got != expected:
            raise RuntimeError(
                f"max.serve: {owner.__name__}.{name} must take {', '.join(expected)}, as in MAX 26.7.0, got "
                f"{', '.join(got) or 'none of that name'}"
            )
    missing = _CHUNK_FIELDS - {field.name for field in fields(TokenGeneratorOutput)}
    if missing:
        raise RuntimeError(
            f"max.serve: TokenGeneratorOutput must have {', '.join(sorted(missing))}, as in MAX 26.7.0"
        )


def _telling_turns(ours: type[TextTokenizer], original: Any) -> Any:
    @functools.wraps(original)
    async def next_token_chunk(
        self: Any, request: Any, *, parse_reasoning: bool = True
    ) -> AsyncGenerator[Any, None]:
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, ours):
            return await original(self, request, parse_reasoning=parse_reasoning)
        # MAX's own stop strings would end the reasoning as well, in the model's worker.
        params = request.sampling_params
        unstopped = replace(request, sampling_params=replace(params, stop=None))
        chunks = await original(self, unstopped, parse_reasoning=False)
        tools = names_from_tools(request.tools)
        chat = bool(request.messages) or request.request_path.endswith(CHAT)

        def begin(prompt: Sequence[int]) -> Turn:
            if chat:
                return read_turn(tokenizer.delegate, prompt, tools)
            return PlainTurn(tokenizer.delegate)

        return turn_chunks(
            chunks,
            begin,
            StopStrings(params.stop or ()),
            lambda: self.model_worker.cancel(request.request_id),
            str(request.request_id),
        )

    return next_token_chunk


def _as_openai_has_it(ours: type[TextTokenizer], original: Any) -> Any:
    """Makes of a whole answer what a streamed one is: MAX takes reasoning without an answer for the answer.

    And what there is not, a refusal, log probabilities that were not asked for, is null as with OpenAI, not empty.
    """

    @functools.wraps(original)
    async def complete(self: Any, requests: Any) -> Any:
        response = await original(self, requests)
        if isinstance(self.pipeline.tokenizer, ours):
            field = self._reasoning_field
            for choice in response.choices:
                message = choice.message
                reasoned = response.usage.completion_tokens_details.reasoning_tokens > 0
                if reasoned and getattr(message, field) is None:
                    setattr(message, field, message.content)
                    message.content = ""
                message.refusal = message.refusal or None
                if not requests[0].logprobs:
                    choice.logprobs = None
        return response

    return complete


def _reading_calls(ours: type[TextTokenizer], original: Any) -> Any:
    """Not by MAX's registry: for a parser in it MAX compiles a second sampler, held to grammars."""

    @functools.wraps(original)
    def get_tool_parser(app: Any) -> Any:
        tokenizer = app.state.pipeline.tokenizer
        return HarmonyToolParser() if isinstance(tokenizer, ours) else original(app)

    return get_tool_parser


def _refusing_the_ignored(ours: type[TextTokenizer], original: Any) -> Any:
    @functools.wraps(original)
    async def parse_body(request: Any, request_id: Any, model_cls: Any) -> Any:
        known = isinstance(request.app.state.pipeline.tokenizer, ours)
        if known and model_cls is CreateChatCompletionRequest:
            request = _without_nulls(request, await request.body())
        body = await original(request, request_id, model_cls)
        if not known or model_cls not in (CreateChatCompletionRequest, CreateCompletionRequest):
            return body
        sampler = _sampler(openai_routes.get_app_pipeline_config(request.app))
        try:
            if model_cls is CreateCompletionRequest:
                check_completion(body, sampler)
            else:
                body.tools = list(body.tools or ()) or None  # can be iterated over once alone
                check_chat(body, names_from_tools(body.tools) or (), sampler)
                # MAX would give none at all; so it gives the likeliest beside each.
                body.top_logprobs = body.top_logprobs or None
        except FieldError as error:
            raise InputError(str(error)) from error
        body.seed = _ZERO_SEED if body.seed == 0 else body.seed
        return body

    return parse_body


def _without_nulls(request: Request, body: bytes) -> Request:
    """Gives a request whose messages say nothing of what they do not have."""
    try:
        parsed = json.loads(body) if b"null" in body else None
    except ValueError:  # which MAX tells of
        return request
    if not isinstance(parsed, dict) or not drop_nulls(parsed.get("messages")):
        return request
    changed = json.dumps(parsed).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": changed}

    return Request(request.scope, receive)


def _without_empty_log_probabilities(original: Any) -> Any:
    """A completion's are null where there are none, as with OpenAI; nobody is told here which model's they are."""

    @functools.wraps(original)
    def process(token_generator_outputs: Any) -> Any:
        processed = original(token_generator_outputs)
        return processed if processed.token_logprobs else None

    return process


def _sampler(config: PipelineConfig) -> Sampler:
    return Sampler(
        penalties=config.sampling.enable_penalties,
        min_tokens=config.sampling.enable_min_tokens,
        # MAX's kernel for the CPU takes it and does not look at it.
        min_p=config.model.device_specs[0].device_type != "cpu"
        and not config.sampling.sample_on_host,
        log_probabilities=not config.runtime.enable_overlap_scheduler
        or config.runtime.allow_unsupported_logprobs,
    )
