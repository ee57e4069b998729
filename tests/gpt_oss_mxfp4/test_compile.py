"""Compiling ahead of time: for this machine, and for GPUs that are not here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.compiled_cache import CACHE_VARIABLE
from gpt_oss_mxfp4.options import CompileOptions, Refused
from scripts.make_synthetic import SIZES
from tests.cuda_driver import without_gpu
from tests.golden import CHECKPOINT
from tests.sparse_checkpoint import make_sparse_checkpoint

ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX changes what a child inherits (NOTES F2)."""


def run(verb: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpt_oss_mxfp4", verb, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, **variables},
    )


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("generate", "--prompt", "The keeper", "--max-new-tokens", "8", *arguments)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint, for this machine's CPU."""
    output = tmp_path_factory.mktemp("compile") / "for" / "cpu"
    done = run("compile", "--model", str(CHECKPOINT), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    assert [path.name for path in output.parent.iterdir()] == ["cpu"]
    return output


@pytest.mark.slow
def test_what_was_compiled_generates_the_same(compiled: Path) -> None:
    here = generate("--model", str(CHECKPOINT))
    arguments = ("--model", str(CHECKPOINT), "--precompiled", str(compiled))
    done = generate(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == here.stdout
    assert f"loading {CHECKPOINT} and what is precompiled of it: " in done.stderr
    assert "compiling" not in done.stderr
    told = generate(*arguments, "--verbose")
    assert told.stdout == here.stdout
    assert "Building, compiling" not in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        [],
        ["--model", str(CHECKPOINT), "--activations", "float32"],
        ["--model", str(CHECKPOINT), "--dense-weights", "int8"],
    ],
    ids=["model", "activations", "dense weights"],
)
def test_what_was_compiled_for_something_else_is_refused(compiled: Path, other: list[str]) -> None:
    done = generate("--precompiled", str(compiled), *other)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"gpt-oss-mxfp4: --precompiled: {compiled} must be compiled for this model, device and precision"
    )


@pytest.mark.slow
def test_code_for_another_cpu_is_refused(compiled: Path, tmp_path: Path) -> None:
    other = shutil.copytree(compiled, tmp_path / "other")
    file = other / "compiled_for"
    file.write_text(f"{file.read_text().rstrip()} avx10_9\n")
    done = generate("--precompiled", str(other), "--model", str(CHECKPOINT))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        f"gpt-oss-mxfp4: --precompiled: {other} holds code for a CPU that has avx10_9, which this one has not; "
        "compile it here\n"
    )


def test_each_argument_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[CompileOptions] = []
    monkeypatch.setattr("gpt_oss_mxfp4.cli.compile.run_compile", asked.append)
    arguments = (
        "--model a/b --target cuda:sm_90a --output c --activations float32 --dense-weights int8"
    )
    cli.main(["compile", *arguments.split(), "--verbose"])
    assert asked == [
        CompileOptions(
            model="a/b",
            target="cuda:sm_90a",
            output=Path("c"),
            activations="float32",
            dense_weights="int8",
            verbose=True,
        )
    ]


@pytest.mark.parametrize("option", ["--activations", "--dense-weights"])
def test_what_no_gpu_runs_is_not_compiled_for_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    output = tmp_path / "out"
    arguments = ["--target", "cuda:sm_90a", option, "int8", "--output", str(output)]
    assert cli.main(["compile", *arguments]) == 2
    assert capfd.readouterr() == (
        "",
        f"gpt-oss-mxfp4: {option}: must be bfloat16 on a GPU; compile with --target cpu\n",
    )
    assert not output.exists()


@pytest.mark.parametrize("name", [".", "link"])
def test_an_output_that_is_there_is_not_replaced(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a link that leads nowhere, and nothing is compiled first."""
    monkeypatch.delattr("gpt_oss_mxfp4.compile.open_model")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    output = tmp_path / name
    assert cli.main(["compile", "--output", str(output)]) == 2
    assert capfd.readouterr() == (
        "",
        f"gpt-oss-mxfp4: --output: {output} exists already; remove it or name another folder\n",
    )


def test_a_number_of_threads_that_is_none_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    done = run("compile", "--output", str(tmp_path / "out"), GPT_OSS_MXFP4_THREADS="many")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "gpt-oss-mxfp4: GPT_OSS_MXFP4_THREADS: must be a whole number, got 'many'\n",
    )


@pytest.mark.parametrize(("positions", "length"), [(2048, 2048), (131072, 4096)])
def test_no_more_positions_are_compiled_for_than_the_model_has(
    positions: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from max.pipelines import PIPELINE_REGISTRY, PipelineConfig

    asked: list[int | None] = []

    def retrieve_factory(config: PipelineConfig) -> None:
        asked.append(config.model.max_length)
        raise ValueError("no need to compile")

    monkeypatch.setattr(PIPELINE_REGISTRY, "retrieve_factory", retrieve_factory)
    model = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    fields = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": positions}))
    assert (cli.main(["compile", "--model", str(model), "--output", str(tmp_path / "out")])) == 2
    assert asked == [length]


def test_a_checkpoint_that_is_none_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(["compile", *arguments]) == 2
    assert "must hold config.json" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "cause"), [("file/out", "File exists"), ("x" * 300, "File name too long")]
)
def test_an_output_that_cannot_be_made_is_refused(
    name: str, cause: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / name
    assert cli.main(["compile", "--output", str(output)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith(f"gpt-oss-mxfp4: --output: {output} cannot be made ({cause})\n")


def test_a_full_disk_is_told_with_the_folder_s_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_into(*_: object) -> None:
        raise Refused("failed to write the object")

    left = SimpleNamespace(free=0)
    monkeypatch.setattr("gpt_oss_mxfp4.engine.compile_into", compile_into)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: left)
    output = tmp_path / "out"
    for free, message in (
        (0, f"--output: {output} cannot be written, the disk is full (failed to write the object)"),
        (2**30, "failed to write the object"),
    ):
        left.free = free
        assert cli.main(["compile", "--output", str(output)]) == 2
        assert capfd.readouterr().err.splitlines()[-1] == f"gpt-oss-mxfp4: {message}"
        assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_and_what_cannot_be_read_are_told_apart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from max.pipelines import PIPELINE_REGISTRY

    from gpt_oss_mxfp4 import engine

    def unreadable(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "model.safetensors")

    def unwritable(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    output = tmp_path / "out"
    for place, name, fail, message in (
        (
            PIPELINE_REGISTRY,
            "retrieve_factory",
            unreadable,
            "[Errno 13] Permission denied: 'model.safetensors'",
        ),
        (
            engine,
            "compile_into",
            unwritable,
            f"--output: {output} cannot be written (Disk quota exceeded)",
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, fail)
            assert cli.main(["compile", "--output", str(output)]) == 2
        assert capfd.readouterr().err.splitlines()[-1] == f"gpt-oss-mxfp4: {message}"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    arguments = ["--model", str(CHECKPOINT), "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "gpt_oss_mxfp4", "compile", *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("compiling"):
                break
        assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."]
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == []


HOPPER_KERNELS = {
    "MXFP4_GROUPED_KERNEL": "sm90_mlp",
    "MXFP4_ATTENTION_KERNEL": "sm90",
    "MXFP4_DENSE_KERNEL": "sm90",
}
"""Each has another in it, for prompts: experts a kernel a matmul, the others MAX's."""


@pytest.fixture(scope="module")
def for_hopper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A published size and what is compiled of it, a few minutes.

    Equal layers are calls of the same two subgraphs: 120b has more of them, and more experts.
    """
    folder = tmp_path_factory.mktemp("hopper")
    model, compiled = make_sparse_checkpoint(folder / "model", SIZES["20b"]), folder / "compiled"
    words = ("--model", str(model), "--target", "cuda:sm_90a", "--output", str(compiled))
    done = run("compile", *words, **HOPPER_KERNELS)
    assert done.returncode == 0, done.stderr
    return model, compiled


@pytest.mark.slow
def test_a_published_size_compiles_for_hopper(for_hopper: tuple[Path, Path]) -> None:
    _, compiled = for_hopper
    assert sum(file.stat().st_size for file in compiled.rglob("*")) > 10**6
    assert list(compiled.glob("realize_future_token_graph-*.mef")), "what --device-graphs needs"
    assert (compiled / "mxfp4.mojoc").is_file(), "what graphs are built with, to find them by"
    assert not list(compiled.parent.glob(".*"))


@pytest.mark.slow
@without_gpu.needs_compiler
@pytest.mark.parametrize("device_graphs", [False, True])
def test_what_is_compiled_for_hopper_is_loaded_and_launched(
    for_hopper: tuple[Path, Path], tmp_path: Path, device_graphs: bool
) -> None:
    """All that MAX does on the host, for a GPU that takes launches, and a graph's capture, and runs no kernels."""
    model, compiled = for_hopper
    without_gpu.build(tmp_path)
    log = tmp_path / "log"
    words = ["--devices", "gpu", "--model", str(model), "--precompiled", str(compiled)]
    words += ["--prompt-tokens", "300", "--new-tokens", "8", "--runs", "1"]
    words += ["--batch", "1", "--device-graphs"] if device_graphs else ["--batch", "1", "20"]
    done = subprocess.run(
        [*without_gpu.COMMAND, "bench", *words],
        capture_output=True,
        text=True,
        check=False,
        env={
            **ENVIRONMENT,
            **HOPPER_KERNELS,
            "LD_LIBRARY_PATH": str(tmp_path),
            "WITHOUT_GPU_LOG": str(log),
            "WITHOUT_GPU_LATE": "1",
            # The ops are there, precompiled, and can be got from nowhere else.
            CACHE_VARIABLE: str(tmp_path / "cache"),
            "MODULAR_MOJO_MAX_DRIVER_PATH": "/nowhere",
        },
    )
    assert done.returncode == 0, done.stderr
    done_by = Counter(line.partition(" ")[0] for line in log.read_text().splitlines())
    assert not done_by["refused"]
    assert not done_by["changed:"], "what a GPU that is late would still have to read"
    layers, around_them = 24, 4
    if device_graphs:
        assert f"captured {layers * 10 + around_them}\n" in log.read_text()
        assert done_by["replay"] >= 8
        # Nothing comes to lie where a graph was told that its numbers are.
        since = log.read_text().partition("begin capture\n")[2].splitlines()
        assert not {line.partition(" ")[0] for line in since} & {"free", "set", "beside:"}
    else:
        assert done_by["launch"] > 16 * layers * 10
        blocks = Counter(re.findall(r"^launch (\S+) (\d+) 1 1$", log.read_text(), re.MULTILINE))
        dense = [name for name, count in blocks if count == "160" and blocks[name, "90"]]
        assert len(dense) == 2, "of up to 8 tokens, and of up to 32"
        for name in dense:
            assert blocks[name, "160"] == blocks[name, "90"] >= 7 * layers
