"""Arguments of the generate verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.engine import add_engine, add_model, engine_options
from gpt_oss_mxfp4.cli.values import positive, prompt_text, seed, share, temperature
from gpt_oss_mxfp4.generate import run_generate
from gpt_oss_mxfp4.options import GenerateOptions


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    generate = verbs.add_parser(
        "generate",
        help="answer or continue a prompt",
        description="Prints the model's answer to a prompt: the text alone on standard output, everything else on "
        "standard error. A checkpoint with a chat template gets the prompt as a user's message; one without continues "
        "it.",
    )
    add = generate.add_argument
    add_model(generate)
    add("--prompt", required=True, type=prompt_text, help="the text to continue or to answer")
    mode = generate.add_mutually_exclusive_group()
    mode.add_argument(
        "--show-reasoning",
        action="store_true",
        help="print the reasoning before the answer as well, each under its channel's name",
    )
    mode.add_argument(
        "--raw",
        action="store_true",
        help="continue the bare text: no chat template, and channels are not told apart",
    )
    add(
        "--max-new-tokens",
        type=positive,
        default=GenerateOptions.max_new_tokens,
        metavar="N",
        help="reasoning included; default: %(default)s",
    )
    add(
        "--temperature",
        type=temperature,
        metavar="T",
        help="0, the default, always takes the likeliest token; 1 is the default with --top-k or --top-p",
    )
    add("--top-k", type=positive, metavar="K", help="sample from the K likeliest tokens only")
    add(
        "--top-p",
        type=share,
        metavar="P",
        help="sample from the likeliest tokens that make up the share P only",
    )
    add(
        "--seed",
        type=seed,
        default=GenerateOptions.seed,
        metavar="S",
        help="equal seeds give equal texts; default: %(default)s",
    )
    add_engine(generate)
    generate.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    sampled = arguments.top_k is not None or arguments.top_p is not None
    return run_generate(
        GenerateOptions(
            prompt=arguments.prompt,
            max_new_tokens=arguments.max_new_tokens,
            temperature=float(sampled) if arguments.temperature is None else arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            seed=arguments.seed,
            show_reasoning=arguments.show_reasoning,
            raw=arguments.raw,
            **engine_options(arguments),
        )
    )
