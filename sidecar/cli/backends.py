"""Backends of commands: remote service, in-process service, child service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.cli.audio_input import Opens, open_file
from sidecar.cli.common_options import option
from sidecar.cli.output import ProgressCallback, keep_quiet
from sidecar.installation import own_command
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.request_options import parse_precision
from sidecar.plugins import load_settings
from sidecar.server.listeners import find_service, service_url

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient, Trust

    from sidecar.live.sessions.event_log import NumberedEvent
    from sidecar.service.facade import Service
    from sidecar.transcripts.transcript import Transcript


TranscribeRecording = Callable[[Path, ProgressCallback], AbstractAsyncContextManager["Transcript"]]
"""Transcribes a recording, or raises a `SidecarError`. If it is cancelled or its block fails, it
may leave its job."""

Result = TypeVar("Result")
INTERRUPT_POLL_S = 0.2
PERSON_RETENTION = "1d"
"""Retention of a service that a person starts for the page: corrections take hours."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """Address of a service and the credentials for it: options of the commands that query one."""

    server: str | None = None
    token: str | None = option(
        None,
        "Send this token to the service; '@FILE' reads it from a file. Other users can "
        "read command lines: prefer VIBEVOICE_CLIENT_TOKEN.",
        metavar="TOKEN",
    )
    ca_cert: Path | None = option(
        None, "Trust this certificate of the service, or of its authority.", metavar="FILE"
    )
    fingerprint: str | None = option(
        None, "Trust the certificate with this SHA-256 fingerprint.", metavar="SHA256"
    )
    insecure: bool = option(
        False, "Accept any certificate: TLS then does not protect against interception."
    )

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            errors.SettingsInvalid: as `trust`.
        """
        if self.ca_cert or self.fingerprint or self.insecure:
            _ = self.trust

    @property
    def trust(self) -> Trust:
        """Return what of the service's certificate is trusted.

        Raises:
            errors.SettingsInvalid: options exclude each other, or the fingerprint is malformed.
        """
        from vibevoice_asr_client import Trust, TrustInvalid

        if sum(map(bool, (self.ca_cert, self.fingerprint, self.insecure))) > 1:
            raise errors.SettingsInvalid(
                "--ca-cert, --fingerprint and --insecure exclude each other.",
                hint="Use one of them.",
            )
        try:
            return Trust(self.ca_cert, self.fingerprint, self.insecure)
        except TrustInvalid as error:
            raise errors.SettingsInvalid(error.detail, hint=error.hint) from None

    def or_ours(self, **flags: Any) -> ServiceTarget:
        """Return this target, or that of the settings, with these flags, if no server is named.

        Raises:
            errors.SettingsInvalid: the settings are invalid, or do not fix the port.
        """
        from sidecar.auth.tls import local_fingerprint

        if self.server is not None:
            return self
        settings = load_settings(**flags)
        if not settings.port:
            raise errors.SettingsInvalid(
                "The setting 'port' is 0 (any free port), so the port of the service is not known.",
                hint="Name its address with --server.",
            )
        server = service_url(settings.host, settings.port, encrypted=settings.encrypted)
        if self.trust.given:
            return replace(self, server=server)
        # In its certificate, under any name.
        return replace(self, server=server, fingerprint=local_fingerprint(settings))

    def with_token(self) -> ServiceTarget:
        """Return the target with the token of the environment or the settings, if none is given."""
        from sidecar.cli.remote_service import client_token

        return replace(self, token=client_token(load_settings(), self.token))

    def answering(self, ready: Mapping[str, Any]) -> ServiceTarget:
        """Return the target of the child service that printed this ready line."""
        from sidecar.config.secret_settings import service_token

        token = ready.get("token") or service_token(load_settings())
        return ServiceTarget(ready["url"], token, fingerprint=ready.get("fingerprint"))


@asynccontextmanager
async def client_of(target: ServiceTarget) -> AsyncGenerator[AsyncClient, None]:
    """Yield a client of the service of ``target``, or else of the settings.

    Raises:
        errors.SidecarError: nothing answers there; in the body, any exception of the client.
    """
    from vibevoice_asr_client import AnswerNotUnderstood, ServiceError

    from sidecar.cli.remote_service import service_at

    target = target.or_ours().with_token()
    async with service_at(target.server or "", target.token, target.trust) as client:
        # Query health once, so that an unreachable service is reported now and not after minutes.
        # An unhealthy service answers 500, a busy one 429: then the request itself is retried, or
        # reports the error.
        with suppress(AnswerNotUnderstood, ServiceError):
            await client.health()
        yield client


@asynccontextmanager
async def own_service(**given: Any) -> AsyncGenerator[Service, None]:
    """Yield a service in this process; it is not opened yet, and closed at the end.

    Raises:
        errors.SidecarError: the settings are invalid, or the engine cannot be used.
    """
    from sidecar.engines.engine_selection import unpack_packaged_model
    from sidecar.server.app import create_service

    settings = load_settings(**given)
    # Errors are printed in one line; the log is shown only if a log level is set.
    keep_quiet(settings)
    unpack_packaged_model(settings)
    service = create_service(settings)
    try:
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def open_backend(
    target: ServiceTarget, options: Mapping[str, str], opens: Opens = open_file, leave: bool = False
) -> AsyncGenerator[TranscribeRecording, None]:
    """Open the function that transcribes: by the service of ``target``, or in this process if it
    names no server. ``leave``: as `remote_service.transcribe_remotely`.

    Raises:
        errors.SidecarError: the service does not answer, or cannot be created.
    """
    if target.server is not None:
        from sidecar.cli.remote_service import transcribe_remotely

        async with client_of(target) as client:
            yield lambda path, report_progress: transcribe_remotely(
                client, path, opens, options, report_progress, leave=leave
            )
        return
    # The engine is loaded for this command only, so at the requested precision.
    precision = options.get("precision")
    wanted = {"precision": parse_precision(precision)} if precision else {}
    async with own_service(**wanted) as service:
        meant = service.options(dict(options))

        @asynccontextmanager
        async def transcribe(
            path: Path, report_progress: ProgressCallback
        ) -> AsyncGenerator[Transcript, None]:
            job = await service.submissions.submit(ANONYMOUS, opens(path), meant, kept=False)
            try:
                async for record in job.watched(None):
                    assert record is not None
                    report_progress(
                        "running", record.progress.audio_s_done, record.progress.audio_s_total
                    )
                yield service.noted(await job.result(), meant)
            finally:
                service.owned.cancel_soon(ANONYMOUS, job.record)  # no effect if it has ended

        await service.open()
        yield transcribe


@dataclass(frozen=True, slots=True)
class LiveBackend:
    """One live session, in this process or of a service: functions that send audio (pcm16), that
    end it, and that yield the events up to the summary. The last raises a `SidecarError` if
    the session ends otherwise."""

    send: Callable[[bytes], Awaitable[None]]
    finish: Callable[[], Awaitable[None]]
    events: Callable[[], AsyncIterator[NumberedEvent]]


@asynccontextmanager
async def open_live_backend(
    target: ServiceTarget, rate: int, options: Mapping[str, Any]
) -> AsyncGenerator[LiveBackend, None]:
    """Open a live session of pcm16 at ``rate`` Hz on the service of ``target``, or in this process
    if it names no server; ``options``: fields of `LiveBeginRequest`.

    Raises:
        errors.SidecarError: the service does not answer, or has no live engine.
    """
    if target.server is not None:
        from sidecar.cli.remote_service import live_events_of

        async with client_of(target) as client, client.live(rate=rate, **options) as live:
            yield LiveBackend(live.send, live.finish, partial(live_events_of, live))
        return
    from sidecar.api.live_messages import LiveBeginRequest

    # The only client is in this process: it does not reconnect, so it needs no grace.
    async with own_service(live_grace=0.0) as service:
        await service.open()
        begin = LiveBeginRequest(type="begin", **options)
        names = begin.names_of_channels
        session = service.live.open(ANONYMOUS, begin.upon(LiveOptions()), channel_names=names)

        async def finish() -> None:
            session.finish()

        try:
            yield LiveBackend(partial(session.send, rate=rate), finish, session.events)
        finally:
            service.live.end(session)


def settings_for_person(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` with a retention of a day, unless a setting says how long results are kept.

    Raises:
        errors.SettingsInvalid: a value is not valid.
    """
    settings = load_settings(**given)
    if settings.job_retention is not None or settings.keeps_jobs:
        return dict(given)
    return {**given, "job_retention": PERSON_RETENTION}


@contextmanager
def start_child_service(
    given: Mapping[str, Any],
) -> Generator[tuple[subprocess.Popen[bytes], dict[str, Any] | None], None, None]:
    """Start a service with the settings ``given``; yield its process and its ready line.

    The ready line is `None` if it could not start, for which it has printed the reason. The service
    ends with the block, and with this process.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    service = subprocess.Popen(
        [
            *own_command("sidecar.main", "-P"),  # not the current folder's
            "serve",
            "--log-level=warning",
            f"--parent-pid={os.getpid()}",  # whatever ends this command ends the service
            *flags,
        ],
        stdout=subprocess.PIPE,
        **_detach_from_terminal(),
    )
    try:
        yield service, waited_for(lambda: _ready_line(service))
    finally:
        service.terminate()
        service.wait()


def running_service(target: ServiceTarget) -> ServiceTarget | None:
    """Return the service that runs where the settings say, or `None` if there is none or it is
    stopping."""
    settings = load_settings()
    other = find_service(settings.host, settings.port) if settings.port else None
    return None if other is None or other.stopping else target.or_ours()


@contextmanager
def started_for(
    target: ServiceTarget, given: Mapping[str, Any]
) -> Generator[ServiceTarget | None, None, None]:
    """Start a service as `start_child_service` does; yield its target, or `None` if it could not
    start."""
    with start_child_service(given) as (service, ready):
        if ready is None:
            service.wait()
        yield target.answering(ready) if ready else None


def waited_for(wait: Callable[[], Result]) -> Result:
    """Return what ``wait`` returns. It waits in a thread, as on Windows Ctrl-C interrupts no wait
    for a process or a pipe."""
    done = Future[Result]()
    threading.Thread(target=lambda: done.set_result(wait()), daemon=True).start()
    while True:
        with suppress(TimeoutError):
            return done.result(INTERRUPT_POLL_S)


def _detach_from_terminal() -> dict[str, Any]:
    """Return the arguments of a process that gets no Ctrl-C from the terminal: the command stops
    the service at its own end."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def _ready_line(service: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """Return the ready line of a service, which may download a model before; `None` if it did not
    start."""
    assert service.stdout is not None
    line = service.stdout.readline()
    ready: dict[str, Any] = json.loads(line) if line else {}
    return ready if ready.get("event") == "ready" else None
