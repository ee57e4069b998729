"""Measures llama.cpp on a GGUF file, in a process of its own, as `gpt-oss-mxfp4 bench` does here.

    python benchmarks/cpu/llama_side.py FILE.gguf --json FILE [--prompt-tokens N] [--new-tokens N] [--batch N ...]
    python benchmarks/cpu/llama_side.py FILE.gguf --logits FILE.npy --tokens FILE.json

The second gives the logits at every position of given tokens. Needs the `llama-cpp-python` package, of whose bindings
the plain C functions are used: its `Llama` class wants a vocabulary.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu.side import run_side, side_parser
from gpt_oss_mxfp4.measurement import Subject

MICRO_BATCH = 512
"""llama.cpp's own default: tokens that it computes at once."""


CACHE_STEP = 256
"""llama.cpp's caches are of multiples of this."""


class LlamaFailed(Exception):
    """llama.cpp cannot do it."""


class Llama:
    """A model of llama.cpp, and a context for the sequences of the moment.

    Args:
        file: the GGUF file.
        threads: for prompts and for generation.
        repack: whether weights may be copied into another order while loading, as is llama.cpp's default.
    """

    def __init__(self, file: Path, *, threads: int, repack: bool) -> None:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = repack
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), params)
        if not self._model:
            raise LlamaFailed(f"{file}: llama.cpp must be able to load it, cannot")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.subject = Subject(
            engine="llama.cpp",
            versions={"llama-cpp-python": version("llama-cpp-python")},
            model=file.name,
            options={"repack": repack},
            threads=threads,
            weight_bytes=file.stat().st_size,
        )
        self._context: Any = None
        self._batch: Any = None

    def _make_context(self, sequences: int, length: int) -> None:
        """Makes a context, in place of the last, with a cache of its own for each sequence."""
        if self._context:
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_batch_free(self._batch)
        length = -(-length // CACHE_STEP) * CACHE_STEP
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = sequences * length
        params.n_ubatch = MICRO_BATCH
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self.subject.threads
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise LlamaFailed(f"llama.cpp must be able to make a context of {params.n_ctx} tokens")
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)

    def _step(
        self, tokens: Sequence[Sequence[int]], begin: int, *, every: bool = False
    ) -> NDArray[np.float32]:
        """Runs the next tokens of each sequence at once.

        Args:
            tokens: for each sequence.
            begin: position of the first of them, the same in all.
            every: whether logits are wanted at every position, or at each sequence's last.

        Returns:
            [positions, vocabulary] logits, in the order of sequences; valid until the next step.
        """
        batch, rows, i = self._batch, 0, 0
        for sequence, ids in enumerate(tokens):
            for offset, token in enumerate(ids):
                wanted = every or offset == len(ids) - 1
                batch.token[i] = token
                batch.pos[i] = begin + offset
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = sequence
                batch.logits[i] = wanted
                rows, i = rows + wanted, i + 1
        batch.n_tokens = i
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            raise LlamaFailed(f"llama_decode must give 0, gave {code}")
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (rows, self.vocab_size))

    def stream(self, prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        """Continues prompts of one length by their likeliest tokens.

        Args:
            prompts: token ids of each sequence.
            new_tokens: of each sequence.

        Returns:
            The next token of each sequence, as often. The context is made before that, and not timed.
        """
        self._make_context(len(prompts), len(prompts[0]) + new_tokens)
        return self._steps(prompts, new_tokens)

    def _steps(self, prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        tokens, begin = prompts, 0
        for _ in range(new_tokens):
            last = self._step(tokens, begin).argmax(axis=-1).tolist()
            yield last
            tokens, begin = [[token] for token in last], begin + len(tokens[0])

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        """Gives [tokens, vocabulary] logits at every position of one sequence."""
        self._make_context(1, len(tokens))
        return self._step([tokens], 0, every=True)


@llama_cpp.llama_log_callback
def _SILENT(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Drops llama.cpp's log: hundreds of lines about the file."""


def main() -> int:
    """Measure, or give logits."""
    parser = side_parser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--no-repack", dest="repack", action="store_false", help="keep the file's own order"
    )
    arguments = parser.parse_args()

    try:
        run_side(
            arguments,
            lambda: Llama(arguments.model, threads=arguments.threads, repack=arguments.repack),
        )
    except LlamaFailed as error:
        print(f"llama_side: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
