"""How ops pass tensors to kernels, and the messages for targets and dtypes without a kernel."""

from extensibility import InputTensor, OutputTensor

from ..pointers import ConstPointer


def require_cpu[op: StaticString, target: StaticString]():
    """Refuses, while the graph is compiled, targets that have no kernel yet.

    Parameters:
        op: The op's name.
        target: The target it is compiled for.
    """
    comptime assert target == "cpu", String(
        op, " has no kernel for target ", target, " yet: run on the CPU"
    )


def require_gpu[op: StaticString, target: StaticString]():
    """Refuses the CPU while the graph is compiled.

    Parameters:
        op: The op's name.
        target: The target it is compiled for.
    """
    comptime assert target != "cpu", String(op, " has no kernel for the CPU: run on a GPU")


def require_dtype[op: StaticString, target: StaticString, got: DType]():
    """Refuses, while the graph is compiled, activations of a dtype that the target's kernels do not take.

    Parameters:
        op: The op's name.
        target: The target it is compiled for.
        got: Dtype of the activations: float32 on a CPU, bfloat16 on a GPU.
    """
    comptime want = DType.float32 if target == "cpu" else DType.bfloat16
    comptime assert got == want, String(
        op, " takes ", want, " activations on target ", target, ", got ", got
    )


def data[
    dtype: DType, rank: Int, //
](tensor: InputTensor[dtype=dtype, rank=rank, ...]) -> ConstPointer[dtype]:
    """Returns the address of an input's first element; MAX keeps the tensor alive while the op runs.

    Parameters:
        dtype: Element type.
        rank: Number of axes.

    Args:
        tensor: The input.

    Returns:
        The address.
    """
    return tensor.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()


def data[
    dtype: DType, rank: Int, //
](tensor: OutputTensor[dtype=dtype, rank=rank, ...]) -> MutPointer[
    Scalar[dtype], MutUntrackedOrigin
]:
    """Returns the address of an output's first element.

    Parameters:
        dtype: Element type.
        rank: Number of axes.

    Args:
        tensor: The output.

    Returns:
        The address.
    """
    return tensor.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()


def address(tensor: InputTensor) -> Int:
    """Returns where an input's first element lies, or 0 where it has none: then its pointer may be anything.

    Args:
        tensor: The input.

    Returns:
        The address.
    """
    return Int(tensor.unsafe_ptr()) if tensor.size() > 0 else 0


def address(tensor: OutputTensor) -> Int:
    """Returns where an output's first element lies, or 0 where it has none: then its pointer may be anything.

    Args:
        tensor: The output.

    Returns:
        The address.
    """
    return Int(tensor.unsafe_ptr()) if tensor.size() > 0 else 0


def require_equal(op: StaticString, what: StaticString, got: Int, want: Int) raises:
    """Refuses a size that does not agree with the other tensors.

    Args:
        op: The op's name.
        what: The size, with its rule.
        got: Its value.
        want: What it must be.

    Raises:
        If the two differ.
    """
    if got != want:
        raise Error(op, ": ", what, " must be ", want, ", got ", got)


def require_aligned(op: StaticString, what: StaticString, address: Int, bytes: Int) raises:
    """Refuses a tensor where a kernel's wide loads or stores would fault.

    Args:
        op: The op's name.
        what: The tensor.
        address: Of its first element, see the function of that name.
        bytes: What the address must be a multiple of.

    Raises:
        If it is not.
    """
    if address % bytes != 0:
        raise Error(op, ": ", what, " must be aligned to ", bytes, " bytes, got ", address % bytes)


def require_row_order(op: StaticString, order: ConstPointer[DType.int32], rows: Int) raises:
    """Refuses a row order that would make a CPU kernel read outside its rows.

    Args:
        op: The op's name.
        order: [rows].
        rows: P.

    Raises:
        If a row is outside 0..P-1.
    """
    for place in range(rows):
        var row = Int(order[unsafe_offset=place])
        if row < 0 or row >= rows:
            raise Error(op, ": row_order must lie in 0..", rows - 1, ", got ", row, " at ", place)


def tokens_top_k(op: StaticString, rows: Int, tokens: Int) raises -> Int:
    """Returns how many routed rows each token has.

    Args:
        op: The op's name.
        rows: Routed rows, P, at least one.
        tokens: T.

    Returns:
        Routed rows per token, k.

    Raises:
        If P is not a multiple of T.
    """
    if tokens == 0 or rows % tokens != 0:
        raise Error(
            op,
            ": row_order.shape[0] must be a multiple of the tokens = ",
            tokens,
            ", got ",
            rows,
        )
    return rows // tokens
