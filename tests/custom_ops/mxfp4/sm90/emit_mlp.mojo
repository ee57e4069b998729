"""Prints the PTX of the kernels of both matmuls."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.layouts.sm90_tiles import TILE_ROWS
from mxfp4.sm90.config import MLP_8, MLP_16, Sm90Config
from mxfp4.sm90.grouped_mlp import grouped_mlp_kernel


def _emit[config: Sm90Config](name: String):
    print("// variant", name)
    print("// shared_bytes", config.shared_bytes())
    print("// blocks", config.blocks)
    print("// tokens", config.tokens)
    print("// narrow_tokens", config.narrow_tokens())
    print("// k_tiles", config.k_tiles)
    print("// loaders", config.loaders)
    print("// block_rows", config.row_tiles * TILE_ROWS)
    print(
        compile_info[
            grouped_mlp_kernel[config],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def main():
    _emit[MLP_8]("mlp_8")
    _emit[MLP_16]("mlp_16")
