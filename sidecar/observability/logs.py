"""Log handlers: standard error, rotating file; folder of logs and notes.

A host may not read our standard error, or close it: a thread of its own writes there from a queue
with an end, so that a full pipe costs lines and not the service.

The log holds no audio and no transcript (tests/api/test_privacy.py).
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import logging
import logging.handlers
import math
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

LogQueue = queue.Queue[Any]
TEXT_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
"""The old host looks for ' - ERROR - ' and ' - WARNING - '."""
LOG_QUEUE_RECORDS = 10_000
"""Lines that wait for a reader; more are lost."""
MAX_LOG_FILE_BYTES, ROTATED_LOG_FILES = 1 << 20, 3
TOO_MANY_FILES_MESSAGE, CLIENT_GONE_MESSAGE = (
    "socket.accept() out of system resource",
    "socket.send() raised exception.",
)
"""Messages of asyncio that are muted when they repeat."""
REPEAT_MUTE_S = 10.0
"""So long the former is not said again."""
_FLUSH_TIMEOUT_S = 1.0
"""Time that the shutdown waits for lines to be written."""


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(level: str) -> None:
    """The log of a command that somebody runs in a terminal."""
    logging.basicConfig(level=level.upper(), format=TEXT_FORMAT)


class ProcessLog:
    """The log of this process; one owner, who closes it."""

    def __init__(self, level: str, *, as_json: bool = False, file: Path | None = None) -> None:
        """Take over the root logger. A file that cannot be written is done without."""
        logging.raiseExceptions = False  # a log that cannot be written is nobody's error
        self._listeners: list[logging.handlers.QueueListener] = []
        formatter = JsonFormatter() if as_json else logging.Formatter(TEXT_FORMAT)
        root = logging.getLogger()
        root.setLevel(level.upper())
        handlers: list[logging.Handler] = []
        if sys.stderr is not None:  # a windowed executable has none
            handlers.append(logging.StreamHandler(_line_buffered_stderr()))
        trouble: OSError | None = None
        if file is not None:
            try:
                handlers.append(rotating_file_handler(file))
            except OSError as error:
                trouble = error
        drop = _DroppingQueueHandler([self._queue_for(one, formatter) for one in handlers])
        drop.addFilter(_repeat_filter())
        root.handlers[:] = [drop]
        if trouble is not None:
            logging.getLogger(__name__).warning(
                "the log file cannot be opened; only standard error has the log: %s",
                trouble.strerror,
            )

    def close(self) -> None:
        """Wait a moment for what is not written yet; a reader who is gone is not waited for.

        Nor by Python: its `logging.shutdown` would wait for the thread that a full pipe holds.
        """
        atexit.unregister(logging.shutdown)
        deadline = time.monotonic() + _FLUSH_TIMEOUT_S
        for listener in self._listeners:
            while listener.queue.unfinished_tasks and time.monotonic() < deadline:  # type: ignore[attr-defined]
                time.sleep(0.005)

    def _queue_for(self, handler: logging.Handler, formatter: logging.Formatter) -> LogQueue:
        handler.setFormatter(formatter)
        lines: LogQueue = queue.Queue(LOG_QUEUE_RECORDS)
        listener = logging.handlers.QueueListener(lines, handler)
        listener.start()
        self._listeners.append(listener)
        return lines


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Loses a line rather than waiting; what several threads log has one order in all queues."""

    def __init__(self, queues: list[LogQueue]) -> None:
        super().__init__(queue.Queue())
        self._queues = queues

    def enqueue(self, record: logging.LogRecord) -> None:
        for lines in self._queues:
            with contextlib.suppress(queue.Full):
                lines.put_nowait(record)


def _repeat_filter() -> Callable[[logging.LogRecord], bool]:
    """Passes over what asyncio says again and again, with nothing to be done about it each time.

    Where no file may be opened any more it tries to accept two thousand times a second and writes a
    traceback for each, which would fill a disk; and it tells of each word to a client that has just
    gone.
    """
    told_at = -math.inf

    def wanted(record: logging.LogRecord) -> bool:
        nonlocal told_at
        if record.name != "asyncio":
            return True
        if record.getMessage().startswith(TOO_MANY_FILES_MESSAGE):
            now = time.monotonic()
            if now - told_at < REPEAT_MUTE_S:
                return False
            told_at, record.exc_info = now, None
        return record.msg != CLIENT_GONE_MESSAGE

    return wanted


def _line_buffered_stderr() -> TextIO:
    """Standard error; where it is no terminal, without the buffer of `sys.stderr`.

    Python empties that one at its end, and would wait for a writer to a full pipe.
    """
    try:
        if not sys.stderr.isatty():
            raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
            return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    except (OSError, ValueError):  # closed, or no file at all
        pass
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    return sys.stderr


def rotating_file_handler(file: Path) -> logging.Handler:
    """A handler of a file that only its owner may read.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return logging.handlers.RotatingFileHandler(
        file,
        maxBytes=MAX_LOG_FILE_BYTES,
        backupCount=ROTATED_LOG_FILES,
        encoding="utf-8",
        errors="backslashreplace",
    )


log = logging.getLogger(__name__)


def default_data_folder(chosen: Path | None) -> Path | None:
    """Return the folder of logs and notes: ``chosen``, or the user's state folder; None if there
    is none."""
    if chosen is not None:
        return chosen
    import platformdirs

    try:
        return Path(platformdirs.user_state_dir("vibevoice-asr", appauthor=False))
    except (OSError, KeyError, RuntimeError):  # a user without a home
        return None


def log_file(data_dir: Path | None, port: int) -> Path | None:
    """Return where the log goes beside standard error; one file for each port."""
    folder = default_data_folder(data_dir)
    return folder and folder / "log" / f"vibevoice-asr-{port}.log"
