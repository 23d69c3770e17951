"""Counters and histograms of the service, and pages of metrics.

The code in which an event happens counts it here, independent of the readers. Labels have few
values, which the code defines: no path, name, id or address.

Only the event loop's thread changes them. `prometheus_client` renders them. Counting with it would
take a lock for each count, and import it at every start. Pages also have the names of the replaced
gRPC server: each of its metrics is a gauge `stt_<name>`; a map becomes one gauge for each key.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.observability.health import OutcomeWindow, RecognitionOutcome

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]
MAX_LABEL_SETS = 500
"""Maximum combinations of labels of one metric. Every metric has fewer: this bounds mistakes."""
LIVE_WIRES = ("live", "streaming", "realtime", "grpc", "talk")
"""Values of the label `wire`."""
OTHER_LABEL = "(other)"
"""Label of all combinations beyond the limit."""

METRIC_PREFIX = "vibevoice_"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
QUICK_BUCKETS_S = (0.01, 0.1, 1, 10)
LIVE_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)
LONG_BUCKETS_S = (1, 5, 30, 60, 300, 1800, 7200)
REAL_TIME_FACTOR_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""Bounds of histograms. They are few: each is a line on a page that every scrape renders anew."""
STT_PREFIX = "stt_"
STATUS_OK = "OK"
STT_HELP = "As the gRPC server that this service replaces has it (docs/operations.md)."


class Counter:
    """Counter of events or amounts, by ``labels``.

    ``begun``: combinations of labels that are at 0 from the start. Alerts need that: the functions
    of Prometheus see no increase in a series that appears with a value above 0.
    """

    def __init__(
        self, name: str, what: str, labels: Sequence[str] = (), begun: Iterable[Labels] = ()
    ) -> None:
        self.name, self.what, self.labels = name, what, tuple(labels)
        self.values: dict[Labels, float] = dict.fromkeys(begun if self.labels else [()], 0)

    def add(self, *labels: str, by: float = 1) -> None:
        """Add 1, or ``by``, to the value with these labels."""
        labels = _bounded_labels(self.values, labels)
        self.values[labels] = self.values.get(labels, 0) + by

    def of(self, *labels: str) -> float:
        """Return the value with these labels."""
        return self.values.get(labels, 0)

    @property
    def total(self) -> float:
        """Sum over all labels."""
        return sum(self.values.values())

    def by(self, label: str) -> dict[str, float]:
        """Return the sums by one of the labels."""
        index, sums = self.labels.index(label), dict[str, float]()
        for labels, value in self.values.items():
            sums[labels[index]] = sums.get(labels[index], 0) + value
        return sums


class Distribution:
    """Distribution of values: how many up to each bound, their sum, the largest."""

    __slots__ = ("_bounds", "_buckets", "count", "largest", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self.count, self.sum, self.largest = 0, 0.0, 0.0

    def see(self, value: float) -> None:
        """Add a value."""
        self._buckets[bisect_left(self._bounds, value)] += 1
        self.count += 1
        self.sum += value
        self.largest = max(self.largest, value)

    @property
    def mean(self) -> float:
        """Mean value; 0 if there are no values."""
        return self.sum / self.count if self.count else 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts up to each bound, the last of which is '+Inf'."""
        bounds = (*map(str, self._bounds), "+Inf")
        return list(zip(bounds, map(float, accumulate(self._buckets)), strict=True))


class Histogram:
    """Distributions by ``labels``; ``bounds`` are in the unit of the name."""

    def __init__(
        self, name: str, what: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self.name, self.what, self.labels = name, what, tuple(labels)
        self._bounds = tuple(map(float, bounds))
        self.spreads: dict[Labels, Distribution] = (
            {} if self.labels else {(): Distribution(self._bounds)}
        )

    def see(self, value: float, *labels: str) -> None:
        """Add a value."""
        labels = _bounded_labels(self.spreads, labels)
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Distribution(self._bounds)
        spread.see(value)

    @property
    def only(self) -> Distribution:
        """Distribution of a histogram without labels."""
        return self.spreads[()]


class Gauge:
    """Current value, by ``labels``."""

    def __init__(
        self, name: str, what: str, values: Mapping[Labels, float], labels: Sequence[str] = ()
    ) -> None:
        self.name, self.what, self.labels, self.values = name, what, tuple(labels), values


AnyMetric = Counter | Histogram | Gauge


def _bounded_labels(known: Mapping[Labels, object], labels: Labels) -> Labels:
    if labels in known or len(known) < MAX_LABEL_SETS:
        return labels
    return (OTHER_LABEL,) * len(labels)


class JobMetrics:
    """Metrics of jobs."""

    def __init__(self, outcomes: OutcomeWindow) -> None:
        self._outcomes = outcomes
        self.submitted = Counter("jobs_submitted_total", "Accepted jobs.")
        begun = [(DONE,), (FAILED,), (CANCELLED,)]
        self.ended = Counter("jobs_ended_total", "Ended jobs by outcome.", ("outcome",), begun)
        self.wrong = Counter("jobs_failed_total", "Failed jobs by error code.", ("code",))
        self.crashed = Counter(
            "jobs_crashed_attempts_total",
            "Attempts in which the worker process died, or its engine failed late.",
        )
        self.displaced = Counter(
            "jobs_displaced_total", "Results deleted for newer ones, as job_retention_mb says."
        )
        self.audio = Counter("jobs_audio_seconds_total", "Seconds of transcribed audio.")
        self.work = Counter("jobs_processing_seconds_total", "Seconds of processing by engines.")
        seconds = partial(Histogram, bounds=LONG_BUCKETS_S)
        self.waited = seconds("job_wait_seconds", "Seconds from acceptance to the first attempt.")
        self.lasted = seconds("job_duration_seconds", "Seconds from acceptance to the end.")
        what = "Processing seconds per second of audio, of ended jobs."
        self.factor = Histogram("job_realtime_ratio", what, REAL_TIME_FACTOR_BUCKETS)

    def began(self, waited_s: float) -> None:
        """Count the start of the first attempt."""
        self.waited.see(max(0.0, waited_s))

    def done(self, audio_s: float, work_s: float, lasted_s: float) -> None:
        """Count a transcribed recording."""
        self.ended.add(DONE)
        self.lasted.see(max(0.0, lasted_s))
        self.audio.add(by=audio_s)
        self.work.add(by=work_s)
        if audio_s > 0:
            self.factor.see(work_s / audio_s)
        self._outcomes.add(RecognitionOutcome.DONE)

    def failed(self, code: str, lasted_s: float, outcome: RecognitionOutcome | None) -> None:
        """Count a failed job; ``outcome``: what the error says about the engine, if anything."""
        self.ended.add(FAILED)
        self.wrong.add(code)
        self.lasted.see(max(0.0, lasted_s))
        if outcome is not None:
            self._outcomes.add(outcome)

    def cancelled(self, lasted_s: float) -> None:
        """Count a cancellation."""
        self.ended.add(CANCELLED)
        self.lasted.see(max(0.0, lasted_s))


class LiveMetrics:
    """Metrics of live sessions; ``wire``: the protocol of a session."""

    def __init__(self, outcomes: OutcomeWindow) -> None:
        self._outcomes = outcomes
        by_wire = partial(Counter, labels=("wire",))
        self.opened = by_wire("live_sessions_opened_total", "Started live sessions.")
        what = "Refused live sessions by error code."
        begun = [(wire, errors.LiveFull.code) for wire in LIVE_WIRES]
        self.refused = Counter("live_sessions_refused_total", what, ("wire", "code"), begun)
        self.ended = Counter(
            "live_sessions_ended_total",
            "Ended live sessions by outcome: 'done', 'left' by their clients, or an error code.",
            ("wire", "reason"),
        )
        self.audio = by_wire(
            "live_audio_seconds_total", "Seconds of audio that live sessions received."
        )
        self.turns = by_wire("live_utterances_total", "Started utterances.")
        self.finals = by_wire("live_finals_total", "Finals sent.")
        self.partials = by_wire("live_partials_total", "Partials sent.")
        self.shed = by_wire(
            "live_utterances_shed_total", "Utterances not recognized because of load shedding."
        )
        self.dropped = Counter("live_dropped_total", "Utterances that clients discarded.")
        self.orphaned = Counter(
            "live_orphaned_total", "Utterances whose sessions ended before their final."
        )
        seconds = partial(Histogram, bounds=LIVE_BUCKETS_S)
        self.work = seconds("live_decode_seconds", "Seconds of recognition of a segment.")
        self.queued = seconds(
            "live_queue_wait_seconds", "Seconds that a segment waited for an engine."
        )
        self.full = seconds(
            "live_buffer_wait_seconds", "Seconds that audio waited for space in the buffer."
        )
        self.emitted = seconds(
            "live_emit_seconds", "Seconds that clients took to read a final (gRPC)."
        )
        what = "Processing seconds per second of speech."
        self.factor = Histogram("live_realtime_ratio", what, REAL_TIME_FACTOR_BUCKETS)
        self.speaking = 0

    def told(self, wire: str, speech_s: float, wait_s: float, work_s: float) -> None:
        """Count a recognized segment."""
        self.finals.add(wire)
        self.work.see(work_s)
        self.queued.see(wait_s)
        if speech_s > 0:
            self.factor.see(work_s / speech_s)

    def came(self, outcome: RecognitionOutcome) -> None:
        """Count an outcome of the engine."""
        self._outcomes.add(outcome)


class ProtocolMetrics:
    """Metrics of HTTP requests, WebSockets and gRPC calls."""

    def __init__(self) -> None:
        begun = [(method, "(none)", "401") for method in ("GET", "POST")]
        labels = "method", "route", "status"
        self.requests = Counter("http_requests_total", "HTTP requests by status.", labels, begun)
        what = "Seconds until the head of the response."
        self.heads = Histogram("http_response_head_seconds", what, QUICK_BUCKETS_S, ("route",))
        self.sockets = Counter(
            "websockets_closed_total",
            "WebSockets by close code; 'client' if the client closed first.",
            ("route", "code"),
        )
        self.calls = Counter("grpc_calls_total", "gRPC calls by status.", ("method", "status"))
        self.answering = 0
        self.sockets_open = 0


class ServiceMetrics:
    """All metrics of the service. ``now``: a monotonic clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.outcomes = OutcomeWindow(now)
        self.jobs = JobMetrics(self.outcomes)
        self.live = LiveMetrics(self.outcomes)
        self.wires = ProtocolMetrics()

    def measured(self) -> list[AnyMetric]:
        """Return all counters and histograms, in the order of their declaration."""
        return [
            one
            for part in (self.jobs, self.live, self.wires)
            for one in vars(part).values()
            if isinstance(one, Counter | Histogram)
        ]


async def import_library() -> None:
    """Import `prometheus_client`, which takes up to 0.1 s."""
    if "prometheus_client" not in sys.modules:
        await asyncio.to_thread(importlib.import_module, "prometheus_client")


def render_metrics(
    own: Iterable[AnyMetric], gauges: Iterable[Gauge], prefix: str, accept: str
) -> tuple[bytes, str]:
    """Return a page of metrics and its media type, by the header ``accept`` of the client.

    It has ``own`` with ``prefix``, ``gauges`` under their own names, and the library's metrics of
    the process.
    """
    from prometheus_client.exposition import choose_encoder

    encode, media_type = choose_encoder(accept)
    collector = SimpleNamespace(collect=lambda: _families(own, gauges, prefix))
    return encode(collector), media_type


def _families(own: Iterable[AnyMetric], gauges: Iterable[Gauge], prefix: str) -> Iterator[Metric]:
    from prometheus_client import ProcessCollector

    for measured in own:
        yield _family(measured, prefix)
    yield from ProcessCollector(registry=None).collect()
    for gauge in gauges:
        yield _family(gauge, "")


def _family(measured: AnyMetric, prefix: str) -> Metric:
    from prometheus_client import core

    name, what, labels = prefix + measured.name, measured.what, measured.labels
    if isinstance(measured, Histogram):
        histogram = core.HistogramMetricFamily(name, what, labels=labels)
        for values, spread in list(measured.spreads.items()):
            histogram.add_metric(values, spread.buckets(), spread.sum)
        return histogram
    kind = core.CounterMetricFamily if isinstance(measured, Counter) else core.GaugeMetricFamily
    family = kind(name, what, labels=labels)
    for values, value in list(measured.values.items()):
        family.add_metric(values, value)
    return family


def stt_metrics_json(
    service_metrics: ServiceMetrics, sessions: int, by_owner: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the metrics of the replaced server as JSON; ``by_owner``: `None` omits them."""
    live, calls = service_metrics.live, service_metrics.wires.calls.by("status")
    spreads = {
        "decode_latency": live.work,
        "decode_buffer_wait": live.full,
        "decode_queue_wait": live.queued,
        "decode_response_emit": live.emitted,
        "rtf": live.factor,
    }
    wrong = {name: int(many) for name, many in sorted(calls.items()) if name != STATUS_OK}
    found: dict[str, Any] = {
        "active_sessions": sessions,
        "active_vad_utterances": live.speaking,
        "decode_cancelled": int(live.dropped.total),
        "decode_orphaned": int(live.orphaned.total),
        "vad_triggers_total": int(live.turns.total),
        "error_counts": wrong,
    }
    for name, histogram in spreads.items():
        seen = histogram.only
        found[f"{name}_total"], found[f"{name}_count"] = seen.sum, seen.count
        found[f"{name}_max"] = seen.largest
    if by_owner is not None:
        found["active_sessions_by_api"] = dict(by_owner)
    return dict(sorted(found.items()))


def stt_gauges(values: Mapping[str, Any]) -> list[Gauge]:
    """Return the values of `stt_metrics_json` as gauges, sorted by name."""
    flat: dict[str, float] = defaultdict(float)  # names of two owners can become equal
    for name, value in values.items():
        for key, number in _flat_gauges(name, value):
            flat[key] += number
    return [Gauge(STT_PREFIX + name, STT_HELP, {(): flat[name]}) for name in sorted(flat)]


def _flat_gauges(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat_gauges(f"{name}_{key}", each)
    else:
        yield re.sub(r"[^a-zA-Z0-9_]", "_", name), value
