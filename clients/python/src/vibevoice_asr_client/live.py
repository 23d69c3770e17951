"""Live audio for programs that wait: a session that runs on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import wave
from contextlib import contextmanager, suppress
from typing import Any, Callable, Coroutine, Iterator, TypeVar

from vibevoice_asr_client.async_live import AsyncLive, not_begun
from vibevoice_asr_client.blocking import blocking
from vibevoice_asr_client.errors import ClientError
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_recording import carry

Value = TypeVar("Value")


class Live:
    """`AsyncLive` for programs that wait: a context manager that takes sound and is an iterator of
    events. One thread may send while another iterates."""

    def __init__(self, live: AsyncLive) -> None:
        self._inner = live
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="vibevoice live", daemon=True
        )

    def __enter__(self) -> Live:
        self._thread.start()
        try:
            self._do(self._inner.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> str:
        """Its id, by which the service knows it."""
        return self._inner.session

    @property
    def received_s(self) -> float:
        """Seconds of sound that the service has."""
        return self._inner.received_s

    @property
    def heard_s(self) -> float:
        """Seconds of it that were heard."""
        return self._inner.heard_s

    send = blocking(AsyncLive.send)
    commit = blocking(AsyncLive.commit)
    cancel = blocking(AsyncLive.cancel)
    change = blocking(AsyncLive.change)
    finish = blocking(AsyncLive.finish)

    @contextmanager
    def carrying(self, recording: wave.Wave_read, pace: float) -> Iterator[Callable[[], None]]:
        """`carry` beside whatever is done here; what it gives waits for its end, and raises why
        the recording could not be read."""
        work = carry(self._inner, recording, pace)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)

        def join() -> None:
            with suppress(ClientError):
                future.result()

        try:
            yield join
        finally:
            future.cancel()
            with suppress(concurrent.futures.CancelledError, ClientError):
                future.result()

    def close(self) -> None:
        """Let go, as `AsyncLive.close` does."""
        if self._loop.is_closed():
            return
        if self._thread.ident is None:  # it was never begun
            self._loop.close()
            return
        self._do(self._inner.close())
        self._do(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __iter__(self) -> Iterator[LiveEvent]:
        return self

    def __next__(self) -> LiveEvent:
        try:
            return self._do(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        if self._thread.ident is None:  # nothing would run the work
            work.close()
            raise not_begun("with client.live() as live:")
        if self._loop.is_closed():
            work.close()
            self._inner._check()
        future: concurrent.futures.Future[Value] = asyncio.run_coroutine_threadsafe(
            work, self._loop
        )
        try:
            return future.result()
        except BaseException:  # Ctrl-C while it waits
            future.cancel()
            raise
