"""Live audio: sound goes up while it is spoken, and words come back. On an event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, AsyncIterator, Mapping, Optional

from vibevoice_asr_client import calls, transport
from vibevoice_asr_client.calls import Answer
from vibevoice_asr_client.codes import SessionOver
from vibevoice_asr_client.errors import (
    CertificateRefused,
    ClientError,
    ConnectionLost,
)
from vibevoice_asr_client.flows import Surroundings
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_stream import LOST_HINT, Stream
from vibevoice_asr_client.tls import HINT, Trust, refusal, unreachable

LONGEST_MESSAGE = 64 << 20
"""Bytes: the summary of ninety minutes is one message."""
PING_S = 10.0
PAUSE_S = 0.02
"""Between two messages: a service takes so many in a minute."""
FAREWELL_S = 5.0


def not_begun(block: str) -> SessionOver:
    """The error of a session that is used outside of ``block``."""
    return SessionOver("The live session has not begun.", hint=f"Begin it with '{block}'.")


class AsyncLive:
    """One live session; an async context manager that takes sound and is an iterator of events.

    Entering waits until the service has taken the session. A connection that is lost is made again,
    what the service has not got is sent again, and events go on behind the last that came, as long
    as the service keeps the session (its ``live_grace``, ``grace_s`` of `began`), and at least for
    the attempts of `Retry`. Left before `Summary` came, the session
    ends with it.

    Raises (on entering, and from each call once it is over):
        ServiceUnreachable: nothing answers, again and again (`ConnectionLost`: no more).
        ServiceError: the service refused; `codes` has a class for each code.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str],
        trust: Trust,
        around: Surroundings,
        options: Mapping[str, Any],
        encoding: str,
        rate: int,
    ) -> None:
        self._url, self._token, self._trust = url, token, trust
        self._stream = Stream(options, encoding, rate, around)
        self._events: asyncio.Queue[Optional[LiveEvent]]
        self._news: asyncio.Event
        self._moved: asyncio.Event
        self._error: Optional[BaseException] = None
        self._task: Optional[asyncio.Task[None]] = None
        self._context: Any = None

    async def __aenter__(self) -> AsyncLive:
        _library()
        loop = asyncio.get_running_loop()
        # Before 3.10 they belong to the loop that they are made in.
        self._events, self._news, self._moved = asyncio.Queue(), asyncio.Event(), asyncio.Event()
        self._context = await loop.run_in_executor(None, self._trust.context, self._url)
        self._task = loop.create_task(self._run())
        while not (self._stream.began or self._task.done()):
            await self._change()
        self._raise()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def session(self) -> str:
        """Its id, by which the service knows it."""
        return self._stream.session

    @property
    def received_s(self) -> float:
        """Seconds of sound that the service has."""
        return self._stream.received_s

    @property
    def heard_s(self) -> float:
        """Seconds of it that were heard."""
        return self._stream.heard_s

    async def send(self, sound: bytes) -> None:
        """More sound: whole samples, mono, little-endian. Waits while very much is on its way.

        Raises:
            ValueError: it is none, or came after `finish`.
        """
        while self._stream.full and not self._over:
            await self._change()
        self._check()
        self._stream.sound(sound)
        self._news.set()

    async def commit(self) -> None:
        """End the turn behind the sound that was sent."""
        self._order("commit")

    async def cancel(self) -> None:
        """Drop the turn, and what was sent and not heard."""
        self._order("cancel")

    async def change(self, /, **options: Any) -> None:
        """Hear on with other options; those that are not named stay."""
        self._order("change", options)

    async def finish(self) -> None:
        """No more sound comes: the rest is told, and then `Summary`."""
        if not (self._stream.finishing or self._stream.ended):
            self._order("finish")

    async def close(self) -> None:
        """Let go. A session that has not told its summary ends without it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._task})

    def __aiter__(self) -> AsyncIterator[LiveEvent]:
        return self

    async def __anext__(self) -> LiveEvent:
        if self._task is None:
            self._check()
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)  # for whoever asks again
            self._raise()
            raise StopAsyncIteration
        return event

    # The shell

    @property
    def _over(self) -> bool:
        return self._task is None or self._task.done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _check(self) -> None:
        """Raise what it ended with, if it did, or that it has not begun."""
        self._raise()
        if self._task is None:
            raise not_begun("async with client.live() as live:")
        if self._over:
            raise SessionOver("The live session is over.", hint="Begin a new one.")

    def _order(self, kind: str, options: Optional[Mapping[str, Any]] = None) -> None:
        self._check()
        self._stream.order(kind, options)
        self._news.set()

    async def _change(self) -> None:
        """Wait until something has come, or all is over."""
        self._moved.clear()
        assert self._task is not None
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait({moved, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()

    async def _run(self) -> None:
        try:
            while not self._stream.ended:
                error = await self._connection()
                if not self._stream.ended:
                    await asyncio.sleep(self._stream.lost(error))
        except Exception as error:
            self._error = error
        finally:
            self._events.put_nowait(None)

    async def _connection(self) -> Optional[ClientError]:
        """One connection, to its end; what was wrong."""
        from websockets.exceptions import InvalidStatus, WebSocketException

        try:
            await self._talk()
        except ClientError as error:
            return error
        except InvalidStatus as error:
            said = error.response
            headers = {name.lower(): value for name, value in said.headers.raw_items()}
            text = (said.body or b"").decode("utf-8", "replace")
            try:
                return Answer(said.status_code, headers, text).error(datetime.now(timezone.utc))
            except ClientError as strange:
                return strange
        except (OSError, asyncio.TimeoutError, WebSocketException, EOFError) as trouble:
            return self._lost(trouble)
        return None

    def _lost(self, trouble: Exception) -> ClientError:
        why = refusal(trouble)
        if why is not None:
            said = f"The certificate at {self._url} is not trusted: {why}."
            return CertificateRefused(said, hint=HINT)
        if self._stream.began:
            return ConnectionLost(
                f"The service at {self._url} broke off the live session, and no attempt to "
                "reconnect succeeded.",
                hint=LOST_HINT,
            )
        return unreachable(self._url, trouble)

    async def _talk(self) -> None:
        from websockets.asyncio.client import connect

        async with connect(
            calls.live(self._url),
            additional_headers=calls.authorization(self._token),
            proxy=None,  # one of the environment is for what is far away
            compression=None,
            max_size=LONGEST_MESSAGE,
            open_timeout=transport.CONNECT_S,
            ping_interval=PING_S,
            ping_timeout=2 * PING_S,
            close_timeout=FAREWELL_S,
            **({} if self._context is None else {"ssl": self._context}),
        ) as socket:
            await socket.send(self._stream.opening())
            sending = asyncio.ensure_future(self._send(socket))
            try:
                async for message in socket:
                    for event in self._stream.took(message):
                        self._events.put_nowait(event)
                    self._moved.set()
                    self._news.set()
                    if self._stream.ended:
                        return
            finally:
                sending.cancel()
                await asyncio.wait({sending})

    async def _send(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):  # who reads is told
            while True:
                self._news.clear()
                piece = self._stream.next()
                if piece is None:
                    await self._news.wait()
                else:
                    await socket.send(piece)
                    await asyncio.sleep(PAUSE_S)  # what comes meanwhile goes in one message


def _library() -> None:
    try:
        import websockets.asyncio.client  # noqa: F401
    except ImportError:
        raise ClientError(
            "Live audio needs the library websockets, 15 or newer.",
            hint="Install it: pip install 'websockets>=15'.",
        ) from None
