"""Prints the kernels of a step on a GPU, in order: a line for those that run once, one for each kind of layer.

    python -m tests.gpt_oss_mxfp4.launches [FOLDER]

MAX fuses the graph of a checkpoint, the golden one unless told otherwise, for a Hopper GPU that is not here, and stops
before it compiles kernels. MXFP4_GROUPED_KERNEL, MXFP4_ATTENTION_KERNEL and MXFP4_DENSE_KERNEL are heeded. A program of
its own: MAX counts virtual devices for a whole process.
"""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from max import tree
from max.driver import (
    Accelerator,
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.dtype import DType
from max.engine import InferenceSession
from max.engine.api import CompilationStopped
from max.graph import DeviceRef, Graph
from max.nn.transformer import ReturnLogits
from max.pipelines.kv_cache import KVCacheConfig

from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.kv_cache import kv_cache_params
from gpt_oss_mxfp4.model import GptOss
from gpt_oss_mxfp4.model_config import requested_layers
from tests.golden import CHECKPOINT


def model_for_hopper(folder: Path) -> GptOss:
    """Makes a checkpoint's model as a GPU has it, experts packed."""
    config, device = GptOssConfig.from_file(folder / "config.json"), DeviceRef.GPU()
    return GptOss(
        config,
        kv_cache_params(config, KVCacheConfig(), device, "bfloat16"),
        device,
        DType.bfloat16,
        requested_layers(device),
        ReturnLogits.LAST_TOKEN,
    )


def build(folder: Path) -> Graph:
    """Builds a checkpoint's graph, experts packed."""
    model = model_for_hopper(folder)
    for name, weight in model.raw_state_dict().items():
        weight.name = name
    return model.trace(*tree.leaves(model.input_tree()))


def launches(graph: Graph, session: InferenceSession) -> dict[str, list[str]]:
    """Gives kernels by the name of a graph, MAX's numbers and hashes taken off their names."""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        session.debug.ir_output_dir, session.debug.pre_jit = folder, True
        with suppress(CompilationStopped):
            session.compile(graph)
        fused = Path(folder, f"{graph.name}.mogg-pre-mgp.mlir").read_text()
    calls = r"^  mo\.graph @(\w+)|^      mogg\.call @__(\w+?)(?:_[0-9a-f]{16})?(?:_\d+)? "
    for name, kernel in re.findall(calls, fused, re.MULTILINE):
        if name:
            of_graph = found[name] = []
        else:
            of_graph.append(kernel)
    return found


def main() -> None:
    """Print them."""
    set_virtual_device_api("cuda")
    set_virtual_device_count(1)
    set_virtual_device_target_arch("sm_90a")
    session = InferenceSession(devices=[Accelerator()])
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKPOINT
    for name, kernels in launches(build(folder), session).items():
        print(f"{name}:", *kernels)


if __name__ == "__main__":
    main()
