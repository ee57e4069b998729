"""Errors are told with their kind and place, and without their words."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest

from gpt_oss_mxfp4.options import HARMONY_LOGGER
from gpt_oss_mxfp4.serving.error_log import tell_errors

NAMES = ("max.serve", "uvicorn.error")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    for name in (*NAMES, HARMONY_LOGGER):
        logger = logging.getLogger(name)
        for attribute in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
        logger.handlers, logger.propagate = [logging.StreamHandler()], True  # as MAX may have it
    told: list[str] = []
    tell_errors(told.append)
    return told


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_one_line_without_its_text(
    lines: list[str], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    try:
        json.loads("secret")
    except ValueError:
        logging.getLogger(name).exception("request: secret")
    (line,) = lines
    assert re.fullmatch(r"error: JSONDecodeError at decoder\.py:\d+ \(--verbose tells more\)", line)
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger(name).propagate


def test_an_error_that_was_not_raised_has_no_place(lines: list[str]) -> None:
    logging.getLogger(NAMES[0]).error("secret", exc_info=ValueError("secret"))
    assert lines == ["error: ValueError (--verbose tells more)"]


def test_what_is_no_error_is_not_told(lines: list[str]) -> None:
    logger = logging.getLogger(NAMES[0])
    logger.error("secret")
    logger.warning("secret", exc_info=ValueError())
    logger.error("secret", exc_info=asyncio.CancelledError())
    assert not lines


def test_answers_that_break_the_format_are_counted(
    lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger(HARMONY_LOGGER).warning("request %s: faults: %d", "5f", 1)
    assert lines == ["request 5f: faults: 1"]
    assert capfd.readouterr() == ("", "")
