"""The bench verb: one loaded pipeline, several runs of each batch, a table and a report.

MAX takes seconds to import, so this file does not: arguments and checkpoint are checked first.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import asdict, fields

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.generate import open_model
from gpt_oss_mxfp4.machine import check_engine, loading_step
from gpt_oss_mxfp4.measurement import (
    WARM_UP_TOKENS,
    Report,
    Subject,
    Workload,
    measure,
    usable_cores,
)
from gpt_oss_mxfp4.options import BenchOptions, EngineOptions, Refused
from gpt_oss_mxfp4.physical_memory import check_memory
from gpt_oss_mxfp4.process import check_place, replace_text, run_command
from gpt_oss_mxfp4.progress import Progress
from gpt_oss_mxfp4.quantity import bytes_text
from gpt_oss_mxfp4.threads import limit_threads
from gpt_oss_mxfp4.toolchain import package_version

PACKAGES = ("gpt-oss-mxfp4", "max", "numpy")
"""What is measured, and what it stands on."""


def run_bench(options: BenchOptions) -> int:
    """Measures, and reports what went wrong in one line.

    Args:
        options: what to measure.

    Returns:
        The exit code, see ``cli.main``.
    """
    return run_command(functools.partial(_bench, options), verbose=options.verbose)


def _bench(options: BenchOptions, write: Write, progress: Progress) -> None:
    limit_threads(options.threads)
    _check(options)
    check_engine(options)
    checkpoint = open_model(options.model, progress)
    limit = checkpoint.config.max_position_embeddings
    length, batch = options.prompt_tokens + options.new_tokens, max(options.batch)
    if length > limit:  # told before MAX is loaded
        raise Refused(
            f"--prompt-tokens and --new-tokens: {options.prompt_tokens} + {options.new_tokens} tokens must fit the "
            f"model's {limit}"
        )
    # MAX makes room for as many tokens in each sequence of a batch as a single one may have.
    asked = f"--batch, --prompt-tokens, --new-tokens: {batch} x {length}"
    check_memory(checkpoint, options, batch * length, asked, progress)
    with progress.step("loading MAX"):
        from gpt_oss_mxfp4 import engine
    with progress.step(*loading_step(options)):
        pipeline = engine.load(
            checkpoint,
            options.prompt_tokens,
            options.new_tokens,
            options,
            batch,
        )
    report = measure(
        functools.partial(engine.stream_batch, pipeline),
        checkpoint.config.vocab_size,
        Workload(
            prompt_tokens=options.prompt_tokens,
            new_tokens=options.new_tokens,
            batch=tuple(options.batch),
            runs=options.runs,
        ),
        Subject(
            engine="gpt-oss-mxfp4",
            versions={package: package_version(package) for package in PACKAGES},
            model=options.model_name,
            options=_how(options),
            threads=usable_cores(),
            weight_bytes=sum(file.stat().st_size for file in checkpoint.files),
        ),
        progress.step,
    )
    write(format_table(report))
    if options.json is not None:
        replace_text("--json", options.json, report.to_json())


def _check(options: BenchOptions) -> None:
    """Refuses what no single argument shows to be wrong."""
    if options.prompt_tokens < max(options.batch):
        raise Refused(
            f"--prompt-tokens: must be at least one for each sequence of --batch {max(options.batch)}, got "
            f"{options.prompt_tokens}"
        )
    if options.new_tokens < 2:
        raise Refused(
            f"--new-tokens: must be at least 2, got {options.new_tokens}: the first comes with the prompt"
        )
    if options.json is not None:
        check_place("--json", options.json)


def _how(options: EngineOptions) -> dict[str, str | bool]:
    """How the model was run, for the report: every option of the engine that has a say in it."""
    left_out = ("model", "verbose", "precompiled", "threads")  # or told elsewhere
    names = [field.name for field in fields(EngineOptions) if field.name not in left_out]
    return {name: asdict(options)[name] for name in names}


def format_table(report: Report) -> str:
    """Lays out a report as text.

    Args:
        report: what was measured.

    Returns:
        Lines: what ran on what, rates of each batch (all sequences together), start, memory.
    """
    subject = report.subject
    options = ", ".join(f"{name} {value}" for name, value in subject.options.items())
    versions = ", ".join(f"{name} {value}" for name, value in subject.versions.items())
    lines = [
        f"{subject.engine}: {subject.model}, {subject.threads} threads, {options}",
        f"{report.machine['cpu']}; {versions}",
        "",
        f"{'batch':>5} {'prompt':>12}{'prompt, tokens/s':>30}{'generation, tokens/s':>30}",
        f"{'':>5} {'tokens':>12}" + f"{'min':>12}{'median':>9}{'max':>9}" * 2,
    ]
    for batch in sorted({run.batch for run in report.runs}):
        runs = [run for run in report.runs if run.batch == batch]
        each = runs[0].prompt_tokens // batch
        row = f"{batch:5} {f'{batch} x {each}':>12}"
        for rates in ([run.prompt_rate for run in runs], [run.generation_rate for run in runs]):
            low, middle, high = min(rates), statistics.median(rates), max(rates)
            row += f"{low:12.2f}{middle:9.2f}{high:9.2f}"
        lines.append(row)
    warm_up = min(WARM_UP_TOKENS, report.runs[0].prompt_tokens)
    lines += [
        "",
        f"start to first token: {report.first_token_seconds:.1f} s ({report.loaded_seconds:.1f} s until loaded, "
        f"{report.warm_up_seconds:.1f} s from there, {warm_up} tokens of prompt)",
        f"peak resident memory: {bytes_text(report.peak_resident)} (weights {bytes_text(subject.weight_bytes)})",
    ]
    return "\n".join(lines) + "\n"
