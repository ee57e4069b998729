"""Ops on the format alone: expand, round, pack for Hopper."""

from __future__ import annotations

import math

from max.dtype import DType
from max.graph import Dim, StaticDim, TensorType, TensorValue, TensorValueLike, ops

from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, GROUP_SIZE, PACKED_TILE, PACKED_TILE_BYTES
from gpt_oss_mxfp4.ops.checks import common_device, cpu_only, require, require_dim


def dequantize(
    blocks: TensorValueLike, scales: TensorValueLike, dtype: DType = DType.float32
) -> TensorValue:
    """Expands MXFP4 to floats: ``y[..., 32g + i] = e2m1(code_i of group g) * 2^(scales[..., g] - 127)``.

    Args:
        blocks: [N, K/32, 16] or [E, N, K/32, 16] uint8, two E2M1 codes a byte, earlier element in the low nibble.
        scales: the same without the last axis, uint8 E8M0; 255 is NaN.
        dtype: float32 or bfloat16; both are exact below their overflow to infinity.

    Returns:
        [..., K] of ``dtype`` on the inputs' device.

    Raises:
        ValueError: wrong rank, dtype or group size, or inputs on two devices.

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.2, 5.3.3 and 6.3.
    """
    op = "mxfp4.dequantize"
    blocks, scales = TensorValue(blocks), TensorValue(scales)
    device = common_device(op, blocks, scales)
    if blocks.rank not in (3, 4):
        raise ValueError(f"{op}: blocks must have rank 3 or 4, got shape {blocks.shape}")
    require(op, "blocks", blocks, blocks.rank, DType.uint8)
    require(op, "scales", scales, blocks.rank - 1, DType.uint8)
    require_dim(op, "blocks.shape[-1]", blocks.shape[-1], "the bytes of a group", BYTES_PER_GROUP)
    if dtype not in (DType.float32, DType.bfloat16):
        raise ValueError(f"{op}: dtype must be float32 or bfloat16, got {dtype}")
    *outer, k_groups = scales.shape
    flat_blocks = blocks.reshape([-1, k_groups, BYTES_PER_GROUP])
    flat_scales = scales.reshape([-1, k_groups])
    rows = flat_scales.shape[0]
    flat = ops.custom(
        op,
        device,
        [flat_blocks, flat_scales],
        [TensorType(dtype, [rows, k_groups * GROUP_SIZE], device)],
    )[0].tensor
    return flat.reshape([*outer, k_groups * GROUP_SIZE])


def quantize(x: TensorValueLike) -> tuple[TensorValue, TensorValue]:
    """Rounds floats to MXFP4: ``code[..., 32g + i] = e2m1(x[..., 32g + i] / 2^(scales[..., g] - 127))``.

    ``scales[..., g] = clamp(floor(log2(amax of group g)) - 2, -127, 127) + 127``; ``e2m1`` rounds to nearest, ties to
    the even code, and saturates at 6. Zeros keep their sign.

    Args:
        x: [..., K] float32 or bfloat16 on the CPU, at least one axis, K a multiple of 32.

    Returns:
        blocks [..., K/32, 16] uint8, two E2M1 codes a byte, earlier element in the low nibble; scales [..., K/32]
        uint8 E8M0. A group of zeros has scale 0. One with a NaN or an infinity has scale 255 and codes 0: all of it
        is NaN.

    Raises:
        ValueError: wrong rank or dtype, a K that is no multiple of 32 (at run time where K is symbolic), or a GPU
            device (no kernel).

    Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 and 6.3.

    Example:
        The scale is never raised to avoid saturation: a group whose largest element is 7.5 has scale 127 (2^0), and
        7.5 becomes 6.
    """
    op = "mxfp4.quantize"
    x = TensorValue(x)
    device = cpu_only(op, x)
    if x.rank < 1:
        raise ValueError(f"{op}: x must have rank 1 or more, got shape {x.shape}")
    require(op, "x", x, x.rank, DType.float32, DType.bfloat16)
    *outer, k = x.shape
    if isinstance(k, StaticDim) and int(k) % GROUP_SIZE != 0:
        raise ValueError(f"{op}: x.shape[-1] must be a multiple of {GROUP_SIZE}, got {k}")
    rows, k_groups = math.prod(outer, start=Dim(1)), k // GROUP_SIZE
    blocks, scales = ops.custom(
        op,
        device,
        [x.reshape([rows, k])],
        [
            TensorType(DType.uint8, [rows, k_groups, BYTES_PER_GROUP], device),
            TensorType(DType.uint8, [rows, k_groups], device),
        ],
    )
    return (
        blocks.tensor.reshape([*outer, k_groups, BYTES_PER_GROUP]),
        scales.tensor.reshape([*outer, k_groups]),
    )


def swizzle(blocks: TensorValueLike, scales: TensorValueLike) -> TensorValue:
    """Packs weights as Hopper's grouped matmuls read them: in tiles of 64 rows by 64 k, codes then scales.

    ``tiles[e, i, j]`` holds rows 64i..64i+63 and k 64j..64j+63 of expert e, its codes in the order of the tensor
    core's registers; rows and k past the end are codes of zero. 4.25 bits per weight, as before.

    Args:
        blocks: [E, N, K/32, 16] uint8, checkpoint layout.
        scales: [E, N, K/32] uint8 E8M0. Weights whose scale is above 128, that is 2, become infinite or NaN: refuse
            them before, :data:`gpt_oss_mxfp4.mxfp4.MAX_PACKED_SCALE`.

    Returns:
        [E, ceil(N / 64), ceil(K / 64), 2176] uint8 on the inputs' device.

    Raises:
        ValueError: wrong rank, dtype or size, or inputs on two devices.

    Source: ``custom_ops/mxfp4/layouts/sm90_tiles.mojo``, which derives the order from the PTX ISA.
    """
    op = "mxfp4.swizzle"
    blocks, scales = TensorValue(blocks), TensorValue(scales)
    device = common_device(op, blocks, scales)
    require(op, "blocks", blocks, 4, DType.uint8)
    require(op, "scales", scales, 3, DType.uint8)
    require_dim(op, "blocks.shape[3]", blocks.shape[3], "the bytes of a group", BYTES_PER_GROUP)
    for axis in range(3):
        require_dim(
            op,
            f"scales.shape[{axis}]",
            scales.shape[axis],
            f"blocks.shape[{axis}]",
            blocks.shape[axis],
        )
    experts, rows, k_groups = scales.shape
    return ops.custom(
        op,
        device,
        [blocks, scales],
        [TensorType(DType.uint8, [experts, *packed_shape(rows, k_groups * GROUP_SIZE)], device)],
    )[0].tensor


def packed_shape(rows: Dim | int, k: Dim | int) -> list[Dim]:
    """Returns the shape of an expert's packed weights of [rows, k]: tiles along rows, along k, bytes of a tile."""
    edge = PACKED_TILE
    return [(Dim(rows) + edge - 1) // edge, (Dim(k) + edge - 1) // edge, Dim(PACKED_TILE_BYTES)]
