"""The config MAX asks of an architecture: the checkpoint's own, plus device, precision and KV cache."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_args

from max.dtype import DType
from max.graph import DeviceRef
from max.nn.kv_cache import MultiKVCacheParams
from max.pipelines.kv_cache import KVCacheConfig
from max.pipelines.lib import MAXModelConfig, PipelineConfig
from max.pipelines.lib.interfaces.arch_config import (
    ArchConfigWithKVCache,
    ArchConfigWithStoredKVParams,
)
from max.pipelines.modeling.config_enums import SupportedEncoding

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.hub import resolve_model
from gpt_oss_mxfp4.footprint import default_length
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.ops.checks import activation_dtype
from gpt_oss_mxfp4.options import (
    Activations,
    AttentionKernel,
    DenseKernel,
    DenseWeights,
    GroupedKernel,
    LayerOptions,
)

logger = logging.getLogger("max.pipelines.gpt_oss_mxfp4")  # MAX shows its own loggers only


@dataclass(frozen=True)
class Variable:
    """An environment variable that names one of a few values; unset means the first.

    Args:
        name: the variable's own.
        values: what it may name.
    """

    name: str
    values: tuple[str, ...]


VARIABLES = {
    "activations": Variable("GPT_OSS_MXFP4_ACTIVATIONS", get_args(Activations)),
    "dense_weights": Variable("GPT_OSS_MXFP4_DENSE_WEIGHTS", get_args(DenseWeights)),
    "kernel": Variable("MXFP4_GROUPED_KERNEL", get_args(GroupedKernel)),
    "attention": Variable("MXFP4_ATTENTION_KERNEL", get_args(AttentionKernel)),
    "dense": Variable("MXFP4_DENSE_KERNEL", get_args(DenseKernel)),
}
"""What picks how layers multiply, see :class:`LayerOptions`. MAX gives custom architectures no option of their own,
and a variable also reaches the worker process that ``max serve`` starts. Read here and nowhere else."""

DEFAULT_ENCODING: SupportedEncoding = "float32"
"""MAX's name for what a CPU computes in; on a GPU it becomes bfloat16. The checkpoint stays packed in both."""

SUPPORTED_ENCODINGS: set[SupportedEncoding] = {"float32", "bfloat16", "float4_e2m1fnx2"}


@dataclass(kw_only=True)
class GptOssArchConfig(ArchConfigWithStoredKVParams, ArchConfigWithKVCache):
    """Everything the graph and MAX's memory planning need to know.

    Args:
        checkpoint: the validated checkpoint.
        devices: the one device the model runs on.
        layers: how layers multiply.
        kv_params: one paged KV cache per layer type.
        max_seq_len: tokens a sequence may reach, prompt included.
    """

    DEFAULT_ENCODING: ClassVar[SupportedEncoding] = DEFAULT_ENCODING
    SUPPORTED_ENCODINGS: ClassVar[set[SupportedEncoding]] = SUPPORTED_ENCODINGS

    checkpoint: Checkpoint
    devices: list[DeviceRef]
    layers: LayerOptions
    kv_params: MultiKVCacheParams
    max_seq_len: int

    @property
    def dtype(self) -> DType:
        """Dtype of activations: float32 on a CPU, bfloat16 on a GPU."""
        return activation_dtype(self.devices[0])

    @classmethod
    def initialize(
        cls,
        pipeline_config: PipelineConfig,
        model_config: MAXModelConfig | None = None,
        *,
        max_seq_len: int,
    ) -> Self:
        """Validates the checkpoint and derives the rest; MAX calls this before it reads weights.

        Raises:
            CheckpointError: the checkpoint is not one this package can run.
            ValueError: more than one device, an unknown value in one of this package's environment variables, or a
                precision that no GPU computes in.
        """
        model_config = model_config or pipeline_config.model
        checkpoint = checkpoint_of(model_config)
        device = only_device(
            [DeviceRef(spec.device_type, spec.id) for spec in model_config.device_specs]
        )
        layers = requested_layers(device)
        return cls(
            checkpoint=checkpoint,
            devices=[device],
            layers=layers,
            kv_params=kv_cache_params(
                checkpoint.config, model_config.kv_cache, device, layers.activations
            ),
            max_seq_len=max_seq_len,
        )

    @classmethod
    def calculate_max_seq_len(cls, huggingface_config: Any, model_config: MAXModelConfig) -> int:
        """The length asked for, up to the model's own; on a CPU the default where none is asked for.

        Raises:
            ValueError: more is asked for than the model has positions.
        """
        asked = model_config.max_length
        if asked is None and model_config.default_device_spec.device_type == "cpu":
            return default_length(int(huggingface_config.max_position_embeddings))
        length: int = super().calculate_max_seq_len(huggingface_config, model_config)
        return length

    @classmethod
    def construct_kv_params(
        cls,
        huggingface_config: Any,
        pipeline_config: PipelineConfig,
        devices: list[DeviceRef],
        kv_cache_config: KVCacheConfig,
        cache_dtype: DType,
        *,
        allow_kv_head_replication: bool = False,
    ) -> MultiKVCacheParams:
        """The same caches as :meth:`initialize` plans, asked for once more when MAX builds the model."""
        config = checkpoint_of(pipeline_config.model).config
        return kv_cache_params(
            config, kv_cache_config, only_device(devices), requested("activations")
        )


def checkpoint_of(model_config: MAXModelConfig) -> Checkpoint:
    """Opens the checkpoint that MAX was told to run, once per process.

    MAX lists weight files in sub-folders too, such as the copy in ``original/``. They are never read here, and not
    downloaded either: that is an error instead.

    Raises:
        CheckpointError: the checkpoint is not one this package can run.
        ValueError: MAX is about to download copies of the weights that nothing reads.
    """
    model = model_config.model_path
    below = {
        path.parts[0]
        for path in model_config.weight_path
        if not path.is_absolute() and path.parent.name
    }
    copies = ", ".join(f"{folder}/" for folder in sorted(below))
    if copies and model_config.huggingface_weight_repo.repo_type == "online":
        raise ValueError(
            f"gpt_oss_mxfp4: MAX would also download {copies} of {model}, another copy of the same weights. Run "
            f"`gpt-oss-mxfp4 generate --model {model}`, which downloads only what it reads, or give --model a folder."
        )
    return _open_once(model, model_config.huggingface_model_revision, copies)


@functools.cache
def _open_once(model: str, revision: str, copies: str) -> Checkpoint:
    checkpoint = open_checkpoint(resolve_model(model, revision))
    if copies:
        logger.warning("%s: %s holds copies of the weights and is not read", model, copies)
    for note in checkpoint.notes:
        logger.warning("%s: %s", model, note)
    return checkpoint


def requested(field: str) -> Any:
    """Reads the environment variable that picks a part of how layers multiply.

    Args:
        field: a key of :data:`VARIABLES`.

    Raises:
        ValueError: it has another value than those.
    """
    variable = VARIABLES[field]
    value = os.environ.get(variable.name, variable.values[0])
    if value not in variable.values:
        known = " or ".join(variable.values)
        raise ValueError(f"gpt_oss_mxfp4: {variable.name} must be {known}, got {value!r}")
    return value


def requested_layers(device: DeviceRef) -> LayerOptions:
    """Reads the environment variables; what picks a GPU's kernels picks nothing on a CPU.

    Args:
        device: where the layers are.

    Raises:
        ValueError: one has an unknown value, or names a precision that no GPU computes in.
    """
    asked = {field: requested(field) for field in VARIABLES}
    rounding = {field: asked[field] for field in ("activations", "dense_weights")}
    if device.is_cpu():
        return LayerOptions(**rounding)
    for field, value in rounding.items():
        if value != "bfloat16":
            raise ValueError(
                f"gpt_oss_mxfp4: {VARIABLES[field].name} must be bfloat16 on a GPU, got {value!r}; leave "
                "it out, or pass --devices cpu"
            )
    return LayerOptions(
        packed=asked["kernel"] != "strided",
        one_kernel=asked["kernel"] == "sm90_mlp",
        attention=asked["attention"],
        dense=asked["dense"],
    )


def only_device(devices: list[DeviceRef]) -> DeviceRef:
    """Returns the device of a list of one.

    Raises:
        ValueError: more than one device.
    """
    if len(devices) != 1:
        raise ValueError(
            f"gpt_oss_mxfp4: runs on one device, got {len(devices)}; pass --devices cpu or gpu:0"
        )
    return devices[0]
