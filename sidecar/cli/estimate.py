"""Command `estimate`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import EVERYBODY
from sidecar.cli.audio_input import open_file
from sidecar.cli.backends import Where
from sidecar.cli.output import complain, keep_quiet, shown


def run(file: Path, precision: str | None, where: Where) -> int:
    """Print the estimate in a sentence; the exit code is 1 where the recording does not fit."""
    options = {"precision": precision} if precision is not None else {}
    try:
        source = open_file(file)
        ask = _from_server(where, source, options) if where.server else _from_here(source, options)
        fits, sentence = asyncio.run(ask)
    except errors.SidecarError as error:
        return complain(error, about=str(file))
    print(f"{shown(str(file))}: {sentence}")
    return 0 if fits else 1


async def _from_server(
    where: Where, source: AudioSource, options: dict[str, str]
) -> tuple[bool, str]:
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.remote_service import service_at
    from sidecar.config.settings import load_settings

    token = where.token or for_clients(load_settings())
    with source, os.fdopen(os.dup(source.fd), "rb") as file:
        async with service_at(where.server or "", token, where.trust) as client:
            answer = await client.estimate(file, **options)
    return answer["fits"], answer["sentence"]


async def _from_here(source: AudioSource, options: dict[str, str]) -> tuple[bool, str]:
    from sidecar.config.settings import load_settings
    from sidecar.server.app import create_service

    settings = load_settings()
    keep_quiet(settings)
    with source:
        service = create_service(settings)  # the engine is not loaded for this
        try:
            forecast = service.forecast(
                await service.submissions.measure(EVERYBODY, source), service.options(options)
            )
        finally:
            await service.close()
    return forecast.fits, forecast.sentence
