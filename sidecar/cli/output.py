"""Messages, progress, transcript files, exit codes, Ctrl-C."""

from __future__ import annotations

import errno
import io
import itertools
import os
import re
import secrets
import signal
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors, files

if TYPE_CHECKING:
    import asyncio

    from sidecar.config.settings import Settings


PROGRAM = "vibevoice-asr"
COMPLETION = "_VIBEVOICE_ASR_COMPLETE"
"""Variable that a shell sets to request completions."""
USAGE = 2
"""Exit code of an invalid command line."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""
SIGNAL_BURST_S = 1.0
"""Within this time, signals of one kind count as one."""
_STEERS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates, line and paragraph separators."""
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of characters that change the direction of the following ones (UAX 9)."""


_WINDOWS_NAME_BYTES = 2 * 255
_NO_READER = frozenset({errno.EPIPE, *([errno.EINVAL] if sys.platform == "win32" else [])})
"""Errors of a pipe whose reader is gone: Windows calls it an invalid argument."""
_NOT_EVERYWHERE = re.compile(r'[<>:"/\\|?*\x00-\x1f\ud800-\udfff]|(?<![. ])[. ]+$')
"""Characters that a name cannot have on Windows, whose disks and shares other systems mount."""
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


EXIT_CODES: dict[str, int] = {  # sysexits.h
    errors.SettingsInvalid.code: 78,
    errors.FolderTaken.code: 78,
    errors.PortInUse.code: 75,
    errors.EngineUnavailable.code: 69,
    errors.HubUnreachable.code: 69,
    **{kind.code: 66 for kind in errors.BadCheckpoint.__subclasses__()},
}


ProgressCallback = Callable[[str, float, float | None], None]
"""Callback for the progress of a recording: stage, amount done, total (`None`: unknown)."""


def printable(name: str) -> str:
    """Return a name, or other foreign text, safe for a terminal. Characters that move the cursor,
    set colours or reverse text are escaped as in Python (``\\x1b``). Pure."""
    return "".join(one.encode("unicode_escape").decode() if _steers(one) else one for one in name)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 job", "2 jobs". Pure."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class _Stdout(io.FileIO):
    """Standard output that keeps its failure: the buffers above forget what could not be
    written."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some of ``data``; return how many bytes."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def open_stdout() -> None:
    """Make standard output UTF-8, whatever the encoding of the console or the pipe, and keep its
    failures, also with PYTHONUNBUFFERED. If it is closed (``>&-``), let writes fail, as the results
    would be lost without a sign."""
    if sys.stdout is None:
        sys.stdout = _text_of(_Stdout(os.open(os.devnull, os.O_RDONLY), "w"))
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        if isinstance(getattr(sys.stdout.buffer, "raw", sys.stdout.buffer), io.FileIO):
            sys.stdout = _text_of(
                _Stdout(sys.stdout.fileno(), "w", closefd=False), sys.stdout.line_buffering
            )


def _text_of(raw: _Stdout, by_lines: bool = False) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=by_lines)


def open_stderr() -> None:
    """Make standard error UTF-8, as the log is: hosts on Windows read both from one pipe."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")


def close_stdout() -> int:
    """Flush standard output at the end of a command, or at a failure that may be its own; return
    the exit code: 1 if it could not be written, which is told, unless its reader is gone
    (`… | head`)."""
    if sys.stdout is None:
        return 0
    failure: OSError | None = None
    try:
        sys.stdout.flush()
    except OSError as error:
        failure = error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = failure or getattr(raw, "failure", None)
    if failure is None:
        return 0
    if failure.errno not in _NO_READER:
        print_error_line(f"standard output: cannot be written: {failure.strerror}.")
    discard(sys.stdout.fileno())  # the flush at exit succeeds
    return 1


def discard(fd: int) -> None:
    """Discard what is written to a descriptor from now on, also what is in its buffers."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def print_text(text: str) -> None:
    """Print results to standard output, and flush. Nothing else does: no line is lost unnoticed."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_error_line(message: str) -> None:
    """Print one line on stderr."""
    if sys.stderr is not None:  # a windowed executable has none
        print(f"{PROGRAM}: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def keep_quiet(settings: Settings) -> None:
    """Log to stderr at the level that was set; otherwise only critical records, as a command prints
    its own messages."""
    import logging

    from sidecar.observability.logs import TEXT_FORMAT

    level = settings.log_level if "log_level" in settings.model_fields_set else "critical"
    logging.basicConfig(level=level.upper(), format=TEXT_FORMAT)


def report_error(error: errors.SidecarError, about: str = "") -> int:
    """Print the error in one line: what was wrong, with what, and what to do. Return the exit
    code."""
    message = f"{error.detail} {error.hint}"
    print_error_line(f"{about}: {message}" if about else message)
    return EXIT_CODES.get(error.code, 1)


def _steers(one: str) -> bool:
    return unicodedata.category(one) in _STEERS or unicodedata.bidirectional(one) in _TURNS


@contextmanager
def handle_interrupts(ended: asyncio.Event) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, SIGTERM or the end of the terminal set ``ended``, and a Ctrl-C after any of them,
    or a later signal of the same kind, cancel this task; yield the function that returns whether
    there was one."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    # A terminal that is gone can no longer be asked whether it is one.
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    seen: dict[int, float] = {}

    def interrupt(number: int, _: object) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):  # the terminal is gone
            for fd in terminals:  # writes would fail
                discard(fd)
        # One end can be several signals at once: SIGTERM and SIGHUP of a login's, two SIGHUPs of a
        # terminal's (shell and kernel), two SIGTERMs of `timeout` (process and group).
        now = loop.time()
        later = now - seen.setdefault(number, now) > SIGNAL_BURST_S
        again = ended.is_set() and (number == signal.SIGINT or later)
        loop.call_soon_threadsafe(task.cancel if again else ended.set)

    ends = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        ends.append(signal.SIGHUP)
    before = [(number, signal.signal(number, interrupt)) for number in ends]
    try:
        yield ended.is_set
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@asynccontextmanager
async def cancelled_by(ended: asyncio.Event) -> AsyncIterator[None]:
    """Cancel this task if ``ended`` is set within the block, in which there are no words yet."""
    import asyncio

    from sidecar.concurrency import running

    task = asyncio.current_task()
    assert task is not None

    async def cancel() -> None:
        await ended.wait()
        task.cancel()

    async with running(cancel()):
        yield


def name_key(name: str) -> str:
    """Return what two names have in common that are one file on some disks."""
    return unicodedata.normalize("NFC", name.casefold())


def numbered_names(folder: Path, name: str) -> Iterator[str]:
    """Yield ``name``, then the same with "-2", "-3" and so on before its ending. Its end is cut off
    if it is too long for a file of the folder."""
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, f".{ending}") if dot else (name, "")
    for number in itertools.count(1):
        end, left = f"-{number}{ending}" if number > 1 else ending, stem
        while len(left) > 1 and _is_too_long(folder / f"{left}{end}"):
            left = left[:-1]
        yield f"{left}{end}"


def _is_too_long(path: Path) -> bool:
    if sys.platform == "win32":  # whose error is that of a name with a wrong character, or of none
        return len(path.name.encode("utf-16-le", "surrogatepass")) > _WINDOWS_NAME_BYTES
    try:
        path.lstat()
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def is_name_error(error: OSError) -> bool:
    """Return whether a file could not be written because of its name; others can be."""
    return error.errno in _OF_NAMES


def portable_name(name: str) -> str:
    """Return a name that a file can have on every disk and share, if it is not too long. Pure."""
    return _NOT_EVERYWHERE.sub("_", name)


def encode_text(text: str) -> bytes:
    """Return the bytes of a text file."""
    return text.encode("utf-8", "backslashreplace")


def create_file(path: Path) -> bool:
    """Create an empty file; return whether there was none of that name.

    Raises:
        OSError: it cannot be written.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def new_file(path: Path) -> Path:
    """Create an empty file for an output, and return its path: with a number if there is a file of
    that name, which is kept and told. A device stays as it is.

    Raises:
        OSError: it cannot be written.
    """
    if is_device(path):
        return path
    names = numbered_names(path.parent, path.name)
    free = next(path.with_name(one) for one in names if create_file(path.with_name(one)))
    if free.name != path.name:
        print_error_line(f"{path} exists and is kept; the output is {free.name}.")
    return free


def named_file(path: Path | None) -> Path | None:
    """Return the path of an output; `None` for standard output."""
    return None if path is None or path.as_posix() in ("-", "/dev/stdout") else path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write the whole file or nothing: an existing file is always complete. A link stays one.

    Raises:
        OSError: it cannot be written.
    """
    data = encode_text(content) if isinstance(content, str) else content
    if is_device(path):
        # A console of Windows cannot be appended to; an open file has to be.
        with path.open("ab" if files.is_descriptor_path(str(path)) else "wb") as device:
            device.write(data)
        return
    path = path.resolve()
    with written_beside(path, data) as half:
        files.replace(half, path)


def write_new(path: Path, content: str | bytes) -> Path:
    """Write a new file, as `new_file` names it; return its path.

    Raises:
        OSError: it cannot be written; none is left.
    """
    free = new_file(path)
    try:
        write_atomically(free, content)
    except OSError:
        if not is_device(free):
            files.remove(free)
        raise
    return free


def check_writable(path: Path) -> None:
    """Check that the file could be written, before long work for it.

    Raises:
        OSError: it cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not is_device(path):
        with written_beside(path.resolve(), b""):
            pass


def is_device(path: Path) -> bool:
    """Return whether a path is what cannot be replaced: a terminal, a pipe, `/dev/null`, or a file
    that is open already, as `/dev/fd/3`."""
    if not path.exists() or path.is_dir():
        return False
    return not path.is_file() or files.is_descriptor_path(str(path))


@contextmanager
def written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """Write ``data`` to a file in the same folder; it is deleted unless it has been moved."""
    half = path.with_name(f".{secrets.token_hex(4)}.part")  # short, as long names fail
    try:
        try:
            half.write_bytes(data)
        except OSError as error:
            error.filename = str(path)  # not a name that nobody gave
            raise
        yield half
    finally:
        files.remove(half)
