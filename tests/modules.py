"""Graphs of this package's ops, compiled together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType, TensorValue

from gpt_oss_mxfp4 import ops

Inputs = Sequence[tuple[DType, Sequence[str | int]]]
Body = Callable[..., tuple[TensorValue, ...] | TensorValue]


def load_together(
    session: InferenceSession, graphs: Mapping[str, tuple[Inputs, Body]], device: DeviceRef
) -> dict[str, Model]:
    """Compiles graphs as one module: alone each takes ten seconds or more, however small it is.

    Args:
        session: has the device.
        graphs: inputs of each, and what it makes of them.
        device: where all inputs and outputs lie.
    """
    library, module = KernelLibrary(), Module()
    library.load_paths([ops.custom_ops()])
    for name, (inputs, body) in graphs.items():
        types = [TensorType(dtype, shape, device) for dtype, shape in inputs]
        with Graph(name, input_types=types, kernel_library=library, module=module) as graph:
            result = body(*(value.tensor for value in graph.inputs))
            graph.output(*(result if isinstance(result, tuple) else (result,)))
    # A module does not know its graphs' libraries.
    return session.load_all(module, custom_extensions=library.library_paths())
