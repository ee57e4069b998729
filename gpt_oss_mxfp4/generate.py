"""The generate verb: from options to text on standard output, and everything that can go wrong on the way.

MAX takes seconds to import, so this file does not: arguments and checkpoint are checked first.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_oss_mxfp4.answer import Answer, HarmonyAnswer, PlainAnswer, Write
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.checkpoint.hub import resolve_model
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE
from gpt_oss_mxfp4.checkpoint.tokenizer import check_tokenizer
from gpt_oss_mxfp4.harmony import HarmonyParser
from gpt_oss_mxfp4.machine import check_engine, loading_step
from gpt_oss_mxfp4.options import DEMO_MODEL, GenerateOptions, Refused
from gpt_oss_mxfp4.physical_memory import check_memory
from gpt_oss_mxfp4.process import run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import count_text
from gpt_oss_mxfp4.terminal import harmless, shows_output
from gpt_oss_mxfp4.threads import limit_threads

if TYPE_CHECKING:
    from gpt_oss_mxfp4.prompt import Prompt


def run_generate(options: GenerateOptions) -> int:
    """Generates, and reports what went wrong in one line.

    Args:
        options: what to generate.

    Returns:
        The exit code, see ``cli.main``.
    """
    # Asked before the command gives MAX's prints another standard output.
    terminal = shows_output()
    return run_command(functools.partial(_generate, options, terminal), verbose=options.verbose)


def _generate(options: GenerateOptions, terminal: bool, write: Write, progress: Progress) -> None:
    limit_threads(options.threads)
    check_engine(options)
    checkpoint = open_model(options.model, progress)
    check_tokenizer(checkpoint.folder, content=False)
    limit = checkpoint.config.max_position_embeddings
    if options.max_new_tokens >= limit:  # told before the seconds that loading MAX takes
        raise Refused(f"--max-new-tokens: must be less than the model's {limit} tokens")
    with progress.step("loading MAX"):
        from gpt_oss_mxfp4 import engine
        from gpt_oss_mxfp4.prompt import encode_prompt
    prompt = encode_prompt(
        checkpoint,
        options.prompt,
        raw=options.raw,
        system=options.system,
        effort=options.effort,
    )
    if options.max_new_tokens > limit - len(prompt.ids):
        raise Refused(
            f"the prompt and --max-new-tokens: {len(prompt.ids)} + {options.max_new_tokens} tokens must fit the "
            f"model's {limit}"
        )
    length = len(prompt.ids) + options.max_new_tokens
    asked = f"the prompt and --max-new-tokens: {len(prompt.ids)} + {options.max_new_tokens}"
    check_memory(checkpoint, options, length, asked, progress)
    if not prompt.templated and not options.raw:
        progress.note(
            "this model has no chat template, so the text is continued as it is; --raw leaves out this note"
        )
    if terminal:
        written, write = write, lambda text: written(harmless(text))
    answer = _answer(prompt, options, write, progress)
    with progress.step(*loading_step(options)):
        pipeline = engine.load(checkpoint, len(prompt.ids), options.max_new_tokens, options)

    begin = first = time.monotonic()
    generated = 0
    for ids in engine.stream(pipeline, prompt, options):
        if not generated:
            first = time.monotonic()
        generated += len(ids)
        answer.add(ids)
    end = time.monotonic()
    answer.finish()
    progress.note(
        f"prompt: {count_text(len(prompt.ids), 'token')}, {_rate(len(prompt.ids), first - begin)}; "
        f"generation: {count_text(generated, 'token')}, {_rate(generated - 1, end - first)}"
    )


def open_model(model: str | None, progress: Progress) -> Checkpoint:
    """Finds a model and checks it.

    Args:
        model: folder or Hub id, or None for the demo model.
        progress: gets what the checkpoint notes.

    Raises:
        CheckpointError: it is not one this package can run.
        Refused: it is not there.
    """
    checkpoint = open_checkpoint(
        _demo_model() if model is None else resolve_model(model, progress=progress)
    )
    for note in checkpoint.notes:
        progress.note(note)
    return checkpoint


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
