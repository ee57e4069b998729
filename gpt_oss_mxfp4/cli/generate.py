"""Arguments of the generate verb."""

from __future__ import annotations

import argparse
from typing import get_args

from gpt_oss_mxfp4.cli.engine import add_engine, add_model
from gpt_oss_mxfp4.cli.sampling import add_sampling, sampled_options_of
from gpt_oss_mxfp4.cli.values import prompt_file, prompt_text, text
from gpt_oss_mxfp4.generate import run_generate
from gpt_oss_mxfp4.options import Effort, GenerateOptions


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    generate = verbs.add_parser(
        "generate",
        help="answer or continue a prompt",
        description="Prints the model's answer to a prompt: only the text on standard output, everything else on "
        "standard error. With a chat template in the checkpoint the prompt is a user message; without one it is "
        "continued. Example: gpt-oss-mxfp4 generate --model openai/gpt-oss-20b --prompt 'Why is the sky blue?'",
    )
    add_model(generate)
    prompt = generate.add_mutually_exclusive_group(required=True)
    prompt.add_argument(
        "--prompt", type=prompt_text, metavar="TEXT", help="text to continue or to answer"
    )
    prompt.add_argument(
        "--prompt-file",
        dest="prompt",
        type=prompt_file,
        metavar="FILE",
        help="file with that text, in UTF-8, of any length; - is standard input. A trailing newline is dropped",
    )
    generate.add_argument(
        "--system",
        type=text,
        default="",
        metavar="TEXT",
        help="instructions that precede the prompt",
    )
    generate.add_argument(
        "--effort",
        choices=get_args(Effort),
        help="reasoning effort; default: the chat template's, medium in the published models",
    )
    mode = generate.add_mutually_exclusive_group()
    mode.add_argument(
        "--show-reasoning",
        action="store_true",
        help="also print the reasoning, before the answer, each under its channel's name",
    )
    mode.add_argument(
        "--raw",
        action="store_true",
        help="continue the bare text, without a chat template and without separating channels",
    )
    add_sampling(generate, max_new_tokens=GenerateOptions.max_new_tokens)
    add_engine(generate)
    generate.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_generate(sampled_options_of(arguments, GenerateOptions))
