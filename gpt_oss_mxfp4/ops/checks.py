"""What a graph knows about an op's inputs while it is built; kernels check the rest."""

from __future__ import annotations

from typing import get_args

from max.dtype import DType
from max.graph import DeviceRef, Dim, StaticDim, TensorValue

from gpt_oss_mxfp4.options import Activations, rounds_cache


def common_device(op: str, *values: TensorValue) -> DeviceRef:
    """Returns the device that all inputs of an op lie on.

    Raises:
        ValueError: they lie on several.
    """
    devices = {value.device for value in values}
    if len(devices) != 1:
        raise ValueError(f"{op}: inputs must lie on one device, got {sorted(map(str, devices))}")
    (device,) = devices
    return device


def cpu_only(op: str, *values: TensorValue) -> DeviceRef:
    """Returns the common device of an op that has no GPU kernel.

    Raises:
        ValueError: it is a GPU.
    """
    device = common_device(op, *values)
    if not device.is_cpu():
        raise ValueError(
            f"{op}: has no GPU kernel, got inputs on {device}; move them to the CPU first"
        )
    return device


def gpu_only(op: str, *values: TensorValue) -> DeviceRef:
    """Returns the common device of an op that has no CPU kernel.

    Raises:
        ValueError: it is a CPU.
    """
    device = common_device(op, *values)
    if device.is_cpu():
        raise ValueError(
            f"{op}: has no CPU kernel, got inputs on {device}; move them to a GPU first"
        )
    return device


def activation_dtype(device: DeviceRef) -> DType:
    """Returns the dtype of activations: float32 on a CPU, bfloat16 on a GPU."""
    return DType.float32 if device.is_cpu() else DType.bfloat16


def cache_dtype(device: DeviceRef, activations: Activations) -> DType:
    """Returns the dtype of the KV cache: bfloat16, but float32 on a CPU where nothing is to be rounded."""
    rounded = rounds_cache(activations, on_cpu=device.is_cpu())
    return DType.bfloat16 if rounded else DType.float32


def activation_parameter(op: str, activations: str) -> DType:
    """Returns the dtype that a CPU kernel rounds its input to.

    Raises:
        ValueError: not one of :data:`Activations`.
    """
    if activations not in get_args(Activations):
        raise ValueError(
            f'{op}: activations must be "bfloat16", "float32" or "int8", got "{activations}"'
        )
    return {"bfloat16": DType.bfloat16, "float32": DType.float32, "int8": DType.int8}[activations]


def require(op: str, name: str, value: TensorValue, rank: int, *dtypes: DType) -> None:
    """Checks an input's rank and dtype.

    Raises:
        ValueError: one of them is wrong.
    """
    if value.rank != rank:
        raise ValueError(f"{op}: {name} must have rank {rank}, got shape {value.shape}")
    if value.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{op}: {name} must be {wanted}, got {value.dtype}")


def require_dim(op: str, what: str, got: Dim, rule: str, want: Dim | int) -> None:
    """Compares two sizes where both are known while the graph is built; kernels check the rest.

    Raises:
        ValueError: they differ.
    """
    want = Dim(want)
    if isinstance(got, StaticDim) and isinstance(want, StaticDim) and got != want:
        raise ValueError(f"{op}: {what} must be {rule} = {want}, got {got}")
