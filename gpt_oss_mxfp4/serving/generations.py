"""What is generated for each exchange: its tokens are counted, and it ends with the exchange."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from max.serve.pipelines.llm import TokenGeneratorPipeline

from gpt_oss_mxfp4.serving.access_log import CURRENT, Exchange


@functools.cache
def follow_generations() -> None:
    """Begins to follow them, chunk by chunk; after the endpoint's hooks are installed, which this one goes around.

    Not by what MAX does at a request's end: where a client left, that may be when its generator is collected, in
    whatever exchange's task that happens, and not before Python looks for cycles among old objects, minutes later
    (NOTES N99).
    """
    original: Any = TokenGeneratorPipeline.next_token_chunk

    @functools.wraps(original)
    async def next_token_chunk(
        self: Any, request: Any, *, parse_reasoning: bool = True
    ) -> AsyncGenerator[Any, None]:
        exchange = CURRENT.get()
        chunks = await original(self, request, parse_reasoning=parse_reasoning)
        if exchange is None:
            return chunks
        followed: Any = counted(chunks, exchange)

        async def end() -> None:
            if followed.ag_frame is None:  # it has ended
                return
            with suppress(Exception):  # as MAX does: the worker may be gone
                self.model_worker.cancel(request.request_id)
            # Another prompt's refusal ends an exchange while this one waits for tokens, and cannot be closed.
            if not followed.ag_running:
                await followed.aclose()

        if exchange.over:  # by another prompt's refusal, before this one was with the model
            await end()
        else:
            exchange.at_end.push_async_callback(end)
        return followed

    setattr(TokenGeneratorPipeline, "next_token_chunk", next_token_chunk)  # noqa: B010  mypy


async def counted(
    chunks: AsyncGenerator[Any, None], exchange: Exchange
) -> AsyncGenerator[Any, None]:
    """Passes chunks on, and adds their tokens to the exchange that they are of.

    Args:
        chunks: MAX's TokenGeneratorOutput.
        exchange: to add to.
    """
    prompt: int | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            if prompt is None and chunk.prompt_token_count is not None:
                prompt = chunk.prompt_token_count
                exchange.prompt_tokens = (exchange.prompt_tokens or 0) + prompt
            exchange.tokens = (
                (exchange.tokens or 0) + chunk.token_count + chunk.reasoning_token_count
            )
            yield chunk
