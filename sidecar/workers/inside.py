"""Inside a worker: take operations from the channel, run them, send back what they yield.

Started by `workers.worker`. One operation at a time; a side thread listens for 'cancel' and for
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
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from sidecar import errors
from sidecar.audio.decode import AudioFacts, DecodedAudio, open_audio, probe
from sidecar.diagnostics.logs import JsonFormatter
from sidecar.engines import create_engine, spec_of
from sidecar.speech import transcript
from sidecar.speech.engine import (
    Engine,
    LoadOptions,
    Request,
    ResumableEngine,
    SociableEngine,
    TranscribeOptions,
    TunedEngine,
)
from sidecar.speech.transcript import Checkpoint, Event, Finished, Notice, Peaks, Progress
from sidecar.workers import channel
from sidecar.workers.environment import ENDS_WITH_PARENT, LOG_LEVEL

log = logging.getLogger(__name__)

TRUNCATED = Notice("audio_truncated", "The recording was cut off; this is what is there.")
NICENESS = 5
"""Workers stand back behind the service, which must answer, and the desktop they run on."""
PROGRESS_S = 0.1
"""Least time between two reports of progress that are sent on."""
PEAKS = 50
"""Least tenths of a second that are worth a report of how loud they are."""
IDLE_S = 15.0
"""Without work for so long, free memory goes back to the kernel. Not sooner: the next recording
would fault it in again, which makes it 1 to 10 % slower (docs/performance.md); who dictates pauses
for seconds."""
Operation = tuple[dict[str, Any], list[int]]


class Inside:
    """What the worker holds: at most one engine."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.left: set[int] = set()
        """Who of several does not want to be heard any more."""
        self._engine: Engine | None = None
        self._sample_rate = 0

    def run(self, operation: dict[str, Any], fds: list[int]) -> Iterator[dict[str, Any]]:
        """The frames that answer one operation."""
        match operation:
            case {"operation": "probe", "max_s": max_s} if fds:
                yield probe(fds[0], max_s).to_wire()
            case {"operation": "load", "engine": name, "options": options}:
                yield from self._load(name, LoadOptions.from_wire(options))
            case {"operation": "transcribe"} if fds:
                yield from self._transcribe(operation, fds[0])
            case {"operation": "transcribe_together", "requests": requests} if fds:
                yield from self._transcribe_together(requests, fds)
            case _:
                raise errors.EngineFailed("The worker does not know this operation.")

    def _load(self, name: str, options: LoadOptions) -> Iterator[dict[str, Any]]:
        """Load an engine; how much of it is there is told meanwhile."""
        engine = create_engine(name)
        for part in engine.load(options):
            yield {"loaded": part}
        self._engine, self._sample_rate = engine, spec_of(name).sample_rate
        if isinstance(engine, TunedEngine):
            self._sample_rate = engine.sample_rate

    def _transcribe(self, operation: dict[str, Any], fd: int) -> Iterator[dict[str, Any]]:
        if self._engine is None:
            raise errors.EngineFailed("The engine is not loaded.")
        options = TranscribeOptions.from_wire(operation["options"])
        with self._opened(operation, fd) as audio:
            report = Report(audio)
            if operation.get("settled") is None:
                events = self._engine.transcribe(audio, options, self.cancel.is_set)
            else:
                settled = [_checkpoint(values) for values in operation["settled"]]
                engine = cast(ResumableEngine, self._engine)
                events = engine.transcribe_from(settled, audio, options, self.cancel.is_set)
            for event in events:
                yield from report.of(event)

    def _transcribe_together(
        self, wanted: list[dict[str, Any]], fds: list[int]
    ) -> Iterator[dict[str, Any]]:
        """Several in step; one that cannot be opened fails alone."""
        engine = cast(SociableEngine, self._engine)
        with ExitStack() as opened:
            numbers, requests, reports = [], [], []
            for number, (one, fd) in enumerate(zip(wanted, fds, strict=True)):
                try:
                    audio = opened.enter_context(self._opened(one, fd))
                except errors.SidecarError as error:
                    yield {"number": number, "failed": error.to_wire()}
                    continue
                options = TranscribeOptions.from_wire(one["options"])
                numbers.append(number)
                requests.append(Request(audio, options, partial(self._unwanted, number)))
                reports.append(Report(audio))
            for index, event in engine.transcribe_together(requests) if requests else ():
                if isinstance(event, errors.SidecarError):
                    yield {"number": numbers[index], "failed": event.to_wire()}
                    continue
                for frame in reports[index].of(event):
                    yield {"number": numbers[index], "event": frame}

    def _opened(self, operation: dict[str, Any], fd: int) -> DecodedAudio:
        facts = AudioFacts.from_wire(operation["facts"])
        return open_audio(fd, facts, rate=self._sample_rate, max_s=operation["max_s"])

    def _unwanted(self, number: int) -> bool:
        return number in self.left or self.cancel.is_set()


def _checkpoint(values: dict[str, Any]) -> Checkpoint:
    event = transcript.from_wire(values)
    if not isinstance(event, Checkpoint):
        raise errors.EngineFailed("What is to be gone on from is no checkpoint.")
    return event


class Report:
    """What of a transcription is told to the service."""

    def __init__(self, audio: DecodedAudio) -> None:
        self._audio = audio
        self._told = 0.0
        self._drawn = 0

    def of(self, event: Event) -> Iterator[dict[str, Any]]:
        """The frames for an event; none for progress that comes too soon after the last. With them
        goes how loud it was until here; of the whole, before the end."""
        if not isinstance(event, Finished):
            yield from self._said(event)
        levels = self._audio.peaks.since(self._drawn)
        if len(levels) >= PEAKS or (levels and isinstance(event, Finished)):
            yield transcript.to_wire(Peaks(self._drawn, levels))
            self._drawn += len(levels)
        if isinstance(event, Finished):
            yield from self._said(event)

    def _said(self, event: Event) -> Iterator[dict[str, Any]]:
        if isinstance(event, Progress):
            if time.monotonic() - self._told < PROGRESS_S:
                return
            self._told = time.monotonic()
        if isinstance(event, Finished) and self._audio.truncated:
            event = Finished(event.transcript.noting(TRUNCATED))
        yield transcript.to_wire(event)


def serve(sock: socket.socket) -> None:
    """Answer operations until the other side is gone (which ends the process)."""
    inside = Inside()
    operations: queue.SimpleQueue[Operation] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sock, inside, operations), daemon=True).start()
    while True:
        operation, fds = _next(operations)
        try:
            answer = _answer(sock, inside, operation, fds)
        finally:
            for fd in fds:
                os.close(fd)
        channel.send(sock, answer)


def _next(operations: queue.SimpleQueue[Operation]) -> Operation:
    """The next operation; while it is long in coming, this process is made small."""
    try:
        return operations.get(timeout=IDLE_S)
    except queue.Empty:
        give_back()
    return operations.get()


def give_back() -> None:
    """Return the free parts of the heap to the kernel, where the C library is glibc."""
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def _answer(
    sock: socket.socket, inside: Inside, operation: dict[str, Any], fds: list[int]
) -> dict[str, Any]:
    """Run one operation; the last frame of it."""
    try:
        for frame in inside.run(operation, fds):
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
            message, fds = channel.receive(sock)
            if message.get("operation") == "cancel":
                inside.cancel.set()
            elif message.get("operation") == "leave":
                inside.left.add(message["number"])
            else:
                inside.cancel.clear()
                inside.left.clear()
                operations.put((message, fds))
    except channel.ChannelClosed:
        os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it (the channel's end does so too).

    The kernel means the thread that did: only where that is the service's main thread, which ends
    last, may it be asked.
    """
    if sys.platform == "linux" and ENDS_WITH_PARENT in os.environ:
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """The whole life of a worker."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get(LOG_LEVEL, "INFO"), handlers=[handler])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to answer
    sock = channel.inherited()
    _die_with_parent()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    serve(sock)


if __name__ == "__main__":
    main()
