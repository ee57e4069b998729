"""The inspect verb: what a checkpoint is and what this package would do with it, from headers alone."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hollow import make_hollow
from gpt_oss_mxfp4.checkpoint.hub import local_folder, taken_for_hub_id
from gpt_oss_mxfp4.checkpoint.repository import Repository, hub_errors
from gpt_oss_mxfp4.checkpoint.survey import survey
from gpt_oss_mxfp4.inspection.inspection import Inspection, inspect_survey
from gpt_oss_mxfp4.inspection.text import inspection_text
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import check_place, replace_text, run_command, temporary_folder
from gpt_oss_mxfp4.progress import Progress


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What ``inspect`` is asked for.

    Args:
        model: folder or Hub id.
        json: whether the facts are printed as JSON.
        experts: file for a picture of the experts' scales, or None.
    """

    model: str
    json: bool = False
    experts: Path | None = None


def run_inspect(options: InspectOptions) -> int:
    """Inspects, and reports what went wrong in one line.

    Args:
        options: what to inspect.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_inspect, options), verbose=False)


def _inspect(options: InspectOptions, write: Write, progress: Progress) -> None:
    if options.experts is not None and options.experts.suffix != ".svg":
        raise Refused(f"--experts: {options.experts} must end in .svg, there is no other format")
    if options.experts is not None:
        check_place("--experts", options.experts)
    folder = local_folder(options.model)
    if folder is None:
        if options.experts is not None:
            cure = "pull it, and give the folder that pull prints"
            raise Refused(f"--experts: {options.model} must be a folder, scales are read; {cure}")
        facts = _inspect_repository(options.model, progress)
    else:
        facts = _inspect_folder(folder, options.model if options.model.strip("./") else str(folder))
    if folder is not None and options.experts is not None and facts.loads:
        _draw(folder, options.experts, progress)
    write(json.dumps(facts.to_json(), indent=2) + "\n" if options.json else inspection_text(facts))
    if facts.faults:
        raise Refused(f"{facts.name}: would be refused, for the faults above")


def _draw(folder: Path, output: Path, progress: Progress) -> None:
    # These import NumPy.
    from gpt_oss_mxfp4.checkpoint.scale_statistics import read_scale_statistics, scale_entries
    from gpt_oss_mxfp4.inspection.expert_map import draw_expert_map

    entries = open_checkpoint(folder).entries
    total = sum(entry.nbytes for entry in scale_entries(entries))
    with progress.bar("reading scales", total) as advance:
        statistics = read_scale_statistics(entries, advance)
    replace_text("--experts", output, draw_expert_map(folder.resolve().name, statistics))


def _inspect_folder(folder: Path, name: str, *, hollow: bool = False) -> Inspection:
    seen = survey(folder, hollow=hollow)
    if not seen.files and not seen.fields:  # then there is nothing to tell of
        raise CheckpointError(name, seen.faults)
    return inspect_survey(seen, name)


def _inspect_repository(hub_id: str, progress: Progress) -> Inspection:
    with taken_for_hub_id(), hub_errors(hub_id), temporary_folder() as folder:
        with progress.step(f"fetching headers of {hub_id}"):
            make_hollow(Repository(hub_id), folder)
        return _inspect_folder(folder, hub_id, hollow=True)
