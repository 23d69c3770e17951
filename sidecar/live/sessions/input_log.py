"""Input log of a session and its replay buffer for a new engine."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sidecar.interfaces.live_options import LiveOptions, LiveOrder, SampleEncoding

SMALL_BYTES, JOINED_BYTES = 512, 4096
"""Bytes: a chunk with fewer than the first is joined to the one before it, until both have the
second together. A chunk of a single sample costs fifty times its bytes."""
SAME_TIME_S = 1e-6
"""Seconds: times that are no further apart are equal; less than a sample at any rate."""
MAX_CHANGES = 100
"""Changes of the options that are kept; the oldest of more is dropped. Each has up to 16 KB."""

FULL_BUFFER_TURN_S = 1.0
"""Seconds that others of its owner wait for a session that may exceed the buffer."""
FREE_PARTS = 4
"""An owner may keep so many times the audio that is still free: alone four fifths of the buffer,
two four ninths each. So there is room for one more, whatever the others send."""


@dataclass(frozen=True, slots=True)
class InputChunk:
    """Received audio; ``at``: its start on the session's clock, in seconds; ``ahead``: its client
    had sent more than a microphone records by then."""

    at: float
    raw: bytes
    encoding: SampleEncoding
    rate: int
    ahead: bool = False

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.raw) / self.encoding.width / self.rate

    def behind(self, at: float) -> InputChunk:
        """Return the audio of it after ``at``, from the first whole sample on."""
        samples = max(0, round((at - self.at) * self.rate))
        raw = self.raw[samples * self.encoding.width :]
        return replace(self, at=self.at + samples / self.rate, raw=raw)

    def joined(self, other: object) -> InputChunk | None:
        """Return both as one chunk if ``other`` is small and follows directly, else None."""
        if not isinstance(other, InputChunk) or len(other.raw) >= SMALL_BYTES:
            return None
        alike = replace(self, at=other.at, raw=other.raw) == other
        goes_on = abs(self.at + self.seconds - other.at) < SAME_TIME_S
        if not (alike and goes_on) or len(self.raw) + len(other.raw) > JOINED_BYTES:
            return None
        return replace(self, raw=self.raw + other.raw)


InputItem = InputChunk | LiveOrder | LiveOptions
"""Audio, or an order of the client behind it; options are those of the audio that follows."""


_ANSWERED = (LiveOrder.COMMIT, LiveOrder.CANCEL)
"""Orders that stay until an engine has answered them."""


def _chunks(*items: InputItem) -> Iterator[InputChunk]:
    return (one for one in items if isinstance(one, InputChunk))


@dataclass(slots=True)
class InputLogTotals:
    """Audio that all sessions keep together."""

    most: int
    """Bytes, of which each owner has a share (`FREE_PARTS`); above it, its sessions that keep more
    than a second accept no more."""
    turn_s: float = FULL_BUFFER_TURN_S
    bytes: int = 0
    by_owner: Counter[str] = field(default_factory=Counter)
    """Bytes of each owner that has any."""
    turns: dict[str, tuple[InputLog, float]] = field(default_factory=dict)
    """Session of an owner that may exceed the share, and when it last did."""

    def may_add(self, log: InputLog, now: float) -> bool:
        """Return whether a session may add audio. Of an owner with a full share one may at a time,
        until its segment ends and frees memory: if all were in the middle of a segment, none could
        go on. If that session sends nothing for a while, another one may."""
        if self.by_owner[log.owner] < FREE_PARTS * (self.most - self.bytes):
            return True
        holder, since = self.turns.get(log.owner, (log, now))
        if holder is not log and now < since + self.turn_s:
            return False
        self.turns[log.owner] = log, now
        return True


class InputLog:
    """Audio, commits, cancels and changes in the order of arrival, until no engine needs them.

    An engine takes them one by one (`take`); its successor begins at the first item that is left
    (`rewind`).
    """

    def __init__(self, totals: InputLogTotals, owner: str = "") -> None:
        self.owner = owner
        self.at = 0.0
        """End of the received audio, in seconds: the session's clock."""
        self.settled = 0.0
        """End of the audio that is not needed any more."""
        self.bytes = 0
        self.options = LiveOptions()
        """Options before the first item: those with which a new engine begins."""
        self._totals = totals
        self._rate, self._since, self._samples = 0, 0.0, 0
        """Rate of the last audio, when it began, and the samples since."""
        self._items: deque[InputItem] = deque()
        self._past: deque[InputChunk] = deque()
        """Settled audio that a new engine needs as lead-in."""
        self._ahead: deque[InputChunk] = deque()
        """Lead-in audio that the current engine has not taken yet."""
        self._wanted = 0.0
        self._taken = 0
        self._had = 0
        self._answered = 0
        self._before = 0

    @property
    def lead(self) -> float:
        """Return the start of the audio that is taken after `rewind`."""
        first = next(_chunks(*self._past, *self._items), None)
        return self.settled if first is None else first.behind(self._wanted).at

    @property
    def seconds(self) -> float:
        """Return the seconds of kept audio that is not settled."""
        oldest = next(_chunks(*self._items), None)
        return 0.0 if oldest is None else self.at - oldest.at

    @property
    def has_unanswered_order(self) -> bool:
        """Return whether a commit or a cancel of the client was not answered yet."""
        return any(one in _ANSWERED for one in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, raw: bytes, encoding: SampleEncoding, rate: int, *, ahead: bool = False) -> None:
        """Add audio of whole samples."""
        chunk = InputChunk(self.at, raw, encoding, rate, ahead)
        if rate != self._rate:
            self._rate, self._since, self._samples = rate, self.at, 0
        self._samples += len(raw) // encoding.width
        self.at = self._since + self._samples / rate  # sums of tenths would drift
        self._count(len(raw))
        self._items.append(chunk)
        if len(self._items) - max(self._taken, self._had) > 1:
            self._join(len(self._items) - 1)

    def order(self, order: LiveOrder | LiveOptions) -> None:
        """Add an order behind the audio, or other options from here on."""
        if isinstance(order, LiveOptions):
            self._change(order)
        elif order is LiveOrder.CANCEL:
            self._cancel()
        else:
            self._items.append(order)

    def _change(self, options: LiveOptions) -> None:
        """Change the options; of two changes without input between the last counts."""
        last = len(self._items) - 1
        if last >= max(self._taken, self._had) and isinstance(self._items[last], LiveOptions):
            self._items[last] = options
            return
        self._items.append(options)
        changes = [at for at, one in enumerate(self._items) if isinstance(one, LiveOptions)]
        if len(changes) > MAX_CHANGES:
            oldest = changes[0]
            del self._items[oldest]
            self._taken -= oldest < self._taken
            self._had -= oldest < self._had

    def _cancel(self) -> None:
        """Discard the open turn; turns that ended before stay. Its audio that no engine has had
        becomes silence, as audio is the clock; where turns end in the rest, an engine decides."""
        items = list(self._items)
        ends = [at + 1 for at, one in enumerate(items) if isinstance(one, LiveOrder)]
        begin = max([self._had, *ends])
        quiet = (
            replace(one, raw=bytes(len(one.raw))) if isinstance(one, InputChunk) else one
            for one in items[begin:]
        )
        self._items = deque([*items[:begin], LiveOrder.CANCEL, *quiet])

    def dropped(self) -> None:
        """Drop the input up to the first discard: an engine has confirmed that."""
        while LiveOrder.CANCEL in self._items:
            oldest = self._items.popleft()
            self._taken, self._had = max(0, self._taken - 1), max(0, self._had - 1)
            self._drop(oldest)
            if oldest is LiveOrder.CANCEL:
                break
        self._let_go(self.settled)

    def take(self) -> InputItem | None:
        """Return the next item that was not taken; None if there is none."""
        if self._ahead:
            return self._ahead.popleft().behind(self._wanted)
        if self._taken == len(self._items):
            return None
        item = self._items[self._taken]
        self._taken += 1
        self._had = max(self._had, self._taken)
        if 1 < self._taken == self._had and self._join(self._taken - 1):
            self._taken, self._had = self._taken - 1, self._had - 1
        return item.behind(self._wanted) if isinstance(item, InputChunk) else item

    def lose(self) -> list[LiveOrder]:
        """Drop all input that any engine had: no engine gets it again. Return the commits and
        discards in it, in order, which no engine will answer."""
        had = min(self._had, len(self._items))
        lost = [self._items.popleft() for _ in range(had)]
        for one in lost:
            self._drop(one)
        self._taken = self._had = 0
        self._ahead.clear()
        self._let_go(self.settled)
        return [one for one in lost if isinstance(one, LiveOrder) and one in _ANSWERED]

    def rewind(self) -> None:
        """Offer the input again, to an engine that counts commits from 0."""
        self._taken, self._before = 0, self._answered
        self._ahead = deque(self._past)

    def answered(self, commits: int) -> None:
        """Drop as many commits as were answered since `rewind`. Audio before them that is not
        settled stays: the next utterance may begin in it."""
        while self._answered < self._before + commits and LiveOrder.COMMIT in self._items:
            self._items.remove(LiveOrder.COMMIT)
            self._answered += 1
            self._taken, self._had = max(0, self._taken - 1), max(0, self._had - 1)

    def settle(self, before: float, commits: int, wanted: float | None = None) -> None:
        """Drop the audio before a time, and as many commits as were answered since `rewind`. Audio
        behind an order that was not answered stays, in its place. Audio from ``wanted`` on is kept
        for an engine that takes over."""
        self.answered(commits)
        self.settled = max(self.settled, before)
        while self._taken and (oldest := self._items[0]) not in _ANSWERED:
            if isinstance(oldest, LiveOptions):
                self.options = oldest
            elif isinstance(oldest, InputChunk):
                if oldest.at + oldest.seconds > before + SAME_TIME_S:
                    break
                self._past.append(oldest)
            self._items.popleft()
            self._taken, self._had = self._taken - 1, self._had - 1
        self._let_go(self.settled if wanted is None else min(wanted, self.settled))

    def _drop(self, item: InputItem) -> None:
        """Account for an item that no engine will need."""
        match item:
            case InputChunk():
                self._count(-len(item.raw))
                self.settled = max(self.settled, item.at + item.seconds)
            case LiveOrder.COMMIT:
                self._answered += 1
            case LiveOptions():
                self.options = item

    def clear(self) -> None:
        """Drop all input: no engine needs it any more."""
        for kept in (self._items, self._past, self._ahead):
            kept.clear()
        self._taken = self._had = 0
        self._count(-self.bytes)
        self.settled = self.at
        if self.owner in self._totals.turns and self._totals.turns[self.owner][0] is self:
            del self._totals.turns[self.owner]

    def _join(self, index: int) -> bool:
        """Join the chunk at an index to the one before it, if both are small."""
        before = self._items[index - 1]
        joined = before.joined(self._items[index]) if isinstance(before, InputChunk) else None
        if joined is None:
            return False
        self._items[index - 1] = joined
        del self._items[index]
        return True

    def _let_go(self, before: float) -> None:
        """Drop settled audio before a time."""
        self._wanted = max(self._wanted, before)
        while self._past and self._past[0].at + self._past[0].seconds <= self._wanted:
            self._count(-len(self._past.popleft().raw))

    def _count(self, more: int) -> None:
        self.bytes += more
        self._totals.bytes += more
        self._totals.by_owner[self.owner] += more
        if not self._totals.by_owner[self.owner]:
            del self._totals.by_owner[self.owner]
