"""The attention op over MAX's own paged cache, against NumPy: sinks, window, shared heads, ragged batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from max import tree
from max.driver import Buffer
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType, TensorValue
from max.graph.ops import constant
from max.nn.attention import MHAMaskVariant
from max.nn.kernels import flash_attention_ragged, rope_split_store_ragged
from max.nn.kv_cache import KVCacheInputsPerDevice, KVCacheParams, PagedCacheValues
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.kv_cache import KVCacheConfig, kv_cache_memory_size, load_kv_manager
from max.pipelines.modeling.types import RequestID

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.pipeline import settle_inputs
from tests import tolerances
from tests.measure import relative_error
from tests.reference import attention as reference
from tests.reference.bfloat16 import round_to_bfloat16

CPU = DeviceRef.CPU()
HEAD_DIM = 64
LENGTH = 640
BATCH = 2


@dataclass(frozen=True)
class Heads:
    """What a graph is compiled for."""

    heads: int
    kv_heads: int
    window: int | None
    cache: DType = DType.bfloat16
    stock: bool = False
    """Whether MAX's own kernel attends."""


FULL = Heads(64, 8, None)
SLIDING = Heads(64, 8, 128)
FLOAT32 = Heads(64, 8, 128, DType.float32)
STOCK = Heads(64, 8, None, DType.float32, stock=True)

CASES: dict[str, tuple[Heads, Sequence[Sequence[int]]]] = {
    "one token": (FULL, [[1]]),
    "ragged batch": (FULL, [[200], [1]]),
    "token by token past a page and a split": (FULL, [[255, 1, 1, 1], [3, 1, 1, 1]]),
    "ragged batch past the window": (SLIDING, [[300], [128]]),
    "token by token past the window": (SLIDING, [[127, *[1] * 8]]),
    "long steps over a filled cache": (SLIDING, [[200, 300], [77, 140]]),
    "float32, long steps over a filled cache": (FLOAT32, [[200, 300], [77, 140]]),
    "float32, token by token past the window": (FLOAT32, [[127, *[1] * 8]]),
}
"""Heads, and for each sequence the lengths of the steps that it comes in."""


def stock_attention(
    kv_params: KVCacheParams,
    q: TensorValue,
    cache: PagedCacheValues,
    layer: TensorValue,
    offsets: TensorValue,
    sinks: TensorValue,
) -> TensorValue:
    return flash_attention_ragged(
        kv_params,
        input=q,
        input_row_offsets=offsets,
        kv_collection=cache,
        layer_idx=layer,
        mask_variant=MHAMaskVariant.CAUSAL_MASK,
        scale=HEAD_DIM**-0.5,
        sink_weights=sinks,
    )


def cache_of(case: Heads) -> KVCacheParams:
    return KVCacheConfig(enable_prefix_caching=False).to_params(
        dtype=case.cache,
        n_kv_heads=case.kv_heads,
        head_dim=HEAD_DIM,
        num_layers=3,
        devices=[CPU],
        window_size=case.window,
    )


def build(case: Heads, module: Module, library: KernelLibrary) -> str:
    """Store and attend in one graph, as a layer does; nothing is rotated. Gives the graph's name."""
    kv_params = cache_of(case)
    width = (case.heads + 2 * case.kv_heads) * HEAD_DIM
    types = [
        TensorType(DType.float32, ["tokens", width], CPU),
        TensorType(DType.uint32, ["offsets"], CPU),
        TensorType(DType.float32, [case.heads], CPU),
        TensorType(DType.float32, [LENGTH, HEAD_DIM], CPU),
        *tree.leaves(kv_params.get_symbolic_inputs()),
    ]
    name = f"attention_{case.window}_{case.cache.name}_{case.stock}"
    with Graph(name, input_types=types, kernel_library=library, module=module) as graph:
        qkv, offsets, sinks, table = (value.tensor for value in graph.inputs[:4])
        leaves = iter(graph.inputs[4:])
        [cache] = tree.leaves(kv_params.unflatten_kv_inputs(leaves), leaf=KVCacheInputsPerDevice)
        layer = constant(1, DType.uint32, device=CPU)
        queries = rope_split_store_ragged(
            kv_params, qkv, offsets, table, cache, layer, case.heads, interleaved=False
        ).reshape((-1, case.heads, HEAD_DIM))
        graph.output(
            stock_attention(kv_params, queries, cache, layer, offsets, sinks)
            if case.stock
            else ops.attention(queries, cache, layer, offsets, sinks, case.window)
        )
    return name


class CachedAttention:
    """A graph that is compiled, and its cache."""

    def __init__(self, session: InferenceSession, case: Heads, model: Model) -> None:
        kv_params = cache_of(case)
        self.model = model
        self.manager = load_kv_manager(
            params=kv_params,
            max_batch_size=BATCH,
            max_seq_len=LENGTH,
            session=session,
            available_cache_memory=kv_cache_memory_size(
                kv_params, 2**28, BATCH, LENGTH, is_di_enabled=False, model_name=""
            ),
            is_di_enabled=False,
            model_name="",
            max_num_input_tokens=BATCH * LENGTH,
        )

    def step(
        self,
        contexts: list[TextContext],
        qkv: np.ndarray,
        sinks: np.ndarray,
        offsets: np.ndarray | None = None,
        strayed: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Stores and attends; ``strayed`` is a place in the first sequence's row of pages, and the number put there."""
        for context in contexts:
            self.manager.alloc(context).synchronize()
        table = np.tile(np.array([1, 0], np.float32), (LENGTH, HEAD_DIM // 2))  # cos 1, sin 0
        lengths = [context.tokens.active_length for context in contexts]
        if offsets is None:
            offsets = np.cumsum([0, *lengths], dtype=np.uint32)
        inputs = [Buffer.from_numpy(x) for x in (qkv, offsets, sinks, table)]
        cache = tree.leaves(self.manager.runtime_inputs([contexts]))
        settle_inputs(CPU.to_device())
        if strayed is not None:
            [at] = [i for i, x in enumerate(cache) if x.dtype == DType.uint32 and x.rank == 2]
            pages = cache[at].to_numpy().copy()
            pages[0, strayed[0]] = strayed[1]
            cache[at] = Buffer.from_numpy(pages)
        [out] = self.model.execute(*inputs, *cache)
        return out.to_numpy().copy()


@pytest.fixture(scope="module")
def compiled(session: InferenceSession) -> dict[Heads, CachedAttention]:
    """Compiled together: alone each takes ten seconds or more, however small it is."""
    library = KernelLibrary()
    library.load_paths([ops.custom_ops()])
    module = Module()
    names = {case: build(case, module, library) for case in (FULL, SLIDING, FLOAT32, STOCK)}
    # A module does not know its graphs' libraries.
    models = session.load_all(module, custom_extensions=library.library_paths())
    return {case: CachedAttention(session, case, models[name]) for case, name in names.items()}


def run_steps(
    attention: CachedAttention,
    case: Heads,
    all_steps: Sequence[Sequence[int]],
    sequences: Sequence[np.ndarray],
    sinks: np.ndarray,
) -> list[np.ndarray]:
    """What each sequence's queries attend to, its tokens coming in steps."""
    contexts = [
        TextContext(
            request_id=RequestID(),
            max_length=LENGTH,
            tokens=TokenBuffer(np.zeros(sum(steps), dtype=np.int64)),
        )
        for steps in all_steps
    ]
    got: list[list[np.ndarray]] = [[] for _ in contexts]
    for context in contexts:
        attention.manager.claim(context)
    for step in range(len(all_steps[0])):
        begins = [sum(steps[:step]) for steps in all_steps]
        ends = [sum(steps[: step + 1]) for steps in all_steps]
        for context, begin, end in zip(contexts, begins, ends, strict=True):
            if step:
                context.tokens.advance_chunk()
                attention.manager.step(context)
            if end - begin < context.tokens.active_length:
                context.tokens.chunk(end - begin)
        qkv = np.concatenate(
            [s[begin:end] for s, begin, end in zip(sequences, begins, ends, strict=True)]
        )
        out = attention.step(contexts, qkv, sinks)
        counts = [end - begin for begin, end in zip(begins, ends, strict=True)]
        for rows, part in zip(got, np.split(out, np.cumsum(counts)[:-1]), strict=True):
            rows.append(part)

    for context in contexts:
        attention.manager.release(context)
    return [np.concatenate(rows) for rows in got]


def random_case(
    rng: np.random.Generator, case: Heads, lengths: Sequence[int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Queries, keys and values [length, (heads + 2 kv_heads) * head_dim] of each sequence, and sinks [heads]."""
    width = (case.heads + 2 * case.kv_heads) * HEAD_DIM
    sequences = [2 * rng.standard_normal((length, width), np.float32) for length in lengths]
    return sequences, rng.normal(2, 3, case.heads).astype(np.float32)


def assert_attends(got: np.ndarray, case: Heads, sequence: np.ndarray, sinks: np.ndarray) -> None:
    bound = tolerances.PAGED_ATTENTION
    if case.cache == DType.bfloat16:
        bound = tolerances.PAGED_ATTENTION_BFLOAT16
    heads = sequence.reshape(len(sequence), -1, HEAD_DIM)
    q, k, v = np.split(heads, [case.heads, case.heads + case.kv_heads], axis=1)
    error = relative_error(
        got, reference.attention(q, k, v, sinks, case.window, rounded=case.cache == DType.bfloat16)
    )
    assert error.maximum <= bound.maximum, error
    assert error.rms <= bound.rms, error


@pytest.mark.slow
@pytest.mark.parametrize(("case", "all_steps"), CASES.values(), ids=CASES)
def test_attention_matches_the_reference(
    compiled: dict[Heads, CachedAttention],
    rng: np.random.Generator,
    case: Heads,
    all_steps: Sequence[Sequence[int]],
) -> None:
    sequences, sinks = random_case(rng, case, [sum(steps) for steps in all_steps])
    results = run_steps(compiled[case], case, all_steps, sequences, sinks)
    for got, sequence in zip(results, sequences, strict=True):
        assert_attends(got, case, sequence, sinks)


@pytest.mark.parametrize("case", [FULL, FLOAT32], ids=lambda case: case.cache.name)
def test_one_key_gives_its_value(
    compiled: dict[Heads, CachedAttention], rng: np.random.Generator, case: Heads
) -> None:
    """To the last bit, rounded to nearest, ties to even, in a cache of bfloat16."""
    [sequence], _ = random_case(rng, case, [1])
    values = sequence[0, (case.heads + case.kv_heads) * HEAD_DIM :]
    values[:3] = np.array([0x3F808000, 0x3F818000, 0x3F818001], np.uint32).view(np.float32)
    [got] = run_steps(
        compiled[case], case, [[1]], [sequence], np.full(case.heads, -1e4, np.float32)
    )
    want = values.reshape(case.kv_heads, 1, HEAD_DIM)
    if case.cache == DType.bfloat16:
        want = round_to_bfloat16(want)
    heads = got.reshape(case.kv_heads, -1, HEAD_DIM)
    np.testing.assert_array_equal(heads, np.broadcast_to(want, heads.shape))


@pytest.mark.parametrize("case", [FULL, FLOAT32], ids=lambda case: case.cache.name)
def test_what_a_page_held_before_does_not_matter(
    compiled: dict[Heads, CachedAttention], rng: np.random.Generator, case: Heads
) -> None:
    """Not even NaN, in the last page's positions that are not written yet."""
    sequences, sinks = random_case(rng, case, [LENGTH, LENGTH])
    run_steps(compiled[case], case, [[LENGTH]] * 2, [np.full_like(sequences[0], np.nan)] * 2, sinks)
    lengths = [[65, 2], [127, 2]]
    got = run_steps(compiled[case], case, lengths, sequences, sinks)
    for rows, sequence in zip(got, sequences, strict=True):
        assert_attends(rows, case, sequence[: len(rows)], sinks)


def test_offsets_that_do_not_cover_the_queries_are_refused(
    compiled: dict[Heads, CachedAttention],
) -> None:
    attention = compiled[FULL]
    context = TextContext(
        request_id=RequestID(), max_length=LENGTH, tokens=TokenBuffer(np.zeros(5, dtype=np.int64))
    )
    attention.manager.claim(context)
    try:
        qkv = np.zeros((5, (FULL.heads + 2 * FULL.kv_heads) * HEAD_DIM), np.float32)
        sinks = np.zeros(FULL.heads, np.float32)
        message = r"attention.paged: row_offsets\[B\] = tokens must be 5, got 3"
        with pytest.raises(ValueError, match=message):
            attention.step([context], qkv, sinks, np.array([0, 3], np.uint32))
    finally:
        attention.manager.release(context)


@pytest.mark.parametrize("case", [FULL, SLIDING], ids=lambda case: f"window {case.window}")
def test_a_page_that_is_not_in_the_cache_is_refused_where_it_would_be_read(
    compiled: dict[Heads, CachedAttention], case: Heads
) -> None:
    """MAX may have given back those before the window. The last page is left alone: MAX's own kernel writes it."""
    attention = compiled[case]
    context = TextContext(
        request_id=RequestID(), max_length=LENGTH, tokens=TokenBuffer(np.zeros(301, dtype=np.int64))
    )
    row = np.zeros((300, (case.heads + 2 * case.kv_heads) * HEAD_DIM), np.float32)
    sinks = np.zeros(case.heads, np.float32)
    attention.manager.claim(context)
    try:
        context.tokens.chunk(300)
        attention.step([context], row, sinks)
        context.tokens.advance_chunk()
        attention.manager.step(context)
        for slot in (0, 1):
            if slot == 0 and case.window:
                attention.step([context], row[:1], sinks, strayed=(slot, 2**31))
                continue
            message = (
                rf"attention.paged: table\[0, {slot}\] must be below the \d+ pages, got 2147483648"
            )
            with pytest.raises(ValueError, match=message):
                attention.step([context], row[:1], sinks, strayed=(slot, 2**31))
    finally:
        attention.manager.release(context)


def test_maxs_own_kernel_counts_the_sink_once_per_128_keys(
    compiled: dict[Heads, CachedAttention], rng: np.random.Generator
) -> None:
    """Why there is an op of our own (NOTES N8): 200 keys are two blocks. When this fails, MAX is mended."""
    sequences, sinks = random_case(rng, STOCK, [200])
    [got] = run_steps(compiled[STOCK], STOCK, [[200]], sequences, sinks)
    assert_attends(got, STOCK, sequences[0], sinks + np.float32(np.log(2)))
