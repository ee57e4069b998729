"""The kernels' tests as a GPU would run them: the switch, and the driver's functions, which a stand-in has here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_driver import launch as cuda_driver
from tests.cuda_driver.driver import CudaError
from tests.cuda_driver.stand_in import StandIn
from tests.custom_ops.mxfp4 import launch, ptx
from tests.custom_ops.mxfp4.gpu import test_kernels as any_gpu
from tests.custom_ops.mxfp4.sm90 import test_grouped_matmul as sm90


def open_stand_in() -> Any:
    return StandIn().library()


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    process = cuda_driver.Process(open_stand_in, seconds=600)
    monkeypatch.setattr(launch, "ON_GPU", True)
    monkeypatch.setattr(cuda_driver, "open_library", open_stand_in)
    monkeypatch.setattr(cuda_driver, "_process", lambda: process)
    yield
    process.close()


@pytest.mark.usefixtures("on_gpu")
def test_a_hopper_kernel_goes_through_the_driver() -> None:
    kernel, case = ptx.emit(ptx.SM90)["decode_8"], sm90.Case((1,), n=64, k=64)
    got, want = sm90.multiply(kernel, case, gated=False)
    assert sm90.largest_error(got, want) < sm90.OUTPUT_ROUNDING
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        sm90.multiply(kernel.replace("// shared_bytes", "// not"), case, gated=False)


@pytest.mark.usefixtures("on_gpu")
def test_a_kernel_for_any_gpu_goes_through_the_driver(rng: np.random.Generator) -> None:
    kernels = ptx.emit(ptx.GPU)
    any_gpu.test_route(kernels, 32, 4, rng)
    any_gpu.test_group(kernels, 5, rng)


def test_ptx_may_come_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "route.ptx").write_text("// shared_bytes 12\n//\n// blocks 2\n")
    monkeypatch.setenv("MXFP4_PTX", str(tmp_path))
    found = ptx.emit.__wrapped__(ptx.GPU)
    assert found.keys() == {"route"}
    assert ptx.facts(found["route"]) == {"shared_bytes": 12, "blocks": 2}
    with pytest.raises(FileNotFoundError, match=r"must have sm90/\*\.ptx"):
        ptx.emit.__wrapped__(ptx.SM90)
