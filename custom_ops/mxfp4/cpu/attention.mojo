"""Causal attention with sinks and a window over a paged cache, on a CPU.

    for each task, queries of one sequence in some heads: rows = queries x heads
        begin rows; the sink joins the softmax once, as a score without a value
        for each tile of keys that a query of the task sees:
            scores = q . k * scale, of the keys that a row sees; add weights . v    # softmax_rows.mojo
        out = sums / total

A task has as many queries or kv heads as make 64 rows: a tile is put in order once for all rows of a kv head, and one
token's keys are read as they lie, all heads of a position together. One token's keys are cut into parts of fixed length,
a task each, whose rows are joined afterwards: what comes out does not depend on how many threads there are.

Both products are of words: pairs of bfloat16 where the cache holds them and the CPU multiplies them, weights rounded then;
else float32.

MAX's own CPU kernel adds the sink once per 128 keys, so its outputs are wrong past 128 tokens (NOTES N8).
"""

from std.math import ceildiv
from std.memory import bitcast

from max.algorithm import sync_parallelize
from std.runtime import parallelism_level

from ..pointers import ConstPointer
from .cache_tile import TILE_KEYS, TILE_VECTORS, CacheTile, PrefetchWalk
from .dot import FloatPointer
from .paged_cache import PagedCache
from .softmax_rows import Scores, SoftmaxRows
from .weights import WordPointer
from .words import LANES, Floats, Sums, Words, multiply_add, nearest_bf16, per_word, word_of

comptime _MAX_GROUP = 2 if LANES == 8 else 4
"""Rows multiplied together: their sums fill the registers, of which AVX2 has half as many."""

comptime _TASK_ROWS = 64
"""Rows of a task, or the heads that share a key where they are more."""

comptime _PART_KEYS = 256
"""Keys of a part: whole tiles; two threads would have half of so many no sooner than one has them all."""

comptime _MIN_WORK_PER_THREAD = 1 << 18
"""Multiplications worth a thread of their own."""

comptime _LOG2_E = Float32(1.4426950408889634)


@fieldwise_init
struct _Task(Copyable, ImplicitlyCopyable, Movable):
    """Consecutive queries of one sequence, consecutive kv heads, and consecutive keys.

    Row (h * tokens + t) * shared + i is query t in head i of those that share the task's kv head h.
    """

    var sequence: Int
    var first_token: Int
    """The first query's row in the ragged batch."""
    var first_position: Int
    """Its position in the sequence."""
    var tokens: Int
    var first_kv_head: Int
    var kv_heads: Int
    var first_key: Int
    """A multiple of TILE_KEYS."""
    var end_key: Int
    var first_row: Int
    """Where its rows are among those of parts, or -1 where it has all keys."""
    var has_sink: Bool
    """Whether it has the first keys, to which the sink is counted."""


@fieldwise_init
struct _Scratch(TrivialRegisterPassable):
    """What one thread multiplies."""

    var queries: WordPointer
    """[rows, query words]."""
    var keys: WordPointer
    """[query words, TILE_KEYS]."""
    var values: WordPointer
    """[key words, head_dim]."""
    var weights: WordPointer
    """[group, key words]."""

    @staticmethod
    def size(rows: Int, head_dim: Int, per_word: Int) -> Int:
        return (rows + TILE_KEYS) * (head_dim // per_word) + (head_dim + _MAX_GROUP) * (
            TILE_KEYS // per_word
        )

    @staticmethod
    def at(words: WordPointer, rows: Int, head_dim: Int, per_word: Int) -> Self:
        var keys = words.unsafe_offset(rows * (head_dim // per_word))
        var values = keys.unsafe_offset(TILE_KEYS * (head_dim // per_word))
        return Self(words, keys, values, values.unsafe_offset(head_dim * (TILE_KEYS // per_word)))


@fieldwise_init
struct Attention[cache_dtype: DType](TrivialRegisterPassable):
    """One layer's attention over a ragged batch whose keys and values are in the cache already.

    Parameters:
        cache_dtype: What the cache holds, and queries are rounded to: float32 or bfloat16.
    """

    comptime word = word_of(Self.cache_dtype)
    """What words hold."""
    comptime per_word = per_word(Self.word)
    """Elements in a word."""

    var out: MutPointer[Float32, MutUntrackedOrigin]
    """[T, heads, head_dim] float32."""
    var q: ConstPointer[DType.float32]
    """[T, heads, head_dim] float32, rotated."""
    var sinks: ConstPointer[DType.float32]
    """[heads] float32, one logit per query head."""
    var cache: PagedCache[Self.cache_dtype]
    """Keys, rotated, and values."""
    var heads: Int
    """Query heads, a multiple of the cache's."""
    var scale: Float32
    """What scores are multiplied by."""
    var window: Int
    """Positions a query sees, itself included; below 1 for all."""

    def shared(self) -> Int:
        """Gives how many query heads share a kv head.

        Returns:
            At least 1.
        """
        return self.heads // self.cache.kv_heads

    def first_seen(self, position: Int) -> Int:
        """Gives the first position that the query at a position sees.

        Args:
            position: The query's.

        Returns:
            At least 0.
        """
        return max(0, position - self.window + 1) if self.window > 0 else 0

    def run(
        self,
        row_offsets: ConstPointer[DType.uint32],
        cache_lengths: ConstPointer[DType.uint32],
        sequences: Int,
    ):
        """Attends every query of the batch.

        Args:
            row_offsets: [sequences + 1] uint32, where each sequence's queries begin in q.
            cache_lengths: [sequences] uint32, positions of each sequence before them.
            sequences: B.
        """
        var tasks = List[_Task]()
        var part_rows = 0
        var work = 0
        var most_tokens = max(1, _TASK_ROWS // self.shared())
        for sequence in range(sequences):
            var begin = Int(row_offsets[unsafe_offset=sequence])
            var end = Int(row_offsets[unsafe_offset=sequence + 1])
            var before = Int(cache_lengths[unsafe_offset=sequence])
            for first in range(begin, end, most_tokens):
                var tokens = min(most_tokens, end - first)
                var position = before + first - begin
                self._add_tasks(sequence, first, position, tokens, tasks, part_rows)
                var seen = position + tokens - self.first_seen(position)
                work += tokens * seen * self.heads * self.cache.head_dim * 2
        var threads = max(1, min(parallelism_level(), len(tasks), work // _MIN_WORK_PER_THREAD))

        var head_dim = self.cache.head_dim
        var parts_buffer = _buffer(SoftmaxRows.size(part_rows, head_dim))
        var parts = SoftmaxRows.at(_pointer(parts_buffer), part_rows, head_dim)

        def attend(thread: Int) {imm}:
            var rows = max(_TASK_ROWS, self.shared())
            var scratch_buffer = _buffer(_Scratch.size(rows, head_dim, Self.per_word))
            var scratch = _Scratch.at(
                _pointer(scratch_buffer).unsafe_bitcast[UInt32](), rows, head_dim, Self.per_word
            )
            var whole_buffer = _buffer(SoftmaxRows.size(rows, head_dim))
            var whole = SoftmaxRows.at(_pointer(whole_buffer), rows, head_dim)
            # The longest tasks are the last queries'.
            for i in range(len(tasks) - 1 - thread, -1, -threads):
                var task = tasks[i]
                if task.first_row >= 0:
                    self._attend(task, scratch, parts, task.first_row)
                else:
                    self._attend(task, scratch, whole, 0)
                    self._write(task, whole, 0)
            _ = scratch_buffer^
            _ = whole_buffer^

        if threads == 1:
            attend(0)
        else:
            sync_parallelize(attend, threads)
        var first = _Task(0, 0, 0, 0, 0, 0, 0, 0, -1, False)
        for task in tasks:
            if task.has_sink:
                if first.first_row >= 0:
                    self._write(first, parts, first.first_row)
                first = task
            else:
                for row in range(task.kv_heads * self.shared()):
                    parts.join(first.first_row + row, task.first_row + row)
        if first.first_row >= 0:
            self._write(first, parts, first.first_row)
        _ = parts_buffer^

    def _add_tasks(
        self,
        sequence: Int,
        first_token: Int,
        first_position: Int,
        tokens: Int,
        mut tasks: List[_Task],
        mut part_rows: Int,
    ):
        """Makes tasks of a few queries, which have all keys or, of one query, a part of them each.
        """
        var kv_heads = max(1, _TASK_ROWS // (tokens * self.shared()))
        var first_key = self.first_seen(first_position) // TILE_KEYS * TILE_KEYS
        var end_key = first_position + tokens
        var split = tokens == 1 and end_key - first_key > _PART_KEYS
        for head in range(0, self.cache.kv_heads, kv_heads):
            var task = _Task(
                sequence,
                first_token,
                first_position,
                tokens,
                head,
                min(kv_heads, self.cache.kv_heads - head),
                first_key,
                end_key,
                -1,
                True,
            )
            if not split:
                tasks.append(task)
                continue
            for key in range(first_key, end_key, _PART_KEYS):
                task.first_key = key
                task.end_key = min(key + _PART_KEYS, end_key)
                task.first_row = part_rows
                tasks.append(task)
                part_rows += task.kv_heads * self.shared()
                task.has_sink = False

    def _attend(self, task: _Task, scratch: _Scratch, rows: SoftmaxRows, first_row: Int):
        """Gives a task's rows their keys."""
        if self.shared() % _MAX_GROUP == 0:
            self._attend_in[_MAX_GROUP](task, scratch, rows, first_row)
        elif self.shared() % 2 == 0:
            self._attend_in[2](task, scratch, rows, first_row)
        else:
            self._attend_in[1](task, scratch, rows, first_row)

    def _attend_in[
        group: Int
    ](self, task: _Task, scratch: _Scratch, rows: SoftmaxRows, first_row: Int):
        """Gives a task's rows their keys, in groups that divide the heads which share a key.

        Parameters:
            group: Rows of one query that are multiplied together.
        """
        var shared = self.shared()
        var query_words = self.cache.head_dim // Self.per_word
        for row in range(task.kv_heads * task.tokens * shared):
            var head = self._head(task, row)
            var at = self._token(task, row) * self.heads + head
            self._pack_query(at, scratch.queries.unsafe_offset(row * query_words))
            rows.begin(first_row + row)
            if task.has_sink:
                rows.add_score(first_row + row, self.sinks[unsafe_offset=head] * _LOG2_E)

        var next = self._tile(task, task.first_key, 0)
        for first_key in range(task.first_key, task.end_key, TILE_KEYS):
            for h in range(task.kv_heads):
                var tile = next
                if h + 1 < task.kv_heads:
                    next = self._tile(task, first_key, h + 1)
                elif first_key + TILE_KEYS < task.end_key:
                    next = self._tile(task, first_key + TILE_KEYS, 0)
                var ahead = PrefetchWalk(next, 0)
                tile.turn_keys(scratch.keys, ahead)
                tile.pair_values(scratch.values, ahead)
                for t in range(task.tokens):
                    var position = task.first_position + t
                    var low = max(0, self.first_seen(position) - first_key)
                    var high = min(position - first_key + 1, TILE_KEYS)
                    if high <= low:
                        continue
                    for i in range(0, shared, group):
                        var row = (h * task.tokens + t) * shared + i
                        self._attend_group[group](
                            scratch, row, rows, first_row + row, low, high, ahead
                        )
                while ahead.step():
                    pass

    @inline(.always)
    def _attend_group[
        group: Int
    ](
        self,
        scratch: _Scratch,
        query: Int,
        rows: SoftmaxRows,
        first_row: Int,
        low: Int,
        high: Int,
        mut ahead: PrefetchWalk[Self.cache_dtype],
    ):
        """Gives `group` rows the keys low..high-1 of a tile."""
        comptime key_words = TILE_KEYS // Self.per_word
        var head_dim = self.cache.head_dim
        var query_words = head_dim // Self.per_word
        var products = Array[Floats, group * TILE_VECTORS](fill=Floats(0))
        _multiply[Self.word, group](
            scratch.queries.unsafe_offset(query * query_words),
            query_words,
            scratch.keys,
            TILE_KEYS,
            0,
            query_words,
            products,
            ahead,
        )
        var shrinks = Array[Float32, group](fill=0)
        comptime for g in range(group):
            var scores = Scores(fill=Floats(0))
            comptime for v in range(TILE_VECTORS):
                scores[v] = products[g * TILE_VECTORS + v] * (self.scale * _LOG2_E)
            shrinks[g] = rows.weigh(first_row + g, scores, low, high)
            _store_weights[Self.word](scores, scratch.weights.unsafe_offset(g * key_words))
        for d in range(0, head_dim, TILE_KEYS):
            var sums = rows.sums.unsafe_offset(first_row * head_dim + d)
            comptime for g in range(group):
                comptime for v in range(TILE_VECTORS):
                    products[g * TILE_VECTORS + v] = (
                        sums.unsafe_load[width=LANES](g * head_dim + v * LANES) * shrinks[g]
                    )
            _multiply[Self.word, group](
                scratch.weights,
                key_words,
                scratch.values.unsafe_offset(d),
                head_dim,
                low // Self.per_word,
                ceildiv(high, Self.per_word),
                products,
                ahead,
            )
            comptime for g in range(group):
                comptime for v in range(TILE_VECTORS):
                    sums.unsafe_store(g * head_dim + v * LANES, products[g * TILE_VECTORS + v])

    def _head(self, task: _Task, row: Int) -> Int:
        """Gives the query head of a task's row."""
        var kv_head = task.first_kv_head + row // (task.tokens * self.shared())
        return kv_head * self.shared() + row % self.shared()

    def _token(self, task: _Task, row: Int) -> Int:
        """Gives the row in the ragged batch of a task's row."""
        return task.first_token + row // self.shared() % task.tokens

    def _tile(self, task: _Task, first_key: Int, h: Int) -> CacheTile[Self.cache_dtype]:
        """Finds a tile of a task's keys; positions from `end_key` on are not written yet."""
        var positions = min(TILE_KEYS, task.end_key - first_key)
        return CacheTile.at(self.cache, task.sequence, first_key, positions, task.first_kv_head + h)

    def _write(self, task: _Task, rows: SoftmaxRows, first_row: Int):
        """Writes what a task's rows come to."""
        for row in range(task.kv_heads * task.tokens * self.shared()):
            var at = self._token(task, row) * self.heads + self._head(task, row)
            rows.write(first_row + row, self.out.unsafe_offset(at * self.cache.head_dim))

    def _pack_query(self, row: Int, target: WordPointer):
        """Writes one query [head_dim] as words, rounded to what the cache holds."""
        comptime size = Self.per_word * LANES
        var source = self.q.unsafe_offset(row * self.cache.head_dim)
        for i in range(self.cache.head_dim // size):
            var values = source.unsafe_load[width=size, alignment=4](i * size)
            var words: Words
            comptime if Self.word == DType.bfloat16:
                words = bitcast[DType.uint32, LANES](values.cast[DType.bfloat16]())
            else:
                words = bitcast[DType.uint32, LANES](values)
                comptime if Self.cache_dtype == DType.bfloat16:
                    words = nearest_bf16(words)
            target.unsafe_store(i * LANES, words)


def _buffer(floats: Int) -> List[Floats]:
    return List[Floats](unsafe_uninit_length=ceildiv(floats, LANES))


def _pointer(buffer: List[Floats]) -> FloatPointer:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
        .unsafe_bitcast[Float32]()
    )


@inline(.always)
def _store_weights[word: DType](weights: Scores, target: WordPointer):
    """Writes a row's weights [TILE_KEYS] as words."""
    comptime if word == DType.bfloat16:
        comptime for v in range(0, TILE_VECTORS, 2):
            var pairs = weights[v].join(weights[v + 1]).cast[DType.bfloat16]()
            target.unsafe_store(v // 2 * LANES, bitcast[DType.uint32, LANES](pairs))
    else:
        comptime for v in range(TILE_VECTORS):
            target.unsafe_store(v * LANES, bitcast[DType.uint32, LANES](weights[v]))


@inline(.always)
def _multiply[
    cache_dtype: DType, //, word: DType, group: Int
](
    a: WordPointer,
    a_stride: Int,
    b: WordPointer,
    b_stride: Int,
    begin: Int,
    end: Int,
    mut sums: Array[Floats, group * TILE_VECTORS],
    mut ahead: PrefetchWalk[cache_dtype],
):
    """Adds `a[g, i] * b[i, :]` to `sums[g]` for each word i of begin..end-1."""
    for i in range(begin, end):
        _ = ahead.step()
        comptime for v in range(TILE_VECTORS):
            var columns = b.unsafe_load[width=LANES](i * b_stride + v * LANES)
            comptime for g in range(group):
                comptime at = g * TILE_VECTORS + v
                var broadcast = Words(a[unsafe_offset=g * a_stride + i])
                sums[at] = rebind[Floats](
                    multiply_add[word, 0](rebind[Sums[word]](sums[at]), columns, broadcast)
                )
