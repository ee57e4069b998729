"""Prints the PTX of the kernels for any GPU, each behind a line `// variant NAME` and what a launch needs."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.gpu.combine import combine_kernel
from mxfp4.gpu.dequantize import dequantize_kernel
from mxfp4.gpu.group import group_kernel
from mxfp4.gpu.grouped_matmul import strided_kernel
from mxfp4.gpu.route import route_kernel, route_shared_bytes
from mxfp4.gpu.route_and_group import route_and_group_kernel, route_and_group_shared_bytes
from mxfp4.gpu.swizzle import swizzle_kernel


def _emit[
    kernel: TrivialRegisterPassable, //, function: kernel
](name: String, shared_bytes: Int = 0):
    print("// variant", name)
    print("// shared_bytes", shared_bytes)
    print(compile_info[function, emission_kind="asm", target=get_gpu_target["sm_90a"]()]().asm)


def main():
    _emit[route_kernel]("route", route_shared_bytes(256, 8))
    _emit[group_kernel]("group")
    _emit[route_and_group_kernel]("route_and_group", route_and_group_shared_bytes(64, 256, 8))
    _emit[combine_kernel[1]]("combine_1")
    _emit[combine_kernel[8]]("combine_8")
    _emit[dequantize_kernel[DType.float32]]("dequantize_float32")
    _emit[dequantize_kernel[DType.bfloat16]]("dequantize_bfloat16")
    _emit[strided_kernel[False]]("strided")
    _emit[strided_kernel[True]]("strided_gated")
    _emit[swizzle_kernel]("swizzle")
