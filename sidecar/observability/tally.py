"""What is counted, by whom it happens to: recordings, live sessions, requests, calls.

Whoever lets something happen says so here, and knows nothing of who reads it. Labels have few
values, which the code decides: no path, no name, no id and no address of anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.observability.counts import Counter, Histogram, Measured
from sidecar.observability.outcomes import Outcome, Outcomes, Thresholds

PREFIX = "vibevoice_"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
"""How recordings end."""
QUICK_S = (0.01, 0.1, 1, 10)
LIVE_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)
LONG_S = (1, 5, 30, 60, 300, 1800, 7200)
FACTORS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""Bounds of histograms, few: each is a line on a page that is written anew at every look."""


class JobTally:
    """Recordings."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self.submitted = Counter("jobs_submitted_total", "Recordings that were taken in.")
        self.ended = Counter("jobs_ended_total", "Recordings by how they ended.", ("outcome",))
        self.wrong = Counter("jobs_failed_total", "Those that failed, by their error.", ("code",))
        self.crashed = Counter(
            "jobs_crashed_attempts_total", "Attempts in which the engine's process died."
        )
        self.audio = Counter(
            "jobs_audio_seconds_total", "Sound of recordings that were transcribed."
        )
        self.work = Counter("jobs_processing_seconds_total", "What engines took for that.")
        self.waited = Histogram(
            "job_wait_seconds", "From being taken in to the first attempt.", LONG_S
        )
        self.lasted = Histogram("job_duration_seconds", "From being taken in to the end.", LONG_S)
        self.factor = Histogram(
            "job_realtime_ratio", "Work for a second of sound, of recordings that ended.", FACTORS
        )
        for outcome in (DONE, FAILED, CANCELLED):
            self.ended.add(outcome, by=0)

    def began(self, waited_s: float) -> None:
        """The first attempt begins."""
        self.waited.see(max(0.0, waited_s))

    def done(self, audio_s: float, work_s: float, lasted_s: float) -> None:
        """It is transcribed."""
        self.ended.add(DONE)
        self.lasted.see(max(0.0, lasted_s))
        self.audio.add(by=audio_s)
        self.work.add(by=work_s)
        if audio_s > 0:
            self.factor.see(work_s / audio_s)
        self._outcomes.add(Outcome.DONE)

    def failed(self, code: str, lasted_s: float, outcome: Outcome | None) -> None:
        """It ended with an error; ``outcome``: what that says of the engine, if anything."""
        self.ended.add(FAILED)
        self.wrong.add(code)
        self.lasted.see(max(0.0, lasted_s))
        if outcome is not None:
            self._outcomes.add(outcome)

    def cancelled(self, lasted_s: float) -> None:
        """Somebody ended it."""
        self.ended.add(CANCELLED)
        self.lasted.see(max(0.0, lasted_s))


class LiveTally:
    """Live sessions and what is said in them; ``wire``: by which way they came."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        by_wire = ("wire",)
        self.opened = Counter("live_sessions_opened_total", "Live sessions that began.", by_wire)
        self.refused = Counter(
            "live_sessions_refused_total", "Live sessions that were not begun.", ("wire", "code")
        )
        self.ended = Counter(
            "live_sessions_ended_total",
            "Live sessions by how they ended: 'done' or 'left' by their clients, or an error.",
            ("wire", "reason"),
        )
        self.taken_up = Counter(
            "live_sessions_taken_up_total",
            "Live sessions that another service began and left when it ended.",
            by_wire,
        )
        self.audio = Counter(
            "live_audio_seconds_total", "Sound that live sessions were sent.", by_wire
        )
        self.turns = Counter("live_utterances_total", "Utterances that began.", by_wire)
        self.finals = Counter("live_finals_total", "Stretches of speech that were told.", by_wire)
        self.partials = Counter(
            "live_partials_total", "Words that were told before their end.", by_wire
        )
        self.shed = Counter(
            "live_utterances_shed_total",
            "Utterances that were not recognised because too many spoke.",
            by_wire,
        )
        self.dropped = Counter("live_dropped_total", "Utterances their clients did not want.")
        self.orphaned = Counter(
            "live_orphaned_total", "Utterances whose sessions ended before they were told."
        )
        self.work = Histogram(
            "live_decode_seconds", "What an engine took for a stretch of speech.", LIVE_S
        )
        self.queued = Histogram(
            "live_queue_wait_seconds", "How long it lay before an engine had time for it.", LIVE_S
        )
        self.full = Histogram(
            "live_buffer_wait_seconds", "How long sound had to wait to be taken.", LIVE_S
        )
        self.emitted = Histogram(
            "live_emit_seconds", "How long clients took to read a final (gRPC).", LIVE_S
        )
        self.factor = Histogram(
            "live_realtime_ratio", "Work for a second of speech that was told.", FACTORS
        )
        self.speaking = 0
        """Utterances that go on."""

    def told(self, wire: str, speech_s: float, wait_s: float, work_s: float) -> None:
        """A stretch of speech was recognised."""
        self.finals.add(wire)
        self.work.see(work_s)
        self.queued.see(wait_s)
        if speech_s > 0:
            self.factor.see(work_s / speech_s)

    def came(self, outcome: Outcome) -> None:
        """What that says of the engine."""
        self._outcomes.add(outcome)


class WireTally:
    """Requests, WebSockets, calls."""

    def __init__(self) -> None:
        self.requests = Counter(
            "http_requests_total",
            "Requests by the status of their answers.",
            ("method", "route", "status"),
        )
        self.heads = Histogram(
            "http_response_head_seconds", "Until the head of an answer.", QUICK_S, ("route",)
        )
        self.sockets = Counter(
            "websockets_closed_total",
            "WebSockets by the code that they were closed with; 'client' where it went first.",
            ("route", "code"),
        )
        self.calls = Counter(
            "grpc_calls_total", "Calls over gRPC by their status.", ("method", "status")
        )
        self.answering = 0
        """Requests that are being answered."""
        self.sockets_open = 0
        """WebSockets that are open."""


class Tally:
    """All of it. ``now``: a clock that only goes forward."""

    def __init__(
        self, thresholds: Thresholds | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.thresholds = thresholds or Thresholds()
        self.outcomes = Outcomes(self.thresholds.window_s, now)
        self.jobs = JobTally(self.outcomes)
        self.live = LiveTally(self.outcomes)
        self.wires = WireTally()

    def measured(self) -> list[Measured]:
        """All that is counted, in the order in which it is declared."""
        return [
            one
            for part in (self.jobs, self.live, self.wires)
            for one in vars(part).values()
            if isinstance(one, Counter | Histogram)
        ]
