"""Subnormal arithmetic, switched on for the time of a kernel.

MAX's worker threads run with subnormals flushed to zero. The smallest E8M0 scale, 2^-127, is itself subnormal in
float32, as are products with the next ones, so kernels switch the flushing off and leave the mode as they found it.
"""

from std.sys import CompilationTarget, llvm_intrinsic

comptime _X86_FLUSH_BITS = UInt32(0x8040)
"""MXCSR: flush to zero (bit 15) and denormals are zero (bit 6). Source: Intel SDM volume 1, section 10.2.3."""

comptime _AARCH64_FLUSH_BITS = UInt64(1 << 24)
"""FPCR: flush to zero (FZ). Source: Arm Architecture Reference Manual, C5.2.8."""


def read_float_mode() -> UInt64:
    """Reads the thread's floating-point control register.

    Returns:
        MXCSR or FPCR.
    """
    comptime if CompilationTarget.is_x86():
        var mode = UInt32(0)
        llvm_intrinsic["llvm.x86.sse.stmxcsr", NoneType](Pointer(to=mode))
        return mode.cast[DType.uint64]()
    else:
        return llvm_intrinsic["llvm.aarch64.get.fpcr", UInt64]()


def write_float_mode(mode: UInt64):
    """Sets the thread's floating-point control register.

    Args:
        mode: MXCSR or FPCR, as `read_float_mode` gave it.
    """
    comptime if CompilationTarget.is_x86():
        var low = mode.cast[DType.uint32]()
        llvm_intrinsic["llvm.x86.sse.ldmxcsr", NoneType](Pointer(to=low))
    else:
        llvm_intrinsic["llvm.aarch64.set.fpcr", NoneType](mode)


def enable_subnormals() -> UInt64:
    """Makes this thread compute with subnormals.

    Returns:
        The mode until now, for `write_float_mode`.
    """
    var mode = read_float_mode()
    comptime if CompilationTarget.is_x86():
        write_float_mode(mode & ~_X86_FLUSH_BITS.cast[DType.uint64]())
    else:
        write_float_mode(mode & ~_AARCH64_FLUSH_BITS)
    return mode
