"""Whether what is asked for fits into the machine's memory: told before MAX is loaded, which does not tell it.

On a CPU, MAX takes as much KV cache as was asked for, up to nearly all memory there is, and fills it as requests come.
"""

from __future__ import annotations

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES, CPU_MAX_LENGTH, footprint
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text
from gpt_oss_mxfp4.serving.options import ServeOptions


def check_memory(
    checkpoint: Checkpoint, options: ServeOptions, available: int, progress: Progress
) -> None:
    """Checks that the KV cache fits; a GPU's is MAX's to plan.

    Args:
        checkpoint: what is to be served.
        options: how.
        available: bytes of memory.
        progress: gets a note where weights do not fit beside it: their pages are dropped and read again.

    Raises:
        Refused: it does not fit.
    """
    if options.devices != "cpu":
        return
    taken = footprint(checkpoint.config, checkpoint.entries, "cpu", options.activations)
    length = options.max_length or min(CPU_MAX_LENGTH, checkpoint.config.max_position_embeddings)
    batch = options.cpu_batch_size
    sequence = taken.kv_cache // taken.tokens * length
    cache, room = batch * sequence, available - ACTIVATION_BYTES
    if cache > room:
        fits = max(room, 0) // sequence
        cure = f"{fits} of that length fit" if fits else "take a smaller --max-length"
        raise Refused(
            f"--max-batch-size, --max-length: the KV cache of {batch} sequences of {length} tokens takes "
            f"{bytes_text(cache)}, of which this machine has {bytes_text(max(room, 0))} left; {cure}"
        )
    if cache + taken.weights > room:
        progress.note(
            f"weights take {bytes_text(taken.weights)} and the KV cache up to {bytes_text(cache)}, more than the "
            f"{bytes_text(room)} that are left: weights may be read from the disk again and again; a smaller "
            "--max-batch-size or --max-length helps"
        )
