"""Prints the PTX of attention for Hopper, each behind a line `// variant NAME`, and what a launch needs."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.sm90.attention import MANY_WARPS, WARPS, attention_kernel, choose_parts, choose_warps


def _emit[warps: Int]():
    print(t"// variant attention_{warps}")
    for sequences in [1, 2, 4, 8, 16, 32, 64]:
        # 8 key-value heads, as both models have, on the 132 multiprocessors of an H100 or H200.
        var parts = choose_parts(sequences, 8, 0, 132)
        print(t"// parts_{sequences} {parts}")
        print(t"// warps_{sequences} {choose_warps(8 * sequences, parts, 0, 132)}")
        var of_window = choose_parts(sequences, 8, 128, 132)
        print(t"// parts_window_{sequences} {of_window}")
        print(t"// warps_window_{sequences} {choose_warps(8 * sequences, of_window, 128, 132)}")
    print(
        compile_info[
            attention_kernel[warps], emission_kind="asm", target=get_gpu_target["sm_90a"]()
        ]().asm
    )


def main():
    _emit[WARPS]()
    _emit[MANY_WARPS]()
