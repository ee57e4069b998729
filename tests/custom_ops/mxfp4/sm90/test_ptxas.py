"""What the assembler makes of each kernel: registers within the plan, nothing spilled, no product serialised.

And the SASS itself: fragments stay as they are while products read them, and few instructions go by for a tile.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.custom_ops.mxfp4.assembler import assemble, disassemble, needs_nvdisasm, needs_ptxas
from tests.custom_ops.mxfp4.ptx import facts
from tests.custom_ops.mxfp4.sass import Instruction, early_writes, loop_with, memory_waits

REGISTERS = {
    f"{config}{gated}": registers
    for config, registers in {
        "decode_8": 56,
        "decode_16": 80,
        "middle_64": 96,
        "prefill_128": 128,
    }.items()
    for gated in ("", "_gated")
}
"""Registers a thread may have when its block is launched: `SM_REGISTERS / (threads * blocks)`, in eights."""


BUDGET = {
    name: {"decode": 94, "middle": 117, "prefill": 170}[name.partition("_")[0]]
    for name in REGISTERS
}
"""Instructions that a scheduler may issue for a tile of 64 by 64 weights, to multiply it and to load it.

A multiprocessor's four schedulers issue one a clock each, and each has one of a tile's four warps and one of the four
that load. Where memory is the limit a tile arrives every 117 clocks: 4.3 TB/s over 132 multiprocessors at 1.755 GHz are
18.6 bytes a clock, and it has 2176. For few tokens nothing else takes that long, and a fifth of the clocks is left to
wait in. At 128 tokens the tensor core takes 256 clocks for a tile (2048 multiplications a clock); two thirds of that
leave room for loading."""


@needs_ptxas
@pytest.mark.parametrize("name", REGISTERS)
def test_the_assembler_has_nothing_to_say(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    report, _ = assemble(kernels[name], tmp_path)
    assert "warning" not in report.lower(), report
    assert "C75" not in report, report
    assert re.search(r"\b0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", report)
    found = re.search(r"Used (\d+) registers", report)
    assert found, report
    if facts(kernels[name])[
        "moves_registers"
    ]:  # what setmaxnreg divides among warpgroups: with fewer it waits for ever
        assert int(found[1]) == REGISTERS[name]
    assert int(found[1]) <= REGISTERS[name]


def issued_for_a_tile(
    instructions: list[Instruction],
    product: str,
    count: int,
    own_tiles: int,
    said: dict[str, int],
    loads: int | None = None,
) -> tuple[float, float]:
    """Gives the instructions to multiply a tile and to load it.

    Args:
        instructions: of a kernel.
        product: its products' name.
        count: of them in a tile.
        own_tiles: of a stage, that a warpgroup multiplies.
        said: what a launch needs.
        loads: copies that a loader begins for a stage, where others begin some elsewhere.
    """
    to_multiply, _ = loop_with(instructions, (product,), count * own_tiles)
    to_load, _ = loop_with(instructions, ("LDGSTS", "UBLKCP"), loads)
    # Those of a stage, of which one of the loaders that take turns has one in so many.
    tiles = said["k_tiles"] * said["block_rows"] // 64
    return to_multiply / own_tiles, to_load / (tiles * said["loaders"])


@needs_nvdisasm
@pytest.mark.parametrize("name", REGISTERS)
def test_the_code_is_what_was_meant(kernels: dict[str, str], name: str, tmp_path: Path) -> None:
    instructions = disassemble(kernels[name], tmp_path)
    names = [instruction.name for instruction in instructions]
    assert any(x.startswith("UBLKCP") for x in names)
    assert any(x.startswith("LDGSTS") for x in names)
    said = facts(kernels[name])
    assert any(x.startswith("USETMAXREG") for x in names) == bool(said["moves_registers"])
    widths = {said["tokens"], said["narrow_tokens"]}
    # Instructions of a tile, by width.
    if name.startswith("decode"):
        products = {width: ("HMMA.16816.F32.BF16", 4 * width // 8) for width in widths}
    else:
        products = {width: (f"HGMMA.64x{width}x16.F32.BF16", 4) for width in widths}
    assert {x for x in names if "MMA" in x} == {product for product, _ in products.values()}
    of_warpgroups = [x for x in instructions if x.name.startswith("HGMMA")]
    assert all(len(x.fragment()) == 4 for x in of_warpgroups)  # A in registers
    assert early_writes(instructions) == []
    tiles = said["k_tiles"] * said["block_rows"] // 64
    # Where warpgroups split k, each multiplies all of a stage's tiles; otherwise those of its own rows.
    own_tiles = tiles if name.startswith("decode") else said["k_tiles"]
    for width, (product, count) in products.items():
        of_tile = issued_for_a_tile(instructions, product, count, own_tiles, said)
        print(f"{name}: {of_tile[0]:.0f} + {of_tile[1]:.0f} instructions a tile of {width}")
        assert sum(of_tile) <= BUDGET[name]


@needs_nvdisasm
@pytest.mark.parametrize("name", REGISTERS)
def test_a_lane_asks_for_its_experts_offsets_together(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """One after the other, four are four times memory's latency before the first weight is asked for."""
    instructions = disassemble(kernels[name], tmp_path)
    loads = [i for i, x in enumerate(instructions) if x.name.startswith("LDG.")]
    assert memory_waits(instructions[: loads[4] + 1]) == 0


@needs_nvdisasm
@pytest.mark.parametrize("name", REGISTERS)
def test_outputs_are_finished_side_by_side(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """From a lane's bias to its stores there is no branch, behind which an output would wait for another.

    And few instructions for what an output in prefill takes while no product runs: 18, or 8 without SwiGLU for two.
    """
    names = [x.name for x in disassemble(kernels[name], tmp_path)]
    stores = [i for i, x in enumerate(names) if x.startswith("STG")]
    begins = [i for i, x in enumerate(names) if x.startswith("LDG") and "CONSTANT" in x]
    if name.startswith(
        "decode"
    ):  # where bias comes early: from the first output's exponential or rounding
        sums = [i for i, x in enumerate(names) if x.startswith("BAR.")]
        behind = {max(i for i in sums if i < store) for store in stores}
        finish = "MUFU.EX2" if name.endswith("gated") else "F2FP"
        begins = sorted(
            next(i for i in range(s, len(names)) if names[i].startswith(finish)) for s in behind
        )
    said = facts(kernels[name])
    found = []
    for begin, following in pairwise([*begins, len(names)]):
        own = [place for place in stores if begin < place < following]
        # Over the last one ptxas may jump.
        assert not any(x.startswith(("BSSY", "BRA")) for x in names[begin : own[-2]])
        found.append(len(own))
        if name.startswith("prefill"):
            assert own[-1] - begin <= len(own) * (18 if name.endswith("gated") else 8)
    # A lane has a fourth of the tokens, each of two rows.
    assert sorted(found) == sorted({said["tokens"] // 4, said["narrow_tokens"] // 4})


@needs_nvdisasm
@pytest.mark.parametrize("name", ["middle_64_gated", "prefill_128"])
def test_a_wait_that_is_gone_is_seen(kernels: dict[str, str], name: str, tmp_path: Path) -> None:
    """In the SASS, where most are needed: from PTX without it the assembler may make code that happens to be right."""
    instructions = disassemble(kernels[name], tmp_path)
    waits = [i for i, x in enumerate(instructions) if x.name.startswith("WARPGROUP.DEPBAR")]
    seen = 0
    for place in waits:
        without = [*instructions]
        without[place] = replace(without[place], name="NOP", operands=())
        seen += bool(early_writes(without))
    assert seen > len(waits) / 2


@needs_nvdisasm
@pytest.mark.parametrize("name", ["decode_8", "decode_8_gated", "decode_16"])
def test_a_slot_is_given_back_when_all_lanes_have_read(
    kernels: dict[str, str], name: str, tmp_path: Path
) -> None:
    """The emulator's lanes go in step: it cannot tell. Between a warp's last load and its arrival it comes together."""
    together = ("WARPSYNC", "BRA.DIV")  # the second leads lanes that have parted to where they meet
    names = [x.name for x in disassemble(kernels[name], tmp_path)]
    arrivals = [i for i, x in enumerate(names) if x.startswith("SYNCS.ARRIVE.TRANS64.A1T0")]
    assert len(arrivals) == (2 if name == "decode_16" else 1)  # one for each width
    for place in arrivals:
        before = [x for x in names[:place] if x.startswith(("LDS", *together))]
        assert before[-1].startswith(together)


def test_every_kernel_has_a_plan(kernels: dict[str, str]) -> None:
    assert kernels.keys() == REGISTERS.keys()
