"""Pointers into the tensors of an op."""

comptime ConstPointer[dtype: DType] = ImmPointer[Scalar[dtype], ImmUntrackedOrigin]
"""A pointer into a tensor that an op's caller keeps alive.

Parameters:
    dtype: Element type.
"""
