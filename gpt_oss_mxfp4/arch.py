"""What MAX registers: gpt-oss under its Hugging Face name, in place of MAX's own."""

from __future__ import annotations

import sys

from max.graph.weights import WeightsFormat
from max.pipelines.context import TextContext
from max.pipelines.lib import SupportedArchitecture
from max.pipelines.modeling.types import PipelineTask

from gpt_oss_mxfp4.endpoint.tokenizer import HarmonyTokenizer
from gpt_oss_mxfp4.memory import GptOssMemoryPlanner
from gpt_oss_mxfp4.model_config import DEFAULT_ENCODING, SUPPORTED_ENCODINGS, GptOssArchConfig
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.pipeline import GptOssPipelineModel
from gpt_oss_mxfp4.threads import limit_threads

try:
    limit_threads(None)  # MAX's own commands import this before they start threads or a worker
except Refused as error:  # whose answer to an exception is a traceback
    sys.exit(f"gpt_oss_mxfp4: {error}")

GPT_OSS = SupportedArchitecture(
    name="GptOssForCausalLM",
    example_repo_ids=["openai/gpt-oss-20b", "openai/gpt-oss-120b"],
    default_encoding=DEFAULT_ENCODING,
    supported_encodings=SUPPORTED_ENCODINGS,
    pipeline_model=GptOssPipelineModel,
    task=PipelineTask.TEXT_GENERATION,
    tokenizer=HarmonyTokenizer,
    context_type=TextContext,
    default_weights_format=WeightsFormat.safetensors,
    config=GptOssArchConfig,
    memory_planner=GptOssMemoryPlanner,
    multi_gpu_supported=False,
    supports_overlap_scheduler=False,
    supports_device_graph_capture=False,
)

ARCHITECTURES = [GPT_OSS]
"""MAX imports this list and lets each entry replace a built-in of the same name."""
