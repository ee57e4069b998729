"""Prints the PTX of dense products of few tokens for Hopper, each behind a line `// variant NAME`."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.sm90.dense import dense_kernel, shared_bytes


def _emit[dtype: DType, tokens: Int](name: String):
    print(t"// variant {name}")
    print("// shared_bytes", shared_bytes(tokens))
    print(
        compile_info[
            dense_kernel[dtype, tokens], emission_kind="asm", target=get_gpu_target["sm_90a"]()
        ]().asm
    )


def main():
    comptime for tokens in [8, 16, 32]:
        _emit[DType.bfloat16, tokens](String("dense_", tokens))
    _emit[DType.float32, 8]("router_8")
