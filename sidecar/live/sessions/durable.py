"""How much of a live session lies where another service finds it, and what its client may know.

Nothing is acknowledged, and nothing that stands is told, before it lies there: whoever goes on for
a service that died has all that the client has not any more, and nothing twice. What is not settled
the client sends again, so no sound has to lie there. Where nothing can be written for a while the
session goes on as one that ends with its service, and its numbers say so (`told.LOOSE`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.interfaces.live_events import Heard, LiveEvent, Noticed
from sidecar.live.sessions.carried import Carried
from sidecar.live.sessions.sent import CLOSE_S
from sidecar.live.sessions.sound import KeptSound
from sidecar.live.sessions.told import LOOSE, Numbered, Told
from sidecar.transcripts.people import KnownVoice
from sidecar.transcripts.transcript import Notice
from sidecar.waiting import Alarm

if TYPE_CHECKING:
    from sidecar.live.sessions.session import Session

HOLD_S = 1.0
"""So long at most what stands waits until it is saved."""
QUIET_S = 5.0
"""Seconds of sound that nobody needs before that is saved though nothing was said."""
LAG_S = 30.0
"""Seconds of sound that a client keeps for a session that is not saved; then it has to let go."""
UNSAVED = Notice(
    "session_unsaved", "The database does not answer: the session ends if this service does."
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session at one moment: what it is, what was said since the last, and what its client may
    know once it lies there. ``fresh``: nothing of it lies there yet; ``place``: of this piece of
    what was said; ``known``: whom its owner knows, where that does not lie there."""

    carried: Carried
    said: tuple[Numbered, ...]
    known: tuple[KnownVoice, ...] | None
    place: int
    fresh: bool
    acknowledged: tuple[float, int]
    last: int
    loosened: int

    @property
    def has_story(self) -> bool:
        """Whether a piece is to be written beside the rest."""
        return bool(self.said) or self.known is not None


class Durable:
    """Of one session. ``news`` is called when there is something to be saved; ``away`` says whether
    nothing can be now; ``tell`` tells the client something."""

    def __init__(
        self,
        told: Told,
        sound: KeptSound,
        news: Callable[[], None],
        away: Callable[[], bool],
        tell: Callable[[LiveEvent], None],
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
        self._known: tuple[KnownVoice, ...] = ()
        """Those that lie there."""
        self._loosened = 0
        self._notice: int | None = None
        """Whoever was told this number knows that it is not saved, and may let go of what came."""
        self._first_notice = 0
        """The first such number since all lay there that the client was relieved of."""
        self._told_at = 0.0
        """Where the sound ended when the client was last told that it is not saved."""
        self._relieved = (0.0, 0)
        """As `_acknowledged`, of what need not lie there, as its client knows that."""
        self._waiting: Alarm | None = None

    def acknowledged(self, received_orders: int) -> tuple[float, int]:
        """Seconds of sound and orders that the client need not send again. Where nothing can be
        saved for long, and it knows that, that is all."""
        if self._notice is not None and self._told.passed >= self._notice:
            self._relieved = (self._sound.at, received_orders)
        return max(self._acknowledged, self._relieved)

    def goes_on(self, after: int) -> None:
        """Its client comes again, and was told no more than ``after``: of what it was relieved of
        behind a notice that it never had, it was not."""
        if after < self._first_notice:
            self._relieved = (0.0, 0)

    def found(self, one: Carried, pieces: int) -> None:
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

    def said(self, event: LiveEvent) -> None:
        """Something was told: it may have to wait, or there is less that anybody needs."""
        if self.closed:
            return
        if self._told.held:
            if self._away():
                self._loosen()
            elif self._waiting is None:
                self._waiting = Alarm(HOLD_S, self.unsaved)
            self._news()
        elif isinstance(event, Heard):
            if self._sound.first - self._acknowledged[0] >= QUIET_S:
                self._news()
            known_s = max(self._acknowledged[0], self._relieved[0], self._told_at)
            if self._away() and self._sound.at - known_s >= LAG_S:
                self._let_go()

    def snapshot(self, session: Session, age_s: float) -> Snapshot:
        """The session as it is now, without the sound that its client sends again."""
        at_s, orders = max(self._acknowledged, self._relieved)
        at_s = max(at_s, self._sound.first)
        for number, place_s in self._orders:
            if place_s < at_s - CLOSE_S:
                orders = number
        open_ = [one for one in (self._sound.unanswered, self._finish) if one is not None]
        done = min([session.received_orders, *(one - 1 for one in open_)])
        received = max(orders, done)
        finishing = session.finishing and (self._finish is None or self._finish <= orders)
        told = self._told.state
        carried = Carried(
            session.options,
            dataclasses.replace(told, kept=()),
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
        return Snapshot(
            carried,
            said,
            None if known == self._known else known,
            self._place,
            self.fresh,
            (at_s, orders),
            told.last,
            loosened,
        )

    def saved(self, one: Snapshot) -> None:
        """It lies there."""
        self._saved = one.last + (self._loosened - one.loosened) * LOOSE
        self._place += one.has_story
        self._known = one.carried.options.known_voices
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
            self._waiting = Alarm(HOLD_S, self.unsaved)
        if self._told.stands_behind(self._saved):
            self._news()

    def unsaved(self) -> None:
        """It cannot be saved now: nothing waits for that."""
        self._still()
        if self._told.held or self.fresh:
            self._loosen()
        self.reached.set()

    def lost(self) -> None:
        """Nothing of it lies there any more: all is to be written anew."""
        self.fresh, self._saved, self._place, self._known = True, 0, 0, ()
        self._news()

    def close(self) -> None:
        """Nobody saves it any more."""
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
        self._tell(Noticed(UNSAVED))

    def _loosen(self) -> None:
        self._told.loosen()
        self._loosened += 1

    def _still(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
