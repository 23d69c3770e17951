"""Interface of a live ASR engine, and the start of a live session. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import TranscriptionEngine
from sidecar.interfaces.live_options import LiveOptions, SequenceNumber, TimePosition
from sidecar.serialization import WireValues
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Segment


class LiveSession(Protocol):
    """Stream of audio in an engine. No method waits for recognition. `Summary` is the last event,
    and comes only after `finish`."""

    around: Callable[[], AbstractContextManager[object]]
    """Context manager that each thread of the engine enters while it works for this session; set
    before any audio is pushed."""
    failed: Callable[[errors.SidecarError], object]
    """Called once if work for this session fails; no events follow. Set as `around` is."""

    @property
    def backlog_s(self) -> float:
        """Return the seconds of pushed audio that are not processed yet, or wait for recognition.
        More than a few mean that the caller pushes too fast."""

    def push(self, block: Block) -> None:
        """Add audio at `LIVE_RATE`, shape (samples,)."""

    def change(self, options: LiveOptions) -> None:
        """Change the options from here on."""

    def commit(self) -> None:
        """End the turn here."""

    def cancel(self) -> None:
        """Drop the results that are not sent yet; no more events of this turn follow."""

    def finish(self) -> None:
        """End the audio: send the remaining events, and then the summary."""

    def close(self) -> None:
        """Close the session."""


@dataclass(frozen=True, slots=True)
class LiveSessionStart(WireValues):
    """Start of a session, or its resume point after the death of a worker process: times, and the
    next numbers of a turn and a segment. ``said``: the finals that were sent, with the numbers
    ``pieces``; the last ``open`` of them belong to the open turn. ``voices``: the embeddings of the
    speakers so far. ``lead``: the start of the audio that follows (None: ``at``). Audio up to
    ``at`` is already recognized; ``context`` are sent segments in it. Utterances of the first
    ``began`` turns had been admitted and stay so. ``confidence``: of all that was sent;
    ``doubted``: the client was notified that the language is probably another."""

    at: TimePosition = 0.0
    turn: SequenceNumber = 0
    piece: SequenceNumber = 0
    said: tuple[Segment, ...] = field(default=())
    open: SequenceNumber = 0
    pieces: tuple[SequenceNumber, ...] = ()
    voices: Mapping[int, SpeakerEmbedding] = field(default_factory=dict)
    lead: TimePosition | None = None
    context: tuple[live_events.ContextUtterance, ...] = ()
    began: SequenceNumber = 0
    confidence: Confidence = field(default_factory=Confidence)
    doubted: bool = False


NEW_SESSION = LiveSessionStart()
"""Start without a previous engine."""


class LiveEngine(TranscriptionEngine, Protocol):
    """Live engine, for at most `EngineSpec.sessions` streams at once."""

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: live_events.LiveEventCallback
    ) -> LiveSession:
        """Open a session; ``tell`` gets its events on threads of the engine.

        Raises:
            errors.SidecarError: the engine refuses these options.
        """
