"""One recording on its way to a transcript: where it is, what is known, who waits for it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from enum import StrEnum

from sidecar import errors
from sidecar.access.identity import EVERYBODY
from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource
from sidecar.speech.engine import TranscribeOptions
from sidecar.speech.transcript import Event, Finished, Progress, Segment, SegmentReady, Transcript


class JobState(StrEnum):
    """Where a job is in its life; the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class Job:
    """One recording on its way to a transcript. Only the queue changes it.

    ``kept``: whether its result is fetched later; that of others is for who waits for it, and
    nobody else learns of them.
    """

    def __init__(
        self,
        source: AudioSource,
        facts: AudioFacts,
        options: TranscribeOptions,
        *,
        kept: bool = True,
        owner: str = EVERYBODY.owner,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.kept = kept
        self.owner = owner
        self.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        """For people; what is decided goes by ``arrived_at``."""
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
        """How often the engine's process died in it, and the attempt that runs."""
        self.alone = False
        """Whether it runs in nobody's company; decided once something went wrong in one."""
        self.processing_s = 0.0
        self.ended_at: float | None = None
        self.answer: bytes | None = None
        """What a wire made of it once it had ended."""
        self.fetched = asyncio.Event()
        """Whether somebody has had its result."""
        self._at_end: list[Callable[[Job], None]] = []
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    def when_ended(self, tell: Callable[[Job], None]) -> None:
        """Have ``tell`` called at the moment at which it ends."""
        self._at_end.append(tell)

    async def over(self) -> None:
        """Wait until it has ended, however."""
        await self._over.wait()

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
        self.attempts += 1
        self._start_over(JobState.RUNNING)

    def wait_again(self, *, counted: bool = False) -> None:
        """Back to the queue, as if nothing had happened; ``counted``: the attempt was one."""
        self.attempts -= not counted
        self._start_over(JobState.QUEUED)

    def _start_over(self, state: JobState) -> None:
        self.state = state
        self.segments, self.transcript = [], None
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
        for tell in self._at_end:
            tell(self)
