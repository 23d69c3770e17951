"""The same by the names of the server whose dashboards read them (docs/operations.md). Pure.

Everything there is a gauge `stt_<name>`; what is a map there has a gauge for each of its keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.observability.counts import Gauge, Histogram
from sidecar.observability.tally import Tally

PREFIX = "stt_"
WELL = "OK"
HELP = {
    "active_sessions": "Live sessions that go on.",
    "active_sessions_by_api": "The same by owner.",
    "active_vad_utterances": "Utterances that go on.",
    "decode_buffer_wait": "Seconds that sound had to wait to be taken",
    "decode_cancelled": "Utterances their clients did not want.",
    "decode_latency": "Seconds that an engine took for a stretch of speech",
    "decode_orphaned": "Utterances whose sessions ended before they were told.",
    "decode_queue_wait": "Seconds that speech lay before an engine had time for it",
    "decode_response_emit": "Seconds that clients took to read a final",
    "error_counts": "Calls over gRPC that ended with this status.",
    "rtf": "Work for a second of speech",
    "vad_triggers_total": "Utterances that began.",
}
_SUMS = {"total": "sum", "count": "number", "max": "largest"}


def nested(
    tally: Tally, sessions: int, by_owner: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """As JSON; ``by_owner``: None where it is not to be told."""
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
        found |= _three(name, histogram)
    if by_owner is not None:
        found["active_sessions_by_api"] = dict(by_owner)
    return dict(sorted(found.items()))


def gauges(values: Mapping[str, Any]) -> list[Gauge]:
    """The same as gauges, by name."""
    flat: dict[str, float] = defaultdict(float)  # of two owners the names may be the same by then
    for name, value in values.items():
        for key, number in _flat(name, value):
            flat[key] += number
    return [Gauge(PREFIX + name, _help(name), {(): flat[name]}) for name in sorted(flat)]


def _errors(tally: Tally) -> dict[str, int]:
    by_status = tally.wires.calls.by("status")
    return {name: int(many) for name, many in sorted(by_status.items()) if name != WELL}


def _three(name: str, histogram: Histogram) -> dict[str, float]:
    seen = histogram.only
    return {
        f"{name}_total": seen.sum,
        f"{name}_count": seen.count,
        f"{name}_max": seen.largest,
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}_{key}", each)
    else:
        yield re.sub(r"[^a-zA-Z0-9_]", "_", name), value


def _help(name: str) -> str:
    if name in HELP:
        return HELP[name]
    begin, _, end = name.rpartition("_")
    if begin in HELP and end in _SUMS:
        return f"{HELP[begin]}: {_SUMS[end]}."
    return next((text for known, text in HELP.items() if name.startswith(f"{known}_")), name)


def health(tally: Tally, sessions: int, waiting: int, pids: int, crashes: int) -> dict[str, Any]:
    """What is in `/health` there beside ``status``; ``pids``: processes of engines that live."""
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
