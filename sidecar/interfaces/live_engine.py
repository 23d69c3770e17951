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
    """One stream of audio in an engine. Nothing here waits for recognition; `Summary` is the
    last event, and comes after `finish` alone."""

    around: Callable[[], AbstractContextManager[object]]
    """Entered by each thread of the engine for as long as it recognizes for this session; set
    before any sound is pushed."""
    failed: Callable[[errors.SidecarError], object]
    """Called once if work for this session fails: nothing more is told. Set as `around` is."""

    @property
    def backlog_s(self) -> float:
        """Seconds of sound that were pushed and not looked at, or wait to be recognised: who pushes
        more than some of them pushes too fast."""

    def push(self, block: Block) -> None:
        """More sound at `LIVE_RATE`, shape (samples,)."""

    def change(self, options: LiveOptions) -> None:
        """Change the options from here on."""

    def commit(self) -> None:
        """End the turn here."""

    def cancel(self) -> None:
        """Forget what is not told yet: of this turn nothing more is said."""

    def finish(self) -> None:
        """No more sound: tell the rest, and then the summary."""

    def close(self) -> None:
        """Close the session."""


@dataclass(frozen=True, slots=True)
class LiveSessionStart(WireValues):
    """Start of a session that resumes one whose process died: times, and the next numbers of a
    turn and a segment. ``said`` is what was told before, as pieces number ``pieces``; the last
    ``open`` of it belong to the turn that goes on. ``voices``: what its speakers sound like, as
    far as that was known. ``lead``: where the sound begins that comes, ``at`` where that is
    None; up to ``at`` it was heard already, and ``context`` is told pieces in it. Utterances of
    the first ``began`` turns were being recognised, and are. ``confidence``: of all that was
    told, and ``doubted``: the client was told that the language is probably another."""

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
"""Nothing was said before."""


class LiveEngine(TranscriptionEngine, Protocol):
    """Engine for as many as `EngineSpec.sessions` streams at once."""

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: live_events.LiveEventCallback
    ) -> LiveSession:
        """A session; its events come by ``tell`` on threads of the engine's.

        Raises:
            errors.SidecarError: not with these options.
        """
