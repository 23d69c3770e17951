"""RPC call to a remote live engine over a WebSocket.

Messages of an `RpcCall` are sent as messages of `/v1/live`. Received messages are checked before
the call gets them, because the other machine is not trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.errors import ErrorKind
from sidecar.upstream import openai_http, remote_live_messages, upstream_dialect
from sidecar.upstream.upstream_dialect import ChunkFailure, FailureStep
from sidecar.workers import channel
from sidecar.workers.channel import credited_bytes
from sidecar.workers.rpc_client import RpcCall

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger(__name__)

BEGIN_TIMEOUT_S = 5.0
"""Maximum time for a service to accept or refuse a session."""
SILENCE_TIMEOUT_S = 5 * remote_live_messages.HEARTBEAT_INTERVAL_S
"""Maximum time without a message of a service that runs a session."""
LIVE_PATH = "/v1/live"
_SESSION_FAULT_KINDS = frozenset(
    {ErrorKind.MALFORMED, ErrorKind.UNPROCESSABLE, ErrorKind.UNSUPPORTED, ErrorKind.TOO_LARGE}
)
"""Kinds of errors of the session itself, which any service would return."""
_HANDOVER_CODES = frozenset({errors.ShuttingDown.code, errors.SessionHandedOver.code})
_VERSION_MISMATCH_CODES = frozenset({errors.FieldInvalid.code, errors.MessageInvalid.code})
_BUSY_KINDS = frozenset({ErrorKind.BUSY, ErrorKind.LIMITED})
_KEY_REFUSED_KINDS = frozenset({ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN})


async def open_remote_session(
    url: str,
    host: str,
    key: str,
    context: ssl.SSLContext | None,
    lease: remote_live_messages.RemoteSessionRequest,
) -> RemoteTransport:
    """Open a session at the service ``url``, on its machine ``host``.

    Raises:
        ChunkFailure: it was not accepted; says what to do next.
    """
    from websockets.exceptions import (
        ConnectionClosed,
        InvalidHandshake,
        InvalidStatus,
        WebSocketException,
    )

    try:
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            socket = await _connect(url, host, key, context)
            try:
                with contextlib.suppress(ConnectionClosed):  # the service may have sent a reason
                    await socket.send(json.dumps({"type": "begin", "lease": lease.to_wire()}))
                answer = remote_live_messages.parse_message(await socket.recv())
                if answer["type"] == "error":
                    raise _error_of_refusal(answer)
                if answer["type"] != "began":
                    raise ValueError("no answer")
            except BaseException:
                socket.transport.abort()
                raise
    except ssl.SSLCertVerificationError:
        raise upstream_dialect.certificate_failure(FailureStep.AGAIN) from None
    except TimeoutError:
        said = "The upstream takes too long to answer."
        raise upstream_dialect.unreachable_failure(said) from None
    except OSError:
        raise upstream_dialect.unreachable_failure() from None
    except InvalidStatus as refused:
        status = refused.response.status_code
        raise _error_of_status(status) from None
    except (InvalidHandshake, ValueError):
        raise upstream_dialect.garbled_failure("is none of a service that hears live") from None
    except WebSocketException:
        raise upstream_dialect.connection_lost_failure("went away at once") from None
    return RemoteTransport(socket, lease)


async def _connect(
    url: str, host: str, key: str, context: ssl.SSLContext | None
) -> ClientConnection:
    """Connect to that machine and to no other: without redirects."""
    from websockets.asyncio.client import connect

    class Straight(connect):
        """Connection that follows no redirect."""

        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    parts = urlsplit(url)
    secure = parts.scheme == "https"
    quiet = logging.getLogger(f"{__name__}.wire")
    quiet.setLevel(logging.CRITICAL)  # it would log headers, and with them the key
    return await Straight(
        f"{'wss' if secure else 'ws'}://{parts.netloc}{parts.path}{LIVE_PATH}",
        host=host,
        port=parts.port or (443 if secure else 80),
        additional_headers=openai_http.authorization(key),
        user_agent_header="vibevoice-asr",
        compression=None,
        proxy=None,
        max_size=remote_live_messages.MAX_MESSAGE_BYTES,
        open_timeout=None,
        close_timeout=1.0,
        ping_interval=None,  # a lease holder sends heartbeats
        logger=quiet,
        ssl=context,
    )


def _error_of(message: Mapping[str, Any]) -> errors.SidecarError:
    """Return the error in a message as one of this project's errors."""
    detail, hint, after = (message.get(name) for name in ("message", "hint", "retry_after"))
    return errors.from_wire(
        {
            "code": str(message.get("code")),
            "detail": detail if isinstance(detail, str) else None,
            "hint": hint if isinstance(hint, str) else None,
            "retry_after": after if isinstance(after, int) and 0 < after < 3600 else None,
        }
    )


def _error_of_refusal(message: Mapping[str, Any]) -> ChunkFailure:
    """Return the failure that a refusal means."""
    error, code = _error_of(message), str(message.get("code"))
    if code in _HANDOVER_CODES:
        return upstream_dialect.unreachable_failure(step=FailureStep.LATER)
    if error.kind in _KEY_REFUSED_KINDS:
        return _key_refused_failure()
    if code in _VERSION_MISMATCH_CODES or error.kind is ErrorKind.NOT_FOUND:
        return _version_mismatch_failure()
    if code == errors.LiveUnavailable.code:
        said = "The upstream hears nothing live."
        return upstream_dialect.refused_failure(said, step=FailureStep.AGAIN)
    if error.kind in _BUSY_KINDS:
        return ChunkFailure(FailureStep.LATER, errors.LiveFull(), sent=False)
    if error.kind in _SESSION_FAULT_KINDS:
        return ChunkFailure(FailureStep.ELSEWHERE, error, sent=False)
    return ChunkFailure(
        FailureStep.AGAIN, errors.UpstreamFailed(f"The upstream reports: {error.detail}")
    )


def _error_of_status(status: int) -> ChunkFailure:
    if status in (401, 403):
        return _key_refused_failure()
    if status in (404, 405, 426):
        return _version_mismatch_failure()
    return ChunkFailure(
        FailureStep.AGAIN, errors.UpstreamFailed(f"The upstream answered {status}.")
    )


def _key_refused_failure() -> ChunkFailure:
    return upstream_dialect.refused_failure(
        "The upstream does not let this key have live places.",
        "Set VIBEVOICE_UPSTREAM_KEY or --upstream-key @FILE to its token, or to one of the "
        "scope 'lease'.",
        FailureStep.AGAIN,
    )


def _version_mismatch_failure() -> ChunkFailure:
    return upstream_dialect.refused_failure(
        "The upstream has no live places for other services, or is of another version.",
        "Have the same version of vibevoice-asr there as here.",
        FailureStep.AGAIN,
    )


class RemoteTransport:
    """Transport of one remote session. Run `listen` as long as its ``call`` is in use."""

    def __init__(
        self, socket: ClientConnection, lease: remote_live_messages.RemoteSessionRequest
    ) -> None:
        self.call = RpcCall(1, self)
        self.failure: ChunkFailure | None = None
        """Failure of the remote service that broke the connection; None if there was none."""
        self.handed_over = False
        """True if the connection ended because another service takes over."""
        self._socket = socket
        self._checker = remote_live_messages.RemoteEventChecker(lease.begin)
        self._sample_format: tuple[str, int] | None = None

    async def send(
        self, message: dict[str, Any], fds: Sequence[int] = (), raw: bytes = b""
    ) -> None:
        """Send a message of the call; wait while the service reads slowly.

        Raises:
            channel.ChannelClosed: the connection is closed.
        """
        from websockets.exceptions import ConnectionClosed

        command = message["told"]
        try:
            if "sound" in command:
                await self._send_sound(command, raw)
            else:
                await self._socket.send(remote_live_messages.command_text(command))
        except ConnectionClosed:
            raise channel.ChannelClosed("the connection is gone") from None
        size = credited_bytes(command, raw)  # the WebSocket has its own flow control
        self.call.receive(channel.ChannelFrame({"granted": size}, b"", 0))

    async def _send_sound(self, command: Mapping[str, Any], raw: bytes) -> None:
        sample_format = (command["sound"], command["rate"])
        if sample_format != self._sample_format:
            self._sample_format = sample_format
            await self._socket.send(remote_live_messages.command_text(command))
        self._checker.sent(raw, *sample_format)
        await self._socket.send(raw)

    def send_nowait(self, message: dict[str, Any]) -> None:
        """Ignore credit and cancellation: over a network a WebSocket has its own flow control, and
        a cancelled call closes the connection."""

    def close(self, why: str = "closed") -> None:
        """Close the call and abort the connection."""
        self._end_call(why)
        self._socket.transport.abort()

    async def leave(self) -> None:
        """Close the connection with a closing handshake, if the service answers it."""
        await self._socket.close()

    async def listen(self) -> None:
        """Pass all messages to the call, until it ends."""
        from websockets.exceptions import WebSocketException

        try:
            while not self.call.over.is_set():
                async with asyncio.timeout(SILENCE_TIMEOUT_S):
                    message = await self._socket.recv()
                self._receive(remote_live_messages.parse_message(message), len(message))
        except TimeoutError:
            self.failure = upstream_dialect.connection_lost_failure("fell silent")
            self.close("silence")
        except (WebSocketException, OSError):
            self.failure = self.failure or upstream_dialect.connection_lost_failure(
                "went away in the middle"
            )
            self._end_call("the connection is gone")
        except (KeyError, TypeError, ValueError):  # ValidationError is a ValueError
            self.failure = upstream_dialect.garbled_failure("is no story of a session")
            self.close("nonsense")
        finally:
            self._end_call("nobody listens")

    def _receive(self, message: Mapping[str, Any], size: int) -> None:
        match message:
            case {"type": "events", "events": events}:
                for event in self._checker.events(events):
                    self.call.receive(
                        channel.ChannelFrame({"answer": event}, b"", size // len(events))
                    )
                    if event["live"] == "Summary":
                        self.call.receive(channel.ChannelFrame({"done": True}, b"", 0))
            case {"type": "error", "code": code}:
                error = _error_of(message)
                self.handed_over = code in _HANDOVER_CODES
                if error.kind in _SESSION_FAULT_KINDS or code == errors.LiveFull.code:
                    self.call.end(error)
                elif not self.handed_over and code != errors.EngineCrashed.code:
                    said = f"The upstream reports: {error.detail}"
                    self.failure = ChunkFailure(FailureStep.AGAIN, errors.UpstreamFailed(said))
                self._end_call(str(code))

    def _end_call(self, why: str) -> None:
        self.call.end(channel.ChannelClosed(why))
