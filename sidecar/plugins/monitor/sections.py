"""Sections of `monitor`, made of a snapshot of a service. Pure, except for the fetch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.cli.backends import ServiceTarget
from sidecar.openai_http import authorization, loads

if TYPE_CHECKING:
    import httpx


JOBS = 10
"""Maximum of running and queued jobs that are shown."""
Answer = Mapping[str, Any]
NOTHING: Answer = {}
Rows: TypeAlias = list[tuple[str, str]]
ENDED_WELL = frozenset({"done", "left", "OK"})
"""Outcomes of live sessions and statuses of gRPC without an error."""
GB, MB = 1 << 30, 1 << 20
BAR = 10
"""Characters of a bar."""
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class MonitorSnapshot:
    """Responses at one time; ``at``: seconds of a monotonic clock. A failed response is empty, and
    ``failures`` has its reason by its name."""

    address: str = ""
    at: float = 0.0
    health: Answer = field(default_factory=dict)
    metrics: Answer = field(default_factory=dict)
    system: Answer = field(default_factory=dict)
    jobs: Answer = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Return whether a service answers."""
        return bool(self.health or self.metrics or self.system)


class MonitorClient:
    """Client of one service; ``addresses``: URL of each response, by its name in
    `MonitorSnapshot`. The token goes to no other server."""

    def __init__(
        self, http: httpx.AsyncClient, base: str, token: str | None, addresses: Mapping[str, str]
    ) -> None:
        self._http, self._base, self._token, self._addresses = http, base, token, addresses

    async def fetch_snapshot(self) -> MonitorSnapshot:
        """Return the current responses; never raise because of the service."""
        bodies = await asyncio.gather(*map(self._ask, self._addresses.values()))
        answers = dict(zip(self._addresses, bodies, strict=True))
        return MonitorSnapshot(
            address=self._base,
            at=time.monotonic(),
            failures={name: body for name, body in answers.items() if isinstance(body, str)},
            **{name: body for name, body in answers.items() if not isinstance(body, str)},
        )

    async def _ask(self, url: str) -> Answer | str:
        """Return the JSON object at a URL, or the reason of the failure."""
        import httpx

        token = self._token if url.startswith(f"{self._base}/") else None
        try:
            answer = await self._http.get(url, headers=authorization(token or ""))
        except httpx.TimeoutException:
            return "no answer in time"
        except httpx.HTTPError as error:
            return f"no answer ({type(error).__name__})"
        body = loads(answer.content)
        if not isinstance(body, dict):
            return f"no JSON ({answer.status_code})"
        unhealthy = body.get("status") in ("error", "unavailable")  # but it answers
        if answer.is_success or unhealthy:
            return body
        return str(body.get("code") or answer.status_code)


@asynccontextmanager
async def create_monitor_client(
    target: ServiceTarget, metrics_url: str | None, system_url: str | None, timeout_s: float
) -> AsyncGenerator[MonitorClient, None]:
    """Yield a client for the service of ``target``; metrics and system may have other URLs.

    Raises:
        errors.SidecarError: an address is invalid, or its certificate is not trusted.
    """
    import httpx

    from sidecar.cli.remote_service import translate_client_errors, warn_of_insecure_trust

    base = (target.server or "").rstrip("/")
    addresses = {
        "health": f"{base}/health",
        "metrics": metrics_url or f"{base}/metrics.json",
        "system": system_url or f"{base}/system",
        "jobs": f"{base}/v1/jobs?state=running,queued&limit={JOBS}",
    }
    for address in addresses.values():
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.FieldInvalid(
                f"'{address}' is not an address.",
                hint="Use an address that begins with http:// or https://.",
            )
    context = None
    warn_of_insecure_trust(target.trust)
    if target.trust.given:
        with translate_client_errors():
            context = await asyncio.to_thread(target.trust.context, base)
    verify = context or True
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=verify) as http:
        yield MonitorClient(http, base, target.token, addresses)


@dataclass(frozen=True, slots=True)
class MonitorSection:
    """Title and rows of a section. ``warns``: whether it needs attention."""

    title: str
    rows: Rows = field(default_factory=list)
    warns: bool = False


def sections(
    snapshot: MonitorSnapshot, earlier_snapshot: MonitorSnapshot | None = None
) -> list[MonitorSection]:
    """Return all sections with rows; ``earlier_snapshot`` is for rates per second."""
    shown = [_service(snapshot)]
    own = snapshot.metrics.get("vibevoice")
    if isinstance(own, dict):
        own_before, passed_s = NOTHING, 0.0
        if earlier_snapshot is not None:
            own_before = earlier_snapshot.metrics.get("vibevoice", NOTHING)
            passed_s = snapshot.at - earlier_snapshot.at
        shown += [
            _live(_part(own, "live"), _part(own_before, "live"), passed_s),
            _queue(_part(own, "jobs"), _part(own_before, "jobs"), passed_s),
            *(_engine(one) for one in own.get("engines", ()) if isinstance(one, dict)),
        ]
    elif snapshot.metrics:
        shown.append(_decoding(snapshot.metrics))
    shown.append(_memory(snapshot))
    error_rows = _errors(snapshot)
    new_errors = earlier_snapshot is not None and error_rows != _errors(earlier_snapshot)
    shown.append(MonitorSection("errors", error_rows, new_errors))
    if snapshot.jobs.get("jobs"):
        shown.append(MonitorSection("jobs", [_job(one) for one in snapshot.jobs["jobs"]]))
    return [section for section in shown if section.rows]


def table(sections: Sequence[MonitorSection]) -> str:
    """Return all sections in plain columns: section, name, value; a line each."""
    lines = [(one.title, name, value) for one in sections for name, value in one.rows]
    if not lines:
        return ""
    first, second = (max(len(line[column]) for line in lines) for column in (0, 1))
    return "".join(f"{a:<{first}}  {b:<{second}}  {c}\n" for a, b, c in lines)


def _service(snapshot: MonitorSnapshot) -> MonitorSection:
    health, service = snapshot.health, _part(_part(snapshot.metrics, "vibevoice"), "service")
    state = str(health.get("status") or ("ok" if snapshot.answers else "no answer"))
    trouble = service.get("trouble") or service.get("stopping") or not snapshot.answers
    rows = [("address", snapshot.address), ("state", state)]
    for name in ("version", "engine", "precision", "engine_state", "live_engine_state"):
        if health.get(name) is not None:
            rows.append((name.replace("_", " "), str(health[name])))
    if "ready" in service:
        rows.append(("ready", "yes" if service["ready"] else "no"))
    if service.get("trouble"):
        rows.append(("trouble", str(service["trouble"])))
    rows += [(f"/{name}", why) for name, why in snapshot.failures.items()]
    return MonitorSection("service", rows, bool(trouble or health.get("status") == "error"))


def _live(live: Answer, before: Answer, passed: float) -> MonitorSection:
    wires = _counts(live.get("by_wire"))
    rows = [("sessions", _of(live.get("sessions"), live.get("limit")))]
    rows += [(f"by {wire}", f"{count:g}") for wire, count in wires]
    rows += [
        *((name, _number(live.get(name))) for name in ("speaking", "utterances", "finals")),
        ("sound in a second", _rate(live, before, passed)),
        ("sound that waits", _bytes(live.get("sound_bytes"))),
        ("rtf", _spread(live.get("realtime_ratio"))),
        ("decoding s", _spread(live.get("decode_seconds"))),
        ("waiting s", _spread(live.get("queue_wait_seconds"))),
    ]
    full = bool(live.get("limit")) and live.get("sessions", 0) >= live["limit"]
    return MonitorSection("live", rows, full)


def _queue(jobs: Answer, before: Answer, passed: float) -> MonitorSection:
    rows = [("waiting", _of(jobs.get("waiting"), jobs.get("limit")))]
    rows += [(name, _number(jobs.get(name))) for name in ("running", "done", "failed", "cancelled")]
    rows += [
        ("sound in a second", _rate(jobs, before, passed)),
        ("rtf", _spread(jobs.get("realtime_ratio"))),
        ("waiting s", _spread(jobs.get("wait_seconds"))),
    ]
    full = bool(jobs.get("limit")) and jobs.get("waiting", 0) >= jobs["limit"]
    return MonitorSection("queue", rows, full)


def _engine(engine: Answer) -> MonitorSection:
    loading = engine.get("load_percent")
    state = f"{engine.get('state')}{f' {loading}%' if loading is not None else ''}"
    planned = _bytes(engine.get("reserved_bytes"))
    return MonitorSection(
        f"engine {engine.get('role', '')}".strip(),
        [
            ("engine", f"{engine.get('engine')} {engine.get('precision')}"),
            ("state", state),
            ("memory planned", f"{planned} on the {'GPU' if engine.get('on_gpu') else 'host'}"),
            ("memory resident", _bytes(engine.get("resident_bytes"))),
            ("loads", f"{_number(engine.get('loads'))}, {engine.get('load_seconds') or 0:.1f} s"),
            ("crashes", _number(engine.get("crashes"))),
        ],
        bool(engine.get("crashes")),
    )


def _decoding(metrics: Answer) -> MonitorSection:
    """Return the metrics of another server, which lacks the metrics of this service."""
    rows = [
        (name.replace("_", " "), _number(value) if float(value).is_integer() else f"{value:.3f}")
        for name, value in metrics.items()
        if isinstance(value, int | float)
    ]
    return MonitorSection("decoding", rows)


def _memory(snapshot: MonitorSnapshot) -> MonitorSection:
    rows: Rows = []
    own = _part(snapshot.metrics, "vibevoice")
    here = [one for one in own.get("engines", ()) if one.get("on_gpu")]
    planned = sum(one.get("reserved_bytes") or 0 for one in here)
    tight = False
    for gpu in snapshot.system.get("gpus") or ():
        used = (gpu.get("memory_used_mib") or 0) * MB
        total = (gpu.get("memory_total_mib") or 0) * MB
        name = f"GPU {gpu.get('index', 0)}"
        rows += [(name, str(gpu.get("name"))), (f"{name} used", _bar(used, total))]
        rows.append((f"{name} planned", _bar(planned, total)))
        tight = tight or planned > total > 0
        for what, unit in (("utilization_gpu", "%"), ("temperature_gpu", " °C")):
            if gpu.get(what) is not None:
                rows.append((f"{name} {what.partition('_')[0]}", f"{gpu[what]}{unit}"))
    host, process = _part(snapshot.system, "system"), _part(snapshot.system, "process")
    if host.get("memory_total_bytes"):
        total = host["memory_total_bytes"]
        used = total - (host.get("memory_available_bytes") or 0)
        rows.append(("host used", _bar(used, total)))
        tight = tight or used > 0.95 * total
    if process:
        rows.append(("service resident", _bytes(process.get("rss_bytes"))))
        rows.append(("service cpu", f"{process.get('cpu_percent', 0):.0f}%"))
    if snapshot.system.get("load_avg"):
        load = " ".join(f"{one:.2f}" for one in snapshot.system["load_avg"])
        rows.append(("load", f"{load} on {snapshot.system.get('cpu_count')}"))
    return MonitorSection("machine", rows, tight)


def _errors(snapshot: MonitorSnapshot) -> Rows:
    """Return all errors since the service started."""
    own = _part(snapshot.metrics, "vibevoice")
    live, http, grpc = (_part(own, name) for name in ("live", "http", "grpc"))
    counts_by_kind = {
        "job": _part(own, "jobs").get("failed_by_code"),
        "live refused": live.get("refused_by_code"),
        "live ended": live.get("ended_by_reason"),
        "http": http.get("by_status"),
        "grpc": grpc.get("by_status"),
    }
    if not own:
        counts_by_kind["grpc"] = snapshot.metrics.get("error_counts")
    return [
        (f"{kind} {name}", f"{count:g}")
        for kind, counts in counts_by_kind.items()
        for name, count in _counts(counts)
        if name not in ENDED_WELL and not (kind == "http" and name[:1] not in "45")
    ]


def _job(job: Answer) -> tuple[str, str]:
    progress = _part(job, "progress").get("fraction")
    left_s = job.get("estimated_remaining_seconds")
    parts = [
        str(job.get("state")),
        f"{100 * progress:.0f}%" if progress and job.get("state") == "running" else "",
        f"about {left_s:.0f} s left" if left_s else "",
        f"{job['duration']:.0f} s" if job.get("duration") else "",
        f"place {job['position']}" if job.get("position") is not None else "",
    ]
    return str(job.get("id", ""))[:8], ", ".join(part for part in parts if part)


def _part(answer: Answer, name: str) -> Answer:
    value = answer.get(name)
    return value if isinstance(value, dict) else NOTHING


def _counts(value: object) -> list[tuple[str, float]]:
    """Return the counts above 0, the most frequent first."""
    given = value.items() if isinstance(value, Mapping) else ()
    counts = [(str(name), count) for name, count in given if isinstance(count, int | float)]
    return sorted((one for one in counts if one[1]), key=lambda one: (-one[1], one[0]))


def _number(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:g}" if value < 1e6 else f"{value:.0f}"


def _of(value: Any, limit: Any) -> str:
    return f"{_number(value)} of {_number(limit)}" if limit else _number(value)


def _spread(value: object) -> str:
    """Return the mean and the maximum; unknown if nothing was counted."""
    if not isinstance(value, Mapping) or not value.get("count"):
        return UNKNOWN
    return f"{value['mean']:.3f} (most {value['max']:.3f})"


def _rate(now: Answer, before: Answer, passed: float) -> str:
    """Return the seconds of audio per second; unknown if the service restarted meanwhile."""
    came, had = now.get("audio_seconds"), before.get("audio_seconds")
    if came is None or had is None or passed <= 0 or came < had:
        return UNKNOWN
    return f"{(came - had) / passed:.2f} s"


def _bytes(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return f"{value / GB:.2f} GB" if value >= GB else f"{value / MB:.0f} MB"


def _bar(used: float, total: float) -> str:
    if not total:
        return _bytes(used)
    filled = min(BAR, round(BAR * used / total))
    return f"{'█' * filled}{'░' * (BAR - filled)} {_bytes(used)} of {_bytes(total)}"
