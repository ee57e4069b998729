"""The generate verb: from options to text on standard output, and everything that can go wrong on the way.

MAX takes seconds to import, so this file does not: arguments and checkpoint are checked first.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_oss_mxfp4.answer import Answer, HarmonyAnswer, PlainAnswer, Write
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.hub import resolve_model
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.harmony import HarmonyParser
from gpt_oss_mxfp4.options import DEMO_MODEL, GenerateOptions, Refused
from gpt_oss_mxfp4.progress import Progress

if TYPE_CHECKING:
    from gpt_oss_mxfp4.engine import Prompt

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_NOBODY_READS = 128 + signal.SIGPIPE


def run_generate(options: GenerateOptions) -> int:
    """Generates, and reports what went wrong in one line.

    Args:
        options: what to generate.

    Returns:
        The exit code, see ``cli.main``.
    """
    # MAX reports usage and errors to its makers unless it is told not to; whoever sets the variables decides.
    os.environ.setdefault("MODULAR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("MAX_SERVE_DISABLE_TELEMETRY", "1")
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the process's own, to its end)
    if sys.stdout is None:
        print("gpt-oss-mxfp4: standard output must be open, the text goes there", file=sys.stderr)
        return EXIT_REFUSED
    _configure_logging(options.verbose)
    with _exit_on_interrupt(), _own_stdout() as write:
        try:
            _generate(options, write, Progress(sys.stderr))
        except (CheckpointError, Refused) as error:
            print(f"gpt-oss-mxfp4: {error}", file=sys.stderr)
            return EXIT_REFUSED
        except BrokenPipeError:
            return EXIT_NOBODY_READS
    return 0


def _generate(options: GenerateOptions, write: Write, progress: Progress) -> None:
    if options.devices == "gpu":
        raise Refused("--devices gpu: has no kernels yet; run with --devices cpu")
    folder = _demo_model() if options.model is None else resolve_model(options.model)
    checkpoint = open_checkpoint(folder)
    for note in checkpoint.notes:
        progress.note(note)
    limit = checkpoint.config.max_position_embeddings
    if options.max_new_tokens >= limit:  # told before the seconds that loading MAX takes
        raise Refused(f"--max-new-tokens: must be less than the model's {limit} tokens")
    with progress.step("loading MAX"):
        from gpt_oss_mxfp4 import engine
    prompt = engine.encode_prompt(checkpoint, options.prompt, raw=options.raw)
    if options.max_new_tokens > limit - len(prompt.ids):
        raise Refused(
            f"--prompt and --max-new-tokens: {len(prompt.ids)} + {options.max_new_tokens} tokens must fit the "
            f"model's {limit}"
        )
    answer = _answer(prompt, options, write, progress)
    with progress.step(f"compiling {options.model_name}", "a minute or two the first time"):
        pipeline = engine.load(
            checkpoint, len(prompt.ids), options.max_new_tokens, options.activations
        )

    begin = first = time.monotonic()
    tokens = 0
    for ids in engine.stream(pipeline, prompt, options):
        if not tokens:
            first = time.monotonic()
        tokens += len(ids)
        answer.add(ids)
    end = time.monotonic()
    answer.finish()
    progress.note(
        f"prompt: {len(prompt.ids)} tokens, {_rate(len(prompt.ids), first - begin)}; "
        f"generation: {tokens} tokens, {_rate(tokens - 1, end - first)}"
    )


def _demo_model() -> Path:
    if not (DEMO_MODEL / CONFIG_FILE).is_file():
        raise Refused(
            f"the demo model: must be in {DEMO_MODEL}, is not. Install the package again, or name a model with --model."
        )
    return DEMO_MODEL


def _answer(prompt: Prompt, options: GenerateOptions, write: Write, progress: Progress) -> Answer:
    if prompt.harmony:
        return HarmonyAnswer(
            HarmonyParser(prompt.tokenizer, prompt.ids),
            write,
            progress.note,
            max_new_tokens=options.max_new_tokens,
            show_reasoning=options.show_reasoning,
        )
    if options.show_reasoning:
        progress.note("--show-reasoning: this model's text has no channels, so all of it is shown")
    return PlainAnswer(prompt.tokenizer, write)


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.2f} tokens/s" if tokens > 0 and seconds > 0 else "too few to time"


def _configure_logging(verbose: bool) -> None:
    if verbose:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    else:
        logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it has a log handler of its own
        warnings.simplefilter("ignore")


@contextmanager
def _own_stdout() -> Iterator[Write]:
    """Keeps standard output for the text: what MAX or a library prints there goes to standard error.

    Yields:
        Writes text as UTF-8 at once.
    """
    sys.stdout.flush()
    text_fd = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        data = text.encode("utf-8", errors="replace")
        while data:
            try:
                data = data[os.write(text_fd, data) :]
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Refused(f"standard output: {error.strerror}") from error

    try:
        yield write
    finally:
        sys.stdout.flush()
        os.dup2(text_fd, 1)
        os.close(text_fd)


@contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """Ends the process at Ctrl-C even while MAX compiles, when no Python of the main thread runs.

    The signal's own handler writes to a pipe at once, and a thread waits at the other end. The work itself cannot
    run in a thread: MAX's compiler wants to be shut down by the thread that used it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background job, say
        yield
        return
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    handler = signal.signal(signal.SIGINT, lambda number, frame: None)
    wakeup_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)

    def wait() -> None:
        while number := os.read(read_fd, 1):
            if number[0] == signal.SIGINT:
                print("\ngpt-oss-mxfp4: interrupted", file=sys.stderr, flush=True)
                os._exit(EXIT_INTERRUPTED)  # the compiler's threads cannot be asked to stop

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_fd)
        signal.signal(signal.SIGINT, handler)
        os.close(write_fd)
        thread.join()
        os.close(read_fd)
