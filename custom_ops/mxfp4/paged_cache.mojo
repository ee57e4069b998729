"""Where MAX's paged KV cache keeps a key or value."""

from .pointers import ConstPointer


@fieldwise_init
struct PagedCache[dtype: DType](TrivialRegisterPassable):
    """One layer of a cache of pages, each [2 (key, value), layers, page_size, kv_heads, head_dim].

    A sequence's tokens fill pages in order; the table says which. With 2 layers, page_size 128, 2 kv heads of 64 and
    packed pages (65536 elements), layer 1, a sequence on pages (5, 3): the value of kv head 1 at position 130 lies in
    page 3, slot 2: 3 * 65536 + (1 * 2 + 1) * 128 * 128 + 2 * 128 + 1 * 64 = element 246080.

    Parameters:
        dtype: Of keys and values.
    """

    var pages: ConstPointer[Self.dtype]
    """The first page."""
    var page_stride: Int
    """Elements from one page to the next."""
    var table: ConstPointer[DType.uint32]
    """[sequences, table_width] page of each sequence's positions `page_size * i` and on."""
    var table_width: Int
    """Pages a sequence may have."""
    var layers: Int
    """Layers that share the cache."""
    var layer: Int
    """This layer's place among them."""
    var page_size: Int
    """Positions in a page."""
    var kv_heads: Int
    """Key-value heads."""
    var head_dim: Int
    """Elements of a head."""

    def row_stride(self) -> Int:
        """Gives the elements from one position of a page to the next.

        Returns:
            `kv_heads * head_dim`.
        """
        return self.kv_heads * self.head_dim

    def offset(self, sequence: Int, position: Int, is_value: Bool, kv_head: Int) -> Int:
        """Finds a key or value.

        Args:
            sequence: The sequence.
            position: Its position, in a page that the sequence holds.
            is_value: Whether the value is wanted, not the key.
            kv_head: The head.

        Returns:
            Elements from the first page's first.
        """
        var page = Int(
            self.table[unsafe_offset=sequence * self.table_width + position // self.page_size]
        )
        return (
            page * self.page_stride
            + self.layer_offset(is_value)
            + position % self.page_size * self.row_stride()
            + kv_head * self.head_dim
        )

    def layer_offset(self, is_value: Bool) -> Int:
        """Finds the layer's keys or values in a page.

        Args:
            is_value: Whether values are wanted, not keys.

        Returns:
            Elements from the page's first.
        """
        return (Int(is_value) * self.layers + self.layer) * self.page_size * self.row_stride()
