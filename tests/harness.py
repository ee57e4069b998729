"""Logits at every position from the real graph: prefill in one step, or token by token over MAX's KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from max.driver import CPU, Buffer, Device
from max.engine import InferenceSession
from max.graph import DeviceRef
from max.nn.transformer import ReturnLogits
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.kv_cache import KVCacheConfig, kv_cache_memory_size, load_kv_manager
from max.pipelines.lib.graph_specs import compile_graphs, init_graphs
from max.pipelines.lib.interfaces.batch_processor import build_single_replica_ragged_token_arrays
from max.pipelines.modeling.types import RequestID

from gpt_oss_mxfp4.checkpoint.adapt import adapt
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.pack import pack_experts
from gpt_oss_mxfp4.checkpoint.quantize_dense import quantize_dense
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.model_config import GptOssArchConfig
from gpt_oss_mxfp4.options import LayerOptions
from gpt_oss_mxfp4.pipeline import GptOssInputs, graph_spec, settle_inputs

Logits = npt.NDArray[np.float32]

KV_CACHE_BUDGET = 2**32
"""Bytes the KV cache may take at most; it takes what batch and length need."""


class Harness:
    """A compiled checkpoint.

    Args:
        folder: the checkpoint.
        device: where it runs, or None for the CPU.
        max_length: tokens a sequence may reach.
        max_batch_size: sequences in a batch.
        layers: how layers multiply, experts packed unless told otherwise where it is a GPU.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: Device | None = None,
        max_length: int = 1024,
        max_batch_size: int = 2,
        layers: LayerOptions | None = None,
    ) -> None:
        layers = layers or LayerOptions(packed=device is not None)
        checkpoint = open_checkpoint(folder)
        self._device = device or CPU()
        place = DeviceRef.from_device(self._device)
        self.max_length = max_length
        kv_params = kv_cache_params(
            checkpoint.config, KVCacheConfig(enable_prefix_caching=False), place, layers.activations
        )
        config = GptOssArchConfig(
            checkpoint=checkpoint,
            devices=[place],
            layers=layers,
            kv_params=kv_params,
            max_seq_len=max_length,
        )
        session = InferenceSession(devices=[self._device])
        weights: Mapping[str, Any] = adapt(checkpoint)
        if layers.packed:
            weights = pack_experts(checkpoint, weights, self._device, session)
        elif layers.dense_weights != "bfloat16":
            weights = quantize_dense(weights, layers.dense_weights, session)
        specs = {"logits": graph_spec(config, weights, ReturnLogits.ALL)}
        self._model = init_graphs(session, compile_graphs(session, specs), specs)["logits"]
        self._cache = load_kv_manager(
            params=kv_params,
            max_batch_size=max_batch_size,
            max_seq_len=max_length,
            session=session,
            available_cache_memory=kv_cache_memory_size(
                kv_params,
                KV_CACHE_BUDGET,
                max_batch_size,
                max_length,
                is_di_enabled=False,
                model_name="",
            ),
            is_di_enabled=False,
            model_name="",
            max_num_input_tokens=max_batch_size * max_length,
        )

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Logits]:
        """Runs a ragged batch in one step.

        Args:
            prompts: token ids of each sequence, at least one each.

        Returns:
            For each prompt, logits [length, vocabulary] of every position.
        """
        with self._contexts(prompts) as contexts:
            return self._step(contexts)

    def decode(self, prompts: Sequence[Sequence[int]], first: int = 1) -> list[Logits]:
        """Runs the same tokens one at a time: ``first`` tokens of each prompt in one step, then one per step.

        Args:
            prompts: token ids of each sequence, all longer than ``first``.
            first: tokens of the first step.

        Returns:
            As :meth:`prefill`. Sequences that have ended leave the batch.
        """
        with self._contexts([prompt[:first] for prompt in prompts]) as contexts:
            rows = [[logits] for logits in self._step(contexts)]
            for position in range(first, max(map(len, prompts))):
                live = [i for i, prompt in enumerate(prompts) if len(prompt) > position]
                for i in live:
                    contexts[i].update(prompts[i][position])
                    self._cache.step(contexts[i])
                for i, logits in zip(live, self._step([contexts[i] for i in live]), strict=True):
                    rows[i].append(logits)
            return [np.concatenate(logits) for logits in rows]

    @contextmanager
    def _contexts(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[TextContext]]:
        contexts = [
            TextContext(
                request_id=RequestID(),
                max_length=self.max_length,
                tokens=TokenBuffer(np.asarray(prompt, dtype=np.int64)),
            )
            for prompt in prompts
        ]
        for context in contexts:
            self._cache.claim(context)
        try:
            yield contexts
        finally:
            for context in contexts:
                self._cache.release(context)

    def outputs(self, prompt: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Runs one prompt in one step and gives all that the graph returns, whatever that is."""
        with self._contexts([prompt]) as contexts:
            return [output.to(CPU()).to_numpy().copy() for output in self._execute(contexts)]

    def _step(self, contexts: list[TextContext]) -> list[Logits]:
        _, logits, offsets = (output.to(CPU()).to_numpy() for output in self._execute(contexts))
        return np.split(logits.copy(), offsets[1:-1])

    def _execute(self, contexts: list[TextContext]) -> list[Buffer]:
        for context in contexts:
            self._cache.alloc(context).synchronize()
        tokens, row_offsets = build_single_replica_ragged_token_arrays(contexts)
        inputs = GptOssInputs(
            tokens=Buffer.from_numpy(tokens).to(self._device),
            input_row_offsets=Buffer.from_numpy(row_offsets).to(self._device),
            return_n_logits=Buffer.from_numpy(np.ones(1, dtype=np.int64)),
            kv_cache_inputs=self._cache.runtime_inputs([contexts]),
        )
        settle_inputs(self._device)
        return self._model.execute(*inputs.buffers)
