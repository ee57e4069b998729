"""Prints the PTX of dense products of few tokens for Hopper, each behind a line `// variant NAME`."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.sm90.dense import FEW_ROWS, ROWS, choose_rows, dense_kernel, shared_bytes


def _emit[dtype: DType, tokens: Int, rows: Int](name: String):
    print(t"// variant {name}")
    print("// shared_bytes", shared_bytes(tokens, rows))
    print("// rows", rows)
    for outputs in [1, 32, 128, 1056, 1057, 2880, 5120]:
        # On the 132 multiprocessors of an H100 or H200.
        print(t"// rows_{outputs} {choose_rows(outputs, 132)}")
    print(
        compile_info[
            dense_kernel[dtype, tokens, rows],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def main():
    comptime for tokens in [8, 16, 32]:
        _emit[DType.bfloat16, tokens, ROWS](String("dense_", tokens))
        _emit[DType.bfloat16, tokens, FEW_ROWS](String("few_", tokens))
    _emit[DType.float32, 8, FEW_ROWS]("router_8")
