"""What was counted as Prometheus reads it: its text, or OpenMetrics where that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sidecar.observability.counts import Counter, Gauge, Histogram, Measured

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Process = Iterable["Metric"]


class _Page:
    """What `prometheus_client` takes for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def library_is_here() -> bool:
    """Whether what writes pages was imported before."""
    return "prometheus_client" in sys.modules


def import_library() -> None:
    """Import it: up to a tenth of a second, for a thread."""
    import prometheus_client  # noqa: F401


def exposition(
    own: Iterable[Measured], classic: Iterable[Gauge], prefix: str, accept: str
) -> tuple[bytes, str]:
    """A page and its media type, by what a client ``accept``\\ s: ``own`` with the ``prefix``,
    ``classic`` as they are called, and what the library tells of every process."""
    from prometheus_client.exposition import choose_encoder

    encode, media_type = choose_encoder(accept)
    return encode(_Page(_families(own, classic, prefix))), media_type


def _families(own: Iterable[Measured], classic: Iterable[Gauge], prefix: str) -> Iterator[Metric]:
    from prometheus_client import ProcessCollector

    for measured in own:
        yield _family(measured, prefix)
    yield from ProcessCollector(registry=None).collect()
    for gauge in classic:
        yield _family(gauge, "")


def _family(measured: Measured, prefix: str) -> Metric:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    name, what = prefix + measured.name, measured.what
    match measured:
        case Histogram(labels=labels, spreads=spreads):
            histogram = HistogramMetricFamily(name, what, labels=labels)
            for values, spread in list(spreads.items()):
                histogram.add_metric(values, spread.buckets(), spread.sum)
            return histogram
        case Counter(labels=labels, values=values):
            counter = CounterMetricFamily(name, what, labels=labels)
            for each, value in list(values.items()):
                counter.add_metric(each, value)
            return counter
        case Gauge(labels=labels, values=values):
            gauge = GaugeMetricFamily(name, what, labels=labels)
            for each, value in list(values.items()):
                gauge.add_metric(each, value)
            return gauge
