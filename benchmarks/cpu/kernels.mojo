"""Times the CPU kernels on gpt-oss-20b's shapes against roofs measured in the same run.

    ./run mojo run -I custom_ops benchmarks/cpu/kernels.mojo [OPS.json]

Two roofs: a plain read of as many bytes by as many threads, and a loop of nothing but products. Each round times the
kernel between roofs and takes its share of the lower one: `rate / min(read * operations per byte, peak)`; the table gives
medians over the rounds, their range in brackets. Experts are a layer's two matmuls, in random layers of six and with
random routing; every touched expert's bytes count once. Attention is over a cache of bfloat16, of six layers too; of a prompt it
is from no key to all of its own. Weights are random, and six layers of them larger than the caches.
OPS.json is for `plot.py roofline`.
"""

from std.benchmark import keep
from std.memory import bitcast
from std.random import random_float64, random_ui64, seed
from std.runtime import parallelism_level
from std.sys import argv
from std.time import perf_counter_ns

from max.algorithm import sync_parallelize

from mxfp4.cpu.attention import Attention
from mxfp4.cpu.bf16_rows import Bf16Rows
from mxfp4.cpu.byte_rows import ByteRows, scale_dtype
from mxfp4.cpu.epilogue import BiasEpilogue, SwigluEpilogue
from mxfp4.cpu.grouped_matmul import RowGather, grouped_matmul
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.cpu.weights import PREFETCH_BYTES, WeightRows, prefetch_byte
from mxfp4.cpu.words import (
    HAS_BF16_DOT,
    LANES,
    PairSums,
    Sums,
    Words,
    multiply_add_of_group,
    per_word,
)
from mxfp4.paged_cache import PagedCache
from mxfp4.pointers import ConstPointer

comptime K = 2880
comptime N1 = 5760
comptime N2 = 2880
comptime EXPERTS = 32
comptime TOP_K = 4
comptime LAYERS = 6
comptime DENSE_N = 5120
"""Rows of q, k and v together."""
comptime VOCABULARY = 201088
comptime HEADS = 64
comptime KV_HEADS = 8
comptime HEAD_DIM = 64
comptime PAGE = 128
"""Positions of a page, MAX's own on a CPU."""
comptime BF16 = DType.bfloat16 if HAS_BF16_DOT else DType.float32
"""What bfloat16 activations are multiplied as."""

comptime LAYER_BLOCKS = EXPERTS * (N1 + N2) * K // 2
comptime LAYER_SCALES = EXPERTS * (N1 + N2) * K // 32


@fieldwise_init
struct Round(Copyable, ImplicitlyCopyable, Movable):
    """One timing of a case and of both roofs beside it."""

    var seconds: Float64
    var bytes: Float64
    var operations: Float64
    var read: Float64
    """Bytes per second."""
    var peak: Float64
    """Operations per second."""

    def share(self) -> Float64:
        var roof = min(self.read * self.operations / self.bytes, self.peak)
        return self.operations / self.seconds / roof


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _mut(list: List[Float32]) -> MutPointer[Float32, MutUntrackedOrigin]:
    return list.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


def _sorted(values: List[Float64]) -> List[Float64]:
    var ordered = values.copy()
    sort(ordered)
    return ordered^


def _median(values: List[Float64]) -> Float64:
    return _sorted(values)[len(values) // 2]


def _read_rate(bytes: ConstPointer[DType.uint8], count: Int) -> Float64:
    """Reads `count` bytes once, each thread its own contiguous share, asked for ahead as the kernels do.
    """
    var threads = parallelism_level()
    var share = count // threads // 256 * 256

    def read(thread: Int) {imm}:
        var source = bytes.unsafe_offset(thread * share)
        var sums = Array[SIMD[DType.uint64, 8], 4](fill=SIMD[DType.uint64, 8](0))
        for i in range(share // 256):
            comptime for j in range(4):
                var at = 256 * i + 64 * j
                prefetch_byte(source.unsafe_offset(at + PREFETCH_BYTES))
                sums[j] ^= bitcast[DType.uint64, 8](source.unsafe_load[width=64, alignment=1](at))
        keep(sums[0] ^ sums[1] ^ sums[2] ^ sums[3])

    var begin = perf_counter_ns()
    sync_parallelize(read, threads)
    return Float64(share * threads) / (Float64(perf_counter_ns() - begin) * 1e-9)


def _peak_rate[word: DType]() -> Float64:
    """Operations per second of independent groups of four words, multiplied in registers.

    Each multiplies its neighbour's sum, and each word another: what is the same in every step a compiler computes once.
    """
    comptime steps = 100_000
    comptime group = 4
    # AVX2 has 16 registers, of which sums of pairs of bytes take some.
    comptime chains = 6 if word == DType.int8 and LANES == 8 else 12
    var threads = parallelism_level()

    def spin(thread: Int) {imm}:
        var sums = Array[Sums[word], chains](fill=Sums[word](1))
        var pairs = Array[PairSums, chains](fill=PairSums(0))
        for _ in range(steps):
            comptime for at in range(group):
                comptime for j in range(chains):
                    var a = Words(UInt32(0x3F80_3F80 + at))
                    var b = bitcast[DType.uint32, LANES](sums[(j + 1) % chains])
                    sums[j] = multiply_add_of_group[word, 12, at, group](sums[j], pairs[j], a, b)
        var total = Sums[word](0)
        comptime for j in range(chains):
            total += sums[j]
        keep(total)

    var begin = perf_counter_ns()
    sync_parallelize(spin, threads)
    var seconds = Float64(perf_counter_ns() - begin) * 1e-9
    return Float64(steps * group * chains * LANES * per_word(word) * 2 * threads) / seconds


def _random_bytes(count: Int, mask: UInt64, offset: UInt64) -> List[UInt8]:
    var bytes = List[UInt8](unsafe_uninit_length=count)
    var words = bytes.unsafe_ptr().unsafe_bitcast[UInt64]()
    var state = UInt64(88172645463325252)
    for i in range(count // 8):
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        words.unsafe_store[alignment=1](i, (state & mask) + offset)
    return bytes^


def _route(tokens: Int, mut order: List[Int32], mut offsets: List[Int32]) -> Int:
    """Random distinct experts for each token, as rows sorted by expert; gives the number of experts that have any.
    """
    var chosen = List[Int](length=tokens * TOP_K, fill=-1)
    for t in range(tokens):
        for j in range(TOP_K):
            var expert = Int(random_ui64(0, EXPERTS - 1))
            while True:
                var repeated = False
                for i in range(j):
                    repeated = repeated or chosen[t * TOP_K + i] == expert
                if not repeated:
                    break
                expert = (expert + 1) % EXPERTS
            chosen[t * TOP_K + j] = expert
    var place = 0
    var active = 0
    for e in range(EXPERTS):
        offsets[e] = Int32(place)
        for row in range(tokens * TOP_K):
            if chosen[row] == e:
                order[place] = Int32(row)
                place += 1
        active += Int(place > Int(offsets[e]))
    offsets[EXPERTS] = Int32(place)
    return active


def _report(name: String, rounds: List[Round], mut json: List[String]):
    var shares = List[Float64]()
    var gbs = List[Float64]()
    var gflops = List[Float64]()
    var reads = List[Float64]()
    var peaks = List[Float64]()
    for r in rounds:
        shares.append(r.share())
        gbs.append(r.bytes / r.seconds * 1e-9)
        gflops.append(r.operations / r.seconds * 1e-9)
        reads.append(r.read * 1e-9)
        peaks.append(r.peak * 1e-9)
    var ordered = _sorted(shares)
    print(
        name.ascii_ljust(44),
        String(round(_median(gbs), 1)).ascii_rjust(7),
        "GB/s",
        String(round(_median(gflops), 1)).ascii_rjust(7),
        "GFLOP/s  ",
        round(_median(shares), 2),
        " (",
        round(ordered[0], 2),
        "-",
        round(ordered[len(ordered) - 1], 2),
        ") of the roof",
        sep=" ",
    )
    json.append(
        String(
            '  {"name": "',
            name,
            '", "flop_per_byte": ',
            rounds[0].operations / rounds[0].bytes,
            ', "gflops": ',
            _median(gflops),
            ', "gbs": ',
            _median(gbs),
            ', "roof_gbs": ',
            _median(reads),
            ', "peak_gflops": ',
            _median(peaks),
            ', "share": ',
            _median(shares),
            "}",
        )
    )


def _bench_experts[
    word: DType
](
    name: String,
    tokens: Int,
    rounds: Int,
    blocks: ConstPointer[DType.uint8],
    scales: ConstPointer[DType.uint8],
    bias: ConstPointer[DType.bfloat16],
    mut json: List[String],
) raises:
    var rows = tokens * TOP_K
    var x = List[Float32](length=tokens * K, fill=0)
    for i in range(len(x)):
        x[i] = Float32(random_float64(-1, 1))
    var h = List[Float32](length=rows * N2, fill=0)
    var y = List[Float32](length=rows * N2, fill=0)
    var order = List[Int32](length=rows, fill=0)
    var offsets = List[Int32](length=EXPERTS + 1, fill=0)
    var timings = List[Round]()
    var layer = 0
    for _ in range(rounds):
        var seconds = Float64(0)
        var active = 0
        # As many layers as read 200 MB, and one where that is more.
        var layers = max(1, 16 // tokens)
        var read = _read_rate(blocks, min(LAYERS * LAYER_BLOCKS, 400_000_000))
        for _ in range(layers):
            layer = (layer + 1) % LAYERS
            var codes = blocks.unsafe_offset(layer * LAYER_BLOCKS)
            var bytes = scales.unsafe_offset(layer * LAYER_SCALES)
            active += _route(tokens, order, offsets)
            var begin = perf_counter_ns()
            grouped_matmul[round_to_bf16=True](
                _const(x),
                RowGather(_const(order), TOP_K),
                Mxfp4Rows[word](codes, bytes, K // 32),
                _const(offsets),
                EXPERTS,
                N1,
                K,
                SwigluEpilogue(_mut(h), bias, N1, 7.0),
            )
            grouped_matmul[round_to_bf16=True](
                _const(h),
                RowGather(_const(order), 0),
                Mxfp4Rows[word](
                    codes.unsafe_offset(EXPERTS * N1 * K // 2),
                    bytes.unsafe_offset(EXPERTS * N1 * K // 32),
                    K // 32,
                ),
                _const(offsets),
                EXPERTS,
                N2,
                K,
                BiasEpilogue[True](_mut(y), bias, N2),
            )
            seconds += Float64(perf_counter_ns() - begin) * 1e-9
        read = (read + _read_rate(blocks, min(LAYERS * LAYER_BLOCKS, 400_000_000))) / 2
        timings.append(
            Round(
                seconds,
                Float64(active * (N1 + N2) * (K // 32) * 17),
                Float64(layers * rows * (N1 + N2) * K * 2),
                read,
                _peak_rate[word](),
            )
        )
    _report(String("experts, ", name, ", tokens ", tokens), timings, json)
    _ = x^
    _ = h^
    _ = y^
    _ = order^
    _ = offsets^


def _bench_dense[
    Rows: WeightRows, //, matrix: def(Int) capturing[_] -> Rows
](
    name: String,
    tokens: Int,
    n: Int,
    matrices: Int,
    row_bytes: Int,
    rounds: Int,
    weights: ConstPointer[DType.uint8],
    mut json: List[String],
) raises:
    """Times matrices of n rows one after the other.

    Parameters:
        Rows: Their format.
        matrix: Gives one by its place.
    """
    var x = List[Float32](length=tokens * K, fill=0)
    for i in range(len(x)):
        x[i] = Float32(random_float64(-1, 1))
    var y = List[Float32](length=tokens * n, fill=0)
    var offsets = List[Int32](length=2, fill=0)
    offsets[1] = Int32(tokens)
    var timings = List[Round]()
    for _ in range(rounds):
        var repeats = max(1, min(matrices, 256 // tokens))
        var read = _read_rate(weights, 400_000_000)
        var begin = perf_counter_ns()
        for i in range(repeats):
            grouped_matmul[round_to_bf16=True](
                _const(x),
                RowGather(_const(offsets), 0),
                matrix(i),
                _const(offsets),
                1,
                n,
                K,
                BiasEpilogue[False](_mut(y), weights.unsafe_bitcast[BFloat16](), n),
            )
        var seconds = Float64(perf_counter_ns() - begin) * 1e-9
        timings.append(
            Round(
                seconds,
                Float64(repeats * n * row_bytes),
                Float64(repeats * tokens * n * K * 2),
                (read + _read_rate(weights, 400_000_000)) / 2,
                _peak_rate[Rows.word](),
            )
        )
    _report(String("dense ", n, ", ", name, ", tokens ", tokens), timings, json)
    _ = x^
    _ = y^
    _ = offsets^


def _bench_attention(
    tokens: Int, before: Int, rounds: Int, pages: ConstPointer[DType.uint8], mut json: List[String]
):
    """Times `tokens` queries of one sequence, after `before` tokens that are in the cache."""
    var q = List[Float32](length=tokens * HEADS * HEAD_DIM, fill=0)
    for i in range(len(q)):
        q[i] = Float32(random_float64(-1, 1))
    var out = List[Float32](length=len(q), fill=0)
    var sinks = List[Float32](length=HEADS, fill=0)
    var table = List[UInt32](length=(before + tokens) // PAGE, fill=0)
    for i in range(len(table)):
        table[i] = UInt32(i)
    var offsets: List[UInt32] = [0, UInt32(tokens)]
    var lengths: List[UInt32] = [UInt32(before)]
    var seen = tokens * before + tokens * (tokens + 1) // 2
    var bytes = LAYERS * 2 * (before + tokens) * KV_HEADS * HEAD_DIM * 2
    var timings = List[Round]()
    for _ in range(rounds):
        var read = _read_rate(pages, 400_000_000)
        var begin = perf_counter_ns()
        for layer in range(LAYERS):
            var cache = PagedCache[DType.bfloat16](
                pages.unsafe_bitcast[BFloat16](),
                2 * LAYERS * PAGE * KV_HEADS * HEAD_DIM,
                _const(table),
                len(table),
                LAYERS,
                layer,
                PAGE,
                KV_HEADS,
                HEAD_DIM,
            )
            Attention(_mut(out), _const(q), _const(sinks), cache, HEADS, 0.125, 0).run(
                _const(offsets), _const(lengths), 1
            )
        var seconds = Float64(perf_counter_ns() - begin) * 1e-9
        timings.append(
            Round(
                seconds,
                Float64(bytes),
                Float64(LAYERS * seen * HEADS * HEAD_DIM * 4),
                (read + _read_rate(pages, 400_000_000)) / 2,
                _peak_rate[BF16](),
            )
        )
    _report(String("attention, tokens ", tokens, " after ", before), timings, json)
    _ = q^
    _ = out^
    _ = sinks^
    _ = table^
    _ = offsets^
    _ = lengths^


def main() raises:
    seed(1)
    # Codes as bytes, exponents of bfloat16 weights near 1, scales around 2^-8.
    var blocks = _random_bytes(LAYERS * LAYER_BLOCKS, 0x3F7F_3F7F_3F7F_3F7F, 0)
    var scales = _random_bytes(LAYERS * LAYER_SCALES, 0x0707_0707_0707_0707, 0x7474_7474_7474_7474)
    var bias = List[BFloat16](length=EXPERTS * N1, fill=0.25)
    var weights = _const(blocks)
    var small_scales = _const(scales).unsafe_bitcast[Scalar[scale_dtype(DType.int8)]]()
    var json = List[String]()
    print(parallelism_level(), "threads,", LANES, "lanes")
    for tokens in [1, 2, 4, 8, 16, 32, 64, 512]:
        var rounds = 15 if tokens < 16 else 5
        _bench_experts[BF16]("bf16", tokens, rounds, weights, _const(scales), _const(bias), json)
    for tokens in [1, 4, 8, 16, 32, 64, 512]:
        var rounds = 15 if tokens < 16 else 5
        _bench_experts[DType.int8](
            "int8", tokens, rounds, weights, _const(scales), _const(bias), json
        )

    @__parameter
    def bf16(i: Int) -> Bf16Rows[BF16]:
        return Bf16Rows[BF16](
            weights.unsafe_offset(i * 2 * DENSE_N * K).unsafe_bitcast[BFloat16](), K
        )

    @__parameter
    def int8(i: Int) -> ByteRows[DType.int8, DType.int8]:
        return ByteRows[DType.int8, DType.int8](
            weights.unsafe_offset(i * DENSE_N * K), small_scales, K // 32
        )

    for tokens in [1, 4, 16, 64, 512]:
        _bench_dense[bf16]("bf16", tokens, DENSE_N, 20, 2 * K, 7, weights, json)
    for tokens in [1, 4, 16, 64, 512]:
        _bench_dense[int8]("int8", tokens, DENSE_N, 40, K * 34 // 32, 7, weights, json)
    # The largest matrix is read past six layers' bytes: twice from the start.
    _bench_dense[bf16]("bf16", 1, VOCABULARY // 2, 1, 2 * K, 5, weights, json)
    _bench_attention(1, 8191, 7, weights, json)
    _bench_attention(512, 0, 7, weights, json)
    _bench_attention(4096, 0, 3, weights, json)
    if len(argv()) > 1:
        var text = String("[\n")
        for i in range(len(json)):
            text += json[i] + (",\n" if i + 1 < len(json) else "\n]\n")
        with open(String(argv()[1]), "w") as file:
            file.write(text)
    _ = blocks^
    _ = scales^
    _ = bias^
