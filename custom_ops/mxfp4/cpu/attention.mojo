"""Causal attention with sinks and a window over a paged cache, on a CPU: online softmax, one token's keys split.

    for each task, queries of one sequence in some heads: rows = queries x heads
        begin rows; the sink joins the softmax once, as a score without a value
        for each tile of keys that a query of the task sees:
            scores = q . k * scale, of the keys that a row sees; add exps . v       # softmax_rows.mojo
        out = sums / total

A task has as many queries or kv heads as make 64 rows: a tile is put in order once for all rows of a kv head, and one
token's keys are read as they lie, all heads of a position together. Where a sequence has one query, its keys are split
into runs of fixed length, a task each, whose rows are joined afterwards: what comes out does not depend on how many
threads there are.

Both products are of words: pairs of bfloat16 where the cache holds them and the CPU multiplies them, exponentials rounded
then; else float32. Words of exponentials are whole: with a pair, a value that is not finite reaches the query beside the
last that sees it, of its own sequence.

MAX's own CPU kernel adds the sink once per 128 keys, so its outputs are wrong past 128 tokens (NOTES N8).
"""

from std.atomic import Atomic
from std.math import ceildiv
from std.memory import bitcast

from max.algorithm import sync_parallelize
from std.runtime import parallelism_level

from ..paged_cache import PagedCache
from ..pointers import ConstPointer
from .cache_tile import TILE_KEYS, TILE_VECTORS, CacheTile, PrefetchWalk
from .dot import FloatPointer
from .softmax_rows import Scores, SoftmaxRows
from .weights import WordPointer, word_pointer
from .words import LANES, Floats, Sums, Words, multiply_add, nearest_bf16, per_word, word_of

comptime _MAX_ROWS = 2 if LANES == 8 else 4
"""Rows multiplied together: their sums fill the registers, of which AVX2 has half as many."""

comptime _TASK_ROWS = 64
"""Rows of a task, or of one query and kv head where they are more."""

comptime _SPLIT_KEYS = 256
"""Keys of a split: whole tiles; one thread has them as soon as two would have half of them each."""

comptime _MIN_WORK_PER_THREAD = 1 << 18
"""Multiplications worth a thread of their own."""

comptime _LOG2_E = Float32(1.4426950408889634)


@fieldwise_init
struct _Task(Copyable, ImplicitlyCopyable, Movable):
    """Consecutive queries of one sequence, consecutive kv heads, and consecutive keys.

    Row (h * tokens + t) * group_size + i is query t in head i of those that share the task's kv head h.
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
    var split_row: Int
    """Where its rows are among those of splits, or -1 where it has all keys."""


@fieldwise_init
struct _Scratch(TrivialRegisterPassable):
    """What one thread multiplies."""

    var queries: WordPointer
    """[rows, query words]."""
    var keys: WordPointer
    """[query words, TILE_KEYS]."""
    var values: WordPointer
    """[key words, head_dim]."""
    var exps: WordPointer
    """[_MAX_ROWS, key words]."""

    @staticmethod
    def size(rows: Int, query_words: Int, key_words: Int, head_dim: Int) -> Int:
        return (rows + TILE_KEYS) * query_words + (head_dim + _MAX_ROWS) * key_words

    @staticmethod
    def at(words: WordPointer, rows: Int, query_words: Int, key_words: Int, head_dim: Int) -> Self:
        var keys = words.unsafe_offset(rows * query_words)
        var values = keys.unsafe_offset(TILE_KEYS * query_words)
        return Self(words, keys, values, values.unsafe_offset(head_dim * key_words))


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
    comptime key_words = TILE_KEYS // Self.per_word
    """Words of a row's exponentials of a tile."""

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

    def group_size(self) -> Int:
        """Gives how many query heads share a kv head.

        Returns:
            At least 1.
        """
        return self.heads // self.cache.kv_heads

    def query_words(self) -> Int:
        """Gives the words of a query, and of a key.

        Returns:
            Words.
        """
        return self.cache.head_dim // Self.per_word

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
        var split_rows = 0
        var work = 0
        var most_tokens = max(1, _TASK_ROWS // self.group_size())
        for sequence in range(sequences):
            var begin = Int(row_offsets[unsafe_offset=sequence])
            var end = Int(row_offsets[unsafe_offset=sequence + 1])
            var before = Int(cache_lengths[unsafe_offset=sequence])
            for first in range(begin, end, most_tokens):
                var tokens = min(most_tokens, end - first)
                var position = before + first - begin
                var seen = position + tokens - self.first_seen(position)
                work += tokens * seen * self.heads * self.cache.head_dim * 2
                # The tasks of a prompt are many as it is.
                var split = end - begin == 1
                self._add_tasks(sequence, first, position, tokens, split, tasks, split_rows)
        var threads = max(1, min(parallelism_level(), len(tasks), work // _MIN_WORK_PER_THREAD))

        var head_dim = self.cache.head_dim
        var splits_buffer = _buffer(SoftmaxRows.size(split_rows, head_dim))
        var splits = SoftmaxRows.at(_float_pointer(splits_buffer), split_rows, head_dim)

        var next = Atomic[Int64](0)
        var next_task = MutPointer(to=next)

        def attend(_thread: Int) {imm}:
            var rows = max(_TASK_ROWS, self.group_size())
            var scratch_buffer = _buffer(
                _Scratch.size(rows, self.query_words(), Self.key_words, head_dim)
            )
            var scratch = _Scratch.at(
                word_pointer(scratch_buffer), rows, self.query_words(), Self.key_words, head_dim
            )
            var whole_buffer = _buffer(SoftmaxRows.size(rows, head_dim))
            var whole = SoftmaxRows.at(_float_pointer(whole_buffer), rows, head_dim)
            while True:  # the longest tasks of a prompt are the last
                var i = len(tasks) - 1 - Int(next_task[].fetch_add(Int64(1)))
                if i < 0:
                    break
                if tasks[i].split_row >= 0:
                    self._attend(tasks[i], scratch, splits, tasks[i].split_row)
                else:
                    self._attend(tasks[i], scratch, whole, 0)
                    self._write(tasks[i], whole, 0)
            _ = scratch_buffer^
            _ = whole_buffer^

        sync_parallelize(attend, threads)
        for i in range(len(tasks)):
            if tasks[i].split_row < 0 or not self._has_sink(tasks[i]):
                continue
            var next = i + 1
            while next < len(tasks) and not self._has_sink(tasks[next]):
                for row in range(self._rows(tasks[i])):
                    splits.join(tasks[i].split_row + row, tasks[next].split_row + row)
                next += 1
            self._write(tasks[i], splits, tasks[i].split_row)
        _ = splits_buffer^

    def _add_tasks(
        self,
        sequence: Int,
        first_token: Int,
        first_position: Int,
        tokens: Int,
        split: Bool,
        mut tasks: List[_Task],
        mut split_rows: Int,
    ):
        """Makes tasks of a few queries, which have all keys, or a split of them each."""
        var kv_heads = max(1, _TASK_ROWS // (tokens * self.group_size()))
        var first_key = self.first_seen(first_position) // TILE_KEYS * TILE_KEYS
        var end_key = first_position + tokens
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
            )
            if not split or end_key - first_key <= _SPLIT_KEYS:
                tasks.append(task)
                continue
            for key in range(first_key, end_key, _SPLIT_KEYS):
                task.first_key = key
                task.end_key = min(key + _SPLIT_KEYS, end_key)
                task.split_row = split_rows
                tasks.append(task)
                split_rows += self._rows(task)

    def _attend(self, task: _Task, scratch: _Scratch, state: SoftmaxRows, first_row: Int):
        """Gives a task's rows, which are in `state` from `first_row` on, their keys."""
        if self.group_size() % _MAX_ROWS == 0:
            self._attend_by[_MAX_ROWS](task, scratch, state, first_row)
        elif self.group_size() % 2 == 0:
            self._attend_by[2](task, scratch, state, first_row)
        else:
            self._attend_by[1](task, scratch, state, first_row)

    def _attend_by[
        m: Int
    ](self, task: _Task, scratch: _Scratch, state: SoftmaxRows, first_row: Int):
        """Gives a task's rows their keys.

        Parameters:
            m: Rows of one query that are multiplied together; divides the group.
        """
        for row in range(self._rows(task)):
            var at = self._out_row(task, row)
            self._pack_query(at, scratch.queries.unsafe_offset(row * self.query_words()))
            state.begin(first_row + row)
            if self._has_sink(task):
                state.add_sink(first_row + row, self.sinks[unsafe_offset=at % self.heads] * _LOG2_E)

        # Tiles of all heads of a position, and then the next ones.
        var tiles = ceildiv(task.end_key - task.first_key, TILE_KEYS) * task.kv_heads
        for i in range(tiles):
            var first_key = task.first_key + i // task.kv_heads * TILE_KEYS
            var head = i % task.kv_heads
            var tile = self._tile(task, i)
            var ahead = PrefetchWalk(self._tile(task, min(i + 1, tiles - 1)), 0)
            tile.transpose_keys(scratch.keys, ahead)
            tile.interleave_values(scratch.values, ahead)
            for t in range(task.tokens):
                var position = task.first_position + t
                var low = max(0, self.first_seen(position) - first_key)
                var high = min(position - first_key + 1, TILE_KEYS)
                if high <= low:
                    continue
                for j in range(0, self.group_size(), m):
                    var row = (head * task.tokens + t) * self.group_size() + j
                    self._attend_rows[m](scratch, row, state, first_row + row, low, high, ahead)
            while ahead.step():
                pass

    @inline(.always)
    def _attend_rows[
        m: Int
    ](
        self,
        scratch: _Scratch,
        query: Int,
        state: SoftmaxRows,
        row: Int,
        low: Int,
        high: Int,
        mut ahead: PrefetchWalk[Self.cache_dtype],
    ):
        """Gives m rows the keys low..high-1 of a tile."""
        var head_dim = self.cache.head_dim
        var products = Array[Floats, m * TILE_VECTORS](fill=Floats(0))
        _multiply[Self.word, m](
            scratch.queries.unsafe_offset(query * self.query_words()),
            self.query_words(),
            scratch.keys,
            TILE_KEYS,
            0,
            self.query_words(),
            products,
            ahead,
        )
        var rescales = Array[Float32, m](fill=0)
        comptime for i in range(m):
            var scores = Scores(fill=Floats(0))
            comptime for v in range(TILE_VECTORS):
                scores[v] = products[i * TILE_VECTORS + v] * (self.scale * _LOG2_E)
            rescales[i] = state.update(row + i, scores, low, high)
            _store_words[Self.word](scores, scratch.exps.unsafe_offset(i * Self.key_words))
        for d in range(0, head_dim, TILE_KEYS):
            var sums = state.sums.unsafe_offset(row * state.stride() + d)
            comptime for i in range(m):
                comptime for v in range(TILE_VECTORS):
                    var sum = sums.unsafe_load[width=LANES](i * state.stride() + v * LANES)
                    products[i * TILE_VECTORS + v] = sum * rescales[i]
            _multiply[Self.word, m](
                scratch.exps,
                Self.key_words,
                scratch.values.unsafe_offset(d),
                head_dim,
                low // Self.per_word,
                ceildiv(high, Self.per_word),
                products,
                ahead,
            )
            comptime for i in range(m):
                comptime for v in range(TILE_VECTORS):
                    sums.unsafe_store(
                        i * state.stride() + v * LANES, products[i * TILE_VECTORS + v]
                    )

    def _has_sink(self, task: _Task) -> Bool:
        """Tells whether a task has the first keys that its queries see, with which the sink is counted.
        """
        return task.first_key <= self.first_seen(task.first_position)

    def _rows(self, task: _Task) -> Int:
        """Gives a task's rows."""
        return task.kv_heads * task.tokens * self.group_size()

    def _out_row(self, task: _Task, row: Int) -> Int:
        """Gives a task's row's place in [T * heads]."""
        var kv_head = task.first_kv_head + row // (task.tokens * self.group_size())
        var token = task.first_token + row // self.group_size() % task.tokens
        return token * self.heads + kv_head * self.group_size() + row % self.group_size()

    def _tile(self, task: _Task, i: Int) -> CacheTile[Self.cache_dtype]:
        """Finds the i-th tile of a task, in the order in which they lie; from `end_key` on nothing is written yet.
        """
        var first_key = task.first_key + i // task.kv_heads * TILE_KEYS
        return CacheTile.at(
            self.cache,
            task.sequence,
            first_key,
            min(TILE_KEYS, task.end_key - first_key),
            task.first_kv_head + i % task.kv_heads,
        )

    def _write(self, task: _Task, state: SoftmaxRows, first_row: Int):
        """Writes what a task's rows come to."""
        for row in range(self._rows(task)):
            var at = self._out_row(task, row) * self.cache.head_dim
            state.write(first_row + row, self.out.unsafe_offset(at))

    def _pack_query(self, row: Int, target: WordPointer):
        """Writes one query [head_dim] as words, rounded to what the cache holds."""
        comptime size = Self.per_word * LANES
        var source = self.q.unsafe_offset(row * self.cache.head_dim)
        for i in range(self.cache.head_dim // size):
            var values = source.unsafe_load[width=size](i * size)
            var words: Words
            comptime if Self.word == DType.bfloat16:
                words = bitcast[DType.uint32, LANES](values.cast[DType.bfloat16]())
            else:
                words = bitcast[DType.uint32, LANES](values)
                comptime if Self.cache_dtype == DType.bfloat16:
                    words = nearest_bf16(words)
            target.unsafe_store(i * LANES, words)


def _buffer(words: Int) -> List[Words]:
    return List[Words](unsafe_uninit_length=ceildiv(words, LANES))


def _float_pointer(buffer: List[Words]) -> FloatPointer:
    return word_pointer(buffer).unsafe_bitcast[Float32]()


@inline(.always)
def _store_words[word: DType](exps: Scores, target: WordPointer):
    """Writes a row's exponentials [TILE_KEYS] as words."""
    comptime if word == DType.bfloat16:
        comptime for v in range(0, TILE_VECTORS, 2):
            var pairs = exps[v].join(exps[v + 1]).cast[DType.bfloat16]()
            target.unsafe_store(v // 2 * LANES, bitcast[DType.uint32, LANES](pairs))
    else:
        comptime for v in range(TILE_VECTORS):
            target.unsafe_store(v * LANES, bitcast[DType.uint32, LANES](exps[v]))


@inline(.always)
def _multiply[
    cache_dtype: DType, //, word: DType, m: Int
](
    a: WordPointer,
    a_stride: Int,
    b: WordPointer,
    b_stride: Int,
    begin: Int,
    end: Int,
    mut sums: Array[Floats, m * TILE_VECTORS],
    mut ahead: PrefetchWalk[cache_dtype],
):
    """Adds `a[i, w] * b[w, :]` to `sums[i]` for each word w of begin..end-1."""
    for w in range(begin, end):
        _ = ahead.step()
        comptime for v in range(TILE_VECTORS):
            var columns = b.unsafe_load[width=LANES](w * b_stride + v * LANES)
            comptime for i in range(m):
                comptime at = i * TILE_VECTORS + v
                var broadcast = Words(a[unsafe_offset=i * a_stride + w])
                sums[at] = rebind[Floats](
                    multiply_add[word, 0](rebind[Sums[word]](sums[at]), columns, broadcast)
                )
