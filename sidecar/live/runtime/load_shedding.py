"""Load model of a live engine: admission, predicted delay, load shedding. Pure.

A final is the necessary work for speech; partials and labels are extra. The model measures how much
thread time a second of speech costs. From the sessions that speak it predicts how long a final will
wait. While that is too long it sheds load: partials first, then labels, then utterances that have
not begun. A session that has only just begun is refused instead.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum

from sidecar.interfaces import live_events
from sidecar.transcripts.transcript import Notice

UTTERANCE_DROPPED_NOTICE = Notice(
    live_events.UTTERANCE_DROPPED, "Too many users speak at once: this utterance is not recognized."
)
PARTIALS_LATE_NOTICE = Notice(
    live_events.PARTIALS_LATE, "The service is overloaded: words come later than usual."
)
LATE_NOTICE_INTERVAL_S = 30.0
"""Seconds between two notices that partials are late."""
TARGET_UTILIZATION = 0.75
"""Share of the threads that finals of admitted sessions may take: the rest is for chance (many
speak at once) and for partials. The share is smaller if the work for one final is long compared
with the limit: a session behind another waits for all of that."""
TYPICAL_UTTERANCE_S = 3.0
"""Seconds of speech in a usual utterance."""
PREDICTION_HORIZON_S = 5.0
"""Seconds that delay is predicted ahead: from the beginning of an utterance to its final."""
ENTRY_WINDOW_S = 10.0
"""Seconds of audio within which the first speech of a session may be refused."""
MIN_SHEDDING_S = 2.0
"""Minimum seconds for which partials and labels stay off: finals need free threads."""
INITIAL_COST = 0.1
"""Thread seconds for a second of speech before any measurement: those of a slow machine."""
RECOGNITIONS_PER_FINAL = 2.0
"""Recognitions of speech until its final: in pauses, and as the context of the next segment."""
_PRIOR_S = 5.0
_COST_MEMORY_S = 40.0
"""Seconds of speech that count in the moving means of costs."""
_SHARE_PRIOR_S, _SHARE_MEMORY_S = 3.0, 60.0
"""Seconds: a session counts as speaking all the time at first, and then by its last minute."""


class WorkKind(StrEnum):
    """Kind of work; attempts in a pause and repeated context are part of a final."""

    FINAL = "final"
    PARTIAL = "partial"
    LABEL = "label"


class SheddingLevel(IntEnum):
    """Level of load shedding."""

    NOTHING = 0
    PARTIALS = 1
    LABELS = 2
    """Labels and partials are shed."""


class UtteranceAdmission(Enum):
    """Admission of an utterance that begins."""

    SERVE = "serve"
    SHED = "shed"
    """The utterance is not recognized."""
    REFUSE = "refuse"
    """It is the first of a session, which ends."""


class WorkCosts:
    """Thread seconds that each second of speech costs, by kind of work: moving means."""

    def __init__(self) -> None:
        self._speech_s = _PRIOR_S
        self._work_s = dict.fromkeys(WorkKind, 0.0) | {WorkKind.FINAL: INITIAL_COST * _PRIOR_S}

    def add_work(self, kind: WorkKind, work_s: float) -> None:
        """Count the time for which a thread worked."""
        self._work_s[kind] += work_s

    def spoken(self, speech_s: float) -> None:
        """Count recognized speech, whether or not events were sent for it."""
        decay = math.exp(-speech_s / _COST_MEMORY_S)
        self._speech_s = self._speech_s * decay + speech_s
        for kind in WorkKind:
            self._work_s[kind] *= decay

    def measured(self, speech_s: float, work_s: float) -> None:
        """Replace the assumed cost by that of a sample, recognized once when the engine loads."""
        if speech_s > 0:
            cost = RECOGNITIONS_PER_FINAL * work_s / speech_s
            self._work_s[WorkKind.FINAL] = cost * self._speech_s

    def of(self, kind: WorkKind) -> float:
        """Return the thread seconds for a second of speech."""
        return self._work_s[kind] / self._speech_s


class SpeechShare:
    """Seconds of speech per second of time, over the last minute; 1 at the beginning, and at most,
    as a session that is sent faster than it is spoken needs no more at a time than one speaker."""

    def __init__(self, now: float) -> None:
        self._speech_s = self._time_s = _SHARE_PRIOR_S
        self._at = now

    def spoken(self, speech_s: float, now: float) -> None:
        """Count received speech."""
        passed_s = max(0.0, now - self._at)
        decay = math.exp(-passed_s / _SHARE_MEMORY_S)
        self._speech_s = self._speech_s * decay + speech_s
        self._time_s = self._time_s * decay + passed_s
        self._at = max(self._at, now)

    def at(self, now: float) -> float:
        """Return the share at a time."""
        self.spoken(0.0, now)
        return min(1.0, self._speech_s / self._time_s)


@dataclass(frozen=True, slots=True)
class ServedSession:
    """Session with an admitted utterance, or one of its two channels, which have the same rank.
    ``rank``: its order among the sessions, by their first admission;
    ``speaking``: one of its utterances is open; ``share``: see `SpeechShare`."""

    owner: str
    rank: int
    speaking: bool
    share: float

    @property
    def weight(self) -> float:
        """Return its share of the capacity, in sessions that speak without a pause."""
        return max(self.share, float(self.speaking))


@dataclass(frozen=True, slots=True)
class ArrivingUtterance:
    """Utterance that begins. ``rank`` is None if no utterance of the session was served before;
    ``entering``: the session has only just begun."""

    owner: str
    rank: int | None
    entering: bool


class EngineLoadModel:
    """Load model of an engine with ``threads`` threads. ``limit_s``: how long a final may wait
    because of others; 0 sheds nothing. Times are seconds of any clock."""

    def __init__(self, threads: int, limit_s: float = 0.0) -> None:
        self.costs = WorkCosts()
        self.limit_s = limit_s
        self._threads = threads
        self._level, self._until = SheddingLevel.NOTHING, 0.0

    @property
    def capacity(self) -> float:
        """Return how many sessions may speak without a pause before finals fall behind for good."""
        return self._threads / max(self.costs.of(WorkKind.FINAL), 1e-6)

    def delay_s(self, speaking: int, waiting_s: float) -> float:
        """Return the delay of the final of an utterance that begins now, if ``speaking`` sessions
        speak until then and ``waiting_s`` seconds of speech wait already."""
        growth_s = PREDICTION_HORIZON_S * (speaking / self.capacity - 1)
        return max(0.0, waiting_s / self.capacity + growth_s)

    def update_level(self, speaking: int, waiting_s: float, now: float) -> None:
        """Set the level of load shedding by the current load."""
        level = SheddingLevel.NOTHING
        delay_s = max(waiting_s / self.capacity, self.delay_s(speaking, waiting_s))
        if self.limit_s and delay_s > self.limit_s / 4:
            level = SheddingLevel.LABELS if delay_s > self.limit_s / 2 else SheddingLevel.PARTIALS
        if level >= self._level or now >= self._until:
            self._level, self._until = level, now + MIN_SHEDDING_S

    def level(self, now: float) -> SheddingLevel:
        """Return the level of load shedding now."""
        return self._level if now < self._until else SheddingLevel.NOTHING

    def admission(
        self, utterance: ArrivingUtterance, others: Sequence[ServedSession], waiting_s: float
    ) -> UtteranceAdmission:
        """Return the admission of an utterance that begins, beside those of ``others``: the other
        sessions, and the other channel of its own. A session that is alone is always served."""
        if not self.limit_s or all(one.rank == utterance.rank for one in others):
            return UtteranceAdmission.SERVE
        speaking = sum(one.speaking for one in others)
        late = self.delay_s(speaking + 1, waiting_s) > self.limit_s
        demand = max(speaking, sum(one.share for one in others))
        room = self._room(waiting_s)
        if utterance.entering:  # at most, it takes capacity from another owner
            room = min(room, demand) if late else self.target
        if not late and not (utterance.entering and demand + 1 > room):
            return UtteranceAdmission.SERVE
        if _is_within_fair_share(utterance, others, room):
            return UtteranceAdmission.SERVE
        return UtteranceAdmission.REFUSE if utterance.entering else UtteranceAdmission.SHED

    @property
    def target(self) -> float:
        """Return how many admitted sessions may speak without a pause."""
        work_s = TYPICAL_UTTERANCE_S * self.costs.of(WorkKind.FINAL)
        most = TARGET_UTILIZATION * self.capacity
        return max(most / (1 + work_s / self.limit_s), min(most, self._threads))

    def _room(self, waiting_s: float) -> float:
        """Return how many may speak without late finals, if so much speech waits."""
        most = self.capacity + (self.capacity * self.limit_s - waiting_s) / PREDICTION_HORIZON_S
        return min(self.capacity, max(0.0, most))


def fair_share(demands: Iterable[float], capacity: float) -> float:
    """Return the largest share of ``capacity`` of any owner by max-min fairness: an owner that
    needs less gets all that it needs; infinite if there is enough for all."""
    left, wanted = capacity, sorted(demands)
    for number, demand in enumerate(wanted):
        share = left / (len(wanted) - number)
        if demand > share:
            return share
        left -= demand
    return math.inf


def _is_within_fair_share(
    utterance: ArrivingUtterance, other_sessions: Sequence[ServedSession], room: float
) -> bool:
    """Return whether one more utterance leaves its owner within its share. The sessions of an owner
    that were admitted first take the share first."""
    demands: dict[str, float] = {utterance.owner: 1.0}
    for one in other_sessions:
        demands[one.owner] = demands.get(one.owner, 0.0) + one.weight
    before = sum(one.weight for one in other_sessions if _precedes(one, utterance))
    return before + 1 <= fair_share(demands.values(), room) + 1e-9


def _precedes(session: ServedSession, utterance: ArrivingUtterance) -> bool:
    is_first = utterance.rank is None or session.rank < utterance.rank
    return session.owner == utterance.owner and is_first
