"""Fields of JSON objects: the last value that is taken, and the first that is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gpt_oss_mxfp4.checkpoint.errors import Fault
from gpt_oss_mxfp4.checkpoint.fields import LARGEST_NUMBER, Fields


def size(fields: Fields) -> object:
    return fields.size("n", 9)


def number(fields: Fields) -> object:
    return fields.number("n", 2.5)


def flag(fields: Fields) -> object:
    return fields.flag("n", True)


def fixed(fields: Fields) -> object:
    fields.fixed("n", 1, "why")
    return None


@pytest.mark.parametrize(
    ("read", "value", "got"),
    [
        (size, 1, 1),
        (size, 9, 9),
        (number, 5e-324, 5e-324),
        (number, LARGEST_NUMBER, LARGEST_NUMBER),
        (number, 3, 3.0),
        (number, None, 2.5),
        (flag, False, False),
        (flag, None, True),
        (fixed, 1, None),
        (fixed, None, None),
    ],
)
def test_a_field_that_is_sound_is_taken_as_it_is(
    read: Callable[[Fields], object], value: object, got: object
) -> None:
    faults: list[Fault] = []
    assert read(Fields({"n": value}, "cure", faults)) == got
    assert faults == []


@pytest.mark.parametrize(
    ("read", "values", "rule"),
    [
        (size, [0, 10, True, 1.0, "1", None, [1]], "must be an integer from 1 to 9, got"),
        (
            number,
            [0, -1, True, "1", math.nan, math.inf, math.nextafter(LARGEST_NUMBER, math.inf)],
            f"must be a number above 0 and at most {LARGEST_NUMBER:g}, got",
        ),
        (flag, [0, 1, "true", []], "must be true or false, got"),
        (fixed, [2, True, 1.0, "1"], "must be 1, got"),
    ],
)
def test_a_field_that_is_not_is_one_fault_and_stands_for_something(
    read: Callable[[Fields], object], values: list[object], rule: str
) -> None:
    """A number of the right type, so that what follows from it can be looked at too."""
    for value in values:
        faults: list[Fault] = []
        stand_in = read(Fields({"n": value}, "cure", faults))
        [fault] = faults
        assert fault.text.startswith(f"n {rule}"), value
        assert fault.cure == "cure"
        assert stand_in in (1, 1.0, True, False, None)
