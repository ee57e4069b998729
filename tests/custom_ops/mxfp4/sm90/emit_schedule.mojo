"""Prints the PTX of a kernel that does nothing but list experts and write down the work items of its block.

Each is five numbers: item, expert, first row, end of the rows, block of weight rows.
"""

from max.gpu import block_idx, grid_dim, thread_idx
from max.gpu.host.compile import get_gpu_target
from max.gpu.memory import AddressSpace, external_memory
from max.gpu.sync import syncwarp
from std.compile import compile_info

from mxfp4.pointers import ConstPointer
from mxfp4.sm90.config import DECODE_8, PREFILL_128, Sm90Config
from mxfp4.sm90.schedule import Schedule, list_experts


def _walk[
    config: Sm90Config, in_tiles: Bool
](
    items: MutPointer[Int32, MutUntrackedOrigin],
    offsets: ConstPointer[DType.int32],
    experts: Int32,
    rows: Int32,
    n: Int32,
):
    # Not where shared memory begins: LLVM counts from the entry before the first one.
    var entries = external_memory[
        SIMD[DType.int32, 4], address_space=AddressSpace.SHARED, alignment=16
    ]().unsafe_offset(1)
    var of_tile = 1 if in_tiles else Int32(config.row_blocks(Int(n)))
    list_experts[config, waited=True](entries, offsets, experts, rows, of_tile, Int32(thread_idx.x))
    syncwarp()
    var schedule = Schedule[config, in_tiles](entries, n)
    var item = Int32(block_idx.x)
    while schedule.has(item):
        var work = schedule.work(item)
        if thread_idx.x == 0:
            var at = items.unsafe_offset(Int(item) * 5)
            at[unsafe_offset=0] = item
            at[unsafe_offset=1] = work.expert
            at[unsafe_offset=2] = work.first_row
            at[unsafe_offset=3] = work.end_row
            at[unsafe_offset=4] = work.row_block
        item += Int32(grid_dim.x)


def _emit[config: Sm90Config, in_tiles: Bool = False](name: String):
    print("// variant", name)
    print("// shared_bytes", 16 + config.list_bytes())
    print("// tokens", config.tokens)
    print("// narrow_last", config.narrow_tokens() if config.narrow_last() else 0)
    print("// row_tiles", config.row_tiles)
    print(
        compile_info[
            _walk[config, in_tiles], emission_kind="asm", target=get_gpu_target["sm_90a"]()
        ]().asm
    )


def main():
    _emit[DECODE_8]("decode_8")
    _emit[DECODE_8, in_tiles=True]("decode_8_in_tiles")
    _emit[PREFILL_128]("prefill_128")
