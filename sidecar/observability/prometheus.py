"""Prometheus and OpenMetrics exposition, with the names of the replaced gRPC server.

Each metric of that server is a gauge `stt_<name>`; a map becomes one gauge for each key.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sidecar.observability.metrics import AnyMetric, Counter, Gauge, Histogram, ServiceMetrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class _MetricsCollector:
    """Collector of the service's metrics for `prometheus_client`."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def is_library_imported() -> bool:
    """Return whether `prometheus_client` is already imported."""
    return "prometheus_client" in sys.modules


def import_prometheus_client() -> None:
    """Import `prometheus_client`, which takes up to 0.1 s: call it in a thread."""
    import prometheus_client  # noqa: F401


def render_metrics(
    own: Iterable[AnyMetric], classic: Iterable[Gauge], prefix: str, accept: str
) -> tuple[bytes, str]:
    """Return a page of metrics and its media type, by the header ``accept`` of the client.

    It has ``own`` with ``prefix``, ``classic`` under their own names, and the library's metrics of
    the process.
    """
    from prometheus_client.exposition import choose_encoder

    encode, media_type = choose_encoder(accept)
    return encode(_MetricsCollector(_families(own, classic, prefix))), media_type


def _families(own: Iterable[AnyMetric], classic: Iterable[Gauge], prefix: str) -> Iterator[Metric]:
    from prometheus_client import ProcessCollector

    for measured in own:
        yield _family(measured, prefix)
    yield from ProcessCollector(registry=None).collect()
    for gauge in classic:
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


STT_PREFIX = "stt_"
STATUS_OK = "OK"
STT_HELP = {
    "active_sessions": "Live sessions in progress.",
    "active_sessions_by_api": "Live sessions in progress by owner.",
    "active_vad_utterances": "Utterances in progress.",
    "decode_buffer_wait": "Seconds that audio waited for space in the buffer",
    "decode_cancelled": "Utterances that clients discarded.",
    "decode_latency": "Seconds of recognition of a segment",
    "decode_orphaned": "Utterances whose sessions ended before their final.",
    "decode_queue_wait": "Seconds that a segment waited for an engine",
    "decode_response_emit": "Seconds that clients took to read a final",
    "error_counts": "gRPC calls that ended with this status.",
    "rtf": "Processing seconds per second of speech",
    "vad_triggers_total": "Started utterances.",
}
_SUMS = {"total": "sum", "count": "number", "max": "largest"}


def stt_metrics_json(
    tally: ServiceMetrics, sessions: int, by_owner: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the metrics of the replaced server as JSON; ``by_owner``: `None` omits them."""
    live = tally.live
    spreads = {
        "decode_latency": live.work,
        "decode_buffer_wait": live.full,
        "decode_queue_wait": live.queued,
        "decode_response_emit": live.emitted,
        "rtf": live.factor,
    }
    found: dict[str, Any] = {
        "active_sessions": sessions,
        "active_vad_utterances": live.speaking,
        "decode_cancelled": int(live.dropped.total),
        "decode_orphaned": int(live.orphaned.total),
        "vad_triggers_total": int(live.turns.total),
        "error_counts": _errors(tally),
    }
    for name, histogram in spreads.items():
        found |= _histogram_summary(name, histogram)
    if by_owner is not None:
        found["active_sessions_by_api"] = dict(by_owner)
    return dict(sorted(found.items()))


def stt_gauges(values: Mapping[str, Any]) -> list[Gauge]:
    """Return the values of `stt_metrics_json` as gauges, sorted by name."""
    flat: dict[str, float] = defaultdict(float)  # names of two owners can become equal
    for name, value in values.items():
        for key, number in _flat_gauges(name, value):
            flat[key] += number
    return [Gauge(STT_PREFIX + name, _help(name), {(): flat[name]}) for name in sorted(flat)]


def _errors(tally: ServiceMetrics) -> dict[str, int]:
    by_status = tally.wires.calls.by("status")
    return {name: int(many) for name, many in sorted(by_status.items()) if name != STATUS_OK}


def _histogram_summary(name: str, histogram: Histogram) -> dict[str, float]:
    seen = histogram.only
    return {
        f"{name}_total": seen.sum,
        f"{name}_count": seen.count,
        f"{name}_max": seen.largest,
    }


def _flat_gauges(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat_gauges(f"{name}_{key}", each)
    else:
        yield re.sub(r"[^a-zA-Z0-9_]", "_", name), value


def _help(name: str) -> str:
    if name in STT_HELP:
        return STT_HELP[name]
    begin, _, end = name.rpartition("_")
    if begin in STT_HELP and end in _SUMS:
        return f"{STT_HELP[begin]}: {_SUMS[end]}."
    return next((text for known, text in STT_HELP.items() if name.startswith(f"{known}_")), name)


def stt_health(
    tally: ServiceMetrics, sessions: int, waiting: int, pids: int, crashes: int
) -> dict[str, Any]:
    """Return the fields of `/health` of that server beside ``status``; ``pids``: number of
    processes of live engines."""
    work = tally.live.work.only
    return {
        "models_loaded": pids > 0,
        "model_count": pids,
        "model_worker_total": pids,
        "model_worker_shutdown": crashes,
        "active_sessions": sessions,
        "decode_queue_depth": waiting,
        "decode_latency_avg": round(work.mean, 6),
        "decode_latency_max": round(work.largest, 6),
    }
