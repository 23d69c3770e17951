"""gRPC server: port, TLS, health, reflection, and the admission and counts of all its calls."""

import asyncio
import inspect
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar import errors
from sidecar import files as sidecar_files
from sidecar.api.http.request_headers import check_header_sizes
from sidecar.api.http.uvicorn_protocols import REQUEST_HEAD_S
from sidecar.api.http.websocket_connections import LIVE_PING_S
from sidecar.auth.authentication import AccessControl
from sidecar.auth.tls import CertificatePair
from sidecar.file_watcher import FileWatcher
from sidecar.observability.metrics import ProtocolMetrics
from sidecar.plugins.grpc_stt.servicer import NAME, GrpcServicer, call_metadata, request_origin
from sidecar.plugins.grpc_stt.session import UNUSED_S
from sidecar.plugins.grpc_stt.statuses import abort_call
from sidecar.service.facade import Service

log = logging.getLogger(__name__)

MIN_PING_INTERVAL_S = 5
"""Minimum interval of a client's own pings, in seconds."""
READ_AHEAD_BYTES = 256 << 10
"""Bytes that are read ahead for a stream: 8 s of audio at 16 kHz."""
MAX_STREAMS = 256
"""Maximum concurrent calls of one connection."""
MAX_METADATA_BYTES = 32 << 10
MAX_REQUEST_BYTES = 8 << 20
"""Largest message: four minutes of audio at 16 kHz."""
MAX_RESPONSE_BYTES = 4 << 20
NO_METHOD = "(none)"
"""Label of calls to unknown methods."""


def channel_options(ping_s: float) -> list[tuple[str, int]]:
    """Return the server's limits as gRPC options; ``ping_s``: interval and timeout of its pings."""
    ping_ms = round(ping_s * 1000)
    return [
        ("grpc.so_reuseport", 0),  # otherwise a second server could share the port
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.http2.lookahead_bytes", READ_AHEAD_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", ping_ms),
        ("grpc.keepalive_timeout_ms", ping_ms),
        ("grpc.http2.ping_timeout_ms", ping_ms),  # otherwise it is at least a minute
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server_handshake_timeout_ms", round(REQUEST_HEAD_S * 1000)),
    ]


class GrpcServer:
    """gRPC server for live audio. ``reserved`` holds the port until the server listens;
    ``credentials`` are those of TLS, `None` means no TLS. ``unused_s``, ``ping_s``: as `UNUSED_S`
    and `LIVE_PING_S`."""

    def __init__(
        self,
        service: Service,
        access: AccessControl,
        reserved: socket.socket,
        credentials: grpc.ServerCredentials | None = None,
        *,
        unused_s: float = UNUSED_S,
        ping_s: float = LIVE_PING_S,
    ) -> None:
        self._service, self._access, self._ping_s = service, access, ping_s
        self._reserved, self._credentials = reserved, credentials
        self._servicer = GrpcServicer(
            service, access, encrypted=credentials is not None, unused_s=unused_s
        )
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._shutdown_task: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Start to serve; return the port.

        Raises:
            errors.PortInUse: another program listened on the port first.
        """
        encrypted = self._credentials is not None
        metrics = self._service.metrics.wires
        interceptor = GrpcInterceptor(self._access, metrics, encrypted=encrypted)
        options = channel_options(self._ping_s)
        self._server = grpc.aio.server(interceptors=[interceptor], options=options)
        self._server.add_generic_rpc_handlers((self._servicer.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        serving = health_pb2.HealthCheckResponse.SERVING
        available = self._service.live.spec is not None
        await self._health.set("", serving)
        await self._health.set(
            NAME, serving if available else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        port = self._bind()
        await self._server.start()
        log.info("serving gRPC on port %d", port)
        return {"grpc_port": port}

    def stop_accepting(self) -> None:
        """Report the shutdown by the health service and refuse new calls; streams continue."""
        self._servicer.stopping = True
        self._shutdown_task = asyncio.get_running_loop().create_task(
            self._health.enter_graceful_shutdown()
        )

    async def drain(self, grace_s: float) -> None:
        """Stop; calls in progress have ``grace_s`` seconds."""
        await self._server.stop(grace_s)

    async def close(self) -> None:
        """End all calls and pending sessions."""
        self._servicer.close()
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
                hint="Stop the program that uses it, or choose another with --grpc-port.",
            ) from None


def server_credentials(
    pair: CertificatePair, watcher: FileWatcher, client_ca: Path | None = None
) -> grpc.ServerCredentials:
    """Return TLS credentials that ``watcher`` reloads. If ``client_ca`` is set, client certificates
    signed by its authorities are required.

    Raises:
        errors.SettingsInvalid: a file cannot be read.
    """
    files = {pair.certificate, pair.key} | ({client_ca} if client_ca else set())
    certificates = watcher.add(
        "the certificates for gRPC", files, lambda: _read_certificates(pair, client_ca)
    )
    given = certificates.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.value is given:
            return None
        given = certificates.value
        return given

    return grpc.dynamic_ssl_server_credentials(
        certificates.value, fetch, require_client_authentication=client_ca is not None
    )


def _read_certificates(
    pair: CertificatePair, client_ca: Path | None
) -> grpc.ServerCertificateConfiguration:
    try:
        both = pair.key.read_bytes(), pair.certificate.read_bytes()
    except OSError as error:
        raise errors.SettingsInvalid(f"The certificate cannot be read: {error.strerror}.") from None
    return grpc.ssl_server_certificate_configuration(
        [both], client_ca and _read_client_ca(client_ca)
    )


def _read_client_ca(client_ca: Path) -> bytes:
    """Check the file here: gRPC accepts any content, and then refuses all clients."""
    sidecar_files.check_regular(client_ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(client_ca)
        return client_ca.read_bytes()
    except OSError as error:  # includes ssl.SSLError
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise errors.SettingsInvalid(
            f"{client_ca} has no usable certificate: {why.lower().replace('_', ' ')}.",
            hint="Use a PEM file with the certificates of the authorities that sign clients' "
            "certificates.",
        ) from None


@dataclass(eq=False)
class GrpcInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Interceptor that admits or refuses each call and counts calls. The servicer authenticates the
    caller."""

    access: AccessControl
    metrics: ProtocolMetrics
    encrypted: bool

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return the call's handler, with the checks before it."""
        handler = await continuation(details)
        if handler is None:
            self.metrics.calls.add(NO_METHOD, grpc.StatusCode.UNIMPLEMENTED.name)
            return None
        asks, answers = (
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        make = getattr(grpc, f"{asks}_{answers}_rpc_method_handler")
        return make(
            self._behind_checks(getattr(handler, f"{asks}_{answers}"), details.method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    async def _admit(self, context: Any) -> None:
        metadata = call_metadata(context)
        try:
            check_header_sizes((_bytes(name), _bytes(value)) for name, value in metadata)
            self.access.admit_request(
                request_origin(metadata, context.peer(), encrypted=self.encrypted)
            )
        except errors.SidecarError as error:
            await abort_call(context, error)

    @contextmanager
    def _counted(self, method: str, context: Any) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self.metrics.calls.add(method, _cancelled(context))
            raise
        except BaseException:
            self.metrics.calls.add(method, _status(context) or grpc.StatusCode.UNKNOWN.name)
            raise
        self.metrics.calls.add(method, _status(context) or grpc.StatusCode.OK.name)

    def _behind_checks(
        self, handler: Callable[[Any, Any], Any], method: str
    ) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            with self._counted(method, context):
                await self._admit(context)
                answered = handler(request, context)
                if inspect.isawaitable(answered):
                    return await answered
                if not inspect.isasyncgen(answered):
                    return answered
                async for each in answered:
                    await context.write(each)
                return None

        return answer


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _status(context: Any) -> str:
    """Return the name of the status with which a call ended; "" if it has none."""
    code = context.code()
    value = code.value[0] if isinstance(code, grpc.StatusCode) else code
    found = (str(one.name) for one in grpc.StatusCode if one.value[0] == value)
    return next(found) if value else ""


def _cancelled(context: Any) -> str:
    """Return the status of a call that the client ended: cancellation or deadline."""
    left = context.time_remaining()
    late = left is not None and left <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return str(code.name)
