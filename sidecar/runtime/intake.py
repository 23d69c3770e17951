"""The first look at a recording, before it takes a place in the queue.

A hostile file is opened in a process of its own: not in the service, which must live, and not in
the engine's, whose running job is somebody else's. So a bad file gets its answer at once, however
long the queue is.
"""

from __future__ import annotations

import asyncio

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.runtime.worker import Worker, WorkerDied

PROBE_TIMEOUT_S = 14.0
IDLE_S = 60.0


class Intake:
    """Owns the process that probes; started at the first file, ended after a minute without one."""

    def __init__(self, max_audio_s: float) -> None:
        self._max_audio_s = max_audio_s
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def probe(self, source: AudioSource) -> AudioFacts:
        """What the recording is.

        Raises:
            errors.BadAudio: it cannot be transcribed.
        """
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            if self._worker is None or not self._worker.alive:
                await self._drop()
                self._worker = Worker("intake")
            worker = self._worker
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    facts = await worker.ask("probe", source.fd, max_s=self._max_audio_s)
            except TimeoutError:
                await self._drop()
                raise errors.AudioDecodeTimeout() from None
            except WorkerDied:
                await self._drop()
                raise errors.AudioUndecodable(
                    "The audio broke the decoder that looked at it."
                ) from None
            finally:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(IDLE_S, self._idled)
        return AudioFacts.from_wire(facts)

    async def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        if self._closing is not None:
            await self._closing
        await self._drop()

    def _idled(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self._close_idle())

    async def _close_idle(self) -> None:
        async with self._turn:
            await self._drop()
        self._closing = None

    async def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()
