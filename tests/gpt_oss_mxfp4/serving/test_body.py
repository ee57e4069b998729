"""Bytes that are no request: each is refused in one sentence, and none raises anything else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss_mxfp4.serving.body import MAX_DEPTH, parse_object
from gpt_oss_mxfp4.serving.errors import Rejected


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return f'{{"a": {opening * (depth - 1)}{closing * (depth - 1)}}}'.encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body must be a JSON object; it is empty."),
        (b" \n", "The body must be a JSON object; it is empty."),
        (b'{"a": "\xff"}', "The body must be UTF-8; byte 7 is not."),
        (b"\xff\xfe{\x00}\x00", "The body must be UTF-8; byte 0 is not."),
        (
            b'{"a": 1,}',
            "The body must be JSON: Illegal trailing comma before end of object at line 1, column 8.",
        ),
        (
            b"{'a': 1}",
            "The body must be JSON: Expecting property name enclosed in double quotes at line 1, column 2.",
        ),
        (b'{"a": 1} x', "The body must be JSON: Extra data at line 1, column 10."),
        (b'{"a": NaN}', "The body must be JSON, which has no NaN."),
        (b'{"a": -Infinity}', "The body must be JSON, which has no -Infinity."),
        (b"[]", "The body must be a JSON object, not a list."),
        (b'"a"', "The body must be a JSON object, not a string."),
        (b"1", "The body must be a JSON object, not a number."),
        (b"true", "The body must be a JSON object, not a boolean."),
        (b"null", "The body must be a JSON object, not null."),
        (
            b'{"a": ' + b"9" * 5000 + b"}",
            "The body must not hold numbers of thousands of digits.",
        ),
        (
            nested(MAX_DEPTH + 1),
            "The body must not nest deeper than 100 lists and objects.",
        ),
        (nested(100_000), "The body must not nest deeper than 100 lists and objects."),
        (b"[" * 100_000, "The body must not nest deeper than 100 lists and objects."),
        (
            b'{"a": "\\ud800"}',
            "The body must not hold half a surrogate pair (\\ud800 to \\udfff alone).",
        ),
        (
            b'{"\\udfff": 1}',
            "The body must not hold half a surrogate pair (\\ud800 to \\udfff alone).",
        ),
    ],
)
def test_what_is_no_object_of_json_is_refused_and_why(body: bytes, message: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_object(body)
    assert refused.value.status == 400
    # Python 3.11 and 3.12 know no trailing comma.
    old = "Expecting property name enclosed in double quotes at line 1, column 9."
    assert refused.value.message == message or (
        "trailing comma" in message and refused.value.message.endswith(old)
    )


def test_an_object_nested_as_deep_as_allowed_is_taken() -> None:
    assert parse_object(nested(MAX_DEPTH)).keys() == {"a"}


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with contextlib.suppress(Rejected):
        assert isinstance(parse_object(body), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_every_object_of_unicode_text_comes_back(value: dict[str, object]) -> None:
    text = json.dumps(value)
    if "Infinity" not in text:
        assert parse_object(text.encode()) == value
