"""gRPC interceptor: authentication, metrics, traces.

It also covers the calls of health and reflection.
"""

from __future__ import annotations

import asyncio
import inspect
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from sidecar import errors
from sidecar.api.http.request_headers import check_header_sizes
from sidecar.auth.authentication import AccessControl
from sidecar.auth.request_origin import PROXY_HEADER_PREFIXES, RequestOrigin
from sidecar.observability.metrics import ProtocolMetrics
from sidecar.protocols.grpc_stt.errors import abort_call

Metadata = Iterable[tuple[str, str | bytes]]
API_KEY_NAMES = ("x-api-key", "api-key", "api_key")
"""Names of a key beside `authorization`: all as metadata, the last two also as attributes."""


def request_origin(metadata: Metadata, peer: str, *, encrypted: bool) -> RequestOrigin:
    """Return the origin of a call.

    gRPC does not report the host name of a request. A web page cannot call: it would need HTTP/2
    without TLS, or a name in the service's certificate. A page that tries sends an `origin`.
    """
    texts = [(key, value) for key, value in metadata if isinstance(value, str)]
    return RequestOrigin(
        hosts=["localhost"],
        origins=[value for key, value in texts if key == "origin"],
        authorizations=[value for key, value in texts if key == "authorization"]
        or [f"Bearer {value}" for key, value in texts if key in API_KEY_NAMES],
        fetch_site=next((value for key, value in texts if key == "sec-fetch-site"), ""),
        scheme="https" if encrypted else "http",
        peer=peer_address(peer),
        forwarded=any(key.startswith(PROXY_HEADER_PREFIXES) for key, _ in texts),
    )


def peer_address(peer: str) -> str | None:
    """Return the IP address of gRPC's name of a peer, such as 'ipv4:127.0.0.1:50000'; `None` if it
    has none."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    address, _, _ = rest.rpartition(":")
    return address.strip("[]").partition("%")[0] or None


def first_value(metadata: Metadata, *names: str) -> str:
    """Return the first value under one of ``names``, "" if there is none."""
    found = (value for name in names for key, value in metadata if key == name)
    return next((value for value in found if isinstance(value, str)), "")


NO_METHOD = "(none)"
"""Label of calls to unknown methods."""


@dataclass(eq=False)
class GrpcInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Interceptor that admits or refuses each call and counts calls. The servicer authenticates the
    caller."""

    entrance: AccessControl
    tally: ProtocolMetrics
    encrypted: bool

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return the call's handler, with the checks before it."""
        found = await continuation(details)
        if found is None:
            self.tally.calls.add(NO_METHOD, grpc.StatusCode.UNIMPLEMENTED.name)
            return None
        asks, answers = (
            "stream" if streams else "unary"
            for streams in (found.request_streaming, found.response_streaming)
        )
        make = getattr(grpc, f"{asks}_{answers}_rpc_method_handler")
        return make(
            self._behind_checks(getattr(found, f"{asks}_{answers}"), details.method),
            found.request_deserializer,
            found.response_serializer,
        )

    async def _arrive(self, context: Any) -> None:
        metadata = context.invocation_metadata() or ()
        try:
            check_header_sizes((_bytes(name), _bytes(value)) for name, value in metadata)
            self.entrance.admit_request(
                request_origin(metadata, context.peer(), encrypted=self.encrypted)
            )
        except errors.SidecarError as error:
            await abort_call(context, error)

    @contextmanager
    def _counted(self, method: str, context: Any) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self.tally.calls.add(method, _cancelled(context))
            raise
        except BaseException:
            self.tally.calls.add(method, _status(context) or grpc.StatusCode.UNKNOWN.name)
            raise
        self.tally.calls.add(method, _status(context) or grpc.StatusCode.OK.name)

    def _behind_checks(
        self, behind: Callable[[Any, Any], Any], method: str
    ) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            with self._counted(method, context):
                await self._arrive(context)
                answered = behind(request, context)
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
