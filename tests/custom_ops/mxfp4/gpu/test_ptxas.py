"""What the assembler makes of the kernels for any GPU."""

from __future__ import annotations

from pathlib import Path

from tests.custom_ops.mxfp4.assembler import disassemble, needs_nvdisasm


@needs_nvdisasm
def test_combine_asks_for_all_rows_before_it_adds_any(
    kernels: dict[str, str], tmp_path: Path
) -> None:
    """One after the other, four experts of one token are eight times memory's latency."""
    names = [x.name for x in disassemble(kernels["combine_8"], tmp_path)]
    loads = [i for i, name in enumerate(names) if name.startswith("LDG")]
    sums = [i for i, name in enumerate(names) if name.startswith("FFMA")]
    assert len(loads) >= 1 + 3 * 4  # the residual; place, share and values of each row
    assert max(loads) < min(sums)
