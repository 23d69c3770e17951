"""Numbers that only grow, by labels of which there are few, and how values are spread. Pure.

Kept by one thread: the event loop's. `prometheus_client` writes them down (`exposition`); counting
by it would take a lock each time, and its import at every start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

Labels = tuple[str, ...]
MOST = 500
"""Combinations of labels of one number. All that is counted has fewer; this is for mistakes."""
OTHER = "(other)"
"""What the labels are of all that come after those."""


class Counter:
    """How often something happened, or how much of it there was, by ``labels``."""

    def __init__(self, name: str, what: str, labels: Sequence[str] = (), most: int = MOST) -> None:
        self.name, self.what, self.labels = name, what, tuple(labels)
        self._most = most
        self.values: dict[Labels, float] = {} if self.labels else {(): 0}

    def add(self, *labels: str, by: float = 1) -> None:
        """Once more, or ``by`` so much."""
        labels = _bounded(self.values, labels, self._most)
        self.values[labels] = self.values.get(labels, 0) + by

    def of(self, *labels: str) -> float:
        """How much it is with these labels."""
        return self.values.get(labels, 0)

    @property
    def total(self) -> float:
        """Over all labels."""
        return sum(self.values.values())

    def by(self, label: str) -> dict[str, float]:
        """Sums by one of the labels."""
        place, sums = self.labels.index(label), dict[str, float]()
        for labels, value in self.values.items():
            sums[labels[place]] = sums.get(labels[place], 0) + value
        return sums


class Spread:
    """What values of one kind were seen: how many up to each bound, their sum, the largest."""

    __slots__ = ("_bounds", "_buckets", "count", "largest", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self.count, self.sum, self.largest = 0, 0.0, 0.0

    def see(self, value: float) -> None:
        """One more."""
        self._buckets[bisect_left(self._bounds, value)] += 1
        self.count += 1
        self.sum += value
        self.largest = max(self.largest, value)

    @property
    def mean(self) -> float:
        """0 where none was seen."""
        return self.sum / self.count if self.count else 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """How many there were up to each bound, the last of which is '+Inf'."""
        found, so_far = [], 0
        for bound, many in zip((*map(str, self._bounds), "+Inf"), self._buckets, strict=True):
            so_far += many
            found.append((bound, float(so_far)))
        return found


class Histogram:
    """Spreads by ``labels``; ``bounds`` in the unit that the name says."""

    def __init__(
        self,
        name: str,
        what: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        most: int = MOST,
    ) -> None:
        self.name, self.what, self.labels = name, what, tuple(labels)
        self._bounds, self._most = tuple(map(float, bounds)), most
        self.spreads: dict[Labels, Spread] = {} if self.labels else {(): Spread(self._bounds)}

    def see(self, value: float, *labels: str) -> None:
        """One more."""
        labels = _bounded(self.spreads, labels, self._most)
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Spread(self._bounds)
        spread.see(value)

    @property
    def only(self) -> Spread:
        """That of a histogram without labels."""
        return self.spreads[()]


class Gauge:
    """What something is at the moment, by ``labels``."""

    def __init__(
        self, name: str, what: str, values: Mapping[Labels, float], labels: Sequence[str] = ()
    ) -> None:
        self.name, self.what, self.labels, self.values = name, what, tuple(labels), values


Measured = Counter | Histogram | Gauge


def _bounded(known: Mapping[Labels, object], labels: Labels, most: int) -> Labels:
    if labels in known or len(known) < most:
        return labels
    return (OTHER,) * len(labels)
