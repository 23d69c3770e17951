"""Snapshot of a live session, its checkpoint for other services, and the session store protocol.

Audio is acknowledged, and finals are sent, only after the checkpoint is saved: a service that takes
over has all that the client has dropped, and sends nothing twice. The client sends audio that is
not settled again, so no audio is saved. If saving fails for a while, the session goes on as one
that ends with its service. Its event numbers show that (`event_log.UNSAVED_SEQ_OFFSET`).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, Protocol

from sidecar import errors
from sidecar.concurrency import OneShotTimer
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions import event_log, input_log
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.transcript import Notice

CHECKPOINT_VERSION = 3
"""Version of the serialization; a checkpoint of another version is not read."""
_HEAD = 4
_PLAIN: dict[str, type[input_log.InputCommit | input_log.InputDiscard]] = {
    "commit": input_log.InputCommit,
    "forget": input_log.InputDiscard,
}


@dataclass(frozen=True, slots=True)
class SessionCheckpoint:
    """Checkpoint of one session; ``age_s``: its age, ``wire``: the protocol of its client.

    The client need not send the audio of ``sound`` and ``acknowledged`` commands again; it sends
    all later input. Of that, commands up to ``received_orders`` are already done; ``places`` are
    their positions in the audio.
    """

    options: LiveOptions
    told: event_log.EventLogState
    sound: input_log.InputLogState
    received_orders: int
    acknowledged: int
    places: tuple[tuple[int, float], ...]
    finishing: bool
    age_s: float
    wire: str

    def orphaned(self, after: int) -> SessionCheckpoint:
        """Return the checkpoint for a takeover from a service that died, and for a client with
        events up to ``after``. The next event gets a number that no event had.

        Raises:
            errors.SessionNotFound: the client has more final events than are saved.
        """
        if after >= self.told.last + event_log.UNSAVED_SEQ_OFFSET:
            raise errors.SessionNotFound(
                "The service with this live session died while the database did not answer."
            )
        last = self.told.last + event_log.TAKEOVER_SEQ_STRIDE
        return replace(self, told=replace(self.told, last=last))


def serialize_events(
    said: Iterable[event_log.NumberedEvent], known: tuple[SpeakerCandidate, ...] | None = None
) -> bytes:
    """Return events as bytes, with the enrolled speakers if they are not saved yet."""
    story: dict[str, Any] = {
        "said": [[each.number, live_events.to_wire(each.event)] for each in said]
    }
    if known is not None:
        story["known"] = [asdict(one) for one in known]
    return json.dumps(story, separators=(",", ":")).encode()


def serialize_checkpoint(one: SessionCheckpoint) -> bytes:
    """Return a checkpoint as bytes, without its events and enrolled speakers."""
    items, raws = [], list[bytes]()
    for item in (*one.sound.past, *one.sound.items):
        if isinstance(item, input_log.InputChunk):
            items.append([item.at, len(item.raw), item.encoding, item.rate])
            raws.append(item.raw)
        else:
            kind = "commit" if isinstance(item, input_log.InputCommit) else "forget"
            items.append([kind, item.number])
    told = one.told
    head = {
        "version": CHECKPOINT_VERSION,
        "options": replace(one.options, known_voices=()).to_wire(),
        "last": told.last,
        "started": told.started,
        "voices": {number: asdict(voice) for number, voice in told.voices.items()},
        "sound": [one.sound.at, one.sound.samples, one.sound.settled, one.sound.wanted],
        "rate": [one.sound.rate, *one.sound.at_rate],
        "items": items,
        "past": len(one.sound.past),
        "context": [[each.start, each.end, each.tokens] for each in told.context],
        "orders": [one.received_orders, one.acknowledged, one.places],
        "finishing": one.finishing,
        "age_s": one.age_s,
        "wire": one.wire,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(_HEAD, "big"), text, *raws))


def parse_checkpoint(data: bytes, story: Sequence[bytes]) -> SessionCheckpoint:
    """Return the checkpoint from `serialize_checkpoint` and the batches of `serialize_events`.

    Raises:
        errors.SessionNotFound: another version wrote it, or it is invalid.
    """
    end = _HEAD + int.from_bytes(data[:_HEAD], "big")
    try:
        head = json.loads(data[_HEAD:end])
        if head["version"] != CHECKPOINT_VERSION:
            raise ValueError(head["version"])
        pieces = [json.loads(piece) for piece in story]
        said = [each for piece in pieces for each in piece["said"]]
        known = (piece["known"] for piece in reversed(pieces) if "known" in piece)
        head["options"]["known_voices"] = next(known, ())
        kept = [event_log.NumberedEvent(number, live_events.from_wire(one)) for number, one in said]
        return _build_checkpoint(head, data[end:], tuple(kept))
    except (KeyError, TypeError, ValueError, errors.EngineFailed):
        what = "Another version of this service had the live session, and this one cannot go on."
        raise errors.SessionNotFound(what) from None


def _build_checkpoint(
    head: dict[str, Any], raw: bytes, kept: tuple[event_log.NumberedEvent, ...]
) -> SessionCheckpoint:
    items, place = list[input_log.InputChunk | input_log.InputCommit | input_log.InputDiscard](), 0
    for item in head["items"]:
        if len(item) == 2:
            items.append(_PLAIN[item[0]](item[1]))
            continue
        at, size, encoding, rate = item
        data = raw[place : place + size]
        items.append(input_log.InputChunk(at, data, SampleEncoding(encoding), rate))
        place += size
    at, samples, settled, wanted = head["sound"]
    rate, since, before = head["rate"]
    voices = {int(number): SpeakerEmbedding(**voice) for number, voice in head["voices"].items()}
    pieces = ((start, end, tuple(tokens)) for start, end, tokens in head["context"])
    context = tuple(live_events.ContextUtterance(*piece) for piece in pieces)
    past = tuple(one for one in items[: head["past"]] if isinstance(one, input_log.InputChunk))
    rest = tuple(items[head["past"] :])
    received, acknowledged, places = head["orders"]
    return SessionCheckpoint(
        LiveOptions.from_wire(head["options"]),
        event_log.EventLogState(head["last"], head["started"], kept, voices, context),
        input_log.InputLogState(at, samples, settled, rate, (since, before), rest, past, wanted),
        received,
        acknowledged,
        tuple((number, at) for number, at in places),
        head["finishing"],
        head["age_s"],
        head["wire"],
    )


MAX_EVENT_HOLD_S = 1.0
"""Seconds that final events wait at most until they are saved."""
SILENT_SAVE_INTERVAL_S = 5.0
"""Seconds of audio that is not needed any more, after which a save needs no event."""
MAX_UNSAVED_AUDIO_S = 30.0
"""Seconds of audio that a client keeps for a session that is not saved; then it must drop some."""
SESSION_UNSAVED_NOTICE = Notice(
    "session_unsaved", "The database does not answer: if this service stops, the session ends."
)


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """Session at one moment: its checkpoint, which has all input that its client may drop once it
    is saved, and its events since the last one. ``fresh``: nothing of it is saved yet; ``place``:
    the index of its batch of events; ``known``: the enrolled speakers, if they are not saved
    yet."""

    checkpoint: SessionCheckpoint
    said: tuple[event_log.NumberedEvent, ...]
    known: tuple[SpeakerCandidate, ...] | None
    place: int
    fresh: bool
    loosened: int

    @property
    def has_events(self) -> bool:
        """Return whether events or enrolled speakers are to be saved."""
        return bool(self.said) or self.known is not None


class CheckpointedSession(Protocol):
    """Session as its checkpoint needs it, besides its events and its input."""

    options: LiveOptions
    received_orders: int
    finishing: bool
    counted: event_log.EventMetrics


class SessionCheckpointer:
    """Checkpointer of one session. ``news`` is called when there is something to save; ``away``
    returns whether saving fails at present; ``tell`` sends an event to the client."""

    def __init__(
        self,
        told: event_log.EventLog,
        sound: input_log.InputLog,
        news: Callable[[], None],
        away: Callable[[], bool],
        tell: Callable[[live_events.LiveEvent], None],
    ) -> None:
        self._told, self._sound = told, sound
        self._news, self._away, self._tell = news, away, tell
        told.guarded = True
        self._acknowledged = (sound.at, 0)
        self.fresh = True
        """True if nothing of it is saved."""
        self.reached = asyncio.Event()
        """Set once it was saved, or could not be."""
        self.closed = False
        """True if it is not saved any more."""
        self._orders: deque[tuple[int, float]] = deque()
        """Commands that are not acknowledged: number, and end of the audio before it."""
        self._finish: int | None = None
        self._saved = self._place = 0
        self._known: tuple[SpeakerCandidate, ...] = ()
        """Enrolled speakers that are saved."""
        self._loosened = 0
        self._notice: int | None = None
        """Event number by which a client knows that saving fails, so that it may drop input."""
        self._first_notice = 0
        """First such number since the dropped input was last saved."""
        self._told_at = 0.0
        """End of the audio when the client last got the notice that saving fails."""
        self._relieved = (0.0, 0)
        """Unsaved input that the client may drop, in the form of `_acknowledged`."""
        self._waiting: OneShotTimer | None = None

    def acknowledged(self, received_orders: int) -> tuple[float, int]:
        """Return the seconds of audio and the commands that the client need not send again: all of
        them, if the client knows that nothing can be saved for long."""
        if self._notice is not None and self._told.passed >= self._notice:
            self._relieved = (self._sound.at, received_orders)
        return max(self._acknowledged, self._relieved)

    def goes_on(self, after: int) -> None:
        """Resume for a client that reconnects and has no more than ``after``. If it never got the
        first notice, the acknowledgements after that do not count."""
        if after < self._first_notice:
            self._relieved = (0.0, 0)

    def found(self, one: SessionCheckpoint, pieces: int) -> None:
        """Continue from the checkpoint of another service, with ``pieces`` batches of events."""
        self._acknowledged = (one.sound.at, one.acknowledged)
        self._orders.extend(one.places)
        self._saved, self._place, self.fresh = one.told.last, pieces, False
        self._known = one.options.known_voices

    def ordered(self, number: int, *, finish: bool) -> None:
        """Note a command of the client."""
        self._orders.append((number, self._sound.at))
        if finish:
            self._finish = number

    def failed(self) -> None:
        """Note that an error ended the session: what is saved of it is deleted."""
        self._news()

    def said(self, event: live_events.LiveEvent) -> None:
        """Handle a sent event: it may have to wait, or less audio is needed."""
        if self.closed:
            return
        if self._told.held:
            if self._away():
                self._loosen()
            elif self._waiting is None:
                self._waiting = OneShotTimer(MAX_EVENT_HOLD_S, self.unsaved)
            self._news()
        elif isinstance(event, live_events.InputProcessed):
            if self._sound.first - self._acknowledged[0] >= SILENT_SAVE_INTERVAL_S:
                self._news()
            known_s = max(self._acknowledged[0], self._relieved[0], self._told_at)
            if self._away() and self._sound.at - known_s >= MAX_UNSAVED_AUDIO_S:
                self._let_go()

    def snapshot(self, session: CheckpointedSession, age_s: float) -> SessionSnapshot:
        """Return the session as it is now, without the audio that its client sends again."""
        at_s, orders = max(self._acknowledged, self._relieved)
        at_s = max(at_s, self._sound.first)
        for number, place_s in self._orders:
            if place_s < at_s - input_log.SAME_TIME_S:
                orders = number
        open_ = [one for one in (self._sound.unanswered, self._finish) if one is not None]
        done = min([session.received_orders, *(one - 1 for one in open_)])
        received = max(orders, done)
        finishing = session.finishing and (self._finish is None or self._finish <= orders)
        carried = SessionCheckpoint(
            session.options,
            replace(self._told.state, kept=()),
            self._sound.until(at_s, orders),
            received,
            orders,
            tuple(one for one in self._orders if orders < one[0] <= received),
            finishing,
            age_s,
            session.counted.wire,
        )
        said, loosened = self._told.since(self._saved), self._loosened
        if not self._told.guarded:
            self._loosen()  # later events are not in this snapshot
        if self._notice is not None:  # nor is later input: the client must know that to drop it
            self._notice = self._told.last + 1
        known = session.options.known_voices
        unsaved = None if known == self._known else known
        return SessionSnapshot(carried, said, unsaved, self._place, self.fresh, loosened)

    def saved(self, one: SessionSnapshot) -> None:
        """Note that a snapshot is saved."""
        there, loosened = one.checkpoint, self._loosened - one.loosened
        self._saved = there.told.last + loosened * event_log.UNSAVED_SEQ_OFFSET
        self._place += one.has_events
        self._known = there.options.known_voices
        self.fresh, self._notice = False, None
        self._acknowledged = max(self._acknowledged, (there.sound.at, there.acknowledged))
        if self._relieved <= self._acknowledged:
            self._first_notice, self._told_at = 0, 0.0
        while self._orders and self._orders[0][0] <= self._acknowledged[1]:
            self._orders.popleft()
        self._still()
        self._told.saved(self._saved)
        self._told.guarded = True
        self.reached.set()
        if self._told.held:
            self._waiting = OneShotTimer(MAX_EVENT_HOLD_S, self.unsaved)
        if self._told.stands_behind(self._saved):
            self._news()

    def unsaved(self) -> None:
        """Note that it cannot be saved now: no event waits for that."""
        self._still()
        if self._told.held or self.fresh:
            self._loosen()
        self.reached.set()

    def lost(self) -> None:
        """Note that the saved checkpoint is gone: everything must be saved again."""
        self.fresh, self._saved, self._place, self._known = True, 0, 0, ()
        self._news()

    def close(self) -> None:
        """End the saving of the session."""
        self.closed = True
        self._still()
        if self._told.held:
            self._told.loosen()
        self.reached.set()

    def _let_go(self) -> None:
        """Notify the client that the session is not saved, so that it may drop input."""
        if self._told.guarded:
            self._loosen()
        self._told_at, self._notice = self._sound.at, self._told.last + 1
        self._first_notice = self._first_notice or self._notice
        self._tell(live_events.NoticeRaised(SESSION_UNSAVED_NOTICE))

    def _loosen(self) -> None:
        self._told.loosen()
        self._loosened += 1

    def _still(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


SessionName = tuple[str, str]
"""Name of a session: its owner, and the id that the client uses."""


@dataclass(frozen=True, slots=True)
class SessionSave:
    """Save of a session. ``session``: all but its events, replacing the saved one; ``story``: its
    events since, as batch number ``place``, None if there are none. ``fresh``: nothing of it is
    saved yet."""

    name: SessionName
    session: bytes
    story: bytes | None
    place: int
    fresh: bool


class SaveOutcome(Enum):
    """Outcome of a save."""

    SAVED = "saved"
    TAKEN = "taken"
    """Another service has the session, or another session has its name."""
    GONE = "gone"
    """Nothing of it is saved any more, as after a failure of the database."""


@dataclass(frozen=True, slots=True)
class ResumedSession:
    """Session that this service has taken over. ``orphaned``: its service did not hand it over, and
    may have sent more events than are saved."""

    session: bytes
    story: Sequence[bytes]
    orphaned: bool


class SessionStore(Protocol):
    """Store of the sessions of several services, by owner and id."""

    async def save(
        self, sessions: Sequence[SessionSave], over: Sequence[SessionName], grace_s: float
    ) -> Mapping[SessionName, SaveOutcome]:
        """Save sessions of this service and delete those of ``over``; all or nothing. If this
        service dies they stay saved for ``grace_s``.

        Raises:
            errors.JournalUnreachable: the outcome is unknown.
        """
        ...

    async def leave(self, name: SessionName, for_s: float) -> bool:
        """Release a saved session for another service, for ``for_s`` seconds; return whether it
        belonged to this service.

        Raises:
            errors.JournalUnreachable: the outcome is unknown.
        """
        ...

    async def take(self, name: SessionName) -> ResumedSession | bool:
        """Take over a session that is released, or belonged to a dead service. Otherwise return
        whether it exists; its service is then requested to release it. A session that was taken,
        but not saved since, counts as released.

        Raises:
            errors.JournalUnreachable: the database does not answer.
        """
        ...

    async def news(self, most_s: float) -> None:
        """Wait until a service released a session, for at most ``most_s`` seconds."""
        ...

    def on_asked(self, tell: Callable[[SessionName, float], None]) -> None:
        """Set the callback for sessions of this service that another one requests, with the seconds
        since the request. It may repeat until the session is released."""
        ...
