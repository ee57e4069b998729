"""What the server logs beside requests: errors of its own, and answers that break the format, a line each.

None of the lines holds anything that could be a request's or an answer's text.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

from gpt_oss_mxfp4.options import HARMONY_LOGGER
from gpt_oss_mxfp4.serving.access_log import Tell

_LOGGERS = ("max.serve", "uvicorn.error")


class ErrorLines(logging.Handler):
    """Tells exceptions that are logged; their messages, which may quote requests, are for --verbose.

    Args:
        tell: prints a line.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.ERROR)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the line, if it is of an exception; a task that was cancelled has been told of."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" at {Path(where[0].filename).name}:{where[0].lineno}" if where else ""
        self._tell(f"error: {type(error).__name__}{place} (--verbose tells more)")


class FormatLines(logging.Handler):
    """Tells of answers that break the harmony format, in the logged words.

    Args:
        tell: prints a line.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the line."""
        self._tell(record.getMessage())


def tell_errors(tell: Tell) -> None:
    """Has errors of MAX's API server and of uvicorn told, and faults of answers, where MAX's log is not shown.

    Args:
        tell: prints a line.
    """
    for name in _LOGGERS:
        _give(name, ErrorLines(tell))
    _give(HARMONY_LOGGER, FormatLines(tell))


def _give(name: str, handler: logging.Handler) -> None:
    """Makes a handler the only one of a logger."""
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(handler.level)
