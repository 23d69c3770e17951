"""Live segments of VibeVoice-ASR-Streaming: windows of several sessions in shared passes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.torch_inference import inference
from sidecar.engines.vibevoice.streamed_segment import (
    ChunkText,
    StreamedSegment,
    recognize_windows,
)
from sidecar.engines.vibevoice.streaming_model import StreamingModel, StreamingSession
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _WaitingWindow:
    session: StreamingSession
    samples: Block
    chunk: Future[ChunkText] = field(default_factory=Future)


class SharedModel:
    """Model for several threads, each with a segment of its own: windows that wait for the model
    at the same time share its passes."""

    def __init__(self, model: StreamingModel) -> None:
        self._model = model
        self._running, self._queueing = Lock(), Lock()
        self._waiting: list[_WaitingWindow] = []

    def recognize(self, request: SegmentRequest, *, last: bool) -> RecognitionHypothesis | None:
        """Recognize the windows of a segment that are complete; ``last``: all of its audio. None
        if that is not wanted any more."""
        return recognize_windows(self._model.format, self._transcribe, request, last=last)

    def _transcribe(
        self, request: SegmentRequest, _segment: StreamedSegment, window: Block
    ) -> ChunkText:
        """Wait for the model, and transcribe this window with all others that wait."""
        session = request.session.kept
        if not isinstance(session, StreamingSession):  # its first window, or one after a failure
            with self._running, inference():
                session = request.session.kept = self._model.open(request.options.prompt_lines)
        mine = _WaitingWindow(session, window)
        with self._queueing:
            self._waiting.append(mine)
        with self._running:
            if not mine.chunk.done():
                self._run_waiting()
        if mine.chunk.exception() is not None:
            request.session.kept = None  # its cache has a part of the chunk
        return mine.chunk.result()

    def _run_waiting(self) -> None:
        with self._queueing:
            due, self._waiting = self._waiting, []
        sessions, windows = [one.session for one in due], [one.samples for one in due]
        for one, chunk in zip(due, transcribe_each(self._model, sessions, windows), strict=True):
            if isinstance(chunk, Exception):  # the thread that waits raises it
                one.chunk.set_exception(chunk)
            else:
                one.chunk.set_result(chunk)


def transcribe_each(
    model: StreamingModel, sessions: Sequence[StreamingSession], windows: Sequence[Block]
) -> Sequence[ChunkText | Exception]:
    """Add a window to each of the sessions in shared passes; return the texts of their chunks. If a
    pass fails, each session has its own once: an error is that of the session at fault."""
    before = [one.mark() for one in sessions]
    try:
        with inference():
            return model.transcribe(sessions, windows)
    except Exception as error:
        if len(sessions) == 1 or isinstance(error, errors.DeviceLost):
            return [error] * len(sessions)
        log.exception("internal error in a pass that live sessions share; each has its own")
    found: list[ChunkText | Exception] = []  # here the tensors of the shared pass are freed
    for session, mark, window in zip(sessions, before, windows, strict=True):
        session.go_back(mark)
        found += transcribe_each(model, [session], [window])
    return found
