"""A block's shared memory, in stages that are filled and multiplied in turn."""

from layout.tma_async import SharedMemBarrier
from max.gpu.memory import AddressSpace, fence_mbarrier_init

from ..layouts.sm90_tiles import STEPS, TILE_BYTES, scales_byte, word_byte
from .config import BARRIER_BYTES, Sm90Config
from .ptx import SharedBarrier, SharedBytes
from .schedule import SharedList

comptime SharedSums = Pointer[
    mut=True, Float32, MutUntrackedOrigin, address_space=AddressSpace.SHARED
]
"""Sums that one warpgroup hands to another."""


@fieldwise_init
struct Stages[config: Sm90Config](TrivialRegisterPassable):
    """Shared memory: activations, weights, the list of experts, barriers, sums.

    Parameters:
        config: How the matmul is cut.
    """

    var base: SharedBytes
    """Where it begins."""

    @inline(.always)
    def b(self, slot: Int32) -> SharedBytes:
        """Gives a stage's activations: [k tile][token] lines of 64 k, swizzled.

        Args:
            slot: The stage's slot.

        Returns:
            Where they lie.
        """
        return self.base.unsafe_offset(Int(slot * Int32(Self.config.b_bytes())))

    @inline(.always)
    def a(self, slot: Int32, row_tile: Int32, k_tile: Int) -> SharedBytes:
        """Gives a tile of a stage's weights.

        Args:
            slot: The stage's slot.
            row_tile: The row tile of the block.
            k_tile: The k tile of the stage.

        Returns:
            Where it lies.
        """
        return self.base.unsafe_offset(
            Int(
                slot * Int32(Self.config.a_bytes())
                + row_tile * Int32(Self.config.k_tiles * TILE_BYTES)
            )
            + Self.config.stages * Self.config.b_bytes()
            + k_tile * TILE_BYTES
        )

    @inline(.always)
    def weights(
        self, slot: Int32, row_tile: Int32, k_tile: Int, warp: Int, lane: Int
    ) -> Tuple[SIMD[DType.uint32, STEPS], UInt32]:
        """Loads what a lane multiplies of a tile.

        Args:
            slot: The stage's slot.
            row_tile: The row tile of the block.
            k_tile: The k tile of the stage.
            warp: The warp in its warpgroup.
            lane: The lane.

        Returns:
            Its words of codes, one for each step of 16 k, and its word of scales.
        """
        var tile = self.a(slot, row_tile, k_tile)
        var words = tile.unsafe_offset(word_byte(warp, lane, 0)).unsafe_bitcast[UInt32]()
        var scales = tile.unsafe_offset(scales_byte(warp, lane)).unsafe_bitcast[UInt32]()
        return words.unsafe_load[width=STEPS, alignment=16](), scales[]

    @inline(.always)
    def entries(self) -> SharedList:
        """Gives the list of experts.

        Returns:
            Where it lies.
        """
        comptime before = Self.config.stages * (Self.config.b_bytes() + Self.config.a_bytes())
        return self.base.unsafe_offset(before).unsafe_bitcast[SIMD[DType.int32, 4]]()

    @inline(.always)
    def full(self, slot: Int32) -> SharedBarrier:
        """Gives the barrier of a stage that is being filled.

        Args:
            slot: The stage's slot.

        Returns:
            The barrier.
        """
        comptime before = Self.config.stages * (Self.config.b_bytes() + Self.config.a_bytes())
        return self.base.unsafe_offset(
            before + Self.config.list_bytes() + Int(slot * BARRIER_BYTES)
        ).unsafe_bitcast[SharedMemBarrier]()

    @inline(.always)
    def empty(self, slot: Int32) -> SharedBarrier:
        """Gives the barrier of a stage that is being multiplied.

        Args:
            slot: The stage's slot.

        Returns:
            The barrier.
        """
        return self.full(Int32(Self.config.stages) + slot)

    @inline(.always)
    def init_barriers(self):
        """Makes the barriers ready; one thread does it, before all others come to them."""
        comptime for slot in range(Self.config.stages):
            # Each loading thread arrives behind its copies, and one says how many bytes of weights there will be.
            self.full(Int32(slot))[].init(Int32(Self.config.loading_threads + 1))
            self.empty(Int32(slot))[].init(
                Int32(4 * Self.config.warpgroups // Self.config.sharers())
            )
        fence_mbarrier_init()

    @inline(.always)
    def sums(self) -> SharedSums:
        """Gives where warpgroups that split k hand over their sums.

        Returns:
            Where they lie.
        """
        return self.full(Int32(2 * Self.config.stages)).unsafe_bitcast[Float32]()


struct Turns[stages: Int, step: Int](TrivialRegisterPassable):
    """The stages of one of `step` that take turns: which slot its next one has, and in which round.

    Turns go on from one work item to the next, whatever the number of stages an item has.

    Parameters:
        stages: Slots.
        step: How many take turns.
    """

    var slot: Int32
    """Where the next stage lies."""
    var parity: UInt32
    """Of the round."""
    var stage: Int32
    """Which one of the work item it is."""

    def __init__(out self, place: Int32):
        """Begins with the first round.

        Args:
            place: Whose turns these are, 0..step-1.
        """
        comptime assert Self.step <= Self.stages, "a turn must be over within a round"
        self.slot = place
        self.parity = 0
        self.stage = place

    @inline(.always)
    def advance(mut self):
        """Goes on to the next turn."""
        self.stage += Int32(Self.step)
        self.slot += Int32(Self.step)
        if self.slot >= Int32(Self.stages):
            self.slot -= Int32(Self.stages)
            self.parity ^= 1
