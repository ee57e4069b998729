"""Times the CPU kernels on gpt-oss-20b's shapes against roofs measured in the same run.

    mojo run -I custom_ops benchmarks/bench_cpu_kernels.mojo

Decode reads weights once, so it is judged in GB/s against a plain read of the same bytes by as many threads; prefill in
GFLOP/s against a loop of nothing but multiply_add. Each round times roof and kernel one after the other and takes their
ratio; the table gives medians over the rounds. Weights are random and larger than the caches together: six layers'.
"""

from std.benchmark import keep
from std.memory import bitcast
from std.random import random_float64, random_ui64, seed
from std.runtime import parallelism_level
from std.time import perf_counter_ns

from max.algorithm import sync_parallelize

from mxfp4.cpu.epilogue import BiasEpilogue, SwigluEpilogue
from mxfp4.cpu.grouped_matmul import RowGather, grouped_matmul
from mxfp4.cpu.bf16_rows import Bf16Rows
from mxfp4.cpu.mxfp4_rows import Mxfp4Rows
from mxfp4.cpu.weights import PREFETCH_BYTES, prefetch_byte
from mxfp4.pointers import ConstPointer
from mxfp4.cpu.words import (
    HAS_BF16_DOT,
    LANES,
    Floats,
    Sums,
    Words,
    multiply_add,
    per_word,
)

comptime K = 2880
comptime N1 = 5760
comptime N2 = 2880
comptime EXPERTS = 32
comptime TOP_K = 4
comptime LAYERS = 6
comptime ROUNDS = 15
comptime WORD = DType.bfloat16 if HAS_BF16_DOT else DType.float32


def _const[dtype: DType, //](list: List[Scalar[dtype]]) -> ConstPointer[dtype]:
    return list.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def _mut(list: List[Float32]) -> MutPointer[Float32, MutUntrackedOrigin]:
    return list.unsafe_ptr().unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


def _median(values: List[Float64]) -> Float64:
    var ordered = values.copy()
    sort(ordered)
    return ordered[len(ordered) // 2]


def _seconds_to_read(bytes: ConstPointer[DType.uint8], count: Int, threads: Int) -> Float64:
    """Reads `count` bytes once, each thread its own contiguous share."""
    var share = count // threads // 256 * 256

    def read(thread: Int) {imm}:
        var source = bytes.unsafe_offset(thread * share)
        var sums = Array[SIMD[DType.uint64, 8], 4](fill=SIMD[DType.uint64, 8](0))
        for i in range(0, share, 256):
            comptime for j in range(4):
                prefetch_byte(source.unsafe_offset(i + 64 * j + PREFETCH_BYTES))
                sums[j] ^= bitcast[DType.uint64, 8](
                    source.unsafe_load[width=64, alignment=1](i + 64 * j)
                )
        keep(sums[0] ^ sums[1] ^ sums[2] ^ sums[3])

    var begin = perf_counter_ns()
    sync_parallelize(read, threads)
    return Float64(perf_counter_ns() - begin) * 1e-9


def _peak_flops[word: DType](threads: Int) -> Float64:
    """FLOP/s of independent multiply_adds in registers."""
    comptime steps = 400_000
    comptime chains = 16

    def spin(thread: Int) {imm}:
        var sums = Array[Floats, chains](fill=Floats(0))
        var a = Words(0x3F80_3F80)
        for _ in range(steps):
            comptime for j in range(chains):
                sums[j] = rebind[Floats](multiply_add[word](rebind[Sums[word]](sums[j]), a, a))
        var total = Floats(0)
        comptime for j in range(chains):
            total += sums[j]
        keep(total)

    var begin = perf_counter_ns()
    sync_parallelize(spin, threads)
    var seconds = Float64(perf_counter_ns() - begin) * 1e-9
    return Float64(steps * chains * LANES * per_word(word) * 2 * threads) / seconds


@fieldwise_init
struct Layer(TrivialRegisterPassable):
    var w1: Mxfp4Rows[WORD]
    var w2: Mxfp4Rows[WORD]


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


def _route(tokens: Int, mut order: List[Int32], mut offsets: List[Int32]):
    """Random distinct experts for each token, as rows sorted by expert."""
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
    for e in range(EXPERTS):
        offsets[e] = Int32(place)
        for row in range(tokens * TOP_K):
            if chosen[row] == e:
                order[place] = Int32(row)
                place += 1
    offsets[EXPERTS] = Int32(place)


def _bench_experts(
    tokens: Int,
    rounds: Int,
    layers: List[Layer],
    blocks: ConstPointer[DType.uint8],
    bias: ConstPointer[DType.bfloat16],
) raises:
    var threads = parallelism_level()
    var rows = tokens * TOP_K
    var x = List[Float32](length=tokens * K, fill=0)
    for i in range(len(x)):
        x[i] = Float32(random_float64(-1, 1))
    var h = List[Float32](length=rows * N2, fill=0)
    var y = List[Float32](length=rows * N2, fill=0)
    var order = List[Int32](length=rows, fill=0)
    var offsets = List[Int32](length=EXPERTS + 1, fill=0)
    var rates = List[Float64]()
    var shares = List[Float64]()
    for _ in range(rounds):
        var seconds = Float64(0)
        var active = 0
        for layer in layers:
            _route(tokens, order, offsets)
            for e in range(EXPERTS):
                active += Int(offsets[e + 1] > offsets[e])
            var begin = perf_counter_ns()
            grouped_matmul[round_to_bf16=True](
                _const(x),
                RowGather(_const(order), TOP_K),
                layer.w1,
                _const(offsets),
                EXPERTS,
                N1,
                K,
                SwigluEpilogue(_mut(h), bias, N1, 7.0),
            )
            grouped_matmul[round_to_bf16=True](
                _const(h),
                RowGather(_const(order), 0),
                layer.w2,
                _const(offsets),
                EXPERTS,
                N2,
                K,
                BiasEpilogue[True](_mut(y), bias, N2),
            )
            seconds += Float64(perf_counter_ns() - begin) * 1e-9
        var bytes = active * (N1 + N2) * (K // 32) * 17
        if tokens <= 16:
            var roof = Float64(bytes) / _seconds_to_read(blocks, bytes, threads)
            rates.append(Float64(bytes) / seconds * 1e-9)
            shares.append(Float64(bytes) / seconds / roof)
        else:
            var flops = Float64(len(layers) * rows * (N1 + N2) * K * 2) / seconds
            rates.append(flops * 1e-9)
            shares.append(flops / _peak_flops[WORD](threads))
    print(
        "experts",
        "tokens",
        tokens,
        "|",
        round(_median(rates), 1),
        "GB/s" if tokens <= 16 else "GFLOP/s",
        "|",
        round(_median(shares), 3),
        "of the read" if tokens <= 16 else "of the peak",
        "|",
    )
    _ = x^
    _ = h^
    _ = y^
    _ = order^
    _ = offsets^


def _bench_dense(
    tokens: Int, n: Int, k: Int, rounds: Int, weights: ConstPointer[DType.uint8], total: Int
) raises:
    var threads = parallelism_level()
    var x = List[Float32](length=tokens * k, fill=0.5)
    var y = List[Float32](length=tokens * n, fill=0)
    var offsets = List[Int32](length=2, fill=0)
    offsets[1] = Int32(tokens)
    var rates = List[Float64]()
    var shares = List[Float64]()
    var matrices = max(1, total // (2 * n * k))
    for _ in range(rounds):
        var repeats = max(1, matrices if tokens == 1 else 1)
        var begin = perf_counter_ns()
        for matrix in range(repeats):
            var w = weights.unsafe_offset(matrix * 2 * n * k).unsafe_bitcast[BFloat16]()
            grouped_matmul[round_to_bf16=False](
                _const(x),
                RowGather(_const(offsets), 0),
                Bf16Rows[DType.float32](w, k),
                _const(offsets),
                1,
                n,
                k,
                BiasEpilogue[False](_mut(y), w, n),
            )
        var seconds = Float64(perf_counter_ns() - begin) * 1e-9
        if tokens <= 16:
            var bytes = repeats * 2 * n * k
            var roof = Float64(bytes) / _seconds_to_read(weights, bytes, threads)
            rates.append(Float64(bytes) / seconds * 1e-9)
            shares.append(Float64(bytes) / seconds / roof)
        else:
            var flops = Float64(tokens * n * k * 2) / seconds
            rates.append(flops * 1e-9)
            shares.append(flops / _peak_flops[DType.float32](threads))
    print(
        "dense",
        n,
        "x",
        k,
        "tokens",
        tokens,
        "|",
        round(_median(rates), 1),
        "GB/s" if tokens <= 16 else "GFLOP/s",
        "|",
        round(_median(shares), 3),
        "of the read" if tokens <= 16 else "of the peak",
        "|",
    )
    _ = x^
    _ = y^
    _ = offsets^


def main() raises:
    seed(1)
    comptime layer_blocks = EXPERTS * (N1 + N2) * K // 2
    comptime layer_scales = EXPERTS * (N1 + N2) * K // 32
    var blocks = _random_bytes(LAYERS * layer_blocks, 0x3F7F_3F7F_3F7F_3F7F, 0)
    var scales = _random_bytes(LAYERS * layer_scales, 0x0707_0707_0707_0707, 0x7474_7474_7474_7474)
    var bias = List[BFloat16](length=EXPERTS * N1, fill=0.25)
    var layers = List[Layer]()
    for i in range(LAYERS):
        var b = _const(blocks).unsafe_offset(i * layer_blocks)
        var s = _const(scales).unsafe_offset(i * layer_scales)
        layers.append(
            Layer(
                Mxfp4Rows[WORD](b, s, K // 32),
                Mxfp4Rows[WORD](
                    b.unsafe_offset(EXPERTS * N1 * K // 2),
                    s.unsafe_offset(EXPERTS * N1 * K // 32),
                    K // 32,
                ),
            )
        )
    print(
        parallelism_level(),
        "threads, ",
        LANES,
        "lanes,",
        WORD,
        "words; read roof",
        round(
            2e-9
            * Float64(layer_blocks)
            / _seconds_to_read(_const(blocks), 2 * layer_blocks, parallelism_level()),
            1,
        ),
        "GB/s, peak",
        round(_peak_flops[WORD](parallelism_level()) * 1e-9, 1),
        "GFLOP/s",
    )
    for tokens in [1, 2, 4, 8, 16]:
        _bench_experts(tokens, ROUNDS if tokens < 8 else 5, layers, _const(blocks), _const(bias))
    for tokens in [64, 512]:
        _bench_experts(tokens, 3, layers, _const(blocks), _const(bias))
    _bench_dense(1, 5120, 2880, ROUNDS, _const(blocks), len(blocks))
    _bench_dense(1, 201088, 2880, 3, _const(blocks), len(blocks))
    _bench_dense(4, 5120, 2880, ROUNDS, _const(blocks), len(blocks))
    _bench_dense(512, 5120, 2880, 3, _const(blocks), len(blocks))
    _ = blocks^
    _ = scales^
    _ = bias^
