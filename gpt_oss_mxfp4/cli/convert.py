"""Arguments of the convert verb."""

from __future__ import annotations

import argparse
from typing import get_args

from gpt_oss_mxfp4.cli.values import gigabytes, path
from gpt_oss_mxfp4.convert.layouts import Layout
from gpt_oss_mxfp4.convert.per_expert import GateUp
from gpt_oss_mxfp4.convert.shards import SHARD_BYTES
from gpt_oss_mxfp4.convert.verb import ConvertOptions, run_convert


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    convert = verbs.add_parser(
        "convert",
        help="write a checkpoint in another layout or format",
        description="Writes a checkpoint's tensors, config and tokenizer in another layout. What the source is, it "
        "tells from its tensors: Hugging Face's layout with MXFP4 or BF16 experts, OpenAI's original/, or the MXFP4 of "
        "AMD Quark and of llm-compressor. The output appears when it is whole and was read back; after a kill the same "
        "command goes on. Example: gpt-oss-mxfp4 convert my-bf16-fine-tune --output my-fine-tune-mxfp4",
    )
    add = convert.add_argument
    add("source", type=path, metavar="SOURCE", help="a folder")
    add("--output", required=True, type=path, metavar="DIR", help="a folder to make")
    add(
        "--to",
        choices=get_args(Layout),
        default=ConvertOptions.to,
        help="mxfp4, what generate takes, and bf16 are Hugging Face's layout, original is OpenAI's; default: "
        "%(default)s",
    )
    add(
        "--gate-up",
        choices=get_args(GateUp),
        help="the order of gate and up rows, where a source with a tensor for each expert does not tell: halves where "
        "each of gate_proj and up_proj is what its name says",
    )
    add(
        "--tokenizer",
        type=path,
        metavar="DIR",
        help="take tokenizer, chat template and token ids from there; default: from SOURCE, or from the folder above "
        "original/",
    )
    add(
        "--shard-gb",
        type=gigabytes,
        default=SHARD_BYTES,
        metavar="GB",
        help=f"of tensors in a file of the output; default: {SHARD_BYTES / 1e9:g}",
    )
    add(
        "--json",
        type=path,
        metavar="FILE",
        help="also write a report there: digests, rounding errors",
    )
    convert.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_convert(
        ConvertOptions(
            source=arguments.source,
            output=arguments.output,
            to=arguments.to,
            gate_up=arguments.gate_up,
            tokenizer=arguments.tokenizer,
            shard_bytes=arguments.shard_gb,
            json=arguments.json,
        )
    )
