"""Kernels that begin while the one before still runs: CUDA's programmatic dependent launch, from Hopper on.

Each of ours waits before it writes anything, or reads what the kernel before writes, and lets the next one begin behind its
own wait: whatever the next one finds begun has waited for all before it. A kernel waits if it was compiled for such a GPU,
and overlaps if it runs on one, which is the same where MAX compiles for the device. Source: PTX ISA 9.0, "griddepcontrol".
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
    """Waits until the kernel before this one on its stream is over, and what it wrote is seen.

    That one is over only when what it waited for was. Only a kernel that is launched to overlap has begun before that.
    """
    comptime if is_nvidia_gpu() and _is_sm_9x_or_newer():
        inlined_assembly["griddepcontrol.wait;", NoneType, constraints="~{memory}"]()


@inline(.always)
def let_next_kernel_begin():
    """Says that the next kernel on the stream, if launched to overlap with this one, may begin once all blocks said so.

    Behind `wait_for_kernels_before`, so that whatever the next one finds begun has waited for all before it.
    """
    comptime if is_nvidia_gpu() and _is_sm_9x_or_newer():
        inlined_assembly["griddepcontrol.launch_dependents;", NoneType, constraints="~{memory}"]()


def overlap_attributes(ctx: DeviceContext) raises -> List[LaunchAttribute]:
    """Has a kernel begin when the one before lets it, where the device can.

    Args:
        ctx: The device.

    Returns:
        Attributes of the launch.

    Raises:
        The device does not say what it is.
    """
    var attributes: List[LaunchAttribute] = []
    if ctx.api() == "cuda" and ctx.compute_capability() >= _FIRST:
        attributes.append(
            LaunchAttribute(
                LaunchAttributeID.PROGRAMMATIC_STREAM_SERIALIZATION, LaunchAttributeValue(True)
            )
        )
    return attributes^
