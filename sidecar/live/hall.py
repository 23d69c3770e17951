"""Many sessions in one process, for an engine that hears one stretch of speech after another.

One thread looks at the sound of all of them, in one batch (`live.detector`); as many as there are
cores recognise what is due (`live.schedule`). What an engine of this kind has to give is a `Hear`,
and an `Encoder` where speakers are to be told apart.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.live.context import Before
from sidecar.live.hearing import Hearing
from sidecar.live.hypothesis import Hypothesis
from sidecar.live.pace import Pace
from sidecar.live.piece import USUAL, Listen, Manner
from sidecar.live.schedule import Urgency, Wish, next_of
from sidecar.live.speakers import Decision, Question, Vector, decided
from sidecar.live.story import NO_SPEAKERS
from sidecar.live.voicing import Voiced
from sidecar.speech.engine import Cancelled
from sidecar.speech.live import LIVE_RATE, Begin, LiveEvent, LiveOptions, Noticed, Tell
from sidecar.speech.transcript import Notice

log = logging.getLogger(__name__)

Hear: TypeAlias = Callable[[Block, Hypothesis | None, LiveOptions, Cancelled], Hypothesis | None]
"""What is said in a stretch, shape (samples,) at `LIVE_RATE`; the hypothesis is what was said of a
beginning of it. None once it is cancelled. Called by several threads at once. A language in the
options is to be believed, whether the client said it or the session was heard in it."""

HearBehind: TypeAlias = Callable[[Block, Before, LiveOptions, Cancelled], Hypothesis | None]
"""A `Hear` of a stretch with the one before it in front: what is said in it alone, words' times
from where it begins."""

TICK_S = 0.096
"""How often the sound is looked at: three frames, so that a batch is worth it."""
NO_PARTIALS = "The model is too slow here for words while somebody speaks: they come behind it."
AT_ONCE = 64
"""Frames of one session that are looked at in one go: two seconds."""


def usable_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Detector(Protocol):
    """Tells speech from other sound, for many streams at once."""

    def state(self) -> Any:
        """What is remembered of a stream that begins."""

    def probabilities(self, frames: Block, states: Sequence[Any]) -> npt.NDArray[np.float32]:
        """How likely each of ``frames``, shape (streams, `FRAME`), is speech; the ``states`` of
        their streams are changed."""


class Encoder(Protocol):
    """Says what a voice sounds like; to several threads at once."""

    def vector(self, voice: Block) -> Vector:
        """Of one voice, shape (samples,) at `LIVE_RATE`: two of one person point the same way."""


class Seat:
    """A session in the hall (`speech.live.LiveSession`)."""

    def __init__(self, hall: Hall, hearing: Hearing, tell: Tell, client: str) -> None:
        self.hearing, self.tell, self.client = hearing, tell, client
        self.inbox: deque[Block | Callable[[float], Iterable[LiveEvent]]] = deque()
        self.unread = 0
        self.state = hall.detector.state()
        self.left = False
        """Nothing more is told."""
        self.wordless = False
        """It was told that there are no words before finals."""
        self._hall = hall

    @property
    def backlog_s(self) -> float:
        """Seconds that were pushed, and neither looked at nor recognised yet."""
        return self.hearing.backlog_s + self.unread / LIVE_RATE

    @property
    def busy(self) -> bool:
        """Whether something of it is to be looked at."""
        return bool(self.inbox or self.hearing.backlog)

    def push(self, block: Block) -> None:
        """More sound."""
        self._hall.bring(self, block)

    def change(self, options: LiveOptions) -> None:
        """Other options from here on."""

        def change(now: float) -> Iterable[LiveEvent]:
            self.hearing.change(options)
            return ()

        self._hall.bring(self, change)

    def commit(self) -> None:
        """End the turn here."""
        self._hall.bring(self, self.hearing.commit)

    def cancel(self) -> None:
        """Forget what is not told yet."""
        self._hall.bring(self, lambda now: self.hearing.cancel())

    def finish(self) -> None:
        """No more sound."""
        self._hall.bring(self, self.hearing.finish)

    def close(self) -> None:
        """Nobody listens any more."""
        self._hall.leave(self)


class Hall:
    """Owns the threads; they end with `close`."""

    def __init__(
        self,
        hear: Hear,
        detector: Detector,
        engine: str,
        precision: str,
        threads: int | None = None,
        encoder: Encoder | None = None,
        glimpse: Hear | None = None,
        pace: Pace | None = None,
        manner: Manner = USUAL,
        behind: HearBehind | None = None,
    ) -> None:
        """``threads`` recognise at once: None stands for as many as there are cores to use. Half of
        them at most are at voices: a final finds one that is not. Without an ``encoder`` nobody is
        told apart. ``glimpse`` hears what goes on, where that is another thing than what has ended.
        ``pace`` is for an engine that cannot be stopped within a stretch: what it leaves out.
        ``manner``: how it hears what goes on. ``behind``: hears what has ended with what was said
        before it, where the engine can."""
        self._manner = manner
        threads = threads or usable_cores()
        self.detector = detector
        self._encoder, self._encoding, self._encode_at_once = encoder, 0, max(1, threads // 2)
        self._hear, self._glimpse, self._pace = hear, glimpse or hear, pace
        self._behind = behind
        self._about = engine, precision
        self._lock = threading.Lock()
        self._came, self._wanted = (threading.Condition(self._lock) for _ in range(2))
        self._seats: dict[int, Seat] = {}
        self._next = 0
        self._served: dict[str, float] = {}
        self._closed = False
        targets = [self._look, *[self._work] * threads]
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"live-{number}")
            for number, target in enumerate(targets)
        ]
        for thread in self._threads:
            thread.start()

    def open(self, options: LiveOptions, begin: Begin, tell: Tell) -> Seat:
        """A session in it."""
        hearing = Hearing(
            options,
            begin,
            *self._about,
            voices=self._encoder is not None,
            manner=self._manner,
            context=self._behind is not None,
        )
        seat = Seat(self, hearing, tell, options.client)
        if options.diarize and self._encoder is None and not begin.at:
            tell(Noticed(NO_SPEAKERS))
        with self._lock:
            self._seats[self._next] = seat
            self._next += 1
        return seat

    def close(self) -> None:
        """End the threads; nobody is told anything any more."""
        with self._lock:
            self._closed = True
            self._seats.clear()
            self._came.notify_all()
            self._wanted.notify_all()
        for thread in self._threads:
            thread.join()

    def bring(self, seat: Seat, what: Block | Callable[[float], Iterable[LiveEvent]]) -> None:
        """Sound for a session, or what is to be done behind the sound that came."""
        with self._lock:
            seat.inbox.append(what)
            if isinstance(what, np.ndarray):
                seat.unread += len(what)
            self._came.notify()

    def leave(self, seat: Seat) -> None:
        """A session is not heard any more."""
        with self._lock:
            self._drop(seat)

    def _drop(self, seat: Seat) -> None:
        seat.left = True
        seat.hearing.leave()
        for number, one in list(self._seats.items()):
            if one is seat:
                del self._seats[number]
        if all(one.client != seat.client for one in self._seats.values()):
            self._served.pop(seat.client, None)

    # ── the thread that looks ──

    def _look(self) -> None:
        while True:
            begun = time.monotonic()
            with self._lock:
                while not (self._closed or any(one.busy for one in self._seats.values())):
                    self._came.wait()
                if self._closed:
                    return
                due = self._due()
                self._wanted.notify_all()  # a commit may have ended what they are to recognise
            if due:
                self._detect(due)
            pause = TICK_S - (time.monotonic() - begun)
            if pause > 0:
                time.sleep(pause)

    def _due(self) -> list[tuple[Seat, Block]]:
        """The frames of all sessions that are there; what is behind them is done."""
        now, due = time.monotonic(), []
        for seat in list(self._seats.values()):
            frames = self._frames_of(seat, now)
            if frames is not None:
                due.append((seat, frames))
        return due

    def _frames_of(self, seat: Seat, now: float) -> Block | None:
        hearing = seat.hearing
        while True:
            while seat.inbox and isinstance(sound := seat.inbox[0], np.ndarray):
                if hearing.backlog >= AT_ONCE:
                    break
                seat.inbox.popleft()
                seat.unread -= len(sound)
                hearing.sound(sound)
            frames = hearing.frames(AT_ONCE)
            if frames is not None or not seat.inbox:
                return frames
            order = seat.inbox.popleft()
            assert not isinstance(order, np.ndarray)
            self._say(seat, order(now))

    def _detect(self, due: list[tuple[Seat, Block]]) -> None:
        """Look at frames, a batch of the first of all, then of the second, and so on."""
        for step in range(max(len(frames) for _, frames in due)):
            rows = [(seat, frames) for seat, frames in due if len(frames) > step]
            batch = np.stack([frames[step] for _, frames in rows])
            found = self.detector.probabilities(batch, [seat.state for seat, _ in rows])
            with self._lock:
                now = time.monotonic()
                for row, (seat, _) in enumerate(rows):
                    self._say(seat, seat.hearing.looked(float(found[row]), now))
        with self._lock:
            self._wanted.notify_all()

    # ── the threads that recognise ──

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (chosen := self._choose()) is None:
                    self._wanted.wait()
                if self._closed:
                    return
                assert chosen is not None
                work = self._begun(*chosen)
            work()
            del work, chosen  # who waits for more keeps nobody's session

    def _begun(self, seat: Seat, due: Listen | Voiced) -> Callable[[], None]:
        """What is to be done outside the lock."""
        if isinstance(due, Listen):
            audio, before = seat.hearing.began(due)
            known = due.piece.draft if before is None else before
            options = dataclasses.replace(seat.hearing.options, language=seat.hearing.language)
            return partial(self._recognise, seat, due, audio, known, options)
        self._encoding += 1
        return partial(self._tell_apart, seat, due, seat.hearing.began_voice(due))

    def _recognise(
        self,
        seat: Seat,
        listen: Listen,
        audio: Block,
        known: Hypothesis | Before | None,
        options: LiveOptions,
    ) -> None:
        begun = time.monotonic()
        found = self._listen(audio, known, options, listen, begun + options.patience_s)
        with self._lock:
            now = time.monotonic()
            if self._pace is not None and found is not None:
                self._pace.took(listen.urgency, now - begun, now)
            self._say(seat, seat.hearing.recognised(listen, found, now, now - begun))
            self._wanted.notify_all()

    def _tell_apart(self, seat: Seat, voiced: Voiced, sound: Block | None) -> None:
        vector = None if sound is None else self._vector(sound)
        with self._lock:
            question = seat.hearing.heard_voice(voiced, vector)
        decision = None if question is None else self._decision(question)
        with self._lock:
            self._encoding -= 1
            self._say(seat, seat.hearing.decided(voiced, decision))
            self._wanted.notify_all()

    def _vector(self, sound: Block) -> Vector | None:
        assert self._encoder is not None
        try:
            vector = self._encoder.vector(sound)
        except Exception:  # it costs one label, not the others' sessions
            log.exception("a voice was not heard")
            return None
        return vector if np.isfinite(vector).all() and vector.any() else None

    def _decision(self, question: Question) -> Decision | None:
        try:
            return decided(question)
        except Exception:  # as above: the labels stay what they were
            log.exception("voices were not told apart")
            return None

    def _listen(
        self,
        audio: Block,
        known: Hypothesis | Before | None,
        options: LiveOptions,
        listen: Listen,
        latest: float,
    ) -> Hypothesis | None:
        def unwanted() -> bool:
            return self._closed or listen.unwanted or time.monotonic() > latest

        try:
            if isinstance(known, Before):
                assert self._behind is not None
                return self._behind(audio, known, options, unwanted)
            if listen.urgency is Urgency.PARTIAL:
                options = dataclasses.replace(options, words=False)
                return self._glimpse(audio, known, options, unwanted)
            return self._hear(audio, known if self._manner.grows else None, options, unwanted)
        except Exception:  # whatever an engine raises costs one stretch, not the others' sessions
            log.exception("a stretch of speech was not recognised")
            return None

    def _choose(self) -> tuple[Seat, Listen | Voiced] | None:
        voices = self._encoding < self._encode_at_once
        wished = {
            number: wish
            for number, seat in self._seats.items()
            if (wish := seat.hearing.due(voices, partial(self._worth, seat))) is not None
        }
        due = next_of(
            (
                Wish(number, self._seats[number].client, one.urgency, one.since)
                for number, one in wished.items()
            ),
            self._served,
        )
        if due is None:
            return None
        if due.urgency is not Urgency.FINAL:
            now = self._served[due.client] = time.monotonic()
            if self._pace is not None:
                self._pace.tried(due.urgency, now)
        return self._seats[due.session], wished[due.session]

    def _worth(self, seat: Seat, listen: Listen) -> bool:
        """Whether it may be recognised now; who waits for words in vain is told."""
        if self._pace is None or self._pace.allows(listen.urgency, time.monotonic()):
            return True
        if listen.urgency is Urgency.PARTIAL and not seat.wordless:
            seat.wordless = True
            self._say(seat, [Noticed(Notice("partials_off", NO_PARTIALS))])
        return False

    def _say(self, seat: Seat, events: Iterable[LiveEvent]) -> None:
        for event in events:
            if not (seat.left or self._closed):
                seat.tell(event)
        if seat.hearing.over:
            self._drop(seat)
