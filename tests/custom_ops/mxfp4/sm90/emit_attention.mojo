"""Prints the PTX of attention for Hopper behind a line `// variant attention`, and what a launch needs."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.sm90.attention import attention_kernel, choose_parts


def main():
    print("// variant attention")
    for sequences in [1, 2, 4, 8, 16, 32, 64]:
        # 8 key-value heads, as both models have, on the 132 multiprocessors of an H100 or H200.
        print(t"// parts_{sequences} {choose_parts(sequences, 8, 0, 132)}")
        print(t"// parts_window_{sequences} {choose_parts(sequences, 8, 128, 132)}")
    print(
        compile_info[attention_kernel, emission_kind="asm", target=get_gpu_target["sm_90a"]()]().asm
    )
