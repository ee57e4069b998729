"""What ops for a Hopper GPU say at run time of tensors that a graph knew no sizes of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.cuda_driver import without_gpu
from tests.custom_ops.mxfp4.ptx import ROOT

pytestmark = [without_gpu.needs_compiler, pytest.mark.slow]

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""

Tensors = list[tuple[list[int], int]]
"""Of each the shape, and how many bytes it lies behind an aligned address."""

MLP: Tensors = [
    ([4, 64], 0),
    ([4, 3, 1, 2176], 0),
    ([4, 192], 0),
    ([4, 1, 2, 2176], 0),
    ([4, 64], 0),
    ([5], 0),
    ([16], 0),
    ([4], 0),
]
DENSE: Tensors = [([4, 64], 0), ([32, 64], 0), ([32], 0)]
STRIDED: Tensors = [([4, 64], 0), ([3, 8, 2, 16], 0), ([3, 8, 2], 1), ([3, 8], 2), ([4], 4)]

CASES: dict[str, tuple[str, Tensors, list[tuple[int, list[int], int, str | None]]]] = {
    "mlp": (
        "mxfp4.grouped_mlp_packed",
        MLP,
        [
            (0, [4, 64], 8, "x must be aligned to 16 bytes, got 8"),
            (1, [4, 3, 1, 2176], 4, "gate_up_tiles must be aligned to 16 bytes, got 4"),
            (2, [4, 192], 2, "gate_up_bias must be aligned to 4 bytes, got 2"),
            (3, [4, 1, 2, 2176], 8, "down_tiles must be aligned to 16 bytes, got 8"),
            (4, [4, 64], 2, "down_bias must be aligned to 4 bytes, got 2"),
            (0, [4, 128], 0, "gate_up_tiles.shape[2] = ceil(x.shape[1] / 64) must be 2, got 1"),
            (2, [3, 192], 0, "gate_up_bias.shape[0] = experts must be 4, got 3"),
            (
                3,
                [4, 2, 2, 2176],
                0,
                "down_tiles.shape[1] = ceil(down_bias.shape[1] / 64) must be 1, got 2",
            ),
            (
                3,
                [4, 1, 1, 2176],
                0,
                "down_tiles.shape[2] = ceil(inner.shape[1] / 64) must be 2, got 1",
            ),
            (4, [4, 63], 0, "down_bias.shape[1] modulo 2 must be 0, got 1"),
        ],
    ),
    "dense": (
        "dense.matmul_bias_gpu",
        DENSE,
        [
            (0, [4, 64], 2, "x must be aligned to 16 bytes, got 2"),
            (1, [32, 64], 8, "w must be aligned to 16 bytes, got 8"),
            (2, [33], 0, "bias.shape[0] = w.shape[0] must be 32, got 33"),
            (0, [0, 64], 15, None),
        ],
    ),
    "strided": (
        "mxfp4.grouped_matmul",
        STRIDED,
        [
            (0, [4, 64], 8, "x must be aligned to 16 bytes, got 8"),
            (1, [3, 8, 2, 16], 4, "blocks must be aligned to 16 bytes, got 4"),
            (0, [0, 64], 15, None),
        ],
    ),
}
"""What an op is, what it takes, and cases: a tensor, its shape, its bytes behind an aligned address, and what is said:
nothing of a tensor without elements, which may lie anywhere."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each op says, of tensors that are right first: one process compiles them together."""
    folder = tmp_path_factory.mktemp("driver")
    without_gpu.build(folder)
    inputs: list[list[object]] = []
    for op, (_, tensors, cases) in CASES.items():
        inputs.append([op, *tensors])
        for place, shape, behind, _ in cases:
            changed = list(tensors)
            changed[place] = shape, behind
            inputs.append([op, *changed])
    done = subprocess.run(
        [sys.executable, "-m", "tests.custom_ops.mxfp4.ops.refusals"],
        input=json.dumps(inputs),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, "LD_LIBRARY_PATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, list[str]] = {op: [] for op in CASES}
    for asked, line in zip(inputs, done.stdout.splitlines(), strict=True):
        said[str(asked[0])].append(json.loads(line))
    return said


@pytest.mark.parametrize("op", CASES)
def test_what_a_kernel_would_fault_on_is_refused(op: str, said: dict[str, list[str]]) -> None:
    name, _, cases = CASES[op]
    nothing, *refusals = said[op]
    assert not nothing
    for text, (*_, message) in zip(refusals, cases, strict=True):
        found = re.search(rf"^{name}: (.*)$", text, re.MULTILINE)
        assert (found[1] if found else text or None) == message
