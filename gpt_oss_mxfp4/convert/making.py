"""The files of an output: what is missing is written, all is read back, and what cannot be is told once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, INDEX_FILE
from gpt_oss_mxfp4.checkpoint.repository import NO_ROOM
from gpt_oss_mxfp4.convert.companions import copy_companions
from gpt_oss_mxfp4.convert.conversion import Conversion
from gpt_oss_mxfp4.convert.experts import NOT_FINITE
from gpt_oss_mxfp4.convert.journal import Journal, write_synced
from gpt_oss_mxfp4.convert.plan import Bytes
from gpt_oss_mxfp4.convert.shards import Shard, index_text
from gpt_oss_mxfp4.convert.source import Source
from gpt_oss_mxfp4.convert.writer import verify_shard, write_shard
from gpt_oss_mxfp4.mxfp4 import GROUP_SIZE
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text


def make(
    conversion: Conversion,
    shards: tuple[Shard, ...],
    source: Source,
    companion: Path | None,
    journal: Journal,
    progress: Progress,
) -> None:
    """Makes all files in the journal's folder, or leaves there what another run can go on from.

    Args:
        conversion: what is made.
        shards: its tensors, dealt out to files.
        source: what it is made from.
        companion: folder of the files beside the weights, from ``find_companion``.
        journal: says what an earlier run has made, and is told.
        progress: gets notes and bars.

    Raises:
        CheckpointError: the source cannot be converted, or what was written does not read back.
        Refused: there is no room, or the files cannot be written.
    """
    try:
        journal.open()
        if journal.other_task:
            progress.note(
                "what was found of an unfinished conversion of another source was removed"
            )
        _write_missing(shards, source, journal, progress)
        total = sum(shard.nbytes for shard in shards)
        with progress.bar(f"reading {journal.output} back", total) as advance:
            for shard in shards:
                verify_shard(shard, journal, advance)
        _write_small(conversion, shards, companion, journal, progress)
    except OSError as error:
        kept = ""
        if not journal.shards:
            journal.remove()
        elif error.errno in NO_ROOM:
            kept = (
                f"; {len(journal.shards)} of {len(shards)} files are done and kept for another run"
            )
        raise Refused(
            f"--output: {journal.output} cannot be written ({error.strerror}){kept}"
        ) from error
    except (CheckpointError, Refused) as error:
        hopeless = isinstance(error, CheckpointError) and error.faults[0].kind == NOT_FINITE
        if hopeless or not journal.shards:
            journal.remove()
        raise


def quantize(x: NDArray[np.float32]) -> tuple[Bytes, Bytes]:
    """Rounds to MXFP4, on MAX, which takes seconds to load: ``experts.Quantize``."""
    from gpt_oss_mxfp4.quantize import quantize_array

    return quantize_array(x)


def _write_missing(
    shards: tuple[Shard, ...],
    source: Source,
    journal: Journal,
    progress: Progress,
) -> None:
    missing = [shard for shard in shards if shard.name not in journal.shards]
    total, left = (sum(shard.nbytes for shard in some) for some in (shards, missing))
    free = shutil.disk_usage(journal.folder).free
    if free < left:
        raise Refused(
            f"--output: {journal.output} needs {bytes_text(left)} more, {bytes_text(free)} are free there"
        )
    if any(output.loss for shard in missing for output in shard.outputs):
        with progress.step("loading MAX, to round experts", "half a minute"):
            quantize(np.zeros((1, GROUP_SIZE), np.float32))
    with progress.bar(f"writing {journal.output}", total, total - left) as advance:
        for shard in missing:
            write_shard(shard, source.read, journal, advance)


def _write_small(
    conversion: Conversion,
    shards: tuple[Shard, ...],
    companion: Path | None,
    journal: Journal,
    progress: Progress,
) -> None:
    """Writes what is not weights, and opens the whole as the loader does where it is what the loader takes."""
    files = journal.files
    write_synced(files / INDEX_FILE, index_text(shards))
    write_synced(files / CONFIG_FILE, json.dumps(conversion.config, indent=2) + "\n")
    if conversion.to != "original":
        copy_companions(companion, files, progress)
    if conversion.to == "mxfp4":
        open_checkpoint(files)
