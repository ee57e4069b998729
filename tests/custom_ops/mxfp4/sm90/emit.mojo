"""Prints the PTX of the Hopper kernels' variants, each behind a line `// variant NAME` and lines of what a launch needs.
"""

from max.gpu.host.compile import get_gpu_target
from std.compile import compile_info

from mxfp4.layouts.sm90_tiles import TILE_ROWS
from mxfp4.sm90.config import (
    DECODE_8,
    DECODE_16,
    MIDDLE_64,
    PREFILL_128,
    Sm90Config,
    choose_config,
)
from mxfp4.sm90.grouped_matmul import grouped_matmul_kernel


def _chosen_from(config: Sm90Config, experts: Int) -> Int:
    """Gives the fewest routed rows for which a configuration is chosen."""
    var rows = 1
    while not choose_config(rows, experts) == config:
        rows += 1
    return rows


def _emit[config: Sm90Config, gated: Bool](name: String):
    print("// variant", name)
    print("// shared_bytes", config.shared_bytes())
    print("// blocks", config.blocks)
    print("// tokens", config.tokens)
    print("// narrow_tokens", config.narrow_tokens())
    print("// k_tiles", config.k_tiles)
    print("// loaders", config.loaders)
    print("// block_rows", config.row_tiles * TILE_ROWS)
    print("// moves_registers", Int(config.moves_registers()))
    print("// chosen_from_32", _chosen_from(config, 32))
    print("// chosen_from_128", _chosen_from(config, 128))
    print(
        compile_info[
            grouped_matmul_kernel[config, gated],
            emission_kind="asm",
            target=get_gpu_target["sm_90a"](),
        ]().asm
    )


def _emit_both[config: Sm90Config](name: String):
    _emit[config, False](name)
    _emit[config, True](name + "_gated")


def main():
    _emit_both[DECODE_8]("decode_8")
    _emit_both[DECODE_16]("decode_16")
    _emit_both[MIDDLE_64]("middle_64")
    _emit_both[PREFILL_128]("prefill_128")
