"""Statistics of the experts' scales: one set for each layer, projection and expert."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.index import TensorEntry, fill
from gpt_oss_mxfp4.checkpoint.layout import PROJECTIONS
from gpt_oss_mxfp4.mxfp4 import E8M0_BIAS

_SCALES = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(gate_up_proj|down_proj)_scales")

_EXPONENTS = np.arange(256) - E8M0_BIAS


@dataclass(frozen=True)
class ScaleStatistics:
    """Of one projection, [layers, experts] each.

    Args:
        mean: Mean exponent, the power of two that a scale is.
        largest: Largest exponent.
        zero_share: Share of scale bytes 0, which a group of zeros has, and any group below 2^-127.
    """

    mean: NDArray[np.float64]
    largest: NDArray[np.float64]
    zero_share: NDArray[np.float64]


def scale_entries(entries: Mapping[str, TensorEntry]) -> list[TensorEntry]:
    """Picks the tensors of scales, by layer."""
    found = [entry for name, entry in entries.items() if _SCALES.fullmatch(name)]
    return sorted(found, key=lambda entry: _place(entry.name))


def read_scale_statistics(
    entries: Mapping[str, TensorEntry], advance: Callable[[int], None]
) -> dict[str, ScaleStatistics]:
    """Reads all scales of a checkpoint, an expert's at a time, and nothing else.

    Args:
        entries: The tensors of a checkpoint that loads.
        advance: Gets the number of bytes of each piece that was read.

    Returns:
        Statistics by projection.

    Raises:
        CheckpointError: A file cannot be read.
    """
    scales = scale_entries(entries)
    layers = 1 + max(_place(entry.name)[0] for entry in scales)
    experts = scales[0].shape[0]
    statistics = {
        projection: ScaleStatistics(*(np.zeros((layers, experts)) for _ in range(3)))
        for projection in PROJECTIONS
    }
    for entry in scales:
        layer, projection = _place(entry.name)
        found = statistics[projection]
        try:
            with open(entry.file, "rb", buffering=0) as stream:
                stream.seek(entry.begin)
                data = np.empty(entry.nbytes // experts, np.uint8)
                for expert in range(experts):
                    if not fill(stream, data.data):
                        raise OSError(0, "the file became shorter")
                    counts = np.bincount(data, minlength=256)
                    found.mean[layer, expert] = counts @ _EXPONENTS / len(data)
                    found.largest[layer, expert] = _EXPONENTS[np.flatnonzero(counts)[-1]]
                    found.zero_share[layer, expert] = counts[0] / len(data)
                    advance(len(data))
        except OSError as error:
            text = f"cannot be read to its end ({error.strerror})"
            fault = Fault("unreadable file", text, CHECK_PATH)
            raise CheckpointError(entry.file, [fault]) from error
    return statistics


def _place(name: str) -> tuple[int, str]:
    match = _SCALES.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]
