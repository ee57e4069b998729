"""The gpt-oss-mxfp4 command: parses arguments, and nothing else."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args

from gpt_oss_mxfp4.bench import run_bench
from gpt_oss_mxfp4.compile import run_compile
from gpt_oss_mxfp4.generate import run_generate
from gpt_oss_mxfp4.options import (
    Activations,
    BenchOptions,
    CompileOptions,
    DenseWeights,
    EngineOptions,
    GenerateOptions,
)

TARGETS = ("cpu", "cuda:sm_90a")
"""What can be compiled for."""

MAX_TEMPERATURE = 2.0
"""MAX's own limit."""


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line; ``--help`` tells the rest."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; those of the process unless given.

    Returns:
        The exit code: 0, 2 where the arguments, the checkpoint or the machine do not allow it, 130 if interrupted,
        141 where whoever read the text has stopped.
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:  # --help, or a wrong argument
        return int(end.code or 0)
    if arguments.verb == "compile":
        return run_compile(
            CompileOptions(
                model=arguments.model,
                target=arguments.target,
                output=arguments.output,
                activations=arguments.activations,
                dense_weights=arguments.dense_weights,
                verbose=arguments.verbose,
            )
        )
    if arguments.verb == "bench":
        return run_bench(
            BenchOptions(
                prompt_tokens=arguments.prompt_tokens,
                new_tokens=arguments.new_tokens,
                batch=tuple(arguments.batch),
                runs=arguments.runs,
                json=arguments.json,
                **_engine_options(arguments),
            )
        )
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
            **_engine_options(arguments),
        )
    )


def _engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that every verb takes which runs a model."""
    return {field.name: getattr(arguments, field.name) for field in fields(EngineOptions)}


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="gpt-oss-mxfp4", description="gpt-oss from its MXFP4 weights, on MAX."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_generate(verbs)
    _add_compile(verbs)
    _add_bench(verbs)
    return parser


def _add_generate(verbs: argparse._SubParsersAction[OneLineParser]) -> None:
    generate = verbs.add_parser(
        "generate",
        help="answer or continue a prompt",
        description="Prints the model's answer to a prompt: the text alone on standard output, everything else on "
        "standard error. A checkpoint with a chat template gets the prompt as a user's message; one without continues "
        "it.",
    )
    add = generate.add_argument
    _add_model(generate)
    add("--prompt", required=True, type=_prompt, help="the text to continue or to answer")
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
        type=_positive,
        default=GenerateOptions.max_new_tokens,
        metavar="N",
        help="reasoning included; default: %(default)s",
    )
    add(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="0, the default, always takes the likeliest token; 1 is the default with --top-k or --top-p",
    )
    add("--top-k", type=_positive, metavar="K", help="sample from the K likeliest tokens only")
    add(
        "--top-p",
        type=_share,
        metavar="P",
        help="sample from the likeliest tokens that make up the share P only",
    )
    add(
        "--seed",
        type=_seed,
        default=GenerateOptions.seed,
        metavar="S",
        help="equal seeds give equal texts; default: %(default)s",
    )
    _add_engine(generate)


def _add_compile(verbs: argparse._SubParsersAction[OneLineParser]) -> None:
    compiled = verbs.add_parser(
        "compile",
        help="compile ahead of time, for this machine or another",
        description="Writes what generate compiles when it starts to a folder, for generate --precompiled. The GPU "
        "need not be on this machine, and weights are not read, but to round them. Example: gpt-oss-mxfp4 compile "
        "--model openai/gpt-oss-20b --target cuda:sm_90a --output compiled-20b",
    )
    _add_model(compiled)
    compiled.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="cpu is this machine's, cuda:sm_90a any Hopper GPU; default: %(default)s",
    )
    compiled.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="a folder to make"
    )
    _add_common(compiled)


def _add_bench(verbs: argparse._SubParsersAction[OneLineParser]) -> None:
    bench = verbs.add_parser(
        "bench",
        help="measure tokens/s, start-up time and memory",
        description="Loads a model once, runs each batch several times on random tokens, and prints what it took: a "
        "table on standard output, everything else on standard error.",
    )
    add = bench.add_argument
    _add_model(bench)
    add(
        "--prompt-tokens",
        type=_positive,
        default=BenchOptions.prompt_tokens,
        metavar="N",
        help="shared out among the prompts of a batch; default: %(default)s",
    )
    add(
        "--new-tokens",
        type=_positive,
        default=BenchOptions.new_tokens,
        metavar="N",
        help="of each sequence; default: %(default)s",
    )
    add(
        "--batch",
        type=_positive,
        nargs="+",
        default=BenchOptions.batch,
        metavar="N",
        help="sequences at once; default: 1 4 16",
    )
    add(
        "--runs",
        type=_positive,
        default=BenchOptions.runs,
        metavar="N",
        help="of each batch; default: %(default)s",
    )
    add("--json", type=Path, metavar="FILE", help="also write a report there")
    _add_engine(bench)


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--model",
        metavar="PATH_OR_HUB_ID",
        help="a folder, or a repository such as openai/gpt-oss-20b; default: the demo model, a part of this package",
    )


def _add_engine(verb: argparse.ArgumentParser) -> None:
    """What every verb takes that runs a model, but for the model itself."""
    verb.add_argument(
        "--devices",
        choices=("cpu", "gpu"),
        default=EngineOptions.devices,
        help="default: %(default)s",
    )
    verb.add_argument(
        "--precompiled",
        type=Path,
        metavar="DIR",
        help="a folder that the verb compile has written, for the same model and device: nothing is compiled then",
    )
    verb.add_argument(
        "--threads", type=_positive, metavar="N", help="CPUs to compute on; default: all"
    )
    _add_common(verb)


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--activations",
        choices=get_args(Activations),
        default=EngineOptions.activations,
        help="what inputs of matmuls are rounded to on a CPU; default: %(default)s",
    )
    verb.add_argument(
        "--dense-weights",
        choices=get_args(DenseWeights),
        default=EngineOptions.dense_weights,
        help="what the weights of attention and of the logits are rounded to while loading, on a CPU; default: "
        "%(default)s, as in the checkpoint",
    )
    verb.add_argument("--verbose", action="store_true", help="show what MAX logs")


def _prompt(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are none
        raise argparse.ArgumentTypeError("must be valid UTF-8") from None
    return text


def _positive(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _seed(text: str) -> int:
    value = _integer(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2^64 - 1, got {text}")
    return value


def _temperature(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"must be between 0 and {MAX_TEMPERATURE:g}, got {text}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value
