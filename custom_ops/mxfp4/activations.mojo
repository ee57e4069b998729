"""Which row of the activations a routed row takes."""

from .pointers import ConstPointer


@fieldwise_init
struct Activations(TrivialRegisterPassable):
    """Activations on a GPU, and the order in which rows of them are taken."""

    var x: ConstPointer[DType.bfloat16]
    """[T, k], or [P, k] in expert order where `top_k` is 0."""
    var order: ConstPointer[DType.int32]
    """[P], the routed row `t * top_k + j` at each place; not read where `top_k` is 0."""
    var rows: Int
    """Routed rows, P."""
    var k: Int
    """Elements of a row."""
    var top_k: Int
    """Routed rows of a token, or 0."""

    @staticmethod
    @inline(.always)
    def in_expert_order(x: ConstPointer[DType.bfloat16], rows: Int, k: Int) -> Self:
        """Takes the rows of x as they are.

        Args:
            x: [P, k], in expert order.
            rows: P.
            k: Elements of a row.

        Returns:
            The activations, with an order that nothing reads.
        """
        return Self(x, x.unsafe_bitcast[Int32](), rows, k, 0)

    @inline(.always)
    def row(self, p: Int) -> Int:
        """Gives which row of x a routed row takes.

        Args:
            p: The routed row's place.

        Returns:
            The row, or -1 where the order leaves 0..P-1: nothing outside of x is ever read.
        """
        if self.top_k == 0:
            return p
        var routed = self.order[unsafe_offset=p]
        if routed < 0 or routed >= Int32(self.rows):
            return -1
        # Of 32 bits, and unsigned: a GPU divides in many steps.
        return Int(UInt32(routed) // UInt32(self.top_k))
