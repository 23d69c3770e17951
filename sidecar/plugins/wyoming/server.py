"""Wyoming server: connections with their recordings, allowlist of clients, which send no token.

After an error event the connection is closed. Clients of this protocol wait for a transcript and
ignore everything else: only the close makes them notice.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from wyoming.asr import Transcribe
from wyoming.event import Event, Eventable, async_write_event
from wyoming.ping import Ping, Pong

from sidecar import errors
from sidecar.accepted_sockets import accept_all
from sidecar.api.http.upload import MIN_UPLOAD_BYTES_PER_S, STALL_FACTOR, UPLOAD_STALL_S
from sidecar.audio.audio_format import WAV_HEAD_BYTES, wav_head
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import AuthMethod, Identity, RequestOrigin
from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import WholeSamples
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import Reservation
from sidecar.plugins.wyoming import messages
from sidecar.plugins.wyoming.settings import WyomingSettings
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
BACKLOG = 128
LINGER_S, LINGER_BYTES = 5.0, 16 << 20
"""Time and bytes for which input is still read while an error is sent to the client."""
GUEST = "wyoming"
"""Owner of the jobs of clients on the allowlist."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WyomingServer:
    """Listener of the protocol. ``reserved`` is the socket of the port, on which it listens."""

    def __init__(
        self, service: Service, allowlist: WyomingAllowlist, reserved: socket.socket
    ) -> None:
        self._service, self._allowlist, self._reserved = service, allowlist, reserved
        self._accepting = BackgroundTaskGroup()
        self._connections: dict[asyncio.Task[None], WyomingConnection] = {}
        self._stopping = False

    async def start(self) -> dict[str, Any]:
        """Start to serve; return the port.

        Raises:
            errors.PortInUse: another program listened on the port first.
        """
        host, port, *_ = self._reserved.getsockname()
        try:
            self._reserved.listen(BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise errors.SettingsInvalid(f"Cannot listen: {error.strerror}.") from None
            raise errors.PortInUse(
                f"Port {port} on {host} is in use.",
                hint="Stop the program that uses it, or choose another with --wyoming-port.",
            ) from None
        self._accepting.spawn("accept", accept_all(self._reserved, self._accepted))
        log.info("serving Wyoming on port %d", port)
        return {"wyoming_port": port}

    def stop_accepting(self) -> None:
        """Refuse new connections; clients that wait for a transcript continue."""
        self._stopping = True
        for task, connection in self._connections.items():
            if not connection.busy:
                task.cancel()

    async def drain(self, grace_s: float) -> None:
        """Wait at most ``grace_s`` seconds for clients that wait for a transcript."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace_s)

    async def close(self) -> None:
        """End all connections."""
        await self._accepting.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reserved.close()

    def _accepted(self, sock: socket.socket, _: str) -> None:
        reader = asyncio.StreamReader(limit=messages.LONGEST_LINE)
        protocol = asyncio.StreamReaderProtocol(reader, self._connected)
        connecting = asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
        self._accepting.spawn("connect", connecting)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        peer = str(address[0]).partition("%")[0] if isinstance(address, tuple) else None
        if self._stopping:
            await _turn_away(writer, errors.ShuttingDown())
        elif len(self._connections) >= MOST_CONNECTIONS:
            full = f"{MOST_CONNECTIONS} connections are open, and no more are taken."
            await _turn_away(writer, errors.QueueFull(full))
        else:
            connection = WyomingConnection(self._service, self._allowlist, reader, writer, peer)
            task = asyncio.get_running_loop().create_task(connection.run())
            self._connections[task] = connection
            task.add_done_callback(lambda ended: self._connections.pop(ended, None))


async def _turn_away(writer: asyncio.StreamWriter, error: errors.SidecarError) -> None:
    with suppress(ConnectionError):
        await async_write_event(messages.error_event(error).event(), writer)
    writer.close()


@dataclass(frozen=True, slots=True)
class WyomingAllowlist:
    """Allowlist of clients. ``guests``: networks of clients that need no token; empty: this machine
    only."""

    access: AccessControl
    guests: Sequence[Network] = ()

    @classmethod
    def of(cls, settings: Settings, access: AccessControl) -> WyomingAllowlist:
        """Create the allowlist of the settings.

        Raises:
            errors.SettingsInvalid: no client could connect, or an entry is not an address.
        """
        guests = [_network(text) for text in WyomingSettings.of(settings).wyoming_clients]
        if not guests and not access.authenticator.local_only:
            raise errors.SettingsInvalid(
                "The service requires a token, and Wyoming clients (--wyoming-port) cannot "
                "send one.",
                hint="Name the clients that need none: --wyoming-clients 127.0.0.1, or the "
                "address of Home Assistant.",
            )
        remote = [
            str(network)
            for network in guests
            if not is_loopback_address(str(network.network_address))
        ]
        if remote and is_loopback_address(settings.host):
            raise errors.SettingsInvalid(
                f"Clients at {', '.join(remote)} (--wyoming-clients) cannot reach "
                f"{settings.host}, the address of the service.",
                hint="Listen on an address that they can reach, such as --host 0.0.0.0 with a "
                "token.",
            )
        return cls(access, guests)

    async def identify(self, peer: str | None) -> Identity:
        """Return the identity of a client by its address, for each request.

        Raises:
            errors.PeerNotAllowed: it may not connect.
            errors.RateLimited: it sends too many requests.
        """
        origin = RequestOrigin(hosts=["localhost"], origins=[], authorizations=[], peer=peer)
        if self.guests and not self._is_guest(peer):
            raise errors.PeerNotAllowed(
                "Wyoming connections from this address are not allowed.",
                hint="Add the address to the setting 'wyoming_clients'.",
            )
        self.access.admit_request(origin)
        if self.access.authenticator.local_only:
            return await self.access.identify(origin)
        identity = Identity(
            GUEST, AuthMethod.PLACE, limits=replace(self.access.limits, shares=True)
        )
        if self.access.rate_limiter is not None:
            self.access.rate_limiter.enter(identity)
        return identity

    def _is_guest(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.guests)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise errors.SettingsInvalid(
            f"'{text}' is neither an address nor a network (--wyoming-clients).",
            hint="Name addresses such as 192.168.1.5, or networks such as 192.168.1.0/24.",
        ) from None


class WyomingRecording:
    """Recording of audio of one format. It holds a queue reservation and counts its bytes until it
    is closed."""

    def __init__(
        self,
        service: Service,
        identity: Identity,
        audio_format: messages.WyomingAudioFormat,
        reservation: Reservation,
    ) -> None:
        """Start a recording; closing it also releases the reservation ``reservation``.

        Raises:
            errors.UploadsFull, errors.UploadsLimited: too many bytes are being uploaded.
        """
        settings = service.settings
        self.identity, self.audio_format = identity, audio_format
        self.samples = WholeSamples(audio_format.width * audio_format.channels)
        self._disk, self._limit_mb = service.spool_threads, settings.max_upload_mb
        self._spool = UploadSpool(settings.spool_dir)
        with ExitStack() as stack:
            self.reservation = stack.enter_context(reservation)
            self._body = stack.enter_context(
                service.submissions.reservations.reserve_upload(identity)
            )
            stack.callback(self._spool.close)
            self._stack = stack.pop_all()
        self._spool.add(bytes(WAV_HEAD_BYTES))
        self._stall_s = UPLOAD_STALL_S
        self._until = _now() + STALL_FACTOR * self._stall_s

    @property
    def has_audio(self) -> bool:
        """Return whether any audio has come."""
        return self._spool.size > WAV_HEAD_BYTES

    def timeout_s(self) -> float:
        """Return the time to wait for more audio, in seconds."""
        return max(0.0, min(self._stall_s, self._until - _now()))

    async def add(self, audio: bytes) -> None:
        """Add audio.

        Raises:
            errors.UploadTooLarge, errors.UploadsFull, errors.UploadsLimited: the limit is exceeded.
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        if self._spool.size + len(audio) > self._limit_mb << 20:
            raise errors.UploadTooLarge(hint=f"The limit is {self._limit_mb} MB.")
        self._body.grow(len(audio))
        self._spool.add(audio)
        self._until += len(audio) / MIN_UPLOAD_BYTES_PER_S
        if self._spool.pending >= UploadSpool.MEMORY_BYTES:
            await self._disk.run(self._spool.spill)

    async def finish(self) -> AudioSource:
        """Return the recording, which the caller closes.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        audio_format, size = self.audio_format, self._spool.size - WAV_HEAD_BYTES
        head = wav_head(audio_format.rate, audio_format.width, size, channels=audio_format.channels)
        return await self._disk.run(self._spool.finish, head)

    def close(self) -> None:
        """Release the reservation and the counted bytes; an unfinished recording is deleted."""
        self._stack.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


class WyomingConnection:
    """Connection that owns its recording and the job of it. The allowlist identifies the client by
    its address ``peer`` for each request, or refuses it."""

    def __init__(
        self,
        service: Service,
        allowlist: WyomingAllowlist,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str | None,
    ) -> None:
        self._service, self._allowlist, self._peer = service, allowlist, peer
        self._reader, self._writer = messages.WyomingEventReader(reader), writer
        self._identity: Identity | None = None
        """Identity of the client, `None` before its first request: each use is counted."""
        self._options: TranscribeOptions | None = None
        self._recording: WyomingRecording | None = None
        self._answering = False

    @property
    def busy(self) -> bool:
        """Return whether the client waits for a transcript."""
        return self._answering or self._recording is not None

    async def run(self) -> None:
        """Serve the connection until it ends. Raises only if it is cancelled."""
        try:
            self._identity = await self._allowlist.identify(self._peer)
            while True:
                await self._handle(await self._next())
        except (messages.WyomingClientGone, ConnectionError):
            pass
        except errors.SidecarError as error:
            await self._refuse(error)
        except Exception:
            log.exception("internal error on a Wyoming connection")
            await self._refuse(errors.SidecarError())
        finally:
            self._drop_recording()
            self._reader.close()
            self._writer.close()

    async def _next(self) -> Event:
        recording = self._recording
        idle = self._service.settings.live_idle
        try:
            return await self._reader.next(recording.timeout_s() if recording else idle)
        except TimeoutError:
            if recording is None:
                raise errors.SessionIdle() from None
            if recording.has_audio:  # it is answered before the error
                await self._transcribe()
            raise errors.UploadStalled() from None

    async def _handle(self, event: Event) -> None:
        match event.type:  # the protocol wants unknown events ignored
            case "audio-start" | "audio-chunk":
                await self._receive_audio(event)
            case "describe":
                await self._send(messages.info_of(self._service.spec))
            case "ping":
                await self._send(Pong(Ping.from_event(event).text))
            case "select-program":
                messages.check_model_name(event.data.get("name"), self._service.spec)
            case "transcribe":
                self._options = self._options_of(Transcribe.from_event(event))
            case "audio-stop":
                await self._transcribe()

    def _options_of(self, transcribe: Transcribe) -> TranscribeOptions:
        return self._service.options(messages.fields_of(transcribe, self._service.spec))

    async def _receive_audio(self, event: Event) -> None:
        audio_format = messages.WyomingAudioFormat.of(event.data)
        if event.type == "audio-start" or self._recording is None:
            self._drop_recording()
            identity = self._identity or await self._allowlist.identify(self._peer)
            self._identity = None
            reservation = await self._service.submissions.reserve_position(identity)
            self._recording = WyomingRecording(self._service, identity, audio_format, reservation)
        recording, audio = self._recording, event.payload or b""
        if audio_format != recording.audio_format:
            raise errors.SoundInvalid(
                "A chunk has another format than those before it.",
                hint="Send all chunks in the format of 'audio-start'.",
            )
        await recording.add(recording.samples.add(audio))

    async def _transcribe(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            raise errors.MessageInvalid(
                "'audio-stop' came without any audio before it.", hint=messages.HINT
            )
        options = self._options or self._options_of(Transcribe())
        self._options, self._answering = None, True
        try:
            with closing(recording):
                if not recording.has_audio:  # a button that was let go at once
                    nothing = Transcript((), options.language, 0.0, "", "")
                    for event in messages.WyomingJobEvents().end(nothing):
                        await self._send(event)
                    return
                source = await recording.finish()
                job = await self._service.submissions.submit(
                    recording.identity, source, options, recording.reservation, kept=False
                )
            try:
                await self._follow(job)
            finally:  # no effect on a job that has ended
                self._service.owned.cancel_soon(recording.identity, job.record)
        finally:
            self._answering = False

    async def _follow(self, job: Job) -> None:
        """Send the result of a job. Pings are answered meanwhile, other events wait. A disconnect
        is noticed only when an event is sent."""
        sending = asyncio.get_running_loop().create_task(self._send_results(job))
        try:
            while not sending.done():
                ahead = self._reader.ahead()
                pending = {sending} if ahead.done() else {sending, ahead}
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done() and ahead.done() and _is_ping(ahead):
                    await self._handle(await self._reader.next(None))
            await sending
        finally:
            sending.cancel()

    async def _send_results(self, job: Job) -> None:
        events = messages.WyomingJobEvents()
        async for record in job.watched(None):
            assert record is not None
            for event in events.more(record):
                await self._send(event)
            if record.error is not None:
                raise record.error.error()
            if record.over and record.transcript is not None:
                for event in events.end(record.transcript):
                    await self._send(event)

    async def _send(self, event: Eventable) -> None:
        try:
            async with asyncio.timeout(UPLOAD_STALL_S):
                await async_write_event(event.event(), self._writer)
        except TimeoutError:  # the client does not read
            raise messages.WyomingClientGone from None

    async def _refuse(self, error: errors.SidecarError) -> None:
        log.info("Wyoming client rejected: %s, from %s", error.code, self._peer)
        self._drop_recording()
        with suppress(messages.WyomingClientGone, ConnectionError, OSError, TimeoutError):
            await self._send(messages.error_event(error))
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                await self._reader.drop(LINGER_BYTES)

    def _drop_recording(self) -> None:
        if self._recording is not None:
            self._recording.close()
            self._recording = None


def _is_ping(ahead: asyncio.Task[Event]) -> bool:
    """Return whether the next event is a ping. Raise the error if the connection ended, unless the
    client has only closed its side."""
    return (
        not isinstance(ahead.exception(), messages.WyomingClientEnded)
        and ahead.result().type == "ping"
    )
