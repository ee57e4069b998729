"""A command as a process: its exit code, its two streams, its log, and signals while MAX compiles."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from gpt_oss_mxfp4.answer import Write
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.options import CACHE_LOGGER, Failed, Refused
from gpt_oss_mxfp4.progress import Progress

_UNFINISHED: list[Path] = []
"""Folders to remove where the process ends at once."""

_TAKERS: list[Callable[[], bool]] = []
"""Asked at Ctrl-C, the last first, whether they take it; the process ends where none does."""

_STREAMS: list[os.stat_result] = []
"""What standard output and standard error lead to, while a command runs."""

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_NOBODY_READS = 128 + signal.SIGPIPE
EXIT_TERMINATED = 128 + signal.SIGTERM


def run_command(
    work: Callable[[Write, Progress], None], *, verbose: bool, terminated: int = EXIT_TERMINATED
) -> int:
    """Runs a command, and reports what went wrong in one line.

    Args:
        work: the command; gets what writes to standard output, and what tells its progress.
        verbose: whether MAX's log is shown.
        terminated: the exit code where SIGTERM ends it.

    Returns:
        The exit code, see ``cli.main``.
    """
    # MAX reports usage and errors to its makers unless it is told not to; whoever sets the variables decides.
    os.environ.setdefault("MODULAR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("MAX_SERVE_DISABLE_TELEMETRY", "1")
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the process's own, to its end)
    if sys.stdout is None:
        print("gpt-oss-mxfp4: standard output must be open, the text goes there", file=sys.stderr)
        return EXIT_REFUSED
    progress = Progress(sys.stderr)
    _configure_logging(verbose, progress)
    with _exit_at_signals(terminated), _own_stdout() as write:
        try:
            work(write, progress)
        except (CheckpointError, Refused) as error:
            print(f"gpt-oss-mxfp4: {error}", file=sys.stderr)
            return EXIT_REFUSED
        except Failed as error:
            print(f"gpt-oss-mxfp4: {error}", file=sys.stderr)
            return EXIT_FAILED
        except BrokenPipeError:
            return EXIT_NOBODY_READS
    return 0


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """Gives a folder to fill, which gets to its place whole or not at all, at Ctrl-C and SIGTERM too.

    Args:
        output: its place, where nothing is yet.

    Yields:
        The folder, beside its place.

    Raises:
        Refused: it cannot be made there.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise Refused(f"--output: {output} cannot be made ({error.strerror})") from error
    _UNFINISHED.append(temporary)
    try:
        yield temporary
        try:  # not what fills it: that may fail at other files
            temporary.chmod(0o755)
            temporary.rename(output)
        except OSError as error:
            raise Refused(f"--output: {output} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _UNFINISHED.remove(temporary)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Gives an empty folder that is gone afterwards, at Ctrl-C and SIGTERM too."""
    folder = Path(tempfile.mkdtemp(prefix="gpt-oss-mxfp4-"))
    _UNFINISHED.append(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _UNFINISHED.remove(folder)


def end_at_once(code: int) -> NoReturn:
    """Ends the process where it stands; what is unfinished or temporary is removed.

    Args:
        code: its exit code.
    """
    for folder in _UNFINISHED:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


def replace_text(option: str, path: Path, text: str) -> None:
    """Writes a file under a temporary name beside it, and renames it; what is no file, a pipe say, is written to.

    Args:
        option: what names it.
        path: its place; a link is followed.
        text: what to write, as UTF-8; a ``?`` where a name that is not UTF-8 is part of it.

    Raises:
        Refused: it cannot be written; nothing has changed.
    """
    place = Path(os.path.realpath(path))
    data = text.encode("utf-8", errors="replace")
    temporary = place.with_name(f".{os.getpid()}.part")  # no longer than any name
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            path.write_bytes(data)
            return
        temporary.write_bytes(data)
        temporary.replace(place)
    except OSError as error:
        raise Refused(f"{option}: {path} cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_place(option: str, path: Path) -> None:
    """Refuses a file that :func:`replace_text` could not write, before what it is to hold takes its time.

    What standard output or standard error goes to is refused as well: a file would be replaced, with the text that it
    has already, and ``/dev/stdout`` is standard error, see :func:`_own_stdout`.

    Args:
        option: what names it.
        path: its place.

    Raises:
        Refused: it is a folder or one of those two, or nothing can be written beside it.
    """
    try:
        found = os.stat(path) if os.path.exists(path) else None
        if found and any(os.path.samestat(found, stream) for stream in _STREAMS):
            raise Refused(
                f"{option}: {path} is what standard output or standard error goes to; name another file"
            )
        if found and not os.path.isfile(path):
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))):
            pass
    except OSError as error:
        raise Refused(f"{option}: {path} cannot be written ({error.strerror})") from error


@contextmanager
def interrupts_taken(take: Callable[[], bool]) -> Iterator[None]:
    """Has a function decide what Ctrl-C does, instead of ending the process.

    Args:
        take: called in a thread of its own; returns whether it took the interrupt, or else the process ends.
    """
    _TAKERS.append(take)
    try:
        yield
    finally:
        _TAKERS.remove(take)


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Has Ctrl-C raise KeyboardInterrupt, for the main thread while it waits for a line."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    wakeup_fd = signal.set_wakeup_fd(-1)
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: end_at_once(EXIT_TERMINATED)),
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)


class _Notes(logging.Handler):
    """Tells what is logged as a note of the command's progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message."""
        self._progress.note(record.getMessage())


def _configure_logging(verbose: bool, progress: Progress) -> None:
    cache = logging.getLogger(CACHE_LOGGER)
    cache.handlers, cache.propagate, cache.level = [_Notes(progress)], False, logging.WARNING
    if verbose:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    else:
        logging.basicConfig(stream=sys.stderr, level=logging.CRITICAL)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it has a log handler of its own
        os.environ.setdefault("TQDM_DISABLE", "1")  # MAX shows so how it captures device graphs
        warnings.simplefilter("ignore")


@contextmanager
def _own_stdout() -> Iterator[Write]:
    """Keeps standard output for the text: what MAX or a library prints there goes to standard error.

    Yields:
        Writes text as UTF-8 at once.
    """
    sys.stdout.flush()
    null = os.stat(os.devnull)  # which takes a report as well
    streams = [os.fstat(fd) for fd in (1, 2)]
    _STREAMS[:] = [stream for stream in streams if not os.path.samestat(stream, null)]
    text_fd = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        data = text.encode("utf-8", errors="replace")
        while data:
            try:
                data = data[os.write(text_fd, data) :]
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Refused(f"standard output: {error.strerror}") from error

    try:
        yield write
    finally:
        sys.stdout.flush()
        os.dup2(text_fd, 1)
        os.close(text_fd)
        _STREAMS.clear()


@contextmanager
def _exit_at_signals(terminated: int) -> Iterator[None]:
    """Ends the process at Ctrl-C and SIGTERM even while MAX compiles, when no Python of the main thread runs.

    The signal's own handler writes to a pipe at once, and a thread waits at the other end. The work itself cannot
    run in a thread: MAX's compiler wants to be shut down by the thread that used it. Without a handler the first
    process of a container, as which ``pull`` runs there, would not hear SIGTERM at all.
    """
    ends = {
        signal.SIGINT: (EXIT_INTERRUPTED, "\ngpt-oss-mxfp4: interrupted"),
        signal.SIGTERM: (terminated, "gpt-oss-mxfp4: terminated"),
    }
    heard = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    before = {number: signal.signal(number, lambda *_: None) for number in heard}
    wakeup_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)

    def wait() -> None:
        while number := os.read(read_fd, 1):
            if number[0] == signal.SIGINT and any(take() for take in reversed(_TAKERS)):
                continue
            if number[0] in before:
                code, told = ends[signal.Signals(number[0])]
                with suppress(OSError):  # whoever read it may have gone by the same Ctrl-C
                    print(told, file=sys.stderr, flush=True)
                end_at_once(code)  # the compiler's threads cannot be asked to stop

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write_fd)
        thread.join()
        os.close(read_fd)
