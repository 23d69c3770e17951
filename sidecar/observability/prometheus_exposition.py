"""Prometheus and OpenMetrics exposition, with the names of the replaced gRPC server.

Each metric of that server is a gauge `stt_<name>`; a map becomes one gauge for each key.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sidecar.observability.metrics import AnyMetric, Counter, Gauge, Histogram, ServiceMetrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric


async def import_library() -> None:
    """Import `prometheus_client`, which takes up to 0.1 s."""
    if "prometheus_client" not in sys.modules:
        await asyncio.to_thread(importlib.import_module, "prometheus_client")


def render_metrics(
    own: Iterable[AnyMetric], classic: Iterable[Gauge], prefix: str, accept: str
) -> tuple[bytes, str]:
    """Return a page of metrics and its media type, by the header ``accept`` of the client.

    It has ``own`` with ``prefix``, ``classic`` under their own names, and the library's metrics of
    the process.
    """
    from prometheus_client.exposition import choose_encoder

    encode, media_type = choose_encoder(accept)
    collector = SimpleNamespace(collect=lambda: _families(own, classic, prefix))
    return encode(collector), media_type


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
STT_HELP = "As the gRPC server that this service replaces has it (docs/operations.md)."


def stt_metrics_json(
    tally: ServiceMetrics, sessions: int, by_owner: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the metrics of the replaced server as JSON; ``by_owner``: `None` omits them."""
    live, calls = tally.live, tally.wires.calls.by("status")
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
        "error_counts": {
            name: int(many) for name, many in sorted(calls.items()) if name != STATUS_OK
        },
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
