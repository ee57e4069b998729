"""A block's shared memory: a ring buffer of stages that producers fill and consumers multiply."""

from layout.tma_async import SharedMemBarrier
from max.gpu.memory import fence_mbarrier_init

from ..layouts.sm90_tiles import STEPS, TILE_BYTES, scales_byte, word_byte
from .config import BARRIER_BYTES, Sm90Config
from .ptx import SharedBarrier, SharedBytes, SharedFloats
from .schedule import SharedList


@fieldwise_init
struct Stages[config: Sm90Config](TrivialRegisterPassable):
    """Layout of shared memory: activations, weights, the list of experts, barriers, sums.

    Parameters:
        config: The tiling configuration.
    """

    var base: SharedBytes
    """Start of the shared memory."""

    @inline(.always)
    def b(self, slot: Int32) -> SharedBytes:
        """Returns a stage's activations: [k tile][token] lines of 64 k, swizzled.

        Args:
            slot: The stage's slot.

        Returns:
            Their address.
        """
        return self.base.unsafe_offset(Int(slot * Int32(Self.config.b_bytes())))

    @inline(.always)
    def a(self, slot: Int32, row_tile: Int32, k_tile: Int) -> SharedBytes:
        """Returns a tile of a stage's weights.

        Args:
            slot: The stage's slot.
            row_tile: The row tile within the block.
            k_tile: The k tile within the stage.

        Returns:
            Its address.
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
        """Loads a lane's codes and scales of a tile.

        Args:
            slot: The stage's slot.
            row_tile: The row tile within the block.
            k_tile: The k tile within the stage.
            warp: The index of the warp in its warpgroup.
            lane: The lane.

        Returns:
            The words of codes, one per step of 16 k, and the word of scales.
        """
        var tile = self.a(slot, row_tile, k_tile)
        var words = tile.unsafe_offset(word_byte(warp, lane, 0)).unsafe_bitcast[UInt32]()
        var scales = tile.unsafe_offset(scales_byte(warp, lane)).unsafe_bitcast[UInt32]()
        return words.unsafe_load[width=STEPS, alignment=16](), scales[]

    @inline(.always)
    def entries(self) -> SharedList:
        """Returns the list of experts.

        Returns:
            Its address.
        """
        comptime before = Self.config.stages * (Self.config.b_bytes() + Self.config.a_bytes())
        return self.base.unsafe_offset(before).unsafe_bitcast[SIMD[DType.int32, 4]]()

    @inline(.always)
    def full(self, slot: Int32) -> SharedBarrier:
        """Returns the full barrier of a slot, on which consumers wait.

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
        """Returns the empty barrier of a slot, on which producers wait.

        Args:
            slot: The stage's slot.

        Returns:
            The barrier.
        """
        return self.full(Int32(Self.config.stages) + slot)

    @inline(.always)
    def init_barriers(self):
        """Initializes the barriers, by one thread before any other uses them."""
        comptime for slot in range(Self.config.stages):
            # Each loading thread arrives after its copies, and one also when it announces the bytes of weights.
            self.full(Int32(slot))[].init(Int32(Self.config.loading_threads + 1))
            self.empty(Int32(slot))[].init(
                Int32(4 * Self.config.warpgroups // Self.config.sharers())
            )
        fence_mbarrier_init()

    @inline(.always)
    def sums(self) -> SharedFloats:
        """Returns where warpgroups that split k exchange their sums.

        Returns:
            Their address.
        """
        return self.full(Int32(2 * Self.config.stages)).unsafe_bitcast[Float32]()


struct Turns[stages: Int, step: Int](TrivialRegisterPassable):
    """The stages of one of `step` participants that take turns: the slot of its next stage, and the round's parity.

    Turns continue from one work item to the next, whatever the number of stages of an item.

    Parameters:
        stages: Slots of the ring buffer.
        step: Participants that take turns.
    """

    var slot: Int32
    """Slot of the next stage."""
    var parity: UInt32
    """Parity of the round."""
    var stage: Int32
    """Index of the next stage in the work item."""

    def __init__(out self, place: Int32):
        """Starts in the first round.

        Args:
            place: The participant, 0..step-1.
        """
        comptime assert Self.step <= Self.stages, "a turn must be over within a round"
        self.slot = place
        self.parity = 0
        self.stage = place

    @inline(.always)
    def advance(mut self):
        """Advances to the next turn."""
        self.stage += Int32(Self.step)
        self.slot += Int32(Self.step)
        if self.slot >= Int32(Self.stages):
            self.slot -= Int32(Self.stages)
            self.parity ^= 1
