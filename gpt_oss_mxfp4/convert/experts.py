"""Experts between MXFP4 and BF16: another format, another order of axes, the same names but for an ending.

MXFP4 tensors are ``X_blocks`` [E, N, K/32, 16] and ``X_scales`` [E, N, K/32]; BF16 ones are ``X`` [E, K, N].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.layout import BLOCKS, SCALES
from gpt_oss_mxfp4.checkpoint.schema import TensorSpec
from gpt_oss_mxfp4.convert.decode import (
    EXPONENT_BITS,
    as_blocks,
    decode_bfloat16,
    transposed,
    widen,
)
from gpt_oss_mxfp4.convert.plan import Bytes, Output, Read, computed, gathered
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE

Quantize = Callable[[NDArray[np.float32]], tuple[Bytes, Bytes]]
"""Rounds [N, K] to blocks [N, K/32, 16] and scales [N, K/32]: ``gpt_oss_mxfp4.quantize.quantize_array``."""

NOT_FINITE = "not finite"
"""The kind of fault that only the weights themselves show, long after a conversion began."""

MAX_MATRIX_BYTES = 2**30
"""Most bytes of a BF16 matrix of one expert, which is held in memory: 30 times those of gpt-oss-120b."""

_ROWS_AT_ONCE = 256
"""Rows whose error is summed at once: bounds what copies take."""


def check_sizes(shapes: Iterable[tuple[int, int]], where: Path) -> None:
    """Refuses experts too large to hold one in memory.

    Args:
        shapes: rows and elements of a row of an expert's matrices.
        where: what the error calls the checkpoint.
    """
    for rows, k in shapes:
        if 2 * rows * k > MAX_MATRIX_BYTES:
            rule = f"an expert's matrix must have at most {MAX_MATRIX_BYTES // 2} elements, got {rows} x {k}"
            cure = "No gpt-oss is so large: compare config.json with that of openai/gpt-oss-120b"
            raise CheckpointError(where, [Fault("absurd size", rule, cure)])


def bfloat16_tensors(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The specification of a checkpoint with BF16 experts that goes with one of MXFP4 experts."""
    specs = {}
    for name, spec in tensors.items():
        if name.endswith(BLOCKS):
            experts, n, groups, _ = spec.shape
            plain = TensorSpec("BF16", (experts, groups * GROUP_SIZE, n))
            specs[name.removesuffix(BLOCKS)] = plain
        elif not name.endswith(SCALES):
            specs[name] = spec
    return specs


def to_bfloat16(outputs: Mapping[str, Output], where: Path) -> dict[str, Output]:
    """Plans BF16 experts from MXFP4 ones: exact, or refused while it is made.

    Args:
        outputs: tensors with MXFP4 experts.
        where: what an error calls the checkpoint.
    """
    plain = {}
    for name, output in outputs.items():
        if name.endswith(BLOCKS):
            base = name.removesuffix(BLOCKS)
            plain[base] = _decoded(base, output, outputs[base + SCALES], where)
        elif not name.endswith(SCALES):
            plain[name] = output
    return plain


def to_mxfp4(
    outputs: Mapping[str, Output], packed: Mapping[str, TensorSpec], quantize: Quantize, where: Path
) -> dict[str, Output]:
    """Plans MXFP4 experts from BF16 ones: rounded, what is lost summed up, or refused where not finite.

    Args:
        outputs: tensors with BF16 experts.
        packed: the specification of what is to be made, in order.
        quantize: does the rounding.
        where: what an error calls the checkpoint.
    """
    planned = {}
    for name, spec in packed.items():
        base = name.removesuffix(BLOCKS)
        if base != name:
            rounding = _Rounding(outputs[base], spec.shape[1], quantize, where)
            for half, ending in enumerate((BLOCKS, SCALES)):
                spec = packed[base + ending]
                planned[base + ending] = rounding.output(base + ending, spec, half)
        elif name not in planned:
            planned[name] = outputs[name]
    return planned


def _decoded(name: str, blocks: Output, scales: Output, where: Path) -> Output:
    experts, n, groups, _ = blocks.shape
    k = groups * GROUP_SIZE

    def decode(expert: int) -> Callable[[Read], NDArray[np.uint16]]:
        def function(read: Read) -> NDArray[np.uint16]:
            codes = as_blocks(gathered(blocks.pieces[expert], read), n)
            bits = decode_bfloat16(codes, gathered(scales.pieces[expert], read).reshape(n, groups))
            _require_finite(bits, name, expert, where)
            return transposed(bits)

        return function

    pieces = tuple(computed(2 * n * k, decode(expert)) for expert in range(experts))
    return Output(name, "BF16", (experts, k, n), pieces)


def _require_finite(bits: NDArray[np.uint16], name: str, expert: int, where: Path) -> None:
    wrong = np.flatnonzero((bits & EXPONENT_BITS == EXPONENT_BITS).any(axis=1))
    if wrong.size:
        text = (
            f"{name} must be finite in bfloat16, expert {expert} is not in {wrong.size} of {bits.shape[0]} rows,"
            f" the first of them {wrong[0]}"
        )
        cure = "The weights are damaged or of a model that diverged: take another copy"
        raise CheckpointError(where, [Fault(NOT_FINITE, text, cure)])


class _Rounding:
    """One projection's experts, rounded once for the two tensors that hold them."""

    def __init__(self, plain: Output, n: int, quantize: Quantize, where: Path) -> None:
        self._plain, self._n, self._quantize, self._where = plain, n, quantize, where
        # Scales are asked for right after all blocks, so they are kept from one to the other: 1/17 of the experts.
        self._scales: dict[int, Bytes] = {}
        self._losses: dict[int, tuple[float, float, float]] = {}

    def output(self, name: str, spec: TensorSpec, half: int) -> Output:
        """The tensor of blocks (half 0) or of scales (1)."""
        nbytes = math.prod(spec.shape[1:])
        pieces = tuple(
            computed(nbytes, self._recipe(expert, half)) for expert in range(spec.shape[0])
        )
        return Output(name, spec.dtype, spec.shape, pieces, None if half else self._loss)

    def _recipe(self, expert: int, half: int) -> Callable[[Read], Bytes]:
        def function(read: Read) -> Bytes:
            if half and expert in self._scales:
                return self._scales.pop(expert)
            blocks, scales = self._round(expert, read)
            if half:
                return scales
            self._scales[expert] = scales
            return blocks

        return function

    def _round(self, expert: int, read: Read) -> tuple[Bytes, Bytes]:
        bits = gathered(self._plain.pieces[expert], read).view(np.uint16)
        rows = transposed(bits.reshape(-1, self._n))
        _require_finite(rows, self._plain.name, expert, self._where)
        x = widen(rows)
        blocks, scales = self._quantize(x)
        self._losses[expert] = _sum_loss(x, blocks, scales)
        return blocks, scales

    def _loss(self) -> dict[str, float]:
        largest, lost, whole = zip(*self._losses.values(), strict=True)
        share = math.sqrt(math.fsum(lost) / math.fsum(whole)) if any(whole) else 0.0
        return {"max_abs": max(largest), "rms_relative": share}


def _sum_loss(x: NDArray[np.float32], blocks: Bytes, scales: Bytes) -> tuple[float, float, float]:
    """The largest error, the sum of squared errors, and that of squared numbers."""
    largest = lost = whole = 0.0
    for begin in range(0, x.shape[0], _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        # Exact in float32: 8 significant bits less 2, whose exponents a group keeps close.
        error = x[rows] - widen(decode_bfloat16(blocks[rows], scales[rows]))
        largest = max(largest, float(error.max(initial=0.0)), -float(error.min(initial=0.0)))
        lost += float(np.square(error, dtype=np.float64).sum())
        whole += float(np.square(x[rows], dtype=np.float64).sum())
    return largest, lost, whole
