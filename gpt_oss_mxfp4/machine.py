"""What can be told of the engine's options before MAX is loaded, which takes seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gpt_oss_mxfp4.options import EngineOptions, ModelOptions, Refused

FINGERPRINT = "compiled_for"
"""File beside compiled graphs that names what they are of, and what a CPU must have to run them."""

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What Linux has where a driver of a GPU is loaded: NVIDIA's, that of Windows below it, AMD's."""


def check_engine(options: EngineOptions) -> None:
    """Refuses what this machine cannot do, as far as that is plain without MAX.

    Args:
        options: where a model is to run, and how precisely.

    Raises:
        Refused: there is no GPU, it cannot compute so, or what is said to be precompiled is not.
    """
    if options.precompiled is not None:
        read_fingerprint(options.precompiled)
    if options.devices == "gpu":
        if sys.platform == "linux" and not any(map(os.path.exists, _GPU_DEVICES)):
            raise Refused("--devices gpu: there is no GPU on this machine; run with --devices cpu")
        require_bfloat16(options, "run with --devices cpu")
    elif options.device_graphs:
        raise Refused("--device-graphs: must come with --devices gpu")


def loading_step(options: EngineOptions) -> tuple[str, str]:
    """Returns what loading a model is called, and how long it may take."""
    if options.precompiled is not None:
        return f"loading {options.model_name} and what is precompiled of it", ""
    time = "a minute or two" if options.devices == "cpu" else "a few minutes"
    return f"compiling {options.model_name}", f"{time} the first time"


def read_fingerprint(folder: Path) -> tuple[str, list[str]]:
    """Reads what a folder holds compiled graphs of, and what a CPU must have to run them.

    Raises:
        Refused: ``compile`` has not written it.
    """
    try:
        text = (folder / FINGERPRINT).read_text()
    except (OSError, ValueError) as error:
        raise Refused(
            f"--precompiled: {folder} must be a folder that compile has written"
        ) from error
    found, *extensions = text.split() or [""]
    return found, extensions


def require_bfloat16(options: ModelOptions, cure: str) -> None:
    """Refuses a precision that no GPU computes in.

    Args:
        options: what was asked for.
        cure: what to do instead.
    """
    for name in ("activations", "dense_weights"):
        if getattr(options, name) != "bfloat16":
            raise Refused(f"--{name.replace('_', '-')}: must be bfloat16 on a GPU; {cure}")
