"""Jobs, and their attempts on an engine."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from sidecar import errors
from sidecar.audio.audio_source import AudioSource, OpenUploadRef
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs import job_record
from sidecar.jobs.attempt_end import FOR_ALONE, REQUEUED, AttemptEnd, attempt_end
from sidecar.jobs.faults import PERSISTENCE, Breakers, fault_of, passes
from sidecar.jobs.job_event_log import JobEventFeed, JobEventLog
from sidecar.jobs.job_record import JobChange, JobEvent, JobRecord, JobState
from sidecar.transcripts import transcript
from sidecar.workers.engine import Engine
from sidecar.workers.engine_lease import RecordingRequest
from sidecar.workers.worker_process import WorkerDied

log = logging.getLogger(__name__)

RESTARTED_NOTICE = transcript.Notice(
    "started_again",
    "The service or its engine stopped during the job, and this engine had to start again.",
)


OpenRecording = Callable[[JobRecord], Awaitable[AudioSource]]
"""Open the recording of a job."""


class Job:
    """Recording that becomes a transcript. Only the queue and its runs change it."""

    shared = False
    """Whether other nodes may do it."""

    def __init__(
        self,
        source: AudioSource | None,
        record: JobRecord,
        open_recording: OpenRecording | None = None,
    ) -> None:
        """``source``: its recording; None: ``open_recording`` opens it before the job's turn. That
        also opens it anew after a fault of its storage."""
        self.source, self._open_recording = source, open_recording
        self.record = record
        self.arrived_at = time.monotonic()
        """Arrival on the monotonic clock, for decisions; the record has
        wall-clock times for users."""
        self.not_before = 0.0
        """When it may be tried again, on the monotonic clock."""
        self.vain_attempts = 0
        """Attempts after each of which it had to wait."""
        self._event_log: JobEventLog | None = None
        self._before_end: JobRecord | None = None
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        if record.over:
            self._over.set()
        self._end_callbacks: list[Callable[[], None]] = []
        self.worked_s = 0.0
        """Seconds for which its last run had the engine, in all attempts."""

    @property
    def id(self) -> str:
        """Return the id of the job."""
        return self.record.id

    @property
    def state(self) -> JobState:
        """Return the state of the job."""
        return self.record.state

    @property
    def ended(self) -> bool:
        """Return whether the job has ended."""
        return self.record.over

    @property
    def error(self) -> errors.SidecarError | None:
        """Return the error of the job; None if it has none."""
        return self.record.error.error() if self.record.error is not None else None

    def enter(self, event_log: JobEventLog, *, known: bool = False) -> None:
        """Add the job to a log, which gets all its changes from now on. ``known``: the log
        already has it, from before the service's start."""
        self._event_log = event_log
        if not known:
            event_log.add(self.record)
        event_log.listen(self._on_event, self.id)

    async def open(self) -> None:
        """Open the recording; raise what opening it raises."""
        assert self._open_recording is not None
        self.source = await self._open_recording(self.record)

    @property
    def reopens(self) -> bool:
        """Return whether the recording can be opened anew. An upload that only this process has
        has no name: its descriptor is all there is."""
        named = not isinstance(self.record.audio, OpenUploadRef)
        return named and self._open_recording is not None

    def put_down(self) -> AudioSource | None:
        """Return the recording, which the caller closes: it is to be opened anew."""
        source, self.source = self.source, None
        return source

    def close(self) -> None:
        """Close the recording."""
        if self.source is not None:
            self.source.close()

    def not_opened(self, error: errors.SidecarError) -> None:
        """End the job if its recording cannot be opened for an error that does not pass."""
        if not passes(error):
            self.fail(error)

    def follow(self, feed: JobEventFeed) -> None:
        """Follow the job's events from a feed; it is changed elsewhere."""
        feed.listen(self._on_event, self.id)

    def unfollow(self, feed: JobEventFeed) -> None:
        """Stop following the job's events."""
        feed.unlisten(self._on_event, self.id)

    async def written(self) -> None:
        """Wait until all changes of the job are persisted, if it is durable.

        Raises:
            errors.SidecarError: they cannot be persisted; the error says why.
        """
        if self.record.durable and self._event_log is not None:
            await self._event_log.written(self.id)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the job has ended."""
        self._end_callbacks.append(callback)

    async def over(self) -> None:
        """Wait until the job has ended, whatever its state."""
        await self._over.wait()

    async def result(self) -> transcript.Transcript:
        """Return the transcript when the job is done.

        Raises:
            errors.SidecarError: why there is no transcript.
        """
        await self._over.wait()
        if self.record.error is not None:
            raise self.record.error.error()
        assert self.record.transcript is not None
        return self.record.transcript

    async def watched(self, pause_s: float | None) -> AsyncGenerator[JobRecord | None, None]:
        """Yield the job's record, now and after changes, until it has ended, and None each time
        that nothing changed for ``pause_s``. The last record before the end, with all that was
        reported, is never left out."""
        while not self.ended:
            changed = self._changed  # read before the yield, so that no change is missed meanwhile
            yield self.record
            while not changed.is_set():
                try:
                    async with asyncio.timeout(pause_s):
                        await changed.wait()
                except TimeoutError:
                    yield None
        if self._before_end is not None:
            yield self._before_end
        yield self.record

    def begin(self) -> None:
        """Start an attempt."""
        self._append(job_record.StartedChange())

    def resume(self, form: str) -> Sequence[transcript.ResumePoint]:
        """Return the resume points, which the attempt goes on from; if they are not of this
        ``form``, start it anew without them."""
        points = self.record.resume_points
        if all(one.form == form for one in points):
            return points
        self._append(job_record.StartedChange(anew=True))
        return ()

    def apply_report(self, event: transcript.TranscriptionEvent, processing_s: float = 0.0) -> None:
        """Apply a report of the engine; a transcript ends the job."""
        self._append(job_record.ReportedChange(event, processing_s))

    def refuse(self, error: errors.SidecarError | None) -> None:
        """Record why the waiting job cannot run with the model of the moment; None: it can."""
        failure = None if error is None else job_record.JobFailure.of(error)
        self._append(job_record.UnschedulableChange(failure))

    def end_attempt(self, end: AttemptEnd) -> None:
        """Apply the end of an attempt; a job that has ended does not change."""
        for change in end.changes:
            self._append(change)

    def fail(self, error: errors.SidecarError) -> None:
        """End the job without a transcript; a job that has ended does not change."""
        self._append(job_record.FailedChange(job_record.JobFailure.of(error)))

    def cancel(self) -> None:
        """Cancel the job; a job that has ended does not change."""
        self._append(job_record.CancelledChange())

    def fail_clients(self, error: errors.SidecarError) -> None:
        """Fail the job's clients here with ``error``, whatever becomes of it elsewhere."""
        failure = job_record.JobFailure.of(error)
        self.record = replace(self.record, state=JobState.FAILED, error=failure)
        self._over.set()
        self._changed.set()

    def _append(self, change: JobChange) -> None:
        if not self.ended:
            assert self._event_log is not None, "it was never submitted"
            self._event_log.append(self.id, change)

    def _on_event(self, record: JobRecord, event: JobEvent) -> None:
        """Update the record and wake up waiting tasks."""
        if record.over:
            self._before_end = self.record
        self.record = record
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if record.over:
            self.close()
            self._over.set()
            for callback in self._end_callbacks:
                callback()
            self._end_callbacks.clear()


OptionsPlanner = Callable[[Job, Precision], Awaitable[TranscribeOptions]]
"""Planner that returns a job's options with the memory plan at its begin."""


class JobUnsuited(Exception):
    """The job cannot have the engine as it is now: the model was changed as the job began, and
    cannot do what it was accepted for, or it needs the engine for itself. ``end``: of its
    attempt."""

    def __init__(self, end: AttemptEnd = REQUEUED) -> None:
        super().__init__()
        self.end = end


class JobRun:
    """Run of a job on the engine: one attempt."""

    def __init__(
        self,
        job: Job,
        engine: Engine[EngineSpec],
        plan: OptionsPlanner,
        max_s: float,
        breakers: Breakers,
    ) -> None:
        """``breakers``: closed by what works."""
        self.job = job
        self._engine, self._breakers = engine, breakers
        self._plan = plan
        self._max_s = max_s
        self._task = asyncio.current_task()
        job.worked_s = 0.0
        self._begun = time.monotonic()
        self._vain_s = 0.0
        """Seconds for which the attempt kept the engine from others since it last reported."""
        self._alone = False
        """Whether it runs beside no other."""
        self._process = 0
        """Number of the load of the engine's process."""
        self.reported = False
        """Whether the engine has reported something."""

    async def work(self) -> AttemptEnd:
        """Run the job in this task, in which the run was made: a task of its own would cost each
        job some turns of a busy event loop. If the run was cancelled, this returns."""
        try:
            await self._attempt()
            end = AttemptEnd()
        except JobUnsuited as error:
            end = error.end
        except asyncio.CancelledError:
            end = REQUEUED
        except Exception as error:
            end = self._end_after(error)
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()
        self.job.end_attempt(end)
        return end

    def stop(self) -> None:
        """Release the engine; a job that has not ended is queued again. If the run itself is the
        caller, it sees that its job has ended."""
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()

    def _end_after(self, error: Exception) -> AttemptEnd:
        job = self.job
        if isinstance(error, errors.AudioLost) and job.reopens:  # perhaps only the descriptor is
            error = errors.StorageUnreachable(error.detail)
        fault = fault_of(error)
        if isinstance(error, WorkerDied):
            log.error("the worker process died in job %s", job.id)
        elif fault is Fault.UNKNOWN:
            log.exception("internal error in job %s", job.id)
        spec, shared = self._engine.model.spec, job.shared
        beside = self._engine.sharing.concurrent and not self._alone and not spec.remote
        if isinstance(error, (errors.GpuOutOfMemory, errors.OutOfMemory)) and beside:
            return FOR_ALONE
        loading = fault is Fault.ENGINE and not self.reported
        vain_s = time.monotonic() - self._begun if loading else self._vain_s
        died = isinstance(error, WorkerDied) and not error.reading
        late = type(error) is errors.EngineFailed and self.reported  # its process goes on
        alike = (died or late) and self._breakers.crashed(job.id, self._process if died else job.id)
        about = {"shared": shared, "late": late, "alike": alike, "planned": spec.planned}
        return attempt_end(job.record, error, vain_s=vain_s, **about)

    async def _attempt(self) -> None:
        job = self.job
        job.begin()
        await job.written()  # so that the attempt counts if the service dies in it
        if job.record.durable and self._breakers.open:
            self._breakers.succeeded(PERSISTENCE)
        if job.ended:  # elsewhere, as it began here
            return
        await self._transcribe()
        if not job.ended:
            raise errors.EngineFailed("The engine returned no transcript.")

    async def _transcribe(self) -> None:
        """Transcribe the job in one lease of the engine, beside other runs.

        Raises:
            JobUnsuited: its plan needs a lease for itself.
        """
        job = self.job
        remote = self._engine.model.spec.remote
        self._alone = alone = job.record.ends_worker if remote else job.record.alone
        beside = self._engine.sharing.concurrent and not alone
        lease = self._engine.lease(job.record.options.precision, job.arrived_at, alone)
        async with lease as engine:
            self._process = self._engine.loader.loads
            since = reported = time.monotonic()
            plan = await self._plan(job, engine.precision)
            shares = self._engine.model.spec.planned and self._engine.sharing.concurrent
            if shares and not (alone or plan.memory.places):
                raise JobUnsuited(FOR_ALONE)
            if job.ended:  # while the engine loaded
                return
            form = self._engine.model.resume_form(plan.memory) if job.record.durable else ""
            points = job.resume(form) if job.record.resume_points else ()
            assert job.source is not None, "it is not due before"
            about = job.source, job.record.audio_info, plan, points if form else None
            events = engine.transcribe(RecordingRequest(*about), self._max_s)
            kept: transcript.ResumePoint | None = None
            try:
                async with aclosing(events):
                    async for event in events:
                        reported = time.monotonic()
                        if isinstance(event, transcript.ResumePoint) and event.keeps_diarization:
                            kept = event  # only with a transcript: the attempt may still fail
                            continue
                        if isinstance(event, transcript.ResumePoint):
                            event = replace(event, form=form)
                        if isinstance(event, transcript.Finished):
                            if kept is not None:
                                job.apply_report(kept, time.monotonic() - since)
                            if plan.hotwords and self._engine.model.spec.takes_hotwords:
                                told = replace(event.transcript, hotwords=plan.hotwords)
                                event = transcript.Finished(told)
                        await self._apply(event, time.monotonic() - since)
                        if job.ended and not isinstance(event, transcript.Finished):
                            break  # a listener ended it
            finally:
                job.worked_s = time.monotonic() - since
                self._vain_s = 0.0 if beside else time.monotonic() - reported

    async def _apply(self, event: transcript.TranscriptionEvent, elapsed_s: float) -> None:
        """Apply what the engine reports, ``elapsed_s`` into the attempt."""
        job, resumes = self.job, self._engine.model.spec.resumes
        works = not isinstance(event, transcript.Peaks)  # those are of the decoder
        if works and not self.reported and self._breakers.open:
            self._breakers.reported()
        self.reported = self.reported or works
        restarted = job.record.durable and job.record.crashes + job.record.interruptions > 0
        if isinstance(event, transcript.Finished) and not resumes and restarted:
            event = transcript.Finished(event.transcript.with_notice(RESTARTED_NOTICE))
        job.apply_report(event, elapsed_s)
        if isinstance(event, transcript.ResumePoint):
            job.vain_attempts = 0
            await job.written()
