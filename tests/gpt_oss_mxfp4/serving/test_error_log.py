"""Errors are told with their kind and place, and without their words."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from gpt_oss_mxfp4.serving.error_log import tell_errors

NAME = "max.serve"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in (NAME, "uvicorn.error"):
        logger = logging.getLogger(name)
        for attribute in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
    told: list[str] = []
    tell_errors(told.append)
    return told


def log(error: BaseException) -> None:
    try:
        raise error
    except BaseException:
        logging.getLogger(NAME).exception("request: secret")


def test_an_error_is_one_line_without_its_text(
    lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    log(ValueError("secret"))
    (line,) = lines
    assert re.fullmatch(
        r"error: ValueError at test_error_log\.py:\d+ \(--verbose tells more\)", line
    )
    assert capfd.readouterr() == ("", "")


def test_what_is_no_error_is_not_told(lines: list[str]) -> None:
    logging.getLogger(NAME).error("secret")
    logging.getLogger(NAME).warning("secret", exc_info=ValueError())
    log(asyncio.CancelledError())
    assert not lines
