"""One live session over as many connections as it takes: what was sent, what the service has of it,
what it told. Pure: sockets are elsewhere.

Sound and orders stand in one line until the service says that it has them. A connection that breaks
takes nothing along: the next one asks what is there, sends the rest again, and hears what was told
behind the last event that came.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Deque, Dict, List, Mapping, Optional, Union

from vibevoice_asr_client.codes import SessionNotFound
from vibevoice_asr_client.errors import (
    AnswerNotUnderstood,
    Busy,
    CertificateRefused,
    ClientError,
    ConnectionLost,
    ServiceError,
)
from vibevoice_asr_client.flows import Surroundings
from vibevoice_asr_client.live_events import (
    LiveEvent,
    Summary,
    live_event_of,
)
from vibevoice_asr_client.problems import error_of

WIDTHS = {"pcm16": 2, "float32": 4}
MESSAGE_S = 1.0
"""Seconds of sound that go in one message, at most."""
MESSAGES = 64
"""So many without a word of the service; then it is waited for one."""
RECONNECT_S = 2.0
"""Longest pause between two attempts while the service keeps the session (``grace_s``)."""
KEPT_S = 120.0
"""Seconds of sound that wait for the service, at most: whoever sends waits then, too."""
LOST_HINT = (
    "Begin a new session once the service answers. If interruptions are longer than its "
    "live_grace, raise that setting."
)


@dataclass(frozen=True)
class Sound:
    """Whole samples, the first of them the ``start``-th of the session."""

    start: int
    raw: bytes


@dataclass(frozen=True)
class Order:
    """The ``number``-th order of the session, from 1."""

    number: int
    text: str


class Stream:
    """Sound at ``rate`` in ``encoding``; ``options`` of the session as the wire has them. With
    ``channels`` of 2 a sample is one of each, left first.

    Raises:
        ValueError: there is no such encoding.
    """

    def __init__(
        self, options: Mapping[str, Any], encoding: str, rate: int, around: Surroundings
    ) -> None:
        if encoding not in WIDTHS:
            raise ValueError(f"'{encoding}' is no encoding: {', '.join(WIDTHS)}.")
        self.session = uuid.uuid4().hex
        self.began: Mapping[str, Any] = {}
        """What the service said when it took the session."""
        self.ended = False
        """The summary has come."""
        self.finishing = False
        self.received_s = 0.0
        """Seconds of sound that the service has."""
        self.heard_s = 0.0
        """Seconds of it that were heard."""
        self._width, self._rate = WIDTHS[encoding] * int(options.get("channels") or 1), rate
        self._begin = {**_given(options), "encoding": encoding, "rate": rate}
        self._around = around
        self._line: Deque[Union[Sound, Order]] = deque()
        self._sent = 0
        self._samples = self._orders = 0
        self._have_samples = self._have_orders = 0
        self._last = 0
        self._ready = False
        self._unanswered = 0
        self._tried = False
        self._failures = 0
        self._lost_at: Optional[datetime] = None

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that the service may not have."""
        return (self._samples - self._have_samples) / self._rate

    @property
    def full(self) -> bool:
        """Whether that is as much as it may be."""
        return self.waiting_s >= KEPT_S

    def sound(self, raw: bytes) -> None:
        """More sound: whole samples, little-endian.

        Raises:
            ValueError: it is none, or the last was said to have come.
        """
        if len(raw) % self._width:
            raise ValueError(f"{len(raw)} bytes are no whole samples of {self._width} bytes.")
        self._check()
        most = round(MESSAGE_S * self._rate) * self._width
        for at in range(0, len(raw), most):
            piece = bytes(raw[at : at + most])
            self._line.append(Sound(self._samples, piece))
            self._samples += len(piece) // self._width

    def order(self, kind: str, options: Optional[Mapping[str, Any]] = None) -> None:
        """Something to be done behind the sound that came: commit, cancel, change, finish.

        Raises:
            ValueError: the last order was given.
        """
        self._check()
        self._orders += 1
        self.finishing = kind == "finish"
        self._line.append(Order(self._orders, json.dumps({"type": kind, **_given(options or {})})))

    def opening(self) -> str:
        """The first message of a connection."""
        self._ready, self._sent = False, 0
        resumed: Dict[str, Any] = {"after": self._last} if self._tried else {}
        self._tried = True
        named = {"type": "begin", "session": self.session}
        return json.dumps({**named, **resumed, **self._begin})

    def next(self) -> Union[bytes, str, None]:
        """What goes to the service now; None: nothing, until there is more or it is ready."""
        if not self._ready or self._sent >= len(self._line) or self._unanswered >= MESSAGES:
            return None
        self._unanswered += 1
        item = self._line[self._sent]
        self._sent += 1
        if isinstance(item, Order):
            return item.text
        pieces, size = [item.raw], len(item.raw)
        while self._sent < len(self._line):
            more = self._line[self._sent]
            if isinstance(more, Order) or size + len(more.raw) > MESSAGE_S * self._bytes_a_second:
                break
            pieces.append(more.raw)
            size += len(more.raw)
            self._sent += 1
        return b"".join(pieces)

    def took(self, text: Union[str, bytes]) -> List[LiveEvent]:
        """The events in a message that were not there already.

        Raises:
            ServiceError: the service refused.
            AnswerNotUnderstood: it is no message of this wire.
        """
        body = _body(text)
        kind = body.get("type")
        if kind == "error":
            raise error_of({**body, "detail": body.get("message")})
        if kind == "began":
            self.began = body
            self._ready = True
            self._failures, self._lost_at = 0, None
        if kind in ("began", "received"):
            self._acknowledge(body)
            return []
        event = live_event_of(body)
        if event is None or event.number <= self._last:
            return []
        self._last, self._failures, self._lost_at = event.number, 0, None
        self.ended = isinstance(event, Summary)
        return [event]

    def lost(self, error: Optional[ClientError]) -> float:
        """The connection is no more; how long to wait before the next.

        Raises:
            ClientError: there is none; ``error``, or `ConnectionLost`.
        """
        told, self._ready = self._ready, False
        if isinstance(error, SessionNotFound) and not self.began:
            self._tried = False  # it never got there, and begins now
            return 0.0
        final = isinstance(error, (ServiceError, AnswerNotUnderstood, CertificateRefused))
        # Who wants to begin is told at once that there is no room; who comes again, comes again.
        # A proxy has answers of its own while the service is away.
        passes = isinstance(error, (Busy, AnswerNotUnderstood))
        passing = passes and self.began and not told
        if error is not None and final and not passing:
            raise error
        self._failures += 1
        asked_s = error.retry_after if isinstance(error, ServiceError) else None
        wait_s = self._pause_s(asked_s)
        if wait_s is None:
            raise error or ConnectionLost(
                "The service broke off the live session, and no attempt to reconnect succeeded.",
                hint=LOST_HINT,
            )
        return wait_s

    def _pause_s(self, asked_s: Optional[float]) -> Optional[float]:
        """Return the pause before the next attempt; None: the attempts and ``grace_s`` are over."""
        now, retry = self._around.now(), self._around.retry
        self._lost_at = self._lost_at or now
        left_s = float(self.began.get("grace_s", 0.0)) - (now - self._lost_at).total_seconds()
        if left_s <= 0:
            return retry.wait_s(self._failures, self._around.chance(), asked_s)
        # With `NEVER` the first failure is the last one.
        counted = min(self._failures, max(1, retry.attempts - 1))
        chance = self._around.chance()
        wait_s = retry.wait_s(counted, chance, asked_s)
        if wait_s is None or asked_s is not None:
            return wait_s
        # The last one finds out whether it is gone. Chance spreads clients that were cut together.
        return min(wait_s, RECONNECT_S * (0.5 + chance / 2), left_s + 0.1 + chance)

    @property
    def _bytes_a_second(self) -> int:
        return self._rate * self._width

    def _check(self) -> None:
        if self.finishing:
            raise ValueError("finish() was called: this session takes no more audio.")

    def _acknowledge(self, body: Mapping[str, Any]) -> None:
        try:
            samples, orders = int(body["received_samples"]), int(body["received_orders"])
            self.heard_s = float(body.get("heard_s", self.heard_s))
        except (KeyError, TypeError, ValueError):
            raise AnswerNotUnderstood("The live session does not say how far it is.") from None
        if not self._have_samples <= samples <= self._samples or orders > self._orders:
            raise AnswerNotUnderstood("The live session has audio that was never sent.")
        self._unanswered = 0
        self._have_samples, self._have_orders = samples, max(orders, self._have_orders)
        self.received_s = samples / self._rate
        while self._line and self._is_there(self._line[0]):
            self._line.popleft()
            self._sent = max(0, self._sent - 1)
        if self._line and isinstance(self._line[0], Sound) and self._line[0].start < samples:
            first = self._line[0]
            rest = first.raw[(samples - first.start) * self._width :]
            self._line[0] = Sound(samples, rest)

    def _is_there(self, item: Union[Sound, Order]) -> bool:
        if isinstance(item, Order):
            return item.number <= self._have_orders
        return item.start + len(item.raw) // self._width <= self._have_samples


def _given(options: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _body(text: Union[str, bytes]) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise AnswerNotUnderstood("What answers at /v1/live is not this service.")
    return body
