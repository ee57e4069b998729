"""The format's constants exist once per language; here the two are held together."""

import re

from gpt_oss_mxfp4 import mxfp4
from gpt_oss_mxfp4.ops.library import SOURCES
from tests.reference import mxfp4 as reference


def test_mojo_and_python_have_the_same_constants() -> None:
    source = (SOURCES / "format.mojo").read_text()
    constants = {
        name: int(value) for name, value in re.findall(r"^comptime (\w+) = (\d+)$", source, re.M)
    }
    # Only Mojo encodes.
    assert constants.pop("E2M1_MAX_EXPONENT") == reference.E2M1_MAX_EXPONENT
    assert constants == {
        name: getattr(mxfp4, name)
        for name in ("GROUP_SIZE", "BYTES_PER_GROUP", "E8M0_BIAS", "E8M0_NAN")
    }


def test_python_knows_how_many_experts_hoppers_kernels_take() -> None:
    source = (SOURCES / "sm90" / "config.mojo").read_text()
    assert re.findall(r"^comptime MAX_EXPERTS = (\d+)$", source, re.M) == [
        str(mxfp4.MAX_PACKED_EXPERTS)
    ]


def test_python_has_the_values_of_the_specification() -> None:
    assert reference.E2M1_VALUES.tolist() == list(mxfp4.E2M1_VALUES)
    assert reference.GROUP_SIZE == mxfp4.GROUP_SIZE
    assert reference.E8M0_BIAS == mxfp4.E8M0_BIAS
