"""Arguments of the bench verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.bench import run_bench
from gpt_oss_mxfp4.cli.engine import add_engine, add_model
from gpt_oss_mxfp4.cli.values import options_of, path, positive
from gpt_oss_mxfp4.options import BenchOptions


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    bench = verbs.add_parser(
        "bench",
        help="measure tokens/s, start-up time and memory",
        description="Loads a model once, runs each batch size several times on random tokens, and prints the "
        "measurements: a table on standard output, everything else on standard error. Example: gpt-oss-mxfp4 bench "
        "--model FOLDER --batch 1 4 --activations int8 --dense-weights int8",
    )
    add = bench.add_argument
    add_model(bench)
    add(
        "--prompt-tokens",
        type=positive,
        default=BenchOptions.prompt_tokens,
        metavar="N",
        help="prompt tokens per batch, divided among its sequences; default: %(default)s",
    )
    add(
        "--new-tokens",
        type=positive,
        default=BenchOptions.new_tokens,
        metavar="N",
        help="tokens to generate per sequence; default: %(default)s",
    )
    add(
        "--batch",
        type=positive,
        nargs="+",
        default=BenchOptions.batch,
        metavar="N",
        help="batch sizes to measure; default: 1 4 16",
    )
    add(
        "--runs",
        type=positive,
        default=BenchOptions.runs,
        metavar="N",
        help="runs per batch size; default: %(default)s",
    )
    add("--json", type=path, metavar="FILE", help="also write a JSON report to FILE")
    add_engine(bench)
    bench.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_bench(options_of(arguments, BenchOptions))
