"""Keys and values out of the paged cache, a tile at a time, in the order in which attention multiplies them."""

from std.memory import bitcast
from std.sys import size_of

from ..paged_cache import PagedCache
from ..pointers import ConstPointer
from .transpose import transpose_square
from .weights import WordPointer, prefetch_byte
from .words import LANES, Words, per_word, word_of

comptime TILE_VECTORS = 4
"""Registers of keys in a tile."""

comptime TILE_KEYS = TILE_VECTORS * LANES
"""Keys of a tile; a page holds whole tiles."""

comptime _LINE_BYTES = 64
"""Of a cache line."""


@fieldwise_init
struct CacheTile[dtype: DType](TrivialRegisterPassable):
    """Up to TILE_KEYS consecutive positions of a sequence in one kv head.

    Parameters:
        dtype: What the cache holds: float32 or bfloat16.
    """

    comptime word = word_of(Self.dtype)
    """What words hold: bfloat16 where the cache does and the CPU multiplies it, else float32."""
    comptime per_word = per_word(Self.word)
    """Elements in a word."""

    var keys: ConstPointer[Self.dtype]
    """The first position's key."""
    var values: ConstPointer[Self.dtype]
    """The first position's value."""
    var stride: Int
    """Elements from one position to the next."""
    var head_dim: Int
    """Elements of a key, and of a value."""
    var positions: Int
    """How many are there."""

    @staticmethod
    def at(
        cache: PagedCache[Self.dtype], sequence: Int, first: Int, positions: Int, kv_head: Int
    ) -> Self:
        """Finds a tile.

        Args:
            cache: One layer's cache.
            sequence: The sequence.
            first: Its position, a multiple of TILE_KEYS.
            positions: How many there are, at most TILE_KEYS.
            kv_head: The head.

        Returns:
            The tile.
        """
        return Self(
            cache.pages.unsafe_offset(cache.offset(sequence, first, False, kv_head)),
            cache.pages.unsafe_offset(cache.offset(sequence, first, True, kv_head)),
            cache.row_stride(),
            cache.head_dim,
            positions,
        )

    def transpose_keys(self, target: WordPointer, mut ahead: PrefetchWalk[Self.dtype]):
        """Writes word w of every key side by side, zeros for absent keys.

        Args:
            target: [head_dim / per_word, TILE_KEYS].
            ahead: Walks on, by the share that this has of the time until the next tile.
        """
        for first in range(0, TILE_KEYS, LANES):
            for word in range(0, self.head_dim // Self.per_word, LANES):
                var square = Array[Words, LANES](fill=Words(0))
                comptime for i in range(LANES):
                    if first + i < self.positions:
                        square[i] = _load_words(
                            self.keys.unsafe_offset((first + i) * self.stride), word
                        )
                    comptime if i % (LANES // 2) == 0:
                        _ = ahead.step()
                transpose_square(square)
                comptime for i in range(LANES):
                    target.unsafe_store((word + i) * TILE_KEYS + first, square[i])

    def interleave_values(self, target: WordPointer, mut ahead: PrefetchWalk[Self.dtype]):
        """Writes values with as many neighbouring positions in a word as it holds elements, zeros for absent ones.

        Args:
            target: [TILE_KEYS / per_word, head_dim].
            ahead: Walks on, by the share that this has of the time until the next tile.
        """
        for word in range(TILE_KEYS // Self.per_word):
            if word % 2:
                _ = ahead.step()
            var position = word * Self.per_word
            var row = self.values.unsafe_offset(position * self.stride)
            var line = target.unsafe_offset(word * self.head_dim)
            for d in range(0, self.head_dim, Self.per_word * LANES):
                var first = Words(0)
                if position < self.positions:
                    first = _load_words(row, d // Self.per_word)
                comptime if Self.word == DType.bfloat16:
                    var second = Words(0)
                    if position + 1 < self.positions:
                        second = _load_words(row.unsafe_offset(self.stride), d // 2)
                    var pairs = bitcast[DType.uint16, 2 * LANES](first).interleave(
                        bitcast[DType.uint16, 2 * LANES](second)
                    )
                    line.unsafe_store(d, bitcast[DType.uint32, 2 * LANES](pairs))
                else:
                    line.unsafe_store(d, first)


@fieldwise_init
struct PrefetchWalk[dtype: DType](TrivialRegisterPassable):
    """A walk over a tile's keys and then its values, asked for one by one while another tile is computed with.

    A core has only so many misses at once, and waits where more are asked for together.

    Parameters:
        dtype: What the cache holds.
    """

    var tile: CacheTile[Self.dtype]
    """The tile."""
    var done: Int
    """Keys and values asked for."""

    @inline(.always)
    def step(mut self) -> Bool:
        """Asks for the next key or value, if there is one.

        Returns:
            Whether there was.
        """
        var position = self.done
        var source = self.tile.keys
        if position >= self.tile.positions:
            position -= self.tile.positions
            source = self.tile.values
            if position >= self.tile.positions:
                return False
        comptime line = _LINE_BYTES // size_of[Scalar[Self.dtype]]()
        for d in range(0, self.tile.head_dim, line):
            var at = position * self.tile.stride + d
            prefetch_byte(source.unsafe_offset(at).unsafe_bitcast[UInt8]())
        self.done += 1
        return True


@inline(.always)
def _load_words[dtype: DType, //](row: ConstPointer[dtype], first: Int) -> Words:
    """Loads a register of words of a key or value, as they are or widened."""
    comptime if word_of(dtype) == dtype:
        return row.unsafe_bitcast[UInt32]().unsafe_load[width=LANES, alignment=4](first)
    else:
        var bits = row.unsafe_bitcast[UInt16]().unsafe_load[width=LANES, alignment=2](first)
        return bits.cast[DType.uint32]() << 16
