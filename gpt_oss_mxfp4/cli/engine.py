"""Arguments that several verbs take: which model, and how it runs."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, get_args

from gpt_oss_mxfp4.cli.values import path, positive
from gpt_oss_mxfp4.options import Activations, DenseWeights, EngineOptions


def add_model(verb: argparse.ArgumentParser) -> None:
    """What names the model."""
    verb.add_argument(
        "--model",
        metavar="PATH_OR_HUB_ID",
        help="a folder, or a repository such as openai/gpt-oss-20b; default: the demo model, a part of this package",
    )


def add_engine(verb: argparse.ArgumentParser) -> None:
    """What every verb takes that runs a model, but for the model itself."""
    verb.add_argument(
        "--devices",
        choices=("cpu", "gpu"),
        default=EngineOptions.devices,
        help="default: %(default)s",
    )
    verb.add_argument(
        "--precompiled",
        type=path,
        metavar="DIR",
        help="a folder that the verb compile has written, for the same model and device: nothing is compiled then",
    )
    verb.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPUs to compute on, on Linux only; default: all",
    )
    verb.add_argument(
        "--device-graphs",
        action="store_true",
        help="with --devices gpu and one sequence at a time: capture the kernels of a step that generates once, and "
        "replay them",
    )
    add_precision(verb)


def add_precision(verb: argparse.ArgumentParser) -> None:
    """What decides what a graph computes in."""
    verb.add_argument(
        "--activations",
        choices=get_args(Activations),
        default=EngineOptions.activations,
        help="what inputs of matmuls are rounded to on a CPU, and with them keys and values, bfloat16 for int8; "
        "default: %(default)s",
    )
    verb.add_argument(
        "--dense-weights",
        choices=get_args(DenseWeights),
        default=EngineOptions.dense_weights,
        help="what the weights of attention and of the logits are rounded to while loading, on a CPU; default: "
        "%(default)s, as in the checkpoint",
    )
    verb.add_argument("--verbose", action="store_true", help="show what MAX logs")


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Picks out what :func:`add_model` and :func:`add_engine` added, as fields of ``EngineOptions``."""
    return {field.name: getattr(arguments, field.name) for field in fields(EngineOptions)}
