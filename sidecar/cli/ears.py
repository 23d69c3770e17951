"""Who hears live for the command line: a service elsewhere, or one of this command's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.cli.backends import Where
from sidecar.cli.said import keep_quiet
from sidecar.sessions.session import Session
from sidecar.sessions.told import Numbered
from sidecar.speech.live import LiveOptions

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncLive


class Ear(Protocol):
    """One live session."""

    async def send(self, sound: bytes) -> None:
        """More of it: mono pcm16 at the rate that was agreed."""

    async def finish(self) -> None:
        """No more comes."""

    def events(self) -> AsyncIterator[Numbered]:
        """What is said, to the summary; a `SidecarError` where it ends otherwise."""


def ear(where: Where, rate: int, options: Mapping[str, Any]) -> AbstractAsyncContextManager[Ear]:
    """By the service of ``where``, or without one; ``options`` are fields of `LiveOptions`.

    Raises:
        errors.SidecarError: it does not answer, or does not hear live.
    """
    if where.server is not None:
        return _with_server(where, where.server, rate, options)
    return _without_server(rate, options)


class _Far:
    def __init__(self, live: AsyncLive) -> None:
        self._live = live

    async def send(self, sound: bytes) -> None:
        from sidecar.cli.remote import in_our_words

        with in_our_words():
            await self._live.send(sound)

    async def finish(self) -> None:
        from sidecar.cli.remote import in_our_words

        with in_our_words():
            await self._live.finish()

    async def events(self) -> AsyncIterator[Numbered]:
        from sidecar.cli.remote import in_our_words, live_event_of

        with in_our_words():
            async for said in self._live:
                yield Numbered(said.number, live_event_of(said))


@asynccontextmanager
async def _with_server(
    where: Where, url: str, rate: int, options: Mapping[str, Any]
) -> AsyncGenerator[Ear, None]:
    from sidecar.access.credentials import for_clients
    from sidecar.cli.remote import service_at
    from sidecar.settings import load_settings

    token = where.token or for_clients(load_settings())
    async with service_at(url, token, where.trust) as client:
        await client.health()  # nobody there is said now, not after all attempts
        async with client.live(rate=rate, **options) as live:
            yield _Far(live)


class _Near:
    def __init__(self, session: Session, rate: int) -> None:
        self._session, self._rate = session, rate

    async def send(self, sound: bytes) -> None:
        await self._session.send(sound, rate=self._rate)

    async def finish(self) -> None:
        self._session.finish()

    def events(self) -> AsyncIterator[Numbered]:
        return self._session.events()


@asynccontextmanager
async def _without_server(rate: int, options: Mapping[str, Any]) -> AsyncGenerator[Ear, None]:
    from sidecar.access.identity import EVERYBODY
    from sidecar.app import create_service
    from sidecar.settings import load_settings

    # There is one client, and it is here: nobody is waited for, and none is too slow.
    settings = load_settings(live_grace=0.0)
    keep_quiet(settings)
    service = create_service(settings)
    await service.open()
    try:
        session = service.live.open(EVERYBODY, LiveOptions(**options))
        try:
            yield _Near(session, rate)
        finally:
            service.live.end(session)
    finally:
        await service.close()
