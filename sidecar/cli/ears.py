"""Who hears live for the command line: a service elsewhere, or one of this command's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.cli.backends import Where
from sidecar.cli.said import keep_quiet, say
from sidecar.interfaces.live import Encoding, LiveOptions
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.told import Numbered

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncLive


class Ear(Protocol):
    """One live session."""

    async def send(self, sound: bytes) -> None:
        """More of it: mono, in the form that was agreed."""

    async def finish(self) -> None:
        """No more comes."""

    async def commit(self) -> None:
        """The turn ends here."""

    async def cancel(self) -> None:
        """The turn is dropped."""

    async def change(self, options: Mapping[str, Any]) -> None:
        """It is heard on with these."""

    def events(self) -> AsyncIterator[Numbered]:
        """What is said, to the summary; a `SidecarError` where it ends otherwise."""


def ear(
    where: Where,
    rate: int,
    options: Mapping[str, Any],
    encoding: Encoding = Encoding.PCM16,
) -> AbstractAsyncContextManager[Ear]:
    """By the service of ``where``, or without one; ``options`` are fields of `LiveOptions`.

    Raises:
        errors.SidecarError: it does not answer, or does not hear live.
    """
    if where.server is not None:
        return _with_server(where, where.server, rate, options, encoding)
    return _without_server(rate, options, encoding)


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

    async def commit(self) -> None:
        from sidecar.cli.remote import in_our_words

        with in_our_words():
            await self._live.commit()

    async def cancel(self) -> None:
        from sidecar.cli.remote import in_our_words

        with in_our_words():
            await self._live.cancel()

    async def change(self, options: Mapping[str, Any]) -> None:
        from sidecar.cli.remote import in_our_words

        with in_our_words():
            await self._live.change(**options)

    async def events(self) -> AsyncIterator[Numbered]:
        from sidecar.cli.remote import in_our_words, live_event_of

        with in_our_words():
            async for said in self._live:
                yield Numbered(said.number, live_event_of(said))


@asynccontextmanager
async def _with_server(
    where: Where, url: str, rate: int, options: Mapping[str, Any], encoding: Encoding
) -> AsyncGenerator[Ear, None]:
    from sidecar.auth.credentials import for_clients
    from sidecar.cli.remote import service_at
    from sidecar.config.settings import load_settings

    token = where.token or for_clients(load_settings())
    async with service_at(url, token, where.trust) as client:
        await client.health()  # nobody there is said now, not after all attempts
        async with client.live(rate=rate, encoding=encoding.value, **options) as live:
            if live.captured:
                say("this service writes what is said to files, for debugging.")
            yield _Far(live)


def live_options(given: Mapping[str, Any]) -> LiveOptions:
    """As plain values have them, those that are left out as usual."""
    return LiveOptions.from_wire({**LiveOptions().to_wire(), **given})


class _Near:
    def __init__(self, session: Session, rate: int, encoding: Encoding) -> None:
        self._session, self._rate, self._encoding = session, rate, encoding

    async def send(self, sound: bytes) -> None:
        await self._session.send(sound, self._encoding, self._rate)

    async def finish(self) -> None:
        self._session.finish()

    async def commit(self) -> None:
        self._session.commit()

    async def cancel(self) -> None:
        self._session.forget()

    async def change(self, options: Mapping[str, Any]) -> None:
        self._session.change(live_options({**self._session.options.to_wire(), **options}))

    def events(self) -> AsyncIterator[Numbered]:
        return self._session.events()


@asynccontextmanager
async def _without_server(
    rate: int, options: Mapping[str, Any], encoding: Encoding
) -> AsyncGenerator[Ear, None]:
    from sidecar.auth.identity import EVERYBODY
    from sidecar.config.settings import load_settings
    from sidecar.server.app import create_service

    # There is one client, and it is here: nobody is waited for, none is too slow, and none is to
    # be looked into.
    settings = load_settings(live_grace=0.0, capture=False)
    keep_quiet(settings)
    service = create_service(settings)
    await service.open()
    try:
        session = service.live.open(EVERYBODY, live_options(options))
        try:
            yield _Near(session, rate, encoding)
        finally:
            service.live.end(session)
    finally:
        await service.close()
