"""Inside a worker: take operations from the channel, run them, send back what they yield.

Started by `runtime.worker`. One operation at a time; a side thread listens for 'cancel' and for
the end of the service, which is the end of this process too.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from sidecar import errors, transcript
from sidecar.audio.decode import AudioFacts, open_audio, probe
from sidecar.engine import Engine, LoadOptions, TranscribeOptions
from sidecar.engines import create_engine, spec_of
from sidecar.runtime import channel
from sidecar.transcript import Finished, Notice, Progress

log = logging.getLogger(__name__)

TRUNCATED = Notice("audio_truncated", "The recording was cut off; this is what is there.")
NICENESS = 5
"""Workers stand back behind the service, which must answer, and the desktop they run on."""
PROGRESS_S = 0.1
"""Least time between two reports of progress that are sent on."""
Operation = tuple[dict[str, Any], int | None]


class Inside:
    """What the worker holds: at most one engine."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._engine: Engine | None = None
        self._sample_rate = 0

    def run(self, operation: dict[str, Any], fd: int | None) -> Iterator[dict[str, Any]]:
        """The frames that answer one operation."""
        match operation:
            case {"operation": "probe", "max_s": max_s} if fd is not None:
                yield probe(fd, max_s).to_wire()
            case {"operation": "load", "engine": name, "options": options}:
                yield from self._load(name, LoadOptions.from_wire(options))
            case {"operation": "transcribe"} if fd is not None:
                yield from self._transcribe(operation, fd)
            case _:
                raise errors.EngineFailed("The worker does not know this operation.")

    def _load(self, name: str, options: LoadOptions) -> Iterator[dict[str, Any]]:
        """Load an engine; how much of it is there is told meanwhile."""
        engine = create_engine(name)
        for part in engine.load(options):
            yield {"loaded": part}
        self._engine, self._sample_rate = engine, spec_of(name).sample_rate

    def _transcribe(self, operation: dict[str, Any], fd: int) -> Iterator[dict[str, Any]]:
        if self._engine is None:
            raise errors.EngineFailed("The engine is not loaded.")
        facts = AudioFacts.from_wire(operation["facts"])
        options = TranscribeOptions.from_wire(operation["options"])
        with open_audio(fd, facts, rate=self._sample_rate, max_s=operation["max_s"]) as audio:
            told = 0.0
            for event in self._engine.transcribe(audio, options, self.cancel.is_set):
                if isinstance(event, Progress):
                    if time.monotonic() - told < PROGRESS_S:
                        continue
                    told = time.monotonic()
                if isinstance(event, Finished) and audio.truncated:
                    event = Finished(event.transcript.noting(TRUNCATED))
                yield transcript.to_wire(event)


def serve(sock: socket.socket) -> None:
    """Answer operations until the other side is gone (which ends the process)."""
    inside = Inside()
    operations: queue.SimpleQueue[Operation] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sock, inside, operations), daemon=True).start()
    while True:
        operation, fd = operations.get()
        try:
            answer = _answer(sock, inside, operation, fd)
        finally:
            if fd is not None:
                os.close(fd)
        channel.send(sock, answer)


def _answer(
    sock: socket.socket, inside: Inside, operation: dict[str, Any], fd: int | None
) -> dict[str, Any]:
    """Run one operation; the last frame of it."""
    try:
        for frame in inside.run(operation, fd):
            if inside.cancel.is_set():
                break
            channel.send(sock, frame)
    except errors.DeviceLost:
        os._exit(1)  # nothing in this process can use the device again; the job gets a fresh one
    except errors.SidecarError as error:
        return {"error": error.to_wire()}
    except channel.ChannelClosed:
        os._exit(0)
    except Exception as error:  # the one boundary of this process: whatever an engine raises
        log.exception("the operation %s failed", operation.get("operation"))
        return {
            "error": errors.EngineFailed(f"The engine failed: {type(error).__name__}.").to_wire()
        }
    return {"done": True}


def _listen(sock: socket.socket, inside: Inside, operations: queue.SimpleQueue[Operation]) -> None:
    try:
        while True:
            message, fd = channel.receive(sock)
            if message.get("operation") == "cancel":
                inside.cancel.set()
            else:
                inside.cancel.clear()
                operations.put((message, fd))
    except channel.ChannelClosed:
        os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it (the channel's end does so too).

    The kernel means the parent's thread: the service spawns from its main thread.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """The whole life of a worker."""
    logging.basicConfig(
        level=os.environ.get(channel.LOG_LEVEL, "INFO"),
        format="%(asctime)s - %(name)s - %(levelname)s - %(message)s",
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to answer
    sock = channel.inherited()
    _die_with_parent()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    serve(sock)


if __name__ == "__main__":
    main()
