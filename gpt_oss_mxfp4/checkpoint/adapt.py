"""Validated tensors to graph weights: nothing is renamed, nothing is copied."""

from __future__ import annotations

from max.graph.weights import WeightData, load_weights

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint


def adapt(checkpoint: Checkpoint) -> dict[str, WeightData]:
    """Maps a checkpoint's files and hands out each tensor under its own name, which is the graph's name for it.

    Args:
        checkpoint: from :func:`open_checkpoint`; only its files are mapped, whatever else lies in the folder.

    Returns:
        Name to tensor. The bytes stay in the file until something reads them, and on a CPU the graph reads them
        there.
    """
    weights = load_weights(list(checkpoint.files))
    return {name: tensor.data() for name, tensor in weights.items() if name in checkpoint.entries}
