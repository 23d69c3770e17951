"""Target of a load test: the service, its protocols, its share of a core."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from vibevoice_asr_load_test import LoadTestInvalid

if TYPE_CHECKING:
    import psutil

    from vibevoice_asr_client import Trust


LOOPBACK = ("localhost", "127.0.0.1", "::1")
READY_S = 10.0
"""Seconds that a client of yap's protocol waits until its session is ready."""
ANSWER_TIMEOUT_S = 60.0
"""Time for the end of a session after all audio was sent."""


class CpuUse(NamedTuple):
    """Cores that were used, as 0.5 for half of one."""

    service: float
    engines: float
    others: float
    """By all other programs of this machine but this one."""


class CpuShare:
    """Share of a core that a service's process and its children have used since this was created.

    ``process``: `None` for a service on another machine.
    """

    def __init__(self, process: psutil.Process | None) -> None:
        self._process = process
        self._begun = time.monotonic()
        self._before = self._taken()

    def so_far(self) -> CpuUse | None:
        """Return the shares of the service, of its engines and of other programs; `None` if they
        are unknown.

        Children that have ended meanwhile count as other programs.
        """
        after, lasted = self._taken(), time.monotonic() - self._begun
        if after is None or self._before is None or not lasted:
            return None
        pairs = zip(after, self._before, strict=True)
        return CpuUse(*(max(0.0, now - before) / lasted for now, before in pairs))

    def _taken(self) -> CpuUse | None:
        import psutil

        if self._process is None:
            return None
        try:
            own = sum(self._process.cpu_times()[:2])
            below = self._process.children(recursive=True)
        except psutil.Error:
            return None
        engines = 0.0
        for child in below:
            with contextlib.suppress(psutil.Error):
                engines += sum(child.cpu_times()[:2])
        machine = psutil.cpu_times()
        busy = machine.user + machine.system  # Linux has guests in `user`; macOS has neither
        busy += getattr(machine, "nice", 0.0)
        return CpuUse(own, engines, busy - own - engines - time.process_time())


def process_of(url: str, pid: object) -> psutil.Process | None:
    """Return the process that serves at ``url``, if it is on this machine; ``pid``: as the service
    reports it.

    The pid counts only if that process listens there: the pids of a container are its own.
    """
    import psutil

    parts = urlsplit(url)
    if not isinstance(pid, int) or parts.hostname not in LOOPBACK or not parts.port:
        return None
    try:
        process = psutil.Process(pid)
        listens = any(
            one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == parts.port
            for one in process.net_connections(kind="tcp")
        )
        return process if listens else None
    except psutil.Error:
        return None


GRPC = "grpc"
ENCRYPTED = "grpcs"


class LoadTestLiveWire(StrEnum):
    """Protocol for live audio."""

    LIVE = "live"
    """`/v1/live`."""
    STREAMING = "streaming"
    """`/api/asr-streaming`, of yap servers."""
    GRPC = GRPC
    """The gRPC package `stt`."""


class LoadTestFileWire(StrEnum):
    """Protocol for recordings."""

    TRANSCRIBE = "transcribe"
    """`POST /transcribe`, which waits for the result."""
    JOBS = "jobs"
    """`/v1/jobs`, followed by its events."""
    OPENAI = "openai"
    """`POST /v1/audio/transcriptions`."""


@dataclass(frozen=True, slots=True)
class LoadTestTarget:
    """Service under test. ``target``: host and port of its gRPC, "" if it has none. ``messages``:
    generated module of the gRPC package `stt`. ``ready_s``, ``answer_s``: as `READY_S` and
    `ANSWER_TIMEOUT_S`."""

    name: str
    wire: LoadTestLiveWire | LoadTestFileWire
    url: str
    token: str | None = None
    trust: Trust | None = None
    target: str = ""
    process: psutil.Process | None = None
    messages: Any = None
    ready_s: float = READY_S
    answer_s: float = ANSWER_TIMEOUT_S

    @property
    def encrypted(self) -> bool:
        """Return whether the connection is encrypted."""
        return urlsplit(self.url).scheme in ("https", ENCRYPTED)


async def describe_target(
    url: str, token: str | None, trust: Trust | None, wire: LoadTestLiveWire | LoadTestFileWire
) -> LoadTestTarget:
    """Return the service at ``url`` as it describes itself; a foreign server may not do that.

    Raises:
        vibevoice_asr_client.ClientError: nothing answers there.
        LoadTestInvalid: it lacks the requested gRPC.
    """
    from vibevoice_asr_client import AnswerNotUnderstood, AsyncClient, ServiceError

    parts = urlsplit(url)
    if parts.scheme in (GRPC, ENCRYPTED):
        if wire is not LoadTestLiveWire.GRPC:
            raise LoadTestInvalid(f"The address {url} is for gRPC only.", hint="Add --wire grpc.")
        return LoadTestTarget(f"{wire} {url}", wire, url, token, trust, target=parts.netloc)
    async with AsyncClient(url, token, trust=trust) as client:
        url = client.url
        try:
            health = await client.health()
        except (ServiceError, AnswerNotUnderstood):
            health = {}
    target = ""
    if wire is LoadTestLiveWire.GRPC:
        if not health.get("grpc_port"):
            raise LoadTestInvalid(
                f"The service at {url} has no gRPC.",
                hint="Start it with --grpc-port, or give an address such as grpc://localhost:50051.",
            )
        host = urlsplit(url).hostname or ""
        target = (
            f"[{host}]:{health['grpc_port']}" if ":" in host else f"{host}:{health['grpc_port']}"
        )
    process = process_of(url, health.get("pid"))
    return LoadTestTarget(f"{wire} {url}", wire, url, token, trust, target, process)
