"""Prints the PTX of other ways to cut a matmul of few tokens, to be measured beside the model's: no model has them."""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.layouts.sm90_tiles import TILE_ROWS
from mxfp4.sm90.config import DECODE_8, MLP_8, MLP_16, Sm90Config
from mxfp4.sm90.grouped_matmul import grouped_matmul_kernel
from mxfp4.sm90.grouped_mlp import grouped_mlp_kernel


def _print_facts[config: Sm90Config](name: String):
    print("// variant", name)
    print("// cut 1")
    print("// shared_bytes", config.shared_bytes())
    print("// blocks", config.blocks)
    print("// tokens", config.tokens)
    print("// block_rows", config.row_tiles * TILE_ROWS)


def _emit_matmul[config: Sm90Config, gated: Bool](name: String):
    _print_facts[config](name)
    print(
        compile_info[
            grouped_matmul_kernel[config, gated],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def _emit_pair[config: Sm90Config](name: String):
    _emit_matmul[config, False](name)
    _emit_matmul[config, True](name + "_gated")


def _emit_mlp[config: Sm90Config](name: String):
    _print_facts[config](name)
    print(
        compile_info[
            grouped_mlp_kernel[config],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def _cut(
    of: Sm90Config, *, blocks: Int, row_tiles: Int, k_tiles: Int, stages: Int, loaders: Int
) -> Sm90Config:
    """Gives a configuration with one warp to load a stage."""
    var cut = of.loaded_by(threads=32, loaders=loaders)
    cut.blocks = blocks
    cut.row_tiles = row_tiles
    cut.k_tiles = k_tiles
    cut.stages = stages
    return cut


def main():
    # Names: blocks to a multiprocessor, row tiles, k tiles of a stage, stages, warps that take turns to load.
    comptime b4 = _cut(DECODE_8, blocks=4, row_tiles=1, k_tiles=3, stages=4, loaders=1)
    _emit_pair[b4]("b4r1k3s4l1")
    comptime few = _cut(DECODE_8, blocks=3, row_tiles=1, k_tiles=5, stages=4, loaders=2)
    _emit_pair[few]("b3r1k5s4l2")

    comptime one = _cut(MLP_8, blocks=3, row_tiles=1, k_tiles=5, stages=4, loaders=1)
    _emit_mlp[one]("mlp_b3r1k5s4l1")
    comptime short = _cut(MLP_8, blocks=3, row_tiles=1, k_tiles=3, stages=6, loaders=2)
    _emit_mlp[short]("mlp_b3r1k3s6l2")
    comptime two = _cut(MLP_8, blocks=2, row_tiles=1, k_tiles=5, stages=6, loaders=2)
    _emit_mlp[two]("mlp_b2r1k5s6l2")
    comptime long = _cut(MLP_8, blocks=2, row_tiles=1, k_tiles=8, stages=4, loaders=2)
    _emit_mlp[long]("mlp_b2r1k8s4l2")
    comptime wide = _cut(MLP_8, blocks=2, row_tiles=2, k_tiles=4, stages=4, loaders=2)
    _emit_mlp[wide]("mlp_b2r2k4s4l2")

    comptime one_16 = _cut(MLP_16, blocks=2, row_tiles=2, k_tiles=2, stages=6, loaders=1)
    _emit_mlp[one_16]("mlp_b2r2k2s6l1")
    comptime narrow_16 = _cut(MLP_16, blocks=2, row_tiles=1, k_tiles=4, stages=6, loaders=2)
    _emit_mlp[narrow_16]("mlp_b2r1k4s6l2")
