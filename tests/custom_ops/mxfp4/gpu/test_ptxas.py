"""What the assembler makes of the kernels for any GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.custom_ops.mxfp4.assembler import disassemble, needs_nvdisasm
from tests.custom_ops.mxfp4.sass import assert_nothing_early, memory_waits


@needs_nvdisasm
def test_combine_asks_for_all_rows_before_it_adds_any(
    kernels: dict[str, str], tmp_path: Path
) -> None:
    """One after the other, four experts of one token are eight times memory's latency."""
    instructions = disassemble(kernels["combine_8"], tmp_path)
    assert memory_waits(instructions) == 2  # for places, then for rows and the residual
    names = [x.name for x in instructions]
    loads = [i for i, name in enumerate(names) if name.startswith("LDG")]
    sums = [i for i, name in enumerate(names) if name.startswith("FFMA")]
    assert len(loads) >= 1 + 3 * 4  # the residual; place, share and values of each row
    assert max(loads) < min(sums)


@needs_nvdisasm
@pytest.mark.parametrize(
    "name",
    [
        *(f"{name}_{held}" for name in ("route", "route_and_group") for held in (1, 4, 16)),
        *("group", "combine_1", "combine_8"),
    ],
)
def test_nothing_is_read_or_written_before_the_wait_for_the_kernel_before(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    assert_nothing_early(disassemble(kernels[name], tmp_path))
