"""HTTP server (uvicorn) until shutdown, and the secondary port."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from sidecar.api.http import uvicorn_protocols, websocket_connections
from sidecar.auth.tls import ServerTls
from sidecar.config.settings import Settings
from sidecar.plugin import ProtocolListener
from sidecar.server import service_process
from sidecar.server.http_connections import MAX_CONNECTIONS_PER_ADDRESS, CountingServer
from sidecar.server.listeners import ProtocolListeners, listen
from sidecar.server.service_process import PARENT_GONE_GRACE_S
from sidecar.server.staged_app import StagedApp
from sidecar.service.facade import Service

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Keep-alive of an idle connection, in seconds: longer than that of clients and proxies (usually a
minute). The client has to close first. If the server closes, a request may be on its way, and its
client does not know whether it was received."""
HSTS = ("Strict-Transport-Security", f"max-age={365 * 86400}")
"""Header of every response over TLS: for a year browsers insist on TLS."""
FINAL_ANSWERS_S = 1
"""Time for the answers to requests whose jobs were ended, in seconds."""
_LOOK_S = 0.1
_SIGHUP = getattr(signal, "SIGHUP", None)
"""The end of a terminal; Windows has none."""


def serve_until_shutdown(
    app: StagedApp,
    service: Service,
    sock: socket.socket,
    ready: Callable[[dict[str, Any]], None],
    tls: ServerTls | None,
    listeners: Sequence[ProtocolListener],
) -> int:
    """Serve ``app`` on ``sock``, and ``listeners`` beside it, until shutdown. Return the exit code:
    1 after a fault that only a restart repairs, which the log has.

    ``ready`` is called once all of them serve, with the fields of the listeners; then ``app`` is
    completed.

    Raises:
        errors.SidecarError: a listener cannot start.
    """
    config = uvicorn_config(app, service.settings, tls)
    server = HttpServer(config, service, ready, ProtocolListeners(listeners), app.complete)
    server.run(sockets=[sock])
    return int(server.broken)


def uvicorn_config(
    app: ASGIApp, settings: Settings, tls: ServerTls | None = None
) -> uvicorn.Config:
    """Return the configuration of uvicorn for any port; with ``tls`` it serves TLS only."""
    return uvicorn.Config(
        app,
        http=uvicorn_protocols.http_protocol(uvicorn_protocols.REQUEST_HEAD_S),
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
        timeout_graceful_shutdown=FINAL_ANSWERS_S + 1,  # `_end_requests` is faster
        timeout_keep_alive=KEEP_ALIVE_S,
        ws=uvicorn_protocols.websocket_protocol(),
        ws_max_size=websocket_connections.MAX_MESSAGE_BYTES,
        ws_ping_interval=websocket_connections.LIVE_PING_S,
        ws_ping_timeout=websocket_connections.LIVE_PING_S,
        ws_per_message_deflate=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        ssl_context_factory=(lambda *_: tls.context) if tls else None,
        # for a self-signed certificate nobody vouches
        headers=[HSTS] if tls is not None and tls.fingerprint is None else None,
    )


def _max_connections_per_address() -> int:
    """Return the maximum connections of one address: at most half of the limit of open files, so
    that one address cannot exhaust it."""
    limit = service_process.fd_limit()
    most = MAX_CONNECTIONS_PER_ADDRESS
    return most if limit is None else min(most, limit // 2)


async def _started() -> None:
    """Do nothing: the application has started."""


class HttpServer(CountingServer):
    """Uvicorn server that reports readiness, lets the running job finish, and stops with its
    host."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        ready: Callable[[dict[str, Any]], None],
        listeners: ProtocolListeners,
        complete: Callable[[], Awaitable[None]],
    ) -> None:
        """``complete`` is called once it serves; if that raises, the server stops, as broken."""
        super().__init__(config, _max_connections_per_address())
        self._listeners, self._complete = listeners, complete
        self._service = service
        self._ready = ready
        self._grace_s = service.settings.shutdown_grace
        self._watches: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, report it, and watch the host. HTTP starts last, so that its first client
        sees all other ports."""
        await self.lifespan.startup()
        if not self.lifespan.should_exit:
            try:
                self._service.also = await self._listeners.start()
            except BaseException:
                await self.lifespan.shutdown()
                raise
        self.lifespan.startup = _started  # uvicorn calls it again
        await super().startup(sockets)  # exits if the application did not start
        self._ready(self._service.also)
        spawn = asyncio.get_running_loop().create_task
        self._watches += spawn(self._completed()), spawn(self._end_with_a_fault())
        settings = self._service.settings
        if (pid := service_process.parent_pid(settings.parent_pid, os.environ)) is not None:
            self._end_after(service_process.wait_for_exit(pid), f"the host, pid {pid}, is gone")
        if settings.exit_with_stdin:
            self._end_after(service_process.wait_for_pipe_close(0), "standard input is closed")

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the end of the terminal as a stop, too, unless it is ignored (`nohup`)."""
        with super().capture_signals():
            if _SIGHUP is not None and signal.getsignal(_SIGHUP) is signal.SIG_DFL:
                signal.signal(_SIGHUP, self.handle_exit)
            service_process.handle_console_events(
                lambda: self.handle_exit(signal.SIGTERM, None),
                lambda: self._end_now("the console is closed"),
            )
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop; a second one, of any kind, stops at once.

        uvicorn raises a signal again after the shutdown. That is right for Ctrl-C: the shell has to
        see it. Other signals are a stop that a host requested, which has exit code 0 on every
        system. The end of a terminal may be several, which are one (SIGHUP after SIGTERM).
        """
        self.force_exit = self.force_exit or (self.should_exit and sig != _SIGHUP)
        if sig == signal.SIGINT:
            super().handle_exit(sig, frame)
        else:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the service, then close all connections.

        New jobs are refused. The running job has its grace period, and its result can be fetched,
        unless a second signal ends that.
        """
        self._listeners.stop_accepting()
        draining = asyncio.ensure_future(self._service.drain(self._grace_s))
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=_LOOK_S)
        draining.cancel()
        await self._listeners.close(0 if self.force_exit else FINAL_ANSWERS_S)
        ending = asyncio.get_running_loop().create_task(self._end_requests())
        await super().shutdown(sockets)
        ending.cancel()
        if self.force_exit:  # uvicorn leaves the application to be cancelled, which logs errors
            await self.lifespan.shutdown()

    async def _end_requests(self) -> None:
        """Cancel requests that are unfinished after `FINAL_ANSWERS_S`. uvicorn would cancel them a
        second later and log an error."""
        await asyncio.sleep(FINAL_ANSWERS_S)
        if requests := list(self.server_state.tasks):
            log.info("shutdown: %d requests still in progress were cancelled", len(requests))
            for request in requests:
                request.cancel()

    async def _completed(self) -> None:
        try:
            await self._complete()
        except Exception:
            log.exception("internal error while the application was imported: the service stops")
            self._grace_s = 0.0  # its clients cannot reach their jobs
            self._break()

    async def _end_with_a_fault(self) -> None:
        await self._service.queue.broken()
        self._break()

    def _end_after(self, end: Awaitable[None], what: str) -> None:
        async def wait() -> None:
            try:
                await end
            except Exception:
                log.exception("internal error in a watch of the host: the service stops")
                self._break()
                return
            self._end_now(what)

        self._watches.append(asyncio.get_running_loop().create_task(wait()))

    def _end_now(self, what: str) -> None:
        log.info("%s: the service stops", what)
        self._grace_s = 0.0
        self.should_exit = True
        last_resort = threading.Timer(PARENT_GONE_GRACE_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()


class SecondaryPort:
    """Listener (`ProtocolListener`) of a secondary HTTP port; it owns the socket and the server.

    ``name``: the field of the port in the ready line and `/health`; ``hint``: the remedy if another
    program has the port; None: a general one.
    """

    def __init__(
        self, name: str, config: uvicorn.Config, sock: socket.socket, hint: str | None
    ) -> None:
        self._name, self._sock, self._hint = name, sock, hint
        config.timeout_graceful_shutdown = FINAL_ANSWERS_S  # nothing else ends its requests
        self._server = _SecondaryServer(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Start to serve.

        Raises:
            errors.PortInUse: another program listened on the port first.
        """
        listen(self._sock, self._hint)
        port = self._sock.getsockname()[1]
        spawn = asyncio.get_running_loop().create_task
        up = spawn(self._server.up.wait())
        self._serving = spawn(self._server.serve([self._sock]), name=self._name)
        await asyncio.wait({up, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            self._serving.result()
        log.info("serving on the secondary port %d", port)
        return {self._name: port}

    def stop_accepting(self) -> None:
        """Do nothing: the service itself answers new clients."""

    async def drain(self, grace_s: float) -> None:
        """End the connections; responses in progress have `FINAL_ANSWERS_S`."""
        self._server.should_exit = True
        await self._ended()

    async def close(self) -> None:
        """Cancel unfinished requests and close the socket."""
        self._server.should_exit = self._server.force_exit = True
        await self._ended()
        self._sock.close()

    async def _ended(self) -> None:
        if self._serving is not None:
            await asyncio.wait({self._serving})


class _SecondaryServer(CountingServer):
    """Uvicorn server without signal handlers, which the service's main server has."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config, _max_connections_per_address())
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
