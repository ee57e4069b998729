"""The model as MAX's pipelines drive it: loading, inputs, one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from max import tree
from max.driver import Buffer, Device, DLPackArray
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import Shape
from max.graph.weights import WeightData, Weights, WeightsAdapter
from max.nn.kv_cache import KVCacheInputs, MultiKVCacheParams
from max.nn.kv_cache.cache_params import KVConnectorType
from max.nn.transformer import ReturnLogits
from max.pipelines.architectures.llama3.batch_processor import Llama3BatchProcessorBase
from max.pipelines.context import LogProbabilities, TextContext
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib import ModelInputs, ModelOutputs, PipelineConfig, PipelineModelWithKVCache
from max.pipelines.lib.graph_specs import GraphRole, GraphSpec, compile_graphs, init_graphs
from max.pipelines.lib.interfaces.batch_processor import process_ragged_kv_outputs
from max.pipelines.lib.memory_estimation import MemoryPlan
from max.pipelines.lib.utils import CompilationTimer

from gpt_oss_mxfp4.checkpoint.adapt import adapt
from gpt_oss_mxfp4.checkpoint.pack import HOPPER, is_other_gpu, pack_experts
from gpt_oss_mxfp4.checkpoint.quantize_dense import quantize_dense
from gpt_oss_mxfp4.kept_graphs import Graphs, load_kept
from gpt_oss_mxfp4.layers.rope import rope_table
from gpt_oss_mxfp4.log_probabilities import LogProbabilitiesGraph
from gpt_oss_mxfp4.model import ROPE_TABLE, GptOss
from gpt_oss_mxfp4.model_config import VARIABLES, GptOssArchConfig
from gpt_oss_mxfp4.ops.library import digest_sources
from gpt_oss_mxfp4.options import LayerOptions

TILE_ALIGNMENT = 16
"""Bytes: bulk copies of packed weights ask for it."""


@dataclass(kw_only=True)
class GptOssInputs(ModelInputs):
    """One step's batch, in the order of the graph's inputs; MAX's overlap scheduler looks for the first two by name.

    Args:
        tokens: [T] int64.
        input_row_offsets: [B + 1] uint32.
        return_n_logits: [1] int64.
    """

    tokens: Buffer
    input_row_offsets: Buffer
    return_n_logits: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The graph's inputs, flat."""
        return (
            self.tokens,
            self.input_row_offsets,
            self.return_n_logits,
            *tree.leaves(self.kv_cache_inputs),
        )


class GptOssBatchProcessor(Llama3BatchProcessorBase[GptOssInputs]):
    """Concatenates the sequences of a batch; MAX's base class does all of it but naming the result.

    That of Llama 3 has a step's inputs in the same memory of the device each time, as most models have of which MAX
    captures graphs (NOTES N107).
    """

    def _make_inputs(
        self,
        *,
        tokens: Buffer,
        input_row_offsets: Buffer,
        return_n_logits: Buffer,
        signal_buffers: list[Buffer],
        kv_cache_inputs: KVCacheInputs[Buffer, Buffer] | None,
        data_parallel_splits: Buffer | None,
    ) -> GptOssInputs:
        return GptOssInputs(
            tokens=tokens,
            input_row_offsets=input_row_offsets,
            return_n_logits=return_n_logits,
            kv_cache_inputs=kv_cache_inputs,
        )


def check_kernels(options: LayerOptions, device: Device) -> None:
    """Checks that a GPU has the kernels asked for, which are not tested on others.

    Args:
        options: what is asked for; a CPU has kernels of its own.
        device: where the model is to run.

    Raises:
        ValueError: one is for another GPU.
    """
    for field in ("attention", "dense"):
        kernel = getattr(options, field)
        if kernel == "sm90" and is_other_gpu(device):
            raise ValueError(
                f"gpt_oss_mxfp4: {VARIABLES[field].name}={kernel} is for Hopper GPUs ({HOPPER}), got "
                f"{device.architecture_name}; leave it out"
            )


def graph_spec(
    config: GptOssArchConfig,
    weights: Mapping[str, WeightData | DLPackArray],
    return_logits: ReturnLogits,
) -> GraphSpec:
    """Describes the graph to compile: module, inputs and weights.

    Args:
        config: sizes, device and precision.
        weights: every tensor of the checkpoint, from :func:`adapt`, :func:`pack_experts` or :func:`quantize_dense`.
        return_logits: of each sequence's last token or of all tokens.

    Raises:
        ValueError: a device without kernels.
    """
    model = GptOss(*_graph_arguments(config, return_logits))
    model.load_state_dict(
        {**weights, ROPE_TABLE: _rope_weight(config)},
        weight_alignment=1,  # a safetensors header may end anywhere
    )
    for name, weight in model.raw_state_dict().items():
        if name.endswith("_tiles"):
            weight.align = TILE_ALIGNMENT
    return GraphSpec(
        model,
        "gpt_oss_mxfp4",
        tuple(tree.leaves(model.input_tree())),
        weights=model.state_dict(auto_initialize=False),
    )


def _rope_weight(config: GptOssArchConfig) -> WeightData:
    """Makes the table in the graph's dtype: cast in the graph, it would be cast at every step."""
    table = rope_table(config.checkpoint.config)
    if config.dtype == DType.float32:
        return WeightData.from_numpy(table, ROPE_TABLE)
    # Not WeightData.astype: it compiles a graph for it, for 20 s the first time.
    bits = table.view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    buffer = Buffer.from_numpy(rounded).view(DType.bfloat16)
    return WeightData(buffer, ROPE_TABLE, DType.bfloat16, Shape(table.shape))


def settle_inputs(device: Device) -> None:
    """Waits until the inputs of a step are where the graph reads them.

    MAX copies the KV cache's lengths and page tables to buffers of their own without waiting, and on a CPU does not
    make the graph wait either: now and then, on a busy machine, the first layer read those of the step before (NOTES
    F24).
    """
    if device.is_host:
        device.synchronize()


def _graph_arguments(config: GptOssArchConfig, return_logits: ReturnLogits) -> tuple[Any, ...]:
    """What the graph is made from besides its sources; by it compiled graphs are found again, so here is all of it."""
    return (
        config.checkpoint.config,
        _as_graphs_see(config.kv_params),
        config.devices[0],
        config.dtype,
        config.layers,
        return_logits,
    )


def _as_graphs_see(params: MultiKVCacheParams) -> MultiKVCacheParams:
    """Leaves out whether prefixes are kept: that is for who fills the cache, and one graph serves all verbs."""
    if params.kv_connector_config.type is not KVConnectorType.null:  # which wants them kept
        return params
    children = {
        name: replace(child, enable_prefix_caching=False) for name, child in params.children.items()
    }
    return MultiKVCacheParams.from_params(children)


class GptOssPipelineModel(PipelineModelWithKVCache[TextContext, GptOssArchConfig, Model]):
    """Compiles the graph when made, then runs it step by step; arguments as MAX's pipelines pass them."""

    model_config_cls: ClassVar[type[Any]] = GptOssArchConfig
    # Here and not as the architecture's `batching`: the worker process of max serve gets this class alone.
    batch_processor_cls: ClassVar[type[Any]] = GptOssBatchProcessor

    def __init__(
        self,
        pipeline_config: PipelineConfig,
        session: InferenceSession,
        devices: list[Device],
        kv_cache_config: KVCacheConfig,
        weights: Weights,
        *,
        memory_plan: MemoryPlan,
        adapter: WeightsAdapter | None = None,
        return_logits: ReturnLogits = ReturnLogits.LAST_TOKEN,
        max_batch_size: int = 1,
    ) -> None:
        self._session = session
        super().__init__(
            pipeline_config,
            session,
            devices,
            kv_cache_config,
            weights,
            adapter,
            return_logits,
            memory_plan=memory_plan,
            max_batch_size=max_batch_size,
        )
        self.model = self.load_graphs(session)[GraphRole.DECODER]
        self._log_probabilities = LogProbabilitiesGraph(session, devices[0])

    def _weights(self, config: GptOssArchConfig) -> Mapping[str, WeightData | DLPackArray]:
        # Not from self.weights: those are all files MAX found in the folder, validated or not.
        weights = adapt(config.checkpoint)
        if config.layers.packed:
            return pack_experts(config.checkpoint, weights, self.devices[0], self._session)
        if config.layers.dense_weights != "bfloat16":
            return quantize_dense(weights, config.layers.dense_weights, self._session)
        return weights

    def load_graphs(self, session: InferenceSession) -> dict[str, Model]:
        """As MAX's own, but a graph that an earlier run has compiled is not built again."""
        config = self.arch_config_as(GptOssArchConfig)
        check_kernels(config.layers, self.devices[0])
        spec = graph_spec(config, self._weights(config), self.return_logits)
        specs = {GraphRole.DECODER: spec}  # MAX's name for the one graph

        def compile_graph() -> Graphs:
            with CompilationTimer("model") as timer:
                timer.mark_build_complete()  # as MAX has it: what was built by now is the module
                artifacts = compile_graphs(session, specs)
                return artifacts, init_graphs(session, artifacts, specs)

        made_from = (_graph_arguments(config, self.return_logits), digest_sources())
        self.compiled_artifacts, models = load_kept(
            session,
            self.pipeline_config,
            GraphRole.DECODER,
            made_from,
            compile_graph,
            spec.weights_registry(),
        )
        if not config.layers.packed:  # else the GPU reads what only the session's registry keeps
            self._maybe_release_host_weights(*models.values())
        return models

    def execute(self, model_inputs: ModelInputs) -> ModelOutputs:
        """Runs one step over inputs that the batch processor prepared."""
        settle_inputs(self.devices[0])
        return process_ragged_kv_outputs(
            self.model.execute(*model_inputs.buffers),
            return_logits=self.return_logits,
            return_hidden_states=self.return_hidden_states,
        )

    def compute_log_probabilities(
        self,
        session: InferenceSession,
        model_inputs: ModelInputs,
        model_outputs: ModelOutputs,
        next_tokens: Buffer,
        batch_top_n: list[int],
        batch_echo: list[bool],
    ) -> list[LogProbabilities | None]:
        """Computes log probabilities of a step's tokens, as MAX asks for them."""
        assert isinstance(model_inputs, GptOssInputs)
        assert model_outputs.next_token_logits is not None
        whole = self.return_logits in (ReturnLogits.ALL, ReturnLogits.VARIABLE)
        return self._log_probabilities(
            model_inputs.tokens,
            model_inputs.input_row_offsets,
            model_outputs.next_token_logits,
            model_outputs.logits if whole else None,
            next_tokens,
            batch_top_n,
            batch_echo,
        )
