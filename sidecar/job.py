"""One recording on its way to a transcript: where it is, what is known, who waits for it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from enum import StrEnum

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.engine import TranscribeOptions
from sidecar.transcript import Event, Finished, Progress, Segment, SegmentReady, Transcript


class JobState(StrEnum):
    """Where a job is in its life; the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class Job:
    """One recording on its way to a transcript. Only the queue changes it."""

    def __init__(self, source: AudioSource, facts: AudioFacts, options: TranscribeOptions) -> None:
        self.id = uuid.uuid4().hex
        self.options = options
        self.facts = facts
        self.source = source
        self.state = JobState.QUEUED
        self.progress = Progress(0.0, facts.total_s)
        self.segments: list[Segment] = []
        self.transcript: Transcript | None = None
        self.error: errors.SidecarError | None = None
        self.arrived_at = time.monotonic()
        self.attempts = 0
        self.alone = False
        """Whether it runs in nobody's company; decided once something went wrong in one."""
        self.processing_s = 0.0
        self.ended_at: float | None = None
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    async def result(self) -> Transcript:
        """Wait for the transcript.

        Raises:
            errors.SidecarError: why there is none.
        """
        await self._over.wait()
        if self.error is not None:
            raise self.error
        assert self.transcript is not None
        return self.transcript

    async def changes(self) -> AsyncIterator[Job]:
        """This job, now and after every change, until it has ended."""
        while not self.ended:
            changed = self._changed  # before the yield: what happens meanwhile is not missed
            yield self
            await changed.wait()
        yield self

    def _publish(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def apply(self, event: Event) -> None:
        """Take in what the engine reported."""
        match event:
            case Progress():
                self.progress = event
            case SegmentReady(index, segment):
                self.segments[index:] = [segment, *self.segments[index + 1 :]]
            case Finished(transcript):
                self.transcript = transcript
                self.segments = list(transcript.segments)
                self.progress = Progress(transcript.duration, transcript.duration)
        self._publish()

    def begin(self) -> None:
        """An attempt starts, from nothing."""
        self.state = JobState.RUNNING
        self.attempts += 1
        self.segments = []
        self.progress = Progress(0.0, self.facts.total_s)
        self._publish()

    def wait_again(self) -> None:
        """Back to the queue, as if nothing had happened."""
        self.state = JobState.QUEUED
        self.attempts = 0
        self.segments = []
        self.progress = Progress(0.0, self.facts.total_s)
        self._publish()

    def end(self, state: JobState, error: errors.SidecarError | None = None) -> None:
        """The job is over; its audio is let go of."""
        if self.ended:
            return
        self.state, self.error, self.ended_at = state, error, time.monotonic()
        self.source.close()
        self._over.set()
        self._publish()
