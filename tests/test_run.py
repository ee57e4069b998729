"""./run where it downloads nothing: its words, when it makes the environment anew, what uv is told."""

import os
import runpy
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Load a copy of ./run in a project of its own, as its globals."""
    for name in ("run", "pyproject.toml", "requirements/build.txt", "requirements/runtime.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "requirements" / "test.txt").write_text("pytest==9.2.0\n")
    (tmp_path / "requirements" / "train.txt").write_text("matplotlib==3.11.2\n")
    (tmp_path / "requirements" / "bench.txt").write_text("llama-cpp-python==0.3.36\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return runpy.run_path(str(tmp_path / "run"))


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_goes_to_standard_output() -> None:
    result = call("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "./run generate" in result.stdout


def test_no_command_is_an_error_that_leaves_standard_output_empty() -> None:
    result = call()
    assert (result.returncode, result.stdout) == (2, "")
    assert "./run generate" in result.stderr


def test_environment_is_complete_once_it_is_stamped(run: dict[str, Any]) -> None:
    assert not run["is_complete"]("runtime")
    run["STAMP"].write_text(run["digest"]("runtime"))
    assert run["is_complete"]("runtime")
    assert not run["is_complete"]("test")


def test_environment_for_tests_serves_the_runtime(run: dict[str, Any]) -> None:
    run["STAMP"].write_text(run["digest"]("test"))
    assert run["is_complete"]("test")
    assert run["is_complete"]("runtime")


def test_environment_for_training_serves_all_but_comparing(run: dict[str, Any]) -> None:
    run["STAMP"].write_text(run["digest"]("train"))
    assert all(run["is_complete"](level) for level in ("runtime", "test", "train"))
    assert not run["is_complete"]("bench")


def test_environment_for_comparing_serves_all(run: dict[str, Any]) -> None:
    run["STAMP"].write_text(run["digest"]("bench"))
    assert all(run["is_complete"](level) for level in run["LEVELS"])


def test_llama_cpp_alone_is_built_from_source_and_for_comparing_alone(
    run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    make = run["make"].__globals__
    monkeypatch.setitem(make, "call", lambda command, environment: calls.append(command))
    monkeypatch.setitem(make, "uv_environment", lambda python: {})
    for level, packages in (("test", []), ("bench", ["llama-cpp-python"])):
        calls.clear()
        run["STAMP"].write_text(run["digest"]("runtime"))
        run["make"](level, anew=False)
        install = next(command for command in calls if f"{level}.txt" in command[-1])
        assert install[install.index("--only-binary") + 1] == ":all:"
        assert [b for a, b in pairwise(install) if a == "--no-binary"] == packages


def test_environment_for_tests_does_not_serve_training(run: dict[str, Any]) -> None:
    run["STAMP"].write_text(run["digest"]("test"))
    assert not run["is_complete"]("train")


@pytest.mark.parametrize("name", ["requirements/build.txt", "requirements/test.txt"])
def test_environment_is_stale_when_a_pin_changes(run: dict[str, Any], name: str) -> None:
    run["STAMP"].write_text(run["digest"]("test"))
    with (run["ROOT"] / name).open("a") as file:
        file.write("another==1.0\n")
    assert not run["is_complete"]("test")


def test_environment_without_its_python_is_stale(run: dict[str, Any]) -> None:
    run["STAMP"].write_text(run["digest"]("test"))
    run["PYTHON"].unlink()
    run["PYTHON"].symlink_to("no-such-python")
    assert not run["is_complete"]("test")


def test_uv_is_told_where_pip_looks(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(variable)
    pip = run["ROOT"] / "python-with-pip"
    pip.write_text("#!/bin/sh\necho \"global.index-url='https://one.test'\"\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PIP_FIND_LINKS", "/b /c")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://two.test")
    monkeypatch.setenv("UV_INDEX", "https://three.test")
    environment = run["uv_environment"](str(pip))
    assert environment["UV_DEFAULT_INDEX"] == "https://one.test"
    assert environment["UV_FIND_LINKS"] == "/b,/c"
    assert environment["UV_INDEX"] == "https://three.test"
    assert environment["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_what_generate_imports_is_kept_compiled(run: dict[str, Any]) -> None:
    """Even where the caller's Python keeps nothing."""
    forbidding = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/elsewhere"}
    assert run["may_write_bytecode"]({"PATH": "/bin", **forbidding}) == {"PATH": "/bin"}
    compile(run["COMPILE_IMPORTS"], "run", "exec")


def test_every_verb_of_the_command_is_a_verb_here(run: dict[str, Any]) -> None:
    from gpt_oss_mxfp4 import cli

    verbs = {verb.__name__.rpartition(".")[2] for verb in cli.VERBS}
    assert set(run["PACKAGE_VERBS"]) == verbs
    for verb in verbs:
        assert run["VERBS"][verb] == ["gpt-oss-mxfp4", verb]
        assert run["COMMAND_LEVELS"][verb] == "runtime"
        assert f"./run {verb}" in call("--help").stdout


def call_copy(run: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(run["ROOT"] / "run"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_an_unknown_command_is_refused_before_anything_is_set_up(run: dict[str, Any]) -> None:
    result = call_copy(run, "genrate")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"run: there is no command 'genrate' in {run['VENV'] / 'bin'}; ./run --help lists the usual ones\n"
    )


def test_an_environment_that_is_a_link_is_left_alone(run: dict[str, Any]) -> None:
    """Whatever it leads to may be another project's."""
    elsewhere = run["ROOT"] / "elsewhere"
    run["VENV"].rename(elsewhere)
    run["VENV"].symlink_to(elsewhere)
    result = call_copy(run, "generate")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"run: {run['VENV']} is a link; remove it, and the environment is made in its place\n"
    )
    assert (elsewhere / "bin" / "python").is_symlink()


def test_a_reader_that_stops_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / "run"), "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_ctrl_c_during_the_set_up_is_told_in_one_line(run: dict[str, Any], tmp_path: Path) -> None:
    """As at a terminal: every process of the group gets it."""
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f"#!{sys.executable}\nimport pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    uv.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(run["ROOT"] / "run"), "generate"],
        env={**os.environ, "PATH": f"{uv.parent}{os.pathsep}{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [line.split(";")[0] for line in err.splitlines()] == [
        f"run: setting up {run['VENV']} (runtime)",
        "run: interrupted",
    ]
