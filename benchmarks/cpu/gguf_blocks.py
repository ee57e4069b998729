"""GGUF's MXFP4 blocks: 17 bytes, the scale and then the codes of a group of 32.

Byte j of the codes holds codes j (low nibble) and j + 16 (high), where the checkpoint's holds 2j and 2j + 1. The scale
byte is the same: llama.cpp doubles the E2M1 values and halves the scale.

Source: ggml-common.h (block_mxfp4, kvalues_mxfp4) and ggml-quants.c (dequantize_row_mxfp4) of ggml 0.25.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP

Bytes = NDArray[np.uint8]


def repack_mxfp4(blocks: Bytes, scales: Bytes) -> Bytes:
    """Moves codes from the checkpoint's order to GGUF's; no value changes.

    Args:
        blocks: [..., k / 32, 16] uint8, code 2j in the low and 2j + 1 in the high nibble of byte j.
        scales: [..., k / 32] uint8, E8M0.

    Returns:
        [..., k / 32 * 17] uint8: per group the scale byte, then code j in the low and j + 16 in the high nibble.
    """
    first, second = blocks[..., : BYTES_PER_GROUP // 2], blocks[..., BYTES_PER_GROUP // 2 :]
    packed = np.empty((*scales.shape, 1 + BYTES_PER_GROUP), np.uint8)
    packed[..., 0] = scales
    packed[..., 1::2] = first & 0x0F | second << 4
    packed[..., 2::2] = first >> 4 | second & 0xF0
    return packed.reshape(*scales.shape[:-1], -1)
