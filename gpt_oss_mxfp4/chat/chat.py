"""The chat verb: reads turns until there are no more, and everything that can go wrong on the way."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import fields

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.chat.answer import Answerer
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.chat.screen import Screen
from gpt_oss_mxfp4.chat.session import Session
from gpt_oss_mxfp4.chat.turns import TurnReader
from gpt_oss_mxfp4.options import EngineOptions, Refused
from gpt_oss_mxfp4.process import interrupts_taken, run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.terminal import harmless, shows_output


def run_chat(options: ChatOptions) -> int:
    """Chats, and reports what went wrong in one line.

    Args:
        options: with whom and how.

    Returns:
        The exit code, see ``cli.main``.
    """
    # Asked before the command gives MAX's prints another standard output.
    terminal = shows_output()
    return run_command(functools.partial(_chat, options, terminal), verbose=options.verbose)


def _chat(options: ChatOptions, terminal: bool, write: Write, progress: Progress) -> None:
    if sys.stdin is None:
        raise Refused("standard input: must be open, questions come from there")
    # The prompt and the notes go to standard error, so somebody has to see that too.
    interactive = terminal and sys.stdin.isatty() and sys.stderr.isatty()
    reader = TurnReader(sys.stdin, interactive=interactive)
    answerer = _answerer(options, progress)
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    screen = Screen(write, terminal=terminal, colour=colour)
    reasoning = terminal if options.reasoning is None else options.reasoning == "on"
    session = Session(answerer, options, screen, progress.note, reasoning=reasoning)
    if not interactive:
        while (turn := reader.read()) is not None:
            session.take(turn)
        return
    progress.note(
        f"{harmless(answerer.name)}; /help lists commands, Ctrl-C stops an answer, Ctrl-D ends"
    )
    with interrupts_taken(session.interrupt):
        while True:
            try:
                turn = reader.read()
                if turn is None:
                    return
                session.take(turn)
            except Refused as refusal:
                progress.note(harmless(str(refusal)))


def _without_effect(options: ChatOptions) -> list[str]:
    """Options of the engine that were given though a server is asked, which has its own."""
    names = [
        field.name for field in fields(EngineOptions) if field.name not in ("model", "verbose")
    ]
    given = [*names, "max_length"]
    return [name for name in given if getattr(options, name) != getattr(ChatOptions, name)]


def _answerer(options: ChatOptions, progress: Progress) -> Answerer:
    if options.url is not None:
        for name in _without_effect(options):
            progress.note(
                f"--{name.replace('_', '-')}: has no effect with --url, the server decides"
            )
        from gpt_oss_mxfp4.chat.remote import RemoteModel

        return RemoteModel(options)
    if options.api_key_file is not None:
        progress.note("--api-key-file: has no effect without --url")
    from gpt_oss_mxfp4.chat.local import LocalModel

    return LocalModel(options, progress)
