"""Arguments of the chat verb."""

from __future__ import annotations

import argparse
from typing import get_args

from gpt_oss_mxfp4.chat.chat import run_chat
from gpt_oss_mxfp4.chat.options import ChatOptions, Shown
from gpt_oss_mxfp4.cli.engine import add_engine, add_model
from gpt_oss_mxfp4.cli.sampling import add_sampling, sampled_options_of
from gpt_oss_mxfp4.cli.values import path, positive, text
from gpt_oss_mxfp4.footprint import DEFAULT_LENGTH
from gpt_oss_mxfp4.options import API_KEY_VARIABLE, Effort


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    chat = verbs.add_parser(
        "chat",
        help="have a conversation in the terminal",
        description="Answers each message in the context of the conversation so far. Messages are typed at a "
        "terminal, or read from a pipe, one per line. Answers go to standard output, everything else to standard "
        "error. With --url a server answers, and options for running the model have no effect. Example: "
        "printf 'What is 12 + 34?\\n' | gpt-oss-mxfp4 chat",
    )
    add = chat.add_argument
    add_model(chat)
    add(
        "--url",
        metavar="URL",
        help="ask the server at URL instead, for example http://127.0.0.1:8000",
    )
    add(
        "--api-key-file",
        type=path,
        metavar="FILE",
        help=f"file with the server's API key; default: the environment variable {API_KEY_VARIABLE}",
    )
    add(
        "--system",
        type=text,
        default="",
        metavar="TEXT",
        help="instructions that precede the conversation",
    )
    add(
        "--effort",
        choices=get_args(Effort),
        default=ChatOptions.effort,
        help="reasoning effort; default: %(default)s",
    )
    add(
        "--reasoning",
        choices=get_args(Shown),
        help="show the reasoning or not; default: on if standard output is a terminal",
    )
    add(
        "--max-length",
        type=positive,
        metavar="N",
        help=f"maximum tokens in a conversation; default: {DEFAULT_LENGTH}, or the model's limit if that is lower",
    )
    add_sampling(chat, max_new_tokens=ChatOptions.max_new_tokens)
    add_engine(chat)
    chat.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_chat(sampled_options_of(arguments, ChatOptions))
