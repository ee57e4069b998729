"""The serve verb: from options to a server, and everything that can be told before MAX is loaded."""

from __future__ import annotations

import functools
import os

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.footprint import default_length
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.key_file import read_keys
from gpt_oss_mxfp4.machine import check_engine
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.physical_memory import check_memory
from gpt_oss_mxfp4.process import run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.serving.api_key import ApiKeys
from gpt_oss_mxfp4.serving.options import ServeOptions
from gpt_oss_mxfp4.serving.sockets import free_port, listen
from gpt_oss_mxfp4.threads import limit_threads

LAST_PORT = 2**16 - 1


def run_serve(options: ServeOptions) -> int:
    """Serves until it is told to stop, and reports what went wrong in one line.

    Args:
        options: what to serve.

    Returns:
        The exit code, see ``cli.main``; 0 where it was told to stop, by Ctrl-C too.
    """
    if options.telemetry:
        os.environ.setdefault("MODULAR_TELEMETRY_ENABLED", "1")
        os.environ.setdefault("MAX_SERVE_DISABLE_TELEMETRY", "0")
    else:
        # MAX's own variable would take the metrics port away as well, which sends nothing anywhere.
        os.environ["OTEL_SDK_DISABLED"] = "true"
    # Until the loop runs there is nothing to let end.
    return run_command(functools.partial(_serve, options), verbose=options.verbose, terminated=0)


def _serve(options: ServeOptions, write: Write, progress: Progress) -> None:
    if not options.served_name.strip():
        raise Refused("--model-name: must not be empty")
    try:
        options.served_name.encode()
    except UnicodeEncodeError as error:  # a folder's name may be any bytes, an answer's JSON not
        told = f"--model-name: must be valid UTF-8, got {options.served_name!r}"
        raise Refused(told) from error
    if options.port and options.port == options.metrics_port:
        raise Refused(f"--metrics-port: must be another than --port, {options.port}")
    check_engine(options)
    limit_threads(options.threads)
    keys = ApiKeys(read_keys(options.api_key_file))
    checkpoint = open_model(options.model, progress)
    check_tokenizer(checkpoint.folder)
    positions = checkpoint.config.max_position_embeddings
    if options.max_length is not None and options.max_length > positions:
        raise Refused(f"--max-length: must be at most the model's {positions} tokens")
    length = options.max_length or default_length(positions)
    asked = f"--max-batch-size, --max-length: {options.cpu_batch_size} x {length}"
    check_memory(checkpoint, options, options.cpu_batch_size * length, asked, progress)
    with listen(options.host, options.port) as socket:
        port = int(socket.getsockname()[1])
        metrics_port = options.metrics_port
        if metrics_port is None and options.port and port < LAST_PORT:
            metrics_port = port + 1
        metrics_port = free_port(options.host, metrics_port, "--metrics-port")
        with progress.step("loading MAX"):
            from gpt_oss_mxfp4.serving import server
        server.serve(checkpoint, options, keys, socket, metrics_port, progress)
