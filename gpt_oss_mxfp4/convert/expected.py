"""What a layout must hold, against what a folder holds: every difference in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.schema import TensorSpec

MAX_FAULTS = 1000
"""Faults after which the rest are not looked for: a config that lies may ask for millions of tensors."""

MAX_MATRIX_BYTES = 2**30
"""Most bytes of a BF16 matrix of one expert, which is held in memory: 30 times those of gpt-oss-120b."""

_CURE = "Take config.json and the weights from the same repository, and download both again"

_SCALE_DTYPES = {"U8": ("U8", "F8_E8M0"), "BF16": ("BF16",)}
"""A byte of scale has a name of its own in newer files."""


def check_entries(
    wanted: Iterable[tuple[str, TensorSpec]], entries: Mapping[str, TensorEntry], where: Path
) -> None:
    """Holds entries against a specification.

    Args:
        wanted: name and specification of every tensor that must be there.
        entries: what is there.
        where: what the error calls it.

    Raises:
        CheckpointError: a tensor is missing, unexpected, mistyped or misshapen.
    """
    faults: list[Fault] = []
    seen = set()
    for name, spec in wanted:
        seen.add(name)
        entry = entries.get(name)
        if entry is None:
            faults.append(Fault("missing tensor", f"{name} must be there, is missing", _CURE))
        else:
            faults += _differences(entry, spec)
        if len(faults) >= MAX_FAULTS:
            raise CheckpointError(where, faults)
    for name in islice((name for name in entries if name not in seen), MAX_FAULTS):
        text = f"{quoted(name)} in {entries[name].file.name} must not be there: gpt-oss has no such tensor"
        cure = "Move a file that is no part of the model (an adapter, a copy) out of the folder"
        faults.append(Fault("unexpected tensor", text, cure))
    if faults:
        raise CheckpointError(where, faults)


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


def _differences(entry: TensorEntry, spec: TensorSpec) -> Iterable[Fault]:
    file = entry.file.name
    allowed = _SCALE_DTYPES[spec.dtype] if entry.name.endswith("_scale") else (spec.dtype,)
    if entry.dtype not in allowed:
        text = f"{entry.name} must be {spec.dtype}, got {entry.dtype} in {file}"
        cure = (
            "Nothing is cast here: save dense tensors, and experts that are to be rounded, as BF16"
        )
        yield Fault("wrong dtype", text, cure)
    if entry.shape != spec.shape:
        text = f"{entry.name} must be {list(spec.shape)}, got {list(entry.shape)} in {file}"
        yield Fault("wrong shape", text, _CURE)
