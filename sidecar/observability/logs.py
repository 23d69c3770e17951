"""Log handlers: standard error, rotating file; the folder of its files.

A host may not read the service's standard error, or close it. So a separate thread writes there
from a bounded queue: a full pipe loses lines and does not block the service.

The log holds no audio and no transcript (tests/api/test_privacy.py).
"""

import atexit
import functools
import io
import itertools
import json
import logging
import logging.handlers
import math
import os
import queue
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from sidecar import files

LogQueue = queue.Queue[Any]
TEXT_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
"""Format of log lines; the old host searches for ' - ERROR - ' and ' - WARNING - '."""
LOG_QUEUE_RECORDS = 10_000
"""Maximum lines in the queue; more are lost."""
MAX_LOG_FILE_BYTES, ROTATED_LOG_FILES = 1 << 20, 3
TOO_MANY_FILES_MESSAGE, CLIENT_GONE_MESSAGE = (
    "socket.accept() out of system resource",
    "socket.send() raised exception.",
)
"""Messages of asyncio that are muted when they repeat."""
ROTATION_RETRY_S = 60.0
REPEAT_MUTE_S = 10.0
"""Time in seconds for which the first of these messages is muted."""
ONCE_A_MINUTE = {"mute_s": 60.0}
"""``extra`` of a line that clients can cause at will, whatever its arguments."""
_FLUSH_TIMEOUT_S = 1.0
"""Time in seconds that the shutdown waits for lines to be written."""

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Log formatter that writes each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class ProcessLog:
    """Log of this process; its one owner closes it."""

    def __init__(
        self,
        level: str,
        *,
        as_json: bool = False,
        file: Path | None = None,
        exclusive: bool = False,
    ) -> None:
        """Replace the handlers of the root logger. If the file cannot be written, log without it.
        ``exclusive``: if another process logs to it, use the next one (`claim_log_file`)."""
        self._claim: BinaryIO | None = None
        if file is not None and exclusive:
            file, self._claim = claim_log_file(file)
        logging.raiseExceptions = False  # a failure to write the log is not an error of the caller
        self._listeners: list[logging.handlers.QueueListener] = []
        formatter = JsonFormatter() if as_json else logging.Formatter(TEXT_FORMAT)
        root = logging.getLogger()
        root.setLevel(level.upper())
        # It logs a line for each request, at `info`; ours say what they were for.
        if root.level == logging.INFO:
            logging.getLogger("httpx").setLevel(logging.WARNING)
        handlers: list[logging.Handler] = []
        if sys.stderr is not None:  # an executable without a console has none
            handlers.append(logging.StreamHandler(line_buffered_stderr()))
        trouble: OSError | None = None
        if file is not None:
            try:
                handlers.append(rotating_file_handler(file))
            except OSError as error:
                trouble = error
        root.handlers[:] = [self._queued(one, formatter) for one in handlers]
        if trouble is not None:
            logging.getLogger(__name__).warning(
                "the log file cannot be opened; only standard error has the log: %s",
                trouble.strerror,
            )

    def close(self) -> None:
        """Wait up to `_FLUSH_TIMEOUT_S` for unwritten lines, but not for a reader that is gone.

        Python's `logging.shutdown` is unregistered: it would wait for the thread that a full pipe
        blocks.
        """
        atexit.unregister(logging.shutdown)
        deadline = time.monotonic() + _FLUSH_TIMEOUT_S
        for listener in self._listeners:
            while listener.queue.unfinished_tasks and time.monotonic() < deadline:  # type: ignore[attr-defined]
                time.sleep(0.005)
        if self._claim is not None:
            self._claim.close()

    def _queued(self, handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
        """Return a handler that passes lines to ``handler`` in a thread; beyond the limit of the
        queue they are lost, because the error of a full queue is not raised."""
        handler.setFormatter(formatter)
        lines: LogQueue = queue.Queue(LOG_QUEUE_RECORDS)
        listener = logging.handlers.QueueListener(lines, handler)
        listener.start()
        self._listeners.append(listener)
        queued = logging.handlers.QueueHandler(lines)
        queued.addFilter(_repeat_filter())
        return queued


def _repeat_filter() -> Callable[[logging.LogRecord], bool]:
    """Return a filter of messages that repeat without need: `ONCE_A_MINUTE`, and asyncio's.

    If the limit of open files is reached, asyncio retries `accept` two thousand times a second. It
    logs a traceback each time, which would fill a disk. It also logs every write to a client that
    has just disconnected.
    """
    muted_until: dict[str, float] = {}

    def wanted(record: logging.LogRecord) -> bool:
        message, mute_s = record.msg, getattr(record, "mute_s", 0.0)
        if record.name == "asyncio":
            if message == CLIENT_GONE_MESSAGE:
                return False
            if record.getMessage().startswith(TOO_MANY_FILES_MESSAGE):
                message, mute_s, record.exc_info = TOO_MANY_FILES_MESSAGE, REPEAT_MUTE_S, None
        now = time.monotonic()
        if mute_s and now < muted_until.get(message, -math.inf):
            return False
        if mute_s:
            muted_until[message] = now + mute_s
        return True

    return wanted


def line_buffered_stderr() -> TextIO:
    """Return standard error as UTF-8; if it is not a terminal, without the buffer of `sys.stderr`.

    Python flushes that buffer at exit, and would block on a full pipe.
    """
    try:
        if not sys.stderr.isatty():
            raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
            return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    except (OSError, ValueError):  # closed, or not a file
        pass
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    return sys.stderr


class PrivateLogFile(logging.handlers.RotatingFileHandler):
    """Rotating log file that only its owner may read.

    If another program has it or an older one open, Windows does not rename that. Then it grows, and
    is rotated later.
    """

    _not_before = -math.inf

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's
        """Return whether the file is full, and no attempt to rotate it has failed just now."""
        return time.monotonic() >= self._not_before and bool(super().shouldRollover(record))

    def doRollover(self) -> None:  # noqa: N802 - logging's
        """Rename the file and the older ones up to the first number that is free, which is left
        where one of them cannot be renamed: the next attempt moves no others out."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        older = (f"{self.baseFilename}.{number + 1}" for number in range(self.backupCount))
        names = [self.baseFilename, *older]
        free = next((at for at, one in enumerate(names) if not os.path.exists(one)), len(names) - 1)
        try:
            for number in range(free, 0, -1):
                os.replace(names[number - 1], names[number])
        except OSError:
            self._not_before = time.monotonic() + ROTATION_RETRY_S
        self.stream = self._open()

    def _open(self) -> io.TextIOWrapper:
        # Python's own flags: a file that may only be appended to can be opened, too.
        return open(  # type: ignore[return-value]
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=functools.partial(os.open, mode=0o600),
        )


def rotating_file_handler(file: Path) -> logging.Handler:
    """Return a rotating handler of a file that only its owner may read.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return PrivateLogFile(
        file,
        maxBytes=MAX_LOG_FILE_BYTES,
        backupCount=ROTATED_LOG_FILES,
        encoding="utf-8",
        errors="backslashreplace",
    )


def claim_log_file(file: Path) -> tuple[Path, BinaryIO | None]:
    """Return the first of `asr.log`, `asr-2.log` and so on that is no other running process's, and
    what keeps it: a file that stays open.

    Processes that rotate the same file lose lines of each other, and Windows renames no file that
    another process has open.
    """
    for number in itertools.count(1):
        path = file if number == 1 else file.with_stem(f"{file.stem}-{number}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.touch(lock := path.with_suffix(".lock"))
            keeper = lock.open("ab")
        except OSError:  # the log cannot be written, either
            break
        if files.try_lock(keeper):
            return path, keeper
        keeper.close()
    return file, None


def default_data_folder(chosen: Path | None) -> Path | None:
    """Return the folder of logs and crash notes: ``chosen``, or the user's state folder; `None` if
    there is no such folder."""
    return files.user_folder("state") if chosen is None else chosen


def log_file(data_dir: Path | None, port: int) -> Path | None:
    """Return the path of the log file; each port has its own file. Services at any free port (0)
    share a name, and `claim_log_file` gives each its own."""
    folder = default_data_folder(data_dir)
    return folder and folder / "log" / f"vibevoice-asr-{port}.log"
