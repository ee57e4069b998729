"""What rounding lost, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.convert.conversion import Conversion
from gpt_oss_mxfp4.convert.journal import Journal
from gpt_oss_mxfp4.convert.shards import Shard
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import replace_text
from gpt_oss_mxfp4.progress import Progress


def tell_losses(journal: Journal, progress: Progress) -> None:
    """Prints a line for each tensor that was rounded.

    Its largest error, and the root mean square of its errors as a share of the numbers' own.
    """
    losses = _losses(journal)
    if not losses:
        return
    width = max(map(len, losses))
    progress.note(f"{'rounded to MXFP4':{width}}  largest error  rms, relative")
    for name, loss in losses.items():
        progress.note(f"{name:{width}}  {loss['max_abs']:13.3g}  {loss['rms_relative']:13.4f}")


def write_report(
    path: Path, source: Path, conversion: Conversion, shards: Iterable[Shard], journal: Journal
) -> None:
    """Writes all tensors of the output with their files, digests and losses.

    Args:
        path: the file to write; one that is there is replaced.
        source: folder of the source.
        conversion: what was made.
        shards: its files.
        journal: with what was recorded of each.

    Raises:
        Refused: the file cannot be written.
    """
    losses = _losses(journal)
    tensors: dict[str, Any] = {}
    for shard in shards:
        digests = journal.shards[shard.name]["digests"]
        for output in shard.outputs:
            tensors[output.name] = {
                "file": shard.name,
                "dtype": output.dtype,
                "shape": list(output.shape),
                "blake2b": digests[output.name],
                **losses.get(output.name, {}),
            }
    report = {
        "source": str(source),
        "from": conversion.title,
        "output": str(journal.output),
        "notes": list(conversion.notes),
        "tensors": tensors,
    }
    try:
        replace_text("--json", path, json.dumps(report, indent=2) + "\n")
    except Refused as error:
        raise Refused(f"{error}; all else is done: run the command again for it") from error


def _losses(journal: Journal) -> dict[str, dict[str, float]]:
    return {
        name: loss for record in journal.shards.values() for name, loss in record["losses"].items()
    }
