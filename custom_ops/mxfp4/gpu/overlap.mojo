"""Programmatic dependent launch, from Hopper on: a kernel may begin while the preceding one still runs.

Each of our kernels waits before it writes anything or reads what the preceding kernel writes, and only then lets the
next one begin. So any kernel still running when the next begins has already waited for all kernels before it. A kernel
waits if it was compiled for such a GPU, and overlaps if it runs on one; these agree where MAX compiles for the device.
Source: PTX ISA 9.0, "griddepcontrol".
"""

from max.gpu.host import DeviceContext
from max.gpu.host.launch_attribute import (
    LaunchAttribute,
    LaunchAttributeID,
    LaunchAttributeValue,
)
from std.sys import is_nvidia_gpu
from std.sys._assembly import inlined_assembly
from std.sys.info import _is_sm_9x_or_newer

comptime _FIRST = 90
"""The first compute capability that has it, times ten."""


@inline(.always)
def wait_for_kernels_before():
    """Waits until the preceding kernel on the stream has finished and its writes are visible.

    That kernel finishes only after those that it waited for. Only a kernel launched to overlap begins before that.
    """
    comptime if is_nvidia_gpu() and _is_sm_9x_or_newer():
        inlined_assembly["griddepcontrol.wait;", NoneType, constraints="~{memory}"]()


@inline(.always)
def let_next_kernel_begin():
    """Lets the next kernel on the stream, if launched to overlap this one, begin once all blocks have called this.

    Call it after `wait_for_kernels_before`, so that a kernel still running when the next begins has waited for all
    kernels before it.
    """
    comptime if is_nvidia_gpu() and _is_sm_9x_or_newer():
        inlined_assembly["griddepcontrol.launch_dependents;", NoneType, constraints="~{memory}"]()


def overlap_attributes(ctx: DeviceContext) raises -> List[LaunchAttribute]:
    """Returns attributes with which a kernel begins as soon as the preceding one lets it, if the device supports that.

    Args:
        ctx: The device.

    Returns:
        The launch attributes.

    Raises:
        If the device's API or compute capability cannot be read.
    """
    var attributes: List[LaunchAttribute] = []
    if ctx.api() == "cuda" and ctx.compute_capability() >= _FIRST:
        attributes.append(
            LaunchAttribute(
                LaunchAttributeID.PROGRAMMATIC_STREAM_SERIALIZATION, LaunchAttributeValue(True)
            )
        )
    return attributes^
