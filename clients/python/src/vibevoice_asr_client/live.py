"""Live audio for programs that wait: a session that runs on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import wave
from contextlib import contextmanager, suppress
from typing import Any, Coroutine, Iterator, TypeVar

from vibevoice_asr_client.async_live import AsyncLive
from vibevoice_asr_client.errors import (
    ClientError,
)
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_recording import carry

Value = TypeVar("Value")


class Live:
    """`AsyncLive` for programs that wait: a context manager that takes sound and is an iterator of
    events. One thread may send while another iterates."""

    def __init__(self, live: AsyncLive) -> None:
        self._live = live
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="vibevoice live", daemon=True
        )

    def __enter__(self) -> Live:
        self._thread.start()
        try:
            self._do(self._live.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> str:
        """Its id, by which the service knows it."""
        return self._live.session

    @property
    def received_s(self) -> float:
        """Seconds of sound that the service has."""
        return self._live.received_s

    @property
    def heard_s(self) -> float:
        """Seconds of it that were heard."""
        return self._live.heard_s

    def send(self, sound: bytes) -> None:
        """As `AsyncLive.send`."""
        self._do(self._live.send(sound))

    def commit(self) -> None:
        """As `AsyncLive.commit`."""
        self._do(self._live.commit())

    def cancel(self) -> None:
        """As `AsyncLive.cancel`."""
        self._do(self._live.cancel())

    def change(self, **options: Any) -> None:
        """As `AsyncLive.change`."""
        self._do(self._live.change(**options))

    def finish(self) -> None:
        """As `AsyncLive.finish`."""
        self._do(self._live.finish())

    @contextmanager
    def carrying(self, recording: wave.Wave_read, pace: float) -> Iterator[None]:
        """`carry` beside whatever is done here."""
        work = carry(self._live, recording, pace)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            yield
        finally:
            future.cancel()
            with suppress(concurrent.futures.CancelledError, ClientError):
                future.result()

    def close(self) -> None:
        """Let go, as `AsyncLive.close` does."""
        if self._loop.is_closed():
            return
        self._do(self._live.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __iter__(self) -> Iterator[LiveEvent]:
        return self

    def __next__(self) -> LiveEvent:
        try:
            return self._do(self._live.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        if self._loop.is_closed():
            work.close()
            self._live._check()
        future: concurrent.futures.Future[Value] = asyncio.run_coroutine_threadsafe(
            work, self._loop
        )
        try:
            return future.result()
        except BaseException:  # Ctrl-C while it waits
            future.cancel()
            raise
