"""The gRPC server as a way in beside HTTP: its port, its bounds, health and reflection."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar import errors
from sidecar.auth.entrance import Entrance
from sidecar.config.settings import Settings
from sidecar.protocols.grpc_stt.doorway import Doorway
from sidecar.protocols.grpc_stt.routes import NAME, Backend
from sidecar.service import Service

log = logging.getLogger(__name__)

OFTENEST_PING_S = 5
"""A client may ask so often itself."""
AHEAD_BYTES = 256 << 10
"""Of one stream, read before somebody asks for it: 8 s of sound at 16 kHz."""
MOST_STREAMS = 256
"""Calls of one connection at once."""
LARGEST_HEAD = 32 << 10
"""Bytes of metadata."""
LARGEST_ANSWER = 4 << 20


def options_of(settings: Settings) -> list[tuple[str, int]]:
    """The server's bounds, as gRPC calls them."""
    ping_ms = round(settings.live_ping * 1000)
    return [
        ("grpc.so_reuseport", 0),  # or a second server shares the port
        ("grpc.max_receive_message_length", settings.grpc_message_mb << 20),
        ("grpc.max_send_message_length", LARGEST_ANSWER),
        ("grpc.max_metadata_size", LARGEST_HEAD),
        ("grpc.absolute_max_metadata_size", LARGEST_HEAD),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", ping_ms),
        ("grpc.keepalive_timeout_ms", ping_ms),
        ("grpc.http2.ping_timeout_ms", ping_ms),  # or it is a minute at least
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", OFTENEST_PING_S * 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server_handshake_timeout_ms", round(settings.request_deadline * 1000)),
    ]


class LiveGrpc:
    """Live audio over gRPC. ``reserved`` has the port, and is given up when that is listened at;
    ``credentials`` encrypt connections, None leaves them plain."""

    def __init__(
        self,
        service: Service,
        entrance: Entrance,
        reserved: socket.socket,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._service = service
        self._entrance = entrance
        self._reserved = reserved
        self._credentials = credentials
        self._backend = Backend(service, entrance, encrypted=credentials is not None)
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Serve; the port is told.

        Raises:
            errors.PortInUse: somebody else was quicker.
        """
        encrypted, traced = self._credentials is not None, self._service.traces.on
        tally = self._service.tally.wires
        doorway = Doorway(self._entrance, tally, encrypted=encrypted, traced=traced)
        options = options_of(self._service.settings)
        self._server = grpc.aio.server(interceptors=[doorway], options=options)
        self._server.add_generic_rpc_handlers((self._backend.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        serving = health_pb2.HealthCheckResponse.SERVING
        hears = self._service.live.spec is not None
        await self._health.set("", serving)
        await self._health.set(
            NAME, serving if hears else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        port = self._bind()
        await self._server.start()
        log.info("gRPC on port %d", port)
        return {"grpc_port": port}

    def stop_accepting(self) -> None:
        """Health says that it ends, and calls that begin are refused; streams go on."""
        self._backend.stopping = True
        self._telling = asyncio.get_running_loop().create_task(
            self._health.enter_graceful_shutdown()
        )

    async def drain(self, grace_s: float) -> None:
        """Who is being told the last of it has ``grace_s`` seconds."""
        await self._server.stop(grace_s)

    async def close(self) -> None:
        """End what goes on."""
        self._backend.close()
        self._reserved.close()
        if self._server is not None:
            await self._server.stop(0)

    def _bind(self) -> int:
        host, port, *_ = self._reserved.getsockname()
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._reserved.close()
        try:
            if self._credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, self._credentials))
        except RuntimeError:
            raise errors.PortInUse(
                f"Port {port} on {host} is in use.",
                hint="Stop the program that holds it, or take another with --grpc-port.",
            ) from None
