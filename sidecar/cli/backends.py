"""Backends of commands: remote service, in-process service, child service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.cli.audio_input import Opens, open_file
from sidecar.cli.output import keep_quiet, print_error_line
from sidecar.config.settings import load_settings
from sidecar.installation import own_command
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.interfaces.request_options import parse_precision
from sidecar.server.port_owner import service_url

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient, Trust

    from sidecar.live.sessions.event_log import NumberedEvent
    from sidecar.live.sessions.session import Session
    from sidecar.service.facade import Service
    from sidecar.transcripts.transcript import Transcript


ProgressCallback = Callable[[str, float, float | None], None]
"""Told how far a recording is: the stage, how much of it is done, and of how much."""
TranscribeRecording = Callable[[Path, ProgressCallback], Awaitable["Transcript"]]
"""A recording's transcript, or a `SidecarError`; left early, its job ends, or waits to be found."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """Address of a service, and the credentials for it. ``leave``: jobs go on where a command is
    ended, and the next one finds them."""

    server: str | None = None
    token: str | None = None
    trust: Trust | None = None
    leave: bool = False

    def or_ours(self) -> ServiceTarget:
        """Return this one, or the one that the settings tell of if no service is named.

        Raises:
            errors.SettingsInvalid: they are not possible, or leave the port open.
        """
        from sidecar.cli.remote_service import trust_from_settings

        if self.server is not None:
            return self
        settings = load_settings()
        if not settings.port:
            raise errors.SettingsInvalid(
                "The setting 'port' is 0 (any free port), so the port of the service is not known.",
                hint="Name its address with --server.",
            )
        server = service_url(settings.host, settings.port, encrypted=settings.encrypted)
        own = trust_from_settings(settings)
        given = self.trust is not None and self.trust.given
        return replace(self, server=server, trust=self.trust if given else own)

    def with_token(self) -> ServiceTarget:
        """Return it with the token that is known here, if none is given."""
        from sidecar.cli.remote_service import client_token

        return replace(self, token=client_token(load_settings(), self.token))

    def answering(self, ready: Mapping[str, Any]) -> ServiceTarget:
        """Return the service of our own that has said this ready line."""
        from vibevoice_asr_client import Trust

        from sidecar.config.secret_settings import service_token

        pinned = Trust(fingerprint=ready["fingerprint"]) if "fingerprint" in ready else None
        token = ready.get("token") or service_token(load_settings())
        return replace(self, server=ready["url"], token=token, trust=pinned)


@asynccontextmanager
async def client_of(where: ServiceTarget) -> AsyncGenerator[AsyncClient, None]:
    """Give a client of the service of ``where``, else of that of the settings.

    Raises:
        errors.SidecarError: nobody answers there; in the body too, whatever the client raises.
    """
    from vibevoice_asr_client import AnswerNotUnderstood, ServiceError

    from sidecar.cli.remote_service import service_at

    where = where.or_ours().with_token()
    async with service_at(where.server or "", where.token, where.trust) as client:
        # asked once: whoever is not there is said now, not after minutes; an unhealthy service
        # answers 500, and a busy one 429: the request itself is repeated, or says what is wrong
        with suppress(AnswerNotUnderstood, ServiceError):
            await client.health()
        yield client


@asynccontextmanager
async def own_service(**given: Any) -> AsyncGenerator[Service, None]:
    """Give a service inside this process, which is not opened yet and is closed at the end.

    Raises:
        errors.SidecarError: the settings are not possible, or its engine is not.
    """
    from sidecar.server.app import create_service

    settings = load_settings(**given)
    # An error is said in one line of ours. Who wants the log asks for it.
    keep_quiet(settings)
    service = create_service(settings)
    try:
        yield service
    finally:
        await service.close()


def open_backend(
    where: ServiceTarget, options: Mapping[str, str], opens: Opens = open_file
) -> AbstractAsyncContextManager[TranscribeRecording]:
    """Give what transcribes: the service of ``where``, or one of this process without one.

    Raises:
        errors.SidecarError: it does not answer, or cannot be.
    """
    if where.server is not None:
        from sidecar.cli.remote_service import recordings_with_server

        return recordings_with_server(where, options, opens)
    return _recordings_without_server(options, opens)


@asynccontextmanager
async def _recordings_without_server(
    options: Mapping[str, str], opens: Opens
) -> AsyncGenerator[TranscribeRecording, None]:
    # The engine is loaded for this command alone, so at the precision that it asks for.
    precision = options.get("precision")
    wanted = {"precision": parse_precision(precision)} if precision else {}
    async with own_service(**wanted) as service:
        meant = service.options(dict(options))

        async def transcribe(path: Path, told: ProgressCallback) -> Transcript:
            job = await service.submissions.submit(ANONYMOUS, opens(path), meant, kept=False)
            try:
                async for record in job.changes():
                    told("running", record.progress.audio_s_done, record.progress.audio_s_total)
                return service.noted(await job.result(), meant)
            finally:
                service.owned.hang_up(ANONYMOUS, job.record)  # one that has ended stays as it is

        await service.open()
        yield transcribe


class LiveBackend(Protocol):
    """One live session."""

    async def send(self, sound: bytes) -> None:
        """More of it: mono, in the form that was agreed."""

    async def finish(self) -> None:
        """No more comes."""

    async def commit(self) -> None:
        """The turn ends here."""

    async def cancel(self) -> None:
        """The turn is dropped."""

    async def change(self, **options: Any) -> None:
        """It is heard on with these."""

    def events(self) -> AsyncIterator[NumberedEvent]:
        """Yield the events, to the summary; raise a `SidecarError` if it ends otherwise."""


def live_options(given: Mapping[str, Any]) -> LiveOptions:
    """As plain values have them, those that are left out as usual."""
    return LiveOptions.from_wire({**LiveOptions().to_wire(), **given})


class _LocalLiveBackend:
    def __init__(self, session: Session, rate: int, encoding: SampleEncoding) -> None:
        self._session, self._rate, self._encoding = session, rate, encoding

    async def send(self, sound: bytes) -> None:
        await self._session.send(sound, self._encoding, self._rate)

    async def finish(self) -> None:
        self._session.finish()

    async def commit(self) -> None:
        self._session.commit()

    async def cancel(self) -> None:
        self._session.forget()

    async def change(self, **options: Any) -> None:
        self._session.change(live_options({**self._session.options.to_wire(), **options}))

    def events(self) -> AsyncIterator[NumberedEvent]:
        return self._session.events()


@asynccontextmanager
async def open_live_backend(
    where: ServiceTarget,
    rate: int,
    options: Mapping[str, Any],
    encoding: SampleEncoding = SampleEncoding.PCM16,
) -> AsyncGenerator[LiveBackend, None]:
    """By the service of ``where``, or without one; ``options`` are fields of `LiveOptions`.

    Raises:
        errors.SidecarError: it does not answer, or does not hear live.
    """
    from sidecar.cli.remote_service import RemoteLiveBackend

    if where.server is not None:
        async with (
            client_of(where) as client,
            client.live(rate=rate, encoding=encoding.value, **options) as live,
        ):
            if live.captured:
                print_error_line("this service writes what is said to files, for debugging.")
            yield RemoteLiveBackend(live)
        return
    # There is one client, and it is here: nobody is waited for, none is too slow, and none is to
    # be looked into.
    async with own_service(live_grace=0.0, capture=False) as service:
        await service.open()
        session = service.live.open(ANONYMOUS, live_options(options))
        try:
            yield _LocalLiveBackend(session, rate, encoding)
        finally:
            service.live.end(session)


@contextmanager
def start_child_service(
    given: Mapping[str, Any],
) -> Generator[tuple[subprocess.Popen[bytes], dict[str, Any] | None], None, None]:
    """A service with the settings ``given``, and its ready line; None where it could not start,
    which it has said why. It ends with the block, and with this process."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    service = subprocess.Popen(
        [
            *own_command("sidecar.main"),
            "serve",
            "--log-level=warning",
            f"--parent-pid={os.getpid()}",  # whatever ends this command ends the service
            *flags,
        ],
        stdout=subprocess.PIPE,
        **_detach_from_terminal(),
    )
    try:
        yield service, _ready_line(service)
    finally:
        service.terminate()
        service.wait()


@contextmanager
def started_for(
    where: ServiceTarget, given: Mapping[str, Any]
) -> Generator[ServiceTarget | None, None, None]:
    """Start a service as `start_child_service` does; give where it is, None if it could not
    start."""
    with start_child_service(given) as (service, ready):
        if ready is None:
            service.wait()
        yield where.answering(ready) if ready else None


def _detach_from_terminal() -> dict[str, Any]:
    """Ctrl-C at a terminal is the command's alone: the service ends by the command, behind it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def _ready_line(service: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """Return the ready line of a service, which a download may come before; None if it cannot
    serve."""
    assert service.stdout is not None
    line = service.stdout.readline()
    ready: dict[str, Any] = json.loads(line) if line else {}
    return ready if ready.get("event") == "ready" else None
