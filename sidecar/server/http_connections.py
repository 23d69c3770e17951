"""Accepted connections of HTTP: counted by address until they are closed, TLS handshakes limited.

uvicorn learns of a connection once its TLS handshake is complete. Until then it would be neither
counted nor ended within a minute, and it costs 300 KB. So connections are accepted here.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sidecar.accepted_sockets import ACCEPT_RETRY_S, accept_all
from sidecar.auth.identity import AuthMethod, Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore, RateLimit, TokenBuckets, rate_limit_key
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.server_settings import is_loopback_address
from sidecar.server.listeners import BACKLOG

MAX_CONNECTIONS_PER_ADDRESS = 10_000
"""Maximum for one address, which may be a proxy with all its clients."""
TLS_HANDSHAKE_S = 10.0
"""Time for a client to complete a TLS handshake: two round trips."""
NEW_CONNECTIONS = RateLimit(200, 1.0)
"""New connections of one address that are served at once (2 ms each); further ones wait. Addresses
that stand for many users have no such limit: the loopback and trusted proxies."""
STARTS_AT_ONCE = 4
"""Connections that are handed to their protocols in one turn of the event loop, one of each address
after the other: nobody waits behind the hundreds that one address opens."""


async def _no_app(*_: Any) -> None:
    """Do nothing: uvicorn's middleware is only asked which proxies are trusted."""


class CountingServer(uvicorn.Server):
    """uvicorn server with at most ``most`` open connections of one address, WebSockets included.
    It serves ``rate_limit`` new ones of an address at once; further ones wait.

    ``accept_retry_s``: pause if the system cannot accept a connection. ``tls_handshake_s``: time
    for a client to complete a TLS handshake.

    A connection counts from the moment it is accepted until its socket is closed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        most: int = MAX_CONNECTIONS_PER_ADDRESS,
        rate_limit: RateLimit = NEW_CONNECTIONS,
        accept_retry_s: float = ACCEPT_RETRY_S,
        tls_handshake_s: float = TLS_HANDSHAKE_S,
    ) -> None:
        super().__init__(config)
        self._accept_retry_s, self._tls_handshake_s = accept_retry_s, tls_handshake_s
        self._most, self._open = most, Counter[str]()
        self._new_connections = TokenBuckets(rate_limit)
        self._starting = FairOwnerSemaphore(STARTS_AT_ONCE)
        self._proxies = ProxyHeadersMiddleware(_no_app, config.forwarded_allow_ips).trusted_hosts
        self._accepting = BackgroundTaskGroup()
        self.broken = False
        """True if an internal error stopped it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve on ``sockets``."""
        await super().startup([])  # uvicorn itself listens on none
        for listener in sockets or ():
            listener.listen(BACKLOG)
            self._accepting.spawn("accept", self._accept(listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, then end all connections."""
        await self._accepting.close()
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        """Serve connections; the service stops once there can be no more."""
        await accept_all(listener, self._count, self._accept_retry_s)
        self._break()

    def _break(self) -> None:
        self.broken = True
        self.should_exit = True

    def _count(self, sock: socket.socket, host: str) -> None:
        """Count a new connection, and serve it unless its address has too many."""
        now, key = asyncio.get_running_loop().time(), rate_limit_key(host)
        if self._open[key] >= self._most:
            sock.close()
            return
        self._open[key] += 1
        counted = _CountedSocket(sock, partial(self._closed, key))
        wait_s = 0.0
        if not (is_loopback_address(host) or host in self._proxies):
            wait_s = self._new_connections.wait(key, now)
            self._new_connections.charge(key, now, 1.0)
        identity = Identity(key, AuthMethod.PLACE)
        self._accepting.spawn("connect", self._connect(counted, identity, wait_s))

    async def _connect(self, sock: socket.socket, identity: Identity, wait_s: float) -> None:
        """Hand a connection over to its protocol after a while and in its turn, once its TLS
        handshake is complete."""
        config, loop = self.config, asyncio.get_running_loop()

        def protocol() -> asyncio.BaseProtocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        handshake_s = self._tls_handshake_s if config.ssl else None
        try:
            await asyncio.sleep(wait_s)
            async with self._starting.held(identity):
                await asyncio.sleep(0)
            await loop.connect_accepted_socket(
                protocol, sock, ssl=config.ssl, ssl_handshake_timeout=handshake_s
            )
        except OSError:  # the client disconnected, was too slow, or speaks no TLS
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise

    def _closed(self, key: str) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


class _CountedSocket(socket.socket):
    """Socket that calls ``closed`` once it is closed, whatever has become of its connection."""

    def __init__(self, accepted: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(fileno=accepted.detach())
        self._tell_closed: Callable[[], None] | None = closed

    def close(self) -> None:
        """Close the socket."""
        super().close()
        closed, self._tell_closed = self._tell_closed, None
        if closed is not None:
            closed()
