"""Arguments shared by several verbs: which model to use, and how to run it."""

from __future__ import annotations

import argparse
from typing import get_args

from gpt_oss_mxfp4.cli.values import path, positive
from gpt_oss_mxfp4.options import Activations, DenseWeights, EngineOptions


def add_model(verb: argparse.ArgumentParser) -> None:
    """Adds the argument that names the model."""
    verb.add_argument(
        "--model",
        metavar="PATH_OR_HUB_ID",
        help="checkpoint folder or Hub id, such as openai/gpt-oss-20b; default: the demo model, a part of this package",
    )


def add_engine(verb: argparse.ArgumentParser) -> None:
    """Adds the arguments of every verb that runs a model, except the model itself."""
    verb.add_argument(
        "--devices",
        choices=("cpu", "gpu"),
        default=EngineOptions.devices,
        help="device to run on; default: %(default)s",
    )
    verb.add_argument(
        "--precompiled",
        type=path,
        metavar="DIR",
        help="folder written by the compile verb for the same model, device, precision and MXFP4_* variables, to use "
        "instead of compiling",
    )
    verb.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="number of CPUs to compute on (Linux only); default: all",
    )
    verb.add_argument(
        "--device-graphs",
        action="store_true",
        help="with --devices gpu: capture the kernels of a decode step once for each size of a batch, then replay them",
    )
    add_precision(verb)


def add_precision(verb: argparse.ArgumentParser) -> None:
    """Adds the arguments for the precision that a graph computes in, and for MAX's log."""
    verb.add_argument(
        "--activations",
        choices=get_args(Activations),
        default=EngineOptions.activations,
        help="precision to which matmul inputs are rounded on a CPU; keys and values follow it, but are bfloat16 for "
        "int8; default: %(default)s",
    )
    verb.add_argument(
        "--dense-weights",
        choices=get_args(DenseWeights),
        default=EngineOptions.dense_weights,
        help="precision to which the weights of attention and of the logits are rounded on loading, on a CPU; "
        "default: %(default)s, as in the checkpoint",
    )
    verb.add_argument("--verbose", action="store_true", help="show MAX's log")
