"""How ops hand tensors to kernels, and the one message for targets without a kernel."""

from extensibility import InputTensor, OutputTensor

from ..pointers import ConstPointer


def require_cpu[op: StaticString, target: StaticString]():
    """Refuses, while the graph is compiled, targets whose kernel does not exist yet.

    Parameters:
        op: The op's name.
        target: The target it is compiled for.
    """
    comptime assert target == "cpu", String(
        op, " has no kernel for target ", target, " yet: run on the CPU"
    )


def data[
    dtype: DType, rank: Int, //
](tensor: InputTensor[dtype=dtype, rank=rank, ...]) -> ConstPointer[dtype]:
    """Gives the address of an input's first element; MAX keeps the tensor alive while the op runs.

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
    """Gives the address of an output's first element.

    Parameters:
        dtype: Element type.
        rank: Number of axes.

    Args:
        tensor: The output.

    Returns:
        The address.
    """
    return tensor.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()


def require_equal(op: StaticString, what: StaticString, got: Int, want: Int) raises:
    """Refuses a size that is not what the other tensors say.

    Args:
        op: The op's name.
        what: The size, with its rule.
        got: Its value.
        want: What it must be.

    Raises:
        The two differ.
    """
    if got != want:
        raise Error(op, ": ", what, " must be ", want, ", got ", got)
