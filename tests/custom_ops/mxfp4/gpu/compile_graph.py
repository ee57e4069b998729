"""Compiles the GPU tests' graphs, every op that has a GPU kernel in them, for a Hopper GPU that is not here.

Dense matmuls are left to `tests/gpt_oss_mxfp4/test_compile.py`, where a whole model has them: MAX's own in them takes
minutes.

A program of its own: MAX counts virtual devices for a whole process.
"""

from __future__ import annotations

import gc

from max.driver import (
    Accelerator,
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.engine import InferenceSession
from max.graph import DeviceRef

from tests.gpu.graphs import GRAPHS
from tests.modules import load_together

COMPILED_WITH_A_MODEL = "router"
"""The dense matmul."""


def main() -> None:
    """Compile, and say what."""
    set_virtual_device_api("cuda")
    set_virtual_device_count(1)
    set_virtual_device_target_arch("sm_90a")
    session = InferenceSession(devices=[Accelerator()])
    graphs = {name: graph for name, graph in GRAPHS.items() if name != COMPILED_WITH_A_MODEL}
    print(*load_together(session, graphs, DeviceRef.GPU()))


if __name__ == "__main__":
    main()
    gc.collect()  # what is left to the interpreter's end may abort it (NOTES F78)
