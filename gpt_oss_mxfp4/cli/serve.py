"""Arguments of the serve verb."""

from __future__ import annotations

import argparse
from dataclasses import fields

from gpt_oss_mxfp4.cli.engine import add_engine, add_model
from gpt_oss_mxfp4.cli.values import path, port, positive
from gpt_oss_mxfp4.footprint import DEFAULT_LENGTH
from gpt_oss_mxfp4.options import API_KEY_VARIABLE
from gpt_oss_mxfp4.serving.options import SERVED_BATCH_SIZE, ServeOptions
from gpt_oss_mxfp4.serving.run import run_serve


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    serve = verbs.add_parser(
        "serve",
        help="answer OpenAI's requests over HTTP",
        description="Serves /v1/chat/completions and /v1/completions until it is told to stop, with MAX's server and "
        "scheduler. A line for each request goes to standard error, without what was asked or answered. Example: "
        "gpt-oss-mxfp4 serve --model openai/gpt-oss-20b --port 8000 --api-key-file keys",
    )
    add = serve.add_argument
    add_model(serve)
    add("--host", default=ServeOptions.host, help="address to listen on; default: %(default)s")
    add(
        "--port",
        type=port,
        default=ServeOptions.port,
        metavar="N",
        help="0 for any that is free; default: %(default)s",
    )
    add(
        "--metrics-port",
        type=port,
        metavar="N",
        help="where /metrics is, for Prometheus, on the same address; default: the next after --port",
    )
    add(
        "--model-name",
        dest="name",
        metavar="NAME",
        help="what requests call the model; default: the Hub id, or the folder's name",
    )
    add(
        "--max-length",
        type=positive,
        metavar="N",
        help=f"tokens of a prompt and its answer together; default: {DEFAULT_LENGTH} on a CPU, the model's own on a "
        "GPU",
    )
    add(
        "--max-batch-size",
        type=positive,
        metavar="N",
        help=f"answers at once, further requests wait; default: {SERVED_BATCH_SIZE} on a CPU, on a GPU what memory "
        "allows",
    )
    add(
        "--api-key-file",
        type=path,
        metavar="FILE",
        help="keys, one a line, of which requests must carry one; default: the one in the environment variable "
        f"{API_KEY_VARIABLE}, or none",
    )
    add(
        "--max-body-bytes",
        type=positive,
        default=ServeOptions.max_body_bytes,
        metavar="N",
        help="of a request, larger ones are refused; default: %(default)s",
    )
    add(
        "--drain-seconds",
        type=positive,
        default=ServeOptions.drain_seconds,
        metavar="N",
        help="that running requests get when the server is told to stop; default: %(default)s",
    )
    add("--ui", action="store_true", help="serve a page to chat on as well, at /")
    add(
        "--telemetry",
        action="store_true",
        help="let MAX report usage to its makers, which it does by itself",
    )
    add_engine(serve)
    serve.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    names = [field.name for field in fields(ServeOptions)]
    return run_serve(ServeOptions(**{name: getattr(arguments, name) for name in names}))
