"""Snapshot of a live session, its checkpoint for other services, and the session store protocol.

Audio is acknowledged, and finals are sent, only after the checkpoint is saved: a service that takes
over has all that the client has dropped, and nothing twice. The client sends audio that is not
settled again, so no audio is saved. Where nothing can be written for a while the session goes on as
one that ends with its service, and its numbers say so (`told.LOOSE`).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from sidecar import errors
from sidecar.concurrency import OneShotTimer
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions import event_log, input_log
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.transcript import Notice

if TYPE_CHECKING:
    from sidecar.live.sessions.session import Session

CHECKPOINT_VERSION = 3
"""Of how it is written; what another version wrote is not read."""
_HEAD = 4
_PLAIN: dict[str, type[input_log.InputCommit | input_log.InputDiscard]] = {
    "commit": input_log.InputCommit,
    "forget": input_log.InputDiscard,
}


@dataclass(frozen=True, slots=True)
class SessionCheckpoint:
    """One session; ``age_s``: how long it has gone on, ``wire``: by which way its client came.

    Of sound the client was told that all of ``sound`` is here, and of orders ``acknowledged``: it
    sends what is behind both again. Of ``received_orders`` nothing is to be done any more; behind
    how much sound each of those came that it sends again, say ``places``.
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
        """The same for who goes on for a service that died, and for a client that was told
        ``after``: what is told next has a number that nothing had.

        Raises:
            errors.SessionNotFound: the client was told more that stands than is here.
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
    """Some of what was said, as bytes; and whom its owner knows, where that is new."""
    story: dict[str, Any] = {
        "said": [[each.number, live_events.to_wire(each.event)] for each in said]
    }
    if known is not None:
        story["known"] = [asdict(one) for one in known]
    return json.dumps(story, separators=(",", ":")).encode()


def serialize_checkpoint(one: SessionCheckpoint) -> bytes:
    """A session as bytes, but for what was said and whom its owner knows."""
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
    """The session that `serialize_checkpoint` wrote, and `serialize_events` piece by piece.

    Raises:
        errors.SessionNotFound: another version wrote it, or it is none.
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
"""So long at most what stands waits until it is saved."""
SILENT_SAVE_INTERVAL_S = 5.0
"""Seconds of sound that nobody needs before that is saved though nothing was said."""
MAX_UNSAVED_AUDIO_S = 30.0
"""Seconds of sound that a client keeps for a session that is not saved; then it has to let go."""
SESSION_UNSAVED_NOTICE = Notice(
    "session_unsaved", "The database does not answer: if this service stops, the session ends."
)


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """A session at one moment: what it is, what was said since the last, and what its client may
    know once it lies there. ``fresh``: nothing of it lies there yet; ``place``: of this piece of
    what was said; ``known``: whom its owner knows, where that does not lie there."""

    checkpoint: SessionCheckpoint
    said: tuple[event_log.NumberedEvent, ...]
    known: tuple[SpeakerCandidate, ...] | None
    place: int
    fresh: bool
    acknowledged: tuple[float, int]
    last: int
    loosened: int

    @property
    def has_events(self) -> bool:
        """Return whether events are to be written beside the rest."""
        return bool(self.said) or self.known is not None


class SessionCheckpointer:
    """Of one session. ``news`` is called when there is something to be saved; ``away`` says whether
    nothing can be now; ``tell`` tells the client something."""

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
        told.guard()
        self._acknowledged = (sound.at, 0)
        self.fresh = True
        """Nothing of it lies there yet."""
        self.reached = asyncio.Event()
        """It was saved once, or could not be."""
        self.closed = False
        """Nobody saves it any more."""
        self._orders: deque[tuple[int, float]] = deque()
        """Those that are not acknowledged: which, and behind how much sound."""
        self._finish: int | None = None
        self._saved = self._place = 0
        self._known: tuple[SpeakerCandidate, ...] = ()
        """Those that lie there."""
        self._loosened = 0
        self._notice: int | None = None
        """A client that got this number knows that it is not saved, and may drop what came."""
        self._first_notice = 0
        """The first such number since all lay there that the client was relieved of."""
        self._told_at = 0.0
        """End of the audio when the client was last told that it is not saved."""
        self._relieved = (0.0, 0)
        """As `_acknowledged`, of what need not lie there, as its client knows that."""
        self._waiting: OneShotTimer | None = None

    def acknowledged(self, received_orders: int) -> tuple[float, int]:
        """Seconds of sound and orders that the client need not send again. Where nothing can be
        saved for long, and it knows that, that is all."""
        if self._notice is not None and self._told.passed >= self._notice:
            self._relieved = (self._sound.at, received_orders)
        return max(self._acknowledged, self._relieved)

    def goes_on(self, after: int) -> None:
        """Resume for a client that reconnects and has no more than ``after``: an acknowledgement
        behind a notice that it never had, does not count."""
        if after < self._first_notice:
            self._relieved = (0.0, 0)

    def found(self, one: SessionCheckpoint, pieces: int) -> None:
        """It was found as another service left it, with so many pieces of what was said."""
        self._acknowledged = (one.sound.at, one.acknowledged)
        self._orders.extend(one.places)
        self._saved, self._place, self.fresh = one.told.last, pieces, False
        self._known = one.options.known_voices

    def ordered(self, number: int, *, finish: bool) -> None:
        """An order of the client's came."""
        self._orders.append((number, self._sound.at))
        if finish:
            self._finish = number

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

    def snapshot(self, session: Session, age_s: float) -> SessionSnapshot:
        """The session as it is now, without the sound that its client sends again."""
        at_s, orders = max(self._acknowledged, self._relieved)
        at_s = max(at_s, self._sound.first)
        for number, place_s in self._orders:
            if place_s < at_s - input_log.SAME_TIME_S:
                orders = number
        open_ = [one for one in (self._sound.unanswered, self._finish) if one is not None]
        done = min([session.received_orders, *(one - 1 for one in open_)])
        received = max(orders, done)
        finishing = session.finishing and (self._finish is None or self._finish <= orders)
        told = self._told.state
        carried = SessionCheckpoint(
            session.options,
            replace(told, kept=()),
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
            self._loosen()  # what is told from here on does not lie there
        if self._notice is not None:  # nor what is let go of, before the client's number says so
            self._notice = self._told.last + 1
        known = session.options.known_voices
        return SessionSnapshot(
            carried,
            said,
            None if known == self._known else known,
            self._place,
            self.fresh,
            (at_s, orders),
            told.last,
            loosened,
        )

    def saved(self, one: SessionSnapshot) -> None:
        """It lies there."""
        self._saved = one.last + (self._loosened - one.loosened) * event_log.UNSAVED_SEQ_OFFSET
        self._place += one.has_events
        self._known = one.checkpoint.options.known_voices
        self.fresh, self._notice = False, None
        self._acknowledged = max(self._acknowledged, one.acknowledged)
        if self._relieved <= self._acknowledged:
            self._first_notice, self._told_at = 0, 0.0
        while self._orders and self._orders[0][0] <= self._acknowledged[1]:
            self._orders.popleft()
        self._still()
        self._told.saved(self._saved)
        self._told.guard()
        self.reached.set()
        if self._told.held:
            self._waiting = OneShotTimer(MAX_EVENT_HOLD_S, self.unsaved)
        if self._told.stands_behind(self._saved):
            self._news()

    def unsaved(self) -> None:
        """It cannot be saved now: nothing waits for that."""
        self._still()
        if self._told.held or self.fresh:
            self._loosen()
        self.reached.set()

    def lost(self) -> None:
        """Note that the saved checkpoint is gone: all is to be written anew."""
        self.fresh, self._saved, self._place, self._known = True, 0, 0, ()
        self._news()

    def close(self) -> None:
        """Close: it is saved no more."""
        self.closed = True
        self._still()
        if self._told.held:
            self._told.loosen()
        self.reached.set()

    def _let_go(self) -> None:
        """Have the client know that it is not saved, so that it need not keep what came."""
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
"""Of a session: its owner, and how the client calls it."""


@dataclass(frozen=True, slots=True)
class SessionSave:
    """Save of a session. ``session``: all but its events, replacing the saved one; ``story``: its
    events since, as piece number ``place``, None if there are none. ``fresh``: nothing of it is
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
    """Another service has it, or another session has its name."""
    GONE = "gone"
    """Nothing of it is there any more, as after a failure of the database."""


@dataclass(frozen=True, slots=True)
class ResumedSession:
    """A session that is this service's now. ``orphaned``: its service did not leave it, and may
    have told more of it than is there."""

    session: bytes
    story: Sequence[bytes]
    orphaned: bool


class SessionStore(Protocol):
    """Sessions of several services, by owner and id."""

    async def save(
        self, sessions: Sequence[SessionSave], over: Sequence[SessionName], grace_s: float
    ) -> Mapping[SessionName, SaveOutcome]:
        """Have sessions of this service lie there as they are now, those of ``over`` not at all;
        all or nothing. If this service dies they stay for ``grace_s``.

        Raises:
            errors.JournalUnreachable: they may lie there or not.
        """
        ...

    async def leave(self, name: SessionName, for_s: float) -> bool:
        """Let another service have one that lies there, for so many seconds; whether it was this
        service's.

        Raises:
            errors.JournalUnreachable: it may be so or not.
        """
        ...

    async def take(self, name: SessionName) -> ResumedSession | bool:
        """Have one that is nobody's, or that of a service which died; else whether there is one,
        whose service is asked to leave it then. One that was taken and of which nothing was saved
        since is nobody's.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        ...

    async def news(self, most_s: float) -> None:
        """Wait until a service left a session, or so long."""
        ...

    def on_asked(self, tell: Callable[[SessionName, float], None]) -> None:
        """Have somebody told of each session of this service that another one asks for, and since
        how many seconds; the same may be told again and again until it is left."""
        ...
