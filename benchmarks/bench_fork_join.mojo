"""What it costs to call all threads together and let them go: the price of each parallel loop of the kernels.

    ./run mojo run benchmarks/bench_fork_join.mojo

Prints microseconds of loops that do nothing, one after another and after pauses in which the threads may fall asleep.
"""

from max.algorithm import sync_parallelize
from std.runtime import parallelism_level
from std.time import perf_counter_ns, sleep


def measure(threads: Int, pause: Float64, rounds: Int) raises -> List[Float64]:
    """Times loops of one step for each thread.

    Args:
        threads: How many steps.
        pause: Seconds before each loop.
        rounds: How many loops.

    Returns:
        Microseconds of each loop, sorted.
    """

    def nothing(i: Int) {imm}:
        pass

    var times = List[Float64]()
    for _ in range(rounds):
        if pause > 0:
            sleep(pause)
        var begin = perf_counter_ns()
        sync_parallelize(nothing, threads)
        times.append(Float64(perf_counter_ns() - begin) / 1000)
    sort(times)
    return times^


def main() raises:
    print("threads, pause in us: min, median, 90% in us")
    for threads in [1, parallelism_level()]:
        for pause in [0, 100, 1000, 10000]:
            var times = measure(threads, Float64(pause) / 1e6, 2000 if pause == 0 else 100)
            print(
                threads,
                pause,
                times[0],
                times[50 * len(times) // 100],
                times[90 * len(times) // 100],
            )
