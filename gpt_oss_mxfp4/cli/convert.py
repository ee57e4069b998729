"""Arguments of the convert verb."""

from __future__ import annotations

import argparse
from typing import get_args

from gpt_oss_mxfp4.cli.values import gigabytes, options_of, path
from gpt_oss_mxfp4.convert.layouts import Target
from gpt_oss_mxfp4.convert.per_expert import GateUp
from gpt_oss_mxfp4.convert.shards import SHARD_BYTES
from gpt_oss_mxfp4.convert.verb import ConvertOptions, run_convert


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    convert = verbs.add_parser(
        "convert",
        help="convert a checkpoint to another layout or format",
        description="Writes a checkpoint's tensors, config and tokenizer in another layout. The source layout is "
        "detected from its tensors: Hugging Face's with MXFP4 or BF16 experts, OpenAI's original/, or the MXFP4 of AMD "
        "Quark or llm-compressor. The output appears once it is complete and has been read back; if interrupted, the "
        "same command resumes. Example: gpt-oss-mxfp4 convert my-bf16-fine-tune --output my-fine-tune-mxfp4",
    )
    add = convert.add_argument
    add("source", type=path, metavar="SOURCE", help="checkpoint folder")
    add("--output", required=True, type=path, metavar="DIR", help="folder to create")
    add(
        "--to",
        choices=get_args(Target),
        default=ConvertOptions.to,
        help="target: mxfp4 (which generate reads) and bf16 in Hugging Face's layout, or original, OpenAI's; default: "
        "%(default)s",
    )
    add(
        "--gate-up",
        choices=get_args(GateUp),
        help="order of the gate and up rows, if a source with one tensor per expert does not determine it; halves if "
        "gate_proj and up_proj are what their names say",
    )
    add(
        "--tokenizer",
        type=path,
        metavar="DIR",
        help="folder with the tokenizer, chat template and token ids; default: SOURCE, or the folder above original/",
    )
    add(
        "--shard-gb",
        dest="shard_bytes",
        type=gigabytes,
        default=SHARD_BYTES,
        metavar="GB",
        help=f"maximum size of the tensors in one output file; default: {SHARD_BYTES / 1e9:g}",
    )
    add(
        "--json",
        type=path,
        metavar="FILE",
        help="also write a JSON report of digests and rounding errors to FILE",
    )
    convert.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_convert(options_of(arguments, ConvertOptions))
