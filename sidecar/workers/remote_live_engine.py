"""Remote live engine: sessions on other services.

For `live.sessions.engine_relay` this is an engine that many sessions share (`engine_slot.LIVE`). If
the service of a session disappears, its call ends as if a worker process had died, and the next
call goes to another service.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter, running
from sidecar.config.remote_server import host_of
from sidecar.interfaces.engine_interface import EngineSpec, UpstreamOptions
from sidecar.interfaces.live_events import LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.upstream import openai_http, upstream_dialect
from sidecar.upstream.load_balancer import ChunkAttempts, EngineAddress, UpstreamBalancer
from sidecar.upstream.remote_live_messages import PROTOCOL_VERSION, RemoteSessionRequest
from sidecar.upstream.upstream_dialect import ChunkFailure, FailureStep
from sidecar.workers import channel
from sidecar.workers.engine_slot import EngineState
from sidecar.workers.remote_live_call import RemoteTransport, open_remote_session
from sidecar.workers.rpc_client import RpcCall
from sidecar.workers.worker_process import EngineHandedOver, WorkerDied

log = logging.getLogger(__name__)

DNS_CACHE_S = 2.0
"""Seconds for which resolved addresses are used again."""
RESUME_WAIT_S = 30.0
"""A session waits this long for a service to resume it; its audio is kept meanwhile."""
FULL_COOLDOWN_S, SHUTDOWN_COOLDOWN_S = 1.0, 1.0
"""Cooldown of a service that is full, and of one that shuts down."""
RETRY_INTERVAL_S = 0.5
"""Interval at which a waiting session looks for a free engine."""


class RemoteEngineSlot:
    """Slot for the live engines of all upstreams: owns the connections to them."""

    def __init__(self, spec: EngineSpec, upstreams: UpstreamOptions) -> None:
        self.spec = spec
        self._upstreams = upstreams
        self._keys = upstreams.keys or ("",) * len(upstreams.urls)
        self._addresses: UpstreamBalancer[EngineAddress] = UpstreamBalancer(
            random.random, shuffled=True
        )
        self._last_error: errors.SidecarError = errors.UpstreamUnreachable()
        """Latest reason why no engine was available."""
        self._looked_up = -DNS_CACHE_S
        self._lookup_lock = asyncio.Lock()
        self._dns_threads = ThreadLimiter("names", 2)
        self._background = BackgroundTaskGroup()
        self._context: ssl.SSLContext | None = None
        self._reached = self._closed = False

    @property
    def state(self) -> EngineState:
        """Return the state: absent until a service has accepted a session, or if none does."""
        if self._addresses.running:
            return EngineState.BUSY
        return EngineState.READY if self._reached else EngineState.ABSENT

    @property
    def loaded(self) -> bool:
        """Return True: a load of a remote engine is not known here."""
        return True

    def last_load(self, now: float) -> tuple[float, float]:
        """Return an empty load, as nothing is loaded here."""
        return now, now

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[RemoteEngineSlot]:
        """Yield a lease at once: each session waits for its engine by itself.

        Raises:
            errors.ShuttingDown: the slot is closed.
        """
        if self._closed:
            raise errors.ShuttingDown()
        yield self

    @asynccontextmanager
    async def calling(self, operation: str, **arguments: Any) -> AsyncIterator[RpcCall]:
        """Open a session on a service with capacity; leaving early ends it there.

        Raises:
            WorkerDied: the service of the session is gone.
            errors.SidecarError: no service accepts it, or the session itself is invalid.
        """
        assert operation == "live"
        options = LiveOptions.from_wire(arguments["options"])
        lease = RemoteSessionRequest(
            PROTOCOL_VERSION, options, LiveSessionStart.from_wire(arguments["begin"])
        )
        address, transport = await self._place(lease)
        try:
            async with running(transport.listen()):
                yield transport.call
        except channel.ChannelClosed as lost:
            if transport.handed_over:
                raise EngineHandedOver(str(lost)) from None
            raise WorkerDied(str(lost)) from None
        finally:
            self._release(address, transport)

    async def close(self) -> None:
        """Open no more sessions, and wait for the connections that are closing."""
        self._closed = True
        await self._background.close()

    def _release(self, address: EngineAddress, transport: RemoteTransport) -> None:
        if transport.failure is not None:
            self._record_failure(address, transport.failure)
        elif transport.handed_over:
            self._addresses.failed(address, time.monotonic(), SHUTDOWN_COOLDOWN_S)
        self._addresses.left(address)
        self._background.spawn("leave a live place", transport.leave())

    async def _place(self, lease: RemoteSessionRequest) -> tuple[EngineAddress, RemoteTransport]:
        """Open a session on the next free service; return its address and transport."""
        begin, now = lease.begin, time.monotonic()
        goes_on = bool(begin.at or begin.turn or begin.piece)  # a session that resumes
        search: ChunkAttempts[EngineAddress] = ChunkAttempts(
            now, now + RESUME_WAIT_S, reached=goes_on
        )
        while True:
            address = await self._next_candidate(search)
            search.asked.add(address)
            transport = None
            try:
                transport = await self._ask(address, lease)
            except ChunkFailure as found:
                search.last = self._record_failure(address, found)
                if found.step is FailureStep.ELSEWHERE or isinstance(
                    found.error, errors.UpstreamRefused
                ):
                    search.refused.add(address)
            finally:
                self._addresses.answered(address)
                if transport is None:
                    self._addresses.left(address)
            if transport is not None:
                self._addresses.well(address)
                self._reached = True
                return address, transport

    async def _ask(self, address: EngineAddress, lease: RemoteSessionRequest) -> RemoteTransport:
        url, key = self._upstreams.urls[address.server], self._keys[address.server]
        return await open_remote_session(
            url, address.host, key, await self._ssl_context(url), lease
        )

    async def _next_candidate(self, search: ChunkAttempts[EngineAddress]) -> EngineAddress:
        """Return the address to try next, once one may have capacity.

        Raises:
            errors.SidecarError: no address is worth waiting for; says why.
        """
        while True:
            await self._look_up()
            now = time.monotonic()
            address, wait_s = self._addresses.choose(now, search)
            if address is not None:
                return address
            if wait_s is None:
                if self._addresses.is_full(now, search.refused):
                    raise errors.LiveFull()
                self._reached = False
                raise search.last or self._last_error
            await asyncio.sleep(min(wait_s, RETRY_INTERVAL_S))

    def _record_failure(self, address: EngineAddress, found: ChunkFailure) -> errors.SidecarError:
        """Record a failure of an address; return its error with the server's name."""
        now = time.monotonic()
        name = host_of(self._upstreams.urls[address.server])
        log.info("remote live engine %s (%s) failed: %s", name, address.host, found.error.code)
        if isinstance(found.error, errors.LiveFull):
            self._addresses.full(address, now, FULL_COOLDOWN_S)
        elif found.step is FailureStep.LATER:
            self._addresses.failed(address, now, SHUTDOWN_COOLDOWN_S)
        elif found.step is not FailureStep.ELSEWHERE:
            self._addresses.failed(address, now)
        error = upstream_dialect.with_server_name(found.error, name)
        if found.step is not FailureStep.ELSEWHERE:
            self._last_error = error
        return error

    async def _look_up(self) -> None:
        """Resolve the names of all upstreams. If a name does not resolve, its old addresses stay.
        During a lookup other callers use the known addresses."""
        if self._reached and self._lookup_lock.locked():
            return
        async with self._lookup_lock:
            if time.monotonic() - self._looked_up < DNS_CACHE_S:
                return
            for server, url in enumerate(self._upstreams.urls):
                if hosts := await self._dns_threads.run(_resolve_hosts, server, url):
                    self._addresses.found(server, hosts)
            self._looked_up = time.monotonic()

    async def _ssl_context(self, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        if self._context is None:
            self._context = await asyncio.to_thread(openai_http.trusted, self._upstreams.ca)
        return self._context


def _resolve_hosts(server: int, url: str) -> dict[EngineAddress, int]:
    """Return all addresses of the name in ``url``, with rank 0 for the family that the system would
    try first; none if it does not resolve."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return {}
    families = list(dict.fromkeys(family for family, *_ in found))
    return {
        EngineAddress(server, str(where[0])): families.index(family) for family, *_, where in found
    }
