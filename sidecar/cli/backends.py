"""Who transcribes for the command line: a service elsewhere, or one of this command's own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.cli.recordings import Opens, key_of, open_file
from sidecar.cli.said import keep_quiet
from sidecar.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient, Trust
    from vibevoice_asr_client.models import Progress as Said

Told = Callable[[str, float, float | None], None]
"""Told how far a recording is: the stage, how much of it is done, and of how much."""
Transcribe = Callable[[Path, Told], Awaitable[Transcript]]
"""A recording's transcript, or a `SidecarError`; left early, its job ends, or waits to be found."""
SENDINGS = 3
"""How often one recording is sent to a service that forgets its job, as one does that is started
anew."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which service, and what it wants to see. ``leave``: jobs go on where a command is ended, and
    the next one finds them."""

    server: str | None = None
    token: str | None = None
    trust: Trust | None = None
    leave: bool = False


def backend(
    where: Where, options: Mapping[str, str], opens: Opens = open_file
) -> AbstractAsyncContextManager[Transcribe]:
    """By the service of ``where``, or without one.

    Raises:
        errors.SidecarError: it does not answer, or cannot be.
    """
    if where.server is not None:
        return _with_server(where, where.server, options, opens)
    return _without_server(options, opens)


@asynccontextmanager
async def _with_server(
    where: Where, url: str, options: Mapping[str, str], opens: Opens
) -> AsyncGenerator[Transcribe, None]:
    from sidecar.auth.credentials import for_clients
    from sidecar.cli.remote import in_our_words, service_at
    from sidecar.config.settings import load_settings

    token = where.token or for_clients(load_settings())
    async with service_at(url, token, where.trust) as client:
        await client.health()  # nobody there is one line, not one per file

        async def transcribe(path: Path, told: Told) -> Transcript:
            with opens(path) as source, in_our_words():
                found_again = where.leave and not source.spooled
                key = key_of(path, source, options) if found_again else None
                return await _sent(client, source.fd, key, options, told)

        yield transcribe


async def _sent(
    client: AsyncClient, fd: int, key: str | None, options: Mapping[str, str], told: Told
) -> Transcript:
    from vibevoice_asr_client import NotFound

    for _ in range(1, SENDINGS):
        with suppress(NotFound):
            return await _once(client, fd, key, options, told)
    return await _once(client, fd, key, options, told)


async def _once(
    client: AsyncClient, fd: int, key: str | None, options: Mapping[str, str], told: Told
) -> Transcript:
    from sidecar.cli.remote import transcript_of

    def on_progress(said: Said) -> None:
        told(said.stage, said.done, said.total)

    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        job = await client.submit(
            file,
            name="recording",  # its own is nobody's business
            key=key,
            on_progress=on_progress,
            **options,
        )
    over = key is None
    try:
        job = await client.wait(job.id, on_progress)
        over = True
        if job.error is not None:
            raise job.error
        return transcript_of(await client.transcript(job.id))
    finally:
        if over:
            with suppress(Exception):  # it is forgotten by itself, too
                await client.cancel(job.id)


@asynccontextmanager
async def _without_server(
    options: Mapping[str, str], opens: Opens
) -> AsyncGenerator[Transcribe, None]:
    from sidecar.auth.identity import EVERYBODY
    from sidecar.config.settings import load_settings
    from sidecar.interfaces.options import parse_precision
    from sidecar.server.app import create_service

    # The engine is loaded for this command alone, so at the precision that it asks for.
    precision = options.get("precision")
    wanted = {"precision": parse_precision(precision)} if precision else {}
    settings = load_settings(**wanted)
    # An error is said in one line of ours. Who wants the log asks for it.
    keep_quiet(settings)
    service = create_service(settings)
    meant = service.options(dict(options))

    async def transcribe(path: Path, told: Told) -> Transcript:
        job = await service.submissions.submit(EVERYBODY, opens(path), meant, kept=False)
        try:
            async for record in job.changes():
                told("running", record.progress.audio_s_done, record.progress.audio_s_total)
            return service.noted(await job.result(), meant)
        finally:
            service.owned.hang_up(EVERYBODY, job.record)  # one that has ended stays as it is

    await service.open()
    try:
        yield transcribe
    finally:
        await service.close()
