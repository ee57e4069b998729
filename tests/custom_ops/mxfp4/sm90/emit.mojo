"""Prints the PTX of the Hopper kernels' variants, each behind a line `// variant NAME`."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.sm90.config import DECODE_8, DECODE_16, MIDDLE_32, MIDDLE_64, PREFILL_128, Sm90Config
from mxfp4.sm90.grouped_matmul import grouped_matmul_kernel


def _emit[config: Sm90Config, gated: Bool](name: String):
    print("// variant", name)
    print(
        compile_info[
            grouped_matmul_kernel[config, gated],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def main():
    _emit[DECODE_8, False]("decode_8")
    _emit[DECODE_16, True]("decode_16_gated")
    _emit[MIDDLE_32, False]("middle_32")
    _emit[MIDDLE_64, True]("middle_64_gated")
    _emit[PREFILL_128, False]("prefill_128")
    _emit[PREFILL_128, True]("prefill_128_gated")
