"""What signals do to a command, and Ctrl-C to one that has other plans for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.process import replace_text, run_command, written_whole

ENVIRONMENT = dict(os.environ)

TAKES_ONE = """
import sys, threading, time
from gpt_oss_mxfp4.process import interrupts_taken, run_command

taken = threading.Event()

def take():
    if taken.is_set():
        return False
    taken.set()
    return True

def work(write, progress):
    with interrupts_taken(take):
        write("ready\\n")
        taken.wait()
        write("taken\\n")
        {then}

sys.exit(run_command(work, verbose=False))
"""


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize(
    ("then", "interrupts", "code", "err"),
    [
        ("pass", 1, 0, ""),
        ("time.sleep(600)", 2, 130, "\ngpt-oss-mxfp4: interrupted\n"),
    ],
)
def test_an_interrupt_that_is_taken_does_not_end_the_process(
    then: str, interrupts: int, code: int, err: str
) -> None:
    process = run(TAKES_ONE.format(then=then))
    assert process.stdout
    for line in ("ready\n", "taken\n")[:interrupts]:
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert (rest, said, process.returncode) == ("taken\n" if interrupts == 1 else "", err, code)


RAISES = """
import sys
from gpt_oss_mxfp4.process import interrupts_raised, run_command
import time

def work(write, progress):
    try:
        with interrupts_raised():
            write("ready\\n")
            time.sleep(600)
    except KeyboardInterrupt:
        write("raised\\n")
    write("again\\n")
    time.sleep(600)

sys.exit(run_command(work, verbose=False))
"""


def test_a_process_that_waits_for_a_line_can_be_terminated() -> None:
    process = run(RAISES)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM


WRITES = """
import sys, time
from pathlib import Path
from gpt_oss_mxfp4.process import run_command, temporary_folder, written_whole

def work(write, progress):
    with written_whole(Path(sys.argv[1]) / "output"), temporary_folder() as folder:
        write(f"{folder}\\n")
        time.sleep(600)

sys.exit(run_command(work, verbose=False))
"""


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGINT, "\ngpt-oss-mxfp4: interrupted\n"),
        (signal.SIGTERM, "gpt-oss-mxfp4: terminated\n"),
    ],
)
@pytest.mark.parametrize("heard", [True, False])
def test_a_signal_ends_it_and_leaves_nothing_unfinished(
    tmp_path: Path, number: signal.Signals, told: str, heard: bool
) -> None:
    """Where nobody reads standard error any more too: of a pipeline all end by the same Ctrl-C."""
    process = run(WRITES, str(tmp_path))
    assert process.stdout
    assert process.stderr
    folder = Path(process.stdout.readline().rstrip())
    assert folder.is_dir()
    assert len(list(tmp_path.iterdir())) == 1
    if not heard:
        process.stderr.close()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert not heard or process.stderr.read() == told
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_raised_where_a_line_is_read_and_ends_the_process_elsewhere() -> None:
    process = run(RAISES)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "raised\n"
    assert process.stdout.readline() == "again\n"
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert (rest, said) == ("", "\ngpt-oss-mxfp4: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("before", "after"), [(("", ""), ("0", "1")), (("1", "0"), ("1", "0"))], ids=["unset", "set"]
)
def test_nothing_is_reported_to_max_s_makers_but_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, before: tuple[str, str], after: tuple[str, str]
) -> None:
    names = ("MODULAR_TELEMETRY_ENABLED", "MAX_SERVE_DISABLE_TELEMETRY")
    for name, value in zip(names, before, strict=True):
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    found: list[str] = []

    def work(write: object, progress: object) -> None:
        found.extend(os.environ[name] for name in names)

    assert run_command(work, verbose=False) == 0
    assert tuple(found) == after


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / ("x" * 250 + ".json"), tmp_path / "link"
    link.symlink_to(path)
    replace_text("--json", path, "first")
    replace_text("--json", link, "a name \udcff that is not UTF-8")
    assert path.read_text() == "a name ? that is not UTF-8"
    assert link.is_symlink()

    def write_half(self: Path, data: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(Refused, match=rf"^--json: {path} cannot be written \(No space left on"):
        replace_text("--json", path, "second")
    assert path.read_text() == "a name ? that is not UTF-8"
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """Not tried at a device: root, who could replace it, runs tests too."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read_fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_text("--json", pipe, "text")
    assert os.read(read_fd, 10) == b"text"
    assert pipe.is_fifo()
    os.close(read_fd)
    read_fd, write_fd = os.pipe()
    replace_text("--json", Path(f"/dev/fd/{write_fd}"), "text")
    assert os.read(read_fd, 10) == b"text"
    os.close(read_fd)
    os.close(write_fd)


CHECKS_PLACE = """
import sys
from pathlib import Path
from gpt_oss_mxfp4.process import check_place, run_command

def work(write, progress):
    write("text\\n")
    check_place("--json", Path(sys.argv[1]))

sys.exit(run_command(work, verbose=False))
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "out", "err"])
def test_a_report_does_not_replace_what_the_command_writes_to(tmp_path: Path, name: str) -> None:
    """``/dev/stdout`` led to the file that standard error goes to, which was then replaced."""
    out, err = tmp_path / "out", tmp_path / "err"
    err.write_text("before\n")
    path = name if name.startswith("/") else str(tmp_path / name)
    with out.open("w") as stdout, err.open("a") as stderr:
        process = subprocess.run(
            [sys.executable, "-c", CHECKS_PLACE, path],
            stdout=stdout,
            stderr=stderr,
            check=False,
            env=ENVIRONMENT,
        )
    assert (process.returncode, out.read_text()) == (2, "text\n")
    assert err.read_text() == (
        f"before\ngpt-oss-mxfp4: --json: {path} is what standard output or standard error goes to; name another file\n"
    )


def test_a_report_may_go_to_the_null_device() -> None:
    process = subprocess.run(
        [sys.executable, "-c", CHECKS_PLACE, os.devnull],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        env=ENVIRONMENT,
    )
    assert process.returncode == 0


def test_only_what_concerns_the_output_is_blamed_on_it(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="weights"),
        written_whole(tmp_path / "output"),
    ):
        raise FileNotFoundError(2, "No such file or directory", "weights")
    with (
        pytest.raises(Refused, match=r"^--output: .*/output cannot be written \("),
        written_whole(tmp_path / "output"),
    ):
        (tmp_path / "output").write_text("another's")
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
