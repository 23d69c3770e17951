"""A job that lives: its audio, who waits for it, and its way to the store.

What is known of it is its record (`jobs.record`), which only the door of the store changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace

from sidecar import errors
from sidecar.audio.audio_decoder import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.jobs.events import (
    Begun,
    Cancelled,
    Change,
    Crashed,
    Failed,
    Failure,
    JobEvent,
    PutBack,
    Reported,
)
from sidecar.jobs.feed import Feed
from sidecar.jobs.log import JobLog
from sidecar.jobs.record import JobRecord, JobState
from sidecar.transcripts.transcript import Event, Transcript


class Job:
    """One recording on its way to a transcript. Only the queue and its runner change it."""

    def __init__(self, source: AudioSource, record: JobRecord) -> None:
        self.source = source
        self.record = record
        """What is known of it now."""
        self.arrived_at = time.monotonic()
        """What is decided goes by this; the record's times are for people."""
        self._store: JobLog | None = None
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        if record.over:
            self._over.set()
        self._tell_over: list[Callable[[], None]] = []

    @property
    def id(self) -> str:
        """Its name."""
        return self.record.id

    @property
    def options(self) -> TranscribeOptions:
        """What was asked for."""
        return self.record.options

    @property
    def facts(self) -> AudioFacts:
        """What its recording is."""
        return self.record.facts

    @property
    def state(self) -> JobState:
        """Where it is in its life."""
        return self.record.state

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.record.over

    @property
    def error(self) -> errors.SidecarError | None:
        """Why there is no transcript, once that is so."""
        return self.record.error.error() if self.record.error is not None else None

    def enter(self, store: JobLog) -> None:
        """From now on it is there, and what happens to it goes through the store."""
        self._store = store
        store.add(self.record)
        store.listen(self._heard, self.id)

    def enter_again(self, store: JobLog) -> None:
        """It is there already: from before the service was started."""
        self._store = store
        store.listen(self._heard, self.id)

    def hear(self, feed: Feed) -> None:
        """Hear what happens to it from a feed; it is changed elsewhere."""
        feed.listen(self._heard, self.id)

    def unhear(self, feed: Feed) -> None:
        """Hear no more of it."""
        feed.unlisten(self._heard, self.id)

    async def written(self) -> None:
        """Wait until what happened to it would outlive the process, if that was promised.

        Raises:
            errors.SidecarError: it cannot be kept; why.
        """
        if self.record.durable and self._store is not None:
            await self._store.written(self.id)

    def when_over(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when it has ended."""
        self._tell_over.append(tell)

    async def over(self) -> None:
        """Wait until it has ended, however."""
        await self._over.wait()

    async def result(self) -> Transcript:
        """Wait for the transcript.

        Raises:
            errors.SidecarError: why there is none.
        """
        await self._over.wait()
        if (error := self.error) is not None:
            raise error
        assert self.record.transcript is not None
        return self.record.transcript

    async def changes(self) -> AsyncIterator[JobRecord]:
        """What is known of it, now and after changes, until it has ended."""
        async for record in self.watched(None):
            assert record is not None
            yield record

    async def watched(self, pause_s: float | None) -> AsyncGenerator[JobRecord | None, None]:
        """The same, and None each time that nothing changed for so long."""
        while not self.ended:
            changed = self._changed  # before the yield: what happens meanwhile is not missed
            yield self.record
            while not changed.is_set():
                try:
                    async with asyncio.timeout(pause_s):
                        await changed.wait()
                except TimeoutError:
                    yield None
        yield self.record

    def begin(self, form: str = "", behind: str = "") -> None:
        """An attempt starts, from what is settled if its engine understands it (``form``);
        ``behind`` the job with this id."""
        anew = any(one.form != form for one in self.record.settled)
        self._append(Begun(anew, behind))

    def take_in(self, event: Event, processing_s: float = 0.0) -> None:
        """The engine reported something; with the transcript it is done."""
        self._append(Reported(event, processing_s))

    def crash(self) -> None:
        """The engine's process died in it."""
        self._append(Crashed())

    def wait_again(
        self, *, counted: bool = False, alone: bool = False, passed: bool = False
    ) -> None:
        """Back to the queue; ``counted``: the attempt was one; ``passed``: it cannot be done
        here."""
        self._append(PutBack(counted, alone, passed))

    def fail(self, error: errors.SidecarError) -> None:
        """It ended without a transcript; one that has ended stays as it is."""
        self._append(Failed(Failure.of(error)))

    def cancel(self) -> None:
        """Somebody ended it; one that has ended stays as it is."""
        self._append(Cancelled())

    def part(self, error: errors.SidecarError) -> None:
        """Whoever waits for it here is told ``error``, whatever became of it elsewhere."""
        self.record = replace(self.record, state=JobState.FAILED, error=Failure.of(error))
        self._over.set()
        self._changed.set()

    def _append(self, change: Change) -> None:
        if self.ended:
            return
        assert self._store is not None, "it was never submitted"
        self.record = self._store.append(self.id, change)
        if self.ended:
            self.source.close()

    def _heard(self, record: JobRecord, event: JobEvent) -> None:
        """The store told of it: who waits may look."""
        self.record = record
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if record.over:
            self._over.set()
            for tell in self._tell_over:
                tell()
            self._tell_over.clear()
