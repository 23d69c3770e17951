"""Wyoming connection and its uploaded recording.

After an error event the connection is closed. Clients of this protocol wait for a transcript and
ignore everything else: only the close makes them notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress

from wyoming.asr import Transcribe
from wyoming.event import Event, Eventable, async_write_event
from wyoming.ping import Ping, Pong

from sidecar import errors
from sidecar.api.http.upload import MIN_UPLOAD_BYTES_PER_S, STALL_FACTOR, UPLOAD_STALL_S
from sidecar.audio.audio_format import WAV_HEAD_BYTES, wav_head
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import Identity
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import QueueReservation
from sidecar.protocols.wyoming import messages
from sidecar.service.facade import Service


class WyomingRecording:
    """Recording of audio of one format. It holds a queue reservation and counts its bytes until it
    is closed."""

    def __init__(
        self,
        service: Service,
        caller: Identity,
        form: messages.WyomingAudioFormat,
        place: QueueReservation,
    ) -> None:
        """Start a recording; closing it also releases the reservation ``place``.

        Raises:
            errors.UploadsFull, errors.UploadsLimited: too many bytes are being uploaded.
        """
        settings = service.settings
        self.caller, self.form = caller, form
        self._held = ExitStack()
        with ExitStack() as held:
            self.place = held.enter_context(place)
            self._body = held.enter_context(service.submissions.body(caller))
            self._held = held.pop_all()
        self._disk, self._limit_mb = service.spool_threads, settings.max_upload_mb
        self._spool = UploadSpool(settings.spool_dir)
        self._held.callback(self._spool.close)
        self._spool.add(bytes(WAV_HEAD_BYTES))
        self._stall_s = UPLOAD_STALL_S
        self._until = _now() + STALL_FACTOR * self._stall_s

    def timeout_s(self) -> float:
        """Return the time to wait for more audio, in seconds."""
        return max(0.0, min(self._stall_s, self._until - _now()))

    async def add(self, piece: bytes) -> None:
        """Add audio.

        Raises:
            errors.UploadTooLarge, errors.UploadsFull, errors.UploadsLimited: the limit is exceeded.
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        if self._spool.size + len(piece) > self._limit_mb << 20:
            raise errors.UploadTooLarge(hint=f"The limit is {self._limit_mb} MB.")
        self._body.grow(len(piece))
        self._spool.add(piece)
        self._until += len(piece) / MIN_UPLOAD_BYTES_PER_S
        if self._spool.pending >= UploadSpool.MEMORY_BYTES:
            await self._disk.run(self._spool.spill)

    async def finish(self) -> AudioSource:
        """Return the recording, which the caller closes.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        form, size = self.form, self._spool.size - WAV_HEAD_BYTES
        head = wav_head(form.rate, form.width, size, channels=form.channels)
        return await self._disk.run(self._spool.finish, head)

    def close(self) -> None:
        """Release the reservation and the counted bytes; an unfinished recording is deleted."""
        self._held.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


log = logging.getLogger(__name__)

LINGER_S, LINGER_BYTES = 5.0, 16 << 20
"""Time and bytes for which input is still read while an error is sent to the client."""
AUDIO_EVENTS = ("audio-start", "audio-chunk")


class WyomingConnection:
    """Connection that owns its recording and the job of it. ``enter`` identifies the client by its
    address ``peer`` for each request, or refuses it (`server.WyomingAllowlist.enter`)."""

    def __init__(
        self,
        service: Service,
        enter: Callable[[str | None], Awaitable[Identity]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str | None,
    ) -> None:
        self._service, self._enter, self._peer = service, enter, peer
        self._reader, self._writer = messages.WyomingEventReader(reader), writer
        self._caller: Identity | None = None
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
            self._caller = await self._enter(self._peer)
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
            self._close()

    async def _next(self) -> Event:
        recording = self._recording
        idle = self._service.settings.live_idle
        try:
            return await self._reader.next(recording.timeout_s() if recording else idle)
        except TimeoutError:
            raise errors.UploadStalled() if recording else errors.SessionIdle() from None

    async def _handle(self, event: Event) -> None:
        if event.type in AUDIO_EVENTS:
            await self._receive_audio(event)
            return
        match event.type:
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
            case _:
                pass  # the protocol wants unknown events ignored

    def _options_of(self, asked: Transcribe) -> TranscribeOptions:
        return self._service.options(messages.fields_of(asked, self._service.spec))

    async def _receive_audio(self, event: Event) -> None:
        form = messages.WyomingAudioFormat.of(event.data)
        if event.type == "audio-start" or self._recording is None:
            self._drop_recording()
            caller = self._caller or await self._enter(self._peer)
            self._caller = None
            place = await self._service.submissions.place(caller)
            self._recording = WyomingRecording(self._service, caller, form, place)
        recording, audio = self._recording, event.payload or b""
        if form != recording.form or len(audio) % (form.width * form.channels):
            raise errors.SoundInvalid(
                "A chunk has another format than those before it, or not a whole number of "
                "samples.",
                hint="Send all chunks in the format of 'audio-start', cut between two samples.",
            )
        await recording.add(audio)

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
                source = await recording.finish()
                job = await self._service.submissions.submit(
                    recording.caller, source, options, recording.place, kept=False
                )
            try:
                await self._follow(job)
            finally:  # no effect on a job that has ended
                self._service.owned.hang_up(recording.caller, job.record)
        finally:
            self._answering = False

    async def _follow(self, job: Job) -> None:
        """Send the result of a job. Pings are answered meanwhile, other events wait. A disconnect
        is noticed only when an event is sent."""
        telling = asyncio.get_running_loop().create_task(self._send_results(job))
        try:
            while not telling.done():
                ahead = self._reader.ahead()
                waited = {telling} if ahead.done() else {telling, ahead}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not telling.done() and ahead.done() and _is_ping(ahead):
                    await self._handle(await self._reader.next(None))
            await telling
        finally:
            telling.cancel()

    async def _send_results(self, job: Job) -> None:
        told = messages.WyomingJobEvents()
        async for record in job.changes():
            for each in told.more(record):
                await self._send(each)
            if record.error is not None:
                raise record.error.error()
            if record.over and record.transcript is not None:
                for each in told.end(record.transcript):
                    await self._send(each)

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

    def _close(self) -> None:
        self._drop_recording()
        self._reader.close()
        self._writer.close()


def _is_ping(ahead: asyncio.Task[Event]) -> bool:
    """Return whether the next event is a ping. Raise the error if the connection ended, unless the
    client has only closed its side."""
    return (
        not isinstance(ahead.exception(), messages.WyomingClientEnded)
        and ahead.result().type == "ping"
    )
