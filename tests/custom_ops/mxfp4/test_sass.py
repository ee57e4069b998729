"""The reading of SASS itself, on a few lines of it."""

from __future__ import annotations

import pytest

from tests.custom_ops.mxfp4.sass import (
    assert_nothing_early,
    early_writes,
    loop_with,
    memory_waits,
    parse_sass,
)


def sass(*lines: str) -> str:
    """Lines as nvdisasm prints them; one that ends in a colon is a label."""
    return "\n".join(
        line if line.endswith(":") else f"        /*{16 * i:04x}*/              {line} ;"
        for i, line in enumerate(lines)
    )


PRODUCT = "HGMMA.64x8x16.F32.BF16 R24, R28, gdesc[UR16], R24, gsb0"
WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"


@pytest.mark.parametrize(
    ("write", "early"),
    [
        ("HMUL2.BF16_V2 R30, R1, R2", True),
        ("HMUL2.BF16_V2 R32, R28, R29", False),
        ("LDS.128 R26, [R1]", True),
        ("LDS.64 R26, [R1]", False),
        ("LOP3.LUT P0, R31, R1, R2, RZ, 0xc0, !PT", True),
        ("ISETP.GE.AND P0, PT, R28, R1, PT", False),
        ("STS.128 [R1], R28", False),
        ("SYNCS.ARRIVE.TRANS64 RZ, [R28+URZ], RZ", False),
    ],
)
def test_a_write_before_the_wait_is_early(write: str, early: bool) -> None:
    assert bool(early_writes(parse_sass(sass(PRODUCT, write, WAIT, "EXIT")))) == early
    assert not early_writes(parse_sass(sass(PRODUCT, WAIT, write, "EXIT")))


def test_a_wait_for_all_but_one_leaves_the_last_group() -> None:
    other = PRODUCT.replace("R28", "R32")
    lines = [PRODUCT, other, "WARPGROUP.DEPBAR.LE gsb0, 0x1"]
    assert not early_writes(parse_sass(sass(*lines, "MOV R28, R1", "EXIT")))
    assert early_writes(parse_sass(sass(*lines, "MOV R32, R1", "EXIT")))


def test_a_group_is_open_until_it_is_committed() -> None:
    first = PRODUCT.removesuffix(", gsb0")
    other = PRODUCT.replace("R28", "R32")
    lines = [first, other, "WARPGROUP.DEPBAR.LE gsb0, 0x1", "MOV R28, R1", "EXIT"]
    assert early_writes(parse_sass(sass(*lines)))  # both are one group, the last


def test_a_write_on_one_of_two_ways_is_found() -> None:
    lines = [PRODUCT, "@P0 BRA `(.L_x_1)", WAIT, ".L_x_1:", "MOV R28, R1", "EXIT"]
    assert early_writes(parse_sass(sass(*lines)))
    lines[1] = "NOP"
    assert not early_writes(parse_sass(sass(*lines)))


def test_a_loop_is_counted_by_the_way_with_all_products() -> None:
    lines = [
        "MOV R1, R2",
        ".L_x_0:",  # over work items
        "MOV R1, R2",
        ".L_x_1:",  # over stages
        ".L_x_2:",  # until the stage is there
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R1], R2",
        "@!P0 BRA `(.L_x_2)",
        "@P1 BRA `(.L_x_3)",  # not this warpgroup's
        PRODUCT,
        PRODUCT,
        ".L_x_3:",
        "@P2 BRA `(.L_x_1)",
        "@P3 BRA `(.L_x_0)",
        "EXIT",
    ]
    assert loop_with(parse_sass(sass(*lines)), ("HGMMA",)) == (6, 2)


def test_a_loop_within_is_gone_around_once() -> None:
    """As a bulk copy is repeated until every lane has had its turn."""
    lines = [".L_x_0:", ".L_x_1:", "UBLKCP.S.G [UR14], [UR10], UR7", "@P2 BRA.U.ANY `(.L_x_1)"]
    lines += ["LDGSTS.E.BYPASS.128 [R57], desc[UR24][R8.64], P3", "@P3 BRA `(.L_x_0)", "EXIT"]
    assert loop_with(parse_sass(sass(*lines)), ("LDGSTS", "UBLKCP")) == (4, 2)


def test_of_two_loops_the_one_with_as_many_products() -> None:
    wide = [".L_x_1:", PRODUCT, PRODUCT, "@P2 BRA `(.L_x_1)"]
    narrow = [".L_x_2:", PRODUCT, "MOV R1, R2", "MOV R1, R2", "@P2 BRA `(.L_x_2)"]
    lines = [".L_x_0:", *wide, *narrow, "@P3 BRA `(.L_x_0)", "EXIT"]
    instructions = parse_sass(sass(*lines))
    assert loop_with(instructions, ("HGMMA",), 2) == (3, 2)
    assert loop_with(instructions, ("HGMMA",), 1) == (4, 1)
    assert loop_with(instructions, ("HGMMA",)) == (8, 3)


def test_what_is_loaded_together_is_waited_for_once() -> None:
    first, second = "LDG.E R4, desc[UR8][R2.64]", "LDG.E.128 R8, desc[UR8][R2.64+0x10]"
    reads = ["IADD3 R1, R4, R5, RZ", "FFMA R1, R2, R11, R1"]
    assert memory_waits(parse_sass(sass(first, second, *reads, "EXIT"))) == 1
    assert memory_waits(parse_sass(sass(first, reads[0], second, reads[1], "EXIT"))) == 2
    behind = "@!P0 LDG.E R6, desc[UR8][R4.64]"
    assert memory_waits(parse_sass(sass(first, behind, "STG.E desc[UR8][R2.64], R6"))) == 2
    assert memory_waits(parse_sass(sass(first, "IADD3 R4, R1, R5, RZ", "EXIT"))) == 0


def test_activations_in_shared_memory_twice_are_no_fragment() -> None:
    product = "HGMMA.64x8x16.F32.BF16 R24, gdesc[UR16], R24, gsb0"
    with pytest.raises(ValueError, match="A must be in registers"):
        early_writes(parse_sass(sass(product, "EXIT")))


LOAD = "LDG.E R4, desc[UR6][R2.64]"
CONSTANT = "LDG.E.CONSTANT R5, desc[UR6][R2.64]"


def test_constants_alone_may_be_read_before_the_wait_for_the_kernel_before() -> None:
    assert_nothing_early(parse_sass(sass("ACQBULK", LOAD, "EXIT")))
    assert_nothing_early(parse_sass(sass(CONSTANT, "ACQBULK", LOAD, "EXIT")), constants=1)
    with pytest.raises(AssertionError):  # how many there are has to be said
        assert_nothing_early(parse_sass(sass("ACQBULK", CONSTANT, LOAD, "EXIT")))
    others = "UBLKCP.S.G [UR12], [UR10], UR4", "REDG.E.ADD.S32.STRONG.GPU [R2.64], R4"
    for early in (LOAD, *others):
        with pytest.raises(AssertionError):
            assert_nothing_early(parse_sass(sass(early, "ACQBULK", LOAD, "EXIT")))
