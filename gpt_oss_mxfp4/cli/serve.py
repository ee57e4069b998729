"""Arguments of the serve verb."""

from __future__ import annotations

import argparse

from gpt_oss_mxfp4.cli.engine import add_engine, add_model
from gpt_oss_mxfp4.cli.values import options_of, path, port, positive, text
from gpt_oss_mxfp4.footprint import DEFAULT_LENGTH
from gpt_oss_mxfp4.options import API_KEY_VARIABLE
from gpt_oss_mxfp4.serving.options import SERVED_BATCH_SIZE, ServeOptions
from gpt_oss_mxfp4.serving.run import run_serve


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    serve = verbs.add_parser(
        "serve",
        help="serve an OpenAI-compatible API over HTTP",
        description="Serves /v1/chat/completions and /v1/completions with MAX's server and scheduler until told to "
        "stop. Each request is logged in one line on standard error, without its prompt or answer. Example: "
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
        help="port to listen on, 0 for any free one; default: %(default)s",
    )
    add(
        "--metrics-port",
        type=port,
        metavar="N",
        help="port for Prometheus metrics at /metrics, on the same address; default: the one after --port",
    )
    add(
        "--model-name",
        dest="name",
        type=text,
        metavar="NAME",
        help="model name used in requests; default: the Hub id or the folder's name",
    )
    add(
        "--max-length",
        type=positive,
        metavar="N",
        help=f"maximum tokens of a prompt and its answer together; default: {DEFAULT_LENGTH} on a CPU, the model's "
        "limit on a GPU",
    )
    add(
        "--max-batch-size",
        type=positive,
        metavar="N",
        help="requests answered at once, while others wait; default: "
        f"{SERVED_BATCH_SIZE} on a CPU, as many as memory allows on a GPU",
    )
    add(
        "--api-key-file",
        type=path,
        metavar="FILE",
        help="file of keys, one per line; each request must carry one of them; default: the key in the environment "
        f"variable {API_KEY_VARIABLE}, or none",
    )
    add(
        "--max-body-bytes",
        type=positive,
        default=ServeOptions.max_body_bytes,
        metavar="N",
        help="maximum size of a request body; larger ones are refused; default: %(default)s",
    )
    add(
        "--drain-seconds",
        type=positive,
        default=ServeOptions.drain_seconds,
        metavar="N",
        help="time for running requests to finish when the server is told to stop; default: %(default)s",
    )
    add("--ui", action="store_true", help="also serve a chat page at /")
    add(
        "--telemetry",
        action="store_true",
        help="let MAX report usage to its makers, as MAX itself does by default",
    )
    add_engine(serve)
    serve.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_serve(options_of(arguments, ServeOptions))
