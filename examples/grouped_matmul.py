"""MXFP4 experts outside gpt-oss: one op in a MAX graph, on the CPU, here with 3 experts of 96 x 64 and 7 rows.

./run python examples/grouped_matmul.py
"""

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType

from gpt_oss_mxfp4 import ops
from gpt_oss_mxfp4.quantize import quantize_array


def main() -> None:
    """Quantizes random experts, multiplies by them, and compares the result with NumPy's."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 96, 64), dtype=np.float32)
    blocks, scales = quantize_array(weights)
    x = rng.standard_normal((7, 64), dtype=np.float32)
    bias = np.zeros((3, 96), np.uint16)  # bfloat16, which NumPy lacks
    offsets = np.array([0, 4, 4, 7], np.int32)  # rows 0..3 go to expert 0, 4..6 to expert 2

    shapes = {
        "x": (DType.float32, ["rows", "k"]),
        "blocks": (DType.uint8, ["experts", "n", "groups", 16]),
        "scales": (DType.uint8, ["experts", "n", "groups"]),
        "bias": (DType.bfloat16, ["experts", "n"]),
        "offsets": (DType.int32, ["offsets"]),
    }
    types = [TensorType(dtype, shape, DeviceRef.CPU()) for dtype, shape in shapes.values()]
    with Graph("experts", input_types=types, custom_extensions=[ops.custom_ops()]) as graph:
        graph.output(ops.grouped_matmul(*(value.tensor for value in graph.inputs)))
    model = InferenceSession(devices=[CPU()]).load(graph)

    inputs = [Buffer.from_numpy(array) for array in (x, blocks, scales, bias, offsets)]
    inputs[3] = inputs[3].view(DType.bfloat16)
    y = model.execute(*inputs)[0].to_numpy()

    exact = np.concatenate([x[:4] @ weights[0].T, x[4:] @ weights[2].T])
    error = np.sqrt(np.square(y - exact).mean() / np.square(exact).mean())
    print(
        f"[7, 64] times 3 experts of [96, 64]: {y.shape}; 4 bits per weight cause an error of {error:.1%}"
    )


if __name__ == "__main__":
    main()
