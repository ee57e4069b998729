"""What compiled code depends on besides its graph: versions, this machine's instructions, MAX's own settings."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("max", "max-core", "mojo-compiler")
"""Distributions that compile, as package indexes name them."""

SETTINGS = ("MODULAR_DEBUG", "MODULAR_MAX_DEBUG", "USE_EXPERIMENTAL_KERNELS")
"""How the names of those of MAX's settings begin that change what it compiles: assertions, say."""


def versions() -> tuple[str, ...]:
    """Returns the version of each of PACKAGES."""
    return tuple(map(package_version, PACKAGES))


def package_version(package: str) -> str:
    """Returns the version of a distribution, or "not installed", as of sources or what an installer calls otherwise."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_features() -> str:
    """Names the instructions that code for this machine may use, and the processor it is tuned for."""
    told = processor()
    if not told:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    wanted = (
        "vendor_id",
        "cpu family",
        "model",
        "flags",
        "CPU implementer",
        "CPU part",
        "Features",
    )
    return repr({name: value for name, value in told.items() if name in wanted})


def vector_extensions() -> frozenset[str]:
    """Names what this machine's processor adds to x86-64 for vectors and bits, as Linux does; elsewhere nothing."""
    flags = processor().get("flags", "").split()
    return frozenset(flag for flag in flags if flag.startswith(("avx", "bmi", "f16c", "fma")))


def processor() -> dict[str, str]:
    """What Linux tells of the first processor, which stands for all, as for the compiler; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    first = lines[: lines.index("")] if "" in lines else lines
    told = (line.partition(":") for line in first)
    return {name.strip(): value.strip() for name, _, value in told}


def settings() -> tuple[tuple[str, str], ...]:
    """Returns MAX's settings that the environment holds, sorted by name."""
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(SETTINGS)))
