"""What it costs to have every thread of the pool do nothing: the price of each parallel loop of the kernels.

    ./run mojo run benchmarks/bench_fork_join.mojo

Prints microseconds: of rounds in a row, and of rounds after a pause in which the threads may fall asleep.
"""

from std.algorithm import sync_parallelize
from std.runtime import parallelism_level
from std.time import perf_counter_ns, sleep
