"""Says where device graphs part from the same steps without them, on a GPU: in tokens that come in, or in logits.

    ./run python scripts/check_device_graphs.py [--model FOLDER] [--precompiled DIR] [--sequences N] [--alone]

One pipeline continues the same prompts three times. First no step is replayed, though steps overlap as with graphs.
Then each step is run without the graph and replayed beside it, and waited for: a line says how many of the tokens that
come in are none, how many logits are NaN, and how far apart the two are. Then steps are replayed as always. Exits with
1 if a run gives other tokens than the first, or a step other logits.

MAX captures graphs of as many sequences and fewer, the largest first. With --alone no other graph is captured than that
of all sequences. This found why several faulted (NOTES F90).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from max.driver import CPU, Buffer
from max.pipelines.lib.graph_capture import ServeGraphCaptureRunner
from numpy.typing import NDArray

from gpt_oss_mxfp4 import engine
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.options import DEMO_MODEL, EngineOptions

LEAST_PROMPT = 5
DIFFERENCE = 1e-2
"""Of the logits' range: the same kernels in the same order give the same, whatever launches them."""


def fetch(buffer: Buffer) -> NDArray[Any]:
    """Waits for a tensor, and copies it here."""
    return np.array(buffer.to(CPU()).to_numpy())


def eagerly(pipeline: Any) -> Callable[..., Any]:
    """Gives what runs a step without the graph."""

    def step(*, model_inputs: Any, **_: Any) -> Any:
        return pipeline._pipeline_model.execute(model_inputs=model_inputs)

    return step


def beside(pipeline: Any, vocab_size: int, faults: list[str]) -> Callable[..., Any]:
    """Gives what replays a step beside the same one without the graph, and tells of both."""
    execute, replay = eagerly(pipeline), pipeline._graph_capture_runner.replay

    def step(*, model_inputs: Any, **named: Any) -> Any:
        tokens = fetch(model_inputs.tokens)
        none = int(((tokens < 0) | (tokens >= vocab_size)).sum())
        eager = fetch(execute(model_inputs=model_inputs).logits)
        outputs = replay(model_inputs=model_inputs, **named)
        replayed = fetch(outputs.logits)
        nan = int(np.isnan(eager).sum()), int(np.isnan(replayed).sum())
        apart = float(np.abs(replayed - eager).max() / (np.ptp(eager) or 1))
        line = (
            f"tokens {tokens.tolist()}, {none} of them none; NaN: {nan[0]} without the graph, {nan[1]} with it; "
            f"apart by {apart:.1e} of the range"
        )
        print(line, flush=True)
        if none or any(nan) or not apart <= DIFFERENCE:
            faults.append(line)
        return outputs

    return step


def capture_alone(sequences: int) -> None:
    """Has MAX capture the graph of so many sequences and no other."""
    original = ServeGraphCaptureRunner._probe_verify_widths

    def widths(self: ServeGraphCaptureRunner, batch_size: int) -> Any:
        return original(self, batch_size) if batch_size == sequences else []

    ServeGraphCaptureRunner._probe_verify_widths = widths


def run(
    checkpoint: Checkpoint, options: EngineOptions, sequences: int, steps: int, seed: int
) -> list[str]:
    """Runs all three, and gives a line for whatever is wrong."""
    rng = np.random.default_rng(seed)
    vocab_size = checkpoint.config.vocab_size
    prompts = [rng.integers(0, vocab_size, LEAST_PROMPT + i).tolist() for i in range(sequences)]
    longest = LEAST_PROMPT + sequences
    print("loading, and capturing graphs", flush=True)  # what hangs is to be told apart
    pipeline: Any = engine.load(checkpoint, longest, steps, options, sequences)
    print("loaded", flush=True)
    runner = pipeline._graph_capture_runner
    faults: list[str] = []
    ways: dict[str, Callable[..., Any]] = {
        "without graphs": eagerly(pipeline),
        "each replayed beside": beside(pipeline, vocab_size, faults),
        "replayed": runner.replay,
    }
    first: list[list[int]] = []
    for way, replay in ways.items():
        runner.replay = replay
        tokens = list(engine.stream_batch(pipeline, prompts, steps))
        print(f"{way}: {tokens}", flush=True)
        first = first or tokens
        if tokens != first:
            faults.append(f"{way}: other tokens than without graphs")
    return faults


def main(words: Sequence[str] | None = None) -> int:
    """Run all three; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="default: the demo model")
    parser.add_argument("--precompiled", type=Path, help="folder that compile has written")
    parser.add_argument("--sequences", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--alone", action="store_true", help="capture no graph of fewer sequences")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    asked = parser.parse_args(words)
    if asked.alone:
        capture_alone(asked.sequences)
    options = EngineOptions(devices="gpu", device_graphs=True, precompiled=asked.precompiled)
    faults = run(open_checkpoint(asked.model), options, asked.sequences, asked.steps, asked.seed)
    for fault in faults:
        print(f"WRONG: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
