"""Experts packed for Hopper while they are loaded, a layer at a time, on the device that will multiply them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from max.driver import Device, DLPackArray, is_virtual_device_mode
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType
from max.graph.weights import WeightData

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.layout import PROJECTIONS
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.mxfp4 import BYTES_PER_GROUP, MAX_PACKED_EXPERTS, MAX_PACKED_SCALE
from gpt_oss_mxfp4.ops.mxfp4 import packed_shape

HOPPER = "sm_90"
"""What MAX calls the architecture of Hopper GPUs, or how that begins."""

CURE = "MXFP4_GROUPED_KERNEL=strided, which is slow and takes every checkpoint"


def is_other_gpu(device: Device) -> bool:
    """Tells whether a device is a GPU that has not Hopper's kernels."""
    return not device.is_host and not device.architecture_name.startswith(HOPPER)


def pack_experts(
    checkpoint: Checkpoint,
    weights: Mapping[str, WeightData],
    device: Device,
    session: InferenceSession,
) -> dict[str, WeightData | DLPackArray]:
    """Replaces each layer's blocks and scales by tiles that lie on a device.

    The checkpoint's layout of one layer at a time is on the device beside them, no second copy of the model.

    Args:
        checkpoint: what the weights are of.
        weights: every tensor of it, from :func:`adapt`.
        device: where the experts are multiplied: a Hopper GPU, or the CPU for tests. In MAX's virtual device mode,
            which compiles and runs nothing, tiles have a shape and no bytes.
        session: MAX's, for that device; what it compiles, or finds compiled, is the packing.

    Returns:
        The weights, ``{gate_up,down}_proj_{blocks,scales}`` of each layer replaced by ``{gate_up,down}_proj_tiles``.

    Raises:
        CheckpointError: more experts than the kernels take, or scales too large to be packed.
        ValueError: another GPU.
    """
    experts = checkpoint.config.num_local_experts
    if experts > MAX_PACKED_EXPERTS:
        rule = f"num_local_experts must be at most {MAX_PACKED_EXPERTS} for Hopper's kernels"
        fault = Fault("too many experts", f"{rule}, got {experts}", f"Set {CURE}, or run on a CPU")
        raise CheckpointError(checkpoint.folder, [fault])
    runs = not is_virtual_device_mode()
    if runs:
        if is_other_gpu(device):
            raise ValueError(
                f"gpt_oss_mxfp4: the device must be a Hopper GPU ({HOPPER}), got {device.architecture_name}; set "
                f"{CURE}, or run on a CPU"
            )
        _refuse_large_scales(checkpoint, weights)
    model = _compile(device, session)
    packed: dict[str, WeightData | DLPackArray] = dict(weights)
    for layer in range(checkpoint.config.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        names = [f"{prefix}{p}_{kind}" for p in PROJECTIONS for kind in ("blocks", "scales")]
        for name in names:
            del packed[name]
        tiles = (
            model.execute(*(weights[name].to_buffer() for name in names))
            if runs
            else _shapes(checkpoint.config)
        )
        packed.update({f"{prefix}{p}_tiles": t for p, t in zip(PROJECTIONS, tiles, strict=True)})
    return packed


def _refuse_large_scales(checkpoint: Checkpoint, weights: Mapping[str, WeightData]) -> None:
    faults = []
    for name, weight in weights.items():
        if name.endswith("_scales"):
            largest = int(np.from_dlpack(weight.to_buffer()).max())
            if largest > MAX_PACKED_SCALE:
                faults.append(
                    Fault(
                        "scale too large",
                        f"{name} must be at most {MAX_PACKED_SCALE} (2^{MAX_PACKED_SCALE - 127}) for Hopper's "
                        f"kernels, got {largest}",
                        f"Set {CURE}, or run on a CPU",
                    )
                )
    if faults:
        raise CheckpointError(checkpoint.folder, faults)


def _compile(device: Device, session: InferenceSession) -> Model:
    """Compiles the packing of one layer, of any sizes."""
    cpu, target = DeviceRef.CPU(), DeviceRef.from_device(device)
    types = []
    for projection in PROJECTIONS:
        shape = ["experts", f"{projection}_rows", f"{projection}_groups"]
        types += [
            TensorType(DType.uint8, [*shape, BYTES_PER_GROUP], cpu),
            TensorType(DType.uint8, shape, cpu),
        ]
    with Graph("pack_experts", input_types=types, custom_extensions=[ops.custom_ops()]) as graph:
        gate_up_blocks, gate_up_scales, down_blocks, down_scales = (
            value.tensor.to(target) for value in graph.inputs
        )
        graph.output(
            ops.swizzle(gate_up_blocks, gate_up_scales),
            ops.swizzle(down_blocks, down_scales),
        )
    return session.load(graph)


def _shapes(config: GptOssConfig) -> list[DLPackArray]:
    """Gives arrays of the tiles' shapes that take no memory."""
    return [
        np.broadcast_to(np.uint8(0), (config.num_local_experts, *map(int, packed_shape(rows, k))))
        for rows, k in config.expert_shapes
    ]
