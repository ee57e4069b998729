"""What a step does before it runs the graph."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.graph import DeviceRef
from max.nn.transformer import ReturnLogits
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib.interfaces.batch_processor import BatchProcessorRuntime
from max.pipelines.lib.pipeline_variants.overlap_text_generation import _HasRaggedTokens

from gpt_oss_mxfp4 import pipeline
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.layers.rope import rope_table
from gpt_oss_mxfp4.options import LayerOptions
from gpt_oss_mxfp4.pipeline import GptOssBatchProcessor, GptOssInputs, GptOssPipelineModel
from tests.golden import CHECKPOINT
from tests.reference.bfloat16 import encode_bfloat16


@pytest.mark.parametrize(("is_host", "done"), [(True, ["settled", "run"]), (False, ["run"])])
def test_a_step_on_a_cpu_waits_for_its_inputs(
    monkeypatch: pytest.MonkeyPatch, is_host: bool, done: list[str]
) -> None:
    """MAX does not (NOTES F24), which shows in one step of ten thousand: only the order can be tested."""
    told: list[str] = []
    device = SimpleNamespace(is_host=is_host, synchronize=lambda: told.append("settled"))
    model: Any = SimpleNamespace(
        devices=[device],
        model=SimpleNamespace(execute=lambda *buffers: told.append("run")),
        return_logits=None,
        return_hidden_states=None,
    )
    monkeypatch.setattr(pipeline, "process_ragged_kv_outputs", lambda outputs, **options: outputs)
    GptOssPipelineModel.execute(model, SimpleNamespace(buffers=()))
    assert told == done


def test_a_steps_inputs_are_what_maxs_overlap_scheduler_takes() -> None:
    """Its pipeline, which device graphs need, raises for others, on a GPU and in the middle of a step."""
    buffer = Buffer.from_numpy(np.zeros(1, np.uint32))
    inputs = GptOssInputs(tokens=buffer, input_row_offsets=buffer, return_n_logits=buffer)
    assert isinstance(inputs, _HasRaggedTokens)


def test_a_steps_inputs_lie_where_the_last_ones_did() -> None:
    """In other memory a captured graph that is being replayed may write at the same time (NOTES N107)."""
    runtime = BatchProcessorRuntime(
        pipeline_config=cast(Any, SimpleNamespace(model=SimpleNamespace(data_parallel_degree=1))),
        devices=[CPU()],
        return_logits=ReturnLogits.LAST_TOKEN,
        max_batch_size=3,
        max_seq_len=16,
        max_batch_input_tokens=64,
    )
    processor = GptOssBatchProcessor(cast(Any, None), runtime)
    steps = []
    for sequences in ([[1, 2, 3], [4]], [[5], [6], [7]]):
        batch = [
            TextContext(max_length=16, tokens=TokenBuffer(np.array(tokens))) for tokens in sequences
        ]
        inputs = processor.prepare_initial_token_inputs([batch])
        CPU().synchronize()
        assert inputs.tokens.to_numpy().tolist() == list(itertools.chain(*sequences))
        ends = np.cumsum([0, *map(len, sequences)])
        assert inputs.input_row_offsets.to_numpy().tolist() == ends.tolist()
        steps.append(inputs)
    first, second = (
        (step.tokens._data_ptr(), step.input_row_offsets._data_ptr()) for step in steps
    )
    assert first == second


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
def test_the_table_of_rotations_has_the_graphs_dtype(dtype: DType) -> None:
    config = GptOssConfig.from_file(CHECKPOINT / CONFIG_FILE)
    arch: Any = SimpleNamespace(checkpoint=SimpleNamespace(config=config), dtype=dtype)
    weight = pipeline._rope_weight(arch)
    table = rope_table(config)
    buffer = Buffer.from_dlpack(weight.data)
    assert (weight.dtype, buffer.dtype) == (dtype, dtype)
    if dtype == DType.float32:
        np.testing.assert_array_equal(buffer.to_numpy(), table)
    else:
        np.testing.assert_array_equal(buffer.view(DType.uint16).to_numpy(), encode_bfloat16(table))


def test_kept_prefixes_are_no_part_of_what_a_graph_is_made_from() -> None:
    """Otherwise ``serve``, which keeps them, would compile what ``generate``, which does not, has compiled already."""
    config = GptOssConfig.from_file(CHECKPOINT / CONFIG_FILE)
    device = DeviceRef.CPU()
    seen = [
        pipeline._as_graphs_see(
            kv_cache_params(config, KVCacheConfig(enable_prefix_caching=kept), device, "bfloat16")
        )
        for kept in (False, True)
    ]
    assert repr(seen[0]) == repr(seen[1])
    assert repr(seen[0]) == repr(
        kv_cache_params(config, KVCacheConfig(enable_prefix_caching=False), device, "bfloat16")
    )


@pytest.mark.parametrize(
    ("kernel", "device"),
    [
        ("max", {"is_host": False, "architecture_name": "sm_80"}),
        ("sm90", {"is_host": False, "architecture_name": "sm_90a"}),
        ("sm90", {"is_host": True, "architecture_name": ""}),
    ],
)
def test_kernels_that_a_device_has_are_taken(kernel: Any, device: dict[str, Any]) -> None:
    options = LayerOptions(attention=kernel, dense=kernel)
    pipeline.check_kernels(options, cast(Any, SimpleNamespace(**device)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ATTENTION", LayerOptions(attention="sm90")),
        ("DENSE", LayerOptions(dense="sm90")),
    ],
)
def test_a_kernel_of_another_gpu_is_refused_by_name(name: str, options: LayerOptions) -> None:
    ampere = cast(Any, SimpleNamespace(is_host=False, architecture_name="sm_80"))
    message = f"MXFP4_{name}_KERNEL=sm90 is for Hopper GPUs"
    with pytest.raises(ValueError, match=message) as error:
        pipeline.check_kernels(options, ampere)
    assert str(error.value).endswith("(sm_90), got sm_80; leave it out")
