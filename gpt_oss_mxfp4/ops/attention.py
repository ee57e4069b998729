"""Attention over MAX's paged KV cache: on a CPU, and of single tokens on Hopper."""

from __future__ import annotations

import math

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, TensorValueLike, ops
from max.nn.attention.mask_config import AttentionMaskVariant
from max.nn.kv_cache import PagedCacheValues

from gpt_oss_mxfp4.ops.checks import cpu_only, gpu_only, require, require_dim
from gpt_oss_mxfp4.toolchain import vector_extensions


def attention(
    q: TensorValueLike,
    cache: PagedCacheValues,
    cache_layer: TensorValueLike,
    row_offsets: TensorValueLike,
    sinks: TensorValueLike,
    window: int | None = None,
) -> TensorValue:
    """Attends within each sequence: ``out[t] = softmax([q[t] @ K.T / sqrt(D), sink])[:-1] @ V``, causal.

    MAX's own CPU kernel counts the sink once per 128 keys instead of once, so this one stands in for it.

    Args:
        q: [T, heads, D] float32, rotated, a ragged batch.
        cache: MAX's paged cache, float32 or bfloat16; holds the batch's keys and values already. Read, not written.
            Where it is bfloat16, q is rounded to that, and so are the weights of V if the CPU multiplies bfloat16.
        cache_layer: scalar uint32 on the CPU, the layer's place in that cache.
        row_offsets: [B + 1] uint32, where each sequence begins in q.
        sinks: [heads] float32, one logit per query head.
        window: positions a query sees, itself included; None for all.

    Returns:
        [T, heads, D] float32.

    Raises:
        ValueError: wrong rank or dtype, a D that is no multiple of 64 (of 32 without AVX-512), or a GPU device (MAX's
            attention serves those); at run time, such a page size, or a page that is not in the cache.

    Source: openai/gpt-oss ``torch/model.py`` sdpa.
    """
    op = "attention.paged"
    q, row_offsets, sinks = TensorValue(q), TensorValue(row_offsets), TensorValue(sinks)
    device = cpu_only(op, q, row_offsets, sinks)
    _check(op, DType.float32, q, row_offsets, sinks)
    tile = 64 if "avx512f" in vector_extensions() else 32  # TILE_KEYS of the kernel
    if int(q.shape[2]) % tile != 0:
        raise ValueError(
            f"{op}: head_dim = q.shape[2] must be a multiple of {tile} on this CPU, got {q.shape[2]}; "
            "MAX's on a GPU may take it"
        )
    scale = 1 / math.sqrt(int(q.shape[2]))
    return ops.inplace_custom(
        op,
        device,
        [
            q,
            row_offsets,
            sinks,
            cache.kv_blocks,
            cache.page_stride,
            cache.cache_lengths,
            cache.lookup_table,
            TensorValue(cache_layer),
            ops.constant(scale, DType.float32, device=DeviceRef.CPU()),
            ops.constant(window or 0, DType.int32, device=DeviceRef.CPU()),
        ],
        [q.type],
    )[0].tensor


def attention_sm90(
    q: TensorValueLike,
    cache: PagedCacheValues,
    cache_layer: TensorValueLike,
    row_offsets: TensorValueLike,
    sinks: TensorValueLike,
    window: int | None = None,
) -> TensorValue:
    """Attends as :func:`attention` does, on a Hopper GPU.

    A batch with a token of each sequence, as a step that generates has, goes to a kernel by which up to eight blocks
    of threads share a sequence's keys; others go to MAX's ``flash_attention_ragged``.

    Args:
        q: [T, heads, 64] bfloat16, rotated, a ragged batch; at most 8 heads for each key-value head.
        cache: MAX's paged cache in bfloat16, pages of 16 tokens or another power of two above; holds the batch's keys
            and values already. Read, not written.
        cache_layer: scalar uint32 on the CPU, the layer's place in that cache.
        row_offsets: [B + 1] uint32, where each sequence begins in q.
        sinks: [heads] bfloat16, one logit per query head.
        window: positions a query sees, itself included; None for all.

    Returns:
        [T, heads, 64] bfloat16; weights of the values are rounded to bfloat16, sums are float32.

    Raises:
        ValueError: wrong rank, dtype or sizes, or a CPU device.

    Source: openai/gpt-oss ``torch/model.py`` sdpa.
    """
    op = "attention.paged_sm90"
    q, row_offsets, sinks = TensorValue(q), TensorValue(row_offsets), TensorValue(sinks)
    device = gpu_only(op, q, row_offsets, sinks)
    _check(op, DType.bfloat16, q, row_offsets, sinks)
    if cache.kv_blocks.dtype != DType.bfloat16 or cache.kv_scales is not None:
        raise ValueError(f"{op}: cache must be of DType.bfloat16, got {cache.kv_blocks.dtype}")
    _, _, _, page_size, kv_heads, head_dim = cache.kv_blocks.shape
    require_dim(op, "q.shape[2]", q.shape[2], "cache.kv_blocks.shape[5]", head_dim)
    group, page = int(q.shape[1]) // int(kv_heads), int(page_size)
    if int(head_dim) != 64 or group > 8 or page < 16 or page & (page - 1):
        raise ValueError(
            f"{op}: takes heads of 64, at most 8 of them for each key-value head, and pages of 16 tokens or another "
            f"power of two above, got {head_dim}, {group} and {page}; MAX's flash_attention_ragged may take them"
        )
    metadata = cache.attention_dispatch_metadata
    assert metadata is not None  # MAX's cache has it on every GPU
    masks = AttentionMaskVariant
    mask = masks.SLIDING_WINDOW_CAUSAL_MASK if window else masks.CAUSAL_MASK
    return ops.inplace_custom(
        op,
        device,
        [
            q,
            row_offsets,
            *cache.flatten_without_attention_dispatch_metadata(),
            TensorValue(cache_layer),
            ops.constant(1 / math.sqrt(64), DType.float32, device=DeviceRef.CPU()),
            sinks,
            metadata,
        ],
        [q.type],
        parameters={"mask_str": mask.value, "local_window_size": window or -1},
    )[0].tensor


def _check(
    op: str, dtype: DType, q: TensorValue, row_offsets: TensorValue, sinks: TensorValue
) -> None:
    """Checks what both take."""
    require(op, "q", q, 3, dtype)
    require(op, "row_offsets", row_offsets, 1, DType.uint32)
    require(op, "sinks", sinks, 1, dtype)
    require_dim(op, "sinks.shape[0]", sinks.shape[0], "q.shape[1]", q.shape[1])
