"""Prints the PTX of the kernels for any GPU, each behind a line `// variant NAME` and what a launch needs."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.gpu.combine import combine_kernel
from mxfp4.gpu.dequantize import dequantize_kernel
from mxfp4.gpu.group import group_kernel
from mxfp4.gpu.grouped_matmul import strided_kernel
from mxfp4.gpu.route import route_kernel
from mxfp4.gpu.route_and_group import route_and_group_kernel, route_and_group_shared_bytes
from mxfp4.gpu.swizzle import swizzle_kernel


def _emit[
    kernel: TrivialRegisterPassable, //, function: kernel
](name: String, shared_bytes: Int = 0):
    print("// variant", name)
    print("// shared_bytes", shared_bytes)
    print(compile_info[function, emission_kind="asm", target=get_gpu_target["sm_90a"]()]().asm)


def main():
    _emit[route_kernel[1]]("route_1")
    _emit[route_kernel[4]]("route_4")
    _emit[route_kernel[16]]("route_16")
    _emit[group_kernel]("group")
    comptime bytes = route_and_group_shared_bytes(512)
    _emit[route_and_group_kernel[1]]("route_and_group_1", bytes)
    _emit[route_and_group_kernel[4]]("route_and_group_4", bytes)
    _emit[route_and_group_kernel[16]]("route_and_group_16", bytes)
    _emit[combine_kernel[1]]("combine_1")
    _emit[combine_kernel[8]]("combine_8")
    _emit[dequantize_kernel[DType.float32]]("dequantize_float32")
    _emit[dequantize_kernel[DType.bfloat16]]("dequantize_bfloat16")
    _emit[strided_kernel[False]]("strided")
    _emit[strided_kernel[True]]("strided_gated")
    _emit[swizzle_kernel]("swizzle")
