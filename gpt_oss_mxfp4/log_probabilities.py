"""LogProbabilitiesGraph: log probabilities of sampled tokens, by MAX's graph for them, compiled when first asked for.

MAX's own ``LogProbabilitiesMixin`` compiles it whenever a model is loaded: a second of every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

from max.driver import Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef
from max.pipelines.context import LogProbabilities
from max.pipelines.lib.log_probabilities import (
    _LOGPROBS_HEAP_LEVELS,
    compute_log_probabilities_ragged,
    log_probabilities_ragged_graph,
)

from gpt_oss_mxfp4.kept_graphs import load_graph, load_kept_graph


class LogProbabilitiesGraph:
    """Computes log probabilities.

    Args:
        session: what compiles and runs the graph.
        device: where the logits are.
    """

    def __init__(self, session: InferenceSession, device: Device) -> None:
        self._session = session
        self._device = device

    def __call__(
        self,
        tokens: Buffer,
        row_offsets: Buffer,
        next_token_logits: Buffer,
        logits: Buffer | None,
        next_tokens: Buffer,
        batch_top_n: Sequence[int],
        batch_echo: Sequence[bool],
    ) -> list[LogProbabilities | None]:
        """Computes those of one step.

        Args:
            tokens: [T] int64, the step's inputs.
            row_offsets: [B + 1] uint32, of each sequence's tokens.
            next_token_logits: [B, vocabulary] float32.
            logits: [T, vocabulary] float32, needed where there is an echo.
            next_tokens: [B] int64, what was sampled.
            batch_top_n: for each sequence how many of the likeliest tokens are wanted too; 0 where nothing is.
            batch_echo: for each sequence whether those of its input are wanted too.

        Raises:
            NotImplementedError: logits are in another precision, or were not kept for an echo.
        """
        if next_token_logits.dtype != DType.float32 or (logits is None and any(batch_echo)):
            raise NotImplementedError("log probabilities need float32 logits of all tokens wanted")
        return compute_log_probabilities_ragged(
            self._device,
            self._graph,
            input_row_offsets=row_offsets.to_numpy(),
            logits=logits,
            next_token_logits=next_token_logits,
            tokens=tokens.to_numpy(),
            sampled_tokens=next_tokens.to_numpy(),
            batch_top_n=batch_top_n,
            batch_echo=batch_echo,
        )

    @cached_property
    def _graph(self) -> Model:
        device = DeviceRef.from_device(self._device)
        build = partial(log_probabilities_ragged_graph, device, levels=_LOGPROBS_HEAP_LEVELS)
        if self._device.is_host:
            return load_kept_graph(self._session, "log probabilities", build)
        return load_graph(self._session, build())
